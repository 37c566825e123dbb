//! etcd of several members on this machine, with durable commits as it comes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Load;

const PATIENCE: Duration = Duration::from_secs(20);

/// The members, ended when dropped.
pub struct Etcd {
    members: Vec<Child>,
    /// Where the leader serves clients.
    leader: String,
}

impl Etcd {
    /// Starts them, or says `None` where etcd is not installed.
    pub fn start(folder: &Path, count: usize) -> Result<Option<Self>> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        std::fs::create_dir_all(folder)?;
        let ports = |_| Ok((free_port()?, free_port()?));
        let ports: Vec<(u16, u16)> = (0..count).map(ports).collect::<Result<_>>()?;
        let peers = ports.iter().enumerate();
        let peers: Vec<String> =
            peers.map(|(number, (_, peer))| format!("m{number}=http://127.0.0.1:{peer}")).collect();
        let cluster = peers.join(",");
        let mut this = Self { members: Vec::new(), leader: String::new() };
        for (number, (client, peer)) in ports.iter().enumerate() {
            let (client, peer) =
                (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let log = File::create(folder.join(format!("m{number}.log")))?;
            let member = Command::new("etcd")
                .args(["--name", &format!("m{number}")])
                .arg("--data-dir")
                .arg(folder.join(format!("m{number}")))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &cluster, "--initial-cluster-state", "new"])
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()?;
            this.members.push(member);
        }
        let started = Instant::now();
        loop {
            let leader = ports.iter().find(|(client, _)| is_leader(*client));
            if let Some((client, _)) = leader {
                this.leader = format!("127.0.0.1:{client}");
                return Ok(Some(this));
            }
            ensure!(started.elapsed() < PATIENCE, "etcd has no leader");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Puts of 16 bytes of key and 64 of value over its HTTP gateway, to the leader.
    pub fn puts(&self, connections: usize, seconds: f64) -> Load {
        let value = "A".repeat(86) + "==";
        Load {
            address: self.leader.clone(),
            service_cert: None,
            cert: None,
            key: None,
            connections,
            pipeline: 1,
            seconds,
            method: "POST".to_owned(),
            path: "/v3/kv/put".to_owned(),
            keys: 1000,
            body_bytes: 0,
            most: usize::MAX,
            header: Vec::new(),
            body: Some(format!(r#"{{"key":"AAAAAA{{n16}}==","value":"{value}"}}"#)),
            rate: None,
            every: None,
            pid: self.members.iter().map(Child::id).collect(),
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn is_leader(port: u16) -> bool {
    status(port).is_ok_and(|status| {
        let member = status.pointer("/header/member_id");
        member.is_some() && member == status.get("leader")
    })
}

fn status(port: u16) -> Result<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(
        b"POST /v3/maintenance/status HTTP/1.0\r\nhost: etcd\r\ncontent-length: 2\r\n\r\n{}",
    )?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (_, body) = reply.split_once("\r\n\r\n").context("not a reply")?;
    Ok(serde_json::from_str(body)?)
}
