//! Logs by address and topic, through the index of blocks.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use alloy_eips::BlockNumberOrTag;
use alloy_primitives::B256;
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use coco_kv::Tx;

use super::blocks::rpc_log;
use super::{Answer, Params, Rpc, RpcError, to_json};
use crate::maps::LOGS;
use crate::{StateError, block_hash, block_number, log_key, transaction};

impl Rpc {
    /// Bytes of logs in one reply.
    const MAX_LOG_BYTES: usize = 32 * 1024 * 1024;
    /// Logs in one reply.
    const MAX_LOGS: usize = 100_000;
    /// Blocks that are looked through one by one, for a filter without address and topic.
    const MAX_UNINDEXED: u64 = 10_000;
    /// Blocks whose logs one request reads; where filters are narrow, most blocks are not read.
    const MAX_BLOCKS_READ: usize = 20_000;
    /// Blocks whose index is looked at in one go.
    const WINDOW: u64 = 4096;
    /// Addresses, and topics at one place, in one filter.
    const MAX_ALTERNATIVES: usize = 1000;

    pub(super) fn logs(&self, params: &Params) -> Answer {
        let filter = read_filter(params)?;
        let tx = &mut self.node.begin();
        to_json(&self.matching_logs(tx, &filter)?)
    }

    /// The logs that a filter selects, in order.
    pub(super) fn matching_logs(&self, tx: &mut Tx, filter: &Filter) -> Result<Vec<Log>, RpcError> {
        let (from, to) = self.block_range(tx, filter)?;
        self.logs_between(tx, filter, from, to)
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

    /// The logs of the blocks from `from` to `to` that a filter selects.
    pub(super) fn logs_between(
        &self,
        tx: &mut Tx,
        filter: &Filter,
        from: u64,
        to: u64,
    ) -> Result<Vec<Log>, RpcError> {
        let is_indexed = !filter.address.is_empty()
            || filter.topics.iter().any(|alternatives| !alternatives.is_empty());
        if !is_indexed && to.saturating_sub(from) >= Self::MAX_UNINDEXED {
            return Err(RpcError::limit("block range too large without address or topic"));
        }
        let mut found = Found::default();
        let mut first = from;
        while first <= to {
            let last = first.saturating_add(Self::WINDOW - 1).min(to);
            match candidates(tx, filter, first, last) {
                Some(indexed) => {
                    for number in indexed {
                        self.logs_of(tx, filter, number, &mut found)?;
                    }
                }
                None => {
                    for number in first..=last {
                        self.logs_of(tx, filter, number, &mut found)?;
                    }
                }
            }
            let Some(next) = last.checked_add(1) else { break };
            first = next;
        }
        Ok(found.logs)
    }

    fn logs_of(
        &self,
        tx: &mut Tx,
        filter: &Filter,
        number: u64,
        found: &mut Found,
    ) -> Result<(), RpcError> {
        found.blocks += 1;
        if found.blocks > Self::MAX_BLOCKS_READ {
            return Err(RpcError::limit("query looks at more than 20000 blocks with such logs"));
        }
        let hash = block_hash(tx, number).ok_or(StateError::NoBlock(number))?;
        let block = self.sealed(tx, number)?;
        if !filter.matches_bloom(block.header.logs_bloom) {
            return Ok(());
        }
        for transaction_hash in &block.transactions {
            let included = transaction(tx, *transaction_hash)?
                .ok_or(StateError::NoTransaction(*transaction_hash))?;
            for (index, log) in (0..).zip(&included.record.logs) {
                if !filter.matches(log) {
                    continue;
                }
                found.bytes += log.data.data.len() + 512;
                if found.logs.len() >= Self::MAX_LOGS || found.bytes > Self::MAX_LOG_BYTES {
                    let message = "query returned more than 100000 logs or 32 MiB";
                    return Err(RpcError::limit(message));
                }
                let log_index = included.position.first_log + index;
                found.logs.push(rpc_log(log.clone(), hash, &block, &included, log_index));
            }
        }
        Ok(())
    }
}

/// What a search has found so far.
#[derive(Default)]
struct Found {
    logs: Vec<Log>,
    bytes: usize,
    blocks: usize,
}

/// A filter within its limits.
pub(super) fn read_filter(params: &Params) -> Result<Filter, RpcError> {
    if let Some(object) = params.raw(0).and_then(|raw| raw.as_object()) {
        let given = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
        if given("blockHash") && (given("fromBlock") || given("toBlock")) {
            return Err(RpcError::invalid_params(
                "invalid argument 0: cannot specify both BlockHash and FromBlock/ToBlock, \
                 choose one or the other",
            ));
        }
    }
    let filter: Filter = params.required(0)?;
    let most = filter.topics.iter().map(|topic| topic.len()).max().unwrap_or_default();
    if filter.address.len().max(most) > Rpc::MAX_ALTERNATIVES {
        return Err(RpcError::invalid_params("exceed max addresses or topics per search position"));
    }
    Ok(filter)
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
