//! The names of snapshot files.

use std::fmt;
use std::str::FromStr;

use coco_kv::Seqno;

const PREFIX: &str = "snapshot_";
const COMMITTED: &str = ".committed";

/// The name of a snapshot: `snapshot_<seqno>_<evidence seqno>[.committed]`. Ordered by its
/// position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// The position of the state.
    pub seqno: Seqno,
    /// The position of the transaction that recorded its digest.
    pub evidence: Seqno,
    /// The evidence is committed, and the file ends with its receipt.
    pub is_committed: bool,
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.is_committed { COMMITTED } else { "" };
        write!(f, "{PREFIX}{}_{}{suffix}", self.seqno, self.evidence)
    }
}

/// The name is not that of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a snapshot")]
pub struct SnapshotNameError;

impl FromStr for SnapshotName {
    type Err = SnapshotNameError;

    fn from_str(name: &str) -> Result<Self, SnapshotNameError> {
        let rest = name.strip_prefix(PREFIX).ok_or(SnapshotNameError)?;
        let (rest, is_committed) =
            rest.strip_suffix(COMMITTED).map_or((rest, false), |rest| (rest, true));
        let (seqno, evidence) = rest.split_once('_').ok_or(SnapshotNameError)?;
        let number = |digits: &str| {
            let plain =
                digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
            plain.then(|| digits.parse().ok()).flatten().map(Seqno).ok_or(SnapshotNameError)
        };
        let (seqno, evidence) = (number(seqno)?, number(evidence)?);
        if evidence <= seqno {
            return Err(SnapshotNameError);
        }
        Ok(Self { seqno, evidence, is_committed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_refused() {
        for name in ["snapshot_493_494.committed", "snapshot_1_9"] {
            assert_eq!(name.parse::<SnapshotName>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "snapshot_1",
            "snapshot_2_1",
            "snapshot_1_1",
            "snapshot_01_2",
            "snapshot_1_2.c",
            "snapshot_1_2.committed_3",
            "snapshot_+1_2",
            "ledger_1_2",
        ] {
            assert_eq!(name.parse::<SnapshotName>(), Err(SnapshotNameError), "{name}");
        }
    }
}
