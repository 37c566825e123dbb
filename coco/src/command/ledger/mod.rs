//! `coco ledger`: audit of ledger files, offline.

mod files;
mod show;
mod stats;
mod verify;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::output::Output;

#[derive(Subcommand, Debug)]
pub(crate) enum LedgerCommand {
    /// Check everything: files, entries, Merkle tree, signatures, who signed
    #[command(after_help = "\
Needs the files and the service's certificate: no node, no trust in whoever kept the files. The
first fault is named by file, offset and transaction, and the exit status is 1. A torn end, as a
crash leaves it in files not named committed, is no fault: the node cuts it at its next start.

Examples:
  coco ledger verify coco-dev/ledger --service-cert coco-dev/service_cert.pem
  coco ledger verify ledger --service-cert service_cert.pem --secrets secrets.json
  coco ledger verify ledger --service-cert service_cert.pem --snapshot snapshots/snapshot_493_494.committed
  coco ledger verify ledger --json             without a certificate: consistent in itself, only")]
    Verify(verify::VerifyArgs),
    /// Print entries
    #[command(after_help = "\
With --json, one JSON object a line.

Examples:
  coco ledger show coco-dev/ledger
  coco ledger show ledger --from 17 --to 20 --values
  coco ledger show ledger --map public:ccf.gov.proposals --values
  coco ledger show ledger --secrets secrets.json --values")]
    Show(show::ShowArgs),
    /// Count entries, signatures, bytes, and writes by map
    #[command(after_help = "Example:\n  coco ledger stats coco-dev/ledger")]
    Stats(stats::StatsArgs),
}

/// Where the ledger is.
#[derive(Args, Debug)]
pub(crate) struct LedgerArgs {
    /// Folder with ledger_* files; several are read as one ledger
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
}

/// How private data is read.
#[derive(Args, Debug)]
pub(crate) struct SecretsArgs {
    /// File with ledger secrets: {"periods": {"FIRST SEQNO": "64 HEX DIGITS"}}
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
}

pub(crate) fn run(command: &LedgerCommand, output: Output) -> Result<()> {
    match command {
        LedgerCommand::Verify(arguments) => verify::run(arguments, output),
        LedgerCommand::Show(arguments) => show::run(arguments, output),
        LedgerCommand::Stats(arguments) => stats::run(arguments, output),
    }
}
