//! What the commit pipeline costs beside the store: no TLS, no HTTP, a disk that forgets at once.
//!
//! `cargo bench -p coco-enclave --bench pipeline`

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is the host's side"
)]

#[path = "../tests/simulated/mod.rs"]
mod simulated;

use std::future::pending;
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coco_adapter::{Outcome, Registry, TxStatus};
use coco_crypto::Entropy;
use coco_enclave::host::{Accepted, Area, BoxFuture, Disk, DiskOp, Done, FileEntry, Host};
use coco_enclave::node::Node;
use coco_enclave::pipeline::CommitError;
use coco_kv::{MapName, Store, Tx, View};
use simulated::SeededEntropy;
use simulated::node::{config, files};

/// Keys in the store.
const KEYS: u64 = 100_000;
const TRANSACTIONS: u64 = 200_000;

/// A host whose disk says yes.
struct BenchHost {
    entropy: SeededEntropy,
    started: Instant,
    disk: ForgetfulDisk,
}

struct ForgetfulDisk;

impl Disk for ForgetfulDisk {
    fn submit(&self, _area: Area, operations: Vec<DiskOp>, _sync: bool, done: Done) {
        black_box(&operations);
        done(Ok(()));
    }

    fn list(&self, _area: Area) -> BoxFuture<'static, io::Result<Vec<FileEntry>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn read(
        &self,
        _area: Area,
        _name: &str,
        _offset: u64,
        _len_bytes: u64,
    ) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

impl Host for BenchHost {
    fn entropy(&self) -> &dyn Entropy {
        &self.entropy
    }

    fn now_ms(&self) -> u64 {
        1_767_225_600_000 + self.started.elapsed().as_millis() as u64
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn accept<'a>(&'a self, _interface: &'a str) -> BoxFuture<'a, io::Result<Accepted>> {
        Box::pin(pending())
    }

    fn disk(&self) -> &dyn Disk {
        &self.disk
    }
}

/// One read and one write of 64 bytes, as CCF's `basic` application does.
fn execute(mut tx: Tx, map: &MapName, number: u64) -> Tx {
    let key = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS).to_be_bytes();
    black_box(tx.get(map, &key));
    tx.put(map, key, [number as u8; 64]);
    tx
}

fn report(what: &str, began: Instant, count: u64) {
    let each = began.elapsed().as_nanos() as f64 / count as f64 / 1_000.0;
    println!("{what:<60} {each:>8.2} us");
}

fn main() {
    let map = MapName::new("records");
    let store = Store::new(View(2));
    let began = Instant::now();
    for number in 0..TRANSACTIONS {
        let tx = execute(store.begin(), &map, number);
        let committed = store.commit(tx, |tx_id, writes| (tx_id, writes)).unwrap();
        if number % 1_000 == 0 {
            store.compact(committed.tx_id().seqno);
        }
    }
    report("store alone, a transaction", began, TRANSACTIONS);

    // One thread, so that wall time is CPU time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let host = BenchHost {
            entropy: SeededEntropy::new(1),
            started: Instant::now(),
            disk: ForgetfulDisk,
        };
        let app = Arc::new(Registry::new("bench", "Bench", ""));
        let mut config = config("Start", "");
        config.output_files.sealed_service_location = None;
        let node = Node::start(Arc::new(host), config, files(), app).await.unwrap();
        let began = Instant::now();
        pipelined(&node, &map).await;
        report("pipelined, a transaction, store and ledger", began, TRANSACTIONS);

        let lone = 5_000;
        let began = Instant::now();
        for number in 0..lone {
            let tx = execute(node.pipeline().store().begin(), &map, number);
            let outcome = Outcome::default();
            let (_, committed) = node.pipeline().commit_and_wait(tx, &outcome).unwrap();
            assert_eq!(committed.await, TxStatus::Committed);
        }
        report("lone, a transaction with its signature, without the disk", began, lone);
        let began = Instant::now();
        for seqno in 1..lone {
            let tx_id = coco_kv::TxId::new(2, node.pipeline().last_committed().seqno.0 - seqno);
            black_box(node.pipeline().proof_now(tx_id));
        }
        report("receipt from memory", began, lone);
        println!("{:?}", node.pipeline().metrics());
    });
}

async fn pipelined(node: &Node, map: &MapName) {
    let mut last = coco_kv::TxId::default();
    for number in 0..TRANSACTIONS {
        let outcome = Outcome::default();
        loop {
            let tx = execute(node.pipeline().store().begin(), map, number);
            match node.pipeline().commit(tx, &outcome) {
                Ok(executed) => last = executed.tx_id,
                Err(CommitError::TooManyPending) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            break;
        }
        // A session yields when its socket is empty.
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(node.pipeline().wait_committed(last).await, TxStatus::Committed);
}
