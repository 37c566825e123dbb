//! The replicated log: which batches of the ledger are committed, and who may propose them.
//!
//! One [`Batch`] (consecutive ledger entries closed by a signature transaction) is one entry of the
//! log. Since every batch ends in a signature, CCF's rule "only signature transactions are
//! committable" is the commit rule of the log itself, and a new primary inherits nothing unsigned.
//!
//! The crate has no I/O, no clock and no thread. A driver feeds inputs in and carries effects out,
//! in order:
//!
//! ```text
//!      propose(batch) ──┐                    ┌──▶ Persist(n, batch)   to the host's disk
//!        persisted(n) ──┤                    ├──▶ Truncate(tx id)     disk, tree, store roll back
//!              tick() ──┼─▶ dyn Consensus ───┼──▶ Send(node, frame)   to another node's receive
//! receive(node, frame) ─┤    SingleNode      ├──▶ Committed(tx id)    replies, hooks
//!          read, transfer    Raft            ├──▶ Role, Membership    who proposes, who counts
//!        installed(tx id) ─┘                 └──▶ Install(tx id)      ledger from elsewhere
//! ```
//!
//! Invariants:
//! * a batch carries its view and first seqno; it counts only if the view is that of its entry and
//!   the seqno follows. The blank entry that begins a view carries no ledger bytes;
//! * a batch is committed only after it, and all before it, are where the durability rule wants
//!   them: on this node's disk ([`SingleNode`]), or on those of a majority ([`Raft`]);
//! * what is committed is never truncated, and whoever is primary in a view is so alone and once;
//! * a change of membership and the batch with its write set are one entry: the governed list of
//!   nodes and the quorum cannot part;
//! * a node never comes back under its identity: view and vote live in memory only, so that a host
//!   gains nothing by bringing back an old disk;
//! * bytes of other nodes are read by our own codec ([`wire`]), bounded, and held against what is
//!   known before the engine sees them.
//!
//! ```
//! use coco_consensus::{Batch, Consensus, Effect, Role, SingleNode, WriteNo};
//! use coco_kv::{Seqno, TxId, View};
//!
//! let mut log = SingleNode::new(View(2), Seqno(0));
//! assert_eq!(log.next_effect(), Some(Effect::Role(Role::Primary(View(2)))));
//! let batch = Batch { first: Seqno(1), last: TxId::new(2, 2), entries: "entries".into() };
//! log.propose(batch.clone()).unwrap();
//! assert_eq!(log.next_effect(), Some(Effect::Persist(WriteNo(0), batch)));
//! log.persisted(WriteNo(0)).unwrap();
//! assert_eq!(log.next_effect(), Some(Effect::Committed(TxId::new(2, 2))));
//! ```

mod batch;
mod consensus;
mod error;
mod member;
#[expect(clippy::field_reassign_with_default, reason = "how the engine's generated types are made")]
mod raft;
mod single;
pub mod wire;

pub use batch::{Batch, Effect, ReadNo, Role, WriteNo};
pub use consensus::Consensus;
pub use error::{ConsensusError, FrameError};
pub use member::{Change, ChangeError, MAX_MEMBERS, Membership, NodeId};
pub use raft::{Raft, Replica, Settings};
pub use single::SingleNode;
