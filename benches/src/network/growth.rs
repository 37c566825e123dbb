//! What it costs when there are more nodes, more keys, or larger values.

use anyhow::Result;

use super::plot::{Plot, Series};
use super::{Bench, committed};
use crate::Load;
use crate::load;

const NODES: [usize; 4] = [1, 3, 5, 7];
const KEYS: [usize; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
const VALUE_BYTES: [usize; 4] = [100, 1_000, 10_000, 100_000];
/// Connections of what waits until it is committed.
const WAITING: usize = 32;
/// Seconds in which all keys are to be written.
const FILL_SECONDS: f64 = 600.0;

pub fn by_nodes(bench: &Bench<'_>) -> Result<()> {
    println!("| nodes | write, pipelined /s | CPU us | committed /s | p50 ms | p99 ms |");
    println!("|---:|---:|---:|---:|---:|---:|");
    let mut curves = Curves::default();
    for nodes in NODES {
        let server = bench.start(nodes)?;
        let pipelined = bench.median(&bench.writes(&server, 1, 1000))?;
        let waiting = bench.median(&committed(bench.writes(&server, WAITING, 1)))?;
        println!(
            "| {nodes} | {:.0} | {:.1} | {:.0} | {:.2} | {:.2} |",
            pipelined.rate_per_second,
            pipelined.cpu_us_per_request.unwrap_or_default(),
            waiting.rate_per_second,
            waiting.p50_ms,
            waiting.p99_ms,
        );
        curves.add(nodes, &[pipelined.rate_per_second, waiting.rate_per_second], waiting.p50_ms);
    }
    let names = ["write, pipelined", "committed and synced, 32 connections"];
    curves.draw(bench, "nodes", "nodes", &names, "committed, p50")
}

pub fn by_keys(bench: &Bench<'_>) -> Result<()> {
    println!("| keys | write, pipelined /s | CPU us | committed /s | p50 ms | MB |");
    println!("|---:|---:|---:|---:|---:|---:|");
    let mut curves = Curves::default();
    for keys in KEYS.into_iter().filter(|keys| *keys <= bench.arguments.keys) {
        let server = bench.start(1)?;
        let all = |connections, pipeline| Load {
            path: "/app/records/{n16}".to_owned(),
            keys,
            body_bytes: 64,
            ..bench.writes(&server, connections, pipeline)
        };
        load::run(&Load { seconds: FILL_SECONDS, most: keys, ..all(1, 1000) })?;
        let pipelined = bench.median(&all(1, 1000))?;
        let waiting = bench.median(&committed(all(WAITING, 1)))?;
        println!(
            "| {keys} | {:.0} | {:.1} | {:.0} | {:.2} | {:.0} |",
            pipelined.rate_per_second,
            pipelined.cpu_us_per_request.unwrap_or_default(),
            waiting.rate_per_second,
            waiting.p50_ms,
            waiting.resident_mb.unwrap_or_default(),
        );
        curves.add(keys, &[pipelined.rate_per_second, waiting.rate_per_second], waiting.p50_ms);
    }
    let names = ["write, pipelined", "committed and synced, 32 connections"];
    curves.draw(bench, "keys", "keys", &names, "committed, p50")
}

pub fn by_values(bench: &Bench<'_>) -> Result<()> {
    println!(
        "| bytes | 1 node, committed /s | MB/s | p50 ms | 3 nodes, committed /s | MB/s | p50 ms |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    let (one, three) = (bench.start(1)?, bench.start(3)?);
    let mut curves = Curves::default();
    for bytes in VALUE_BYTES {
        let measure = |server| {
            let writes = bench.writes(server, WAITING, 1);
            bench.median(&committed(Load { body_bytes: bytes, keys: 500, ..writes }))
        };
        let (alone, replicated) = (measure(&one)?, measure(&three)?);
        let megabytes = |rate: f64| rate * bytes as f64 / 1e6;
        println!(
            "| {bytes} | {:.0} | {:.1} | {:.2} | {:.0} | {:.1} | {:.2} |",
            alone.rate_per_second,
            megabytes(alone.rate_per_second),
            alone.p50_ms,
            replicated.rate_per_second,
            megabytes(replicated.rate_per_second),
            replicated.p50_ms,
        );
        curves.add(bytes, &[alone.rate_per_second, replicated.rate_per_second], replicated.p50_ms);
    }
    let names = ["1 node, committed and synced", "3 nodes, committed and synced"];
    curves.draw(bench, "values", "bytes of a value", &names, "3 nodes, p50")
}

/// Points of all rates, and of the latency that goes with the last of them.
#[derive(Default)]
struct Curves {
    rates: Vec<Vec<(f64, f64)>>,
    latency: Vec<(f64, f64)>,
}

impl Curves {
    fn add(&mut self, at: usize, rates: &[f64], latency_ms: f64) {
        let at = at as f64;
        self.rates.resize(rates.len(), Vec::new());
        self.rates.iter_mut().zip(rates).for_each(|(curve, rate)| curve.push((at, *rate)));
        self.latency.push((at, latency_ms));
    }

    fn draw(
        self,
        bench: &Bench<'_>,
        file: &str,
        axis: &str,
        names: &[&str],
        latency: &str,
    ) -> Result<()> {
        println!();
        let rates = names.iter().zip(self.rates);
        let series = rates.map(|(name, points)| Series { name: (*name).to_owned(), points });
        let latency = Series { name: latency.to_owned(), points: self.latency };
        let plots = [
            Plot { y_axis: "per second", series: series.collect() },
            Plot { y_axis: "milliseconds", series: vec![latency] },
        ];
        std::fs::create_dir_all(&bench.arguments.plots)?;
        let file = bench.arguments.plots.join(format!("{file}.svg"));
        std::fs::write(file, super::plot::draw(axis, &plots))?;
        Ok(())
    }
}
