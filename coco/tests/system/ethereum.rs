//! Ethereum as a wallet meets it: JSON-RPC next to `coco dev`, proofs, a restart, a chain from
//! elsewhere.

use crate::support::{Dev, coco, coco_json};
use alloy_consensus::{Block, Header, TxEnvelope};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Transfers of 5 wei by the first development account, nonces 0 and 1, with their hashes.
const TRANSFERS: [(&str, &str); 2] = [
    (
        "0x02f8648205398080808252089470997970c51812dc3a010c7d01b50e0d17dc79c80580c080a08db98f531ae2\
         d0f30394ffca5057aabe1abe392e2bd192f42ccba297ed8f4d25a06f25bdce8d0312c46107124656a8934ba8f1\
         db6187311ae78d16011f00ff944e",
        "0x49987e1a3ed8256b3bf2cc46d9de84cc0d202c54cc69f5e171fad5e86a256c6b",
    ),
    (
        "0x02f8648205390180808252089470997970c51812dc3a010c7d01b50e0d17dc79c80580c080a0c6696c9b35c1\
         81b6b739c63cc320054943468da39aabc4e9bd574270d64df03ba06a48cdee7a289194b419e8df15c09cddfe40\
         8d2e564164034690b5cd8164f79b",
        "0x80e656c4c5f2412e9737c9e2ce11ccc50e380badeae4262449eca69833da2ece",
    ),
];

fn rpc(dev: &Dev, method: &str, params: Value) -> Value {
    let url = dev.service["ethereum"]["url"].as_str().unwrap();
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let mut reply = ureq::post(url)
        .header("content-type", "application/json")
        .send(request.to_string())
        .unwrap();
    let reply: Value = serde_json::from_str(&reply.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(reply["error"], Value::Null, "{method}");
    reply["result"].clone()
}

/// Sends a transfer; gives its receipt, which is there once it is committed.
fn transfer(dev: &Dev, number: usize) -> Value {
    let (raw, hash) = TRANSFERS[number];
    assert_eq!(rpc(dev, "eth_sendRawTransaction", json!([raw])), hash);
    let start = Instant::now();
    loop {
        let receipt = rpc(dev, "eth_getTransactionReceipt", json!([hash]));
        if !receipt.is_null() {
            return receipt;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "there is no receipt");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_transfer_is_proven_offline_and_survives_a_restart() {
    let dev = Dev::start(&[]);
    let ethereum = &dev.service["ethereum"];
    assert_eq!(ethereum["chain_id"], 1337);
    assert_eq!(ethereum["accounts"].as_array().unwrap().len(), 10);
    let receipt = transfer(&dev, 0);
    assert_eq!((&receipt["status"], &receipt["blockNumber"]), (&json!("0x1"), &json!("0x1")));

    let (raw, hash) = TRANSFERS[0];
    let proof = rpc(&dev, "coco_getReceipt", json!([hash]));
    std::fs::write(dev.path().join("proof.json"), proof.to_string()).unwrap();
    let verify = ["receipt", "verify", "proof.json", "--service-cert", "coco-dev/service_cert.pem"];
    for asked in [["--ethereum-transaction", hash], ["--ethereum-raw-transaction", raw]] {
        let proven = coco_json(dev.path(), &[&verify[..], &asked].concat());
        assert_eq!(proven["ethereum_transaction"], hash);
        assert!(proven["transaction_id"].is_string());
    }
    for asked in
        [["--ethereum-transaction", TRANSFERS[1].1], ["--ethereum-raw-transaction", TRANSFERS[1].0]]
    {
        let output = coco(dev.path(), &[&verify[..], &asked].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains("of another transaction"), "{text}");
        assert!(!text.contains("certificate"), "{text}");
    }
    let other = ["receipt", "verify", "proof.json", "--service-cert", "coco-dev/member0_cert.pem"];
    for asked in [&[][..], &["--ethereum-transaction", TRANSFERS[1].1]] {
        let output = coco(dev.path(), &[&other[..], asked].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains("has a new certificate"), "{text}");
    }

    let directory = dev.kill();
    let dev = Dev::start_in(directory, &["--keep"]);
    assert_eq!(rpc(&dev, "eth_getTransactionReceipt", json!([hash])), receipt);
    let next = transfer(&dev, 1);
    assert_eq!(next["blockNumber"], "0x2");
    let block = rpc(&dev, "eth_getBlockByNumber", json!(["0x2", false]));
    assert_eq!(block["parentHash"], receipt["blockHash"], "the chain goes on");
    let directory = dev.stop();
    let arguments =
        ["ledger", "verify", "coco-dev/ledger", "--service-cert", "coco-dev/service_cert.pem"];
    assert_eq!(coco_json(directory.path(), &arguments)["valid"], true);
}

#[test]
fn a_chain_that_is_none_is_refused_before_anything_is_made() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("chain.rlp"), b"\xc3\x01\x02").unwrap();
    std::fs::write(directory.path().join("empty.rlp"), b"").unwrap();
    std::fs::write(directory.path().join("genesis.json"), "[7]").unwrap();
    std::fs::write(directory.path().join("good.json"), GENESIS).unwrap();
    for (genesis, chain, fault) in [
        ("nowhere.json", "chain.rlp", "nowhere.json cannot be read"),
        ("genesis.json", "chain.rlp", "genesis.json is not a genesis"),
        ("good.json", "chain.rlp", "byte 0 does not begin a block"),
        ("good.json", "empty.rlp", "empty.rlp holds no block"),
    ] {
        let output = coco(directory.path(), &["import-chain", genesis, chain]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(fault), "{fault}: {text}");
    }
    assert!(!directory.path().join("coco-dev").exists());
}

#[test]
fn a_chain_is_imported_from_its_first_block_on_or_not_at_all() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("genesis.json"), GENESIS).unwrap();
    let first = Block::<TxEnvelope> {
        header: Header {
            gas_limit: 1,
            state_root: alloy_consensus::EMPTY_ROOT_HASH,
            ..Header::default()
        },
        ..Block::default()
    };
    std::fs::write(path("chain.rlp"), alloy_rlp::encode(&first)).unwrap();
    let other = Block { header: Header { timestamp: 7, ..first.header.clone() }, ..first.clone() };
    std::fs::write(path("other.rlp"), alloy_rlp::encode(&other)).unwrap();
    let orphan = Block { header: Header { number: 1, ..first.header.clone() }, ..first.clone() };
    let both = [alloy_rlp::encode(&first), alloy_rlp::encode(&orphan)].concat();
    std::fs::write(path("orphan.rlp"), both).unwrap();
    let own = first.header.hash_slow().to_string();
    for (chain, fault) in [
        ("other.rlp", other.header.hash_slow().to_string()),
        ("orphan.rlp", format!("block 1 does not follow block 0 with hash {own}")),
    ] {
        let output = coco(directory.path(), &["import-chain", "genesis.json", chain]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{chain}");
        assert!(text.contains(&fault) && text.contains(&own), "{chain}: {text}");
        assert!(!path("coco-dev").exists(), "{chain}");
    }
    let imported = coco_json(directory.path(), &["import-chain", "genesis.json", "chain.rlp"]);
    assert_eq!(imported["blocks"], 0);
    let dev = Dev::start_in(directory, &["--keep"]);
    assert_eq!(rpc(&dev, "eth_getBlockByNumber", json!(["0x0", false]))["hash"], own);
}

const GENESIS: &str = r#"{"config": {"chainId": 7}, "difficulty": "0x0", "gasLimit": "0x1",
    "extraData": "0x", "nonce": "0x0", "timestamp": "0x0", "coinbase":
    "0x0000000000000000000000000000000000000000", "mixHash":
    "0x0000000000000000000000000000000000000000000000000000000000000000", "alloc": {}}"#;
