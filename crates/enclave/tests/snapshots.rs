//! Nodes that begin with a snapshot, and nodes that come back to what a former one has left.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test"
)]

mod linked;
mod served;
mod simulated;

use std::sync::Arc;
use std::time::Duration;

use coco_adapter::{Outcome, TxStatus};
use coco_crypto::{Digest, PublicKey};
use coco_enclave::host::Area;
use coco_enclave::node::Node;
use coco_governance::tables::{NODE_ENDORSED_CERTS, NODES, NodeInfo, NodeStatus, Pem};
use coco_kv::{MapName, Seqno, TxId};
use coco_ledger::audit::{AuditOptions, Auditor, audit};
use coco_ledger::{ChunkName, SnapshotFile, SnapshotName, StateWanted};
use linked::{Network, open, read, until, write};
use simulated::node::{LedgerOf, audited};
use simulated::{SimulatedDisk, in_virtual_time};

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

/// Snapshots every hundred transactions.
const OFTEN: &str = r#", "snapshots": {"tx_count": 100}"#;

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
    let network = Network::default().configured("", OFTEN).with(1).await;
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
    let snapshot = SnapshotFile::read(&bytes, StateWanted::Public).unwrap();
    let auditor = Auditor::after_snapshot(options, &snapshot).unwrap();
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
fn backups_fetch_what_the_primary_writes() {
    in_virtual_time(async {
        let additions = r#", "snapshots": {"tx_count": 100,
            "backup_fetch": {"enabled": true, "retry_interval": "50ms"}}"#;
        let mut network = Network::default().configured("", additions).with(3).await;
        for number in 0..150 {
            write(network.node(0), &format!("key {number}"), "value").await;
        }
        let disks: Vec<_> = network.members.iter().map(|it| Arc::clone(&it.disk)).collect();
        let first = |disk: &SimulatedDisk| snapshots(disk).first().copied();
        until(|| first(&disks[0]).is_some()).await;
        until(|| disks.iter().all(|disk| first(disk) == first(&disks[0]))).await;
        let name = first(&disks[0]).unwrap().to_string();
        let files = disks.iter().map(|disk| disk.file(Area::Snapshots, &name).unwrap());
        assert!(files.collect::<std::collections::BTreeSet<_>>().len() == 1);

        // Without the node that wrote it, it still serves those that join.
        network.fabric.cut_off(0);
        let next = network.primary().await;
        assert_ne!(next, 0);
        network.target = next;
        network.add_on(SimulatedDisk::new()).await;
        assert!(network.node(3).startup_seqno() > Seqno(0));
    });
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
    let network = Network::default().configured("", OFTEN).with(3).await;
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
        let mut network = Network::default().configured("", OFTEN).with(3).await;
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
        let mut network = Network::default().configured("", OFTEN).with(1).await;
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
