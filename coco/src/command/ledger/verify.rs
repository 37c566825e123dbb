//! `coco ledger verify`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use clap::Args;
use coco_kv::{MapName, Seqno};
use coco_ledger::audit::{
    AuditError, AuditOptions, AuditReport, Auditor, ChunkSource, Fault, FaultKind, audit,
};
use coco_ledger::{ChunkName, SnapshotReader, StateWanted, tables};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::files::{ChunkFile, Go};
use super::{LedgerArgs, SecretsArgs};
use crate::advice::{Advise, advised};
use crate::output::{Output, counted};
use crate::service::read;

/// Bytes of a snapshot in memory at a time.
const PIECE_BYTES: u64 = 1 << 20;

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
    /// File with the service's certificate. Without it the certificate in the ledger is used: the
    /// ledger is then known to be consistent in itself, but not whose it is
    #[arg(long, value_name = "FILE")]
    service_cert: Option<PathBuf>,
    /// Snapshot from which the ledger goes on, as on a node that joined with one; earlier chunks are
    /// left out
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
}

pub(super) fn run(arguments: &VerifyArgs, output: Output) -> Result<()> {
    let trusted = arguments.service_cert.is_some();
    match verify(arguments, output)? {
        Ok(report) => {
            output.print(&as_json(&report, trusted), || as_text(&report, trusted))?;
            Ok(())
        }
        Err(fault) => {
            if output.is_json() {
                output.print(&fault_as_json(&fault), String::new)?;
            }
            Err(refusal(&fault))
        }
    }
}

fn refusal(fault: &Fault) -> Error {
    match *fault.kind {
        FaultKind::OtherService => advised(
            anyhow!("{}", fault.kind),
            "a service that was recovered has a new certificate: use the present one; or this is \
             another service's ledger",
        ),
        _ => advised(
            anyhow!("{fault}").context("the ledger is faulty"),
            "take this file from another node's ledger, or from a backup",
        ),
    }
}

/// The verdict; an error when there is none.
fn verify(arguments: &VerifyArgs, output: Output) -> Result<Result<AuditReport, Box<Fault>>> {
    let chunks = arguments.ledger.chunks()?;
    let certificate = match &arguments.service_cert {
        Some(file) => read(file)?,
        None => certificate_in(&chunks)?,
    };
    let mut options = AuditOptions::of_certificate(&certificate)
        .context("the service's certificate is not usable")?;
    options.secrets = arguments.secrets.load()?;
    options.accept_torn_tail = true;
    let progress = output.progress(chunks.iter().map(|chunk| chunk.len_bytes).sum());
    let mut source = Files::new(arguments, &chunks, progress.clone())?;
    let auditor = match &arguments.snapshot {
        Some(file) => after_snapshot(options, file)?,
        None => Auditor::new(options),
    };
    source.leave_out_to(auditor.last().seqno);
    let verdict = audit(&mut source, auditor, &mut |_| {});
    progress.finish_and_clear();
    match verdict {
        Ok(report) => Ok(Ok(report)),
        Err(AuditError::Fault(fault)) => Ok(Err(fault)),
        Err(AuditError::Source { name, error }) => {
            Err(error).with_context(|| format!("{name} cannot be read"))
        }
    }
}

/// An audit that goes on from a snapshot, which is verified first.
fn after_snapshot(options: AuditOptions, file: &Path) -> Result<Auditor> {
    let unreadable = || format!("{} cannot be read", file.display());
    let unusable = || format!("{} is no snapshot to go on from", file.display());
    let mut input = File::open(file).with_context(unreadable)?;
    let mut reader = SnapshotReader::new(StateWanted::Public);
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let len_bytes = input.by_ref().take(PIECE_BYTES).read_to_end(&mut piece);
        if len_bytes.with_context(unreadable)? == 0 {
            break;
        }
        reader.add(&piece).with_context(unusable)?;
    }
    let snapshot = reader.finish().with_context(unusable)?;
    Auditor::after_snapshot(options, &snapshot).with_context(unusable)
}

/// The chunk files by name.
struct Files {
    names: Vec<String>,
    paths: BTreeMap<String, PathBuf>,
    progress: ProgressBar,
}

impl Files {
    fn new(arguments: &VerifyArgs, chunks: &[ChunkFile], progress: ProgressBar) -> Result<Self> {
        let paths = chunks.iter().map(|chunk| (chunk.name.to_string(), chunk.path.clone()));
        let paths: BTreeMap<String, PathBuf> = paths.collect();
        // Everything else that lies there, too: a name that begins as a chunk's and is none is a fault.
        let mut names = arguments.ledger.file_names()?;
        names.retain(|name| paths.contains_key(name) || name.parse::<ChunkName>().is_err());
        Ok(Self { names, paths, progress })
    }

    /// Leaves out the chunks that end with `seqno` or before.
    fn leave_out_to(&mut self, seqno: Seqno) {
        let is_before = |name: &ChunkName| name.end().is_some_and(|end| end <= seqno);
        self.names.retain(|name| !name.parse().is_ok_and(|name| is_before(&name)));
    }
}

impl ChunkSource for Files {
    type Bytes = Vec<u8>;
    type Error = io::Error;

    fn names(&mut self) -> io::Result<Vec<String>> {
        Ok(self.names.clone())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let path = self.paths.get(name).ok_or(io::ErrorKind::NotFound)?;
        let bytes = std::fs::read(path)?;
        self.progress.inc(bytes.len() as u64);
        Ok(bytes)
    }
}

/// The certificate that the ledger itself names last, before its last signature.
fn certificate_in(chunks: &[ChunkFile]) -> Result<String> {
    let map = MapName::new(tables::SERVICE_INFO);
    let (mut certificate, mut unsigned) = (None, None);
    for chunk in chunks {
        let visited = chunk.visit_entries(&mut |_, entry| {
            let touches = |maps: &[&str]| {
                entry.public_blocks().any(|it| it.is_ok_and(|it| maps.contains(&it.name)))
            };
            if touches(&[map.as_str()]) {
                let writes = entry.public_writes()?;
                let put = writes.map(&map).and_then(|map| map.puts().last());
                let info = put.and_then(|(_, value)| serde_json::from_slice::<Value>(value).ok());
                let text = info.as_ref().and_then(|info| info.get("cert")?.as_str());
                unsigned = text.map(str::to_owned).or(unsigned.take());
            }
            if touches(&[tables::SIGNATURES, tables::COSE_SIGNATURES]) {
                certificate = unsigned.take().or(certificate.take());
            }
            Ok(Go::On)
        });
        // The audit will name the fault.
        if visited.is_err() {
            break;
        }
    }
    certificate
        .context("the ledger names no service certificate")
        .advise(|| "name the file with --service-cert".to_owned())
}

fn as_json(report: &AuditReport, trusted: bool) -> Value {
    let stats = &report.stats;
    json!({
        "valid": true,
        "service_certificate_given": trusted,
        "last_signed": report.last_signed.to_string(),
        "last": report.last.to_string(),
        "unsigned": report.unsigned(),
        "torn_tail": report.torn_tail.as_ref().map(|(file, offset)| {
            json!({ "file": file, "offset": offset })
        }),
        "identities": report.identities.len(),
        "files": stats.chunks,
        "transactions": stats.entries,
        "bytes": stats.bytes,
        "signatures": stats.signatures,
        "decrypted": stats.decrypted,
    })
}

fn as_text(report: &AuditReport, trusted: bool) -> String {
    let stats = &report.stats;
    let mut text = format!(
        "The ledger is valid up to {}.\n  \
         {} in {}, {}, {}",
        report.last_signed,
        counted(stats.entries, "transaction"),
        counted(stats.chunks, "file"),
        counted(stats.signatures, "signature"),
        match report.identities.len() {
            1 => "1 service identity".to_owned(),
            count => format!("{count} service identities"),
        },
    );
    if stats.decrypted > 0 {
        text.push_str(&format!("\n  {} decrypted", counted(stats.decrypted, "transaction")));
    }
    if report.unsigned() > 0 {
        let unsigned = counted(report.unsigned(), "transaction");
        text.push_str(&format!("\n  not signed yet: {unsigned} after it"));
    }
    if let Some((file, offset)) = &report.torn_tail {
        text.push_str(&format!(
            "\n  {file} is torn: what stands there from byte {offset} on is left out"
        ));
    }
    if !trusted {
        text.push_str(
            "\n  Whose ledger it is was not checked: name the service's certificate with \
             --service-cert.",
        );
    }
    text
}

fn fault_as_json(fault: &Fault) -> Value {
    json!({
        "valid": false,
        "file": fault.file,
        "offset": fault.offset,
        "seqno": fault.seqno.map(|seqno| seqno.0),
        "fault": fault.kind.to_string(),
    })
}

#[cfg(test)]
mod tests;
