//! What is committed, in which views, and who waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use coco_adapter::TxStatus;
use coco_kv::{Seqno, TxId, View};
use coco_ledger::{ViewHistory, ViewHistoryError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

/// The committed prefix of the order, as this node knows it.
pub(crate) struct Progress {
    committed: AtomicU64,
    views: RwLock<ViewHistory>,
    waiters: Arc<Mutex<Waiters>>,
    /// The highest seqno that anybody waits for.
    wanted: AtomicU64,
    /// How many waited when something was committed last.
    crowd: AtomicUsize,
}

/// Where a waiter stands: what it waits for, and its number of arrival.
type Place = (Seqno, u64);

#[derive(Default)]
struct Waiters {
    waiting: BTreeMap<Place, (View, oneshot::Sender<TxStatus>)>,
    /// Of the last that was committed: nobody waits for an earlier view's.
    committed_view: View,
    arrivals: u64,
    closed: bool,
}

impl Progress {
    /// Everything up to `committed` is; `views` reaches to the view of what comes next.
    pub fn new(committed: Seqno, views: ViewHistory) -> Self {
        Self {
            committed: AtomicU64::new(committed.0),
            views: RwLock::new(views),
            waiters: Arc::default(),
            wanted: AtomicU64::new(0),
            crowd: AtomicUsize::new(0),
        }
    }

    pub fn committed(&self) -> TxId {
        let seqno = Seqno(self.committed.load(Ordering::Acquire));
        TxId { view: self.view_of(seqno).unwrap_or_default(), seqno }
    }

    pub fn committed_seqno(&self) -> Seqno {
        Seqno(self.committed.load(Ordering::Acquire))
    }

    pub fn view_of(&self, seqno: Seqno) -> Option<View> {
        self.views.read().view_of(seqno)
    }

    pub fn views(&self) -> ViewHistory {
        self.views.read().clone()
    }

    pub fn wanted(&self) -> Seqno {
        Seqno(self.wanted.load(Ordering::Acquire))
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.waiters.lock().waiting.len()
    }

    /// How many waited when something was committed last: as many are expected again.
    pub fn crowd(&self) -> usize {
        self.crowd.load(Ordering::Relaxed)
    }

    /// CCF's rules for a transaction id, given what was executed and committed here. What stands in
    /// its place and is not committed says nothing: a later primary may bring the other back.
    pub fn status(&self, tx_id: TxId, executed: Seqno) -> TxStatus {
        let committed = self.committed();
        // More may have been executed and committed since `executed` was looked up.
        let executed = executed.max(committed.seqno);
        let local = self.view_of(tx_id.seqno).filter(|_| tx_id.seqno <= executed);
        let is_here = tx_id.seqno > Seqno(0) && local == Some(tx_id.view);
        match (is_here, tx_id.seqno <= committed.seqno) {
            (true, true) => TxStatus::Committed,
            (true, false) => TxStatus::Pending,
            (false, true) => TxStatus::Invalid,
            (false, false) if committed.view > tx_id.view => TxStatus::Invalid,
            (false, false) => TxStatus::Unknown,
        }
    }

    /// Everything up to `tx_id` is committed: wakes whoever waits for any of it, or for what can
    /// no longer be.
    pub fn advance(&self, tx_id: TxId) {
        self.committed.fetch_max(tx_id.seqno.0, Ordering::AcqRel);
        let (woken, crowd) = {
            let mut waiters = self.waiters.lock();
            let crowd = waiters.waiting.len();
            let mut later = waiters.waiting.split_off(&(tx_id.seqno.next(), 0));
            if waiters.committed_view < tx_id.view {
                waiters.committed_view = tx_id.view;
                let void = later.extract_if(.., |_, (view, _)| *view < tx_id.view);
                waiters.waiting.extend(void);
            }
            (std::mem::replace(&mut waiters.waiting, later), crowd)
        };
        self.crowd.store(crowd, Ordering::Relaxed);
        for ((seqno, _), (view, waiter)) in woken {
            let same_view = seqno <= tx_id.seqno && self.view_of(seqno) == Some(view);
            let status = if same_view { TxStatus::Committed } else { TxStatus::Invalid };
            // It may be leaving just now.
            let _ = waiter.send(status);
        }
    }

    /// Everything up to `tx_id` is committed, in these views, whatever was known before.
    pub fn go_on_from(&self, tx_id: TxId, views: ViewHistory) {
        *self.views.write() = views;
        self.advance(tx_id);
    }

    /// A transaction is the next one here; it may be the first of its view.
    pub fn record(&self, tx_id: TxId) -> Result<(), ViewHistoryError> {
        if self.views.read().latest() >= tx_id.view {
            return Ok(());
        }
        self.views.write().record(tx_id)
    }

    /// What was executed after `end` has no place here any more.
    pub fn take_back(&self, end: Seqno) {
        self.views.write().retract_to(end);
        self.wanted.fetch_min(end.0, Ordering::AcqRel);
    }

    /// What was executed in `view` after `end` was in no batch, so that nobody else has it: whoever
    /// waits for it learns that it is void.
    pub fn void(&self, view: View, end: Seqno) {
        let void: Vec<_> = {
            let mut waiters = self.waiters.lock();
            let after = (end.next(), 0)..;
            waiters.waiting.extract_if(after, |_, (waits_for, _)| *waits_for == view).collect()
        };
        for (_, (_, waiter)) in void {
            let _ = waiter.send(TxStatus::Invalid);
        }
    }

    /// Registers a waiter, unless the answer is known.
    pub fn wait(&self, tx_id: TxId, executed: Seqno) -> Waiting {
        let mut waiters = self.waiters.lock();
        let status = self.status(tx_id, executed);
        if waiters.closed || matches!(status, TxStatus::Committed | TxStatus::Invalid) {
            return Waiting(Err(status));
        }
        let (sender, receiver) = oneshot::channel();
        waiters.arrivals += 1;
        let place = (tx_id.seqno, waiters.arrivals);
        waiters.waiting.insert(place, (tx_id.view, sender));
        self.wanted.fetch_max(tx_id.seqno.min(executed).0, Ordering::AcqRel);
        Waiting(Ok(Waiter { waiters: Arc::clone(&self.waiters), place: Some(place), receiver }))
    }

    /// Nothing will be committed any more: whoever waits learns that the outcome is open.
    pub fn close(&self) {
        let mut waiters = self.waiters.lock();
        waiters.closed = true;
        waiters.waiting.clear();
    }
}

/// A transaction whose commitment is awaited, or what became of it.
pub(crate) struct Waiting(Result<Waiter, TxStatus>);

/// Somebody who waits. Whoever stops waiting leaves no trace.
struct Waiter {
    waiters: Arc<Mutex<Waiters>>,
    /// None once it has its answer.
    place: Option<Place>,
    receiver: oneshot::Receiver<TxStatus>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.waiters.lock().waiting.remove(&place);
        }
    }
}

impl Waiting {
    pub fn is_pending(&self) -> bool {
        self.0.is_ok()
    }

    /// `Committed` or `Invalid`; `Pending` if the node stops before it is known.
    pub async fn outcome(self) -> TxStatus {
        match self.0 {
            Ok(mut waiter) => {
                let status = (&mut waiter.receiver).await;
                waiter.place = None;
                status.unwrap_or(TxStatus::Pending)
            }
            Err(status) => status,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Of view 2 up to 10, then of view 4.
    fn progress(committed: u64) -> Progress {
        let mut views = ViewHistory::default();
        views.record(TxId::new(2, 1)).unwrap();
        views.record(TxId::new(4, 11)).unwrap();
        Progress::new(Seqno(committed), views)
    }

    #[test]
    fn a_status_follows_from_view_and_position() {
        let progress = progress(12);
        let executed = Seqno(15);
        let expected = [
            ((2, 10), TxStatus::Committed),
            ((4, 12), TxStatus::Committed),
            ((4, 13), TxStatus::Pending),
            ((4, 16), TxStatus::Unknown),
            ((5, 14), TxStatus::Unknown),
            ((2, 11), TxStatus::Invalid),
            ((2, 14), TxStatus::Invalid),
            ((2, 16), TxStatus::Invalid),
            ((4, 10), TxStatus::Invalid),
            ((4, 0), TxStatus::Invalid),
        ];
        for ((view, seqno), status) in expected {
            let tx_id = TxId::new(view, seqno);
            assert_eq!(progress.status(tx_id, executed), status, "{tx_id}");
        }
    }

    #[test]
    fn what_is_executed_and_committed_meanwhile_is_committed() {
        let progress = progress(12);
        assert_eq!(progress.status(TxId::new(4, 12), Seqno(10)), TxStatus::Committed);
        assert_eq!(progress.status(TxId::new(4, 13), Seqno(10)), TxStatus::Unknown);
        let waiting = progress.wait(TxId::new(4, 11), Seqno(10));
        assert_eq!(waiting.outcome().now_or_never(), Some(TxStatus::Committed));
    }

    /// Another primary may yet bring back what was taken back here.
    #[test]
    fn only_what_is_committed_makes_another_invalid() {
        let progress = progress(8);
        let executed = Seqno(15);
        let expected = [
            ((4, 8), TxStatus::Invalid),
            ((2, 9), TxStatus::Pending),
            ((2, 12), TxStatus::Unknown),
            ((3, 11), TxStatus::Unknown),
            ((2, 16), TxStatus::Unknown),
            ((4, 10), TxStatus::Unknown),
        ];
        for ((view, seqno), status) in expected {
            let tx_id = TxId::new(view, seqno);
            assert_eq!(progress.status(tx_id, executed), status, "{tx_id}");
        }
        let mut void = progress.wait(TxId::new(2, 14), executed).0.ok().unwrap();
        let mut open = progress.wait(TxId::new(4, 14), executed).0.ok().unwrap();
        progress.advance(TxId::new(2, 10));
        assert!(void.receiver.try_recv().is_err());
        progress.advance(TxId::new(4, 11));
        assert_eq!(void.receiver.try_recv(), Ok(TxStatus::Invalid));
        assert!(open.receiver.try_recv().is_err());
        assert_eq!(progress.status(TxId::new(2, 12), executed), TxStatus::Invalid);
    }

    #[test]
    fn waiters_up_to_the_committed_position_are_woken() {
        let progress = progress(12);
        let executed = Seqno(15);
        let mut waiting: Vec<_> = [TxId::new(4, 13), TxId::new(4, 14), TxId::new(5, 13)]
            .map(|tx_id| progress.wait(tx_id, executed).0.ok().unwrap())
            .into();
        assert_eq!(progress.wanted(), Seqno(14));
        progress.advance(TxId::new(4, 13));
        assert_eq!(waiting[0].receiver.try_recv(), Ok(TxStatus::Committed));
        assert!(waiting[1].receiver.try_recv().is_err());
        assert_eq!(waiting[2].receiver.try_recv(), Ok(TxStatus::Invalid));
        assert!(!progress.wait(TxId::new(4, 13), executed).is_pending());
        drop(waiting);
        assert!(progress.waiters.lock().waiting.is_empty(), "whoever leaves is forgotten");
        progress.close();
        assert!(!progress.wait(TxId::new(4, 14), executed).is_pending());
    }
}
