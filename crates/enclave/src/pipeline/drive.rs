//! When batches are cut, and what carries them to the log, the disk and their waiters.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use coco_adapter::{Adapter, AdapterError, Batch, Held, Protocol};
use coco_consensus::{Change, ConsensusError, Effect, Membership, Role, WriteNo};
use coco_governance::tables::TableError;
use coco_kv::{Seqno, Store, TxId};
use coco_ledger::{MAX_BATCHES_IN_FLIGHT, MerkleTree};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::{Notify, oneshot, watch};

use super::batch::RecentBatches;
use super::latency::Histogram;
use super::progress::Progress;
use super::queue::{Pending, Queue, Room, estimated_bytes};
use super::reads::Reads;
use super::replicate::{Channels, Log, Order};
use super::writer::{CutRules, Offer, SnapshotDue, WriteError, Writer};
use super::{Settings, Standing};
use crate::config::Sync;
use crate::former::FormerLedger;
use crate::historical::Historical;
use crate::host::{Area, DiskOp, Done, Host};
use crate::ledger_files::LedgerFiles;
use crate::service::{Clock, ServiceKeys};

/// From this many executed transactions on, the writer's task encodes them ahead of the cut.
pub(super) const ABSORB_FROM: usize = 256;
/// A waiter cuts the batch itself if it is at most this long; longer ones are for the task.
const MAX_CUT_BY_WAITER: usize = 64;
/// A batch is cut at this size even if nobody waits.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// A protocol's wish to have a batch soon is met after so many times what the last one took to cut,
/// if that is longer, up to a limit.
const PAUSE_BY_CUTTING: u32 = 8;
const MAX_PAUSE: Duration = Duration::from_millis(10);
/// Whoever is to cut for those who wait goes on when in so many turns of the executor nobody came
/// along: they take a part of the time that a batch takes.
const GATHER_PATIENCE: usize = 40;
/// Tries of a protocol's seal against transactions of others that execute meanwhile.
const MAX_SEAL_TRIES: usize = 100;

/// A function that learns how far the ledger is committed.
pub(super) type Hook = Box<dyn Fn(TxId) + Send + std::marker::Sync>;

/// The state of the pipeline, shared by everybody who commits, waits, writes and persists.
pub(super) struct Inner {
    pub host: Arc<dyn Host>,
    pub store: Store,
    pub keys: Arc<ServiceKeys>,
    pub clock: Arc<Clock>,
    pub adapters: Vec<Arc<dyn Adapter>>,
    pub protocols: Vec<Arc<dyn Protocol>>,
    pub settings: Settings,
    pub queue: Queue,
    pub progress: Progress,
    pub recent: RwLock<RecentBatches>,
    pub writer: Mutex<Writer>,
    pub log: Mutex<Log>,
    pub channels: Arc<dyn Channels>,
    /// What the node is, as far as it has acted upon it.
    pub role: Mutex<Role>,
    /// Whether it takes transactions, as primary.
    pub leads: AtomicBool,
    /// Who waits until the state here is recent.
    pub reads: Mutex<Reads>,
    pub membership: RwLock<Membership>,
    /// What the log has asked for, until it is brought here.
    pub installing: Mutex<Option<TxId>>,
    pub install_signal: Notify,
    /// The state that the node went on from without replaying; 0 if there was none.
    pub startup_seqno: AtomicU64,
    /// What a former node has left in the directory of the ledger, until the log asks for more.
    pub former: Mutex<Option<Arc<FormerLedger>>>,
    /// The tree up to the end of the files, while the state is not there yet.
    pub files_tree: Mutex<Option<MerkleTree>>,
    pub historical: Arc<Historical>,
    /// How far the ledger was committed, tick by tick, the last few of them.
    pub committed_before: Mutex<VecDeque<Seqno>>,
    pub files: Mutex<LedgerFiles>,
    pub hooks: RwLock<Vec<Hook>>,
    /// Until it is begun; a newer one takes its place.
    pub snapshot_due: Mutex<Option<SnapshotDue>>,
    /// The newest snapshot that is due or being written; 0 if none is.
    pub snapshot_coming: AtomicU64,
    /// Wakes whoever writes snapshots.
    pub snapshot_signal: Notify,
    pub standing: AtomicU8,
    /// Wakes the writer's task.
    pub wake: Notify,
    /// Somebody waits for company before a batch is cut, and cuts it then.
    pub gathers: AtomicBool,
    /// Wakes whoever tells the backups what is committed.
    pub committed_signal: Notify,
    /// Wakes whoever waits for the pipeline to run empty.
    pub drained: Notify,
    pub counters: Counters,
    /// Transactions, also those that only read, since somebody asked whether a client is alone.
    pub executed: AtomicUsize,
    /// The last signature.
    pub cut_to: AtomicU64,
    /// The last position that each protocol has sealed.
    pub sealed_to: Vec<AtomicU64>,
    /// When the next batch is to be cut at the latest, in microseconds of uptime.
    pub cut_by_us: AtomicU64,
    /// What the last batch took to cut, in microseconds.
    pub cutting_us: AtomicU64,
    /// Batches made here and not committed.
    pub in_flight: AtomicUsize,
    /// The log takes nothing until it has gone on.
    pub stalled: AtomicBool,
    /// Calls to carry out effects; the first caller works for all.
    pub pump_requests: AtomicUsize,
    /// Something was written and not synced, under `ledger.sync = interval`.
    pub unsynced: AtomicBool,
    /// Whether the ledger's new files are those of a recovery that is not complete.
    pub recovery: watch::Sender<bool>,
    /// Set when it is complete: their names are still to be changed. Tells when they are.
    pub recovery_end: Mutex<Option<oneshot::Sender<std::io::Result<()>>>>,
}

/// A batch cannot be closed.
#[derive(Debug, thiserror::Error)]
enum CutError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the list of nodes: {0}")]
    Nodes(#[from] TableError),
    #[error(transparent)]
    Log(#[from] ConsensusError),
}

/// A protocol has no record of the batch: it must not be signed without.
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error("{name} cannot seal the batch: {error}")]
    Refused { name: &'static str, error: AdapterError },
    #[error("{name} cannot seal the batch: others keep changing what it reads")]
    Contended { name: &'static str },
}

/// Somebody gathers, until this is dropped.
struct Gathers<'a>(&'a AtomicBool);

impl Drop for Gathers<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What the pipeline has done so far.
#[derive(Default)]
pub(super) struct Counters {
    pub transactions: AtomicU64,
    pub conflicts: AtomicU64,
    pub batches: AtomicU64,
    pub bytes: AtomicU64,
    pub latencies: Histogram,
}

impl Inner {
    /// The writer's task: runs until the pipeline has stopped.
    pub async fn run(self: Arc<Self>) {
        let mut due_at: Option<Duration> = None;
        let mut sync_at: Option<Duration> = None;
        let mut told = self.progress.committed_seqno();
        while self.standing() != Standing::Stopped && self.standing() != Standing::Failed {
            // Without room for a batch, the next one persisted wakes the task.
            let cut_at = due_at.filter(|_| self.has_room());
            let next = [cut_at, sync_at].into_iter().flatten().min();
            match next.map(|at| at.saturating_sub(self.host.uptime())) {
                Some(Duration::ZERO) => {}
                Some(pause) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = self.host.sleep(pause) => {}
                },
                None => self.wake.notified().await,
            }
            told = self.tell_committed(told);

            if self.is_wanted() {
                self.gather().await;
            }
            let now = self.host.uptime();
            self.write(due_at.is_some_and(|at| at <= now));
            let waiting = self.queue.len() > 0 || self.writer.lock().has_work();
            let asked_for = Duration::from_micros(self.cut_by_us.load(Ordering::SeqCst));
            due_at = waiting.then(|| due_at.unwrap_or(now + self.settings.delay).min(asked_for));
            sync_at = self.sync_in_time(sync_at, now);
        }
    }

    /// Encodes what is executed, and cuts a batch if one is due and there is room for it.
    fn write(self: &Arc<Self>, is_due: bool) {
        let mut writer = self.writer.lock();
        if self.queue.len() >= ABSORB_FROM && !self.absorb(&mut writer) {
            return;
        }
        let (entries, bytes) = writer.unsigned();
        let full = (entries + self.queue.len()) as u64 >= self.settings.tx_count
            || bytes >= MAX_BATCH_BYTES;
        let asked_for = writer.must_be_signed();
        if (is_due || full || asked_for) && self.has_room() {
            self.cut(writer);
        } else if self.is_wanted() {
            self.cut_on_lent_thread(writer);
        } else {
            drop(writer);
        }
        if self.is_wanted() {
            self.wake.notify_one();
        }
    }

    /// Lets those come along who can go on soon, if as many wait as when the last batch was
    /// committed: one batch then serves all of them. One gathers for all; false for the others.
    pub async fn gather(&self) -> bool {
        if self.gathers.swap(true, Ordering::SeqCst) {
            return false;
        }
        let _gathers = Gathers(&self.gathers);
        let expected = self.progress.crowd();
        let (mut here, mut turns) = (self.progress.waiting(), 0);
        while here < expected && turns < GATHER_PATIENCE && self.is_idle() {
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut here, self.progress.waiting());
            turns = if here > before { 0 } else { turns + 1 };
        }
        true
    }

    /// Cuts the batch for somebody who waits, on this thread if nobody else is writing, and lends
    /// it to the disk.
    pub fn cut_for_waiter(self: &Arc<Self>) {
        if !self.is_awaited() || !self.is_idle() {
            // The batch in flight wakes the task when it is done.
            return;
        }
        let short = self.queue.len() <= MAX_CUT_BY_WAITER;
        let Some(writer) = short.then(|| self.writer.try_lock()).flatten() else {
            self.wake.notify_one();
            return;
        };
        // Somebody may have cut before the lock was ours.
        if self.is_idle() {
            self.cut_on_lent_thread(writer);
        }
        if self.is_awaited() && self.is_idle() {
            self.wake.notify_one();
        }
    }

    fn cut_on_lent_thread(self: &Arc<Self>, writer: MutexGuard<'_, Writer>) {
        let mut writer = Some(writer);
        self.host.disk().lend_thread(Area::Ledger, self.serves_one(), &mut || {
            if let Some(writer) = writer.take() {
                self.cut(writer);
            }
        });
    }

    /// Whether one client has had the node for itself since this was asked last, and waits: others,
    /// and other nodes, would have to wait with it.
    fn serves_one(&self) -> bool {
        self.executed.swap(0, Ordering::Relaxed) <= 1
            && self.progress.waiting() <= 1
            && self.progress.crowd() <= 1
            && self.membership.read().is_alone()
    }

    /// Whether a batch is to be cut for those who wait, and nobody else is about to.
    fn is_wanted(&self) -> bool {
        self.is_awaited() && self.is_idle() && !self.gathers.load(Ordering::SeqCst)
    }

    /// Whether somebody waits for a transaction that no signature covers yet.
    fn is_awaited(&self) -> bool {
        // What was taken back while a waiter came is not executed any more.
        let wanted = self.progress.wanted().min(self.queue.executed());
        wanted.0 > self.cut_to.load(Ordering::SeqCst)
    }

    /// Has the next batch cut so long from now at the latest; under load somewhat later, so that
    /// what each batch costs is shared by more transactions.
    pub fn cut_within(&self, pause: Duration) {
        let cutting = Duration::from_micros(self.cutting_us.load(Ordering::Relaxed));
        let pause = pause.max(cutting.saturating_mul(PAUSE_BY_CUTTING).min(MAX_PAUSE));
        let at = self.host.uptime().saturating_add(pause).as_micros();
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        if self.cut_by_us.fetch_min(at, Ordering::SeqCst) > at {
            self.wake.notify_one();
        }
    }

    /// Whether a batch for those who wait may be cut. While one is in flight they gather in the next:
    /// more batches are no faster, and each costs a signature and a sync.
    pub fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0 && !self.stalled.load(Ordering::SeqCst)
    }

    pub fn has_room(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) < MAX_BATCHES_IN_FLIGHT
            && !self.stalled.load(Ordering::SeqCst)
    }

    /// Encodes what is executed; false if the ledger cannot be continued.
    pub fn absorb(&self, writer: &mut Writer) -> bool {
        let written = writer.absorb(self.queue.take(), &self.keys.secrets());
        written.map_err(|error| self.fail(&error)).is_ok()
    }

    /// Signs what is written and proposes it; nothing happens if there is nothing. The next batch
    /// may be written while this one is carried out.
    pub fn cut(self: &Arc<Self>, mut writer: MutexGuard<'_, Writer>) {
        if self.standing() == Standing::Failed {
            return;
        }
        let began = self.host.uptime();
        if let Err(error) = self.try_cut(&mut writer) {
            return self.fail(&error);
        }
        let took = self.host.uptime().saturating_sub(began).as_micros();
        self.cutting_us.store(u64::try_from(took).unwrap_or(u64::MAX), Ordering::Relaxed);
        drop(writer);
        self.pump();
    }

    fn try_cut(&self, writer: &mut Writer) -> Result<(), CutError> {
        // Who asks from here on may not be in this batch.
        self.cut_by_us.store(u64::MAX, Ordering::SeqCst);
        if writer.offer().is_some() {
            return Ok(self.propose(writer)?);
        }
        let secrets = self.keys.secrets();
        writer.absorb(self.queue.take(), &secrets)?;
        if !writer.has_work() {
            return Ok(());
        }
        // What is once encrypted must be proposed as it is or never.
        let may_propose = self.log.lock().consensus.may_propose();
        if let Err(refusal) = may_propose {
            return Ok(self.wait_for_log(refusal)?);
        }
        let held = self.seal()?;
        // Whatever is executed before the signature's position is in the queue, and goes before it.
        let (tx_id, before, pending) = self.store.reserve(|tx_id, before| {
            self.queue.skip(tx_id.seqno);
            (tx_id, before, self.queue.take())
        });
        drop(held);
        writer.absorb(pending, &secrets)?;
        let rules = CutRules {
            now: self.host.uptime(),
            node_delay: self.settings.node_delay,
            chunk_bytes: self.settings.chunk_bytes,
            snapshot_tx_count: self.settings.snapshot_tx_count,
            is_snapshot_coming: self.snapshot_coming.load(Ordering::SeqCst) > 0,
            committed: self.progress.committed_seqno(),
        };
        let follows_nodes = writer.take_changes_nodes() || self.has_learners();
        let changes = if follows_nodes { self.changes(before.clone())? } else { Vec::new() };
        if changes.iter().any(|change| matches!(change, Change::Learner(_))) {
            writer.prepare_for_learner();
        }
        let issued_at_s = i64::try_from(self.clock.now_ms() / 1_000).unwrap_or(i64::MAX);
        let signer = self.keys.signer();
        let cut = writer.sign(tx_id, before, signer, &secrets, issued_at_s, rules)?;
        self.queue.cut();
        if self.store.fill(tx_id, &cut.writes).is_err() {
            // Only a rollback takes back a reservation, and that needs the writer.
            tracing::error!(%tx_id, "a signature transaction was rolled back while it was signed");
        }
        self.recent.write().push(cut.signed);
        if let Some(due) = cut.snapshot {
            self.snapshot_coming.store(tx_id.seqno.0, Ordering::SeqCst);
            *self.snapshot_due.lock() = Some(due);
            self.snapshot_signal.notify_one();
        }
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(cut.batch.entries.len() as u64, Ordering::Relaxed);

        self.cut_to.store(tx_id.seqno.0, Ordering::SeqCst);
        writer.set_offer(Offer { batch: cut.batch, changes });
        Ok(self.propose(writer)?)
    }

    fn has_learners(&self) -> bool {
        !self.membership.read().learners.is_empty()
    }

    /// Lets each protocol write its record of the transactions since its last one. Until what is
    /// returned is dropped, none of their transactions passes the commit point.
    fn seal(&self) -> Result<Vec<Box<dyn Held + '_>>, SealError> {
        let mut held = Vec::with_capacity(self.protocols.len());
        for (protocol, sealed_to) in self.protocols.iter().zip(&self.sealed_to) {
            held.push(protocol.hold());
            self.seal_one(&**protocol, sealed_to)?;
        }
        Ok(held)
    }

    /// Tries again if transactions of other adapters change what the protocol has read.
    fn seal_one(&self, protocol: &dyn Protocol, sealed_to: &AtomicU64) -> Result<(), SealError> {
        let first = Seqno(sealed_to.load(Ordering::SeqCst)).next();
        for _ in 0..MAX_SEAL_TRIES {
            let mut tx = self.store.begin();
            let last = tx.read_tx_id();
            let view = self.progress.view_of(first).unwrap_or(last.view);
            let batch = Batch { first: TxId { view, seqno: first }, last };
            let refused = |error| SealError::Refused { name: protocol.name(), error };
            protocol.seal(&mut tx, batch).map_err(refused)?;
            let bytes = estimated_bytes(tx.writes());
            // It belongs to the batch that is being cut, however large that is.
            let room = self.queue.room(bytes, u64::MAX);
            let committed = self.store.commit(tx, |tx_id, writes| {
                let claims = coco_crypto::Digest::ZERO;
                let (force_chunk, force_snapshot) = (false, false);
                self.enqueue(Pending { tx_id, writes, claims, force_chunk, force_snapshot, bytes })
            });
            match committed {
                Ok(_) => {
                    room.into_iter().for_each(Room::fill);
                    sealed_to.store(last.seqno.0, Ordering::SeqCst);
                    return Ok(());
                }
                Err(conflict) => tracing::debug!(%conflict, name = protocol.name(), "seal again"),
            }
        }
        Err(SealError::Contended { name: protocol.name() })
    }

    /// Adds an executed transaction, under the store's lock; returns how many wait.
    pub fn enqueue(&self, transaction: Pending) -> usize {
        self.counters.transactions.fetch_add(1, Ordering::Relaxed);
        self.queue.push(transaction)
    }

    /// Carries out the log's effects, in order, whoever caused them. A call during another one
    /// leaves its effects to that one, so that a disk may report from within a submission.
    pub fn pump(self: &Arc<Self>) {
        if self.pump_requests.fetch_add(1, Ordering::SeqCst) != 0 {
            return;
        }
        let mut seen = 1;
        loop {
            loop {
                let order = self.log.lock().next_order();
                match order {
                    Some(order) => self.carry_out(order),
                    None => break,
                }
            }
            self.rename_recovered();
            let requests = &self.pump_requests;
            match requests.compare_exchange(seen, 0, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Between two effects, so that no operation is under way that knows the old names.
    fn rename_recovered(&self) {
        let Some(done) = self.recovery_end.lock().take() else { return };
        let renames = self.files.lock().end_recovery();
        let report = Box::new(move |result| {
            let _ = done.send(result);
        });
        self.host.disk().submit(Area::Ledger, renames, true, report);
    }

    fn carry_out(self: &Arc<Self>, order: Order) {
        let is_own = matches!(order, Order::Own(_));
        let (Order::Own(effect) | Order::Other(effect)) = order;
        match effect {
            Effect::Persist(write, batch) if is_own => {
                let operations = self.files.lock().append(&batch);
                let inner = Arc::clone(self);
                let done = Box::new(move |result| inner.persisted(write, result));
                match operations {
                    Ok(operations) => self.persist(operations, done),
                    Err(error) => self.fail(&error),
                }
            }
            Effect::Persist(write, batch) => self.follow(write, &batch),
            Effect::Committed(tx_id) => {
                self.commit(tx_id);
                self.committed_signal.notify_one();
                self.wake.notify_one();
                self.drained.notify_waiters();
            }
            Effect::Truncate(end) => self.take_back(end.seqno),
            Effect::Install(at) => {
                *self.installing.lock() = Some(at);
                self.install_signal.notify_one();
            }
            Effect::Send(to, frame) => self.channels.send(to, frame),
            Effect::Role(role) => self.change_role(role),
            Effect::Membership(membership) => self.change_membership(membership),
            Effect::ReadReady(number) => self.confirm_reads(number),
        }
    }

    /// Has a batch written, as durably as `ledger.sync` says.
    pub fn persist(&self, operations: Vec<DiskOp>, done: Done) {
        let sync = self.settings.sync == Sync::Always;
        self.host.disk().submit(Area::Ledger, operations, sync, done);
        // After the writes: whoever clears this syncs them.
        self.unsynced.store(self.settings.sync == Sync::Interval, Ordering::SeqCst);
    }

    /// Everything up to this transaction is on the ledger for ever.
    pub fn commit(self: &Arc<Self>, tx_id: TxId) {
        let renames = self.files.lock().commit(tx_id.seqno);
        {
            let mut log = self.log.lock();
            let now = self.host.uptime();
            let took = |since| self.counters.latencies.observe(now.saturating_sub(since));
            self.in_flight.store(log.settle(tx_id.seqno, took), Ordering::SeqCst);
        }
        self.progress.advance(tx_id);
        if !renames.is_empty() {
            self.submit_unsynced(renames);
        }
    }

    /// Changes the ledger's files; what is written next syncs that too.
    pub fn submit_unsynced(self: &Arc<Self>, operations: Vec<DiskOp>) {
        let inner = Arc::clone(self);
        let done = move |result: std::io::Result<()>| {
            if let Err(error) = result {
                inner.fail(&error);
            }
        };
        self.host.disk().submit(Area::Ledger, operations, false, Box::new(done));
    }

    /// A batch is on the disk, or cannot be. Called by the host, possibly from its own thread.
    pub fn persisted(self: &Arc<Self>, write: WriteNo, result: std::io::Result<()>) {
        if let Err(error) = result {
            return self.fail(&error);
        }
        let reported = self.log.lock().consensus.persisted(write);
        if let Err(error) = reported {
            return self.fail(&error);
        }
        self.pump();
    }

    /// Tells hooks and adapters how far the ledger is committed, and lets go of what could undo it.
    fn tell_committed(&self, told: Seqno) -> Seqno {
        let committed = self.progress.committed();
        if committed.seqno <= told {
            return told;
        }
        self.store.compact(committed.seqno);
        self.log.lock().consensus.compact(committed);
        self.adapters.iter().for_each(|adapter| adapter.committed(committed));
        self.hooks.read().iter().for_each(|hook| hook(committed));
        committed.seqno
    }

    /// Under `ledger.sync = interval`: syncs what was written since, when its time has come.
    fn sync_in_time(
        self: &Arc<Self>,
        sync_at: Option<Duration>,
        now: Duration,
    ) -> Option<Duration> {
        match sync_at {
            None if self.unsynced.load(Ordering::SeqCst) => Some(now + self.settings.sync_interval),
            Some(at) if at <= now => {
                self.unsynced.store(false, Ordering::SeqCst);
                let inner = Arc::clone(self);
                let done = move |result: std::io::Result<()>| {
                    if let Err(error) = result {
                        inner.fail(&error);
                    }
                };
                self.host.disk().submit(Area::Ledger, Vec::new(), true, Box::new(done));
                None
            }
            other => other,
        }
    }

    pub fn standing(&self) -> Standing {
        Standing::of_number(self.standing.load(Ordering::SeqCst))
    }

    /// A failed pipeline stays failed.
    pub fn set_standing(&self, standing: Standing) {
        let raise = |now| (now < standing as u8).then_some(standing as u8);
        let _ = self.standing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, raise);
    }

    /// The ledger cannot be continued: nothing more is executed or committed.
    pub fn fail(&self, error: &dyn std::error::Error) {
        tracing::error!(%error, "the ledger cannot be written any more");
        self.set_standing(Standing::Failed);
        self.progress.close();
        self.wake.notify_one();
        self.drained.notify_waiters();
    }
}
