//! Wallets, and a node that they talk to.

#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

use alloy_consensus::crypto::secp256k1::sign_message;
use alloy_consensus::{SignableTransaction, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use coco_ethereum::rpc::Rpc;
use coco_ethereum::trial::Trial;
use coco_ethereum::{FeePolicy, SignedTransaction, consortium_genesis};
use serde_json::{Value as Json, json};

pub const CHAIN_ID: u64 = 1337;

pub struct Wallet {
    pub secret: B256,
    pub address: Address,
    pub nonce: u64,
}

impl Wallet {
    pub fn new(name: &str) -> Self {
        let secret = keccak256(name);
        let probe = TxLegacy { chain_id: Some(CHAIN_ID), ..TxLegacy::default() };
        let signed = sign(secret, probe);
        Self { secret, address: SignedTransaction::new(signed).unwrap().sender(), nonce: 0 }
    }

    /// The next transaction: 21000 gas and one wei to `to`.
    pub fn pay(&mut self, to: Address) -> TxEnvelope {
        let transaction = self.at(self.nonce, to);
        self.nonce += 1;
        transaction
    }

    pub fn at(&self, nonce: u64, to: Address) -> TxEnvelope {
        sign(
            self.secret,
            TxLegacy {
                chain_id: Some(CHAIN_ID),
                nonce,
                gas_price: 0,
                gas_limit: 21_000,
                to: TxKind::Call(to),
                value: U256::ONE,
                input: Bytes::new(),
            },
        )
    }
}

pub fn sign<T: SignableTransaction<alloy_primitives::Signature>>(secret: B256, tx: T) -> TxEnvelope
where
    TxEnvelope: From<alloy_consensus::Signed<T>>,
{
    let signature = sign_message(secret, tx.signature_hash()).unwrap();
    tx.into_signed(signature).into()
}

pub fn raw(transaction: &TxEnvelope) -> String {
    hex::encode_prefixed(transaction.encoded_2718())
}

pub fn node(fees: FeePolicy, wallets: &[&Wallet]) -> (Arc<Trial>, Rpc) {
    let rich = U256::from(10).pow(U256::from(20));
    let balances = wallets.iter().map(|wallet| (wallet.address, rich));
    Trial::begin(&consortium_genesis(CHAIN_ID, balances), fees).unwrap()
}

pub async fn call(rpc: &Rpc, method: &str, params: Json) -> Json {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let reply = rpc.handle(request.to_string().as_bytes()).await.unwrap();
    serde_json::from_slice(&reply).unwrap()
}

pub async fn result(rpc: &Rpc, method: &str, params: Json) -> Json {
    let reply = call(rpc, method, params).await;
    assert!(reply.get("error").is_none(), "{method}: {reply}");
    reply["result"].clone()
}

pub async fn send(rpc: &Rpc, transaction: &TxEnvelope) -> Result<Json, String> {
    let reply = call(rpc, "eth_sendRawTransaction", json!([raw(transaction)])).await;
    match reply.get("error") {
        Some(error) => Err(error["message"].as_str().unwrap().to_owned()),
        None => Ok(reply["result"].clone()),
    }
}
