//! The protocols that a configuration plugs into a node, next to its application.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy_genesis::Genesis;
use alloy_primitives::{Address, U256};
use anyhow::{Context, Result, bail};
use coco_adapter::{Endpoints, Protocol};
use coco_enclave::config::{CommandType, Config};
use coco_enclave::node::Adapters;
use coco_ethereum::{ChainOptions, Ethereum, FeePolicy, Setup, consortium_genesis, parse_genesis};
use serde::Deserialize;
use serde_json::Value;

use crate::service::read;

/// The chain id of a consortium that does not choose one, as of geth's development chains.
const DEFAULT_CHAIN_ID: u64 = 1337;

/// What is plugged in.
#[derive(Clone, Default)]
pub(crate) struct Protocols {
    pub(crate) ethereum: Option<Arc<Ethereum>>,
}

/// `command.start.protocols.ethereum`: the chain that begins with the service.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EthereumStart {
    /// File with geth's `genesis.json`; absent: a consortium chain with every fork up to Osaka.
    genesis_file: Option<PathBuf>,
    /// Of the consortium chain.
    chain_id: Option<u64>,
    /// Of the consortium chain: who has how much from the start, in wei.
    balances: BTreeMap<Address, U256>,
    /// Who pays for gas.
    fees: FeePolicy,
    /// Gas one transaction may use.
    transaction_gas_limit: Option<u64>,
    /// Bytes of code a contract may have.
    contract_code_limit: Option<usize>,
    /// Whether transactions that name no chain are taken.
    unprotected_transactions: bool,
}

impl Protocols {
    /// Those that the configuration begins or that its interfaces speak.
    pub(crate) fn of(config: &Config) -> Result<Self> {
        let command = config.command.kind;
        let says = matches!(command, CommandType::Start | CommandType::Join);
        let start = config.command.start.as_ref().filter(|_| says);
        let sections = start.map(|start| start.protocols.clone()).unwrap_or_default();
        let interfaces = config.interfaces().values();
        let spoken: Vec<&str> = interfaces
            .filter_map(|interface| interface.coco.as_ref())
            .map(|coco| coco.protocol.as_str())
            .collect();
        let named = sections.keys().map(String::as_str).chain(spoken.iter().copied());
        for name in named.clone() {
            if name != Ethereum::NAME {
                bail!("there is no protocol {name:?}; there is {:?}", Ethereum::NAME);
            }
        }
        let is_named = named.count() > 0;
        let section = sections.get(Ethereum::NAME);
        let told = |section| setup(section).context("command.start.protocols.ethereum");
        let ethereum = match command {
            CommandType::Start if is_named => Some(Ethereum::new(Some(told(section)?))),
            // Whoever joins a service with a chain may come to be its primary.
            CommandType::Join => {
                let setup = section.map(|section| told(Some(section))).transpose()?;
                Some(Ethereum::joining(setup, is_named))
            }
            _ if is_named => Some(Ethereum::new(None)),
            _ => None,
        };
        Ok(Self { ethereum: ethereum.map(Arc::new) })
    }

    /// The adapters of a node that also runs this application.
    pub(crate) fn with(self, app: Arc<dyn Endpoints>) -> Adapters {
        let ethereum = self.ethereum.map(|ethereum| ethereum as Arc<dyn Protocol>);
        Adapters { app, protocols: ethereum.into_iter().collect() }
    }
}

fn setup(section: Option<&Value>) -> Result<Setup> {
    let chosen: EthereumStart =
        section.map(EthereumStart::deserialize).transpose()?.unwrap_or_default();
    let genesis = match &chosen.genesis_file {
        Some(file) => {
            if chosen.chain_id.is_some() || !chosen.balances.is_empty() {
                bail!("genesis_file says which chain_id and balances there are");
            }
            read_genesis(file)?
        }
        None => consortium_genesis(chosen.chain_id.unwrap_or(DEFAULT_CHAIN_ID), chosen.balances),
    };
    let options = ChainOptions {
        fees: chosen.fees,
        transaction_gas_limit: chosen.transaction_gas_limit,
        contract_code_limit: chosen.contract_code_limit,
        unprotected_transactions: chosen.unprotected_transactions,
    };
    Ok(Setup { genesis, options })
}

/// A file of geth's form.
pub(crate) fn read_genesis(file: &Path) -> Result<Genesis> {
    parse_genesis(&read(file)?)
        .with_context(|| format!("{} is not a genesis of geth's form", file.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn protocols(command: Value, interface: Value) -> Result<Protocols> {
        let mut interfaces = json!({"main": {"bind_address": "127.0.0.1:0"}});
        interfaces["own"] = interface;
        let config = json!({"network": {"rpc_interfaces": interfaces}, "command": command});
        Protocols::of(&Config::parse(&config.to_string())?)
    }

    fn own(protocol: &str) -> Value {
        json!({"bind_address": "127.0.0.1:0", "coco": {"protocol": protocol}})
    }

    #[test]
    fn a_chain_begins_with_the_service_or_is_on_the_ledger() {
        let plain = json!({"bind_address": "127.0.0.1:0"});
        let start = |section: Value| json!({"type": "Start", "start": {"protocols": section}});
        let none = protocols(start(json!({})), plain.clone()).unwrap();
        assert!(none.ethereum.is_none());
        assert!(protocols(start(json!({})), own("ethereum")).unwrap().ethereum.is_some());
        assert!(protocols(json!({"type": "Restart"}), own("ethereum")).unwrap().ethereum.is_some());
        let fixed = json!({"ethereum": {"chain_id": 7, "fees": {"fixed": 1000}}});
        assert!(protocols(start(fixed), plain).unwrap().ethereum.is_some());
    }

    #[test]
    fn whoever_joins_takes_up_the_chain_of_the_service() {
        let plain = json!({"bind_address": "127.0.0.1:0"});
        let join = |section: Value| {
            let target = json!({"target_rpc_address": "127.0.0.1:8080"});
            json!({"type": "Join", "join": target, "start": {"protocols": section}})
        };
        assert!(protocols(join(json!({})), plain.clone()).unwrap().ethereum.is_some());
        assert!(protocols(join(json!({})), own("ethereum")).unwrap().ethereum.is_some());
        let wrong = protocols(join(json!({"ethereum": {"chainid": 7}})), plain).err().unwrap();
        assert!(format!("{wrong:#}").contains("command.start.protocols.ethereum"));
    }

    #[test]
    fn mistakes_are_named() {
        let plain = json!({"bind_address": "127.0.0.1:0"});
        let error = |section: Value, interface: Value| {
            let command = json!({"type": "Start", "start": {"protocols": section}});
            format!("{:#}", protocols(command, interface).err().unwrap())
        };
        assert!(error(json!({}), own("etherium")).contains("no protocol \"etherium\""));
        assert!(error(json!({"fabric": {}}), plain.clone()).contains("no protocol \"fabric\""));
        let typo = error(json!({"ethereum": {"chainid": 7}}), plain.clone());
        assert!(typo.contains("command.start.protocols.ethereum") && typo.contains("chainid"));
        let absent = error(json!({"ethereum": {"genesis_file": "/nowhere"}}), plain.clone());
        assert!(absent.contains("/nowhere cannot be read"));
        let both = json!({"ethereum": {"genesis_file": "/nowhere", "chain_id": 7}});
        assert!(error(both, plain).contains("genesis_file says"));
        let mut open = own("ethereum");
        open["bind_address"] = json!("0.0.0.0:8545");
        open["endorsement"] = json!({"authority": "Unsecured"});
        assert!(error(json!({}), open).contains("loopback"));
        let mut origins = own("ethereum");
        origins["coco"]["allowed_origins"] = json!(["https://example.org/"]);
        assert!(error(json!({}), origins).contains("allowed_origins"));
    }
}
