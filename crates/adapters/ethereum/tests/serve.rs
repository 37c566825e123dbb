//! Many clients at once: nobody's requests hold up the others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that fails by panicking"
)]

mod wallet;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Waker};

use alloy_consensus::TxLegacy;
use alloy_primitives::{B256, TxKind, U256, hex};
use bytes::Bytes;
use coco_adapter::Limits;
use coco_crypto::Digest;
use coco_ethereum::rpc::{Rpc, Session};
use coco_ethereum::trial::Trial;
use coco_ethereum::{Chain, CommitRefusal, FeePolicy, ForwardRefusal, Node};
use coco_kv::{MapName, Seqno, Tx, TxId};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use wallet::{CHAIN_ID, Wallet, node, raw, send, sign};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Work = Box<dyn FnOnce() + Send>;

/// A node with other threads, and a clock that goes on with what happens.
struct Threaded {
    trial: Arc<Trial>,
    offloaded: AtomicUsize,
    /// What the clock goes on by with each that is offloaded, and with each look at it.
    offload_ms: AtomicU64,
    look_ms: AtomicU64,
    /// What waits for a place, if there is none.
    waiting: Option<Mutex<Vec<Work>>>,
    drawn: AtomicUsize,
    /// A transaction that cannot be read.
    lost: Mutex<Option<B256>>,
}

impl Node for Threaded {
    fn begin(&self) -> Tx {
        let mut tx = self.trial.begin();
        if let Some(lost) = &*self.lost.lock() {
            tx.remove(&MapName::new("ethereum.transactions"), lost.as_slice());
        }
        tx
    }

    fn commit(&self, tx: Tx, claims: Digest) -> Result<TxId, CommitRefusal> {
        self.trial.commit(tx, claims)
    }

    fn is_primary(&self) -> bool {
        true
    }

    fn forward(&self, message: Bytes) -> Boxed<'static, Result<Bytes, ForwardRefusal>> {
        self.trial.forward(message)
    }

    fn last_committed(&self) -> TxId {
        self.trial.last_committed()
    }

    fn wait_committed(&self, position: Seqno) -> Boxed<'static, ()> {
        self.trial.wait_committed(position)
    }

    fn wait_for(&self, tx_id: TxId) -> Boxed<'static, ()> {
        self.trial.wait_for(tx_id)
    }

    fn receipt(&self, position: Seqno) -> Boxed<'_, Option<Json>> {
        self.trial.receipt(position)
    }

    fn now_ms(&self) -> u64 {
        self.trial.pass_ms(self.look_ms.load(Ordering::SeqCst));
        self.trial.now_ms()
    }

    fn randomness(&self) -> B256 {
        self.drawn.fetch_add(1, Ordering::SeqCst);
        self.trial.randomness()
    }

    fn sleep(&self, milliseconds: u64) -> Boxed<'_, ()> {
        match milliseconds {
            0..1_000 => Box::pin(std::future::ready(())),
            _ => Box::pin(std::future::pending()),
        }
    }

    fn offload(&self, work: Work) -> Boxed<'static, ()> {
        self.offloaded.fetch_add(1, Ordering::SeqCst);
        self.trial.pass_ms(self.offload_ms.load(Ordering::SeqCst));
        if let Some(waiting) = &self.waiting {
            waiting.lock().push(work);
            return Box::pin(std::future::pending());
        }
        Box::pin(async {
            tokio::task::spawn_blocking(work).await.unwrap();
        })
    }
}

fn threaded(wallets: &[&Wallet], has_places: bool) -> (Arc<Threaded>, Arc<Rpc>) {
    let (trial, _) = node(FeePolicy::Free, wallets);
    let chain = Chain::load(&mut trial.begin()).unwrap().unwrap();
    let waiting = (!has_places).then(Mutex::default);
    let (offloaded, offload_ms, look_ms, drawn, lost) = Default::default();
    let node = Threaded { trial, offloaded, offload_ms, look_ms, waiting, drawn, lost };
    let node = Arc::new(node);
    let rpc = Arc::new(Rpc::new(Arc::new(chain), Arc::clone(&node) as _));
    (node, rpc)
}

fn request(method: &str, params: Json) -> Json {
    json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})
}

async fn replies(rpc: &Arc<Rpc>, limits: Limits, requests: &[Json]) -> Vec<Json> {
    let body = serde_json::to_vec(requests).unwrap();
    serde_json::from_slice(&rpc.serve(None, limits, &body).await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_what_is_known_to_be_short_is_answered_on_the_threads_of_all() {
    let mut ada = Wallet::new("ada");
    let (node, rpc) = threaded(&[&ada], true);
    let payment = json!([raw(&ada.pay(ada.address))]);
    let short = [
        request("eth_sendRawTransaction", payment),
        request("eth_chainId", json!([])),
        request("eth_getBalance", json!([ada.address])),
        request("eth_getTransactionReceipt", json!([B256::ZERO])),
        json!(1),
    ];
    let latest = json!(["latest", false]);
    let long = [
        request("eth_call", json!([{}])),
        request("eth_feeHistory", json!(["0x400", "latest", [50]])),
        request("eth_getBlockByNumber", latest.clone()),
        request("eth_getBlockReceipts", latest.clone()),
        request("txpool_content", json!([])),
        request("debug_getRawBlock", latest),
        request("eth_sendTransaction", json!([{}])),
        request("eth_newMethod", json!([])),
    ];
    for (requests, places) in [(&short[..], 0), (&long[..], long.len())] {
        node.offloaded.store(0, Ordering::SeqCst);
        for request in requests {
            let body = request.to_string();
            assert!(rpc.serve(None, Rpc::LIMITS, body.as_bytes()).await.is_some());
        }
        assert_eq!(node.offloaded.load(Ordering::SeqCst), places);
        // For each request of a batch anew.
        node.offloaded.store(0, Ordering::SeqCst);
        assert_eq!(replies(&rpc, Rpc::LIMITS, requests).await.len(), requests.len());
        assert_eq!(node.offloaded.load(Ordering::SeqCst), places);
    }
    node.offloaded.store(0, Ordering::SeqCst);
    let escaped = r#"{"jsonrpc":"2.0","id":1,"method":"eth\u005fcall","params":[{}]}"#;
    let reply = rpc.serve(None, Rpc::LIMITS, escaped.as_bytes()).await.unwrap();
    assert!(String::from_utf8(reply).unwrap().contains("\"result\""));
    assert_eq!(node.offloaded.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_message_has_thirty_seconds() {
    let (node, rpc) = threaded(&[], true);
    node.offload_ms.store(10_000, Ordering::SeqCst);
    let mut batch = vec![request("eth_call", json!([{}])); 5];
    batch.push(request("eth_chainId", json!([])));
    let replies = replies(&rpc, Rpc::LIMITS, &batch).await;
    assert_eq!(replies.len(), batch.len());
    assert!(replies[..3].iter().all(|reply| reply["result"] == "0x"), "{replies:?}");
    let timed_out = json!({"code": -32002, "message": "request timed out"});
    assert!(replies[3..].iter().all(|reply| reply["error"] == timed_out && reply["id"] == 7));
    assert_eq!(node.offloaded.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_reply_that_does_not_fit_nothing_more_is_computed() {
    let (node, rpc) = threaded(&[], true);
    let block = request("eth_getBlockByNumber", json!(["latest", false]));
    let one = rpc.serve(None, Rpc::LIMITS, block.to_string().as_bytes()).await.unwrap();
    node.offloaded.store(0, Ordering::SeqCst);
    let batch = [vec![block; 6], vec![request("eth_chainId", json!([]))]].concat();
    for (max_reply_bytes, fit) in
        [(2 * one.len() + 3, 2), (2 * one.len() + 2, 1), (one.len() + 2, 1), (one.len() + 1, 0)]
    {
        let limits = Limits { max_reply_bytes, ..Rpc::LIMITS };
        let replies = replies(&rpc, limits, &batch).await;
        assert_eq!(replies.len(), batch.len());
        let too_large = json!({"code": -32003, "message": "response too large"});
        assert!(replies[..fit].iter().all(|reply| reply["result"].is_object()));
        assert!(replies[fit..].iter().all(|reply| reply["error"] == too_large));
        assert_eq!(node.offloaded.swap(0, Ordering::SeqCst), fit + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_done_for_whoever_has_gone() {
    let (node, rpc) = threaded(&[], false);
    let body = serde_json::to_vec(&vec![request("eth_newFilter", json!([{}])); 4]).unwrap();
    let context = &mut Context::from_waker(Waker::noop());
    assert!(pin!(rpc.serve(None, Rpc::LIMITS, &body)).poll(context).is_pending());
    let waiting = std::mem::take(&mut *node.waiting.as_ref().unwrap().lock());
    assert_eq!(waiting.len(), 1);
    // Making a filter draws its id.
    let drawn = node.drawn.load(Ordering::SeqCst);
    tokio::task::spawn_blocking(|| waiting.into_iter().for_each(|work| work())).await.unwrap();
    assert_eq!(node.drawn.load(Ordering::SeqCst), drawn);
}

#[tokio::test]
async fn a_batch_of_short_requests_lets_others_have_their_turn() {
    let (node, rpc) = threaded(&[], true);
    let body = serde_json::to_vec(&vec![request("eth_chainId", json!([])); 20]).unwrap();
    let context = &mut Context::from_waker(Waker::noop());
    assert!(pin!(rpc.serve(None, Rpc::LIMITS, &body)).poll(context).is_ready());
    node.look_ms.store(1, Ordering::SeqCst);
    let mut answer = pin!(rpc.serve(None, Rpc::LIMITS, &body));
    assert!(answer.as_mut().poll(context).is_pending());
    assert!(answer.await.is_some());
}

/// What a subscriber cannot be told ends the conversation: it would not know what it has missed.
#[tokio::test]
async fn a_block_that_cannot_be_read_ends_the_conversation() {
    let ada = Wallet::new("ada");
    let (node, rpc) = threaded(&[&ada], true);
    let session = Session::new(&rpc);
    let subscribe = request("eth_subscribe", json!(["logs"])).to_string();
    session.handle(&rpc, subscribe.as_bytes()).await.unwrap();
    let logging = sign(
        ada.secret,
        TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce: 0,
            gas_price: 0,
            gas_limit: 100_000,
            to: TxKind::Create,
            value: U256::ZERO,
            input: hex::decode("5f5fa000").unwrap().into(),
        },
    );
    send(&rpc, &logging).await.unwrap();
    node.trial.seal(&rpc).unwrap().unwrap();
    *node.lost.lock() = Some(*logging.tx_hash());
    assert_eq!(session.next(&rpc).await, None);
    *node.lost.lock() = None;
    assert_eq!(session.next(&rpc).await.unwrap().len(), 1);
}
