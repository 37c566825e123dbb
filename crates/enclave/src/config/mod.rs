//! The node's configuration: CCF's JSON schema with CCF's defaults, and a few keys of our own.
//!
//! Ours are `ledger.sync`, `ledger.sync_interval`, `ledger_signatures.node_delay`, the command type
//! `Restart`, `command.start.protocols`, `network.rpc_interfaces.*.coco`, and
//! `output_files.sealed_service_location`; our defaults differ in `ledger_signatures.delay` (10 ms)
//! and `node_certificate.curve_id` (P-256). Keys that configure what this version does not have
//! are accepted and have no effect, so that an operator's file can be taken over; keys that nobody
//! knows are errors.
//!
//! File names stay names here: the binary reads the files and hands over [`Files`].

mod command;
mod files;
mod network;
mod units;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pipeline::MAX_UNCUT_BYTES;

pub use command::{
    Command, CommandType, CoseSignatures, Join, JoinSeat, Recover, RecoveryRole,
    ServiceConfiguration, Start, StartMember,
};
pub use files::{Files, StartMemberFiles};
pub use network::{
    AppProtocol, Authority, Endorsement, HttpConfiguration, Interface, Network, NodeInterface,
    ProtocolInterface, Redirection, Redirections, Role,
};
pub use units::{Size, Time, UnitSyntax};

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, an unknown key, or a value of the wrong kind.
    #[error("the configuration is not valid: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A value out of its range.
    #[error("{key} is {value}, but must be {rule}")]
    OutOfRange {
        /// The key, with dots.
        key: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        rule: &'static str,
    },
}

macro_rules! section {
    (
        $(#[$meta:meta])* $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}
pub(crate) use section;

const fn millis(number: u64) -> Time {
    Time(std::time::Duration::from_millis(number))
}

const fn megabytes(number: u64) -> Size {
    Size(number << 20)
}

/// The whole configuration of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Interfaces.
    pub network: Network,
    /// What to do at the start.
    pub command: Command,
    /// The node's certificate.
    #[serde(default)]
    pub node_certificate: NodeCertificate,
    /// The ledger's files.
    #[serde(default)]
    pub ledger: Ledger,
    /// When to sign.
    #[serde(default)]
    pub ledger_signatures: LedgerSignatures,
    /// When to write snapshots.
    #[serde(default)]
    pub snapshots: Snapshots,
    /// Limits of the log.
    #[serde(default)]
    pub consensus: Consensus,
    /// Refresh of token keys.
    #[serde(default)]
    pub jwt: Jwt,
    /// Where evidence and its endorsements come from.
    #[serde(default)]
    pub attestation: Attestation,
    /// Files that the node writes for its operator.
    #[serde(default)]
    pub output_files: OutputFiles,
    /// Log output.
    #[serde(default)]
    pub logging: Logging,
    /// CCF's enclave ring buffers; without effect.
    #[serde(default)]
    pub memory: Memory,
    /// Retention of files.
    #[serde(default)]
    pub files_cleanup: FilesCleanup,
    /// Fetching of previous identities; without effect in this version.
    #[serde(default)]
    pub identity_history_fetch: IdentityHistoryFetch,
    /// Recovery without shares; without effect in this version.
    #[serde(default)]
    pub sealing_recovery: Option<SealingRecovery>,
    /// Threads that execute transactions; 0 means one less than the cores, and at least one.
    #[serde(default)]
    pub worker_threads: usize,
    /// Limit of a node-to-node message.
    #[serde(default = "default_message_limit")]
    pub node_to_node_message_limit: u64,
    /// Bytes of ledger history kept in memory for queries.
    #[serde(default = "default_historical_cache")]
    pub historical_cache_soft_limit: Size,
    /// A session without traffic is closed after this; `null` never.
    #[serde(default = "default_idle_timeout")]
    pub idle_connection_timeout: Option<Time>,
    /// A pending node that asks no more is forgotten after this.
    #[serde(default = "default_pending_node_timeout")]
    pub pending_node_timeout: Time,
    /// CCF's timer; without effect, since nothing here waits for a tick.
    #[serde(default = "default_tick")]
    pub tick_interval: Time,
    /// A disk operation that takes longer is logged.
    #[serde(default = "default_tick")]
    pub slow_io_logging_threshold: Time,
    /// Source address of outgoing node-to-node connections.
    #[serde(default)]
    pub node_client_interface: Option<String>,
    /// Limit on making an outgoing connection.
    #[serde(default = "default_connection_timeout")]
    pub client_connection_timeout: Time,
    /// File with JSON that goes into the node's record.
    #[serde(default)]
    pub node_data_json_file: Option<String>,
    /// File with JSON that goes into the service's record.
    #[serde(default)]
    pub service_data_json_file: Option<String>,
    /// Whether the first SIGTERM is only a notice.
    #[serde(default)]
    pub ignore_first_sigterm: bool,
}

fn default_message_limit() -> u64 {
    23_726_566
}
fn default_historical_cache() -> Size {
    megabytes(512)
}
fn default_idle_timeout() -> Option<Time> {
    Some(millis(60_000))
}
fn default_pending_node_timeout() -> Time {
    millis(3_600_000)
}
fn default_tick() -> Time {
    millis(10)
}
fn default_connection_timeout() -> Time {
    millis(2_000)
}

section! {
    /// The node's certificate.
    NodeCertificate {
        /// X.509 subject.
        subject_name: String = "CN=CCF Node".to_owned(),
        /// `iPAddress:..` and `dNSName:..`; empty takes the published addresses.
        subject_alt_names: Vec<String> = Vec::new(),
        /// Curve of the node's key.
        curve_id: CurveId = CurveId::Secp256R1,
        /// Validity of the first certificate.
        initial_validity_days: u32 = 1,
    }
}

/// An elliptic curve, under CCF's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CurveId {
    /// P-256.
    Secp256R1,
    /// P-384.
    Secp384R1,
}

section! {
    /// The ledger's files.
    Ledger {
        /// The main directory.
        directory: String = "ledger".to_owned(),
        /// Directories with older chunks.
        read_only_directories: Vec<String> = Vec::new(),
        /// A chunk is completed at the first signature after this many bytes.
        chunk_size: Size = megabytes(5),
        /// The largest entry.
        max_transaction_size: Size = megabytes(32),
        /// When a batch counts as persisted.
        sync: Sync = Sync::Always,
        /// The longest time without a sync under [`Sync::Interval`].
        sync_interval: Time = millis(100),
    }
}

/// When a batch counts as persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// When it survives a power cut.
    Always,
    /// When it is with the operating system; synced every `ledger.sync_interval`.
    Interval,
    /// When it is with the operating system, as in CCF.
    Never,
}

section! {
    /// When a batch is cut at the latest, if nobody waits for it.
    LedgerSignatures {
        /// After this many transactions.
        tx_count: u64 = 5_000,
        /// After this time.
        delay: Time = millis(10),
        /// Every batch is signed by the service (COSE). After this time since it last did, the node
        /// signs one too (JSON): 0 for every one.
        node_delay: Time = millis(1_000),
    }
}

section! {
    /// When to write snapshots.
    Snapshots {
        /// The directory.
        directory: String = "snapshots".to_owned(),
        /// After this many transactions, at the next signature.
        tx_count: u64 = 10_000,
        /// After `time_interval`, if there were this many.
        min_tx_count: u64 = 2,
        /// After this time too; 0 never.
        time_interval: Time = millis(0),
        /// Directory with older snapshots.
        read_only_directory: Option<String> = None,
        /// Fetching by backups.
        backup_fetch: BackupFetch = BackupFetch::default(),
    }
}

section! {
    /// Fetching of snapshots by backups.
    BackupFetch {
        /// Whether to.
        enabled: bool = false,
        /// Tries.
        max_attempts: u32 = 3,
        /// Pause between tries.
        retry_interval: Time = millis(1_000),
        /// CCF's interface to ask; without effect: nodes ask each other over their channels.
        target_rpc_interface: Option<String> = None,
        /// Limit.
        max_size: Size = megabytes(200),
    }
}

section! {
    /// Limits of the log.
    Consensus {
        /// Heartbeat.
        message_timeout: Time = millis(50),
        /// A backup that hears nothing of the primary stands for election after half of this at
        /// least, and all of it at most. CCF's default is ten times as long.
        election_timeout: Time = millis(500),
        /// Transactions executed and not committed before new ones are refused.
        max_uncommitted_tx_count: u64 = 10_000,
    }
}

section! {
    /// Refresh of token keys.
    Jwt {
        /// How often.
        key_refresh_interval: Time = millis(1_800_000),
        /// Limit of an answer.
        key_refresh_max_response_size: Size = megabytes(1),
    }
}

section! {
    /// Where evidence and its endorsements come from.
    Attestation {
        /// Servers for AMD's endorsements.
        snp_endorsements_servers: Vec<EndorsementsServer> = Vec::new(),
        /// File name.
        snp_security_policy_file: Option<String> = None,
        /// File name.
        snp_uvm_endorsements_file: Option<String> = None,
        /// File name.
        snp_endorsements_file: Option<String> = None,
    }
}

/// A server for AMD's endorsements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsementsServer {
    /// Which protocol it speaks.
    #[serde(rename = "type", default)]
    pub kind: EndorsementsKind,
    /// Its address.
    #[serde(default)]
    pub url: Option<String>,
    /// Tries.
    #[serde(default)]
    pub max_retries_count: Option<u32>,
}

/// Which protocol a server for endorsements speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndorsementsKind {
    /// Azure's.
    #[default]
    Azure,
    /// AMD's own.
    AMD,
    /// The one inside a confidential container.
    THIM,
}

section! {
    /// Files that the node writes for its operator.
    OutputFiles {
        /// The node's self-signed certificate.
        node_certificate_file: String = "nodecert.pem".to_owned(),
        /// The process id.
        pid_file: String = "node.pid".to_owned(),
        /// Address of the node-to-node interface.
        node_to_node_address_file: String = String::new(),
        /// Addresses of the other interfaces.
        rpc_addresses_file: String = String::new(),
        /// CCF's sealed ledger secrets; without effect.
        sealed_ledger_secret_location: Option<String> = None,
        /// Directory for the service's secrets, sealed by the TEE, for `Restart`; without it
        /// nothing is sealed.
        sealed_service_location: Option<String> = None,
    }
}

section! {
    /// Log output.
    Logging {
        /// How.
        format: LogFormat = LogFormat::Text,
        /// Older CCF's level; the command line decides.
        host_level: Option<String> = None,
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

section! {
    /// CCF's enclave ring buffers.
    Memory {
        /// Ring.
        circuit_size: Size = megabytes(16),
        /// Message.
        max_msg_size: Size = megabytes(64),
        /// Fragment.
        max_fragment_size: Size = Size(256 << 10),
    }
}

section! {
    /// Retention of files.
    FilesCleanup {
        /// Committed snapshots to keep.
        max_snapshots: Option<usize> = None,
        /// Committed chunks to keep; older ones go that are in a read-only directory, too.
        max_committed_ledger_chunks: Option<usize> = None,
        /// How often.
        interval: Time = millis(30_000),
    }
}

section! {
    /// Fetching of previous identities.
    IdentityHistoryFetch {
        /// Tries.
        max_attempts: u32 = 100,
        /// Pause between tries.
        retry_interval: Time = millis(100),
    }
}

/// Recovery without shares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealingRecovery {
    /// This node's place.
    pub location: Location,
    /// How the nodes find the longest ledger.
    #[serde(default)]
    pub recovery_decision_protocol: Option<RecoveryDecision>,
}

/// A node's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
}

/// How the nodes find the longest ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryDecision {
    /// All places.
    pub expected_locations: Vec<Location>,
    /// Pause between messages.
    #[serde(default = "default_retry")]
    pub message_retry_timeout: Time,
    /// When to go on without the missing.
    #[serde(default = "default_failover")]
    pub failover_timeout: Time,
}

fn default_retry() -> Time {
    millis(100)
}
fn default_failover() -> Time {
    millis(2_000)
}

impl Config {
    /// Reads and checks a configuration.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types cannot say.
    pub fn check(&self) -> Result<(), ConfigError> {
        let positive = |key, value: u64| {
            let rule = "at least 1";
            if value > 0 {
                Ok(())
            } else {
                Err(ConfigError::OutOfRange { key, value: "0".into(), rule })
            }
        };
        positive("ledger.chunk_size", self.ledger.chunk_size.0)?;
        self.check_transaction_size()?;
        positive("ledger_signatures.tx_count", self.ledger_signatures.tx_count)?;
        positive("snapshots.tx_count", self.snapshots.tx_count)?;
        positive("consensus.max_uncommitted_tx_count", self.consensus.max_uncommitted_tx_count)?;
        self.check_timeouts()?;
        positive("network.rpc_interfaces", self.network.rpc_interfaces.len() as u64)?;
        let days = u64::from(self.node_certificate.initial_validity_days);
        positive("node_certificate.initial_validity_days", days)?;
        positive("files_cleanup.interval", self.files_cleanup.interval.0.as_millis() as u64)?;
        let FilesCleanup { max_snapshots, max_committed_ledger_chunks, .. } = self.files_cleanup;
        positive("files_cleanup.max_snapshots", max_snapshots.unwrap_or(1) as u64)?;
        if let Some(chunks) = max_committed_ledger_chunks {
            let key = "files_cleanup.max_committed_ledger_chunks";
            positive(key, chunks as u64)?;
            if self.ledger.read_only_directories.is_empty() {
                let rule = "absent without ledger.read_only_directories, where the others are";
                return Err(ConfigError::OutOfRange { key, value: chunks.to_string(), rule });
            }
        }
        self.network.check()?;
        self.command.check()
    }

    /// A service's first transaction holds its constitution; every transaction fits into a batch.
    fn check_transaction_size(&self) -> Result<(), ConfigError> {
        let size = self.ledger.max_transaction_size;
        match (megabytes(1)..=Size(MAX_UNCUT_BYTES)).contains(&size) {
            true => Ok(()),
            false => Err(ConfigError::OutOfRange {
                key: "ledger.max_transaction_size",
                value: size.to_string(),
                rule: "1MB to 64MB",
            }),
        }
    }

    fn check_timeouts(&self) -> Result<(), ConfigError> {
        let Consensus { message_timeout, election_timeout, .. } = self.consensus;
        let timeouts = [
            ("consensus.message_timeout", message_timeout),
            ("consensus.election_timeout", election_timeout),
        ];
        match timeouts.into_iter().find(|(_, timeout)| timeout.0.is_zero()) {
            Some((key, zero)) => {
                let rule = "at least 1ms";
                Err(ConfigError::OutOfRange { key, value: zero.to_string(), rule })
            }
            None => Ok(()),
        }
    }

    /// The interface of this name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.network.rpc_interfaces.get(name)
    }

    /// Whether the node can be one of several: it has an interface for others.
    pub fn is_networked(&self) -> bool {
        self.network.node_to_node_interface.is_some()
    }

    /// All interfaces by name.
    pub fn interfaces(&self) -> &BTreeMap<String, Interface> {
        &self.network.rpc_interfaces
    }
}

#[cfg(test)]
mod tests;
