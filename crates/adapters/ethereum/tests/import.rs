//! The test chain of execution-apis: every fork from Frontier to Osaka in 54 blocks, imported with
//! its own headers. A root, bloom or gas figure that differs stops the import.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test reads its fixtures from disk and fails by panicking"
)]

mod fixtures;

use alloy_consensus::BlockBody;
use coco_ethereum::{
    Chain, FeePolicy, Head, ImportError, ImportedBlock, StateTrie, block, blocks_of,
    consortium_genesis,
};
use coco_kv::{Store, View};

#[test]
fn every_block_of_the_hive_chain_has_the_roots_that_its_header_says() {
    let Some(files) = fixtures::execution_apis() else { return };
    let genesis = serde_json::from_slice(&files["tests/genesis.json"]).unwrap();
    let store = Store::new(View(2));
    let mut tx = store.begin();
    let (chain, _) = Chain::begin(&mut tx, &genesis, FeePolicy::Market).unwrap();
    store.commit(tx, |_, _| ()).unwrap();

    let (mut blocks, mut transactions) = (0, 0);
    for imported in blocks_of(&files["tests/chain.rlp"]) {
        let imported = imported.unwrap();
        let mut tx = store.begin();
        let hash = chain.import(&mut tx, &imported).unwrap();
        store.commit(tx, |_, _| ()).unwrap();
        let mut tx = store.begin();
        assert_eq!(Head::read(&mut tx).unwrap().unwrap().hash, hash);
        assert_eq!(
            block(&mut tx, imported.header.number).unwrap().unwrap().header,
            imported.header
        );
        assert_eq!(StateTrie::build(&tx).unwrap().root(), imported.header.state_root);
        blocks += 1;
        transactions += imported.body.transactions.len();
    }
    println!("imported {blocks} blocks with {transactions} transactions");
    assert_eq!((blocks, transactions), (54, 249));

    let mut tx = store.begin();
    let again = blocks_of(&files["tests/chain.rlp"]).next().unwrap().unwrap();
    assert!(matches!(chain.import(&mut tx, &again), Err(ImportError::NotNext { number: 1, .. })));
}

#[test]
fn an_export_begins_with_the_block_that_the_genesis_makes() {
    let genesis = consortium_genesis(1337, []);
    let store = Store::new(View(2));
    let mut tx = store.begin();
    let (chain, own) = Chain::begin(&mut tx, &genesis, FeePolicy::Free).unwrap();
    let header = block(&mut tx, 0).unwrap().unwrap().header;
    let withdrawals = Some(Vec::new().into());
    let mut first =
        ImportedBlock { header, body: BlockBody { withdrawals, ..BlockBody::default() } };
    let exported = alloy_rlp::encode(&first);
    let read = blocks_of(&exported).next().unwrap().unwrap();
    assert!(chain.is_first(&mut tx, &read).unwrap());
    first.header.timestamp = 7;
    let stated = first.header.hash_slow();
    match chain.is_first(&mut tx, &first) {
        Err(error @ ImportError::OtherGenesis { .. }) => {
            let text = error.to_string();
            assert!(
                text.contains(&own.to_string()) && text.contains(&stated.to_string()),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    first.header.number = 1;
    assert!(!chain.is_first(&mut tx, &first).unwrap());
}

#[test]
fn a_block_with_a_wrong_field_is_refused() {
    let Some(files) = fixtures::execution_apis() else { return };
    let genesis = serde_json::from_slice(&files["tests/genesis.json"]).unwrap();
    let store = Store::new(View(2));
    let mut tx = store.begin();
    let (chain, _) = Chain::begin(&mut tx, &genesis, FeePolicy::Market).unwrap();
    store.commit(tx, |_, _| ()).unwrap();
    let good = blocks_of(&files["tests/chain.rlp"]).next().unwrap().unwrap();
    for (field, spoil) in [
        ("state_root", (|header| header.state_root.0[0] ^= 1) as fn(&mut alloy_consensus::Header)),
        ("receipts_root", |header| header.receipts_root.0[0] ^= 1),
        ("transactions_root", |header| header.transactions_root.0[0] ^= 1),
        ("logs_bloom", |header| header.logs_bloom.0[0] ^= 1),
        ("gas_used", |header| header.gas_used += 1),
        ("ommers_hash", |header| header.ommers_hash.0[0] ^= 1),
    ] {
        let mut block = good.clone();
        spoil(&mut block.header);
        match chain.import(&mut store.begin(), &block) {
            Err(ImportError::Differs { number: 1, field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let cut = &files["tests/chain.rlp"][..1000];
    assert!(matches!(blocks_of(cut).last(), Some(Err(ImportError::Syntax { .. }))));
}
