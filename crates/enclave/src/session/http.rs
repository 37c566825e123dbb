//! HTTP/1.1 and HTTP/2 over a session's transport.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use ::http::{HeaderValue, StatusCode, Version, header};
use bytes::{Bytes, BytesMut};
use coco_adapter::{ErrorCode, ErrorResponse};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use parking_lot::Mutex;

use super::listener::InterfaceMetrics;
use super::pace::{Look, Pace, TooSlow, enough, within};
use super::reply_body::{ReplyBody, Untaken, without_forbidden_body};
use super::transport::Transport;
use super::turn::in_turns;
use super::websocket::converse;
use super::{Dispatch, Reply, Session, Upgrade};
use crate::host::{BoxFuture, Host};

/// How much hyper reads ahead at most, unless heads may be larger.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// What a session's requests need.
pub(super) struct Exchange {
    pub(super) host: Arc<dyn Host>,
    pub(super) session: Arc<Session>,
    pub(super) dispatch: Arc<dyn Dispatch>,
    pub(super) metrics: Arc<InterfaceMetrics>,
    pub(super) transport: Transport,
    /// How much had been received when the last request was taken up.
    pub(super) taken_up_bytes: AtomicU64,
    /// What its client takes of the replies.
    pub(super) untaken: Arc<Untaken>,
    /// What the session becomes when HTTP ends.
    pub(super) upgrade: Mutex<Option<Upgrade>>,
}

/// Serves HTTP/1.1 until the session ends.
pub(super) async fn serve_http1(exchange: Arc<Exchange>) {
    let limits = exchange.session.interface.limits;
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .max_headers(limits.max_header_count)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(READ_BUFFER_BYTES.max(limits.max_header_bytes.saturating_mul(2)))
        .half_close(true);
    let answering = exchange.clone();
    let service = service_fn(move |request| answer(answering.clone(), request));
    let connection = builder.serve_connection(exchange.transport.clone(), service);
    if exchange.session.interface.protocol.is_none() {
        let told = |connection: Pin<&mut http1::Connection<_, _>>| connection.graceful_shutdown();
        return drive(&exchange, connection, told, None).await;
    }
    let connection = connection.with_upgrades();
    let told = |connection: Pin<&mut http1::UpgradeableConnection<_, _>>| {
        connection.graceful_shutdown();
    };
    drive(&exchange, connection, told, None).await;
}

/// Serves HTTP/2 until the session ends.
pub(super) async fn serve_http2(exchange: Arc<Exchange>) {
    let limits = exchange.session.interface.limits;
    let arrivals = Arrivals::default();
    let mut builder = http2::Builder::new(arrivals.clone());
    builder
        .auto_date_header(false)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .initial_stream_window_size(limits.initial_window_bytes)
        .max_frame_size(limits.max_frame_bytes)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX));
    let answering = exchange.clone();
    let service = service_fn(move |request| answer(answering.clone(), request));
    let connection = builder.serve_connection(exchange.transport.clone(), service);
    let told = |connection: Pin<&mut http2::Connection<_, _, _>>| connection.graceful_shutdown();
    drive(&exchange, connection, told, Some(Streams::new(arrivals))).await;
}

/// Runs a connection turn by turn: everything that can be done is done, then sent.
async fn drive<C>(
    exchange: &Exchange,
    connection: C,
    close_gracefully: impl Fn(Pin<&mut C>),
    mut streams: Option<Streams>,
) where
    C: Future<Output = hyper::Result<()>>,
{
    let Exchange { host, session, transport, .. } = exchange;
    let mut connection = std::pin::pin!(connection);
    let timeouts = session.interface.timeouts;
    let mut pace = Pace::new(host.as_ref(), timeouts, streams.is_none(), exchange.look());
    let mut told = false;
    let ended = in_turns(|cx| {
        session.waker.register(cx.waker());
        if session.is_closing() && !std::mem::replace(&mut told, true) {
            close_gracefully(connection.as_mut());
        }
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ended::Closed(result));
            }
            let ran = streams.as_mut().is_some_and(|streams| streams.run(cx));
            if !ran {
                break;
            }
        }
        if let Poll::Ready(Err(_)) = transport.poll_send(cx) {
            return Poll::Ready(Ended::Lost);
        }
        pace.poll(cx, host.as_ref(), || exchange.look()).map(Ended::TooSlow)
    })
    .await;
    match ended {
        Ended::Lost | Ended::TooSlow(TooSlow::Reply) => return,
        Ended::Closed(result) => {
            let upgrade = exchange.upgrade.lock().take();
            if let Some(upgrade) = upgrade.filter(|_| result.is_ok()) {
                return converse(exchange, upgrade).await;
            }
            exchange.explain(result);
        }
        Ended::TooSlow(TooSlow::Head) => exchange.transport.append(REQUEST_TIMEOUT),
        Ended::TooSlow(TooSlow::Idle) => {}
    }
    let close = std::future::poll_fn(|cx| transport.poll_close(cx));
    let _ = within(host.as_ref(), timeouts.stall, close).await;
}

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

enum Ended {
    Closed(hyper::Result<()>),
    TooSlow(TooSlow),
    Lost,
}

impl Exchange {
    pub(super) fn look(&self) -> Look {
        let progress = self.transport.progress();
        Look {
            progress,
            requests_in_flight: self.session.requests_in_flight.load(Ordering::Relaxed),
            reply_bytes_waiting: self.untaken.waiting(),
            reply_bytes_taken: self.untaken.taken(),
            partial_head: progress.received_bytes > self.taken_up_bytes.load(Ordering::Relaxed),
        }
    }

    /// Hyper answers a malformed head with a bare status; clients get the reason as well.
    fn explain(&self, result: hyper::Result<()>) {
        let Err(error) = result else { return };
        if !error.is_parse() {
            return;
        }
        let explained = if error.is_parse_too_large() {
            self.metrics.errors.header_too_large();
            let limit = self.session.interface.limits;
            let message = format!(
                "Request head is larger than {} bytes or has more than {} headers.",
                limit.max_header_bytes, limit.max_header_count
            );
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let refusal = ErrorResponse::new(status, ErrorCode::RequestHeaderTooLarge, message);
            raw(status, "application/json", refusal.to_response().body())
        } else {
            self.metrics.errors.parsing();
            let text = format!("Unable to parse the request: {error}\n");
            raw(StatusCode::BAD_REQUEST, "text/plain", text.as_bytes())
        };
        let bare = self.transport.take_last_write();
        if bare.is_some_and(|bare| bare.starts_with(b"HTTP/1.1 4")) {
            self.transport.append(&explained);
        }
    }
}

fn raw(status: StatusCode, content_type: &str, body: &[u8]) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        status.as_u16(),
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

async fn answer(
    exchange: Arc<Exchange>,
    request: ::http::Request<Incoming>,
) -> Result<::http::Response<ReplyBody>, Infallible> {
    let _in_flight = InFlight::new(&exchange);
    let (version, method) = (request.version(), request.method().clone());
    let body = |body| ReplyBody::new(body, version, &exchange.untaken);
    let (reply, end) = match exchange.read_request(request).await {
        Ok(request) => match exchange.dispatch.dispatch(&exchange.session, request) {
            Reply::Now(response) => (response, false),
            Reply::Later(response) => (response.await, false),
            Reply::Upgrade(response, upgrade) => {
                *exchange.upgrade.lock() = Some(upgrade);
                return Ok(response.map(body));
            }
        },
        Err(Refused { error, end }) => (error.to_response(), end),
    };
    let mut response = without_forbidden_body(&method, reply).map(body);
    if (end || exchange.session.is_closing()) && version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Counts a request while it is being answered.
struct InFlight(Arc<Exchange>);

impl InFlight {
    fn new(exchange: &Arc<Exchange>) -> Self {
        exchange.session.requests_in_flight.fetch_add(1, Ordering::Relaxed);
        Self(exchange.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let received = self.0.transport.progress().received_bytes;
        self.0.taken_up_bytes.store(received, Ordering::Relaxed);
        self.0.session.requests_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is not dispatched.
struct Refused {
    error: ErrorResponse,
    /// Whether the rest of the session is unusable.
    end: bool,
}

impl Refused {
    fn ending(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { error: ErrorResponse::new(status, code, message), end: true }
    }
}

impl Exchange {
    async fn read_request(
        &self,
        request: ::http::Request<Incoming>,
    ) -> Result<coco_adapter::Request, Refused> {
        if self.session.over_soft_cap {
            let message = "Service is overloaded: too many sessions on this interface.";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let error = ErrorResponse::new(status, ErrorCode::SessionCapExhausted, message);
            return Err(Refused { error, end: false });
        }
        let (mut parts, body) = request.into_parts();
        if parts.version == Version::HTTP_2
            && !parts.headers.contains_key(header::HOST)
            && let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            parts.headers.insert(header::HOST, host);
        }
        let body = if body.is_end_stream() { Bytes::new() } else { self.read_body(body).await? };
        Ok(::http::Request::from_parts(parts, body))
    }

    async fn read_body(&self, mut body: Incoming) -> Result<Bytes, Refused> {
        let limit = self.session.interface.limits.max_body_bytes;
        if body.size_hint().lower() > limit as u64 {
            return Err(self.too_large(limit));
        }
        let mut whole = Bytes::new();
        let mut joined = BytesMut::new();
        let mut stall = Stall::new(self);
        loop {
            let arrived = joined.len() + whole.len();
            let next = std::future::poll_fn(|cx| {
                let frame = Pin::new(&mut body).poll_frame(cx);
                match frame {
                    Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                    Poll::Pending => stall.poll(cx, arrived as u64).map(Err),
                }
            });
            let frame = match next.await {
                Err(Stalled) => {
                    let message = "Request body stopped arriving.";
                    let status = StatusCode::REQUEST_TIMEOUT;
                    return Err(Refused::ending(status, ErrorCode::InvalidInput, message));
                }
                Ok(None) => break,
                Ok(Some(Err(error))) => {
                    self.metrics.errors.parsing();
                    let message = format!("Request body is not valid: {error}.");
                    let status = StatusCode::BAD_REQUEST;
                    return Err(Refused::ending(status, ErrorCode::InvalidInput, message));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if arrived + data.len() > limit {
                return Err(self.too_large(limit));
            }
            // One frame is passed on as it is; more are joined.
            if arrived == 0 {
                whole = data;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut whole));
                joined.extend_from_slice(&data);
            }
        }
        Ok(if joined.is_empty() { whole } else { joined.freeze() })
    }

    fn too_large(&self, limit: usize) -> Refused {
        self.metrics.errors.payload_too_large();
        let message = format!("Request body is larger than {limit} bytes.");
        Refused::ending(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::RequestBodyTooLarge, message)
    }
}

/// Watches a body that does not arrive in one piece.
struct Stall<'a> {
    exchange: &'a Exchange,
    timer: Option<BoxFuture<'static, ()>>,
    seen_bytes: u64,
}

struct Stalled;

impl<'a> Stall<'a> {
    fn new(exchange: &'a Exchange) -> Self {
        Self { exchange, timer: None, seen_bytes: 0 }
    }

    fn poll(&mut self, cx: &mut Context<'_>, arrived_bytes: u64) -> Poll<Stalled> {
        let limit = self.exchange.session.interface.timeouts.stall;
        loop {
            let timer = self.timer.get_or_insert_with(|| self.exchange.host.sleep(limit));
            ready!(timer.as_mut().poll(cx));
            if !enough(arrived_bytes - self.seen_bytes, limit) {
                return Poll::Ready(Stalled);
            }
            (self.timer, self.seen_bytes) = (None, arrived_bytes);
        }
    }
}

/// HTTP/2 streams run on their session's task, not as tasks of their own.
struct Streams {
    arrivals: Arrivals,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

/// Where hyper leaves the streams that it wants to be run.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl<F> hyper::rt::Executor<F> for Arrivals
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.lock().push(Box::pin(stream));
    }
}

impl Streams {
    fn new(arrivals: Arrivals) -> Self {
        Self { arrivals, running: FuturesUnordered::new() }
    }

    /// Runs the streams that can run; whether any is new or done.
    fn run(&mut self, cx: &mut Context<'_>) -> bool {
        let arrived = std::mem::take(&mut *self.arrivals.0.lock());
        let mut ran = !arrived.is_empty();
        self.running.extend(arrived);
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {
            ran = true;
        }
        ran
    }
}
