//! Logs by address and topic, through the index of blocks.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{Address, B256, Bloom};
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use coco_kv::Tx;

use super::blocks::rpc_log;
use super::{Answer, Params, Rpc, RpcError, to_json};
use crate::maps::LOGS;
use crate::{
    BlockRecord, IncludedTransaction, StateError, block_hash, block_number, log_key, transaction,
};

/// Which logs are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct LogFilter {
    filter: Filter,
    /// Topics that a log has at least: places that any topic may fill count, too.
    min_topics: usize,
}

impl LogFilter {
    /// Addresses, and topics at one place, in one filter.
    const MAX_ALTERNATIVES: usize = 1000;

    /// A filter within its limits.
    pub fn read(params: &Params, index: usize) -> Result<Self, RpcError> {
        let object = params.raw(index).and_then(|raw| raw.as_object());
        let given = |name: &str| object?.get(name).filter(|value| !value.is_null());
        if given("blockHash").is_some()
            && (given("fromBlock").is_some() || given("toBlock").is_some())
        {
            return Err(RpcError::invalid_params(format!(
                "invalid argument {index}: cannot specify both BlockHash and FromBlock/ToBlock, \
                 choose one or the other"
            )));
        }
        let min_topics = given("topics").and_then(|topics| topics.as_array()).map_or(0, Vec::len);
        let filter: Filter = params.required(index)?;
        let most = filter.topics.iter().map(|topic| topic.len()).max().unwrap_or_default();
        if filter.address.len().max(most) > Self::MAX_ALTERNATIVES {
            let message = "exceed max addresses or topics per search position";
            return Err(RpcError::invalid_params(message));
        }
        Ok(Self { filter, min_topics })
    }

    /// The numbers of the first and the last block, where it says any.
    pub fn blocks(&self) -> (Option<u64>, Option<u64>) {
        self.filter.extract_block_range()
    }

    /// Whether it selects a log, by what that is and not by its block.
    pub fn matches(&self, log: &alloy_primitives::Log) -> bool {
        log.topics().len() >= self.min_topics && self.filter.matches(log)
    }

    /// Whether a block with this bloom may have such a log.
    pub fn may_match(&self, bloom: Bloom) -> bool {
        self.filter.matches_bloom(bloom)
    }

    fn is_indexed(&self) -> bool {
        !self.filter.address.is_empty() || self.filter.has_topics()
    }

    /// About how much memory it takes: its sets have room for twice their values.
    pub fn bytes(&self) -> usize {
        let topics: usize = self.filter.topics.iter().map(|topic| topic.len()).sum();
        let values = self.filter.address.len() * size_of::<Address>() + topics * size_of::<B256>();
        size_of::<Self>() + 2 * values
    }
}

/// The place of a log: its block, the transaction in it, the log of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub block: u64,
    transaction: usize,
    log: usize,
}

impl Place {
    /// Before the first log of a block.
    pub fn before(block: u64) -> Self {
        Self { block, transaction: 0, log: 0 }
    }
}

/// A log that a walk comes to.
pub(super) struct Met<'a> {
    pub place: Place,
    pub log: &'a alloy_primitives::Log,
    /// In the block.
    index: u64,
    block_hash: B256,
    block: &'a BlockRecord,
    included: &'a IncludedTransaction,
}

impl Met<'_> {
    /// As replies show it.
    pub fn show(&self) -> Log {
        rpc_log(self.log.clone(), self.block_hash, self.block, self.included, self.index)
    }
}

/// What a search has found.
pub(super) struct Found {
    pub logs: Vec<Log>,
    /// Where it is to go on, if it ended early, and why it did.
    pub rest: Option<(Place, Limit)>,
}

/// Why a search ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// The next log does not fit into the reply.
    Room,
    /// It has read so many blocks.
    Blocks,
}

impl Rpc {
    /// Blocks that are looked through one by one, for a filter without address and topic.
    const MAX_UNINDEXED: u64 = 10_000;
    /// Blocks whose logs one request reads; where filters are narrow, most blocks are not read.
    const MAX_BLOCKS_READ: usize = 20_000;
    /// Blocks whose index is looked at in one go.
    const WINDOW: u64 = 4096;

    pub(super) fn logs(&self, params: &Params, room: usize) -> Answer {
        self.all_logs(&LogFilter::read(params, 0)?, room)
    }

    /// The logs that a filter selects, in order, if they have room.
    pub(super) fn all_logs(&self, filter: &LogFilter, room: usize) -> Answer {
        let tx = &mut self.node.begin();
        let (from, to) = self.block_range(tx, &filter.filter)?;
        if !filter.is_indexed() && to.saturating_sub(from) >= Self::MAX_UNINDEXED {
            return Err(RpcError::limit("block range too large without address or topic"));
        }
        let found = self.search(tx, filter, Place::before(from), to, room)?;
        match found.rest {
            None => to_json(&found.logs),
            Some((_, Limit::Room)) => Err(no_room(room)),
            Some((_, Limit::Blocks)) => {
                let most = Self::MAX_BLOCKS_READ;
                let message = format!("query looks at more than {most} blocks with such logs");
                Err(RpcError::limit(message))
            }
        }
    }

    fn block_range(&self, tx: &mut Tx, filter: &Filter) -> Result<(u64, u64), RpcError> {
        let head = self.head(tx)?.number;
        match filter.block_option {
            FilterBlockOption::AtBlockHash(hash) => {
                let number =
                    block_number(tx, hash).ok_or_else(|| RpcError::server("unknown block"))?;
                Ok((number, number))
            }
            FilterBlockOption::Range { from_block, to_block } => {
                let number = |tag: Option<BlockNumberOrTag>| match tag {
                    Some(BlockNumberOrTag::Number(number)) => number,
                    Some(BlockNumberOrTag::Earliest) => 0,
                    _ => head,
                };
                let (from, to) = (number(from_block), number(to_block));
                if from > to {
                    return Err(RpcError::invalid_params("invalid block range params"));
                }
                if to > head {
                    return Err(RpcError::invalid_params(
                        "block range extends beyond current head block",
                    ));
                }
                Ok((from, to))
            }
        }
    }

    /// The logs that a filter selects, from a place to the end of block `to`: as many as their list
    /// has room for in so many bytes.
    pub(super) fn search(
        &self,
        tx: &mut Tx,
        filter: &LogFilter,
        from: Place,
        to: u64,
        room: usize,
    ) -> Result<Found, RpcError> {
        let mut found = Found { logs: Vec::new(), rest: None };
        let mut room = room.saturating_sub("[]".len());
        let mut blocks = 0;
        let mut first = from.block;
        while first <= to {
            let last = first.saturating_add(Self::WINDOW - 1).min(to);
            let numbers: Box<dyn Iterator<Item = u64>> =
                match candidates(tx, &filter.filter, first, last) {
                    Some(indexed) => Box::new(indexed.into_iter()),
                    None => Box::new(first..=last),
                };
            for number in numbers {
                let start = from.max(Place::before(number));
                if blocks >= Self::MAX_BLOCKS_READ {
                    found.rest = Some((start, Limit::Blocks));
                    return Ok(found);
                }
                blocks += 1;
                let may_match = |bloom| filter.may_match(bloom);
                let walked = self.walk_logs(tx, start, may_match, |met| {
                    if !filter.matches(met.log) {
                        return ControlFlow::Continue(());
                    }
                    let shown = met.show();
                    let Some(left) = room.checked_sub(shown_bytes(&shown) + ",".len()) else {
                        return ControlFlow::Break(met.place);
                    };
                    room = left;
                    found.logs.push(shown);
                    ControlFlow::Continue(())
                })?;
                if let ControlFlow::Break(place) = walked {
                    found.rest = Some((place, Limit::Room));
                    return Ok(found);
                }
            }
            let Some(next) = last.checked_add(1) else { break };
            first = next;
        }
        Ok(found)
    }

    /// Looks at the logs of a block one after the other, from a place on, until it is enough; at none
    /// if its bloom says that it has none of them.
    pub(super) fn walk_logs<B>(
        &self,
        tx: &mut Tx,
        from: Place,
        may_match: impl FnOnce(Bloom) -> bool,
        mut look: impl FnMut(&Met<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, RpcError> {
        let number = from.block;
        let block_hash = block_hash(tx, number).ok_or(StateError::NoBlock(number))?;
        let block = &self.sealed(tx, number)?;
        let bloom = block.header.logs_bloom;
        if bloom.is_zero() || !may_match(bloom) {
            return Ok(ControlFlow::Continue(()));
        }
        for (at, hash) in block.transactions.iter().enumerate().skip(from.transaction) {
            let included = &transaction(tx, *hash)?.ok_or(StateError::NoTransaction(*hash))?;
            let first = if at == from.transaction { from.log } else { 0 };
            for (log_at, log) in included.record.logs.iter().enumerate().skip(first) {
                let place = Place { block: number, transaction: at, log: log_at };
                let index = included.position.first_log.saturating_add(log_at as u64);
                let met = Met { place, log, index, block_hash, block, included };
                if let ControlFlow::Break(enough) = look(&met) {
                    return Ok(ControlFlow::Break(enough));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Logs do not fit into a reply.
pub(super) fn no_room(room: usize) -> RpcError {
    RpcError::limit(format!("query returned more than the {room} bytes that a reply has for logs"))
}

/// The length of a log's JSON.
fn shown_bytes(log: &Log) -> usize {
    const EMPTY: &str = r#"{"address":"","blockHash":"","blockNumber":"","blockTimestamp":"","data":"","logIndex":"","removed":false,"topics":[],"transactionHash":"","transactionIndex":""}"#;
    let hex = |bytes: usize| "0x".len() + 2 * bytes;
    let hash = hex(size_of::<B256>());
    let topics = log.topics().len();
    let numbers =
        [log.block_number, log.block_timestamp, log.transaction_index, log.log_index].map(digits);
    EMPTY.len()
        + hex(size_of::<Address>())
        + 2 * hash
        + hex(log.data().data.len())
        + topics * (hash + r#""","#.len())
        - usize::from(topics > 0)
        + numbers.iter().sum::<usize>()
}

/// The length of a number as Ethereum writes it.
fn digits(number: Option<u64>) -> usize {
    "0x".len() + number.unwrap_or_default().checked_ilog(16).unwrap_or_default() as usize + 1
}

/// The blocks between `from` and `to` that may hold a log that the filter selects; `None` if all.
fn candidates(tx: &mut Tx, filter: &Filter, from: u64, to: u64) -> Option<BTreeSet<u64>> {
    let mut sets: Vec<BTreeSet<u64>> = Vec::new();
    if !filter.address.is_empty() {
        let addresses = filter.address.iter().map(|address| (0, address.to_vec()));
        sets.push(blocks_with(tx, addresses, from, to));
    }
    for (kind, topic) in (1..).zip(&filter.topics) {
        if !topic.is_empty() {
            let topics = topic.iter().map(|topic: &B256| (kind, topic.to_vec()));
            sets.push(blocks_with(tx, topics, from, to));
        }
    }
    let first = sets.pop()?;
    Some(sets.into_iter().fold(first, |all, set| all.intersection(&set).copied().collect()))
}

fn blocks_with(
    tx: &mut Tx,
    what: impl Iterator<Item = (u8, Vec<u8>)>,
    from: u64,
    to: u64,
) -> BTreeSet<u64> {
    let mut blocks = BTreeSet::new();
    for (kind, key) in what {
        let (first, last) = (log_key(kind, &key, from), log_key(kind, &key, to));
        let bounds = (Bound::Included(first.as_slice()), Bound::Included(last.as_slice()));
        tx.range(&LOGS, bounds, |key, _| {
            blocks.extend(key.last_chunk().map(|number| u64::from_be_bytes(*number)));
            ControlFlow::Continue(())
        });
    }
    blocks
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn log(topics: usize, data: Vec<u8>) -> alloy_primitives::Log {
        let topics = (1..).map(B256::with_last_byte).take(topics).collect();
        alloy_primitives::Log::new_unchecked(Address::ZERO, topics, Bytes::from(data))
    }

    #[test]
    fn a_log_has_as_many_topics_as_are_asked_for() {
        let first = B256::with_last_byte(1);
        for (topics, matching) in [
            (json!(null), vec![0, 1, 2, 3, 4]),
            (json!([]), vec![0, 1, 2, 3, 4]),
            (json!([null]), vec![1, 2, 3, 4]),
            (json!([first]), vec![1, 2, 3, 4]),
            (json!([first, null, []]), vec![3, 4]),
            (json!([first, null, null, null]), vec![4]),
            (json!([null, first]), vec![]),
        ] {
            let params = Params::new(Some(json!([{"topics": topics}]))).unwrap();
            let filter = LogFilter::read(&params, 0).unwrap();
            let found: Vec<_> = (0..5).filter(|n| filter.matches(&log(*n, vec![]))).collect();
            assert_eq!(found, matching, "{topics}");
        }
    }

    proptest! {
        #[test]
        fn the_length_of_a_log_is_known_before_it_is_written(
            topics in 0..5_usize,
            data in prop::collection::vec(any::<u8>(), 0..80),
            numbers: [u64; 4],
            shift in 0..64,
        ) {
            let [number, timestamp, index, log_index] = numbers.map(|number| Some(number >> shift));
            let log = Log {
                inner: log(topics, data),
                block_hash: Some(B256::ZERO),
                block_number: number,
                block_timestamp: timestamp,
                transaction_hash: Some(B256::ZERO),
                transaction_index: index,
                log_index,
                removed: false,
            };
            prop_assert_eq!(shown_bytes(&log), serde_json::to_string(&log).unwrap().len());
        }
    }
}
