//! Maps, transactions, snapshots, rollback.

mod id;

pub use id::{Seqno, TxId, TxIdSyntax, View};
