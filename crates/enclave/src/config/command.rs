//! `command`: what to do at the start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{ConfigError, Size, Time, megabytes, millis, section};

/// What to do at the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Which of them.
    #[serde(rename = "type")]
    pub kind: CommandType,
    /// Where the service's certificate is written, or read from by `Join`.
    #[serde(default = "default_service_certificate")]
    pub service_certificate_file: String,
    /// For `Start`.
    #[serde(default)]
    pub start: Option<Start>,
    /// For `Join`.
    #[serde(default)]
    pub join: Option<Join>,
    /// For `Recover`.
    #[serde(default)]
    pub recover: Option<Recover>,
}

fn default_service_certificate() -> String {
    "service_cert.pem".to_owned()
}

/// How a node comes to its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandType {
    /// A new service.
    Start,
    /// An existing service, through one of its nodes.
    Join,
    /// A lost service, from its ledger and the members' shares.
    Recover,
    /// Ours: a service that recovers that of this node's ledger, with the ledger secrets that this
    /// machine's TEE sealed, once its members agree.
    Restart,
}

section! {
    /// A new service.
    Start {
        /// The first members.
        members: Vec<StartMember> = Vec::new(),
        /// Files whose text, joined, is the constitution.
        constitution_files: Vec<String> = Vec::new(),
        /// What goes into the service's configuration record.
        service_configuration: ServiceConfiguration = ServiceConfiguration::default(),
        /// Validity of the first service certificate.
        initial_service_certificate_validity_days: u32 = 1,
        /// X.509 subject of the service.
        service_subject_name: String = "CN=CCF Service".to_owned(),
        /// What COSE signatures say of themselves.
        cose_signatures: CoseSignatures = CoseSignatures::default(),
        /// Ours: what the protocols of the service begin with, by name. Each protocol reads its own.
        protocols: BTreeMap<String, Json> = BTreeMap::new(),
    }
}

/// One of the first members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartMember {
    /// File with the certificate.
    pub certificate_file: String,
    /// File with the public key for recovery shares.
    #[serde(default)]
    pub encryption_public_key_file: Option<String>,
    /// File with JSON that goes into the member's record.
    #[serde(default)]
    pub data_json_file: Option<String>,
    /// What the member may do in a recovery.
    #[serde(default)]
    pub recovery_role: Option<RecoveryRole>,
}

/// What a member may do in a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryRole {
    /// Nothing.
    NonParticipant,
    /// Submit a share.
    Participant,
    /// Recover alone.
    Owner,
}

section! {
    /// What goes into the service's configuration record.
    ServiceConfiguration {
        /// Shares needed; 0 takes the number of recovery members.
        recovery_threshold: u64 = 0,
        /// Limit of a node certificate's validity.
        maximum_node_certificate_validity_days: u32 = 365,
        /// Limit of a service certificate's validity.
        maximum_service_certificate_validity_days: u32 = 365,
        /// Proposals remembered against replay.
        recent_cose_proposals_window_size: u64 = 100,
        /// CCF's; always one transaction.
        reconfiguration_type: Option<String> = None,
        /// CCF's; always `CFT`.
        consensus: Option<String> = None,
    }
}

section! {
    /// What COSE signatures say of themselves.
    CoseSignatures {
        /// CWT issuer.
        issuer: String = "service.example.com".to_owned(),
        /// CWT subject.
        subject: String = "ledger.signature".to_owned(),
    }
}

section! {
    /// An existing service.
    Join {
        /// `host:port` of one of its nodes.
        target_rpc_address: String = String::new(),
        /// Pause between tries.
        retry_timeout: Time = millis(1_000),
        /// Whether to follow to the primary.
        follow_redirect: bool = true,
        /// Whether to fetch a snapshot first.
        fetch_recent_snapshot: bool = true,
        /// Tries.
        fetch_snapshot_max_attempts: u32 = 3,
        /// Pause between tries.
        fetch_snapshot_retry_interval: Time = millis(1_000),
        /// Limit.
        fetch_snapshot_max_size: Size = megabytes(10 << 10),
        /// Ours: takes the seat at this node's address, by the word of its operator.
        seat: Option<JoinSeat> = None,
        /// File name.
        host_data_transparent_statement_path: Option<String> = None,
    }
}

/// Who puts the node there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinSeat {
    /// File with the operator's certificate.
    pub operator_certificate_file: String,
    /// File with the operator's private key.
    pub operator_private_key_file: String,
}

section! {
    /// A lost service.
    Recover {
        /// Validity of the new service certificate.
        initial_service_certificate_validity_days: u32 = 1,
        /// File with the certificate of the lost service.
        previous_service_identity_file: String = String::new(),
        /// CCF's sealed ledger secrets; without effect.
        previous_sealed_ledger_secret_location: Option<String> = None,
    }
}

impl Command {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let missing = match self.kind {
            CommandType::Start => self.start.is_none().then_some("command.start"),
            CommandType::Join => self.join.is_none().then_some("command.join"),
            CommandType::Recover => self.recover.is_none().then_some("command.recover"),
            CommandType::Restart => None,
        };
        if let Some(key) = missing {
            let rule = "present for this command.type";
            return Err(ConfigError::OutOfRange { key, value: "absent".to_owned(), rule });
        }
        self.start.as_ref().map_or(Ok(()), Start::check)
    }
}

impl Start {
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: String, rule| Err(ConfigError::OutOfRange { key, value, rule });
        if self.initial_service_certificate_validity_days == 0 {
            let key = "command.start.initial_service_certificate_validity_days";
            return refuse(key, "0".to_owned(), "at least 1");
        }
        let configured = &self.service_configuration;
        let window = configured.recent_cose_proposals_window_size;
        if !(1..=10_000).contains(&window) {
            let key = "command.start.service_configuration.recent_cose_proposals_window_size";
            return refuse(key, window.to_string(), "1 to 10000");
        }
        if let Some(other) =
            configured.reconfiguration_type.as_deref().filter(|it| *it != "OneTransaction")
        {
            let key = "command.start.service_configuration.reconfiguration_type";
            return refuse(key, format!("{other:?}"), "OneTransaction");
        }
        if let Some(other) = configured.consensus.as_deref().filter(|it| *it != "CFT") {
            let key = "command.start.service_configuration.consensus";
            return refuse(key, format!("{other:?}"), "CFT");
        }
        Ok(())
    }
}
