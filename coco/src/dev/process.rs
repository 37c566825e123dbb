//! One node of several: `coco node start` as a process of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use super::configuration::{ADDRESSES, ETHEREUM_INTERFACE, INTERFACE};
use super::ethereum_url;
use super::folder::{DevFolder, config_file, log_file};
use crate::advice::{ERROR, advised};
use crate::client::Client;
use crate::node::LogLevel;
use crate::service::{RunningDevNode, read};

/// How long a node may take to stop: it gives up by itself before.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long a node may take to say whether it is the primary, before all are stopped.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Pause between two looks at the process.
const POLL: Duration = Duration::from_millis(5);
/// Bytes at the end of a log that are searched for what went wrong.
const LOG_END_BYTES: usize = 4_096;

/// The process. It is ended with this, if it has not stopped before.
pub(super) struct NodeProcess {
    pub(super) name: String,
    home: PathBuf,
    child: Child,
    /// Where each of its interfaces listens; empty until it serves.
    addresses: BTreeMap<String, SocketAddr>,
    pub(super) ended: bool,
}

impl NodeProcess {
    /// Starts the node whose configuration is in its folder.
    pub(super) fn start(folder: &DevFolder, number: u8, log_level: LogLevel) -> Result<Self> {
        let home = folder.home(number);
        let path = log_file(&home);
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("{} cannot be written", path.display()))?;
        let program = std::env::current_exe().context("this program has no name")?;
        let child = Command::new(program)
            .args(["node", "start", "--until-input-ends", "--config"])
            .arg(config_file(&home))
            .args(["--log-level", log_level.as_argument()])
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Control-C is for this process, which then stops the nodes in order.
            .process_group(0)
            .spawn()
            .context("no process for a node")?;
        let name = format!("node{number}");
        Ok(Self { name, home, child, addresses: BTreeMap::new(), ended: false })
    }

    /// Until it serves clients: for one that joins, when it has the ledger. Returns where.
    pub(super) fn wait_started(&mut self, deadline: Instant) -> Result<SocketAddr> {
        let file = self.home.join(ADDRESSES);
        loop {
            if file.is_file() {
                self.addresses = serde_json::from_str(&read(&file)?)?;
                return self.address(INTERFACE).context("it has no interface for clients");
            }
            let status = self.child.try_wait().context("the process cannot be watched")?;
            self.ended = status.is_some();
            if status.is_some() || Instant::now() > deadline {
                let status = status.map_or("in time".to_owned(), |status| status.to_string());
                let (name, why) = (&self.name, self.last_words());
                let error = anyhow!("{name} does not start ({status}): {why}");
                let log = log_file(&self.home);
                return Err(advised(error, format!("look at {}", log.display())));
            }
            thread::sleep(POLL);
        }
    }

    /// Where an interface listens.
    pub(super) fn address(&self, interface: &str) -> Option<SocketAddr> {
        self.addresses.get(interface).copied()
    }

    fn url(&self) -> String {
        self.address(INTERFACE).map(|address| format!("https://{address}")).unwrap_or_default()
    }

    /// What its log says of its end.
    fn last_words(&self) -> String {
        let log = fs::read(log_file(&self.home)).unwrap_or_default();
        let end = log.get(log.len().saturating_sub(LOG_END_BYTES)..).unwrap_or_default();
        last_words(&String::from_utf8_lossy(end))
    }

    /// What the folder tells of it, once it serves.
    pub(super) fn describe(
        &mut self,
        certificate: &str,
        ethereum_tls: bool,
        deadline: Instant,
    ) -> Result<RunningDevNode> {
        #[derive(Deserialize)]
        struct Own {
            node_id: String,
        }
        self.wait_started(deadline)?;
        let client = Client::new(&self.url(), certificate)?;
        let ethereum = self.address(ETHEREUM_INTERFACE);
        let Own { node_id } = client.get_json("/node/network/nodes/self")?;
        Ok(RunningDevNode {
            name: self.name.clone(),
            node_id,
            url: self.url(),
            ethereum: ethereum.map(|address| ethereum_url(address, ethereum_tls)),
            ledger: self.home.join("ledger"),
            log: log_file(&self.home),
            pid: self.child.id(),
        })
    }

    /// Whether it is gone; says so the first time.
    pub(super) fn has_ended(&mut self) -> bool {
        if !self.ended
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.ended = true;
            eprintln!("{} has ended ({status}): {}", self.name, self.last_words());
        }
        self.ended
    }

    /// Whether it says so itself.
    pub(super) fn is_primary(&self, certificate: &str) -> bool {
        let client = Client::with_timeout(&self.url(), certificate, ANSWER_LIMIT);
        let answer = client.and_then(|client| client.get("/node/primary"));
        answer.is_ok_and(|reply| reply.status == 200)
    }

    /// Tells it to stop.
    pub(super) fn end_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Whether it has stopped by itself.
    pub(super) fn wait_stopped(&mut self) -> bool {
        let deadline = Instant::now() + STOP_LIMIT;
        while !self.ended && Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(POLL),
                Ok(Some(_)) => self.ended = true,
                Err(_) => break,
            }
        }
        self.ended
    }
}

/// The last error with what to do about it, or else the last line.
fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let error = lines.iter().rposition(|line| line.starts_with(ERROR));
    let from = error.unwrap_or(lines.len().saturating_sub(1));
    let text = lines.get(from..).unwrap_or_default().join("\n");
    match text.strip_prefix(ERROR) {
        Some(error) => error.to_owned(),
        None if text.is_empty() => "it has logged nothing".to_owned(),
        None => text,
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if !self.ended {
            let _ended_already = self.child.kill();
            let _reaped_already = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_error_and_its_advice() {
        let log = "info: started\nerror: old\ninfo: on\n\
                   error: 127.0.0.1:8000: Address already in use\nwhat to do: take another port\n";
        let words = "127.0.0.1:8000: Address already in use\nwhat to do: take another port";
        assert_eq!(last_words(log), words);
        assert_eq!(last_words("a\nb\n"), "b");
        assert_eq!(last_words(""), "it has logged nothing");
    }
}
