//! The serialised Merkle tree of a signature transaction.
#![no_main]

use coco_ledger::MerkleTree;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tree) = MerkleTree::parse(bytes) {
        assert_eq!(tree.serialise(tree.flushed()).as_deref(), Some(bytes));
    }
});
