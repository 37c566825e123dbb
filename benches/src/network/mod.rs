//! Services of several nodes: against CCF's and etcd's figures, and what it costs when there is
//! more of everything. Nodes, load and everything else share the same cores.

mod etcd;
mod growth;
mod plot;
mod versus;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::Load;
use crate::load::{self, Measured};
use crate::server::Server;

/// What is measured.
#[derive(Args)]
pub struct Arguments {
    /// Seconds for each row.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Runs of each row; the median is printed.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only this part.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// The most keys that the table by keys goes to: each million takes some seconds and a quarter
    /// of a gigabyte.
    #[arg(long, default_value_t = 10_000_000)]
    keys: usize,
    /// The folder with the built programs.
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
    /// Where plots are drawn.
    #[arg(long, default_value = "docs/src/plots")]
    plots: PathBuf,
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Three nodes against CCF and etcd.
    Versus,
    /// By the number of nodes.
    Nodes,
    /// By the number of keys.
    Keys,
    /// By the size of values.
    Values,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    let scratch = arguments.bin.join("bench-network");
    std::fs::create_dir_all(&scratch)?;
    let bench = Bench { arguments, scratch: &scratch };
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    if wanted(Part::Versus) {
        versus::run(&bench)?;
    }
    if wanted(Part::Nodes) {
        growth::by_nodes(&bench)?;
    }
    if wanted(Part::Keys) {
        growth::by_keys(&bench)?;
    }
    if wanted(Part::Values) {
        growth::by_values(&bench)?;
    }
    std::fs::remove_dir_all(&scratch)?;
    Ok(())
}

struct Bench<'a> {
    arguments: &'a Arguments,
    scratch: &'a Path,
}

impl Bench<'_> {
    /// A service of so many nodes that run the records application.
    fn start(&self, nodes: usize) -> Result<Server> {
        let folder = self.scratch.join(format!("nodes-{nodes}"));
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let nodes = nodes.to_string();
        Server::start(&self.arguments.bin.join("coco-basic"), &folder, &["--nodes", &nodes])
    }

    /// Writes of 20 bytes over so many connections with so many requests in flight on each.
    fn writes(&self, server: &Server, connections: usize, pipeline: usize) -> Load {
        let file = |name: &str| Some(server.folder.join(name));
        Load {
            address: server.address.clone(),
            service_cert: file("service_cert.pem"),
            cert: file("user0_cert.pem"),
            key: file("user0_privk.pem"),
            connections,
            pipeline,
            seconds: self.arguments.seconds,
            method: "PUT".to_owned(),
            path: "/app/records/{n}".to_owned(),
            keys: 1000,
            body_bytes: 20,
            most: usize::MAX,
            header: Vec::new(),
            body: None,
            rate: None,
            every: None,
            pid: server.pids(),
        }
    }

    /// The run with the median rate.
    fn median(&self, load: &Load) -> Result<Measured> {
        let mut all = Vec::new();
        for _ in 0..self.arguments.runs.max(1) {
            let measured = load::run(load)?;
            anyhow::ensure!(measured.failed == 0, "{} requests failed", measured.failed);
            all.push(measured);
        }
        all.sort_by(|a, b| a.rate_per_second.total_cmp(&b.rate_per_second));
        let middle = all.len() / 2;
        Ok(all.swap_remove(middle))
    }
}

/// Answered when committed, which here means synced by a majority.
fn committed(load: Load) -> Load {
    Load { header: vec!["x-coco-wait: committed".to_owned()], ..load }
}
