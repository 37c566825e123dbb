//! A session that has become a WebSocket (RFC 6455).
//!
//! Messages are taken up in their order and answered when their answers are there. While the
//! client does not take what was sent, nothing is read from it and no news is asked for, so that
//! what waits for it is bounded by what was in progress; a client that takes nothing for the
//! interface's `stall` is dropped. Pings find the clients that are gone.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, SinkExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::http::Exchange;
use super::pace::{Pace, within};
use super::{Messages, Upgrade};
use crate::host::BoxFuture;
use crate::interface::Timeouts;

/// Messages of one client that are being answered at a time.
const MAX_ANSWERING: usize = 16;
/// What is read ahead of a message's end.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Pings without a sign of life after which a client counts as gone.
const MAX_SILENT_PINGS: u32 = 2;

/// Why a conversation ends.
enum End {
    /// The connection is lost, or the client is too slow to be told anything.
    Lost,
    /// The client has said goodbye.
    Goodbye,
    /// This side does, with a reason.
    Said(CloseCode, Cow<'static, str>),
}

struct Conversation<'a> {
    exchange: &'a Exchange,
    socket: WebSocketStream<TokioIo<Upgraded>>,
    messages: Arc<dyn Messages>,
    answering: FuturesUnordered<BoxFuture<'static, Option<Bytes>>>,
    news: Option<BoxFuture<'static, Option<Vec<Bytes>>>>,
    pace: Pace,
    ping_interval: Duration,
    ping: BoxFuture<'static, ()>,
    silent_pings: u32,
    received_bytes: u64,
}

/// Passes messages to and fro until one side ends it.
pub(super) async fn converse(exchange: &Exchange, upgrade: Upgrade) {
    let Upgrade { connection, messages } = upgrade;
    let Ok(connection) = connection.await else { return };
    let interface = &exchange.session.interface;
    let max_bytes = Some(interface.limits.max_body_bytes);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_frame_size(max_bytes)
        .max_message_size(max_bytes);
    let io = TokioIo::new(connection);
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let host = exchange.host.as_ref();
    // Pings take the place of the limit on idle sessions.
    let timeouts = Timeouts { idle: None, ..interface.timeouts };
    let look = exchange.look();
    let protocol = interface.protocol.as_ref();
    let ping_interval = protocol.map_or(timeouts.stall, |protocol| protocol.ping_interval);
    let mut conversation = Conversation {
        exchange,
        socket,
        messages,
        answering: FuturesUnordered::new(),
        news: None,
        pace: Pace::new(host, timeouts, false, look),
        ping_interval,
        ping: host.sleep(ping_interval),
        silent_pings: 0,
        received_bytes: look.progress.received_bytes,
    };
    let end = std::future::poll_fn(|cx| conversation.poll(cx)).await;
    let answering = conversation.answering.len();
    exchange.session.requests_in_flight.fetch_sub(answering, Ordering::Relaxed);
    conversation.finish(end).await;
}

impl Conversation<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Exchange { host, session, transport, .. } = self.exchange;
        session.waker.register(cx.waker());
        if session.is_closing() {
            return Poll::Ready(End::Said(CloseCode::Away, "the node stops".into()));
        }
        loop {
            let held_up = transport.progress().unsent;
            let turn = if held_up { Ok(false) } else { self.take_turn(cx) };
            let went_on = match turn.and_then(|went_on| self.poll_ping(cx).map(|()| went_on)) {
                Ok(went_on) => went_on,
                Err(end) => return Poll::Ready(end),
            };
            // From the socket's buffer into the transport's, and out.
            if let Poll::Ready(Err(_)) = self.socket.poll_flush_unpin(cx) {
                return Poll::Ready(End::Lost);
            }
            if let Poll::Ready(Err(_)) = transport.poll_send(cx) {
                return Poll::Ready(End::Lost);
            }
            // Nothing wakes a turn that was put off until this was sent.
            let freed = held_up && !transport.progress().unsent;
            if !went_on && !freed {
                break;
            }
        }
        self.pace.poll(cx, host.as_ref(), || self.exchange.look()).map(|_| End::Lost)
    }

    /// Reads, answers and passes on news once each; whether there was any of it.
    fn take_turn(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut went_on = self.read(cx)?;
        while let Poll::Ready(Some(answer)) = self.answering.poll_next_unpin(cx) {
            self.exchange.session.requests_in_flight.fetch_sub(1, Ordering::Relaxed);
            if let Some(answer) = answer {
                self.send(answer)?;
            }
            went_on = true;
        }
        let messages = &self.messages;
        let news = self.news.get_or_insert_with(|| messages.next());
        if let Poll::Ready(news) = news.poll_unpin(cx) {
            self.news = None;
            let Some(news) = news else {
                let reason = "the client is too slow, or there is nothing more to come";
                return Err(End::Said(CloseCode::Again, reason.into()));
            };
            for message in news {
                self.send(message)?;
            }
            went_on = true;
        }
        Ok(went_on)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut went_on = false;
        while self.answering.len() < MAX_ANSWERING {
            let Poll::Ready(read) = self.socket.poll_next_unpin(cx) else { break };
            went_on = true;
            match read {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    let session = &self.exchange.session;
                    session.requests_in_flight.fetch_add(1, Ordering::Relaxed);
                    self.answering.push(self.messages.receive(session, message.into_data()));
                }
                Some(Ok(Message::Close(_))) | None => return Err(End::Goodbye),
                // A ping is answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(self.refuse(&error)),
            }
        }
        Ok(went_on)
    }

    fn refuse(&self, error: &Error) -> End {
        let errors = &self.exchange.metrics.errors;
        match error {
            Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
                errors.payload_too_large();
                let reason = format!("a message is larger than {max_size} bytes");
                End::Said(CloseCode::Size, reason.into())
            }
            Error::Capacity(_) => {
                errors.payload_too_large();
                End::Said(CloseCode::Size, "a message is too large".into())
            }
            Error::Utf8(_) => {
                errors.parsing();
                End::Said(CloseCode::Invalid, "a text message is not UTF-8".into())
            }
            Error::Protocol(error) => {
                errors.parsing();
                End::Said(CloseCode::Protocol, error.to_string().into())
            }
            _ => End::Lost,
        }
    }

    fn send(&mut self, message: Bytes) -> Result<(), End> {
        let message = match Utf8Bytes::try_from(message.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(message),
        };
        self.socket.start_send_unpin(message).map_err(|_| End::Lost)
    }

    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while self.ping.poll_unpin(cx).is_ready() {
            let received_bytes = self.exchange.transport.progress().received_bytes;
            let silent = received_bytes == self.received_bytes;
            self.received_bytes = received_bytes;
            self.silent_pings = if silent { self.silent_pings + 1 } else { 0 };
            if self.silent_pings > MAX_SILENT_PINGS {
                return Err(End::Lost);
            }
            let ping = Message::Ping(Bytes::new());
            self.socket.start_send_unpin(ping).map_err(|_| End::Lost)?;
            self.ping = self.exchange.host.sleep(self.ping_interval);
        }
        Ok(())
    }

    /// Says goodbye and closes.
    async fn finish(mut self, end: End) {
        match end {
            End::Lost => return,
            End::Goodbye => {}
            End::Said(code, reason) => {
                // A close frame has room for 123 bytes of reason.
                let reason = reason.chars().take(100).collect::<String>().into();
                let goodbye = Message::Close(Some(CloseFrame { code, reason }));
                if self.socket.start_send_unpin(goodbye).is_err() {
                    return;
                }
            }
        }
        let Exchange { host, session, transport, .. } = self.exchange;
        let socket = &mut self.socket;
        let close = std::future::poll_fn(|cx| {
            // Done or failed: what it could, it has put into the transport.
            if socket.poll_flush_unpin(cx).is_pending() && transport.poll_send(cx).is_pending() {
                return Poll::Pending;
            }
            transport.poll_close(cx)
        });
        let _ = within(host.as_ref(), session.interface.timeouts.stall, close).await;
    }
}
