//! What the mutants do instead of what is right, where that takes more than a word.

use std::collections::BTreeSet;

use bytes::Bytes;
use coco_consensus::NodeId;
use coco_consensus::wire::{Frame, Message};
use coco_kv::Seqno;

use super::Node;
use crate::mutant::Mutant;
use crate::replica::Service;

impl Node {
    pub(super) fn distort_sent(&self, bytes: Bytes) -> Bytes {
        if !matches!(self.mutant, Some(Mutant::VoteTwice | Mutant::AckBeyondAppend)) {
            return bytes;
        }
        let Ok(mut frame) = Frame::decode(bytes.clone()) else { return bytes };
        match (self.mutant, &mut frame.message) {
            (Some(Mutant::VoteTwice), Message::Vote { granted, .. }) => {
                *granted = true;
            }
            (Some(Mutant::AckBeyondAppend), Message::Appended { index, .. }) => {
                *index = (*index).max(self.raft.last().index);
            }
            _ => {}
        }
        frame.encode()
    }

    pub(super) fn distort_received(&mut self, from: NodeId, bytes: Bytes) -> Bytes {
        let counts_itself = self.counts_itself();
        if !counts_itself && self.mutant != Some(Mutant::SkipLogMatching) {
            return bytes;
        }
        let Ok(mut frame) = Frame::decode(bytes.clone()) else { return bytes };
        match &mut frame.message {
            Message::Append { previous, .. } if !counts_itself => {
                if let Some(view) = self.raft.view_at(previous.index) {
                    previous.view = view;
                }
            }
            Message::Appended { index, .. } if self.leads() == Some(frame.view) => {
                self.matched.insert(from, *index);
                self.count_acknowledgements();
            }
            _ => {}
        }
        frame.encode()
    }

    pub(super) fn counts_itself(&self) -> bool {
        matches!(
            self.mutant,
            Some(Mutant::CommitOldView | Mutant::CommitByBlank | Mutant::LearnerCounts)
        )
    }

    /// Commits what enough nodes have acknowledged, by a rule that is not Raft's.
    pub(super) fn count_acknowledgements(&mut self) {
        let membership = self.raft.membership().clone();
        let indices: BTreeSet<_> = self.matched.values().copied().collect();
        let own = self.disk.synced().batches.last().map_or(Seqno(0), |(last, _)| last.seqno);
        for index in indices {
            let Some(end) = self.raft.end_at(index) else { continue };
            let has = |node: NodeId| {
                let matched = self.matched.get(&node).is_some_and(|matched| *matched >= index);
                matched || node == self.id && own >= end.seqno
            };
            let is_enough = match self.mutant {
                Some(Mutant::LearnerCounts) => {
                    let everybody = membership.voters.iter().chain(&membership.learners);
                    let count = everybody.filter(|node| has(**node)).count();
                    !membership.is_joint() && count > membership.voters.len() / 2
                }
                _ => membership.is_quorum(has),
            };
            let is_in_view = self.raft.view_at(index) == self.leads();
            if is_enough && (is_in_view || self.mutant == Some(Mutant::CommitOldView)) {
                let ends: BTreeSet<_> = (1..=index).filter_map(|at| self.raft.end_at(at)).collect();
                let new = ends.into_iter().filter(|end| end.seqno > self.committed.seqno);
                new.collect::<Vec<_>>().into_iter().for_each(|end| self.commit(end));
            }
        }
    }

    /// Encrypts the next transaction, thinks better of it, and takes its place for another.
    pub(super) fn use_seqno_twice(&mut self, service: &Service) {
        let queue = std::mem::take(&mut self.queue);
        if let Some((tx_id, writes)) = queue.first() {
            let end = self.replica.end;
            self.encrypt(*tx_id, writes, service);
            self.call_void(end.seqno);
            self.uncommitted.retain(|(seqno, ..)| *seqno <= end.seqno);
            let _ = self.replica.retract(end, tx_id.view);
        }
    }
}
