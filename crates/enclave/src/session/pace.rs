//! Clients that are too slow.
//!
//! A session has one timer, armed rarely: when it fires, the session looks at how far its traffic
//! got since the last look. A request costs no timer.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::transport::Progress;
use crate::host::{BoxFuture, Host};
use crate::interface::Timeouts;

/// Below this rate a body or a reply counts as stalled.
const MIN_BYTES_PER_SECOND: u64 = 512;
/// A timer is never armed for less.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// What is wrong with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooSlow {
    /// No request for too long.
    Idle,
    /// Part of a request head, and then not enough more.
    Head,
    /// The client does not take its replies.
    Reply,
}

/// A session's timer with what it saw last.
pub(super) struct Pace {
    timeouts: Timeouts,
    watches_heads: bool,
    timer: BoxFuture<'static, ()>,
    state: State,
    since: Duration,
    seen: Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Head,
    Busy,
    Sending,
}

impl Pace {
    /// Starts watching. Only HTTP/1.1 tells a head in progress from other traffic.
    pub(super) fn new(
        host: &dyn Host,
        timeouts: Timeouts,
        watches_heads: bool,
        seen: Look,
    ) -> Self {
        let mut pace = Self {
            timeouts,
            watches_heads,
            timer: Box::pin(std::future::ready(())),
            state: State::Idle,
            since: host.uptime(),
            seen,
        };
        pace.timer = host.sleep(pace.step());
        pace
    }

    /// Looks at the session if it is time to.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        host: &dyn Host,
        now: impl Fn() -> Look,
    ) -> Poll<TooSlow> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let uptime = host.uptime();
            if let Some(verdict) = self.look(uptime, now()) {
                return Poll::Ready(verdict);
            }
            let elapsed = uptime.saturating_sub(self.since);
            let left = self.allowance().map(|allowed| allowed.saturating_sub(elapsed));
            let step = left.map_or(self.step(), |left| left.min(self.step()));
            self.timer = host.sleep(step.max(SHORTEST_LOOK));
        }
        Poll::Pending
    }

    fn look(&mut self, uptime: Duration, now: Look) -> Option<TooSlow> {
        let state = match now {
            Look { reply_bytes_waiting: 1.., .. } => State::Sending,
            Look { progress, .. } if progress.unsent => State::Sending,
            Look { requests_in_flight: 1.., .. } => State::Busy,
            Look { partial_head: true, .. } if self.watches_heads => State::Head,
            _ => State::Idle,
        };
        let elapsed = uptime.saturating_sub(self.since);
        if state != self.state || self.moved(state, now, elapsed) {
            (self.state, self.since, self.seen) = (state, uptime, now);
            return None;
        }
        let verdict = match state {
            State::Idle => TooSlow::Idle,
            State::Head => TooSlow::Head,
            State::Sending => TooSlow::Reply,
            State::Busy => return None,
        };
        (elapsed >= self.allowance()?).then_some(verdict)
    }

    /// Whether there was enough traffic to start counting anew.
    fn moved(&self, state: State, now: Look, elapsed: Duration) -> bool {
        let received = now.progress.received_bytes - self.seen.progress.received_bytes;
        let sent = now.progress.sent_bytes - self.seen.progress.sent_bytes;
        let taken = now.reply_bytes_taken - self.seen.reply_bytes_taken;
        match state {
            State::Idle => received + sent > 0,
            // A head has a time limit as a whole, however it trickles in.
            State::Head => sent > 0,
            // Whatever else is sent, a client that takes no reply is not served.
            State::Sending if now.reply_bytes_waiting > 0 => enough(taken, elapsed),
            State::Sending => enough(sent, elapsed),
            State::Busy => false,
        }
    }

    fn allowance(&self) -> Option<Duration> {
        match self.state {
            State::Idle => self.timeouts.idle,
            State::Head => Some(self.timeouts.request_head),
            State::Sending => Some(self.timeouts.stall),
            State::Busy => None,
        }
    }

    fn step(&self) -> Duration {
        let longest = self.timeouts.idle.unwrap_or(Duration::MAX);
        self.timeouts.stall.min(self.timeouts.request_head).min(longest).max(SHORTEST_LOOK) / 2
    }
}

/// What a look at a session shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) progress: Progress,
    pub(super) requests_in_flight: usize,
    /// Of replies, that the client has not taken yet, and that it has, so far.
    pub(super) reply_bytes_waiting: u64,
    pub(super) reply_bytes_taken: u64,
    /// Bytes have come in since the last request was taken up.
    pub(super) partial_head: bool,
}

/// Whether a transfer keeps up.
pub(super) fn enough(bytes: u64, elapsed: Duration) -> bool {
    bytes > 0 && bytes >= elapsed.as_secs().saturating_mul(MIN_BYTES_PER_SECOND)
}

/// The future's value, unless `limit` passes first.
pub(crate) async fn within<T>(
    host: &dyn Host,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = host.sleep(limit);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
    })
    .await
}
