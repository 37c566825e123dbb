//! The node around the chain.

use std::future::Future;
use std::pin::Pin;

use alloy_primitives::B256;
use coco_crypto::Digest;
use coco_kv::{Conflict, Seqno, Tx, TxId};

/// What the JSON-RPC layer needs of the node: the store, the clock, randomness.
pub trait Node: Send + Sync + 'static {
    /// A transaction on the head, to execute on.
    fn begin(&self) -> Tx;

    /// A transaction on the state that readers see: that of the last committed batch, or of the
    /// head where replies do not wait for commit.
    fn read(&self) -> Tx;

    /// The commit point. `claims` is bound to the transaction's leaf of the Merkle tree.
    fn commit(&self, tx: Tx, claims: Digest) -> Result<TxId, Conflict>;

    /// The ledger's receipt for a position, as JSON; `None` while it is not signed and committed,
    /// or is being fetched.
    fn receipt(&self, position: Seqno) -> Option<serde_json::Value>;

    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Randomness that the host cannot see.
    fn randomness(&self) -> B256;

    /// Ends after that many milliseconds.
    fn sleep(&self, milliseconds: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
