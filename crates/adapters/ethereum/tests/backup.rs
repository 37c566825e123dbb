//! A node that is not the primary: what it answers itself, what it has the primary answer, and what
//! becomes of transactions when the primary changes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that fails by panicking"
)]

mod wallet;

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use alloy_primitives::{Address, B256, keccak256};
use bytes::Bytes;
use coco_crypto::Digest;
use coco_ethereum::rpc::{Rpc, RpcError, Session};
use coco_ethereum::trial::Trial;
use coco_ethereum::{Chain, CommitRefusal, FeePolicy, ForwardRefusal, Node};
use coco_kv::{Seqno, Tx, TxId, View};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use wallet::{Wallet, call, node, raw, result, send};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// How the next messages to the primary fare.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Open,
    /// The primary answers, and nobody hears it.
    AnswersAreLost,
    Closed,
}

/// On the primary's store: what is executed there is here at once.
struct Backup {
    trial: Arc<Trial>,
    primary: Mutex<Option<Arc<Rpc>>>,
    ways: Mutex<Vec<Way>>,
    messages: AtomicUsize,
    leads: AtomicBool,
    /// Whether deadlines pass.
    is_late: AtomicBool,
    /// Whether anything is committed.
    is_stuck: AtomicBool,
    sleeps: AtomicUsize,
}

impl Node for Backup {
    fn begin(&self) -> Tx {
        self.trial.begin()
    }

    fn commit(&self, tx: Tx, claims: Digest) -> Result<TxId, CommitRefusal> {
        match self.is_primary() {
            true => self.trial.commit(tx, claims),
            false => Err(CommitRefusal::Unavailable),
        }
    }

    fn is_primary(&self) -> bool {
        self.leads.load(Ordering::SeqCst)
    }

    fn forward(&self, message: Bytes) -> Boxed<Result<Bytes, ForwardRefusal>> {
        self.messages.fetch_add(1, Ordering::SeqCst);
        let way = self.ways.lock().pop().unwrap_or(Way::Open);
        let primary = self.primary.lock().clone().filter(|_| way != Way::Closed);
        Box::pin(async move {
            let primary = primary.ok_or(ForwardRefusal::NotNow)?;
            let answer = primary.answer_forwarded(&message).await;
            let answer = answer.map_err(ForwardRefusal::Refused)?;
            if way == Way::Open { Ok(answer.into()) } else { Err(ForwardRefusal::Unknown) }
        })
    }

    fn last_committed(&self) -> TxId {
        self.trial.last_committed()
    }

    fn wait_committed(&self, _position: Seqno) -> Boxed<()> {
        match self.is_stuck.load(Ordering::SeqCst) {
            true => Box::pin(std::future::pending()),
            false => Box::pin(ready(())),
        }
    }

    fn wait_for(&self, tx_id: TxId) -> Boxed<()> {
        self.wait_committed(tx_id.seqno)
    }

    fn receipt(&self, position: Seqno) -> Pin<Box<dyn Future<Output = Option<Json>> + Send + '_>> {
        self.trial.receipt(position)
    }

    fn now_ms(&self) -> u64 {
        self.trial.now_ms()
    }

    fn randomness(&self) -> B256 {
        self.trial.randomness()
    }

    fn sleep(&self, milliseconds: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.sleeps.fetch_add(1, Ordering::SeqCst);
        if milliseconds >= 1_000 && !self.is_late.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        Box::pin(tokio::task::yield_now())
    }
}

struct Pair {
    trial: Arc<Trial>,
    primary: Arc<Rpc>,
    node: Arc<Backup>,
    backup: Arc<Rpc>,
}

fn pair(wallets: &[&Wallet]) -> Pair {
    let (trial, primary) = node(FeePolicy::Free, wallets);
    let primary = Arc::new(primary);
    let node = Arc::new(Backup {
        trial: Arc::clone(&trial),
        primary: Mutex::new(Some(Arc::clone(&primary))),
        ways: Mutex::default(),
        messages: AtomicUsize::new(0),
        leads: AtomicBool::new(false),
        is_late: AtomicBool::new(false),
        is_stuck: AtomicBool::new(false),
        sleeps: AtomicUsize::new(0),
    });
    let chain = Chain::load(&mut trial.begin()).unwrap().unwrap();
    let backup = Arc::new(Rpc::new(Arc::new(chain), Arc::clone(&node) as _));
    Pair { trial, primary, node, backup }
}

impl Pair {
    fn seal(&self) {
        self.trial.seal(&self.primary).unwrap().unwrap();
        self.backup.committed().unwrap();
    }
}

#[tokio::test]
async fn a_backup_sends_to_the_primary_and_reads_by_itself() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let pair = pair(&[&ada]);
    let first = ada.pay(bob.address);
    assert_eq!(send(&pair.backup, &first).await.unwrap(), json!(first.tx_hash()));
    assert_eq!(send(&pair.backup, &first).await.unwrap_err(), "already known");
    let count = json!([ada.address, "pending"]);
    assert_eq!(result(&pair.backup, "eth_getTransactionCount", count.clone()).await, "0x1");
    assert_eq!(result(&pair.backup, "txpool_status", json!([])).await["pending"], "0x1");
    // One that waits is known to the primary only.
    let early = ada.at(5, bob.address);
    send(&pair.backup, &early).await.unwrap();
    assert!(pair.backup.pool().is_empty());
    let status = json!([early.tx_hash()]);
    let shown = result(&pair.backup, "coco_transactionStatus", status).await;
    assert_eq!(shown, json!({"status": "queued"}));
    let shown = result(&pair.backup, "eth_getTransactionByHash", json!([early.tx_hash()])).await;
    assert_eq!(shown["nonce"], "0x5");
    assert_eq!(pair.backup.outbox().len(), 2);

    pair.seal();
    let asked = pair.node.messages.load(Ordering::SeqCst);
    let receipt = result(&pair.backup, "eth_getTransactionReceipt", json!([first.tx_hash()])).await;
    assert_eq!(receipt["status"], "0x1");
    for (method, params) in [
        ("eth_getTransactionByHash", json!([first.tx_hash()])),
        ("coco_transactionStatus", json!([first.tx_hash()])),
        ("eth_getTransactionCount", json!([ada.address, "latest"])),
        ("eth_getBalance", json!([bob.address])),
        ("eth_blockNumber", json!([])),
        ("eth_getLogs", json!([{"fromBlock": "0x0"}])),
        ("eth_call", json!([{"to": bob.address}, "latest"])),
    ] {
        result(&pair.backup, method, params).await;
    }
    assert_eq!(pair.node.messages.load(Ordering::SeqCst), asked, "all of it is here");
    assert_eq!(pair.backup.outbox().len(), 1, "what is in a block is not sent any more");
}

#[tokio::test]
async fn what_is_for_the_primary_in_a_batch_is_one_message() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let pair = pair(&[&ada]);
    let mut batch: Vec<Json> = (0..20)
        .map(|id| {
            let params = json!([raw(&ada.pay(bob.address))]);
            json!({"jsonrpc": "2.0", "id": id, "method": "eth_sendRawTransaction", "params": params})
        })
        .collect();
    batch.insert(3, json!({"jsonrpc": "2.0", "id": "here", "method": "eth_blockNumber"}));
    batch.insert(7, json!({"jsonrpc": "2.0", "id": "bad", "method": "eth_sendRawTransaction"}));
    batch.push(json!(17));
    let count = json!([ada.address, "pending"]);
    let count =
        json!({"jsonrpc": "2.0", "id": "n", "method": "eth_getTransactionCount", "params": count});
    batch.push(count);
    let replies = pair.backup.handle(&serde_json::to_vec(&batch).unwrap()).await.unwrap();
    let replies: Vec<Json> = serde_json::from_slice(&replies).unwrap();
    assert_eq!(replies.len(), batch.len());
    for (request, reply) in batch.iter().zip(&replies) {
        assert_eq!(reply["id"], request.get("id").cloned().unwrap_or_default());
    }
    assert_eq!(replies[3]["result"], "0x0");
    assert_eq!(replies[7]["error"]["code"], -32602);
    assert_eq!(replies[22]["error"]["code"], -32600);
    assert_eq!(replies[23]["result"], "0x14");
    assert_eq!(pair.node.messages.load(Ordering::SeqCst), 1);
}

/// Or a batch of a thousand would hold up its client for a thousand deadlines.
#[tokio::test]
async fn receipts_that_do_not_come_are_waited_for_once_in_a_batch() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let pair = pair(&[&ada]);
    let mut batch = Vec::new();
    for id in 0..5 {
        let payment = ada.pay(bob.address);
        send(&pair.backup, &payment).await.unwrap();
        let params = json!([payment.tx_hash()]);
        let method = "eth_getTransactionReceipt";
        batch.push(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
    }
    let batch = serde_json::to_vec(&batch).unwrap();
    let receipts = async || -> Vec<Json> {
        let replies = pair.backup.handle(&batch).await.unwrap();
        let replies: Vec<Json> = serde_json::from_slice(&replies).unwrap();
        replies.into_iter().map(|reply| reply["result"].clone()).collect()
    };
    pair.node.is_stuck.store(true, Ordering::SeqCst);
    pair.node.is_late.store(true, Ordering::SeqCst);
    let before = pair.node.sleeps.load(Ordering::SeqCst);
    assert_eq!(receipts().await, vec![Json::Null; 5]);
    assert_eq!(pair.node.sleeps.load(Ordering::SeqCst), before + 1);
    pair.seal();
    assert!(receipts().await.iter().all(|receipt| receipt["status"] == "0x1"));
}

#[tokio::test]
async fn without_a_primary_a_client_is_told_to_try_again() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let pair = pair(&[&ada]);
    let primary = pair.node.primary.lock().take();
    pair.node.is_late.store(true, Ordering::SeqCst);
    let payment = ada.pay(bob.address);
    for (method, params) in [
        ("eth_sendRawTransaction", json!([raw(&payment)])),
        ("eth_sendRawTransactionSync", json!([raw(&payment)])),
        ("eth_getTransactionCount", json!([ada.address, "pending"])),
        ("txpool_status", json!([])),
    ] {
        let error = call(&pair.backup, method, params).await["error"].clone();
        assert_eq!(error["code"], RpcError::UNAVAILABLE, "{method}");
        assert!(error["message"].as_str().unwrap().contains("again"), "{error}");
    }
    assert_eq!(result(&pair.backup, "eth_blockNumber", json!([])).await, "0x0");
    assert!(pair.backup.outbox().is_empty());
    *pair.node.primary.lock() = primary;
    send(&pair.backup, &payment).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let pair = pair(&[&ada]);
    *pair.node.ways.lock() = vec![Way::AnswersAreLost];
    let payment = ada.pay(bob.address);
    // The primary knows it by then, as its sender need not.
    assert_eq!(send(&pair.backup, &payment).await.unwrap(), json!(payment.tx_hash()));
    assert_eq!(pair.node.messages.load(Ordering::SeqCst), 2);
    assert_eq!(pair.backup.outbox().len(), 1);

    // What the node signs anew each time is not sent twice.
    let participant = Some(Digest(keccak256("participant").0));
    let ask = async |method: &str, params: Json| {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = request.to_string();
        let reply = pair.backup.handle_for(participant, Rpc::LIMITS, request.as_bytes()).await;
        serde_json::from_slice::<Json>(&reply.unwrap()).unwrap()
    };
    let accounts = ask("eth_accounts", json!([])).await;
    let account: Address = serde_json::from_value(accounts["result"][0].clone()).unwrap();
    let transfer = json!([{"from": account, "to": bob.address}]);
    *pair.node.ways.lock() = vec![Way::AnswersAreLost, Way::Closed];
    let before = pair.node.messages.load(Ordering::SeqCst);
    let lost = ask("eth_sendTransaction", transfer.clone()).await;
    assert_eq!(lost["error"]["code"], RpcError::UNAVAILABLE);
    assert!(lost["error"]["message"].as_str().unwrap().contains("may have been"), "{lost}");
    assert_eq!(pair.node.messages.load(Ordering::SeqCst), before + 2);
    let sent = ask("eth_sendTransaction", transfer).await;
    assert!(sent["result"].is_string(), "{sent}");
    pair.seal();
    let count = json!([account]);
    assert_eq!(result(&pair.backup, "eth_getTransactionCount", count).await, "0x2");
    assert!(pair.backup.outbox().is_empty());
}

#[tokio::test]
async fn subscribers_of_a_backup_hear_of_blocks_and_transactions() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let pair = pair(&[&ada]);
    let session = Session::new(&pair.backup);
    for kind in ["newHeads", "newPendingTransactions"] {
        let subscribe = json!({
            "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": [kind]
        });
        session.handle(&pair.backup, subscribe.to_string().as_bytes()).await.unwrap();
    }
    let payment = ada.pay(bob.address);
    send(&pair.backup, &payment).await.unwrap();
    pair.seal();
    let mut results = Vec::new();
    for _ in 0..2 {
        for message in session.next(&pair.backup).await.unwrap() {
            let message: Json = serde_json::from_slice(&message).unwrap();
            results.push(message["params"]["result"].clone());
        }
    }
    assert_eq!(results[0]["number"], "0x1");
    assert_eq!(results[1], json!(payment.tx_hash()));
}

#[tokio::test]
async fn what_an_earlier_primary_had_is_sent_to_the_next() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let pair = pair(&[&ada]);
    let kept = ada.pay(bob.address);
    send(&pair.backup, &kept).await.unwrap();
    pair.seal();
    let end = pair.trial.begin().read_tx_id().seqno;
    pair.trial.commit_no_more();
    // Executed, sealed, not committed; executed; waiting.
    for _ in 0..2 {
        send(&pair.backup, &ada.pay(bob.address)).await.unwrap();
    }
    pair.trial.seal(&pair.primary).unwrap().unwrap();
    send(&pair.backup, &ada.pay(bob.address)).await.unwrap();
    send(&pair.backup, &ada.at(5, bob.address)).await.unwrap();
    assert!(pair.backup.overtaken().is_empty(), "the primary goes on");

    // A primary of a later view, which is this node, has none of them.
    pair.trial.take_back(&pair.backup, end, View(3)).unwrap();
    pair.node.leads.store(true, Ordering::SeqCst);
    let again = pair.backup.overtaken();
    assert_eq!(again.len(), 4);
    pair.backup.send_again(again).await;
    assert!(pair.backup.overtaken().is_empty(), "once in a view");
    assert_eq!(pair.backup.pool().len(), 1);
    pair.trial.seal(&pair.backup).unwrap().unwrap();
    pair.trial.commit_all(&pair.backup).unwrap();
    let count = json!([ada.address]);
    assert_eq!(result(&pair.backup, "eth_getTransactionCount", count.clone()).await, "0x4");
    assert_eq!(result(&pair.backup, "eth_getBalance", json!([bob.address])).await, "0x4");
    assert_eq!(pair.backup.outbox().len(), 1, "the one that waits");
    send(&pair.backup, &ada.at(4, bob.address)).await.unwrap();
    pair.trial.seal(&pair.backup).unwrap().unwrap();
    assert_eq!(result(&pair.backup, "eth_getTransactionCount", count).await, "0x6");
    assert!(pair.backup.outbox().is_empty());
}

#[tokio::test]
async fn a_primary_that_is_replaced_hands_on_what_it_had() {
    let (mut ada, bob) = (Wallet::new("ada"), Wallet::new("bob"));
    let pair = pair(&[&ada]);
    // The roles are the other way round: `backup` was the primary.
    pair.node.leads.store(true, Ordering::SeqCst);
    let end = pair.trial.begin().read_tx_id().seqno;
    send(&pair.backup, &ada.pay(bob.address)).await.unwrap();
    send(&pair.backup, &ada.at(2, bob.address)).await.unwrap();
    assert!(pair.backup.outbox().is_empty());
    pair.trial.take_back(&pair.backup, end, View(3)).unwrap();
    pair.node.leads.store(false, Ordering::SeqCst);
    pair.backup.committed().unwrap();
    let again = pair.backup.overtaken();
    assert_eq!(again.len(), 2);
    assert!(pair.backup.pool().is_empty());
    pair.backup.send_again(again).await;
    assert_eq!(pair.primary.pool().len(), 1);
    let count = json!([ada.address, "pending"]);
    assert_eq!(result(&pair.backup, "eth_getTransactionCount", count).await, "0x1");
}

#[tokio::test]
async fn a_message_of_another_node_is_read_like_any_other() {
    let pair = pair(&[]);
    for message in ["", "{", "[]", r#"{"calls":[{"method":"eth_chainId"}],"participant":null}"#] {
        assert!(pair.primary.answer_forwarded(message.as_bytes()).await.is_err(), "{message}");
    }
    let call = json!({"method": "eth_chainId", "params": []});
    let many = json!({"participant": null, "calls": vec![call.clone(); 257]}).to_string();
    assert!(pair.primary.answer_forwarded(many.as_bytes()).await.unwrap_err().contains("257"));
    let nested = json!({"method": "eth_subscribe", "params": ["newHeads"]});
    let message = json!({"participant": null, "calls": [call, nested]}).to_string();
    let answers = pair.primary.answer_forwarded(message.as_bytes()).await.unwrap();
    let answers: Json = serde_json::from_slice(&answers).unwrap();
    assert_eq!(answers["answers"][0], json!({"result": "0x539"}));
    assert_eq!(answers["answers"][1]["error"]["code"], -32601);
    let refused = pair.backup.answer_forwarded(message.as_bytes()).await.unwrap_err();
    assert!(refused.contains("not the primary"));
}
