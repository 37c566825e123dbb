//! The commit pipeline on a simulated host: commitment, receipts, snapshots, limits.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

mod simulated;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use coco_adapter::{AdapterError, Endpoints, Outcome, Protocol, Registry, TxStatus};
use coco_crypto::sha256;
use coco_enclave::host::Area;
use coco_enclave::node::{Adapters, Node};
use coco_enclave::pipeline::{CommitError, ReceiptError};
use coco_kv::{MapName, Seqno, TxId};
use coco_ledger::{Leaf, SnapshotFile, StateWanted};
use parking_lot::Mutex;
use simulated::node::{audited, put, put_committed, service_key, start};
use simulated::{SimulatedDisk, in_virtual_time};

#[test]
fn a_new_service_begins_as_ccf_does_and_audits() {
    let disk = SimulatedDisk::new();
    let key = in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        assert_eq!(node.pipeline().last_committed(), TxId::new(2, 2));
        let tx_id = put_committed(&node, "a", "1").await;
        assert_eq!(tx_id, TxId::new(2, 3));
        assert_eq!(node.pipeline().view_history(), [Seqno(1), Seqno(1)]);
        node.shutdown().await;
        let refused = node.pipeline().commit(put(&node, "b", "2"), &Outcome::default());
        assert_eq!(refused, Err(CommitError::Stopped));
        service_key(&node)
    });
    let report = audited(&disk, key);
    assert_eq!((report.last_signed, report.last), (TxId::new(2, 4), TxId::new(2, 4)));
    assert_eq!(disk.names(Area::Ledger), ["ledger_1"]);
    let second = in_virtual_time(async { start(2, &disk, "Start", "").await.map(|_| ()) });
    let message = second.unwrap_err().to_string();
    assert_eq!(message, "On start, ledger directory should not exist or be empty (ledger)");
}

#[test]
fn an_idle_service_writes_nothing() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        let before = disk.submissions();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(disk.submissions(), before);
        // A transaction nobody waits for is signed after the delay.
        let executed = node.pipeline().commit(put(&node, "a", "1"), &Outcome::default()).unwrap();
        assert_eq!(node.pipeline().status(executed.tx_id), TxStatus::Pending);
        tokio::time::sleep(Duration::from_millis(9)).await;
        assert_eq!(node.pipeline().status(executed.tx_id), TxStatus::Pending);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(node.pipeline().status(executed.tx_id), TxStatus::Committed);
    });
}

#[test]
fn a_lone_waiter_is_served_at_once_and_many_share_batches() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        let began = tokio::time::Instant::now();
        put_committed(&node, "a", "1").await;
        assert!(began.elapsed() <= Duration::from_millis(2), "{:?}", began.elapsed());

        let batches = node.pipeline().metrics().batches;
        let writers: Vec<_> = (0..100)
            .map(|writer| {
                let node = node.clone();
                tokio::spawn(async move {
                    let key = format!("key {writer}");
                    put_committed(&node, &key, "x").await
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let batches = node.pipeline().metrics().batches - batches;
        assert!(batches <= 5, "{batches} batches for 100 waiters");
    });
}

#[test]
fn only_for_a_client_alone_the_nodes_thread_waits_for_the_disk() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        put_committed(&node, "a", "1").await;
        disk.take_lent();
        put_committed(&node, "a", "2").await;
        assert_eq!(disk.take_lent(), [true]);

        // Somebody reads meanwhile.
        let read = node.pipeline().store().begin();
        node.pipeline().commit(read, &Outcome::default()).unwrap();
        put_committed(&node, "a", "3").await;
        put_committed(&node, "a", "4").await;
        assert_eq!(disk.take_lent(), [false, true]);

        // Two clients: the first cannot know of the other, nor does the last have one.
        let client = async |key| {
            for number in 0..10 {
                put_committed(&node, key, &number.to_string()).await;
            }
        };
        tokio::join!(client("b"), client("c"));
        let lent = disk.take_lent();
        assert!(lent.iter().filter(|is_spare| **is_spare).count() <= 2, "{lent:?}");
    });
}

#[test]
fn statuses_and_receipts_follow_a_transaction() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        let pipeline = node.pipeline();
        let claims = sha256(b"claims");
        let outcome = Outcome { claims: Some(claims), ..Outcome::default() };
        let executed = pipeline.commit(put(&node, "a", "1"), &outcome).unwrap();
        let tx_id = executed.tx_id;
        let pending = Err(ReceiptError::PendingOrUnknown(tx_id));
        assert_eq!(pipeline.receipt(tx_id).await.map(|_| ()), pending);
        assert_eq!(pipeline.wait_committed(tx_id).await, TxStatus::Committed);

        let receipt = pipeline.receipt(tx_id).await.unwrap();
        receipt.verify_claims(&service_key(&node), claims).unwrap();
        let cose = pipeline.cose_receipt(tx_id).await.unwrap().unwrap();
        cose.verify_claims(&service_key(&node), claims).unwrap();

        let signature = TxId { seqno: tx_id.seqno.next(), ..tx_id };
        let receipt = pipeline.receipt(signature).await.unwrap();
        assert!(matches!(receipt.proof.leaf, Leaf::Digest(_)));
        receipt.verify(&service_key(&node)).unwrap();
        assert!(pipeline.cose_receipt(signature).await.unwrap().is_none());

        let other_view = TxId::new(1, tx_id.seqno.0);
        assert_eq!(pipeline.wait_committed(other_view).await, TxStatus::Invalid);
        let invalid = pipeline.receipt(other_view).await;
        assert_eq!(invalid.map(|_| ()), Err(ReceiptError::Invalid(other_view)));
        let root = pipeline.root_at(signature.seqno).unwrap();
        assert_ne!(Some(root), pipeline.root_at(tx_id.seqno));
        assert_eq!(pipeline.root_at(Seqno(1_000)), None);
    });
}

#[test]
fn the_node_signs_every_so_often_and_its_receipts_whenever_asked() {
    for (delay, by_node) in [("0s", 41), ("1s", 4), ("1h", 1)] {
        let disk = SimulatedDisk::new();
        let delay = format!(r#", "ledger_signatures": {{"node_delay": "{delay}"}}"#);
        let key = in_virtual_time(async {
            let node = start(1, &disk, "Start", &delay).await.unwrap();
            for number in 0..40 {
                let tx_id = put_committed(&node, "key", &number.to_string()).await;
                node.pipeline().receipt(tx_id).await.unwrap().verify(&service_key(&node)).unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            node.shutdown().await;
            service_key(&node)
        });
        let stats = audited(&disk, key).stats;
        assert_eq!((stats.service_signatures, stats.node_signatures), (41, by_node), "{delay}");
    }
}

#[test]
fn a_root_can_be_had_before_the_batch_is_cut() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        let executed = node.pipeline().commit(put(&node, "a", "1"), &Outcome::default()).unwrap();
        let root = node.pipeline().root_at(executed.tx_id.seqno).unwrap();
        assert_eq!(node.pipeline().status(executed.tx_id), TxStatus::Pending);
        assert_eq!(node.pipeline().wait_committed(executed.tx_id).await, TxStatus::Committed);
        // The signature that follows signs exactly this root.
        let signature = TxId { seqno: executed.tx_id.seqno.next(), ..executed.tx_id };
        let receipt = node.pipeline().receipt(signature).await.unwrap();
        assert_eq!(receipt.proof.leaf, Leaf::Digest(root));
    });
}

#[test]
fn too_many_uncommitted_transactions_are_refused() {
    let disk = SimulatedDisk::new();
    let few = r#", "consensus": {"max_uncommitted_tx_count": 10}"#;
    in_virtual_time(async {
        let node = start(1, &disk, "Start", few).await.unwrap();
        let mut outcomes = Vec::new();
        for number in 0..20 {
            let tx = put(&node, &number.to_string(), "x");
            outcomes.push(node.pipeline().commit(tx, &Outcome::default()));
        }
        assert!(outcomes[..10].iter().all(Result::is_ok));
        assert!(outcomes[10..].iter().all(|outcome| *outcome == Err(CommitError::TooManyPending)));
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(node.pipeline().commit(put(&node, "later", "x"), &Outcome::default()).is_ok());
    });
}

#[test]
fn a_transaction_beyond_the_limit_is_refused() {
    let disk = SimulatedDisk::new();
    let small = r#", "ledger": {"max_transaction_size": "1MB"}"#;
    in_virtual_time(async {
        let node = start(1, &disk, "Start", small).await.unwrap();
        let transaction = put(&node, "key", &"x".repeat(1 << 20));
        let refused = node.pipeline().commit(transaction, &Outcome::default());
        let limit = 1 << 20;
        assert!(
            matches!(refused, Err(CommitError::TooLarge { bytes, limit: of }) if bytes > of && of == limit),
            "{refused:?}"
        );
        put_committed(&node, "key", &"x".repeat(500_000)).await;
    });
}

#[test]
fn snapshots_are_written_when_due_and_verify() {
    let disk = SimulatedDisk::new();
    let often = r#", "snapshots": {"tx_count": 20}"#;
    in_virtual_time(async {
        let node = start(1, &disk, "Start", often).await.unwrap();
        let value = "x".repeat(400);
        for number in 0..80 {
            put_committed(&node, &format!("key {}", number % 5), &value).await;
        }
        let forced = Outcome { force_snapshot: true, ..Outcome::default() };
        let (_, committed) =
            node.pipeline().commit_and_wait(put(&node, "last", "x"), &forced).unwrap();
        committed.await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let names = disk.names(Area::Snapshots);
        assert!(names.len() >= 4, "{names:?}");
        for name in &names {
            assert!(name.ends_with(".committed"), "{name}");
            let bytes = disk.file(Area::Snapshots, name).unwrap();
            let snapshot = SnapshotFile::read(&bytes, StateWanted::Nothing).unwrap();
            snapshot.verify(&service_key(&node)).unwrap();
        }
        // A snapshot does not bring about the next one.
        let before = disk.submissions();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(disk.submissions(), before);
    });
}

#[test]
fn a_snapshot_that_the_disk_changes_is_not_recorded() {
    let disk = SimulatedDisk::new();
    // What a process left that ended meanwhile.
    disk.add(Area::Snapshots, "snapshot_7.writing", b"begun");
    in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        put_committed(&node, "a", "1").await;
        assert!(disk.names(Area::Snapshots).is_empty());
        let snapshot = async || {
            let forced = Outcome { force_snapshot: true, ..Outcome::default() };
            node.pipeline().commit_and_wait(put(&node, "a", "2"), &forced).unwrap().1.await;
        };
        let changes = {
            let disk = Arc::clone(&disk);
            tokio::spawn(async move {
                loop {
                    let name = disk.names(Area::Snapshots).pop().unwrap_or_default();
                    if disk.file(Area::Snapshots, &name).is_some_and(|bytes| bytes.len() > 1000) {
                        return disk.tamper(Area::Snapshots, &name, |bytes| bytes[1000] ^= 1);
                    }
                    tokio::time::sleep(Duration::from_micros(1)).await;
                }
            })
        };
        snapshot().await;
        changes.await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(disk.names(Area::Snapshots).is_empty());
        // The next one is.
        snapshot().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let names = disk.names(Area::Snapshots);
        assert!(names.len() == 1 && names[0].ends_with(".committed"), "{names:?}");
        node.shutdown().await;
    });
}

#[test]
fn snapshots_are_written_when_time_has_passed() {
    let disk = SimulatedDisk::new();
    let timed = r#", "snapshots": {"time_interval": "60s", "min_tx_count": 3}"#;
    in_virtual_time(async {
        let snapshots = || disk.names(Area::Snapshots).len();
        let node = start(1, &disk, "Start", timed).await.unwrap();
        let pass = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;
        put_committed(&node, "a", "1").await;
        pass(59).await;
        assert_eq!(snapshots(), 0);
        pass(2).await;
        assert_eq!(snapshots(), 1, "though nothing happens any more");
        // Nothing was committed since: a snapshot is no reason for another.
        pass(600).await;
        assert_eq!(snapshots(), 1);
        // One transaction with its signature is too little, two are enough at once.
        put_committed(&node, "a", "2").await;
        pass(600).await;
        assert_eq!(snapshots(), 1);
        put_committed(&node, "a", "3").await;
        pass(1).await;
        assert_eq!(snapshots(), 2);
        // One that was due otherwise begins the interval anew.
        pass(30).await;
        let forced = Outcome { force_snapshot: true, ..Outcome::default() };
        let put = put(&node, "a", "4");
        node.pipeline().commit_and_wait(put, &forced).unwrap().1.await;
        pass(1).await;
        assert_eq!(snapshots(), 3);
        for _ in 0..5 {
            put_committed(&node, "a", "5").await;
        }
        pass(50).await;
        assert_eq!(snapshots(), 3);
        pass(15).await;
        assert_eq!(snapshots(), 4);
        for name in disk.names(Area::Snapshots) {
            let bytes = disk.file(Area::Snapshots, &name).unwrap();
            let snapshot = SnapshotFile::read(&bytes, StateWanted::Nothing).unwrap();
            snapshot.verify(&service_key(&node)).unwrap();
        }
        node.shutdown().await;
    });
}

#[test]
fn conflicting_transfers_keep_their_sum() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        let map = MapName::new("accounts");
        let mut tx = node.pipeline().store().begin();
        (0..4_u8).for_each(|account| tx.put(&map, [account], 1_000_u64.to_le_bytes()));
        node.pipeline().commit(tx, &Outcome::default()).unwrap();
        let conflicts = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (0..8_u64)
            .map(|task| {
                let (node, conflicts, map) = (node.clone(), conflicts.clone(), map.clone());
                tokio::spawn(async move {
                    let mut random = simulated::Random(task);
                    for _ in 0..50 {
                        let from = random.below(4) as u8;
                        let to = (from + 1 + random.below(3) as u8) % 4;
                        transfer(&node, &map, from, to, random.below(10), &conflicts).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let mut tx = node.pipeline().store().begin();
        let balance = |tx: &mut coco_kv::Tx, account: u8| {
            u64::from_le_bytes(tx.get(&map, &[account]).unwrap()[..].try_into().unwrap())
        };
        assert_eq!((0..4).map(|account| balance(&mut tx, account)).sum::<u64>(), 4_000);
        let counted = conflicts.load(Ordering::SeqCst);
        assert!(counted > 0, "no conflict was provoked");
        assert_eq!(node.pipeline().metrics().conflicts, counted);
        node.shutdown().await;
        audited(&disk, service_key(&node));
    });
}

async fn transfer(
    node: &Node,
    map: &MapName,
    from: u8,
    to: u8,
    amount: u64,
    conflicts: &AtomicU64,
) {
    loop {
        let mut tx = node.pipeline().store().begin();
        let balance = |tx: &mut coco_kv::Tx, account: u8| {
            u64::from_le_bytes(tx.get(map, &[account]).unwrap()[..].try_into().unwrap())
        };
        let (rich, poor) = (balance(&mut tx, from), balance(&mut tx, to));
        // Others run in between.
        tokio::task::yield_now().await;
        tx.put(map, [from], (rich - amount.min(rich)).to_le_bytes());
        tx.put(map, [to], (poor + amount.min(rich)).to_le_bytes());
        match node.pipeline().commit(tx, &Outcome::default()) {
            Ok(_) => return,
            Err(CommitError::Conflict) => {
                conflicts.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_failing_disk_stops_the_ledger_and_nothing_is_reported_committed() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        disk.fail_after(1);
        let tx = put(&node, "a", "1");
        let (executed, outcome) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
        assert_eq!(outcome.await, TxStatus::Pending);
        assert_eq!(node.pipeline().status(executed.tx_id), TxStatus::Pending);
        let refused = node.pipeline().commit(put(&node, "b", "2"), &Outcome::default());
        assert_eq!(refused, Err(CommitError::Stopped));
        assert!(node.pipeline().has_failed());
        node.shutdown().await;
    });
}

#[test]
fn hooks_learn_what_is_committed() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start(1, &disk, "Start", "").await.unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let counter = seen.clone();
        let hook = move |tx_id: TxId| counter.store(tx_id.seqno.0, Ordering::SeqCst);
        node.pipeline().on_committed(Box::new(hook));
        let tx_id = put_committed(&node, "a", "1").await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(seen.load(Ordering::SeqCst), tx_id.seqno.0 + 1);
    });
}

/// Counts the transactions since its last record, as a blockchain protocol makes its blocks.
#[derive(Default)]
struct Blocks {
    sealed: Mutex<Vec<(u64, u64)>>,
    node: OnceLock<Arc<dyn coco_adapter::Node>>,
    broken: AtomicBool,
}

impl coco_adapter::Adapter for Blocks {
    fn name(&self) -> &'static str {
        "blocks"
    }
}

impl Protocol for Blocks {
    fn start(
        &self,
        tx: &mut coco_kv::Tx,
        node: Arc<dyn coco_adapter::Node>,
    ) -> Result<(), AdapterError> {
        tx.put(&MapName::new("public:blocks"), "last", "genesis");
        let _ = self.node.set(node);
        Ok(())
    }

    fn seal(&self, tx: &mut coco_kv::Tx, batch: coco_adapter::Batch) -> Result<(), AdapterError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(AdapterError("a root is missing".to_owned()));
        }
        self.sealed.lock().push((batch.first.seqno.0, batch.last.seqno.0));
        tx.put(&MapName::new("public:blocks"), "last", batch.last.to_string());
        Ok(())
    }

    fn handle(
        &self,
        _client: &coco_adapter::Client,
        _request: coco_adapter::Request,
    ) -> coco_adapter::BoxFuture<'static, coco_adapter::Response> {
        Box::pin(std::future::ready(coco_adapter::Response::default()))
    }
}

async fn start_with_blocks(disk: &Arc<SimulatedDisk>, blocks: &Arc<Blocks>) -> Node {
    let app: Arc<dyn Endpoints> = Arc::new(Registry::new("test", "Test", ""));
    let adapters = Adapters { app, protocols: vec![blocks.clone()] };
    simulated::node::start_with(1, disk, "Start", "", adapters).await.unwrap()
}

#[test]
fn each_batch_is_sealed_once_by_its_protocols() {
    let disk = SimulatedDisk::new();
    let blocks = Arc::new(Blocks::default());
    in_virtual_time(async {
        let node = start_with_blocks(&disk, &blocks).await;
        // Before the first of these are the service's and the protocol's own first transactions.
        let first = put_committed(&node, "a", "1").await.seqno.0;
        let second = put_committed(&node, "b", "2").await.seqno.0;
        // Each batch: the transaction, the record, the signature.
        assert_eq!(second, first + 3);
        assert_eq!(*blocks.sealed.lock(), [(1, 2), (3, first), (first + 1, second)]);
        let record = TxId::new(2, second + 1);
        let state = node.pipeline().historical_state(record).await.unwrap();
        let written = state.state.map(&MapName::new("public:blocks")).unwrap();
        assert_eq!(&*written.get(b"last").unwrap().value, format!("2.{second}").as_bytes());
        node.shutdown().await;
        audited(&disk, service_key(&node));
    });
}

#[test]
fn a_batch_that_cannot_be_sealed_is_never_signed() {
    let disk = SimulatedDisk::new();
    let blocks = Arc::new(Blocks::default());
    in_virtual_time(async {
        let node = start_with_blocks(&disk, &blocks).await;
        let kept = put_committed(&node, "a", "1").await;
        blocks.broken.store(true, Ordering::SeqCst);
        let protocol = blocks.node.get().unwrap();
        let mut tx = protocol.begin();
        tx.put(&MapName::new("records"), "b", "2");
        let lost = protocol.commit(tx, &Outcome::default()).unwrap();
        // Whoever waits is told that it is not known to be committed, and nobody can go on.
        assert_eq!(protocol.wait_committed(lost).await, TxStatus::Pending);
        assert!(node.pipeline().has_failed());
        let mut tx = protocol.begin();
        tx.put(&MapName::new("records"), "c", "3");
        let refused = protocol.commit(tx, &Outcome::default());
        assert_eq!(refused, Err(coco_adapter::CommitError::Stopped));
        assert!(node.pipeline().receipt(kept).await.is_ok());
        node.shutdown().await;
        let report = audited(&disk, service_key(&node));
        assert!(report.last_signed.seqno < lost.seqno, "{report:?}");
        assert_eq!(report.unsigned(), 0);
    });
}

#[test]
fn a_protocol_has_its_batches_cut_in_time() {
    let disk = SimulatedDisk::new();
    let blocks = Arc::new(Blocks::default());
    in_virtual_time(async {
        let node = start_with_blocks(&disk, &blocks).await;
        let protocol = blocks.node.get().unwrap();
        let write = |value: &str| {
            let mut tx = protocol.begin();
            tx.put(&MapName::new("records"), "a", value);
            protocol.commit(tx, &Outcome::default()).unwrap()
        };
        let pause = tokio::time::sleep;
        let late = write("1");
        pause(Duration::from_millis(5)).await;
        assert_eq!(protocol.status(late), TxStatus::Pending, "the usual delay is 10 ms");
        let soon = write("2");
        protocol.cut_within(Duration::from_millis(1));
        pause(Duration::from_millis(4)).await;
        assert_eq!(protocol.status(late), TxStatus::Committed);
        assert_eq!(protocol.status(soon), TxStatus::Committed);
        assert!(protocol.receipt(soon).await.is_ok());
        // A wish that comes too late for its batch harms nobody.
        protocol.cut_within(Duration::ZERO);
        let next = write("3");
        pause(Duration::from_millis(30)).await;
        assert_eq!(protocol.status(next), TxStatus::Committed);
        node.shutdown().await;
    });
}

#[test]
fn a_large_state_is_not_written_more_often_than_the_ledger_grows() {
    let disk = SimulatedDisk::new();
    let often = r#", "snapshots": {"tx_count": 5}"#;
    in_virtual_time(async {
        let node = start(1, &disk, "Start", often).await.unwrap();
        put_committed(&node, "large", &"x".repeat(200_000)).await;
        for number in 0..60 {
            put_committed(&node, &format!("key {number}"), "x").await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        // 60 small batches of some 3 KB are less than half of what one snapshot takes.
        let names = disk.names(Area::Snapshots);
        assert!((1..=2).contains(&names.len()), "{names:?}");
    });
}
