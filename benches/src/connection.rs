//! One HTTP/1.1 connection that keeps a fixed number of requests in flight.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use memchr::memmem;
use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::latency::Latencies;

/// Plaintext handed to TLS at a time; requests that wait for room wait for the socket.
const OUTGOING_LIMIT: usize = 256 * 1024;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

pub struct Connection {
    pub socket: TcpStream,
    tls: Option<ClientConnection>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// What is read into. Made once: to zero it for each reply would empty the caches of the node,
    /// whose core may be the other half of this one.
    chunk: Box<[u8]>,
    sent_at: VecDeque<Instant>,
    failures_in: fn(&Reply<'_>) -> u64,
    pub failures: u64,
    pub first_failure: Option<String>,
}

impl Connection {
    /// `failures_in` counts what a reply refuses.
    pub fn open(
        address: std::net::SocketAddr,
        tls: Option<Arc<ClientConfig>>,
        failures_in: fn(&Reply<'_>) -> u64,
    ) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = tls.map(|config| ClientConnection::new(config, name)).transpose()?;
        Ok(Self {
            socket,
            tls,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            sent_at: VecDeque::new(),
            failures_in,
            failures: 0,
            first_failure: None,
        })
    }

    /// Requests sent and not answered.
    pub fn in_flight(&self) -> usize {
        self.sent_at.len()
    }

    /// Puts a request into the queue of what is to be written.
    pub fn request(&mut self, bytes: &[u8], now: Instant) {
        self.outgoing.extend_from_slice(bytes);
        self.sent_at.push_back(now);
    }

    /// Writes what is queued, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<()> {
        let Self { socket, tls, outgoing, .. } = self;
        let Some(tls) = tls else {
            while !outgoing.is_empty() {
                match socket.write(outgoing) {
                    Ok(count) => drop(outgoing.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            return Ok(());
        };
        tls.set_buffer_limit(Some(OUTGOING_LIMIT));
        loop {
            if !outgoing.is_empty() && !tls.is_handshaking() {
                let taken = tls.writer().write(outgoing)?;
                outgoing.drain(..taken);
            }
            if !tls.wants_write() {
                return Ok(());
            }
            match tls.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what has arrived and records each complete reply.
    pub fn receive(&mut self, latencies: &mut Latencies) -> Result<usize> {
        self.fill()?;
        let now = Instant::now();
        let mut start = 0;
        let mut count = 0;
        while let Some(reply) = reply(self.incoming.get(start..).unwrap_or_default())? {
            start += reply.length;
            count += 1;
            let failures = (self.failures_in)(&reply);
            self.failures += failures;
            if failures > 0 && self.first_failure.is_none() {
                self.first_failure = Some(String::from_utf8_lossy(reply.body).into_owned());
            }
            match self.sent_at.pop_front() {
                Some(sent_at) => latencies.record(now - sent_at),
                None => bail!("a reply that nobody asked for"),
            }
        }
        self.incoming.drain(..start);
        Ok(count)
    }

    fn fill(&mut self) -> Result<()> {
        let Self { socket, tls, incoming, chunk, .. } = self;
        let Some(tls) = tls else {
            loop {
                match socket.read(chunk) {
                    Ok(0) => bail!("the node closed the connection"),
                    Ok(count) => {
                        incoming.extend_from_slice(chunk.get(..count).unwrap_or_default());
                        // No more was there, and whatever comes later is an event again.
                        if count < CHUNK {
                            return Ok(());
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        loop {
            match tls.read_tls(socket) {
                Ok(0) => bail!("the node closed the connection"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let mut ready = tls.process_new_packets()?.plaintext_bytes_to_read();
            while ready > 0 {
                let count = tls.reader().read(chunk)?;
                incoming.extend_from_slice(chunk.get(..count).unwrap_or_default());
                ready -= count;
            }
        }
    }
}

/// One reply of HTTP/1.1.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// With its head, in bytes.
    pub length: usize,
}

impl Reply<'_> {
    /// Whether its status says so.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The reply at the start of `bytes`, if it is complete.
pub fn reply(bytes: &[u8]) -> Result<Option<Reply<'_>>> {
    let Some(head) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let lines = bytes.get(..head).unwrap_or_default();
    let status = lines.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    let Some(status) = status.and_then(|digits| digits.parse().ok()) else {
        bail!("not an HTTP reply: {:?}", String::from_utf8_lossy(lines));
    };
    let length = head + 4 + content_length(lines)?;
    Ok(bytes.get(head + 4..length).map(|body| Reply { status, body, length }))
}

fn content_length(lines: &[u8]) -> Result<usize> {
    for line in lines.split(|byte| *byte == b'\n') {
        let name = line.get(..15).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"content-length:") {
            let value = line.get(15..).unwrap_or_default();
            return Ok(std::str::from_utf8(value)?.trim().parse()?);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_found() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No";
        let first = Reply { status: 200, body: b"abc", length: 41 };
        assert_eq!(reply(text).unwrap(), Some(first));
        assert_eq!(reply(&text[41..]).unwrap(), None);
        let empty = Reply { status: 204, body: b"", length: 27 };
        assert_eq!(reply(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some(empty));
        assert!(reply(b"gibberish\r\n\r\n").is_err());
    }
}
