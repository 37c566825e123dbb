//! What clients did and saw, and whether one register per key explains it.

use std::collections::{BTreeMap, BTreeSet};

/// Operations on one key that are searched through, at most.
const MAX_OPERATIONS: usize = 120;
/// States that a search visits, at most.
const MAX_STATES: usize = 200_000;

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Wrote this value.
    Write(u64),
    /// Saw this value, or none.
    Read(Option<u64>),
}

/// An operation as its client saw it.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// When it began.
    pub from_us: u64,
    /// When it ended; never, if nobody knows whether it happened.
    pub to_us: u64,
    /// What it did.
    pub call: Call,
}

/// Whether a history can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can.
    Linearizable,
    /// It cannot.
    NotLinearizable,
    /// The search was given up.
    Undecided,
}

/// The algorithm of Wing and Gong (1993) with Lowe's memory of states (2017): tries every order that
/// respects real time, and visits no set of done operations twice with the same value.
pub fn explain(operations: &[Observed]) -> Verdict {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.from_us);
    if let Some(later) = operations.get(MAX_OPERATIONS) {
        // A prefix in time: what ends later may as well have had no answer yet.
        let until = later.from_us;
        operations.truncate(MAX_OPERATIONS);
        operations.retain(|operation| {
            operation.to_us < until || matches!(operation.call, Call::Write(_))
        });
        operations.iter_mut().filter(|operation| operation.to_us >= until).for_each(|operation| {
            operation.to_us = u64::MAX;
        });
    }
    let mut seen = BTreeSet::new();
    let mut open = vec![(0_u128, None)];
    let must: u128 = (0..).zip(&operations).fold(0, |must, (at, operation)| {
        if operation.to_us == u64::MAX { must } else { must | 1 << at }
    });
    while let Some((done, value)) = open.pop() {
        if done & must == must {
            return Verdict::Linearizable;
        }
        if seen.len() >= MAX_STATES {
            return Verdict::Undecided;
        }
        if !seen.insert((done, value)) {
            continue;
        }
        let undone = || (0..).zip(&operations).filter(move |(at, _)| done >> at & 1 == 0);
        // Nothing may come before what had ended when it began.
        let first_end = undone().map(|(_, operation)| operation.to_us).min().unwrap_or(u64::MAX);
        for (at, operation) in undone().filter(|(_, operation)| operation.from_us <= first_end) {
            match operation.call {
                Call::Write(written) => open.push((done | 1 << at, Some(written))),
                Call::Read(read) if read == value => open.push((done | 1 << at, value)),
                Call::Read(_) => {}
            }
        }
    }
    Verdict::NotLinearizable
}

/// The operations of all clients, by key.
#[derive(Debug, Default)]
pub struct History {
    by_key: BTreeMap<u64, Vec<Observed>>,
}

impl History {
    /// Notes an operation.
    pub fn note(&mut self, key: u64, operation: Observed) {
        self.by_key.entry(key).or_default().push(operation);
    }

    /// How many were noted.
    pub fn len(&self) -> usize {
        self.by_key.values().map(Vec::len).sum()
    }

    /// The first key that cannot be explained, and how many searches were given up.
    pub fn check(&self) -> (Option<u64>, u64) {
        let mut undecided = 0;
        for (key, operations) in &self.by_key {
            match explain(operations) {
                Verdict::Linearizable => {}
                Verdict::NotLinearizable => return (Some(*key), undecided),
                Verdict::Undecided => undecided += 1,
            }
        }
        (None, undecided)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(from_us: u64, to_us: u64, value: u64) -> Observed {
        Observed { from_us, to_us, call: Call::Write(value) }
    }

    fn read(from_us: u64, to_us: u64, value: Option<u64>) -> Observed {
        Observed { from_us, to_us, call: Call::Read(value) }
    }

    #[test]
    fn what_a_register_does_is_explained() {
        let overlapping =
            [write(0, 10, 1), write(5, 15, 2), read(6, 9, Some(2)), read(16, 20, Some(1))];
        assert_eq!(explain(&overlapping), Verdict::Linearizable);
        let lost_answer = [write(0, u64::MAX, 1), read(5, 6, None), read(7, 8, Some(1))];
        assert_eq!(explain(&lost_answer), Verdict::Linearizable);
    }

    #[test]
    fn what_a_register_never_does_is_not() {
        let stale = [write(0, 1, 1), write(2, 3, 2), read(4, 5, Some(1))];
        assert_eq!(explain(&stale), Verdict::NotLinearizable);
        let lost = [write(0, 1, 1), read(2, 3, None)];
        assert_eq!(explain(&lost), Verdict::NotLinearizable);
        let back = [write(0, 9, 1), read(1, 2, Some(1)), read(3, 4, None)];
        assert_eq!(explain(&back), Verdict::NotLinearizable);
        let invented = [read(0, 1, Some(7))];
        assert_eq!(explain(&invented), Verdict::NotLinearizable);
    }

    #[test]
    fn a_long_history_is_cut_in_time() {
        let mut operations: Vec<_> = (0..500)
            .flat_map(|at| [write(at * 4, at * 4 + 1, at), read(at * 4 + 2, at * 4 + 3, Some(at))])
            .collect();
        assert_eq!(explain(&operations), Verdict::Linearizable);
        operations[11] = read(22, 23, Some(0));
        assert_eq!(explain(&operations), Verdict::NotLinearizable);
    }
}
