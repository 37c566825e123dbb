//! The built-in maps that the ledger itself writes or reads.

use coco_kv::{MapName, Value, WriteSet};

/// The key of a map that holds a single value.
pub const SINGLE_KEY: [u8; 8] = [0; 8];

/// Signatures by a node's key over the Merkle root, JSON.
pub const SIGNATURES: &str = "public:ccf.internal.signatures";
/// Signatures by the service's key over the Merkle root, COSE_Sign1.
pub const COSE_SIGNATURES: &str = "public:ccf.internal.cose_signatures";
/// The serialised Merkle tree below a signature.
pub const TREE: &str = "public:ccf.internal.tree";
/// The digest of a snapshot.
pub const SNAPSHOT_EVIDENCE: &str = "public:ccf.internal.snapshot_evidence";
/// That a snapshot was asked for, and at which position.
pub const SNAPSHOT_CREATE: &str = "public:ccf.internal.snapshot_create";
/// The endorsement of the previous service identity by the current one.
pub const PREVIOUS_IDENTITY_ENDORSEMENT: &str =
    "public:ccf.internal.previous_service_identity_endorsement";
/// The last root that was signed before a recovery.
pub const PREVIOUS_LAST_SIGNED_ROOT: &str = "public:ccf.internal.previous_service_last_signed_root";
/// The certificate of the service before a recovery.
pub const PREVIOUS_SERVICE_IDENTITY: &str = "public:ccf.gov.service.previous_service_identity";
/// The certificate and status of the service.
pub const SERVICE_INFO: &str = "public:ccf.gov.service.info";
/// The nodes and their status.
pub const NODES_INFO: &str = "public:ccf.gov.nodes.info";
/// The nodes' certificates, endorsed by the service.
pub const NODES_ENDORSED_CERTIFICATES: &str = "public:ccf.gov.nodes.endorsed_certificates";

/// The value of a single-value map as a transaction writes it.
pub(crate) fn single<'a>(writes: &'a WriteSet, map: &str) -> Option<&'a Value> {
    writes.map(&MapName::new(map))?.get(&SINGLE_KEY).flatten()
}
