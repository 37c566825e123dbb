//! Subscriptions of one WebSocket.

use std::collections::BTreeMap;

use alloy_primitives::{B256, U64};
use alloy_rpc_types_eth::Filter;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::blocks::rpc_pending;
use super::logs::read_filter;
use super::{Answer, Params, Rpc, RpcError, to_bytes, to_json};
use crate::{Head, StateError};

/// What happened on the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A block is there to be read.
    Block(u64),
    /// A transaction was executed.
    Transaction(B256),
}

/// One connection with subscriptions. The transport passes requests to [`Session::handle`] and
/// sends what [`Session::next`] gives.
pub struct Session {
    events: tokio::sync::Mutex<Receiver<Event>>,
    subscriptions: Mutex<BTreeMap<U64, Subscription>>,
}

#[derive(Clone, Debug)]
enum Subscription {
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
        Self {
            events: tokio::sync::Mutex::new(rpc.events.subscribe()),
            subscriptions: Mutex::default(),
        }
    }

    /// Answers a message of the client, as [`Rpc::handle`] does.
    pub async fn handle(&self, rpc: &Rpc, message: &[u8]) -> Option<Vec<u8>> {
        rpc.handle_with(message, Some(self)).await
    }

    /// The next messages to the client; `None` when the node stops or the client was too slow to
    /// take them: then the transport closes the connection, so that nothing is lost in silence.
    pub async fn next(&self, rpc: &Rpc) -> Option<Vec<Vec<u8>>> {
        let mut events = self.events.lock().await;
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) if self.subscriptions.lock().is_empty() => continue,
                Err(_) => return None,
            };
            let messages = self.messages(rpc, &event);
            if !messages.is_empty() {
                return Some(messages);
            }
        }
    }

    pub(super) fn subscribe(&self, rpc: &Rpc, params: &Params) -> Answer {
        let kind: String = params.required(0)?;
        let subscription = match kind.as_str() {
            "newHeads" => Subscription::NewHeads,
            "logs" => {
                let filter = match params.raw(1) {
                    Some(filter) => read_filter(&Params::new(Some(json!([filter])))?)?,
                    None => Filter::default(),
                };
                Subscription::Logs(Box::new(filter))
            }
            "newPendingTransactions" => {
                let full = params.optional(1)?.unwrap_or_default();
                Subscription::NewPendingTransactions { full }
            }
            "syncing" => Subscription::Syncing,
            _ => {
                let message = format!("no {kind:?} subscription in eth namespace");
                return Err(RpcError::invalid_params(message));
            }
        };
        let [.., b0, b1, b2, b3, b4, b5, b6, b7] = rpc.node.randomness().0;
        let id = U64::from(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
        let mut subscriptions = self.subscriptions.lock();
        if subscriptions.len() >= Self::MAX_SUBSCRIPTIONS {
            return Err(RpcError::limit("too many subscriptions"));
        }
        subscriptions.insert(id, subscription);
        to_json(&id)
    }

    pub(super) fn unsubscribe(&self, params: &Params) -> Answer {
        let id: U64 = params.required(0)?;
        match self.subscriptions.lock().remove(&id) {
            Some(_) => Ok(Json::Bool(true)),
            None => Err(RpcError::server("subscription not found")),
        }
    }

    fn messages(&self, rpc: &Rpc, event: &Event) -> Vec<Vec<u8>> {
        let subscriptions = self.subscriptions.lock().clone();
        let mut messages = Vec::new();
        for (id, subscription) in subscriptions {
            for result in rpc.news(&subscription, event).unwrap_or_default() {
                let params = json!({"subscription": id, "result": result});
                let message = json!({
                    "jsonrpc": "2.0", "method": "eth_subscription", "params": params
                });
                messages.push(to_bytes(&message));
            }
        }
        messages
    }
}

impl Rpc {
    /// Says that more may be readable than before, as after every commit of a batch: tells whoever
    /// waits for blocks of those that are new.
    pub fn committed(&self) -> Result<(), StateError> {
        let Some(head) = Head::read(&mut self.node.read())? else { return Ok(()) };
        let mut announced = self.announced.lock();
        // After a rollback the numbers come again, with other blocks.
        let first = announced.saturating_add(1).min(head.number.saturating_add(1));
        for number in first..=head.number {
            // Nobody may be listening.
            let _ = self.events.send(Event::Block(number));
        }
        *announced = head.number;
        Ok(())
    }

    /// What an event is to a subscription.
    fn news(&self, subscription: &Subscription, event: &Event) -> Result<Vec<Json>, RpcError> {
        match (subscription, event) {
            (Subscription::NewHeads, Event::Block(number)) => {
                let params = Params::new(Some(json!([format!("{number:#x}")])))?;
                Ok(vec![self.header_by_number(&params)?])
            }
            (Subscription::Logs(filter), Event::Block(number)) => {
                let tx = &mut self.node.read();
                let logs = self.logs_between(tx, filter, *number, *number)?;
                logs.iter().map(to_json).collect()
            }
            (Subscription::NewPendingTransactions { full: false }, Event::Transaction(hash)) => {
                Ok(vec![to_json(hash)?])
            }
            (Subscription::NewPendingTransactions { full: true }, Event::Transaction(hash)) => {
                match self.pending_transaction(*hash)? {
                    Some((envelope, sender)) => Ok(vec![to_json(&rpc_pending(envelope, sender))?]),
                    None => Ok(Vec::new()),
                }
            }
            _ => Ok(Vec::new()),
        }
    }
}
