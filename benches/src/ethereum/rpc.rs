//! A blocking JSON-RPC client on one connection, for what is not measured and for the closed loop.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::connection::reply;
use crate::ethereum::Endpoint;

/// One call: method and parameters.
pub type Call = (&'static str, Value);

/// Calls in one request at most.
const BATCH: usize = 100;

/// A connection.
pub struct Rpc {
    stream: Box<dyn Stream>,
    host: String,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Rpc {
    /// Connects.
    pub fn open(endpoint: &Endpoint) -> Result<Self> {
        let address = endpoint.socket_address()?;
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match endpoint.tls_config()? {
            None => Box::new(socket),
            Some(config) => {
                let name = ServerName::IpAddress(address.ip().into());
                Box::new(StreamOwned::new(ClientConnection::new(config, name)?, socket))
            }
        };
        Ok(Self { stream, host: endpoint.address.clone() })
    }

    /// The result of one call.
    pub fn call(&mut self, method: &'static str, params: Value) -> Result<Value> {
        let mut answer = self.exchange(&request(0, method, &params))?;
        if let Some(error) = answer.get("error") {
            bail!("{method}: {error}");
        }
        Ok(answer.get_mut("result").map(Value::take).unwrap_or_default())
    }

    /// The results of many, in order; the first error ends it.
    pub fn calls(&mut self, calls: &[Call]) -> Result<Vec<Value>> {
        let mut results = Vec::with_capacity(calls.len());
        for part in calls.chunks(BATCH) {
            let requests = part.iter().enumerate();
            let requests = requests.map(|(id, (method, params))| request(id, method, params));
            let answer = self.exchange(&Value::Array(requests.collect()))?;
            let answers = answer.as_array().with_context(|| format!("not a batch: {answer}"))?;
            ensure!(answers.len() == part.len(), "{} answers to {}", answers.len(), part.len());
            for (id, (method, _)) in part.iter().enumerate() {
                let one = answers.iter().find(|one| one.get("id") == Some(&json!(id)));
                let one = one.with_context(|| format!("no answer to {method}"))?;
                if let Some(error) = one.get("error") {
                    bail!("{method}: {error}");
                }
                results.push(one.get("result").cloned().unwrap_or_default());
            }
        }
        Ok(results)
    }

    fn exchange(&mut self, body: &Value) -> Result<Value> {
        self.stream.write_all(&post(&self.host, &body.to_string()))?;
        self.stream.flush()?;
        let mut incoming = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(reply) = reply(&incoming)? {
                ensure!(reply.status == 200, "HTTP status {}", reply.status);
                return Ok(serde_json::from_slice(reply.body)?);
            }
            match self.stream.read(&mut chunk)? {
                0 => bail!("the node closed the connection"),
                count => incoming.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            }
        }
    }
}

fn request(id: usize, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// An HTTP request with a JSON body.
pub fn post(host: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A number as Ethereum writes it.
pub fn quantity(value: &Value) -> Result<u128> {
    let text = value.as_str().with_context(|| format!("not a quantity: {value}"))?;
    Ok(u128::from_str_radix(text.trim_start_matches("0x"), 16)?)
}
