//! Several enclaves in one process, each with its host: they join, replicate over their channels,
//! lose a primary, and retire.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

mod simulated;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use coco_adapter::{CommitError, Endpoints, Outcome, Registry, TxStatus};
use coco_consensus::Role;
use coco_crypto::{Digest, Entropy, sha256};
use coco_enclave::channels::NODE_TO_NODE_INTERFACE;
use coco_enclave::config::{Config, Files};
use coco_enclave::host::{Accepted, Area, BoxFuture, Disk, Host, Stream};
use coco_enclave::node::{Node, StartError};
use coco_enclave::server::Server;
use coco_governance::tables::{NODES, NodeStatus, SERVICE_INFO, ServiceStatus};
use coco_kv::{MapName, Seqno, TxId};
use parking_lot::Mutex;
use simulated::node::{audited, files};
use simulated::{SimulatedDisk, SimulatedHost, in_virtual_time};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const STREAM_BYTES: usize = 64 << 10;

/// The network between hosts: who listens where, and which streams there are.
#[derive(Default)]
struct Fabric {
    listeners: Mutex<HashMap<String, mpsc::UnboundedSender<DuplexStream>>>,
    /// Each stream, by the two hosts that it connects.
    streams: Mutex<Vec<(usize, usize, JoinHandle<()>)>>,
    cut_off: Mutex<Option<usize>>,
}

impl Fabric {
    /// Ends all streams of a host; there are no new ones until it is let in again.
    fn cut_off(&self, host: usize) {
        *self.cut_off.lock() = Some(host);
        self.streams.lock().retain(|(one, other, stream)| {
            let is_its = *one == host || *other == host;
            if is_its {
                stream.abort();
            }
            !is_its
        });
    }

    fn heal(&self) {
        *self.cut_off.lock() = None;
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
    fn new(number: usize, fabric: &Arc<Fabric>, disk: &Arc<SimulatedDisk>) -> Arc<Self> {
        let mut arriving = HashMap::new();
        for (name, port) in [("main", 8000), (NODE_TO_NODE_INTERFACE, 7000)] {
            let (sender, receiver) = mpsc::unbounded_channel();
            fabric.listeners.lock().insert(format!("node{number}:{port}"), sender);
            arriving.insert(name.to_owned(), tokio::sync::Mutex::new(receiver));
        }
        let simulated = SimulatedHost::new(number as u64 + 1, Arc::clone(disk));
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
            let to = number_of(server);
            let cut_off = *self.fabric.cut_off.lock();
            let listener = self.fabric.listeners.lock().get(server).cloned();
            let Some(listener) =
                listener.filter(|_| ![Some(to), Some(self.number)].contains(&cut_off))
            else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let (ours, mut near) = tokio::io::duplex(STREAM_BYTES);
            let (mut far, theirs) = tokio::io::duplex(STREAM_BYTES);
            let stream = tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
            self.fabric.streams.lock().push((self.number, to, stream));
            listener.send(theirs).map_err(io::Error::other)?;
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }

    fn disk(&self) -> &dyn Disk {
        self.simulated.disk()
    }
}

struct Member {
    node: Node,
    _server: Server,
    disk: Arc<SimulatedDisk>,
}

#[derive(Default)]
struct Network {
    fabric: Arc<Fabric>,
    members: Vec<Member>,
}

fn config(number: usize, command: &str) -> Config {
    let text = format!(
        r#"{{
            "network": {{
                "node_to_node_interface": {{"bind_address": "node{number}:7000"}},
                "rpc_interfaces": {{"main": {{"bind_address": "node{number}:8000"}}}}
            }},
            "ledger": {{"chunk_size": "20KB"}},
            "command": {{"type": "{command}", "start": {{}}, "join": {{
                "target_rpc_address": "node0:8000", "retry_timeout": "50ms"
            }}}}
        }}"#
    );
    Config::parse(&text).unwrap()
}

impl Network {
    async fn try_add(&mut self, program: Digest) -> Result<usize, StartError> {
        let number = self.members.len();
        let disk = SimulatedDisk::new();
        let host = LinkedHost::new(number, &self.fabric, &disk);
        let first = self.members.first().map(|first| first.node.identity());
        let files = Files {
            service_certificate: first.map(|identity| identity.service_certificate.to_pem()),
            executable_digest: program,
            ..files()
        };
        let command = if number == 0 { "Start" } else { "Join" };
        let app: Arc<dyn Endpoints> = Arc::new(Registry::new("test", "Test", ""));
        let node = Node::start(host, config(number, command), files, app).await?;
        let server = Server::start(node.clone()).unwrap();
        self.members.push(Member { node, _server: server, disk });
        Ok(number)
    }

    async fn of(count: usize) -> Self {
        let mut network = Self::default();
        for _ in 0..count {
            network.try_add(sha256(b"program")).await.unwrap();
        }
        network.settle(count).await;
        network
    }

    async fn settle(&self, voters: usize) {
        for member in &self.members {
            let pipeline = member.node.pipeline();
            until(|| pipeline.membership().voters.len() == voters).await;
        }
    }

    fn node(&self, number: usize) -> &Node {
        &self.members[number].node
    }

    async fn primary(&self) -> usize {
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
    async fn agree(&self) {
        let pipelines: Vec<_> = self.members.iter().map(|it| it.node.pipeline().clone()).collect();
        until(|| {
            let last = pipelines[0].last_committed();
            pipelines.iter().all(|it| it.last_committed() == last && it.store().head() == last)
        })
        .await;
        let last = pipelines[0].last_committed().seqno;
        for pipeline in &pipelines {
            assert_eq!(pipeline.root_at(last), pipelines[0].root_at(last));
        }
        let committed = |disk: &SimulatedDisk| -> BTreeMap<_, _> {
            let names = disk.names(Area::Ledger).into_iter();
            let names = names.filter(|name| name.ends_with(".committed"));
            names.map(|name| (name.clone(), disk.file(Area::Ledger, &name))).collect()
        };
        let expected = committed(&self.members[0].disk);
        for member in &self.members {
            assert_eq!(committed(&member.disk), expected);
        }
    }
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn write(node: &Node, key: &str, value: &str) -> TxId {
    let mut tx = node.pipeline().store().begin();
    tx.put(&MapName::new("records"), key, value);
    let (executed, fate) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
    assert_eq!(fate.await, TxStatus::Committed);
    executed.tx_id
}

fn read(node: &Node, key: &str) -> Option<String> {
    let value = node.pipeline().store().begin().get(&MapName::new("records"), key.as_bytes())?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

async fn open(node: &Node) {
    let mut tx = node.pipeline().store().begin();
    let mut info = SERVICE_INFO.expect(&mut tx).unwrap();
    info.status = ServiceStatus::Open;
    SERVICE_INFO.put(&mut tx, &info);
    let (_, fate) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
    assert_eq!(fate.await, TxStatus::Committed);
}

async fn set_status(node: &Node, id: Digest, status: NodeStatus) {
    let mut tx = node.pipeline().store().begin();
    let mut info = NODES.get(&mut tx, &id).unwrap().unwrap();
    info.status = status;
    NODES.put(&mut tx, &id, &info);
    let (_, fate) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
    assert_eq!(fate.await, TxStatus::Committed);
}

#[test]
fn three_enclaves_join_replicate_and_survive_their_primary() {
    in_virtual_time(async {
        let network = Network::of(3).await;
        open(network.node(0)).await;
        let first = write(network.node(0), "a", "1").await;
        network.agree().await;
        for member in &network.members {
            assert_eq!(read(&member.node, "a").as_deref(), Some("1"));
            let receipt = member.node.pipeline().receipt(first).await.unwrap();
            let identity = member.node.identity();
            receipt.verify(&identity.service_certificate.public_key().unwrap()).unwrap();
        }
        let mut tx = network.node(1).pipeline().store().begin();
        tx.put(&MapName::new("records"), "b", "at a backup");
        let refused = network.node(1).pipeline().commit(tx, &Outcome::default());
        assert_eq!(refused, Err(CommitError::NotPrimary));

        network.fabric.cut_off(0);
        let cut_at = tokio::time::Instant::now();
        let next = network.primary().await;
        assert_ne!(next, 0);
        assert!(cut_at.elapsed() < Duration::from_secs(1), "{:?}", cut_at.elapsed());
        let second = write(network.node(next), "b", "2").await;
        assert!(second.view > first.view);
        network.fabric.heal();
        network.agree().await;
        assert_eq!(read(network.node(0), "b").as_deref(), Some("2"));
        let key = network.node(0).identity().service_certificate.public_key().unwrap();
        for member in &network.members {
            member.node.shutdown().await;
            let report = audited(&member.disk, key.clone());
            assert!(report.last.seqno >= second.seqno);
        }
    });
}

#[test]
fn a_node_of_other_code_does_not_join() {
    in_virtual_time(async {
        let mut network = Network::of(1).await;
        let before = network.node(0).pipeline().last_committed();
        let refused = network.try_add(sha256(b"another program")).await.unwrap_err().to_string();
        assert!(refused.contains("401") && refused.contains("InvalidQuote"), "{refused}");
        assert!(refused.contains("host data"), "{refused}");
        assert_eq!(network.node(0).pipeline().last_committed(), before);
    });
}

#[test]
fn a_node_waits_until_members_trust_it_and_leaves_when_they_retire_it() {
    in_virtual_time(async {
        let mut network = Network::of(1).await;
        open(network.node(0)).await;
        write(network.node(0), "a", "1").await;
        let first = network.node(0).clone();
        let pending = || {
            let mut tx = first.pipeline().store().begin();
            let rows = NODES.rows(&mut tx).unwrap();
            rows.into_iter().find(|(_, info)| info.status == NodeStatus::Pending)
        };
        let trusted = async {
            until(|| pending().is_some()).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (id, info) = pending().unwrap();
            // What the action of members does.
            let csr = info.certificate_signing_request.unwrap();
            let csr = coco_crypto::SigningRequest::from_pem(&csr.0).unwrap();
            let (keys, identity) = (first.service_keys(), first.identity());
            let key = coco_governance::ServiceControl::service_key(&**keys);
            let validity = identity.node_certificate.validity();
            let entropy = first.host().entropy();
            let service = &identity.service_certificate;
            let endorsed = csr.endorse(service, &key, validity, entropy).unwrap();
            let mut tx = first.pipeline().store().begin();
            let endorsed = coco_governance::tables::Pem(endorsed.to_pem());
            coco_governance::tables::NODE_ENDORSED_CERTS.put(&mut tx, &id, &endorsed);
            first.pipeline().commit(tx, &Outcome::default()).unwrap();
            set_status(&first, id, NodeStatus::Trusted).await;
        };
        let (joined, ()) = tokio::join!(network.try_add(sha256(b"program")), trusted);
        let second = network.node(joined.unwrap()).clone();
        network.settle(2).await;
        assert_eq!(read(&second, "a").as_deref(), Some("1"));

        set_status(&first, second.id(), NodeStatus::Retired).await;
        until(|| first.pipeline().membership().voters.len() == 1).await;
        let is_over = || {
            let mut tx = first.pipeline().store().begin();
            NODES.get(&mut tx, &second.id()).unwrap().unwrap().retired_committed
        };
        until(is_over).await;
        let after = write(&first, "b", "2").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(second.pipeline().last_committed().seqno < after.seqno, "it hears no more");
    });
}

#[test]
fn a_node_that_comes_late_gets_the_whole_ledger() {
    in_virtual_time(async {
        let mut network = Network::of(1).await;
        for number in 0..300 {
            write(network.node(0), &format!("key {}", number % 7), &number.to_string()).await;
        }
        let before = network.node(0).pipeline().last_committed().seqno;
        assert!(before > Seqno(500));
        network.try_add(sha256(b"program")).await.unwrap();
        network.settle(2).await;
        network.agree().await;
        assert_eq!(read(network.node(1), "key 5").as_deref(), Some("299"));
    });
}
