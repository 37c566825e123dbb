//! Governance: members decide, by proposals and ballots, what the service is and whom it trusts.
//!
//! The rules are a *constitution*: JavaScript with a few functions that members themselves can
//! replace. This crate runs it, keeps what it decides in governed tables, and serves CCF's `/gov`
//! API. It holds no keys and reacts to nothing: the enclave lends it the service's keys
//! ([`ServiceControl`]) and acts on what is committed.
//!
//! ```text
//!   signed proposal ──▶ replay window ──▶ validate() ──▶ resolve() ──┐ Open
//!   signed ballot   ───────────────────▶ every ballot ──▶ resolve() ─┤ Rejected
//!                                                                    │ Accepted
//!   governed tables ◀── actions ◀── apply(), with the node's natives ┘
//! ```
//!
//! * A step that fails writes nothing: the request is answered 500 and the transaction dropped.
//! * A signed proposal counts once; its id binds it to the state that its signer's node read.
//! * Scripts read governed tables only; `apply` alone writes them, and only through the store.
//! * A node is trusted by vote, or takes a seat that was voted for ([`seats`]).
//! * A service opens only with enough recovery members for its threshold, and the default
//!   constitution lets none of them go below it.
//!
//! [`tables`] names every governed map with typed keys and values, for whoever reads them; the
//! enclave authenticates callers with `MEMBER_CERTS`, `USER_CERTS`, `NODES` and
//! `JWT_PUBLIC_SIGNING_KEYS`. [`default_constitution`] is our own text. [`genesis`] writes the
//! transaction that nobody can vote on, the first of a service; [`recovery`] those of a service
//! that goes on from the ledger of another.
//!
//! ```
//! use coco_crypto::sha256;
//! use coco_governance::tables::{MEMBERS, MemberInfo, MemberStatus};
//! use coco_kv::{Store, View};
//!
//! let mut tx = Store::new(View(2)).begin();
//! let id = sha256(b"the DER of a certificate");
//! let member = MemberInfo {
//!     status: MemberStatus::Active,
//!     member_data: serde_json::Value::Null,
//!     recovery_role: None,
//! };
//! MEMBERS.put(&mut tx, &id, &member);
//! assert_eq!(MEMBERS.get(&mut tx, &id)?, Some(member));
//! # Ok::<(), coco_governance::tables::TableError>(())
//! ```

mod api;
pub mod constitution;
mod custody;
mod decision;
pub mod genesis;
pub mod jwt;
mod moment;
mod natives;
pub mod recovery;
mod replay;
pub mod seats;
mod service_control;
pub mod tables;

pub use api::governance_api;
pub use constitution::default_constitution;
pub use custody::{CustodyError, renew_custody};
pub use genesis::create_service;
pub use recovery::{complete_recovery, recover_service};
pub use service_control::{LedgerPeriod, ServiceControl};
