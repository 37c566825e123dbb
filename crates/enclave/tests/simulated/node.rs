//! Nodes on simulated hosts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use coco_adapter::{Endpoints, Outcome, Registry, TxStatus};
use coco_crypto::x509::{DistinguishedName, Validity};
use coco_crypto::{Certificate, Curve, KeyPair, PublicKey};
use coco_enclave::config::{Config, Files, StartMemberFiles};
use coco_enclave::host::Area;
use coco_enclave::node::{Adapters, Node, NodeState, StartError};
use coco_governance::tables::{SERVICE_INFO, ServiceStatus};
use coco_kv::{MapName, Tx, TxId};
use coco_ledger::audit::{AuditOptions, AuditReport, Auditor, ChunkSource, audit};

use super::{SeededEntropy, SimulatedDisk, SimulatedHost};

/// A configuration with these additions.
pub fn config(command: &str, additions: &str) -> Config {
    let start = r#""start": {}"#;
    let text = format!(
        r#"{{
            "network": {{"rpc_interfaces": {{"main": {{"bind_address": "127.0.0.1:8000"}}}}}},
            "command": {{"type": "{command}", {start}}},
            "output_files": {{"sealed_service_location": "sealed"}}
            {additions}
        }}"#
    );
    Config::parse(&text).unwrap()
}

pub fn files() -> Files {
    let entropy = SeededEntropy::new(77);
    let key = KeyPair::generate(Curve::P256, &entropy).unwrap();
    let name = DistinguishedName::common_name("member");
    let validity = Validity::days(1_767_225_600, 365);
    let certificate = Certificate::for_member(&key, &name, validity, &entropy).unwrap();
    let member = StartMemberFiles {
        certificate: certificate.to_pem(),
        encryption_public_key: None,
        data: None,
        recovery_role: None,
    };
    Files { members: vec![member], constitution: "// none".to_owned(), ..Files::default() }
}

/// A node of a new service, or the next node of the service on the disk.
pub async fn start(
    seed: u64,
    disk: &Arc<SimulatedDisk>,
    command: &str,
    additions: &str,
) -> Result<Node, StartError> {
    let app: Arc<dyn Endpoints> = Arc::new(Registry::new("test", "Test", ""));
    start_with(seed, disk, command, additions, app).await
}

/// The same with these adapters.
pub async fn start_with(
    seed: u64,
    disk: &Arc<SimulatedDisk>,
    command: &str,
    additions: &str,
    adapters: impl Into<Adapters>,
) -> Result<Node, StartError> {
    let host = Arc::new(SimulatedHost::new(seed, Arc::clone(disk)));
    Node::start(host, config(command, additions), files(), adapters).await
}

/// Does what the members' votes would do: opens a new service, agrees to a recovered one and waits
/// until the node has opened it.
pub async fn agree(node: &Node) {
    let mut tx = node.pipeline().store().begin();
    let mut info = SERVICE_INFO.expect(&mut tx).unwrap();
    info.status = match info.status {
        ServiceStatus::Opening => ServiceStatus::Open,
        ServiceStatus::Recovering => ServiceStatus::WaitingForRecoveryShares,
        other => other,
    };
    SERVICE_INFO.put(&mut tx, &info);
    let (_, committed) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
    assert_eq!(committed.await, TxStatus::Committed);
    while node.state() != NodeState::PartOfNetwork {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A node of a service that its members have opened.
pub async fn start_open(
    seed: u64,
    disk: &Arc<SimulatedDisk>,
    command: &str,
    additions: &str,
) -> Result<Node, StartError> {
    let node = start(seed, disk, command, additions).await?;
    agree(&node).await;
    Ok(node)
}

/// The ledger's files on a simulated disk.
pub struct LedgerOf<'a>(pub &'a SimulatedDisk);

impl ChunkSource for LedgerOf<'_> {
    type Bytes = Vec<u8>;
    type Error = Infallible;

    fn names(&mut self) -> Result<Vec<String>, Infallible> {
        Ok(self.0.names(Area::Ledger))
    }

    fn read(&mut self, name: &str) -> Result<Vec<u8>, Infallible> {
        Ok(self.0.file(Area::Ledger, name).unwrap())
    }
}

/// Verifies the ledger on the disk as an auditor would.
pub fn audited(disk: &SimulatedDisk, service: PublicKey) -> AuditReport {
    let options = AuditOptions { service, secrets: None, accept_torn_tail: false };
    audit(&mut LedgerOf(disk), Auditor::new(options), &mut |_| {}).unwrap()
}

/// A transaction that writes a key, privately and publicly.
pub fn put(node: &Node, key: &str, value: &str) -> Tx {
    let mut tx = node.pipeline().store().begin();
    tx.put(&MapName::new("records"), key, value);
    tx.put(&MapName::new("public:log"), key, value);
    tx
}

pub async fn put_committed(node: &Node, key: &str, value: &str) -> TxId {
    let tx = put(node, key, value);
    let (executed, committed) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
    assert_eq!(committed.await, TxStatus::Committed);
    executed.tx_id
}

pub fn service_key(node: &Node) -> PublicKey {
    node.identity().service_certificate.public_key().unwrap()
}
