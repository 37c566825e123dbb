//! The load generator and the tables of `docs/src/performance.md`.

mod connection;
mod ethereum;
mod latency;
mod load;
mod network;
mod peers;
mod server;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Measures a Coco node.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Sends one kind of request to a running node.
    Load(Load),
    /// Measures Ethereum transactions.
    #[command(subcommand)]
    Ethereum(ethereum::Task),
    /// Starts services of several nodes, and etcd beside them; prints tables and draws plots.
    Network(network::Arguments),
    /// Starts nodes and measures the whole table; prints it as Markdown.
    Suite {
        /// Seconds for each row.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Runs of each row; the median is printed.
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Only rows whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// The folder with the built programs.
        #[arg(long, default_value = "target/release")]
        bin: PathBuf,
    },
}

/// One kind of load.
#[derive(Args, Clone)]
pub struct Load {
    /// `host:port` of an interface.
    #[arg(long)]
    address: String,
    /// The service certificate; without it the load is plain HTTP.
    #[arg(long)]
    service_cert: Option<PathBuf>,
    /// Client certificate.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Client key.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Connections.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Verb.
    #[arg(long, default_value = "PUT")]
    method: String,
    /// Path; `{n}` becomes a number below `--keys`, `{n16}` 16 digits without order.
    #[arg(long, default_value = "/records/{n}")]
    path: String,
    /// How many different keys.
    #[arg(long, default_value_t = 1000)]
    keys: usize,
    /// Bytes of body; 0 sends none.
    #[arg(long, default_value_t = 20)]
    body_bytes: usize,
    /// Requests after which the run ends, however many seconds are left.
    #[arg(long, default_value_t = usize::MAX)]
    most: usize,
    /// A header to add, `name: value`; may be repeated.
    #[arg(long)]
    header: Vec<String>,
    /// The body, with numbers as in the path, instead of `--body-bytes`.
    #[arg(long)]
    body: Option<String>,
    /// Sends so many requests a second at most.
    #[arg(long)]
    rate: Option<f64>,
    /// Prints how many replies have come, every so many seconds.
    #[arg(long)]
    every: Option<f64>,
    /// Measures the CPU time and memory of this process; may be repeated.
    #[arg(long)]
    pid: Vec<u32>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coco-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    match arguments.task {
        Task::Load(load) => {
            println!("{}", serde_json::to_string(&load::run(&load)?)?);
            Ok(())
        }
        Task::Ethereum(task) => ethereum::run(task),
        Task::Network(arguments) => network::run(&arguments),
        Task::Suite { seconds, runs, only, bin } => {
            suite::run(&bin, seconds, runs, only.as_deref())
        }
    }
}
