//! The whole table: every row against a fresh node, medians of several runs, as Markdown.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Load;
use crate::load::{self, Measured};
use crate::peers::{self, Postgres, Transport};
use crate::server::{Server, resident_bytes};

/// A kind of node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum App {
    /// `examples/basic`, in Rust.
    Native,
    /// `benches/app`, in JS, a fresh context for each request.
    Js,
    /// The same with a reused interpreter.
    JsReused,
}

struct Row {
    name: &'static str,
    app: App,
    write: bool,
    committed: bool,
    connections: usize,
    pipeline: usize,
    /// CCF's rate for the same work on the same kind of machine (see `docs/src/performance.md`).
    ccf_rate: Option<f64>,
}

const fn row(name: &'static str, app: App, connections: usize, pipeline: usize, ccf: f64) -> Row {
    let ccf_rate = if ccf > 0.0 { Some(ccf) } else { None };
    Row { name, app, write: true, committed: false, connections, pipeline, ccf_rate }
}

const fn read(row: Row) -> Row {
    Row { write: false, ..row }
}

const fn committed(row: Row) -> Row {
    Row { committed: true, ..row }
}

const ROWS: &[Row] = &[
    row("native write, pipelined 1,000", App::Native, 1, 1000, 67_200.0),
    row("native write, pipelined 100", App::Native, 1, 100, 40_650.0),
    row("native write, 1 connection", App::Native, 1, 1, 873.0),
    row("native write, 8 connections", App::Native, 8, 1, 5_515.0),
    row("native write, 32 connections", App::Native, 32, 1, 11_300.0),
    read(row("native read, pipelined 1,000", App::Native, 1, 1000, 102_000.0)),
    read(row("native read, 1 connection", App::Native, 1, 1, 891.0)),
    read(row("native read, 8 connections", App::Native, 8, 1, 5_840.0)),
    committed(row("committed and synced write, 1 connection", App::Native, 1, 1, 0.0)),
    committed(row("committed and synced write, 8 connections", App::Native, 8, 1, 0.0)),
    committed(row("committed and synced write, 32 connections", App::Native, 32, 1, 0.0)),
    row("JS write, isolated, pipelined 1,000", App::Js, 1, 1000, 4_700.0),
    row("JS write, isolated, 8 connections", App::Js, 8, 1, 4_340.0),
    read(row("JS read, isolated, 8 connections", App::Js, 8, 1, 4_870.0)),
    row("JS write, reused, pipelined 1,000", App::JsReused, 1, 1000, 15_100.0),
    row("JS write, reused, 8 connections", App::JsReused, 8, 1, 5_400.0),
];

/// A snapshot that has become due is written by then.
const SNAPSHOT_TIME: Duration = Duration::from_secs(5);
/// Keys of the memory row.
const MANY_KEYS: usize = 1_000_000;
/// Keys written before anything is read.
const KEYS: usize = 1000;

pub fn run(bin: &Path, seconds: f64, runs: usize, only: Option<&str>) -> Result<()> {
    ensure!(runs > 0, "at least one run is needed");
    let scratch = bin.join("bench-scratch");
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch)?;
    }
    std::fs::create_dir_all(&scratch)?;
    println!("| work | rate /s | p50 ms | p99 ms | CPU us | MB | CCF's rate | ratio |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for (number, row) in ROWS.iter().enumerate() {
        if only.is_some_and(|part| !row.name.contains(part)) {
            continue;
        }
        let folder = scratch.join(format!("row-{number}"));
        let measured = measure(bin, row, &folder, seconds, runs).context(row.name)?;
        println!("{}", line(row, &measured));
        std::fs::remove_dir_all(&folder)?;
    }
    if only.is_none_or(|part| "memory".contains(part)) {
        println!();
        memory(bin, &scratch.join("memory"))?;
    }
    if only.is_none_or(|part| "peers".contains(part)) {
        peers(bin, &scratch, seconds)?;
    }
    std::fs::remove_dir_all(&scratch)?;
    Ok(())
}

fn measure(bin: &Path, row: &Row, folder: &Path, seconds: f64, runs: usize) -> Result<Measured> {
    let server = start(bin, row.app, folder)?;
    if !row.write {
        load::run(&Load { seconds: 1.0, pipeline: 100, ..request(&server, row, true) })?;
    }
    let mut all = Vec::new();
    for _ in 0..runs {
        let load = Load {
            connections: row.connections,
            pipeline: row.pipeline,
            seconds,
            ..request(&server, row, row.write)
        };
        let measured = load::run(&load)?;
        ensure!(measured.failed == 0, "{} requests failed", measured.failed);
        all.push(measured);
    }
    all.sort_by(|a, b| a.rate_per_second.total_cmp(&b.rate_per_second));
    all.into_iter().nth(runs / 2).context("no run")
}

fn start(bin: &Path, app: App, folder: &Path) -> Result<Server> {
    match app {
        App::Native => Server::start(&bin.join("coco-basic"), folder, &[]),
        App::Js | App::JsReused => {
            Server::start(&bin.join("coco"), folder, &["--app", "benches/app"])
        }
    }
}

fn request(server: &Server, row: &Row, write: bool) -> Load {
    let file = |name: &str| Some(server.folder.join(name));
    let wait = "x-coco-wait: committed".to_owned();
    Load {
        address: server.address.clone(),
        service_cert: file("service_cert.pem"),
        cert: file("user0_cert.pem"),
        key: file("user0_privk.pem"),
        connections: 1,
        pipeline: 1,
        seconds: 1.0,
        method: if write { "PUT" } else { "GET" }.to_owned(),
        path: match row.app {
            App::Native | App::Js => "/app/records/{n}",
            App::JsReused => "/app/reused/records/{n}",
        }
        .to_owned(),
        keys: KEYS,
        body_bytes: if write { 20 } else { 0 },
        header: if row.committed { vec![wait] } else { Vec::new() },
        body: None,
        rate: None,
        every: None,
        pid: server.pids(),
        most: usize::MAX,
    }
}

fn line(row: &Row, measured: &Measured) -> String {
    let ratio = row.ccf_rate.map(|ccf| format!("{:.1}", measured.rate_per_second / ccf));
    format!(
        "| {} | {:.0} | {:.2} | {:.2} | {:.1} | {:.0} | {} | {} |",
        row.name,
        measured.rate_per_second,
        measured.p50_ms,
        measured.p99_ms,
        measured.cpu_us_per_request.unwrap_or_default(),
        measured.resident_mb.unwrap_or_default(),
        row.ccf_rate.map_or("".to_owned(), |rate| format!("{rate:.0}")),
        ratio.unwrap_or_default(),
    )
}

/// The neutral client and the database.
fn peers(bin: &Path, scratch: &Path, seconds: f64) -> Result<()> {
    println!();
    let server = start(bin, App::JsReused, &scratch.join("wrk"))?;
    let script = scratch.join("write.lua");
    std::fs::write(&script, "wrk.method = \"POST\"\nwrk.body = \"value of twenty bytes\"\n")?;
    let url = format!("https://{}/app/open/records/1", server.address);
    for connections in [8, 32, 128] {
        match peers::wrk(&url, connections, seconds, &script)? {
            Some(rate) => println!("wrk, JS reused, {connections} connections: {rate:.0} /s"),
            None => println!("wrk is not installed"),
        }
    }

    let folder = std::path::absolute(scratch.join("postgres"))?;
    let (certificate, key) =
        (server.folder.join("user0_cert.pem"), server.folder.join("user0_privk.pem"));
    let postgres = Postgres::start(&folder, &certificate, &key)?;
    drop(server);
    let Some(postgres) = postgres else {
        println!("PostgreSQL is not installed");
        return Ok(());
    };
    for (transport, name) in [(Transport::UnixSocket, "Unix socket"), (Transport::Tls, "TLS")] {
        for connections in [1, 8, 32] {
            let (rate, mean_ms) = postgres.updates(transport, connections, seconds)?;
            println!(
                "PostgreSQL durable update, {name}, {connections} connections: {rate:.0} /s, mean {mean_ms:.2} ms"
            );
        }
    }
    Ok(())
}

/// What a node takes when it is idle, and with a million keys.
fn memory(bin: &Path, folder: &Path) -> Result<()> {
    let server = start(bin, App::Native, folder)?;
    println!("Service open {:.2} s after the process started.", server.open_after.as_secs_f64());
    let resident_mb = || {
        let pid = *server.pids().first().context("a service has a node")?;
        let (now, most) = resident_bytes(pid)?;
        Ok::<_, anyhow::Error>((now as f64 / 1e6, most as f64 / 1e6))
    };
    println!("Resident memory of an idle node: {:.0} MB.", resident_mb()?.0);
    let row = row("a million keys", App::Native, 1, 500, 0.0);
    let load = Load {
        path: "/app/records/{n16}".to_owned(),
        keys: MANY_KEYS,
        body_bytes: 64,
        pipeline: row.pipeline,
        seconds: 120.0,
        most: MANY_KEYS,
        ..request(&server, &row, true)
    };
    let written = load::run(&load)?.requests;
    ensure!(written >= MANY_KEYS, "only {written} keys were written in time");
    let (at_once_mb, _) = resident_mb()?;
    std::thread::sleep(SNAPSHOT_TIME);
    let (settled_mb, most_mb) = resident_mb()?;
    println!(
        "Resident memory with 1,000,000 keys of 16 bytes and values of 64: {at_once_mb:.0} MB at \
         once, {settled_mb:.0} MB when the last snapshot is written, {most_mb:.0} MB at most."
    );
    Ok(())
}
