//! The head of the store and its one serial step, the commit point.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::snapshot::Origin;
use crate::state::State;
use crate::undo::UndoLog;
use crate::{Entry, MapName, Seqno, Snapshot, Tx, TxId, View, WriteSet};

/// All maps at the head of the one total order, behind one short lock.
#[derive(Debug)]
pub struct Store {
    head: Mutex<Head>,
}

/// What became of a transaction that was given to [`Store::commit`].
#[derive(Debug, PartialEq, Eq)]
pub enum Committed<R> {
    /// It wrote nothing and took no position; it saw the state just after this transaction.
    ReadOnly(TxId),
    /// It took this position; with what the sink returned.
    Written(TxId, R),
}

impl<R> Committed<R> {
    /// The position taken, or the one whose state was read.
    pub fn tx_id(&self) -> TxId {
        match self {
            Self::ReadOnly(tx_id) | Self::Written(tx_id, _) => *tx_id,
        }
    }
}

/// The transaction has had no effect, for it is not known to fit after the head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Another transaction was faster: execute again, on a new snapshot.
    #[error("what was read in map {map:?} has changed since")]
    Changed {
        /// The map in which a change was found first.
        map: MapName,
    },
    /// The store was rolled back in the meantime: execute again, on a new snapshot.
    #[error("the state that was read has been rolled back")]
    RolledBack,
    /// The snapshot is not one of a store's states but a historical or made-up one: never
    /// possible.
    #[error("the snapshot is not a state of this store's head")]
    Detached,
}

/// The target of a rollback is already final, or does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot roll back to {to}: possible are {committed} to {head}")]
pub struct NoSuchBoundary {
    /// The position asked for.
    pub to: Seqno,
    /// The last position given to [`Store::compact`].
    pub committed: Seqno,
    /// The head.
    pub head: Seqno,
}

/// A replayed transaction does not follow the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("transaction {given} does not follow {head}")]
pub struct OutOfOrder {
    /// The transaction to apply.
    pub given: TxId,
    /// The head it should have followed, in the same view or a later one.
    pub head: TxId,
}

/// A transaction was to be filled that is not waiting for it: rolled back, filled already, or
/// never reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("transaction {0} is not reserved")]
pub struct NotReserved(pub TxId);

impl Store {
    /// An empty store whose head is before the first transaction; new transactions are of `view`.
    pub fn new(view: View) -> Self {
        Self::with_head(State::default(), TxId::default(), view)
    }

    /// A store that continues after `snapshot`, which is final; new transactions are of `view`.
    pub fn restore(snapshot: Snapshot, view: View) -> Self {
        Self::with_head(snapshot.state, snapshot.tx_id, view)
    }

    fn with_head(state: State, tx_id: TxId, view: View) -> Self {
        Self { head: Mutex::new(Head::after(state, tx_id, view)) }
    }

    /// Goes on after `snapshot`, which is final and not before what is final here; new transactions
    /// are of its view or of the latest one here. Open transactions will conflict.
    pub fn reset(&self, snapshot: Snapshot) {
        let mut head = self.head.lock();
        let Snapshot { state, tx_id, .. } = snapshot;
        assert!(tx_id.seqno >= head.committed, "what is committed is never taken back");
        let view = head.view.max(tx_id.view);
        let before = std::mem::replace(&mut *head, Head::after(state, tx_id, view));
        drop(head);
        // A large state is let go outside of the lock.
        drop(before);
    }

    /// A transaction on the head's state.
    pub fn begin(&self) -> Tx {
        Tx::on(self.snapshot())
    }

    /// The last transaction.
    pub fn head(&self) -> TxId {
        self.head.lock().tx_id
    }

    /// The view of new transactions.
    pub fn view(&self) -> View {
        self.head.lock().view
    }

    /// The state of the head.
    pub fn snapshot(&self) -> Snapshot {
        self.head.lock().snapshot()
    }

    /// The commit point. If everything the transaction has read still reads the same, it takes the
    /// next position, its writes are applied, and `sink` is called with both before anybody else
    /// can commit, hence in order of the positions. `sink` must be short and must not use the
    /// store. A transaction without writes takes no position and never conflicts.
    pub fn commit<R>(
        &self,
        tx: Tx,
        sink: impl FnOnce(TxId, WriteSet) -> R,
    ) -> Result<Committed<R>, Conflict> {
        let Tx { mut snapshot, reads, writes } = tx;
        if writes.is_empty() {
            return Ok(Committed::ReadOnly(snapshot.tx_id));
        }
        let origin = snapshot.origin.ok_or(Conflict::Detached)?;
        if reads.is_long() {
            // What holds now need only be checked against what happens until the lock is taken.
            let now = self.snapshot();
            reads.validate(&snapshot.state, &now.state)?;
            if now.origin.is_none_or(|now| now.lineage != origin.lineage) {
                return Err(Conflict::RolledBack);
            }
            snapshot = now;
        }

        let mut head = self.head.lock();
        if head.origin.lineage != origin.lineage {
            return Err(Conflict::RolledBack);
        }
        if snapshot.origin != Some(head.origin) {
            reads.validate(&snapshot.state, &head.state)?;
        }
        // Without the snapshot the head may be the only holder of its tree and change in place.
        drop(snapshot);
        let tx_id = head.advance();
        head.write(tx_id.seqno, &writes);
        Ok(Committed::Written(tx_id, sink(tx_id, writes)))
    }

    /// Takes the next position for a signature transaction, whose writes follow by
    /// [`fill`](Self::fill). `sink` gets the position and the state before it, under the same
    /// rules as that of [`commit`](Self::commit).
    pub fn reserve<R>(&self, sink: impl FnOnce(TxId, Snapshot) -> R) -> R {
        let mut head = self.head.lock();
        let before = head.snapshot();
        let tx_id = head.advance();
        head.reserved.push(tx_id);
        head.undo.cut();
        sink(tx_id, before)
    }

    /// Applies the writes of a reserved transaction, beneath those of later ones.
    pub fn fill(&self, reserved: TxId, writes: &WriteSet) -> Result<(), NotReserved> {
        let mut head = self.head.lock();
        let at = head.reserved.iter().position(|other| *other == reserved);
        head.reserved.remove(at.ok_or(NotReserved(reserved))?);
        head.write_beneath(reserved.seqno, writes);
        Ok(())
    }

    /// Applies a transaction that was executed elsewhere or before: it must be the next one, in
    /// the same or a later view, which becomes the view of new transactions.
    pub fn apply(&self, tx_id: TxId, writes: &WriteSet) -> Result<(), OutOfOrder> {
        let mut head = self.head.lock();
        if tx_id.seqno != head.tx_id.seqno.next() || tx_id.view < head.tx_id.view {
            return Err(OutOfOrder { given: tx_id, head: head.tx_id });
        }
        head.view = tx_id.view;
        head.advance();
        head.write(tx_id.seqno, writes);
        Ok(())
    }

    /// Goes back to the state just after `to`, which may be any position from the last committed
    /// one on; new transactions are of `view`. Open transactions will conflict.
    pub fn rollback(&self, to: Seqno, view: View) -> Result<(), NoSuchBoundary> {
        self.head.lock().roll_back(to, view)
    }

    /// Says that everything up to `committed` is final: what could undo it is dropped.
    pub fn compact(&self, committed: Seqno) {
        let mut head = self.head.lock();
        assert!(committed <= head.tx_id.seqno, "what does not exist is not committed");
        assert!(
            head.reserved.iter().all(|reserved| reserved.seqno > committed),
            "a transaction is filled before it is committed"
        );
        head.committed = head.committed.max(committed);
        let base = head.view_at(head.committed);
        let committed = head.committed;
        head.views.retain(|first| first.seqno > committed);
        head.views.insert(0, base);
        let done = head.undo.compact(committed);
        drop(head);
        drop(done);
    }
}

/// Everything that the lock guards.
#[derive(Debug)]
struct Head {
    state: State,
    tx_id: TxId,
    view: View,
    committed: Seqno,
    // The first position of each view since `committed`, and before them one at or below it.
    views: Vec<TxId>,
    reserved: Vec<TxId>,
    undo: UndoLog,
    origin: Origin,
}

impl Head {
    fn after(state: State, tx_id: TxId, view: View) -> Self {
        assert!(tx_id.view <= view, "views never go back");
        Self {
            state,
            tx_id,
            view,
            committed: tx_id.seqno,
            views: vec![tx_id],
            reserved: Vec::new(),
            undo: UndoLog::default(),
            origin: Origin { lineage: next_lineage(), generation: 0 },
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { state: self.state.clone(), tx_id: self.tx_id, origin: Some(self.origin) }
    }

    fn advance(&mut self) -> TxId {
        let next = TxId { view: self.view, seqno: self.tx_id.seqno.next() };
        assert!(next.view >= self.tx_id.view, "views never go back");
        if next.view != self.tx_id.view {
            self.views.push(next);
        }
        self.tx_id = next;
        next
    }

    fn write(&mut self, seqno: Seqno, writes: &WriteSet) {
        self.origin.generation += 1;
        for written in writes.maps() {
            let map = self.state.map_mut(written.name());
            for (key, value) in written.iter() {
                let previous = match value {
                    Some(value) => {
                        map.put(key.clone(), Entry { version: seqno, value: value.clone() })
                    }
                    None => map.remove(key),
                };
                assert!(
                    previous.as_ref().is_none_or(|entry| entry.version < seqno),
                    "nothing at the head is later than the head"
                );
                self.undo.push(seqno, written.name(), key, previous);
            }
        }
    }

    fn write_beneath(&mut self, seqno: Seqno, writes: &WriteSet) {
        self.origin.generation += 1;
        for written in writes.maps() {
            let map = self.state.map_mut(written.name());
            for (key, value) in written.iter() {
                let entry = value.map(|value| Entry { version: seqno, value: value.clone() });
                let untouched_since = map.version(key).is_some_and(|version| version < seqno);
                let later = (!untouched_since)
                    .then(|| self.undo.replaced_after(seqno, written.name(), key))
                    .flatten();
                let previous = match (later, entry) {
                    (Some(later), entry) => std::mem::replace(later, entry),
                    (None, Some(entry)) => map.put(key.clone(), entry),
                    (None, None) => map.remove(key),
                };
                self.undo.push(seqno, written.name(), key, previous);
            }
        }
    }

    fn roll_back(&mut self, to: Seqno, view: View) -> Result<(), NoSuchBoundary> {
        if to < self.committed || to > self.tx_id.seqno {
            return Err(NoSuchBoundary { to, committed: self.committed, head: self.tx_id.seqno });
        }
        assert!(view >= self.view, "views never go back");
        self.undo.roll_back(to, &mut self.state);
        self.reserved.retain(|reserved| reserved.seqno <= to);
        self.tx_id = self.view_at(to);
        self.views.retain(|first| first.seqno <= to);
        self.view = view;
        self.origin = Origin { lineage: next_lineage(), generation: 0 };
        Ok(())
    }

    /// The transaction at a position that is not before `committed`.
    fn view_at(&self, seqno: Seqno) -> TxId {
        let first = self.views.iter().rfind(|first| first.seqno <= seqno);
        TxId { view: first.map_or(self.tx_id.view, |first| first.view), seqno }
    }
}

/// Unique in the process, so that a snapshot of another store is never taken for one of this.
fn next_lineage() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
