//! A protocol with an interface, transactions and blocks of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use coco_kv::{Seqno, Tx, TxId};
use serde_json::Value as Json;

use crate::{Adapter, Caller, Node, Request, Response};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An adapter that is not made of endpoints: it reads whole requests of its interface, begins and
/// commits transactions by itself through its [`Node`], and may write a record of each batch.
///
/// On one of several nodes it executes only while its node [is the primary](Node::is_primary).
/// Elsewhere whole batches come into the store with the records that the primary's protocol has
/// made of them, and may be taken back until they are committed. So the state of a protocol is in
/// the store; what it keeps in memory is a cache of it, or is told by
/// [`taken_back`](Self::taken_back) what goes.
pub trait Protocol: Adapter {
    /// Called once, before any request: begins the protocol's state on a ledger that has none, or
    /// takes up what is there. On a node that begins or recovers a service it is one of the first
    /// transactions; on a node that joins, which has the ledger by then, nothing may be written.
    fn start(&self, tx: &mut Tx, node: Arc<dyn Node>) -> Result<(), AdapterError>;

    /// What this node demands of a service that it is to join, for [`admit`](Self::admit) there;
    /// none if nothing.
    fn demands(&self) -> Option<Json> {
        None
    }

    /// Whether a node that asks to join, and is not trusted yet, finds here what it demands.
    fn admit(&self, _tx: &mut Tx, _demands: &Json) -> Result<(), AdapterError> {
        Ok(())
    }

    /// Keeps the adapter's own transactions from the commit point until the value is dropped. Held
    /// around [`seal`](Self::seal) until the batch has its signature's position, so that every
    /// transaction of a batch is in the batch's record. Waits for transactions in their commit.
    fn hold(&self) -> Box<dyn Held + '_> {
        Box::new(())
    }

    /// Called once when a batch is cut, before its signature: the place for the protocol's own
    /// block record. Whether the batch holds anything of the adapter's is for the adapter to know.
    ///
    /// After an error nothing more is written: the batch is not signed, so that none of its
    /// transactions is ever committed, and the ledger ends with the batch before. An adapter fails
    /// here only over state that is broken, never because of what a client has sent.
    fn seal(&self, _tx: &mut Tx, _batch: Batch) -> Result<(), AdapterError> {
        Ok(())
    }

    /// What was executed after `to` is about to be taken back: this node is not the primary any
    /// more, or the batches of an earlier primary do not stand. `tx` sees all of it for the last
    /// time. A later primary may yet bring the same batches. Nothing that is committed is ever
    /// taken back. Must be short, and must not wait for transactions.
    fn taken_back(&self, _tx: &mut Tx, _to: Seqno) {}

    /// Answers a request. The call itself must be short: what takes long belongs into
    /// [`Node::offload`].
    fn handle(&self, client: &Client, request: Request) -> BoxFuture<'static, Response>;

    /// Answers, at the primary, a message that this protocol has forwarded from another node
    /// ([`Node::forward`]). That node is one of the service, but its message is to be read as any
    /// other. An error says that nothing was executed, and why. The call itself must be short.
    fn answer_forwarded(&self, _message: Bytes) -> BoxFuture<'static, Result<Bytes, AdapterError>> {
        let refusal = AdapterError("the protocol answers no forwarded messages".to_owned());
        Box::pin(std::future::ready(Err(refusal)))
    }

    /// Begins a conversation over a WebSocket; `None` if the protocol has none.
    fn converse(&self, _client: &Client) -> Option<Arc<dyn Conversation>> {
        None
    }
}

/// What [`Protocol::hold`] gives.
pub trait Held {}

impl<T> Held for T {}

/// One WebSocket of a client, whose messages go in both directions.
pub trait Conversation: Send + Sync + 'static {
    /// Answers a message, if it wants an answer. Messages are passed on in their order, and
    /// answered when their answers are there.
    fn receive(&self, client: &Client, message: Bytes) -> BoxFuture<'static, Option<Bytes>>;

    /// The next messages that the client has not asked for; `None` ends the conversation, as it
    /// must for a client that is too slow. Not called while earlier messages are not sent.
    fn next(&self) -> BoxFuture<'static, Option<Vec<Bytes>>>;
}

/// Who sent a request, and how much it may ask for.
#[derive(Clone, Debug)]
pub struct Client {
    /// Who it is: a participant or member by TLS certificate, or nobody ([`Caller::NoAuth`]).
    pub caller: Arc<Caller>,
    /// How much it may ask for.
    pub limits: Limits,
}

/// How much one message may hold and ask for, by the interface's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message; checked before the adapter sees it.
    pub max_message_bytes: usize,
    /// Requests in a message that holds several.
    pub max_batch_requests: usize,
    /// Bytes of the answer to a message.
    pub max_reply_bytes: usize,
}

/// The entries executed since the last cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The first transaction of the batch.
    pub first: TxId,
    /// The last one executed before the cut.
    pub last: TxId,
}

/// An adapter cannot go on: what it finds in the store is broken, or not what it was set up for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AdapterError(pub String);
