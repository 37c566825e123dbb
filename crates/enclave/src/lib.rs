//! The node: sessions, dispatch, commit pipeline, recovery.

pub mod authn;
pub mod config;
pub mod dispatch;
pub mod endpoints;
mod historical;
pub mod host;
pub mod interface;
mod ledger_files;
pub mod node;
mod openapi;
pub mod pipeline;
pub mod recovery;
pub mod sealed;
pub mod server;
pub mod service;
pub mod session;
mod snapshots;
