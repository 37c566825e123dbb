//! Blocks, transactions and receipts as they are kept.

use std::sync::atomic::{AtomicBool, Ordering};

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{BlockBody, Transaction as _, TxEnvelope};
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{B256, Bytes, U64, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_rpc_types_eth::{
    Block, BlockTransactions, Header, Log, Transaction, TransactionReceipt, Withdrawals,
};
use coco_kv::Tx;
use serde_json::{Value as Json, json};

use super::view::At;
use super::{Answer, Params, Rpc, RpcError, quantity, to_json};
use crate::block::executed_transaction;
use crate::{
    BlockRecord, FeePolicy, IncludedTransaction, Place, StateError, block_hash, ledger_position,
    transaction,
};

impl Rpc {
    /// How long a receipt is waited for whose block is on its way.
    const RECEIPT_WAIT_MS: u64 = 25;
    /// The same where the primary has executed the transaction for a client of this node.
    const COMING_WAIT_MS: u64 = 2_000;

    pub(super) fn block_number(&self) -> Answer {
        Ok(quantity(self.head(&mut self.node.begin())?.number))
    }

    pub(super) fn block_by_number(&self, params: &Params) -> Answer {
        let number: BlockNumberOrTag = params.required(0)?;
        self.block_by_id(number.into(), params.optional(1)?.unwrap_or_default())
    }

    pub(super) fn block_by_hash(&self, params: &Params) -> Answer {
        let hash: B256 = params.required(0)?;
        self.block_by_id(hash.into(), params.optional(1)?.unwrap_or_default())
    }

    fn block_by_id(&self, id: BlockId, full: bool) -> Answer {
        let tx = &mut self.node.begin();
        match self.find_sealed(tx, id)? {
            Some((hash, block)) => self.rpc_block(tx, hash, block, full),
            None => Ok(Json::Null),
        }
    }

    pub(super) fn header_by_number(&self, params: &Params) -> Answer {
        let number: BlockNumberOrTag = params.required(0)?;
        self.header_by_id(number.into())
    }

    pub(super) fn header_by_hash(&self, params: &Params) -> Answer {
        let hash: B256 = params.required(0)?;
        self.header_by_id(hash.into())
    }

    fn header_by_id(&self, id: BlockId) -> Answer {
        match self.find_sealed(&mut self.node.begin(), id)? {
            Some((hash, block)) => to_json(&rpc_header(hash, &block, None)),
            None => Ok(Json::Null),
        }
    }

    /// A sealed block by id. The pending block is the last one: there is none to show before it
    /// is sealed, and it soon is.
    pub(super) fn find_sealed(
        &self,
        tx: &mut Tx,
        id: BlockId,
    ) -> Result<Option<(B256, BlockRecord)>, RpcError> {
        let number = match self.find_block(tx, id)? {
            Some(At::Block(number)) => number,
            Some(At::Pending) => self.head(tx)?.number,
            None => return Ok(None),
        };
        let hash = block_hash(tx, number).ok_or(StateError::NoBlock(number))?;
        Ok(Some((hash, self.sealed(tx, number)?)))
    }

    pub(super) fn block_param(
        &self,
        tx: &mut Tx,
        params: &Params,
    ) -> Result<Option<(B256, BlockRecord)>, RpcError> {
        let id = params.required(0)?;
        self.find_sealed(tx, id)
    }

    pub(super) fn rpc_block(
        &self,
        tx: &mut Tx,
        hash: B256,
        block: BlockRecord,
        full: bool,
    ) -> Answer {
        let mut transactions = Vec::with_capacity(block.transactions.len());
        for hash in &block.transactions {
            let included = transaction(tx, *hash)?.ok_or(StateError::NoTransaction(*hash))?;
            transactions.push(included);
        }
        let size = self.block_size(&block, &transactions);
        let shown = if full {
            let shown = transactions
                .into_iter()
                .map(|included| self.rpc_transaction(hash, &block, included));
            BlockTransactions::Full(shown.collect())
        } else {
            BlockTransactions::Hashes(block.transactions.clone())
        };
        let has_withdrawals = block.header.withdrawals_root.is_some();
        let withdrawals = has_withdrawals.then(|| Withdrawals::new(block.withdrawals.clone()));
        let uncles = block.ommers.iter().map(alloy_consensus::Header::hash_slow).collect();
        let header = rpc_header(hash, &block, Some(size));
        to_json(&Block { header, uncles, transactions: shown, withdrawals })
    }

    fn block_size(&self, block: &BlockRecord, transactions: &[IncludedTransaction]) -> usize {
        let envelopes = transactions.iter().map(|included| included.envelope.clone());
        consensus_block(block, envelopes.collect()).length()
    }

    pub(super) fn rpc_transaction(
        &self,
        block_hash: B256,
        block: &BlockRecord,
        included: IncludedTransaction,
    ) -> Transaction {
        let effective = self.effective_gas_price(&included.envelope, block.header.base_fee_per_gas);
        Transaction {
            inner: Recovered::new_unchecked(included.envelope, included.sender),
            block_hash: Some(block_hash),
            block_number: Some(block.header.number),
            transaction_index: Some(included.position.index),
            effective_gas_price: Some(effective),
            block_timestamp: Some(block.header.timestamp),
        }
    }

    fn effective_gas_price(&self, envelope: &TxEnvelope, base_fee: Option<u64>) -> u128 {
        match self.chain.rules().fees() {
            FeePolicy::Free => 0,
            FeePolicy::Fixed(_) | FeePolicy::Market => envelope.effective_gas_price(base_fee),
        }
    }

    pub(super) fn block_transaction_count(&self, params: &Params) -> Answer {
        let found = self.block_param(&mut self.node.begin(), params)?;
        Ok(found.map_or(Json::Null, |(_, block)| quantity(block.transactions.len() as u64)))
    }

    pub(super) fn ommer_count(&self, params: &Params) -> Answer {
        let found = self.block_param(&mut self.node.begin(), params)?;
        Ok(found.map_or(Json::Null, |(_, block)| quantity(block.ommers.len() as u64)))
    }

    pub(super) fn ommer(&self, params: &Params) -> Answer {
        let Some((_, block)) = self.block_param(&mut self.node.begin(), params)? else {
            return Ok(Json::Null);
        };
        let index: U64 = params.required(1)?;
        match block.ommers.get(index.saturating_to::<usize>()) {
            Some(ommer) => to_json(&Block::<Transaction>::uncle_from_header(ommer.clone())),
            None => Ok(Json::Null),
        }
    }

    pub(super) fn transaction_by_hash(&self, params: &Params) -> Answer {
        let hash: B256 = params.required(0)?;
        let tx = &mut self.node.begin();
        if let Some(included) = self.included(tx, hash)? {
            let number = included.record.block;
            let block = self.sealed(tx, number)?;
            let block_hash = block_hash(tx, number).ok_or(StateError::NoBlock(number))?;
            return to_json(&self.rpc_transaction(block_hash, &block, included));
        }
        match self.pending_transaction(hash)? {
            Some((envelope, sender)) => to_json(&rpc_pending(envelope, sender)),
            None => Ok(Json::Null),
        }
    }

    pub(super) fn transaction_by_index(&self, params: &Params) -> Answer {
        let tx = &mut self.node.begin();
        let Some((block_hash, block)) = self.block_param(tx, params)? else {
            return Ok(Json::Null);
        };
        let index: U64 = params.required(1)?;
        let Some(hash) = block.transactions.get(index.saturating_to::<usize>()) else {
            return Ok(Json::Null);
        };
        let included = transaction(tx, *hash)?.ok_or(StateError::NoTransaction(*hash))?;
        to_json(&self.rpc_transaction(block_hash, &block, included))
    }

    pub(super) fn raw_transaction(&self, params: &Params) -> Answer {
        let hash: B256 = params.required(0)?;
        if let Some(included) = self.included(&mut self.node.begin(), hash)? {
            return to_json(&included.record.envelope);
        }
        match self.pending_transaction(hash)? {
            Some((envelope, _)) => {
                to_json(&Bytes::from(alloy_eips::eip2718::Encodable2718::encoded_2718(&envelope)))
            }
            // geth answers with empty bytes, not with null.
            None => Ok(json!("0x")),
        }
    }

    /// The receipt; null while there is none. Of a transaction that is executed it soon is there:
    /// its block is sealed for whoever asks, who need not ask again.
    ///
    /// The first wait that is in vain ends all others of its message: a batch may ask for a thousand.
    pub(super) async fn transaction_receipt(&self, params: &Params, waits: &AtomicBool) -> Answer {
        let hash: B256 = params.required(0)?;
        let receipt = self.receipt_of(&mut self.node.begin(), hash)?;
        if !receipt.is_null() || !waits.load(Ordering::Relaxed) {
            return Ok(receipt);
        }
        // What was sent through this node is executed elsewhere, and on its way here.
        let is_coming = matches!(self.outbox.place(&hash), Some(Place::Executed(_)));
        let wait_ms = if is_coming { Self::COMING_WAIT_MS } else { Self::RECEIPT_WAIT_MS };
        tokio::select! {
            biased;
            () = self.block_committed(hash) => {}
            () = self.node.sleep(wait_ms) => waits.store(false, Ordering::Relaxed),
        }
        self.receipt_of(&mut self.node.begin(), hash)
    }

    /// Ends when the block of a transaction is committed, at once if it is not executed; has the
    /// block sealed.
    pub(super) async fn block_committed(&self, hash: B256) {
        let position = ledger_position(&mut self.node.begin(), hash);
        match (position, self.outbox.place(&hash)) {
            (Some(position), _) => self.node.wait_committed(position).await,
            (None, Some(Place::Executed(tx_id))) => self.node.wait_for(tx_id).await,
            (None, _) => {}
        }
    }

    /// The ledger's own receipt of a transaction, which proves it to anybody offline; null while
    /// there is none.
    pub(super) async fn ledger_receipt(&self, params: &Params) -> Answer {
        let hash: B256 = params.required(0)?;
        let position = ledger_position(&mut self.node.begin(), hash);
        let receipt = match position {
            Some(position) => self.node.receipt(position).await,
            None => None,
        };
        Ok(receipt
            .map_or(Json::Null, |receipt| json!({"transactionHash": hash, "receipt": receipt})))
    }

    /// The receipt of a transaction in a sealed block, or null.
    pub(super) fn receipt_of(&self, tx: &mut Tx, hash: B256) -> Answer {
        let Some(included) = self.included(tx, hash)? else { return Ok(Json::Null) };
        let number = included.record.block;
        let block = self.sealed(tx, number)?;
        let block_hash = block_hash(tx, number).ok_or(StateError::NoBlock(number))?;
        self.rpc_receipt(block_hash, &block, included)
    }

    pub(super) fn block_receipts(&self, params: &Params) -> Answer {
        let tx = &mut self.node.begin();
        let Some((block_hash, block)) = self.block_param(tx, params)? else {
            return Ok(Json::Null);
        };
        let mut receipts = Vec::with_capacity(block.transactions.len());
        for hash in &block.transactions {
            let included = transaction(tx, *hash)?.ok_or(StateError::NoTransaction(*hash))?;
            receipts.push(self.rpc_receipt(block_hash, &block, included)?);
        }
        Ok(Json::Array(receipts))
    }

    fn rpc_receipt(
        &self,
        block_hash: B256,
        block: &BlockRecord,
        included: IncludedTransaction,
    ) -> Answer {
        let header = &block.header;
        let envelope = &included.envelope;
        let blobs = self.chain.rules().blobs_at(header.timestamp);
        let blob_gas_used = envelope.blob_gas_used();
        let mut log_index = included.position.first_log;
        let receipt = included.receipt().map_logs(|log| {
            let log = rpc_log(log, block_hash, block, &included, log_index);
            log_index += 1;
            log
        });
        let created = envelope.kind().is_create().then(|| included.sender.create(envelope.nonce()));
        let receipt = TransactionReceipt {
            inner: receipt,
            transaction_hash: *envelope.tx_hash(),
            transaction_index: Some(included.position.index),
            block_hash: Some(block_hash),
            block_number: Some(header.number),
            gas_used: included.record.gas_used,
            effective_gas_price: self.effective_gas_price(envelope, header.base_fee_per_gas),
            blob_gas_used,
            blob_gas_price: blob_gas_used
                .and_then(|_| Some(blobs?.calc_blob_fee(header.excess_blob_gas?))),
            from: included.sender,
            to: envelope.to(),
            contract_address: created,
        };
        to_json(&receipt)
    }

    pub(super) fn raw_header(&self, params: &Params) -> Answer {
        let (_, block) = self.block_or_error(&mut self.node.begin(), params)?;
        to_json(&Bytes::from(alloy_rlp::encode(&block.header)))
    }

    pub(super) fn raw_block(&self, params: &Params) -> Answer {
        let tx = &mut self.node.begin();
        let (_, block) = self.block_or_error(tx, params)?;
        let mut envelopes = Vec::with_capacity(block.transactions.len());
        for hash in &block.transactions {
            let included = transaction(tx, *hash)?.ok_or(StateError::NoTransaction(*hash))?;
            envelopes.push(included.envelope);
        }
        to_json(&Bytes::from(alloy_rlp::encode(consensus_block(&block, envelopes))))
    }

    pub(super) fn raw_receipts(&self, params: &Params) -> Answer {
        let tx = &mut self.node.begin();
        let (_, block) = self.block_or_error(tx, params)?;
        let mut receipts = Vec::with_capacity(block.transactions.len());
        for hash in &block.transactions {
            let included = transaction(tx, *hash)?.ok_or(StateError::NoTransaction(*hash))?;
            let encoded = alloy_eips::eip2718::Encodable2718::encoded_2718(&included.receipt());
            receipts.push(Bytes::from(encoded));
        }
        to_json(&receipts)
    }

    pub(super) fn block_or_error(
        &self,
        tx: &mut Tx,
        params: &Params,
    ) -> Result<(B256, BlockRecord), RpcError> {
        self.block_param(tx, params)?.ok_or_else(|| {
            let asked = params.raw(0).cloned().unwrap_or_default();
            let asked = asked.as_str().unwrap_or_default().trim_start_matches("0x").to_owned();
            match u64::from_str_radix(&asked, 16) {
                Ok(number) => RpcError::server(format!("block #{number} not found")),
                Err(_) => RpcError::server(format!("block {asked} not found")),
            }
        })
    }

    pub(super) fn sha3(&self, params: &Params) -> Answer {
        let data: Bytes = params.required(0)?;
        to_json(&keccak256(data))
    }

    /// A transaction that is executed but in no sealed block yet, or that waits.
    pub(super) fn pending_transaction(
        &self,
        hash: B256,
    ) -> Result<Option<(TxEnvelope, alloy_primitives::Address)>, RpcError> {
        let tx = &mut self.node.begin();
        if let Some(record) = executed_transaction(tx, hash)? {
            return Ok(Some((record.transaction()?, record.sender)));
        }
        let waiting = self.pool.find(&hash, self.node.now_ms());
        Ok(waiting.map(|waiting| (waiting.envelope().clone(), waiting.sender())))
    }
}

fn rpc_header(hash: B256, block: &BlockRecord, size: Option<usize>) -> Header {
    Header { hash, inner: block.header.clone(), total_difficulty: None, size: size.map(U256::from) }
}

/// A transaction in no block, for a reply.
pub(super) fn rpc_pending(envelope: TxEnvelope, sender: alloy_primitives::Address) -> Transaction {
    Transaction {
        effective_gas_price: Some(envelope.max_fee_per_gas()),
        inner: Recovered::new_unchecked(envelope, sender),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        block_timestamp: None,
    }
}

/// The block as it is exchanged.
fn consensus_block(
    block: &BlockRecord,
    transactions: Vec<TxEnvelope>,
) -> alloy_consensus::Block<TxEnvelope> {
    let withdrawals =
        block.header.withdrawals_root.map(|_| Withdrawals::new(block.withdrawals.clone()));
    let body = BlockBody { transactions, ommers: block.ommers.clone(), withdrawals };
    alloy_consensus::Block { header: block.header.clone(), body }
}

/// A log as replies show it.
pub(super) fn rpc_log(
    log: alloy_primitives::Log,
    block_hash: B256,
    block: &BlockRecord,
    included: &IncludedTransaction,
    log_index: u64,
) -> Log {
    Log {
        inner: log,
        block_hash: Some(block_hash),
        block_number: Some(block.header.number),
        block_timestamp: Some(block.header.timestamp),
        transaction_hash: Some(*included.envelope.tx_hash()),
        transaction_index: Some(included.position.index),
        log_index: Some(log_index),
        removed: false,
    }
}
