//! The node around the chain.

use std::future::Future;
use std::pin::Pin;

use alloy_primitives::B256;
use bytes::Bytes;
use coco_crypto::Digest;
use coco_kv::{Seqno, Tx, TxId};

/// What the JSON-RPC layer needs of the node: the store, the clock, randomness.
pub trait Node: Send + Sync + 'static {
    /// A transaction on the head.
    fn begin(&self) -> Tx;

    /// The commit point. `claims` is bound to the transaction's leaf of the Merkle tree.
    fn commit(&self, tx: Tx, claims: Digest) -> Result<TxId, CommitRefusal>;

    /// Whether this node executes transactions.
    fn is_primary(&self) -> bool;

    /// Has the node that does answer a message by
    /// [`Rpc::answer_forwarded`](crate::rpc::Rpc::answer_forwarded).
    fn forward(
        &self,
        message: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, ForwardRefusal>> + Send + 'static>>;

    /// The last position that will never be taken back: clients are shown the blocks up to here.
    fn committed(&self) -> Seqno {
        self.last_committed().seqno
    }

    /// The transaction at that position.
    fn last_committed(&self) -> TxId;

    /// Ends when what was executed at a position is committed, or never will be. Its batch is cut
    /// for whoever waits.
    fn wait_committed(&self, position: Seqno)
    -> Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

    /// The same for a transaction that may not have come to this node yet.
    fn wait_for(&self, tx_id: TxId) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

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

    /// Runs what may take long where it holds up nobody else, once there is a place for it; ends
    /// when it has run. By default there is always one.
    fn offload(
        &self,
        work: Box<dyn FnOnce() + Send>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        let run = tokio::task::spawn_blocking(work);
        Box::pin(async move { drop(run.await) })
    }
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

/// Why the primary has not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardRefusal {
    /// Nobody is known to be primary, or it has no room: nothing was done, and it may be tried
    /// again.
    #[error("no primary takes transactions now")]
    NotNow,
    /// The same, for this reason.
    #[error("the primary does not answer: {0}")]
    Refused(String),
    /// More than nodes send each other.
    #[error("{bytes} bytes are more than nodes send each other")]
    TooLarge {
        /// Of the message.
        bytes: usize,
    },
    /// It may or may not have been done.
    #[error("the primary was lost before it answered")]
    Unknown,
}
