//! Governance: the constitution, proposals and ballots, members, participants, nodes, and the
//! tables all of that lives in.
//!
//! [`tables`] names every governed map with typed keys and values, for whoever reads them (the
//! enclave authenticates callers with them):
//!
//! | what | tables |
//! |---|---|
//! | members | [`MEMBER_CERTS`], [`MEMBERS`], [`MEMBER_ENCRYPTION_KEYS`], [`MEMBER_ACKS`] |
//! | participants | [`USER_CERTS`], [`USERS`] |
//! | nodes | [`NODES`], [`NODE_ENDORSED_CERTS`] |
//! | code manifest | [`VIRTUAL_MEASUREMENTS`], [`VIRTUAL_HOST_DATA`], [`SNP_MEASUREMENTS`], ... |
//! | service | [`SERVICE_INFO`], [`SERVICE_CONFIG`], [`CONSTITUTION`] |
//! | proposals | [`PROPOSALS`], [`PROPOSALS_INFO`], [`COSE_HISTORY`], [`COSE_RECENT_PROPOSALS`] |
//! | applications | [`MODULES`], [`ENDPOINTS`], [`JS_RUNTIME_OPTIONS`], ... |
//! | tokens | [`JWT_ISSUERS`], [`JWT_PUBLIC_SIGNING_KEYS`], [`CA_CERT_BUNDLES`] |
//! | key custody | [`RECOVERY_SHARES`], [`HISTORICAL_ENCRYPTED_LEDGER_SECRET`], ... |
//!
//! [`MEMBER_CERTS`]: tables::MEMBER_CERTS
//! [`MEMBERS`]: tables::MEMBERS
//! [`MEMBER_ENCRYPTION_KEYS`]: tables::MEMBER_ENCRYPTION_KEYS
//! [`MEMBER_ACKS`]: tables::MEMBER_ACKS
//! [`USER_CERTS`]: tables::USER_CERTS
//! [`USERS`]: tables::USERS
//! [`NODES`]: tables::NODES
//! [`NODE_ENDORSED_CERTS`]: tables::NODE_ENDORSED_CERTS
//! [`VIRTUAL_MEASUREMENTS`]: tables::VIRTUAL_MEASUREMENTS
//! [`VIRTUAL_HOST_DATA`]: tables::VIRTUAL_HOST_DATA
//! [`SNP_MEASUREMENTS`]: tables::SNP_MEASUREMENTS
//! [`SERVICE_INFO`]: tables::SERVICE_INFO
//! [`SERVICE_CONFIG`]: tables::SERVICE_CONFIG
//! [`CONSTITUTION`]: tables::CONSTITUTION
//! [`PROPOSALS`]: tables::PROPOSALS
//! [`PROPOSALS_INFO`]: tables::PROPOSALS_INFO
//! [`COSE_HISTORY`]: tables::COSE_HISTORY
//! [`COSE_RECENT_PROPOSALS`]: tables::COSE_RECENT_PROPOSALS
//! [`MODULES`]: tables::MODULES
//! [`ENDPOINTS`]: tables::ENDPOINTS
//! [`JS_RUNTIME_OPTIONS`]: tables::JS_RUNTIME_OPTIONS
//! [`JWT_ISSUERS`]: tables::JWT_ISSUERS
//! [`JWT_PUBLIC_SIGNING_KEYS`]: tables::JWT_PUBLIC_SIGNING_KEYS
//! [`CA_CERT_BUNDLES`]: tables::CA_CERT_BUNDLES
//! [`RECOVERY_SHARES`]: tables::RECOVERY_SHARES
//! [`HISTORICAL_ENCRYPTED_LEDGER_SECRET`]: tables::HISTORICAL_ENCRYPTED_LEDGER_SECRET
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
mod natives;
mod replay;
mod service_control;
pub mod tables;

pub use api::governance_api;
pub use constitution::default_constitution;
pub use custody::{CustodyError, renew_custody};
pub use genesis::{create_service, restart_service};
pub use service_control::{LedgerPeriod, ServiceControl};
