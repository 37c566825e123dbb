//! Blocks that the chain makes, checked by whoever has only their bytes and the genesis: executed
//! again from the start, and their roots computed again from all there is.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails by panicking"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::crypto::secp256k1::sign_message;
use alloy_consensus::{ReceiptEnvelope, SignableTransaction, TxEip1559, TxEnvelope, proofs};
use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bloom, Bytes, TxKind, U256, hex, keccak256};
use alloy_trie::{HashBuilder, Nibbles, TrieAccount};
use coco_ethereum::rpc::{Params, Rpc};
use coco_ethereum::trial::Trial;
use coco_ethereum::{
    FeePolicy, Head, Node, SignedTransaction, World, block, blocks_of, consortium_genesis,
    transaction,
};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const CHAIN_ID: u64 = 1337;
const SENDERS: u8 = 3;
/// `sstore(calldata[0], calldata[32])`, and a log with the slot as topic.
const STORE: Address = Address::repeat_byte(0x55);
const STORE_CODE: &str = "6020355f35556020355f525f3560205fa100";
/// Init code: keeps 7 in slot 1, and makes a contract that gives all it has to its caller.
const MORTAL: &str = "600760015563 33ff0000 5f52 6002 601c f3";

#[derive(Clone, Debug)]
enum Step {
    Pay { from: u8, to: u8, wei: u8 },
    Put { from: u8, slot: u8, value: u8 },
    Create { from: u8 },
    Kill { from: u8, which: u8 },
    Revert { from: u8 },
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    let sender = || 0..SENDERS;
    prop_oneof![
        3 => (sender(), 0u8..40, 0u8..3).prop_map(|(from, to, wei)| Step::Pay { from, to, wei }),
        4 => (sender(), 0u8..20, 0u8..3).prop_map(|(from, slot, value)| Step::Put { from, slot, value }),
        1 => sender().prop_map(|from| Step::Create { from }),
        1 => (sender(), any::<u8>()).prop_map(|(from, which)| Step::Kill { from, which }),
        1 => sender().prop_map(|from| Step::Revert { from }),
        3 => Just(Step::Seal),
    ]
}

fn secret(sender: u8) -> B256 {
    keccak256([sender])
}

fn signed(sender: u8, nonce: u64, to: TxKind, wei: u8, input: Bytes) -> SignedTransaction {
    let transaction = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 200_000,
        max_fee_per_gas: 10,
        max_priority_fee_per_gas: 2,
        to,
        value: U256::from(wei),
        input,
        ..TxEip1559::default()
    };
    let signature = sign_message(secret(sender), transaction.signature_hash()).unwrap();
    SignedTransaction::new(transaction.into_signed(signature).into()).unwrap()
}

fn address(sender: u8) -> Address {
    signed(sender, 0, TxKind::Create, 0, Bytes::new()).sender()
}

fn genesis() -> alloy_genesis::Genesis {
    let rich = (0..SENDERS).map(|sender| (address(sender), U256::from(u64::MAX)));
    let mut genesis = consortium_genesis(CHAIN_ID, rich);
    genesis.coinbase = Address::repeat_byte(0xcb);
    let code = Some(hex::decode(STORE_CODE).unwrap().into());
    genesis.alloc.insert(STORE, GenesisAccount { code, ..GenesisAccount::default() });
    genesis
}

/// Runs the steps, and seals what is left.
fn run(fees: FeePolicy, steps: &[Step]) -> (Arc<Trial>, Rpc) {
    let (trial, rpc) = Trial::begin(&genesis(), fees).unwrap();
    let mut nonces = [0_u64; SENDERS as usize];
    let mut created = Vec::new();
    for step in steps {
        let (from, to, wei, input) = match *step {
            Step::Pay { from, to, wei } => {
                (from, TxKind::Call(Address::repeat_byte(to)), wei, Bytes::new())
            }
            Step::Put { from, slot, value } => {
                let words = [slot, value].map(|byte| B256::with_last_byte(byte).0);
                (from, TxKind::Call(STORE), 0, words.concat().into())
            }
            Step::Create { from } => {
                created.push(address(from).create(nonces[usize::from(from)]));
                let init = hex::decode(MORTAL.replace(' ', "")).unwrap();
                (from, TxKind::Create, 9, init.into())
            }
            Step::Kill { from, which } => {
                let Some(mortal) = created.get(usize::from(which) % created.len().max(1)) else {
                    continue;
                };
                (from, TxKind::Call(*mortal), 1, Bytes::new())
            }
            Step::Revert { from } => {
                (from, TxKind::Create, 0, Bytes::from_static(&[0x5f, 0x5f, 0xfd]))
            }
            Step::Seal => {
                trial.pass_ms(700);
                trial.seal(&rpc).unwrap();
                continue;
            }
        };
        let nonce = &mut nonces[usize::from(from)];
        rpc.submit(signed(from, *nonce, to, wei, input)).unwrap();
        *nonce += 1;
    }
    trial.seal(&rpc).unwrap();
    (trial, rpc)
}

/// The state root over everything that was ever touched, from nothing.
fn naive_state_root(world: &mut World<'_>, touched: &BTreeMap<Address, Vec<U256>>) -> B256 {
    let mut accounts = BTreeMap::new();
    for (address, slots) in touched {
        let Some(account) = world.account(*address).unwrap() else { continue };
        let slots: BTreeMap<B256, Vec<u8>> = slots
            .iter()
            .map(|slot| (*slot, world.slot(*address, *slot).unwrap()))
            .filter(|(_, value)| !value.is_zero())
            .map(|(slot, value)| (keccak256(slot.to_be_bytes::<32>()), alloy_rlp::encode(value)))
            .collect();
        let account = TrieAccount {
            nonce: account.nonce,
            balance: account.balance,
            storage_root: root(&slots),
            code_hash: account.code_hash,
        };
        accounts.insert(keccak256(address), alloy_rlp::encode(account));
    }
    root(&accounts)
}

fn root(entries: &BTreeMap<B256, Vec<u8>>) -> B256 {
    let mut builder = HashBuilder::default();
    for (key, value) in entries {
        builder.add_leaf(Nibbles::unpack(key), value);
    }
    builder.root()
}

fn ask(rpc: &Rpc, method: &str, params: Json) -> Json {
    rpc.answer(method, &Params::new(Some(params)).unwrap()).unwrap()
}

fn check(fees: FeePolicy, steps: &[Step]) {
    let (trial, rpc) = run(fees, steps);
    let (copy, other) = Trial::begin(&genesis(), fees).unwrap();
    let head = Head::read(&mut trial.begin()).unwrap().unwrap();
    let mut touched: BTreeMap<Address, Vec<U256>> = BTreeMap::new();
    for (address, account) in &genesis().alloc {
        touched
            .entry(*address)
            .or_default()
            .extend(account.storage_slots().map(|(slot, _)| U256::from_be_bytes(slot.0)));
    }
    for number in 1..=head.number {
        let tx = &mut trial.begin();
        let record = block(tx, number).unwrap().unwrap();
        for change in coco_ethereum::changes(tx, number).unwrap() {
            touched.entry(change.address).or_default().extend(change.slots);
        }
        let mut envelopes: Vec<TxEnvelope> = Vec::new();
        let mut receipts: Vec<ReceiptEnvelope> = Vec::new();
        for hash in &record.transactions {
            let included = transaction(tx, *hash).unwrap().unwrap();
            receipts.push(included.receipt());
            envelopes.push(included.envelope);
        }
        let header = &record.header;
        assert_eq!(proofs::calculate_transaction_root(&envelopes), header.transactions_root);
        assert_eq!(proofs::calculate_receipt_root(&receipts), header.receipts_root);
        let bloom = receipts.iter().fold(Bloom::ZERO, |all, receipt| all | *receipt.logs_bloom());
        assert_eq!(bloom, header.logs_bloom);
        let mut world = World::past(tx, rpc.chain().codes(), number);
        assert_eq!(naive_state_root(&mut world, &touched), header.state_root);

        // Another node that is given the bytes comes to the same block.
        let raw = ask(&rpc, "debug_getRawBlock", json!([format!("{number:#x}")]));
        let raw: Bytes = serde_json::from_value(raw).unwrap();
        let imported = blocks_of(&raw).next().unwrap().unwrap();
        let mut tx = copy.begin();
        let hash = other.chain().import(&mut tx, &imported).unwrap();
        assert_eq!(hash, header.hash_slow());
        copy.commit(tx, coco_crypto::Digest::ZERO).unwrap();
    }
    assert_eq!(Head::read(&mut copy.begin()).unwrap().unwrap().hash, head.hash);
    let logs = json!([{"fromBlock": "0x0"}]);
    assert_eq!(ask(&rpc, "eth_getLogs", logs.clone()), ask(&other, "eth_getLogs", logs));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn blocks_are_what_their_bytes_say(
        steps in prop::collection::vec(step(), 0..60),
        free: bool,
    ) {
        check(if free { FeePolicy::Free } else { FeePolicy::Fixed(7) }, &steps);
    }
}
