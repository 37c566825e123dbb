//! What nodes say to each other, byte by byte.
//!
//! Numbers are little-endian. A node id is 32 bytes, the SHA-256 of the node's public key.
//!
//! ```text
//! frame      version=1 (1) │ kind (1) │ from (32) │ to (32) │ view (8) │ body
//!
//! kind body
//!  1 append           previous: index (8) view (8) │ committed (8) │ count (4) │ entry …
//!  2 appended         index (8) │ committed (8)
//!  3 refused          index (8) │ hint: index (8) view (8) │ committed (8)
//!  4 vote request     kind (1): 0 pre-vote, 1 vote, 2 transfer │ last: index (8) view (8)
//!                     │ committed: index (8) view (8)
//!  5 vote             pre-vote (1) │ granted (1) │ committed: index (8) view (8)
//!  6 heartbeat        committed (8) │ 0 (1), or 1 (1) │ read
//!  7 heartbeat reply  committed (8) │ 0 (1), or 1 (1) │ read
//!  8 install          at: index (8) view (8) │ ledger: view (8) seqno (8) │ membership
//!  9 stand now
//! 10 read request     read
//! 11 read reply       index (8) │ read
//!
//! read       node (8) │ number (8)
//! entry      view (8) │ kind (1): 0 blank, 1 batch, 2 membership, 3 end of joint membership
//!            kind 1: batch; kind 2: count (2) │ change … │ batch
//! batch      view (8) │ first seqno (8) │ last seqno (8) │ length (4) │ ledger entries
//! change     what (1): 0 voter, 1 learner, 2 remove │ node (32)
//! membership four lists (voters, outgoing, learners, learners next), each count (2) │ node (32) …
//! ```
//!
//! Entries of an append follow `previous` without a gap, so they carry no index. A reader takes
//! exactly one frame, allocates no more than the frame's length, and refuses what no writer makes.

mod read;
mod write;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use coco_kv::{TxId, View};

use crate::{Batch, Change, FrameError, Membership, NodeId};

pub(crate) use read::read_membership_entry;
pub(crate) use write::write_membership_entry;

/// A batch's entries take at most this many bytes.
pub const MAX_BATCH_BYTES: usize = 128 << 20;
/// A frame takes at most this many bytes: one batch of the largest size after a message's fill.
pub const MAX_FRAME_BYTES: usize = MAX_BATCH_BYTES + (16 << 20);
/// Entries of an append, at most.
pub const MAX_FRAME_ENTRIES: usize = 1 << 16;
/// Views and indices stay below this, so that counting on never overflows.
pub(crate) const MAX_NUMBER: u64 = 1 << 56;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counted from 1; 0 is before the first.
    pub index: u64,
    /// The view of the entry there.
    pub view: View,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The view of the primary that proposed it.
    pub view: View,
    /// What it carries.
    pub content: Content,
}

/// What an entry of the log carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing: the first entry of a view.
    Blank,
    /// A batch.
    Batch(Batch),
    /// A batch whose write set changes the list of nodes, and that change.
    Membership(Vec<Change>, Batch),
    /// Nothing; the outgoing voters stop counting.
    LeaveJoint,
}

/// Why a vote is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidacy {
    /// Would you vote for me?
    PreVote,
    /// Vote for me.
    Vote,
    /// Vote for me: the primary wants it so.
    Transfer,
}

/// Names a read across nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadContext {
    /// The number of the node that asks.
    pub node: u64,
    /// The node's number for the read.
    pub read: u64,
}

/// What one node tells another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Entries that follow `previous`, and how far the log is committed.
    Append {
        /// The place before the first entry.
        previous: Position,
        /// Index of the last committed entry.
        committed: u64,
        /// The entries.
        entries: Vec<LogEntry>,
    },
    /// Everything up to `index` is persisted here.
    Appended {
        /// Index of the last persisted entry.
        index: u64,
        /// Index of the last entry known to be committed.
        committed: u64,
    },
    /// There is no such entry at `index` here.
    Refused {
        /// The index of `previous`.
        index: u64,
        /// The last place here that may be the same.
        hint: Position,
        /// Index of the last entry known to be committed.
        committed: u64,
    },
    /// A node wants to be primary.
    VoteRequest {
        /// How much it wants it.
        candidacy: Candidacy,
        /// The last entry of its log.
        last: Position,
        /// Its last committed entry.
        committed: Position,
    },
    /// The answer to that.
    Vote {
        /// It is about a pre-vote.
        pre_vote: bool,
        /// Whether it is a yes.
        granted: bool,
        /// If not: the voter's last committed entry.
        committed: Position,
    },
    /// The primary is there.
    Heartbeat {
        /// Index of the last committed entry that the recipient is known to have.
        committed: u64,
        /// A read that waits for the answers.
        read: Option<ReadContext>,
    },
    /// The answer to that.
    HeartbeatReply {
        /// Index of the last entry known to be committed.
        committed: u64,
        /// As in the heartbeat.
        read: Option<ReadContext>,
    },
    /// The log begins later than what the recipient needs: take the ledger from elsewhere.
    Install {
        /// The place to go on from.
        at: Position,
        /// The last transaction of the ledger there.
        ledger: TxId,
        /// The membership there.
        membership: Membership,
    },
    /// The primary wants the recipient to stand for election at once.
    StandNow,
    /// A backup asks from where on it may read.
    ReadRequest(ReadContext),
    /// The answer to that: whoever has executed up to `index`.
    ReadReply {
        /// Index of an entry that was committed when the read was asked for.
        index: u64,
        /// As in the request.
        read: ReadContext,
    },
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The sender.
    pub from: NodeId,
    /// The recipient.
    pub to: NodeId,
    /// The sender's view; that of a pre-vote is the one it would have. 0 only in a read request.
    pub view: View,
    /// What it says.
    pub message: Message,
}

impl Frame {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        write::frame(self)
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// If the bytes are not exactly one frame.
    pub fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        read::frame(bytes)
    }
}
