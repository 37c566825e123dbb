//! Pipelines of several nodes in one process: what they agree on, and what becomes of waiters.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

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
    ChunkWriter, ChunkWriterConfig, EntryFlags, LedgerSecret, MerkleTree, SignatureTransaction,
    SignedBy, Signer, SnapshotName, ViewHistory, encode_entry,
};
use parking_lot::Mutex;
use serde_json::json;

use self::simulated::node::{audited, config};
use self::simulated::{SeededEntropy, SimulatedDisk, SimulatedHost, in_virtual_time};
use super::{Channels, Continuation, Pipeline, Settings, split_entry};
use crate::channels::wire::SnapshotOffer;
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
        // Who stops first may not have heard that its last complete chunk is committed.
        let files = |node: &TestNode| -> BTreeMap<_, _> {
            let names = node.disk.names(Area::Ledger).into_iter();
            let complete = names.filter_map(|name| {
                let chunk = name.trim_end_matches(".committed").to_owned();
                chunk.contains('-').then(|| (chunk, node.disk.file(Area::Ledger, &name)))
            });
            complete.collect()
        };
        let expected = files(&self.nodes[0]);
        for node in &self.nodes {
            audited(&node.disk, self.key.public().clone());
            for (name, bytes) in files(node) {
                assert!(expected.get(&name) == Some(&bytes), "{name} differs");
            }
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

#[test]
fn nodes_that_are_trusted_learn_the_ledger_and_then_count() {
    in_virtual_time(async {
        let mut service = Service::of(1).await;
        for key in 0..100 {
            write(&service.nodes[0], key, "before they came").await;
        }
        service = service.with(3).await;
        let tx_id = write(&service.nodes[0], 200, "after").await;
        service.converge().await;
        for node in &service.nodes {
            assert_eq!(node.pipeline.status(tx_id), TxStatus::Committed);
            let receipt = node.pipeline.receipt(tx_id).await.unwrap();
            receipt.verify(service.key.public()).unwrap();
            let early = node.pipeline.receipt(TxId::new(2, 9)).await.unwrap();
            early.verify(service.key.public()).unwrap();
        }
        let backup = &service.nodes[1];
        let refused = backup.pipeline.commit(put(backup, 1, "x"), &Outcome::default());
        assert_eq!(refused, Err(CommitError::NotPrimary));
        service.stop().await;
    });
}

#[test]
fn what_a_node_passes_on_to_others_it_does_not_keep() {
    in_virtual_time(async {
        let service = Service::of(1).await;
        for key in 0..100 {
            write(&service.nodes[0], key, "value").await;
        }
        let service = service.with(2).await;
        let historical = &service.nodes[0].pipeline.inner.historical;
        let early = TxId::new(2, 9);
        assert!(historical.cached_state(early).is_none());
        historical.state(early).await.unwrap();
        assert!(historical.cached_state(early).is_some(), "who asks may ask again");
        service.stop().await;
    });
}

#[test]
fn a_snapshot_is_due_only_when_the_one_before_is_written() {
    in_virtual_time(async {
        let service = Service::of(1).await;
        let pipeline = &service.nodes[0].pipeline;
        let write_all = async |keys: std::ops::Range<u64>| {
            for key in keys {
                write(&service.nodes[0], key, "value").await;
            }
        };
        write_all(0..200).await;
        let first = pipeline.take_snapshot_due().unwrap().state.tx_id().seqno;
        write_all(200..400).await;
        assert!(pipeline.take_snapshot_due().is_none(), "the first is being written");
        pipeline.snapshot_done(first);
        write_all(400..401).await;
        let second = pipeline.take_snapshot_due().unwrap().state.tx_id().seqno;
        assert!(second > first, "{second} after {first}");
        service.stop().await;
    });
}

#[test]
fn a_primary_that_is_cut_off_is_replaced_and_its_pending_transactions_get_their_answer() {
    in_virtual_time(async {
        let service = Service::of(3).await;
        let old = &service.nodes[0];
        let kept = write(old, 1, "kept").await;
        service.cut_off(old.id);
        let lost: Vec<_> = (0..300)
            .map(|key| {
                let tx = put(old, 1_000 + key, "lost");
                let (executed, fate) =
                    old.pipeline.commit_and_wait(tx, &Outcome::default()).unwrap();
                (executed.tx_id, tokio::spawn(fate))
            })
            .collect();
        let cut_at = tokio::time::Instant::now();
        let new = service.elected().await;
        assert_ne!(new.id, old.id);
        assert!(cut_at.elapsed() < Duration::from_secs(1), "{:?}", cut_at.elapsed());
        // It has it, and learns that it is committed.
        assert_eq!(new.pipeline.wait_committed(kept).await, TxStatus::Committed);
        let written = write(new, 2, "later").await;
        assert!(written.view > kept.view);
        service.heal();
        for (tx_id, fate) in lost {
            assert_eq!(fate.await.unwrap(), TxStatus::Invalid, "{tx_id}");
        }
        service.converge().await;
        let expected = BTreeMap::from([(1, "kept".to_owned()), (2, "later".to_owned())]);
        assert_eq!(records(old), expected);
        assert_eq!(old.pipeline.status(written), TxStatus::Committed);
        let refused = old.pipeline.commit(put(old, 1, "x"), &Outcome::default());
        assert_eq!(refused, Err(CommitError::NotPrimary));
        service.stop().await;
    });
}

#[test]
fn leadership_goes_round_while_clients_write() {
    in_virtual_time(async {
        let service = Arc::new(Service::of(3).await);
        let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let (service, acknowledged) = (Arc::clone(&service), Arc::clone(&acknowledged));
                tokio::spawn(async move {
                    for number in 0..60 {
                        tokio::time::sleep(Duration::from_millis(20 + writer)).await;
                        let key = writer * 1_000 + number;
                        let node = service.elected().await;
                        let tx = put(node, key, "value");
                        let Ok((executed, fate)) =
                            node.pipeline.commit_and_wait(tx, &Outcome::default())
                        else {
                            continue;
                        };
                        // A node that is cut off keeps its clients waiting until it hears more.
                        let wait = Duration::from_secs(5);
                        if let Ok(status) = tokio::time::timeout(wait, fate).await {
                            acknowledged.lock().insert(key, (executed.tx_id, status));
                        }
                    }
                })
            })
            .collect();
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let primary = service.elected().await.id;
            service.cut_off(primary);
            tokio::time::sleep(Duration::from_millis(500)).await;
            service.heal();
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let node = service.elected().await;
        write(node, 9_999, "last").await;
        service.converge().await;
        let records = records(&service.nodes[0]);
        let acknowledged = std::mem::take(&mut *acknowledged.lock());
        let committed = acknowledged.values().filter(|(_, it)| *it == TxStatus::Committed);
        assert!(committed.count() > 100);
        for (key, (tx_id, status)) in acknowledged {
            assert_eq!(records.contains_key(&key), status == TxStatus::Committed, "{key} {tx_id}");
            for node in &service.nodes {
                assert_eq!(node.pipeline.status(tx_id), status, "{tx_id}");
            }
        }
        Arc::into_inner(service).unwrap().stop().await;
    });
}

#[test]
fn a_node_that_was_away_for_long_gets_the_ledger_from_others() {
    in_virtual_time(async {
        let mut service = Service::new();
        service.max_kept_bytes = 4 << 10;
        let service = service.with(3).await;
        let away = &service.nodes[2];
        write(&service.nodes[0], 1, "together").await;
        service.cut_off(away.id);
        for key in 0..200 {
            write(&service.nodes[0], key, "without it").await;
        }
        assert!(away.pipeline.last_committed().seqno < Seqno(100));
        service.heal();
        service.converge().await;
        service.stop().await;
    });
}

/// The primary is gone. Of the other two, one must have the ledger up to what the other has and has
/// not heard to be committed, nor can hear before the first has it.
#[test]
fn what_a_node_must_install_it_gets_from_one_that_does_not_know_it_as_committed() {
    in_virtual_time(async {
        let mut service = Service::new();
        service.max_kept_bytes = 4 << 10;
        let service = service.with(3).await;
        let [primary, unaware, lagging] = &service.nodes[..] else { panic!("three nodes") };
        write(primary, 1, "together").await;
        service.cut_off(lagging.id);
        for key in 0..200 {
            write(primary, key, "without it").await;
        }
        let moment = Duration::from_millis(1);
        let tx = put(primary, 999, "not told");
        let (executed, fate) = primary.pipeline.commit_and_wait(tx, &Outcome::default()).unwrap();
        let fate = tokio::spawn(fate);
        while unaware.pipeline.store().head().seqno < executed.tx_id.seqno {
            tokio::time::sleep(moment).await;
        }
        service.network.lost.lock().insert((primary.id, unaware.id));
        assert_eq!(fate.await.unwrap(), TxStatus::Committed);
        service.heal();
        let at = loop {
            let installing = *lagging.pipeline.inner.installing.lock();
            if let Some(at) = installing {
                break at;
            }
            tokio::time::sleep(moment).await;
        };
        service.cut_off(primary.id);
        assert!(at.seqno >= executed.tx_id.seqno);
        assert_eq!(unaware.pipeline.status(executed.tx_id), TxStatus::Pending);

        // It gives that to whoever names it, and nothing more to anybody else.
        let after = unaware.pipeline.last_committed().seqno;
        let given = async |to: u64, committed| {
            let entries = unaware.pipeline.ledger(after, Seqno(to), committed).await.unwrap();
            let (mut rest, mut count) = (&entries[..], 0);
            while !rest.is_empty() {
                rest = split_entry(rest).unwrap().1;
                count += 1;
            }
            after.0 + count
        };
        assert_eq!(given(u64::MAX, at).await, at.seqno.0);
        assert_eq!(given(at.seqno.0 - 1, at).await, at.seqno.0 - 1);
        let others = [(0, 0), (1, at.seqno.0), (3, at.seqno.0), (2, at.seqno.0 + 1)];
        for (view, seqno) in others {
            assert_eq!(given(u64::MAX, TxId::new(view, seqno)).await, after.0, "{view}.{seqno}");
        }

        let gone_at = tokio::time::Instant::now();
        let goes_on = async { write(service.elected().await, 2, "by two").await };
        tokio::time::timeout(Duration::from_secs(60), goes_on).await.expect("it goes on");
        assert!(gone_at.elapsed() < Duration::from_secs(2), "{:?}", gone_at.elapsed());
        assert_eq!(unaware.pipeline.status(executed.tx_id), TxStatus::Committed);
        service.network.lost.lock().clear();
        service.heal();
        service.converge().await;
        service.stop().await;
    });
}

/// It stands in memory, and has valid signatures.
#[test]
fn what_was_taken_back_is_given_to_nobody() {
    in_virtual_time(async {
        let service = Service::of(3).await;
        let old = &service.nodes[0];
        let kept = write(old, 1, "kept").await.seqno;
        service.cut_off(old.id);
        let lost = old.pipeline.commit(put(old, 2, "lost"), &Outcome::default()).unwrap().tx_id;
        let new = service.elected().await;
        write(new, 3, "later").await;
        let historical = &old.pipeline.inner.historical;
        let first = lost.seqno;
        let void = historical.entries(first, first).await.unwrap();
        service.heal();
        service.converge().await;
        assert_eq!(historical.entries(first, first).await.unwrap(), void, "it was read before");
        let given = async |node: &TestNode| {
            let last = node.pipeline.last_committed().seqno;
            node.pipeline.ledger(kept, last, TxId::default()).await.unwrap()
        };
        assert_eq!(given(old).await, given(new).await);
        service.stop().await;
    });
}

#[test]
fn a_node_that_is_retired_leaves_and_a_primary_that_stops_hands_over() {
    in_virtual_time(async {
        let service = Service::of(4).await;
        let (first, leaving) = (&service.nodes[0], &service.nodes[3]);
        set_status(first, leaving, NodeStatus::Retired).await;
        while first.pipeline.membership().voters.len() != 3 {
            tokio::time::sleep(TICK).await;
        }
        assert!(!first.pipeline.membership().nodes().contains(&leaving.id));
        write(first, 1, "by three").await;
        let stopped_at = tokio::time::Instant::now();
        first.pipeline.stop().await;
        service.cut_off(first.id);
        let next = service.elected().await;
        assert!(stopped_at.elapsed() < Duration::from_millis(100), "{:?}", stopped_at.elapsed());
        write(next, 2, "by two").await;
    });
}

/// What is wrong with a signature shows only when it is verified, while the disk may work already.
#[test]
fn a_batch_with_a_wrong_signature_is_refused_and_the_right_one_taken() {
    in_virtual_time(async {
        let service = Service::of(2).await;
        write(&service.nodes[0], 1, "value").await;
        service.converge().await;
        let backup = &service.nodes[1].pipeline.inner;
        let signer = service.nodes[0].pipeline.inner.keys.signer();
        let (end, secrets) = (backup.store.head(), backup.keys.secrets());
        let tx_id = TxId { view: end.view, seqno: end.seqno.next() };
        let tree = backup.writer.lock().tree_to(end.seqno).unwrap();
        let sign = |tree: &MerkleTree| {
            let by = SignedBy::ServiceAndNode;
            SignatureTransaction::sign(tx_id, tree, end.seqno.0, &signer, by, 0).unwrap()
        };
        let batch = |signature: &SignatureTransaction| {
            let (writes, flags) = (signature.writes(), EntryFlags::NONE);
            let secret = secrets.secret_for(tx_id.seqno).unwrap();
            let entry = encode_entry(tx_id, &writes, Digest::ZERO, secret, flags).unwrap();
            Batch { first: tx_id.seqno, last: tx_id, entries: entry.bytes.into() }
        };
        let mut other_tree = tree.clone();
        assert!(other_tree.retract_to(end.seqno.0));
        other_tree.append(Digest([7; 32]));
        let (right, other) = (sign(&tree), sign(&other_tree));
        let mut of_node = right.clone();
        of_node.node.as_mut().unwrap().signature = other.node.unwrap().signature;
        let of_service = SignatureTransaction { service: other.service, ..right.clone() };
        let without_node = SignatureTransaction { node: None, ..of_service.clone() };
        let without_service = SignatureTransaction { service: None, ..right.clone() };
        let refused = backup.apply(&batch(&without_service)).unwrap_err().to_string();
        assert!(refused.contains("last entry is none"), "{refused}");
        for wrong in [of_node, of_service, without_node] {
            let refused = backup.apply(&batch(&wrong)).unwrap_err().to_string();
            assert!(refused.contains("does not verify"), "{refused}");
            assert_eq!(backup.store.head(), end);
            assert_eq!(backup.writer.lock().last(), end.seqno);
        }
        backup.apply(&batch(&right)).unwrap();
        assert_eq!(backup.store.head(), tx_id);
    });
}
