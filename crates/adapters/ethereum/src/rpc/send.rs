//! Transactions on their way into a block.

use alloy_consensus::Transaction as _;
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Bytes, TxKind, U64};
use alloy_rpc_types_eth::TransactionRequest;
use serde_json::{Map, Value as Json, json};
use tokio::sync::broadcast::error::RecvError;

use super::blocks::rpc_pending;
use super::unsigned::unsigned;
use super::{Answer, Event, Params, Rpc, RpcError, quantity, to_json};
use crate::{Executed, FeePolicy, Refusal, SignedTransaction, World};

impl Rpc {
    /// Executions of one transaction that may lose against others before it is refused.
    const MAX_ATTEMPTS: usize = 256;
    /// How long `eth_sendRawTransactionSync` waits at most, and unless told otherwise.
    const MAX_WAIT_MS: u64 = 30_000;
    const DEFAULT_WAIT_MS: u64 = 5_000;

    pub(super) fn send_raw_transaction(&self, params: &Params) -> Answer {
        let raw: Bytes = params.required(0)?;
        let signed = SignedTransaction::from_wire(&raw)?;
        let hash = signed.hash();
        self.submit(signed)?;
        to_json(&hash)
    }

    /// EIP-7966: sends, and answers with the receipt.
    pub(super) async fn send_raw_transaction_sync(&self, params: &Params) -> Answer {
        let raw: Bytes = params.required(0)?;
        let wait_ms = match params.raw(1) {
            Some(Json::Number(number)) => number.as_u64(),
            _ => params.optional::<U64>(1)?.map(|wait| wait.saturating_to()),
        };
        let wait_ms = wait_ms.unwrap_or(Self::DEFAULT_WAIT_MS).min(Self::MAX_WAIT_MS);
        let signed = SignedTransaction::from_wire(&raw)?;
        let hash = signed.hash();
        // Before it is sent, so that its block is not missed.
        let mut events = self.events.subscribe();
        self.submit(signed)?;
        let deadline = self.node.sleep(wait_ms);
        tokio::pin!(deadline);
        loop {
            let receipt = self.receipt_of(&mut self.node.read(), hash)?;
            if !receipt.is_null() {
                return Ok(receipt);
            }
            tokio::select! {
                event = events.recv() => if matches!(event, Err(RecvError::Closed)) {
                    return Err(RpcError::server("the node is stopping"));
                },
                () = &mut deadline => {
                    let mut error = RpcError::new(
                        4,
                        format!("the transaction was sent but has no receipt after {wait_ms} ms"),
                    );
                    error.data = Some(to_json(&hash)?);
                    return Err(error);
                }
            }
        }
    }

    /// Executes a transaction, or keeps it if its turn has not come; then those that waited for
    /// it.
    pub fn submit(&self, signed: SignedTransaction) -> Result<(), Refusal> {
        let (sender, nonce) = (signed.sender(), signed.envelope().nonce());
        let mut next = match self.execute(&signed) {
            Ok(_) => nonce.saturating_add(1),
            Err(refusal) => {
                let Some(next) = refusal.gap() else { return Err(refusal) };
                let priced = self.chain.rules().fees() != FeePolicy::Free;
                self.pool.add(signed, next, self.node.now_ms(), priced)?;
                // What it waits for may have come in between and not have seen it waiting.
                self.next_nonce(sender)?
            }
        };
        while let Some(waiting) = self.pool.take(sender, next) {
            match self.execute(&waiting) {
                Ok(_) => next = next.saturating_add(1),
                // It had its turn, and is refused as if it had been sent now. Its sender sees
                // that the nonce has not moved.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Executes a transaction and commits it, again if others were faster.
    fn execute(&self, signed: &SignedTransaction) -> Result<Executed, Refusal> {
        for _ in 0..Self::MAX_ATTEMPTS {
            let mut tx = self.node.begin();
            let executed = self.chain.execute(&mut tx, signed, &self.opening())?;
            if self.node.commit(tx, executed.claims()).is_ok() {
                self.remember_transaction(executed.hash);
                let _ = self.events.send(Event::Transaction(executed.hash));
                return Ok(executed);
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
        let mut request: TransactionRequest = params.required(0)?;
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
            let base_fee = u128::from(self.next_base_fee(&mut self.node.read())?);
            request.max_priority_fee_per_gas = Some(tip);
            let most = base_fee.saturating_mul(2).saturating_add(tip);
            request.max_fee_per_gas = Some(request.max_fee_per_gas.unwrap_or(most));
        }
        let (nonce, gas) = (request.nonce.unwrap_or_default(), request.gas.unwrap_or_default());
        let envelope = unsigned(&request, nonce, gas, chain_id);
        let raw = Bytes::from(envelope.encoded_2718());
        Ok(json!({"raw": raw, "tx": to_json(&envelope)?}))
    }

    pub(super) fn txpool_status(&self) -> Answer {
        let pending = self.executed_transactions()?.len() as u64;
        Ok(json!({"pending": quantity(pending), "queued": quantity(self.pool.len() as u64)}))
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
        Ok(json!({"pending": show(executed)?, "queued": show(self.pool.all())?}))
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
        Ok(json!({"pending": show(executed), "queued": show(self.pool.all())}))
    }

    /// Those of the open block.
    fn executed_transactions(&self) -> Result<Vec<SignedTransaction>, RpcError> {
        let tx = &mut self.node.begin();
        let mut transactions = Vec::new();
        for (_, record) in crate::block::executed(tx)?.transactions {
            transactions.push(SignedTransaction::new_frontier(record.transaction()?)?);
        }
        Ok(transactions)
    }
}
