//! The load generator: one thread that sleeps in epoll, so that the node has the other core.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;

use crate::Load;
use crate::connection::{Connection, Reply};
use crate::latency::Latencies;
use crate::server::Usage;

/// What one run measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub requests: usize,
    pub failed: u64,
    pub rate_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// CPU time of the measured process for each request, when there is one.
    pub cpu_us_per_request: Option<f64>,
    /// Its resident memory at the end.
    pub resident_mb: Option<f64>,
}

/// How long a run goes on waiting for its last replies.
const GRACE: Duration = Duration::from_secs(10);

/// Sends the load and waits for every reply.
pub fn run(load: &Load) -> Result<Measured> {
    let address = address(&load.address)?;
    let client = load.cert.as_deref().zip(load.key.as_deref());
    let tls = load.service_cert.as_deref().map(|cert| tls_config(cert, client)).transpose()?;
    let requests = requests(load);
    let mut poll = Poll::new()?;
    let mut connections = Vec::new();
    for number in 0..load.connections {
        let failures_in = |reply: &Reply<'_>| u64::from(!reply.is_success());
        let mut connection = Connection::open(address, tls.clone(), failures_in)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut connection.socket, Token(number), interest)?;
        connections.push(connection);
    }
    warm_up(&mut poll, &mut connections, &requests)?;

    let usage = Usage::of(&load.pid)?;
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(load.seconds);
    let mut latencies = Latencies::default();
    let mut next = 0;
    let mut pace = Pace { rate: load.rate, started, sent: 0 };
    let mut progress = Progress { every: load.every.map(Duration::from_secs_f64), told: started };
    for connection in &mut connections {
        connection.failures = 0;
        pace.top_up(connection, load.pipeline, &requests, &mut next);
        connection.flush()?;
    }
    let mut events = Events::with_capacity(1024);
    while (load.rate.is_some() && Instant::now() < until)
        || connections.iter().any(|connection| connection.in_flight() > 0)
    {
        if Instant::now() > until + GRACE {
            bail!("the node did not answer within {GRACE:?} after the run");
        }
        poll.poll(&mut events, Some(pace.wait()))?;
        for event in &events {
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            connection.receive(&mut latencies)?;
            if Instant::now() < until && latencies.count() < load.most {
                pace.top_up(connection, load.pipeline, &requests, &mut next);
            }
            connection.flush()?;
        }
        progress.tell(latencies.count())?;
        // What the pace did not allow when a reply came is sent when its time has come.
        if load.rate.is_some() && Instant::now() < until && latencies.count() < load.most {
            for connection in &mut connections {
                pace.top_up(connection, load.pipeline, &requests, &mut next);
                connection.flush()?;
            }
        }
    }
    let elapsed = started.elapsed();
    let spent = usage.map(|before| before.until_now()).transpose()?;
    let count = latencies.count();
    let [p50_ms, p99_ms, max_ms] = latencies.quantiles_ms([0.5, 0.99, 1.0]);
    Ok(Measured {
        requests: count,
        failed: connections.iter().map(|connection| connection.failures).sum(),
        rate_per_second: count as f64 / elapsed.as_secs_f64(),
        p50_ms,
        p99_ms,
        max_ms,
        cpu_us_per_request: spent
            .as_ref()
            .map(|spent| spent.cpu.as_secs_f64() * 1e6 / count.max(1) as f64),
        resident_mb: spent.map(|spent| spent.resident_bytes as f64 / 1e6),
    })
}

/// One reply on every connection, so that handshakes are not measured.
fn warm_up(poll: &mut Poll, connections: &mut [Connection], requests: &[Vec<u8>]) -> Result<()> {
    let mut ignored = Latencies::default();
    let mut next = 0;
    let mut pace = Pace { rate: None, started: Instant::now(), sent: 0 };
    for connection in connections.iter_mut() {
        pace.top_up(connection, 1, requests, &mut next);
    }
    let mut events = Events::with_capacity(1024);
    let until = Instant::now() + GRACE;
    while connections.iter().any(|connection| connection.in_flight() > 0) {
        if Instant::now() > until {
            bail!("the node did not answer the first requests within {GRACE:?}");
        }
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            connection.flush()?;
            connection.receive(&mut ignored)?;
            connection.flush()?;
        }
    }
    Ok(())
}

/// What is told of a run while it goes on: a line of JSON at a time.
struct Progress {
    every: Option<Duration>,
    told: Instant,
}

impl Progress {
    fn tell(&mut self, requests: usize) -> Result<()> {
        let Some(every) = self.every.filter(|every| self.told.elapsed() >= *every) else {
            return Ok(());
        };
        self.told += every;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::json!({ "requests": requests }))?;
        Ok(out.flush()?)
    }
}

/// How fast requests are sent.
struct Pace {
    /// A second, at most.
    rate: Option<f64>,
    started: Instant,
    sent: usize,
}

impl Pace {
    fn top_up(
        &mut self,
        connection: &mut Connection,
        pipeline: usize,
        requests: &[Vec<u8>],
        next: &mut usize,
    ) {
        // Half a window at a time: many requests share one record and one system call.
        if connection.in_flight() > pipeline / 2 {
            return;
        }
        let now = Instant::now();
        while connection.in_flight() < pipeline && self.allows(now) {
            *next = (*next + 1) % requests.len();
            if let Some(request) = requests.get(*next) {
                connection.request(request, now);
                self.sent += 1;
            }
        }
    }

    fn allows(&self, now: Instant) -> bool {
        let by_now = |rate: f64| rate * now.duration_since(self.started).as_secs_f64();
        self.rate.is_none_or(|rate| (self.sent as f64) < by_now(rate))
    }

    /// How long the sender may sleep if nothing arrives.
    fn wait(&self) -> Duration {
        if self.rate.is_some() { Duration::from_millis(1) } else { Duration::from_secs(1) }
    }
}

/// Every request of the run as bytes, once for each key.
fn requests(load: &Load) -> Vec<Vec<u8>> {
    let body = load.body.clone().unwrap_or_else(|| "v".repeat(load.body_bytes));
    let mut headers = format!("host: {}\r\n", load.address);
    for header in &load.header {
        headers += &format!("{header}\r\n");
    }
    let one = |number: usize| {
        let numbered = |text: &str| {
            let text = text.replace("{n}", &number.to_string());
            text.replace("{n16}", &format!("{:016x}", scattered(number)))
        };
        let (path, body) = (numbered(&load.path), numbered(&body));
        let length = match body.len() {
            0 => String::new(),
            bytes => format!("content-length: {bytes}\r\ncontent-type: text/plain\r\n"),
        };
        format!("{} {path} HTTP/1.1\r\n{headers}{length}\r\n{body}", load.method).into_bytes()
    };
    (0..load.keys.max(1)).map(one).collect()
}

/// Distinct numbers without order, so that a sorted map does not grow at one end (Knuth's
/// multiplicative hashing).
fn scattered(number: usize) -> u64 {
    (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Where a name and port lead to.
pub fn address(text: &str) -> Result<SocketAddr> {
    text.to_socket_addrs()?.next().with_context(|| format!("{text} is not an address"))
}

/// TLS that trusts a service; `client` are the files of a certificate and its key.
pub fn tls_config(
    service_cert: &Path,
    client: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(service_cert)?)?;
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match client {
        Some((cert, key)) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_file(cert)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}
