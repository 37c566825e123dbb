//! What the node tells about itself and the chain's forks.

use std::collections::BTreeMap;

use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_primitives::{Address, B256};
use revm::precompile::{PrecompileSpecId, Precompiles};
use revm::primitives::hardfork::SpecId;
use serde_json::{Value as Json, json};

use super::{Answer, Rpc};
use crate::{ChainRules, StateError, block_hash};

impl Rpc {
    /// EIP-7910: the fork that is, the next one and the last one.
    pub(super) fn config(&self) -> Answer {
        let tx = &mut self.node.begin();
        let head = self.head(tx)?;
        let genesis = block_hash(tx, 0).ok_or(StateError::NoGenesis)?;
        let rules = self.chain.rules();
        let forks = rules.times();
        let current = forks.iter().rev().find(|time| **time <= head.timestamp).copied();
        let next = forks.iter().find(|time| **time > head.timestamp).copied();
        let last = next.and(forks.last().copied());
        let show = |time: Option<u64>| {
            time.map_or(Json::Null, |time| describe(rules, genesis, head.number, time))
        };
        Ok(
            json!({"current": show(Some(current.unwrap_or_default())), "next": show(next), "last": show(last)}),
        )
    }

    pub(super) fn capabilities(&self) -> Answer {
        let head = self.head(&mut self.node.begin())?;
        let whole = json!({"disabled": false, "oldestBlock": "0x0"});
        Ok(json!({
            "head": {"number": super::quantity(head.number), "hash": head.hash},
            "state": whole, "tx": whole, "logs": whole, "receipts": whole, "blocks": whole,
            "stateproofs": whole,
        }))
    }
}

fn describe(rules: &ChainRules, genesis: B256, number: u64, time: u64) -> Json {
    let spec = rules.spec_at(number, time, alloy_primitives::U256::ZERO);
    let precompiles = Precompiles::new(PrecompileSpecId::from_spec_id(spec));
    let precompiles: BTreeMap<String, Address> = precompiles
        .inner()
        .iter()
        .map(|(address, precompile)| (precompile.id().name().to_owned(), *address))
        .collect();
    let mut system = BTreeMap::new();
    if spec.is_enabled_in(SpecId::CANCUN) {
        system.insert("BEACON_ROOTS_ADDRESS", eip4788::BEACON_ROOTS_ADDRESS);
    }
    if spec.is_enabled_in(SpecId::PRAGUE) {
        system.insert(
            "CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS",
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
        );
        system.insert("HISTORY_STORAGE_ADDRESS", eip2935::HISTORY_STORAGE_ADDRESS);
        system.insert(
            "WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS",
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
        );
        if let Some(deposits) = rules.config().deposit_contract_address {
            system.insert("DEPOSIT_CONTRACT_ADDRESS", deposits);
        }
    }
    let blobs = rules.blobs_at(time).map(|blobs| {
        json!({
            "baseFeeUpdateFraction": u64::try_from(blobs.update_fraction).unwrap_or(u64::MAX),
            "max": blobs.max_blob_count,
            "target": blobs.target_blob_count,
        })
    });
    json!({
        "activationTime": time,
        "blobSchedule": blobs,
        "chainId": super::quantity(rules.chain_id()),
        "forkId": alloy_primitives::hex::encode_prefixed(fork_id(rules, genesis, time)),
        "precompiles": precompiles,
        "systemContracts": system,
    })
}

/// EIP-6122: CRC-32 over the genesis hash and the points of all forks up to `time`.
fn fork_id(rules: &ChainRules, genesis: B256, time: u64) -> [u8; 4] {
    let blocks = rules.blocks();
    let times = rules.times().into_iter().filter(|fork| *fork > 0 && *fork <= time);
    let points = blocks.into_iter().chain(times).flat_map(u64::to_be_bytes);
    let bytes = genesis.0.into_iter().chain(points);
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    });
    (!crc).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use alloy_genesis::Genesis;
    use alloy_primitives::b256;

    use super::*;
    use crate::FeePolicy;

    #[test]
    fn fork_ids_are_those_of_eip_2124() {
        let genesis = b256!("d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3");
        let mut mainnet = Genesis::default();
        let id = |genesis_file: &Genesis| {
            fork_id(&ChainRules::new(genesis_file, FeePolicy::Market), genesis, u64::MAX)
        };
        assert_eq!(id(&mainnet), [0xfc, 0x64, 0xec, 0x04]);
        mainnet.config.homestead_block = Some(1_150_000);
        assert_eq!(id(&mainnet), [0x97, 0xc2, 0xc3, 0x4c]);
        mainnet.config.dao_fork_block = Some(1_920_000);
        assert_eq!(id(&mainnet), [0x91, 0xd1, 0xf9, 0x48]);
    }
}
