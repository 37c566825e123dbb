//! Subscriptions of one WebSocket.

use std::sync::Arc;

use alloy_primitives::U64;
use coco_adapter::Limits;
use coco_crypto::Digest;
use parking_lot::Mutex;
use serde_json::Value as Json;
use tokio::sync::{Notify, watch};

use super::blocks::rpc_pending;
use super::logs::{LogFilter, Place};
use super::portions::{Kind, Next, Subscription, Subscriptions};
use super::{Answer, Params, Rpc, RpcError, to_json};
use crate::StateError;

/// One connection with subscriptions. The transport passes requests to [`Session::handle`] and
/// sends what [`Session::next`] gives.
pub struct Session {
    listener: tokio::sync::Mutex<Listener>,
    subscriptions: Mutex<Arc<Subscriptions>>,
    subscribed: Notify,
    participant: Option<Digest>,
}

/// How far the session has been told.
struct Listener {
    head: watch::Receiver<u64>,
    executed: watch::Receiver<u64>,
    blocks: Next<Place>,
    transactions: Next<u64>,
}

impl Session {
    /// Subscriptions of one session.
    const MAX_SUBSCRIPTIONS: usize = 128;
    /// What their filters may take of the memory.
    const MAX_FILTER_BYTES: usize = 2 * 1024 * 1024;

    /// A session without subscriptions.
    pub fn new(rpc: &Rpc) -> Self {
        let head = rpc.news.head();
        let blocks = Next::new(Place::before(head.borrow().saturating_add(1)));
        let executed = rpc.news.executed();
        let transactions = Next::new(rpc.news.executed_count());
        Self {
            listener: Listener { head, executed, blocks, transactions }.into(),
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

    /// The next messages to the client: those of one block, or of transactions, or a part of them.
    /// Blocks are read when the client has taken the messages of those before, so that a slow one
    /// misses none. `None` when the node stops, when a block cannot be read, or when so many
    /// transactions were executed since the last call that some are forgotten: then the transport
    /// closes the connection, so that nothing is lost in silence.
    pub async fn next(&self, rpc: &Rpc) -> Option<Vec<Vec<u8>>> {
        self.next_with(rpc, None).await
    }

    /// The same for one client of many: what may take long is made where it holds up no other.
    pub async fn serve_next(&self, rpc: &Arc<Rpc>) -> Option<Vec<Vec<u8>>> {
        self.next_with(rpc, Some(rpc)).await
    }

    async fn next_with(&self, rpc: &Rpc, shared: Option<&Arc<Rpc>>) -> Option<Vec<Vec<u8>>> {
        let mut listener = self.listener.lock().await;
        loop {
            let head = *listener.head.borrow_and_update();
            listener.executed.mark_unchanged();
            let (hashes, count) = rpc.news.executed_since(listener.transactions.at);
            // Taken last: who subscribes from here on listens to what comes after.
            let subscriptions = Arc::clone(&*self.subscriptions.lock());
            let listens = |wanted: fn(&Kind) -> bool| {
                subscriptions.values().any(|subscription| wanted(&subscription.kind))
            };
            let shared = shared.filter(|_| listens(Kind::is_long));
            let pending = listens(Kind::is_of_transactions);
            if !pending {
                listener.transactions = Next::new(count);
            }
            let after_head = Next::new(Place::before(head.saturating_add(1)));
            // After a rollback the numbers come again, with other blocks.
            let is_past = listener.blocks.at > after_head.at;
            if is_past || !listens(Kind::is_of_blocks) {
                listener.blocks = after_head;
            }
            if listener.blocks.at.block <= head {
                let (subscriptions, next) = (Arc::clone(&subscriptions), listener.blocks);
                let portion =
                    made(rpc, shared, move |rpc| rpc.portion_of_blocks(&subscriptions, next, head));
                // A block that cannot be read is a fault of the node.
                let (portion, next) = portion.await?.ok()?;
                listener.blocks = next;
                if !portion.messages.is_empty() {
                    return Some(portion.messages);
                }
                continue;
            }
            if pending && listener.transactions.at < count {
                let (hashes, next) = (hashes?, listener.transactions);
                let portion = made(rpc, shared, move |rpc| {
                    rpc.portion_of_transactions(&subscriptions, next, &hashes)
                });
                let (portion, next) = portion.await?;
                listener.transactions = next;
                if !portion.messages.is_empty() {
                    return Some(portion.messages);
                }
                continue;
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
                let filter = params.raw(1).map(|_| LogFilter::read(params, 1)).transpose()?;
                Kind::Logs(Arc::new(filter.unwrap_or_default()))
            }
            "newPendingTransactions" => {
                let full = params.optional(1)?.unwrap_or_default();
                Kind::NewPendingTransactions { full }
            }
            "syncing" => Kind::Syncing,
            _ => {
                let message = format!("no {kind:?} subscription in eth namespace");
                return Err(RpcError::new(-32601, message));
            }
        };
        let after_block = *rpc.news.head().borrow();
        let [.., b0, b1, b2, b3, b4, b5, b6, b7] = rpc.node.randomness().0;
        let id = U64::from(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
        let mut subscriptions = self.subscriptions.lock();
        if subscriptions.len() >= Self::MAX_SUBSCRIPTIONS {
            return Err(RpcError::limit("too many subscriptions"));
        }
        let taken: usize = subscriptions.values().map(|other| other.kind.bytes()).sum();
        if taken + kind.bytes() > Self::MAX_FILTER_BYTES {
            return Err(RpcError::limit("too many addresses and topics in subscriptions"));
        }
        Arc::make_mut(&mut subscriptions).insert(id, Subscription { kind, after_block });
        self.subscribed.notify_one();
        to_json(&id)
    }

    pub(super) fn unsubscribe(&self, params: &Params) -> Answer {
        let id: U64 = params.required(0)?;
        match Arc::make_mut(&mut self.subscriptions.lock()).remove(&id) {
            Some(_) => Ok(Json::Bool(true)),
            None => Err(RpcError::server("subscription not found")),
        }
    }
}

/// Makes something of what there is, with `shared` on another thread; none if that failed.
async fn made<T: Send + 'static>(
    rpc: &Rpc,
    shared: Option<&Arc<Rpc>>,
    make: impl FnOnce(&Rpc) -> T + Send + 'static,
) -> Option<T> {
    if let Some(shared) = shared.cloned() {
        return rpc.offloaded(async move { make(&shared) }).await;
    }
    // There may be much of it, one after the other.
    tokio::task::yield_now().await;
    Some(make(rpc))
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

    /// A transaction that was just executed, for a reply; `None` if it was rolled back since.
    pub(super) fn shown_pending(&self, hash: alloy_primitives::B256) -> Option<Json> {
        let (envelope, sender) = self.pending_transaction(hash).ok()??;
        to_json(&rpc_pending(envelope, sender)).ok()
    }
}
