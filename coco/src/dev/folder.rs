//! The folder of a development service.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use alloy_genesis::Genesis;
use anyhow::{Context, Result, anyhow};
use coco_crypto::Curve;
use coco_ethereum::consortium_genesis;
use serde_json::{Value, json};

use super::accounts::{accounts, balances};
use crate::advice::{Advise, advised};
use crate::governance_message::Signer;
use crate::identity::{Identity, Wanted, encryption_key_files};
use crate::service::{description_file, identity_files, load_signer, read};

/// The interface for clients.
pub(crate) const INTERFACE: &str = "primary_rpc_interface";
/// The interface for wallets.
pub(crate) const ETHEREUM_INTERFACE: &str = "ethereum_rpc_interface";

/// The chain id that wallets know as a development chain's.
const CHAIN_ID: u64 = 1337;

const MEMBERS: usize = 3;
const USERS: usize = 2;

/// Certificates of a folder that is kept shall last.
const VALIDITY_DAYS: u32 = 365;

/// Where and how the node listens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Listening {
    /// Ports; 0 takes a free one.
    pub(crate) clients: u16,
    pub(crate) ethereum: u16,
    /// For other nodes; without it the node stays alone.
    pub(crate) nodes: Option<u16>,
    /// Whether Ethereum is served with the service's certificate, not as plain HTTP.
    pub(crate) ethereum_tls: bool,
}

/// What the chain of a new service begins with.
pub(crate) struct FirstBlock {
    pub(crate) genesis: Genesis,
    /// Who pays for gas, as the configuration says it.
    pub(crate) fees: Value,
}

impl FirstBlock {
    /// The development accounts have money. Gas costs so many wei, or nothing.
    pub(crate) fn of_development(base_fee: Option<u64>) -> Result<Self> {
        let genesis = consortium_genesis(CHAIN_ID, balances(&accounts()?)?);
        let fees = base_fee.map_or(json!("free"), |wei| json!({ "fixed": wei }));
        Ok(Self { genesis, fees })
    }
}

/// The folder: where things lie in it.
pub(crate) struct DevFolder {
    path: PathBuf,
}

impl DevFolder {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.path.join("node.json")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.path.join("node.log")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.path.join("node.pid")
    }

    pub(crate) fn service_cert_file(&self) -> PathBuf {
        self.path.join("service_cert.pem")
    }

    /// The first block of the service's chain.
    pub(crate) fn genesis_file(&self) -> PathBuf {
        self.path.join("genesis.json")
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.path.join("ledger")
    }

    pub(crate) fn member_names(&self) -> Vec<String> {
        (0..MEMBERS).map(|number| format!("member{number}")).collect()
    }

    pub(crate) fn user_names(&self) -> Vec<String> {
        (0..USERS).map(|number| format!("user{number}")).collect()
    }

    /// The members' keys.
    pub(crate) fn members(&self) -> Result<Vec<Signer>> {
        let load = |name: String| {
            let (cert, key) = identity_files(&self.path, &name);
            load_signer(&cert, &key)
        };
        self.member_names().into_iter().map(load).collect()
    }

    /// The participants' certificates, PEM.
    pub(crate) fn user_certificates(&self) -> Result<Vec<String>> {
        let names = self.user_names();
        names.iter().map(|name| read(&identity_files(&self.path, name).0)).collect()
    }

    /// Whether a service was opened in this folder: whether there is something to keep.
    pub(crate) fn has_service(&self) -> bool {
        description_file(&self.path).is_file() && self.config_file().is_file()
    }

    /// A folder belongs to one node at a time. A process id of a node that was killed is removed.
    pub(crate) fn refuse_while_running(&self) -> Result<()> {
        let file = self.pid_file();
        let Ok(pid) = fs::read_to_string(&file) else { return Ok(()) };
        let pid = pid.trim();
        if !pid.is_empty() && is_coco(pid) {
            return Err(advised(
                anyhow!("a node is running in {} (process {pid})", self.path.display()),
                "stop it first, or take another folder with --dir",
            ));
        }
        fs::remove_file(&file).with_context(|| format!("{} cannot be removed", file.display()))
    }

    /// Starts from nothing: fresh keys and a configuration for a new service with this chain.
    pub(crate) fn create(&self, listening: Listening, chain: &FirstBlock) -> Result<()> {
        self.clear()?;
        fs::create_dir_all(&self.path)
            .with_context(|| format!("{} cannot be created", self.path.display()))?;
        // The mark of a folder that may be cleared.
        self.write_config(&json!({}))?;
        self.create_identities()?;
        self.write_genesis(&chain.genesis)?;
        self.write_config(&self.config(listening, "Start", &chain.fees))
    }

    /// Goes on with the service of this folder.
    pub(crate) fn reuse(&self, listening: Listening) -> Result<()> {
        self.write_config(&self.config(listening, "Restart", &Value::Null))
    }

    fn write_genesis(&self, genesis: &Genesis) -> Result<()> {
        let file = self.genesis_file();
        fs::write(&file, serde_json::to_string_pretty(genesis)?)
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    fn write_config(&self, config: &Value) -> Result<()> {
        let file = self.config_file();
        fs::write(&file, serde_json::to_string_pretty(config)?)
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    /// Removes what an earlier `coco dev` left, and nothing else.
    fn clear(&self) -> Result<()> {
        let Ok(mut entries) = fs::read_dir(&self.path) else { return Ok(()) };
        if entries.next().is_none() {
            return Ok(());
        }
        if !self.config_file().is_file() {
            return Err(advised(
                anyhow!("{} holds other things", self.path.display()),
                "name another folder with --dir",
            ));
        }
        fs::remove_dir_all(&self.path)
            .with_context(|| format!("{} cannot be removed", self.path.display()))
            .advise(|| "remove it by hand, or take another folder with --dir".to_owned())
    }

    /// The members' encryption keys take nearly all of the time: each is made on its own thread.
    fn create_identities(&self) -> Result<()> {
        let (members, users) = (self.member_names(), self.user_names());
        let named = |names: Vec<String>, encryption_key| {
            names.into_iter().map(move |name| (name, encryption_key))
        };
        let all: Vec<(String, bool)> = named(members, true).chain(named(users, false)).collect();
        thread::scope(|scope| {
            let started: Vec<_> = all
                .iter()
                .map(|(name, encryption_key)| {
                    scope.spawn(|| {
                        let wanted = Wanted {
                            name,
                            curve: Curve::P256,
                            days: VALIDITY_DAYS,
                            encryption_key: *encryption_key,
                        };
                        Identity::generate(wanted)?.write(&self.path, name)
                    })
                })
                .collect();
            for thread in started {
                thread.join().map_err(|_| anyhow!("making keys failed"))??;
            }
            Ok(())
        })
    }

    fn config(&self, listening: Listening, command: &str, fees: &Value) -> Value {
        let at = |name: &str| self.path.join(name);
        let ethereum_authority = if listening.ethereum_tls { "Service" } else { "Unsecured" };
        let members: Vec<Value> = self
            .member_names()
            .iter()
            .map(|name| {
                json!({
                    "certificate_file": identity_files(&self.path, name).0,
                    "encryption_public_key_file": encryption_key_files(&self.path, name).0,
                })
            })
            .collect();
        let node_to_node =
            listening.nodes.map(|port| json!({ "bind_address": format!("127.0.0.1:{port}") }));
        json!({
            "network": {
                "node_to_node_interface": node_to_node,
                "rpc_interfaces": {
                    INTERFACE: {
                        "bind_address": format!("127.0.0.1:{}", listening.clients),
                        "http_configuration": { "max_body_size": "16MB" },
                    },
                    ETHEREUM_INTERFACE: {
                        "bind_address": format!("127.0.0.1:{}", listening.ethereum),
                        "endorsement": { "authority": ethereum_authority },
                        "http_configuration": { "max_body_size": "5MB" },
                        "coco": { "protocol": "ethereum" },
                    },
                },
            },
            "node_certificate": {
                "subject_alt_names": ["iPAddress:127.0.0.1", "dNSName:localhost"],
                "curve_id": "Secp256R1",
                "initial_validity_days": VALIDITY_DAYS,
            },
            "command": {
                "type": command,
                "service_certificate_file": self.service_cert_file(),
                "start": {
                    "members": members,
                    "service_configuration": { "recovery_threshold": 2 },
                    "initial_service_certificate_validity_days": VALIDITY_DAYS,
                    "service_subject_name": "CN=Coco Development Service",
                    "protocols": {
                        "ethereum": { "genesis_file": self.genesis_file(), "fees": fees },
                    },
                },
            },
            "ledger": { "directory": self.ledger() },
            "snapshots": { "directory": at("snapshots") },
            "output_files": {
                "node_certificate_file": at("node_cert.pem"),
                "pid_file": self.pid_file(),
                "rpc_addresses_file": at("rpc_addresses.json"),
                "sealed_service_location": at("sealed"),
            },
        })
    }
}

/// Whether this process id is that of a program like this one.
fn is_coco(pid: &str) -> bool {
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm"));
    matches!((name(pid), name("self")), (Ok(other), Ok(own)) if other == own)
        && pid != std::process::id().to_string()
}

#[cfg(test)]
mod tests {
    use coco_enclave::config::Config;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_new_folder_has_keys_and_a_valid_configuration() {
        let scratch = TempDir::new().unwrap();
        let folder = DevFolder::at(&scratch.path().join("dev"));
        folder.create(Listening::default(), &FirstBlock::of_development(None).unwrap()).unwrap();
        assert_eq!(folder.members().unwrap().len(), 3);
        assert_eq!(folder.user_certificates().unwrap().len(), 2);
        let config = Config::parse(&read(&folder.config_file()).unwrap()).unwrap();
        assert_eq!(config.command.start.unwrap().members.len(), 3);
        assert!(!folder.has_service());
        // Everything of an earlier one goes.
        let before = folder.members().unwrap().first().unwrap().id();
        folder.create(Listening::default(), &FirstBlock::of_development(None).unwrap()).unwrap();
        assert_ne!(folder.members().unwrap().first().unwrap().id(), before);
        folder.reuse(Listening::default()).unwrap();
        Config::parse(&read(&folder.config_file()).unwrap()).unwrap();
    }

    #[test]
    fn other_peoples_folders_are_left_alone() {
        let scratch = TempDir::new().unwrap();
        fs::write(scratch.path().join("thesis.txt"), "years of work").unwrap();
        let refused = DevFolder::at(scratch.path())
            .create(Listening::default(), &FirstBlock::of_development(None).unwrap())
            .unwrap_err();
        assert!(crate::advice::explain(&refused).contains("--dir"));
        assert!(scratch.path().join("thesis.txt").exists());
    }

    #[test]
    fn a_killed_node_leaves_a_process_id_that_is_ignored() {
        let scratch = TempDir::new().unwrap();
        let folder = DevFolder::at(scratch.path());
        folder.refuse_while_running().unwrap();
        for stale in ["4194305", "1", "", "nonsense"] {
            fs::write(folder.pid_file(), stale).unwrap();
            folder.refuse_while_running().unwrap();
            assert!(!folder.pid_file().exists(), "{stale}");
        }
    }
}
