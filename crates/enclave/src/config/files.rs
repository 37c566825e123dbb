//! The contents of the files that the configuration names.

use coco_governance::seats::Operator;
use serde_json::Value as Json;

use super::RecoveryRole;

/// The contents of the files that the configuration names, read by the binary.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// For each of `command.start.members`.
    pub members: Vec<StartMemberFiles>,
    /// The text of `command.start.constitution_files`, joined in order.
    pub constitution: String,
    /// `node_data_json_file`.
    pub node_data: Option<Json>,
    /// `service_data_json_file`.
    pub service_data: Option<Json>,
    /// The certificate in `command.service_certificate_file`, PEM, for `Join`.
    pub service_certificate: Option<String>,
    /// The operator in `command.join.seat`, for `Join`.
    pub operator: Option<Operator>,
    /// SHA-256 of the node's executable: the software TEE reports it as host data.
    pub executable_digest: coco_crypto::Digest,
}

/// One of the first members.
#[derive(Clone, Debug)]
pub struct StartMemberFiles {
    /// The certificate, PEM.
    pub certificate: String,
    /// The public key for recovery shares, PEM.
    pub encryption_public_key: Option<String>,
    /// What goes into the member's record.
    pub data: Option<Json>,
    /// What the member may do in a recovery.
    pub recovery_role: Option<RecoveryRole>,
}
