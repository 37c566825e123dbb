//! Sessions: from a host's byte stream to whole HTTP requests and back.
//!
//! ```text
//!   Host::accept ──▶ Listener ──▶ caps ──▶ TLS handshake ──▶ HTTP/1.1 or HTTP/2 ──▶ Dispatch
//!                                           (tls)             (http)
//! ```
//!
//! A session is one task. Requests are answered on it, in order; whatever they wait for, the task
//! waits for. What a slow or hostile client can hold on to is bounded: bytes by the interface's
//! limits, time by its timeouts, sessions by its caps.

mod http;
mod listener;
mod pace;
mod peer;
mod reply_body;
mod tls;
mod transport;
mod turn;
mod websocket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use coco_adapter::{Request, Response};
use futures_util::task::AtomicWaker;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use crate::host::BoxFuture;
use crate::interface::Interface;

pub use listener::{InterfaceMetrics, Listener, SessionErrors};
pub(crate) use pace::within;
pub use peer::PeerCertificate;
pub(crate) use tls::HostTime;
pub use tls::{ServerTls, TlsError};

/// What answers requests.
pub trait Dispatch: Send + Sync + 'static {
    /// Answers one request. Called on the session's task.
    fn dispatch(&self, session: &Arc<Session>, request: Request) -> Reply;
}

/// An answer, now or later.
pub enum Reply {
    /// It is here.
    Now(Response),
    /// It has to be waited for; the session's next HTTP/1.1 request waits with it.
    Later(BoxFuture<'static, Response>),
    /// After this response, 101, the session is a WebSocket.
    Upgrade(Response, Upgrade),
}

impl Reply {
    /// The response, once it is there.
    pub(crate) async fn given(self) -> Response {
        match self {
            Self::Now(response) | Self::Upgrade(response, _) => response,
            Self::Later(response) => response.await,
        }
    }
}

/// A session that becomes a WebSocket.
pub struct Upgrade {
    /// What is left of the HTTP connection.
    pub connection: OnUpgrade,
    /// What answers its messages.
    pub messages: Arc<dyn Messages>,
}

/// What answers the messages of one WebSocket.
pub trait Messages: Send + Sync + 'static {
    /// Answers one, if it wants an answer. Called on the session's task.
    fn receive(&self, session: &Session, message: Bytes) -> BoxFuture<'static, Option<Bytes>>;

    /// The next messages to the client; `None` ends the conversation.
    fn next(&self) -> BoxFuture<'static, Option<Vec<Bytes>>>;
}

/// One client connection, as its requests see it.
pub struct Session {
    /// Where it came in.
    pub interface: Arc<Interface>,
    /// The certificate whose key the client proved to hold.
    pub peer: Option<PeerCertificate>,
    /// What requests leave for those after them; opaque to the session layer.
    pub memory: Mutex<crate::dispatch::Memory>,
    /// Its one request has come from another node, which has the client.
    pub(crate) is_forwarded: bool,
    over_soft_cap: bool,
    requests_in_flight: AtomicUsize,
    closing: AtomicBool,
    waker: AtomicWaker,
}

impl Session {
    fn new(interface: Arc<Interface>, peer: Option<PeerCertificate>, over_soft_cap: bool) -> Self {
        Self {
            interface,
            peer,
            memory: Mutex::default(),
            is_forwarded: false,
            over_soft_cap,
            requests_in_flight: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// A session that another node has with a client, for one request.
    pub(crate) fn forwarded(
        interface: Arc<Interface>,
        peer: Option<PeerCertificate>,
        memory: crate::dispatch::Memory,
    ) -> Self {
        let memory = Mutex::new(memory);
        Self { memory, is_forwarded: true, ..Self::new(interface, peer, false) }
    }

    /// Ends the session after the requests in flight are answered.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
