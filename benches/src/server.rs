//! The measured process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a process had used at a moment.
pub struct Usage {
    pid: u32,
    cpu: Duration,
}

/// What a process used since.
pub struct Spent {
    pub cpu: Duration,
    pub resident_bytes: u64,
}

impl Usage {
    /// What this process has used so far.
    pub fn of(pid: u32) -> Result<Self> {
        Ok(Self { pid, cpu: cpu_time(pid)? })
    }

    /// What it has used since.
    pub fn until_now(&self) -> Result<Spent> {
        let cpu = cpu_time(self.pid)?.saturating_sub(self.cpu);
        Ok(Spent { cpu, resident_bytes: resident_bytes(self.pid)? })
    }
}

/// User and system time, all threads, to the nanosecond where the kernel counts so.
fn cpu_time(pid: u32) -> Result<Duration> {
    let mut total = 0;
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).context("no such process")?;
    for task in tasks.flatten() {
        let Ok(text) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
        total += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory of a process.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// A node started by `dev`, with its files in a scratch folder.
pub struct Server {
    child: Child,
    pub folder: PathBuf,
    pub address: String,
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
        Ok(Self { child, folder: folder.to_owned(), address, open_after })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
