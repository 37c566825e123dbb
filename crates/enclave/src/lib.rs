//! The node: sessions, dispatch, commit pipeline, recovery.

pub mod config;
pub mod host;
pub mod pipeline;
