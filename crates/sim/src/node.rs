//! One node: a log, the ledger and store behind it, a disk, and the driver that joins them.
//!
//! It does what the commit pipeline of a real node does, without sessions: it executes writes,
//! cuts and signs batches, proposes them, and carries out the log's effects in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use coco_consensus::wire::{Frame, Message};
use coco_consensus::{
    Batch, Change, Consensus, Effect, Membership, NodeId, Raft, ReadNo, Role, Settings,
};
use coco_crypto::{Digest, sha256};
use coco_kv::{Committed, Seqno, TxId, View, WriteSet};

use crate::disk::{Disk, Operation, Report};
use crate::keys::NodeKey;
use crate::mutant::Mutant;
use crate::random::Random;
use crate::replica::{Replica, Service, nodes_table, record_of, records};

/// Batches of a primary that are not yet committed, at most.
const MAX_IN_FLIGHT: usize = 4;
/// Transactions between the committed one and the start of the log that is kept.
const KEPT_TRANSACTIONS: u64 = 20;

/// What became of a client's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write, for ever.
    Committed(TxId),
    /// A write that never happens.
    Invalid,
    /// A read, and how far the state that was read went.
    Read(Option<u64>, Seqno),
}

/// A position that became committed on a node.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The position.
    pub tx_id: TxId,
    /// The ledger's root there.
    pub root: Digest,
    /// Who may have counted: positions after a change of membership can be committed by those
    /// before, as long as the primary has not carried it out.
    pub memberships: [Membership; 2],
    /// What clients wrote since the last: position, key, value.
    pub writes: Vec<(Seqno, u64, u64)>,
}

/// What a node leaves for the world to carry out or to check, in order of time.
#[derive(Default)]
pub struct Outbox {
    /// Frames to send.
    pub frames: Vec<(NodeId, Bytes)>,
    /// Operations answered.
    pub replies: Vec<(u64, Outcome)>,
    /// Positions committed.
    pub commits: Vec<Commit>,
    /// Views that it leads.
    pub leads: Vec<View>,
    /// Batches that were taken back.
    pub void: Vec<TxId>,
    /// Entries encrypted: position and digest.
    pub encrypted: Vec<(TxId, Digest)>,
    /// The ledger to bring here.
    pub install: Option<TxId>,
    /// Something that must not happen.
    pub violation: Option<String>,
}

/// A node of the run.
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Its part of the log.
    pub raft: Raft,
    /// Its disk.
    pub disk: Disk,
    /// Ledger and store.
    pub replica: Replica,
    /// Who counts, as far as it has told its driver.
    pub membership: Membership,
    /// Who counted before the last change: a primary that has not carried it out yet goes by them.
    former: Membership,
    /// What it has left.
    pub outbox: Outbox,
    key: NodeKey,
    mutant: Option<Mutant>,
    compacts: bool,
    /// Executed, not in a batch yet.
    queue: Vec<(TxId, WriteSet)>,
    /// Own batches that the log has not given back yet.
    own: VecDeque<TxId>,
    /// Batches in the log.
    batches: VecDeque<TxId>,
    /// Writes whose fate is open. What is taken back may come back with a later primary; it is void
    /// only when something of a later view is committed.
    waiting: BTreeMap<(Seqno, View), u64>,
    /// Reads that wait, with their key.
    reads: BTreeMap<ReadNo, (u64, u64)>,
    next_read: u64,
    /// What is executed and not committed: position, key, value.
    uncommitted: VecDeque<(Seqno, u64, u64)>,
    /// What is committed.
    values: BTreeMap<u64, u64>,
    committed: TxId,
    /// For the mutants that count by themselves: what others have acknowledged.
    matched: BTreeMap<NodeId, u64>,
}

impl Node {
    /// The first node of the service, or one that joins.
    pub fn new(
        key: NodeKey,
        settings: Settings,
        is_first: bool,
        compacts: bool,
        mutant: Option<Mutant>,
    ) -> Self {
        let id = NodeId(key.public().id());
        let raft = match is_first {
            true => Raft::start(settings, id, View(2), TxId::default()),
            false => Raft::join(settings, id),
        };
        Self {
            id,
            raft,
            disk: Disk::default(),
            replica: Replica::default(),
            membership: if is_first { Membership::of(id) } else { Membership::default() },
            former: Membership::default(),
            outbox: Outbox::default(),
            key,
            mutant,
            compacts,
            queue: Vec::new(),
            own: VecDeque::new(),
            batches: VecDeque::new(),
            waiting: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            uncommitted: VecDeque::new(),
            values: BTreeMap::new(),
            committed: TxId::default(),
            matched: BTreeMap::new(),
        }
    }

    /// Whether it proposes, and in which view.
    pub fn leads(&self) -> Option<View> {
        match self.raft.role() {
            Role::Primary(view) => Some(view),
            Role::Backup { .. } => None,
        }
    }

    /// Whom it would send a client to.
    pub fn primary(&self) -> Option<NodeId> {
        match self.raft.role() {
            Role::Primary(_) => Some(self.id),
            Role::Backup { primary, .. } => primary,
        }
    }

    /// A tick of its clock.
    pub fn tick(&mut self, service: &mut Service, random: &mut Random) {
        self.raft.tick();
        self.go_on(service, random);
    }

    /// A frame has arrived.
    pub fn receive(
        &mut self,
        from: NodeId,
        frame: Bytes,
        service: &mut Service,
        random: &mut Random,
    ) {
        let frame = self.distort_received(from, frame);
        if let Err(error) = self.raft.receive(from, frame) {
            self.violate(format!("a frame of {from:?} is refused: {error}"));
        }
        self.go_on(service, random);
    }

    /// A sync is done.
    pub fn synced(&mut self, service: &mut Service, random: &mut Random) {
        for report in self.disk.finish_sync() {
            let reported = match report {
                Report::None => Ok(()),
                Report::Persisted(write) => self.raft.persisted(write),
                Report::Installed(at) => self.raft.installed(at),
            };
            if let Err(error) = reported {
                self.violate(error.to_string());
            }
        }
        self.go_on(service, random);
    }

    /// A client writes. If this is not the primary, nothing happens and false is returned.
    pub fn write(
        &mut self,
        operation: u64,
        (key, value): (u64, u64),
        service: &mut Service,
        random: &mut Random,
    ) -> bool {
        if self.leads().is_none() {
            return false;
        }
        let mut tx = self.replica.store.begin();
        let _ = tx.get(&records(), &key.to_be_bytes());
        tx.put(&records(), key.to_be_bytes(), value.to_be_bytes());
        if let Some(tx_id) = self.execute(tx) {
            self.waiting.insert((tx_id.seqno, tx_id.view), operation);
            self.uncommitted.push_back((tx_id.seqno, key, value));
        }
        self.go_on(service, random);
        true
    }

    /// A client reads; false if that cannot be now.
    pub fn read(
        &mut self,
        operation: u64,
        key: u64,
        service: &mut Service,
        random: &mut Random,
    ) -> bool {
        if self.mutant == Some(Mutant::StaleRead) {
            self.answer_read(operation, key);
            return true;
        }
        let read = ReadNo(self.next_read);
        self.next_read += 1;
        if self.raft.read(read).is_err() {
            return false;
        }
        self.reads.insert(read, (operation, key));
        self.go_on(service, random);
        true
    }

    /// Governance changes who takes part; false if that cannot be now.
    pub fn change(
        &mut self,
        changes: &[Change],
        service: &mut Service,
        random: &mut Random,
    ) -> bool {
        if self.raft.may_change(changes).is_err() {
            return false;
        }
        let mut tx = self.replica.store.begin();
        for change in changes {
            let key = change.node().0.0;
            match change {
                Change::Voter(_) => tx.put(&nodes_table(), key, *b"voter"),
                Change::Learner(_) => tx.put(&nodes_table(), key, *b"learner"),
                Change::Remove(_) => tx.remove(&nodes_table(), key),
            }
        }
        self.execute(tx);
        self.cut(Some(changes), service);
        self.go_on(service, random);
        true
    }

    /// Hands leadership to another node, if that can be.
    pub fn hand_over(&mut self, to: NodeId, service: &mut Service, random: &mut Random) -> bool {
        let begun = self.raft.transfer(to).is_ok();
        self.go_on(service, random);
        begun
    }

    /// The ledger file that was asked for has been brought here.
    pub fn bring(&mut self, file: crate::disk::LedgerFile, at: TxId, service: &mut Service) {
        let mut replica = Replica::default();
        match replica.apply(&file.bytes, service) {
            Ok(applied) => {
                self.values.clear();
                for (key, value) in applied.iter().filter_map(|(_, writes)| record_of(writes)) {
                    self.values.insert(key, value);
                }
            }
            Err(bad) => self.violate(format!("an installed ledger is wrong: {}", bad.reason)),
        }
        replica.store.compact(at.seqno);
        self.replica = replica;
        self.uncommitted.clear();
        self.batches = file.batches.iter().map(|(last, _)| *last).collect();
        self.disk.submit(Operation::Replace(file), Report::Installed(at));
    }

    /// The governed list of nodes, against those who count.
    pub fn check_nodes_table(&self) -> Result<(), String> {
        let snapshot = self.replica.store.snapshot();
        let mut voters = BTreeSet::new();
        let mut learners = BTreeSet::new();
        let mut tx = coco_kv::Tx::on(snapshot);
        tx.for_each(&nodes_table(), |key, value| {
            if let Ok(digest) = key.try_into() {
                let is_voter = value.as_ref() as &[u8] == b"voter";
                let list = if is_voter { &mut voters } else { &mut learners };
                list.insert(NodeId(Digest(digest)));
            }
            std::ops::ControlFlow::Continue(())
        });
        let Membership { voters: count, learners: learn, .. } = self.raft.membership();
        // The first node is in the table from its first change on.
        match voters.is_subset(count) && learners == *learn && count.len() <= voters.len() + 1 {
            true => Ok(()),
            false => Err(format!("{:?}: the table of nodes and the quorum differ", self.id)),
        }
    }

    /// Operations that end without an answer when the node goes.
    pub fn open_operations(&mut self) -> Vec<u64> {
        let writes = std::mem::take(&mut self.waiting);
        let reads = std::mem::take(&mut self.reads);
        writes.into_values().chain(reads.into_values().map(|(operation, _)| operation)).collect()
    }

    /// Comes back without memory, under the same identity: what a node never does.
    pub fn come_back(&mut self, settings: Settings) {
        self.raft = Raft::join(settings, self.id);
        self.replica = Replica::default();
        self.membership = Membership::default();
        self.queue.clear();
        self.own.clear();
        self.batches.clear();
        self.uncommitted.clear();
        self.values.clear();
        self.disk = Disk::default();
        self.committed = TxId::default();
    }

    fn violate(&mut self, what: String) {
        self.outbox.violation.get_or_insert(format!("{:?}: {what}", self.id));
    }

    fn execute(&mut self, tx: coco_kv::Tx) -> Option<TxId> {
        let committed = self.replica.store.commit(tx, |_, writes| writes);
        let Ok(Committed::Written(tx_id, writes)) = committed else { return None };
        self.queue.push((tx_id, writes));
        Some(tx_id)
    }

    fn go_on(&mut self, service: &mut Service, random: &mut Random) {
        loop {
            while let Some(effect) = self.raft.next_effect() {
                self.carry_out(effect, service);
            }
            if self.mutant == Some(Mutant::ReuseSeqno)
                && !self.queue.is_empty()
                && random.chance(20)
            {
                self.use_seqno_twice(service);
            }
            if self.queue.is_empty()
                || self.in_flight() >= MAX_IN_FLIGHT
                || !self.cut(None, service)
            {
                return;
            }
        }
    }

    fn in_flight(&self) -> usize {
        let committed = self.raft.committed().seqno;
        self.batches.iter().rev().take_while(|last| last.seqno > committed).count()
    }

    /// Signs what is executed and proposes it, if it would be taken.
    fn cut(&mut self, changes: Option<&[Change]>, service: &mut Service) -> bool {
        if self.queue.is_empty() || self.raft.may_propose().is_err() {
            return false;
        }
        let first = self.replica.end.seqno.next();
        let mut entries = Vec::new();
        let queue = std::mem::take(&mut self.queue);
        for (tx_id, writes) in queue {
            entries.extend(self.encrypt(tx_id, &writes, service));
        }
        let last = self.replica.store.reserve(|tx_id, _| tx_id);
        let writes = self.replica.sign(last, self.id, &self.key);
        if self.replica.store.fill(last, &writes).is_err() {
            self.violate("a signature's place is gone".into());
        }
        entries.extend(self.encrypt(last, &writes, service));
        self.replica.end = last;
        self.own.push_back(last);
        let batch = Batch { first, last, entries: entries.into() };
        let proposed = match changes {
            Some(changes) => self.raft.propose_change(batch, changes),
            None => self.raft.propose(batch),
        };
        if let Err(error) = proposed {
            self.violate(format!("a batch that would be taken is refused: {error}"));
        }
        if self.mutant == Some(Mutant::EarlyReply) {
            self.batches.push_back(last);
            self.answer_writes(last);
            self.batches.pop_back();
        }
        true
    }

    fn encrypt(&mut self, tx_id: TxId, writes: &WriteSet, service: &Service) -> Vec<u8> {
        let entry = self.replica.append(tx_id, writes, service);
        self.outbox.encrypted.push((tx_id, sha256(&entry)));
        entry
    }

    fn carry_out(&mut self, effect: Effect, service: &mut Service) {
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

    fn change_role(&mut self, role: Role) {
        let (Role::Primary(view) | Role::Backup { view, .. }) = role;
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

    fn commit(&mut self, tx_id: TxId) {
        if self.counts_itself() && tx_id.seqno <= self.committed.seqno {
            // The log is behind its mutant.
            return;
        }
        self.committed = tx_id;
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
        self.replica.store.compact(tx_id.seqno);
        let memberships = [self.former.clone(), self.membership.clone()];
        self.outbox.commits.push(Commit { tx_id, root, memberships, writes });
        self.answer_writes(tx_id);
        while self.batches.front().is_some_and(|last| last.seqno < tx_id.seqno) {
            self.batches.pop_front();
        }
        if self.compacts {
            let seqno = Seqno(tx_id.seqno.0.saturating_sub(KEPT_TRANSACTIONS));
            self.raft.compact(TxId { view: tx_id.view, seqno });
        }
    }

    /// Tells the fate of writes, now that `committed` is.
    fn answer_writes(&mut self, committed: TxId) {
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

    fn call_void(&mut self, after: Seqno) {
        for (_, operation) in self.waiting.split_off(&(after.next(), View(0))) {
            self.outbox.replies.push((operation, Outcome::Invalid));
        }
    }

    fn answer_read(&mut self, operation: u64, key: u64) {
        let outcome = Outcome::Read(self.values.get(&key).copied(), self.committed.seqno);
        self.outbox.replies.push((operation, outcome));
    }
}

/// What the mutants do.
impl Node {
    fn distort_sent(&self, bytes: Bytes) -> Bytes {
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

    fn distort_received(&mut self, from: NodeId, bytes: Bytes) -> Bytes {
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

    fn counts_itself(&self) -> bool {
        matches!(self.mutant, Some(Mutant::CommitOldView | Mutant::LearnerCounts))
    }

    /// Commits what enough nodes have acknowledged, by a rule that is not Raft's.
    fn count_acknowledgements(&mut self) {
        let membership = self.raft.membership().clone();
        let indices: BTreeSet<_> = self.matched.values().copied().collect();
        let own = self.disk.durable().batches.last().map_or(Seqno(0), |(last, _)| last.seqno);
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
    fn use_seqno_twice(&mut self, service: &Service) {
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
