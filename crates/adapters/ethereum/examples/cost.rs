//! What a transaction and a block cost, stage by stage, on one thread and without disk or network.
//!
//! `cargo run --release -p coco-ethereum --example cost -- [accounts] [transactions per block]`

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement on the host's side"
)]

use std::time::{Duration, Instant};

use alloy_consensus::crypto::secp256k1::sign_message;
use alloy_consensus::{SignableTransaction, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use coco_ethereum::{Chain, FeePolicy, Opening, SignedTransaction, StateTrie, consortium_genesis};
use coco_kv::{Store, View};

const CHAIN_ID: u64 = 1337;
const BLOCKS: usize = 5;
struct Sender {
    secret: B256,
    nonce: u64,
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().unwrap());
    let accounts = arguments.next().unwrap_or(100_000);
    let per_block = arguments.next().unwrap_or(1000);

    let mut senders: Vec<_> = (0..per_block.min(256))
        .map(|index| Sender { secret: keccak256(index.to_be_bytes()), nonce: 0 })
        .collect();
    let rich = senders.iter().map(|sender| address_of(sender.secret));
    let others = (0..accounts).map(|index| Address::from_word(keccak256(index.to_le_bytes())));
    let balances = rich.chain(others).map(|address| (address, U256::from(1_000_000_000)));
    let (store, started) = (Store::new(View(2)), Instant::now());
    let mut tx = store.begin();
    let (chain, _) =
        Chain::begin(&mut tx, &consortium_genesis(CHAIN_ID, balances), FeePolicy::Free).unwrap();
    store.commit(tx, |_, _| ()).unwrap();
    println!("genesis of {accounts} accounts: {:?}", started.elapsed());
    let started = Instant::now();
    let _ = StateTrie::build(&store.begin()).unwrap().root();
    println!("all tries from nothing:     {:?}", started.elapsed());

    for (name, kind) in [("transfers", Kind::Transfer), ("counters", Kind::Contract)] {
        let target = match kind {
            Kind::Transfer => None,
            Kind::Contract => Some(deploy(&store, &chain, &mut senders)),
        };
        let mut spent = [Duration::ZERO; 4];
        for block in 0..BLOCKS {
            let raw: Vec<Bytes> = (0..per_block)
                .map(|index| {
                    let at = index % senders.len();
                    let sender = senders.get_mut(at).unwrap();
                    sender.nonce += 1;
                    let some = Address::from_word(keccak256((block * index).to_le_bytes()));
                    let to = target.unwrap_or(some);
                    sign(sender.secret, sender.nonce - 1, TxKind::Call(to), Bytes::new())
                })
                .collect();
            let started = Instant::now();
            let signed: Vec<_> =
                raw.iter().map(|raw| SignedTransaction::from_wire(raw).unwrap()).collect();
            spent[0] += started.elapsed();
            for transaction in &signed {
                let started = Instant::now();
                let mut tx = store.begin();
                chain.execute(&mut tx, transaction, &opening()).unwrap();
                spent[1] += started.elapsed();
                let started = Instant::now();
                store.commit(tx, |_, _| ()).unwrap();
                spent[2] += started.elapsed();
            }
            let started = Instant::now();
            let mut tx = store.begin();
            chain.seal(&mut tx, store.head()).unwrap().unwrap();
            store.commit(tx, |_, _| ()).unwrap();
            spent[3] += started.elapsed();
        }
        let transactions = u32::try_from(BLOCKS * per_block).unwrap();
        let [recover, execute, commit, seal] = spent.map(|spent| spent / transactions);
        println!(
            "{name}, {per_block} in a block, each: decode and recover {recover:?}, \
             execute {execute:?}, commit {commit:?}, seal {seal:?}"
        );
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Transfer,
    Contract,
}

/// A contract in which everybody has a counter, at the slot of the caller's address, and that
/// logs each step.
fn deploy(store: &Store, chain: &Chain, senders: &mut [Sender]) -> Address {
    let code = "3354600101805f52335560205fa000";
    let init = format!("600f600c600039600f6000f3{code}");
    let sender = senders.first_mut().unwrap();
    let created = address_of(sender.secret).create(sender.nonce);
    let raw = sign(sender.secret, sender.nonce, TxKind::Create, hex::decode(init).unwrap().into());
    sender.nonce += 1;
    let mut tx = store.begin();
    let executed =
        chain.execute(&mut tx, &SignedTransaction::from_wire(&raw).unwrap(), &opening()).unwrap();
    assert!(executed.result.is_success());
    store.commit(tx, |_, _| ()).unwrap();
    created
}

fn opening() -> Opening {
    Opening { now_ms: 0, randomness: B256::ZERO }
}

fn sign(secret: B256, nonce: u64, to: TxKind, input: Bytes) -> Bytes {
    let transaction = TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce,
        gas_price: 0,
        gas_limit: 200_000,
        to,
        value: U256::ZERO,
        input,
    };
    let signature = sign_message(secret, transaction.signature_hash()).unwrap();
    let envelope: alloy_consensus::TxEnvelope = transaction.into_signed(signature).into();
    envelope.encoded_2718().into()
}

fn address_of(secret: B256) -> Address {
    let raw = sign(secret, 0, TxKind::Create, Bytes::new());
    SignedTransaction::from_wire(&raw).unwrap().sender()
}
