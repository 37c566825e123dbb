//! The node: sessions, dispatch, commit pipeline, recovery.

pub mod host;
pub mod pipeline;
