//! The body of a reply, and how much of it a client has still to take.
//!
//! In HTTP/2 a client says for each stream how much it takes. What it does not take lies here, not in
//! the transport, and so it must be seen here that nothing moves.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use ::http::{HeaderValue, Method, StatusCode, Version, header};
use bytes::Bytes;
use coco_adapter::Response;
use hyper::body::{Body, Frame, SizeHint};

/// What a stream of HTTP/2 hands over at a time: less than the slowest client takes in time.
const PIECE_BYTES: usize = 8 * 1024;

/// Bytes of a session's replies.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    /// That the client has not taken yet.
    waiting: AtomicU64,
    /// That it has, so far.
    taken: AtomicU64,
}

impl Untaken {
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// The rest of a body.
pub(super) struct ReplyBody {
    rest: Bytes,
    piece_bytes: usize,
    untaken: Arc<Untaken>,
}

impl ReplyBody {
    /// That of a reply over this version of HTTP.
    pub(super) fn new(body: Bytes, version: Version, untaken: &Arc<Untaken>) -> Self {
        untaken.waiting.fetch_add(body.len() as u64, Ordering::Relaxed);
        let piece_bytes = if version == Version::HTTP_2 { PIECE_BYTES } else { usize::MAX };
        Self { rest: body, piece_bytes, untaken: Arc::clone(untaken) }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.rest.len().min(self.piece_bytes);
        let piece = self.rest.split_to(len);
        self.untaken.waiting.fetch_sub(len as u64, Ordering::Relaxed);
        self.untaken.taken.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.untaken.waiting.fetch_sub(self.rest.len() as u64, Ordering::Relaxed);
    }
}

/// Takes the body from a reply that has none in HTTP (RFC 9110 section 6.4.1): hyper does so in
/// HTTP/1.1 only.
pub(super) fn without_forbidden_body(method: &Method, mut response: Response) -> Response {
    let of_status = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if *method != Method::HEAD && !of_status {
        return response;
    }
    let body = std::mem::take(response.body_mut());
    let headers = response.headers_mut();
    if of_status {
        headers.remove(header::CONTENT_LENGTH);
    } else if !body.is_empty() {
        headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(body.len()));
    }
    response
}
