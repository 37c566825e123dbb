//! Filters that clients poll.

use std::collections::BTreeMap;

use alloy_primitives::U128;
use alloy_rpc_types_eth::Filter;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::logs::read_filter;
use super::{Answer, Params, Rpc, RpcError, to_json};
use crate::block_hash;

/// What is to be told at the next poll.
#[derive(Debug, Default)]
pub(super) struct Filters {
    by_id: Mutex<BTreeMap<U128, Polled>>,
}

#[derive(Debug)]
struct Polled {
    kind: Kind,
    used_ms: u64,
}

#[derive(Debug)]
enum Kind {
    /// Blocks after this one.
    Blocks(u64),
    /// Logs in blocks after this one.
    Logs(Box<Filter>, u64),
    /// Transactions after the first `seen` that were executed.
    Transactions { seen: u64, full: bool },
}

impl Rpc {
    /// Filters at a time.
    const MAX_FILTERS: usize = 10_000;
    /// A filter that nobody polls for so long is forgotten; geth's time.
    const FILTER_IDLE_MS: u64 = 5 * 60 * 1000;

    pub(super) fn new_filter(&self, params: &Params) -> Answer {
        let filter = read_filter(params)?;
        let head = self.head(&mut self.node.begin())?.number;
        self.install(Kind::Logs(Box::new(filter), head))
    }

    pub(super) fn new_block_filter(&self) -> Answer {
        let head = self.head(&mut self.node.begin())?.number;
        self.install(Kind::Blocks(head))
    }

    pub(super) fn new_pending_filter(&self, params: &Params) -> Answer {
        let full = params.optional(0)?.unwrap_or_default();
        self.install(Kind::Transactions { seen: self.news.executed_count(), full })
    }

    fn install(&self, kind: Kind) -> Answer {
        let now_ms = self.node.now_ms();
        // Not to be guessed, for a filter of others could be polled empty.
        let [.., b0, b1, b2, b3, b4, b5, b6, b7] = self.node.randomness().0;
        let id = U128::from(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
        let mut filters = self.filters.by_id.lock();
        filters.retain(|_, filter| now_ms.saturating_sub(filter.used_ms) < Self::FILTER_IDLE_MS);
        if filters.len() >= Self::MAX_FILTERS {
            return Err(RpcError::limit("too many filters"));
        }
        filters.insert(id, Polled { kind, used_ms: now_ms });
        to_json(&id)
    }

    pub(super) fn filter_changes(&self, params: &Params) -> Answer {
        let id: U128 = params.required(0)?;
        let tx = &mut self.node.begin();
        let head = self.head(tx)?.number;
        let mut filters = self.filters.by_id.lock();
        let filter = filters.get_mut(&id).ok_or_else(unknown)?;
        filter.used_ms = self.node.now_ms();
        match &mut filter.kind {
            Kind::Blocks(seen) => {
                let first = seen.saturating_add(1);
                *seen = head.max(*seen);
                drop(filters);
                let hashes = (first..=head).filter_map(|number| block_hash(tx, number));
                to_json(&hashes.collect::<Vec<_>>())
            }
            Kind::Logs(filter, seen) => {
                let (asked_from, asked_to) = filter.extract_block_range();
                let first = seen.saturating_add(1).max(asked_from.unwrap_or_default());
                let last = head.min(asked_to.unwrap_or(u64::MAX));
                *seen = head.max(*seen);
                let filter = filter.clone();
                drop(filters);
                if first > last {
                    return Ok(json!([]));
                }
                to_json(&self.logs_between(tx, &filter, first, last)?)
            }
            Kind::Transactions { seen, full } => {
                let (hashes, count) = self.news.executed_since(*seen);
                *seen = count;
                let full = *full;
                drop(filters);
                // Who polls too rarely cannot tell a part from the whole.
                let hashes = hashes.ok_or_else(|| {
                    RpcError::limit("more transactions since the last poll than are remembered")
                })?;
                if !full {
                    return to_json(&hashes);
                }
                let shown = hashes.into_iter().filter_map(|hash| self.shown_pending(hash));
                Ok(Json::Array(shown.collect()))
            }
        }
    }

    pub(super) fn filter_logs(&self, params: &Params) -> Answer {
        let id: U128 = params.required(0)?;
        let filter = match self.filters.by_id.lock().get(&id) {
            Some(Polled { kind: Kind::Logs(filter, _), .. }) => filter.clone(),
            _ => return Err(unknown()),
        };
        to_json(&self.matching_logs(&mut self.node.begin(), &filter)?)
    }

    pub(super) fn uninstall_filter(&self, params: &Params) -> Answer {
        let id: U128 = params.required(0)?;
        Ok(Json::Bool(self.filters.by_id.lock().remove(&id).is_some()))
    }
}

fn unknown() -> RpcError {
    RpcError::server("filter not found")
}
