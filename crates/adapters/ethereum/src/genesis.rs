//! The first block: geth's `genesis.json`, or a consortium chain of our own.

use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH, Header};
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_genesis::{ChainConfig, Genesis, GenesisAccount};
use alloy_primitives::{Address, B256, Bytes, U256, b256};
use coco_crypto::sha256;
use coco_kv::Tx;
use revm::primitives::hardfork::SpecId;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::block::{
    Head, Included, Opening, begin_block, end_block, record_block, record_included,
};
use crate::maps::CHAIN;
use crate::record::{BlockRecord, OpenBlock};
use crate::{Chain, ChainOptions, ChainRules, Refusal, StateError, StateTrie, World, block_hash};

/// SHA-256 of nothing: the hash of a block's requests if there are none (EIP-7685).
pub(crate) const NO_REQUESTS: B256 =
    b256!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

/// What geth starts with if the genesis does not say, in wei.
const INITIAL_BASE_FEE: u64 = 1_000_000_000;

/// A chain cannot be begun or continued.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The file is not a genesis of geth's form.
    #[error("genesis: {0}")]
    Syntax(#[from] serde_json::Error),
    /// The file leaves something out.
    #[error("genesis: missing required field '{0}'")]
    Missing(&'static str),
    /// A fork that this node does not know is to come.
    #[error("genesis: the fork of '{0}' is not supported")]
    UnknownFork(String),
    /// There is a chain already.
    #[error("the chain has been begun before, with block {0}")]
    Exists(B256),
    /// The chain of the service is another one than this node is configured for.
    #[error(
        "{what} differs from that of the service's chain, which has chain id {chain_id} and \
         begins with block {genesis}"
    )]
    Differs {
        /// What differs.
        what: &'static str,
        /// Of the service's chain.
        chain_id: u64,
        /// The hash of its first block.
        genesis: B256,
    },
    /// What a block does by itself fails on the accounts of the genesis.
    #[error("the system contracts of the genesis fail: {0}")]
    SystemContract(Refusal),
    /// What is stored cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Reads geth's `genesis.json`.
pub fn parse_genesis(text: &str) -> Result<Genesis, GenesisError> {
    let Required { gas_limit, difficulty, alloc } = serde_json::from_str(text)?;
    gas_limit.ok_or(GenesisError::Missing("gasLimit"))?;
    difficulty.ok_or(GenesisError::Missing("difficulty"))?;
    alloc.ok_or(GenesisError::Missing("alloc"))?;
    Ok(serde_json::from_str(text)?)
}

/// What geth wants in every genesis.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Required {
    gas_limit: Option<IgnoredAny>,
    difficulty: Option<IgnoredAny>,
    alloc: Option<IgnoredAny>,
}

/// Refuses forks later than those that the EVM here carries: it would go on under other rules than
/// the chain says.
fn check_forks(config: &ChainConfig) -> Result<(), GenesisError> {
    let known = [
        ("amsterdamTime", config.amsterdam_time.is_some()),
        ("bogotaTime", config.bogota_time.is_some()),
    ];
    let known = known.into_iter().filter(|(_, comes)| *comes).map(|(name, _)| name);
    let others = config.extra_fields.iter();
    let others = others.filter(|(name, value)| name.ends_with("Time") && !value.is_null());
    match known.chain(others.map(|(name, _)| name.as_str())).next() {
        Some(fork) => Err(GenesisError::UnknownFork(fork.to_owned())),
        None => Ok(()),
    }
}

/// What a chain began with, in brief.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainTerms {
    /// SHA-256 of the genesis, as this crate writes it.
    genesis: B256,
    /// What the consortium chose.
    options: ChainOptions,
}

impl ChainTerms {
    /// The terms of a chain that begins so.
    pub fn new(genesis: &Genesis, options: &ChainOptions) -> Result<Self, GenesisError> {
        // As it reads back: what is left out is the same as what is said to be absent.
        let read_back: Genesis = serde_json::from_slice(&serde_json::to_vec(genesis)?)?;
        let genesis = B256::from(sha256(&serde_json::to_vec(&read_back)?).0);
        Ok(Self { genesis, options: options.clone() })
    }
}

/// A consortium chain with every fork up to Osaka from the start, the system contracts of those
/// forks, and the given balances in wei. Its block gas limit is so high that the gas limit of a
/// transaction is what bounds an execution.
pub fn consortium_genesis(
    chain_id: u64,
    balances: impl IntoIterator<Item = (Address, U256)>,
) -> Genesis {
    let start = Some(0);
    let config = ChainConfig {
        chain_id,
        homestead_block: start,
        eip150_block: start,
        eip155_block: start,
        eip158_block: start,
        byzantium_block: start,
        constantinople_block: start,
        petersburg_block: start,
        istanbul_block: start,
        muir_glacier_block: start,
        berlin_block: start,
        london_block: start,
        arrow_glacier_block: start,
        gray_glacier_block: start,
        merge_netsplit_block: start,
        terminal_total_difficulty: Some(U256::ZERO),
        terminal_total_difficulty_passed: true,
        shanghai_time: start,
        cancun_time: start,
        prague_time: start,
        osaka_time: start,
        ..ChainConfig::default()
    };
    let system = [
        (eip2935::HISTORY_STORAGE_ADDRESS, eip2935::HISTORY_STORAGE_CODE.clone()),
        (eip4788::BEACON_ROOTS_ADDRESS, eip4788::BEACON_ROOTS_CODE.clone()),
        (
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE.clone(),
        ),
        (
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE.clone(),
        ),
    ];
    let system = system.map(|(address, code): (Address, Bytes)| {
        (address, GenesisAccount { nonce: Some(1), code: Some(code), ..GenesisAccount::default() })
    });
    let funded = balances.into_iter().map(|(address, balance)| {
        (address, GenesisAccount { balance, ..GenesisAccount::default() })
    });
    Genesis {
        config,
        gas_limit: 1_000_000_000_000,
        base_fee_per_gas: Some(0),
        alloc: system.into_iter().chain(funded).collect(),
        ..Genesis::default()
    }
}

impl Chain {
    /// Begins a chain: writes the accounts and the first block of a genesis. Returns the chain
    /// and the block's hash.
    pub fn begin(
        tx: &mut Tx,
        genesis: &Genesis,
        options: impl Into<ChainOptions>,
    ) -> Result<(Self, B256), GenesisError> {
        if let Some(head) = Head::read(tx)? {
            return Err(GenesisError::Exists(head.hash));
        }
        check_forks(&genesis.config)?;
        let chain = Self::with_rules(ChainRules::new(genesis, options));
        let mut world = World::scratch(tx, chain.codes());
        for (address, account) in &genesis.alloc {
            let code = account.code.as_ref().map_or(&[][..], |code| code.as_ref());
            let fields = (account.nonce.unwrap_or_default(), account.balance, code);
            let storage = account.storage_slots().map(|(slot, value)| (slot.into(), value));
            world.put_whole_account(*address, fields, storage);
        }
        let trie = StateTrie::build(tx)?;
        let header = genesis_header(genesis, chain.rules(), trie.root());
        let hash = header.hash_slow();
        tx.put(&CHAIN, "genesis", serde_json::to_vec(genesis)?);
        tx.put(&CHAIN, "options", serde_json::to_vec(&chain.rules().options)?);
        let block = BlockRecord {
            header,
            ommers: Vec::new(),
            withdrawals: Vec::new(),
            transactions: Vec::new(),
        };
        record_block(tx, &block, hash);
        record_included(tx, block.header.number, &Included::default());
        chain.tries().remember(block.header.number, hash, trie, 0);
        chain.try_empty_block(tx)?;
        Ok((chain, hash))
    }

    /// Refuses other terms than those of the chain in the store.
    pub fn check(&self, tx: &mut Tx, terms: &ChainTerms) -> Result<(), GenesisError> {
        let begun = tx.get(&CHAIN, b"genesis").ok_or(StateError::NoGenesis)?;
        let begun: Genesis = serde_json::from_slice(&begun)?;
        let own = ChainTerms::new(&begun, &self.rules().options)?;
        let what = match (own.genesis == terms.genesis, own.options == terms.options) {
            (true, true) => return Ok(()),
            (false, _) => "the genesis",
            (true, false) => "what is said of fees and limits",
        };
        let genesis =
            block_hash(tx, begun.number.unwrap_or_default()).ok_or(StateError::NoGenesis)?;
        Err(GenesisError::Differs { what, chain_id: self.rules().chain_id(), genesis })
    }

    /// No block could ever be sealed over system contracts that fail, so they are tried out first.
    fn try_empty_block(&self, tx: &mut Tx) -> Result<(), GenesisError> {
        let state = tx.snapshot().with_writes(tx.writes(), tx.read_tx_id());
        let mut tx = Tx::on(state);
        let now_ms = u64::MAX;
        let open = self.next_block(&mut tx, &Opening { now_ms, randomness: B256::ZERO })?;
        let surroundings = self.surroundings(&open);
        let mut world = World::scratch(&mut tx, self.codes());
        begin_block(&surroundings, &mut world, open.parent_hash, Some(B256::ZERO))
            .and_then(|_| end_block(&surroundings, &mut world, None, &[], &[]))
            .map(drop)
            .map_err(GenesisError::SystemContract)
    }

    /// The chain that was begun in the store, if any was.
    pub fn load(tx: &mut Tx) -> Result<Option<Self>, GenesisError> {
        let (Some(genesis), Some(options)) =
            (tx.get(&CHAIN, b"genesis"), tx.get(&CHAIN, b"options"))
        else {
            return Ok(None);
        };
        let genesis: Genesis = serde_json::from_slice(&genesis)?;
        let options: ChainOptions = serde_json::from_slice(&options)?;
        let chain = Self::with_rules(ChainRules::new(&genesis, options));
        // Now, so that the first block need not wait for it.
        if let (Some(head), None) = (Head::read(tx)?, OpenBlock::read(tx)?) {
            chain.tries().remember(head.number, head.hash, StateTrie::build(tx)?, 0);
        }
        Ok(Some(chain))
    }
}

/// The header as geth makes it.
fn genesis_header(genesis: &Genesis, rules: &ChainRules, state_root: B256) -> Header {
    let number = genesis.number.unwrap_or_default();
    let spec = rules.spec_at(number, genesis.timestamp, genesis.difficulty);
    let since = |fork: SpecId| spec.is_enabled_in(fork);
    let base_fee = genesis.base_fee_per_gas.and_then(|fee| u64::try_from(fee).ok());
    Header {
        parent_hash: genesis.parent_hash.unwrap_or_default(),
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: genesis.coinbase,
        state_root,
        transactions_root: EMPTY_ROOT_HASH,
        receipts_root: EMPTY_ROOT_HASH,
        difficulty: genesis.difficulty,
        number,
        gas_limit: genesis.gas_limit,
        timestamp: genesis.timestamp,
        extra_data: genesis.extra_data.clone(),
        mix_hash: genesis.mix_hash,
        nonce: genesis.nonce.into(),
        base_fee_per_gas: since(SpecId::LONDON).then(|| base_fee.unwrap_or(INITIAL_BASE_FEE)),
        withdrawals_root: since(SpecId::SHANGHAI).then_some(EMPTY_ROOT_HASH),
        blob_gas_used: since(SpecId::CANCUN).then(|| genesis.blob_gas_used.unwrap_or_default()),
        excess_blob_gas: since(SpecId::CANCUN).then(|| genesis.excess_blob_gas.unwrap_or_default()),
        parent_beacon_block_root: since(SpecId::CANCUN).then_some(B256::ZERO),
        requests_hash: since(SpecId::PRAGUE).then_some(NO_REQUESTS),
        ..Header::default()
    }
}

#[cfg(test)]
mod tests {
    use coco_kv::{Store, View};
    use serde_json::{Value as Json, json};

    use super::*;

    fn genesis() -> Json {
        json!({
            "config": {"chainId": 7, "osakaTime": null, "terminalTotalDifficulty": 0},
            "difficulty": "0x0", "gasLimit": "0x1", "alloc": {},
        })
    }

    #[test]
    fn a_genesis_says_what_geth_wants_to_know() {
        let complete = genesis();
        assert_eq!(parse_genesis(&complete.to_string()).unwrap().config.chain_id, 7);
        for field in ["gasLimit", "difficulty", "alloc"] {
            let mut lacking = complete.clone();
            lacking.as_object_mut().unwrap().remove(field);
            let error = parse_genesis(&lacking.to_string()).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
        assert!(matches!(parse_genesis("[7]"), Err(GenesisError::Syntax(_))));
        let huge = complete.to_string().replace(
            r#""terminalTotalDifficulty":0"#,
            r#""terminalTotalDifficulty":58750000000000000000000"#,
        );
        let huge = parse_genesis(&huge).unwrap().config.terminal_total_difficulty;
        assert_eq!(huge, Some(U256::from(58_750_000_000_000_000_000_000_u128)));
    }

    #[test]
    fn a_fork_that_is_not_carried_begins_no_chain() {
        let begin = |fork: &str, time: Json| {
            let mut genesis = genesis();
            genesis["config"][fork] = time;
            let genesis = parse_genesis(&genesis.to_string()).unwrap();
            Chain::begin(&mut Store::new(View(2)).begin(), &genesis, ChainOptions::default())
        };
        for fork in ["amsterdamTime", "bogotaTime", "bpo6Time", "verkleTime"] {
            assert!(begin(fork, json!(null)).is_ok(), "{fork}");
            for time in [json!(0), json!(4_000_000_000_u64)] {
                let error = begin(fork, time).map(|(_, hash)| hash).unwrap_err();
                assert!(error.to_string().contains(fork), "{error}");
            }
        }
        for known in ["osakaTime", "bpo5Time", "shanghaiTime"] {
            assert!(begin(known, json!(4_000_000_000_u64)).is_ok(), "{known}");
        }
    }
}
