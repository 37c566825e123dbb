//! The node: sessions, dispatch, commit pipeline, recovery.

pub mod config;
mod historical;
pub mod host;
mod ledger_files;
pub mod pipeline;
pub mod service;
mod snapshots;
