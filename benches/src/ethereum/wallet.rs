//! Accounts and the transactions they sign before anything is measured.

use alloy_consensus::crypto::secp256k1::{recover_signer, sign_message};
use alloy_consensus::{SignableTransaction, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use anyhow::{Context, Result};

/// A key and the account it signs for.
#[derive(Clone, Copy)]
pub struct Wallet {
    secret: B256,
    /// The account.
    pub address: Address,
}

/// What is signed, without what every transaction of a run has in common.
pub struct Order {
    pub nonce: u64,
    pub to: TxKind,
    pub value: U256,
    pub gas: u64,
    pub input: Bytes,
}

/// Nobody pays more on a chain with free gas; on others it is well above the base fee.
const GAS_PRICE: u128 = 2_000_000_000;

impl Wallet {
    /// The account of a key.
    pub fn new(secret: B256) -> Result<Self> {
        // The library has signing and recovery, not the public key alone.
        let probe = keccak256(b"coco-bench");
        let address = recover_signer(&sign_message(secret, probe)?, probe)?;
        Ok(Self { secret, address })
    }

    /// From hexadecimal digits.
    pub fn from_hex(digits: &str) -> Result<Self> {
        Self::new(digits.parse().context("a key has 32 bytes in hexadecimal digits")?)
    }

    /// An account of its own for each name.
    pub fn named(name: &str) -> Result<Self> {
        Self::new(keccak256(name))
    }

    /// A raw transaction, as `eth_sendRawTransaction` takes it.
    pub fn sign(&self, chain_id: u64, order: Order) -> Result<String> {
        let Order { nonce, to, value, gas, input } = order;
        let transaction = TxLegacy {
            chain_id: Some(chain_id),
            nonce,
            gas_price: GAS_PRICE,
            gas_limit: gas,
            to,
            value,
            input,
        };
        let signature = sign_message(self.secret, transaction.signature_hash())?;
        let envelope: TxEnvelope = transaction.into_signed(signature).into();
        Ok(hex::encode_prefixed(envelope.encoded_2718()))
    }
}
