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
use super::configuration::{Command, Listening, NodeConfig, VALIDITY_DAYS};
use super::leftovers::Leftovers;
use crate::advice::advised;
use crate::governance_message::Signer;
use crate::identity::{Identity, Wanted};
use crate::service::{description_file, identity_files, load_signer, read};

/// The chain id that wallets know as a development chain's.
const CHAIN_ID: u64 = 1337;

const MEMBERS: usize = 3;
const USERS: usize = 2;

/// Nodes that a service has at most: more do not make it survive more that happens on one machine.
pub(crate) const MAX_NODES: u8 = 7;

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
        config_file(&self.path)
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        log_file(&self.path)
    }

    /// The folder of one of several nodes.
    pub(crate) fn home(&self, number: u8) -> PathBuf {
        self.path.join(format!("node{number}"))
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        pid_file(&self.path)
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

    /// Something to keep that lacks what tells of its service must not make way for a new one.
    pub(crate) fn refuse_to_lose_a_ledger(&self) -> Result<()> {
        let homes = (0..MAX_NODES).map(|number| self.home(number).join("ledger"));
        let mut ledgers = std::iter::once(self.ledger()).chain(homes);
        let is_filled = |ledger: &PathBuf| {
            fs::read_dir(ledger).is_ok_and(|mut entries| entries.next().is_some())
        };
        let Some(ledger) = ledgers.find(is_filled) else { return Ok(()) };
        let files = [description_file(&self.path), self.config_file()];
        let missing = files.iter().filter(|file| !file.is_file());
        let missing: Vec<String> = missing.map(|file| file.display().to_string()).collect();
        Err(advised(
            anyhow!("{} cannot be kept without {}", ledger.display(), missing.join(" and ")),
            "put back what is missing, or leave out --keep for a new service, which deletes this \
             ledger",
        ))
    }

    /// Whether the service in this folder has several nodes, each with a folder of its own.
    pub(crate) fn has_several_nodes(&self) -> bool {
        config_file(&self.home(0)).is_file()
    }

    /// Where a new service is to begin nothing may lie but what another one has left.
    pub(crate) fn refuse_other_things(&self) -> Result<()> {
        Leftovers::of(self).map(drop)
    }

    /// A folder belongs to one service at a time. Process ids of nodes that were killed are removed.
    pub(crate) fn refuse_while_running(&self) -> Result<()> {
        refuse_while_running(&self.path)?;
        (0..MAX_NODES).try_for_each(|number| refuse_while_running(&self.home(number)))
    }

    /// Starts from nothing: fresh keys and a configuration for a new service with this chain.
    pub(crate) fn create(&self, listening: Listening, chain: &FirstBlock) -> Result<()> {
        self.create_shared(chain)?;
        self.configure(listening, Command::Start { fees: &chain.fees })
    }

    /// Goes on with the service of this folder.
    pub(crate) fn reuse(&self, listening: Listening) -> Result<()> {
        self.configure(listening, Command::Restart)
    }

    /// Starts from nothing: what all nodes of a service share, fresh keys and the first block.
    pub(crate) fn create_shared(&self, chain: &FirstBlock) -> Result<()> {
        Leftovers::of(self)?.remove()?;
        fs::create_dir_all(&self.path)
            .with_context(|| format!("{} cannot be created", self.path.display()))?;
        // The mark of a folder that may be cleared.
        self.write_config(&json!({}))?;
        self.write_genesis(&chain.genesis)?;
        self.create_identities()
    }

    /// Removes the service in the folder, and the folder, unless somebody works in it.
    pub(crate) fn remove(&self) -> Result<()> {
        Leftovers::of(self)?.remove()?;
        let _in_use = fs::remove_dir(&self.path);
        Ok(())
    }

    fn configure(&self, listening: Listening, command: Command<'_>) -> Result<()> {
        let (home, worker_threads) = (&self.path, 0);
        let config = NodeConfig { folder: self, home, listening, command, worker_threads };
        self.write_config(&config.to_json())
    }

    /// Makes the folder of one of several nodes, with its configuration.
    pub(crate) fn create_home(
        &self,
        number: u8,
        listening: Listening,
        command: Command<'_>,
        worker_threads: usize,
    ) -> Result<()> {
        let home = self.home(number);
        fs::create_dir_all(&home)
            .with_context(|| format!("{} cannot be created", home.display()))?;
        let home = home.as_path();
        let config = NodeConfig { folder: self, home, listening, command, worker_threads };
        write_json(&config_file(home), &config.to_json())
    }

    fn write_genesis(&self, genesis: &Genesis) -> Result<()> {
        let file = self.genesis_file();
        fs::write(&file, serde_json::to_string_pretty(genesis)?)
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    fn write_config(&self, config: &Value) -> Result<()> {
        write_json(&self.config_file(), config)
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
}

/// The configuration of a node with this folder.
pub(crate) fn config_file(home: &Path) -> PathBuf {
    home.join("node.json")
}

/// Its log.
pub(crate) fn log_file(home: &Path) -> PathBuf {
    home.join("node.log")
}

fn pid_file(home: &Path) -> PathBuf {
    home.join("node.pid")
}

fn write_json(file: &Path, value: &Value) -> Result<()> {
    fs::write(file, serde_json::to_string_pretty(value)?)
        .with_context(|| format!("{} cannot be written", file.display()))
}

fn refuse_while_running(home: &Path) -> Result<()> {
    let file = pid_file(home);
    let Ok(pid) = fs::read_to_string(&file) else { return Ok(()) };
    let pid = pid.trim();
    if !pid.is_empty() && is_coco(pid) {
        return Err(advised(
            anyhow!("a node is running in {} (process {pid})", home.display()),
            "stop it first, or take another folder with --dir",
        ));
    }
    fs::remove_file(&file).with_context(|| format!("{} cannot be removed", file.display()))
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
        assert!(!folder.has_several_nodes());
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
    fn each_of_several_nodes_has_a_folder() {
        let scratch = TempDir::new().unwrap();
        let folder = DevFolder::at(&scratch.path().join("dev"));
        folder.create_shared(&FirstBlock::of_development(None).unwrap()).unwrap();
        let listening = Listening { nodes: Some(0), ..Listening::default() };
        folder.create_home(0, listening, Command::Start { fees: &Value::Null }, 1).unwrap();
        folder.create_home(1, listening, Command::Join { target: "127.0.0.1:8000" }, 1).unwrap();
        assert!(folder.has_several_nodes() && !folder.has_service());
        let config = |number| read(&config_file(&folder.home(number))).unwrap();
        let [first, second] = [0, 1].map(|number| Config::parse(&config(number)).unwrap());
        assert_ne!(first.ledger.directory, second.ledger.directory);
        assert_eq!(second.command.join.unwrap().target_rpc_address, "127.0.0.1:8000");
        assert_eq!(first.command.start.unwrap().members.len(), 3);
        // One of them still runs, though whoever started it does not.
        fs::write(pid_file(&folder.home(1)), std::process::id().to_string()).unwrap();
        folder.refuse_while_running().unwrap();
        assert!(!pid_file(&folder.home(1)).exists(), "this very process is no node");
        folder.create_shared(&FirstBlock::of_development(None).unwrap()).unwrap();
        assert!(!folder.has_several_nodes());
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
    fn what_no_service_has_made_is_never_removed() {
        let scratch = TempDir::new().unwrap();
        let path = scratch.path().join("op");
        let folder = DevFolder::at(&path);
        let chain = FirstBlock::of_development(None).unwrap();
        folder.create_shared(&chain).unwrap();
        let listening = Listening { nodes: Some(0), ..Listening::default() };
        folder.create_home(0, listening, Command::Start { fees: &Value::Null }, 1).unwrap();
        fs::create_dir_all(path.join("node0/ledger")).unwrap();
        fs::write(path.join("node0/ledger/ledger_1"), "entries").unwrap();
        let before = folder.members().unwrap().first().unwrap().id();
        for other in ["important.txt", "secrets/key.pem", "node0/notes.txt", "node7/x", "ledger"] {
            let file = path.join(other);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "x").unwrap();
            let refused = crate::advice::explain(&folder.create_shared(&chain).unwrap_err());
            assert!(refused.contains("op holds other things: "), "{refused}");
            assert!(refused.contains(other.split('/').next().unwrap()), "{refused}");
            assert!(folder.remove().is_err(), "{other}");
            fs::remove_file(&file).unwrap();
            if other != "node0/notes.txt" {
                let _not_empty = fs::remove_dir(file.parent().unwrap());
            }
        }
        assert_eq!(folder.members().unwrap().first().unwrap().id(), before, "nothing has gone");
        assert!(path.join("node0/ledger/ledger_1").exists());
        folder.create_shared(&chain).unwrap();
        assert!(!path.join("node0").exists());
    }

    #[test]
    fn a_configuration_does_not_make_a_folder_a_development_service() {
        let scratch = TempDir::new().unwrap();
        let path = scratch.path();
        fs::create_dir(path.join("secrets")).unwrap();
        fs::write(path.join("node.json"), "{}").unwrap();
        fs::write(path.join("important.txt"), "x").unwrap();
        let chain = FirstBlock::of_development(None).unwrap();
        DevFolder::at(path).create_shared(&chain).unwrap_err();
        assert!(path.join("important.txt").exists() && path.join("secrets").exists());
        // The names are known, but nothing says whose they are.
        for name in ["node.json", "important.txt"] {
            fs::remove_file(path.join(name)).unwrap();
        }
        fs::remove_dir(path.join("secrets")).unwrap();
        fs::create_dir(path.join("ledger")).unwrap();
        DevFolder::at(path).create_shared(&chain).unwrap_err();
        assert!(path.join("ledger").exists());
    }

    #[test]
    fn a_ledger_without_its_service_is_not_lost() {
        let scratch = TempDir::new().unwrap();
        let folder = DevFolder::at(scratch.path());
        folder.create(Listening::default(), &FirstBlock::of_development(None).unwrap()).unwrap();
        folder.refuse_to_lose_a_ledger().unwrap();
        fs::create_dir(folder.ledger()).unwrap();
        folder.refuse_to_lose_a_ledger().unwrap();
        fs::write(folder.ledger().join("ledger_1"), "entries").unwrap();
        let refused = folder.refuse_to_lose_a_ledger().unwrap_err();
        let text = crate::advice::explain(&refused);
        assert!(text.contains("service.json\n") && text.contains("leave out --keep"), "{text}");
    }

    #[test]
    fn the_folder_itself_stays() {
        use std::os::unix::fs::{MetadataExt as _, symlink};
        let scratch = TempDir::new().unwrap();
        let (path, elsewhere) = (scratch.path().join("dev"), scratch.path().join("big"));
        let folder = DevFolder::at(&path);
        let chain = FirstBlock::of_development(None).unwrap();
        folder.create_shared(&chain).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("ledger_1"), "entries").unwrap();
        symlink(&elsewhere, path.join("ledger")).unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        folder.create_shared(&chain).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), before);
        assert!(!path.join("ledger").exists() && elsewhere.join("ledger_1").exists());
        folder.remove().unwrap();
        assert!(!path.exists());
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
