//! The past on a simulated host: read from the ledger's chunks, proven, and not more than is asked.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test")]

mod simulated;

use std::sync::Arc;
use std::time::Duration;

use coco_enclave::host::Area;
use coco_enclave::node::Node;
use coco_enclave::pipeline::ReceiptError;
use coco_kv::{MapName, Seqno, TxId};
use coco_ledger::ChunkName;
use simulated::node::{put_committed, service_key, start};
use simulated::{SimulatedDisk, in_virtual_time};

/// The file of the committed chunk that holds an entry.
fn chunk_with(disk: &SimulatedDisk, seqno: Seqno) -> String {
    let holds = |name: &String| {
        let name: ChunkName = name.parse().unwrap();
        name.start <= seqno && name.end().is_some_and(|end| seqno <= end)
    };
    disk.names(Area::Ledger).into_iter().find(holds).unwrap()
}

#[test]
fn the_past_is_fetched_from_the_files_and_proven() {
    let disk = SimulatedDisk::new();
    let small = r#", "ledger": {"chunk_size": "4KB"}"#;
    in_virtual_time(async {
        let node = start(1, &disk, "Start", small).await.unwrap();
        let mut written = Vec::new();
        for number in 0..60 {
            let value = format!("value {number}");
            written.push((put_committed(&node, "key", &value).await, value));
        }
        let pipeline = node.pipeline();
        assert!(disk.names(Area::Ledger).len() > 10);
        for (tx_id, value) in &written {
            let state = pipeline.historical_state(*tx_id).await.unwrap();
            assert_eq!(state.tx_id, *tx_id);
            state.receipt.verify(&service_key(&node)).unwrap();
            for map in ["records", "public:log"] {
                let map = state.state.map(&MapName::new(map)).unwrap();
                assert_eq!(&*map.get(b"key").unwrap().value, value.as_bytes());
            }
            assert_eq!(*state.receipt, *pipeline.receipt(*tx_id).await.unwrap());
            assert!(pipeline.historical_state_now(*tx_id).is_some());
        }
        let last = pipeline.last_committed().seqno;
        assert!(pipeline.state_range(7, Seqno(1), last.next(), 60).is_none());
        let states = loop {
            match pipeline.state_range(7, Seqno(1), last, 60) {
                Some(states) => break states,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        assert_eq!(states.len() as u64, last.0);
        assert!(pipeline.drop_cached_states(7));
        assert!(!pipeline.drop_cached_states(7));

        // What the host changes is noticed and not served.
        let victim = written[30].0;
        let chunk = chunk_with(&disk, victim.seqno);
        disk.tamper(Area::Ledger, &chunk, |bytes| {
            let at = bytes.windows(8).position(|window| window == b"value 30").unwrap();
            bytes[at] ^= 1;
        });
        node.shutdown().await;
    });
    let error = in_virtual_time(async {
        start(2, &disk, "Restart", "").await.map(|_| ()).unwrap_err().to_string()
    });
    assert!(error.contains("is damaged") && error.contains("ledger_"), "{error}");
}

/// A node with a ledger of many small chunks, and a transaction of each; nothing of it in memory.
async fn many_chunks(disk: &Arc<SimulatedDisk>) -> (Node, Vec<TxId>) {
    let small = r#", "ledger": {"chunk_size": "2KB"}, "historical_cache_soft_limit": "50KB""#;
    let node = start(1, disk, "Start", small).await.unwrap();
    let mut written = Vec::new();
    for number in 0..60 {
        written.push(put_committed(&node, "key", &format!("value {number}")).await);
    }
    assert!(disk.names(Area::Ledger).len() > 20);
    disk.count_reads(Duration::from_millis(1));
    (node, written)
}

#[test]
fn a_chunk_is_read_once_for_all_who_ask_for_it() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let (node, written) = many_chunks(&disk).await;
        let ask = |tx_id| {
            let node = node.clone();
            tokio::spawn(async move { node.pipeline().historical_state(tx_id).await.is_ok() })
        };
        for asked in (0..50).map(|_| ask(written[9])).collect::<Vec<_>>() {
            assert!(asked.await.unwrap());
        }
        assert_eq!(disk.reads().files, 1);
        // Whoever reads may stop; another one of those who wait goes on.
        let first = ask(written[40]);
        let second = ask(written[40]);
        tokio::task::yield_now().await;
        first.abort();
        assert!(second.await.unwrap());
    });
}

#[test]
fn chunks_are_listed_anew_only_when_that_may_help() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let (node, written) = many_chunks(&disk).await;
        let state = async |tx_id: TxId| node.pipeline().historical_state(tx_id).await.is_ok();
        for &tx_id in &written[..40] {
            assert!(state(tx_id).await);
        }
        assert_eq!(disk.reads().lists, 1);
        // A chunk that is no longer there under the name that it had.
        let chunk = chunk_with(&disk, written[45].seqno);
        let bytes = disk.file(Area::Ledger, &chunk).unwrap();
        disk.remove(Area::Ledger, &chunk);
        assert!(!state(written[45]).await);
        disk.add(Area::Ledger, &chunk, &bytes);
        assert!(state(written[45]).await);
        assert!(disk.reads().lists <= 3, "{:?}", disk.reads());
    });
}

#[test]
fn few_chunks_are_read_at_a_time() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let (node, written) = many_chunks(&disk).await;
        let ask = |tx_id: &TxId| {
            let (node, tx_id) = (node.clone(), *tx_id);
            tokio::spawn(async move { node.pipeline().historical_state(tx_id).await.is_ok() })
        };
        for asked in written.iter().map(ask).collect::<Vec<_>>() {
            assert!(asked.await.unwrap());
        }
        let reads = disk.reads();
        assert!((2..=4).contains(&reads.peak), "{reads:?}");
        assert!(reads.files > 20, "{reads:?}");
    });
}

#[test]
fn a_range_that_nobody_waits_for_is_not_fetched_to_its_end() {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let (node, _) = many_chunks(&disk).await;
        let pipeline = node.pipeline();
        let last = pipeline.last_committed().seqno;
        assert!(pipeline.state_range(7, Seqno(1), last, 60).is_none());
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(disk.reads().files > 1);
        assert!(pipeline.drop_cached_states(7));
        tokio::time::sleep(Duration::from_millis(2)).await;
        let stopped = disk.reads().files;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(disk.reads().files, stopped);
        // Nor one that another range has taken the place of.
        assert!(pipeline.state_range(7, Seqno(1), last, 60).is_none());
        assert!(pipeline.state_range(7, Seqno(2), Seqno(3), 60).is_none());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(pipeline.state_range(7, Seqno(2), Seqno(3), 60).unwrap().len(), 2);
        assert!(disk.reads().files < stopped + 5, "{:?}", disk.reads());
    });
}

#[test]
fn a_damaged_chunk_is_not_served() {
    let disk = SimulatedDisk::new();
    let small = r#", "ledger": {"chunk_size": "4KB"}, "historical_cache_soft_limit": "1B""#;
    in_virtual_time(async {
        let node = start(1, &disk, "Start", small).await.unwrap();
        let mut written = Vec::new();
        for number in 0..20 {
            written.push(put_committed(&node, "key", &format!("value {number:02}")).await);
        }
        for name in disk.names(Area::Ledger) {
            disk.tamper(Area::Ledger, &name, |bytes| {
                let found = bytes.windows(8).position(|window| window == b"value 03");
                found.into_iter().for_each(|at| bytes[at] ^= 1);
            });
        }
        let pipeline = node.pipeline();
        assert!(pipeline.historical_state(written[10]).await.is_ok());
        let damaged = pipeline.historical_state(written[3]).await.map(|_| ()).unwrap_err();
        assert!(matches!(damaged, ReceiptError::NotAvailable { .. }), "{damaged}");
        let ReceiptError::NotAvailable { reason, .. } = damaged else { return };
        assert!(reason.contains("offset"), "{reason}");
        // Its receipt is still in memory.
        assert!(pipeline.receipt(written[3]).await.is_ok());
    });
}
