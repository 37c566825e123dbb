//! One node: a log, the ledger and store behind it, a disk, and the driver that joins them.
//!
//! It does what the commit pipeline of a real node does, without sessions: it executes writes,
//! cuts and signs batches, proposes them (here), and carries out the log's effects in order
//! (`effects`). What the mutants do instead is in `mistakes`.

mod effects;
mod mistakes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use coco_consensus::{Batch, Change, Consensus, Membership, NodeId, Raft, ReadNo, Role, Settings};
use coco_crypto::{Digest, sha256};
use coco_kv::{Committed, Seqno, TxId, View, WriteSet};

use crate::disk::{Disk, LedgerFile, Operation, Report};
use crate::keys::NodeKey;
use crate::mutant::Mutant;
use crate::random::Random;
use crate::replica::{BadLedger, Replica, Service, nodes_table, record_of, records};

/// Batches of a primary that are not yet committed, at most.
const MAX_IN_FLIGHT: usize = 4;

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
    /// The ledger that a former process has left on the disk.
    cache: Option<LedgerFile>,
    /// Executed, not in a batch yet.
    queue: Vec<(TxId, WriteSet)>,
    /// A view begins with a batch, if only a signature.
    must_sign: bool,
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
    /// The first node of the service, or one that joins, perhaps where another has been.
    pub fn new(
        key: NodeKey,
        settings: Settings,
        is_first: bool,
        compacts: bool,
        cache: Option<LedgerFile>,
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
            cache,
            queue: Vec::new(),
            must_sign: false,
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
                Change::Remove(_) => tx.put(&nodes_table(), key, *b"retired"),
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

    /// Governance says that a former node is not needed any more; `None` if that cannot be now.
    pub fn let_go(
        &mut self,
        former: NodeId,
        service: &mut Service,
        random: &mut Random,
    ) -> Option<TxId> {
        self.leads()?;
        let mut tx = self.replica.store.begin();
        tx.remove(&nodes_table(), former.0.0);
        let tx_id = self.execute(tx);
        self.go_on(service, random);
        tx_id
    }

    /// Whether its ledger up to `at` may be given to a node that knows this as committed: whoever
    /// has it need not know that, see `Consensus::has_persisted`.
    pub fn has_for_others(&self, at: TxId) -> bool {
        let is_known = self.raft.committed().seqno >= at.seqno || self.raft.has_persisted(at);
        is_known && self.disk.written().holds(at)
    }

    /// The ledger file that was asked for has been brought here. What a former process has left is
    /// used as far as it is right; what was brought comes after it. Returns whether that was used.
    pub fn bring(
        &mut self,
        file: LedgerFile,
        at: TxId,
        service: &mut Service,
    ) -> Result<bool, BadLedger> {
        service.trusts = self.mutant == Some(Mutant::TrustLedger);
        let from_cache = self.with_cache(&file, at, service);
        let used_cache = from_cache.is_some();
        let brought = from_cache.map_or_else(|| read(file.bytes.clone(), at, service), Ok);
        service.trusts = false;
        let (bytes, replica, applied) = brought?;
        self.values.clear();
        for (key, value) in applied.iter().filter_map(|(_, writes)| record_of(writes)) {
            self.values.insert(key, value);
        }
        replica.store.compact(at.seqno);
        self.replica = replica;
        self.uncommitted.clear();
        self.batches = file.batches.iter().map(|(last, _)| *last).collect();
        let file = LedgerFile { bytes, ..file };
        self.disk.submit(Operation::Replace(file), Report::Installed(at));
        Ok(used_cache)
    }

    /// What a former process has left, up to where it is right, and what was brought after that; if
    /// it was the same ledger.
    fn with_cache(
        &mut self,
        file: &LedgerFile,
        at: TxId,
        service: &mut Service,
    ) -> Option<Brought> {
        let mut cache = self.cache.take()?;
        let is_last = |seqno: Seqno| cache.batches.last().is_some_and(|last| last.0.seqno == seqno);
        let after = match Replica::default().apply(&cache.bytes, service) {
            _ if service.trusts => file.batches.iter().find(|(last, _)| is_last(last.seqno))?,
            checked => {
                let right = checked.map_or_else(|bad| bad.end_bytes, |_| cache.bytes.len());
                cache.bytes.truncate(right);
                // Behind the same batch, or it is another ledger.
                file.batches.iter().find(|(_, end)| *end == right)?
            }
        };
        cache.bytes.extend_from_slice(file.bytes.get(after.1..)?);
        read(cache.bytes, at, service).ok()
    }

    /// The governed list of nodes, against those who count.
    pub fn check_nodes_table(&self) -> Result<(), String> {
        let snapshot = self.replica.store.snapshot();
        let mut voters = BTreeSet::new();
        let mut learners = BTreeSet::new();
        let mut tx = coco_kv::Tx::on(snapshot);
        tx.for_each(&nodes_table(), |key, value| {
            if let Ok(digest) = key.try_into() {
                match value.as_ref() as &[u8] {
                    b"voter" => voters.insert(NodeId(Digest(digest))),
                    b"learner" => learners.insert(NodeId(Digest(digest))),
                    _ => false,
                };
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
            // What earlier views have left in flight waits for the signature itself.
            let is_due = !self.queue.is_empty() && self.in_flight() < MAX_IN_FLIGHT;
            if !(is_due || self.must_sign) || !self.cut(None, service) {
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
        if self.raft.may_propose().is_err() {
            return false;
        }
        self.must_sign = false;
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
}

type Brought = (Vec<u8>, Replica, Vec<(TxId, WriteSet)>);

/// Reads a ledger from its first byte to its end, which must be `at`.
fn read(bytes: Vec<u8>, at: TxId, service: &mut Service) -> Result<Brought, BadLedger> {
    let mut replica = Replica::default();
    let applied = replica.apply(&bytes, service)?;
    match replica.end == at || service.trusts {
        true => Ok((bytes, replica, applied)),
        false => Err(BadLedger {
            end: replica.end,
            end_bytes: bytes.len(),
            reason: format!("it ends with {} instead of {at}", replica.end),
        }),
    }
}
