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
    bytes: AtomicU64,
}

impl Queue {
    pub fn starting_after(seqno: Seqno) -> Self {
        Self { executed: AtomicU64::new(seqno.0), ..Self::default() }
    }

    /// Adds the next transaction; returns how many there are now.
    pub fn push(&self, transaction: Pending) -> usize {
        self.executed.store(transaction.tx_id.seqno.0, Ordering::Release);
        self.bytes.fetch_add(transaction.bytes, Ordering::Relaxed);
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
        self.executed.store(end.0, Ordering::Release);
    }

    pub fn take(&self) -> VecDeque<Pending> {
        let taken = std::mem::take(&mut *self.pending.lock());
        let bytes = taken.iter().map(|transaction| transaction.bytes).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        taken
    }

    pub fn len(&self) -> usize {
        self.pending.lock().len()
    }

    /// The last seqno that passed the commit point.
    pub fn executed(&self) -> Seqno {
        Seqno(self.executed.load(Ordering::Acquire))
    }

    /// Bytes that wait to be written, as estimated.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a write set will take on the ledger, not counting names of maps.
pub(crate) fn estimated_bytes(writes: &WriteSet) -> u64 {
    let map_bytes = |map: &coco_kv::MapWrites| -> usize {
        map.iter().map(|(key, value)| 16 + key.len() + value.map_or(0, |value| value.len())).sum()
    };
    writes.maps().map(map_bytes).sum::<usize>() as u64
}
