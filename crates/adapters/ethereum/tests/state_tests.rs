//! Ethereum's GeneralStateTests, every case through the store: the state before is committed, the
//! transaction is executed on a store transaction and committed, the root is that of the tries
//! that follow from the store.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test reads its fixtures from disk and fails by panicking"
)]

mod fixtures;

use std::collections::HashSet;
use std::sync::Mutex;

use alloy_primitives::{B256, Log, U256, keccak256};
use coco_ethereum::{Change, Codes, StateTrie, Surroundings, World};
use coco_kv::{MapName, Store, View};
use revm::context::{CfgEnv, TxEnv};
use revm::primitives::hardfork::SpecId;
use revm_statetest_types::{SpecName, Test, TestSuite, TestUnit};

/// A file of tests, and the cases in it whose value is beyond what a transaction can say: they are
/// marked by a prefix, and can be refused only.
fn parse(name: &str, bytes: &[u8]) -> (TestSuite, HashSet<(String, usize)>) {
    let mut json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let mut too_big = HashSet::new();
    for (case, unit) in json.as_object_mut().unwrap() {
        let values = unit["transaction"]["value"].as_array_mut().unwrap();
        for (index, value) in values.iter_mut().enumerate() {
            if value.as_str().unwrap().starts_with("0x:bigint") {
                *value = "0x0".into();
                too_big.insert((case.clone(), index));
            }
        }
    }
    let suite = serde_json::from_value(json).unwrap_or_else(|error| panic!("{name}: {error}"));
    (suite, too_big)
}

/// The state before, committed; with the root it has.
fn prepare(unit: &TestUnit, codes: &Codes) -> (Store, StateTrie) {
    let store = Store::new(View(2));
    let mut tx = store.begin();
    let hashes = MapName::new("ethereum.hashes");
    let number: u64 = unit.env.current_number.saturating_to();
    for number in number.saturating_sub(256)..number {
        tx.put(&hashes, number.to_be_bytes(), keccak256(number.to_string()).0);
    }
    let mut world = World::scratch(&mut tx, codes);
    for (address, account) in &unit.pre {
        let fields = (account.nonce, account.balance, account.code.as_ref());
        let storage = account.storage.iter().map(|(slot, value)| (*slot, *value));
        world.put_whole_account(*address, fields, storage);
    }
    store.commit(tx, |_, _| ()).unwrap();
    let trie = StateTrie::build(&store.begin()).unwrap();
    (store, trie)
}

/// Constantinople is Petersburg but for EIP-1283, which none of its cases here depends on.
fn spec_of(fork: &SpecName) -> SpecId {
    match fork {
        SpecName::Constantinople => SpecId::PETERSBURG,
        fork => fork.to_spec_id(),
    }
}

fn rules(spec: SpecId, unit: &TestUnit) -> Surroundings {
    let mut rules = CfgEnv::new_with_spec(spec);
    rules.chain_id = unit.env.current_chain_id.unwrap_or(U256::ONE).saturating_to();
    if spec.is_enabled_in(SpecId::OSAKA) {
        rules.max_blobs_per_tx = Some(6);
    } else if spec.is_enabled_in(SpecId::PRAGUE) {
        rules.max_blobs_per_tx = Some(9);
    } else {
        rules.max_blobs_per_tx = Some(6);
    }
    let block = unit.block_env(&mut rules);
    Surroundings { rules, block }
}

fn logs_hash(logs: &[Log]) -> B256 {
    let mut bytes = Vec::new();
    alloy_rlp::encode_list(logs, &mut bytes);
    keccak256(bytes)
}

/// A refused transaction has left no trace.
fn same_root(trie: &StateTrie, test: &Test) -> Result<(), String> {
    let root = trie.root();
    if root == test.hash { Ok(()) } else { Err(format!("state root {root} of before")) }
}

fn run(unit: &TestUnit, spec: SpecId, test: &Test, too_big: bool) -> Result<(), String> {
    let codes = Codes::default();
    let (store, mut trie) = prepare(unit, &codes);
    let refused = |error: String| match &test.expect_exception {
        Some(_) => Ok(()),
        None => Err(format!("refused: {error}")),
    };
    if too_big {
        refused("the value has more than 256 bits".to_owned())?;
    }
    let transaction: TxEnv = match test.tx_env(unit) {
        Ok(transaction) if !too_big => transaction,
        Ok(_) => return same_root(&trie, test),
        Err(error) => {
            refused(error.to_string())?;
            return same_root(&trie, test);
        }
    };
    let mut tx = store.begin();
    let mut world = World::in_block(&mut tx, &codes, unit.env.current_number.saturating_to());
    let result = rules(spec, unit).execute(&mut world, transaction);
    let (logs, changes) = match result {
        Ok(executed) => {
            if let Some(exception) = &test.expect_exception {
                return Err(format!("executed, but expected {exception}"));
            }
            let changes = world.apply(executed.state, spec).map_err(|e| e.to_string())?;
            (executed.result.into_logs(), changes)
        }
        Err(error) => {
            refused(error.to_string())?;
            (Vec::new(), Vec::<Change>::new())
        }
    };
    store.commit(tx, |_, _| ()).unwrap();

    let mut tx = store.begin();
    trie.update(&mut World::scratch(&mut tx, &codes), &changes).unwrap();
    if trie.root() != test.hash {
        return Err(format!("state root {} instead of {}", trie.root(), test.hash));
    }
    if logs_hash(&logs) != test.logs {
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
                    let (suite, too_big) = parse(&name, &bytes);
                    for (case, unit) in &suite.0 {
                        for (fork, tests) in &unit.post {
                            assert_ne!(*fork, SpecName::Unknown, "{name}");
                            for test in tests {
                                let too_big = too_big.contains(&(case.clone(), test.indexes.value));
                                match run(unit, spec_of(fork), test, too_big) {
                                    Ok(()) => *passed.lock().unwrap() += 1,
                                    Err(error) => failed.lock().unwrap().push(format!(
                                        "{name} {case} {fork:?} {:?}: {error}",
                                        test.indexes
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
