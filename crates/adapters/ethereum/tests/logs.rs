//! Blocks with more logs than one reply holds: subscriptions and filters lose none of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that fails by panicking"
)]

mod wallet;

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::{TxEnvelope, TxLegacy};
use alloy_primitives::{Address, B256, TxKind, U256, hex};
use coco_adapter::Limits;
use coco_ethereum::FeePolicy;
use coco_ethereum::rpc::{Rpc, Session};
use coco_ethereum::trial::Trial;
use serde_json::{Value as Json, json};
use wallet::{CHAIN_ID, Wallet, call, node, result, send, sign};

const EACH: usize = 34_000;
const MANY: usize = 2 * EACH;

fn created(wallet: &mut Wallet, init: String) -> TxEnvelope {
    let nonce = wallet.nonce;
    wallet.nonce += 1;
    sign(
        wallet.secret,
        TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce,
            gas_price: 0,
            gas_limit: 16_700_000,
            to: TxKind::Create,
            value: U256::ZERO,
            input: hex::decode(init).unwrap().into(),
        },
    )
}

/// Logs so many times, without data and topics.
fn logging(wallet: &mut Wallet, times: usize) -> TxEnvelope {
    created(wallet, format!("62{times:06x}5b5f5fa060019003806004575f5ff3"))
}

async fn block_of_many_logs(trial: &Trial, rpc: &Rpc, ada: &mut Wallet) {
    for _ in 0..2 {
        send(rpc, &logging(ada, EACH)).await.unwrap();
    }
    trial.seal(rpc).unwrap().unwrap();
}

async fn told(rpc: &Rpc, session: &Session, method: &str, params: Json) -> Json {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let reply = session.handle(rpc, request.to_string().as_bytes()).await.unwrap();
    serde_json::from_slice(&reply).unwrap()
}

async fn within(rpc: &Rpc, max_reply_bytes: usize, method: &str, params: Json) -> Json {
    let request = json!({"jsonrpc": "2.0", "id": "x", "method": method, "params": params});
    let limits = Limits { max_reply_bytes, ..Rpc::LIMITS };
    let reply = rpc.handle_for(None, limits, request.to_string().as_bytes()).await.unwrap();
    assert!(reply.len() <= max_reply_bytes, "{}", reply.len());
    serde_json::from_slice(&reply).unwrap()
}

fn index_of(log: &Json) -> usize {
    usize::from_str_radix(&log["logIndex"].as_str().unwrap()[2..], 16).unwrap()
}

#[tokio::test]
async fn every_subscription_is_told_all_logs_of_a_block_in_bounded_portions() {
    let mut ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let rpc = Arc::new(rpc);
    let session = Session::new(&rpc);
    let mut counts = BTreeMap::new();
    for params in [json!(["logs"]), json!(["logs", {}]), json!(["newHeads"])] {
        let reply = told(&rpc, &session, "eth_subscribe", params.clone()).await;
        let expected = if params[0] == "logs" { MANY } else { 1 };
        counts.insert(reply["result"].as_str().unwrap().to_owned(), (0, expected));
    }
    let none = json!(["logs", {"address": Address::ZERO}]);
    told(&rpc, &session, "eth_subscribe", none).await;
    block_of_many_logs(&trial, &rpc, &mut ada).await;
    while counts.values().any(|(count, expected)| count < expected) {
        let messages = session.serve_next(&rpc).await.unwrap();
        let bytes: usize = messages.iter().map(Vec::len).sum();
        assert!(bytes < 1_100_000, "{bytes}");
        for message in messages {
            let message: Json = serde_json::from_slice(&message).unwrap();
            assert_eq!(message["method"], "eth_subscription");
            let params = &message["params"];
            let (count, expected) =
                counts.get_mut(params["subscription"].as_str().unwrap()).unwrap();
            match *expected {
                1 => assert_eq!(params["result"]["number"], "0x1"),
                _ => assert_eq!(index_of(&params["result"]), *count),
            }
            *count += 1;
        }
    }
    // Nothing is told twice.
    send(&rpc, &logging(&mut ada, 1)).await.unwrap();
    trial.seal(&rpc).unwrap().unwrap();
    let messages = session.next(&rpc).await.unwrap();
    assert_eq!(messages.len(), 3);
    assert!(String::from_utf8_lossy(&messages[0]).contains(r#""number":"0x2""#));
}

#[tokio::test]
async fn full_transactions_are_told_in_bounded_portions() {
    let mut ada = Wallet::new("ada");
    let (_trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let session = Session::new(&rpc);
    for _ in 0..8 {
        let params = json!(["newPendingTransactions", true]);
        assert!(told(&rpc, &session, "eth_subscribe", params).await["result"].is_string());
    }
    // Data that is copied to nowhere.
    let init = format!("00{}", "00".repeat(40_000));
    for _ in 0..3 {
        send(&rpc, &created(&mut ada, init.clone())).await.unwrap();
    }
    let mut nonces = Vec::new();
    while nonces.len() < 24 {
        let messages = session.next(&rpc).await.unwrap();
        assert!(messages.iter().map(Vec::len).sum::<usize>() < 1_200_000);
        for message in messages {
            let message: Json = serde_json::from_slice(&message).unwrap();
            nonces.push(message["params"]["result"]["nonce"].as_str().unwrap().to_owned());
        }
    }
    let expected = [["0x0"; 8], ["0x1"; 8], ["0x2"; 8]].concat();
    assert_eq!(nonces, expected);
}

#[tokio::test]
async fn a_filter_moves_on_by_what_it_has_delivered() {
    let mut ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let logs = result(&rpc, "eth_newFilter", json!([{}])).await;
    let blocks = result(&rpc, "eth_newBlockFilter", json!([])).await;
    let hashes = result(&rpc, "eth_newPendingTransactionFilter", json!([])).await;
    let full = result(&rpc, "eth_newPendingTransactionFilter", json!([true])).await;
    block_of_many_logs(&trial, &rpc, &mut ada).await;
    for _ in 0..5 {
        send(&rpc, &logging(&mut ada, 1)).await.unwrap();
        trial.seal(&rpc).unwrap().unwrap();
    }
    // Even one does not fit.
    let reply = within(&rpc, 300, "eth_getFilterChanges", json!([logs])).await;
    assert_eq!(reply["error"]["code"], -32005);
    let mut found = Vec::new();
    loop {
        let reply = within(&rpc, 8_000_000, "eth_getFilterChanges", json!([logs])).await;
        let more = reply["result"].as_array().unwrap().clone();
        if more.is_empty() {
            break;
        }
        found.extend(more.iter().map(index_of));
    }
    assert_eq!(found, (0..MANY).chain([0; 5]).collect::<Vec<_>>());

    for (filter, bytes, expected) in
        [(&blocks, 240, vec![2, 2, 2, 0]), (&hashes, 240, vec![2, 2, 2, 1, 0])]
    {
        for count in expected {
            let reply = within(&rpc, bytes, "eth_getFilterChanges", json!([filter])).await;
            assert_eq!(reply["result"].as_array().unwrap().len(), count);
        }
    }
    let reply = within(&rpc, 300, "eth_getFilterChanges", json!([full])).await;
    assert_eq!(reply["error"]["code"], -32005);
    let mut nonces = Vec::new();
    while nonces.len() < 7 {
        let reply = within(&rpc, 2_000, "eth_getFilterChanges", json!([full])).await;
        let some = reply["result"].as_array().unwrap().clone();
        assert!((1..7).contains(&some.len()));
        nonces.extend(some.iter().map(|shown| shown["nonce"].clone()));
    }
    assert_eq!(nonces, ["0x0", "0x1", "0x2", "0x3", "0x4", "0x5", "0x6"].map(|it| json!(it)));
}

#[tokio::test]
async fn a_reply_holds_as_many_logs_as_its_bytes() {
    let mut ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    block_of_many_logs(&trial, &rpc, &mut ada).await;
    let block = json!([{"fromBlock": "0x1", "toBlock": "0x1"}]);
    let reply = within(&rpc, 64 * 1024 * 1024, "eth_getLogs", block.clone()).await;
    assert_eq!(reply["result"].as_array().unwrap().len(), MANY);
    let bytes = reply.to_string().len() + 100;
    let reply = within(&rpc, bytes, "eth_getLogs", block.clone()).await;
    assert_eq!(reply["result"].as_array().unwrap().len(), MANY);
    let reply = within(&rpc, bytes / 2, "eth_getLogs", block).await;
    assert_eq!(reply["error"]["code"], -32005);
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("query returned more than the "), "{message}");
}

#[tokio::test]
async fn a_log_has_at_least_as_many_topics_as_the_filter() {
    let mut ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let session = Session::new(&rpc);
    let topic = B256::with_last_byte(1);
    let matching = json!({"fromBlock": "0x0", "topics": [topic, null]});
    let other = json!({"fromBlock": "0x0", "topics": [topic, null, null, null]});
    let mut filters = Vec::new();
    for filter in [&matching, &other] {
        filters.push(result(&rpc, "eth_newFilter", json!([filter])).await);
        told(&rpc, &session, "eth_subscribe", json!(["logs", filter])).await;
    }
    // Two topics: 2 and 1.
    send(&rpc, &created(&mut ada, "600260015f5fa200".to_owned())).await.unwrap();
    trial.seal(&rpc).unwrap().unwrap();
    for (filter, id, count) in [(&matching, &filters[0], 1), (&other, &filters[1], 0)] {
        for (method, params) in [
            ("eth_getLogs", json!([filter])),
            ("eth_getFilterLogs", json!([id])),
            ("eth_getFilterChanges", json!([id])),
        ] {
            let logs = result(&rpc, method, params).await;
            assert_eq!(logs.as_array().unwrap().len(), count, "{method} {filter}");
        }
    }
    assert_eq!(session.next(&rpc).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_filters_of_a_connection_are_bounded() {
    let (_trial, rpc) = node(FeePolicy::Free, &[]);
    let session = Session::new(&rpc);
    let addresses: Vec<_> =
        (0_u64..1000).map(|at| Address::left_padding_from(&at.to_be_bytes())).collect();
    let topics: Vec<_> =
        (0_u64..1000).map(|at| B256::left_padding_from(&at.to_be_bytes())).collect();
    let filter = json!({"address": addresses, "topics": [topics, topics, topics, topics]});
    let mut taken = 0;
    let refusal = loop {
        let reply = told(&rpc, &session, "eth_subscribe", json!(["logs", filter])).await;
        if reply["result"].is_null() {
            break reply;
        }
        taken += 1;
    };
    assert_eq!(refusal["error"]["code"], -32005);
    assert!((2..20).contains(&taken), "{taken}");
    let small = told(&rpc, &session, "eth_subscribe", json!(["newHeads"])).await;
    assert!(small["result"].is_string());
}

#[tokio::test]
async fn nobody_is_locked_out_of_filters() {
    let (trial, rpc) = node(FeePolicy::Free, &[]);
    let mine = result(&rpc, "eth_newBlockFilter", json!([])).await;
    let idle = result(&rpc, "eth_newBlockFilter", json!([])).await;
    for at in 0..10_100 {
        if at % 1000 == 0 {
            trial.pass_ms(1);
            result(&rpc, "eth_getFilterChanges", json!([mine])).await;
        }
        result(&rpc, "eth_newFilter", json!([{}])).await;
    }
    assert_eq!(result(&rpc, "eth_getFilterChanges", json!([mine])).await, json!([]));
    let gone = call(&rpc, "eth_getFilterChanges", json!([idle])).await;
    assert_eq!(gone["error"]["message"], "filter not found");
}
