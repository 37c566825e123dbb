//! What a run was, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use serde::Serialize;

use crate::plan::Fault;

/// A run's numbers, or the sum of many.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed; of a sum, the last.
    pub seed: u64,
    /// Runs.
    pub runs: u64,
    /// The first thing that must not be.
    pub violation: Option<String>,
    /// Virtual time.
    pub virtual_us: u64,
    /// Batches committed.
    pub batches: u64,
    /// Views that had a primary.
    pub views: u64,
    /// Operations in the clients' histories.
    pub operations: u64,
    /// Operations whose answer was lost.
    pub unknown: u64,
    /// Operations given to the black-box check.
    pub history_checked: u64,
    /// Keys on which that check was given up.
    pub undecided: u64,
    /// Processes started.
    pub processes: u64,
    /// Processes that ended without warning.
    pub crashes: u64,
    /// Changes of membership proposed.
    pub membership_changes: u64,
    /// Ledgers brought to a node.
    pub installations: u64,
    /// Frames that did not arrive.
    pub frames_lost: u64,
    /// Frames that arrived twice.
    pub frames_doubled: u64,
    /// Frames that others overtook.
    pub frames_late: u64,
    /// Frames that the host changed, brought to another node, or repeated.
    pub frames_tampered: u64,
    /// Frames that a channel refused.
    pub frames_refused: u64,
    /// Ledgers that a node refused when they were brought.
    pub ledgers_refused: u64,
    /// Nodes that began with what a former process had left.
    pub caches_used: u64,
    /// Receipts made and verified.
    pub receipts: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<String, u64>,
    /// A digest of everything that happened, in order.
    pub trace: u64,
}

impl Report {
    /// The report of a run that begins.
    pub fn of(seed: u64) -> Self {
        Self { seed, runs: 1, ..Self::default() }
    }

    /// Adds to the digest of what happened (FNV-1a, by words).
    pub fn trace(&mut self, one: u64, other: u64) {
        for word in [one, other] {
            self.trace = (self.trace ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Counts a fault.
    pub fn count(&mut self, fault: Fault) {
        *self.faults.entry(format!("{fault:?}")).or_default() += 1;
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.seed = other.seed;
        self.violation = self.violation.take().or(other.violation);
        self.trace ^= other.trace;
        let Self { runs, virtual_us, batches, views, operations, unknown, .. } = self;
        *runs += other.runs;
        *virtual_us += other.virtual_us;
        *batches += other.batches;
        *views += other.views;
        *operations += other.operations;
        *unknown += other.unknown;
        self.history_checked += other.history_checked;
        self.undecided += other.undecided;
        self.processes += other.processes;
        self.crashes += other.crashes;
        self.membership_changes += other.membership_changes;
        self.installations += other.installations;
        self.frames_lost += other.frames_lost;
        self.frames_doubled += other.frames_doubled;
        self.frames_late += other.frames_late;
        self.frames_tampered += other.frames_tampered;
        self.frames_refused += other.frames_refused;
        self.ledgers_refused += other.ledgers_refused;
        self.caches_used += other.caches_used;
        self.receipts += other.receipts;
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.virtual_us / 1_000_000;
        writeln!(f, "runs               {}", self.runs)?;
        writeln!(
            f,
            "virtual time       {} h {} min {} s",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        )?;
        writeln!(f, "batches committed  {}", self.batches)?;
        writeln!(f, "views              {}", self.views)?;
        writeln!(f, "operations         {} ({} without an answer)", self.operations, self.unknown)?;
        writeln!(
            f,
            "black-box check    {} operations, given up on {} keys",
            self.history_checked, self.undecided
        )?;
        writeln!(f, "processes          {} ({} crashed)", self.processes, self.crashes)?;
        writeln!(f, "membership changes {}", self.membership_changes)?;
        writeln!(
            f,
            "installations      {} ({} refused, {} upon what was left)",
            self.installations, self.ledgers_refused, self.caches_used
        )?;
        writeln!(
            f,
            "frames             {} lost, {} doubled, {} late",
            self.frames_lost, self.frames_doubled, self.frames_late
        )?;
        writeln!(
            f,
            "frames             {} tampered with, {} refused",
            self.frames_tampered, self.frames_refused
        )?;
        writeln!(f, "receipts           {}", self.receipts)?;
        for (fault, count) in &self.faults {
            writeln!(f, "fault {fault:<12} {count}")?;
        }
        write!(f, "trace              {:016x}", self.trace)
    }
}
