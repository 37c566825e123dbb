//! The node: everything that sees keys or plaintext, from the bytes of a client's stream to the
//! bytes of the ledger.
//!
//! ```text
//!   host::Host ── stream ─▶ session ─▶ dispatch ─▶ adapter      TLS, HTTP ▶ route, execute
//!                              │          │ authn               who calls
//!                              │          ▼
//!                              │       pipeline ─▶ consensus    commit point, batches, receipts
//!                              ◀── reply ─┘   └──▶ host::Disk   the ledger's files
//!
//!   node       start and stop; recovery, sealed secrets         server   the interfaces served
//!   join       how a node comes to a service                    channels to its other nodes
//!   endpoints  CCF's /node frontend and the common endpoints    historical, snapshots
//!   forward    what only the primary can do, for others
//! ```
//!
//! What applications and governance do is not here: they are adapters (`coco_adapter`). Neither are
//! sockets, files, clocks and randomness: they belong to the [`host::Host`], whose every answer may
//! be a lie.
//!
//! Invariants:
//! * a reply says "committed" only when it is, for ever;
//! * a caller is whoever the governed tables, as the transaction reads them, say it is;
//! * what a client or the host can make the node hold on to is bounded, in bytes and in time.
//!
//! ```
//! use coco_enclave::config::Config;
//!
//! let config = Config::parse(
//!     r#"{
//!         "network": { "rpc_interfaces": { "main": { "bind_address": "127.0.0.1:8000" } } },
//!         "command": { "type": "Start", "start": {} }
//!     }"#,
//! )?;
//! assert_eq!(config.network.rpc_interfaces["main"].max_open_sessions_soft, 1_000);
//! # Ok::<(), coco_enclave::config::ConfigError>(())
//! ```

#[cfg(test)]
extern crate self as coco_enclave;

pub mod authn;
pub mod channels;
pub mod config;
mod disk;
pub mod dispatch;
mod ease;
pub mod endpoints;
mod former;
pub mod forward;
mod historical;
pub mod host;
mod identities;
pub mod interface;
mod issuers;
pub mod join;
mod ledger_files;
pub mod node;
mod offload;
mod openapi;
pub mod pipeline;
pub mod recovery;
pub mod sealed;
pub mod server;
pub mod service;
pub mod session;
mod snapshots;
