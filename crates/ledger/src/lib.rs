//! ledger

mod bytes;
mod merkle;

pub use bytes::Truncated;
pub use merkle::{MerkleTree, Path, PathStep, Side, TreeError};
