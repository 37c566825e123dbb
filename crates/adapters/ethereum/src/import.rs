//! Blocks made elsewhere: executed again, checked against their headers, kept with them.

use alloy_consensus::{Block, EMPTY_OMMER_ROOT_HASH, Header, TxEnvelope, proofs};
use alloy_primitives::{B256, Bytes, U256};
use alloy_rlp::Decodable;
use coco_kv::Tx;
use revm::context::BlockEnv;
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::primitives::hardfork::SpecId;

use crate::block::{
    BlockDraft, BlockTransaction, Head, Included, begin_block, end_block, merged, pay,
    record_block, record_included, record_transaction, requests_hash, weight,
};
use crate::record::{BlockRecord, Change, OpenBlock, TransactionRecord};
use crate::roots::Successor;
use crate::{Chain, Refusal, SignedTransaction, StateError, Surroundings, World, block_hash};

/// A block as it is exchanged, with signed transactions.
pub type ImportedBlock = Block<TxEnvelope>;

/// A block cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bytes are not a sequence of RLP blocks.
    #[error("byte {offset} does not begin a block: {error}")]
    Syntax {
        /// From the start of the file.
        offset: usize,
        /// What is wrong.
        error: alloy_rlp::Error,
    },
    /// It does not follow the last block.
    #[error("block {number} does not follow block {head} with hash {hash}")]
    NotNext {
        /// The block's number.
        number: u64,
        /// The last block's.
        head: u64,
        /// The last block's.
        hash: B256,
    },
    /// The first block of another chain.
    #[error("the file begins with block 0 {stated}, the genesis makes block 0 {own}")]
    OtherGenesis {
        /// The hash of the block.
        stated: B256,
        /// Of this chain's first block.
        own: B256,
    },
    /// The chain executes transactions of its own: their block must be sealed first.
    #[error("a block is being filled")]
    Open,
    /// A rule that this node does not carry.
    #[error("block {number}: {what} is not supported")]
    Unsupported {
        /// The block's number.
        number: u64,
        /// The rule.
        what: &'static str,
    },
    /// One of its transactions cannot be executed.
    #[error("block {number}, transaction {index}: {refusal}")]
    Refused {
        /// The block's number.
        number: u64,
        /// In the block.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
    /// The header says otherwise.
    #[error("block {number}: {field} is {computed}, the header says {stated}")]
    Differs {
        /// The block's number.
        number: u64,
        /// The field of the header.
        field: &'static str,
        /// By execution.
        computed: String,
        /// By the header.
        stated: String,
    },
    /// The ledger does not take it.
    #[error("the block is not on the ledger: {0}")]
    NotCommitted(coco_adapter::CommitError),
    /// What the block does by itself failed.
    #[error(transparent)]
    Failed(#[from] Refusal),
    /// What is stored cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The blocks of a file that holds one after the other, as geth's `export` writes it.
pub fn blocks_of(file: &[u8]) -> impl Iterator<Item = Result<ImportedBlock, ImportError>> {
    let mut rest = file;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let offset = file.len().saturating_sub(rest.len());
        let block = ImportedBlock::decode(&mut rest);
        if block.is_err() {
            rest = &[];
        }
        Some(block.map_err(|error| ImportError::Syntax { offset, error }))
    })
}

impl Chain {
    /// Whether a block is the first one, which the chain has from its genesis: geth's `export`
    /// begins with it.
    pub fn is_first(&self, tx: &mut Tx, block: &ImportedBlock) -> Result<bool, ImportError> {
        if block.header.number != 0 {
            return Ok(false);
        }
        let own = block_hash(tx, 0).ok_or(StateError::NoGenesis)?;
        let stated = block.header.hash_slow();
        if stated == own { Ok(true) } else { Err(ImportError::OtherGenesis { stated, own }) }
    }

    /// Executes a block that follows the head and keeps it with its own header, if that says what
    /// the execution gives. Returns its hash. Nothing may be committed after an error.
    pub fn import(&self, tx: &mut Tx, block: &ImportedBlock) -> Result<B256, ImportError> {
        let header = &block.header;
        let number = header.number;
        let head = Head::read(tx)?.ok_or(StateError::NoGenesis)?;
        if number.checked_sub(1) != Some(head.number) || header.parent_hash != head.hash {
            return Err(ImportError::NotNext { number, head: head.number, hash: head.hash });
        }
        if OpenBlock::read(tx)?.is_some() {
            return Err(ImportError::Open);
        }
        let config = self.rules().config();
        if config.dao_fork_support && config.dao_fork_block == Some(number) {
            return Err(ImportError::Unsupported { number, what: "the DAO's irregular state" });
        }
        let surroundings = self.surroundings_of(header);
        let mut trie = Successor::of(tx, self.codes(), self.tries(), head.number, &[])?.make();

        let withdrawals = block.body.withdrawals.as_ref().map(|w| w.0.clone()).unwrap_or_default();
        let mut world = World::in_block(tx, self.codes(), number);
        let beacon_root = header.parent_beacon_block_root;
        let mut changes = begin_block(&surroundings, &mut world, header.parent_hash, beacon_root)?;
        let mut included = Included::default();
        for (index, envelope) in block.body.transactions.iter().enumerate() {
            let refused = |refusal| ImportError::Refused { number, index, refusal };
            let (hash, mut record, changed) =
                self.execute_again(&surroundings, &mut world, envelope).map_err(refused)?;
            if !surroundings.spec().is_enabled_in(SpecId::BYZANTIUM) {
                trie.update(&mut world, &changed)?;
                record.outcome = Bytes::copy_from_slice(trie.root().as_slice());
            }
            changes.extend(changed);
            included.transactions.push(BlockTransaction { hash, record });
        }
        changes.extend(self.rewards(&mut world, header, &block.body.ommers)?);
        let deposits = config.deposit_contract_address;
        let (changed, requests) =
            end_block(&surroundings, &mut world, deposits, included.logs(), &withdrawals)?;
        changes.extend(changed);
        included.changes = merged(changes);
        trie.update(&mut world, &included.changes)?;

        let draft = BlockDraft::of(&included)?;
        let spec = surroundings.spec();
        let computed = Header {
            state_root: trie.root(),
            transactions_root: draft.transactions_root,
            receipts_root: draft.receipts_root,
            logs_bloom: draft.bloom,
            gas_used: draft.gas_used,
            ommers_hash: ommers_hash(&block.body.ommers),
            withdrawals_root: spec
                .is_enabled_in(SpecId::SHANGHAI)
                .then(|| proofs::calculate_withdrawals_root(&withdrawals)),
            requests_hash: spec.is_enabled_in(SpecId::PRAGUE).then(|| requests_hash(&requests)),
            ..header.clone()
        };
        check(&computed, header)?;

        let hash = header.hash_slow();
        let record = BlockRecord {
            header: header.clone(),
            ommers: block.body.ommers.clone(),
            withdrawals,
            transactions: included.hashes(),
        };
        let changed = weight(&included.changes);
        for BlockTransaction { hash, record } in &included.transactions {
            record_transaction(tx, hash, record);
        }
        record_block(tx, &record, hash);
        record_included(tx, number, &included);
        self.tries().remember(number, hash, trie, changed);
        Ok(hash)
    }

    /// The rules and environment that a header states.
    pub fn surroundings_of(&self, header: &Header) -> Surroundings {
        let spec = self.rules().spec_at(header.number, header.timestamp, header.difficulty);
        let rules = self.rules().evm_rules(spec, header.timestamp);
        let fraction = rules.blob_base_fee_update_fraction();
        let block = BlockEnv {
            number: U256::from(header.number),
            beneficiary: header.beneficiary,
            timestamp: U256::from(header.timestamp),
            gas_limit: header.gas_limit,
            basefee: header.base_fee_per_gas.unwrap_or_default(),
            difficulty: header.difficulty,
            prevrandao: spec.is_enabled_in(SpecId::MERGE).then_some(header.mix_hash),
            blob_excess_gas_and_price: header
                .excess_blob_gas
                .map(|excess| BlobExcessGasAndPrice::new(excess, fraction)),
            ..BlockEnv::default()
        };
        Surroundings::new(rules, block)
    }

    /// What the miners of a block and of its ommers get under proof of work.
    pub(crate) fn rewards(
        &self,
        world: &mut World<'_>,
        header: &Header,
        ommers: &[Header],
    ) -> Result<Vec<Change>, StateError> {
        let spec = self.rules().spec_at(header.number, header.timestamp, header.difficulty);
        if spec.is_enabled_in(SpecId::MERGE) || self.rules().config().clique.is_some() {
            return Ok(Vec::new());
        }
        let ether = match spec {
            spec if spec.is_enabled_in(SpecId::PETERSBURG) => 2_u64,
            spec if spec.is_enabled_in(SpecId::BYZANTIUM) => 3,
            _ => 5,
        };
        let reward = U256::from(ether) * U256::from(1_000_000_000_000_000_000_u64);
        let mut changes = Vec::new();
        for ommer in ommers {
            let distance = header.number.saturating_sub(ommer.number).min(8);
            let share = reward * U256::from(8 - distance) / U256::from(8);
            changes.extend(pay(world, ommer.beneficiary, share)?);
        }
        let whole = reward + reward / U256::from(32) * U256::from(ommers.len());
        changes.extend(pay(world, header.beneficiary, whole)?);
        Ok(changes)
    }

    fn execute_again(
        &self,
        surroundings: &Surroundings,
        world: &mut World<'_>,
        envelope: &TxEnvelope,
    ) -> Result<(B256, TransactionRecord, Vec<Change>), Refusal> {
        let spec = surroundings.spec();
        let signed = if spec.is_enabled_in(SpecId::HOMESTEAD) {
            SignedTransaction::new(envelope.clone())
        } else {
            SignedTransaction::new_frontier(envelope.clone())
        };
        let signed = signed.map_err(|error| Refusal::Failed(error.to_string()))?;
        let evm = self.priced(signed.to_evm());
        let block = &surroundings.block;
        let executed = surroundings
            .execute(world, evm.clone())
            .map_err(|error| Refusal::of(error, &evm, block.basefee))?;
        let changes = world.apply(executed.state, spec)?;
        let result = executed.result;
        let record = TransactionRecord::of(&signed, block.number.saturating_to(), &result);
        Ok((signed.hash(), record, changes))
    }
}

fn ommers_hash(ommers: &[Header]) -> B256 {
    if ommers.is_empty() { EMPTY_OMMER_ROOT_HASH } else { proofs::calculate_ommers_root(ommers) }
}

fn check(computed: &Header, stated: &Header) -> Result<(), ImportError> {
    macro_rules! same {
        ($($field:ident),+) => {$(
            if computed.$field != stated.$field {
                return Err(ImportError::Differs {
                    number: stated.number,
                    field: stringify!($field),
                    computed: format!("{:?}", computed.$field),
                    stated: format!("{:?}", stated.$field),
                });
            }
        )+};
    }
    same!(gas_used, receipts_root, logs_bloom, transactions_root, state_root);
    same!(ommers_hash, withdrawals_root, requests_hash);
    Ok(())
}
