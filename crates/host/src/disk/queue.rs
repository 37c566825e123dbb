//! What waits for an area's thread.

use std::fs::File;
use std::io;
use std::time::Duration;

use coco_enclave::host::{DiskOp, Done, FileEntry};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::area::Listing;

/// What a lent thread carries out at most: so much is written in about the time of a sync.
const MAX_LENT_BYTES: usize = 64 << 10;

/// A disk whose last turn took longer is for its own thread: a lent one has other work to do.
const MAX_LENT_TURN: Duration = Duration::from_micros(500);

/// More than this waiting to be written means that nobody holds the enclave back: the area fails
/// instead of filling memory.
const MAX_QUEUED_BYTES: usize = 1 << 30;

/// Something to do, in turn.
pub(crate) enum Job {
    Change {
        ops: Vec<DiskOp>,
        sync: bool,
        done: Done,
    },
    Open {
        name: String,
        answer: oneshot::Sender<io::Result<File>>,
    },
    /// What to list, for another thread.
    Listing {
        answer: oneshot::Sender<io::Result<Listing>>,
    },
    /// The list itself: no name changes in this turn.
    List {
        answer: oneshot::Sender<io::Result<Vec<FileEntry>>>,
    },
}

impl Job {
    fn len_bytes(&self) -> usize {
        let Self::Change { ops, .. } = self else { return 0 };
        let lengths = ops.iter().map(|op| match op {
            DiskOp::Write { bytes, .. } => bytes.len(),
            // Not in memory, but to be written before a lent thread can go on.
            DiskOp::WriteZeros { len_bytes, .. } => usize::try_from(*len_bytes).unwrap_or(0),
            _ => 0,
        });
        lengths.sum()
    }

    fn is_plain_write(&self) -> bool {
        let Self::Change { ops, .. } = self else { return false };
        ops.iter().all(|op| matches!(op, DiskOp::Write { .. } | DiskOp::WriteZeros { .. }))
    }

    /// Answers without doing anything.
    fn refuse(self, error: io::Error) {
        match self {
            Self::Change { done, .. } => done(Err(error)),
            Self::Open { answer, .. } => drop(answer.send(Err(error))),
            Self::Listing { answer } => drop(answer.send(Err(error))),
            Self::List { answer } => drop(answer.send(Err(error))),
        }
    }
}

/// The queue in front of an area. Whoever has taken jobs from it has the turn until it ends it: the
/// area's thread, or one that is lent.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    len_bytes: usize,
    state: State,
    /// Somebody has the turn.
    busy: bool,
    /// Threads that will look after the queue when they have submitted to it.
    lent: usize,
    /// How long the last turn with a sync took, if there was one.
    last_turn: Option<Duration>,
}

impl Waiting {
    fn take(&mut self, into: &mut Vec<Job>) {
        std::mem::swap(&mut self.jobs, into);
        self.len_bytes = 0;
        self.busy = true;
    }

    fn is_short(&self) -> bool {
        self.last_turn.is_some_and(|took| took <= MAX_LENT_TURN)
            && self.len_bytes <= MAX_LENT_BYTES
            && self.jobs.iter().all(Job::is_plain_write)
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Took in more than it may hold: a later job must not be done without the refused one.
    Overrun,
    Closed,
}

impl Queue {
    /// Adds a job, or refuses it at once.
    pub(crate) fn push(&self, job: Job) {
        let mut waiting = self.waiting.lock();
        let len_bytes = waiting.len_bytes.saturating_add(job.len_bytes());
        if waiting.state == State::Open && len_bytes > MAX_QUEUED_BYTES {
            waiting.state = State::Overrun;
        }
        match waiting.state {
            State::Open => {
                waiting.len_bytes = len_bytes;
                waiting.jobs.push(job);
                let looked_after = waiting.busy || waiting.lent > 0;
                drop(waiting);
                if !looked_after {
                    self.changed.notify_one();
                }
            }
            State::Overrun => {
                drop(waiting);
                job.refuse(io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    "too much is waiting to be written",
                ));
            }
            State::Closed => {
                drop(waiting);
                job.refuse(closed());
            }
        }
    }

    /// Waits for jobs and the turn, and moves all jobs into `into`, which is empty. False: the queue
    /// is closed and nothing is left.
    pub(crate) fn take(&self, into: &mut Vec<Job>) -> bool {
        let mut waiting = self.waiting.lock();
        while waiting.jobs.is_empty() || waiting.busy {
            if waiting.state == State::Closed && waiting.jobs.is_empty() {
                return false;
            }
            self.changed.wait(&mut waiting);
        }
        waiting.take(into);
        true
    }

    /// Ends a turn; with a sync in it, it took so long.
    pub(crate) fn end_turn(&self, last_turn: Option<Duration>) {
        let mut waiting = self.waiting.lock();
        waiting.busy = false;
        waiting.last_turn = last_turn.or(waiting.last_turn);
        let more = !waiting.jobs.is_empty();
        drop(waiting);
        if more {
            self.changed.notify_one();
        }
    }

    /// Promises to look after the queue after some submissions.
    pub(crate) fn lend(&self) -> Lent<'_> {
        self.waiting.lock().lent += 1;
        Lent { queue: self }
    }

    /// Takes no more; what waits is still done.
    pub(crate) fn close(&self) {
        self.waiting.lock().state = State::Closed;
        self.changed.notify_all();
    }
}

/// A thread that is lent to the queue.
pub(crate) struct Lent<'a> {
    queue: &'a Queue,
}

impl Lent<'_> {
    /// The jobs, with the turn, if they are for this thread; otherwise somebody else does them.
    pub(crate) fn take(self) -> Option<Vec<Job>> {
        let mut waiting = self.queue.waiting.lock();
        if waiting.busy || waiting.jobs.is_empty() || !waiting.is_short() {
            return None;
        }
        let mut jobs = Vec::new();
        waiting.take(&mut jobs);
        Some(jobs)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.lock();
        waiting.lent -= 1;
        let left = !waiting.busy && !waiting.jobs.is_empty();
        drop(waiting);
        if left {
            self.queue.changed.notify_one();
        }
    }
}

/// The answer after the end.
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the disk is closed")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    fn change(len_bytes: usize, done: Done) -> Job {
        let name = "file".to_owned();
        let ops = vec![DiskOp::Write { name, offset: 0, bytes: vec![0; len_bytes].into() }];
        Job::Change { ops, sync: false, done }
    }

    #[test]
    fn jobs_come_in_order_until_the_close() {
        let queue = Queue::default();
        for len_bytes in [1, 2, 3] {
            queue.push(change(len_bytes, Box::new(|_| {})));
        }
        queue.close();
        let refused = Arc::new(AtomicUsize::new(0));
        let count = refused.clone();
        queue.push(change(
            4,
            Box::new(move |result| {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
                count.fetch_add(1, Ordering::Relaxed);
            }),
        ));
        assert_eq!(refused.load(Ordering::Relaxed), 1);
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken));
        assert_eq!(taken.iter().map(Job::len_bytes).collect::<Vec<_>>(), [1, 2, 3]);
        taken.clear();
        assert!(!queue.take(&mut taken));
    }

    #[test]
    fn a_lent_thread_takes_what_is_short_where_the_disk_is_quick() {
        let queue = Queue::default();
        let take_lent = |len_bytes| {
            let lent = queue.lend();
            queue.push(change(len_bytes, Box::new(|_| {})));
            lent.take().map(|jobs| jobs.len())
        };
        // Whatever was not taken is there for the area's own thread.
        let take_own = || {
            let mut jobs = Vec::new();
            assert!(queue.take(&mut jobs));
            jobs.len()
        };
        assert_eq!(take_lent(1), None, "nothing is known of the disk yet");
        assert_eq!(take_own(), 1);
        queue.end_turn(Some(MAX_LENT_TURN));
        assert_eq!(take_lent(1), Some(1));
        assert_eq!(take_lent(1), None, "somebody has the turn");
        queue.end_turn(None);
        assert_eq!(take_own(), 1);
        queue.end_turn(None);
        assert_eq!(take_lent(MAX_LENT_BYTES + 1), None);
        assert_eq!(take_own(), 1);
        queue.end_turn(Some(MAX_LENT_TURN + Duration::from_micros(1)));
        assert_eq!(take_lent(1), None, "the disk is slow");
        assert_eq!(take_own(), 1);
    }

    #[test]
    fn an_overrun_refuses_everything_after_it() {
        let queue = Queue::default();
        let (send, answers) = mpsc::channel();
        let answer = || {
            let send = send.clone();
            Box::new(move |result: io::Result<()>| send.send(result).unwrap())
        };
        let name = "file".to_owned();
        let half = || vec![0; MAX_QUEUED_BYTES / 2 + 1].into();
        for _ in 0..2 {
            let ops = vec![DiskOp::Write { name: name.clone(), offset: 0, bytes: half() }];
            queue.push(Job::Change { ops, sync: false, done: answer() });
        }
        queue.push(change(1, answer()));
        for _ in 0..2 {
            let refused = answers.try_recv().unwrap().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory);
        }
        assert!(answers.try_recv().is_err(), "the first one is still waiting");
    }
}
