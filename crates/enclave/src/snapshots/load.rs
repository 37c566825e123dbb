//! Snapshots read back from the host's disk, piece by piece: verified, and decoded if they are to be
//! gone on from.

use std::io;

use bytes::Bytes;
use coco_crypto::PublicKey;
use coco_kv::Snapshot;
use coco_ledger::{
    LedgerSecrets, MerkleTree, SnapshotError, SnapshotFile, SnapshotName, SnapshotReader,
    StateWanted, ViewHistory,
};

use super::PIECE_BYTES;
use crate::ease::Rests;
use crate::host::{Area, Host};
use crate::offload::offload_to_background;

/// The largest snapshot read.
pub(super) const MAX_SNAPSHOT_BYTES: u64 = 2 << 30;

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
    #[error("the file is longer than {MAX_SNAPSHOT_BYTES} bytes")]
    TooLong,
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
    // Decoded are the very bytes that were verified, whatever the disk has by then.
    let mut pieces = T::IS_DECODED.then(Vec::new);
    let wanted = match T::IS_DECODED {
        true => StateWanted::Authentic(secrets.clone()),
        false => StateWanted::Nothing,
    };
    let mut snapshot = read_back(host, file, wanted, rests, pieces.as_mut()).await?;
    snapshot.verify(service_key)?;
    if snapshot.tx_id().seqno != name.seqno {
        return Err(SnapshotError::Iv(snapshot.tx_id().seqno).into());
    }
    if let Some(pieces) = pieces {
        let mut reader = SnapshotReader::new(StateWanted::Whole(secrets.clone()));
        // Each is let go of while the state grows.
        for piece in pieces {
            reader = add_gently(host, reader, piece, rests).await?;
        }
        snapshot = reader.finish()?;
    }
    Ok(T::of_file(snapshot)?)
}

/// Reads the file of a snapshot, with rests; its receipt is not looked at. What is read may be kept.
pub(super) async fn read_back(
    host: &dyn Host,
    file: &str,
    wanted: StateWanted,
    rests: &mut Rests,
    mut kept: Option<&mut Vec<Bytes>>,
) -> Result<SnapshotFile, LoadError> {
    let mut reader = SnapshotReader::new(wanted);
    let mut offset = 0;
    loop {
        let piece = host.disk().read(Area::Snapshots, file, offset, PIECE_BYTES as u64).await?;
        if piece.is_empty() {
            return Ok(reader.finish()?);
        }
        offset += piece.len() as u64;
        if offset > MAX_SNAPSHOT_BYTES {
            return Err(LoadError::TooLong);
        }
        let piece = Bytes::from(piece);
        if let Some(kept) = &mut kept {
            kept.push(piece.clone());
        }
        reader = add_gently(host, reader, piece, rests).await?;
    }
}

async fn add_gently(
    host: &dyn Host,
    mut reader: SnapshotReader,
    piece: Bytes,
    rests: &mut Rests,
) -> Result<SnapshotReader, LoadError> {
    let begun = host.uptime();
    let added = offload_to_background(host, move || {
        reader.add(&piece)?;
        Ok::<_, SnapshotError>(reader)
    });
    let reader = added.await??;
    rests.after(host, begun).await;
    Ok(reader)
}
