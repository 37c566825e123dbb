//! A chain over the store alone: parallel executions, restarts, rollbacks, beginnings.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails by panicking"
)]

use alloy_consensus::crypto::secp256k1::sign_message;
use alloy_consensus::{SignableTransaction, TxLegacy};
use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, keccak256};
use coco_ethereum::{
    Chain, ChainOptions, FeePolicy, GenesisError, Head, OpenBlock, Opening, Refusal,
    SignedTransaction, StateTrie, World, block, consortium_genesis, ledger_position, transaction,
};
use coco_kv::{Conflict, Seqno, Store, Tx, View};

const CHAIN_ID: u64 = 1337;
const BOB: Address = address!("00000000000000000000000000000000000000b0");

fn pay(secret: B256, nonce: u64, to: Address) -> SignedTransaction {
    let transaction = TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce,
        gas_price: 0,
        gas_limit: 21_000,
        to: TxKind::Call(to),
        value: U256::ONE,
        input: Bytes::new(),
    };
    let signature = sign_message(secret, transaction.signature_hash()).unwrap();
    SignedTransaction::new(transaction.into_signed(signature).into()).unwrap()
}

fn begin(secrets: &[B256]) -> (Store, Chain) {
    let store = Store::new(View(2));
    let rich = secrets.iter().map(|secret| (pay(*secret, 0, BOB).sender(), U256::from(1000)));
    let mut tx = store.begin();
    let genesis = consortium_genesis(CHAIN_ID, rich);
    let (chain, _) = Chain::begin(&mut tx, &genesis, FeePolicy::Free).unwrap();
    store.commit(tx, |_, _| ()).unwrap();
    (store, chain)
}

fn opening(now_ms: u64) -> Opening {
    Opening { now_ms, randomness: B256::repeat_byte(7) }
}

fn execute(store: &Store, chain: &Chain, transaction: &SignedTransaction, now_ms: u64) -> Seqno {
    let mut tx = store.begin();
    chain.execute(&mut tx, transaction, || opening(now_ms)).unwrap();
    store.commit(tx, |_, _| ()).unwrap().tx_id().seqno
}

fn seal(store: &Store, chain: &Chain) -> alloy_consensus::Header {
    let mut tx = store.begin();
    let sealed = chain.seal(&mut tx, store.head()).unwrap().unwrap();
    store.commit(tx, |_, _| ()).unwrap();
    assert_eq!(StateTrie::build(&store.begin()).unwrap().root(), sealed.header.state_root);
    sealed.header
}

fn balance(tx: &mut Tx, chain: &Chain, of: Address) -> u64 {
    let account = World::scratch(tx, chain.codes()).account(of).unwrap();
    account.unwrap_or_default().balance.to()
}

#[test]
fn executions_that_share_nothing_but_the_open_block_do_not_conflict() {
    let secrets = [keccak256("a"), keccak256("b"), keccak256("c")];
    let (store, chain) = begin(&secrets);
    execute(&store, &chain, &pay(secrets[2], 0, BOB), 1000);
    let run = |secret: B256, to: Address| {
        let mut tx = store.begin();
        chain.execute(&mut tx, &pay(secret, 0, to), || opening(5000)).unwrap();
        tx
    };
    let (one, two) = (Address::repeat_byte(1), Address::repeat_byte(2));
    let (first, second) = (run(secrets[0], one), run(secrets[1], two));
    store.commit(second, |_, _| ()).unwrap();
    store.commit(first, |_, _| ()).unwrap();
    // The order of the block is that of the ledger; its time that of its opening.
    let header = seal(&store, &chain);
    assert_eq!(header.timestamp, 1);
    let kept = block(&mut store.begin(), 1).unwrap().unwrap();
    let senders = kept
        .transactions
        .iter()
        .map(|hash| transaction(&mut store.begin(), *hash).unwrap().unwrap().sender);
    let expected = [secrets[2], secrets[1], secrets[0]].map(|s| pay(s, 0, BOB).sender());
    assert_eq!(senders.collect::<Vec<_>>(), expected);
}

#[test]
fn executions_that_touch_one_account_or_open_one_block_conflict() {
    let secrets = [keccak256("a"), keccak256("b")];
    let (store, chain) = begin(&secrets);
    let run = |secret: B256, nonce: u64, to: Address| {
        let mut tx = store.begin();
        chain.execute(&mut tx, &pay(secret, nonce, to), || opening(5000)).unwrap();
        tx
    };
    let (one, two) = (Address::repeat_byte(1), Address::repeat_byte(2));
    let (first, second) = (run(secrets[0], 0, one), run(secrets[1], 0, two));
    store.commit(first, |_, _| ()).unwrap();
    assert!(matches!(store.commit(second, |_, _| ()), Err(Conflict::Changed { .. })));
    let (first, second) = (run(secrets[0], 1, BOB), run(secrets[1], 0, BOB));
    store.commit(first, |_, _| ()).unwrap();
    assert!(matches!(store.commit(second, |_, _| ()), Err(Conflict::Changed { .. })));
    // One that was executed before its block was sealed is executed again, in the next one.
    let late = run(secrets[1], 0, two);
    seal(&store, &chain);
    assert!(matches!(store.commit(late, |_, _| ()), Err(Conflict::Changed { .. })));
}

#[test]
fn a_chain_goes_on_after_a_restart_without_its_caches() {
    let secret = keccak256("a");
    let (store, chain) = begin(&[secret]);
    execute(&store, &chain, &pay(secret, 0, BOB), 1000);
    let first = seal(&store, &chain);
    execute(&store, &chain, &pay(secret, 1, BOB), 2000);
    drop(chain);

    // Another node, which has the writes only: its tries follow those of its start.
    let follower = Chain::load(&mut store.begin()).unwrap().unwrap();
    let chain = Chain::load(&mut store.begin()).unwrap().unwrap();
    let seqno = execute(&store, &chain, &pay(secret, 2, BOB), 9000);
    let second = seal(&store, &chain);
    assert_eq!(second.parent_hash, first.hash_slow());
    assert_eq!(second.timestamp, 2);
    let hash = pay(secret, 2, BOB).hash();
    assert_eq!(ledger_position(&mut store.begin(), hash), Some(seqno));
    assert_eq!(balance(&mut store.begin(), &chain, BOB), 3);
    let past = World::past(&mut store.begin(), chain.codes(), 1).account(BOB).unwrap();
    assert_eq!(past.unwrap().balance, U256::ONE);

    let follower_since_block_2 = Chain::load(&mut store.begin()).unwrap().unwrap();
    execute(&store, &chain, &pay(secret, 3, Address::repeat_byte(4)), 9000);
    seal(&store, &chain);
    for (nonce, next) in (4..).zip([follower, follower_since_block_2]) {
        // Its root is checked against the whole state.
        execute(&store, &next, &pay(secret, nonce, BOB), 9000);
        seal(&store, &next);
    }
}

#[test]
fn what_is_rolled_back_was_never_there() {
    let secret = keccak256("a");
    let (store, chain) = begin(&[secret]);
    let boundary = store.head().seqno;
    execute(&store, &chain, &pay(secret, 0, BOB), 1000);
    seal(&store, &chain);
    store.rollback(boundary, View(3)).unwrap();
    assert_eq!(Head::read(&mut store.begin()).unwrap().unwrap().number, 0);
    assert!(OpenBlock::read(&mut store.begin()).unwrap().is_none());
    // Another block takes its number; the tries of the lost one are not taken for its own.
    execute(&store, &chain, &pay(secret, 0, Address::repeat_byte(9)), 1000);
    seal(&store, &chain);
    execute(&store, &chain, &pay(secret, 1, BOB), 1000);
    seal(&store, &chain);
    assert_eq!(balance(&mut store.begin(), &chain, BOB), 1);
}

#[test]
fn what_a_consortium_chooses_is_part_of_the_chain() {
    let secret = keccak256("a");
    let options = ChainOptions {
        transaction_gas_limit: Some(20_000_000),
        contract_code_limit: Some(1 << 20),
        unprotected_transactions: true,
        ..ChainOptions::default()
    };
    let store = Store::new(View(2));
    let mut tx = store.begin();
    Chain::begin(&mut tx, &consortium_genesis(CHAIN_ID, []), options.clone()).unwrap();
    store.commit(tx, |_, _| ()).unwrap();
    let chain = Chain::load(&mut store.begin()).unwrap().unwrap();
    assert_eq!(chain.rules().options, options);
    // A contract of 40,000 bytes, from a sender who names no chain.
    let transaction = TxLegacy {
        chain_id: None,
        nonce: 0,
        gas_price: 1_000_000_000,
        gas_limit: 19_000_000,
        to: TxKind::Create,
        value: U256::ZERO,
        input: Bytes::from_static(&[0x61, 0x9c, 0x40, 0x5f, 0xf3]),
    };
    let signature = sign_message(secret, transaction.signature_hash()).unwrap();
    let signed = SignedTransaction::new(transaction.into_signed(signature).into()).unwrap();
    let mut tx = store.begin();
    assert!(chain.execute(&mut tx, &signed, || opening(0)).unwrap().result.is_success());
    let mut world = World::scratch(&mut tx, chain.codes());
    let account = world.account(signed.sender().create(0)).unwrap().unwrap();
    assert_eq!(world.code(account.code_hash).unwrap().len(), 40_000);
}

#[test]
fn a_chain_is_begun_once_and_only_over_system_contracts_that_work() {
    let (store, chain) = begin(&[]);
    let genesis = consortium_genesis(CHAIN_ID, []);
    let again = Chain::begin(&mut store.begin(), &genesis, FeePolicy::Free);
    assert!(matches!(again, Err(GenesisError::Exists(_))));
    assert!(Chain::load(&mut Store::new(View(2)).begin()).unwrap().is_none());
    let nobody = pay(keccak256("nobody"), 0, BOB);
    let refused = chain.execute(&mut store.begin(), &nobody, || opening(0));
    assert!(matches!(refused, Err(Refusal::Invalid(_))));

    let mut broken = consortium_genesis(CHAIN_ID, []);
    let requests = alloy_eips::eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS;
    let code = Some(Bytes::from_static(&[0xfe]));
    broken.alloc.insert(requests, GenesisAccount { code, ..GenesisAccount::default() });
    let begun = Chain::begin(&mut Store::new(View(2)).begin(), &broken, FeePolicy::Free);
    assert!(matches!(begun, Err(GenesisError::SystemContract(_))));
}
