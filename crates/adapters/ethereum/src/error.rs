//! What is wrong with the stored state itself.

use alloy_primitives::B256;
use revm::database_interface::DBErrorMarker;

/// The stored state cannot be read. This is a fault of the node, never of a caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A value that this crate wrote is not readable as what it was.
    #[error("a record of map {map} is not readable")]
    BadRecord {
        /// The map.
        map: &'static str,
    },
    /// An account names code that is not there.
    #[error("there is no code with hash {0}")]
    NoCode(B256),
    /// The chain has no genesis.
    #[error("the chain has no genesis block")]
    NoGenesis,
    /// A block that is known by number has no record.
    #[error("block {0} has no record")]
    NoBlock(u64),
    /// A transaction that a block lists has no record.
    #[error("transaction {0} has no record")]
    NoTransaction(B256),
}

impl DBErrorMarker for StateError {}
