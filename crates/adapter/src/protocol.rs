//! A protocol with an interface, transactions and blocks of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use coco_kv::{Tx, TxId};

use crate::{Adapter, Caller, Node, Request, Response};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An adapter that is not made of endpoints: it reads whole requests of its interface, begins and
/// commits transactions by itself through its [`Node`], and may write a record of each batch.
pub trait Protocol: Adapter {
    /// Called once, in one of the node's first transactions, before everything else: begins the
    /// protocol's state on a ledger that has none, or takes up what is there.
    fn start(&self, tx: &mut Tx, node: Arc<dyn Node>) -> Result<(), AdapterError>;

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
