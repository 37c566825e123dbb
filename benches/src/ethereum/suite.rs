//! The whole table: the same signed transactions for Coco, with and without TLS and on three
//! nodes, and for anvil.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::contract::{self, Token};
use super::peers::{ANVIL_FUNDER, Anvil, Mining, installed_anvil};
use super::rpc::Rpc;
use super::submit::{self, Requests, Submitted};
use super::work::{Funder, Shape, Work};
use super::{Endpoint, Kind, closed_loop};
use crate::server::Server;

/// What is measured.
#[derive(clap::Args)]
pub struct Arguments {
    /// Transactions of each row.
    #[arg(long, default_value_t = 60_000)]
    transactions: usize,
    /// Senders of each row.
    #[arg(long, default_value_t = 64)]
    senders: usize,
    /// Only servers whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// The folder with the built programs.
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
    /// Where npm has installed anvil.
    #[arg(long, default_value = "tests/ethereum/node_modules")]
    node_modules: PathBuf,
    /// The compiled token.
    #[arg(long, default_value = contract::ARTIFACT)]
    token: PathBuf,
}

struct Row {
    name: &'static str,
    kind: Kind,
    requests: Requests,
}

const fn row(name: &'static str, kind: Kind, batch: usize) -> Row {
    Row { name, kind, requests: Requests { connections: 8, batch } }
}

const ROWS: &[Row] = &[
    row("ERC-20, single requests", Kind::Erc20, 1),
    row("ERC-20, batches of 100", Kind::Erc20, 100),
    row("plain, single requests", Kind::Transfer, 1),
    row("plain, batches of 100", Kind::Transfer, 100),
];

/// Transactions of the closed loop.
const ONE_AT_A_TIME: usize = 1000;

/// The chain that anvil is told to be: `coco dev`'s.
const CHAIN_ID: u64 = 1337;

/// A running server, ended when dropped.
enum Process {
    Coco(Server),
    Anvil(Anvil),
}

struct Candidate {
    name: &'static str,
    start: fn(&Arguments, &Path) -> Result<(Process, Endpoint)>,
}

const CANDIDATES: &[Candidate] = &[
    Candidate { name: "Coco", start: |arguments, folder| coco(arguments, folder, &[]) },
    Candidate {
        name: "Coco, TLS",
        start: |arguments, folder| coco(arguments, folder, &["--ethereum-tls"]),
    },
    Candidate {
        name: "Coco, 3 nodes",
        start: |arguments, folder| coco(arguments, folder, &["--nodes", "3"]),
    },
    Candidate {
        name: "anvil, a block a second",
        start: |arguments, _| anvil(arguments, Mining::EverySecond),
    },
    Candidate {
        name: "anvil, a block a transaction",
        start: |arguments, _| anvil(arguments, Mining::Automatic),
    },
];

pub fn run(arguments: &Arguments) -> Result<()> {
    let token = Token::read(&arguments.token)?;
    let scratch = arguments.bin.join("bench-ethereum");
    std::fs::create_dir_all(&scratch)?;
    println!("| server | work | committed /s | CPU us | request p50 ms | p99 ms | MB |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    let mut loops = Vec::new();
    for candidate in CANDIDATES {
        if arguments.only.as_ref().is_some_and(|part| !candidate.name.contains(part.as_str())) {
            continue;
        }
        let folder = scratch.join(candidate.name.replace([' ', ','], "-"));
        let measured = measure(arguments, candidate, &folder, &token).context(candidate.name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        loops.extend(measured?);
    }
    println!("\n| server | send to receipt p50 ms | p99 ms |\n|---|---:|---:|");
    loops.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Prints the rows of one server; returns the line of its closed loop.
fn measure(
    arguments: &Arguments,
    candidate: &Candidate,
    folder: &Path,
    token: &Token,
) -> Result<Option<String>> {
    let (process, endpoint) = (candidate.start)(arguments, folder)?;
    let (pids, funder) = match &process {
        Process::Coco(server) => (server.pids(), server.funder()?.to_owned()),
        Process::Anvil(anvil) => (vec![anvil.pid()], ANVIL_FUNDER.to_owned()),
    };
    let mut rpc = Rpc::open(&endpoint)?;
    let mut funder = Funder::open(&mut rpc, &funder, token)?;
    let sign = |name: &str, kind, transactions, senders| {
        let shape = Shape { kind, transactions, senders };
        Work::sign(name, shape, funder.chain_id, funder.token)
    };
    let one_at_a_time = sign("closed loop", Kind::Erc20, ONE_AT_A_TIME, 1)?;
    let with_timer = candidate.name.contains("second");
    let with_load = !candidate.name.contains("a block a transaction");
    let rows: &[Row] = if with_load { ROWS } else { &[] };
    let works =
        rows.iter().map(|row| sign(row.name, row.kind, arguments.transactions, arguments.senders));
    let works: Vec<Work> = works.collect::<Result<_>>()?;
    let all: Vec<&Work> = works.iter().chain([&one_at_a_time]).collect();
    funder.fund(&mut rpc, &all)?;
    for (row, work) in rows.iter().zip(&works) {
        let measured = submit::run(&endpoint, work, row.requests, &pids).context(row.name)?;
        work.check(&mut rpc)?;
        println!("{}", line(candidate.name, row.name, &measured));
    }
    if with_timer {
        return Ok(None);
    }
    let measured = closed_loop::run(&mut rpc, &one_at_a_time)?;
    let (p50, p99) = (measured.send_to_receipt_p50_ms, measured.send_to_receipt_p99_ms);
    Ok(Some(format!("| {} | {p50:.2} | {p99:.2} |", candidate.name)))
}

fn line(server: &str, work: &str, measured: &Submitted) -> String {
    format!(
        "| {server} | {work} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} |",
        measured.committed_per_second,
        measured.cpu_us_per_transaction.unwrap_or_default(),
        measured.request_p50_ms,
        measured.request_p99_ms,
        measured.resident_mb.unwrap_or_default(),
    )
}

fn coco(arguments: &Arguments, folder: &Path, extra: &[&str]) -> Result<(Process, Endpoint)> {
    let server = Server::start(&arguments.bin.join("coco"), folder, extra)?;
    let endpoint = server.ethereum()?;
    Ok((Process::Coco(server), endpoint))
}

fn anvil(arguments: &Arguments, mining: Mining) -> Result<(Process, Endpoint)> {
    let program = installed_anvil(&arguments.node_modules);
    let program = program.context("anvil is missing: run `npm ci` in tests/ethereum")?;
    let anvil = Anvil::start(&program, CHAIN_ID, mining)?;
    let endpoint = anvil.endpoint.clone();
    Ok((Process::Anvil(anvil), endpoint))
}
