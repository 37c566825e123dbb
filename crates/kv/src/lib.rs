//! Maps, transactions, snapshots, rollback: the state of a node, in memory.
//!
//! A [`Store`] holds named maps of byte keys and values at the head of one total order of
//! transactions. It knows nothing of ledgers, encryption or consensus: what it applies it hands to
//! a *sink*, in order, and what becomes final or void it is told.
//!
//! ```text
//!   begin ──▶ Tx: reads a snapshot, buffers writes          (any thread, no lock)
//!               │
//!   commit ─────▼──────────────────────────────────────┐
//!   │ validate reads ▶ view.seqno ▶ apply ▶ sink       │    (one short lock)
//!   └──────────────────────────────────────────────────┘
//!   reserve ▶ … ▶ fill      a signature transaction's place now, its writes later
//!   apply                   replay of a ledger, or of another node's transactions
//!   rollback(to) / compact(committed)      the uncommitted tail is void / final
//! ```
//!
//! Invariants:
//! * a transaction sees its snapshot and its own writes; it commits only if all it read (keys,
//!   absent keys, ranges, lengths) reads the same at its place in the order, so every history is
//!   serial in the order of positions;
//! * positions have no gap, and the sink is called in their order;
//! * a snapshot never changes and never blocks a writer;
//! * any uncommitted position can be rolled back to, none that is committed.
//!
//! One thing is looser: a reserved transaction's writes appear when they are filled in, so maps
//! written that way (signatures) are not to be read by transactions that depend on their order.
//!
//! ```
//! use coco_kv::{Committed, MapName, Store, TxId, View};
//!
//! let (store, records) = (Store::new(View(2)), MapName::new("records"));
//! let mut tx = store.begin();
//! assert_eq!(tx.get(&records, b"greeting"), None);
//! tx.put(&records, "greeting", "hello");
//! let committed = store.commit(tx, |tx_id, writes| (tx_id.seqno, writes.len()))?;
//! assert_eq!(committed.tx_id(), TxId::new(2, 1));
//! assert_eq!(store.begin().get(&records, b"greeting").as_deref(), Some(b"hello".as_slice()));
//! # Ok::<(), coco_kv::Conflict>(())
//! ```

mod bytes;
mod id;
mod name;
mod reads;
mod snapshot;
mod state;
mod store;
mod tx;
mod undo;
mod writes;

pub use bytes::{Key, SmallBytes, Value};
pub use id::{Seqno, TxId, TxIdSyntax, View};
pub use name::MapName;
pub use snapshot::{BadEntry, Snapshot, SnapshotBuilder};
pub use state::{Entry, IntoEntries, StateMap};
pub use store::{Committed, Conflict, NoSuchBoundary, NotReserved, OutOfOrder, Store};
pub use tx::Tx;
pub use writes::{MapWrites, WriteSet};
