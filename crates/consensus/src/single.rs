//! The log of a service with one node.

use std::collections::VecDeque;

use coco_kv::{Seqno, TxId, View};

use crate::{Batch, Consensus, ConsensusError, Effect, Role};

/// A log with one node: always primary, a batch is committed once it and all before it are
/// persisted.
#[derive(Debug)]
pub struct SingleNode {
    view: View,
    /// Last position proposed.
    end: Seqno,
    committed: TxId,
    /// Proposed, not yet committed; whether each is persisted.
    waiting: VecDeque<(TxId, bool)>,
    effects: VecDeque<Effect>,
}

impl SingleNode {
    /// A log in `view` that continues after `committed` (0 for a new service), which a recovery
    /// has found on the ledger.
    pub fn new(view: View, committed: Seqno) -> Self {
        Self {
            view,
            end: committed,
            committed: TxId { view, seqno: committed },
            waiting: VecDeque::new(),
            effects: VecDeque::from([Effect::Role(Role::Primary(view))]),
        }
    }
}

impl Consensus for SingleNode {
    fn role(&self) -> Role {
        Role::Primary(self.view)
    }

    fn committed(&self) -> TxId {
        self.committed
    }

    fn propose(&mut self, batch: Batch) -> Result<(), ConsensusError> {
        let Batch { first, last, .. } = &batch;
        if last.view != self.view {
            return Err(ConsensusError::WrongView { last: *last, current: self.view });
        }
        if *first != self.end.next() || last.seqno < *first {
            let (first, last) = (*first, last.seqno);
            return Err(ConsensusError::NotConsecutive { first, last, end: self.end });
        }
        self.end = last.seqno;
        self.waiting.push_back((*last, false));
        self.effects.push_back(Effect::Persist(batch));
        Ok(())
    }

    fn persisted(&mut self, last: TxId) -> Result<(), ConsensusError> {
        let found = self.waiting.iter_mut().find(|(tx_id, _)| *tx_id == last);
        match found {
            Some((_, done)) if !*done => *done = true,
            _ => return Err(ConsensusError::NotProposed(last)),
        }
        let before = self.committed;
        while let Some(&(tx_id, true)) = self.waiting.front() {
            self.committed = tx_id;
            self.waiting.pop_front();
        }
        if self.committed != before {
            self.effects.push_back(Effect::Committed(self.committed));
        }
        Ok(())
    }

    fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(first: u64, last: u64) -> Batch {
        Batch { first: Seqno(first), last: TxId::new(2, last), entries: "x".into() }
    }

    fn log() -> SingleNode {
        let mut log = SingleNode::new(View(2), Seqno(0));
        assert!(matches!(log.next_effect(), Some(Effect::Role(_))));
        log
    }

    #[test]
    fn a_batch_must_follow_the_last() {
        let mut log = log();
        log.propose(batch(1, 2)).unwrap();
        for (first, last) in [(1, 2), (2, 4), (4, 5), (3, 2)] {
            let refused = log.propose(batch(first, last));
            assert!(matches!(refused, Err(ConsensusError::NotConsecutive { .. })), "{refused:?}");
        }
        let other_view = Batch { last: TxId::new(3, 3), ..batch(3, 3) };
        assert!(matches!(log.propose(other_view), Err(ConsensusError::WrongView { .. })));
    }

    #[test]
    fn a_report_without_a_proposal_is_refused() {
        let mut log = log();
        let last = TxId::new(2, 2);
        assert_eq!(log.persisted(last), Err(ConsensusError::NotProposed(last)));
        log.propose(batch(1, 2)).unwrap();
        log.persisted(last).unwrap();
        assert_eq!(log.persisted(last), Err(ConsensusError::NotProposed(last)));
    }

    proptest! {
        /// Whatever the order of the disk's reports, exactly the persisted prefix is committed.
        #[test]
        fn the_persisted_prefix_is_committed(
            sizes in proptest::collection::vec(1u64..5, 1..20),
            order in any::<prop::sample::Index>().prop_perturb(|_, mut random| {
                std::iter::repeat_with(|| random.random::<u32>()).take(20).collect::<Vec<_>>()
            }),
        ) {
            let mut log = log();
            let mut ends = Vec::new();
            let mut end = 0;
            for size in sizes {
                log.propose(batch(end + 1, end + size)).unwrap();
                end += size;
                ends.push(end);
                prop_assert!(matches!(log.next_effect(), Some(Effect::Persist(_))));
            }
            let mut reports: Vec<_> = ends.iter().zip(order).map(|(end, key)| (key, *end)).collect();
            reports.sort_unstable();
            let mut done = Vec::new();
            for (_, report) in reports {
                log.persisted(TxId::new(2, report)).unwrap();
                done.push(report);
                let prefix = ends.iter().take_while(|end| done.contains(end)).last();
                prop_assert_eq!(log.committed().seqno.0, prefix.copied().unwrap_or(0));
                if let Some(effect) = log.next_effect() {
                    prop_assert_eq!(effect, Effect::Committed(log.committed()));
                }
                prop_assert_eq!(log.next_effect(), None);
            }
            prop_assert_eq!(log.committed().seqno.0, end);
        }
    }
}
