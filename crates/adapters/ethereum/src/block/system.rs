//! What a block does by itself, before its first transaction and after its last.

use alloy_eips::eip4895::Withdrawal;
use alloy_eips::{eip2935, eip4788, eip6110, eip7002, eip7251};
use alloy_primitives::{Address, B256, Bytes, Log, U256, b256};
use coco_crypto::sha256_concat;
use revm::context::result::ExecutionResult;
use revm::primitives::hardfork::SpecId;

use super::Requests;
use crate::record::{Account, Change};
use crate::{Refusal, StateError, Surroundings, World};

/// `DepositEvent(bytes,bytes,bytes,bytes,bytes)` of the deposit contract.
const DEPOSIT_EVENT: B256 =
    b256!("649bbc62d0e31342afea4e5cd82d4049e7e1ee912fc0889aa790803be39038c5");

/// Tells the contracts of EIP-4788 and EIP-2935 of the block before.
pub(crate) fn begin_block(
    surroundings: &Surroundings,
    world: &mut World<'_>,
    parent_hash: B256,
    beacon_root: Option<B256>,
) -> Result<Vec<Change>, Refusal> {
    let spec = surroundings.spec();
    let mut changes = Vec::new();
    if surroundings.number() == 0 {
        return Ok(changes);
    }
    let mut tell = |contract: Address, hash: B256| -> Result<(), Refusal> {
        let data = Bytes::copy_from_slice(hash.as_slice());
        call(surroundings, world, contract, data, &mut changes).map(drop)
    };
    if let Some(root) = beacon_root.filter(|_| spec.is_enabled_in(SpecId::CANCUN)) {
        tell(eip4788::BEACON_ROOTS_ADDRESS, root)?;
    }
    if spec.is_enabled_in(SpecId::PRAGUE) {
        tell(eip2935::HISTORY_STORAGE_ADDRESS, parent_hash)?;
    }
    Ok(changes)
}

/// Pays withdrawals out, and collects requests from Prague on.
pub(crate) fn end_block<'a>(
    surroundings: &Surroundings,
    world: &mut World<'_>,
    deposit_contract: Option<Address>,
    logs: impl IntoIterator<Item = &'a Log>,
    withdrawals: &[Withdrawal],
) -> Result<(Vec<Change>, Requests), Refusal> {
    let mut changes = Vec::new();
    let mut requests = Requests::default();
    for withdrawal in withdrawals {
        let amount = U256::from(withdrawal.amount) * U256::from(1_000_000_000_u64);
        changes.extend(pay(world, withdrawal.address, amount)?);
    }
    if surroundings.spec().is_enabled_in(SpecId::PRAGUE) {
        let deposits = deposits(deposit_contract, logs);
        if !deposits.is_empty() {
            requests.push_request_with_type(eip6110::DEPOSIT_REQUEST_TYPE, deposits);
        }
        for (kind, contract) in [
            (eip7002::WITHDRAWAL_REQUEST_TYPE, eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS),
            (eip7251::CONSOLIDATION_REQUEST_TYPE, eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS),
        ] {
            let output = call(surroundings, world, contract, Bytes::new(), &mut changes)?;
            if !output.is_empty() {
                requests.push_request_with_type(kind, output);
            }
        }
    }
    Ok((changes, requests))
}

/// Adds to a balance, as a block does and no transaction.
pub(crate) fn pay(
    world: &mut World<'_>,
    to: Address,
    amount: U256,
) -> Result<Option<Change>, StateError> {
    if amount.is_zero() {
        return Ok(None);
    }
    let account = world.account(to)?.unwrap_or_default();
    let balance = account.balance.saturating_add(amount);
    world.put_account(to, Some(Account { balance, ..account }));
    Ok(Some(Change { address: to, slots: Vec::new() }))
}

/// SHA-256 over the SHA-256 of every request (EIP-7685).
pub(crate) fn requests_hash(requests: &Requests) -> B256 {
    let hashes: Vec<_> = requests
        .iter()
        .filter(|request| request.len() > 1)
        .map(|request| coco_crypto::sha256(request))
        .collect();
    let parts: Vec<&[u8]> = hashes.iter().map(|hash| hash.0.as_slice()).collect();
    B256::from(sha256_concat(&parts).0)
}

/// Calls a system contract, if it is there.
fn call(
    surroundings: &Surroundings,
    world: &mut World<'_>,
    contract: Address,
    data: Bytes,
    changes: &mut Vec<Change>,
) -> Result<Bytes, Refusal> {
    let present = world.account(contract)?.is_some_and(|account| account != Account::default());
    if !present {
        return Ok(Bytes::new());
    }
    let executed = surroundings
        .call_as_system(world, contract, data)
        .map_err(|error| Refusal::Failed(error.to_string()))?;
    changes.extend(world.apply(executed.state, surroundings.spec())?);
    match executed.result {
        ExecutionResult::Success { output, .. } => Ok(output.into_data()),
        other => Err(Refusal::Failed(format!("system contract {contract}: {other}"))),
    }
}

/// The deposits in the logs of the deposit contract, in the flat form of EIP-6110.
fn deposits<'a>(contract: Option<Address>, logs: impl IntoIterator<Item = &'a Log>) -> Vec<u8> {
    let mut deposits = Vec::new();
    let Some(contract) = contract else { return deposits };
    for log in logs {
        if log.address != contract || log.topics().first() != Some(&DEPOSIT_EVENT) {
            continue;
        }
        // Five `bytes` fields of fixed lengths: public key, withdrawal credentials, amount,
        // signature, index; each behind an offset and a length.
        let data = &log.data.data;
        let fields = [192..240, 288..320, 352..360, 416..512, 544..552];
        deposits.extend(fields.into_iter().filter_map(|field| data.get(field)).flatten());
    }
    deposits
}
