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
use coco_consensus::{NodeId, Role};
use coco_crypto::{Digest, Entropy, PublicKey, sha256};
use coco_enclave::channels::NODE_TO_NODE_INTERFACE;
use coco_enclave::config::{Config, Files};
use coco_enclave::host::{Accepted, Area, BoxFuture, Disk, Host, Stream};
use coco_enclave::node::{Node, StartError};
use coco_enclave::server::Server;
use coco_governance::tables::{
    NODE_ENDORSED_CERTS, NODES, NodeInfo, NodeStatus, Pem, SERVICE_INFO, ServiceStatus,
};
use coco_kv::{MapName, Seqno, TxId};
use coco_ledger::audit::{AuditOptions, Auditor, audit};
use coco_ledger::{ChunkName, SnapshotFile, SnapshotName};
use parking_lot::Mutex;
use simulated::node::{LedgerOf, audited, files};
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
    fn new(number: usize, seed: u64, fabric: &Arc<Fabric>, disk: &Arc<SimulatedDisk>) -> Arc<Self> {
        let mut arriving = HashMap::new();
        for (name, port) in [("main", 8000), (NODE_TO_NODE_INTERFACE, 7000)] {
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
    /// More of the configuration.
    additions: &'static str,
    /// The node that others ask to join.
    target: usize,
    /// Nodes so far, also those that are gone.
    started: u64,
}

fn config(number: usize, command: &str, target: usize, additions: &str) -> Config {
    let text = format!(
        r#"{{
            "network": {{
                "node_to_node_interface": {{"bind_address": "node{number}:7000"}},
                "rpc_interfaces": {{"main": {{"bind_address": "node{number}:8000"}}}}
            }},
            "ledger": {{"chunk_size": "20KB"}}, {additions}
            "command": {{"type": "{command}", "start": {{}}, "join": {{
                "target_rpc_address": "node{target}:8000", "retry_timeout": "50ms",
                "fetch_snapshot_retry_interval": "50ms"
            }}}}
        }}"#
    );
    Config::parse(&text).unwrap()
}

impl Network {
    async fn try_add(&mut self, program: Digest) -> Result<usize, StartError> {
        self.try_add_on(SimulatedDisk::new(), program).await
    }

    async fn try_add_on(
        &mut self,
        disk: Arc<SimulatedDisk>,
        program: Digest,
    ) -> Result<usize, StartError> {
        let number = self.members.len();
        self.started += 1;
        let host = LinkedHost::new(number, self.started, &self.fabric, &disk);
        let first = self.members.first().map(|first| first.node.identity());
        let files = Files {
            service_certificate: first.map(|identity| identity.service_certificate.to_pem()),
            executable_digest: program,
            ..files()
        };
        let command = if number == 0 { "Start" } else { "Join" };
        let app: Arc<dyn Endpoints> = Arc::new(Registry::new("test", "Test", ""));
        let config = config(number, command, self.target, self.additions);
        let node = Node::start(host, config, files, app).await?;
        let server = Server::start(node.clone()).unwrap();
        self.members.push(Member { node, _server: server, disk });
        Ok(number)
    }

    async fn of(count: usize) -> Self {
        Self::default().with(count).await
    }

    /// One whose nodes have this in their configuration.
    async fn configured(additions: &'static str, count: usize) -> Self {
        Self { additions, ..Self::default() }.with(count).await
    }

    async fn with(mut self, count: usize) -> Self {
        while self.members.len() < count {
            self.add_on(SimulatedDisk::new()).await;
        }
        self.settle(count).await;
        self
    }

    /// Another node on this disk, once it counts.
    async fn add_on(&mut self, disk: Arc<SimulatedDisk>) -> usize {
        let number = self.try_add_on(disk, sha256(b"program")).await.unwrap();
        let id = NodeId(self.node(number).id());
        for knows in [self.target, number] {
            let pipeline = self.node(knows).pipeline();
            until(|| pipeline.membership().voters.contains(&id)).await;
        }
        number
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
        self.agree_among(0..self.members.len()).await;
    }

    /// These nodes have the same ledger, in memory and in the files that they share; those that
    /// began with the first entry share all.
    async fn agree_among(&self, nodes: impl IntoIterator<Item = usize>) {
        let members: Vec<&Member> = nodes.into_iter().map(|number| &self.members[number]).collect();
        let pipelines: Vec<_> = members.iter().map(|it| it.node.pipeline().clone()).collect();
        until(|| {
            let last = pipelines[0].last_committed();
            pipelines.iter().all(|it| it.last_committed() == last && it.store().head() == last)
        })
        .await;
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

/// The node that waits to be trusted.
fn pending(at: &Node) -> Option<(Digest, NodeInfo)> {
    let mut tx = at.pipeline().store().begin();
    let rows = NODES.rows(&mut tx).unwrap();
    rows.into_iter().find(|(_, info)| info.status == NodeStatus::Pending)
}

/// Does what the action of members does.
async fn trust_pending(at: &Node) {
    let (id, info) = pending(at).unwrap();
    let csr = info.certificate_signing_request.unwrap();
    let csr = coco_crypto::SigningRequest::from_pem(&csr.0).unwrap();
    let (keys, identity) = (at.service_keys(), at.identity());
    let key = coco_governance::ServiceControl::service_key(&**keys);
    let validity = identity.node_certificate.validity();
    let service = &identity.service_certificate;
    let endorsed = csr.endorse(service, &key, validity, at.host().entropy()).unwrap();
    let mut tx = at.pipeline().store().begin();
    NODE_ENDORSED_CERTS.put(&mut tx, &id, &Pem(endorsed.to_pem()));
    at.pipeline().commit(tx, &Outcome::default()).unwrap();
    set_status(at, id, NodeStatus::Trusted).await;
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
        let trusted = async {
            until(|| pending(&first).is_some()).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            trust_pending(&first).await;
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

/// Snapshots every hundred transactions.
const OFTEN: &str = r#""snapshots": {"tx_count": 100},"#;

/// The committed snapshots on a disk, the newest first.
fn snapshots(disk: &SimulatedDisk) -> Vec<SnapshotName> {
    let names = disk.names(Area::Snapshots).into_iter().filter_map(|name| name.parse().ok());
    let mut names: Vec<SnapshotName> =
        names.filter(|name: &SnapshotName| name.is_committed).collect();
    names.sort_by_key(|name| std::cmp::Reverse(*name));
    names
}

/// A service of one node that has written a few snapshots, the newest just now; its first
/// transaction, and that snapshot.
async fn with_snapshots() -> (Network, TxId, SnapshotName) {
    let network = Network::configured(OFTEN, 1).await;
    let first = write(network.node(0), "first", "1").await;
    let disk = &network.members[0].disk;
    for number in 0.. {
        if snapshots(disk).len() > 3 {
            break;
        }
        write(network.node(0), &format!("key {}", number % 70), &number.to_string()).await;
    }
    let newest = snapshots(disk)[0];
    (network, first, newest)
}

/// An auditor's view of a ledger that goes on from a snapshot.
fn audited_after(disk: &SimulatedDisk, snapshot: SnapshotName, service: &PublicKey) {
    let bytes = disk.file(Area::Snapshots, &snapshot.to_string()).unwrap();
    let options = AuditOptions { service: service.clone(), secrets: None, accept_torn_tail: false };
    let auditor = Auditor::after_snapshot(options, &SnapshotFile::parse(&bytes).unwrap()).unwrap();
    audit(&mut LedgerOf(disk), auditor, &mut |_| {}).unwrap();
}

fn remove_chunks_to(disk: &SimulatedDisk, seqno: Seqno) {
    for name in disk.names(Area::Ledger) {
        let chunk: ChunkName = name.parse().unwrap();
        if chunk.end().is_some_and(|end| end <= seqno) {
            disk.remove(Area::Ledger, &name);
        }
    }
}

#[test]
fn a_node_joins_from_a_snapshot_and_what_follows_it() {
    in_virtual_time(async {
        let (mut network, first, snapshot) = with_snapshots().await;
        remove_chunks_to(&network.members[0].disk, snapshot.seqno);
        let before = network.node(0).pipeline().last_committed().seqno;
        network.add_on(SimulatedDisk::new()).await;
        let joined = network.node(1);
        assert_eq!(joined.startup_seqno(), snapshot.seqno);
        assert_eq!(read(joined, "first").as_deref(), Some("1"));
        assert_eq!(read(joined, "key 69"), read(network.node(0), "key 69"));
        network.agree().await;
        let (one, other) = (network.node(0).pipeline(), joined.pipeline());
        assert_eq!(one.view_history(), other.view_history());
        assert_eq!(other.status(first), TxStatus::Committed);
        let disk = &network.members[1].disk;
        let mut chunks: Vec<ChunkName> =
            disk.names(Area::Ledger).iter().map(|name| name.parse().unwrap()).collect();
        chunks.sort();
        assert_eq!(chunks[0].start, snapshot.seqno.next());
        assert_eq!(snapshots(disk)[0], snapshot, "it is there for the next one");
        // What follows the snapshot is proven, and what no node has is not to be had.
        let key = joined.identity().service_certificate.public_key().unwrap();
        let late = TxId { view: first.view, seqno: before };
        joined.pipeline().receipt(late).await.unwrap().verify(&key).unwrap();
        let gone = joined.pipeline().receipt(first).await.unwrap_err().to_string();
        assert!(gone.contains("no ledger file holds"), "{gone}");

        // It leads as well as the first one does.
        network.add_on(SimulatedDisk::new()).await;
        network.fabric.cut_off(0);
        let next = network.primary().await;
        assert_ne!(next, 0);
        let written = write(network.node(next), "later", "2").await;
        network.fabric.heal();
        network.agree().await;
        assert_eq!(read(network.node(0), "later").as_deref(), Some("2"));
        assert!(written.view > first.view);
        for member in &network.members[1..] {
            member.node.shutdown().await;
            audited_after(&member.disk, snapshot, &key);
        }
    });
}

#[test]
fn the_past_before_a_snapshot_comes_from_nodes_that_have_it() {
    in_virtual_time(async {
        let (mut network, first, snapshot) = with_snapshots().await;
        network.add_on(SimulatedDisk::new()).await;
        let joined = network.node(1);
        assert_eq!(joined.startup_seqno(), snapshot.seqno);
        let key = joined.identity().service_certificate.public_key().unwrap();
        joined.pipeline().receipt(first).await.unwrap().verify(&key).unwrap();
        let state = joined.pipeline().historical_state(first).await.unwrap();
        let records = state.state.map(&MapName::new("records")).unwrap();
        assert_eq!(records.get(b"first").unwrap().value.to_vec(), b"1");
        let (from, to) = (Seqno(first.seqno.0 - 2), Seqno(first.seqno.0 + 20));
        let range = || joined.pipeline().state_range(7, from, to, 60);
        until(|| range().is_some()).await;
        assert_eq!(range().unwrap().len(), 23);
        // Neither does a chunk that the disk has damaged keep the past from a node.
        let chunk = "ledger_1-";
        let disk = &network.members[0].disk;
        let name = disk.names(Area::Ledger).into_iter().find(|name| name.starts_with(chunk));
        let whole = disk.file(Area::Ledger, &name.clone().unwrap()).unwrap();
        network.members[1].disk.add(Area::Ledger, &name.clone().unwrap(), &whole);
        disk.tamper(Area::Ledger, &name.unwrap(), |bytes| bytes.fill(0));
        let again = network.node(0).pipeline().receipt(TxId::new(2, 2)).await.unwrap();
        again.verify(&key).unwrap();
    });
}

#[test]
fn a_snapshot_that_is_not_the_services_is_refused_and_the_next_one_is_taken() {
    type Change = fn(&mut Vec<u8>, Vec<u8>);
    let changes: [Change; 4] = [
        |bytes, older| *bytes = older,
        |bytes, _| bytes[5_000] ^= 1,
        |bytes, _| bytes.truncate(bytes.len() / 2),
        // The receipt's signature.
        |bytes, _| {
            let at = bytes.len() - 20;
            bytes[at] ^= 1;
        },
    ];
    for change in changes {
        in_virtual_time(async {
            let (mut network, _, newest) = with_snapshots().await;
            let disk = Arc::clone(&network.members[0].disk);
            let older = snapshots(&disk)[1];
            let older_bytes = disk.file(Area::Snapshots, &older.to_string()).unwrap();
            disk.tamper(Area::Snapshots, &newest.to_string(), |bytes| change(bytes, older_bytes));
            let number = network.add_on(SimulatedDisk::new()).await;
            assert_eq!(network.node(number).startup_seqno(), older.seqno);
            network.agree().await;
            let names = network.members[1].disk.names(Area::Snapshots);
            assert_eq!(names, [older.to_string()]);
        });
    }
}

#[test]
fn without_a_right_snapshot_the_whole_ledger_is_replayed() {
    in_virtual_time(async {
        let (mut network, ..) = with_snapshots().await;
        let disk = Arc::clone(&network.members[0].disk);
        for name in disk.names(Area::Snapshots) {
            disk.tamper(Area::Snapshots, &name, |bytes| bytes[100] ^= 1);
        }
        network.add_on(SimulatedDisk::new()).await;
        assert_eq!(network.node(1).startup_seqno(), Seqno(0));
        network.agree().await;
        assert_eq!(network.members[1].disk.names(Area::Snapshots), Vec::<String>::new());
    });
}

#[test]
fn a_snapshot_that_was_broken_off_is_completed() {
    for is_damaged in [false, true] {
        in_virtual_time(async {
            let (mut network, _, newest) = with_snapshots().await;
            let whole = network.members[0].disk.file(Area::Snapshots, &newest.to_string()).unwrap();
            let disk = SimulatedDisk::new();
            let begun = SnapshotName { is_committed: false, ..newest }.to_string();
            let mut bytes = whole[..whole.len() / 2].to_vec();
            bytes[3_000] ^= u8::from(is_damaged);
            disk.add(Area::Snapshots, &begun, &bytes);
            network.add_on(Arc::clone(&disk)).await;
            assert_eq!(network.node(1).startup_seqno(), newest.seqno);
            assert_eq!(disk.file(Area::Snapshots, &newest.to_string()), Some(whole));
            assert_eq!(disk.names(Area::Snapshots), [newest.to_string()]);
        });
    }
}

#[test]
fn a_node_joins_under_a_primary_that_was_not_there_at_first() {
    in_virtual_time(async {
        let mut network = Network::of(3).await;
        network.fabric.cut_off(0);
        let next = network.primary().await;
        write(network.node(next), "a", "1").await;
        network.target = next;
        let number = network.add_on(SimulatedDisk::new()).await;
        assert_eq!(read(network.node(number), "a").as_deref(), Some("1"));
    });
}

#[test]
fn a_node_that_joins_while_much_was_written_gets_a_new_snapshot_and_counts_under_load() {
    in_virtual_time(async {
        let mut network = Network::of(1).await;
        let large = "x".repeat(60_000);
        for number in 0..40 {
            write(network.node(0), &format!("large {number}"), &large).await;
        }
        let first = network.node(0).clone();
        let writer = tokio::spawn(async move {
            for number in 0_u32.. {
                write(&first, &format!("key {}", number % 100), &number.to_string()).await;
            }
        });
        let before = network.node(0).pipeline().last_committed().seqno;
        network.add_on(SimulatedDisk::new()).await;
        assert!(network.node(1).startup_seqno() > before);
        writer.abort();
        assert_eq!(snapshots(&network.members[0].disk).len(), 1);
        network.agree().await;
    });
}

/// Three nodes, snapshots, and the disk of the last one as it was when it was cut off; the others
/// have gone on since.
async fn with_former() -> (Network, Arc<SimulatedDisk>) {
    let network = Network::configured(OFTEN, 3).await;
    for number in 0..150 {
        write(network.node(0), &format!("key {}", number % 70), &number.to_string()).await;
    }
    network.agree().await;
    network.fabric.cut_off(2);
    let disk = network.members[2].disk.copy();
    for number in 0..130 {
        write(network.node(0), &format!("later {}", number % 70), &number.to_string()).await;
    }
    (network, disk)
}

fn ignored(disk: &SimulatedDisk) -> Vec<String> {
    let names = disk.names(Area::Ledger).into_iter();
    names.filter(|name| name.ends_with(".ignored")).collect()
}

/// The whole ledger is on the disk, as an auditor sees it.
async fn holds_the_whole_ledger(network: &Network, number: usize) {
    let key = network.node(number).identity().service_certificate.public_key().unwrap();
    network.node(number).shutdown().await;
    audited(&network.members[number].disk, key);
}

#[test]
fn a_node_that_comes_back_keeps_its_ledger_and_fetches_what_is_missing() {
    in_virtual_time(async {
        let (mut network, disk) = with_former().await;
        let before = disk.names(Area::Ledger);
        let number = network.add_on(Arc::clone(&disk)).await;
        assert_ne!(network.node(number).id(), network.node(2).id());
        assert!(network.node(number).startup_seqno() > Seqno(300));
        assert_eq!(read(network.node(number), "later 5"), read(network.node(0), "later 5"));
        network.agree_among([0, 1, number]).await;
        assert_eq!(ignored(&disk), Vec::<String>::new());
        let kept = before.iter().filter(|name| name.ends_with(".committed"));
        assert!(kept.clone().count() > 2);
        assert!(kept.clone().all(|name| disk.names(Area::Ledger).contains(name)));
        holds_the_whole_ledger(&network, number).await;
    });
}

#[test]
fn without_a_snapshot_the_own_files_are_replayed() {
    in_virtual_time(async {
        let mut network = Network::of(3).await;
        for number in 0..150 {
            write(network.node(0), &format!("key {}", number % 70), &number.to_string()).await;
        }
        network.agree().await;
        network.fabric.cut_off(2);
        let disk = network.members[2].disk.copy();
        write(network.node(0), "later", "1").await;
        // Nobody else has them any more.
        let oldest = |disk: &SimulatedDisk| {
            let mut chunks: Vec<ChunkName> =
                disk.names(Area::Ledger).iter().filter_map(|name| name.parse().ok()).collect();
            chunks.sort();
            chunks[0]
        };
        let end = oldest(&disk).end().unwrap();
        (0..2).for_each(|other| remove_chunks_to(&network.members[other].disk, end));
        let number = network.add_on(Arc::clone(&disk)).await;
        assert_eq!(network.node(number).startup_seqno(), Seqno(0));
        network.agree_among([0, 1, number]).await;
        assert_eq!(ignored(&disk), Vec::<String>::new());
        holds_the_whole_ledger(&network, number).await;
    });
}

#[test]
fn damaged_and_torn_files_of_a_former_node_are_set_aside_and_brought_again() {
    type Damage = fn(&SimulatedDisk, &[ChunkName]);
    let damages: [(Damage, bool); 5] = [
        (|disk, chunks| tamper(disk, chunks[1], |bytes| bytes[500] ^= 1), true),
        (|disk, chunks| tamper(disk, chunks[2], |bytes| bytes.truncate(3_000)), true),
        (|disk, chunks| disk.remove(Area::Ledger, &chunks[1].to_string()), true),
        (|disk, chunks| tamper(disk, chunks[0], Vec::clear), true),
        // What a crash leaves is cut off.
        (
            |disk, chunks| {
                let last = chunks.last().unwrap();
                assert_eq!(last.end(), None);
                tamper(disk, *last, |bytes| {
                    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
                    bytes[written - 200..].fill(0);
                });
            },
            false,
        ),
    ];
    for (damage, sets_aside) in damages {
        in_virtual_time(async {
            let (mut network, disk) = with_former().await;
            let mut chunks: Vec<ChunkName> =
                disk.names(Area::Ledger).iter().map(|name| name.parse().unwrap()).collect();
            chunks.sort();
            damage(&disk, &chunks);
            let number = network.add_on(Arc::clone(&disk)).await;
            network.agree_among([0, 1, number]).await;
            assert_eq!(!ignored(&disk).is_empty(), sets_aside, "{:?}", disk.names(Area::Ledger));
            let first = chunks[0];
            if ignored(&disk).iter().any(|name| name.starts_with(&first.to_string())) {
                return;
            }
            holds_the_whole_ledger(&network, number).await;
        });
    }
}

fn tamper(disk: &SimulatedDisk, chunk: ChunkName, change: impl FnOnce(&mut Vec<u8>)) {
    disk.tamper(Area::Ledger, &chunk.to_string(), change);
}

#[test]
fn the_fork_of_a_primary_that_was_cut_off_is_set_aside() {
    in_virtual_time(async {
        let mut network = Network::configured(OFTEN, 3).await;
        for number in 0..100 {
            write(network.node(0), &format!("key {}", number % 70), &number.to_string()).await;
        }
        network.agree().await;
        network.fabric.cut_off(0);
        let mut tx = network.node(0).pipeline().store().begin();
        tx.put(&MapName::new("records"), "lost", "1");
        let (lost, fate) =
            network.node(0).pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
        tokio::spawn(fate);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let disk = network.members[0].disk.copy();
        let next = network.primary().await;
        network.target = next;
        write(network.node(next), "kept", "1").await;
        let number = network.add_on(Arc::clone(&disk)).await;
        network.agree_among([1, 2, number]).await;
        let back = network.node(number);
        assert_eq!((read(back, "lost"), read(back, "kept").as_deref()), (None, Some("1")));
        assert_eq!(back.pipeline().status(lost.tx_id), TxStatus::Invalid);
        assert_eq!(ignored(&disk).len(), 1, "{:?}", disk.names(Area::Ledger));
        holds_the_whole_ledger(&network, number).await;
    });
}

#[test]
fn the_ledger_of_another_service_is_set_aside() {
    in_virtual_time(async {
        let (other, _) = with_former().await;
        let disk = other.members[1].disk.copy();
        drop(other);
        let mut network = Network::configured(OFTEN, 1).await;
        for number in 0..100 {
            write(network.node(0), &format!("key {}", number % 70), "ours").await;
        }
        let number = network.add_on(Arc::clone(&disk)).await;
        network.agree().await;
        assert!(ignored(&disk).len() > 2);
        assert_eq!(read(network.node(number), "key 3").as_deref(), Some("ours"));
    });
}

#[test]
fn a_node_comes_back_to_an_open_service_at_the_address_that_it_had() {
    in_virtual_time(async {
        let (mut network, disk) = with_former().await;
        let first = network.node(0).clone();
        open(&first).await;
        let former = network.node(2).id();
        let trusted = async {
            until(|| pending(&first).is_some()).await;
            trust_pending(&first).await;
            set_status(&first, former, NodeStatus::Retired).await;
        };
        // The former process is gone: its listeners are taken over.
        network.fabric.heal();
        let lost = network.members.pop().unwrap();
        lost.node.shutdown().await;
        let back = async {
            let number = network.add_on(Arc::clone(&disk)).await;
            network.settle(3).await;
            network.agree().await;
            number
        };
        let (number, ()) = tokio::join!(back, trusted);
        assert_ne!(network.node(number).id(), former);
        assert_eq!(ignored(&disk), Vec::<String>::new());
    });
}
