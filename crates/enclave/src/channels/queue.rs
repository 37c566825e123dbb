//! Messages that wait to be sent, bounded in number and bytes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

/// Where messages are put in.
#[derive(Clone)]
pub(super) struct Queue {
    sender: mpsc::Sender<Bytes>,
    /// In bytes.
    room: Arc<Semaphore>,
}

/// Where they are taken out.
pub(super) struct Queued {
    receiver: mpsc::Receiver<Bytes>,
    room: Arc<Semaphore>,
}

impl Queue {
    pub fn new(max_messages: usize, max_bytes: usize) -> (Self, Queued) {
        let (sender, receiver) = mpsc::channel(max_messages);
        let room = Arc::new(Semaphore::new(max_bytes));
        (Self { sender, room: Arc::clone(&room) }, Queued { receiver, room })
    }

    /// Whether there was room.
    pub fn push(&self, message: Bytes) -> bool {
        let Ok(permit) = self.room.try_acquire_many(length(&message)) else { return false };
        let has_place = self.sender.try_send(message).is_ok();
        if has_place {
            // Given back when the message is taken out.
            permit.forget();
        }
        has_place
    }

    /// Waits until there is room. What is larger than the whole queue waits for ever.
    pub async fn push_in_turn(&self, message: Bytes) {
        let Ok(permit) = self.room.acquire_many(length(&message)).await else { return };
        if self.sender.send(message).await.is_ok() {
            permit.forget();
        }
    }
}

impl Queued {
    /// The next message; `None` once nothing can come any more.
    pub async fn next(&mut self) -> Option<Bytes> {
        let next = self.receiver.recv().await?;
        Some(self.taken(next))
    }

    /// The next one, if it is there.
    pub fn next_now(&mut self) -> Option<Bytes> {
        let next = self.receiver.try_recv().ok()?;
        Some(self.taken(next))
    }

    fn taken(&self, message: Bytes) -> Bytes {
        self.room.add_permits(message.len());
        message
    }
}

/// Messages are far shorter than the largest number of permits.
fn length(message: &Bytes) -> u32 {
    u32::try_from(message.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_or_waits_its_turn() {
        let (queue, mut queued) = Queue::new(3, 10);
        assert!(queue.push("12345".into()) && queue.push("678".into()));
        assert!(!queue.push("abc".into()), "too many bytes");
        let mut waiting = Box::pin(queue.push_in_turn("abc".into()));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(queued.next_now().unwrap(), "12345");
        assert!(waiting.as_mut().now_or_never().is_some());
        assert!(queue.push("d".into()));
        assert!(!queue.push("e".into()), "too many messages");
        let mut waiting = Box::pin(queue.push_in_turn("e".into()));
        assert!(waiting.as_mut().now_or_never().is_none());
        for expected in ["678", "abc", "d"] {
            assert_eq!(queued.next().now_or_never().unwrap().unwrap(), expected);
        }
        assert!(waiting.as_mut().now_or_never().is_some());
        assert_eq!(queued.next_now().unwrap(), "e");
        assert_eq!(queue.room.available_permits(), 10);
    }

    #[test]
    fn nothing_is_put_where_nobody_takes_it_out() {
        let (queue, queued) = Queue::new(3, 10);
        drop(queued);
        assert!(!queue.push("1".into()));
        assert!(queue.push_in_turn("1".into()).now_or_never().is_some());
        assert_eq!(queue.room.available_permits(), 10);
    }
}
