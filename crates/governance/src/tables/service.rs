//! The service itself.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::codec::json_values;
use super::{Cell, Pem, tables};

tables! {
    /// Identity and status.
    SERVICE_INFO: Cell<ServiceInfo> = "public:ccf.gov.service.info";
    /// Configuration under governance.
    SERVICE_CONFIG: Cell<ServiceConfig> = "public:ccf.gov.service.config";
    /// Certificate of the service that this one recovers, PEM.
    PREVIOUS_SERVICE_IDENTITY: Cell<String> = "public:ccf.gov.service.previous_service_identity";
}

/// What the service does for its participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceStatus {
    /// New, not yet opened by its members.
    Opening,
    /// Serves participants.
    Open,
    /// Opened for recovery: waits for members' shares.
    WaitingForRecoveryShares,
    /// Restored from a ledger, not yet opened by its members.
    Recovering,
}

impl ServiceStatus {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "Opening",
            Self::Open => "Open",
            Self::WaitingForRecoveryShares => "WaitingForRecoveryShares",
            Self::Recovering => "Recovering",
        }
    }
}

/// Identity and status of the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its certificate.
    pub cert: Pem,
    /// Its status.
    pub status: ServiceStatus,
    /// Where the table below this value was last written: the previous identity's position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_service_identity_version: Option<u64>,
    /// How often it has been recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_count: Option<u64>,
    /// Whatever operators say about the service.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub service_data: Json,
    /// The transaction that created it, `view.seqno`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_service_create_txid: Option<String>,
}

/// Configuration of the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// How many shares recover the service.
    #[serde(default)]
    pub recovery_threshold: u64,
    /// Always `CFT` (CCF 1.x).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consensus: Option<String>,
    /// Longest validity of a node's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_node_certificate_validity_days: Option<u64>,
    /// Longest validity of the service's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_service_certificate_validity_days: Option<u64>,
    /// How many recent proposals are remembered against replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_cose_proposals_window_size: Option<u64>,
    /// `OneTransaction` (before CCF 4.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconfiguration_type: Option<String>,
}

impl ServiceConfig {
    /// Longest validity of certificates when the configuration does not say.
    pub const DEFAULT_VALIDITY_DAYS: u64 = 365;
}

json_values!(ServiceInfo, ServiceConfig);
