//! The rules of a chain: which fork when, and who pays for gas.

use std::collections::BTreeSet;

use alloy_eips::eip7840::BlobParams;
use alloy_genesis::{ChainConfig, Genesis};
use alloy_primitives::{Address, U256};
use revm::context::CfgEnv;
use revm::primitives::hardfork::SpecId;
use serde::{Deserialize, Serialize};

/// Who pays how much for gas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeePolicy {
    /// Nobody pays: the base fee is 0, fee fields of transactions are accepted and ignored, and
    /// the effective price is 0. A tool that re-executes blocks must know this rule.
    #[default]
    Free,
    /// Ethereum's rules at a base fee that never changes, in wei. It is burned, as everywhere.
    Fixed(u64),
    /// Ethereum's rules with EIP-1559's moving base fee: what an imported chain was made under.
    Market,
}

/// What a consortium chooses beyond geth's genesis. It is part of the chain, as the genesis is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainOptions {
    /// Who pays.
    pub fees: FeePolicy,
    /// Gas one transaction may use; the fork's own limit (EIP-7825) if `None`.
    pub transaction_gas_limit: Option<u64>,
    /// Bytes of code a contract may have; the fork's own limit (EIP-170) if `None`.
    pub contract_code_limit: Option<usize>,
    /// Whether transactions that name no chain (before EIP-155) are taken. They can be replayed on
    /// every chain; some well-known deployers need them.
    pub unprotected_transactions: bool,
}

impl From<FeePolicy> for ChainOptions {
    fn from(fees: FeePolicy) -> Self {
        Self { fees, ..Self::default() }
    }
}

/// The rules of one chain.
#[derive(Clone, Debug)]
pub struct ChainRules {
    config: ChainConfig,
    /// Who gets tips: the genesis' `coinbase`.
    pub beneficiary: Address,
    /// What the consortium chose.
    pub options: ChainOptions,
}

impl ChainRules {
    /// The rules of a genesis file.
    pub fn new(genesis: &Genesis, options: impl Into<ChainOptions>) -> Self {
        let (config, beneficiary) = (genesis.config.clone(), genesis.coinbase);
        Self { config, beneficiary, options: options.into() }
    }

    /// Who pays for gas.
    pub fn fees(&self) -> FeePolicy {
        self.options.fees
    }

    /// The chain id.
    pub fn chain_id(&self) -> u64 {
        self.config.chain_id
    }

    /// The fork schedule as the genesis file gives it.
    pub fn config(&self) -> &ChainConfig {
        &self.config
    }

    /// The fork of a block. `difficulty` tells a block before the merge from one after, where the
    /// schedule names no block for it.
    pub fn spec_at(&self, number: u64, timestamp: u64, difficulty: U256) -> SpecId {
        let config = &self.config;
        let at_time = |fork: Option<u64>| fork.is_some_and(|fork| fork <= timestamp);
        let at_block = |fork: Option<u64>| fork.is_some_and(|fork| fork <= number);
        let merged = at_block(config.merge_netsplit_block)
            || config.terminal_total_difficulty_passed
            || config.terminal_total_difficulty == Some(U256::ZERO)
            || (config.terminal_total_difficulty.is_some() && number > 0 && difficulty.is_zero());
        let by_time = [
            (config.osaka_time, SpecId::OSAKA),
            (config.prague_time, SpecId::PRAGUE),
            (config.cancun_time, SpecId::CANCUN),
            (config.shanghai_time, SpecId::SHANGHAI),
        ];
        if let Some((_, spec)) = by_time.iter().find(|(fork, _)| merged && at_time(*fork)) {
            return *spec;
        }
        if merged {
            return SpecId::MERGE;
        }
        let by_block = [
            (config.london_block, SpecId::LONDON),
            (config.berlin_block, SpecId::BERLIN),
            (config.istanbul_block, SpecId::ISTANBUL),
            (config.petersburg_block, SpecId::PETERSBURG),
            // Constantinople differs from Petersburg in EIP-1283 only, which the EVM does not carry:
            // Petersburg took it back before any public chain used it.
            (config.constantinople_block, SpecId::PETERSBURG),
            (config.byzantium_block, SpecId::BYZANTIUM),
            (config.eip158_block, SpecId::SPURIOUS_DRAGON),
            (config.eip150_block, SpecId::TANGERINE),
            (config.homestead_block, SpecId::HOMESTEAD),
        ];
        let fork = by_block.iter().find(|(fork, _)| at_block(*fork));
        fork.map_or(SpecId::FRONTIER, |(_, spec)| *spec)
    }

    /// The forks that come at a block, in order and without those of the genesis.
    pub(crate) fn blocks(&self) -> Vec<u64> {
        let config = &self.config;
        let forks = [
            config.homestead_block,
            config.dao_fork_block,
            config.eip150_block,
            config.eip155_block,
            config.eip158_block,
            config.byzantium_block,
            config.constantinople_block,
            config.petersburg_block,
            config.istanbul_block,
            config.muir_glacier_block,
            config.berlin_block,
            config.london_block,
            config.arrow_glacier_block,
            config.gray_glacier_block,
            config.merge_netsplit_block,
        ];
        let forks: BTreeSet<u64> = forks.into_iter().flatten().filter(|fork| *fork > 0).collect();
        forks.into_iter().collect()
    }

    /// The forks that come at a time, in order.
    pub(crate) fn times(&self) -> Vec<u64> {
        let config = &self.config;
        let forks = [
            config.shanghai_time,
            config.cancun_time,
            config.prague_time,
            config.osaka_time,
            config.bpo1_time,
            config.bpo2_time,
            config.bpo3_time,
            config.bpo4_time,
            config.bpo5_time,
        ];
        let forks: BTreeSet<u64> = forks.into_iter().flatten().collect();
        forks.into_iter().collect()
    }

    /// How many blobs a block at `timestamp` may carry, at what price; before Cancun none.
    pub fn blobs_at(&self, timestamp: u64) -> Option<BlobParams> {
        let at_time = |fork: Option<u64>| fork.is_some_and(|fork| fork <= timestamp);
        let schedule = self.config.blob_schedule_blob_params();
        let scheduled = schedule.scheduled.iter().rev().find(|(start, _)| *start <= timestamp);
        if let Some((_, params)) = scheduled {
            Some(*params)
        } else if at_time(self.config.osaka_time) {
            Some(schedule.osaka)
        } else if at_time(self.config.prague_time) {
            Some(schedule.prague)
        } else {
            at_time(self.config.cancun_time).then_some(schedule.cancun)
        }
    }

    /// The rules as the EVM takes them.
    pub fn evm_rules(&self, spec: SpecId, timestamp: u64) -> CfgEnv {
        let mut rules = CfgEnv::new_with_spec(spec);
        rules.chain_id = self.chain_id();
        if let Some(blobs) = self.blobs_at(timestamp) {
            rules.max_blobs_per_tx = Some(blobs.max_blobs_per_tx);
            rules.blob_base_fee_update_fraction = u64::try_from(blobs.update_fraction).ok();
        }
        if self.options.transaction_gas_limit.is_some() {
            rules.tx_gas_limit_cap = self.options.transaction_gas_limit;
        }
        if let Some(limit) = self.options.contract_code_limit {
            rules.limit_contract_code_size = Some(limit);
            // As EIP-3860 has it: the code that makes a contract may be twice as long.
            rules.limit_contract_initcode_size = Some(limit.saturating_mul(2));
        }
        rules
    }
}
