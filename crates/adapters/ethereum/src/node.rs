//! The node around the chain.

use std::future::Future;
use std::pin::Pin;

use alloy_primitives::B256;
use coco_crypto::Digest;
use coco_kv::{Seqno, Tx, TxId};

/// What the JSON-RPC layer needs of the node: the store, the clock, randomness.
pub trait Node: Send + Sync + 'static {
    /// A transaction on the head.
    fn begin(&self) -> Tx;

    /// The commit point. `claims` is bound to the transaction's leaf of the Merkle tree.
    fn commit(&self, tx: Tx, claims: Digest) -> Result<TxId, CommitRefusal>;

    /// The last position that will never be taken back: clients are shown the blocks up to here.
    fn committed(&self) -> Seqno;

    /// Ends when what was executed at a position is committed, or never will be. Its batch is cut
    /// for whoever waits.
    fn wait_committed(&self, position: Seqno)
    -> Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

    /// The ledger's receipt for a position, as JSON, recent or past; `None` while it is not signed
    /// and committed.
    fn receipt(
        &self,
        position: Seqno,
    ) -> Pin<Box<dyn Future<Output = Option<serde_json::Value>> + Send + '_>>;

    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Randomness that the host cannot see.
    fn randomness(&self) -> B256;

    /// Ends after that many milliseconds.
    fn sleep(&self, milliseconds: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Why a transaction has not passed the commit point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitRefusal {
    /// Another one was faster: execute it again.
    #[error("what it has read has changed since")]
    Conflict,
    /// Too many transactions are not committed yet: later.
    #[error("too many transactions wait to be committed")]
    Busy,
    /// It writes more than one transaction may.
    #[error("it writes {bytes} bytes, more than the ledger takes in one transaction")]
    TooLarge {
        /// What it writes.
        bytes: u64,
    },
    /// This node executes nothing: it stops, or is not the primary.
    #[error("this node takes no transactions")]
    Unavailable,
}
