//! `coco ledger show`.

use anyhow::{Result, bail};
use clap::Args;
use coco_kv::MapWrites;
use coco_ledger::{Entry, LedgerSecrets};
use serde_json::{Map, Value, json};

use super::files::Go;
use super::{LedgerArgs, SecretsArgs};
use crate::output::{Output, counted};

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
    /// First transaction to print
    #[arg(long, value_name = "SEQNO", default_value_t = 1)]
    from: u64,
    /// Last transaction to print
    #[arg(long, value_name = "SEQNO", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Only transactions that wrote to this map, and only those writes
    #[arg(long, value_name = "NAME")]
    map: Option<String>,
    /// Print keys and values, not only their number
    #[arg(long)]
    values: bool,
}

pub(super) fn run(arguments: &ShowArgs, output: Output) -> Result<()> {
    refuse_empty_range(arguments)?;
    let secrets = arguments.secrets.load()?;
    for chunk in arguments.ledger.chunks()? {
        if chunk.name.end().is_some_and(|end| end.0 < arguments.from) {
            continue;
        }
        let go = chunk.visit_entries(&mut |found, entry| {
            let seqno = entry.tx_id().seqno.0;
            if seqno > arguments.to {
                return Ok(Go::Stop);
            }
            if seqno >= arguments.from {
                print(arguments, secrets.as_ref(), entry, found.bytes.len(), output)?;
            }
            Ok(Go::On)
        })?;
        if go == Go::Stop {
            break;
        }
    }
    Ok(())
}

fn refuse_empty_range(arguments: &ShowArgs) -> Result<()> {
    let ShowArgs { from, to, .. } = arguments;
    if from > to {
        bail!("--from {from} is after --to {to}: there is nothing between them");
    }
    Ok(())
}

fn print(
    arguments: &ShowArgs,
    secrets: Option<&LedgerSecrets>,
    entry: &Entry<'_>,
    len_bytes: usize,
    output: Output,
) -> Result<()> {
    let writes = match secrets {
        Some(secrets) => entry.writes(secrets)?,
        None => entry.public_writes()?,
    };
    let wanted = |map: &&MapWrites| {
        arguments.map.as_ref().is_none_or(|wanted| map.name().as_str() == wanted)
    };
    if arguments.map.is_some() && !writes.maps().any(|map| wanted(&map)) {
        return Ok(());
    }
    let hidden = secrets.is_none() && entry.has_private_writes();
    let maps: Vec<&MapWrites> = writes.maps().filter(wanted).collect();
    output.print(&as_json(arguments, entry, &maps, len_bytes, hidden), || {
        as_text(arguments, entry, &maps, len_bytes, hidden)
    })?;
    Ok(())
}

fn as_json(
    arguments: &ShowArgs,
    entry: &Entry<'_>,
    maps: &[&MapWrites],
    len_bytes: usize,
    hidden: bool,
) -> Value {
    let maps: Map<String, Value> = maps
        .iter()
        .map(|map| {
            let value = match arguments.values {
                true => {
                    let puts: Vec<Value> = map
                        .puts()
                        .map(|(key, value)| json!([readable(key), readable(value)]))
                        .collect();
                    let removals: Vec<String> = map.removals().map(|key| readable(key)).collect();
                    json!({ "puts": puts, "removals": removals })
                }
                false => json!({ "puts": map.puts().count(), "removals": map.removals().count() }),
            };
            (map.name().as_str().to_owned(), value)
        })
        .collect();
    json!({
        "transaction_id": entry.tx_id().to_string(),
        "bytes": len_bytes,
        "claims_digest": entry.claims_digest().map(|digest| digest.to_string()),
        "write_set_digest": entry.write_set_digest().to_string(),
        "private_writes_hidden": hidden,
        "maps": maps,
    })
}

fn as_text(
    arguments: &ShowArgs,
    entry: &Entry<'_>,
    maps: &[&MapWrites],
    len_bytes: usize,
    hidden: bool,
) -> String {
    let mut text = format!("{}  {len_bytes} bytes", entry.tx_id());
    if hidden {
        text.push_str("  private writes (encrypted)");
    }
    for map in maps {
        let puts = counted(map.puts().count() as u64, "put");
        let removals = counted(map.removals().count() as u64, "removal");
        text.push_str(&format!("\n    {}  {puts}, {removals}", map.name().as_str()));
        if arguments.values {
            for (key, value) in map.puts() {
                text.push_str(&format!("\n        {} = {}", readable(key), readable(value)));
            }
            for key in map.removals() {
                text.push_str(&format!("\n        {} removed", readable(key)));
            }
        }
    }
    text
}

/// Text as it is, anything else in hex after `0x`.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => text.to_owned(),
        _ => format!("0x{}", hex::encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_after_its_start() {
        use clap::Parser as _;
        let range = |from: &str, to: &str| {
            let line = ["coco", "ledger", "show", "ledger", "--from", from, "--to", to];
            let cli = crate::cli::Cli::parse_from(line);
            let crate::cli::Command::Ledger(super::super::LedgerCommand::Show(arguments)) =
                cli.command
            else {
                panic!("another command")
            };
            refuse_empty_range(&arguments)
        };
        range("2", "9").unwrap();
        range("2", "2").unwrap();
        assert!(range("9", "2").unwrap_err().to_string().contains("--from 9 is after --to 2"));
    }

    #[test]
    fn bytes_are_made_readable() {
        assert_eq!(readable("grüß\n".as_bytes()), "grüß\n");
        assert_eq!(readable(&[0, 1, 0xff]), "0x0001ff");
        assert_eq!(readable(&[0x1b, b'[']), "0x1b5b");
    }
}
