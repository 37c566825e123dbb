//! Which view each position of the ledger was written in.

use coco_kv::{Seqno, TxId, View};

/// The largest view whose start is recorded; a snapshot's history is a list up to it.
pub const MAX_RECORDED_VIEW: u64 = 1 << 20;

/// A view that cannot follow in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewHistoryError {
    /// Earlier than the view of the transaction before.
    #[error("view {view} follows view {latest}")]
    Backwards {
        /// The view given.
        view: View,
        /// The latest view there is.
        latest: View,
    },
    /// Larger than [`MAX_RECORDED_VIEW`].
    #[error("view {0} is out of range")]
    OutOfRange(View),
    /// The starts of views descend.
    #[error("the starts of views are not in ascending order")]
    NotAscending,
}

/// The first seqno of each view, as snapshots carry it: element `i` is that of view `i + 1`. A view
/// in which nothing was written starts where the next one does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewHistory {
    starts: Vec<Seqno>,
}

impl ViewHistory {
    /// The history of an empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// A history from its list.
    ///
    /// # Errors
    /// If it is too long or not ascending.
    pub fn from_starts(starts: Vec<Seqno>) -> Result<Self, ViewHistoryError> {
        if starts.len() as u64 > MAX_RECORDED_VIEW {
            return Err(ViewHistoryError::OutOfRange(View(starts.len() as u64)));
        }
        if !starts.is_sorted() {
            return Err(ViewHistoryError::NotAscending);
        }
        Ok(Self { starts })
    }

    /// The list.
    pub fn starts(&self) -> &[Seqno] {
        &self.starts
    }

    /// The latest view.
    pub fn latest(&self) -> View {
        View(self.starts.len() as u64)
    }

    /// Notes the next transaction's view.
    ///
    /// # Errors
    /// If it is earlier than the latest.
    pub fn record(&mut self, tx_id: TxId) -> Result<(), ViewHistoryError> {
        let (view, latest) = (tx_id.view, self.latest());
        if view < latest {
            return Err(ViewHistoryError::Backwards { view, latest });
        }
        if view.0 > MAX_RECORDED_VIEW {
            return Err(ViewHistoryError::OutOfRange(view));
        }
        self.starts.resize(view.0 as usize, tx_id.seqno);
        Ok(())
    }

    /// Forgets the views that started after `seqno`.
    pub fn retract_to(&mut self, seqno: Seqno) {
        self.starts.retain(|start| *start <= seqno);
    }

    /// The view that the transaction at `seqno` was written in.
    pub fn view_of(&self, seqno: Seqno) -> Option<View> {
        let views = self.starts.partition_point(|start| *start <= seqno);
        (views > 0).then_some(View(views as u64))
    }

    /// The first seqno of a view.
    pub fn start_of(&self, view: View) -> Option<Seqno> {
        let at = usize::try_from(view.0.checked_sub(1)?).ok()?;
        self.starts.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_views_start_with_the_next_one() {
        let mut history = ViewHistory::new();
        for (view, seqno) in [(2, 1), (2, 2), (4, 36), (4, 40), (5, 41)] {
            history.record(TxId::new(view, seqno)).unwrap();
        }
        assert_eq!(history.starts(), [1, 1, 36, 36, 41].map(Seqno));
        let view_of = |seqno| history.view_of(Seqno(seqno)).map(|view| view.0);
        assert_eq!(
            [0, 1, 35, 36, 40, 41, 99].map(view_of),
            [None, Some(2), Some(2), Some(4), Some(4), Some(5), Some(5)]
        );
        assert_eq!(history.start_of(View(4)), Some(Seqno(36)));
        assert_eq!((history.start_of(View(0)), history.start_of(View(6))), (None, None));
        let backwards = ViewHistoryError::Backwards { view: View(4), latest: View(5) };
        assert_eq!(history.record(TxId::new(4, 50)), Err(backwards));
        history.retract_to(Seqno(40));
        assert_eq!(history.latest(), View(4));
    }

    #[test]
    fn impossible_lists_are_refused() {
        let starts = vec![Seqno(2), Seqno(1)];
        assert_eq!(ViewHistory::from_starts(starts), Err(ViewHistoryError::NotAscending));
        let view = View(u64::MAX);
        let far = ViewHistory::new().record(TxId { view, seqno: Seqno(1) });
        assert_eq!(far, Err(ViewHistoryError::OutOfRange(view)));
    }
}
