//! Transactions between the commit point and the writer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use coco_crypto::Digest;
use coco_kv::{Seqno, TxId, WriteSet};
use parking_lot::Mutex;

/// A transaction that has a place in the order and is not yet an entry.
pub(crate) struct Pending {
    pub tx_id: TxId,
    pub writes: WriteSet,
    pub claims: Digest,
    pub force_chunk: bool,
    pub force_snapshot: bool,
    /// Estimate of its size on the ledger.
    pub bytes: u64,
}

/// Transactions in seqno order: filled under the store's lock, emptied by the writer.
#[derive(Default)]
pub(crate) struct Queue {
    pending: Mutex<VecDeque<Pending>>,
    /// The last seqno that went in.
    executed: AtomicU64,
    /// Bytes that are in no batch yet, as estimated, those of transactions included that are about to
    /// pass the commit point.
    uncut_bytes: AtomicU64,
    /// Of them, those that the writer has.
    taken_bytes: AtomicU64,
}

/// Room for a transaction that is about to pass the commit point, given back unless it does.
pub(crate) struct Room<'a> {
    queue: &'a Queue,
    bytes: u64,
}

impl Room<'_> {
    /// The transaction has passed.
    pub fn fill(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.queue.uncut_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Queue {
    pub fn starting_after(seqno: Seqno) -> Self {
        Self { executed: AtomicU64::new(seqno.0), ..Self::default() }
    }

    /// Room for so many bytes, if no more than `limit` are in no batch yet then.
    pub fn room(&self, bytes: u64, limit: u64) -> Option<Room<'_>> {
        let more = |uncut: u64| uncut.checked_add(bytes).filter(|uncut| *uncut <= limit);
        let made = self.uncut_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        made.ok().map(|_| Room { queue: self, bytes })
    }

    /// Adds the next transaction, for which there is room; returns how many there are now.
    pub fn push(&self, transaction: Pending) -> usize {
        self.executed.store(transaction.tx_id.seqno.0, Ordering::Release);
        let mut pending = self.pending.lock();
        pending.push_back(transaction);
        pending.len()
    }

    /// Notes a seqno that was taken without a transaction, by a signature.
    pub fn skip(&self, seqno: Seqno) {
        self.executed.store(seqno.0, Ordering::Release);
    }

    /// Drops what waits, none of which has a place in the order any more: that ends with `end`.
    pub fn take_back(&self, end: Seqno) {
        drop(self.take());
        self.cut();
        self.executed.store(end.0, Ordering::Release);
    }

    pub fn take(&self) -> VecDeque<Pending> {
        let taken = std::mem::take(&mut *self.pending.lock());
        let bytes = taken.iter().map(|transaction| transaction.bytes).sum();
        self.taken_bytes.fetch_add(bytes, Ordering::Relaxed);
        taken
    }

    /// What was taken is in a batch, or nowhere any more.
    pub fn cut(&self) {
        let taken = self.taken_bytes.swap(0, Ordering::Relaxed);
        self.uncut_bytes.fetch_sub(taken, Ordering::Relaxed);
    }

    pub fn len(&self) -> usize {
        self.pending.lock().len()
    }

    /// The last seqno that passed the commit point.
    pub fn executed(&self) -> Seqno {
        Seqno(self.executed.load(Ordering::Acquire))
    }
}

/// What a write set will take on the ledger, and a little more.
pub(crate) fn estimated_bytes(writes: &WriteSet) -> u64 {
    /// Of an entry, a map and a key beside their own bytes.
    const FRAME_BYTES: usize = 128;
    const MAP_BYTES: usize = 48;
    const KEY_BYTES: usize = 16;
    let map_bytes = |map: &coco_kv::MapWrites| -> usize {
        let rows = map.iter();
        let rows = rows
            .map(|(key, value)| KEY_BYTES + key.len() + value.map_or(0, |value| value.len()))
            .sum::<usize>();
        MAP_BYTES + map.name().as_str().len() + rows
    };
    (FRAME_BYTES + writes.maps().map(map_bytes).sum::<usize>()) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use coco_kv::{MapName, Store, View};

    use super::*;

    fn pending(seqno: u64, bytes: u64) -> Pending {
        let mut writes = None;
        let store = Store::new(View(2));
        let mut tx = store.begin();
        tx.put(&MapName::new("records"), "key", "value");
        store.commit(tx, |_, it| writes = Some(it)).unwrap();
        Pending {
            tx_id: TxId { view: View(2), seqno: Seqno(seqno) },
            writes: writes.unwrap(),
            claims: Digest::ZERO,
            force_chunk: false,
            force_snapshot: false,
            bytes,
        }
    }

    #[test]
    fn what_is_in_no_batch_is_bounded_wherever_it_is() {
        let queue = Queue::default();
        let push = |seqno, bytes| {
            let room = queue.room(bytes, 100).ok_or(())?;
            queue.push(pending(seqno, bytes));
            room.fill();
            Ok::<_, ()>(())
        };
        push(1, 60).unwrap();
        assert!(push(2, 41).is_err());
        drop(queue.room(40, 100).unwrap());
        assert_eq!(queue.take().len(), 1);
        assert!(push(2, 41).is_err(), "the writer has it, but no batch");
        push(2, 40).unwrap();
        queue.cut();
        push(3, 60).unwrap();
        assert!(push(4, 1).is_err());
        queue.take_back(Seqno(1));
        push(2, 100).unwrap();
    }
}
