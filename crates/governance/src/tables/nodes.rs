//! Nodes, and which code may join.

use std::collections::BTreeMap;

use coco_crypto::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::codec::{is_default, json_values};
use super::{Base64, Pem, Present, Table, tables};

tables! {
    /// Node id -> the node.
    NODES: Table<Digest, NodeInfo> = "public:ccf.gov.nodes.info";
    /// Node id -> certificate endorsed by the service.
    NODE_ENDORSED_CERTS: Table<Digest, Pem> = "public:ccf.gov.nodes.endorsed_certificates";
    /// Ours: address for other nodes -> who may put a node there without a vote.
    SEATS: Table<String, Seat> = "public:ccf.gov.nodes.seats";
    /// SGX measurement (hex) -> may join.
    SGX_MEASUREMENTS: Table<String, CodeStatus> = "public:ccf.gov.nodes.code_ids";
    /// Software-TEE measurement (text) -> may join.
    VIRTUAL_MEASUREMENTS: Table<String, CodeStatus> = "public:ccf.gov.nodes.virtual.measurements";
    /// Software-TEE host data (hex), a set.
    VIRTUAL_HOST_DATA: Table<String, Present> = "public:ccf.gov.nodes.virtual.host_data";
    /// SEV-SNP measurement (hex) -> may join.
    SNP_MEASUREMENTS: Table<String, CodeStatus> = "public:ccf.gov.nodes.snp.measurements";
    /// SEV-SNP host data (hex SHA-256) -> the security policy it is the digest of, or "".
    SNP_HOST_DATA: Table<String, String> = "public:ccf.gov.nodes.snp.host_data";
    /// DID of a utility-VM issuer -> feed -> lowest accepted version.
    SNP_UVM_ENDORSEMENTS: Table<String, BTreeMap<String, UvmFeed>> =
        "public:ccf.gov.nodes.snp.uvm_endorsements";
    /// CPU id (8 hex digits) -> lowest accepted TCB.
    SNP_TCB_VERSIONS: Table<String, TcbVersion> = "public:ccf.gov.nodes.snp.tcb_versions";
}

/// Who may put a node at an address without a vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The operator's certificate.
    pub operator_cert: Pem,
    /// The node that has last taken the seat, without a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
}

/// Whether code may join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CodeStatus {
    /// It may.
    AllowedToJoin,
}

/// A feed of utility-VM endorsements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UvmFeed {
    /// Lowest accepted security version, a decimal number.
    pub svn: String,
}

/// Lowest accepted versions of SEV-SNP firmware parts; an absent part is not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcbVersion {
    /// Boot loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_loader: Option<u32>,
    /// Trusted execution environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tee: Option<u32>,
    /// SNP firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp: Option<u32>,
    /// Microcode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<u32>,
    /// FMC firmware (Turin and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u32>,
    /// All of it as the processor reports it, 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hexstring: Option<String>,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeStatus {
    /// Asked to join.
    Pending,
    /// Holds the keys.
    Trusted,
    /// Removed.
    Retired,
}

/// The kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuoteFormat {
    /// SGX through Open Enclave.
    #[serde(rename = "OE_SGX_v1")]
    Sgx,
    /// The software TEE: proves nothing.
    #[serde(rename = "Insecure_Virtual")]
    InsecureVirtual,
    /// AMD SEV-SNP.
    #[serde(rename = "AMD_SEV_SNP_v1")]
    SevSnp,
}

/// Evidence and what is needed to verify it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteInfo {
    /// Kind.
    pub format: QuoteFormat,
    /// The evidence.
    pub quote: Base64,
    /// Certificates and collateral.
    pub endorsements: Base64,
    /// Endorsements of the utility VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uvm_endorsements: Option<Base64>,
    /// The TCB that the endorsements are for, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsed_tcb: Option<String>,
}

/// Addresses of the interface between nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeToNode {
    /// `host:port` the node listens on.
    pub bind_address: String,
    /// `host:port` others use, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_address: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

impl NodeToNode {
    /// `host:port` others use.
    pub fn address(&self) -> &str {
        self.published_address.as_ref().unwrap_or(&self.bind_address)
    }
}

/// Which certificate an interface shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    /// `Service`, `Node` or `Unsecured`.
    pub authority: String,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

/// An interface for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcInterface {
    /// `host:port` the node listens on.
    pub bind_address: String,
    /// `host:port` clients use, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_address: Option<String>,
    /// `tcp` or `udp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// `HTTP1` or `HTTP2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// Sessions beyond this many are answered 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_open_sessions_soft: Option<u64>,
    /// Sessions beyond this many are closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_open_sessions_hard: Option<u64>,
    /// Which certificate it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsement: Option<Endorsement>,
    /// HTTP limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_configuration: Option<Json>,
    /// How long a forwarded request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding_timeout_ms: Option<u64>,
    /// Patterns of the paths it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_endpoints: Option<Vec<String>>,
    /// Where requests are redirected instead of forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirections: Option<Json>,
    /// Ours: the protocol that is spoken there instead of CCF's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coco: Option<SpokenProtocol>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

/// A protocol that an interface speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpokenProtocol {
    /// Its name, such as `ethereum`.
    pub protocol: String,
}

impl RpcInterface {
    /// `host:port` clients use.
    pub fn address(&self) -> &str {
        self.published_address.as_ref().unwrap_or(&self.bind_address)
    }

    /// Whether it serves CCF's endpoints.
    pub fn is_ccf(&self) -> bool {
        self.coco.is_none()
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Where it stands.
    pub status: NodeStatus,
    /// Interface between nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_interface: Option<NodeToNode>,
    /// Interfaces for clients, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rpc_interfaces: BTreeMap<String, RpcInterface>,
    /// Evidence of what the node runs.
    pub quote_info: QuoteInfo,
    /// RSA key under which the node receives ledger secrets.
    pub encryption_pub_key: Pem,
    /// The ledger secret the node was given when it was trusted is valid from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_secret_seqno: Option<u64>,
    /// Measurement, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_digest: Option<String>,
    /// Request for the endorsed certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_signing_request: Option<Pem>,
    /// The node's key; its digest is the node id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Pem>,
    /// Whatever operators say about the node.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub node_data: Json,
    /// Its retirement is committed: it may be stopped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retired_committed: bool,
    /// The node's certificate (CCF 1.x).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<Json>,
    /// First client interface in the form of CCF 1.x, still written for old readers.
    #[serde(flatten)]
    pub legacy: BTreeMap<String, Json>,
}

impl NodeInfo {
    /// Fills in the addresses in the form of CCF 1.x from the present form.
    pub fn with_legacy_addresses(mut self) -> Self {
        let split = |address: &str| {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            (host.to_owned(), port.to_owned())
        };
        let mut set = |host_name: &str, port_name: &str, address: &str| {
            let (host, port) = split(address);
            self.legacy.insert(host_name.to_owned(), host.into());
            self.legacy.insert(port_name.to_owned(), port.into());
        };
        if let Some(interface) = &self.node_to_node_interface {
            set("nodehost", "nodeport", interface.address());
        }
        if let Some(interface) = self.rpc_interfaces.values().next() {
            set("rpchost", "rpcport", &interface.bind_address);
            set("pubhost", "pubport", interface.address());
        }
        self
    }
}

json_values!(CodeStatus, BTreeMap<String, UvmFeed>, TcbVersion, NodeInfo, Seat);
