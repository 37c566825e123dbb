//! A file of RLP blocks, as `coco import-chain` takes it. Each is made to follow the head, so that
//! its transactions are executed.
#![no_main]

#[path = "../../crates/adapters/ethereum/tests/fixtures/mod.rs"]
mod fixtures;

use std::sync::LazyLock;

use coco_ethereum::{Chain, FeePolicy, Head, blocks_of, consortium_genesis};
use coco_kv::{Store, View};
use libfuzzer_sys::fuzz_target;

/// A chain without blocks: that of the recorded blocks if it is there.
static BEGINNING: LazyLock<(Store, Chain)> = LazyLock::new(|| {
    let recorded = fixtures::execution_apis();
    let recorded = recorded.and_then(|mut files| files.remove("tests/genesis.json"));
    let genesis = recorded.map(|json| serde_json::from_slice(&json).unwrap());
    let genesis = genesis.unwrap_or_else(|| consortium_genesis(1337, []));
    let store = Store::new(View(2));
    let mut tx = store.begin();
    let (chain, _) = Chain::begin(&mut tx, &genesis, FeePolicy::Market).unwrap();
    store.commit(tx, |_, _| ()).unwrap();
    (store, chain)
});

fn seeds() -> Vec<Vec<u8>> {
    let chain = fixtures::execution_apis().and_then(|mut files| files.remove("tests/chain.rlp"));
    let Some(chain) = chain else { return Vec::new() };
    blocks_of(&chain).map(|block| alloy_rlp::encode(block.unwrap())).collect()
}

fuzz_target!(init: coco_fuzz::seed("ethereum_chain", seeds()), |bytes: &[u8]| {
    let (store, chain) = &*BEGINNING;
    for block in blocks_of(bytes).take(4) {
        let Ok(mut block) = block else { return };
        let mut tx = store.begin();
        let head = Head::read(&mut tx).unwrap().unwrap();
        (block.header.number, block.header.parent_hash) = (head.number + 1, head.hash);
        let _ = chain.import(&mut tx, &block);
    }
});
