//! Ranges of past states, fetched in the background while their user polls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coco_adapter::HistoricalState;
use coco_kv::{Seqno, TxId};
use coco_ledger::ViewHistory;
use tokio::task::AbortHandle;

use super::{FetchError, Historical};

/// The longest range that one query may ask for.
const MAX_RANGE: u64 = 10_000;
/// Queries remembered at a time; the one used least recently makes room.
const MAX_QUERIES: usize = 1_024;
/// Ranges that are put together at a time: until one is ready its size does not count.
pub(super) const MAX_RANGES_AT_ONCE: usize = 4;
/// A failed query is tried again when asked after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A range of committed positions, under a name.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub handle: u64,
    pub from: Seqno,
    pub to: Seqno,
    /// How long the answer is kept after it was last asked for.
    pub ttl_seconds: u64,
    /// The views of the positions.
    pub views: ViewHistory,
}

/// All queries with their answers.
pub(crate) struct Queries {
    running: HashMap<u64, Running>,
    limit_bytes: u64,
    /// Tells apart queries that follow each other under one handle.
    started: u64,
}

struct Running {
    number: u64,
    from: Seqno,
    to: Seqno,
    ttl: Duration,
    used_at: Duration,
    answer: Answer,
}

enum Answer {
    Fetching(AbortHandle),
    Failed { at: Duration },
    Ready { states: Arc<Vec<HistoricalState>>, bytes: u64 },
}

/// Nothing is fetched any more that nobody will ask for.
impl Drop for Running {
    fn drop(&mut self) {
        if let Answer::Fetching(task) = &self.answer {
            task.abort();
        }
    }
}

impl Queries {
    pub fn new(limit_bytes: u64) -> Self {
        Self { running: HashMap::new(), limit_bytes, started: 0 }
    }

    /// Drops what nobody has asked for in its time, and the least recently used beyond the limits.
    fn make_room(&mut self, now: Duration) {
        self.running.retain(|_, query| now.saturating_sub(query.used_at) <= query.ttl);
        while self.running.len() > MAX_QUERIES
            || (self.running.len() > 1 && self.bytes() > self.limit_bytes)
        {
            let oldest = self.running.iter().min_by_key(|(_, query)| query.used_at);
            let Some((handle, _)) = oldest else { return };
            let handle = *handle;
            self.running.remove(&handle);
        }
    }

    fn bytes(&self) -> u64 {
        let bytes = |query: &Running| match &query.answer {
            Answer::Ready { bytes, .. } => *bytes,
            _ => 0,
        };
        self.running.values().map(bytes).sum()
    }
}

impl Historical {
    /// The states of a range, or `None` while they are being fetched; fetching begins with the
    /// first call. The range must be committed. Runs on the executor.
    pub fn state_range(historical: &Arc<Self>, query: Query) -> Option<Vec<HistoricalState>> {
        let Query { handle, from, to, ttl_seconds, views } = query;
        if from.0 == 0 || to < from || to.0 - from.0 >= MAX_RANGE {
            return None;
        }
        let now = historical.host.uptime();
        let mut queries = historical.queries.lock();
        queries.make_room(now);
        let ttl = Duration::from_secs(ttl_seconds);
        if let Some(running) = queries.running.get_mut(&handle) {
            let same = (running.from, running.to) == (from, to);
            running.ttl = ttl;
            running.used_at = now;
            match &running.answer {
                Answer::Fetching(_) if same => return None,
                Answer::Failed { at } if same && now.saturating_sub(*at) < RETRY_AFTER => {
                    return None;
                }
                Answer::Ready { states, .. } if same => return Some(states.to_vec()),
                _ => {}
            }
        }
        queries.started += 1;
        let number = queries.started;
        let fetching = Arc::clone(historical);
        // The task's end takes the lock that is held here: it comes after the insertion.
        let task = tokio::spawn(async move {
            let answer = fetching.answer(from, to, &views).await;
            fetching.end(handle, number, answer);
        });
        let answer = Answer::Fetching(task.abort_handle());
        let running = Running { number, from, to, ttl, used_at: now, answer };
        queries.running.insert(handle, running);
        queries.make_room(now);
        None
    }

    fn end(&self, handle: u64, number: u64, answer: Answer) {
        let mut queries = self.queries.lock();
        if let Some(running) = queries.running.get_mut(&handle)
            && running.number == number
        {
            running.answer = answer;
        }
        queries.make_room(self.host.uptime());
    }

    /// Forgets a query; whether there was one.
    pub fn drop_cached_states(&self, handle: u64) -> bool {
        self.queries.lock().running.remove(&handle).is_some()
    }

    async fn answer(&self, from: Seqno, to: Seqno, views: &ViewHistory) -> Answer {
        match self.states(from, to, views).await {
            Ok((states, bytes)) => Answer::Ready { states: Arc::new(states), bytes },
            Err(error) => {
                tracing::warn!(%from, %to, %error, "past states could not be fetched");
                Answer::Failed { at: self.host.uptime() }
            }
        }
    }

    async fn states(
        &self,
        from: Seqno,
        to: Seqno,
        views: &ViewHistory,
    ) -> Result<(Vec<HistoricalState>, u64), FetchError> {
        // It is never closed.
        let _turn = self.ranges.acquire().await;
        let limit_bytes = self.queries.lock().limit_bytes;
        let (mut states, mut bytes) = (Vec::new(), 0);
        for seqno in (from.0..=to.0).map(Seqno) {
            let view = views.view_of(seqno).ok_or(FetchError::NoView(seqno))?;
            let proven = self.fetch(TxId { view, seqno }).await?;
            bytes += proven.len_bytes();
            // A single transaction is answered however large it is.
            if bytes > limit_bytes && from < to {
                return Err(FetchError::TooMuch { limit_bytes });
            }
            states.push(proven.state(seqno, &self.keys)?);
        }
        Ok((states, bytes))
    }
}
