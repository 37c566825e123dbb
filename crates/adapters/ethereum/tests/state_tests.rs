//! Ethereum's GeneralStateTests, every case through the store and from the wire: the state before
//! is committed, the signed transaction is parsed and its sender recovered, it is executed on a
//! store transaction and committed, the root is that of the tries that follow from the store.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test reads its fixtures from disk and fails by panicking"
)]

mod fixtures;

use std::collections::BTreeMap;
use std::sync::Mutex;

use alloy_consensus::TxEnvelope;
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, B256, Bytes, Log, U256, keccak256};
use coco_ethereum::{Change, Codes, SignedTransaction, StateTrie, Surroundings, World};
use coco_kv::{MapName, Store, View};
use revm::context::{BlockEnv, CfgEnv};
use revm::primitives::hardfork::SpecId;
use serde::Deserialize;

#[derive(Deserialize)]
struct Unit {
    env: Env,
    pre: BTreeMap<Address, Account>,
    post: BTreeMap<String, Vec<Case>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Env {
    current_number: U256,
    current_coinbase: Address,
    current_timestamp: U256,
    current_gas_limit: U256,
    current_difficulty: U256,
    current_base_fee: Option<U256>,
    current_random: Option<B256>,
    current_excess_blob_gas: Option<U256>,
}

#[derive(Deserialize)]
struct Account {
    nonce: U256,
    balance: U256,
    code: Bytes,
    storage: BTreeMap<U256, U256>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    expect_exception: Option<String>,
    indexes: serde_json::Value,
    hash: B256,
    logs: B256,
    txbytes: Bytes,
}

/// The state before, committed; with the root it has.
fn prepare(unit: &Unit, codes: &Codes) -> (Store, StateTrie) {
    let store = Store::new(View(2));
    let mut tx = store.begin();
    let hashes = MapName::new("ethereum.hashes");
    let number: u64 = unit.env.current_number.saturating_to();
    for number in number.saturating_sub(256)..number {
        tx.put(&hashes, number.to_be_bytes(), keccak256(number.to_string()).0);
    }
    let mut world = World::scratch(&mut tx, codes);
    for (address, account) in &unit.pre {
        let fields = (account.nonce.to(), account.balance, account.code.as_ref());
        let storage = account.storage.iter().map(|(slot, value)| (*slot, *value));
        world.put_whole_account(*address, fields, storage);
    }
    store.commit(tx, |_, _| ()).unwrap();
    let trie = StateTrie::build(&store.begin()).unwrap();
    (store, trie)
}

fn spec_of(fork: &str) -> SpecId {
    match fork {
        "Frontier" => SpecId::FRONTIER,
        "Homestead" => SpecId::HOMESTEAD,
        "EIP150" => SpecId::TANGERINE,
        "EIP158" => SpecId::SPURIOUS_DRAGON,
        "Byzantium" => SpecId::BYZANTIUM,
        // Constantinople is Petersburg but for EIP-1283, on which none of its cases here depends.
        "Constantinople" | "ConstantinopleFix" => SpecId::PETERSBURG,
        "Istanbul" => SpecId::ISTANBUL,
        "Berlin" => SpecId::BERLIN,
        "London" => SpecId::LONDON,
        "Paris" | "Merge" => SpecId::MERGE,
        "Shanghai" => SpecId::SHANGHAI,
        "Cancun" => SpecId::CANCUN,
        "Prague" => SpecId::PRAGUE,
        "Osaka" => SpecId::OSAKA,
        other => panic!("fork {other} is not known"),
    }
}

fn surroundings(spec: SpecId, env: &Env) -> Surroundings {
    let mut rules = CfgEnv::new_with_spec(spec);
    rules.chain_id = 1;
    rules.max_blobs_per_tx = Some(if spec == SpecId::PRAGUE { 9 } else { 6 });
    let mut block = BlockEnv {
        number: env.current_number,
        beneficiary: env.current_coinbase,
        timestamp: env.current_timestamp,
        gas_limit: env.current_gas_limit.saturating_to(),
        basefee: env.current_base_fee.unwrap_or_default().saturating_to(),
        difficulty: env.current_difficulty,
        prevrandao: env.current_random,
        ..BlockEnv::default()
    };
    if let Some(excess) = env.current_excess_blob_gas {
        let fraction = rules.blob_base_fee_update_fraction();
        block.set_blob_excess_gas_and_price(excess.to(), fraction);
    }
    if spec.is_enabled_in(SpecId::MERGE) && block.prevrandao.is_none() {
        block.prevrandao = Some(B256::ZERO);
    }
    Surroundings::new(rules, block)
}

fn parse(bytes: &[u8], spec: SpecId) -> Result<SignedTransaction, String> {
    let envelope = TxEnvelope::decode_2718_exact(bytes).map_err(|error| error.to_string())?;
    let signed = if spec.is_enabled_in(SpecId::HOMESTEAD) {
        SignedTransaction::new(envelope)
    } else {
        SignedTransaction::new_frontier(envelope)
    };
    signed.map_err(|error| error.to_string())
}

fn logs_hash(logs: &[Log]) -> B256 {
    let mut bytes = Vec::new();
    alloy_rlp::encode_list(logs, &mut bytes);
    keccak256(bytes)
}

fn run(unit: &Unit, spec: SpecId, case: &Case) -> Result<(), String> {
    let codes = Codes::default();
    let (store, mut trie) = prepare(unit, &codes);
    let mut tx = store.begin();
    let mut world = World::in_block(&mut tx, &codes, unit.env.current_number.saturating_to());
    let executed = parse(&case.txbytes, spec).and_then(|signed| {
        let surroundings = surroundings(spec, &unit.env);
        surroundings.execute(&mut world, signed.to_evm()).map_err(|error| error.to_string())
    });
    let (logs, changes) = match (executed, &case.expect_exception) {
        (Ok(executed), None) => {
            let changes = world.apply(executed.state, spec).map_err(|e| e.to_string())?;
            (executed.result.into_logs(), changes)
        }
        (Err(_), Some(_)) => (Vec::new(), Vec::<Change>::new()),
        (Ok(_), Some(exception)) => return Err(format!("executed, but expected {exception}")),
        (Err(error), None) => return Err(format!("refused: {error}")),
    };
    store.commit(tx, |_, _| ()).unwrap();

    let mut tx = store.begin();
    trie.update(&mut World::scratch(&mut tx, &codes), &changes).unwrap();
    if trie.root() != case.hash {
        return Err(format!("state root {} instead of {}", trie.root(), case.hash));
    }
    if logs_hash(&logs) != case.logs {
        return Err("other logs".to_owned());
    }
    Ok(())
}

#[test]
fn every_general_state_test_passes_through_the_store() {
    let Some(files) = fixtures::archive("ethereum-tests-2024-10-state.tar.xz") else { return };
    let work: Vec<_> = files.into_iter().filter(|(name, _)| name.ends_with(".json")).collect();
    let work = Mutex::new(work);
    let (passed, failed) = (Mutex::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some((name, bytes)) = work.lock().unwrap().pop() else { break };
                    let suite: BTreeMap<String, Unit> = serde_json::from_slice(&bytes)
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    for (title, unit) in &suite {
                        for (fork, cases) in &unit.post {
                            for case in cases {
                                match run(unit, spec_of(fork), case) {
                                    Ok(()) => *passed.lock().unwrap() += 1,
                                    Err(error) => failed.lock().unwrap().push(format!(
                                        "{name} {title} {fork} {}: {error}",
                                        case.indexes
                                    )),
                                }
                            }
                        }
                    }
                }
            });
        }
    });
    let (passed, failed) = (passed.into_inner().unwrap(), failed.into_inner().unwrap());
    println!("GeneralStateTests through the store: {passed} passed, {} failed", failed.len());
    for failure in failed.iter().take(20) {
        println!("{failure}");
    }
    assert!(failed.is_empty() && passed > 0);
}
