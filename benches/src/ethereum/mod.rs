//! Ethereum transactions: the same load for a Coco node and for anvil.
//!
//! Transactions are signed before anything is measured, by many senders who each send in order of
//! their nonces over one connection. A run is over when the chain's latest state has all of them.

mod closed_loop;
mod contract;
mod peers;
mod rpc;
mod submit;
mod suite;
mod wallet;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use rustls::ClientConfig;

use crate::load;
use contract::Token;
use rpc::Rpc;
use work::{Funder, Shape, Work};

/// Measures Ethereum transactions.
#[derive(Subcommand)]
pub enum Task {
    /// Sends transactions to a running node, whoever made it.
    Load(Load),
    /// Starts Coco and anvil in turn and measures the whole table; prints it as Markdown.
    Suite(suite::Arguments),
}

/// Where a node serves JSON-RPC.
#[derive(Args, Clone)]
pub struct Endpoint {
    /// `host:port` of JSON-RPC over HTTP.
    #[arg(long)]
    pub address: String,
    /// The service certificate; without it the load is plain HTTP.
    #[arg(long)]
    pub service_cert: Option<PathBuf>,
}

impl Endpoint {
    fn socket_address(&self) -> Result<SocketAddr> {
        load::address(&self.address)
    }

    fn tls_config(&self) -> Result<Option<Arc<ClientConfig>>> {
        self.service_cert.as_deref().map(|cert| load::tls_config(cert, None)).transpose()
    }
}

/// What the transactions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Plain transfers of one wei.
    Transfer,
    /// Transfers of one unit of an ERC-20 token.
    Erc20,
}

/// One run against a running node.
#[derive(Args)]
pub struct Load {
    #[command(flatten)]
    endpoint: Endpoint,
    /// The key of a rich account, in hexadecimal digits.
    #[arg(long, default_value = peers::ANVIL_FUNDER)]
    funder: String,
    /// What the transactions do.
    #[arg(long, value_enum, default_value = "erc20")]
    kind: Kind,
    /// How many.
    #[arg(long, default_value_t = 20_000)]
    transactions: usize,
    /// By how many senders.
    #[arg(long, default_value_t = 64)]
    senders: usize,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Transactions in a request; more than one makes a JSON-RPC batch.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Measures one transaction at a time from sending to its receipt instead.
    #[arg(long)]
    closed_loop: bool,
    /// Measures the CPU time and memory of this process; may be repeated.
    #[arg(long)]
    pid: Vec<u32>,
    /// The compiled token, `{"abi", "bytecode"}`.
    #[arg(long, default_value = contract::ARTIFACT)]
    token: PathBuf,
}

/// Runs a task.
pub fn run(task: Task) -> Result<()> {
    match task {
        Task::Load(load) => load.run(),
        Task::Suite(arguments) => suite::run(&arguments),
    }
}

impl Load {
    fn run(&self) -> Result<()> {
        let token = Token::read(&self.token)?;
        let mut rpc = Rpc::open(&self.endpoint)?;
        let mut funder = Funder::open(&mut rpc, &self.funder, &token)?;
        let (transactions, senders) = (self.transactions, self.senders);
        // A name of its own, so that the senders' nonces begin at 0 in every run.
        let name = format!("load {}", std::process::id());
        let shape = Shape { kind: self.kind, transactions, senders };
        let work = Work::sign(&name, shape, funder.chain_id, funder.token)?;
        funder.fund(&mut rpc, &[&work])?;
        let line = if self.closed_loop {
            serde_json::to_string(&closed_loop::run(&mut rpc, &work)?)?
        } else {
            let requests = submit::Requests { connections: self.connections, batch: self.batch };
            serde_json::to_string(&submit::run(&self.endpoint, &work, requests, &self.pid)?)?
        };
        work.check(&mut rpc)?;
        println!("{line}");
        Ok(())
    }
}
