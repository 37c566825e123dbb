//! The names of chunk files.

use std::fmt;
use std::str::FromStr;

use coco_kv::Seqno;

const PREFIX: &str = "ledger_";
const COMMITTED: &str = ".committed";
const COMMITTED_PREFIX: &str = ".committed_prefix";
const RECOVERY: &str = ".recovery";
const IGNORED: &str = ".ignored";

/// What is known of a chunk by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChunkState {
    /// Entries are being appended: `ledger_<start>`.
    Open,
    /// All entries are there, not all are committed: `ledger_<start>-<end>`.
    Complete {
        /// The last entry.
        end: Seqno,
    },
    /// All entries are there and committed: `ledger_<start>-<end>.committed`.
    Committed {
        /// The last entry.
        end: Seqno,
    },
    /// The committed part of an open chunk, as a node sends it on request. Never in a directory.
    CommittedPrefix {
        /// The last entry.
        end: Seqno,
    },
}

/// The name of a chunk file. Ordered by its first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName {
    /// The first entry.
    pub start: Seqno,
    /// What is known of the chunk.
    pub state: ChunkState,
    /// Written while the service is being recovered: `.recovery` at the end.
    pub recovery: bool,
}

impl ChunkName {
    /// The name of the chunk that begins with `start` and is open.
    pub fn open(start: Seqno) -> Self {
        Self { start, state: ChunkState::Open, recovery: false }
    }

    /// The same chunk in another state.
    #[must_use]
    pub fn with_state(self, state: ChunkState) -> Self {
        Self { state, ..self }
    }

    /// The same chunk, once the recovery that wrote it is complete.
    #[must_use]
    pub fn recovered(self) -> Self {
        Self { recovery: false, ..self }
    }

    /// The last entry, unless the chunk is open.
    pub fn end(self) -> Option<Seqno> {
        match self.state {
            ChunkState::Open => None,
            ChunkState::Complete { end }
            | ChunkState::Committed { end }
            | ChunkState::CommittedPrefix { end } => Some(end),
        }
    }

    /// Whether every entry in it is committed.
    pub fn is_committed(self) -> bool {
        matches!(self.state, ChunkState::Committed { .. } | ChunkState::CommittedPrefix { .. })
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.start)?;
        if let Some(end) = self.end() {
            write!(f, "-{end}")?;
        }
        f.write_str(match self.state {
            ChunkState::Open | ChunkState::Complete { .. } => "",
            ChunkState::Committed { .. } => COMMITTED,
            ChunkState::CommittedPrefix { .. } => COMMITTED_PREFIX,
        })?;
        f.write_str(if self.recovery { RECOVERY } else { "" })
    }
}

/// The name is not that of a chunk to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkNameError {
    /// Set aside by a node; never to be read.
    #[error("the file was set aside by a node")]
    Ignored,
    /// Not the name of a chunk.
    #[error("not the name of a chunk")]
    NotAChunk,
}

impl FromStr for ChunkName {
    type Err = ChunkNameError;

    fn from_str(name: &str) -> Result<Self, ChunkNameError> {
        let rest = name.strip_prefix(PREFIX).ok_or(ChunkNameError::NotAChunk)?;
        if rest.ends_with(IGNORED) {
            return Err(ChunkNameError::Ignored);
        }
        let (rest, recovery) = without_suffix(rest, RECOVERY);
        let (rest, is_prefix) = without_suffix(rest, COMMITTED_PREFIX);
        let (range, is_committed) = without_suffix(rest, COMMITTED);
        let (start, end) = match range.split_once('-') {
            Some((start, end)) => (seqno(start)?, Some(seqno(end)?)),
            None => (seqno(range)?, None),
        };
        let state = match (end, is_committed, is_prefix) {
            (Some(end), _, _) if end < start => return Err(ChunkNameError::NotAChunk),
            (None, false, false) => ChunkState::Open,
            (Some(end), false, false) => ChunkState::Complete { end },
            (Some(end), true, false) => ChunkState::Committed { end },
            (Some(end), false, true) => ChunkState::CommittedPrefix { end },
            _ => return Err(ChunkNameError::NotAChunk),
        };
        Ok(Self { start, state, recovery })
    }
}

fn without_suffix<'a>(text: &'a str, suffix: &str) -> (&'a str, bool) {
    text.strip_suffix(suffix).map_or((text, false), |rest| (rest, true))
}

/// A decimal number from 1 on, written in the one way there is.
fn seqno(digits: &str) -> Result<Seqno, ChunkNameError> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let number = plain.then(|| digits.parse().ok()).flatten().ok_or(ChunkNameError::NotAChunk)?;
    Ok(Seqno(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_every_state_read_back() {
        for name in [
            "ledger_1",
            "ledger_1-14",
            "ledger_15-46.committed",
            "ledger_15-46.committed_prefix",
            "ledger_7.recovery",
            "ledger_7-7.committed.recovery",
        ] {
            assert_eq!(name.parse::<ChunkName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_files_are_refused() {
        for name in [
            "",
            "ledger_",
            "ledger_0",
            "ledger_01",
            "ledger_2-1",
            "ledger_1.committed",
            "ledger_1-",
            "ledger_-1",
            "ledger_1-2-3",
            "ledger_+1",
            "ledger_1-2.commit",
            "x_1",
            "ledger_99999999999999999999",
            "ledger_1-2.committed.committed",
        ] {
            assert_eq!(name.parse::<ChunkName>(), Err(ChunkNameError::NotAChunk), "{name}");
        }
        assert_eq!("ledger_1-2.ignored".parse::<ChunkName>(), Err(ChunkNameError::Ignored));
    }

    proptest! {
        #[test]
        fn what_parses_is_written_the_same(name in "ledger_[0-9]{1,3}(-[0-9]{1,3})?(\\.committed(_prefix)?)?(\\.recovery)?") {
            if let Ok(parsed) = name.parse::<ChunkName>() {
                prop_assert_eq!(parsed.to_string(), name);
            }
        }
    }
}
