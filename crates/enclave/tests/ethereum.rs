//! A protocol with blocks of its own on several nodes: Ethereum, whose clients talk to any of them,
//! while the primary changes.
#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test"
)]

mod linked;
mod served;
mod simulated;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::crypto::secp256k1::sign_message;
use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{SignableTransaction, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use coco_adapter::{Endpoints, Registry};
use coco_crypto::sha256;
use coco_enclave::node::{Adapters, StartError};
use coco_ethereum::{ChainOptions, Ethereum, FeePolicy, Setup, consortium_genesis};
use linked::{Network, open};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use simulated::in_virtual_time;

const CHAIN_ID: u64 = 1337;
const UNAVAILABLE: i64 = -32002;

fn setup(fees: FeePolicy) -> Setup {
    let rich = U256::from(10).pow(U256::from(20));
    let payers = (0..6).map(|number| (Payer::new(number).address, rich));
    let options = ChainOptions { fees, ..ChainOptions::default() };
    Setup { genesis: consortium_genesis(CHAIN_ID, payers), options }
}

fn adapters(ethereum: Ethereum) -> (Adapters, Arc<Ethereum>) {
    let app: Arc<dyn Endpoints> = Arc::new(Registry::new("test", "Test", ""));
    let ethereum = Arc::new(ethereum);
    (Adapters { app, protocols: vec![Arc::clone(&ethereum) as _] }, ethereum)
}

/// Somebody who pays one wei at a time.
struct Payer {
    secret: B256,
    address: Address,
    nonce: u64,
}

impl Payer {
    fn new(number: u8) -> Self {
        let secret = keccak256([number]);
        let address = sign(secret, 0, Address::ZERO).recover_signer().unwrap();
        Self { secret, address, nonce: 0 }
    }

    fn pay(&mut self, to: Address) -> TxEnvelope {
        self.nonce += 1;
        sign(self.secret, self.nonce - 1, to)
    }
}

fn sign(secret: B256, nonce: u64, to: Address) -> TxEnvelope {
    let transaction = TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce,
        gas_price: 0,
        gas_limit: 21_000,
        to: TxKind::Call(to),
        value: U256::ONE,
        input: Bytes::new(),
    };
    let signature = sign_message(secret, transaction.signature_hash()).unwrap();
    transaction.into_signed(signature).into()
}

/// A service with a chain.
struct Service {
    network: Network,
    chains: Vec<Arc<Ethereum>>,
}

impl Service {
    async fn of(count: usize) -> Self {
        let service = Self::closed(count).await;
        open(service.network.node(0)).await;
        service
    }

    /// Nodes are trusted at once until it is open.
    async fn closed(count: usize) -> Self {
        let mut service = Self { network: Network::default(), chains: Vec::new() };
        for number in 0..count {
            let ethereum = match number {
                0 => Ethereum::new(Some(setup(FeePolicy::Free))),
                // One says what the chain is to be, the other takes what there is.
                1 => Ethereum::joining(Some(setup(FeePolicy::Free)), true),
                _ => Ethereum::joining(None, true),
            };
            service.try_add(ethereum).await.unwrap();
        }
        service.network.settle(count).await;
        service
    }

    async fn try_add(&mut self, ethereum: Ethereum) -> Result<(), StartError> {
        let (adapters, ethereum) = adapters(ethereum);
        self.network.try_add_with(sha256(b"program"), adapters).await?;
        self.chains.push(ethereum);
        Ok(())
    }

    /// A call at a node: its result, or its error.
    async fn call(&self, node: usize, method: &str, params: Json) -> Result<Json, Json> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let rpc = self.chains[node].rpc().unwrap();
        let reply = rpc.handle(request.to_string().as_bytes()).await.unwrap();
        let mut reply: Json = serde_json::from_slice(&reply).unwrap();
        match reply.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(reply["result"].take()),
        }
    }

    /// The same, again while nobody executes transactions.
    async fn call_patiently(&self, node: usize, method: &str, params: Json) -> Result<Json, Json> {
        loop {
            match self.call(node, method, params.clone()).await {
                Err(error) if error["code"] == UNAVAILABLE => {}
                done => return done,
            }
        }
    }

    async fn send(&self, node: usize, transaction: &TxEnvelope) {
        let raw = hex::encode_prefixed(transaction.encoded_2718());
        let sent = self.call_patiently(node, "eth_sendRawTransaction", json!([raw])).await;
        match sent {
            Ok(hash) => assert_eq!(hash, json!(transaction.tx_hash())),
            // The node that was cut off has taken it, and another has it from that.
            Err(error) => assert_eq!(error["message"], "already known"),
        }
    }

    async fn receipt(&self, node: usize, transaction: &TxEnvelope) -> Json {
        loop {
            let params = json!([transaction.tx_hash()]);
            let receipt = self.call(node, "eth_getTransactionReceipt", params).await.unwrap();
            if !receipt.is_null() {
                return receipt;
            }
        }
    }

    /// All nodes have the same blocks, each of which follows the one before.
    async fn same_blocks(&self) -> Vec<Json> {
        self.network.agree().await;
        let mut chains = Vec::new();
        for node in 0..self.chains.len() {
            let head = self.call(node, "eth_blockNumber", json!([])).await.unwrap();
            let head = u64::from_str_radix(&head.as_str().unwrap()[2..], 16).unwrap();
            let mut blocks: Vec<Json> = Vec::new();
            for number in 0..=head {
                let params = json!([format!("{number:#x}"), false]);
                let block = self.call(node, "eth_getBlockByNumber", params).await.unwrap();
                if let Some(parent) = blocks.last() {
                    assert_eq!(block["parentHash"], parent["hash"]);
                }
                blocks.push(block);
            }
            chains.push(blocks);
        }
        let first = chains.swap_remove(0);
        assert!(chains.iter().all(|chain| *chain == first));
        first
    }
}

#[test]
fn clients_may_talk_to_any_node() {
    in_virtual_time(async {
        let service = Service::of(3).await;
        let mut recipients = 100_u8..;
        for node in 0..3 {
            let mut payer = Payer::new(node as u8);
            for _ in 0..3 {
                let recipient = Address::repeat_byte(recipients.next().unwrap());
                let payment = payer.pay(recipient);
                service.send(node, &payment).await;
                let pending = json!([payer.address, "pending"]);
                let count = service.call(node, "eth_getTransactionCount", pending).await.unwrap();
                assert_eq!(count, json!(format!("{:#x}", payer.nonce)));
                // One question: it is answered when the block is here.
                let params = json!([payment.tx_hash()]);
                let receipt = service.call(node, "eth_getTransactionReceipt", params).await;
                assert_eq!(receipt.unwrap()["status"], "0x1");
                let balance = service.call(node, "eth_getBalance", json!([recipient])).await;
                assert_eq!(balance.unwrap(), "0x1");
            }
        }
        assert!(service.same_blocks().await.len() > 9);
    });
}

#[test]
fn a_node_that_demands_another_chain_is_refused_before_it_counts() {
    in_virtual_time(async {
        let mut service = Service::closed(1).await;
        for (fees, says) in [(FeePolicy::Fixed(7), "fees"), (FeePolicy::Free, "genesis")] {
            let mut setup = setup(fees);
            setup.genesis.timestamp = u64::from(fees == FeePolicy::Free);
            let refused = service.try_add(Ethereum::joining(Some(setup), true)).await;
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("400") && refused.contains("ethereum"), "{refused}");
            assert!(refused.contains(says) && refused.contains("1337"), "{refused}");
        }
        let first = service.network.node(0);
        assert_eq!(first.pipeline().membership().nodes().len(), 1);
        service.try_add(Ethereum::joining(None, true)).await.unwrap();
        service.network.settle(2).await;
    });
}

#[test]
fn a_service_without_a_chain_is_joined_by_a_node_that_needs_none() {
    in_virtual_time(async {
        let mut network = Network::of(1).await;
        let (needs_one, _) = adapters(Ethereum::joining(None, true));
        let refused = network.try_add_with(sha256(b"program"), needs_one).await.unwrap_err();
        assert!(refused.to_string().contains("no protocol"), "{refused}");
        let (idle, ethereum) = adapters(Ethereum::joining(None, false));
        network.try_add_with(sha256(b"program"), idle).await.unwrap();
        network.settle(2).await;
        assert!(ethereum.rpc().is_none());
    });
}

#[test]
fn receipts_stay_and_no_transaction_is_lost_when_the_primary_changes() {
    in_virtual_time(async {
        let service = Arc::new(Service::of(3).await);
        let receipts: Arc<Mutex<BTreeMap<B256, Json>>> = Arc::default();
        let payers: Vec<_> = (0..6_u8)
            .map(|number| {
                let (service, receipts) = (Arc::clone(&service), Arc::clone(&receipts));
                tokio::spawn(async move {
                    let (node, mut payer) = (usize::from(number) % 3, Payer::new(number));
                    for _ in 0..40 {
                        let payment = payer.pay(Address::repeat_byte(200));
                        service.send(node, &payment).await;
                        let receipt = service.receipt(node, &payment).await;
                        receipts.lock().insert(*payment.tx_hash(), receipt);
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let primary = service.network.primary().await;
            service.network.fabric.cut_off(primary);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            service.network.fabric.heal();
        }
        for payer in payers {
            payer.await.unwrap();
        }
        let blocks = service.same_blocks().await;
        let receipts = std::mem::take(&mut *receipts.lock());
        assert_eq!(receipts.len(), 6 * 40);
        for node in 0..3 {
            for (hash, receipt) in &receipts {
                let found = service.call(node, "eth_getTransactionReceipt", json!([hash])).await;
                assert_eq!(found.as_ref(), Ok(receipt));
            }
            let balance = json!([Address::repeat_byte(200)]);
            let balance = service.call(node, "eth_getBalance", balance).await.unwrap();
            assert_eq!(balance, json!(format!("{:#x}", 6 * 40)), "each was executed once");
        }
        let included = blocks.iter().flat_map(|block| block["transactions"].as_array().unwrap());
        assert_eq!(included.count(), 6 * 40);
    });
}
