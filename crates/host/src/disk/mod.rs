//! The node's files: ordered changes, durable in groups.

mod area;
mod direct;
mod extent;
mod queue;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use coco_enclave::host::{Area, BoxFuture, Disk, DiskOp, Done, FileEntry};

use crate::HostError;
use area::{AreaFiles, read_range};
use queue::Job;
use worker::Worker;

/// Where the files of each area lie. Directories are created when needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLayout {
    /// Ledger chunks, written by this node alone.
    pub ledger: PathBuf,
    /// More ledger chunks, only read.
    pub read_only_ledgers: Vec<PathBuf>,
    /// Snapshots.
    pub snapshots: PathBuf,
    /// More snapshots, only read.
    pub read_only_snapshots: Vec<PathBuf>,
    /// Blobs sealed by the TEE.
    pub sealed: PathBuf,
}

/// [`Disk`] on a file system, with a thread per area: a large snapshot does not delay the ledger.
pub struct FileDisk {
    ledger: Worker,
    snapshots: Worker,
    sealed: Worker,
}

impl FileDisk {
    /// Takes the directories of a layout; the ledger's is locked against other processes.
    /// Operations slower than `slow_io_threshold` are logged.
    pub fn open(layout: DiskLayout, slow_io_threshold: Duration) -> Result<Self, HostError> {
        let ledger = AreaFiles::locked(layout.ledger, layout.read_only_ledgers)?;
        let snapshots = AreaFiles::new(layout.snapshots).with_read_only(layout.read_only_snapshots);
        let sealed = AreaFiles::new(layout.sealed);
        let start =
            |name, files, is_urgent| Worker::start(name, files, slow_io_threshold, is_urgent);
        Ok(Self {
            ledger: start("disk-ledger", ledger, true)?,
            snapshots: start("disk-snapshots", snapshots, false)?,
            sealed: start("disk-sealed", sealed, true)?,
        })
    }

    fn worker(&self, area: Area) -> &Worker {
        match area {
            Area::Ledger => &self.ledger,
            Area::Snapshots => &self.snapshots,
            Area::Sealed => &self.sealed,
        }
    }
}

impl Disk for FileDisk {
    /// After the first failing operation the rest of the submission is not carried out.
    fn submit(&self, area: Area, ops: Vec<DiskOp>, sync: bool, done: Done) {
        self.worker(area).push(Job::Change { ops, sync, done });
    }

    /// The thread is used, too, if it is one of several workers of a runtime: these go on meanwhile.
    fn lend_thread(&self, area: Area, is_spare: bool, submissions: &mut dyn FnMut()) {
        let runtime = tokio::runtime::Handle::try_current();
        let is_one_of_many = runtime.is_ok_and(|runtime| runtime.metrics().num_workers() > 1);
        self.worker(area).lend_thread(is_spare || is_one_of_many, submissions);
    }

    fn list(&self, area: Area) -> BoxFuture<'static, io::Result<Vec<FileEntry>>> {
        Box::pin(self.worker(area).list())
    }

    /// The bytes are read on another thread than the area's.
    fn read(
        &self,
        area: Area,
        name: &str,
        offset: u64,
        len_bytes: u64,
    ) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        let opened = self.worker(area).open_to_read(name);
        Box::pin(async move {
            let file = opened.await?;
            let read = tokio::task::spawn_blocking(move || read_range(file, offset, len_bytes));
            read.await.map_err(io::Error::other)?
        })
    }
}
