//! Latency of small synced appends through the disk thread, one at a time and sixteen at a time.
//!
//! `cargo bench -p coco-host` measures in the system's temporary directory; set `TMPDIR` to
//! measure another disk.

use std::time::{Duration, Instant};

use coco_enclave::host::{Area, Disk, DiskOp};
use coco_host::{DiskLayout, FileDisk};
use tokio::sync::mpsc;

const ROUNDS: u64 = 3_000;
const ENTRY_LEN_BYTES: u64 = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    for in_flight in [1, 16] {
        let mut latencies = runtime.block_on(measure(in_flight))?;
        latencies.sort();
        let at = |percent: usize| {
            latencies.get((latencies.len() - 1) * percent / 100).map_or(0, Duration::as_micros)
        };
        let (p50, p90, p99) = (at(50), at(90), at(99));
        println!("{in_flight:>2} in flight: p50 {p50} us, p90 {p90} us, p99 {p99} us");
    }
    Ok(())
}

async fn measure(in_flight: u64) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let path = scratch.path();
    let layout = DiskLayout {
        ledger: path.join("ledger"),
        read_only_ledgers: Vec::new(),
        snapshots: path.join("snapshots"),
        read_only_snapshots: Vec::new(),
        sealed: path.join("sealed"),
    };
    let disk = FileDisk::open(layout, Duration::from_secs(1))?;
    let (send, mut done) = mpsc::unbounded_channel();
    let append = |number: u64| {
        let (send, start) = (send.clone(), Instant::now());
        let bytes = vec![7; ENTRY_LEN_BYTES as usize].into();
        let op = DiskOp::Write { name: "chunk".into(), offset: number * ENTRY_LEN_BYTES, bytes };
        let answer = Box::new(move |result| drop(send.send((start.elapsed(), result))));
        disk.submit(Area::Ledger, vec![op], true, answer);
    };
    let len_bytes = (ROUNDS + in_flight) * ENTRY_LEN_BYTES;
    let (created, wait) = tokio::sync::oneshot::channel();
    let create = DiskOp::Create { name: "chunk".into() };
    let zeros = DiskOp::WriteZeros { name: "chunk".into(), offset: 0, len_bytes };
    disk.submit(
        Area::Ledger,
        vec![create, zeros],
        true,
        Box::new(|result| drop(created.send(result))),
    );
    wait.await??;
    (0..in_flight).for_each(append);
    let mut latencies = Vec::new();
    for number in in_flight..ROUNDS {
        let Some((latency, result)) = done.recv().await else { break };
        result?;
        latencies.push(latency);
        append(number);
    }
    Ok(latencies)
}
