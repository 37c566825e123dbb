//! The serialised Merkle tree of a signature transaction.
#![no_main]

use coco_crypto::Digest;
use coco_ledger::MerkleTree;
use libfuzzer_sys::fuzz_target;

fn seeds() -> Vec<Vec<u8>> {
    let mut tree = MerkleTree::new();
    let mut sizes = (1..=20_u8).map(|leaf| {
        tree.append(Digest([leaf; 32]));
        tree.serialise(u64::from(leaf / 2)).unwrap()
    });
    sizes.by_ref().step_by(5).collect()
}

fuzz_target!(init: coco_fuzz::seed("ledger_tree", seeds()), |bytes: &[u8]| {
    if let Ok(tree) = MerkleTree::parse(bytes) {
        assert_eq!(tree.serialise(tree.flushed()).as_deref(), Some(bytes));
    }
});
