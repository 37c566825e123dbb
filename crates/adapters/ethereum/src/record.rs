//! What is kept in the maps, as RLP lists. An account is `[nonce, balance, code hash or ""]`.

use alloy_consensus::{Header, TxEnvelope, TxType};
use alloy_eips::eip2718::Decodable2718;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Log, U256};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};
use coco_kv::{MapName, Tx, Value};
use revm::context::result::ExecutionResult;

use crate::maps::{POSITIONS, TRANSACTIONS};
use crate::{SignedTransaction, StateError};

/// An account without its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Transactions sent, or contracts created.
    pub nonce: u64,
    /// In wei.
    pub balance: U256,
    /// Keccak-256 of the code.
    pub code_hash: B256,
}

impl Default for Account {
    fn default() -> Self {
        Self { nonce: 0, balance: U256::ZERO, code_hash: KECCAK256_EMPTY }
    }
}

#[derive(RlpEncodable, RlpDecodable)]
struct AccountFields {
    nonce: u64,
    balance: U256,
    code_hash: Bytes,
}

impl Encodable for Account {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        let has_code = self.code_hash != KECCAK256_EMPTY;
        let code_hash = if has_code { self.code_hash.0.to_vec().into() } else { Bytes::new() };
        AccountFields { nonce: self.nonce, balance: self.balance, code_hash }.encode(out);
    }
}

impl Decodable for Account {
    fn decode(bytes: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let AccountFields { nonce, balance, code_hash } = AccountFields::decode(bytes)?;
        let code_hash = match code_hash.len() {
            0 => KECCAK256_EMPTY,
            32 => B256::from_slice(&code_hash),
            _ => return Err(alloy_rlp::Error::UnexpectedLength),
        };
        Ok(Self { nonce, balance, code_hash })
    }
}

/// The block that is being filled: what every transaction in it sees of it.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct OpenBlock {
    /// One more than the last sealed block's.
    pub number: u64,
    /// Of the last sealed block.
    pub parent_hash: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Randomness that the host could not see.
    pub prevrandao: B256,
    /// In wei.
    pub base_fee: u64,
    /// Of one block.
    pub gas_limit: u64,
    /// Who gets the fees.
    pub beneficiary: Address,
    /// What drives the price of blobs.
    pub excess_blob_gas: u64,
}

/// An account and the slots of it that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Change {
    /// Whose.
    pub address: Address,
    /// Slots whose value was written.
    pub slots: Vec<U256>,
}

/// An executed transaction.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct TransactionRecord {
    /// The envelope as it was signed (EIP-2718).
    pub envelope: Bytes,
    /// Who signed it.
    pub sender: Address,
    /// The number of its block.
    pub block: u64,
    /// One byte, 0 or 1; before Byzantium the 32 bytes of the state root after it.
    pub outcome: Bytes,
    /// By this transaction alone.
    pub gas_used: u64,
    /// In order.
    pub logs: Vec<Log>,
}

impl TransactionRecord {
    /// The kind of the envelope.
    pub(crate) fn kind(&self) -> Result<TxType, StateError> {
        match self.envelope.first() {
            Some(byte) if *byte > 0x7f => Ok(TxType::Legacy),
            Some(byte) => TxType::try_from(*byte).map_err(|_| bad_transaction()),
            None => Err(bad_transaction()),
        }
    }

    /// The envelope, parsed.
    pub fn transaction(&self) -> Result<TxEnvelope, StateError> {
        TxEnvelope::decode_2718_exact(&self.envelope).map_err(|_| bad_transaction())
    }

    /// What an execution under the rules from Byzantium on leaves.
    pub fn of(transaction: &SignedTransaction, block: u64, result: &ExecutionResult) -> Self {
        Self {
            envelope: transaction.to_bytes(),
            sender: transaction.sender(),
            block,
            outcome: Bytes::from(vec![u8::from(result.is_success())]),
            gas_used: result.tx_gas_used(),
            // What reverted has logged nothing.
            logs: if result.is_success() { result.logs().to_vec() } else { Vec::new() },
        }
    }
}

fn bad_transaction() -> StateError {
    StateError::BadRecord { map: TRANSACTIONS.as_str() }
}

/// Where a transaction is in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Counted from 0.
    pub index: u64,
    /// Gas used in the block up to and including this transaction.
    pub cumulative_gas_used: u64,
    /// Logs in the block before this transaction's.
    pub first_log: u64,
}

/// The positions of a block's transactions, in order of their hashes. Each is of [`LEN`](Self::LEN)
/// bytes: a hash and the three numbers, big-endian. So one is found without reading the others.
pub(crate) struct Positions(Value);

impl Positions {
    const LEN: usize = 32 + 3 * 8;

    pub fn new(mut positions: Vec<(B256, Position)>) -> Self {
        positions.sort_unstable_by_key(|(hash, _)| *hash);
        let mut bytes = Vec::with_capacity(positions.len() * Self::LEN);
        for (hash, Position { index, cumulative_gas_used, first_log }) in positions {
            bytes.extend_from_slice(hash.as_slice());
            for number in [index, cumulative_gas_used, first_log] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
        }
        Self(bytes.into())
    }

    pub fn read(tx: &mut Tx, block: u64) -> Option<Self> {
        tx.get(&POSITIONS, &block.to_be_bytes()).map(Self)
    }

    pub fn write(self, tx: &mut Tx, block: u64) {
        tx.put(&POSITIONS, block.to_be_bytes(), self.0);
    }

    pub fn of(&self, hash: &B256) -> Option<Position> {
        let (positions, _) = self.0.as_chunks::<{ Self::LEN }>();
        let found = positions.binary_search_by_key(&Some(&hash.0), |bytes| bytes.first_chunk());
        let (_, numbers) = positions.get(found.ok()?)?.split_at_checked(32)?;
        let (numbers, _) = numbers.as_chunks();
        let [index, cumulative_gas_used, first_log] = *numbers else { return None };
        Some(Position {
            index: u64::from_be_bytes(index),
            cumulative_gas_used: u64::from_be_bytes(cumulative_gas_used),
            first_log: u64::from_be_bytes(first_log),
        })
    }
}

/// A sealed block.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct BlockRecord {
    /// The header.
    pub header: Header,
    /// Headers of ommers; only in imported chains.
    pub ommers: Vec<Header>,
    /// Empty also where the fork has none; the header tells.
    pub withdrawals: Vec<Withdrawal>,
    /// Hashes of the transactions, in order.
    pub transactions: Vec<B256>,
}

/// Reads a record; a stored value that cannot be read is a [`StateError::BadRecord`].
pub(crate) fn read<T: Decodable>(
    tx: &mut Tx,
    map: &'static MapName,
    key: &[u8],
) -> Result<Option<T>, StateError> {
    tx.get(map, key).map(|value| decode(map, &value)).transpose()
}

/// Decodes a stored value.
pub(crate) fn decode<T: Decodable>(map: &'static MapName, value: &[u8]) -> Result<T, StateError> {
    let bad = || StateError::BadRecord { map: map.as_str() };
    let mut rest = value;
    let record = T::decode(&mut rest).map_err(|_| bad())?;
    if rest.is_empty() { Ok(record) } else { Err(bad()) }
}

/// A record as it is stored.
pub(crate) fn encode(record: &impl Encodable) -> Value {
    Value::from(alloy_rlp::encode(record))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::maps::ACCOUNTS;

    proptest! {
        #[test]
        fn an_account_reads_back(nonce: u64, balance: [u8; 32], code_hash: Option<[u8; 32]>) {
            let account = Account {
                nonce,
                balance: U256::from_be_bytes(balance),
                code_hash: code_hash.map_or(KECCAK256_EMPTY, B256::from),
            };
            prop_assert_eq!(decode(&ACCOUNTS, &encode(&account)), Ok(account));
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Account>(&ACCOUNTS, &bytes);
            let _ = decode::<OpenBlock>(&ACCOUNTS, &bytes);
            let _ = decode::<Vec<Change>>(&ACCOUNTS, &bytes);
            let _ = decode::<TransactionRecord>(&ACCOUNTS, &bytes);
            let _ = Positions(bytes.as_slice().into()).of(&B256::ZERO);
            let _ = decode::<BlockRecord>(&ACCOUNTS, &bytes);
            let _ = SignedTransaction::from_wire(&bytes);
        }

        #[test]
        fn records_read_back(
            envelope in prop::collection::vec(any::<u8>(), 0..100),
            sender: [u8; 20],
            gas_used: u64,
            slots in prop::collection::vec(any::<u64>(), 0..5),
            topics in prop::collection::vec(any::<[u8; 32]>(), 0..4),
        ) {
            let sender = Address::from(sender);
            let topics = topics.into_iter().map(B256::from).collect();
            let log = Log::new_unchecked(sender, topics, envelope.clone().into());
            let outcome = Bytes::from_static(&[1]);
            let envelope = envelope.into();
            let (block, logs) = (gas_used, vec![log]);
            let record = TransactionRecord { envelope, sender, block, outcome, gas_used, logs };
            prop_assert_eq!(decode(&ACCOUNTS, &encode(&record)), Ok(record));
            let slots = slots.into_iter().map(U256::from).collect();
            let changes = vec![Change { address: sender, slots }];
            prop_assert_eq!(decode(&ACCOUNTS, &encode(&changes)), Ok(changes));
        }

        #[test]
        fn positions_are_found_by_their_hashes(
            hashes in prop::collection::btree_set(any::<[u8; 32]>(), 0..40),
            other: [u8; 32],
        ) {
            let position = |index: u64| Position {
                index,
                cumulative_gas_used: index << 40,
                first_log: index + 7,
            };
            // In another order than that of the hashes.
            let numbered = hashes.iter().rev().map(B256::from).zip((0..).map(position));
            let positions = Positions::new(numbered.clone().collect());
            for (hash, position) in numbered {
                prop_assert_eq!(positions.of(&hash), Some(position));
            }
            let found = positions.of(&other.into()).is_some();
            prop_assert_eq!(found, hashes.contains(&other));
        }
    }

    #[test]
    fn what_follows_a_record_is_refused() {
        let mut bytes = encode(&Account::default()).to_vec();
        bytes.push(0);
        let bad = StateError::BadRecord { map: ACCOUNTS.as_str() };
        assert_eq!(decode::<Account>(&ACCOUNTS, &bytes), Err(bad));
    }
}
