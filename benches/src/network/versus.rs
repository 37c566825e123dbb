//! Three nodes against what CCF does with three, and etcd in the same run.

use anyhow::Result;

use super::etcd::Etcd;
use super::{Bench, committed};
use crate::Load;
use crate::load::Measured;

const NODES: usize = 3;
/// CCF's rates with three nodes, which do not sync (see `docs/src/performance.md`).
const CCF_PIPELINED: f64 = 36_800.0;
const CCF_8: f64 = 5_280.0;
const CCF_READS_8: f64 = 6_470.0;
/// Connections of the row at half load.
const MANY: usize = 64;

pub fn run(bench: &Bench<'_>) -> Result<()> {
    println!("| three nodes | rate /s | p50 ms | p99 ms | CPU us, all nodes | against |");
    println!("|---|---:|---:|---:|---:|---|");
    let server = bench.start(NODES)?;
    let against = |name: &str, ours: &Measured, theirs: f64| {
        format!("{name} {theirs:.0}: {:.2} x", ours.rate_per_second / theirs)
    };
    let writes = |connections, pipeline| bench.writes(&server, connections, pipeline);

    let pipelined = bench.median(&writes(1, 1000))?;
    line("write, pipelined 1,000", &pipelined, &against("CCF", &pipelined, CCF_PIPELINED));
    let sequential = bench.median(&writes(8, 1))?;
    line("write, 8 connections", &sequential, &against("CCF", &sequential, CCF_8));
    for (number, address) in server.addresses().into_iter().enumerate() {
        let reads = Load { address, method: "GET".to_owned(), body_bytes: 0, ..writes(8, 1) };
        let read = bench.median(&reads)?;
        let name = format!("read at node {number}, 8 connections");
        line(&name, &read, &against("CCF", &read, CCF_READS_8));
    }
    let full = bench.median(&committed(writes(MANY, 1)))?;
    let half = Load { rate: Some(full.rate_per_second / 2.0), ..committed(writes(MANY, 1)) };
    line("committed and synced write at half load", &bench.median(&half)?, "");

    let etcd = Etcd::start(&bench.scratch.join("etcd"), NODES)?;
    for connections in [1, 8, 64] {
        let ours = bench.median(&committed(writes(connections, 1)))?;
        let name = |who: &str| format!("{who}, {connections} connections");
        let Some(etcd) = &etcd else {
            line(&name("committed and synced write"), &ours, "etcd is not installed");
            continue;
        };
        let theirs = bench.median(&etcd.puts(connections, bench.arguments.seconds))?;
        let verdict = against("etcd", &ours, theirs.rate_per_second);
        line(&name("committed and synced write"), &ours, &verdict);
        line(&name("etcd, put"), &theirs, "");
    }
    println!();
    Ok(())
}

fn line(name: &str, measured: &Measured, against: &str) {
    println!(
        "| {name} | {:.0} | {:.2} | {:.2} | {:.1} | {against} |",
        measured.rate_per_second,
        measured.p50_ms,
        measured.p99_ms,
        measured.cpu_us_per_request.unwrap_or_default(),
    );
}
