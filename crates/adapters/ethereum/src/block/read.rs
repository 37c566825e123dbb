//! What is kept of sealed blocks.

use alloy_consensus::Header;
use alloy_consensus::{Eip658Value, Receipt, ReceiptEnvelope, ReceiptWithBloom, TxEnvelope};
use alloy_eips::eip1559::BaseFeeParams;
use alloy_primitives::{Address, B256};
use alloy_rlp::{RlpDecodable, RlpEncodable};
use coco_kv::{Seqno, Tx};

use crate::StateError;
use crate::maps::{BLOCKS, CHAIN, CHANGES, HASHES, NUMBERS, TRANSACTIONS};
use crate::record::{self, BlockRecord, Change, Position, Positions, TransactionRecord};

/// The last sealed block, as much as the next one needs of it.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// What the next block's is.
    pub gas_limit: u64,
    /// What the next block's is under EIP-1559.
    pub next_base_fee: u64,
}

impl Head {
    /// The head; `None` before the genesis.
    pub fn read(tx: &mut Tx) -> Result<Option<Self>, StateError> {
        record::read(tx, &CHAIN, b"head")
    }

    /// The last block that was sealed at or before a position; `None` before the genesis.
    pub fn at(tx: &mut Tx, position: Seqno) -> Result<Option<Self>, StateError> {
        let Some(head) = Self::read(tx)? else { return Ok(None) };
        let mut number = head.number;
        let sealed =
            |tx: &mut Tx, number: u64| tx.version_of_previous_write(&HASHES, &number.to_be_bytes());
        while sealed(tx, number).is_some_and(|sealed| sealed > position) {
            let Some(before) = number.checked_sub(1) else { return Ok(None) };
            number = before;
        }
        if number == head.number {
            return Ok(Some(head));
        }
        let hash = block_hash(tx, number).ok_or(StateError::NoBlock(number))?;
        let header = block(tx, number)?.ok_or(StateError::NoBlock(number))?.header;
        Ok(Some(Self::of(&header, hash)))
    }

    /// The head that a block is.
    pub(crate) fn of(header: &Header, hash: B256) -> Self {
        Self {
            number: header.number,
            hash,
            timestamp: header.timestamp,
            gas_limit: header.gas_limit,
            next_base_fee: Self::next_base_fee_of(header),
        }
    }

    /// The base fee of the block after one with this header, by EIP-1559; 0 before it.
    pub fn next_base_fee_of(header: &Header) -> u64 {
        header.next_block_base_fee(BaseFeeParams::ethereum()).unwrap_or_default()
    }
}

/// The hash of a block.
pub fn block_hash(tx: &mut Tx, number: u64) -> Option<B256> {
    B256::try_from(&*tx.get(&HASHES, &number.to_be_bytes())?).ok()
}

/// The number of a block.
pub fn block_number(tx: &mut Tx, hash: B256) -> Option<u64> {
    let number = tx.get(&NUMBERS, hash.as_slice())?;
    Some(u64::from_be_bytes((*number).try_into().ok()?))
}

/// A block by its number.
pub fn block(tx: &mut Tx, number: u64) -> Result<Option<BlockRecord>, StateError> {
    record::read(tx, &BLOCKS, &number.to_be_bytes())
}

/// A transaction in a block.
#[derive(Clone, Debug)]
pub struct IncludedTransaction {
    /// The signed envelope.
    pub envelope: TxEnvelope,
    /// Who signed it.
    pub sender: Address,
    /// Where it is.
    pub position: Position,
    /// What it did.
    pub record: TransactionRecord,
}

impl IncludedTransaction {
    /// The receipt as it is hashed into the receipts root.
    pub fn receipt(&self) -> ReceiptEnvelope {
        let receipt = receipt(&self.record, self.position.cumulative_gas_used);
        ReceiptEnvelope::from_typed(self.envelope.tx_type(), ReceiptWithBloom::from(receipt))
    }
}

/// A transaction of a sealed block.
pub fn transaction(tx: &mut Tx, hash: B256) -> Result<Option<IncludedTransaction>, StateError> {
    let Some(record) = executed_transaction(tx, hash)? else { return Ok(None) };
    // Its block is the open one.
    let Some(positions) = Positions::read(tx, record.block) else { return Ok(None) };
    let position = positions.of(&hash).ok_or(StateError::NoTransaction(hash))?;
    let (envelope, sender) = (record.transaction()?, record.sender);
    Ok(Some(IncludedTransaction { envelope, sender, position, record }))
}

/// Whether a transaction was executed, in the open block or an earlier one.
pub(crate) fn is_executed(tx: &mut Tx, hash: &B256) -> bool {
    tx.has(&TRANSACTIONS, hash.as_slice())
}

/// An executed transaction, in the open block or an earlier one.
pub(crate) fn executed_transaction(
    tx: &mut Tx,
    hash: B256,
) -> Result<Option<TransactionRecord>, StateError> {
    record::read(tx, &TRANSACTIONS, hash.as_slice())
}

/// The position on the ledger at which a transaction was executed: whose receipt proves it.
pub fn ledger_position(tx: &mut Tx, hash: B256) -> Option<Seqno> {
    tx.version_of_previous_write(&TRANSACTIONS, hash.as_slice())
}

/// The accounts and slots that changed in a sealed block.
pub fn changes(tx: &mut Tx, number: u64) -> Result<Vec<Change>, StateError> {
    record::read(tx, &CHANGES, &number.to_be_bytes())?.ok_or(StateError::NoBlock(number))
}

/// The receipt of a transaction whose place in its block is known.
pub(super) fn receipt(record: &TransactionRecord, cumulative_gas_used: u64) -> Receipt {
    let status = match <[u8; 32]>::try_from(record.outcome.as_ref()) {
        Ok(root) => Eip658Value::PostState(root.into()),
        Err(_) => Eip658Value::Eip658(record.outcome.first() == Some(&1)),
    };
    Receipt { status, cumulative_gas_used, logs: record.logs.clone() }
}
