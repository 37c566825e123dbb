//! The measured processes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ethereum::Endpoint;

/// How long nodes may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What processes had used at a moment, together.
pub struct Usage {
    pids: Vec<u32>,
    cpu: Duration,
}

/// What they used since.
pub struct Spent {
    pub cpu: Duration,
    pub resident_bytes: u64,
}

impl Usage {
    /// What these processes have used so far; `None` if there are none to measure.
    pub fn of(pids: &[u32]) -> Result<Option<Self>> {
        if pids.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { pids: pids.to_owned(), cpu: Self::cpu(pids)? }))
    }

    /// What they have used since.
    pub fn until_now(&self) -> Result<Spent> {
        let cpu = Self::cpu(&self.pids)?.saturating_sub(self.cpu);
        let resident = self.pids.iter().map(|pid| Ok(resident_bytes(*pid)?.0));
        Ok(Spent { cpu, resident_bytes: resident.sum::<Result<u64>>()? })
    }

    fn cpu(pids: &[u32]) -> Result<Duration> {
        pids.iter().map(|pid| cpu_time(*pid)).sum()
    }
}

/// User and system time of all threads, also of those that have ended, to 10 ms.
fn cpu_time(pid: u32) -> Result<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("no such process")?;
    // The name in brackets may hold anything; utime and stime are the 12th and 13th after it.
    let (_, fields) = text.rsplit_once(") ").context("not the form of /proc/PID/stat")?;
    let ticks: u32 = fields.split(' ').skip(11).take(2).flat_map(str::parse::<u32>).sum();
    Ok(TICK * ticks)
}

/// Resident memory of a process: at present, and at most so far.
pub fn resident_bytes(pid: u32) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |field: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("0 kB");
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    };
    Ok((bytes("VmRSS:")?, bytes("VmHWM:")?))
}

/// A service started by `dev`, of one node or of several, with its files in a scratch folder.
pub struct Server {
    child: Child,
    pub folder: PathBuf,
    pub address: String,
    ready: Value,
    /// From the start of the process to the line that says the service is open.
    pub open_after: Duration,
}

impl Server {
    pub fn start(program: &Path, folder: &Path, extra: &[&str]) -> Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(["dev", "--port", "0", "--json", "--dir"])
            .arg(folder)
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let output = child.stdout.take().context("the node has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let open_after = started.elapsed();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            child.kill()?;
            child.wait()?;
            bail!("{} dev did not open: {line}", program.display());
        };
        let url = ready.get("url").and_then(Value::as_str).unwrap_or_default();
        let address = url.trim_start_matches("https://").trim_end_matches('/').to_owned();
        Ok(Self { child, folder: folder.to_owned(), address, ready, open_after })
    }

    /// The processes of its nodes.
    pub fn pids(&self) -> Vec<u32> {
        let nodes = self.nodes().iter().filter_map(|node| node.get("pid")?.as_u64());
        let nodes: Vec<u32> = nodes.filter_map(|pid| u32::try_from(pid).ok()).collect();
        if nodes.is_empty() { vec![self.child.id()] } else { nodes }
    }

    /// Where the clients of each node connect, if there are several.
    pub fn addresses(&self) -> Vec<String> {
        let urls = self.nodes().iter().filter_map(|node| node.get("url")?.as_str());
        urls.map(|url| url.trim_start_matches("https://").to_owned()).collect()
    }

    fn nodes(&self) -> &[Value] {
        self.ready.get("nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Where it serves Ethereum's JSON-RPC.
    pub fn ethereum(&self) -> Result<Endpoint> {
        let url = self.ready.pointer("/ethereum/url").and_then(Value::as_str);
        let url = url.context("the node serves no Ethereum")?;
        let (scheme, address) = url.split_once("://").context("not a URL")?;
        let address = address.trim_end_matches('/').to_owned();
        let is_tls = scheme == "https";
        Ok(Endpoint { address, service_cert: is_tls.then(|| self.folder.join("service_cert.pem")) })
    }

    /// The key of an account that the genesis has funded.
    pub fn funder(&self) -> Result<&str> {
        let key = self.ready.pointer("/ethereum/accounts/0/private_key").and_then(Value::as_str);
        key.context("the node names no funded account")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let nodes = self.pids();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Several nodes stop by themselves when who has started them is gone.
        let started = Instant::now();
        let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
        while nodes.iter().any(is_there) && started.elapsed() < STOP_LIMIT {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
