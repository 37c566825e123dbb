//! Snapshots read back from the host's disk, piece by piece: verified, and decoded if they are to be
//! gone on from.

use std::io;

use coco_crypto::{Digest, PublicKey, sha256};
use coco_kv::Snapshot;
use coco_ledger::{
    LedgerSecrets, MerkleTree, SnapshotError, SnapshotFile, SnapshotName, SnapshotReader,
    StateWanted, ViewHistory,
};

use super::PIECE_BYTES;
use crate::ease::Rests;
use crate::host::{Area, Host};
use crate::offload::offload_to_background;

/// What is made of a snapshot that the service has recorded.
pub(crate) trait OfSnapshot: Send + Sized + 'static {
    /// The state is to be decoded, not only the file verified.
    const IS_DECODED: bool;

    /// Makes it of a snapshot that is verified.
    fn of_file(file: SnapshotFile) -> Result<Self, SnapshotError>;
}

/// Nothing: it is kept as a file.
pub(crate) struct VerifiedSnapshot;

/// A state to go on from.
pub(crate) struct LoadedSnapshot {
    pub state: Snapshot,
    /// The Merkle tree from which the ledger goes on.
    pub tree: MerkleTree,
    pub views: ViewHistory,
    pub len_bytes: u64,
}

impl OfSnapshot for VerifiedSnapshot {
    const IS_DECODED: bool = false;

    fn of_file(_: SnapshotFile) -> Result<Self, SnapshotError> {
        Ok(Self)
    }
}

impl OfSnapshot for LoadedSnapshot {
    const IS_DECODED: bool = true;

    fn of_file(file: SnapshotFile) -> Result<Self, SnapshotError> {
        let (tree, views, len_bytes) = (file.tree()?, file.views().clone(), file.state_bytes());
        Ok(Self { state: file.into_state(), tree, views, len_bytes })
    }
}

/// A snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("the disk failed: {0}")]
    Io(#[from] io::Error),
    #[error("the file has changed while it was read")]
    Changed,
    #[error(transparent)]
    Wrong(#[from] SnapshotError),
}

/// A committed snapshot's file, as the host lists it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommittedFile {
    pub name: SnapshotName,
    pub len_bytes: u64,
}

/// The committed snapshots on the disk, the newest first. What is in them is not looked at.
pub(crate) async fn committed(host: &dyn Host) -> io::Result<Vec<CommittedFile>> {
    let files = host.disk().list(Area::Snapshots).await?.into_iter();
    let committed = files.filter_map(|file| {
        let name: SnapshotName = file.name.parse().ok()?;
        let len_bytes = file.len_bytes;
        name.is_committed.then_some(CommittedFile { name, len_bytes })
    });
    let mut committed: Vec<_> = committed.collect();
    committed.sort_by_key(|file| std::cmp::Reverse(file.name));
    Ok(committed)
}

/// Reads the file of a snapshot, which must be the one of this name, recorded by the service whose
/// key this is; and, to go on from it, encrypted under these secrets.
pub(crate) async fn load<T: OfSnapshot>(
    host: &dyn Host,
    file: &str,
    name: SnapshotName,
    secrets: &LedgerSecrets,
    service_key: &PublicKey,
    rests: &mut Rests,
) -> Result<T, LoadError> {
    if !T::IS_DECODED {
        let snapshot = read_back(host, file, StateWanted::Nothing, rests).await?;
        check(&snapshot, name, service_key)?;
        return Ok(T::of_file(snapshot)?);
    }
    let pass = Pass::new(StateWanted::Authentic(secrets.clone()), Pieces::Noted(Vec::new()));
    let Pass { reader, pieces } = pass.over(host, file, rests).await?;
    check(&reader.finish()?, name, service_key)?;
    // Decoded are the very bytes that were verified, whatever the disk has by then.
    let pass = Pass::new(StateWanted::Whole(secrets.clone()), pieces.expected());
    let decoded = pass.over(host, file, rests).await?.reader.finish()?;
    Ok(T::of_file(decoded)?)
}

fn check(
    snapshot: &SnapshotFile,
    name: SnapshotName,
    service_key: &PublicKey,
) -> Result<(), SnapshotError> {
    snapshot.verify(service_key)?;
    match snapshot.tx_id().seqno {
        seqno if seqno == name.seqno => Ok(()),
        other => Err(SnapshotError::Iv(other)),
    }
}

/// Reads the file of a snapshot, with rests; its receipt is not looked at.
pub(super) async fn read_back(
    host: &dyn Host,
    file: &str,
    wanted: StateWanted,
    rests: &mut Rests,
) -> Result<SnapshotFile, LoadError> {
    Ok(Pass::new(wanted, Pieces::Any).over(host, file, rests).await?.reader.finish()?)
}

/// One time through a file, which is of any size and not held in memory.
struct Pass {
    reader: SnapshotReader,
    pieces: Pieces,
}

/// What is known of a file's pieces by their digests.
enum Pieces {
    Any,
    /// Those that were read.
    Noted(Vec<Digest>),
    /// Those that are to be read, the next one last.
    Expected(Vec<Digest>),
}

impl Pieces {
    fn expected(self) -> Self {
        match self {
            Self::Noted(mut pieces) => {
                pieces.reverse();
                Self::Expected(pieces)
            }
            other => other,
        }
    }

    /// Whether the next piece may be this one.
    fn admit(&mut self, piece: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Noted(pieces) => {
                pieces.push(sha256(piece));
                true
            }
            Self::Expected(pieces) => pieces.pop() == Some(sha256(piece)),
        }
    }
}

impl Pass {
    fn new(wanted: StateWanted, pieces: Pieces) -> Self {
        Self { reader: SnapshotReader::new(wanted), pieces }
    }

    async fn over(
        mut self,
        host: &dyn Host,
        file: &str,
        rests: &mut Rests,
    ) -> Result<Self, LoadError> {
        let mut offset = 0;
        loop {
            let piece = host.disk().read(Area::Snapshots, file, offset, PIECE_BYTES as u64).await?;
            if piece.is_empty() {
                return Ok(self);
            }
            offset += piece.len() as u64;
            let begun = host.uptime();
            let added = offload_to_background(host, move || {
                self.add(&piece)?;
                Ok::<_, LoadError>(self)
            });
            self = added.await??;
            rests.after(host, begun).await;
        }
    }

    fn add(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        match self.pieces.admit(piece) {
            true => Ok(self.reader.add(piece)?),
            false => Err(LoadError::Changed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_pass_admits_the_pieces_of_the_first_alone() {
        let noted = |pieces: &[&[u8]]| {
            let mut noted = Pieces::Noted(Vec::new());
            assert!(pieces.iter().all(|piece| noted.admit(piece)));
            noted.expected()
        };
        let mut same = noted(&[b"a", b"bc"]);
        assert!(same.admit(b"a") && same.admit(b"bc"));
        assert!(!same.admit(b"d"), "it ended here before");
        assert!(!noted(&[b"a", b"bc"]).admit(b"bc"));
        assert!(!noted(&[b"ab"]).admit(b"a"));

        let mut pass = Pass::new(StateWanted::Nothing, noted(&[b"x", b"y"]));
        assert!(pass.add(b"x").is_ok());
        assert!(matches!(pass.add(b"z"), Err(LoadError::Changed)));
    }
}
