//! How much a script may use.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::call;

/// What one call of a script may use, while its own code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of JS heap.
    pub heap_bytes: u64,
    /// Bytes of native stack. Never more than [`Limits::MAX_STACK_BYTES`] takes effect.
    pub stack_bytes: u64,
    /// Milliseconds, by the node's clock.
    pub execution_ms: u64,
}

impl Limits {
    /// The most native stack that scripts are given, whatever is configured: the thread that runs
    /// them must have it, so threads that run scripts need 2 MiB of stack.
    pub const MAX_STACK_BYTES: u64 = 1 << 20;

    /// What a script may use that runs within one of governance, which has taken its share of the
    /// thread's stack already, and needs time afterwards to say what became of it.
    pub(crate) fn nested() -> Self {
        let default = Self::default();
        Self { stack_bytes: 256 << 10, execution_ms: default.execution_ms / 2, ..default }
    }

    /// The larger of each limit: governance never gets less than the defaults.
    pub fn at_least(self, floor: Self) -> Self {
        Self {
            heap_bytes: self.heap_bytes.max(floor.heap_bytes),
            stack_bytes: self.stack_bytes.max(floor.stack_bytes),
            execution_ms: self.execution_ms.max(floor.execution_ms),
        }
    }
}

impl Default for Limits {
    /// CCF's defaults.
    fn default() -> Self {
        Self { heap_bytes: 100 << 20, stack_bytes: 1 << 20, execution_ms: 5_000 }
    }
}

/// The execution time of the call under way, asked for by the engine every 10,000 steps and whenever
/// a function of the node returns.
///
/// The clock is the host's: one that stands still must not let a script run for ever, so the number
/// of questions is limited too.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    deadline_ms: AtomicU64,
    polls_left: AtomicU64,
    spent: AtomicBool,
}

impl Budget {
    /// More than the engine asks in a millisecond on any machine of today.
    const POLLS_PER_MS: u64 = 100;

    /// Starts the time of a call; of what is none, and so has no clock, the questions alone count.
    pub(crate) fn start(&self, execution_ms: u64, now_ms: Option<u64>) {
        let deadline_ms = now_ms.map_or(u64::MAX, |now_ms| now_ms.saturating_add(execution_ms));
        self.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        let polls = execution_ms.saturating_mul(Self::POLLS_PER_MS).max(1);
        self.polls_left.store(polls, Ordering::Relaxed);
        self.spent.store(false, Ordering::Relaxed);
    }

    /// Whether the script must stop, as the engine asks it.
    pub(crate) fn poll(&self) -> bool {
        let polls_left = self.polls_left.load(Ordering::Relaxed).saturating_sub(1);
        self.polls_left.store(polls_left, Ordering::Relaxed);
        if polls_left == 0 {
            self.spent.store(true, Ordering::Relaxed);
        }
        self.is_time_up()
    }

    /// Whether the script must stop. Once it must, it must for good.
    pub(crate) fn is_time_up(&self) -> bool {
        let deadline_ms = self.deadline_ms.load(Ordering::Relaxed);
        // Without a deadline there is nothing to ask the clock.
        let is_late =
            || deadline_ms != u64::MAX && call::now_ms().is_none_or(|now| now >= deadline_ms);
        if !self.is_spent() && is_late() {
            self.spent.store(true, Ordering::Relaxed);
        }
        self.is_spent()
    }

    /// Whether a script was stopped since the last start.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }
}
