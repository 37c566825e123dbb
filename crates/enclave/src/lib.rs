//! The node: sessions, dispatch, commit pipeline, recovery.

pub mod config;
mod historical;
pub mod host;
mod ledger_files;
pub mod node;
pub mod pipeline;
pub mod recovery;
pub mod sealed;
pub mod service;
mod snapshots;
