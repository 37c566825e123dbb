//! Transactions from the wire to receipts: order of arrival, gaps, refusals, blocks, history,
//! filters, subscriptions.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that fails by panicking, with threads of its own"
)]

mod wallet;

use alloy_consensus::{TxEip1559, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use coco_ethereum::rpc::{Rpc, Session};
use coco_ethereum::trial::Trial;
use coco_ethereum::{
    Chain, ChainOptions, FeePolicy, Node, Pool, SignedTransaction, StateTrie, consortium_genesis,
};
use serde_json::{Value as Json, json};
use wallet::{CHAIN_ID, Wallet, call, node, raw, result, send, sign};

#[tokio::test]
async fn a_batch_of_transfers_in_any_order_is_one_block_with_receipts() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let mut transactions: Vec<_> = (0..20).map(|_| ada.pay(bob.address)).collect();
    transactions.reverse();
    let batch: Vec<_> = transactions
        .iter()
        .enumerate()
        .map(|(id, transaction)| {
            let method = "eth_sendRawTransaction";
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": [raw(transaction)]})
        })
        .collect();
    let replies = rpc.handle(&serde_json::to_vec(&batch).unwrap()).await.unwrap();
    let replies: Vec<Json> = serde_json::from_slice(&replies).unwrap();
    for (reply, transaction) in replies.iter().zip(&transactions) {
        assert_eq!(reply["result"], json!(transaction.tx_hash()));
    }
    assert!(rpc.pool().is_empty());
    assert_eq!(
        result(&rpc, "eth_getTransactionCount", json!([ada.address, "pending"])).await,
        "0x14"
    );
    // In no block yet: known, without a receipt; the last block's state is untouched.
    let hash = transactions[0].tx_hash();
    assert_eq!(result(&rpc, "eth_getTransactionReceipt", json!([hash])).await, Json::Null);
    let pending = result(&rpc, "eth_getTransactionByHash", json!([hash])).await;
    assert_eq!((&pending["blockHash"], &pending["nonce"]), (&Json::Null, &json!("0x13")));
    assert_eq!(result(&rpc, "eth_getBalance", json!([bob.address, "latest"])).await, "0x0");
    assert_eq!(result(&rpc, "eth_getBalance", json!([bob.address, "pending"])).await, "0x14");
    assert_eq!(result(&rpc, "txpool_status", json!([])).await["pending"], "0x14");

    let sealed = trial.seal(&rpc).unwrap().unwrap();
    assert_eq!(StateTrie::build(&trial.begin()).unwrap().root(), sealed.header.state_root);
    assert!(sealed.header.extra_data.len() <= 32);
    assert_eq!(sealed.header.extra_data.as_ref(), b"2.21");
    assert!(trial.seal(&rpc).unwrap().is_none(), "no empty blocks");
    let receipt = result(&rpc, "eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!(receipt["status"], "0x1");
    assert_eq!(receipt["transactionIndex"], "0x13");
    assert_eq!(receipt["cumulativeGasUsed"], json!(format!("{:#x}", 20 * 21_000)));
    assert_eq!(receipt["effectiveGasPrice"], "0x0");
    assert_eq!(result(&rpc, "eth_getBalance", json!([bob.address])).await, "0x14");
    let proof = result(&rpc, "coco_getReceipt", json!([hash])).await;
    let claims = coco_crypto::sha256(hash.as_slice());
    assert_eq!(proof["receipt"]["claims_digest"], json!(hex::encode(claims.0)));
    assert_eq!(result(&rpc, "coco_getReceipt", json!([B256::ZERO])).await, Json::Null);
    let block = result(&rpc, "eth_getBlockByNumber", json!(["latest", true])).await;
    assert_eq!(block["transactions"].as_array().unwrap().len(), 20);
    let parent = result(&rpc, "eth_getBlockByNumber", json!(["0x0", false])).await;
    assert_eq!(block["parentHash"], parent["hash"]);
}

#[tokio::test]
async fn what_is_refused_is_refused_in_geths_words_and_leaves_nothing() {
    let (ada, bob, eve) = (Wallet::new("ada"), Wallet::new("bob"), Wallet::new("eve"));
    let (trial, rpc) = node(FeePolicy::Fixed(7), &[&ada]);
    let good = TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce: 0,
        gas_price: 7,
        gas_limit: 21_000,
        to: TxKind::Call(bob.address),
        value: U256::ONE,
        input: Bytes::new(),
    };
    let cases = [
        (TxLegacy { chain_id: Some(1), ..good.clone() }, "invalid chain id for signer"),
        (TxLegacy { chain_id: None, ..good.clone() }, "only replay-protected (EIP-155)"),
        (TxLegacy { gas_limit: 20_999, ..good.clone() }, "intrinsic gas too low"),
        (TxLegacy { gas_price: 6, ..good.clone() }, "max fee per gas less than block base fee"),
        (TxLegacy { value: U256::MAX, ..good.clone() }, "max fee per gas higher than"),
        (
            TxLegacy { value: U256::from(10).pow(U256::from(20)), ..good.clone() },
            "insufficient funds for gas * price + value",
        ),
        (TxLegacy { gas_limit: 16_777_217, ..good.clone() }, "transaction gas limit too high"),
        (TxLegacy { nonce: Pool::WINDOW + 1, ..good.clone() }, "nonce too high"),
        (
            TxLegacy { input: vec![0; 200_000].into(), gas_limit: 10_000_000, ..good.clone() },
            "oversized data: transaction size",
        ),
    ];
    for (transaction, message) in cases {
        let error = send(&rpc, &sign(ada.secret, transaction)).await.unwrap_err();
        assert!(error.contains(message), "{error} instead of {message}");
    }
    let error = send(&rpc, &sign(eve.secret, good.clone())).await.unwrap_err();
    assert!(error.contains("insufficient funds"), "{error}");
    for (bytes, message) in [
        ("0x", "typed transaction too short"),
        ("0x05c0", "transaction type not supported"),
        ("0x03c0", "transaction type not supported"),
        ("0xc0", "rlp: "),
        ("0xf8", "rlp: "),
    ] {
        let reply = call(&rpc, "eth_sendRawTransaction", json!([bytes])).await;
        assert_eq!(reply["error"]["code"], -32000);
        assert!(reply["error"]["message"].as_str().unwrap().contains(message), "{reply}");
    }
    // A signature that belongs to nobody, and one with a high `s`.
    let mut spoiled = sign(ada.secret, good.clone()).encoded_2718();
    let length = spoiled.len();
    spoiled[length - 32..].fill(0xff);
    let reply = call(&rpc, "eth_sendRawTransaction", json!([hex::encode_prefixed(&spoiled)])).await;
    assert_eq!(reply["error"]["message"], "invalid sender");
    let priced = sign(
        ada.secret,
        TxEip1559 {
            chain_id: CHAIN_ID,
            nonce: 0,
            gas_limit: 21_000,
            max_fee_per_gas: 10,
            max_priority_fee_per_gas: 11,
            to: TxKind::Call(bob.address),
            ..TxEip1559::default()
        },
    );
    let error = send(&rpc, &priced).await.unwrap_err();
    assert!(error.contains("max priority fee per gas higher than max fee per gas"), "{error}");

    assert!(trial.seal(&rpc).unwrap().is_none());
    let once = sign(ada.secret, good.clone());
    assert_eq!(send(&rpc, &once).await.unwrap(), json!(once.tx_hash()));
    assert_eq!(send(&rpc, &once).await.unwrap_err(), "already known");
    trial.seal(&rpc).unwrap().unwrap();
    assert_eq!(send(&rpc, &once).await.unwrap_err(), "already known");
    let other = sign(ada.secret, TxLegacy { to: TxKind::Call(eve.address), ..good });
    let error = send(&rpc, &other).await.unwrap_err();
    assert!(error.contains("nonce too low: next nonce 1, tx nonce 0"), "{error}");
    let receipt = result(&rpc, "eth_getTransactionReceipt", json!([once.tx_hash()])).await;
    assert_eq!(receipt["effectiveGasPrice"], "0x7");
}

#[tokio::test]
async fn what_waits_is_replaced_by_price_and_expires() {
    let (ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Fixed(7), &[&ada]);
    let at = |nonce: u64, gas_price: u128| {
        sign(
            ada.secret,
            TxLegacy {
                chain_id: Some(CHAIN_ID),
                nonce,
                gas_price,
                gas_limit: 21_000,
                to: TxKind::Call(bob.address),
                value: U256::ONE,
                input: Bytes::new(),
            },
        )
    };
    send(&rpc, &at(1, 100)).await.unwrap();
    assert_eq!(send(&rpc, &at(1, 100)).await.unwrap_err(), "already known");
    assert_eq!(send(&rpc, &at(1, 109)).await.unwrap_err(), "replacement transaction underpriced");
    let replacement = at(1, 110);
    send(&rpc, &replacement).await.unwrap();
    assert_eq!(rpc.pool().len(), 1);
    assert!(send(&rpc, &at(Pool::WINDOW + 1, 100)).await.unwrap_err().contains("nonce too high"));
    let content = result(&rpc, "txpool_content", json!([])).await;
    let waiting = &content["queued"][ada.address.to_string()]["1"];
    assert_eq!(waiting["hash"], json!(replacement.tx_hash()));
    // The first one makes it run.
    send(&rpc, &at(0, 7)).await.unwrap();
    assert!(rpc.pool().is_empty());
    trial.seal(&rpc).unwrap().unwrap();
    let receipt = result(&rpc, "eth_getTransactionReceipt", json!([replacement.tx_hash()])).await;
    assert_eq!(receipt["transactionIndex"], "0x1");

    send(&rpc, &at(5, 7)).await.unwrap();
    trial.pass_ms(Pool::EXPIRY_MS);
    assert_eq!(rpc.pool().count(trial.now_ms()), 0);
    let status = async |transaction: &TxEnvelope| {
        result(&rpc, "coco_transactionStatus", json!([transaction.tx_hash()])).await
    };
    assert_eq!(
        status(&at(1, 100)).await,
        json!({"status": "replaced", "by": replacement.tx_hash()})
    );
    assert_eq!(status(&at(5, 7)).await, json!({"status": "expired"}));
    let included = json!({"status": "included", "blockNumber": "0x1"});
    assert_eq!(status(&replacement).await, included);
    assert_eq!(status(&at(9, 9)).await, json!({"status": "unknown"}));
}

#[tokio::test]
async fn what_has_waited_too_long_is_not_executed_though_nobody_looked_for_it() {
    let (ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let late = ada.at(1, bob.address);
    send(&rpc, &late).await.unwrap();
    trial.pass_ms(Pool::EXPIRY_MS);
    send(&rpc, &ada.at(0, bob.address)).await.unwrap();
    trial.seal(&rpc).unwrap().unwrap();
    assert_eq!(result(&rpc, "eth_getTransactionCount", json!([ada.address])).await, "0x1");
    let status = result(&rpc, "coco_transactionStatus", json!([late.tx_hash()])).await;
    assert_eq!(status, json!({"status": "expired"}));
    // Whoever lists or looks for what waits does not see it either.
    send(&rpc, &ada.at(2, bob.address)).await.unwrap();
    let last = ada.at(3, bob.address);
    send(&rpc, &last).await.unwrap();
    trial.pass_ms(Pool::EXPIRY_MS);
    let found = result(&rpc, "eth_getTransactionByHash", json!([last.tx_hash()])).await;
    assert_eq!(found, json!(null));
    assert_eq!(result(&rpc, "txpool_status", json!([])).await["queued"], "0x0");
    // A commit makes room.
    send(&rpc, &ada.at(2, bob.address)).await.unwrap();
    trial.pass_ms(Pool::EXPIRY_MS);
    rpc.committed().unwrap();
    assert!(rpc.pool().is_empty());
}

#[tokio::test]
async fn what_is_refused_on_its_turn_says_why_and_leaves_the_nonce_to_another() {
    let (ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let too_much = sign(
        ada.secret,
        TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce: 1,
            gas_price: 0,
            gas_limit: 21_000,
            to: TxKind::Call(bob.address),
            value: U256::from(10).pow(U256::from(21)),
            input: Bytes::new(),
        },
    );
    let status = async |transaction: &TxEnvelope| {
        result(&rpc, "coco_transactionStatus", json!([transaction.tx_hash()])).await
    };
    send(&rpc, &too_much).await.unwrap();
    send(&rpc, &ada.at(2, bob.address)).await.unwrap();
    assert_eq!(status(&too_much).await, json!({"status": "queued"}));
    send(&rpc, &ada.at(0, bob.address)).await.unwrap();
    let refused = status(&too_much).await;
    assert_eq!(refused["status"], "refused");
    assert!(refused["reason"].as_str().unwrap().contains("insufficient funds"), "{refused}");
    assert_eq!(status(&ada.at(2, bob.address)).await, json!({"status": "queued"}));
    // Whoever waits for its receipt is told, too.
    let reply = call(&rpc, "eth_sendRawTransactionSync", json!([raw(&too_much)])).await;
    assert!(reply["error"]["message"].as_str().unwrap().contains("insufficient funds"), "{reply}");
    // Its nonce is free; then the one that waited has its turn.
    send(&rpc, &ada.at(1, bob.address)).await.unwrap();
    assert!(rpc.pool().is_empty());
    assert_eq!(status(&ada.at(2, bob.address)).await, json!({"status": "pending"}));
    trial.seal(&rpc).unwrap().unwrap();
    assert_eq!(result(&rpc, "eth_getTransactionCount", json!([ada.address])).await, "0x3");
}

#[tokio::test]
async fn without_room_clients_are_refused_and_what_waits_has_its_turn_later() {
    let (ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    send(&rpc, &ada.at(1, bob.address)).await.unwrap();
    send(&rpc, &ada.at(2, bob.address)).await.unwrap();
    trial.set_busy(true);
    let error = send(&rpc, &ada.at(0, bob.address)).await.unwrap_err();
    assert!(error.starts_with("txpool is full"), "{error}");
    trial.set_busy(false);
    send(&rpc, &ada.at(0, bob.address)).await.unwrap();
    assert!(rpc.pool().is_empty());

    send(&rpc, &ada.at(4, bob.address)).await.unwrap();
    send(&rpc, &ada.at(5, bob.address)).await.unwrap();
    // The room ends between the one that was missing and those that wait for it.
    trial.set_busy_after(1);
    send(&rpc, &ada.at(3, bob.address)).await.unwrap();
    assert_eq!(rpc.pool().len(), 2);
    rpc.committed().unwrap();
    assert_eq!(rpc.pool().len(), 2);
    trial.set_busy(false);
    rpc.committed().unwrap();
    assert!(rpc.pool().is_empty());
}

#[tokio::test]
async fn clients_see_blocks_when_they_are_committed() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let session = Session::new(&rpc);
    let subscribe = json!({
        "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]
    });
    session.handle(&rpc, subscribe.to_string().as_bytes()).await.unwrap();
    let first = ada.pay(bob.address);
    send(&rpc, &first).await.unwrap();
    trial.seal(&rpc).unwrap().unwrap();
    trial.commit_no_more();
    let (second, third) = (ada.pay(bob.address), ada.pay(bob.address));
    send(&rpc, &second).await.unwrap();
    let sealed = trial.seal(&rpc).unwrap().unwrap();
    send(&rpc, &third).await.unwrap();

    assert_eq!(result(&rpc, "eth_blockNumber", json!([])).await, "0x1");
    for (tag, balance) in
        [("latest", "0x1"), ("finalized", "0x1"), ("safe", "0x1"), ("pending", "0x3")]
    {
        assert_eq!(result(&rpc, "eth_getBalance", json!([bob.address, tag])).await, balance);
    }
    let count = result(&rpc, "eth_getTransactionCount", json!([ada.address, "pending"])).await;
    assert_eq!(count, "0x3");
    let shown = result(&rpc, "eth_getTransactionByHash", json!([second.tx_hash()])).await;
    assert_eq!(shown["blockNumber"], Json::Null);
    for (method, params) in [
        ("eth_getTransactionReceipt", json!([second.tx_hash()])),
        ("eth_getBlockByNumber", json!(["0x2", false])),
        ("eth_getBlockByHash", json!([sealed.hash, false])),
    ] {
        assert_eq!(result(&rpc, method, params).await, Json::Null, "{method}");
    }
    let status = result(&rpc, "coco_transactionStatus", json!([second.tx_hash()])).await;
    assert_eq!(status, json!({"status": "pending"}));
    assert_eq!(result(&rpc, "txpool_status", json!([])).await["pending"], "0x2");
    let proof = result(&rpc, "eth_getProof", json!([bob.address, [], "latest"])).await;
    assert_eq!(proof["balance"], "0x1");
    let heads = session.next(&rpc).await.unwrap();
    assert_eq!(heads.len(), 1);

    trial.commit_all(&rpc).unwrap();
    assert_eq!(result(&rpc, "txpool_status", json!([])).await["pending"], "0x1");
    assert_eq!(result(&rpc, "eth_getBalance", json!([bob.address])).await, "0x2");
    let receipt = result(&rpc, "eth_getTransactionReceipt", json!([second.tx_hash()])).await;
    assert_eq!(receipt["blockNumber"], "0x2");
    let heads = session.next(&rpc).await.unwrap();
    let head: Json = serde_json::from_slice(&heads[0]).unwrap();
    assert_eq!(head["params"]["result"]["hash"], json!(sealed.hash));
}

#[tokio::test]
async fn a_client_that_listens_to_blocks_misses_none_however_much_happens() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let (heads, all) = (Session::new(&rpc), Session::new(&rpc));
    for (session, kind) in [(&heads, "newHeads"), (&all, "newPendingTransactions")] {
        let subscribe = json!({
            "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": [kind, true]
        });
        session.handle(&rpc, subscribe.to_string().as_bytes()).await.unwrap();
    }
    let full = result(&rpc, "eth_newPendingTransactionFilter", json!([true])).await;
    const BLOCKS: usize = 300;
    for _ in 0..BLOCKS {
        for _ in 0..5 {
            rpc.submit(SignedTransaction::new(ada.pay(bob.address)).unwrap()).unwrap();
        }
        trial.seal(&rpc).unwrap().unwrap();
    }
    for number in 1..=BLOCKS {
        let messages = heads.next(&rpc).await.unwrap();
        let head: Json = serde_json::from_slice(&messages[0]).unwrap();
        assert_eq!(head["params"]["result"]["number"], json!(format!("{number:#x}")));
    }
    let mut messages = Vec::new();
    while messages.len() < 5 * BLOCKS {
        messages.extend(all.next(&rpc).await.unwrap());
    }
    assert_eq!(messages.len(), 5 * BLOCKS);
    let first: Json = serde_json::from_slice(&messages[0]).unwrap();
    assert_eq!(first["params"]["result"]["nonce"], "0x0");
    let polled = result(&rpc, "eth_getFilterChanges", json!([full])).await;
    assert_eq!(polled.as_array().unwrap().len(), 5 * BLOCKS);
    assert_eq!(polled[7]["nonce"], "0x7");
}

#[tokio::test]
async fn whoever_asks_for_a_receipt_waits_for_the_block_that_is_on_its_way() {
    let (ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    trial.let_wait();
    let sent = ada.at(0, bob.address);
    send(&rpc, &sent).await.unwrap();
    let asked = result(&rpc, "eth_getTransactionReceipt", json!([sent.tx_hash()]));
    let (receipt, sealed) = tokio::join!(asked, async { trial.seal(&rpc).unwrap().unwrap() });
    assert_eq!(receipt["blockHash"], json!(sealed.hash));
    // What waits for another one, or was never sent, has no block that could be waited for.
    let early = ada.at(2, bob.address);
    send(&rpc, &early).await.unwrap();
    for hash in [*early.tx_hash(), B256::ZERO] {
        assert_eq!(result(&rpc, "eth_getTransactionReceipt", json!([hash])).await, Json::Null);
    }
    let raw = json!([raw(&ada.at(1, bob.address))]);
    let asked = result(&rpc, "eth_sendRawTransactionSync", raw);
    let (receipt, sealed) = tokio::join!(asked, async { trial.seal(&rpc).unwrap().unwrap() });
    assert_eq!(receipt["blockHash"], json!(sealed.hash));
}

#[tokio::test]
async fn free_gas_takes_any_fee_from_accounts_without_ether() {
    let (poor, bob) = (Wallet::new("poor"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Free, &[]);
    let transaction = sign(
        poor.secret,
        TxEip1559 {
            chain_id: CHAIN_ID,
            nonce: 0,
            gas_limit: 100_000,
            max_fee_per_gas: 30_000_000_000,
            max_priority_fee_per_gas: 2_000_000_000,
            to: TxKind::Call(bob.address),
            ..TxEip1559::default()
        },
    );
    send(&rpc, &transaction).await.unwrap();
    trial.seal(&rpc).unwrap().unwrap();
    let receipt = result(&rpc, "eth_getTransactionReceipt", json!([transaction.tx_hash()])).await;
    assert_eq!((&receipt["status"], &receipt["effectiveGasPrice"]), (&json!("0x1"), &json!("0x0")));
    assert_eq!(result(&rpc, "eth_gasPrice", json!([])).await, "0x0");
    assert_eq!(result(&rpc, "eth_maxPriorityFeePerGas", json!([])).await, "0x0");
    let history = result(&rpc, "eth_feeHistory", json!(["0x2", "latest", [50.0]])).await;
    assert_eq!(history["baseFeePerGas"], json!(["0x0", "0x0", "0x0"]));
    assert_eq!(history["reward"], json!([["0x0"], ["0x0"]]));
    let block = result(&rpc, "eth_getBlockByNumber", json!(["latest", false])).await;
    assert_eq!(block["baseFeePerGas"], "0x0");
    let filled = json!([{"from": poor.address, "to": bob.address}]);
    let filled = result(&rpc, "eth_fillTransaction", filled).await;
    assert_eq!((&filled["tx"]["gas"], &filled["tx"]["nonce"]), (&json!("0x5208"), &json!("0x1")));
}

#[tokio::test]
async fn state_at_every_block_and_proofs_of_it_stay_readable() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let mut roots = Vec::new();
    for _ in 0..12 {
        send(&rpc, &ada.pay(bob.address)).await.unwrap();
        roots.push(trial.seal(&rpc).unwrap().unwrap().header.state_root);
    }
    // In the middle of a block, too.
    send(&rpc, &ada.pay(bob.address)).await.unwrap();
    for (number, root) in (1_u64..).zip(&roots) {
        let at = format!("{number:#x}");
        let balance = result(&rpc, "eth_getBalance", json!([bob.address, at])).await;
        assert_eq!(balance, format!("{number:#x}"));
        let nonce = result(&rpc, "eth_getTransactionCount", json!([ada.address, at])).await;
        assert_eq!(nonce, format!("{number:#x}"));
        let proof = result(&rpc, "eth_getProof", json!([bob.address, ["0x0"], at])).await;
        let first: Bytes = serde_json::from_value(proof["accountProof"][0].clone()).unwrap();
        assert_eq!(keccak256(first), *root);
        assert_eq!(proof["balance"], format!("{number:#x}"));
    }
    let zero = format!("0x{}", "0".repeat(64));
    let odd = format!("0x{}", "0".repeat(63));
    let asked = json!(["0x00", "1", "0x", "0x0a", zero, odd]);
    let proof = result(&rpc, "eth_getProof", json!([bob.address, asked])).await;
    let keys = proof["storageProof"].as_array().unwrap().iter().map(|proof| &proof["key"]);
    let expected =
        [json!("0x0"), json!("0x1"), json!("0x0"), json!("0xa"), json!(zero), json!(zero)];
    assert!(keys.eq(&expected), "{proof}");
    let none = call(&rpc, "eth_getBalance", json!([bob.address, "0x63"])).await;
    assert_eq!(none["error"]["message"], "header not found");
}

/// Puts what it is called with into slots 3300 to 1.
const MANY: &str = "0x60118060095f395ff3610ce45b5f358155600190038060035700";

#[tokio::test]
async fn proofs_of_a_block_outlast_any_number_of_changes_of_the_same_slots() {
    let ada = Wallet::new("ada");
    let options = ChainOptions {
        transaction_gas_limit: Some(200_000_000),
        ..ChainOptions::from(FeePolicy::Free)
    };
    let rich = [(ada.address, U256::from(10).pow(U256::from(20)))];
    let (trial, rpc) = Trial::begin(&consortium_genesis(CHAIN_ID, rich), options).unwrap();
    let with = |nonce: u64, to: TxKind, input: Bytes| {
        let (chain_id, gas_limit) = (Some(CHAIN_ID), 200_000_000);
        sign(ada.secret, TxLegacy { chain_id, nonce, gas_limit, to, input, ..TxLegacy::default() })
    };
    let many = hex::decode(MANY).unwrap().into();
    send(&rpc, &with(0, TxKind::Create, many)).await.unwrap();
    let many = ada.address.create(0);
    let mut root = B256::ZERO;
    for value in 1..=33_u64 {
        let input = B256::from(U256::from(value)).to_vec().into();
        send(&rpc, &with(value, TxKind::Call(many), input)).await.unwrap();
        let sealed = trial.seal(&rpc).unwrap().unwrap();
        if value == 2 {
            root = sealed.header.state_root;
        }
    }
    let proof = result(&rpc, "eth_getProof", json!([many, ["0x9"], "0x2"])).await;
    let first: Bytes = serde_json::from_value(proof["accountProof"][0].clone()).unwrap();
    assert_eq!(keccak256(first), root);
    assert_eq!(proof["storageProof"][0]["value"], "0x2");
    let first: Bytes =
        serde_json::from_value(proof["storageProof"][0]["proof"][0].clone()).unwrap();
    assert_eq!(json!(keccak256(first)), proof["storageHash"]);
    let blocks = json!([{"blockStateCalls": [{}]}, "0x2"]);
    let simulated = result(&rpc, "eth_simulateV1", blocks).await;
    assert_eq!(simulated[0]["number"], "0x3");
}

#[tokio::test]
async fn contracts_log_revert_and_are_found_by_filters() {
    let mut ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    // Logs its first word with the caller as topic and keeps it; without data returns it.
    let code = "3615610013575f35805f555f523360205fa1005b5f545f5260205ff3";
    let init = format!("601c600c600039601c6000f3{code}");
    let deploy = sign(
        ada.secret,
        TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce: 0,
            gas_price: 0,
            gas_limit: 1_000_000,
            to: TxKind::Create,
            value: U256::ZERO,
            input: hex::decode(init).unwrap().into(),
        },
    );
    ada.nonce = 1;
    let filter = result(&rpc, "eth_newFilter", json!([{}])).await;
    let blocks = result(&rpc, "eth_newBlockFilter", json!([])).await;
    let pending = result(&rpc, "eth_newPendingTransactionFilter", json!([])).await;
    let session = Session::new(&rpc);
    for kind in ["newHeads", "logs", "newPendingTransactions"] {
        let request = json!({
            "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": [kind]
        });
        let reply = session.handle(&rpc, request.to_string().as_bytes()).await.unwrap();
        let reply: Json = serde_json::from_slice(&reply).unwrap();
        assert!(reply["result"].is_string(), "{reply}");
    }
    let hash = send(&rpc, &deploy).await.unwrap();
    trial.seal(&rpc).unwrap().unwrap();
    let receipt = result(&rpc, "eth_getTransactionReceipt", json!([hash])).await;
    let contract: Address = serde_json::from_value(receipt["contractAddress"].clone()).unwrap();
    assert_eq!(contract, ada.address.create(0));
    let shown = result(&rpc, "eth_getCode", json!([contract])).await;
    assert_eq!(shown, format!("0x{code}"));

    let word = B256::with_last_byte(42);
    let store = sign(
        ada.secret,
        TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce: 1,
            gas_price: 0,
            gas_limit: 100_000,
            to: TxKind::Call(contract),
            value: U256::ZERO,
            input: word.0.to_vec().into(),
        },
    );
    send(&rpc, &store).await.unwrap();
    trial.seal(&rpc).unwrap().unwrap();
    let read = result(&rpc, "eth_call", json!([{"to": contract}, "latest"])).await;
    assert_eq!(read, json!(word));
    let before = result(&rpc, "eth_call", json!([{"to": contract}, "0x1"])).await;
    assert_eq!(before, json!(B256::ZERO));
    let logs =
        result(&rpc, "eth_getLogs", json!([{"address": contract, "fromBlock": "0x0"}])).await;
    assert_eq!(logs.as_array().unwrap().len(), 1);
    assert_eq!(logs[0]["data"], json!(word));
    let topic = logs[0]["topics"][0].clone();
    let by_topic = json!([{"topics": [topic], "fromBlock": "0x0", "toBlock": "latest"}]);
    assert_eq!(result(&rpc, "eth_getLogs", by_topic).await, logs);
    let other = json!([{"topics": [B256::ZERO], "fromBlock": "0x0"}]);
    assert_eq!(result(&rpc, "eth_getLogs", other).await, json!([]));

    assert_eq!(result(&rpc, "eth_getFilterChanges", json!([filter])).await, logs);
    assert_eq!(result(&rpc, "eth_getFilterChanges", json!([filter])).await, json!([]));
    let hashes = result(&rpc, "eth_getFilterChanges", json!([blocks])).await;
    assert_eq!(hashes.as_array().unwrap().len(), 2);
    let hashes = result(&rpc, "eth_getFilterChanges", json!([pending])).await;
    assert_eq!(hashes, json!([deploy.tx_hash(), store.tx_hash()]));
    assert_eq!(result(&rpc, "eth_uninstallFilter", json!([filter])).await, true);
    let gone = call(&rpc, "eth_getFilterChanges", json!([filter])).await;
    assert_eq!(gone["error"]["message"], "filter not found");

    let mut told = Vec::new();
    while told.len() < 5 {
        for message in session.next(&rpc).await.unwrap() {
            let message: Json = serde_json::from_slice(&message).unwrap();
            told.push(message["params"]["result"].clone());
        }
    }
    assert_eq!(told.iter().filter(|news| news["stateRoot"].is_string()).count(), 2);
    assert_eq!(told.iter().filter(|news| news["topics"].is_array()).count(), 1);
    assert_eq!(told.iter().filter(|news| news.is_string()).count(), 2);

    let trace =
        json!([store.tx_hash(), {"tracer": "callTracer", "tracerConfig": {"withLog": true}}]);
    let trace = result(&rpc, "debug_traceTransaction", trace).await;
    assert_eq!((&trace["type"], &trace["to"]), (&json!("CALL"), &json!(contract)));
    for tracer in ["prestateTracer", "4byteTracer", "noopTracer"] {
        let params = json!([store.tx_hash(), {"tracer": tracer}]);
        assert!(result(&rpc, "debug_traceTransaction", params).await.is_object());
    }
    let steps = result(&rpc, "debug_traceTransaction", json!([store.tx_hash()])).await;
    assert!(steps["structLogs"].as_array().unwrap().len() > 10);
}

#[tokio::test]
async fn a_transaction_sent_synchronously_answers_with_its_receipt_or_says_that_it_has_none() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let (_trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let transaction = ada.pay(bob.address);
    let reply = call(&rpc, "eth_sendRawTransactionSync", json!([raw(&transaction), 1])).await;
    assert_eq!(reply["error"]["code"], 4);
    assert_eq!(reply["error"]["data"], json!(transaction.tx_hash()));
}

#[tokio::test]
async fn requests_that_are_none_are_refused() {
    let (_trial, rpc) = node(FeePolicy::Free, &[]);
    for (request, code) in [
        ("{", -32700),
        ("[]", -32600),
        ("1", -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"id":1,"method":"eth_chainId"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_nothing"}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance"}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":{}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["0x1"]}"#, -32602),
    ] {
        let reply = rpc.handle(request.as_bytes()).await.unwrap();
        let reply: Json = serde_json::from_slice(&reply).unwrap();
        assert_eq!(reply["error"]["code"], code, "{request}");
    }
    let unknown = br#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["nothing"]}"#;
    let reply = Session::new(&rpc).handle(&rpc, unknown).await.unwrap();
    let reply: Json = serde_json::from_slice(&reply).unwrap();
    let message = "no \"nothing\" subscription in eth namespace";
    assert_eq!(reply["error"], json!({"code": -32601, "message": message}));
    let notification = br#"{"jsonrpc":"2.0","method":"eth_chainId"}"#;
    assert_eq!(rpc.handle(notification).await, None);
    let long = vec![b' '; Rpc::LIMITS.max_message_bytes + 1];
    assert!(rpc.handle(&long).await.is_some());
}

/// A backup seals nothing, and must not begin with the whole state when it becomes primary.
#[test]
fn the_tries_of_a_node_that_seals_nothing_follow_those_that_do() {
    let mut ada = Wallet::new("ada");
    let (trial, rpc) = node(FeePolicy::Free, &[&ada]);
    let chain = Chain::load(&mut trial.begin()).unwrap().unwrap();
    let backup = Rpc::new(std::sync::Arc::new(chain), trial.clone());
    let mut last = None;
    for _ in 0..70 {
        rpc.submit(SignedTransaction::new(ada.pay(Address::repeat_byte(9))).unwrap()).unwrap();
        last = trial.seal(&rpc).unwrap();
        backup.committed().unwrap();
    }
    let known = |number: u64| {
        let hash = coco_ethereum::block_hash(&mut trial.begin(), number).unwrap();
        let root =
            coco_ethereum::block(&mut trial.begin(), number).unwrap().unwrap().header.state_root;
        backup.chain().tries().after(number, hash).map(|trie| trie.root() == root)
    };
    assert_eq!((known(63), known(64)), (None, Some(true)));
    // In the middle of a block it is the sealed one that is remembered.
    rpc.submit(SignedTransaction::new(ada.pay(Address::repeat_byte(9))).unwrap()).unwrap();
    let sealed = trial.seal(&backup).unwrap().unwrap();
    assert_eq!(sealed.header.parent_hash, last.unwrap().hash);
    assert_eq!(StateTrie::build(&trial.begin()).unwrap().root(), sealed.header.state_root);
}

/// A transaction that takes long would always find its block sealed, or what it reads changed.
#[test]
fn a_long_transaction_has_its_turn_among_short_ones() {
    let (long, mut short) = (Wallet::new("long"), Wallet::new("short"));
    let (trial, rpc) = node(FeePolicy::Free, &[&short]);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let transaction = short.pay(Address::repeat_byte(9));
                rpc.submit(SignedTransaction::new(transaction).unwrap()).unwrap();
                trial.seal(&rpc).unwrap();
            }
        });
        // Counts down from a million.
        let init = hex::decode("620f42405b600190038060045700").unwrap();
        let transaction = TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce: 0,
            gas_price: 0,
            gas_limit: 16_000_000,
            to: TxKind::Create,
            value: U256::ZERO,
            input: init.into(),
        };
        let signed = SignedTransaction::new(sign(long.secret, transaction)).unwrap();
        let submitted = rpc.submit(signed);
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        submitted.unwrap();
    });
}

/// Many connections at once, gaps and blocks in between: all is executed exactly once, nothing
/// waits at the end, every block follows from the one before.
#[test]
fn nothing_is_lost_or_stuck_under_concurrent_senders() {
    const SENDERS: usize = 8;
    const EACH: u64 = 40;
    let wallets: Vec<_> = (0..SENDERS).map(|i| Wallet::new(&format!("sender {i}"))).collect();
    let (trial, rpc) = node(FeePolicy::Free, &wallets.iter().collect::<Vec<_>>());
    let bob = Wallet::new("bob").address;
    let sending = std::sync::atomic::AtomicUsize::new(2 * SENDERS);
    std::thread::scope(|scope| {
        for half in 0..2 {
            for wallet in &wallets {
                let (rpc, sending) = (&rpc, &sending);
                // Two connections for each sender, odd and even nonces: both leave gaps.
                scope.spawn(move || {
                    for nonce in (0..EACH).filter(|nonce| nonce % 2 == half) {
                        let signed = SignedTransaction::new(wallet.at(nonce, bob)).unwrap();
                        rpc.submit(signed).unwrap();
                    }
                    sending.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                });
            }
        }
        while sending.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            trial.seal(&rpc).unwrap();
            std::thread::yield_now();
        }
    });
    trial.seal(&rpc).unwrap();
    assert!(rpc.pool().is_empty());
    let mut tx = trial.begin();
    let head = coco_ethereum::Head::read(&mut tx).unwrap().unwrap();
    let mut included = 0;
    for number in 1..=head.number {
        let block = coco_ethereum::block(&mut tx, number).unwrap().unwrap();
        assert_eq!(Some(block.header.parent_hash), coco_ethereum::block_hash(&mut tx, number - 1));
        assert!(!block.transactions.is_empty());
        included += block.transactions.len();
    }
    assert_eq!(included, SENDERS * EACH as usize);
    let root = coco_ethereum::block(&mut tx, head.number).unwrap().unwrap().header.state_root;
    assert_eq!(StateTrie::build(&tx).unwrap().root(), root);
    println!("{included} transactions in {} blocks", head.number);
}
