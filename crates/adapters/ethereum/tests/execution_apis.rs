//! The fixtures of execution-apis against the imported test chain: each request is answered, each
//! answer compared as JSON. Messages of errors are for people and are not compared, as hive does
//! not. Fixtures marked `speconly` are checked for being of the same kind.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test reads its fixtures from disk and fails by panicking"
)]

mod fixtures;

use std::collections::{BTreeMap, BTreeSet};

use coco_ethereum::rpc::Rpc;
use coco_ethereum::trial::Trial;
use coco_ethereum::{FeePolicy, Node, blocks_of};
use serde_json::Value as Json;

/// What this node does not do, with the reason.
const NOT_CARRIED: &[(&str, &str)] = &[
    ("testing_", "builds blocks for the engine API, which no batch ledger has"),
    ("eth_sendRawTransaction/send-blob-tx", "the chain has no place for blobs"),
];

fn chain(files: &BTreeMap<String, Vec<u8>>) -> Rpc {
    let genesis = serde_json::from_slice(&files["tests/genesis.json"]).unwrap();
    let (trial, rpc) = Trial::begin(&genesis, FeePolicy::Market).unwrap();
    for block in blocks_of(&files["tests/chain.rlp"]) {
        let mut tx = trial.begin();
        rpc.chain().import(&mut tx, &block.unwrap()).unwrap();
        trial.commit(tx, coco_crypto::sha256(b"imported")).unwrap();
    }
    rpc
}

/// Without the messages of errors.
fn plain(value: &Json) -> Json {
    match value {
        Json::Object(object) => {
            let is_error = object.contains_key("code") && object.contains_key("message");
            let members = object.iter().filter(|(name, _)| !(is_error && *name == "message"));
            Json::Object(members.map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        Json::Array(values) => Json::Array(values.iter().map(plain).collect()),
        other => other.clone(),
    }
}

/// The places where two values differ.
fn differences(path: &str, expected: &Json, found: &Json) -> Vec<String> {
    match (expected, found) {
        (Json::Object(expected), Json::Object(found)) => {
            let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
            let each = names.into_iter().flat_map(|name| {
                let member = |object: &serde_json::Map<_, _>| object.get(name).cloned();
                let (a, b) = (member(expected), member(found));
                let absent = || Json::String("(absent)".to_owned());
                let (a, b) = (a.unwrap_or_else(absent), b.unwrap_or_else(absent));
                differences(&format!("{path}.{name}"), &a, &b)
            });
            each.collect()
        }
        (Json::Array(expected), Json::Array(found)) if expected.len() == found.len() => {
            let pairs = expected.iter().zip(found).enumerate();
            pairs.flat_map(|(i, (a, b))| differences(&format!("{path}[{i}]"), a, b)).collect()
        }
        (expected, found) if expected == found => Vec::new(),
        (expected, found) => {
            let cut = |value: &Json| value.to_string().chars().take(100).collect::<String>();
            vec![format!("{path}: expected {}, found {}", cut(expected), cut(found))]
        }
    }
}

async fn run(rpc: &Rpc, fixture: &str) -> Result<(), String> {
    let spec_only = fixture.lines().any(|line| line.starts_with("// speconly"));
    let mut request = None;
    for line in fixture.lines() {
        if let Some(line) = line.strip_prefix(">> ") {
            request = Some(line);
        } else if let Some(line) = line.strip_prefix("<< ") {
            let reply = rpc.handle(request.take().unwrap().as_bytes()).await.unwrap();
            let found: Json = serde_json::from_slice(&reply).unwrap();
            let expected: Json = serde_json::from_str(line).unwrap();
            if spec_only {
                let kind = |reply: &Json| reply.get("error").is_some();
                if kind(&expected) != kind(&found) {
                    return Err(format!("found {found}"));
                }
            } else {
                let differences = differences("", &plain(&expected), &plain(&found));
                if !differences.is_empty() {
                    return Err(differences.join("; "));
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_fixtures_of_execution_apis_pass() {
    let Some(files) = fixtures::execution_apis() else { return };
    let rpc = chain(&files);
    let mut table: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    for (name, fixture) in files.iter().filter(|(name, _)| name.ends_with(".io")) {
        let name = name.strip_prefix("tests/").unwrap();
        if NOT_CARRIED.iter().any(|(prefix, _)| name.starts_with(prefix)) {
            continue;
        }
        let (method, _) = name.split_once('/').unwrap();
        let (passed, total) = table.entry(method).or_default();
        *total += 1;
        match run(&rpc, std::str::from_utf8(fixture).unwrap()).await {
            Ok(()) => *passed += 1,
            Err(failure) => failures.push(format!("{name}: {failure}")),
        }
    }
    for (method, (passed, total)) in &table {
        println!("{method:45} {passed:3} of {total:3}");
    }
    let (passed, total) =
        table.values().fold((0, 0), |(a, b), (passed, total)| (a + passed, b + total));
    println!("fixtures of execution-apis: {passed} of {total} pass");
    for failure in &failures {
        println!("{failure}");
    }
    assert!(failures.is_empty(), "{} fixtures fail", failures.len());
}
