//! Several enclaves in one process, each with its host, and the network between them.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "this is the host's side")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helper may fail the test"
)]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use coco_adapter::{Endpoints, Outcome, Registry, TxStatus};
use coco_consensus::{NodeId, Role};
use coco_crypto::{Digest, Entropy, sha256};
use coco_enclave::channels::NODE_TO_NODE_INTERFACE;
use coco_enclave::config::{Config, Files};
use coco_enclave::host::{Accepted, Area, BoxFuture, Disk, Host, Stream};
use coco_enclave::node::{Adapters, Node, StartError};
use coco_enclave::server::Server;
use coco_governance::seats::Operator;
use coco_governance::tables::{SERVICE_INFO, ServiceStatus};
use coco_kv::{MapName, Tx, TxId};
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::served::Someone;
use crate::served::client::{Client, shake_hands};
use crate::simulated::node::files;
use crate::simulated::{SimulatedDisk, SimulatedHost};

const STREAM_BYTES: usize = 64 << 10;

/// Where a host listens.
const INTERFACES: [(&str, u16); 4] =
    [("main", 8000), ("redirecting", 8100), ("balanced", 8200), (NODE_TO_NODE_INTERFACE, 7000)];
/// Clients are not of any host.
const OUTSIDE: usize = usize::MAX;

/// The network between hosts: who listens where, and which streams there are.
#[derive(Default)]
pub struct Fabric {
    listeners: Mutex<HashMap<String, mpsc::UnboundedSender<DuplexStream>>>,
    /// Each stream, by the two hosts that it connects.
    streams: Mutex<Vec<(usize, usize, JoinHandle<()>)>>,
    cut_off: Mutex<Option<usize>>,
}

impl Fabric {
    /// Ends all streams of a host; there are no new ones until it is let in again.
    pub fn cut_off(&self, host: usize) {
        *self.cut_off.lock() = Some(host);
        self.streams.lock().retain(|(one, other, stream)| {
            let is_its = *one == host || *other == host;
            if is_its {
                stream.abort();
            }
            !is_its
        });
    }

    pub fn heal(&self) {
        *self.cut_off.lock() = None;
    }

    /// A stream to whoever listens there.
    pub fn connect(&self, from: usize, server: &str) -> io::Result<DuplexStream> {
        let to = number_of(server);
        let cut_off = *self.cut_off.lock();
        let listener = self.listeners.lock().get(server).cloned();
        let Some(listener) = listener.filter(|_| ![Some(to), Some(from)].contains(&cut_off)) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (ours, mut near) = tokio::io::duplex(STREAM_BYTES);
        let (mut far, theirs) = tokio::io::duplex(STREAM_BYTES);
        let stream = tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        self.streams.lock().push((from, to, stream));
        listener.send(theirs).map_err(io::Error::other)?;
        Ok(ours)
    }
}

/// `node1:7000` is the address of node 1 for other nodes, `node1:8000` that for clients.
fn number_of(address: &str) -> usize {
    address[4..5].parse().unwrap()
}

struct LinkedHost {
    simulated: SimulatedHost,
    number: usize,
    fabric: Arc<Fabric>,
    arriving: HashMap<String, tokio::sync::Mutex<mpsc::UnboundedReceiver<DuplexStream>>>,
}

impl LinkedHost {
    fn new(number: usize, seed: u64, fabric: &Arc<Fabric>, disk: &Arc<SimulatedDisk>) -> Arc<Self> {
        let mut arriving = HashMap::new();
        for (name, port) in INTERFACES {
            let (sender, receiver) = mpsc::unbounded_channel();
            fabric.listeners.lock().insert(format!("node{number}:{port}"), sender);
            arriving.insert(name.to_owned(), tokio::sync::Mutex::new(receiver));
        }
        let simulated = SimulatedHost::new(seed, Arc::clone(disk));
        Arc::new(Self { simulated, number, fabric: Arc::clone(fabric), arriving })
    }
}

impl Host for LinkedHost {
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
                Some(stream) => Ok(Accepted { stream: Box::new(stream), peer: "peer:1".into() }),
                None => std::future::pending().await,
            }
        })
    }

    fn connect<'a>(&'a self, server: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = self.fabric.connect(self.number, server)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn disk(&self) -> &dyn Disk {
        self.simulated.disk()
    }
}

pub struct Member {
    pub node: Node,
    pub server: Server,
    pub disk: Arc<SimulatedDisk>,
}

/// What a network's nodes run.
pub type App = fn() -> Arc<dyn Endpoints>;

fn no_app() -> Arc<dyn Endpoints> {
    Arc::new(Registry::new("test", "Test", ""))
}

pub struct Network {
    pub fabric: Arc<Fabric>,
    pub members: Vec<Member>,
    app: App,
    /// Added to the configuration of the interface `main`.
    main: &'static str,
    /// Added to the configuration.
    additions: &'static str,
    /// The node that others ask to join.
    pub target: usize,
    /// Nodes so far, also those that are gone.
    started: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self::running(no_app)
    }
}

fn config(number: usize, command: &str, target: usize, main: &str, additions: &str) -> Config {
    let text = format!(
        r#"{{
            "network": {{
                "node_to_node_interface": {{"bind_address": "node{number}:7000"}},
                "rpc_interfaces": {{
                    "main": {{"bind_address": "node{number}:8000"{main}}},
                    "redirecting": {{"bind_address": "node{number}:8100", "redirections": {{}}}},
                    "balanced": {{"bind_address": "node{number}:8200", "redirections": {{
                        "to_primary": {{"kind": "StaticAddress", "target": {{"address": "all.example:443"}}}},
                        "to_backup": {{"kind": "NodeByRole",
                            "target": {{"role": "backup", "interface": "redirecting"}}}}
                    }}}}
                }}
            }},
            "ledger": {{"chunk_size": "20KB"}},
            "command": {{"type": "{command}", "start": {{}}, "join": {{
                "target_rpc_address": "node{target}:8000", "retry_timeout": "50ms",
                "fetch_snapshot_retry_interval": "50ms"
            }}}}{additions}
        }}"#
    );
    Config::parse(&text).unwrap()
}

impl Network {
    /// A network without nodes yet.
    pub fn running(app: App) -> Self {
        Self {
            fabric: Arc::default(),
            members: Vec::new(),
            app,
            main: "",
            additions: "",
            target: 0,
            started: 0,
        }
    }

    pub fn configured(self, main: &'static str, additions: &'static str) -> Self {
        Self { main, additions, ..self }
    }

    /// With so many nodes, all of which count.
    pub async fn with(mut self, count: usize) -> Self {
        for _ in 0..count {
            self.try_add(sha256(b"program")).await.unwrap();
        }
        self.settle(count).await;
        self
    }

    /// A client's connection to an interface of a node.
    pub async fn client(&self, number: usize, port: u16, someone: Option<&Someone>) -> Client {
        let stream = self.fabric.connect(OUTSIDE, &format!("node{number}:{port}")).unwrap();
        let expected = self.node(number).identity().node_certificate.der().to_vec();
        let pems = someone.map(Someone::pems);
        Client::on(shake_hands(stream, expected, pems, &[b"http/1.1"]).await.unwrap())
    }

    /// A channel to a node from another, whose part in it is the caller's.
    pub async fn channel(&self, from: usize, to: usize) -> io::Result<TlsStream<DuplexStream>> {
        let identity = self.node(from).identity();
        let pems = (identity.node_certificate.to_pem(), identity.node_key.to_pem().to_string());
        let expected = self.node(to).identity().node_certificate.der().to_vec();
        let stream = self.fabric.connect(from, &format!("node{to}:7000"))?;
        shake_hands(stream, expected, Some(pems), &[b"coco-node/1"]).await
    }

    pub async fn try_add(&mut self, program: Digest) -> Result<usize, StartError> {
        self.try_add_with(program, (self.app)()).await
    }

    /// The same for a node with these adapters.
    pub async fn try_add_with(
        &mut self,
        program: Digest,
        adapters: impl Into<Adapters>,
    ) -> Result<usize, StartError> {
        self.try_add_on(SimulatedDisk::new(), program, adapters).await
    }

    /// Another node on this disk, once it counts.
    pub async fn add_on(&mut self, disk: Arc<SimulatedDisk>) -> usize {
        let app = (self.app)();
        let number = self.try_add_on(disk, sha256(b"program"), app).await.unwrap();
        let id = NodeId(self.node(number).id());
        for knows in [self.target, number] {
            let pipeline = self.node(knows).pipeline();
            until(|| pipeline.membership().voters.contains(&id)).await;
        }
        number
    }

    async fn try_add_on(
        &mut self,
        disk: Arc<SimulatedDisk>,
        program: Digest,
        adapters: impl Into<Adapters>,
    ) -> Result<usize, StartError> {
        let number = self.members.len();
        let member = self.start(number, disk, program, adapters, None).await?;
        self.members.push(member);
        Ok(number)
    }

    /// Another node at the addresses of this one, which it takes the place of once it counts.
    pub async fn try_replace(
        &mut self,
        number: usize,
        operator: Option<Operator>,
    ) -> Result<(), StartError> {
        let (disk, program, app) = (SimulatedDisk::new(), sha256(b"program"), (self.app)());
        let member = self.start(number, disk, program, app, operator).await?;
        self.members[number] = member;
        Ok(())
    }

    async fn start(
        &mut self,
        number: usize,
        disk: Arc<SimulatedDisk>,
        program: Digest,
        adapters: impl Into<Adapters>,
        operator: Option<Operator>,
    ) -> Result<Member, StartError> {
        self.started += 1;
        let host = LinkedHost::new(number, self.started, &self.fabric, &disk);
        let first = self.members.first().map(|first| first.node.identity());
        let files = Files {
            service_certificate: first.map(|identity| identity.service_certificate.to_pem()),
            executable_digest: program,
            operator,
            ..files()
        };
        let command = if number == 0 { "Start" } else { "Join" };
        let config = config(number, command, self.target, self.main, self.additions);
        let node = Node::start(host, config, files, adapters).await?;
        let server = Server::start(node.clone()).unwrap();
        Ok(Member { node, server, disk })
    }

    pub async fn of(count: usize) -> Self {
        Self::default().with(count).await
    }

    pub async fn settle(&self, voters: usize) {
        for member in &self.members {
            let pipeline = member.node.pipeline();
            until(|| pipeline.membership().voters.len() == voters).await;
        }
    }

    pub fn node(&self, number: usize) -> &Node {
        &self.members[number].node
    }

    pub async fn primary(&self) -> usize {
        loop {
            let cut_off = *self.fabric.cut_off.lock();
            let leads = |number: &usize| {
                let role = self.node(*number).pipeline().role();
                Some(*number) != cut_off && matches!(role, Role::Primary(_))
            };
            if let Some(primary) = (0..self.members.len()).find(leads) {
                return primary;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All nodes have the same ledger, in memory and in their files.
    pub async fn agree(&self) {
        self.agree_among(0..self.members.len()).await;
    }

    /// These nodes have the same ledger, in memory and in the files that they share; those that
    /// began with the first entry share all.
    pub async fn agree_among(&self, nodes: impl IntoIterator<Item = usize>) {
        let members: Vec<&Member> = nodes.into_iter().map(|number| &self.members[number]).collect();
        let pipelines: Vec<_> = members.iter().map(|it| it.node.pipeline().clone()).collect();
        until(|| {
            let last = pipelines[0].last_committed();
            pipelines.iter().all(|it| it.last_committed() == last && it.store().head() == last)
        })
        .await;
        // The files' names follow.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let last = pipelines[0].last_committed().seqno;
        for pipeline in &pipelines {
            assert_eq!(pipeline.root_at(last), pipelines[0].root_at(last));
        }
        let committed = |member: &Member| -> BTreeMap<_, _> {
            let names = member.disk.names(Area::Ledger).into_iter();
            let names = names.filter(|name| name.ends_with(".committed"));
            names.map(|name| (name.clone(), member.disk.file(Area::Ledger, &name))).collect()
        };
        let is_whole =
            |files: &BTreeMap<String, _>| files.keys().any(|it| it.starts_with("ledger_1-"));
        let expected = committed(members[0]);
        for member in &members {
            let mut files = committed(member);
            let mut expected = expected.clone();
            if !is_whole(&files) || !is_whole(&expected) {
                files.retain(|name, _| expected.contains_key(name));
                expected.retain(|name, _| files.contains_key(name));
            }
            assert_eq!(files.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            assert!(files == expected);
        }
    }
}

pub async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn write(node: &Node, key: &str, value: &str) -> TxId {
    let mut tx = node.pipeline().store().begin();
    tx.put(&MapName::new("records"), key, value);
    let (executed, fate) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
    assert_eq!(fate.await, TxStatus::Committed);
    executed.tx_id
}

pub fn read(node: &Node, key: &str) -> Option<String> {
    let value = node.pipeline().store().begin().get(&MapName::new("records"), key.as_bytes())?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

/// Commits changes to the tables, as governance would.
pub async fn govern(network: &Network, change: impl FnOnce(&mut Tx)) {
    govern_at(network.node(0), change).await;
}

async fn govern_at(node: &Node, change: impl FnOnce(&mut Tx)) {
    let mut tx = node.pipeline().store().begin();
    change(&mut tx);
    let (_, fate) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
    assert_eq!(fate.await, TxStatus::Committed);
}

pub async fn open(node: &Node) {
    govern_at(node, |tx| {
        let mut info = SERVICE_INFO.expect(tx).unwrap();
        info.status = ServiceStatus::Open;
        SERVICE_INFO.put(tx, &info);
    })
    .await;
}
