//! The end of a block: roots, header, indexes.

use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH, Header, ReceiptEnvelope, ReceiptWithBloom,
};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::map::HashMap;
use alloy_primitives::{Address, B256, Bloom, BloomInput, Bytes, Log, U256, keccak256};
use alloy_trie::root::ordered_trie_root_with_encoder;
use coco_kv::{Tx, TxId};
use revm::primitives::hardfork::SpecId;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::read::{Head, executed_transaction, receipt};
use super::system::requests_hash;
use super::{ExecutedHere, end_block};
use crate::beside::beside;
use crate::maps::{
    BLOCKS, CHAIN, CHANGES, EXECUTED, HASHES, LOGS, NUMBERS, OPEN, TRANSACTIONS, hash_key,
};
use crate::record::{self, BlockRecord, Change, OpenBlock, Position, Positions, TransactionRecord};
use crate::roots::Successor;
use crate::{Chain, Refusal, StateError, World};

/// A block that was sealed.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its hash.
    pub hash: B256,
    /// Its header.
    pub header: Header,
}

/// The transactions of a block in their order, and what the block changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Included {
    pub transactions: Vec<BlockTransaction>,
    pub changes: Vec<Change>,
}

/// A transaction of a block.
#[derive(Clone, Debug)]
pub(crate) struct BlockTransaction {
    pub hash: B256,
    pub record: TransactionRecord,
}

impl Included {
    /// All logs of the block, in order.
    pub fn logs(&self) -> impl Iterator<Item = &Log> {
        self.transactions.iter().flat_map(|included| &included.record.logs)
    }

    pub fn hashes(&self) -> Vec<B256> {
        self.transactions.iter().map(|included| included.hash).collect()
    }
}

/// What a block's header says of its transactions.
#[derive(Clone, Debug)]
pub(crate) struct BlockDraft {
    pub transactions_root: B256,
    pub receipts_root: B256,
    pub bloom: Bloom,
    pub gas_used: u64,
}

impl Chain {
    /// From so many transactions on another thread pays.
    const SEALED_ON_TWO_THREADS: usize = 8;

    /// Seals the open block, if there is one: called once when a batch is cut, with the last
    /// transaction before the cut, which the block's extra data names. Fails only if the stored
    /// state is broken.
    pub fn seal(&self, tx: &mut Tx, last: TxId) -> Result<Option<Sealed>, Refusal> {
        let Some(open) = OpenBlock::read(tx)? else { return Ok(None) };
        let mut included = executed(tx, self.take_executed())?;
        let surroundings = self.surroundings(&open);
        let mut world = World::in_block(tx, self.codes(), open.number);
        let deposits = self.rules().config().deposit_contract_address;
        let (changes, requests) =
            end_block(&surroundings, &mut world, deposits, included.logs(), &[])?;
        included.changes = merged(included.changes.into_iter().chain(changes));

        let parent = open.number.saturating_sub(1);
        let successor = Successor::of(tx, self.codes(), self.tries(), parent, &included.changes)?;
        let make_tries = move || {
            let trie = successor.make();
            (trie.root(), trie)
        };
        let many = included.transactions.len() >= Self::SEALED_ON_TWO_THREADS;
        let ((state_root, trie), draft) = beside(many, make_tries, || {
            record_included(tx, open.number, &included);
            BlockDraft::of(&included)
        });
        let draft = draft?;
        let since = |fork: SpecId| surroundings.spec().is_enabled_in(fork);
        let header = Header {
            parent_hash: open.parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: open.beneficiary,
            state_root,
            transactions_root: draft.transactions_root,
            receipts_root: draft.receipts_root,
            logs_bloom: draft.bloom,
            difficulty: U256::ZERO,
            number: open.number,
            // Transactions of a block run in parallel, so none knows what the others use. What is
            // declared is what it took, if that is more.
            gas_limit: open.gas_limit.max(draft.gas_used),
            gas_used: draft.gas_used,
            timestamp: open.timestamp,
            extra_data: extra_data(last),
            mix_hash: open.prevrandao,
            base_fee_per_gas: since(SpecId::LONDON).then_some(open.base_fee),
            withdrawals_root: since(SpecId::SHANGHAI).then_some(EMPTY_ROOT_HASH),
            blob_gas_used: since(SpecId::CANCUN).then_some(0),
            excess_blob_gas: since(SpecId::CANCUN).then_some(open.excess_blob_gas),
            parent_beacon_block_root: since(SpecId::CANCUN).then_some(B256::ZERO),
            requests_hash: since(SpecId::PRAGUE).then(|| requests_hash(&requests)),
            ..Header::default()
        };
        let hash = header.hash_slow();
        tx.remove(&OPEN, []);
        tx.clear(&EXECUTED);
        let block = BlockRecord {
            header: header.clone(),
            ommers: Vec::new(),
            withdrawals: Vec::new(),
            transactions: included.hashes(),
        };
        let changed = weight(&included.changes);
        record_block(tx, &block, hash);
        self.tries().remember(open.number, hash, trie, changed);
        Ok(Some(Sealed { hash, header }))
    }
}

impl BlockDraft {
    /// Computes the roots over the transactions and their receipts.
    pub(crate) fn of(included: &Included) -> Result<Self, StateError> {
        let mut receipts = Vec::with_capacity(included.transactions.len());
        let (mut gas_used, mut bloom, mut blooms) = (0_u64, Bloom::ZERO, Blooms::default());
        for BlockTransaction { record, .. } in &included.transactions {
            gas_used = gas_used.saturating_add(record.gas_used);
            let logs_bloom = blooms.of(&record.logs);
            bloom |= logs_bloom;
            let receipt = ReceiptWithBloom { receipt: receipt(record, gas_used), logs_bloom };
            receipts.push(ReceiptEnvelope::from_typed(record.kind()?, receipt));
        }
        let envelopes: Vec<&Bytes> =
            included.transactions.iter().map(|included| &included.record.envelope).collect();
        Ok(Self {
            transactions_root: ordered_trie_root_with_encoder(&envelopes, |envelope, out| {
                out.extend_from_slice(envelope);
            }),
            receipts_root: ordered_trie_root_with_encoder(&receipts, |receipt, out| {
                receipt.encode_2718(out);
            }),
            bloom,
            gas_used,
        })
    }
}

/// Makes the blooms of a block: most of its logs are of few contracts and say few things.
#[derive(Default)]
struct Blooms {
    addresses: HashMap<Address, B256>,
    topics: HashMap<B256, B256>,
}

impl Blooms {
    fn of(&mut self, logs: &[Log]) -> Bloom {
        let mut bloom = Bloom::ZERO;
        for log in logs {
            let address = self.addresses.entry(log.address);
            bloom.accrue(BloomInput::Hash(*address.or_insert_with(|| keccak256(log.address))));
            for topic in log.topics() {
                let hash = *self.topics.entry(*topic).or_insert_with(|| keccak256(topic));
                bloom.accrue(BloomInput::Hash(hash));
            }
        }
        bloom
    }
}

/// The transactions of the open block in the order of the ledger, and all that they changed. What
/// is known of them need not be read again.
pub(crate) fn executed(tx: &mut Tx, mut known: ExecutedHere) -> Result<Included, StateError> {
    let mut found = Vec::new();
    tx.for_each(&EXECUTED, |key, value| {
        found.push((B256::try_from(key), value.clone()));
        ControlFlow::Continue(())
    });
    let (mut in_order, mut changes) = (Vec::with_capacity(found.len()), Vec::new());
    for (hash, changed) in found {
        let hash = hash.map_err(|_| StateError::BadRecord { map: EXECUTED.as_str() })?;
        let seqno = tx.version_of_previous_write(&EXECUTED, hash.as_slice());
        let record = match known.remove(&hash) {
            Some(known) if Some(known.seqno) == seqno => {
                changes.extend(known.changes);
                known.record
            }
            _ => {
                changes.extend(record::decode::<Vec<Change>>(&EXECUTED, &changed)?);
                executed_transaction(tx, hash)?.ok_or(StateError::NoTransaction(hash))?
            }
        };
        in_order.push((seqno, BlockTransaction { hash, record }));
    }
    in_order.sort_by_key(|(seqno, _)| *seqno);
    let transactions = in_order.into_iter().map(|(_, transaction)| transaction).collect();
    Ok(Included { transactions, changes })
}

/// Writes an executed transaction, for ever.
pub(crate) fn record_transaction(tx: &mut Tx, hash: &B256, record: &TransactionRecord) {
    tx.put(&TRANSACTIONS, hash_key(hash), record::encode(record));
}

/// Accounts and slots that changed.
pub(crate) fn weight(changes: &[Change]) -> usize {
    changes.iter().map(|change| 1 + change.slots.len()).sum()
}

/// One change for each account, with all its slots.
pub(crate) fn merged(changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
    let mut by_address: BTreeMap<Address, Vec<U256>> = BTreeMap::new();
    for change in changes {
        by_address.entry(change.address).or_default().extend(change.slots);
    }
    let merge = |(address, mut slots): (Address, Vec<U256>)| {
        slots.sort_unstable();
        slots.dedup();
        Change { address, slots }
    };
    by_address.into_iter().map(merge).collect()
}

/// Writes a block and all by which it is found again, and makes it the head.
pub(crate) fn record_block(tx: &mut Tx, block: &BlockRecord, hash: B256) {
    let header = &block.header;
    let number = header.number.to_be_bytes();
    tx.put(&BLOCKS, number, record::encode(block));
    tx.put(&HASHES, number, hash.0);
    tx.put(&NUMBERS, hash_key(&hash), number);
    tx.put(&CHAIN, "head", record::encode(&Head::of(header, hash)));
}

/// Writes what a block changed, and all by which its transactions and their logs are found again.
pub(crate) fn record_included(tx: &mut Tx, block: u64, included: &Included) {
    tx.put(&CHANGES, block.to_be_bytes(), record::encode(&included.changes));
    let (mut cumulative_gas_used, mut first_log) = (0_u64, 0);
    let mut positions = Vec::with_capacity(included.transactions.len());
    for (index, BlockTransaction { hash, record }) in (0..).zip(&included.transactions) {
        cumulative_gas_used = cumulative_gas_used.saturating_add(record.gas_used);
        positions.push((*hash, Position { index, cumulative_gas_used, first_log }));
        first_log += record.logs.len() as u64;
        for log in &record.logs {
            tx.put(&LOGS, log_key(0, log.address.as_slice(), block), []);
            for (kind, topic) in (1..).zip(log.topics()) {
                tx.put(&LOGS, log_key(kind, topic.as_slice(), block), []);
            }
        }
    }
    Positions::new(positions).write(tx, block);
}

/// The key under which a block is found by an address (kind 0) or topic (kinds 1 to 4) in its logs.
/// Of that it has 13 bytes, onto which those before are folded, so that the store keeps the key in
/// its nodes: whoever finds the block by it looks at the logs themselves.
pub(crate) fn log_key(kind: u8, what: &[u8], block: u64) -> [u8; 22] {
    let mut key = [0; 22];
    key[0] = kind;
    let (head, number) = key.split_at_mut(14);
    number.copy_from_slice(&block.to_be_bytes());
    for piece in what.rchunks(13) {
        head.iter_mut().rev().zip(piece.iter().rev()).for_each(|(byte, more)| *byte ^= more);
    }
    key
}

/// The ledger's TxID as text, which explorers show: `2.17`. It has at most 32 bytes, the limit of
/// an Ethereum header, as long as there are less than 10^11 views.
fn extra_data(last: TxId) -> Bytes {
    let mut text = last.to_string().into_bytes();
    text.truncate(32);
    text.into()
}

#[cfg(test)]
mod tests {
    use coco_kv::{Store, View};

    use super::*;
    use crate::block::ExecutedAt;

    #[test]
    fn what_is_known_of_an_execution_counts_only_if_it_is_the_one_stored() {
        let hash = B256::repeat_byte(7);
        let record = |gas_used| TransactionRecord {
            envelope: Bytes::from_static(&[1]),
            sender: Address::ZERO,
            block: 1,
            outcome: Bytes::from_static(&[1]),
            gas_used,
            logs: Vec::new(),
        };
        let store = Store::new(View(2));
        let mut tx = store.begin();
        record_transaction(&mut tx, &hash, &record(10));
        tx.put(&EXECUTED, hash_key(&hash), record::encode(&Vec::<Change>::new()));
        let stored_at = store.commit(tx, |tx_id, _| tx_id).unwrap().tx_id().seqno;
        for (seqno, gas_used) in [(stored_at, 20), (stored_at.next(), 10)] {
            let known = ExecutedAt { seqno, record: record(20), changes: Vec::new() };
            let included = executed(&mut store.begin(), [(hash, known)].into_iter().collect());
            let included = included.unwrap().transactions;
            assert_eq!(included.first().map(|included| included.record.gas_used), Some(gas_used));
        }
    }

    #[test]
    fn every_byte_of_an_address_or_topic_counts_in_its_key() {
        for length in [20, 32] {
            let mut keys = std::collections::BTreeSet::from([log_key(1, &vec![0; length], 7)]);
            for place in 0..length {
                let mut topic = vec![0; length];
                topic[place] = place as u8 + 1;
                assert!(keys.insert(log_key(1, &topic, 7)), "byte {place} of {length}");
            }
        }
        let key = log_key(2, &[9; 20], 0x0102);
        assert_eq!(key[0], 2);
        // The first 7 bytes are folded onto the last 7.
        assert_eq!(key[1..14], [[9; 6].as_slice(), &[0; 7]].concat());
        assert_eq!(key[14..], 0x0102_u64.to_be_bytes());
    }
}
