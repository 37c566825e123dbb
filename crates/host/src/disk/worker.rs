//! The thread that owns an area's files.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coco_enclave::host::{DiskOp, Done};

use super::area::AreaFiles;
use super::queue::{Job, Queue};
use crate::HostError;

/// A running thread; dropping it finishes what waits.
pub(crate) struct Worker {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn start(
        name: &'static str,
        files: AreaFiles,
        slow_io_threshold: Duration,
    ) -> Result<Self, HostError> {
        let queue = Arc::new(Queue::default());
        let mut work = Work { files, slow_io_threshold, synced: Vec::new(), area: name };
        let jobs = queue.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work.run(&jobs))
            .map_err(|source| HostError::System { what: "a disk thread", source })?;
        Ok(Self { queue, thread: Some(thread) })
    }

    pub(crate) fn push(&self, job: Job) {
        self.queue.push(job);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.close();
        let Some(thread) = self.thread.take() else { return };
        // The last owner may be a `done` that runs on this very thread.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("A disk thread ended by a panic");
        }
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
    fn run(&mut self, queue: &Queue) {
        let mut jobs = Vec::new();
        while queue.take(&mut jobs) {
            for job in jobs.drain(..) {
                self.carry_out(job);
            }
            self.sync();
        }
    }

    fn carry_out(&mut self, job: Job) {
        match job {
            Job::Change { ops, sync, done } => {
                let result = ops.into_iter().try_for_each(|op| self.change(op));
                if sync {
                    self.synced.push((done, result));
                } else {
                    finish(done, result);
                }
            }
            // Whoever asked may have gone.
            Job::Open { name, answer } => drop(answer.send(self.files.open_to_read(&name))),
            Job::List { answer } => drop(answer.send(self.files.list())),
        }
    }

    fn change(&mut self, op: DiskOp) -> io::Result<()> {
        let what = match &op {
            DiskOp::Create { .. } => "create",
            DiskOp::Write { .. } => "write",
            DiskOp::Truncate { .. } => "truncate",
            DiskOp::Rename { .. } => "rename",
            DiskOp::Remove { .. } => "remove",
        };
        let start = Instant::now();
        let result = self.files.carry_out(op);
        self.report(what, start, &result);
        result
    }

    /// One sync for everything that waits for it.
    fn sync(&mut self) {
        if self.synced.is_empty() {
            return;
        }
        let start = Instant::now();
        let synced = self.files.sync();
        self.report("sync", start, &synced);
        for (done, result) in self.synced.drain(..) {
            let sync = synced.as_ref().copied().map_err(same_error);
            finish(done, result.and(sync));
        }
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
