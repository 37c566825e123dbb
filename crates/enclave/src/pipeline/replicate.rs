//! One of several nodes: what the log says of other primaries, carried out here.
//!
//! ```text
//!   primary   executes ahead of the log: queue ▶ writer ▶ batch ▶ log
//!   backup    follows it: batch ▶ check ▶ files and, meanwhile, verify ▶ store, tree ▶ acknowledge
//! ```
//!
//! Whoever stops being primary takes back what is in no batch of the log: nobody else has it, so
//! whoever waits for it learns that it is void. What the log itself takes back may come back with a
//! later primary, so its fate is open until something of a later view is committed. A new primary
//! signs at once, so that this does not wait for the next client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coco_consensus::{
    Batch, Change, Consensus, ConsensusError, Effect, Membership, NodeId, Role, WriteNo,
};
use coco_governance::tables::{NODES, NodeStatus, TableError};
use coco_kv::{NoSuchBoundary, OutOfOrder, Seqno, Snapshot, Tx, TxId, View};
use coco_ledger::{SnapshotName, ViewHistoryError};

use super::Standing;
use super::batch::SignedBatch;
use super::drive::Inner;
use super::follow::{BatchFault, CheckedBatch};
use super::writer::{Offer, WriteError, Writer};
use crate::channels::wire::SnapshotOffer;
use crate::host::{BoxFuture, DiskOp, Done};
use crate::ledger_files::AppendError;

/// How long a primary that stops waits for its successor.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(5);
const HAND_OVER_WAITS: usize = 100;
/// A learner counts once it has what was committed so many ticks ago: while transactions keep
/// coming it never has quite everything.
const CAUGHT_UP_TICKS: usize = 10;
/// If nothing else is committed for so long, the backups are told of it by a message of its own.
const QUIET: Duration = Duration::from_millis(1);

/// The ways to the other nodes of the service. At the end of each is the enclave that it names.
pub(crate) trait Channels: Send + Sync + 'static {
    /// Brings a frame of the log to another node, soon or never.
    fn send(&self, to: NodeId, frame: Bytes);

    /// These nodes take part from now on.
    fn follow(&self, membership: &Membership);

    /// The nodes that can be asked for what is missing here: the primary first.
    fn sources(&self) -> Vec<NodeId>;

    /// Entries of another node's ledger from right after `after` on, up to `to` at most; nothing if
    /// it does not have the first of them. It gives those that it knows as committed, or that come
    /// before `committed`, which is known here to be.
    fn ledger(
        &self,
        from: NodeId,
        after: Seqno,
        to: Seqno,
        committed: TxId,
    ) -> BoxFuture<'static, std::io::Result<Bytes>>;

    /// What another node has of snapshots no later than `to`.
    fn newest_snapshot(
        &self,
        from: NodeId,
        to: Seqno,
    ) -> BoxFuture<'static, std::io::Result<SnapshotOffer>>;

    /// Bytes of another node's snapshot from `offset` on; nothing if it does not have them.
    fn snapshot_piece(
        &self,
        from: NodeId,
        name: SnapshotName,
        offset: u64,
    ) -> BoxFuture<'static, std::io::Result<Bytes>>;
}

/// What leads out of a node that is alone: nothing.
pub(crate) struct Alone;

impl Channels for Alone {
    fn send(&self, _: NodeId, _: Bytes) {}

    fn follow(&self, _: &Membership) {}

    fn sources(&self) -> Vec<NodeId> {
        Vec::new()
    }

    fn ledger(
        &self,
        _: NodeId,
        _: Seqno,
        _: Seqno,
        _: TxId,
    ) -> BoxFuture<'static, std::io::Result<Bytes>> {
        Box::pin(async { Err(std::io::ErrorKind::NotConnected.into()) })
    }

    fn newest_snapshot(
        &self,
        _: NodeId,
        _: Seqno,
    ) -> BoxFuture<'static, std::io::Result<SnapshotOffer>> {
        Box::pin(async { Err(std::io::ErrorKind::NotConnected.into()) })
    }

    fn snapshot_piece(
        &self,
        _: NodeId,
        _: SnapshotName,
        _: u64,
    ) -> BoxFuture<'static, std::io::Result<Bytes>> {
        Box::pin(async { Err(std::io::ErrorKind::NotConnected.into()) })
    }
}

/// The log, and which of its orders are about batches made here.
pub(super) struct Log {
    pub consensus: Box<dyn Consensus>,
    /// Proposed, and not ordered to be persisted yet.
    own: VecDeque<TxId>,
    /// Made here and not committed yet, with the uptime at which it was proposed.
    in_flight: VecDeque<(Seqno, Duration)>,
}

/// An effect to carry out, and whether it is about a batch made here.
pub(super) enum Order {
    Own(Effect),
    Other(Effect),
}

impl Log {
    pub fn new(consensus: Box<dyn Consensus>) -> Self {
        Self { consensus, own: VecDeque::new(), in_flight: VecDeque::new() }
    }

    pub fn propose(&mut self, offer: &Offer, now: Duration) -> Result<(), ConsensusError> {
        let Offer { batch, changes } = offer;
        // The effect that says so may still be on its way.
        if self.consensus.role() != Role::Primary(batch.last.view) {
            return Err(ConsensusError::NotPrimary);
        }
        match changes.as_slice() {
            [] => self.consensus.propose(batch.clone())?,
            changes => self.consensus.propose_change(batch.clone(), changes)?,
        }
        self.own.push_back(batch.last);
        self.in_flight.push_back((batch.last.seqno, now));
        Ok(())
    }

    pub fn next_order(&mut self) -> Option<Order> {
        let effect = self.consensus.next_effect()?;
        match &effect {
            Effect::Persist(_, batch) if self.own.front() == Some(&batch.last) => {
                self.own.pop_front();
                return Some(Order::Own(effect));
            }
            // What was proposed before is ordered by now, or never will be.
            Effect::Role(Role::Backup { .. }) | Effect::Install(_) => {
                self.own.clear();
                self.in_flight.clear();
            }
            _ => {}
        }
        Some(Order::Other(effect))
    }

    /// Notes how far the ledger is committed; returns how many batches made here are not. Tells of
    /// each that is when it was proposed.
    pub fn settle(&mut self, committed: Seqno, settled: impl Fn(Duration)) -> usize {
        while let Some((_, since)) = self.in_flight.pop_front_if(|(last, _)| *last <= committed) {
            settled(since);
        }
        self.in_flight.len()
    }
}

/// This node cannot follow the log any more: another node or this one is broken.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("batch {last} is wrong: {fault}")]
    Batch { last: TxId, fault: BatchFault },
    #[error(transparent)]
    Store(#[from] OutOfOrder),
    #[error(transparent)]
    View(#[from] ViewHistoryError),
    #[error(transparent)]
    Files(#[from] AppendError),
    #[error(transparent)]
    Boundary(#[from] NoSuchBoundary),
    #[error(transparent)]
    Writer(#[from] WriteError),
}

impl Inner {
    /// Proposes the signed batch that the writer holds. If the log does not take it now, it is
    /// offered again later.
    pub fn propose(&self, writer: &mut Writer) -> Result<(), ConsensusError> {
        let Some(offer) = writer.offer() else { return Ok(()) };
        let proposed = {
            let mut log = self.log.lock();
            let proposed = log.propose(offer, self.host.uptime());
            self.in_flight.store(log.in_flight.len(), Ordering::SeqCst);
            proposed
        };
        match proposed {
            Ok(()) => {
                writer.taken();
                Ok(())
            }
            Err(refusal) => self.wait_for_log(refusal),
        }
    }

    /// What the log refuses now it may take when it has gone on. A node that is no longer primary
    /// learns that by the effect that follows.
    pub fn wait_for_log(&self, refusal: ConsensusError) -> Result<(), ConsensusError> {
        match refusal {
            ConsensusError::NotPrimary
            | ConsensusError::Transferring
            | ConsensusError::Full
            | ConsensusError::Changing => {
                self.stalled.store(true, Ordering::SeqCst);
                Ok(())
            }
            bug => Err(bug),
        }
    }

    /// How the list of nodes in a state differs from those who take part: whoever is trusted begins
    /// to learn, and counts once it has learnt; whoever is retired leaves.
    pub fn changes(&self, state: Snapshot) -> Result<Vec<Change>, TableError> {
        let membership = self.membership.read().clone();
        let mut changes = Vec::new();
        let mut retired = membership.nodes();
        for (id, info) in NODES.rows(&mut Tx::on(state))? {
            let node = NodeId(id);
            if info.status != NodeStatus::Trusted {
                continue;
            }
            if !retired.remove(&node) {
                changes.push(Change::Learner(node));
            } else if membership.learners.contains(&node) && self.has_learnt(node) {
                changes.push(Change::Voter(node));
            }
        }
        changes.extend(retired.into_iter().map(Change::Remove));
        if !changes.is_empty()
            && let Err(error) = membership.check(&changes)
        {
            tracing::error!(%error, "the list of nodes cannot be followed");
            changes.clear();
        }
        let may_change = self.log.lock().consensus.may_change(&changes);
        if may_change == Err(ConsensusError::FixedMembership) {
            // A node that is alone stays that, whatever its list says.
            changes.clear();
        }
        Ok(changes)
    }

    /// Whether a node has all that was committed a moment ago.
    fn has_learnt(&self, node: NodeId) -> bool {
        let before = self.committed_before.lock().front().copied();
        let committed = before.unwrap_or_else(|| self.progress.committed_seqno());
        let replicas = self.log.lock().consensus.replicas();
        replicas.iter().any(|replica| {
            replica.node == node && !replica.is_installing && replica.persisted.seqno >= committed
        })
    }

    /// Lets a learner count that has everything, by the next signature.
    fn promote(&self) {
        let learners = match self.membership.read() {
            membership if membership.is_joint() => return,
            membership => membership.learners.clone(),
        };
        if learners.into_iter().any(|learner| self.has_learnt(learner)) {
            self.writer.lock().must_sign();
            self.wake.notify_one();
        }
    }

    /// A batch of another primary: checks it, applies it, and returns what writes it.
    pub(super) fn apply(&self, batch: &Batch) -> Result<Vec<DiskOp>, FollowError> {
        let mut writer = self.writer.lock();
        let checked = self.check(&mut writer, batch)?;
        self.go_on_with(&mut writer, batch, checked)?;
        self.append(&mut writer, batch)
    }

    fn check(&self, writer: &mut Writer, batch: &Batch) -> Result<CheckedBatch, FollowError> {
        let checked = writer.check(batch, &self.store, &self.keys);
        checked.map_err(|fault| FollowError::Batch { last: batch.last, fault })
    }

    /// Verifies a batch that is checked, and applies it.
    fn go_on_with(
        &self,
        writer: &mut Writer,
        batch: &Batch,
        checked: CheckedBatch,
    ) -> Result<(), FollowError> {
        writer
            .follow(batch, &checked, &self.keys, self.progress.committed_seqno())
            .map_err(|fault| FollowError::Batch { last: batch.last, fault })?;
        self.progress.record(TxId { view: batch.last.view, seqno: batch.first })?;
        for (tx_id, writes) in &checked.transactions {
            self.store.apply(*tx_id, writes)?;
        }
        self.queue.skip(batch.last.seqno);
        let signed = SignedBatch::new(batch.first, batch.last, checked.signature, checked.parts);
        self.recent.write().push(Arc::new(signed));
        self.cut_to.store(batch.last.seqno.0, Ordering::SeqCst);
        Ok(())
    }

    /// What writes a batch of another primary.
    fn append(&self, writer: &mut Writer, batch: &Batch) -> Result<Vec<DiskOp>, FollowError> {
        let mut files = self.files.lock();
        let operations = match files.last() {
            // What a former node has left here is not written again.
            last if batch.last.seqno <= last => Vec::new(),
            _ => files.append(batch)?,
        };
        writer.set_chunk_bytes(files.open_bytes());
        Ok(operations)
    }

    /// Another primary's batch, as the log orders it. The disk works while it is verified; when both
    /// are done, it is acknowledged.
    pub(super) fn follow(self: &Arc<Self>, write: WriteNo, batch: &Batch) {
        if self.standing() == Standing::Failed {
            return;
        }
        let is_half_done = Arc::new(AtomicBool::new(false));
        let half = || {
            let (inner, is_half_done) = (Arc::clone(self), Arc::clone(&is_half_done));
            move |result: std::io::Result<()>| {
                if result.is_err() || is_half_done.swap(true, Ordering::SeqCst) {
                    inner.persisted(write, result);
                }
            }
        };
        match self.try_follow(batch, Box::new(half())) {
            Ok(()) => half()(Ok(())),
            Err(error) => self.fail(&error),
        }
    }

    fn try_follow(&self, batch: &Batch, written: Done) -> Result<(), FollowError> {
        let mut writer = self.writer.lock();
        let checked = self.check(&mut writer, batch)?;
        let operations = self.append(&mut writer, batch)?;
        self.persist(operations, written);
        self.go_on_with(&mut writer, batch, checked)
    }

    /// The log takes back everything after `end`.
    pub(super) fn take_back(self: &Arc<Self>, end: Seqno) {
        let mut writer = self.writer.lock();
        self.try_take_back(&mut writer, end).unwrap_or_else(|error| self.fail(&error));
    }

    pub(super) fn try_take_back(
        self: &Arc<Self>,
        writer: &mut Writer,
        end: Seqno,
    ) -> Result<(), FollowError> {
        let view = self.store.view().max(view_of(*self.role.lock()));
        if self.store.head().seqno > end {
            let mut tx = self.store.begin();
            self.protocols.iter().for_each(|protocol| protocol.taken_back(&mut tx, end));
        }
        self.store.rollback(end, view)?;
        self.sealed_to.iter().for_each(|sealed_to| {
            sealed_to.fetch_min(end.0, Ordering::SeqCst);
        });
        self.queue.take_back(end);
        writer.take_back(end)?;
        self.progress.take_back(end);
        self.recent.write().take_back(end);
        self.historical.clear();
        self.snapshot_due.lock().take_if(|due| due.state.tx_id().seqno > end);
        let taken_back = |coming| (coming > end.0).then_some(0);
        let _ = self.snapshot_coming.fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken_back);
        self.cut_to.store(end.0, Ordering::SeqCst);
        let mut files = self.files.lock();
        let operations = files.rollback(end)?;
        writer.set_chunk_bytes(files.open_bytes());
        if !operations.is_empty() {
            self.submit_unsynced(operations);
        }
        Ok(())
    }

    /// The node's role is this from now on.
    pub(super) fn change_role(self: &Arc<Self>, role: Role) {
        let before = std::mem::replace(&mut *self.role.lock(), role);
        if before == role {
            return;
        }
        if let (Role::Backup { .. }, Role::Backup { .. }) = (before, role) {
            return;
        }
        self.leads.store(false, Ordering::SeqCst);
        let mut writer = self.writer.lock();
        let end = writer.log_end();
        self.try_take_back(&mut writer, end).unwrap_or_else(|error| self.fail(&error));
        if let Role::Primary(view) = before {
            tracing::info!(%view, "this node is no longer the primary");
            self.progress.void(view, end);
        }
        self.in_flight.store(0, Ordering::SeqCst);
        self.stalled.store(false, Ordering::SeqCst);
        if let Role::Primary(view) = role {
            tracing::info!(%view, "this node is the primary");
            if let Err(error) = self.progress.record(TxId { view, seqno: end.next() }) {
                return self.fail(&error);
            }
            writer.must_sign();
            // The batches of others have the records that others have made.
            self.sealed_to.iter().for_each(|sealed_to| sealed_to.store(end.0, Ordering::SeqCst));
            self.leads.store(true, Ordering::SeqCst);
        }
        drop(writer);
        self.wake.notify_one();
        // Nothing of what a node that stops waits for is in flight any more.
        self.drained.notify_waiters();
    }

    pub(super) fn change_membership(&self, membership: Membership) {
        self.channels.follow(&membership);
        *self.membership.write() = membership;
        self.stalled.store(false, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// A primary that stops hands over to whoever has most, so that nobody has to miss it first.
    pub async fn hand_over(self: &Arc<Self>) {
        let best = {
            let mut log = self.log.lock();
            let voters = self.membership.read().voters.clone();
            let others = log.consensus.replicas().into_iter();
            let best = others
                .filter(|replica| voters.contains(&replica.node))
                .max_by_key(|replica| replica.persisted);
            best.filter(|best| log.consensus.transfer(best.node).is_ok())
        };
        if best.is_none() {
            return;
        }
        self.pump();
        for _ in 0..HAND_OVER_WAITS {
            if !self.leads.load(Ordering::SeqCst) {
                return;
            }
            self.host.sleep(HAND_OVER_PAUSE).await;
        }
    }

    /// The log's clock. Runs until the pipeline has stopped.
    pub async fn keep_time(self: Arc<Self>, tick: Duration) {
        while self.standing() != Standing::Stopped && self.standing() != Standing::Failed {
            self.host.sleep(tick).await;
            {
                let mut before = self.committed_before.lock();
                before.push_back(self.progress.committed_seqno());
                if before.len() > CAUGHT_UP_TICKS {
                    before.pop_front();
                }
            }
            self.log.lock().consensus.tick();
            self.pump();
            self.tick_reads();
            if self.leads.load(Ordering::SeqCst) {
                self.promote();
            }
            if self.stalled.swap(false, Ordering::SeqCst) {
                self.wake.notify_one();
            }
        }
    }

    /// Tells the backups what is committed, if no batch comes that does so.
    pub async fn keep_informed(self: Arc<Self>) {
        while self.standing() != Standing::Stopped && self.standing() != Standing::Failed {
            self.committed_signal.notified().await;
            let committed = self.progress.committed_seqno();
            self.host.sleep(QUIET).await;
            if self.leads.load(Ordering::SeqCst)
                && self.progress.committed_seqno() == committed
                && self.in_flight.load(Ordering::SeqCst) == 0
            {
                self.log.lock().consensus.tell_committed();
                self.pump();
            }
        }
    }
}

fn view_of(role: Role) -> View {
    let (Role::Primary(view) | Role::Backup { view, .. }) = role;
    view
}
