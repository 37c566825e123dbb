//! Why the log refuses something.

use coco_kv::{Seqno, TxId, View};

use crate::{ChangeError, NodeId, WriteNo};

/// A proposal, request or report that the log cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsensusError {
    /// Only the primary does this.
    #[error("this node is not the primary")]
    NotPrimary,
    /// Leadership is being handed over; the node is primary again soon, or a backup.
    #[error("leadership is being handed over")]
    Transferring,
    /// Too much is proposed and not yet committed. Offer the same batch again later.
    #[error("too much is waiting to be committed")]
    Full,
    /// A bug of the driver: the batch is of another view than the log's current one.
    #[error("batch {last} is not of the current view {current}")]
    WrongView {
        /// The closing transaction of the batch.
        last: TxId,
        /// The log's view.
        current: View,
    },
    /// A bug of the driver: the batch does not start right after the last one, or ends before it
    /// starts.
    #[error("batch {first}..={last} does not follow {end}")]
    NotConsecutive {
        /// First position of the batch.
        first: Seqno,
        /// Last position of the batch.
        last: Seqno,
        /// Last position of the log.
        end: Seqno,
    },
    /// A bug of the driver: the batch is larger than a frame may carry.
    #[error("a batch of {bytes} bytes is larger than a frame")]
    TooLarge {
        /// Size of the entries.
        bytes: usize,
    },
    /// A bug of the driver: no such order was ever given.
    #[error("no batch was ordered to be persisted under number {}", .0.0)]
    NotOrdered(WriteNo),
    /// A bug of the driver: the log waits for no installation.
    #[error("nothing is being installed")]
    NotInstalling,
    /// The membership cannot be changed in this way.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Another change of membership is under way, or may be.
    #[error("another change of membership is under way")]
    Changing,
    /// A log of one node stays that.
    #[error("this log has one node and stays that")]
    FixedMembership,
    /// Only a voter can be primary.
    #[error("{0:?} is not another voter")]
    NotAnotherVoter(NodeId),
    /// Nobody is known to be primary now.
    #[error("no primary is known")]
    NoPrimary,
    /// Too many reads are waiting.
    #[error("too many reads are waiting")]
    TooManyReads,
}

/// A frame from another node that is not acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than a frame may be.
    #[error("the frame has {0} bytes, too many")]
    TooLarge(usize),
    /// Ends before it is complete.
    #[error("the frame is cut short")]
    CutShort,
    /// Goes on after its end.
    #[error("{0} bytes follow the frame")]
    TrailingBytes(usize),
    /// Of a version that this node does not know.
    #[error("unknown version {0}")]
    Version(u8),
    /// A number that stands for nothing.
    #[error("{what} cannot be {value}")]
    Value {
        /// The field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
    /// Not from the node at the other end of the channel.
    #[error("the frame names another sender")]
    Sender,
    /// Not to this node.
    #[error("the frame is to another node")]
    Recipient,
    /// Contradicts what this node knows for certain: the sender is broken or lies.
    #[error("the frame contradicts this node's log: {0}")]
    Impossible(&'static str),
}
