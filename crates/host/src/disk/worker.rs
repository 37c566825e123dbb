//! Who carries out an area's jobs: a thread of its own, or one that is lent.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coco_enclave::host::{DiskOp, Done, FileEntry};
use parking_lot::Mutex;
use tokio::sync::oneshot::{self, Sender};
use tokio::task::spawn_blocking;

use super::area::AreaFiles;
use super::queue::{Job, Queue, closed};
use crate::HostError;
use crate::background::become_background;

/// Up to so many bytes the page cache costs more than it saves.
const MAX_DURABLE_BYTES: usize = 64 << 10;

/// A list during which a name has changed is made anew so often, before the changes have to wait.
const LIST_TRIES: usize = 3;

/// An area with its running thread; dropping it finishes what waits.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn start(
        name: &'static str,
        files: AreaFiles,
        slow_io_threshold: Duration,
        is_urgent: bool,
    ) -> Result<Self, HostError> {
        let work = Work { files, slow_io_threshold, synced: Vec::new(), area: name };
        let shared = Arc::new(Shared { queue: Queue::default(), work: Mutex::new(work) });
        let own = shared.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                if !is_urgent {
                    become_background();
                }
                own.run();
            })
            .map_err(|source| HostError::System { what: "a disk thread", source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn push(&self, job: Job) {
        self.shared.queue.push(job);
    }

    /// The files of the area: listed on another thread, unless names change all the time.
    pub(crate) fn list(&self) -> impl Future<Output = io::Result<Vec<FileEntry>>> + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            for _ in 0..LIST_TRIES {
                let listing = shared.ask(|answer| Job::Listing { answer }).await?;
                let list = spawn_blocking(move || (listing.files(), listing.is_current()));
                let (files, is_current) = list.await.map_err(io::Error::other)?;
                if is_current {
                    return files;
                }
            }
            shared.ask(|answer| Job::List { answer }).await
        }
    }

    /// A file, opened in turn with the changes: a later rename does not hide it.
    pub(crate) fn open_to_read(
        &self,
        name: &str,
    ) -> impl Future<Output = io::Result<File>> + use<> {
        let name = name.to_owned();
        self.shared.ask(|answer| Job::Open { name, answer })
    }

    /// What `submissions` push is begun when they have returned: if this thread `takes` it and that is
    /// quick, on this one.
    pub(crate) fn lend_thread(&self, takes: bool, submissions: &mut dyn FnMut()) {
        let lent = self.shared.queue.lend();
        submissions();
        if takes && let Some(mut jobs) = lent.take() {
            self.shared.turn(&mut jobs);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.queue.close();
        let Some(thread) = self.thread.take() else { return };
        // The last owner may be a `done` that runs on this very thread.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("A disk thread ended by a panic");
        }
    }
}

struct Shared {
    queue: Queue,
    /// For whoever has the turn.
    work: Mutex<Work>,
}

impl Shared {
    /// Has its place in the queue when it returns.
    fn ask<T, J>(&self, job: J) -> impl Future<Output = io::Result<T>> + use<T, J>
    where
        J: FnOnce(Sender<io::Result<T>>) -> Job,
    {
        let (answer, answered) = oneshot::channel();
        self.queue.push(job(answer));
        async move { answered.await.unwrap_or_else(|_| Err(closed())) }
    }

    fn run(&self) {
        let mut jobs = Vec::new();
        while self.queue.take(&mut jobs) {
            self.turn(&mut jobs);
        }
    }

    fn turn(&self, jobs: &mut Vec<Job>) {
        let mut work = self.work.lock();
        let start = Instant::now();
        let alone = jobs.len() == 1;
        jobs.drain(..).for_each(|job| work.carry_out(job, alone));
        let synced = work.sync();
        drop(work);
        self.queue.end_turn(synced.then(|| start.elapsed()));
    }
}

struct Work {
    area: &'static str,
    files: AreaFiles,
    slow_io_threshold: Duration,
    /// Carried out, and waiting for the next sync.
    synced: Vec<(Done, io::Result<()>)>,
}

impl Work {
    /// A job that is alone has the next sync for itself.
    fn carry_out(&mut self, job: Job, alone: bool) {
        match job {
            Job::Change { ops, sync, done } => {
                let result = match self.append_durably(&ops, sync && alone) {
                    Ok(true) => Ok(()),
                    Ok(false) => ops.into_iter().try_for_each(|op| self.change(op)),
                    Err(error) => Err(error),
                };
                if sync {
                    self.synced.push((done, result));
                } else {
                    finish(done, result);
                }
            }
            // Whoever asked may have gone.
            Job::Open { name, answer } => drop(answer.send(self.files.open_to_read(&name))),
            Job::Listing { answer } => drop(answer.send(Ok(self.files.listing()))),
            Job::List { answer } => drop(answer.send(self.files.listing().files())),
        }
    }

    /// One small write is written and synced in one step, if it can be.
    fn append_durably(&mut self, ops: &[DiskOp], wanted: bool) -> io::Result<bool> {
        match ops {
            [DiskOp::Write { name, offset, bytes }]
                if wanted && bytes.len() <= MAX_DURABLE_BYTES =>
            {
                let start = Instant::now();
                let result = self.files.write_durably(name, *offset, bytes);
                self.report("write", start, &result.as_ref().map(|_| ()).map_err(same_error));
                result
            }
            _ => Ok(false),
        }
    }

    fn change(&mut self, op: DiskOp) -> io::Result<()> {
        let what = match &op {
            DiskOp::Create { .. } => "create",
            DiskOp::Write { .. } | DiskOp::WriteZeros { .. } => "write",
            DiskOp::Truncate { .. } => "truncate",
            DiskOp::Rename { .. } => "rename",
            DiskOp::Remove { .. } => "remove",
        };
        let start = Instant::now();
        let result = self.files.carry_out(op);
        self.report(what, start, &result);
        result
    }

    /// One sync for everything that waits for it; whether anything did.
    fn sync(&mut self) -> bool {
        if self.synced.is_empty() {
            return false;
        }
        let start = Instant::now();
        let synced = self.files.sync();
        self.report("sync", start, &synced);
        for (done, result) in self.synced.drain(..) {
            let sync = synced.as_ref().copied().map_err(same_error);
            finish(done, result.and(sync));
        }
        true
    }

    fn report(&self, operation: &str, start: Instant, result: &io::Result<()>) {
        let (area, elapsed) = (self.area, start.elapsed());
        if let Err(error) = result {
            tracing::error!(area, operation, %error, "Disk operation failed");
        } else if elapsed >= self.slow_io_threshold {
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(area, operation, elapsed_ms, "Slow disk operation");
        }
    }
}

/// Tells the one who submitted; a panic there must not end the thread that others wait for.
fn finish(done: Done, result: io::Result<()>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("The receiver of a disk operation's result panicked");
    }
}

/// `io::Error` cannot be cloned.
pub(crate) fn same_error(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
