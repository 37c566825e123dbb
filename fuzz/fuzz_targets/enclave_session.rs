//! The bytes of a plain connection into a whole node: HTTP/1.1, HTTP/2, and a protocol's JSON-RPC
//! and WebSocket. Whatever comes, the session ends by itself, and what it has said is HTTP.
#![no_main]

#[path = "../../crates/enclave/tests/served/mod.rs"]
mod served;
#[path = "../../crates/enclave/tests/simulated/mod.rs"]
mod simulated;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use coco_adapter::{Call, EndpointProperties, Mode, Registry};
use coco_enclave::node::Adapters;
use coco_ethereum::{ChainOptions, Ethereum, Setup, consortium_genesis};
use http::Method;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use served::Served;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;

const INTERFACES: &str = r#"
    "plain": {"bind_address": "127.0.0.1:1", "endorsement": {"authority": "Unsecured"},
        "enabled_operator_features": ["SnapshotRead", "LedgerChunkRead"],
        "http_configuration": {"max_body_size": "4KB", "max_header_size": "2KB"}},
    "chain": {"bind_address": "127.0.0.1:2", "endorsement": {"authority": "Unsecured"},
        "http_configuration": {"max_body_size": "4KB"}, "coco": {"protocol": "ethereum"}}
"#;
/// In virtual time: longer than all timeouts of a session together.
const LONGEST: Duration = Duration::from_secs(600);

struct Running {
    runtime: Runtime,
    served: Served,
}

impl Running {
    fn start() -> Self {
        let mut app = Registry::new("fuzz", "Fuzz", "");
        let properties = EndpointProperties { mode: Mode::ReadOnly, ..Default::default() };
        let len = |call: &mut Call<'_>| call.reply(&call.request.body().len());
        app.add(Method::POST, "/len/{of}", properties, json!({}), len).unwrap();
        let options = ChainOptions { transaction_gas_limit: Some(300_000), ..Default::default() };
        let setup = Setup { genesis: consortium_genesis(1337, []), options };
        let ethereum = Arc::new(Ethereum::new(Some(setup)));
        let adapters = Adapters { app: Arc::new(app), protocols: vec![ethereum] };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let served = runtime.block_on(async {
            let served = Served::configured(adapters, INTERFACES, "").await;
            served.open().await;
            served
        });
        Self { runtime, served }
    }
}

thread_local! {
    static RUNNING: RefCell<Running> = RefCell::new(Running::start());
}

/// The first byte chooses the interface and in how large pieces the rest arrives.
fn seeds() -> Vec<Vec<u8>> {
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let message = br#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#;
    let mut masked = vec![0x81, 0x80 | message.len() as u8, 0, 0, 0, 0];
    masked.extend_from_slice(message);
    // A ping, a fragmented text, a goodbye.
    let frames = [&masked[..], b"\x89\x80\0\0\0\0", b"\x01\x81\0\0\0\0a", b"\x80\x81\0\0\0\0b"];
    let goodbye: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";
    let websocket = [upgrade.as_bytes(), &frames.concat(), goodbye].concat();
    // Preface, settings, a request whose headers are literals and indices (RFC 7541), a ping.
    let http2 = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" as &[u8],
        b"\0\0\0\x04\0\0\0\0\0",
        b"\0\0\x12\x01\x05\0\0\0\x01\x82\x86\x44\x0b/node/state\x41\x01a",
        b"\0\0\x0f\x01\x04\0\0\0\x03\x83\x86\x44\x08/app/len\x41\x01a",
        b"\0\0\x03\0\x01\0\0\0\x03abc",
        b"\0\0\x08\x06\0\0\0\0\0pingping",
        b"\0\0\x04\x08\0\0\0\0\0\0\0\x10\0",
        b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    ];
    let rpc = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
    let rpc = format!(
        "POST / HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{rpc}",
        rpc.len()
    );
    let chunked = "POST /app/len/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
        3\r\nabc\r\n4;a=b\r\ndefg\r\n0\r\ntrailer: x\r\n\r\n";
    let mut seeds: Vec<(u8, Vec<u8>)> = [
        "GET /node/state HTTP/1.1\r\nhost: a\r\n\r\nGET /node/network HTTP/1.0\r\n\r\n",
        "POST /app/len/%2f HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
        "GET /app/tx?transaction_id=2.4 HTTP/1.1\r\nx-coco-wait: committed\r\n\r\n",
        "GET /node/receipt?transaction_id=2.3 HTTP/1.1\r\nx-coco-receipt: true\r\n\r\n",
        "GET /node/ledger-chunk?since=1 HTTP/1.1\r\nrange: bytes=0-9\r\n\r\n",
        "HEAD /node/ledger-chunk/ledger_1-2.committed HTTP/1.1\r\nif-none-match: *\r\n\r\n",
        "GET /node/snapshot HTTP/1.1\r\nwant-repr-digest: sha-256=1\r\n\r\n",
        "GET /gov/members/proposals?api-version=2024-07-01 HTTP/1.1\r\n\r\n",
        "POST /gov/members/proposals:create?api-version=2024-07-01 HTTP/1.1\r\n\
            content-type: application/cose\r\ncontent-length: 4\r\n\r\n\x01\x02\x03\x04",
        "GET /app/commit?view_history=true&view_history_since=1 HTTP/1.1\r\n\
            authorization: Bearer a.b.c\r\n\r\n",
        chunked,
    ]
    .into_iter()
    .map(|text| (0, text.as_bytes().to_vec()))
    .collect();
    seeds.push((0, http2.concat()));
    seeds.push((1, http2.concat()));
    seeds.push((1, rpc.into_bytes()));
    seeds.push((1, websocket));
    seeds.push((
        1,
        b"OPTIONS / HTTP/1.1\r\norigin: https://a.b\r\naccess-control-request-method: POST\r\n\r\n"
            .to_vec(),
    ));
    seeds.into_iter().map(|(interface, bytes)| [vec![interface], bytes].concat()).collect()
}

/// What the node says to these bytes, until it ends the session.
async fn exchange(mut stream: DuplexStream, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut said = Vec::new();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let write = async {
        for piece in bytes.chunks(piece) {
            if writer.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = writer.shutdown().await;
    };
    let (_, read) = tokio::join!(write, reader.read_to_end(&mut said));
    read.unwrap();
    said
}

fuzz_target!(init: coco_fuzz::seed("enclave_session", seeds()), |bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let interface = if how & 1 == 0 { "plain" } else { "chain" };
    let piece = match how >> 1 {
        0 => usize::MAX,
        piece => piece.into(),
    };
    RUNNING.with_borrow_mut(|Running { runtime, served }| {
        let said = runtime.block_on(async {
            let exchange = exchange(served.connect(interface), bytes, piece);
            tokio::time::timeout(LONGEST, exchange).await.expect("the session ends by itself")
        });
        let is_http2 = bytes.starts_with(b"PRI");
        assert!(said.is_empty() || is_http2 || said.starts_with(b"HTTP/1."), "{said:?}");
    });
});
