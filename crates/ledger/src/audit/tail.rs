//! What a crash leaves at the end of a ledger, read as a node reads it that starts on these files.
//!
//! Only files that are not named committed may be torn: the last of them, and the one before it if
//! what follows had just been begun.

use coco_kv::Seqno;

use super::fault::FaultKind;
use crate::chunk::{
    ChunkError, ChunkName, ChunkReader, ChunkState, CutReason, FIRST_ENTRY_OFFSET,
    MAX_BATCHES_IN_FLIGHT, count_signatures, recover_open_chunk,
};
use crate::secret::LedgerSecrets;

/// A chunk that is not committed yet, up to its last whole batch.
pub(super) struct WholePart<'a> {
    pub chunk: ChunkReader<'a>,
    /// Where it ends, if anything after it is left out.
    pub torn_at: Option<u64>,
}

impl<'a> WholePart<'a> {
    /// # Errors
    /// If the chunk is not well-formed, and not because of a crash.
    pub fn read(
        name: ChunkName,
        file: &'a [u8],
        secrets: Option<&LedgerSecrets>,
    ) -> Result<Self, ChunkError> {
        let open = name.with_state(ChunkState::Open);
        if name == open && is_empty(file) {
            return Ok(Self { chunk: ChunkReader::ignoring_table(open, file), torn_at: None });
        }
        let chunk = ChunkReader::new(name, file);
        // How the files were written, and so how much of them may be torn, is not known here.
        let Ok(recovered) = recover_open_chunk(open, file, secrets, usize::MAX) else {
            // Damaged: the audit will find where.
            return chunk.map(|chunk| Self { chunk, torn_at: None });
        };
        let is_whole = recovered.cut.is_none_or(|cut| is_of_whole_entries(&cut.reason));
        match chunk {
            Ok(chunk) if is_whole && chunk.entries().all(|entry| entry.is_ok()) => {
                Ok(Self { chunk, torn_at: None })
            }
            _ => {
                let end = recovered.end_offset;
                let kept = usize::try_from(end).ok().and_then(|end| file.get(..end));
                let chunk = ChunkReader::ignoring_table(open, kept.unwrap_or(file));
                Ok(Self { chunk, torn_at: Some(end) })
            }
        }
    }
}

/// Checks that no more follows an unfinished chunk than was on its way to the disk with its end: a
/// node starts without it. Says whether it is anything at all.
pub(super) fn leave_out(name: ChunkName, file: &[u8], expected: Seqno) -> Result<bool, FaultKind> {
    match count_signatures(file) {
        0..=MAX_BATCHES_IN_FLIGHT => Ok(!is_empty(file)),
        _ if name.start == expected => Err(FaultKind::AfterOpen),
        _ => Err(FaultKind::Gap { expected, found: name.start }),
    }
}

/// The file was created, and at most its header written.
fn is_empty(file: &[u8]) -> bool {
    (file.len() as u64) < FIRST_ENTRY_OFFSET || file.iter().all(|byte| *byte == 0)
}

/// Whether only whole entries, or a positions table, stand behind the last whole batch.
fn is_of_whole_entries(reason: &CutReason) -> bool {
    matches!(reason, CutReason::Unsigned | CutReason::Completion)
}
