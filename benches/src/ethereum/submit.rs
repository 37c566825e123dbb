//! The throughput run: every sender's transactions over keep-alive connections, as fast as the
//! node answers, and then until the latest state has them all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use memchr::memmem;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;

use super::Endpoint;
use super::rpc::{Rpc, post};
use super::work::{Sender, Work};
use crate::connection::{Connection, Reply};
use crate::latency::Latencies;
use crate::server::Usage;

/// How the transactions are put into requests.
#[derive(Clone, Copy)]
pub struct Requests {
    pub connections: usize,
    pub batch: usize,
}

/// What a run measured.
#[derive(Clone, Debug, Serialize)]
pub struct Submitted {
    pub transactions: usize,
    /// From the first request until the latest state has the last transaction.
    pub committed_per_second: f64,
    /// Until the last reply only.
    pub accepted_per_second: f64,
    pub request_p50_ms: f64,
    pub request_p99_ms: f64,
    /// CPU time of the node for each committed transaction, when its process is known.
    pub cpu_us_per_transaction: Option<f64>,
    pub resident_mb: Option<f64>,
}

/// How long one reply may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends everything.
pub fn run(
    endpoint: &Endpoint,
    work: &Work,
    requests: Requests,
    pids: &[u32],
) -> Result<Submitted> {
    let mut rpc = Rpc::open(endpoint)?;
    let mut queues: Vec<VecDeque<Vec<u8>>> =
        (0..requests.connections).map(|number| queue(endpoint, work, requests, number)).collect();
    let mut poll = Poll::new()?;
    let mut connections = Vec::new();
    for number in 0..requests.connections {
        let (address, tls) = (endpoint.socket_address()?, endpoint.tls_config()?);
        let mut connection = Connection::open(address, tls, errors_in)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut connection.socket, Token(number), interest)?;
        connections.push(connection);
    }
    let greeting = post(&endpoint.address, &call(0, "eth_chainId", "[]"));
    let mut greetings = vec![VecDeque::from([greeting]); connections.len()];
    drain(&mut poll, &mut connections, &mut greetings, &mut Latencies::default())?;

    let usage = Usage::of(pids)?;
    let started = Instant::now();
    let mut latencies = Latencies::default();
    drain(&mut poll, &mut connections, &mut queues, &mut latencies)?;
    let accepted = started.elapsed();
    work.wait_committed(&mut rpc)?;
    let committed = started.elapsed();
    let spent = usage.map(|before| before.until_now()).transpose()?;

    let count = work.count() as f64;
    let [request_p50_ms, request_p99_ms] = latencies.quantiles_ms([0.5, 0.99]);
    Ok(Submitted {
        transactions: work.count(),
        committed_per_second: count / committed.as_secs_f64(),
        accepted_per_second: count / accepted.as_secs_f64(),
        request_p50_ms,
        request_p99_ms,
        cpu_us_per_transaction: spent.as_ref().map(|spent| spent.cpu.as_secs_f64() * 1e6 / count),
        resident_mb: spent.map(|spent| spent.resident_bytes as f64 / 1e6),
    })
}

/// One request in flight on each connection, until every queue is empty and answered.
fn drain(
    poll: &mut Poll,
    connections: &mut [Connection],
    queues: &mut [VecDeque<Vec<u8>>],
    latencies: &mut Latencies,
) -> Result<()> {
    for (connection, queue) in connections.iter_mut().zip(queues.iter_mut()) {
        send_next(connection, queue)?;
    }
    let mut events = Events::with_capacity(1024);
    let mut last_reply = Instant::now();
    while connections.iter().any(|connection| connection.in_flight() > 0) {
        ensure!(last_reply.elapsed() < PATIENCE, "no reply within {PATIENCE:?}");
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            let number = event.token().0;
            let Some((connection, queue)) = connections.get_mut(number).zip(queues.get_mut(number))
            else {
                continue;
            };
            // The handshake: what arrives makes what is to be written.
            connection.flush()?;
            if connection.receive(latencies)? > 0 {
                last_reply = Instant::now();
                send_next(connection, queue)?;
            }
            connection.flush()?;
            if let Some(failure) = &connection.first_failure {
                bail!("the node refused {} transactions: {failure}", connection.failures);
            }
        }
    }
    Ok(())
}

fn send_next(connection: &mut Connection, queue: &mut VecDeque<Vec<u8>>) -> Result<()> {
    if let Some(request) = queue.pop_front() {
        connection.request(&request, Instant::now());
        connection.flush()?;
    }
    Ok(())
}

/// The requests of one connection: its senders in turn, each in order of nonces.
fn queue(endpoint: &Endpoint, work: &Work, requests: Requests, number: usize) -> VecDeque<Vec<u8>> {
    let senders: Vec<&Sender> =
        work.senders.iter().skip(number).step_by(requests.connections).collect();
    let longest = senders.iter().map(|sender| sender.raw.len()).max().unwrap_or_default();
    let mut calls = Vec::new();
    for turn in 0..longest {
        for raw in senders.iter().filter_map(|sender| sender.raw.get(turn)) {
            calls.push(call(calls.len(), "eth_sendRawTransaction", &format!("[\"{raw}\"]")));
        }
    }
    let body = |calls: &[String]| match calls {
        [one] if requests.batch == 1 => one.clone(),
        many => format!("[{}]", many.join(",")),
    };
    let bodies = calls.chunks(requests.batch.max(1)).map(body);
    bodies.map(|body| post(&endpoint.address, &body)).collect()
}

fn call(id: usize, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

/// Refused calls in a reply, single or batch.
fn errors_in(reply: &Reply<'_>) -> u64 {
    if !reply.is_success() {
        return 1;
    }
    memmem::find_iter(reply.body, b"\"error\":").count() as u64
}
