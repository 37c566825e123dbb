//! Snapshots read back from the host's disk: verified, then decoded if they are to be gone on from.

use std::io;
use std::sync::Arc;

use coco_crypto::PublicKey;
use coco_kv::Snapshot;
use coco_ledger::{
    LedgerSecrets, MerkleTree, SnapshotError, SnapshotFile, SnapshotName, ViewHistory,
};

use crate::disk::read_file;
use crate::host::{Area, Host};
use crate::offload::offload_to_background;

/// The largest snapshot read.
pub(super) const MAX_SNAPSHOT_BYTES: u64 = 2 << 30;

/// What is made of a snapshot that the service has recorded.
pub(crate) trait OfSnapshot: Send + Sized + 'static {
    fn of_file(file: &SnapshotFile<'_>, secrets: &LedgerSecrets) -> Result<Self, SnapshotError>;
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
    fn of_file(_: &SnapshotFile<'_>, _: &LedgerSecrets) -> Result<Self, SnapshotError> {
        Ok(Self)
    }
}

impl OfSnapshot for LoadedSnapshot {
    fn of_file(file: &SnapshotFile<'_>, secrets: &LedgerSecrets) -> Result<Self, SnapshotError> {
        let state = file.state(secrets)?;
        let tree = file.tree(&state)?;
        let (views, len_bytes) = (file.views().clone(), file.state_bytes().len() as u64);
        Ok(Self { state, tree, views, len_bytes })
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
    secrets: &Arc<LedgerSecrets>,
    service_key: &PublicKey,
) -> Result<T, LoadError> {
    let bytes = read_file(host, Area::Snapshots, file, MAX_SNAPSHOT_BYTES).await?;
    let bytes = bytes.ok_or(LoadError::TooLong)?;
    let (secrets, service_key) = (Arc::clone(secrets), service_key.clone());
    let verified = move || verify(&bytes, name, &secrets, &service_key);
    Ok(offload_to_background(host, verified).await??)
}

fn verify<T: OfSnapshot>(
    bytes: &[u8],
    name: SnapshotName,
    secrets: &LedgerSecrets,
    service_key: &PublicKey,
) -> Result<T, SnapshotError> {
    let file = SnapshotFile::parse(bytes)?;
    file.verify(service_key)?;
    if file.tx_id().seqno != name.seqno {
        return Err(SnapshotError::Iv(file.tx_id().seqno));
    }
    T::of_file(&file, secrets)
}
