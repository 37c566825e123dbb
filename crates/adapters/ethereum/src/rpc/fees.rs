//! What gas costs.

use alloy_consensus::Transaction as _;
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::U64;
use alloy_rpc_types_eth::FeeHistory;
use coco_kv::Tx;
use serde_json::{Value as Json, json};

use super::view::At;
use super::{Answer, Params, Rpc, RpcError, quantity, to_json};
use crate::{BlockRecord, FeePolicy, Head, StateError, transaction};

impl Rpc {
    /// Blocks in one fee history; geth's limit.
    const MAX_HISTORY: u64 = 1024;
    /// Percentiles in one fee history; geth's limit.
    const MAX_PERCENTILES: usize = 100;

    /// The base fee of the next block.
    pub(super) fn next_base_fee(&self, tx: &mut Tx) -> Result<u64, RpcError> {
        Ok(match self.chain.rules().fees() {
            FeePolicy::Free => 0,
            FeePolicy::Fixed(fee) => fee,
            FeePolicy::Market => self.head(tx)?.next_base_fee,
        })
    }

    pub(super) fn gas_price(&self) -> Answer {
        Ok(quantity(self.next_base_fee(&mut self.node.begin())?))
    }

    /// Transactions are taken in order of arrival: a tip buys nothing.
    pub(super) fn max_priority_fee(&self) -> Answer {
        Ok(quantity(0))
    }

    pub(super) fn base_fee(&self) -> Answer {
        Ok(quantity(self.next_base_fee(&mut self.node.begin())?))
    }

    pub(super) fn blob_base_fee(&self) -> Answer {
        let tx = &mut self.node.begin();
        let head = self.head(tx)?.number;
        let header = self.sealed(tx, head)?.header;
        let Some(blobs) = self.chain.rules().blobs_at(header.timestamp) else {
            return Ok(Json::Null);
        };
        let fee = header.next_block_blob_fee(blobs).unwrap_or(1);
        Ok(json!(format!("{fee:#x}")))
    }

    pub(super) fn fee_history(&self, params: &Params) -> Answer {
        let count: U64 = match params.raw(0) {
            Some(Json::Number(number)) => U64::from(number.as_u64().unwrap_or_default()),
            _ => params.required(0)?,
        };
        let newest: BlockNumberOrTag = params.required(1)?;
        let percentiles: Vec<f64> = params.optional(2)?.unwrap_or_default();
        check_percentiles(&percentiles)?;
        let tx = &mut self.node.begin();
        let newest = match self.find_block(tx, newest.into())? {
            Some(At::Block(number)) => number,
            Some(At::Pending) => self.head(tx)?.number,
            None => return Err(RpcError::server("request beyond head block")),
        };
        let wanted: u64 = count.saturating_to();
        let count = wanted.min(Self::MAX_HISTORY).min(newest.saturating_add(1));
        let mut history = FeeHistory::default();
        if count == 0 {
            return to_json(&history);
        }
        history.oldest_block = newest.saturating_add(1).saturating_sub(count);
        let mut rewards = Vec::new();
        let mut last = None;
        for number in history.oldest_block..=newest {
            let block = self.sealed(tx, number)?;
            let header = &block.header;
            history.base_fee_per_gas.push(header.base_fee_per_gas.unwrap_or_default().into());
            history.gas_used_ratio.push(ratio(header.gas_used, header.gas_limit));
            let blobs = self.chain.rules().blobs_at(header.timestamp);
            let fee = blobs.and_then(|blobs| header.blob_fee(blobs)).unwrap_or_default();
            history.base_fee_per_blob_gas.push(fee);
            let most = blobs.map_or(0, |blobs| blobs.max_blob_gas_per_block());
            let used = header.blob_gas_used.unwrap_or_default();
            history.blob_gas_used_ratio.push(ratio(used, most));
            if !percentiles.is_empty() {
                rewards.push(self.rewards(tx, &block, &percentiles)?);
            }
            last = Some(block.header);
        }
        if let Some(header) = last {
            let next = match self.chain.rules().fees() {
                FeePolicy::Market => Head::next_base_fee_of(&header),
                FeePolicy::Free => 0,
                FeePolicy::Fixed(fee) => fee,
            };
            history.base_fee_per_gas.push(next.into());
            let blobs = self.chain.rules().blobs_at(header.timestamp);
            let fee = blobs.and_then(|blobs| header.next_block_blob_fee(blobs)).unwrap_or_default();
            history.base_fee_per_blob_gas.push(fee);
        }
        history.reward = (!percentiles.is_empty()).then_some(rewards);
        to_json(&history)
    }

    /// The tips at the given percentiles of a block's gas.
    fn rewards(
        &self,
        tx: &mut Tx,
        block: &BlockRecord,
        percentiles: &[f64],
    ) -> Result<Vec<u128>, RpcError> {
        let free = self.chain.rules().fees() == FeePolicy::Free;
        let base_fee = block.header.base_fee_per_gas.unwrap_or_default();
        let mut tips = Vec::with_capacity(block.transactions.len());
        for hash in &block.transactions {
            let included = transaction(tx, *hash)?.ok_or(StateError::NoTransaction(*hash))?;
            let tip = included.envelope.effective_tip_per_gas(base_fee).unwrap_or_default();
            tips.push((if free { 0 } else { tip }, included.record.gas_used));
        }
        tips.sort_unstable();
        let at = |percentile: &f64| {
            let threshold = block.header.gas_used as f64 * percentile / 100.0;
            let mut sum = 0_u64;
            let reached = tips.iter().find(|(_, gas)| {
                sum = sum.saturating_add(*gas);
                sum as f64 >= threshold
            });
            reached.or(tips.last()).map_or(0, |(tip, _)| *tip)
        };
        Ok(percentiles.iter().map(at).collect())
    }
}

fn check_percentiles(percentiles: &[f64]) -> Result<(), RpcError> {
    if percentiles.len() > Rpc::MAX_PERCENTILES {
        return Err(RpcError::invalid_params("over the query limit 100: reward percentile"));
    }
    let rising = percentiles.windows(2).all(|pair| matches!(pair, [a, b] if a <= b));
    if !rising || percentiles.iter().any(|percentile| !(0.0..=100.0).contains(percentile)) {
        return Err(RpcError::invalid_params("invalid reward percentile"));
    }
    Ok(())
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
