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

pub struct Connection {
    pub socket: TcpStream,
    tls: Option<ClientConnection>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    sent_at: VecDeque<Instant>,
    pub failed_replies: u64,
}

impl Connection {
    pub fn open(address: std::net::SocketAddr, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = tls.map(|config| ClientConnection::new(config, name)).transpose()?;
        Ok(Self {
            socket,
            tls,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            sent_at: VecDeque::new(),
            failed_replies: 0,
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
        while let Some((length, status)) = reply(self.incoming.get(start..).unwrap_or_default())? {
            start += length;
            count += 1;
            self.failed_replies += u64::from(!(200..300).contains(&status));
            match self.sent_at.pop_front() {
                Some(sent_at) => latencies.record(now - sent_at),
                None => bail!("a reply that nobody asked for"),
            }
        }
        self.incoming.drain(..start);
        Ok(count)
    }

    fn fill(&mut self) -> Result<()> {
        let Self { socket, tls, incoming, .. } = self;
        let mut chunk = [0; 64 * 1024];
        let Some(tls) = tls else {
            loop {
                match socket.read(&mut chunk) {
                    Ok(0) => bail!("the node closed the connection"),
                    Ok(count) => incoming.extend_from_slice(chunk.get(..count).unwrap_or_default()),
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
                let count = tls.reader().read(&mut chunk)?;
                incoming.extend_from_slice(chunk.get(..count).unwrap_or_default());
                ready -= count;
            }
        }
    }
}

/// Length and status of the reply at the start of `bytes`, if it is complete.
fn reply(bytes: &[u8]) -> Result<Option<(usize, u16)>> {
    let Some(head) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let lines = bytes.get(..head).unwrap_or_default();
    let status = lines.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    let Some(status) = status.and_then(|digits| digits.parse().ok()) else {
        bail!("not an HTTP reply: {:?}", String::from_utf8_lossy(lines));
    };
    let total = head + 4 + content_length(lines)?;
    Ok((bytes.len() >= total).then_some((total, status)))
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
        assert_eq!(reply(text).unwrap(), Some((41, 200)));
        assert_eq!(reply(&text[41..]).unwrap(), None);
        assert_eq!(reply(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((27, 204)));
        assert!(reply(b"gibberish\r\n\r\n").is_err());
    }
}
