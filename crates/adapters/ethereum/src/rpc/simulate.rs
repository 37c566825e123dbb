//! `eth_simulateV1`: blocks that might come, as geth makes them.

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{BlockBody, EMPTY_OMMER_ROOT_HASH, Header, Transaction as _, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rlp::Encodable;
use alloy_rpc_types_eth::simulate::{SimBlock, SimulatePayload};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{
    Block, BlockOverrides, BlockTransactions, Log, Transaction, TransactionRequest, Withdrawals,
};
use coco_kv::Tx;
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use serde_json::{Value as Json, json};

use super::call::{moved_precompiles, override_account};
use super::envelope::unsigned;
use super::transfers::TransferLogs;
use super::view::At;
use super::{Answer, Params, Rpc, RpcError, quantity, to_json};
use crate::block::{
    BlockDraft, BlockTransaction, Included, begin_block, end_block, merged, requests_hash,
};
use crate::maps::HASHES;
use crate::record::{Change, TransactionRecord};
use crate::transaction::to_evm;
use crate::{Account, ExecutionError, FeePolicy, Head, Refusal, StateTrie, Surroundings, World};

/// Seconds between simulated blocks that do not say.
const BLOCK_SECONDS: u64 = 12;

/// What goes from one simulated block to the next.
struct Simulation<'r> {
    rpc: &'r Rpc,
    payload: Options,
    parent: Header,
    parent_hash: B256,
    trie: StateTrie,
    gas_left: u64,
}

#[derive(Clone, Copy)]
struct Options {
    validation: bool,
    trace_transfers: bool,
    full_transactions: bool,
}

/// One call of a simulated block, executed.
struct Called {
    envelope: TxEnvelope,
    sender: Address,
    result: ExecutionResult,
    logs: Vec<alloy_primitives::Log>,
}

impl Rpc {
    /// Blocks in one simulation, those in between included.
    const MAX_SIMULATED: u64 = 256;

    pub(super) fn simulate(&self, params: &Params) -> Answer {
        let payload: SimulatePayload = params.required(0)?;
        if payload.block_state_calls.is_empty() {
            return Err(RpcError::invalid_params("empty input"));
        }
        if payload.block_state_calls.len() as u64 > Self::MAX_SIMULATED {
            return Err(too_many());
        }
        let mut tx = self.node.begin();
        let base = match self.state_at(&mut tx, params, 1)? {
            At::Block(number) => number,
            At::Pending => self.head(&mut tx)?.number,
        };
        let parent = self.sealed(&mut tx, base)?.header;
        let mut simulation = Simulation {
            rpc: self,
            payload: Options {
                validation: payload.validation,
                trace_transfers: payload.trace_transfers,
                full_transactions: payload.return_full_transactions,
            },
            parent_hash: parent.hash_slow(),
            trie: self.trie_at(&mut tx, base)?,
            gas_left: Self::CALL_GAS,
            parent,
        };
        let blocks = in_sequence(&simulation.parent, payload.block_state_calls)?;
        let mut shown = Vec::with_capacity(blocks.len());
        for block in blocks {
            shown.push(simulation.block(&mut tx, base, block)?);
        }
        Ok(Json::Array(shown))
    }
}

/// The blocks with numbers and times that rise, and those that are missing between them.
fn in_sequence(base: &Header, blocks: Vec<SimBlock>) -> Result<Vec<SimBlock>, RpcError> {
    let (mut number, mut time) = (base.number, base.timestamp);
    let mut all = Vec::new();
    for mut block in blocks {
        let overrides = block.block_overrides.get_or_insert_default();
        let wanted = overrides.number.unwrap_or(U256::from(number).saturating_add(U256::ONE));
        let wanted: u64 = wanted.saturating_to();
        if wanted <= number {
            let message = format!("block numbers must be in order: {wanted} <= {number}");
            return Err(RpcError::new(-38020, message));
        }
        if wanted.saturating_sub(base.number) > Rpc::MAX_SIMULATED {
            return Err(too_many());
        }
        for missing in number.saturating_add(1)..wanted {
            time = time.saturating_add(BLOCK_SECONDS);
            let overrides =
                BlockOverrides::default().with_number(U256::from(missing)).with_time(time);
            all.push(SimBlock { block_overrides: Some(overrides), ..SimBlock::default() });
        }
        let wanted_time = overrides.time.unwrap_or(time.saturating_add(BLOCK_SECONDS));
        if wanted_time <= time {
            let message = format!("block timestamps must be in order: {wanted_time} <= {time}");
            return Err(RpcError::new(-38021, message));
        }
        (number, time) = (wanted, wanted_time);
        (overrides.number, overrides.time) = (Some(U256::from(number)), Some(time));
        all.push(block);
    }
    Ok(all)
}

fn too_many() -> RpcError {
    RpcError::new(-38026, "too many blocks")
}

impl Simulation<'_> {
    fn block(&mut self, tx: &mut Tx, base: u64, block: SimBlock) -> Answer {
        let overrides = block.block_overrides.unwrap_or_default();
        let mut header = self.header(&overrides);
        let mut surroundings = self.surroundings(&header, &overrides);
        let overrides = block.state_overrides.unwrap_or_default();
        let precompiles = moved_precompiles(surroundings.spec(), &overrides)?;
        let chain = self.rpc.chain().clone();
        let mut world = World::past(tx, chain.codes(), base);
        let mut changes = override_all(&mut world, overrides)?;
        let beacon_root = header.parent_beacon_block_root;
        changes.extend(begin_block(&surroundings, &mut world, self.parent_hash, beacon_root)?);
        surroundings.precompiles = precompiles;

        let (mut calls, mut included) = (Vec::new(), Included::default());
        let mut gas_used = 0_u64;
        for request in block.calls {
            let envelope = self.envelope(&mut world, &surroundings, &request, gas_used)?;
            let sender = request.from.unwrap_or_default();
            let (called, changed) = self.call(&mut world, &surroundings, envelope, sender)?;
            let used = called.result.tx_gas_used();
            gas_used = gas_used.saturating_add(used);
            self.gas_left = self.gas_left.saturating_sub(used);
            changes.extend(changed);
            let record = TransactionRecord {
                envelope: alloy_eips::eip2718::Encodable2718::encoded_2718(&called.envelope).into(),
                sender,
                block: header.number,
                outcome: Bytes::from(vec![u8::from(called.result.is_success())]),
                gas_used: used,
                logs: match &called.result {
                    ExecutionResult::Success { logs, .. } => logs.clone(),
                    _ => Vec::new(),
                },
            };
            let hash = *called.envelope.tx_hash();
            included.transactions.push(BlockTransaction { hash, record });
            calls.push(called);
        }
        let deposits = chain.rules().config().deposit_contract_address;
        let (changed, requests) =
            end_block(&surroundings, &mut world, deposits, included.logs(), &[])?;
        changes.extend(changed);
        changes.extend(chain.rewards(&mut world, &header, &[])?);
        self.trie.update(&mut world, &merged(changes))?;

        let draft = BlockDraft::of(&included)?;
        header.state_root = self.trie.root();
        header.transactions_root = draft.transactions_root;
        header.receipts_root = draft.receipts_root;
        header.logs_bloom = draft.bloom;
        header.gas_used = draft.gas_used;
        header.requests_hash = header.requests_hash.map(|_| requests_hash(&requests));
        let blob_gas = calls.iter().filter_map(|called| called.envelope.blob_gas_used()).sum();
        header.blob_gas_used = header.blob_gas_used.map(|_| blob_gas);
        let hash = header.hash_slow();
        tx.put(&HASHES, header.number.to_be_bytes(), hash.0);
        let shown = self.show(&header, hash, calls)?;
        (self.parent, self.parent_hash) = (header, hash);
        Ok(shown)
    }

    fn header(&self, overrides: &BlockOverrides) -> Header {
        let (parent, rules) = (&self.parent, self.rpc.chain().rules());
        let number = overrides.number.map_or(parent.number + 1, |number| number.saturating_to());
        let timestamp = overrides.time.unwrap_or(parent.timestamp);
        let spec = rules.spec_at(number, timestamp, parent.difficulty);
        use revm::primitives::hardfork::SpecId;
        let since = |fork: SpecId| spec.is_enabled_in(fork);
        let base_fee = match (overrides.base_fee, self.payload.validation) {
            (Some(fee), _) => fee.saturating_to(),
            (None, true) => match rules.fees() {
                FeePolicy::Market => Head::next_base_fee_of(parent),
                FeePolicy::Fixed(fee) => fee,
                FeePolicy::Free => 0,
            },
            (None, false) => 0,
        };
        let excess = rules.blobs_at(timestamp).and_then(|b| parent.next_block_excess_blob_gas(b));
        Header {
            parent_hash: self.parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: overrides.coinbase.unwrap_or(parent.beneficiary),
            difficulty: overrides.difficulty.unwrap_or(parent.difficulty),
            number,
            gas_limit: overrides.gas_limit.unwrap_or(parent.gas_limit),
            timestamp,
            mix_hash: overrides.random.unwrap_or_default(),
            base_fee_per_gas: since(SpecId::LONDON).then_some(base_fee),
            withdrawals_root: since(SpecId::SHANGHAI).then_some(alloy_consensus::EMPTY_ROOT_HASH),
            blob_gas_used: since(SpecId::CANCUN).then_some(0),
            excess_blob_gas: since(SpecId::CANCUN).then(|| excess.unwrap_or_default()),
            parent_beacon_block_root: since(SpecId::CANCUN)
                .then(|| overrides.beacon_root.unwrap_or_default()),
            requests_hash: since(SpecId::PRAGUE).then_some(B256::ZERO),
            ..Header::default()
        }
    }

    fn surroundings(&self, header: &Header, overrides: &BlockOverrides) -> Surroundings {
        let mut surroundings = self.rpc.chain().surroundings_of(header);
        let rules = &mut surroundings.rules;
        rules.disable_eip3607 = true;
        rules.disable_block_gas_limit = true;
        rules.tx_gas_limit_cap = Some(u64::MAX);
        rules.disable_nonce_check = !self.payload.validation;
        rules.disable_base_fee = !self.payload.validation;
        let blob = &mut surroundings.block.blob_excess_gas_and_price;
        if let (Some(fee), Some(blob)) = (overrides.blob_base_fee, blob.as_mut()) {
            blob.blob_gasprice = fee.saturating_to();
        }
        surroundings
    }

    /// The transaction that a call of a block is, with what it leaves out filled in.
    fn envelope(
        &self,
        world: &mut World<'_>,
        surroundings: &Surroundings,
        request: &TransactionRequest,
        gas_used: u64,
    ) -> Result<TxEnvelope, RpcError> {
        let sender = request.from.unwrap_or_default();
        let block_gas = surroundings.block.gas_limit;
        let gas = request.gas.unwrap_or(block_gas.saturating_sub(gas_used));
        if gas_used.saturating_add(gas) > block_gas {
            let message = format!("block gas limit reached: {gas_used} >= {block_gas}");
            return Err(RpcError::new(-38015, message));
        }
        let nonce = match request.nonce {
            Some(nonce) => nonce,
            None => world.account(sender)?.unwrap_or_default().nonce,
        };
        let chain_id = self.rpc.chain().rules().chain_id();
        Ok(unsigned(request, nonce, gas.min(self.gas_left), chain_id))
    }

    fn call(
        &self,
        world: &mut World<'_>,
        surroundings: &Surroundings,
        envelope: TxEnvelope,
        sender: Address,
    ) -> Result<(Called, Vec<Change>), RpcError> {
        let mut call = self.rpc.chain().priced(to_evm(&envelope, sender));
        // No real account comes this far (EIP-2681); in a simulation it starts again, as in geth.
        let wraps = !self.payload.validation && call.nonce == u64::MAX;
        if wraps {
            call.nonce = 0;
        }
        let mut surroundings = surroundings.clone();
        if !self.payload.validation
            && call.max_fee_per_blob_gas == 0
            && let Some(blob) = &mut surroundings.block.blob_excess_gas_and_price
        {
            blob.blob_gasprice = 0;
        }
        let mut logs = TransferLogs::new(self.payload.trace_transfers);
        let executed = surroundings
            .inspect(world, call.clone(), &mut logs)
            .map_err(|error| refused(error, &call, surroundings.block.basefee))?;
        let changes = world.apply(executed.state, surroundings.spec())?;
        if wraps && let Some(account) = world.account(sender)? {
            let account = Account { nonce: 0, ..account };
            world.put_account(sender, (account != Account::default()).then_some(account));
        }
        let logs = logs.into_logs();
        Ok((Called { envelope, sender, result: executed.result, logs }, changes))
    }

    fn show(&self, header: &Header, hash: B256, calls: Vec<Called>) -> Answer {
        let mut shown = Vec::with_capacity(calls.len());
        let mut log_index = 0;
        for (index, called) in (0_u64..).zip(&calls) {
            let mut logs = Vec::with_capacity(called.logs.len());
            for log in &called.logs {
                logs.push(Log {
                    inner: log.clone(),
                    block_hash: Some(hash),
                    block_number: Some(header.number),
                    block_timestamp: Some(header.timestamp),
                    transaction_hash: Some(*called.envelope.tx_hash()),
                    transaction_index: Some(index),
                    log_index: Some(log_index),
                    removed: false,
                });
                log_index += 1;
            }
            shown.push(show_call(called, &logs)?);
        }
        let has_withdrawals = header.withdrawals_root.is_some();
        let withdrawals = has_withdrawals.then(Withdrawals::default);
        let transactions: Vec<_> = calls.iter().map(|called| called.envelope.clone()).collect();
        let body = BlockBody { transactions, ommers: Vec::new(), withdrawals: withdrawals.clone() };
        let size = alloy_consensus::Block { header: header.clone(), body }.length();
        let transactions: BlockTransactions<Transaction> = if self.payload.full_transactions {
            let full = (0_u64..).zip(calls).map(|(index, called)| Transaction {
                effective_gas_price: Some(
                    called.envelope.effective_gas_price(header.base_fee_per_gas),
                ),
                inner: Recovered::new_unchecked(called.envelope, called.sender),
                block_hash: Some(hash),
                block_number: Some(header.number),
                transaction_index: Some(index),
                block_timestamp: Some(header.timestamp),
            });
            BlockTransactions::Full(full.collect())
        } else {
            let hashes = calls.iter().map(|called| *called.envelope.tx_hash());
            BlockTransactions::Hashes(hashes.collect())
        };
        let header = alloy_rpc_types_eth::Header {
            hash,
            inner: header.clone(),
            total_difficulty: None,
            size: Some(U256::from(size)),
        };
        let mut block = to_json(&Block { header, uncles: Vec::new(), transactions, withdrawals })?;
        if let Some(object) = block.as_object_mut() {
            object.insert("calls".to_owned(), Json::Array(shown));
        }
        Ok(block)
    }
}

fn show_call(called: &Called, logs: &[Log]) -> Answer {
    let result = &called.result;
    let gas = result.gas();
    let most = gas.total_gas_spent().max(result.tx_gas_used());
    let mut shown = json!({
        // What a revert returns is in its error only.
        "returnData": result.output().filter(|_| result.is_success()).cloned().unwrap_or_default(),
        "logs": to_json(&logs)?,
        "gasUsed": quantity(result.tx_gas_used()),
        "maxUsedGas": quantity(most),
        "status": if result.is_success() { "0x1" } else { "0x0" },
    });
    let error = match result {
        ExecutionResult::Success { .. } => None,
        ExecutionResult::Revert { output, .. } => Some(RpcError::reverted(output)),
        ExecutionResult::Halt { reason, .. } => {
            Some(RpcError::new(-32015, super::error::halt_reason(reason)))
        }
    };
    if let (Some(error), Some(object)) = (error, shown.as_object_mut()) {
        object.insert("error".to_owned(), to_json(&error)?);
    }
    Ok(shown)
}

/// Replaces parts of the state; returns what that changes.
fn override_all(world: &mut World<'_>, overrides: StateOverride) -> Result<Vec<Change>, RpcError> {
    let mut changes = Vec::new();
    for (address, account) in overrides {
        let mut slots: Vec<U256> = Vec::new();
        for map in [&account.state, &account.state_diff].into_iter().flatten() {
            slots.extend(map.keys().map(|slot| U256::from_be_bytes(slot.0)));
        }
        if account.state.is_some() {
            slots.extend(world.clear_storage(address));
        }
        override_account(world, address, account)?;
        changes.push(Change { address, slots });
    }
    Ok(changes)
}

/// Why a whole simulation ends, with the codes of execution-apis.
fn refused(error: ExecutionError, call: &revm::context::TxEnv, base_fee: u64) -> RpcError {
    let code = match &error {
        EVMError::Transaction(InvalidTransaction::NonceTooLow { .. }) => -38010,
        EVMError::Transaction(InvalidTransaction::NonceTooHigh { .. }) => -38011,
        EVMError::Transaction(InvalidTransaction::GasPriceLessThanBasefee) => -38012,
        EVMError::Transaction(
            InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
            | InvalidTransaction::GasFloorMoreThanGasLimit { .. },
        ) => -38013,
        EVMError::Transaction(InvalidTransaction::LackOfFundForMaxFee { .. }) => -38014,
        EVMError::Transaction(InvalidTransaction::CreateInitCodeSizeLimit) => -38025,
        _ => -32000,
    };
    let refusal = Refusal::of(error, call, base_fee);
    RpcError::new(code, format!("err: {refusal} (supplied gas {})", call.gas_limit))
}
