//! The log as its driver sees it.

use bytes::Bytes;
use coco_kv::TxId;

use crate::{
    Batch, Change, ConsensusError, Effect, FrameError, NodeId, ReadNo, Replica, Role, WriteNo,
};

/// A replicated log of batches, seen from one node. Every method returns at once; effects follow.
pub trait Consensus: Send {
    /// What this node is now.
    fn role(&self) -> Role;

    /// The last committed transaction, as this node knows.
    fn committed(&self) -> TxId;

    /// Whether the ledger on this node's disk has a batch that ends with `tx_id`; not known of what
    /// has been compacted. Two logs that both do are the same up to there, so that whoever knows
    /// `tx_id` as committed may be given all before it, even if this node does not know that yet.
    fn has_persisted(&self, tx_id: TxId) -> bool;

    /// Whether a batch would be taken now. To be asked before a batch is encrypted: what is once
    /// encrypted at a position of a view must be proposed as it is or never, for its nonce is used.
    ///
    /// # Errors
    /// The reason for which it would not.
    fn may_propose(&self) -> Result<(), ConsensusError>;

    /// Whether a batch with these changes of membership would be taken now; to be asked likewise.
    ///
    /// # Errors
    /// The reason for which it would not.
    fn may_change(&self, changes: &[Change]) -> Result<(), ConsensusError>;

    /// Appends a batch to the log.
    ///
    /// # Errors
    /// If this node is not primary, too much is waiting, or the batch does not follow.
    fn propose(&mut self, batch: Batch) -> Result<(), ConsensusError>;

    /// Appends a batch that changes the list of nodes, together with that change: both are one
    /// entry of the log, so that neither can happen without the other.
    ///
    /// # Errors
    /// As [`propose`](Self::propose); or if the membership cannot change so, or not now.
    fn propose_change(&mut self, batch: Batch, changes: &[Change]) -> Result<(), ConsensusError>;

    /// The batch of this order is on this node's disk, as durably as the configuration asks.
    /// Orders may be reported in any order, and a report covers only its own. A report of what has
    /// been taken back meanwhile has no effect.
    ///
    /// # Errors
    /// If no such order was ever given.
    fn persisted(&mut self, write: WriteNo) -> Result<(), ConsensusError>;

    /// The ledger and the store end exactly at `at`, as [`Effect::Install`] asked.
    ///
    /// # Errors
    /// If that was not asked.
    fn installed(&mut self, at: TxId) -> Result<(), ConsensusError>;

    /// Time passes: one tick of the driver's clock.
    fn tick(&mut self);

    /// Tells the others how far the log is committed. The next batch does that, too, and every tick:
    /// this is for when no batch follows soon.
    fn tell_committed(&mut self);

    /// A frame has come through the channel from `from`, which has authenticated it.
    ///
    /// # Errors
    /// If the frame cannot be one of a correct node. It has no effect then.
    fn receive(&mut self, from: NodeId, frame: Bytes) -> Result<(), FrameError>;

    /// Frames to `node` are being lost: send only probes until it answers.
    fn unreachable(&mut self, node: NodeId);

    /// How far the other nodes are; known to the primary only.
    fn replicas(&self) -> Vec<Replica>;

    /// Hands leadership to another voter, once that has everything. Given up after an election
    /// timeout.
    ///
    /// # Errors
    /// If this node is not primary, or the other not a voter.
    fn transfer(&mut self, to: NodeId) -> Result<(), ConsensusError>;

    /// Asks from when on what this node has executed is recent enough for a read that begins now:
    /// [`Effect::ReadReady`] follows after one exchange with a quorum. Messages may be lost, so
    /// whoever gets no answer within an election timeout asks again, with another number.
    ///
    /// # Errors
    /// If no primary is known, or too many reads are waiting.
    fn read(&mut self, read: ReadNo) -> Result<(), ConsensusError>;

    /// The ledger up to `to` is kept elsewhere: what the log holds of it may go. Nodes that lag
    /// behind are told to install the ledger, but only if they lag very far.
    fn compact(&mut self, to: TxId);

    /// The next effect to carry out.
    fn next_effect(&mut self) -> Option<Effect>;
}
