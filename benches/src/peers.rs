//! Other programs measured in the same run, where the machine has them: `wrk` as a neutral client,
//! PostgreSQL as what "database speed" means.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Requests per second by `wrk`, or `None` where it is not installed. `script` is Lua.
pub fn wrk(url: &str, connections: usize, seconds: f64, script: &Path) -> Result<Option<f64>> {
    let connections = connections.to_string();
    let duration = format!("{}s", seconds.ceil());
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", &connections, "-d", &duration, "-s"])
        .arg(script)
        .arg(url)
        .output();
    let Ok(output) = output else { return Ok(None) };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(Some(rate.with_context(|| format!("wrk said: {text}"))?.trim().parse()?))
}

/// A PostgreSQL server of our own with durable commits, on a Unix socket in a scratch folder and,
/// with TLS, on a port of this machine.
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
}

/// How clients reach the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    UnixSocket,
    Tls,
}

/// Rows of the table that is updated, as `pgbench` counts: 100,000 for each unit.
const SCALE: &str = "1";

impl Postgres {
    /// Starts one with a certificate and its key, or says `None` where PostgreSQL is not installed.
    pub fn start(folder: &Path, certificate: &Path, key: &Path) -> Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        std::fs::create_dir_all(folder)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let this = Self { programs, folder: folder.to_owned(), port };
        if is_root()? {
            succeed(Command::new("chown").arg("postgres").arg(folder))?;
        }
        let data = this.data();
        succeed(
            this.program("initdb").args(["--auth=trust", "--username=postgres", "-D"]).arg(&data),
        )?;
        this.take_over(certificate, "server.crt")?;
        this.take_over(key, "server.key")?;
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on -k {}",
            folder.display()
        );
        let log = folder.join("log");
        let mut start = this.program("pg_ctl");
        succeed(
            start.arg("-D").arg(&data).arg("-l").arg(log).args(["-w", "-o", &options, "start"]),
        )?;
        let mut fill = this.client("pgbench", Transport::UnixSocket);
        succeed(fill.args(["-i", "-q", "-s", SCALE, "postgres"]))?;
        std::fs::write(
            folder.join("update.sql"),
            "\\set aid random(1, 100000)\n\
             UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n",
        )?;
        Ok(Some(this))
    }

    /// Durable single-row updates per second, and their mean latency in milliseconds.
    pub fn updates(
        &self,
        transport: Transport,
        connections: usize,
        seconds: f64,
    ) -> Result<(f64, f64)> {
        let connections = connections.to_string();
        let duration = (seconds.ceil() as u64).to_string();
        let mut bench = self.client("pgbench", transport);
        bench.args(["-n", "-M", "prepared", "-c", &connections, "-j", "1", "-T", &duration, "-f"]);
        let output = bench.arg(self.folder.join("update.sql")).arg("postgres").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().find_map(|word| word.parse::<f64>().ok())
        };
        let rate = value("tps = ").with_context(|| format!("pgbench said: {text}"))?;
        Ok((rate, value("latency average = ").unwrap_or_default()))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// One of PostgreSQL's programs; the server refuses to run as root.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = if is_root().unwrap_or(false) {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(&self.folder).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn client(&self, name: &str, transport: Transport) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.args(["-U", "postgres", "-p", &self.port.to_string(), "-h"]);
        match transport {
            Transport::UnixSocket => command.arg(&self.folder),
            Transport::Tls => command.arg("127.0.0.1").env("PGSSLMODE", "require"),
        };
        command.stderr(Stdio::null());
        command
    }

    /// Copies a file to the server's, which reads no key that others can read.
    fn take_over(&self, from: &Path, name: &str) -> Result<()> {
        let to = self.data().join(name);
        std::fs::copy(from, &to)?;
        std::fs::set_permissions(&to, Permissions::from_mode(0o600))?;
        if is_root()? {
            succeed(Command::new("chown").arg("postgres").arg(&to))?;
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.data();
        let _ = self.program("pg_ctl").arg("-D").arg(data).args(["-m", "fast", "stop"]).status();
    }
}

/// Debian keeps the server's programs outside the path, by version.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders: Vec<PathBuf> =
        versions.flatten().map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.into_iter().rev().find(|folder| folder.join("initdb").exists())
}

fn is_root() -> Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    Ok(line.split_whitespace().next() == Some("0"))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status()?;
    if !status.success() {
        bail!("{:?} ended with {status}", command.get_program());
    }
    Ok(())
}
