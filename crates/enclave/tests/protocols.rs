//! Interfaces with a protocol of their own: HTTP, web pages, WebSockets, callers, limits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code, on the host's side"
)]

mod served;
mod simulated;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coco_adapter::{
    Adapter, AdapterError, BoxFuture, Caller, Client as Peer, Conversation, Endpoints, Protocol,
    Registry, Request, Response,
};
use coco_crypto::Curve;
use coco_enclave::node::Adapters;
use coco_enclave::server::{Server, ServerError};
use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use served::client::{Client, Wire, handshake};
use served::{Served, Someone};
use simulated::in_virtual_time;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const NEWS_BYTES: usize = 100_000;

/// Says who asks and what was asked.
#[derive(Default)]
struct Echo {
    /// How often news was asked for.
    news: Arc<AtomicUsize>,
}

fn echo(peer: &Peer, message: &[u8]) -> Vec<u8> {
    let who = match &*peer.caller {
        Caller::UserCert { .. } => "participant",
        Caller::MemberCert { .. } => "member",
        Caller::NoAuth => "nobody",
        other => panic!("{other:?}"),
    };
    let limits = peer.limits;
    format!("{who} {} {}", limits.max_batch_requests, String::from_utf8_lossy(message)).into()
}

impl Adapter for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }
}

impl Protocol for Echo {
    fn start(
        &self,
        _tx: &mut coco_kv::Tx,
        _node: Arc<dyn coco_adapter::Node>,
    ) -> Result<(), AdapterError> {
        Ok(())
    }

    fn handle(&self, client: &Peer, request: Request) -> BoxFuture<'static, Response> {
        let reply = echo(client, request.body());
        Box::pin(async move { Response::new(reply.into()) })
    }

    fn converse(&self, _client: &Peer) -> Option<Arc<dyn Conversation>> {
        let (wanted, _) = tokio::sync::watch::channel(false);
        Some(Arc::new(EchoTalk { wanted: Arc::new(wanted), news: Arc::clone(&self.news) }))
    }
}

/// Echoes; after "news" there is as much of it as the client takes.
struct EchoTalk {
    wanted: Arc<tokio::sync::watch::Sender<bool>>,
    news: Arc<AtomicUsize>,
}

impl Conversation for EchoTalk {
    fn receive(&self, client: &Peer, message: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        if &*message == b"news" {
            self.wanted.send_replace(true);
        }
        let reply = echo(client, &message);
        let wants_answer = &*message != b"quiet";
        Box::pin(async move { wants_answer.then(|| reply.into()) })
    }

    fn next(&self) -> BoxFuture<'static, Option<Vec<Bytes>>> {
        let (mut wanted, news) = (self.wanted.subscribe(), Arc::clone(&self.news));
        Box::pin(async move {
            wanted.wait_for(|wanted| *wanted).await.ok()?;
            news.fetch_add(1, Ordering::SeqCst);
            Some(vec![vec![b'n'; NEWS_BYTES].into()])
        })
    }
}

const INTERFACES: &str = r#"
    "main": {"bind_address": "127.0.0.1:1",
             "coco": {"protocol": "echo", "allowed_origins": ["https://wallet.example"]}},
    "plain": {"bind_address": "127.0.0.1:2", "endorsement": {"authority": "Unsecured"},
              "http_configuration": {"max_body_size": "2KB"},
              "coco": {"protocol": "echo", "max_batch_requests": 7}}
"#;

async fn closed_service() -> (Served, Arc<Echo>) {
    let app: Arc<dyn Endpoints> = Arc::new(Registry::new("test", "Test", ""));
    let protocol = Arc::new(Echo::default());
    let adapters = Adapters { app, protocols: vec![protocol.clone()] };
    (Served::configured(adapters, INTERFACES, "").await, protocol)
}

async fn open_service() -> (Served, Arc<Echo>) {
    let (served, protocol) = closed_service().await;
    served.open().await;
    (served, protocol)
}

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nhost: test\r\nconnection: keep-alive, Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A WebSocket over a stream.
async fn websocket<W: Wire>(mut wire: W) -> WebSocketStream<W> {
    wire.write_all(format!("{HANDSHAKE}\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(wire.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // The example of RFC 6455 section 1.3.
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    WebSocketStream::from_raw_socket(wire, Role::Client, None).await
}

async fn plain_websocket(served: &Served) -> WebSocketStream<DuplexStream> {
    websocket(served.connect("plain")).await
}

async fn text<W: Wire>(socket: &mut WebSocketStream<W>) -> String {
    socket.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

/// The code with which the other side ends the conversation.
async fn goodbye<W: Wire>(socket: &mut WebSocketStream<W>) -> CloseCode {
    loop {
        match socket.next().await.expect("a goodbye") {
            Ok(Message::Close(frame)) => return frame.unwrap().code,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn requests_go_to_the_protocol_once_the_service_is_open() {
    in_virtual_time(async {
        let (served, _) = closed_service().await;
        let mut client = Client::plain(&served);
        let early = client.call("POST", "/", "", b"hello").await;
        assert_eq!(
            (early.status, early.code().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "FrontendNotOpen")
        );
        served.open().await;
        let answer = client.call("POST", "/any/path", "", b"hello").await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, b"nobody 7 hello" as &[u8]));
        // CCF's endpoints are not here.
        assert_eq!(client.get("/node/state").await.body, b"nobody 7 ");
        let large = client.call("POST", "/", "", &[b'x'; 2049]).await;
        assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    });
}

#[test]
fn web_pages_are_let_in_by_their_origin() {
    in_virtual_time(async {
        let (served, _) = open_service().await;
        let allowed = "access-control-allow-origin";
        let preflight = "access-control-request-method: POST\r\n\
            access-control-request-headers: content-type\r\norigin: ";
        // In development every page is.
        let mut client = Client::plain(&served);
        let answer = client.call("POST", "/", "origin: http://a.example\r\n", b"").await;
        assert_eq!(answer.header(allowed), Some("*"));
        let asked = format!("{preflight}http://a.example\r\n");
        let answer = client.call("OPTIONS", "/", &asked, b"").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(answer.header(allowed), Some("*"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("content-type"));
        assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
        let answer = client.call("POST", "/", "", b"").await;
        assert_eq!(answer.header(allowed), None);

        // Elsewhere those that are listed, letter by letter.
        let mut client = Client::tls(&served, None).await;
        let known = "https://wallet.example";
        let answer = client.call("POST", "/", &format!("origin: {known}\r\n"), b"").await;
        assert_eq!((answer.header(allowed), answer.header("vary")), (Some(known), Some("origin")));
        for other in ["https://wallet.example.org", "http://wallet.example", "null"] {
            let answer = client.call("POST", "/", &format!("origin: {other}\r\n"), b"").await;
            assert_eq!(answer.header(allowed), None, "{other}");
            let asked = format!("{preflight}{other}\r\n");
            let answer = client.call("OPTIONS", "/", &asked, b"").await;
            assert_eq!(answer.header(allowed), None, "{other}");
        }
        client.send(format!("{HANDSHAKE}origin: https://other.example\r\n\r\n").as_bytes()).await;
        assert_eq!(client.receive("GET").await.unwrap().status, StatusCode::FORBIDDEN);
        client.send(format!("{HANDSHAKE}origin: {known}\r\n\r\n").as_bytes()).await;
        assert_eq!(client.receive("GET").await.unwrap().status, StatusCode::SWITCHING_PROTOCOLS);
    });
}

#[test]
fn certificates_say_who_calls() {
    in_virtual_time(async {
        let (served, _) = open_service().await;
        let (user, stranger) = (Someone::new(5, Curve::P256, 9), Someone::new(6, Curve::P256, 9));
        served.add_user(&user, None).await;
        for (someone, who) in [
            (None, "nobody"),
            (Some(&user), "participant"),
            (Some(&served.member), "member"),
            (Some(&stranger), "nobody"),
        ] {
            let answer = Client::tls(&served, someone).await.call("POST", "/", "", b"x").await;
            assert_eq!(String::from_utf8(answer.body).unwrap(), format!("{who} 1000 x"));
            let pems = someone.map(Someone::pems);
            let wire = handshake(&served, "main", pems, &[b"http/1.1"]).await.unwrap();
            let mut socket = websocket(wire).await;
            socket.send(Message::text("x")).await.unwrap();
            assert_eq!(text(&mut socket).await, format!("{who} 1000 x"));
        }
    });
}

#[test]
fn a_handshake_that_is_none_is_refused() {
    in_virtual_time(async {
        let (served, _) = open_service().await;
        for (from, to, status) in [
            ("version: 13", "version: 8", StatusCode::UPGRADE_REQUIRED),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", StatusCode::BAD_REQUEST),
            // Without these it is an ordinary request.
            ("upgrade: websocket", "upgrade: h2c", StatusCode::OK),
            ("keep-alive, Upgrade", "keep-alive", StatusCode::OK),
        ] {
            let mut client = Client::plain(&served);
            let request = format!("{}\r\n", HANDSHAKE.replace(from, to));
            client.send(request.as_bytes()).await;
            assert_eq!(client.receive("GET").await.unwrap().status, status, "{to}");
        }
    });
}

#[test]
fn a_websocket_carries_messages_both_ways() {
    in_virtual_time(async {
        let (served, _) = open_service().await;
        let mut socket = plain_websocket(&served).await;
        for number in 0..100 {
            socket.send(Message::text(format!("{number}"))).await.unwrap();
        }
        socket.send(Message::text("quiet")).await.unwrap();
        socket.send(Message::binary(&b"bytes"[..])).await.unwrap();
        for number in 0..100 {
            assert_eq!(text(&mut socket).await, format!("nobody 7 {number}"));
        }
        assert_eq!(text(&mut socket).await, "nobody 7 bytes");
        socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
        let pong = socket.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong(Bytes::from_static(b"there?")));
        socket.send(Message::text("news")).await.unwrap();
        assert_eq!(text(&mut socket).await, "nobody 7 news");
        assert_eq!(text(&mut socket).await.len(), NEWS_BYTES);
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    });
}

#[test]
fn frames_that_break_the_rules_end_the_conversation() {
    in_virtual_time(async {
        let (served, _) = open_service().await;
        let mut socket = plain_websocket(&served).await;
        socket.send(Message::text("x".repeat(2049))).await.unwrap();
        assert_eq!(goodbye(&mut socket).await, CloseCode::Size);
        let raw: [(&[u8], CloseCode); 4] = [
            // Text that is not UTF-8; the mask is zero.
            (&[0x81, 0x81, 0, 0, 0, 0, 0xff], CloseCode::Invalid),
            // Not masked.
            (&[0x81, 0x01, b'x'], CloseCode::Protocol),
            // A continuation of nothing.
            (&[0x80, 0x81, 0, 0, 0, 0, b'x'], CloseCode::Protocol),
            // A length that nobody could send.
            (
                &[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
                CloseCode::Size,
            ),
        ];
        for (bytes, code) in raw {
            let mut socket = plain_websocket(&served).await;
            socket.get_mut().write_all(bytes).await.unwrap();
            assert_eq!(goodbye(&mut socket).await, code, "{bytes:?}");
        }
    });
}

#[test]
fn a_subscriber_that_takes_nothing_is_dropped_and_costs_little() {
    in_virtual_time(async {
        let (served, protocol) = open_service().await;
        let mut socket = plain_websocket(&served).await;
        socket.send(Message::text("news")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(15)).await;
        let asked = protocol.news.load(Ordering::SeqCst);
        assert!((1..10).contains(&asked), "{asked} times {NEWS_BYTES} bytes wait");
        tokio::time::sleep(Duration::from_secs(45)).await;
        assert_eq!(protocol.news.load(Ordering::SeqCst), asked);
        // What was on its way still comes; then there is no goodbye, only the end.
        let mut rest = Vec::new();
        let _ = socket.get_mut().read_to_end(&mut rest).await;
        assert!(rest.len() < 10 * NEWS_BYTES);
    });
}

#[test]
fn pings_find_clients_that_are_gone_and_keep_those_that_are_silent() {
    in_virtual_time(async {
        let (served, _) = open_service().await;
        let mut alive = plain_websocket(&served).await;
        let mut gone = plain_websocket(&served).await;
        let silent = async {
            // Reading answers pings.
            while let Some(Ok(Message::Ping(_))) = alive.next().await {}
        };
        let _ = tokio::time::timeout(Duration::from_secs(600), silent).await;
        alive.send(Message::text("still here")).await.unwrap();
        assert_eq!(text(&mut alive).await, "nobody 7 still here");
        let mut rest = Vec::new();
        gone.get_mut().read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [0x89, 0, 0x89, 0, 0x89, 0][..rest.len()], "pings and nothing else");
    });
}

#[test]
fn a_node_that_stops_says_goodbye() {
    in_virtual_time(async {
        let (served, _) = open_service().await;
        let mut socket = plain_websocket(&served).await;
        socket.send(Message::text("x")).await.unwrap();
        assert_eq!(text(&mut socket).await, "nobody 7 x");
        let (code, ()) = tokio::join!(goodbye(&mut socket), served.server.stop());
        assert_eq!(code, CloseCode::Away);
    });
}

#[test]
fn an_interface_cannot_name_what_the_node_does_not_have() {
    in_virtual_time(async {
        let interfaces = r#""main": {"bind_address": "127.0.0.1:1",
            "coco": {"protocol": "echo"}}"#;
        let text = format!(
            r#"{{"network": {{"rpc_interfaces": {{{interfaces}}}}},
                "command": {{"type": "Start", "start": {{}}}}}}"#
        );
        let mut config = coco_enclave::config::Config::parse(&text).unwrap();
        let name = config.network.rpc_interfaces.get_mut("main").unwrap();
        name.coco.as_mut().unwrap().protocol = "fabric".to_owned();
        let disk = simulated::SimulatedDisk::new();
        let host = Arc::new(simulated::SimulatedHost::new(1, disk));
        let app: Arc<dyn Endpoints> = Arc::new(Registry::new("test", "Test", ""));
        let adapters = Adapters { app, protocols: vec![Arc::new(Echo::default())] };
        let files = simulated::node::files();
        let node = coco_enclave::node::Node::start(host, config, files, adapters).await.unwrap();
        let Err(ServerError::Interface { name, error }) = Server::start(node) else { panic!() };
        assert_eq!(name, "main");
        assert!(error.to_string().contains("fabric") && error.to_string().contains("echo"));
    });
}
