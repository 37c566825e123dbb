//! What is new: the last block, and the transactions that were executed lately.

use std::collections::VecDeque;

use alloy_primitives::B256;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Told by whoever executes and commits, asked by filters and subscriptions. Nobody is waited for:
/// blocks are read from the store, and of transactions the last [`News::KEPT`] are remembered.
#[derive(Debug)]
pub(super) struct News {
    head: watch::Sender<u64>,
    recent: Mutex<Recent>,
    executed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Recent {
    hashes: VecDeque<B256>,
    // How many there were before the first of them.
    before: u64,
}

impl Recent {
    fn count(&self) -> u64 {
        self.before + self.hashes.len() as u64
    }
}

impl News {
    /// Transactions that are remembered.
    pub(super) const KEPT: usize = 32_768;

    pub(super) fn new(head: u64) -> Self {
        Self {
            head: watch::Sender::new(head),
            recent: Mutex::default(),
            executed: watch::Sender::new(0),
        }
    }

    /// Clients may see the blocks up to this one; returns the one before. The number only ever
    /// falls after a rollback.
    pub(super) fn tell_head(&self, number: u64) -> u64 {
        let mut before = number;
        self.head.send_if_modified(|head| {
            before = std::mem::replace(head, number);
            before != number
        });
        before
    }

    /// A transaction was executed.
    pub(super) fn tell_executed(&self, hash: B256) {
        let mut recent = self.recent.lock();
        if recent.hashes.len() >= Self::KEPT {
            recent.hashes.pop_front();
            recent.before += 1;
        }
        recent.hashes.push_back(hash);
        let count = recent.count();
        drop(recent);
        self.executed.send_if_modified(|executed| {
            *executed = count.max(*executed);
            true
        });
    }

    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(super) fn executed(&self) -> watch::Receiver<u64> {
        self.executed.subscribe()
    }

    /// How many transactions were executed so far.
    pub(super) fn executed_count(&self) -> u64 {
        self.recent.lock().count()
    }

    /// The transactions after the first `seen`, and how many there were at all; `None` in place of
    /// transactions if some of them are not remembered any more.
    pub(super) fn executed_since(&self, seen: u64) -> (Option<Vec<B256>>, u64) {
        let recent = self.recent.lock();
        let known = seen.checked_sub(recent.before).and_then(|skip| usize::try_from(skip).ok());
        let hashes = known.map(|skip| recent.hashes.iter().skip(skip).copied().collect());
        (hashes, recent.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_transactions_are_remembered_and_what_is_lost_is_told() {
        let news = News::new(3);
        let hash = |number: usize| B256::from(alloy_primitives::U256::from(number));
        for number in 0..5 {
            news.tell_executed(hash(number));
        }
        assert_eq!(news.executed_since(3), (Some(vec![hash(3), hash(4)]), 5));
        assert_eq!(news.executed_since(5), (Some(vec![]), 5));
        for number in 5..News::KEPT + 2 {
            news.tell_executed(hash(number));
        }
        let count = News::KEPT as u64 + 2;
        assert_eq!(news.executed_since(1), (None, count));
        assert_eq!(news.executed_since(2).0.map(|hashes| hashes.len()), Some(News::KEPT));
        assert_eq!((news.executed_count(), *news.executed().borrow()), (count, count));
        assert_eq!(*news.head().borrow(), 3);
    }
}
