//! The offline verifier: needs the files and the service's certificate, nothing else.
//!
//! ```text
//!  file ─▶ framing ─▶ entry ─▶ position, view, flags ─▶ leaf ─┐
//!                       │                                     ▼
//!                       ├─▶ service and nodes ─▶ keys ─▶ signature over the root
//!                       └─▶ (with secrets) AEAD, commit evidence
//! ```
//! It reads the ledger once, in order, and stops at the first fault, which it names by file,
//! offset and entry. An entry is known to be authentic when a signature transaction after it has
//! been verified.

mod auditor;
mod fault;
mod report;
mod service;
mod tail;

pub use auditor::{AuditOptions, Audited, Auditor};
pub use fault::{Fault, FaultKind};
pub use report::{AuditReport, AuditStats, MapCounts};
pub use service::{ServiceFault, ServiceHistory, ServiceIdentity, ServiceStatus};

use crate::chunk::{ChunkName, ChunkNameError, ChunkState};

/// Where chunks come from: a directory, an archive, a host.
pub trait ChunkSource {
    /// A chunk's bytes.
    type Bytes: AsRef<[u8]>;
    /// Why files cannot be read.
    type Error: std::error::Error + 'static;

    /// The names of all files there; those that are not chunks are skipped.
    fn names(&mut self) -> Result<Vec<String>, Self::Error>;

    /// The content of a file.
    fn read(&mut self, name: &str) -> Result<Self::Bytes, Self::Error>;
}

/// A ledger did not pass, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError<E: std::error::Error + 'static> {
    /// A file, or the list of files, could not be read.
    #[error("cannot read {name}: {error}")]
    Source {
        /// The file, or `the list of files`.
        name: String,
        /// Why.
        error: E,
    },
    /// The ledger is faulty.
    #[error(transparent)]
    Fault(Box<Fault>),
}

/// Verifies a whole ledger. `visit` is called for each entry once it was checked, see [`Audited`];
/// it serves for progress too.
///
/// # Errors
/// The first fault, or the first file that cannot be read.
pub fn audit<S: ChunkSource>(
    source: &mut S,
    mut auditor: Auditor,
    visit: &mut dyn FnMut(Audited<'_>),
) -> Result<AuditReport, AuditError<S::Error>> {
    let failed = |name: &str, error| AuditError::Source { name: name.to_owned(), error };
    let faulty = |fault| AuditError::Fault(Box::new(fault));
    let names = source.names().map_err(|error| failed("the list of files", error))?;
    for name in chunk_order(names).map_err(faulty)? {
        let bytes = source.read(&name).map_err(|error| failed(&name, error))?;
        auditor.chunk(&name, bytes.as_ref(), visit).map_err(faulty)?;
    }
    auditor.finish().map_err(faulty)
}

/// The names of the chunks among `names`, in order of their entries. Files that were set aside, are
/// of a recovery in progress, were downloaded in part, or are no chunks at all, are left out.
///
/// # Errors
/// If a name begins as a chunk's does and is none: renaming a file does not hide it.
pub fn chunk_order(names: impl IntoIterator<Item = String>) -> Result<Vec<String>, Fault> {
    let mut chunks = Vec::new();
    for name in names {
        match name.parse::<ChunkName>() {
            Ok(ChunkName { recovery: true, .. }) => {}
            Ok(ChunkName { state: ChunkState::CommittedPrefix { .. }, .. }) => {}
            Ok(chunk) => chunks.push((chunk, name)),
            Err(ChunkNameError::NotAChunk) if name.starts_with("ledger_") => {
                let kind = Box::new(ChunkNameError::NotAChunk.into());
                return Err(Fault { file: name, offset: 0, seqno: None, kind });
            }
            Err(_) => {}
        }
    }
    chunks.sort();
    Ok(chunks.into_iter().map(|(_, name)| name).collect())
}

#[cfg(test)]
mod tests;
