//! What the log orders, carried out in order; and what becomes of those who wait.

use std::collections::BTreeMap;

use coco_consensus::{Batch, Consensus, Effect, Role};
use coco_kv::{Seqno, TxId, View};

use super::{Commit, Node, Outcome};
use crate::disk::{Operation, Report};
use crate::mutant::Mutant;
use crate::replica::{Service, record_of};

/// Transactions between the committed one and the start of the log that is kept.
const KEPT_TRANSACTIONS: u64 = 20;

impl Node {
    pub(super) fn carry_out(&mut self, effect: Effect, service: &mut Service) {
        match effect {
            Effect::Persist(write, batch) => {
                if self.own.front() == Some(&batch.last) {
                    self.own.pop_front();
                } else {
                    self.apply(&batch, service);
                }
                self.batches.push_back(batch.last);
                let report = match self.mutant {
                    Some(Mutant::AckBeforeSync) => {
                        let _ = self.raft.persisted(write);
                        Report::None
                    }
                    _ => Report::Persisted(write),
                };
                self.disk.submit(Operation::Append(batch.last, batch.entries), report);
            }
            Effect::Truncate(to) => self.take_back(to),
            Effect::Install(at) => self.outbox.install = Some(at),
            Effect::Committed(tx_id) => self.commit(tx_id),
            Effect::Send(to, frame) => {
                let frame = self.distort_sent(frame);
                self.outbox.frames.push((to, frame));
            }
            Effect::Role(role) => self.change_role(role),
            Effect::Membership(membership) => {
                self.former = std::mem::replace(&mut self.membership, membership);
            }
            Effect::ReadReady(read) => {
                if let Some((operation, key)) = self.reads.remove(&read) {
                    self.answer_read(operation, key);
                }
            }
        }
    }

    /// A batch of another primary: verified, then applied.
    fn apply(&mut self, batch: &Batch, service: &mut Service) {
        match self.replica.apply(&batch.entries, service) {
            Ok(applied) => {
                let records = applied.iter().filter_map(|(tx_id, writes)| {
                    record_of(writes).map(|(key, value)| (tx_id.seqno, key, value))
                });
                self.uncommitted.extend(records);
            }
            Err(bad) => self.violate(format!("batch {} is wrong: {}", batch.last, bad.reason)),
        }
    }

    fn take_back(&mut self, to: TxId) {
        let void = self.batches.iter().filter(|last| last.seqno > to.seqno).copied();
        self.outbox.void.extend(void);
        self.batches.retain(|last| last.seqno <= to.seqno);
        self.uncommitted.retain(|(seqno, ..)| *seqno <= to.seqno);
        if self.mutant == Some(Mutant::HastyInvalid) {
            self.call_void(to.seqno);
        }
        if self.mutant != Some(Mutant::ForgetTruncation) {
            self.disk.submit(Operation::Truncate(to), Report::None);
        }
        let (Role::Primary(view) | Role::Backup { view, .. }) = self.raft.role();
        if self.mutant == Some(Mutant::ForgetRollback) {
            return;
        }
        if let Err(error) = self.replica.retract(to, view) {
            self.violate(error);
        }
    }

    pub(super) fn change_role(&mut self, role: Role) {
        let (Role::Primary(view) | Role::Backup { view, .. }) = role;
        self.must_sign = matches!(role, Role::Primary(_));
        if let Role::Primary(view) = role {
            self.outbox.leads.push(view);
            self.matched.clear();
        }
        // What was executed and never encrypted is void for certain.
        for (tx_id, _) in std::mem::take(&mut self.queue) {
            if let Some(operation) = self.waiting.remove(&(tx_id.seqno, tx_id.view)) {
                self.outbox.replies.push((operation, Outcome::Invalid));
            }
        }
        let end = self.replica.end;
        self.uncommitted.retain(|(seqno, ..)| *seqno <= end.seqno);
        if let Err(error) = self.replica.retract_unsigned(view.max(end.view)) {
            self.violate(error);
        }
    }

    pub(super) fn commit(&mut self, tx_id: TxId) {
        if self.counts_itself() && tx_id.seqno <= self.committed.seqno {
            // The log is behind its mutant.
            return;
        }
        let before = std::mem::replace(&mut self.committed, tx_id);
        // One report may cover several batches.
        let ends = self.batches.iter().copied().filter(|end| end.seqno < tx_id.seqno);
        let mut ends: Vec<_> = ends.filter(|end| end.seqno > before.seqno).collect();
        ends.push(tx_id);
        for end in ends {
            self.note_commit(end);
        }
        self.replica.store.compact(tx_id.seqno);
        self.answer_writes(tx_id);
        while self.batches.front().is_some_and(|last| last.seqno < tx_id.seqno) {
            self.batches.pop_front();
        }
        if self.compacts {
            let seqno = Seqno(tx_id.seqno.0.saturating_sub(KEPT_TRANSACTIONS));
            self.raft.compact(TxId { view: tx_id.view, seqno });
        }
    }

    /// A batch's end is committed.
    fn note_commit(&mut self, tx_id: TxId) {
        let Some(root) = self.replica.tree.root_of(tx_id.seqno.0 + 1) else {
            // While a ledger is brought here, its commit follows with it.
            return self.violate(format!("{tx_id} is committed beyond the ledger"));
        };
        let mut writes = Vec::new();
        while self.uncommitted.front().is_some_and(|(seqno, ..)| *seqno <= tx_id.seqno) {
            let Some((seqno, key, value)) = self.uncommitted.pop_front() else { break };
            self.values.insert(key, value);
            writes.push((seqno, key, value));
        }
        let memberships = [self.former.clone(), self.membership.clone()];
        self.outbox.commits.push(Commit { tx_id, root, memberships, writes });
    }

    /// Tells the fate of writes, now that `committed` is.
    pub(super) fn answer_writes(&mut self, committed: TxId) {
        let mut open = BTreeMap::new();
        for ((seqno, view), operation) in std::mem::take(&mut self.waiting) {
            let batch = self.batches.iter().find(|last| last.seqno >= seqno);
            let outcome = match batch {
                Some(batch) if seqno <= committed.seqno && batch.view == view => {
                    Outcome::Committed(TxId { view, seqno })
                }
                _ if seqno <= committed.seqno || committed.view > view => Outcome::Invalid,
                _ => {
                    open.insert((seqno, view), operation);
                    continue;
                }
            };
            self.outbox.replies.push((operation, outcome));
        }
        self.waiting = open;
    }

    pub(super) fn call_void(&mut self, after: Seqno) {
        for (_, operation) in self.waiting.split_off(&(after.next(), View(0))) {
            self.outbox.replies.push((operation, Outcome::Invalid));
        }
    }

    pub(super) fn answer_read(&mut self, operation: u64, key: u64) {
        let outcome = Outcome::Read(self.values.get(&key).copied(), self.committed.seqno);
        self.outbox.replies.push((operation, outcome));
    }
}
