//! A whole node that serves clients over in-memory streams, in virtual time.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "this is the host's side")]

pub mod client;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use coco_adapter::{Endpoints, Outcome, TxStatus};
use coco_crypto::x509::{DistinguishedName, Validity};
use coco_crypto::{Certificate, Curve, Digest, Entropy, KeyPair};
use coco_enclave::config::{Config, Files, StartMemberFiles};
use coco_enclave::host::{Accepted, BoxFuture, Disk, Host};
use coco_enclave::node::{Adapters, Node};
use coco_enclave::server::Server;
use coco_governance::tables::{Pem, SERVICE_INFO, ServiceStatus, USER_CERTS, USERS, UserInfo};
use coco_kv::Tx;
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc};

use crate::simulated::{SeededEntropy, SimulatedDisk, SimulatedHost};

/// What fits into a stream before its writer has to wait.
const STREAM_BYTES: usize = 64 * 1024;

/// The moment at which simulated hosts start, in seconds.
pub const START_S: u64 = 1_767_225_600;

/// A simulated host with interfaces.
pub struct ServedHost {
    simulated: SimulatedHost,
    arriving: HashMap<String, Mutex<mpsc::UnboundedReceiver<DuplexStream>>>,
}

impl Host for ServedHost {
    fn entropy(&self) -> &dyn Entropy {
        self.simulated.entropy()
    }

    fn now_ms(&self) -> u64 {
        self.simulated.now_ms()
    }

    fn uptime(&self) -> Duration {
        self.simulated.uptime()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.simulated.sleep(duration)
    }

    fn accept<'a>(&'a self, interface: &'a str) -> BoxFuture<'a, io::Result<Accepted>> {
        Box::pin(async move {
            match self.arriving[interface].lock().await.recv().await {
                Some(stream) => {
                    Ok(Accepted { stream: Box::new(stream), peer: "test:1".to_owned() })
                }
                None => std::future::pending().await,
            }
        })
    }

    fn disk(&self) -> &dyn Disk {
        self.simulated.disk()
    }
}

impl ServedHost {
    /// A host with one interface, `main`, and the way into it.
    pub fn with_one_interface() -> (Arc<Self>, mpsc::UnboundedSender<DuplexStream>) {
        let simulated = SimulatedHost::new(1, SimulatedDisk::new());
        let (sender, receiver) = mpsc::unbounded_channel();
        let arriving = HashMap::from([("main".to_owned(), Mutex::new(receiver))]);
        (Arc::new(Self { simulated, arriving }), sender)
    }
}

/// A key with its certificate.
pub struct Someone {
    pub key: KeyPair,
    pub certificate: Certificate,
}

impl Someone {
    /// Valid from now on for this many days.
    pub fn new(seed: u64, curve: Curve, days: u32) -> Self {
        let entropy = SeededEntropy::new(seed);
        let key = KeyPair::generate(curve, &entropy).unwrap();
        let name = DistinguishedName::common_name("someone");
        let validity = Validity::days(START_S as i64, days);
        let certificate = Certificate::for_member(&key, &name, validity, &entropy).unwrap();
        Self { key, certificate }
    }

    pub fn id(&self) -> Digest {
        self.certificate.fingerprint()
    }

    pub fn pems(&self) -> (String, String) {
        (self.certificate.to_pem(), self.key.to_pem().to_string())
    }
}

/// A node with its server, and the ways in.
pub struct Served {
    pub node: Node,
    pub server: Server,
    pub disk: Arc<SimulatedDisk>,
    /// The first member of the service.
    pub member: Someone,
    streams: HashMap<String, mpsc::UnboundedSender<DuplexStream>>,
}

/// The interfaces that tests use unless they say otherwise: all three endorsements.
pub const INTERFACES: &str = r#"
    "main": {"bind_address": "127.0.0.1:8000"},
    "own": {"bind_address": "127.0.0.1:8001", "endorsement": {"authority": "Node"}},
    "plain": {"bind_address": "127.0.0.1:8002", "endorsement": {"authority": "Unsecured"}}
"#;

impl Served {
    /// Starts a new, not yet open service with `app`.
    pub async fn start(app: Arc<dyn Endpoints>) -> Self {
        Self::configured(app, INTERFACES, "").await
    }

    /// The same with other interfaces, and additions to the configuration.
    pub async fn configured(
        adapters: impl Into<Adapters>,
        interfaces: &str,
        additions: &str,
    ) -> Self {
        let text = format!(
            r#"{{"network": {{"rpc_interfaces": {{{interfaces}}}}},
                "command": {{"type": "Start", "start": {{}}}}{additions}}}"#
        );
        let config = Config::parse(&text).unwrap();
        let disk = SimulatedDisk::new();
        let (mut streams, mut arriving) = (HashMap::new(), HashMap::new());
        for name in config.network.rpc_interfaces.keys() {
            let (sender, receiver) = mpsc::unbounded_channel();
            streams.insert(name.clone(), sender);
            arriving.insert(name.clone(), Mutex::new(receiver));
        }
        let simulated = SimulatedHost::new(1, Arc::clone(&disk));
        let host = Arc::new(ServedHost { simulated, arriving });
        let member = Someone::new(77, Curve::P384, 365);
        let files = Files {
            members: vec![StartMemberFiles {
                certificate: member.certificate.to_pem(),
                encryption_public_key: None,
                data: Some(serde_json::json!({"role": "founder"})),
                recovery_role: None,
            }],
            constitution: coco_governance::default_constitution(),
            ..Files::default()
        };
        let node = Node::start(host, config, files, adapters).await.unwrap();
        let server = Server::start(node.clone()).unwrap();
        Self { node, server, disk, member, streams }
    }

    /// A raw stream to an interface.
    pub fn connect(&self, interface: &str) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        self.streams[interface].send(theirs).unwrap();
        ours
    }

    /// Commits changes to the tables, as governance would.
    pub async fn govern(&self, change: impl FnOnce(&mut Tx)) {
        let mut tx = self.node.pipeline().store().begin();
        change(&mut tx);
        let outcome = Outcome::default();
        let (_, committed) = self.node.pipeline().commit_and_wait(tx, &outcome).unwrap();
        assert_eq!(committed.await, TxStatus::Committed);
    }

    /// Opens the service to participants.
    pub async fn open(&self) {
        self.govern(|tx| {
            let mut info = SERVICE_INFO.expect(tx).unwrap();
            info.status = ServiceStatus::Open;
            SERVICE_INFO.put(tx, &info);
        })
        .await;
    }

    /// Registers a participant.
    pub async fn add_user(&self, someone: &Someone, data: Option<serde_json::Value>) {
        self.add_user_certificate(&someone.certificate, data).await;
    }

    pub async fn add_user_certificate(
        &self,
        certificate: &Certificate,
        data: Option<serde_json::Value>,
    ) {
        self.govern(|tx| {
            let id = certificate.fingerprint();
            USER_CERTS.put(tx, &id, &Pem(certificate.to_pem()));
            if let Some(user_data) = data {
                USERS.put(tx, &id, &UserInfo { user_data });
            }
        })
        .await;
    }
}
