//! From the ledger's files back to a running state.
//!
//! ```text
//!   newest valid snapshot ──┐
//!                           ├─▶ replay every entry after it: decrypt, apply, hash, compare each
//!   committed chunks ───────┤   signed root; verify the signatures that end each chunk
//!   open chunk ─────────────┘   cut what a crash has torn, refuse what is damaged
//! ```
//!
//! What ends with a valid signature was proposed as a batch, and every batch that was ever reported
//! committed is among them. What follows the last signature was never reported, and is cut off.

mod replay;

use std::io;
use std::sync::Arc;

use coco_crypto::Digest;
use coco_governance::recovery::RECOVERY_VIEW_STEP;
use coco_kv::{Seqno, Store, TxId, View};
use coco_ledger::{
    ChunkError, ChunkName, ChunkReader, ChunkState, CutReason, LedgerSecrets, MerkleTree,
    RecoveredChunk, Resumed, ViewHistory, ViewHistoryError, count_signatures, recover_open_chunk,
    split_entry,
};

use crate::disk::{read_file, set_aside, submit};
use crate::ease::Rests;
use crate::host::{Area, DiskOp, FileEntry, Host};
use crate::identities::Identities;
use crate::ledger_files::disk_operations;
use crate::snapshots::{self, LoadError, LoadedSnapshot};
pub use replay::ReplayFault;
use replay::{Located, Replay};

/// A chunk larger than this is not one of ours: positions in it have 32 bits.
const MAX_CHUNK_BYTES: u64 = 8 << 30;

/// The ledger on the disk cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk failed.
    #[error("{name}: {error}")]
    Io {
        /// Which file, or which directory.
        name: String,
        /// What the host says.
        error: io::Error,
    },
    /// There is no ledger.
    #[error("there is no ledger to restart from")]
    NoLedger,
    /// A part of the ledger is not there.
    #[error("the ledger has no entry {missing}; the next file is {next}")]
    Gap {
        /// The first missing entry.
        missing: Seqno,
        /// The file after the gap.
        next: String,
    },
    /// A file is longer than any of its kind.
    #[error("{file} is longer than {limit} bytes")]
    TooLong {
        /// The file.
        file: String,
        /// The limit.
        limit: u64,
    },
    /// A file's frame is damaged.
    #[error("{file} is damaged: {fault}")]
    Chunk {
        /// The file.
        file: String,
        /// What is wrong.
        fault: ChunkError,
    },
    /// An entry that was written in full is not what it was.
    #[error("entry {seqno} at offset {offset} of {file} is damaged: {fault}")]
    Entry {
        /// The file.
        file: String,
        /// Where the entry begins.
        offset: u64,
        /// The entry.
        seqno: Seqno,
        /// What is wrong.
        fault: ReplayFault,
    },
    /// An entry that was written in full is not what it was, in a chunk that was still in use.
    #[error("entry {seqno} at offset {offset} of {file} is damaged: {fault}")]
    OpenChunk {
        /// The file.
        file: String,
        /// Where the entry begins.
        offset: u64,
        /// The entry.
        seqno: Seqno,
        /// What is wrong.
        fault: CutReason,
    },
    /// There is no view left.
    #[error(transparent)]
    View(#[from] ViewHistoryError),
    /// A file seems torn, and yet more than could have been on its way follows it.
    #[error("{file} ends at {last}, but {next} follows it")]
    TornAmidst {
        /// The file.
        file: String,
        /// Its last whole entry.
        last: Seqno,
        /// The file after it.
        next: String,
    },
}

/// A recovered ledger, ready to be continued.
pub(crate) struct Recovered {
    /// Its state; new transactions are of the new view.
    pub store: Store,
    pub tree: MerkleTree,
    pub views: ViewHistory,
    /// The last signature transaction, and the root that it signs.
    pub last: TxId,
    pub last_signed_root: Digest,
    /// The view that begins now.
    pub view: View,
    pub files: Resumed,
    pub last_snapshot: Seqno,
}

/// Recovers the ledger on the host's disk, whose private parts the secrets decrypt and whose
/// signatures are those of the service's identities. Repairs the files, in which a crash has torn so
/// many batches at most.
pub(crate) async fn recover(
    host: &dyn Host,
    secrets: &Arc<LedgerSecrets>,
    identities: &Identities,
    max_torn: usize,
) -> Result<Recovered, RecoveryError> {
    settle_earlier_recoveries(host).await?;
    let mut reaches = Seqno(u64::MAX);
    loop {
        let (replay, files, last_snapshot) =
            replayed(host, secrets, identities, max_torn, reaches).await?;
        let last = replay.last_tx_id();
        if last.seqno == Seqno(0) {
            return Err(RecoveryError::NoLedger);
        }
        if last.seqno <= files.last {
            let view = View(last.view.0 + RECOVERY_VIEW_STEP);
            return Ok(replay.finish(view, files, last_snapshot)?);
        }
        // Snapshots are durable before what follows them, where the ledger need not be.
        let (snapshot, end) = (last.seqno, files.last);
        tracing::warn!(%snapshot, %end, "the ledger ends before a snapshot, which is not used");
        reaches = end;
    }
}

/// The state after the newest snapshot that is recorded up to `reaches` and all that follows it, the
/// files, and the snapshot's position.
async fn replayed(
    host: &dyn Host,
    secrets: &Arc<LedgerSecrets>,
    identities: &Identities,
    max_torn: usize,
    reaches: Seqno,
) -> Result<(Replay, Resumed, Seqno), RecoveryError> {
    let chunks = list_chunks(host).await?;
    let (first, last) = match (chunks.first(), chunks.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ => return Err(RecoveryError::NoLedger),
    };
    let mut replay = Replay::new(Arc::clone(secrets), identities.clone());
    let reaches = last.end().map_or(reaches, |end| end.min(reaches));
    if let Some(found) = newest_snapshot(host, secrets, identities, first.start, reaches).await? {
        replay = replay.after_snapshot(found);
    }
    let last_snapshot = replay.last();
    let files = read_chunks(host, &chunks, &mut replay, max_torn).await?;
    Ok((replay, files, last_snapshot))
}

/// What earlier recoveries have left: the files of one that its members have not completed are set
/// aside, and those of one that was completed, but cut short in renaming them, get their names.
/// The newest is renamed first, so that a file with its final name says that the recovery before
/// it is complete.
async fn settle_earlier_recoveries(host: &dyn Host) -> Result<(), RecoveryError> {
    let files = list(host, Area::Ledger).await?;
    let names: Vec<ChunkName> =
        files.iter().filter(|file| !file.read_only).filter_map(|it| it.name.parse().ok()).collect();
    let settled = names.iter().filter(|name| !name.recovery).map(|name| name.start).max();
    let mut renames = Vec::new();
    for name in names.iter().filter(|name| name.recovery) {
        let from = name.to_string();
        renames.push(if Some(name.start) < settled {
            DiskOp::Rename { from, to: name.recovered().to_string() }
        } else {
            tracing::warn!(file = %name, "set aside: the recovery that wrote it was not completed");
            set_aside(&from, &files)
        });
    }
    if renames.is_empty() {
        return Ok(());
    }
    let failed = |error| RecoveryError::Io { name: "Ledger".to_owned(), error };
    submit(host, Area::Ledger, renames).await.map_err(failed)
}

/// The chunks in order; of several files with the same start, the committed one.
async fn list_chunks(host: &dyn Host) -> Result<Vec<ChunkName>, RecoveryError> {
    let files = list(host, Area::Ledger).await?;
    let mut names: Vec<ChunkName> =
        files.iter().filter_map(|file| file.name.parse().ok()).collect();
    names.retain(|name| !name.recovery);
    // The committed one first, then the longest.
    names.sort_by_key(|name| (name.start, !name.is_committed(), std::cmp::Reverse(name.end())));
    names.dedup_by_key(|name| name.start);
    Ok(names)
}

async fn list(host: &dyn Host, area: Area) -> Result<Vec<FileEntry>, RecoveryError> {
    let failed = |error| RecoveryError::Io { name: format!("{area:?}"), error };
    host.disk().list(area).await.map_err(failed)
}

async fn read(
    host: &dyn Host,
    area: Area,
    file: &str,
    limit: u64,
) -> Result<Vec<u8>, RecoveryError> {
    let bytes = read_file(host, area, file, limit).await;
    let bytes = bytes.map_err(|error| RecoveryError::Io { name: file.to_owned(), error })?;
    bytes.ok_or_else(|| RecoveryError::TooLong { file: file.to_owned(), limit })
}

/// The newest snapshot that verifies and that the ledger goes on from; what is wrong with others
/// is only logged, since the ledger itself has everything.
async fn newest_snapshot(
    host: &dyn Host,
    secrets: &Arc<LedgerSecrets>,
    identities: &Identities,
    first: Seqno,
    reaches: Seqno,
) -> Result<Option<LoadedSnapshot>, RecoveryError> {
    let failed = |name: String| move |error| RecoveryError::Io { name, error };
    for file in snapshots::committed(host).await.map_err(failed("Snapshots".to_owned()))? {
        let name = file.name;
        if file.len_bytes == 0 {
            tracing::warn!("Ignoring empty snapshot file {name}");
            continue;
        }
        if name.seqno.next() < first || name.evidence > reaches {
            tracing::warn!(%name, "the ledger does not go on from this snapshot");
            continue;
        }
        let key = &identities.at(name.evidence).key;
        match snapshots::load(host, &name.to_string(), name, secrets, key, &mut Rests::none()).await
        {
            Ok(found) => {
                tracing::info!(%name, "starting from a snapshot");
                return Ok(Some(found));
            }
            Err(LoadError::Io(error)) => return Err(failed(name.to_string())(error)),
            Err(error) => tracing::warn!(%name, %error, "ignoring a snapshot"),
        }
    }
    Ok(None)
}

/// Replays the chunks after the replay's position and repairs the last ones.
async fn read_chunks(
    host: &dyn Host,
    chunks: &[ChunkName],
    replay: &mut Replay,
    max_torn: usize,
) -> Result<Resumed, RecoveryError> {
    let mut files = Resumed::default();
    let mut remaining = chunks.iter().copied().peekable();
    while let Some(name) = remaining.next() {
        let next = remaining.peek().copied();
        // What a snapshot holds need not be read, unless the chunk is not named committed yet.
        let covered = name.is_committed() && name.end().is_some_and(|end| end <= replay.last());
        files.last = name.end().unwrap_or(files.last);
        if covered {
            continue;
        }
        if name.start > replay.last().next() {
            let missing = replay.last().next();
            return Err(RecoveryError::Gap { missing, next: name.to_string() });
        }
        let file = name.to_string();
        let bytes = read(host, Area::Ledger, &file, MAX_CHUNK_BYTES).await?;
        if name.is_committed() {
            replay_complete(replay, name, &bytes)?;
        } else if let Some(whole) = complete_positions(name, &bytes, replay, max_torn) {
            replay_positions(replay, name, &bytes, &whole.0)?;
            files.complete.push((name, whole.0, whole.1));
            keep(host, name, bytes.len() as u64).await?;
        } else {
            let recovered = recover_open(name, &bytes, replay, max_torn)?;
            files.last = Seqno((name.start.0 + recovered.positions.len() as u64).saturating_sub(1));
            replay_positions(replay, name, &bytes, &recovered.positions)?;
            let after: Vec<ChunkName> = remaining.collect();
            refuse_long_tail(host, name, replay.last(), &after, max_torn).await?;
            repair(host, name, &recovered, &after).await?;
            if recovered.last.is_some() {
                let open = name.with_state(ChunkState::Open);
                files.open = Some((open, recovered.positions, recovered.end_offset));
            }
            break;
        }
        if let Some(next) = next
            && next.start != files.last.next()
        {
            return Err(RecoveryError::Gap { missing: files.last.next(), next: next.to_string() });
        }
    }
    files.committed = files.last;
    Ok(files)
}

fn replay_complete(
    replay: &mut Replay,
    name: ChunkName,
    bytes: &[u8],
) -> Result<(), RecoveryError> {
    let damaged = |fault| RecoveryError::Chunk { file: name.to_string(), fault };
    let reader = ChunkReader::new(name, bytes).map_err(damaged)?;
    let mut entries = reader.entries();
    loop {
        let (offset, seqno) = entries.next_position();
        match entries.next() {
            None => break,
            Some(Ok(entry)) => {
                let located = Located { file: name, offset, seqno };
                replay.entry(located, entry.bytes)?;
            }
            Some(Err(fault)) => {
                let fault = ReplayFault::Chunk(fault);
                return Err(RecoveryError::Entry { file: name.to_string(), offset, seqno, fault });
            }
        }
    }
    replay.end_of_chunk(name)
}

/// The positions and the end of a chunk that is named complete, if it is; otherwise it was being
/// completed and is looked at as an open one.
fn complete_positions(
    name: ChunkName,
    bytes: &[u8],
    replay: &Replay,
    max_torn: usize,
) -> Option<(Vec<u32>, u64)> {
    name.end()?;
    let reader = ChunkReader::new(name, bytes).ok()?;
    let mut positions = Vec::new();
    let mut end_offset = coco_ledger::FIRST_ENTRY_OFFSET;
    for entry in reader.entries() {
        let entry = entry.ok()?;
        positions.push(u32::try_from(entry.offset).ok()?);
        end_offset = entry.offset + entry.bytes.len() as u64;
    }
    // Whole in its frames, but perhaps torn within: then the open chunk's rules decide.
    let recovered = recover_open_chunk(name, bytes, Some(replay.secrets()), max_torn).ok()?;
    (recovered.positions == positions).then_some((positions, end_offset))
}

fn recover_open(
    name: ChunkName,
    bytes: &[u8],
    replay: &Replay,
    max_torn: usize,
) -> Result<RecoveredChunk, RecoveryError> {
    let open = name.with_state(ChunkState::Open);
    recover_open_chunk(open, bytes, Some(replay.secrets()), max_torn).map_err(|error| {
        let file = name.to_string();
        RecoveryError::OpenChunk {
            file,
            offset: error.offset,
            seqno: error.seqno,
            fault: error.fault,
        }
    })
}

fn replay_positions(
    replay: &mut Replay,
    name: ChunkName,
    bytes: &[u8],
    positions: &[u32],
) -> Result<(), RecoveryError> {
    let mut seqno = name.start;
    for position in positions {
        let offset = u64::from(*position);
        let located = Located { file: name, offset, seqno };
        let entry = entry_at(bytes, offset).map_err(|fault| located.damaged(fault))?;
        replay.entry(located, entry)?;
        seqno = seqno.next();
    }
    if positions.is_empty() { Ok(()) } else { replay.end_of_chunk(name) }
}

/// The whole entry that begins at an offset.
fn entry_at(bytes: &[u8], offset: u64) -> Result<&[u8], ReplayFault> {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
    Ok(split_entry(rest.unwrap_or_default())?.0)
}

/// Refuses to drop more behind a torn file than could have been on its way to the disk.
async fn refuse_long_tail(
    host: &dyn Host,
    torn: ChunkName,
    last: Seqno,
    after: &[ChunkName],
    max_torn: usize,
) -> Result<(), RecoveryError> {
    for next in after {
        let file = next.to_string();
        let bytes = read(host, Area::Ledger, &file, MAX_CHUNK_BYTES).await?;
        let signatures = count_signatures(&bytes);
        if next.is_committed() || signatures > max_torn {
            return Err(RecoveryError::TornAmidst { file: torn.to_string(), last, next: file });
        }
    }
    Ok(())
}

/// Makes the torn file end with its last whole batch, and removes what came after it.
async fn repair(
    host: &dyn Host,
    name: ChunkName,
    recovered: &RecoveredChunk,
    after: &[ChunkName],
) -> Result<(), RecoveryError> {
    if let Some(cut) = &recovered.cut {
        let (offset, seqno, reason) = (cut.offset, cut.seqno, cut.reason.to_string());
        tracing::warn!(file = %name, offset, %seqno, %reason, "the end of the ledger is cut off");
    }
    let mut operations: Vec<DiskOp> =
        after.iter().map(|name| DiskOp::Remove { name: name.to_string() }).collect();
    let open = name.with_state(ChunkState::Open);
    if open != name {
        operations.push(DiskOp::Rename { from: name.to_string(), to: open.to_string() });
    }
    operations.extend(disk_operations(recovered.repair()));
    let failed = |error| RecoveryError::Io { name: name.to_string(), error };
    submit(host, Area::Ledger, operations).await.map_err(failed)
}

/// Makes sure that a file that was read is on the disk too, before anything is built on it.
async fn keep(host: &dyn Host, name: ChunkName, len_bytes: u64) -> Result<(), RecoveryError> {
    let failed = |error| RecoveryError::Io { name: name.to_string(), error };
    let touch = DiskOp::Truncate { name: name.to_string(), len_bytes };
    submit(host, Area::Ledger, vec![touch]).await.map_err(failed)
}
