//! What an ERC-20 transfer costs, stage by stage, without disk or network.
//!
//! `cargo run --release -p coco-ethereum --example cost -- [accounts] [transactions per block]`
//!
//! First the stages by themselves, then `Rpc` as clients use it: requests one by one and in batches of
//! 100, from 64 senders. Times are of the CPU, as Linux counts them for the thread, so that a busy
//! machine disturbs them little.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement on the host's side"
)]

use std::num::ParseIntError;
use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::crypto::secp256k1::sign_message;
use alloy_consensus::{SignableTransaction, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_genesis::{Genesis, GenesisAccount};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use coco_ethereum::trial::Trial;
use coco_ethereum::{Chain, FeePolicy, Opening, SignedTransaction, StateTrie, consortium_genesis};
use coco_kv::{Store, View};

const CHAIN_ID: u64 = 1337;
const SENDERS: usize = 64;
const TOKEN: Address = Address::repeat_byte(0x70);

/// `transfer(address,uint256)` of a token, without the other functions: balances in a mapping at
/// slot 0, a revert if there is too little, the event `Transfer`.
const TOKEN_CODE: &str = "\
    600435602435335f525f60205260405f20805480831160\
    5b578290039055815f5260405f2080548201905\
    55f52337fddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef60205fa3\
    60015f5260205ff35b5f5ffd";

fn main() -> Result<(), ParseIntError> {
    let arguments = std::env::args().skip(1).map(|argument| argument.parse());
    let arguments: Vec<usize> = arguments.collect::<Result<_, _>>()?;
    let accounts = arguments.first().copied().unwrap_or(100_000);
    let per_block = arguments.get(1).copied().unwrap_or(1000).max(1);
    let blocks = (20_000 / per_block).clamp(5, 2_000);

    let mut senders: Vec<_> = (0..SENDERS)
        .map(|index| Sender { secret: keccak256(index.to_be_bytes()), nonce: 0 })
        .collect();
    let genesis = genesis(&senders, accounts);
    stages(&genesis, &mut senders, accounts, per_block, blocks);
    senders.iter_mut().for_each(|sender| sender.nonce = 0);
    clients(&genesis, &mut senders, per_block, blocks);
    Ok(())
}

/// Each stage by itself.
fn stages(
    genesis: &Genesis,
    senders: &mut [Sender],
    accounts: usize,
    per_block: usize,
    blocks: usize,
) {
    let (store, started) = (Store::new(View(2)), on_cpu());
    let mut tx = store.begin();
    let (chain, _) = Chain::begin(&mut tx, genesis, FeePolicy::Free).unwrap();
    store.commit(tx, |_, _| ()).unwrap();
    store.compact(store.head().seqno);
    println!("genesis of {accounts} accounts: {:?}, {} MB", on_cpu() - started, resident_mb());
    let started = on_cpu();
    let trie = StateTrie::build(&store.begin()).unwrap();
    let root = trie.root();
    let (built, before_mb) = (on_cpu() - started, resident_mb());
    // The first may have taken what the genesis has left; the second shows what one takes.
    let second = StateTrie::build(&store.begin()).unwrap();
    assert_eq!(second.root(), root);
    println!("all tries from nothing: {built:?}, {} MB", resident_mb() - before_mb);
    drop((trie, second));

    let before_mb = resident_mb();
    let mut spent = [Duration::ZERO; 3];
    let (mut writes, mut bytes) = (0, 0);
    for _ in 0..blocks {
        let raw: Vec<Bytes> = transfers(senders, per_block);
        let started = on_cpu();
        let signed: Vec<_> =
            raw.iter().map(|raw| SignedTransaction::from_wire(raw).unwrap()).collect();
        spent[0] += on_cpu() - started;
        let started = on_cpu();
        for transaction in &signed {
            let mut tx = store.begin();
            let executed = chain.execute(&mut tx, transaction, opening).unwrap();
            assert!(executed.result.is_success());
            writes += tx.writes().len();
            bytes += written_bytes(&tx);
            store.commit(tx, |_, _| ()).unwrap();
        }
        spent[1] += on_cpu() - started;
        let started = on_cpu();
        let mut tx = store.begin();
        chain.seal(&mut tx, store.head()).unwrap().unwrap();
        writes += tx.writes().len();
        bytes += written_bytes(&tx);
        store.commit(tx, |_, _| ()).unwrap();
        store.compact(store.head().seqno);
        spent[2] += on_cpu() - started;
    }
    let transactions = blocks * per_block;
    let [recover, execute, seal] = spent.map(|spent| spent / u32::try_from(transactions).unwrap());
    println!(
        "stages, {per_block} in a block, each: decode and recover {recover:?}, \
         execute and commit {execute:?}, seal and commit {seal:?}"
    );
    println!(
        "writes {:.1}, of {} bytes; memory {} bytes",
        writes as f64 / transactions as f64,
        bytes / transactions,
        (resident_mb() - before_mb) * 1_000_000 / i64::try_from(transactions).unwrap()
    );
}

/// Requests as a client sends them.
fn clients(genesis: &Genesis, senders: &mut [Sender], per_block: usize, blocks: usize) {
    let (trial, rpc) = Trial::begin(genesis, FeePolicy::Free).unwrap();
    let rpc = Arc::new(rpc);
    for (name, batch) in [("one by one", 1), ("in batches of 100", 100.min(per_block))] {
        let (mut spent, mut sealing) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..blocks {
            let raw = transfers(senders, per_block);
            let requests: Vec<Vec<u8>> = raw.chunks(batch).map(request).collect();
            let started = on_cpu();
            for request in &requests {
                let reply = block_on(rpc.handle(request)).unwrap();
                assert!(!reply.windows(7).any(|window| window == b"\"error\""));
            }
            spent += on_cpu() - started;
            let started = on_cpu();
            trial.seal(&rpc).unwrap().unwrap();
            sealing += on_cpu() - started;
        }
        let transactions = u32::try_from(blocks * per_block).unwrap();
        println!(
            "requests {name}: {:?} each, sealing {:?}",
            spent / transactions,
            sealing / transactions
        );
    }
}

fn request(raw: &[Bytes]) -> Vec<u8> {
    let one = |(id, raw): (usize, &Bytes)| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_sendRawTransaction","params":["{raw}"]}}"#
        )
    };
    let all: Vec<_> = raw.iter().enumerate().map(one).collect();
    match all.as_slice() {
        [one] => one.clone().into_bytes(),
        all => format!("[{}]", all.join(",")).into_bytes(),
    }
}

struct Sender {
    secret: B256,
    nonce: u64,
}

/// Accounts with ether, and the token with balances of the senders.
fn genesis(senders: &[Sender], accounts: usize) -> Genesis {
    let others = (0..accounts).map(|index| Address::from_word(keccak256(index.to_le_bytes())));
    let balances = others.map(|address| (address, U256::from(1_000_000_000)));
    let mut genesis = consortium_genesis(CHAIN_ID, balances);
    let slot = |address: Address| keccak256([address.into_word().0, [0; 32]].concat());
    let storage = senders
        .iter()
        .map(|sender| (slot(address_of(sender.secret)), B256::with_last_byte(1).0))
        .map(|(slot, mut balance)| {
            balance[16] = 1;
            (slot, B256::from(balance))
        });
    let token = GenesisAccount {
        nonce: Some(1),
        code: Some(hex::decode(TOKEN_CODE).unwrap().into()),
        storage: Some(storage.collect()),
        ..GenesisAccount::default()
    };
    genesis.alloc.insert(TOKEN, token);
    genesis
}

/// Signed transfers of one token each, from the senders in turn to somebody else each time.
fn transfers(senders: &mut [Sender], count: usize) -> Vec<Bytes> {
    let one = |index: usize| {
        let at = index % senders.len();
        let sender = senders.get_mut(at).unwrap();
        sender.nonce += 1;
        let to = Address::from_word(keccak256((at as u64 * 16 + sender.nonce % 16).to_le_bytes()));
        let input = [&hex!("a9059cbb")[..], &to.into_word().0, &U256::from(1).to_be_bytes::<32>()];
        let transaction = TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce: sender.nonce - 1,
            gas_price: 0,
            gas_limit: 100_000,
            to: TxKind::Call(TOKEN),
            value: U256::ZERO,
            input: input.concat().into(),
        };
        sign(sender.secret, transaction)
    };
    (0..count).map(one).collect()
}

fn opening() -> Opening {
    Opening { now_ms: 0, randomness: B256::ZERO }
}

fn sign(secret: B256, transaction: TxLegacy) -> Bytes {
    let signature = sign_message(secret, transaction.signature_hash()).unwrap();
    let envelope: alloy_consensus::TxEnvelope = transaction.into_signed(signature).into();
    envelope.encoded_2718().into()
}

fn address_of(secret: B256) -> Address {
    let raw = sign(secret, TxLegacy { chain_id: Some(CHAIN_ID), ..TxLegacy::default() });
    SignedTransaction::from_wire(&raw).unwrap().sender()
}

/// Bytes of keys and values that a transaction writes.
fn written_bytes(tx: &coco_kv::Tx) -> usize {
    let maps = tx.writes().maps();
    let all = maps.flat_map(|map| map.iter().map(|(key, value)| (key.len(), value)));
    all.map(|(key, value)| key + value.map_or(0, |value| value.len())).sum()
}

/// What this thread has run so far.
fn on_cpu() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
}

fn resident_mb() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: i64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096 / 1_000_000
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
