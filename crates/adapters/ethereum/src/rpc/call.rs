//! Executions that leave no trace: calls, gas estimates, access lists.

use std::cell::Cell;

use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, TxKind, U256};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use coco_kv::Tx;
use revm::context::TxEnv;
use revm::context::either::Either;
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::primitives::hardfork::SpecId;
use revm_inspectors::access_list::AccessListInspector;
use serde_json::json;

use super::view::At;
use super::{Answer, Params, Rpc, RpcError, quantity, to_json};
use crate::evm::MovedPrecompiles;
use crate::{Account, ExecutionError, FeePolicy, Refusal, Surroundings, World};

impl Rpc {
    /// Gas of a call that does not say how much it wants; geth's default.
    pub(super) const CALL_GAS: u64 = 50_000_000;
    /// Gas of all executions that one request tries: geth bounds their time instead.
    const TRIED_GAS: u64 = 4 * Self::CALL_GAS;

    pub(super) fn eth_call(&self, params: &Params) -> Answer {
        let request: TransactionRequest = params.required(0)?;
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 1)?;
        let mut surroundings = self.call_surroundings(&mut tx, at, params.optional(3)?)?;
        let mut world = self.world(&mut tx, at)?;
        override_state(&mut world, &mut surroundings, params.optional(2)?)?;
        let call = self.call_of(&mut world, &mut surroundings, &request)?;
        let executed = surroundings
            .execute(&mut world, call.clone())
            .map_err(|error| refused(error, &call, &surroundings))?;
        match RpcError::of_result(&executed.result) {
            Some(error) => Err(error),
            None => to_json(&executed.result.into_output().unwrap_or_default()),
        }
    }

    pub(super) fn estimate_gas(&self, params: &Params) -> Answer {
        let request: TransactionRequest = params.required(0)?;
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 1)?;
        let mut surroundings = self.call_surroundings(&mut tx, at, params.optional(3)?)?;
        let mut world = self.world(&mut tx, at)?;
        override_state(&mut world, &mut surroundings, params.optional(2)?)?;
        let call = self.call_of(&mut world, &mut surroundings, &request)?;
        let most = self.most_gas(&mut world, &surroundings, &request, &call)?;
        Ok(quantity(estimate(&surroundings, &mut world, call, most)?))
    }

    pub(super) fn create_access_list(&self, params: &Params) -> Answer {
        let mut request: TransactionRequest = params.required(0)?;
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 1)?;
        let mut surroundings = self.call_surroundings(&mut tx, at, None)?;
        let mut world = self.world(&mut tx, at)?;
        override_state(&mut world, &mut surroundings, params.optional(2)?)?;
        // What the list holds changes what it costs and may change what is accessed, so it is
        // repeated until it is stable.
        let mut tried = 0_u64;
        while tried <= Self::TRIED_GAS {
            let call = self.call_of(&mut world, &mut surroundings, &request)?;
            let before = request.access_list.clone().unwrap_or_default();
            let mut inspector = AccessListInspector::new(before.clone());
            let executed = surroundings
                .inspect(&mut world, call.clone(), &mut inspector)
                .map_err(|error| refused(error, &call, &surroundings))?;
            tried = tried.saturating_add(executed.result.tx_gas_used().max(Self::CALL_GAS / 16));
            let found = inspector.into_access_list();
            if found == before || request.access_list.as_ref() == Some(&found) {
                let gas_used = quantity(executed.result.tx_gas_used());
                let error = RpcError::of_result(&executed.result).map(|error| error.message);
                let list = sorted(found);
                return Ok(match error {
                    None => json!({"accessList": list, "gasUsed": gas_used}),
                    Some(error) => json!({"accessList": list, "error": error, "gasUsed": gas_used}),
                });
            }
            request.access_list = Some(found);
        }
        Err(RpcError::server("the access list does not become stable"))
    }

    /// The environment of a call: that of the block, with what a call need not obey.
    pub(super) fn call_surroundings(
        &self,
        tx: &mut Tx,
        at: At,
        overrides: Option<BlockOverrides>,
    ) -> Result<Surroundings, RpcError> {
        let mut surroundings = self.surroundings(tx, at)?;
        let rules = &mut surroundings.rules;
        rules.disable_nonce_check = true;
        rules.disable_block_gas_limit = true;
        // Where nobody pays, what a call says of fees is ignored.
        rules.disable_base_fee = self.chain.rules().fees() == FeePolicy::Free;
        rules.disable_eip3607 = true;
        rules.tx_chain_id_check = false;
        rules.tx_gas_limit_cap = Some(u64::MAX);
        override_block(&mut surroundings, overrides)?;
        Ok(surroundings)
    }

    /// The call that a request describes. One that names no price pays none, and sees a base fee
    /// of 0.
    pub(super) fn call_of(
        &self,
        world: &mut World<'_>,
        surroundings: &mut Surroundings,
        request: &TransactionRequest,
    ) -> Result<TxEnv, RpcError> {
        let base_fee = u128::from(surroundings.block.basefee);
        if request.gas_price.is_some()
            && (request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some())
        {
            return Err(RpcError::invalid_params(
                "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified",
            ));
        }
        let tip = request.max_priority_fee_per_gas;
        let price = request.gas_price.or(request.max_fee_per_gas).unwrap_or_else(|| {
            // A tip alone is on top of the base fee.
            tip.map_or(0, |tip| base_fee.saturating_add(tip))
        });
        let caller = request.from.unwrap_or_default();
        let nonce = match request.nonce {
            Some(nonce) => nonce,
            None => world.account(caller)?.unwrap_or_default().nonce,
        };
        let blobs = request.blob_versioned_hashes.clone().unwrap_or_default();
        let authorizations = request.authorization_list.clone().unwrap_or_default();
        let dynamic = request.max_fee_per_gas.is_some() || tip.is_some();
        let tx_type = if !authorizations.is_empty() {
            4
        } else if !blobs.is_empty() {
            3
        } else if dynamic {
            2
        } else {
            u8::from(request.access_list.is_some())
        };
        let call = TxEnv {
            tx_type,
            caller,
            gas_limit: request.gas.unwrap_or(Self::CALL_GAS).min(Self::CALL_GAS),
            gas_price: price,
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data: request.input.input().cloned().unwrap_or_default(),
            nonce,
            chain_id: request.chain_id.or(Some(self.chain.rules().chain_id())),
            access_list: request.access_list.clone().unwrap_or_default(),
            gas_priority_fee: (tx_type >= 2).then(|| tip.unwrap_or_default()),
            blob_hashes: blobs,
            max_fee_per_blob_gas: request.max_fee_per_blob_gas.unwrap_or_default(),
            authorization_list: authorizations.into_iter().map(Either::Left).collect(),
        };
        if call.gas_price == 0 {
            surroundings.block.basefee = 0;
        }
        if call.max_fee_per_blob_gas == 0
            && let Some(blob) = &mut surroundings.block.blob_excess_gas_and_price
        {
            blob.blob_gasprice = 0;
        }
        Ok(self.chain.priced(call))
    }

    /// The most gas that an estimate may come to: what the request, the block and the sender's
    /// balance allow.
    fn most_gas(
        &self,
        world: &mut World<'_>,
        surroundings: &Surroundings,
        request: &TransactionRequest,
        call: &TxEnv,
    ) -> Result<u64, RpcError> {
        let mut most = request.gas.filter(|gas| *gas >= 21_000);
        let by_fork = surroundings
            .spec()
            .is_enabled_in(SpecId::OSAKA)
            .then(|| self.chain.rules().options.transaction_gas_limit.unwrap_or(16_777_216));
        most = most.or(Some(surroundings.block.gas_limit)).min(Some(Self::CALL_GAS));
        let mut most = most.unwrap_or(Self::CALL_GAS).min(by_fork.unwrap_or(u64::MAX));
        if call.gas_price > 0 {
            let balance = world.account(call.caller)?.unwrap_or_default().balance;
            let Some(available) = balance.checked_sub(call.value) else {
                return Err(RpcError::server("insufficient funds for transfer"));
            };
            most = most.min((available / U256::from(call.gas_price)).saturating_to());
        }
        Ok(most)
    }
}

/// geth's search: execute with the most, then look for the least that succeeds, to within 1.5 %, or
/// as near as [`Rpc::TRIED_GAS`] allows.
fn estimate(
    surroundings: &Surroundings,
    world: &mut World<'_>,
    call: TxEnv,
    most: u64,
) -> Result<u64, RpcError> {
    let tried = Cell::new(0_u64);
    let mut succeeds = |gas: u64| -> Result<Option<ExecutionResult>, RpcError> {
        let call = TxEnv { gas_limit: gas, ..call.clone() };
        match surroundings.execute(world, call.clone()) {
            Ok(executed) => {
                tried.set(tried.get().saturating_add(executed.result.tx_gas_used()));
                Ok(Some(executed.result))
            }
            Err(EVMError::Transaction(
                InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
                | InvalidTransaction::GasFloorMoreThanGasLimit { .. },
            )) => Ok(None),
            Err(error) => Err(refused(error, &call, surroundings)),
        }
    };
    let allowance = || RpcError::server(format!("gas required exceeds allowance ({most})"));
    let result = succeeds(most)?.ok_or_else(allowance)?;
    match &result {
        ExecutionResult::Success { .. } => {}
        ExecutionResult::Revert { output, .. } => return Err(RpcError::reverted(output)),
        ExecutionResult::Halt { reason, .. } => {
            return Err(match reason {
                revm::context::result::HaltReason::OutOfGas(_) => allowance(),
                reason => RpcError::server(super::error::halt_reason(reason)),
            });
        }
    }
    let (mut low, mut high) = (result.tx_gas_used().saturating_sub(1), most);
    // What was refunded must have been there first, and a call passes on 63/64 of its gas only.
    let spent = result.tx_gas_used().saturating_add(result.gas().inner_refunded());
    let likely = spent.saturating_add(2300).saturating_mul(64) / 63;
    let mut guess = likely;
    if call.data.is_empty() && matches!(succeeds(21_000)?, Some(ExecutionResult::Success { .. })) {
        return Ok(21_000);
    }
    while low.saturating_add(1) < high {
        let range = high.saturating_sub(low);
        if range.saturating_mul(1000) / high.max(1) < 15 || tried.get() > Rpc::TRIED_GAS {
            break;
        }
        let middle = if guess > low && guess < high { guess } else { low + range / 2 };
        guess = 0;
        match succeeds(middle)? {
            Some(ExecutionResult::Success { .. }) => high = middle,
            _ => low = middle,
        }
    }
    Ok(high)
}

/// Replaces parts of the state for one call.
pub(super) fn override_state(
    world: &mut World<'_>,
    surroundings: &mut Surroundings,
    overrides: Option<StateOverride>,
) -> Result<(), RpcError> {
    let overrides = overrides.unwrap_or_default();
    surroundings.precompiles = moved_precompiles(surroundings.spec(), &overrides)?;
    for (address, account) in overrides {
        override_account(world, address, account)?;
    }
    Ok(())
}

/// Where precompiled contracts are under overrides: what is overridden is none any more, and may be
/// put elsewhere. None if all are where they belong.
pub(super) fn moved_precompiles(
    spec: SpecId,
    overrides: &StateOverride,
) -> Result<Option<MovedPrecompiles>, RpcError> {
    if overrides.is_empty() {
        return Ok(None);
    }
    let mut precompiles = MovedPrecompiles::new(spec);
    let all = overrides;
    let mut overrides: Vec<_> = all.iter().collect();
    overrides.sort_by_key(|(address, _)| **address);
    let mut is_moved = false;
    for (address, account) in overrides {
        let taken = precompiles.take(*address);
        is_moved |= taken.is_some();
        match (account.move_precompile_to, taken) {
            (Some(to), Some(_)) if all.contains_key(&to) => {
                return Err(RpcError::server(format!("account {to} is already overridden")));
            }
            (Some(to), Some(taken)) => precompiles.put(to, taken),
            (Some(_), None) => {
                let message = format!("account {address} is not a precompile");
                return Err(RpcError::server(message));
            }
            (None, _) => {}
        }
    }
    Ok(is_moved.then_some(precompiles))
}

pub(super) fn override_account(
    world: &mut World<'_>,
    address: Address,
    account: alloy_rpc_types_eth::state::AccountOverride,
) -> Result<(), RpcError> {
    let before = world.account(address)?;
    let present = before.unwrap_or_default();
    let code_hash = match &account.code {
        Some(code) => world.put_code(code),
        None => present.code_hash,
    };
    let after = Account {
        nonce: account.nonce.unwrap_or(present.nonce),
        balance: account.balance.unwrap_or(present.balance),
        code_hash,
    };
    // As after a transaction, there is no account that is empty.
    let after = (after != Account::default()).then_some(after);
    if before != after {
        world.put_account(address, after);
    }
    if account.state.is_some() && account.state_diff.is_some() {
        let message = format!("account {address} has both 'state' and 'stateDiff'");
        return Err(RpcError::invalid_params(message));
    }
    if account.state.is_some() {
        world.clear_storage(address);
    }
    for (slot, value) in account.state.into_iter().chain(account.state_diff).flatten() {
        world.put_slot(address, slot.into(), value.into());
    }
    Ok(())
}

fn override_block(
    surroundings: &mut Surroundings,
    overrides: Option<BlockOverrides>,
) -> Result<(), RpcError> {
    let Some(overrides) = overrides else { return Ok(()) };
    let fraction = surroundings.rules.blob_base_fee_update_fraction();
    let block = &mut surroundings.block;
    block.number = overrides.number.unwrap_or(block.number);
    block.difficulty = overrides.difficulty.unwrap_or(block.difficulty);
    block.timestamp = overrides.time.map_or(block.timestamp, U256::from);
    block.gas_limit = overrides.gas_limit.unwrap_or(block.gas_limit);
    block.beneficiary = overrides.coinbase.unwrap_or(block.beneficiary);
    block.prevrandao = overrides.random.or(block.prevrandao);
    block.basefee = overrides.base_fee.map_or(block.basefee, |fee| fee.saturating_to());
    if let Some(fee) = overrides.blob_base_fee {
        let mut blob = BlobExcessGasAndPrice::new(0, fraction);
        blob.blob_gasprice = fee.saturating_to();
        block.blob_excess_gas_and_price = Some(blob);
    }
    if overrides.beacon_root.is_some() {
        return Err(RpcError::invalid_params(
            "block override \"beaconRoot\" is not supported here",
        ));
    }
    Ok(())
}

/// Why a call was not executed.
pub(super) fn refused(
    error: ExecutionError,
    call: &TxEnv,
    surroundings: &Surroundings,
) -> RpcError {
    Refusal::of(error, call, surroundings.block.basefee).into()
}

/// In order of addresses and slots, so that the same call has the same list.
fn sorted(list: AccessList) -> AccessList {
    let mut items = list.0;
    for item in &mut items {
        item.storage_keys.sort_unstable();
    }
    items.sort_by_key(|item| item.address);
    AccessList(items)
}
