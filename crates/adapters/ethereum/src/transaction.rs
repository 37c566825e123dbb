//! Signed transactions: from bytes to a sender, before anything touches the store.

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{Transaction, TxEnvelope, Typed2718};
use alloy_eips::eip2718::{Decodable2718, Eip2718Error, Encodable2718};
use alloy_primitives::{Address, B256, Bytes};
use revm::context::TxEnv;
use revm::context::either::Either;

/// A transaction whose signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTransaction {
    envelope: TxEnvelope,
    sender: Address,
}

/// The bytes are not a transaction that anybody signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionSyntax {
    /// Longer than any transaction may be.
    #[error("oversized data: transaction size {size}, limit {limit}")]
    Oversized {
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// No bytes at all.
    #[error("typed transaction too short")]
    Empty,
    /// A type that does not exist, or is not carried here.
    #[error("transaction type not supported")]
    UnsupportedType,
    /// Not RLP of a transaction.
    #[error("rlp: {0}")]
    Rlp(alloy_rlp::Error),
    /// The signature is of nobody.
    #[error("invalid sender")]
    InvalidSender,
}

impl SignedTransaction {
    /// geth's limit on what its pool takes.
    pub const MAX_BYTES: usize = 128 * 1024;

    /// Parses and checks an envelope as it is sent over JSON-RPC. Transactions with blobs are
    /// refused: the chain has no place for blobs.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, TransactionSyntax> {
        if bytes.len() > Self::MAX_BYTES {
            let size = bytes.len();
            return Err(TransactionSyntax::Oversized { size, limit: Self::MAX_BYTES });
        }
        match bytes.first() {
            None => return Err(TransactionSyntax::Empty),
            Some(0x00..=0x7f) if !matches!(bytes.first(), Some(1 | 2 | 4)) => {
                return Err(TransactionSyntax::UnsupportedType);
            }
            Some(_) => {}
        }
        let is_legacy = bytes.first().is_some_and(|byte| *byte > 0x7f);
        let envelope = TxEnvelope::decode_2718_exact(bytes).map_err(|error| match error {
            Eip2718Error::RlpError(error) => TransactionSyntax::Rlp(error),
            _ if is_legacy => TransactionSyntax::Rlp(alloy_rlp::Error::UnexpectedString),
            _ => TransactionSyntax::UnsupportedType,
        })?;
        Self::new(envelope)
    }

    /// Checks the signature of an envelope; a high `s` is refused (EIP-2).
    pub fn new(envelope: TxEnvelope) -> Result<Self, TransactionSyntax> {
        let sender = envelope.recover_signer().map_err(|_| TransactionSyntax::InvalidSender)?;
        // Kept in the envelope: computed here, where other threads do the same for others.
        envelope.tx_hash();
        Ok(Self { envelope, sender })
    }

    /// Checks the signature of an envelope from before EIP-2.
    pub fn new_frontier(envelope: TxEnvelope) -> Result<Self, TransactionSyntax> {
        let sender = envelope.recover_signer_unchecked();
        let sender = sender.map_err(|_| TransactionSyntax::InvalidSender)?;
        Ok(Self { envelope, sender })
    }

    /// An envelope whose sender is known, for it was executed.
    pub(crate) fn recovered(envelope: TxEnvelope, sender: Address) -> Self {
        Self { envelope, sender }
    }

    /// The envelope.
    pub fn envelope(&self) -> &TxEnvelope {
        &self.envelope
    }

    /// Who signed.
    pub fn sender(&self) -> Address {
        self.sender
    }

    /// The transaction's hash.
    pub fn hash(&self) -> B256 {
        *self.envelope.tx_hash()
    }

    /// The envelope's bytes (EIP-2718).
    pub fn to_bytes(&self) -> Bytes {
        self.envelope.encoded_2718().into()
    }

    /// What the EVM executes.
    pub fn to_evm(&self) -> TxEnv {
        to_evm(&self.envelope, self.sender)
    }
}

/// What the EVM executes of an envelope.
pub(crate) fn to_evm(envelope: &TxEnvelope, caller: Address) -> TxEnv {
    let authorizations = envelope.authorization_list().unwrap_or_default();
    TxEnv {
        tx_type: envelope.ty(),
        caller,
        gas_limit: envelope.gas_limit(),
        gas_price: envelope.max_fee_per_gas(),
        kind: envelope.kind(),
        value: envelope.value(),
        data: envelope.input().clone(),
        nonce: envelope.nonce(),
        chain_id: envelope.chain_id(),
        access_list: envelope.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: envelope.max_priority_fee_per_gas(),
        blob_hashes: envelope.blob_versioned_hashes().map(<[_]>::to_vec).unwrap_or_default(),
        max_fee_per_blob_gas: envelope.max_fee_per_blob_gas().unwrap_or_default(),
        authorization_list: authorizations.iter().cloned().map(Either::Left).collect(),
    }
}
