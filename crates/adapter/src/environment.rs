//! The node around an adapter.

use std::sync::Arc;

use coco_crypto::{Digest, Entropy};
use coco_kv::{Seqno, Snapshot, TxId, View};
use coco_ledger::Receipt;
use serde::Serialize;

/// What is known of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TxStatus {
    /// This node has not seen it.
    Unknown,
    /// Executed, not yet committed.
    Pending,
    /// On the ledger for ever.
    Committed,
    /// Will never be committed.
    Invalid,
}

/// The writes of one committed transaction, verified against the ledger.
#[derive(Clone, Debug)]
pub struct HistoricalState {
    /// Which transaction.
    pub tx_id: TxId,
    /// Proof that it is on the ledger.
    pub receipt: Arc<Receipt>,
    /// A state that holds just what this transaction wrote.
    pub state: Snapshot,
}

/// What the enclave offers to whatever is plugged into it.
pub trait Environment: Send + Sync {
    /// Randomness that the host cannot see.
    fn entropy(&self) -> &dyn Entropy;

    /// Milliseconds since 1970: the host's clock, made monotone.
    fn now_ms(&self) -> u64;

    /// The last transaction known to be committed.
    fn last_committed(&self) -> TxId;

    /// What is known of a transaction.
    fn status(&self, tx_id: TxId) -> TxStatus;

    /// The view in which a position was written, as far as this node knows.
    fn view_for_seqno(&self, seqno: Seqno) -> Option<View>;

    /// The Merkle root over all transactions up to and including `seqno`, if it is recent.
    /// May wait for the ledger to catch up with the commit point.
    fn root_at(&self, seqno: Seqno) -> Option<Digest>;

    /// The committed states of `from..=to`, or `None` while they are being fetched. `handle` names
    /// the query among the adapter's own; fetched states are kept `ttl_seconds` after last use.
    fn state_range(
        &self,
        handle: u64,
        from: Seqno,
        to: Seqno,
        ttl_seconds: u64,
    ) -> Option<Vec<HistoricalState>>;

    /// Forgets what was fetched under a handle; whether there was anything.
    fn drop_cached_states(&self, handle: u64) -> bool;
}
