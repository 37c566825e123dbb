//! Blocks: how one is opened, sealed, kept and read.

mod open;
mod read;
mod seal;
mod system;

pub use open::{Executed, Opening};
pub(crate) use open::{ExecutedAt, ExecutedHere};
pub use read::{
    Head, IncludedTransaction, block, block_hash, block_number, changes, ledger_position,
    transaction,
};
pub(crate) use read::{executed_transaction, is_executed};
pub use seal::Sealed;
pub(crate) use seal::{
    BlockDraft, BlockTransaction, Included, executed, log_key, merged, record_block,
    record_included, record_transaction, weight,
};
pub(crate) use system::{begin_block, end_block, pay, requests_hash};

/// The requests that the system contracts and the deposit contract made in a block (EIP-7685).
pub(crate) type Requests = alloy_eips::eip7685::Requests;
