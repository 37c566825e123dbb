//! anvil, the development node of Foundry, from npm: the same EVM without ledger, encryption,
//! signatures or disk.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Endpoint;
use super::rpc::Rpc;

/// The first account of the phrase that anvil starts with.
pub const ANVIL_FUNDER: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// A running anvil.
pub struct Anvil {
    child: Child,
    pub endpoint: Endpoint,
}

/// When anvil makes a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mining {
    /// Every second. Without a timer it loses its way when batches come from many connections.
    EverySecond,
    /// For each transaction, at once.
    Automatic,
}

const PATIENCE: Duration = Duration::from_secs(10);
/// So many transactions fit into one block that the limit does not limit.
const BLOCK_GAS_LIMIT: &str = "30000000000";

impl Anvil {
    /// Starts one on a free port.
    pub fn start(program: &Path, chain_id: u64, mining: Mining) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let mut command = Command::new(program);
        command.args(["--silent", "--port", &port, "--chain-id", &chain_id.to_string()]);
        command.args(["--gas-limit", BLOCK_GAS_LIMIT]);
        if mining == Mining::EverySecond {
            command.args(["--block-time", "1"]);
        }
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let endpoint = Endpoint { address: format!("127.0.0.1:{port}"), service_cert: None };
        let this = Self { child, endpoint };
        let started = Instant::now();
        while Rpc::open(&this.endpoint)
            .and_then(|mut rpc| rpc.call("eth_chainId", json!([])))
            .is_err()
        {
            ensure!(started.elapsed() < PATIENCE, "anvil does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// anvil's program itself among what npm installs in a folder; the one that npm names is a script.
pub fn installed_anvil(node_modules: &Path) -> Option<PathBuf> {
    let packages = std::fs::read_dir(node_modules.join("@foundry-rs")).ok()?.flatten();
    packages
        .filter(|package| package.file_name().to_string_lossy().starts_with("anvil-"))
        .map(|package| package.path().join("bin/anvil"))
        .find(|program| program.exists())
}
