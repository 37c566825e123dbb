//! One transaction at a time, from sending it to having its receipt.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::rpc::Rpc;
use super::work::Work;
use crate::latency::Latencies;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct ClosedLoop {
    pub transactions: usize,
    pub send_to_receipt_p50_ms: f64,
    pub send_to_receipt_p99_ms: f64,
}

/// Sends, then asks for the receipt again and again, as clients do, without a pause.
pub fn run(rpc: &mut Rpc, work: &Work) -> Result<ClosedLoop> {
    let mut latencies = Latencies::default();
    for raw in work.senders.iter().flat_map(|sender| &sender.raw) {
        let started = Instant::now();
        let hash = rpc.call("eth_sendRawTransaction", json!([raw]))?;
        let receipt = loop {
            let receipt = rpc.call("eth_getTransactionReceipt", json!([hash]))?;
            if !receipt.is_null() {
                break receipt;
            }
        };
        latencies.record(started.elapsed());
        let status = receipt.get("status").and_then(Value::as_str);
        ensure!(status == Some("0x1"), "a transaction failed: {receipt}");
    }
    let transactions = latencies.count();
    let [send_to_receipt_p50_ms, send_to_receipt_p99_ms] = latencies.quantiles_ms([0.5, 0.99]);
    Ok(ClosedLoop { transactions, send_to_receipt_p50_ms, send_to_receipt_p99_ms })
}
