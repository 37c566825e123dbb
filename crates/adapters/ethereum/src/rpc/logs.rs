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
    const MAX_UNINDEXED: u64 = 100_000;
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
        let candidates: Box<dyn Iterator<Item = u64>> = match candidates(tx, filter, from, to) {
            Some(indexed) => Box::new(indexed.into_iter()),
            None if to.saturating_sub(from) > Self::MAX_UNINDEXED => {
                return Err(RpcError::limit("block range too large without address or topic"));
            }
            None => Box::new(from..=to),
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        for number in candidates {
            let hash = block_hash(tx, number).ok_or(StateError::NoBlock(number))?;
            let block = self.sealed(tx, number)?;
            if !filter.matches_bloom(block.header.logs_bloom) {
                continue;
            }
            for transaction_hash in &block.transactions {
                let included = transaction(tx, *transaction_hash)?
                    .ok_or(StateError::NoTransaction(*transaction_hash))?;
                for (index, log) in (0..).zip(&included.record.logs) {
                    if !filter.matches(log) {
                        continue;
                    }
                    bytes += log.data.data.len() + 512;
                    if found.len() >= Self::MAX_LOGS || bytes > Self::MAX_LOG_BYTES {
                        return Err(RpcError::limit(
                            "query returned more than 100000 logs or 32 MiB",
                        ));
                    }
                    let log_index = included.position.first_log + index;
                    found.push(rpc_log(log.clone(), hash, &block, &included, log_index));
                }
            }
        }
        Ok(found)
    }
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
