//! Ranges of past states, fetched in the background while their user polls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coco_adapter::HistoricalState;
use coco_kv::Seqno;

use super::{FetchError, Historical};

/// The longest range that one query may ask for.
const MAX_RANGE: u64 = 10_000;
/// Queries remembered at a time; the one used least recently makes room.
const MAX_QUERIES: usize = 1_024;
/// A failed query is tried again when asked after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A range of committed positions, under a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub handle: u64,
    pub from: Seqno,
    pub to: Seqno,
    /// How long the answer is kept after it was last asked for.
    pub ttl_seconds: u64,
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
    Fetching,
    Failed { at: Duration },
    Ready { states: Arc<Vec<HistoricalState>>, bytes: u64 },
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
        let Query { handle, from, to, ttl_seconds } = query;
        if from.0 == 0 || to < from || to.0 - from.0 >= MAX_RANGE {
            return None;
        }
        let now = historical.host.uptime();
        let number = {
            let mut queries = historical.queries.lock();
            queries.make_room(now);
            let ttl = Duration::from_secs(ttl_seconds);
            if let Some(running) = queries.running.get_mut(&handle) {
                let same = (running.from, running.to) == (from, to);
                running.ttl = ttl;
                running.used_at = now;
                match &running.answer {
                    Answer::Fetching if same => return None,
                    Answer::Failed { at } if same && now.saturating_sub(*at) < RETRY_AFTER => {
                        return None;
                    }
                    Answer::Ready { states, .. } if same => return Some(states.to_vec()),
                    _ => {}
                }
            }
            queries.started += 1;
            let number = queries.started;
            let answer = Answer::Fetching;
            let running = Running { number, from, to, ttl, used_at: now, answer };
            queries.running.insert(handle, running);
            number
        };
        let historical = Arc::clone(historical);
        tokio::spawn(async move {
            let answer = historical.answer(from, to).await;
            let mut queries = historical.queries.lock();
            if let Some(running) = queries.running.get_mut(&handle)
                && running.number == number
            {
                running.answer = answer;
            }
            queries.make_room(historical.host.uptime());
        });
        None
    }

    /// Forgets a query; whether there was one.
    pub fn drop_cached_states(&self, handle: u64) -> bool {
        self.queries.lock().running.remove(&handle).is_some()
    }

    async fn answer(&self, from: Seqno, to: Seqno) -> Answer {
        match self.states(from, to).await {
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
    ) -> Result<(Vec<HistoricalState>, u64), FetchError> {
        let (mut states, mut bytes) = (Vec::new(), 0);
        for seqno in (from.0..=to.0).map(Seqno) {
            let proven = self.fetch(seqno).await?;
            bytes += proven.len_bytes();
            states.push(proven.state(seqno, &self.keys)?);
        }
        Ok((states, bytes))
    }
}
