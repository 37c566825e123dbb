//! Accepts connections on an interface and turns each into a session.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::http::{Exchange, serve_http1, serve_http2};
use super::pace::within;
use super::transport::{Channel, ReadAhead, Transport};
use super::{Dispatch, PeerCertificate, ServerTls, Session};
use crate::host::{Accepted, Host};
use crate::interface::Interface;

/// How long to wait after a failed accept: usually the process is out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves one interface.
pub struct Listener {
    host: Arc<dyn Host>,
    interface: Arc<Interface>,
    tls: Option<Arc<ServerTls>>,
    dispatch: Arc<dyn Dispatch>,
    metrics: Arc<InterfaceMetrics>,
    sessions: Mutex<HashMap<u64, Arc<Session>>>,
    next_session: AtomicU64,
    stopping: AtomicBool,
    stopped: Notify,
    drained: Notify,
}

/// What an interface counts, for `/node/metrics`.
#[derive(Debug, Default)]
pub struct InterfaceMetrics {
    active: AtomicUsize,
    peak: AtomicUsize,
    /// Requests that could not be read.
    pub errors: SessionErrors,
}

/// Requests that could not be read, by reason.
#[derive(Debug, Default, Serialize)]
pub struct SessionErrors {
    parsing: AtomicUsize,
    request_payload_too_large: AtomicUsize,
    request_header_too_large: AtomicUsize,
}

impl SessionErrors {
    pub(super) fn parsing(&self) {
        self.parsing.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn payload_too_large(&self) {
        self.request_payload_too_large.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn header_too_large(&self) {
        self.request_header_too_large.fetch_add(1, Ordering::Relaxed);
    }
}

impl InterfaceMetrics {
    /// Sessions open now.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Most sessions that were ever open at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Listener {
    /// A listener; `tls` is what an interface that is not `Unsecured` shows.
    pub fn new(
        host: Arc<dyn Host>,
        interface: Arc<Interface>,
        tls: Option<Arc<ServerTls>>,
        dispatch: Arc<dyn Dispatch>,
        metrics: Arc<InterfaceMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            interface,
            tls,
            dispatch,
            metrics,
            sessions: Mutex::default(),
            next_session: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            stopped: Notify::new(),
            drained: Notify::new(),
        })
    }

    /// The interface that is served.
    pub fn interface(&self) -> &Arc<Interface> {
        &self.interface
    }

    /// What has been counted.
    pub fn metrics(&self) -> &Arc<InterfaceMetrics> {
        &self.metrics
    }

    /// Accepts sessions until [`stop`](Self::stop).
    pub async fn serve(self: Arc<Self>) {
        while let Some(accepted) = self.unless_stopped(self.host.accept(&self.interface.name)).await
        {
            match accepted {
                Ok(accepted) => self.admit(accepted),
                Err(error) => {
                    tracing::warn!(interface = self.interface.name, %error, "accept failed");
                    self.host.sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// The future's value, unless the listener is stopped first.
    async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let (mut future, mut stopped) = (pin!(future), pin!(self.stopped.notified()));
        stopped.as_mut().enable();
        std::future::poll_fn(|cx| {
            if self.stopping.load(Ordering::Acquire) || stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Stops accepting, lets requests in flight finish and ends the sessions.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.stopped.notify_waiters();
        let sessions: Vec<_> = self.sessions.lock().values().cloned().collect();
        sessions.iter().for_each(|session| session.close());
        let drained = async {
            loop {
                let notified = self.drained.notified();
                if self.metrics.active() == 0 {
                    return;
                }
                notified.await;
            }
        };
        let limit = self.interface.timeouts.shutdown;
        if within(self.host.as_ref(), limit, drained).await.is_none() {
            let sessions = self.metrics.active();
            tracing::warn!(interface = self.interface.name, sessions, "sessions did not end");
        }
    }

    /// Starts a session, unless there are too many.
    fn admit(self: &Arc<Self>, accepted: Accepted) {
        let active = self.metrics.active.fetch_add(1, Ordering::AcqRel) + 1;
        let place = Place { listener: self.clone(), id: None };
        if active > self.interface.limits.max_sessions_hard {
            tracing::debug!(peer = accepted.peer, "session refused: hard cap");
            return;
        }
        self.metrics.peak.fetch_max(active, Ordering::Relaxed);
        let over_soft_cap = active > self.interface.limits.max_sessions_soft;
        tokio::spawn(place.run(accepted, over_soft_cap));
    }
}

/// A session's place among those that are counted; given back when it ends, however it ends.
struct Place {
    listener: Arc<Listener>,
    id: Option<u64>,
}

impl Place {
    async fn run(mut self, accepted: Accepted, over_soft_cap: bool) {
        let listener = self.listener.clone();
        let begun = listener.unless_stopped(listener.begin(accepted)).await;
        let Some(Some((channel, is_http2))) = begun else { return };
        let peer = channel.peer_certificate().and_then(PeerCertificate::from_der);
        let session = Arc::new(Session::new(listener.interface.clone(), peer, over_soft_cap));
        self.register(&session);
        let exchange = Arc::new(Exchange {
            host: listener.host.clone(),
            session,
            dispatch: listener.dispatch.clone(),
            metrics: listener.metrics.clone(),
            transport: Transport::new(channel),
            taken_up_bytes: AtomicU64::new(0),
            untaken: Arc::default(),
            upgrade: Mutex::default(),
        });
        if is_http2 { serve_http2(exchange).await } else { serve_http1(exchange).await }
    }

    /// From now on the session hears of a stop.
    fn register(&mut self, session: &Arc<Session>) {
        let id = self.listener.next_session.fetch_add(1, Ordering::Relaxed);
        self.listener.sessions.lock().insert(id, session.clone());
        self.id = Some(id);
        if self.listener.stopping.load(Ordering::Acquire) {
            session.close();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.listener.sessions.lock().remove(&id);
        }
        if self.listener.metrics.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.listener.drained.notify_waiters();
        }
    }
}

impl Listener {
    /// The handshake, and which HTTP the client speaks; `None` when it does not get that far.
    async fn begin(&self, accepted: Accepted) -> Option<(Channel, bool)> {
        let timeouts = self.interface.timeouts;
        let handshake = self.shake_hands(accepted);
        let mut channel = within(self.host.as_ref(), timeouts.handshake, handshake).await??;
        let first_bytes = std::future::poll_fn(|cx| channel.poll_is_http2(cx));
        let is_http2 = match timeouts.idle {
            Some(idle) => within(self.host.as_ref(), idle, first_bytes).await?,
            None => first_bytes.await,
        };
        Some((channel, is_http2.ok()?))
    }

    /// The TLS handshake, if the interface has TLS; `None` when it failed.
    async fn shake_hands(&self, accepted: Accepted) -> Option<Channel> {
        let stream = ReadAhead::new(accepted.stream);
        let Some(tls) = &self.tls else { return Some(Channel::Plain(stream)) };
        match TlsAcceptor::from(tls.config()).accept(stream).await {
            Ok(stream) => Some(Channel::Tls(Box::new(stream))),
            Err(error) => {
                tracing::debug!(peer = accepted.peer, %error, "TLS handshake failed");
                None
            }
        }
    }
}
