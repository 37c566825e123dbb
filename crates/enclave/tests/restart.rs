//! Restarts: graceful, after crashes at random points, and on damaged disks.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

mod simulated;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coco_adapter::{Outcome, TxStatus};
use coco_crypto::PublicKey;
use coco_enclave::host::Area;
use coco_enclave::node::{Node, NodeState, StartError};
use coco_enclave::pipeline::CommitError;
use coco_enclave::recovery::RecoveryError;
use coco_kv::{MapName, Seqno, TxId};
use parking_lot::Mutex;
use simulated::node::{agree, audited, start, start_open};
use simulated::{Random, SimulatedDisk, in_virtual_time};

/// What was reported committed: per key the number written last, and where.
type Reported = Arc<Mutex<BTreeMap<u64, (u64, TxId)>>>;

fn maps() -> [MapName; 2] {
    [MapName::new("records"), MapName::new("public:log")]
}

/// Writes ascending numbers to a key until the node stops; some without waiting.
async fn write_numbers(node: Node, key: u64, mut number: u64, reported: Reported) {
    let mut random = Random(key * 1_000_003 + number);
    loop {
        number += 1;
        let mut tx = node.pipeline().store().begin();
        for map in maps() {
            // Some values are larger than a sector.
            let mut value = number.to_le_bytes().to_vec();
            value.resize(8 + random.below(3) as usize * 400, 7);
            tx.put(&map, key.to_le_bytes(), value);
        }
        let outcome = Outcome { force_chunk: random.below(20) == 0, ..Outcome::default() };
        if random.below(3) == 0 {
            match node.pipeline().commit(tx, &outcome) {
                Ok(_) => tokio::time::sleep(Duration::from_micros(random.below(3_000))).await,
                Err(CommitError::TooManyPending) => tokio::task::yield_now().await,
                Err(_) => return,
            }
            continue;
        }
        let Ok((executed, committed)) = node.pipeline().commit_and_wait(tx, &outcome) else {
            return;
        };
        if committed.await != TxStatus::Committed {
            return;
        }
        reported.lock().insert(key, (number, executed.tx_id));
    }
}

fn service_key(node: &Node) -> PublicKey {
    node.identity().service_certificate.public_key().unwrap()
}

fn number_of(node: &Node, map: &MapName, key: u64) -> u64 {
    let mut tx = node.pipeline().store().begin();
    let value = tx.get(map, &key.to_le_bytes());
    value.map_or(0, |value| u64::from_le_bytes(value[..8].try_into().unwrap()))
}

/// Everything reported is there, committed under the id it was reported with, and proven.
async fn check_nothing_is_lost(node: &Node, reported: &Reported, service: &PublicKey) {
    let reported = reported.lock().clone();
    for (key, (number, tx_id)) in reported {
        let [private, public] = maps().map(|map| number_of(node, &map, key));
        assert!(private >= number, "key {key}: {private} after {number} was reported");
        assert_eq!(private, public);
        assert_eq!(node.pipeline().status(tx_id), TxStatus::Committed, "{tx_id}");
        let state = node.pipeline().historical_state(tx_id).await.unwrap();
        state.receipt.verify(service).unwrap();
        let [private, _] = maps();
        let value = &state.state.map(&private).unwrap().get(&key.to_le_bytes()).unwrap().value;
        assert_eq!(value[..8], number.to_le_bytes());
    }
}

/// Rounds of writing that end with a power failure at a random submission.
fn crash_again_and_again(seed: u64, rounds: u64, additions: &str) {
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let disk = SimulatedDisk::new();
    let reported = Reported::default();
    let mut service = None;
    for round in 0..rounds {
        let key = in_virtual_time(async {
            let is_first = service.is_none();
            let command = if is_first { "Start" } else { "Restart" };
            let node = start_open(random.next(), &disk, command, additions).await;
            let node = node.unwrap_or_else(|error| panic!("seed {seed} round {round}: {error}"));
            let key = service_key(&node);
            assert!(service.as_ref().is_none_or(|service| *service != key));
            check_nothing_is_lost(&node, &reported, &key).await;
            for writer in 0..4 {
                let [records, _] = maps();
                let number = number_of(&node, &records, writer);
                tokio::spawn(write_numbers(node.clone(), writer, number, reported.clone()));
            }
            disk.crash_after(1 + random.below(60));
            while !disk.has_crashed() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            key
        });
        service = Some(key);
        disk.power_on(&mut random);
    }
    let service = in_virtual_time(async {
        let node = start_open(random.next(), &disk, "Restart", additions).await.unwrap();
        check_nothing_is_lost(&node, &reported, &service_key(&node)).await;
        node.shutdown().await;
        service_key(&node)
    });
    let report = audited(&disk, service);
    assert_eq!(report.last, report.last_signed);
    assert!(!reported.lock().is_empty(), "the test reported nothing");
}

/// A few by default; `COCO_SEEDS=100..200` runs others.
fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("COCO_SEEDS").ok();
    let range = asked.as_deref().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    range.unwrap_or(1..5)
}

#[test]
fn a_power_failure_at_any_point_loses_nothing_reported() {
    for seed in seeds() {
        crash_again_and_again(seed, 5, "");
    }
}

#[test]
fn small_chunks_and_snapshots_survive_power_failures_too() {
    let additions = r#", "ledger": {"chunk_size": "6KB"}, "snapshots": {"tx_count": 15}"#;
    for seed in seeds() {
        crash_again_and_again(1_000 + seed, 6, additions);
    }
}

#[test]
fn a_power_failure_while_restarting_loses_nothing() {
    for seed in seeds() {
        eprintln!("seed {seed}");
        let mut random = Random(seed);
        let disk = SimulatedDisk::new();
        let reported = Reported::default();
        in_virtual_time(async {
            let node = start_open(seed, &disk, "Start", "").await.unwrap();
            tokio::spawn(write_numbers(node.clone(), 1, 0, reported.clone()));
            tokio::time::sleep(Duration::from_millis(40)).await;
            disk.crash_after(1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        });
        disk.power_on(&mut random);
        // Up to the end of the recovery and beyond.
        for attempt in (1 + seed % 2..16).step_by(2) {
            in_virtual_time(async {
                disk.crash_after(attempt);
                let starting = start_open(random.next(), &disk, "Restart", "");
                // The start hangs on a dead disk.
                let _ = tokio::time::timeout(Duration::from_secs(5), starting).await;
            });
            disk.power_on(&mut random);
        }
        in_virtual_time(async {
            let node = start_open(random.next(), &disk, "Restart", "").await.unwrap();
            check_nothing_is_lost(&node, &reported, &service_key(&node)).await;
        });
    }
}

/// Without syncs a power failure may lose anything, but a killed process loses nothing.
#[test]
fn a_killed_process_loses_nothing_however_seldom_the_disk_is_synced() {
    let mut syncs = Vec::new();
    for mode in ["never", "interval"] {
        let additions = format!(r#", "ledger": {{"sync": "{mode}", "chunk_size": "9KB"}}"#);
        let disk = SimulatedDisk::new();
        let reported = Reported::default();
        for round in 0..4 {
            in_virtual_time(async {
                let command = if round == 0 { "Start" } else { "Restart" };
                let node = start_open(round, &disk, command, &additions).await.unwrap();
                check_nothing_is_lost(&node, &reported, &service_key(&node)).await;
                let [records, _] = maps();
                let number = number_of(&node, &records, 1);
                tokio::spawn(write_numbers(node.clone(), 1, number, reported.clone()));
                tokio::time::sleep(Duration::from_millis(300)).await;
            });
            disk.process_restarted();
        }
        let service = in_virtual_time(async {
            let node = start_open(9, &disk, "Restart", &additions).await.unwrap();
            check_nothing_is_lost(&node, &reported, &service_key(&node)).await;
            node.shutdown().await;
            service_key(&node)
        });
        audited(&disk, service);
        syncs.push(disk.syncs());
    }
    // Starting and stopping sync whatever the mode; the interval adds three in each round.
    assert!(syncs[1] >= syncs[0] + 8, "{syncs:?}");
}

#[test]
fn a_restarted_node_goes_on_where_the_last_one_stopped() {
    let disk = SimulatedDisk::new();
    let additions = r#", "snapshots": {"tx_count": 10}"#;
    let reported = Reported::default();
    let (service, id) = in_virtual_time(async {
        let node = start_open(1, &disk, "Start", additions).await.unwrap();
        let writer = tokio::spawn(write_numbers(node.clone(), 1, 0, reported.clone()));
        tokio::time::sleep(Duration::from_millis(200)).await;
        writer.abort();
        node.shutdown().await;
        (service_key(&node), node.id())
    });
    let before = audited(&disk, service);
    let service = in_virtual_time(async {
        let node = start_open(2, &disk, "Restart", additions).await.unwrap();
        assert_ne!(node.id(), id);
        assert!(node.startup_seqno() > Seqno(0), "a snapshot was there");
        assert_eq!(node.last_recovered_signed_seqno(), Some(before.last.seqno));
        let restarted = TxId { view: coco_kv::View(4), seqno: before.last.seqno.next() };
        assert_eq!(node.pipeline().status(restarted), TxStatus::Committed);
        assert_eq!(node.view(), restarted.view);
        // What the last node could have executed there is known to be void.
        let lost = TxId { view: before.last.view, ..restarted };
        assert_eq!(node.pipeline().status(lost), TxStatus::Invalid);
        check_nothing_is_lost(&node, &reported, &service_key(&node)).await;
        let mut tx = node.pipeline().store().begin();
        let nodes = coco_governance::tables::NODES.rows(&mut tx).unwrap();
        let status = |wanted| nodes.iter().find(|(id, _)| *id == wanted).unwrap().1.status;
        assert_eq!(status(id), coco_governance::tables::NodeStatus::Retired);
        assert_eq!(status(node.id()), coco_governance::tables::NodeStatus::Trusted);
        node.shutdown().await;
        service_key(&node)
    });
    audited(&disk, service);
    assert_eq!(disk.names(Area::Sealed).len(), 2, "{:?}", disk.names(Area::Sealed));
}

#[test]
fn a_lost_or_damaged_snapshot_is_made_up_for_by_the_ledger() {
    for damage in 0..3 {
        let disk = SimulatedDisk::new();
        let additions = r#", "snapshots": {"tx_count": 10}"#;
        let reported = Reported::default();
        in_virtual_time(async {
            let node = start_open(1, &disk, "Start", additions).await.unwrap();
            let writer = tokio::spawn(write_numbers(node.clone(), 1, 0, reported.clone()));
            tokio::time::sleep(Duration::from_millis(100)).await;
            writer.abort();
            node.shutdown().await;
        });
        for name in disk.names(Area::Snapshots) {
            match damage {
                0 => disk.remove(Area::Snapshots, &name),
                1 => disk.tamper(Area::Snapshots, &name, |bytes| bytes[300] ^= 1),
                _ => disk.tamper(Area::Snapshots, &name, Vec::clear),
            }
        }
        in_virtual_time(async {
            let node = start(2, &disk, "Restart", "").await.unwrap();
            assert_eq!(node.startup_seqno(), Seqno(0));
            check_nothing_is_lost(&node, &reported, &service_key(&node)).await;
        });
    }
}

/// Snapshots are durable when they count, where the ledger need not be.
#[test]
fn a_snapshot_beyond_the_end_of_the_ledger_leaves_no_gap() {
    let disk = SimulatedDisk::new();
    let additions = r#", "ledger": {"sync": "never"}, "snapshots": {"tx_count": 10}"#;
    in_virtual_time(async {
        let node = start_open(1, &disk, "Start", additions).await.unwrap();
        for number in 0..60 {
            put_committed(&node, &number.to_string()).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node.shutdown().await;
    });
    // The chunk before the last one was in use, and half of it there.
    let mut chunks: Vec<coco_ledger::ChunkName> =
        disk.names(Area::Ledger).iter().map(|name| name.parse().unwrap()).collect();
    chunks.sort();
    let [.., half, last] = chunks[..] else { panic!("{chunks:?}") };
    let mut bytes = disk.file(Area::Ledger, &half.to_string()).unwrap();
    bytes.truncate(bytes.len() / 2);
    bytes[..8].fill(0);
    disk.remove(Area::Ledger, &last.to_string());
    disk.remove(Area::Ledger, &half.to_string());
    disk.add(Area::Ledger, &coco_ledger::ChunkName::open(half.start).to_string(), &bytes);
    let snapshots: Vec<coco_ledger::SnapshotName> =
        disk.names(Area::Snapshots).iter().map(|name| name.parse().unwrap()).collect();
    let service = in_virtual_time(async {
        let node = start_open(2, &disk, "Restart", additions).await.unwrap();
        let end = node.last_recovered_signed_seqno().unwrap();
        assert!(snapshots.iter().any(|name| name.seqno > end), "{snapshots:?} {end}");
        assert!(node.startup_seqno() < end);
        put_committed(&node, "after").await;
        node.shutdown().await;
        service_key(&node)
    });
    audited(&disk, service);
}

/// A ledger of several chunks, closed in order.
fn closed_ledger(disk: &Arc<SimulatedDisk>) {
    in_virtual_time(async {
        let additions = r#", "ledger": {"chunk_size": "6KB"}"#;
        let node = start_open(1, disk, "Start", additions).await.unwrap();
        let writer = tokio::spawn(write_numbers(node.clone(), 1, 0, Reported::default()));
        tokio::time::sleep(Duration::from_millis(150)).await;
        writer.abort();
        node.shutdown().await;
    });
}

fn restart_error(disk: &Arc<SimulatedDisk>) -> Option<StartError> {
    in_virtual_time(async { start(2, disk, "Restart", "").await.err() })
}

#[test]
fn a_flipped_bit_is_named_and_refused() {
    let mut random = Random(5);
    let whole = SimulatedDisk::new();
    closed_ledger(&whole);
    for _ in 0..25 {
        let disk = whole.copy();
        let names = disk.names(Area::Ledger);
        let name = &names[random.below(names.len() as u64) as usize];
        let length = disk.file(Area::Ledger, name).unwrap().len() as u64;
        let (at, bit) = (random.below(length) as usize, random.below(8));
        disk.tamper(Area::Ledger, name, |bytes| bytes[at] ^= 1 << bit);
        match restart_error(&disk) {
            Some(StartError::Ledger(RecoveryError::Chunk { file, .. })) => assert_eq!(file, *name),
            Some(StartError::Ledger(RecoveryError::Entry { file, offset, .. })) => {
                assert_eq!(file, *name);
                assert!(offset <= at as u64 || at < 8, "{name} {at}: {offset}");
            }
            Some(StartError::Ledger(RecoveryError::OpenChunk { file, offset, .. })) => {
                assert_eq!(file, *name);
                assert!(offset <= at as u64, "{name} {at}: {offset}");
            }
            // The header of a chunk in use says nothing while it is in use.
            None if at < 8 && !name.contains('-') => {}
            other => panic!("bit {bit} of byte {at} of {name}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let disk = SimulatedDisk::new();
    closed_ledger(&disk);
    let mut names: Vec<coco_ledger::ChunkName> =
        disk.names(Area::Ledger).iter().map(|name| name.parse().unwrap()).collect();
    names.sort();
    disk.remove(Area::Ledger, &names[1].to_string());
    match restart_error(&disk) {
        Some(StartError::Ledger(RecoveryError::Gap { missing, next })) => {
            assert_eq!(missing, names[1].start);
            assert_eq!(next, names[2].to_string());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_sealed_secrets_the_needed_recovery_is_named() {
    let disk = SimulatedDisk::new();
    closed_ledger(&disk);
    for name in disk.names(Area::Sealed).iter().filter(|name| name.starts_with("service_")) {
        disk.tamper(Area::Sealed, name, |bytes| bytes[60] ^= 1);
    }
    let error = restart_error(&disk).unwrap();
    assert!(matches!(error, StartError::RecoveryNeeded(_)), "{error}");
    assert!(error.to_string().contains("recovery shares"), "{error}");
    for name in disk.names(Area::Sealed) {
        disk.remove(Area::Sealed, &name);
    }
    let error = restart_error(&disk).unwrap();
    assert!(error.to_string().contains("there are no sealed secrets"), "{error}");
    let nothing = SimulatedDisk::new();
    assert!(matches!(restart_error(&nothing), Some(StartError::RecoveryNeeded(_))));
}

async fn put_committed(node: &Node, value: &str) -> TxId {
    let mut tx = node.pipeline().store().begin();
    tx.put(&maps()[0], b"key", value.as_bytes());
    let (executed, committed) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
    assert_eq!(committed.await, TxStatus::Committed);
    executed.tx_id
}

fn value_of(node: &Node) -> Option<String> {
    let value = node.pipeline().store().begin().get(&maps()[0], b"key");
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// Until members agree, nothing that the new service writes is part of the ledger.
#[test]
fn a_recovery_that_members_do_not_agree_to_is_set_aside() {
    let disk = SimulatedDisk::new();
    let first = in_virtual_time(async {
        let node = start_open(1, &disk, "Start", "").await.unwrap();
        put_committed(&node, "before").await;
        node.shutdown().await;
        service_key(&node)
    });
    let before = audited(&disk, first.clone());
    let mut seen = vec![first.clone()];
    for attempt in 0..3 {
        in_virtual_time(async {
            let node = start(10 + attempt, &disk, "Restart", "").await.unwrap();
            assert_eq!(node.state(), NodeState::PartOfPublicNetwork);
            assert_eq!(value_of(&node).unwrap(), "before");
            let tx_id = put_committed(&node, "not agreed").await;
            // The node itself still proves what it holds.
            let receipt = node.pipeline().receipt(tx_id).await.unwrap();
            receipt.verify(&service_key(&node)).unwrap();
            node.pipeline().historical_state(tx_id).await.unwrap();
            assert!(!seen.contains(&service_key(&node)));
            seen.push(service_key(&node));
            node.shutdown().await;
        });
        // To an auditor it is not there.
        let report = audited(&disk, first.clone());
        assert_eq!((report.last, report.last_signed), (before.last, before.last_signed));
    }
    let ignored = disk.names(Area::Ledger);
    let ignored: Vec<_> = ignored.iter().filter(|name| name.ends_with(".ignored")).collect();
    assert_eq!(ignored.len(), 2, "{ignored:?}");
    let last = in_virtual_time(async {
        let node = start_open(20, &disk, "Restart", "").await.unwrap();
        assert_eq!(value_of(&node).unwrap(), "before");
        put_committed(&node, "agreed").await;
        node.shutdown().await;
        service_key(&node)
    });
    assert!(disk.names(Area::Ledger).iter().all(|name| !name.ends_with(".recovery")));
    audited(&disk, last);
    in_virtual_time(async {
        let node = start(30, &disk, "Restart", "").await.unwrap();
        assert_eq!(value_of(&node).unwrap(), "agreed");
    });
}

/// A host that goes on from two copies of a disk gets two services with nothing in common that
/// anybody signs or encrypts with.
#[test]
fn an_old_disk_makes_no_second_history_of_a_service() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start_open(1, &disk, "Start", "").await.unwrap();
        put_committed(&node, "before").await;
        node.shutdown().await;
    });
    let copy = disk.copy();
    let go_on = |disk: &Arc<SimulatedDisk>, seed| {
        in_virtual_time(async {
            let node = start(seed, disk, "Restart", "").await.unwrap();
            let tx_id = put_committed(&node, "after").await;
            let key = service_key(&node);
            node.pipeline().receipt(tx_id).await.unwrap().verify(&key).unwrap();
            let evidence = node.pipeline().receipt(tx_id).await.unwrap().proof.leaf.clone();
            agree(&node).await;
            node.shutdown().await;
            (key, tx_id, evidence)
        })
    };
    let (one, other) = (go_on(&disk, 2), go_on(&copy, 3));
    assert_ne!(one.0, other.0, "identities");
    assert_eq!(one.1, other.1, "the same position");
    assert_ne!(one.2, other.2, "evidence under different ledger secrets");
    let names = copy.names(Area::Sealed);
    let sealed = names.iter().find(|name| name.starts_with("service_")).unwrap();
    assert_eq!(disk.names(Area::Sealed), names);
    assert_ne!(disk.file(Area::Sealed, sealed), copy.file(Area::Sealed, sealed));
}

#[test]
fn a_service_that_was_never_opened_is_not_recovered() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async { start(1, &disk, "Start", "").await.unwrap().shutdown().await });
    let error = restart_error(&disk).unwrap();
    assert!(matches!(error, StartError::Recover(_)), "{error}");
    assert!(error.to_string().contains("Opening"), "{error}");
}

/// A restart gives back no trust that the members have taken from this code.
#[test]
fn code_that_members_removed_does_not_start_again() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start_open(1, &disk, "Start", "").await.unwrap();
        let mut tx = node.pipeline().store().begin();
        coco_governance::tables::VIRTUAL_HOST_DATA.clear(&mut tx);
        let (_, committed) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
        assert_eq!(committed.await, TxStatus::Committed);
        node.shutdown().await;
    });
    let error = restart_error(&disk).unwrap();
    assert!(error.to_string().contains("does not trust this code"), "{error}");
}
