//! The block being filled, and execution in it.

use alloy_primitives::map::HashMap;
use alloy_primitives::{B256, U256};
use coco_adapter::Environment;
use coco_crypto::{Digest, sha256};
use coco_kv::{Seqno, Tx};
use revm::context::result::ExecutionResult;
use revm::context::{BlockEnv, TxEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::primitives::hardfork::SpecId;

use super::{Head, begin_block, is_executed, record_transaction};
use crate::maps::{EXECUTED, OPEN, hash_key};
use crate::record::{self, Change, OpenBlock, TransactionRecord};
use crate::{Chain, FeePolicy, Refusal, SignedTransaction, StateError, Surroundings, World};

/// What the transaction that opens a block takes from outside the store.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// What `PREVRANDAO` gives in the block.
    pub randomness: B256,
}

impl Opening {
    /// A block that is opened now.
    pub fn now(environment: &dyn Environment) -> Self {
        let mut randomness = B256::ZERO;
        environment.entropy().fill(&mut randomness.0);
        Self { now_ms: environment.now_ms(), randomness }
    }
}

/// An execution that is part of the open block.
#[derive(Clone, Debug)]
pub struct Executed {
    /// The transaction.
    pub hash: B256,
    /// The result of the EVM: a revert is one, too.
    pub result: ExecutionResult,
    /// What is stored of it.
    record: TransactionRecord,
    changes: Vec<Change>,
}

/// What this node has executed of the open block, so that sealing it need not read and decode it.
/// The store has all of it, and decides.
pub(crate) type ExecutedHere = HashMap<B256, ExecutedAt>;

/// An executed transaction with its position on the ledger.
#[derive(Debug)]
pub(crate) struct ExecutedAt {
    pub seqno: Seqno,
    pub record: TransactionRecord,
    pub changes: Vec<Change>,
}

impl Executed {
    /// What the ledger's receipt claims of the transaction: SHA-256 of its hash, so that whoever
    /// has the signed transaction and the receipt can tell that they belong together.
    pub fn claims(&self) -> Digest {
        sha256(self.hash.as_slice())
    }

    pub(crate) fn at(self, seqno: Seqno) -> ExecutedAt {
        ExecutedAt { seqno, record: self.record, changes: self.changes }
    }
}

impl Chain {
    /// Executes a transaction in the open block, and opens one if there is none, for which alone
    /// `opening` is asked. Everything it does is in `tx`; a refused transaction must not be committed.
    ///
    /// Executions in one block run in parallel: beyond the accounts and slots that they share they
    /// read the open block only, which changes when it is opened and when it is sealed.
    pub fn execute(
        &self,
        tx: &mut Tx,
        transaction: &SignedTransaction,
        opening: impl FnOnce() -> Opening,
    ) -> Result<Executed, Refusal> {
        let hash = transaction.hash();
        self.check_chain_id(transaction)?;
        let mut changes = Vec::new();
        let open = match OpenBlock::read(tx)? {
            Some(open) => open,
            None => {
                let open = self.next_block(tx, &opening())?;
                tx.put(&OPEN, [], record::encode(&open));
                let surroundings = self.surroundings(&open);
                let mut world = World::in_block(tx, self.codes(), open.number);
                let parent = open.parent_hash;
                changes = begin_block(&surroundings, &mut world, parent, Some(B256::ZERO))?;
                open
            }
        };
        let surroundings = self.surroundings(&open);
        let mut world = World::in_block(tx, self.codes(), open.number);
        let evm = self.priced(transaction.to_evm());
        let executed = match surroundings.execute(&mut world, evm.clone()) {
            Ok(executed) => executed,
            Err(error) => {
                let refusal = Refusal::of(error, &evm, open.base_fee);
                let known = refusal.is_used_nonce() && is_executed(tx, &hash);
                return Err(if known { Refusal::AlreadyKnown } else { refusal });
            }
        };
        changes.extend(world.apply(executed.state, surroundings.spec())?);

        let result = executed.result;
        let record = TransactionRecord::of(transaction, open.number, &result);
        record_transaction(tx, &hash, &record);
        tx.put(&EXECUTED, hash_key(&hash), record::encode(&changes));
        Ok(Executed { hash, result, record, changes })
    }

    /// The block that comes after the head, as it would be opened now.
    pub fn next_block(&self, tx: &mut Tx, opening: &Opening) -> Result<OpenBlock, StateError> {
        let head = Head::read(tx)?.ok_or(StateError::NoGenesis)?;
        // Blocks are closer than a second, so two of them may have one time, but none goes back.
        let timestamp = head.timestamp.max(opening.now_ms / 1000);
        let number = head.number.saturating_add(1);
        let spec = self.rules().spec_at(number, timestamp, U256::ZERO);
        let base_fee = match self.rules().fees() {
            FeePolicy::Free => 0,
            FeePolicy::Fixed(fee) if spec.is_enabled_in(SpecId::LONDON) => fee,
            FeePolicy::Fixed(_) => 0,
            FeePolicy::Market => head.next_base_fee,
        };
        Ok(OpenBlock {
            number,
            parent_hash: head.hash,
            timestamp,
            prevrandao: opening.randomness,
            base_fee,
            gas_limit: head.gas_limit,
            beneficiary: self.rules().beneficiary,
            excess_blob_gas: 0,
        })
    }

    /// The rules and environment of executions in a block.
    pub fn surroundings(&self, block: &OpenBlock) -> Surroundings {
        let spec = self.rules().spec_at(block.number, block.timestamp, U256::ZERO);
        let rules = self.rules().evm_rules(spec, block.timestamp);
        let blobs = spec.is_enabled_in(SpecId::CANCUN).then(|| {
            let fraction = rules.blob_base_fee_update_fraction();
            BlobExcessGasAndPrice::new(block.excess_blob_gas, fraction)
        });
        let block = BlockEnv {
            number: U256::from(block.number),
            beneficiary: block.beneficiary,
            timestamp: U256::from(block.timestamp),
            gas_limit: block.gas_limit,
            basefee: block.base_fee,
            difficulty: U256::ZERO,
            prevrandao: spec.is_enabled_in(SpecId::MERGE).then_some(block.prevrandao),
            blob_excess_gas_and_price: blobs,
            ..BlockEnv::default()
        };
        Surroundings::new(rules, block)
    }

    /// The transaction with the price it pays under the chain's policy.
    pub fn priced(&self, transaction: TxEnv) -> TxEnv {
        match self.rules().fees() {
            FeePolicy::Free => TxEnv {
                gas_price: 0,
                gas_priority_fee: transaction.gas_priority_fee.map(|_| 0),
                ..transaction
            },
            FeePolicy::Fixed(_) | FeePolicy::Market => transaction,
        }
    }

    fn check_chain_id(&self, transaction: &SignedTransaction) -> Result<(), Refusal> {
        use alloy_consensus::Transaction as _;
        let want = self.rules().chain_id();
        match transaction.envelope().chain_id() {
            Some(have) if have != want => Err(Refusal::WrongChain { have, want }),
            Some(_) => Ok(()),
            None if self.rules().options.unprotected_transactions => Ok(()),
            None => Err(Refusal::Unprotected),
        }
    }
}

impl OpenBlock {
    /// The block being filled, if one is.
    pub fn read(tx: &mut Tx) -> Result<Option<Self>, StateError> {
        record::read(tx, &OPEN, &[])
    }
}
