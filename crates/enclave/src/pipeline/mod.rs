//! From the commit point to the signed ledger: batches, commitment, receipts.
//!
//! ```text
//!   commit(tx) ──▶ Store::commit ──▶ queue ──┐ cut when somebody waits, the batch is full,
//!   (any task)     one short lock    (order) │ or after a short delay
//!                                            ▼
//!                 writer: seal, encode, encrypt, Merkle append, sign        one at a time
//!                                            ▼
//!                 consensus ──▶ disk ──▶ committed: wake waiters, then hooks
//! ```
//!
//! Cutting is self-clocked: a lone waiter's own task signs and submits the batch; while it is
//! synced, others gather in the next one. An idle pipeline does nothing at all.
//!
//! Invariants:
//! * entries reach the ledger in seqno order, each encrypted once under `(view, seqno)`;
//! * a transaction is reported committed only when the signature after it is as durable as
//!   `ledger.sync` says, and it never becomes anything else;
//! * nothing here is unbounded: uncommitted transactions, batches in flight, receipts in memory.

mod batch;
mod drive;
mod follow;
mod install;
mod latency;
mod progress;
mod queue;
mod reads;
mod receipts;
mod replicate;
mod writer;

#[cfg(test)]
mod network_tests;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coco_adapter::{Adapter, Outcome, Protocol, TxStatus};
pub use coco_adapter::{CommitError, ReceiptError};
use coco_consensus::{Consensus, FrameError, Membership, NodeId, Replica, Role};
use coco_crypto::Digest;
use coco_kv::{Committed, Conflict, Seqno, Store, Tx, TxId, View};
use coco_ledger::{MerkleTree, SnapshotName, ViewHistory};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot, watch};

use drive::{ABSORB_FROM, Counters, Inner};
pub use latency::{LATENCY_BOUNDS_US, Latencies};
use progress::Progress;
use queue::{Pending, Queue, Room, estimated_bytes};
use replicate::Log;
pub(crate) use replicate::{Alone, Channels};
use writer::Writer;
pub(crate) use writer::{KEPT_LEAVES, SnapshotDue};

use crate::channels::wire::SnapshotOffer;
use crate::config::{Config, Sync};
use crate::former::FormerLedger;
use crate::historical::{FetchError, Historical};
use crate::host::{Area, BoxFuture, Host};
use crate::ledger_files::LedgerFiles;
use crate::service::{Clock, ServiceKeys};
use crate::snapshots::{self, FetchRules, Search, VerifiedSnapshot};

/// Executed transactions that are in no batch yet take at most about this much on the ledger: the
/// next batch holds them all, with the protocols' records of them.
pub(crate) const MAX_UNCUT_BYTES: u64 = 64 << 20;
const _: () = assert!(2 * MAX_UNCUT_BYTES <= coco_consensus::wire::MAX_BATCH_BYTES as u64);

/// A transaction that has passed the commit point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Its own id, or for one that wrote nothing the id of the state it has read.
    pub tx_id: TxId,
    /// Whether it wrote anything and so has a place on the ledger.
    pub wrote: bool,
}

/// What the pipeline has done since the node started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Transactions that wrote something, signatures not counted.
    pub transactions: u64,
    /// Executions thrown away because of a conflict.
    pub conflicts: u64,
    /// Batches signed.
    pub batches: u64,
    /// Bytes of entries.
    pub ledger_bytes: u64,
    /// Transactions executed and not yet committed.
    pub uncommitted: u64,
    /// Batches made here, proposed and not yet committed.
    pub in_flight: u64,
    /// How long those took that are.
    pub latencies: Latencies,
}

/// Limits and intervals, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub delay: Duration,
    /// Between signatures of the node's own.
    pub node_delay: Duration,
    pub tx_count: u64,
    pub max_uncommitted: u64,
    pub max_transaction_bytes: u64,
    pub chunk_bytes: u64,
    pub snapshot_tx_count: u64,
    /// How snapshots of other nodes are fetched, if at all.
    pub snapshot_fetch: Option<FetchRules>,
    pub sync: Sync,
    pub sync_interval: Duration,
}

impl Settings {
    pub fn of(config: &Config) -> Self {
        Self {
            delay: config.ledger_signatures.delay.0,
            node_delay: config.ledger_signatures.node_delay.0,
            tx_count: config.ledger_signatures.tx_count,
            max_uncommitted: config.consensus.max_uncommitted_tx_count,
            max_transaction_bytes: config.ledger.max_transaction_size.0,
            chunk_bytes: config.ledger.chunk_size.0,
            snapshot_tx_count: config.snapshots.tx_count.max(1),
            snapshot_fetch: FetchRules::of(config),
            sync: config.ledger.sync,
            sync_interval: config.ledger.sync_interval.0,
        }
    }
}

/// Whether the pipeline takes transactions; it only ever goes down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Running,
    /// Finishes what was executed.
    Stopping,
    Stopped,
    /// The disk or the keys have failed.
    Failed,
}

impl Standing {
    fn of_number(number: u8) -> Self {
        [Self::Running, Self::Stopping, Self::Stopped]
            .into_iter()
            .find(|standing| *standing as u8 == number)
            .unwrap_or(Self::Failed)
    }
}

/// The ledger that a pipeline continues, and everything it works with.
pub(crate) struct Continuation {
    pub host: Arc<dyn Host>,
    pub store: Store,
    pub keys: Arc<ServiceKeys>,
    pub clock: Arc<Clock>,
    /// All that hear of commitment.
    pub adapters: Vec<Arc<dyn Adapter>>,
    /// Those of them that seal batches.
    pub protocols: Vec<Arc<dyn Protocol>>,
    pub settings: Settings,
    /// Leaves of everything on the ledger, which ends with a signature.
    pub tree: MerkleTree,
    /// The views so far, up to the one that begins now.
    pub views: ViewHistory,
    pub consensus: Box<dyn Consensus>,
    /// Who takes part in it, as far as that is known.
    pub membership: Membership,
    /// The ways to the other nodes.
    pub channels: Arc<dyn Channels>,
    pub files: LedgerFiles,
    /// What a former node has left there, if this one joins.
    pub former: Option<FormerLedger>,
    pub last_snapshot: Seqno,
    /// Bytes of history kept in memory.
    pub historical_cache_bytes: u64,
    /// Whether what is written belongs to a recovery that its members have not completed.
    pub is_recovery: bool,
}

/// Cuts the batch of somebody who waits. If the wait is given up before, the writer's task does.
struct CutForWaiter {
    inner: Option<Arc<Inner>>,
}

impl CutForWaiter {
    /// Cuts, once those have come along who can.
    async fn soon(mut self) {
        let Some(inner) = &self.inner else { return };
        let gathered = inner.gather().await;
        if let Some(inner) = self.inner.take().filter(|_| gathered) {
            inner.cut_for_waiter();
        }
    }
}

impl Drop for CutForWaiter {
    fn drop(&mut self) {
        if let Some(inner) = &self.inner {
            inner.wake.notify_one();
        }
    }
}

/// The commit pipeline of a node; clones share it.
#[derive(Clone)]
pub struct Pipeline {
    inner: Arc<Inner>,
}

impl Pipeline {
    /// Continues a ledger. [`run`](Self::run) must be spawned for batches to be cut.
    pub(crate) fn new(parts: Continuation) -> Self {
        let last = Seqno(parts.tree.len() - 1);
        let historical = Historical::new(
            Arc::clone(&parts.host),
            Arc::clone(&parts.keys),
            Arc::clone(&parts.channels),
            parts.historical_cache_bytes,
        );
        let role = parts.consensus.role();
        let sealed_to = parts.protocols.iter().map(|_| AtomicU64::new(last.0)).collect();
        let inner = Inner {
            host: parts.host,
            store: parts.store,
            keys: parts.keys,
            clock: parts.clock,
            adapters: parts.adapters,
            protocols: parts.protocols,
            settings: parts.settings,
            queue: Queue::starting_after(last),
            progress: Progress::new(last, parts.views),
            recent: RwLock::default(),
            writer: Mutex::new(Writer::new(parts.tree, parts.last_snapshot)),
            log: Mutex::new(Log::new(parts.consensus)),
            channels: parts.channels,
            role: Mutex::new(role),
            leads: AtomicBool::new(matches!(role, Role::Primary(_))),
            reads: Mutex::default(),
            membership: RwLock::new(parts.membership),
            installing: Mutex::default(),
            install_signal: Notify::new(),
            startup_seqno: AtomicU64::new(parts.last_snapshot.0),
            former: Mutex::new(parts.former.map(Arc::new)),
            files_tree: Mutex::default(),
            historical: Arc::new(historical),
            committed_before: Mutex::default(),
            files: Mutex::new(parts.files),
            hooks: RwLock::default(),
            snapshot_due: Mutex::default(),
            snapshot_coming: AtomicU64::new(0),
            snapshot_signal: Notify::new(),
            standing: AtomicU8::new(Standing::Running as u8),
            wake: Notify::new(),
            gathers: AtomicBool::new(false),
            committed_signal: Notify::new(),
            drained: Notify::new(),
            counters: Counters::default(),
            executed: AtomicUsize::new(0),
            cut_to: AtomicU64::new(last.0),
            sealed_to,
            cut_by_us: AtomicU64::new(u64::MAX),
            cutting_us: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            stalled: AtomicBool::new(false),
            recovery: watch::Sender::new(parts.is_recovery),
            recovery_end: Mutex::default(),
            pump_requests: AtomicUsize::new(0),
            unsynced: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The writer's task.
    pub(crate) fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        Arc::clone(&self.inner).run()
    }

    /// The tasks of one of several nodes: the log's clock, what tells the backups of commits, and
    /// what brings the ledger here when the log asks for it.
    pub(crate) fn replicate(&self, tick: Duration) -> [BoxFuture<'static, ()>; 3] {
        let inner = &self.inner;
        [
            Box::pin(Arc::clone(inner).keep_time(tick)),
            Box::pin(Arc::clone(inner).keep_informed()),
            Box::pin(Arc::clone(inner).keep_installed()),
        ]
    }

    /// A frame of the log has come from another node, which has been authenticated.
    pub(crate) fn receive(&self, from: NodeId, frame: Bytes) -> Result<(), FrameError> {
        if matches!(self.inner.standing(), Standing::Stopped | Standing::Failed) {
            return Ok(());
        }
        let received = self.inner.log.lock().consensus.receive(from, frame);
        self.inner.pump();
        received
    }

    /// Frames to a node are being lost.
    pub(crate) fn unreachable(&self, node: NodeId) {
        self.inner.log.lock().consensus.unreachable(node);
        self.inner.pump();
    }

    /// What this node is now.
    pub fn role(&self) -> Role {
        *self.inner.role.lock()
    }

    /// Whether this node takes transactions that write, as primary.
    pub fn leads(&self) -> bool {
        self.inner.leads.load(Ordering::SeqCst)
    }

    /// How far the other nodes are; known to the primary only.
    pub fn replicas(&self) -> Vec<Replica> {
        self.inner.log.lock().consensus.replicas()
    }

    /// Who takes part in the log.
    pub fn membership(&self) -> Membership {
        self.inner.membership.read().clone()
    }

    /// Entries of the ledger that follow `after`, up to `to` at most, all of them committed: some,
    /// or none if there are none to give.
    ///
    /// The node that asks knows `committed` to be, which this one may not have heard. If the log
    /// here has that very transaction, all before it is the same in both (log matching), so that
    /// it is given, and nothing after it. Otherwise a node that must have the ledger before it can
    /// vote, and one that cannot learn what is committed without that vote, would wait for ever.
    pub(crate) async fn ledger(
        &self,
        after: Seqno,
        to: Seqno,
        committed: TxId,
    ) -> Result<Bytes, FetchError> {
        let inner = &*self.inner;
        let mut known = inner.progress.committed_seqno();
        if committed.seqno > known && inner.log.lock().consensus.has_persisted(committed) {
            known = committed.seqno;
        }
        let (first, last) = (after.next(), to.min(known));
        if last < first {
            return Ok(Bytes::new());
        }
        inner.historical.entries_of(&inner.progress.views(), first, last).await
    }

    /// The newest snapshot of this node that is no later than `to`, or the one that is coming.
    pub(crate) async fn snapshot_offer(&self, to: Seqno) -> std::io::Result<SnapshotOffer> {
        let coming = Seqno(self.inner.snapshot_coming.load(Ordering::SeqCst));
        let files = snapshots::committed(&*self.inner.host).await?;
        let newest = files.into_iter().find(|file| file.name.seqno <= to);
        Ok(match newest {
            Some(file) if coming <= file.name.seqno || coming > to => {
                SnapshotOffer::There(file.name, file.len_bytes)
            }
            None if coming == Seqno(0) || coming > to => SnapshotOffer::Nothing,
            _ => SnapshotOffer::Coming(coming),
        })
    }

    /// Brings the newest snapshot of other nodes here, unless one as new is here already. Returns
    /// the newest that is here then.
    pub(crate) async fn fetch_snapshot(
        &self,
        rules: FetchRules,
    ) -> std::io::Result<Option<SnapshotName>> {
        let inner = &*self.inner;
        let (host, channels, keys) = (&*inner.host, &*inner.channels, &*inner.keys);
        let newest = || async { Ok(snapshots::committed(host).await?.first().map(|it| it.name)) };
        let here: Option<SnapshotName> = newest().await?;
        let after = here.map_or(Seqno(0), |name| name.seqno);
        let to = self.last_committed().seqno;
        match (Search { host, channels, keys, rules, after, to }).newest().await {
            Some(VerifiedSnapshot) => newest().await,
            None => Ok(here),
        }
    }

    /// Bytes of a committed snapshot of this node, from `offset` on.
    pub(crate) async fn snapshot_piece(
        &self,
        name: SnapshotName,
        offset: u64,
    ) -> std::io::Result<Bytes> {
        let disk = self.inner.host.disk();
        let read =
            disk.read(Area::Snapshots, &name.to_string(), offset, snapshots::PIECE_BYTES as u64);
        Ok(read.await?.into())
    }

    /// Whether the ledger is being brought here from other nodes.
    pub(crate) fn is_installing(&self) -> bool {
        self.inner.installing.lock().is_some()
    }

    /// The position from which the node went on without replaying: that of a snapshot, or 0.
    pub(crate) fn startup_seqno(&self) -> Seqno {
        Seqno(self.inner.startup_seqno.load(Ordering::SeqCst))
    }

    /// The store: begin transactions here, commit them with [`commit`](Self::commit).
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The commit point: gives the transaction its place in the order, or refuses it. Whether to
    /// keep its writes is decided before; `outcome` says what else is to be recorded.
    pub fn commit(&self, tx: Tx, outcome: &Outcome) -> Result<Executed, CommitError> {
        let (executed, waiting) = self.execute(tx, outcome)?;
        // The first in the queue starts the clock; a long queue is encoded ahead of the cut.
        if waiting == 1 || waiting > 0 && waiting.is_multiple_of(ABSORB_FROM) {
            self.inner.wake.notify_one();
        }
        Ok(executed)
    }

    /// [`commit`](Self::commit) and [`wait_committed`](Self::wait_committed) in one: the caller
    /// waits anyway, so that nobody else needs to be woken to write the batch.
    pub fn commit_and_wait(
        &self,
        tx: Tx,
        outcome: &Outcome,
    ) -> Result<(Executed, impl Future<Output = TxStatus> + Send + 'static), CommitError> {
        let (executed, _) = self.execute(tx, outcome)?;
        Ok((executed, self.wait_committed(executed.tx_id)))
    }

    fn execute(&self, tx: Tx, outcome: &Outcome) -> Result<(Executed, usize), CommitError> {
        self.inner.executed.fetch_add(1, Ordering::Relaxed);
        if !tx.has_writes() {
            return Ok((Executed { tx_id: tx.read_tx_id(), wrote: false }, 0));
        }
        let inner = &*self.inner;
        let bytes = estimated_bytes(tx.writes());
        let room = self.admit(bytes)?;
        let claims = outcome.claims.unwrap_or(Digest::ZERO);
        let &Outcome { force_chunk, force_snapshot, .. } = outcome;
        let committed = inner.store.commit(tx, |tx_id, writes| {
            inner.enqueue(Pending { tx_id, writes, claims, force_chunk, force_snapshot, bytes })
        });
        match committed {
            Ok(Committed::ReadOnly(tx_id)) => Ok((Executed { tx_id, wrote: false }, 0)),
            Ok(Committed::Written(tx_id, waiting)) => {
                room.fill();
                Ok((Executed { tx_id, wrote: true }, waiting))
            }
            Err(Conflict::Changed { .. } | Conflict::RolledBack) => {
                inner.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                Err(CommitError::Conflict)
            }
            Err(Conflict::Detached) => Err(CommitError::Detached),
        }
    }

    /// Room for a transaction of this size, if it may pass the commit point now.
    fn admit(&self, bytes: u64) -> Result<Room<'_>, CommitError> {
        let Settings { max_uncommitted, max_transaction_bytes: limit, .. } = self.inner.settings;
        if self.inner.standing() != Standing::Running {
            return Err(CommitError::Stopped);
        }
        if !self.leads() {
            return Err(CommitError::NotPrimary);
        }
        if bytes > limit {
            return Err(CommitError::TooLarge { bytes, limit });
        }
        let is_full = self.uncommitted() >= max_uncommitted;
        let room = self.inner.queue.room(bytes, MAX_UNCUT_BYTES).filter(|_| !is_full);
        room.ok_or_else(|| {
            self.inner.wake.notify_one();
            CommitError::TooManyPending
        })
    }

    fn uncommitted(&self) -> u64 {
        let executed = self.inner.queue.executed().0;
        executed.saturating_sub(self.inner.progress.committed_seqno().0)
    }

    /// Resolves when the fate of a transaction is known: `Committed` or `Invalid`; or `Pending` if
    /// the node stops before. The wait begins at the call.
    pub fn wait_committed(
        &self,
        tx_id: TxId,
    ) -> impl Future<Output = TxStatus> + Send + 'static + use<> {
        let waiting = self.inner.progress.wait(tx_id, self.inner.queue.executed());
        let cut = waiting.is_pending().then(|| CutForWaiter { inner: Some(self.inner.clone()) });
        async move {
            if let Some(cut) = cut {
                cut.soon().await;
            }
            waiting.outcome().await
        }
    }

    /// Has what was executed signed and written so long from now, as `coco_adapter::Node` says.
    pub fn cut_within(&self, pause: Duration) {
        self.inner.cut_within(pause);
    }

    /// Resolves when more is committed than now, or the node stops: what was refused because of too
    /// many uncommitted transactions may be tried again.
    pub fn more_committed(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let seqno = self.inner.progress.committed_seqno().next();
        let view = self.inner.progress.view_of(seqno).unwrap_or_default();
        let waiting = self.wait_committed(TxId { view, seqno });
        async move {
            waiting.await;
        }
    }

    /// Resolves when the state here holds everything that was committed, by any primary, when the
    /// call was made, as a quorum has confirmed; false if that takes longer than `patience`.
    pub fn catch_up(
        &self,
        patience: Duration,
    ) -> impl Future<Output = bool> + Send + 'static + use<> {
        let inner = Arc::clone(&self.inner);
        async move { inner.catch_up(patience).await }
    }

    /// What is known of a transaction.
    pub fn status(&self, tx_id: TxId) -> TxStatus {
        self.inner.progress.status(tx_id, self.inner.queue.executed())
    }

    /// The last committed transaction.
    pub fn last_committed(&self) -> TxId {
        self.inner.progress.committed()
    }

    /// The first seqno of each view: element `i` is that of view `i + 1`.
    pub fn view_history(&self) -> Vec<Seqno> {
        self.inner.progress.views().starts().to_vec()
    }

    /// The view in which a position was or will be written.
    pub fn view_for_seqno(&self, seqno: Seqno) -> Option<View> {
        self.inner.progress.view_of(seqno).filter(|_| seqno <= self.inner.queue.executed())
    }

    /// The Merkle root over everything up to and including `seqno`, if that is recent. Encodes what
    /// is executed by now.
    pub fn root_at(&self, seqno: Seqno) -> Option<Digest> {
        let mut writer = self.inner.writer.lock();
        if writer.last() < seqno && seqno <= self.inner.queue.executed() {
            self.inner.absorb(&mut writer);
        }
        writer.root_at(seqno)
    }

    /// Calls `hook` on a task of the node whenever more is committed, with the last transaction.
    pub fn on_committed(&self, hook: Box<dyn Fn(TxId) + Send + std::marker::Sync>) {
        self.inner.hooks.write().push(hook);
    }

    /// Takes no more transactions, signs and writes what was executed, waits until it is on the
    /// disk, and leaves the ledger's files exact.
    pub(crate) async fn stop(&self) {
        let inner = &self.inner;
        inner.set_standing(Standing::Stopping);
        loop {
            let drained = inner.drained.notified();
            if inner.standing() != Standing::Stopping || self.finish() {
                break;
            }
            drained.await;
        }
        inner.hand_over().await;
        if inner.standing() == Standing::Stopping {
            let trim = inner.files.lock().trim();
            let (done, written) = oneshot::channel();
            let sync = inner.settings.sync != Sync::Never;
            let report = Box::new(move |result| {
                let _ = done.send(result);
            });
            inner.host.disk().submit(Area::Ledger, trim, sync, report);
            if let Ok(Err(error)) = written.await {
                tracing::error!(%error, "the ledger could not be closed");
            }
        }
        inner.set_standing(Standing::Stopped);
        inner.progress.close();
        inner.wake.notify_one();
    }

    /// Cuts what is left if there is room; whether nothing is left.
    fn finish(&self) -> bool {
        let inner = &self.inner;
        let rest = |writer: &Writer| inner.queue.len() + writer.unsigned().0;
        let writer = inner.writer.lock();
        if rest(&writer) > 0 && inner.has_room() {
            inner.cut(writer);
        } else {
            drop(writer);
        }
        rest(&inner.writer.lock()) == 0 && inner.in_flight.load(Ordering::SeqCst) == 0
    }

    /// Whether the disk or the keys have failed, so that nothing more is committed.
    pub fn has_failed(&self) -> bool {
        self.inner.standing() == Standing::Failed
    }

    /// Whether what is written belongs to a recovery that is not complete: a restart would set it
    /// aside.
    pub(crate) fn is_recovering(&self) -> bool {
        *self.inner.recovery.borrow()
    }

    /// Resolves once nothing is being recovered any more.
    pub(crate) async fn recovered(&self) {
        // The sender is `inner`'s, so that it is not dropped meanwhile.
        let _ = self.inner.recovery.subscribe().wait_for(|recovering| !recovering).await;
    }

    /// Makes everything that a recovery has written a part of the ledger, for good.
    pub(crate) async fn end_recovery(&self) -> std::io::Result<()> {
        let (done, renamed) = oneshot::channel();
        *self.inner.recovery_end.lock() = Some(done);
        self.inner.pump();
        renamed.await.unwrap_or_else(|_| Err(std::io::Error::other("the disk gave no answer")))?;
        self.inner.recovery.send_replace(false);
        Ok(())
    }

    /// The snapshot that is due, if it was not taken yet.
    pub(crate) fn take_snapshot_due(&self) -> Option<SnapshotDue> {
        self.inner.snapshot_due.lock().take()
    }

    /// Resolves when a snapshot may have become due; at once if one was since the last call.
    pub(crate) fn snapshot_due(&self) -> impl Future<Output = ()> + '_ {
        self.inner.snapshot_signal.notified()
    }

    /// The snapshot of this position is written, or will not be.
    pub(crate) fn snapshot_done(&self, seqno: Seqno) {
        let coming = &self.inner.snapshot_coming;
        let _ = coming.compare_exchange(seqno.0, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Begins the count to the next snapshot at `seqno`, after one of so many bytes.
    pub(crate) fn note_snapshot(&self, seqno: Seqno, bytes: u64) {
        self.inner.writer.lock().note_snapshot(seqno, bytes);
    }

    /// Transactions written after the last snapshot, and after what belongs to it.
    pub(crate) fn since_snapshot(&self) -> u64 {
        self.inner.writer.lock().since_snapshot()
    }

    /// The views so far, as a snapshot of `seqno` records them.
    pub(crate) fn views_to(&self, seqno: Seqno) -> ViewHistory {
        let mut views = self.inner.progress.views();
        views.retract_to(seqno);
        views
    }

    /// What the pipeline has done since the node started.
    pub fn metrics(&self) -> Metrics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.inner.counters;
        Metrics {
            transactions: count(&counters.transactions),
            conflicts: count(&counters.conflicts),
            batches: count(&counters.batches),
            ledger_bytes: count(&counters.bytes),
            uncommitted: self.uncommitted(),
            in_flight: self.inner.in_flight.load(Ordering::SeqCst) as u64,
            latencies: counters.latencies.read(),
        }
    }
}
