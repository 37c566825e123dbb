//! Calls, estimates, simulations and traces: what they cost at most, and what they say.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails by panicking"
)]

mod wallet;

use alloy_consensus::crypto::secp256k1::sign_message;
use alloy_consensus::{TxEip7702, TxEnvelope, TxLegacy};
use alloy_eips::eip7702::Authorization;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex};
use coco_crypto::{Digest, sha256};
use coco_ethereum::FeePolicy;
use coco_ethereum::rpc::Rpc;
use coco_ethereum::rpc::Session;
use serde_json::{Value as Json, json};
use wallet::{CHAIN_ID, Wallet, call, node, result, send, sign};

/// `for (;;) {}`
const LOOP: &str = "0x5b5f56";

fn at_loop() -> Json {
    json!({"0x00000000000000000000000000000000000000aa": {"code": LOOP}})
}

#[tokio::test]
async fn an_endless_call_ends_at_the_cap_of_gas_whatever_asks_for_it() {
    let ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let endless = json!({"to": "0x00000000000000000000000000000000000000aa", "from": ada.address});
    let reply = call(&rpc, "eth_call", json!([endless, "latest", at_loop()])).await;
    assert_eq!(reply["error"]["message"], "out of gas");
    let reply = call(&rpc, "eth_estimateGas", json!([endless, "latest", at_loop()])).await;
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("gas required exceeds allowance"), "{reply}");
    let reply = result(&rpc, "eth_createAccessList", json!([endless, "latest", at_loop()])).await;
    assert_eq!(reply["error"], "out of gas");
    // Three calls that would take the cap each: there is one cap for all of them.
    let calls = json!([{"blockStateCalls": [
        {"stateOverrides": at_loop(), "calls": [endless, endless, endless]},
    ]}]);
    let reply = call(&rpc, "eth_simulateV1", calls).await;
    let used = |call: &Json| {
        u64::from_str_radix(call["gasUsed"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    if let Some(calls) = reply["result"][0]["calls"].as_array() {
        assert!(calls.iter().map(used).sum::<u64>() <= 50_000_000, "{reply}");
    } else {
        assert!(reply["error"]["code"].as_i64().unwrap() < -32000, "{reply}");
    }
    let trace = |options: Json| {
        let rpc = &rpc;
        let endless = endless.clone();
        async move { call(rpc, "debug_traceCall", json!([endless, "latest", options])).await }
    };
    let reply = trace(json!({"stateOverrides": at_loop()})).await;
    assert_eq!(reply["error"]["code"], -32005, "{}", reply["error"]);
    let reply = trace(json!({"stateOverrides": at_loop(), "limit": 10})).await;
    assert_eq!(reply["result"]["structLogs"].as_array().unwrap().len(), 10);
    let reply = trace(json!({"stateOverrides": at_loop(), "limit": 100_000_000})).await;
    assert_eq!(reply["error"]["code"], -32602);
    drop(trial);
}

#[tokio::test]
async fn tracers_are_geths_and_unknown_ones_are_refused() {
    let mut ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let paid = ada.pay(Address::repeat_byte(9));
    send(&rpc, &paid).await.unwrap();
    trial.seal(&rpc).unwrap().unwrap();
    let hash = paid.tx_hash();
    let diff = json!([hash, {"tracer": "prestateTracer", "tracerConfig": {"diffMode": true}}]);
    let diff = result(&rpc, "debug_traceTransaction", diff).await;
    let payee = Address::repeat_byte(9).to_string().to_lowercase();
    assert_eq!(diff["post"][payee]["balance"], "0x1", "{diff}");
    for tracer in ["callTracer", "prestateTracer", "4byteTracer", "noopTracer", "flatCallTracer"] {
        let params = json!([hash, {"tracer": tracer}]);
        let trace = result(&rpc, "debug_traceTransaction", params).await;
        assert!(trace.is_object() || trace.is_array(), "{tracer}: {trace}");
    }
    for config in [
        json!({"callTracer": {}, "4byteTracer": null}),
        json!({"callTracer": null, "4byteTracer": {}, "noopTracer": {}, "prestateTracer": null}),
    ] {
        let mux = json!({"tracer": "muxTracer", "tracerConfig": config});
        let mux = result(&rpc, "debug_traceTransaction", json!([hash, mux])).await;
        for tracer in config.as_object().unwrap().keys() {
            assert!(mux[tracer].is_object(), "{tracer}: {mux}");
        }
    }
    for unknown in ["fooTracer", "{step: function() {}, result: function() {}}"] {
        let reply = call(&rpc, "debug_traceTransaction", json!([hash, {"tracer": unknown}])).await;
        assert!(reply["error"]["code"].is_i64(), "{reply}");
    }
    let block = result(&rpc, "debug_traceBlockByNumber", json!(["0x1", {"tracer": "callTracer"}]));
    assert_eq!(block.await[0]["txHash"], json!(hash));
    let reply = call(&rpc, "debug_traceTransaction", json!([B256::ZERO])).await;
    assert_eq!(reply["error"]["message"], "transaction not found");
}

/// `PUSH1 1 PUSH1 2 ADD POP PUSH0 STOP`
const SIX_STEPS: [u8; 8] = [0x60, 1, 0x60, 2, 0x01, 0x50, 0x5f, 0x00];

/// Six steps, executed by creating a contract without code.
fn six_steps(wallet: &Wallet, nonce: u64) -> TxEnvelope {
    create(wallet, nonce, &SIX_STEPS)
}

fn create(wallet: &Wallet, nonce: u64, code: &[u8]) -> TxEnvelope {
    let transaction = TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce,
        gas_limit: 10_000_000,
        to: TxKind::Create,
        input: code.to_vec().into(),
        ..TxLegacy::default()
    };
    sign(wallet.secret, transaction)
}

#[tokio::test]
async fn a_limit_cuts_the_steps_of_each_transaction() {
    let ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let sent = [six_steps(&ada, 0), six_steps(&ada, 1)];
    for transaction in &sent {
        send(&rpc, transaction).await.unwrap();
    }
    trial.seal(&rpc).unwrap().unwrap();
    let steps = |trace: &Json| trace["structLogs"].as_array().unwrap().len();
    for (limit, expected) in [(3, 3), (6, 6), (8, 6), (0, 6)] {
        let limit = json!({"limit": limit});
        let params = json!([sent[0].tx_hash(), limit]);
        let trace = result(&rpc, "debug_traceTransaction", params).await;
        assert_eq!(steps(&trace), expected, "{limit}");
        let traces = result(&rpc, "debug_traceBlockByNumber", json!(["0x1", limit])).await;
        let traces = traces.as_array().unwrap();
        let found: Vec<_> = traces.iter().map(|trace| steps(&trace["result"])).collect();
        assert_eq!(found, [expected, expected], "{limit}");
    }
}

#[tokio::test]
async fn a_transaction_of_more_steps_than_a_reply_may_have_is_traced_up_to_a_limit() {
    let ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let sent = [
        create(&ada, 0, &hex::decode(LOOP).unwrap()),
        create(&ada, 1, &hex::decode(LOOP).unwrap()),
    ];
    for transaction in &sent {
        send(&rpc, transaction).await.unwrap();
    }
    trial.seal(&rpc).unwrap().unwrap();
    let trace = call(&rpc, "debug_traceTransaction", json!([sent[0].tx_hash()])).await;
    assert_eq!(trace["error"]["code"], -32005, "{}", trace["error"]);
    let most = json!({"limit": 200_000, "disableStack": true});
    let trace = call(&rpc, "debug_traceTransaction", json!([sent[0].tx_hash(), most])).await;
    assert_eq!(trace["result"]["structLogs"].as_array().unwrap().len(), 200_000);
    // Both together are too long for one reply, unless each is short enough.
    let traces = call(&rpc, "debug_traceBlockByNumber", json!(["0x1", most])).await;
    assert_eq!(traces["error"]["code"], -32005, "{}", traces["error"]);
    let half = json!({"limit": 100_000, "disableStack": true});
    let traces = call(&rpc, "debug_traceBlockByNumber", json!(["0x1", half])).await;
    for trace in traces["result"].as_array().unwrap() {
        assert_eq!(trace["result"]["structLogs"].as_array().unwrap().len(), 100_000);
    }
}

#[tokio::test]
async fn an_account_takes_code_by_authorization_and_what_it_had_sent_ahead_has_its_turn() {
    let (ada, mut sponsor) = (Wallet::new("ada"), Wallet::new("sponsor"));
    let (trial, rpc) = node(FeePolicy::Free, &[&ada, &sponsor]);
    // Ada's second transaction waits for her first nonce, which the authorization uses.
    let waiting = ada.at(1, Address::repeat_byte(9));
    send(&rpc, &waiting).await.unwrap();
    let authorization = Authorization {
        chain_id: U256::from(CHAIN_ID),
        address: Address::repeat_byte(0xcc),
        nonce: 0,
    };
    let signature = sign_message(ada.secret, authorization.signature_hash()).unwrap();
    let transaction = TxEip7702 {
        chain_id: CHAIN_ID,
        nonce: 0,
        gas_limit: 200_000,
        to: sponsor.address,
        authorization_list: vec![authorization.into_signed(signature)],
        ..TxEip7702::default()
    };
    sponsor.nonce = 1;
    send(&rpc, &sign(sponsor.secret, transaction)).await.unwrap();
    assert!(rpc.pool().is_empty());
    trial.seal(&rpc).unwrap().unwrap();
    let code = result(&rpc, "eth_getCode", json!([ada.address])).await;
    assert_eq!(code, format!("0xef0100{}", hex::encode([0xcc; 20])));
    let receipt = result(&rpc, "eth_getTransactionReceipt", json!([waiting.tx_hash()])).await;
    assert_eq!(receipt["status"], "0x1");
}

async fn call_as(rpc: &Rpc, who: Option<Digest>, method: &str, params: Json) -> Json {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let reply = rpc.handle_for(who, Rpc::LIMITS, request.to_string().as_bytes()).await.unwrap();
    serde_json::from_slice(&reply).unwrap()
}

#[tokio::test]
async fn participants_send_from_accounts_that_the_node_keeps() {
    let (trial, rpc) = node(FeePolicy::Free, &[]);
    let (alice, bob) = (sha256(b"alice"), sha256(b"bob"));
    let ask = |who, method: &'static str, params: Json| call_as(&rpc, who, method, params);
    assert_eq!(ask(None, "eth_accounts", json!([])).await["result"], json!([]));
    let accounts = ask(Some(alice), "eth_accounts", json!([])).await["result"].clone();
    assert_eq!(ask(Some(alice), "eth_accounts", json!([])).await["result"], accounts);
    let others = ask(Some(bob), "eth_accounts", json!([])).await["result"].clone();
    assert_ne!(others, accounts);

    let to = Address::repeat_byte(9);
    let send = json!([{"from": accounts[0], "to": to}]);
    for _ in 0..3 {
        let sent = ask(Some(alice), "eth_sendTransaction", send.clone()).await;
        assert!(sent["result"].is_string(), "{sent}");
    }
    for stranger in [None, Some(bob)] {
        let refused = ask(stranger, "eth_sendTransaction", send.clone()).await;
        assert_eq!(refused["error"]["message"], "unknown account");
        let refused = ask(stranger, "eth_sign", json!([accounts[0], "0x00"])).await;
        assert_eq!(refused["error"]["message"], "unknown account");
    }
    trial.seal(&rpc).unwrap().unwrap();
    let count = result(&rpc, "eth_getTransactionCount", json!([accounts[0]])).await;
    assert_eq!(count, "0x3");
    let signed = ask(Some(alice), "eth_signTransaction", json!([{"to": to}])).await;
    let raw = signed["result"]["raw"].clone();
    let sent = result(&rpc, "eth_sendRawTransaction", json!([raw])).await;
    assert_eq!(sent, signed["result"]["tx"]["hash"]);
    let signature = ask(Some(alice), "eth_sign", json!([accounts[0], "0x6869"])).await;
    let signature: Bytes = serde_json::from_value(signature["result"].clone()).unwrap();
    let signature = alloy_primitives::Signature::try_from(&signature[..]).unwrap();
    let hash = alloy_primitives::eip191_hash_message(b"hi");
    let recovered = alloy_consensus::crypto::secp256k1::recover_signer(&signature, hash).unwrap();
    assert_eq!(json!(recovered), accounts[0]);
    let session = Session::new(&rpc).of_participant(alice);
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_accounts"});
    let reply = session.handle(&rpc, request.to_string().as_bytes()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Json>(&reply).unwrap()["result"], accounts);
}

#[tokio::test]
async fn a_transaction_with_blobs_is_refused_as_of_no_supported_type() {
    let (_trial, rpc) = node(FeePolicy::Free, &[]);
    let reply = call(&rpc, "eth_sendRawTransaction", json!(["0x03f87083aa36a7"])).await;
    assert_eq!(reply["error"]["message"], "transaction type not supported");
}

#[tokio::test]
async fn what_participants_send_is_checked_like_what_comes_signed() {
    let (trial, rpc) = node(FeePolicy::Free, &[]);
    let alice = Some(sha256(b"alice"));
    let to = Address::repeat_byte(9);
    let blob = format!("0x01{}", "00".repeat(31));
    let authorization = json!([{
        "chainId": "0x0", "address": to, "nonce": "0x0", "yParity": "0x0", "r": "0x1", "s": "0x1",
    }]);
    let long = format!("0x{}", "00".repeat(300 * 1024));
    for (gas, request, message) in [
        (
            "0x5208",
            json!({"to": to, "blobVersionedHashes": [blob], "maxFeePerBlobGas": "0x1"}),
            "transaction type not supported",
        ),
        ("0xffff", json!({"authorizationList": authorization}), "missing \"to\""),
        ("0xf4240", json!({"to": to, "data": long}), "oversized data"),
        ("0xffff", json!({}), "contract creation without any data provided"),
    ] {
        for method in ["eth_sendTransaction", "eth_signTransaction"] {
            let mut request = request.clone();
            request["gas"] = json!(gas);
            let refused = call_as(&rpc, alice, method, json!([request])).await;
            let found = refused["error"]["message"].as_str().unwrap_or_default();
            assert!(found.contains(message), "{method}, {message}: {refused}");
        }
    }
    assert!(trial.seal(&rpc).unwrap().is_none_or(|sealed| sealed.header.gas_used == 0));
}

#[tokio::test]
async fn a_transaction_is_filled_as_geth_fills_it() {
    let ada = Wallet::new("ada");
    let (_trial, rpc) = node(FeePolicy::Fixed(1000), &[&ada]);
    let (from, to) = (ada.address, Address::repeat_byte(9));
    for (request, message) in [
        (json!({}), "contract creation without any data provided"),
        (
            json!({"to": to, "gas": "0x5208", "gasPrice": "0x1", "maxFeePerGas": "0x1"}),
            "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified",
        ),
        (
            json!({"to": to, "gas": "0x5208", "maxFeePerGas": "0x1", "maxPriorityFeePerGas": "0x2"}),
            "maxFeePerGas (0x1) < maxPriorityFeePerGas (0x2)",
        ),
        (
            json!({"to": to, "data": "0x01", "input": "0x02"}),
            "both \"data\" and \"input\" are set and not equal. Please use \"input\" to pass \
             transaction call data",
        ),
    ] {
        let mut request = request;
        request["from"] = json!(from);
        let reply = call(&rpc, "eth_fillTransaction", json!([request])).await;
        assert_eq!(reply["error"]["message"], message, "{request}: {reply}");
    }
    let same = json!({"from": from, "to": to, "data": "0x01", "input": "0x01"});
    let filled = result(&rpc, "eth_fillTransaction", json!([same])).await;
    assert_eq!((&filled["tx"]["input"], &filled["tx"]["type"]), (&json!("0x01"), &json!("0x2")));
    // Before EIP-155 nothing of a transaction that nobody has signed names a chain.
    let legacy = json!({"from": from, "to": to, "gas": "0x5208", "gasPrice": "0x3e8"});
    let filled = result(&rpc, "eth_fillTransaction", json!([legacy])).await;
    let raw = format!("0xe1808203e88252089409{}098080808080", "09".repeat(18));
    assert_eq!(filled["raw"], raw);
    assert_eq!(filled["tx"]["v"], "0x0");
    assert_eq!(filled["tx"].get("chainId"), None);
    let hash = alloy_primitives::keccak256(hex::decode(raw).unwrap());
    assert_eq!(filled["tx"]["hash"], json!(hash));
}

/// With data: puts it into slot 1. Without: returns slot 1.
const CELL: &str = "0x60158060095f395ff336600e576001545f5260205ff3005b5f3560015500";

#[tokio::test]
async fn storage_that_a_simulation_replaces_at_a_past_block_stays_replaced() {
    let ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let cell = cell_of(&rpc, &ada).await;
    trial.seal(&rpc).unwrap().unwrap();
    for (nonce, value) in [(1, 7_u64), (2, 0)] {
        send(&rpc, &put(&ada, nonce, cell, value)).await.unwrap();
        trial.seal(&rpc).unwrap().unwrap();
    }
    let read = json!([{"to": cell}]);
    let simulate = |overrides: Json| {
        let blocks = json!([{"stateOverrides": {cell.to_string(): overrides}, "calls": read},
            {"calls": read}, {"stateOverrides": {cell.to_string(): {"balance": "0x1"}}}]);
        let params = json!([{"blockStateCalls": blocks}, "0x2"]);
        let rpc = &rpc;
        async move { result(rpc, "eth_simulateV1", params).await }
    };
    let word = |value: u64| json!(B256::from(U256::from(value)));
    let untouched = simulate(json!({})).await;
    assert_eq!(untouched[1]["calls"][0]["returnData"], word(7));
    let (slot, zero) = (B256::from(U256::ONE).to_string(), word(0));
    let cleared = simulate(json!({"state": {}})).await;
    let zeroed = simulate(json!({"stateDiff": {slot: zero}})).await;
    for block in 0..3 {
        if block < 2 {
            assert_eq!(cleared[block]["calls"][0]["returnData"], word(0), "{block}");
        }
        assert_eq!(cleared[block]["stateRoot"], zeroed[block]["stateRoot"], "{block}");
        assert_ne!(cleared[block]["stateRoot"], untouched[block]["stateRoot"], "{block}");
    }
}

/// A contract with one cell, made by a wallet's first transaction.
async fn cell_of(rpc: &Rpc, wallet: &Wallet) -> Address {
    send(rpc, &create(wallet, 0, &hex::decode(CELL).unwrap())).await.unwrap();
    wallet.address.create(0)
}

fn put(wallet: &Wallet, nonce: u64, cell: Address, value: u64) -> TxEnvelope {
    let transaction = TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce,
        gas_limit: 100_000,
        to: TxKind::Call(cell),
        input: B256::from(U256::from(value)).to_vec().into(),
        ..TxLegacy::default()
    };
    sign(wallet.secret, transaction)
}

#[tokio::test]
async fn calls_that_name_a_price_name_one_that_a_block_takes() {
    let ada = Wallet::new("ada");
    for (fees, is_refused) in [(FeePolicy::Fixed(1000), true), (FeePolicy::Free, false)] {
        let (trial, rpc) = node(fees, &[&ada]);
        let gas_price = 1000;
        let (chain_id, to) = (Some(CHAIN_ID), TxKind::Call(ada.address));
        let paid = TxLegacy { chain_id, gas_price, gas_limit: 21_000, to, ..TxLegacy::default() };
        send(&rpc, &sign(ada.secret, paid)).await.unwrap();
        trial.seal(&rpc).unwrap().unwrap();
        for (price, is_low) in [
            (json!({}), false),
            (json!({"gasPrice": "0x0"}), false),
            (json!({"maxFeePerGas": "0x0", "maxPriorityFeePerGas": "0x0"}), false),
            (json!({"gasPrice": "0x3e8"}), false),
            (json!({"gasPrice": "0x3e7"}), true),
            (json!({"maxFeePerGas": "0x1"}), true),
        ] {
            let mut request = price.clone();
            (request["from"], request["to"]) = (json!(ada.address), json!(Address::repeat_byte(9)));
            for method in ["eth_call", "eth_estimateGas", "eth_createAccessList", "debug_traceCall"]
            {
                let reply = call(&rpc, method, json!([request, "latest"])).await;
                let expected = (is_refused && is_low).then_some(-32000);
                assert_eq!(reply["error"]["code"].as_i64(), expected, "{method} {price}: {reply}");
                if expected.is_some() {
                    let message = reply["error"]["message"].as_str().unwrap();
                    assert!(message.contains("less than block base fee"), "{message}");
                    assert!(message.contains("baseFee: 1000"), "{message}");
                }
            }
        }
    }
}

#[tokio::test]
async fn precompiled_contracts_are_replaced_and_moved_in_calls() {
    let ada = Wallet::new("ada");
    let (_trial, rpc) = node(FeePolicy::Free, &[&ada]);
    // The identity, which returns what it is given.
    let identity = "0x0000000000000000000000000000000000000004";
    let elsewhere = "0x00000000000000000000000000000000000000aa";
    let ask = |to: &str, overrides: Json| {
        let params = json!([{"to": to, "data": "0x0102"}, "latest", overrides]);
        let rpc = &rpc;
        async move { call(rpc, "eth_call", params).await["result"].clone() }
    };
    assert_eq!(ask(identity, json!({})).await, "0x0102");
    // PUSH1 7 PUSH0 MSTORE8 PUSH1 1 PUSH0 RETURN
    let replaced = json!({identity: {"code": "0x60075f5360015ff3"}});
    assert_eq!(ask(identity, replaced.clone()).await, "0x07");
    let moved = json!({identity: {"movePrecompileToAddress": elsewhere}});
    assert_eq!(ask(elsewhere, moved.clone()).await, "0x0102");
    assert_eq!(ask(identity, moved.clone()).await, "0x");
    let elsewhere_first = json!({elsewhere: {"movePrecompileToAddress": identity}});
    assert_eq!(ask(identity, elsewhere_first).await, json!(null));
    // Whatever else executes the same call sees the same.
    let request = json!({"to": elsewhere, "data": "0x0102"});
    let plain = result(&rpc, "eth_createAccessList", json!([request, "latest"])).await;
    let sha256 = "0x0000000000000000000000000000000000000002";
    let sha256 = json!({sha256: {"movePrecompileToAddress": elsewhere}});
    let more = result(&rpc, "eth_createAccessList", json!([request, "latest", sha256])).await;
    // What the data cost at least, and 72 gas on top of what it costs otherwise.
    assert_eq!((&plain["gasUsed"], &more["gasUsed"]), (&json!("0x5258"), &json!("0x5270")));
    let options = json!({"tracer": "callTracer", "stateOverrides": moved});
    let trace = result(&rpc, "debug_traceCall", json!([request, "latest", options])).await;
    assert_eq!(trace["output"], "0x0102");
}
