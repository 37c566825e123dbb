//! Who signed transactions that come in: most of what a transaction costs before the commit point,
//! so it is found out on threads of its own.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use alloy_primitives::Bytes;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::forward::Call;
use super::{Params, RpcError};
use crate::SignedTransaction;

/// A transaction with its sender, or why it is none.
pub(super) type Recovered = Result<SignedTransaction, RpcError>;

/// What is to be recovered, in the order in which it came, and the threads that do so. They take
/// from the queue themselves, so that they go on while the node's own threads are busy.
pub(super) struct Recoveries {
    queue: Mutex<Queue>,
    max_threads: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Recovery>,
    threads: usize,
}

/// Transactions as they were sent, recovered by one thread in a row.
struct Recovery {
    raw: Vec<String>,
    done: oneshot::Sender<Vec<Recovered>>,
}

impl Recoveries {
    pub fn new(max_threads: usize) -> Self {
        Self { queue: Mutex::default(), max_threads: max_threads.max(1) }
    }

    fn begin(
        self: &Arc<Self>,
        raw: Vec<String>,
        runtime: &Handle,
    ) -> oneshot::Receiver<Vec<Recovered>> {
        let (done, recovered) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.waiting.push_back(Recovery { raw, done });
        if queue.threads < self.max_threads {
            queue.threads += 1;
            let recoveries = Arc::clone(self);
            runtime.spawn_blocking(move || recoveries.work());
        }
        recovered
    }

    /// One thread's work: until nothing waits.
    fn work(&self) {
        while let Some(Recovery { raw, done }) = self.next() {
            // The client may have gone.
            if done.is_closed() {
                continue;
            }
            // Should a library panic, the request that waits meets that itself.
            let recovered = catch_unwind(AssertUnwindSafe(|| raw.iter().map(recover).collect()));
            if let Ok(recovered) = recovered {
                let _ = done.send(recovered);
            }
        }
    }

    fn next(&self) -> Option<Recovery> {
        let mut queue = self.queue.lock();
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.threads -= 1;
        }
        next
    }
}

fn recover(text: &String) -> Recovered {
    let raw = Params::new(Some(json!([text])))?.required::<Bytes>(0)?;
    Ok(SignedTransaction::from_wire(&raw)?)
}

/// The senders of several transactions, recovered while those before are executed.
#[derive(Default)]
pub(super) struct Ahead {
    // Which requests are in the chunks.
    requests: VecDeque<usize>,
    chunks: VecDeque<oneshot::Receiver<Vec<Recovered>>>,
    done: VecDeque<Recovered>,
}

impl Ahead {
    /// Transactions that one thread recovers in a row.
    const CHUNK: usize = 8;

    pub fn of<'a>(
        requests: impl Iterator<Item = Option<&'a Call>>,
        recoveries: &Arc<Recoveries>,
    ) -> Self {
        let mut ahead = Self::default();
        let Ok(runtime) = Handle::try_current() else { return ahead };
        let mut raw = Vec::new();
        for (index, call) in requests.enumerate() {
            let sends = call.filter(|call| call.method == "eth_sendRawTransaction");
            if let Some(Json::String(text)) = sends.and_then(|call| call.params.raw(0)) {
                ahead.requests.push_back(index);
                raw.push(text.clone());
            }
        }
        while !raw.is_empty() {
            let rest = raw.split_off(raw.len().min(Self::CHUNK));
            let chunk = std::mem::replace(&mut raw, rest);
            ahead.chunks.push_back(recoveries.begin(chunk, &runtime));
        }
        ahead
    }

    /// The transaction of a request; they are asked for in order.
    pub async fn next(&mut self, request: usize) -> Option<Recovered> {
        if self.requests.front() != Some(&request) {
            return None;
        }
        if self.done.is_empty() {
            // If the runtime stops, each is recovered when its turn comes.
            self.done = self.chunks.pop_front()?.await.unwrap_or_default().into();
            if self.done.is_empty() {
                self.requests.clear();
            }
        }
        self.requests.pop_front();
        self.done.pop_front()
    }
}
