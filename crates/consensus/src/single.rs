//! The log of a service with one node.

use std::collections::VecDeque;

use bytes::Bytes;
use coco_kv::{Seqno, TxId, View};

use crate::{
    Batch, Change, Consensus, ConsensusError, Effect, FrameError, NodeId, ReadNo, Replica, Role,
    WriteNo,
};

/// A log with one node: always primary, a batch is committed once it and all before it are
/// persisted.
#[derive(Debug)]
pub struct SingleNode {
    view: View,
    /// Last position proposed.
    end: Seqno,
    committed: TxId,
    /// Proposed, not yet committed, from `first_waiting` on; whether each is persisted.
    waiting: VecDeque<(TxId, bool)>,
    first_waiting: u64,
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
            first_waiting: 0,
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

    fn has_persisted(&self, tx_id: TxId) -> bool {
        self.committed == tx_id
    }

    fn may_propose(&self) -> Result<(), ConsensusError> {
        Ok(())
    }

    fn may_change(&self, _: &[Change]) -> Result<(), ConsensusError> {
        Err(ConsensusError::FixedMembership)
    }

    fn propose(&mut self, batch: Batch) -> Result<(), ConsensusError> {
        let Batch { first, last, .. } = &batch;
        if last.view != self.view {
            return Err(ConsensusError::WrongView { last: *last, current: self.view });
        }
        if !batch.follows(self.end, self.view) {
            let (first, last) = (*first, last.seqno);
            return Err(ConsensusError::NotConsecutive { first, last, end: self.end });
        }
        self.end = last.seqno;
        let number = WriteNo(self.first_waiting + self.waiting.len() as u64);
        self.waiting.push_back((*last, false));
        self.effects.push_back(Effect::Persist(number, batch));
        Ok(())
    }

    fn propose_change(&mut self, _: Batch, _: &[Change]) -> Result<(), ConsensusError> {
        Err(ConsensusError::FixedMembership)
    }

    fn persisted(&mut self, write: WriteNo) -> Result<(), ConsensusError> {
        let next = self.first_waiting + self.waiting.len() as u64;
        if write.0 >= next {
            return Err(ConsensusError::NotOrdered(write));
        }
        let at = write.0.checked_sub(self.first_waiting).and_then(|at| usize::try_from(at).ok());
        if let Some((_, is_done)) = at.and_then(|at| self.waiting.get_mut(at)) {
            *is_done = true;
        }
        let before = self.committed;
        while let Some(&(tx_id, true)) = self.waiting.front() {
            self.committed = tx_id;
            self.waiting.pop_front();
            self.first_waiting += 1;
        }
        if self.committed != before {
            self.effects.push_back(Effect::Committed(self.committed));
        }
        Ok(())
    }

    fn installed(&mut self, _: TxId) -> Result<(), ConsensusError> {
        Err(ConsensusError::NotInstalling)
    }

    fn tick(&mut self) {}

    fn tell_committed(&mut self) {}

    fn receive(&mut self, _: NodeId, _: Bytes) -> Result<(), FrameError> {
        Err(FrameError::Recipient)
    }

    fn unreachable(&mut self, _: NodeId) {}

    fn replicas(&self) -> Vec<Replica> {
        Vec::new()
    }

    fn transfer(&mut self, to: NodeId) -> Result<(), ConsensusError> {
        Err(ConsensusError::NotAnotherVoter(to))
    }

    fn read(&mut self, read: ReadNo) -> Result<(), ConsensusError> {
        self.effects.push_back(Effect::ReadReady(read));
        Ok(())
    }

    fn compact(&mut self, _: TxId) {}

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
    fn a_report_without_an_order_is_refused() {
        let mut log = log();
        let write = WriteNo(0);
        assert_eq!(log.persisted(write), Err(ConsensusError::NotOrdered(write)));
        log.propose(batch(1, 2)).unwrap();
        log.persisted(write).unwrap();
        assert_eq!(log.persisted(write), Ok(()), "a second report has no effect");
        assert_eq!(log.persisted(WriteNo(1)), Err(ConsensusError::NotOrdered(WriteNo(1))));
        assert_eq!(log.committed(), TxId::new(2, 2));
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
                prop_assert!(matches!(log.next_effect(), Some(Effect::Persist(..))));
            }
            let mut reports: Vec<_> = ends
                .iter()
                .zip(order)
                .zip(0..)
                .map(|((end, key), number)| (key, *end, WriteNo(number)))
                .collect();
            reports.sort_unstable();
            let mut done = Vec::new();
            for (_, report, write) in reports {
                log.persisted(write).unwrap();
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
