//! Subscriptions of one WebSocket.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::U64;
use alloy_rpc_types_eth::Filter;
use coco_adapter::Limits;
use coco_crypto::Digest;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::sync::{Notify, watch};

use super::blocks::rpc_pending;
use super::logs::read_filter;
use super::{Answer, Params, Rpc, RpcError, to_bytes, to_json};
use crate::StateError;

/// One connection with subscriptions. The transport passes requests to [`Session::handle`] and
/// sends what [`Session::next`] gives.
pub struct Session {
    listener: tokio::sync::Mutex<Listener>,
    subscriptions: Mutex<BTreeMap<U64, Subscription>>,
    subscribed: Notify,
    participant: Option<Digest>,
}

/// How far the session has been told.
struct Listener {
    head: watch::Receiver<u64>,
    executed: watch::Receiver<u64>,
    last_block: u64,
    transactions: u64,
}

#[derive(Clone, Debug)]
struct Subscription {
    kind: Kind,
    // What was before it is no news.
    after_block: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    NewHeads,
    Logs(Box<Filter>),
    NewPendingTransactions { full: bool },
    Syncing,
}

impl Session {
    /// Subscriptions of one session.
    const MAX_SUBSCRIPTIONS: usize = 128;

    /// A session without subscriptions.
    pub fn new(rpc: &Rpc) -> Self {
        let head = rpc.news.head();
        let last_block = *head.borrow();
        let executed = rpc.news.executed();
        let transactions = rpc.news.executed_count();
        Self {
            listener: Listener { head, executed, last_block, transactions }.into(),
            subscriptions: Mutex::default(),
            subscribed: Notify::new(),
            participant: None,
        }
    }

    /// The same for a participant whom the interface has authenticated.
    pub fn of_participant(self, participant: Digest) -> Self {
        Self { participant: Some(participant), ..self }
    }

    /// Answers a message of the client, as [`Rpc::handle`] does.
    pub async fn handle(&self, rpc: &Rpc, message: &[u8]) -> Option<Vec<u8>> {
        rpc.handle_with(message, Some(self), None, self.participant, Rpc::LIMITS).await
    }

    /// The same for one client of many, as [`Rpc::serve`] does.
    pub async fn serve(&self, rpc: &Arc<Rpc>, limits: Limits, message: &[u8]) -> Option<Vec<u8>> {
        rpc.handle_with(message, Some(self), Some(rpc), self.participant, limits).await
    }

    /// The next messages to the client: those of one block, or of transactions. Blocks are read
    /// when the client has taken the messages of those before, so that a slow one misses none.
    /// `None` when the node stops, or when so many transactions were executed since the last call
    /// that some are forgotten: then the transport closes the connection, so that nothing is lost
    /// in silence.
    pub async fn next(&self, rpc: &Rpc) -> Option<Vec<Vec<u8>>> {
        let mut listener = self.listener.lock().await;
        loop {
            let subscriptions = self.subscriptions.lock().clone();
            let listens = |wanted: fn(&Kind) -> bool| {
                subscriptions.values().any(|subscription| wanted(&subscription.kind))
            };
            let head = *listener.head.borrow_and_update();
            // After a rollback the numbers come again, with other blocks.
            listener.last_block = listener.last_block.min(head);
            if !listens(|kind| matches!(kind, Kind::NewHeads | Kind::Logs(_))) {
                listener.last_block = head;
            }
            while listener.last_block < head {
                listener.last_block += 1;
                let messages = block_messages(rpc, &subscriptions, listener.last_block);
                if !messages.is_empty() {
                    return Some(messages);
                }
            }
            listener.executed.mark_unchanged();
            let pending = listens(|kind| matches!(kind, Kind::NewPendingTransactions { .. }));
            let (hashes, count) = rpc.news.executed_since(listener.transactions);
            listener.transactions = count;
            if pending {
                let hashes = hashes?;
                let messages = transaction_messages(rpc, &subscriptions, &hashes);
                if !messages.is_empty() {
                    return Some(messages);
                }
            }
            let Listener { head, executed, .. } = &mut *listener;
            tokio::select! {
                changed = head.changed() => changed.ok()?,
                changed = executed.changed(), if pending => changed.ok()?,
                () = self.subscribed.notified() => {}
            }
        }
    }

    pub(super) fn subscribe(&self, rpc: &Rpc, params: &Params) -> Answer {
        let kind: String = params.required(0)?;
        let kind = match kind.as_str() {
            "newHeads" => Kind::NewHeads,
            "logs" => {
                let filter = match params.raw(1) {
                    Some(filter) => read_filter(&Params::new(Some(json!([filter])))?)?,
                    None => Filter::default(),
                };
                Kind::Logs(Box::new(filter))
            }
            "newPendingTransactions" => {
                let full = params.optional(1)?.unwrap_or_default();
                Kind::NewPendingTransactions { full }
            }
            "syncing" => Kind::Syncing,
            _ => {
                let message = format!("no {kind:?} subscription in eth namespace");
                return Err(RpcError::invalid_params(message));
            }
        };
        let after_block = *rpc.news.head().borrow();
        let [.., b0, b1, b2, b3, b4, b5, b6, b7] = rpc.node.randomness().0;
        let id = U64::from(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
        let mut subscriptions = self.subscriptions.lock();
        if subscriptions.len() >= Self::MAX_SUBSCRIPTIONS {
            return Err(RpcError::limit("too many subscriptions"));
        }
        subscriptions.insert(id, Subscription { kind, after_block });
        self.subscribed.notify_one();
        to_json(&id)
    }

    pub(super) fn unsubscribe(&self, params: &Params) -> Answer {
        let id: U64 = params.required(0)?;
        match self.subscriptions.lock().remove(&id) {
            Some(_) => Ok(Json::Bool(true)),
            None => Err(RpcError::server("subscription not found")),
        }
    }
}

fn message(id: U64, result: &Json) -> Vec<u8> {
    let params = json!({"subscription": id, "result": result});
    to_bytes(&json!({"jsonrpc": "2.0", "method": "eth_subscription", "params": params}))
}

fn block_messages(
    rpc: &Rpc,
    subscriptions: &BTreeMap<U64, Subscription>,
    number: u64,
) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for (id, subscription) in subscriptions {
        if number <= subscription.after_block {
            continue;
        }
        // A block that cannot be read is a fault of the node, which its log tells.
        let news = rpc.block_news(&subscription.kind, number).unwrap_or_default();
        messages.extend(news.iter().map(|result| message(*id, result)));
    }
    messages
}

fn transaction_messages(
    rpc: &Rpc,
    subscriptions: &BTreeMap<U64, Subscription>,
    hashes: &[alloy_primitives::B256],
) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for hash in hashes {
        for (id, subscription) in subscriptions {
            let shown = match subscription.kind {
                Kind::NewPendingTransactions { full: false } => Some(json!(hash)),
                Kind::NewPendingTransactions { full: true } => rpc.shown_pending(*hash),
                _ => None,
            };
            messages.extend(shown.map(|shown| message(*id, &shown)));
        }
    }
    messages
}

impl Rpc {
    /// Says that more may be readable than before, as after every commit of a batch: tells whoever
    /// waits for blocks, and gives transactions that were put off another turn. On a backup the
    /// transactions in the blocks are news as well.
    pub fn committed(&self) -> Result<(), StateError> {
        let tx = &mut self.node.begin();
        if let Some(head) = self.last_committed(tx)? {
            let told = self.news.tell_head(head.number);
            let _ = self.tell_included(tx, told, head.number);
            // What cannot be read fails again, and loudly, where it is needed.
            let _ = self.follow(tx, head.number);
        }
        if self.node.is_primary() {
            self.resume();
        }
        Ok(())
    }

    /// What a block is to a subscription.
    fn block_news(&self, kind: &Kind, number: u64) -> Result<Vec<Json>, RpcError> {
        match kind {
            Kind::NewHeads => {
                let params = Params::new(Some(json!([format!("{number:#x}")])))?;
                Ok(vec![self.header_by_number(&params)?])
            }
            Kind::Logs(filter) => {
                let tx = &mut self.node.begin();
                let logs = self.logs_between(tx, filter, number, number)?;
                logs.iter().map(to_json).collect()
            }
            Kind::NewPendingTransactions { .. } | Kind::Syncing => Ok(Vec::new()),
        }
    }

    /// A transaction that was just executed, for a reply; `None` if it was rolled back since.
    pub(super) fn shown_pending(&self, hash: alloy_primitives::B256) -> Option<Json> {
        let (envelope, sender) = self.pending_transaction(hash).ok()??;
        to_json(&rpc_pending(envelope, sender)).ok()
    }
}
