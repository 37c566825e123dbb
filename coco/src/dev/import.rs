//! `coco import-chain`: a development service whose chain was made elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use alloy_consensus::Header;
use anyhow::{Context, Result, bail};
use clap::Args;
use coco_adapter::TxStatus;
use coco_enclave::config::Config;
use coco_ethereum::{Ethereum, ImportedBlock, blocks_of};
use serde::Serialize;
use serde_json::json;

use super::configuration::Listening;
use super::folder::{DevFolder, FirstBlock};
use super::{Wanted, bootstrap, log_to_folder, open};
use crate::application::Application;
use crate::node::{
    LogLevel, PidFile, ProgramDigest, Protocols, RunningNode, read_files, read_genesis, runtime,
};
use crate::output::{Output, counted};
use crate::service::read;

#[derive(Args, Debug)]
#[command(after_help = "\
Every block is executed again and must give what its header says: state root, receipts root,
transactions root, bloom, gas. It keeps its own header. A first block 0, with which `geth export`
begins, must be the one that the genesis makes. The folder is then served by `coco dev --keep`, with
Ethereum's own rules for fees; if a block is refused, it is removed.

Examples:
  coco import-chain genesis.json chain.rlp
  coco import-chain genesis.json chain.rlp --dir old-chain && coco dev --dir old-chain --keep")]
pub(crate) struct ImportArgs {
    /// File with geth's genesis.json
    #[arg(value_name = "GENESIS")]
    genesis: PathBuf,
    /// File with blocks in RLP, one after the other, as `geth export` writes it
    #[arg(value_name = "CHAIN")]
    chain: PathBuf,
    /// Folder for the new service: keys, ledger and log
    #[arg(long, value_name = "DIR", default_value = "coco-dev")]
    dir: PathBuf,
    /// What is logged
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
}

/// What was imported.
#[derive(Debug, Serialize)]
struct Imported {
    blocks: usize,
    transactions: usize,
    /// Number and hash of the last block.
    head: Option<(u64, String)>,
    /// The last of them on the ledger.
    transaction_id: Option<String>,
    dir: PathBuf,
}

pub(crate) fn run(arguments: &ImportArgs, application: &Application, output: Output) -> Result<()> {
    let program = ProgramDigest::begin();
    let genesis = read_genesis(&arguments.genesis)?;
    let blocks = read_blocks(arguments)?;
    let folder = DevFolder::at(&arguments.dir);
    folder.refuse_other_things()?;
    folder.refuse_while_running()?;
    let chain = FirstBlock { genesis, fees: json!("market") };
    let listening = Listening { ethereum: Some(0), ..Listening::default() };
    let imported = folder
        .create(listening, &chain)
        .and_then(|_| import_into(&folder, arguments, &blocks, program, application, output));
    // Half a chain is none that anybody should serve.
    let imported = imported.map_err(|error| match folder.remove() {
        Ok(()) => error,
        Err(left) => error.context(format!("{left:#}")),
    })?;
    output.print(&imported, || {
        let Imported { blocks, transactions, head, dir, .. } = &imported;
        let head = head.as_ref().map(|(number, hash)| format!(", up to block {number} {hash}"));
        format!(
            "{} with {} imported{}\n\
             serve them: coco dev --keep --dir {}",
            counted(*blocks as u64, "block"),
            counted(*transactions as u64, "transaction"),
            head.unwrap_or_default(),
            dir.display()
        )
    })?;
    Ok(())
}

/// Opens a service in the folder, with a chain of these blocks.
fn import_into(
    folder: &DevFolder,
    arguments: &ImportArgs,
    blocks: &[(ImportedBlock, u64)],
    program: ProgramDigest,
    application: &Application,
    output: Output,
) -> Result<Imported> {
    let config = Config::parse(&read(&folder.config_file())?)?;
    log_to_folder(arguments.log_level, folder)?;
    let files = read_files(&config, program)?;
    let protocols = Protocols::of(&config)?;
    let ethereum = protocols.ethereum.clone().context("the service has no chain")?;
    let adapters = protocols.with(application.adapter());
    let pid_file = PidFile::create(&folder.pid_file())?;
    let runtime = runtime(config.worker_threads)?;
    let node = runtime.block_on(RunningNode::start(config, files, adapters))?;
    let bundle = bootstrap::example()?;
    let imported = runtime.block_on(import(arguments, &ethereum, blocks, output)).and_then(|it| {
        let wanted =
            Wanted { is_new: true, replaces: false, bundle: Some(&bundle), ethereum_tls: false };
        open(folder, &node, wanted).map(|_| it)
    });
    runtime.block_on(node.stop());
    drop(pid_file);
    imported
}

fn read_blocks(arguments: &ImportArgs) -> Result<Vec<(ImportedBlock, u64)>> {
    let file = &arguments.chain;
    let bytes =
        std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let blocks: Vec<ImportedBlock> = blocks_of(&bytes)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not a chain in RLP", file.display()))?;
    if blocks.is_empty() {
        bail!("{} holds no block", file.display());
    }
    // What a block takes in the file, for the progress bar.
    let share = (bytes.len() / blocks.len()) as u64;
    Ok(blocks.into_iter().map(|block| (block, share)).collect())
}

async fn import(
    arguments: &ImportArgs,
    ethereum: &Arc<Ethereum>,
    blocks: &[(ImportedBlock, u64)],
    output: Output,
) -> Result<Imported> {
    let blocks = after_genesis(ethereum, blocks)
        .with_context(|| format!("{}", arguments.chain.display()))?;
    let progress = output.progress(blocks.iter().map(|(_, bytes)| bytes).sum());
    let (mut last, mut transactions) = (None, 0);
    for (block, bytes) in blocks {
        let position = ethereum.import(block).await;
        let position = position.with_context(|| {
            progress.abandon();
            format!("{}", arguments.chain.display())
        })?;
        last = Some(position);
        transactions += block.body.transactions.len();
        progress.inc(*bytes);
    }
    progress.finish_and_clear();
    if let (Some(last), Some(node)) = (last, ethereum.node())
        && node.wait_committed(last).await != TxStatus::Committed
    {
        bail!("the blocks did not reach the ledger's disk");
    }
    let name = |header: &Header| (header.number, header.hash_slow().to_string());
    Ok(Imported {
        blocks: blocks.len(),
        transactions,
        head: blocks.last().map(|(block, _)| name(&block.header)),
        transaction_id: last.map(|id| id.to_string()),
        dir: arguments.dir.clone(),
    })
}

/// The blocks without the first one, if that is the one that the chain has from its genesis.
fn after_genesis<'a>(
    ethereum: &Ethereum,
    blocks: &'a [(ImportedBlock, u64)],
) -> Result<&'a [(ImportedBlock, u64)]> {
    let (Some(rpc), Some(node)) = (ethereum.rpc(), ethereum.node()) else {
        bail!("the service has no chain");
    };
    Ok(match blocks.split_first() {
        Some(((first, _), rest)) if rpc.chain().is_first(&mut node.begin(), first)? => rest,
        _ => blocks,
    })
}
