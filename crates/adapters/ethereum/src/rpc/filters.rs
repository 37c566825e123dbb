//! Filters that clients poll.
//!
//! A filter moves on by what a poll has delivered: what does not fit into one reply is in the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{B256, U128};
use coco_kv::Tx;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::logs::{Limit, LogFilter, Place, no_room};
use super::{Answer, Params, Rpc, RpcError, to_json};
use crate::block_hash;

/// What is to be told at the next poll.
#[derive(Debug, Default)]
pub(super) struct Filters {
    installed: Mutex<Installed>,
}

#[derive(Debug, Default)]
struct Installed {
    by_id: BTreeMap<U128, Polled>,
    bytes: usize,
}

#[derive(Debug)]
struct Polled {
    // Polls of one filter follow each other.
    kind: Arc<Mutex<Kind>>,
    bytes: usize,
    used_ms: u64,
}

#[derive(Debug)]
enum Kind {
    /// Blocks after this one.
    Blocks(u64),
    /// Logs from this place on.
    Logs(Arc<LogFilter>, Place),
    /// Transactions after the first `seen` that were executed.
    Transactions { seen: u64, full: bool },
}

impl Kind {
    fn bytes(&self) -> usize {
        match self {
            Self::Logs(filter, _) => filter.bytes(),
            Self::Blocks(_) | Self::Transactions { .. } => size_of::<Self>(),
        }
    }
}

impl Installed {
    /// Filters at a time.
    const MAX_FILTERS: usize = 10_000;
    /// What they may take of the memory.
    const MAX_BYTES: usize = 64 * 1024 * 1024;
    /// A filter that nobody polls for so long is forgotten; geth's time.
    const IDLE_MS: u64 = 5 * 60 * 1000;

    /// Takes up a filter. If there are too many, those that were polled least recently give way.
    fn install(&mut self, id: U128, kind: Kind, now_ms: u64) {
        let idle = |filter: &Polled| now_ms.saturating_sub(filter.used_ms) >= Self::IDLE_MS;
        let gone: Vec<_> =
            self.by_id.iter().filter(|(_, filter)| idle(filter)).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| drop(self.remove(id)));
        let bytes = kind.bytes();
        while self.by_id.len() >= Self::MAX_FILTERS || self.bytes + bytes > Self::MAX_BYTES {
            let oldest = self.by_id.iter().min_by_key(|(_, filter)| filter.used_ms);
            let Some(oldest) = oldest.map(|(id, _)| *id) else { break };
            self.remove(&oldest);
        }
        self.bytes += bytes;
        let kind = Arc::new(Mutex::new(kind));
        self.by_id.insert(id, Polled { kind, bytes, used_ms: now_ms });
    }

    fn remove(&mut self, id: &U128) -> Option<Polled> {
        let removed = self.by_id.remove(id)?;
        self.bytes = self.bytes.saturating_sub(removed.bytes);
        Some(removed)
    }
}

impl Rpc {
    pub(super) fn new_filter(&self, params: &Params) -> Answer {
        let filter = LogFilter::read(params, 0)?;
        let head = self.head(&mut self.node.begin())?.number;
        self.install(Kind::Logs(Arc::new(filter), Place::before(head.saturating_add(1))))
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
        // Not to be guessed, for a filter of others could be polled empty.
        let [.., b0, b1, b2, b3, b4, b5, b6, b7] = self.node.randomness().0;
        let id = U128::from(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
        self.filters.installed.lock().install(id, kind, self.node.now_ms());
        to_json(&id)
    }

    /// What is new to a filter, as much as a list of so many bytes holds.
    pub(super) fn filter_changes(&self, params: &Params, room: usize) -> Answer {
        let kind = {
            let mut installed = self.filters.installed.lock();
            let filter = installed.by_id.get_mut(&params.required(0)?).ok_or_else(unknown)?;
            filter.used_ms = self.node.now_ms();
            Arc::clone(&filter.kind)
        };
        // No thread waits for another poll of the same filter.
        let under_way = || RpcError::limit("a poll of this filter is under way");
        let kind = &mut *kind.try_lock().ok_or_else(under_way)?;
        let tx = &mut self.node.begin();
        match kind {
            Kind::Blocks(seen) => self.block_changes(tx, seen, room),
            Kind::Logs(filter, next) => self.log_changes(tx, filter, next, room),
            Kind::Transactions { seen, full } => self.transaction_changes(seen, *full, room),
        }
    }

    fn block_changes(&self, tx: &mut Tx, seen: &mut u64, room: usize) -> Answer {
        let head = self.head(tx)?.number;
        let fit = hashes_within(room) as u64;
        if fit == 0 && head > *seen {
            return Err(no_room(room));
        }
        let last = head.min(seen.saturating_add(fit));
        let hashes = (seen.saturating_add(1)..=last).filter_map(|number| block_hash(tx, number));
        let answer = to_json(&hashes.collect::<Vec<_>>())?;
        *seen = last.max(*seen);
        Ok(answer)
    }

    fn log_changes(
        &self,
        tx: &mut Tx,
        filter: &LogFilter,
        next: &mut Place,
        room: usize,
    ) -> Answer {
        let head = self.head(tx)?.number;
        let (asked_from, asked_to) = filter.blocks();
        let from = Place::before(asked_from.unwrap_or_default()).max(*next);
        let last = head.min(asked_to.unwrap_or(u64::MAX));
        let found = self.search(tx, filter, from, last, room)?;
        if found.logs.is_empty() && matches!(found.rest, Some((_, Limit::Room))) {
            return Err(no_room(room));
        }
        let answer = to_json(&found.logs)?;
        let all_told = Place::before(head.saturating_add(1));
        *next = found.rest.map_or(all_told, |(rest, _)| rest).max(*next);
        Ok(answer)
    }

    fn transaction_changes(&self, seen: &mut u64, full: bool, room: usize) -> Answer {
        let (hashes, count) = self.news.executed_since(*seen);
        // Who polls too rarely cannot tell a part from the whole.
        let Some(hashes) = hashes else {
            *seen = count;
            let message = "more transactions since the last poll than are remembered";
            return Err(RpcError::limit(message));
        };
        if !full {
            let fit = hashes.get(..hashes_within(room)).unwrap_or(&hashes);
            *seen = seen.saturating_add(fit.len() as u64);
            return to_json(&fit);
        }
        let mut transactions = Vec::new();
        let mut room = room.saturating_sub("[]".len());
        for hash in hashes {
            if let Some(shown) = self.shown_pending(hash) {
                let bytes = shown.to_string().len() + ",".len();
                match room.checked_sub(bytes) {
                    Some(left) => room = left,
                    None if transactions.is_empty() => {
                        let message = "a transaction is larger than a reply may be";
                        return Err(RpcError::limit(message));
                    }
                    None => break,
                }
                transactions.push(shown);
            }
            *seen = seen.saturating_add(1);
        }
        Ok(Json::Array(transactions))
    }

    pub(super) fn filter_logs(&self, params: &Params, room: usize) -> Answer {
        let kind = {
            let installed = self.filters.installed.lock();
            let filter = installed.by_id.get(&params.required(0)?).ok_or_else(unknown)?;
            Arc::clone(&filter.kind)
        };
        let under_way = || RpcError::limit("a poll of this filter is under way");
        let filter = match &*kind.try_lock().ok_or_else(under_way)? {
            Kind::Logs(filter, _) => Arc::clone(filter),
            Kind::Blocks(_) | Kind::Transactions { .. } => return Err(unknown()),
        };
        self.all_logs(&filter, room)
    }

    pub(super) fn uninstall_filter(&self, params: &Params) -> Answer {
        let id: U128 = params.required(0)?;
        Ok(json!(self.filters.installed.lock().remove(&id).is_some()))
    }
}

/// Hashes that a list of so many bytes holds.
fn hashes_within(room: usize) -> usize {
    let each = r#""0x","#.len() + 2 * size_of::<B256>();
    room.saturating_sub("[]".len()) / each
}

fn unknown() -> RpcError {
    RpcError::server("filter not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(filters: impl Iterator<Item = Kind>) -> Installed {
        let mut installed = Installed::default();
        for (at, kind) in filters.enumerate() {
            installed.install(U128::from(at), kind, at as u64);
        }
        installed
    }

    #[test]
    fn whoever_polls_keeps_a_filter_however_many_others_install() {
        let mut table = installed((0..Installed::MAX_FILTERS).map(|_| Kind::Blocks(0)));
        let first = table.by_id.get_mut(&U128::ZERO).unwrap();
        first.used_ms = 20_000;
        table.install(U128::MAX, Kind::Blocks(0), 20_001);
        assert_eq!(table.by_id.len(), Installed::MAX_FILTERS);
        let has = |id: U128| table.by_id.contains_key(&id);
        assert_eq!((has(U128::ZERO), has(U128::from(1)), has(U128::MAX)), (true, false, true));
        table.install(U128::from(1), Kind::Blocks(0), 20_001 + Installed::IDLE_MS);
        assert_eq!((table.by_id.len(), table.bytes), (1, Kind::Blocks(0).bytes()));
    }

    #[test]
    fn filters_take_a_bounded_part_of_the_memory() {
        let addresses: Vec<_> = (0_u64..1000)
            .map(|at| alloy_primitives::Address::left_padding_from(&at.to_be_bytes()))
            .collect();
        let params = Params::new(Some(json!([{"address": addresses}]))).unwrap();
        let filter = Arc::new(LogFilter::read(&params, 0).unwrap());
        let fit = Installed::MAX_BYTES / filter.bytes();
        let logs = || Kind::Logs(Arc::clone(&filter), Place::before(0));
        let table = installed((0..fit + 3).map(|_| logs()));
        assert_eq!((table.by_id.len(), table.bytes), (fit, fit * filter.bytes()));
        assert_eq!(table.by_id.keys().next(), Some(&U128::from(3)));
    }
}
