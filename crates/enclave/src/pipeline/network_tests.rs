//! Pipelines of several nodes in one process: what they agree on, and what becomes of waiters.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

mod batches;
mod membership;
#[path = "../../tests/simulated/mod.rs"]
mod simulated;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coco_adapter::{CommitError, Outcome, TxStatus};
use coco_consensus::{Batch, Consensus, Membership, NodeId, Raft, Role, Settings as RaftSettings};
use coco_crypto::x509::{DistinguishedName, Validity};
use coco_crypto::{Certificate, Curve, Digest, KeyPair, PublicKey};
use coco_governance::LedgerPeriod;
use coco_governance::tables::{
    NODE_ENDORSED_CERTS, NODES, NodeInfo, NodeStatus, Pem, SERVICE_INFO,
};
use coco_kv::{MapName, Seqno, Store, Tx, TxId, View};
use coco_ledger::{
    ChunkName, ChunkWriter, ChunkWriterConfig, EntryFlags, LedgerSecret, MerkleTree,
    SignatureTransaction, SignedBy, Signer, SnapshotName, ViewHistory, encode_entry, split_entry,
};
use parking_lot::Mutex;
use serde_json::json;

use self::simulated::node::{audited, config};
use self::simulated::{SeededEntropy, SimulatedDisk, SimulatedHost, in_virtual_time};
use super::{Channels, Continuation, Pipeline, Settings};
use crate::channels::wire::SnapshotOffer;
use crate::ease::Rests;
use crate::host::{Area, BoxFuture, Host};
use crate::identities::Identities;
use crate::ledger_files::LedgerFiles;
use crate::service::{Clock, ServiceKeys};

const TICK: Duration = Duration::from_millis(10);

/// Frames between nodes take a millisecond, unless the way is cut, and what is asked for ten.
#[derive(Default)]
struct Network {
    pipelines: Mutex<BTreeMap<NodeId, Pipeline>>,
    cut_off: Mutex<BTreeSet<NodeId>>,
    /// Frames of the first are lost on their way to the second.
    lost: Mutex<BTreeSet<(NodeId, NodeId)>>,
}

impl Network {
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let cut_off = self.cut_off.lock();
        cut_off.contains(&from) || cut_off.contains(&to) || self.lost.lock().contains(&(from, to))
    }
}

struct Link {
    me: NodeId,
    network: Arc<Network>,
}

impl Channels for Link {
    fn send(&self, to: NodeId, frame: Bytes) {
        let (me, network) = (self.me, Arc::clone(&self.network));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let pipeline = network.pipelines.lock().get(&to).cloned();
            if let Some(pipeline) = pipeline.filter(|_| !network.is_cut(me, to)) {
                pipeline.receive(me, frame).unwrap();
            }
        });
    }

    fn follow(&self, _: &Membership) {}

    fn sources(&self) -> Vec<NodeId> {
        let pipelines = self.network.pipelines.lock();
        let others = pipelines.keys().filter(|id| **id != self.me);
        others.filter(|id| !self.network.is_cut(self.me, **id)).copied().collect()
    }

    fn ledger(
        &self,
        from: NodeId,
        after: Seqno,
        to: Seqno,
        committed: TxId,
    ) -> BoxFuture<'static, std::io::Result<Bytes>> {
        let other = self.other(from);
        Box::pin(
            async move { Ok(other.await?.ledger(after, to, committed).await.unwrap_or_default()) },
        )
    }

    fn newest_snapshot(
        &self,
        from: NodeId,
        to: Seqno,
    ) -> BoxFuture<'static, std::io::Result<SnapshotOffer>> {
        let other = self.other(from);
        Box::pin(async move { other.await?.snapshot_offer(to).await })
    }

    fn snapshot_piece(
        &self,
        from: NodeId,
        name: SnapshotName,
        offset: u64,
    ) -> BoxFuture<'static, std::io::Result<Bytes>> {
        let other = self.other(from);
        Box::pin(async move { other.await?.snapshot_piece(name, offset).await })
    }
}

impl Link {
    fn other(&self, id: NodeId) -> impl Future<Output = std::io::Result<Pipeline>> + use<> {
        let (me, network) = (self.me, Arc::clone(&self.network));
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let other = network.pipelines.lock().get(&id).cloned();
            let other = other.filter(|_| !network.is_cut(me, id));
            other.ok_or_else(|| std::io::ErrorKind::NotConnected.into())
        }
    }
}

/// A service of nodes that hold its keys already.
struct Service {
    network: Arc<Network>,
    nodes: Vec<TestNode>,
    key: KeyPair,
    certificate: Certificate,
    secret: Arc<LedgerSecret>,
    max_kept_bytes: usize,
}

struct TestNode {
    id: NodeId,
    public: PublicKey,
    endorsed: String,
    pipeline: Pipeline,
    disk: Arc<SimulatedDisk>,
}

impl Service {
    fn new() -> Self {
        let entropy = SeededEntropy::new(5);
        let key = KeyPair::generate(Curve::P256, &entropy).unwrap();
        let name = DistinguishedName::common_name("service");
        let validity = Validity::days(1_767_225_600, 365);
        let certificate = Certificate::for_service(&key, &name, validity, &entropy).unwrap();
        Self {
            network: Arc::default(),
            nodes: Vec::new(),
            key,
            certificate,
            secret: Arc::new(LedgerSecret::generate(&entropy)),
            max_kept_bytes: 1 << 20,
        }
    }

    /// Starts the next node, which takes no part yet unless it is the first.
    fn add_node(&mut self) -> usize {
        let number = self.nodes.len();
        let seed = 100 + number as u64;
        let disk = SimulatedDisk::new();
        let host: Arc<dyn Host> = Arc::new(SimulatedHost::new(seed, Arc::clone(&disk)));
        let node_key = Arc::new(KeyPair::generate(Curve::P256, host.entropy()).unwrap());
        let (public, id) = (node_key.public().clone(), NodeId(node_key.public().id()));
        let name = DistinguishedName::common_name("node");
        let validity = Validity::days(1_767_225_600, 365);
        let request = coco_crypto::SigningRequest::create(&node_key, &name, &[]).unwrap();
        let endorsed =
            request.endorse(&self.certificate, &self.key, validity, host.entropy()).unwrap();
        let signer = Signer {
            node_key,
            node_certificate: endorsed.to_pem(),
            service_key: Arc::new(KeyPair::from_pem(&self.key.to_pem()).unwrap()),
            issuer: "issuer".into(),
            subject: "subject".into(),
        };
        let periods = vec![LedgerPeriod {
            valid_from: Seqno(1),
            secret: Arc::clone(&self.secret),
            previous_stored_at: None,
        }];
        let identities = Identities::of_new(self.certificate.clone()).unwrap();
        let keys = ServiceKeys::new(signer, periods, identities, host.entropy()).unwrap();
        let is_first = number == 0;
        let raft =
            RaftSettings { seed, max_kept_bytes: self.max_kept_bytes, ..RaftSettings::default() };
        let consensus: Box<dyn Consensus> = match is_first {
            true => Box::new(Raft::start(raft, id, View(2), TxId::default())),
            false => Box::new(Raft::join(raft, id)),
        };
        let mut views = ViewHistory::new();
        if is_first {
            views.record(TxId::new(2, 1)).unwrap();
        }
        let chunk_rules = ChunkWriterConfig { chunk_bytes: 20_000, write_ahead_bytes: 1 << 10 };
        let text = r#", "ledger": {"chunk_size": "20KB"}, "snapshots": {"tx_count": 50}"#;
        let pipeline = Pipeline::new(Continuation {
            clock: Arc::new(Clock::new(Arc::clone(&host))),
            host,
            store: Store::new(if is_first { View(2) } else { View(0) }),
            keys: Arc::new(keys),
            adapters: Vec::new(),
            protocols: Vec::new(),
            settings: Settings::of(&config("Start", text)),
            tree: MerkleTree::new(),
            views,
            consensus,
            membership: if is_first { Membership::of(id) } else { Membership::default() },
            channels: Arc::new(Link { me: id, network: Arc::clone(&self.network) }),
            files: LedgerFiles::new(ChunkWriter::new(chunk_rules)),
            former: None,
            last_snapshot: Seqno(0),
            historical_cache_bytes: 1 << 20,
            is_recovery: false,
        });
        tokio::spawn(pipeline.run());
        for task in pipeline.replicate(TICK) {
            tokio::spawn(task);
        }
        self.network.pipelines.lock().insert(id, pipeline.clone());
        self.nodes.push(TestNode { id, public, endorsed: endorsed.to_pem(), pipeline, disk });
        number
    }

    /// A service of so many nodes, all of which count.
    async fn of(count: usize) -> Self {
        Self::new().with(count).await
    }

    async fn with(mut self, count: usize) -> Self {
        while self.nodes.len() < count {
            let number = self.add_node();
            let node = &self.nodes[number];
            let mut tx = self.nodes[0].pipeline.store().begin();
            if number == 0 {
                let info = json!({ "cert": self.certificate.to_pem(), "status": "Open" });
                SERVICE_INFO.put(&mut tx, &serde_json::from_value(info).unwrap());
            }
            set_status_in(tx, &self.nodes[0], node, NodeStatus::Trusted).await;
        }
        self.settle(count).await;
        self
    }

    /// Until every node knows of so many voters.
    async fn settle(&self, voters: usize) {
        for node in &self.nodes {
            while node.pipeline.membership().voters.len() != voters {
                tokio::time::sleep(TICK).await;
            }
        }
    }

    fn primary(&self) -> Option<&TestNode> {
        let cut_off = self.network.cut_off.lock();
        let leads = |node: &&TestNode| matches!(node.pipeline.role(), Role::Primary(_));
        self.nodes.iter().filter(|node| !cut_off.contains(&node.id)).find(leads)
    }

    async fn elected(&self) -> &TestNode {
        loop {
            if let Some(primary) = self.primary() {
                return primary;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    fn cut_off(&self, node: NodeId) {
        self.network.cut_off.lock().insert(node);
    }

    fn heal(&self) {
        self.network.cut_off.lock().clear();
    }

    /// Until all nodes have the same committed ledger; then holds it to be the same everywhere.
    async fn converge(&self) {
        let last = loop {
            let ends: BTreeSet<_> =
                self.nodes.iter().map(|node| node.pipeline.last_committed()).collect();
            let heads: BTreeSet<_> =
                self.nodes.iter().map(|node| node.pipeline.store().head()).collect();
            match ends.first() {
                Some(end) if ends.len() == 1 && heads == ends => break *end,
                _ => tokio::time::sleep(TICK).await,
            }
        };
        let root = |node: &TestNode| node.pipeline.root_at(last.seqno).unwrap();
        let first = &self.nodes[0];
        for node in &self.nodes {
            assert_eq!(root(node), root(first));
            assert_eq!(node.pipeline.view_history(), first.pipeline.view_history());
            assert_eq!(records(node), records(first));
        }
    }

    /// Stops all nodes, and holds their files against each other and against an auditor's view.
    async fn stop(self) {
        for node in &self.nodes {
            node.pipeline.stop().await;
        }
        // Who stops first may lack what the others go on to: what any two have is the same.
        let mut chunks: BTreeMap<(Seqno, Seqno), Vec<u8>> = BTreeMap::new();
        for node in &self.nodes {
            audited(&node.disk, self.key.public().clone());
            for file in node.disk.names(Area::Ledger) {
                let Ok(name) = file.parse::<ChunkName>() else { continue };
                let Some(end) = name.end() else { continue };
                let bytes = node.disk.file(Area::Ledger, &file).unwrap();
                let first = chunks.entry((name.start, end)).or_insert_with(|| bytes.clone());
                assert!(*first == bytes, "{file} differs");
            }
        }
        let ranges: Vec<_> = chunks.keys().collect();
        for pair in ranges.windows(2) {
            assert!(pair[0].1 < pair[1].0, "nodes cut chunks differently: {pair:?}");
        }
    }
}

fn record(node: &TestNode, status: NodeStatus) -> NodeInfo {
    let info = json!({
        "status": status,
        "quote_info": { "format": "Insecure_Virtual", "quote": "", "endorsements": "" },
        "encryption_pub_key": "",
        "public_key": node.public.to_pem(),
    });
    serde_json::from_value(info).unwrap()
}

async fn set_status(at: &TestNode, node: &TestNode, status: NodeStatus) {
    let tx = at.pipeline.store().begin();
    set_status_in(tx, at, node, status).await;
}

async fn set_status_in(mut tx: Tx, at: &TestNode, node: &TestNode, status: NodeStatus) {
    NODES.put(&mut tx, &node.id.0, &record(node, status));
    NODE_ENDORSED_CERTS.put(&mut tx, &node.id.0, &Pem(node.endorsed.clone()));
    assert_eq!(commit(at, tx).await.1, TxStatus::Committed);
}

async fn commit(node: &TestNode, tx: Tx) -> (TxId, TxStatus) {
    let (executed, fate) = node.pipeline.commit_and_wait(tx, &Outcome::default()).unwrap();
    (executed.tx_id, fate.await)
}

fn put(node: &TestNode, key: u64, value: &str) -> Tx {
    let mut tx = node.pipeline.store().begin();
    tx.put(&MapName::new("records"), key.to_be_bytes(), value);
    tx
}

async fn write(node: &TestNode, key: u64, value: &str) -> TxId {
    let (tx_id, status) = commit(node, put(node, key, value)).await;
    assert_eq!(status, TxStatus::Committed);
    tx_id
}

fn records(node: &TestNode) -> BTreeMap<u64, String> {
    let mut tx = node.pipeline.store().begin();
    let mut records = BTreeMap::new();
    tx.for_each(&MapName::new("records"), |key, value| {
        let value = String::from_utf8(value.to_vec()).unwrap();
        records.insert(u64::from_be_bytes(key.try_into().unwrap()), value);
        std::ops::ControlFlow::Continue(())
    });
    records
}
