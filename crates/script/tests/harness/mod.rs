//! A small node around scripts: a clock that moves when it is looked at, seeded entropy, states of
//! the past that were put there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, reason = "a test double")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coco_adapter::{Environment, HistoricalState, TxStatus};
use coco_crypto::{Digest, Entropy, sha256};
use coco_kv::{MapName, Seqno, Snapshot, TxId, View, WriteSet};
use coco_ledger::Receipt;
use parking_lot::Mutex;

/// The node that scripts see in tests.
pub struct TestNode {
    /// What the clock shows.
    pub now_ms: AtomicU64,
    /// How far the clock moves at each look.
    pub tick_ms: u64,
    entropy: TestEntropy,
    committed: TxId,
    states: Mutex<BTreeMap<u64, HistoricalState>>,
    dropped: Mutex<Vec<u64>>,
}

/// Hashes of a counter.
#[derive(Default)]
pub struct TestEntropy(AtomicU64);

impl Entropy for TestEntropy {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let counter = self.0.fetch_add(1, Ordering::Relaxed);
            let random = sha256(&counter.to_le_bytes());
            chunk.copy_from_slice(&random.0[..chunk.len()]);
        }
    }
}

/// 2026-01-02T03:04:05.678Z
pub const NOW_MS: u64 = 1_767_323_045_678;

impl TestNode {
    pub fn new() -> Self {
        Self {
            now_ms: AtomicU64::new(NOW_MS),
            tick_ms: 0,
            entropy: TestEntropy::default(),
            committed: TxId::new(2, 40),
            states: Mutex::default(),
            dropped: Mutex::default(),
        }
    }

    /// Time passes only where a script looks at the clock, or is asked whether it may go on.
    pub fn ticking(tick_ms: u64) -> Self {
        Self { tick_ms, ..Self::new() }
    }

    /// Adds a transaction of the past that wrote one value.
    pub fn remember(&self, seqno: u64, map: &str, key: &[u8], value: &[u8]) -> HistoricalState {
        let mut writes = WriteSet::new();
        writes.put(&MapName::new(map), key, value);
        let tx_id = TxId::new(2, seqno);
        let receipt = format!(
            r#"{{"signature":"AAAA","cert":"PEM","node_id":"{}","proof":[{{"left":"{}"}}],
               "leaf_components":{{"write_set_digest":"{}","commit_evidence":"ce:2.{seqno}:{}",
               "claims_digest":"{}"}}}}"#,
            Digest::ZERO,
            Digest::ZERO,
            Digest::ZERO,
            Digest::ZERO,
            Digest::ZERO,
        );
        let state = HistoricalState {
            tx_id,
            receipt: Arc::new(Receipt::from_json(receipt.as_bytes()).unwrap()),
            state: Snapshot::of_writes(tx_id, &writes),
        };
        self.states.lock().insert(seqno, state.clone());
        state
    }
}

impl Environment for TestNode {
    fn entropy(&self) -> &dyn Entropy {
        &self.entropy
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.fetch_add(self.tick_ms, Ordering::Relaxed)
    }

    fn last_committed(&self) -> TxId {
        self.committed
    }

    fn status(&self, tx_id: TxId) -> TxStatus {
        match tx_id {
            TxId { view: View(2), seqno } if seqno <= self.committed.seqno => TxStatus::Committed,
            TxId { view: View(2), .. } => TxStatus::Pending,
            TxId { view: View(1), .. } => TxStatus::Invalid,
            _ => TxStatus::Unknown,
        }
    }

    fn view_for_seqno(&self, seqno: Seqno) -> Option<View> {
        (seqno <= self.committed.seqno).then_some(View(2))
    }

    fn root_at(&self, _seqno: Seqno) -> Option<Digest> {
        None
    }

    fn state_range(
        &self,
        _handle: u64,
        from: Seqno,
        to: Seqno,
        _ttl_seconds: u64,
    ) -> Option<Vec<HistoricalState>> {
        let states = self.states.lock();
        (from.0..=to.0).map(|seqno| states.get(&seqno).cloned()).collect()
    }

    fn drop_cached_states(&self, handle: u64) -> bool {
        self.dropped.lock().push(handle);
        handle == 7
    }
}
