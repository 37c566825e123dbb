//! `coco ledger stats`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use coco_ledger::Entry;
use serde::Serialize;

use super::LedgerArgs;
use super::files::Go;
use crate::output::{Output, counted};

/// Every signature transaction writes it.
const SIGNATURES: [&str; 2] =
    ["public:ccf.internal.signatures", "public:ccf.internal.cose_signatures"];

#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// What a ledger holds, by count.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Stats {
    files: u64,
    bytes: u64,
    transactions: u64,
    signatures: u64,
    /// Transactions with writes to private maps.
    with_private_writes: u64,
    first_transaction: Option<String>,
    last_transaction: Option<String>,
    views: u64,
    largest_transaction_bytes: u64,
    maps: BTreeMap<String, MapStats>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct MapStats {
    puts: u64,
    removals: u64,
    bytes: u64,
}

pub(super) fn run(arguments: &StatsArgs, output: Output) -> Result<()> {
    let stats = count(arguments, output)?;
    output.print(&stats, || stats.text())?;
    Ok(())
}

fn count(arguments: &StatsArgs, output: Output) -> Result<Stats> {
    let chunks = arguments.ledger.chunks()?;
    let progress = output.progress(chunks.iter().map(|chunk| chunk.len_bytes).sum());
    let mut stats = Stats::default();
    let mut view = None;
    for chunk in &chunks {
        chunk.visit_entries(&mut |found, entry| {
            stats.add(found.bytes.len() as u64, entry)?;
            let its_view = Some(entry.tx_id().view);
            stats.views += u64::from(view != its_view);
            view = its_view;
            Ok(Go::On)
        })?;
        stats.files += 1;
        stats.bytes += chunk.len_bytes;
        progress.inc(chunk.len_bytes);
    }
    progress.finish_and_clear();
    Ok(stats)
}

impl Stats {
    fn add(&mut self, len_bytes: u64, entry: &Entry<'_>) -> Result<()> {
        let tx_id = entry.tx_id().to_string();
        self.first_transaction.get_or_insert_with(|| tx_id.clone());
        self.last_transaction = Some(tx_id);
        self.transactions += 1;
        self.largest_transaction_bytes = self.largest_transaction_bytes.max(len_bytes);
        self.with_private_writes += u64::from(entry.has_private_writes());
        let mut is_signature = false;
        for block in entry.public_blocks() {
            let block = block?;
            is_signature |= SIGNATURES.contains(&block.name);
            let map = self.maps.entry(block.name.to_owned()).or_default();
            map.puts += block.puts.len() as u64;
            map.removals += block.removals.len() as u64;
            let put: usize = block.puts.iter().map(|(key, value)| key.len() + value.len()).sum();
            let removed: usize = block.removals.iter().map(|key| key.len()).sum();
            map.bytes += (put + removed) as u64;
        }
        self.signatures += u64::from(is_signature);
        Ok(())
    }

    fn text(&self) -> String {
        let range = match (&self.first_transaction, &self.last_transaction) {
            (Some(first), Some(last)) => {
                format!("{first} to {last}, {}", counted(self.views, "view"))
            }
            _ => "none".to_owned(),
        };
        let mut text = format!(
            "files          {} ({} bytes)\n\
             transactions   {} ({range})\n\
             signatures     {}\n\
             private writes in {}\n\
             largest entry  {} bytes\n\
             \n{:>9} {:>9} {:>12}  public map",
            self.files,
            self.bytes,
            self.transactions,
            self.signatures,
            counted(self.with_private_writes, "transaction"),
            self.largest_transaction_bytes,
            "puts",
            "removals",
            "bytes",
        );
        for (name, MapStats { puts, removals, bytes }) in &self.maps {
            text.push_str(&format!("\n{puts:>9} {removals:>9} {bytes:>12}  {name}"));
        }
        text
    }
}
