//! The bytes of a session: few, large reads and writes around TLS.
//!
//! ```text
//!   hyper ── poll_read ──◀ TLS ◀── ReadAhead ◀── stream     one read of up to 32 KiB
//!         ── poll_write ─▶ outgoing ─▶ TLS ─▶ stream         one write per turn of the session
//! ```
//!
//! What hyper writes and "flushes" is only collected. The session sends it when hyper has nothing
//! left to do, so that the replies to all requests of one read leave in one TLS write.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper::rt::ReadBufCursor;
use parking_lot::Mutex;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::host::Stream;

/// A read starts with this much room and gets more while peers fill it.
const SMALL_READ_BYTES: usize = 4 * 1024;
const LARGE_READ_BYTES: usize = 32 * 1024;
/// Above this many unsent bytes hyper has to wait.
const OUTGOING_LIMIT_BYTES: usize = 256 * 1024;
/// A reply buffer that grew beyond this is given back once it is sent.
const OUTGOING_KEPT_BYTES: usize = 64 * 1024;

/// What starts every HTTP/2 connection (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So much of it cannot be the start of an HTTP/1.1 request: no method is called `PRI`.
const HTTP2_SURE_BYTES: usize = 3;

/// A stream that is read in large steps.
pub(super) struct ReadAhead {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// Reads again into the buffer, which has been consumed.
    fn poll_refill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wanted = match self.buffer.len() {
            0 => SMALL_READ_BYTES,
            len if self.end == len => (len * 2).min(LARGE_READ_BYTES),
            len => len,
        };
        self.buffer.resize(wanted, 0);
        let mut room = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        (self.start, self.end) = (0, room.filled().len());
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for ReadAhead {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.start == this.end {
            ready!(this.poll_refill(cx))?;
        }
        Poll::Ready(Ok(this.buffer.get(this.start..this.end).unwrap_or_default()))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.start = (self.start + amount).min(self.end);
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unread = ready!(self.as_mut().poll_fill_buf(cx))?;
        let taken = unread.get(..unread.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(taken);
        let taken = taken.len();
        self.consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream with or without TLS.
pub(super) enum Channel {
    Plain(ReadAhead),
    Tls(Box<TlsStream<ReadAhead>>),
}

impl Channel {
    fn poll_fill_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_fill_buf(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_fill_buf(cx),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::Plain(stream) => Pin::new(stream).consume(amount),
            Self::Tls(stream) => Pin::new(stream.as_mut()).consume(amount),
        }
    }

    fn writer(&mut self) -> Pin<&mut dyn Stream> {
        Pin::new(match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.as_mut(),
        })
    }

    /// The client's certificate, DER.
    pub(super) fn peer_certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates()?.first().map(|der| &**der),
        }
    }

    /// Whether the client speaks HTTP/2: it said so in the handshake, or its first bytes do.
    pub(super) fn poll_is_http2(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Self::Tls(stream) = self
            && let Some(protocol) = stream.get_ref().1.alpn_protocol()
        {
            return Poll::Ready(Ok(protocol == b"h2"));
        }
        let seen = ready!(self.poll_fill_buf(cx))?;
        let compared = seen.len().min(HTTP2_PREFACE.len());
        let alike = seen.get(..compared) == HTTP2_PREFACE.get(..compared);
        Poll::Ready(Ok(alike && compared >= HTTP2_SURE_BYTES))
    }
}

/// A session's channel with what is still to be sent. Shared by hyper and the session, which are
/// polled one after the other by the same task: the lock is never contended.
#[derive(Clone)]
pub(super) struct Transport(Arc<Mutex<Inner>>);

struct Inner {
    channel: Channel,
    outgoing: BytesMut,
    /// Where in `outgoing` hyper's last write starts.
    last_write: usize,
    /// Bytes handed to the channel that it may still hold back.
    unflushed: bool,
    received_bytes: u64,
    sent_bytes: u64,
}

impl Transport {
    pub(super) fn new(channel: Channel) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            channel,
            outgoing: BytesMut::new(),
            last_write: 0,
            unflushed: false,
            received_bytes: 0,
            sent_bytes: 0,
        })))
    }

    /// Sends what has been collected.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_send(cx)
    }

    /// Sends what has been collected, then says goodbye.
    pub(super) fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_send(cx))?;
        inner.channel.writer().poll_shutdown(cx)
    }

    /// Appends bytes that hyper knows nothing of.
    pub(super) fn append(&self, bytes: &[u8]) {
        self.0.lock().outgoing.extend_from_slice(bytes);
    }

    /// Takes back hyper's last write if none of it has been sent.
    pub(super) fn take_last_write(&self) -> Option<BytesMut> {
        let mut inner = self.0.lock();
        let at = inner.last_write;
        (at < inner.outgoing.len()).then(|| inner.outgoing.split_off(at))
    }

    /// Bytes received and sent so far.
    pub(super) fn progress(&self) -> Progress {
        let inner = self.0.lock();
        Progress {
            received_bytes: inner.received_bytes,
            sent_bytes: inner.sent_bytes,
            unsent: !inner.outgoing.is_empty() || inner.unflushed,
        }
    }
}

/// How far a session's traffic got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) unsent: bool,
}

impl Inner {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let sent = ready!(self.channel.writer().poll_write(cx, &self.outgoing))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(sent);
            // Once part of a write is gone, it cannot be taken back.
            self.last_write = match self.last_write.checked_sub(sent) {
                Some(at) => at,
                None => usize::MAX,
            };
            self.sent_bytes += sent as u64;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(self.channel.writer().poll_flush(cx))?;
            self.unflushed = false;
            self.reset();
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room for the next turn: `advance` only moves the start of the buffer.
    fn reset(&mut self) {
        if self.outgoing.capacity() > OUTGOING_KEPT_BYTES {
            self.outgoing = BytesMut::new();
        }
        self.last_write = usize::MAX;
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.len() < OUTGOING_LIMIT_BYTES {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(cx)
    }
}

impl hyper::rt::Read for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        let unread = ready!(inner.channel.poll_fill_buf(cx))?;
        let taken = unread.get(..unread.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(taken);
        let taken = taken.len();
        inner.channel.consume(taken);
        inner.received_bytes += taken as u64;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_room(cx))?;
        inner.last_write = inner.outgoing.len();
        inner.outgoing.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_room(cx))?;
        inner.last_write = inner.outgoing.len();
        bufs.iter().for_each(|buf| inner.outgoing.extend_from_slice(buf));
        Poll::Ready(Ok(inner.outgoing.len() - inner.last_write))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The session sends when hyper has come to rest.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The session closes, after it has sent everything.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
