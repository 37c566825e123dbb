//! Transactions on their way into a block.

use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U64, U256, keccak256};
use alloy_rpc_types_eth::TransactionRequest;
use coco_kv::{Tx, TxId};
use serde_json::{Map, Value as Json, json};
use tokio::sync::watch;

use super::blocks::rpc_pending;
use super::envelope::{check, check_fees, signed, unsigned_legacy};
use super::recover::Recovered;
use super::{Answer, Params, Rpc, RpcError, quantity, to_json};
use crate::block::{ExecutedHere, is_executed};
use crate::pool::Fate;
use crate::{
    CommitRefusal, FeePolicy, Head, Refusal, SignedTransaction, StateError, TransactionRecord,
    World, block, transaction,
};

/// A transaction that was taken.
pub(super) struct Sent {
    pub hash: B256,
    /// As it was signed, if whoever sent it does not have it.
    pub raw: Option<Bytes>,
    /// Where it was executed; it waits for others if it was not.
    pub executed: Option<TxId>,
}

impl Rpc {
    /// Executions of one transaction next to others, before it is executed alone.
    const OPTIMISTIC_ATTEMPTS: usize = 3;
    /// Executions of one transaction before it is refused: alone it loses to rollbacks only.
    const MAX_ATTEMPTS: usize = 8;
    /// How long a transaction waits for room among the uncommitted ones.
    const PATIENCE_MS: u64 = 2_000;
    /// How long `eth_sendRawTransactionSync` waits at most, and unless told otherwise.
    const MAX_WAIT_MS: u64 = 30_000;
    const DEFAULT_WAIT_MS: u64 = 5_000;

    pub(super) async fn send_raw_transaction(
        &self,
        params: &Params,
        recovered: Option<Recovered>,
    ) -> Result<Sent, RpcError> {
        let signed = match recovered {
            Some(recovered) => recovered?,
            None => SignedTransaction::from_wire(&params.required::<Bytes>(0)?)?,
        };
        let hash = signed.hash();
        let executed = self.submit_with_patience(signed).await?;
        Ok(Sent { hash, raw: None, executed })
    }

    /// EIP-7966: sends, and answers with the receipt.
    pub(super) async fn send_raw_transaction_sync(&self, params: &Params) -> Answer {
        let raw: Bytes = params.required(0)?;
        let wait_ms = match params.raw(1) {
            Some(Json::Number(number)) => number.as_u64(),
            _ => params.optional::<U64>(1)?.map(|wait| wait.saturating_to()),
        };
        let wait_ms = wait_ms.unwrap_or(Self::DEFAULT_WAIT_MS).min(Self::MAX_WAIT_MS);
        let hash = SignedTransaction::from_wire(&raw)?.hash();
        // Before it is sent, so that its block is not missed.
        let head = self.news.head();
        self.send_wherever(raw).await?;
        tokio::select! {
            // A receipt that is there is told also to those who do not want to wait.
            biased;
            receipt = self.wait_for_receipt(hash, head) => receipt,
            () = self.node.sleep(wait_ms) => {
                if let Some(reason) = self.refused_by_primary(hash).await {
                    return Err(RpcError::server(reason));
                }
                let mut error = RpcError::new(
                    4,
                    format!("the transaction was sent but has no receipt after {wait_ms} ms"),
                );
                error.data = Some(to_json(&hash)?);
                Err(error)
            }
        }
    }

    /// The receipt of a transaction that was sent, once it has one; or why it will have none.
    async fn wait_for_receipt(&self, hash: B256, mut head: watch::Receiver<u64>) -> Answer {
        self.block_committed(hash).await;
        loop {
            let receipt = self.receipt_of(&mut self.node.begin(), hash)?;
            if !receipt.is_null() {
                return Ok(receipt);
            }
            if let Some(Fate::Refused(reason)) = self.pool.fate(&hash) {
                return Err(RpcError::server(reason));
            }
            if head.changed().await.is_err() {
                return Err(RpcError::server("the node is stopping"));
            }
        }
    }

    /// What became of a transaction: `included`, `pending` (executed, its block is not committed
    /// yet), `queued` (waits for earlier ones), `refused`, `expired`, `replaced`, or `unknown`.
    pub(super) fn transaction_status(&self, params: &Params) -> Answer {
        let hash: B256 = params.required(0)?;
        let tx = &mut self.node.begin();
        if let Some(included) = self.included(tx, hash)? {
            let number = quantity(included.record.block);
            return Ok(json!({"status": "included", "blockNumber": number}));
        }
        if self.pool.find(&hash, self.node.now_ms()).is_some() {
            return Ok(json!({"status": "queued"}));
        }
        if is_executed(tx, &hash) {
            return Ok(json!({"status": "pending"}));
        }
        Ok(match self.pool.fate(&hash) {
            Some(Fate::Refused(reason)) => json!({"status": "refused", "reason": reason}),
            Some(Fate::Expired) => json!({"status": "expired"}),
            Some(Fate::Replaced(by)) => json!({"status": "replaced", "by": by}),
            None => json!({"status": "unknown"}),
        })
    }

    /// [`submit`](Self::submit); a client that is faster than the disk is slowed down before it is
    /// refused.
    pub(super) async fn submit_with_patience(
        &self,
        signed: SignedTransaction,
    ) -> Result<Option<TxId>, Refusal> {
        let mut refused = match self.submit(signed.clone()) {
            Err(refusal) if refusal == Refusal::Busy => refusal,
            done => return done,
        };
        let (mut committed, deadline) = (self.news.head(), self.node.sleep(Self::PATIENCE_MS));
        tokio::pin!(deadline);
        while refused == Refusal::Busy {
            tokio::select! {
                changed = committed.changed() => if changed.is_err() { break },
                () = &mut deadline => break,
            }
            match self.submit(signed.clone()) {
                Ok(executed) => return Ok(executed),
                Err(refusal) => refused = refusal,
            }
        }
        Err(refused)
    }

    /// Executes a transaction, or keeps it if its turn has not come; then those that waited for
    /// it. Where it was executed, if it was.
    pub fn submit(&self, signed: SignedTransaction) -> Result<Option<TxId>, Refusal> {
        let (sender, nonce) = (signed.sender(), signed.envelope().nonce());
        match self.execute(&signed) {
            Ok(executed) => {
                self.promote(sender, nonce.saturating_add(1));
                self.promote_authorities(&signed);
                Ok(Some(executed))
            }
            Err(refusal) => {
                let Some(next) = refusal.gap() else { return Err(refusal) };
                let priced = self.chain.rules().fees() != FeePolicy::Free;
                self.pool.add(signed, next, self.node.now_ms(), priced)?;
                // What it waits for may have come in between and not have seen it waiting.
                self.promote(sender, self.next_nonce(sender)?);
                Ok(None)
            }
        }
    }

    /// Gives those that were put off another turn; drops what has waited too long.
    pub(super) fn resume(&self) {
        self.pool.sweep(self.node.now_ms());
        while let Some(sender) = self.pool.ready() {
            let Ok(next) = self.next_nonce(sender) else { return };
            if !self.promote(sender, next) {
                return;
            }
        }
    }

    /// Executes what waits of a sender from its next nonce on; whether there was room for it.
    fn promote(&self, sender: Address, mut next: u64) -> bool {
        while let Some(waiting) = self.pool.take(sender, next, || self.node.now_ms()) {
            match self.execute(&waiting.0) {
                Ok(_) | Err(Refusal::AlreadyKnown) => next = next.saturating_add(1),
                Err(refusal) if refusal.is_passing() => {
                    self.pool.put_back(waiting, true);
                    return false;
                }
                // The one before it was rolled back.
                Err(refusal) if refusal.gap().is_some() => {
                    self.pool.put_back(waiting, false);
                    break;
                }
                // It had its turn. Its nonce is still to be used, so that later ones wait on.
                Err(refusal) => {
                    self.pool.refused(waiting.0.hash(), &refusal);
                    break;
                }
            }
        }
        true
    }

    /// An authorization (EIP-7702) uses up a nonce of its signer as a transaction does.
    fn promote_authorities(&self, signed: &SignedTransaction) {
        for authorization in signed.envelope().authorization_list().into_iter().flatten() {
            if let Ok(authority) = authorization.recover_authority()
                && self.pool.has_sender(authority)
                && let Ok(next) = self.next_nonce(authority)
            {
                self.promote(authority, next);
            }
        }
    }

    /// Executes a transaction and commits it, again if others were faster; at last alone, so that
    /// a long one among many short ones has its turn, too.
    fn execute(&self, signed: &SignedTransaction) -> Result<TxId, Refusal> {
        for attempt in 0..Self::MAX_ATTEMPTS {
            let alone = (attempt >= Self::OPTIMISTIC_ATTEMPTS).then(|| self.chain.hold());
            let mut tx = self.node.begin();
            let executed = self.chain.execute(&mut tx, signed, || self.opening())?;
            let passing = alone.is_none().then(|| self.chain.pass());
            let hash = executed.hash;
            let committed = self.node.commit(tx, executed.claims());
            if let Ok(tx_id) = committed {
                self.chain.remember_executed(hash, executed.at(tx_id.seqno));
            }
            drop((passing, alone));
            match committed {
                Ok(tx_id) => {
                    self.news.tell_executed(hash);
                    return Ok(tx_id);
                }
                Err(CommitRefusal::Conflict) => {}
                Err(CommitRefusal::Busy) => return Err(Refusal::Busy),
                Err(CommitRefusal::TooLarge { bytes }) => return Err(Refusal::TooLarge { bytes }),
                Err(CommitRefusal::Unavailable) => return Err(Refusal::Unavailable),
            }
        }
        Err(Refusal::Contended)
    }

    fn next_nonce(&self, sender: Address) -> Result<u64, Refusal> {
        let mut tx = self.node.begin();
        let account = World::scratch(&mut tx, self.chain.codes()).account(sender)?;
        Ok(account.unwrap_or_default().nonce)
    }

    /// Fills in what a wallet leaves out; the result is unsigned.
    pub(super) fn fill_transaction(&self, params: &Params) -> Answer {
        let nobody = |_| Ok(Signature::new(U256::ZERO, U256::ZERO, false));
        let envelope = self.filled(params.required(0)?, nobody)?;
        let (mut raw, mut shown) = (Bytes::from(envelope.encoded_2718()), to_json(&envelope)?);
        if let (Some(legacy), Some(members)) = (envelope.as_legacy(), shown.as_object_mut()) {
            raw = unsigned_legacy(legacy.tx());
            members.insert("v".to_owned(), json!("0x0"));
            members.insert("hash".to_owned(), to_json(&keccak256(&raw))?);
            members.remove("chainId");
        }
        Ok(json!({"raw": raw, "tx": shown}))
    }

    /// The envelope of a request in which everything that it leaves out is filled in.
    pub(super) fn filled(
        &self,
        mut request: TransactionRequest,
        sign: impl FnOnce(B256) -> Result<Signature, RpcError>,
    ) -> Result<TxEnvelope, RpcError> {
        check(&request)?;
        let from = request.from.unwrap_or_default();
        if request.nonce.is_none() {
            request.nonce = Some(self.next_nonce(from)?);
        }
        let chain_id = self.chain.rules().chain_id();
        match request.chain_id {
            Some(have) if have != chain_id => {
                return Err(RpcError::invalid_params(format!(
                    "chainId does not match node's (have={have}, want={chain_id})"
                )));
            }
            _ => request.chain_id = Some(chain_id),
        }
        if request.gas.is_none() {
            let estimate = self.estimate_gas(&Params::new(Some(json!([request, "pending"])))?)?;
            let estimate: U64 = serde_json::from_value(estimate)
                .map_err(|e| RpcError::new(-32603, e.to_string()))?;
            request.gas = Some(estimate.saturating_to());
        }
        if request.gas_price.is_none() {
            let tip = request.max_priority_fee_per_gas.unwrap_or_default();
            let base_fee = u128::from(self.next_base_fee(&mut self.node.begin())?);
            request.max_priority_fee_per_gas = Some(tip);
            let most = base_fee.saturating_mul(2).saturating_add(tip);
            request.max_fee_per_gas = Some(request.max_fee_per_gas.unwrap_or(most));
            check_fees(&request)?;
        }
        let (nonce, gas) = (request.nonce.unwrap_or_default(), request.gas.unwrap_or_default());
        signed(&request, nonce, gas, chain_id, sign)
    }

    pub(super) fn txpool_status(&self) -> Answer {
        let pending = self.executed_transactions()?.len() as u64;
        let queued = self.pool.count(self.node.now_ms()) as u64;
        Ok(json!({"pending": quantity(pending), "queued": quantity(queued)}))
    }

    pub(super) fn txpool_content(&self, of: Option<Address>) -> Answer {
        let executed = self.executed_transactions()?;
        let show = |transactions: Vec<SignedTransaction>| -> Answer {
            let mut by_sender = Map::new();
            for signed in transactions {
                let (sender, nonce) = (signed.sender(), signed.envelope().nonce());
                let shown = to_json(&rpc_pending(signed.envelope().clone(), sender))?;
                if let Some(of) = of {
                    if of == sender {
                        by_sender.insert(nonce.to_string(), shown);
                    }
                    continue;
                }
                let of_sender = by_sender.entry(sender.to_string()).or_insert_with(|| json!({}));
                if let Some(object) = of_sender.as_object_mut() {
                    object.insert(nonce.to_string(), shown);
                }
            }
            Ok(Json::Object(by_sender))
        };
        let now_ms = self.node.now_ms();
        let queued = of.map_or_else(|| self.pool.all(now_ms), |of| self.pool.of(of, now_ms));
        Ok(json!({"pending": show(executed)?, "queued": show(queued)?}))
    }

    pub(super) fn txpool_inspect(&self) -> Answer {
        let show = |transactions: Vec<SignedTransaction>| {
            let mut by_sender = Map::new();
            for signed in transactions {
                let envelope = signed.envelope();
                let to = match envelope.kind() {
                    TxKind::Call(to) => to.to_string(),
                    TxKind::Create => "contract creation".to_owned(),
                };
                let text = format!(
                    "{to}: {} wei + {} gas × {} wei",
                    envelope.value(),
                    envelope.gas_limit(),
                    envelope.max_fee_per_gas()
                );
                let sender = signed.sender().to_string();
                let of_sender = by_sender.entry(sender).or_insert_with(|| json!({}));
                if let Some(object) = of_sender.as_object_mut() {
                    object.insert(envelope.nonce().to_string(), Json::String(text));
                }
            }
            Json::Object(by_sender)
        };
        let executed = self.executed_transactions()?;
        Ok(json!({"pending": show(executed), "queued": show(self.pool.all(self.node.now_ms()))}))
    }

    /// Those of blocks that clients do not see yet, and of the open one.
    fn executed_transactions(&self) -> Result<Vec<SignedTransaction>, RpcError> {
        let tx = &mut self.node.begin();
        let seen = self.head(tx)?.number;
        let records = executed_after(tx, seen)?.into_iter();
        let recovered = records
            .map(|record| Ok(SignedTransaction::recovered(record.transaction()?, record.sender)));
        recovered.collect()
    }
}

/// The transactions of the blocks after this one, and of the open one.
pub(super) fn executed_after(
    tx: &mut Tx,
    block_number: u64,
) -> Result<Vec<TransactionRecord>, StateError> {
    let sealed = Head::read(tx)?.map_or(block_number, |head| head.number);
    let mut records = Vec::new();
    for number in block_number.saturating_add(1)..=sealed {
        for hash in block(tx, number)?.ok_or(StateError::NoBlock(number))?.transactions {
            let included = transaction(tx, hash)?.ok_or(StateError::NoTransaction(hash))?;
            records.push(included.record);
        }
    }
    let open = crate::block::executed(tx, ExecutedHere::default())?.transactions;
    records.extend(open.into_iter().map(|executed| executed.record));
    Ok(records)
}
