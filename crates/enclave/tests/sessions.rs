//! Sessions of a whole node: TLS, HTTP, limits, slow clients, the end.
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
use std::time::Duration;

use coco_adapter::{Call, EndpointProperties, Mode, Registry, Response};
use coco_crypto::Curve;
use coco_enclave::interface::{Endorsement, Interface};
use coco_enclave::session::{Dispatch, Listener, Reply, ServerTls, Session, TlsError};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use served::client::{Client, handshake, shake_hands};
use served::{INTERFACES, Served, ServedHost, Someone};
use simulated::in_virtual_time;
use tokio::io::AsyncReadExt;

/// An app that says how much it was sent, and writes if it is asked to.
fn app() -> Arc<Registry> {
    let mut app = Registry::new("test", "Test", "");
    let read_only = EndpointProperties { mode: Mode::ReadOnly, ..Default::default() };
    let len = |call: &mut Call<'_>| call.reply(&call.request.body().len());
    app.add(Method::POST, "/len", read_only, json!({}), len).unwrap();
    let big = |_: &mut Call<'_>| Ok(Response::new(vec![b'x'; 4 << 20].into()));
    let read_only = EndpointProperties { mode: Mode::ReadOnly, ..Default::default() };
    app.add(Method::GET, "/big", read_only, json!({}), big).unwrap();
    let empty = |_: &mut Call<'_>| {
        Ok(http::Response::builder().status(204).body("not to be sent".into()).unwrap())
    };
    let read_only = EndpointProperties { mode: Mode::ReadOnly, ..Default::default() };
    app.add(Method::GET, "/empty", read_only, json!({}), empty).unwrap();
    let write = |call: &mut Call<'_>| {
        let body = call.request.body().to_vec();
        call.tx.put(&coco_kv::MapName::new("records"), "key", body);
        Ok(Response::default())
    };
    app.add(Method::PUT, "/record", EndpointProperties::default(), json!({}), write).unwrap();
    Arc::new(app)
}

async fn open_service(additions: &str) -> Served {
    let served = Served::configured(app(), INTERFACES, additions).await;
    served.open().await;
    served
}

#[test]
fn each_interface_shows_its_own_certificate() {
    in_virtual_time(async {
        let served = open_service("").await;
        for (interface, protocols) in [("main", [b"http/1.1" as &[u8]]), ("own", [b"http/1.1"])] {
            let wire = handshake(&served, interface, None, &protocols).await.unwrap();
            let connection = wire.get_ref().1;
            let group = connection.negotiated_key_exchange_group().unwrap().name();
            assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
            let answer = Client::on(wire).get("/node/state").await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.json()["state"], "PartOfNetwork");
        }
        assert_eq!(Client::plain(&served).get("/node/state").await.status, StatusCode::OK);
        // A client without ALPN speaks HTTP/1.1.
        let wire = handshake(&served, "main", None, &[]).await.unwrap();
        assert_eq!(Client::on(wire).get("/node/version").await.status, StatusCode::OK);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    in_virtual_time(async {
        let served = open_service("").await;
        let mut client = Client::tls(&served, None).await;
        let mut requests = String::new();
        for number in 0..500 {
            let body = "x".repeat(number);
            requests +=
                &format!("POST /app/len HTTP/1.1\r\ncontent-length: {number}\r\n\r\n{body}");
        }
        client.send(requests.as_bytes()).await;
        for number in 0..500 {
            let answer = client.receive("POST").await.unwrap();
            assert_eq!(answer.body, number.to_string().into_bytes());
        }
        // What comes before half a request is answered without waiting for the other half.
        let one = "POST /len HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
        client.send(format!("{one}{}", &one[..20]).as_bytes()).await;
        assert_eq!(client.receive("POST").await.unwrap().body, b"3");
        client.send(&one.as_bytes()[20..]).await;
        assert_eq!(client.receive("POST").await.unwrap().body, b"3");
        // Bodies in pieces are joined.
        let chunked = "POST /len HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let pieces = "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
        client.send(format!("{chunked}{pieces}").as_bytes()).await;
        assert_eq!(client.receive("POST").await.unwrap().body, b"7");
    });
}

#[test]
fn http2_is_spoken_on_every_interface() {
    in_virtual_time(async {
        let served = open_service("").await;
        let own = handshake(&served, "own", None, &[b"h2"]).await.unwrap();
        let main = handshake(&served, "main", None, &[b"h2", b"http/1.1"]).await.unwrap();
        let plain = served.connect("plain");
        for wire in
            [Box::new(own) as Box<dyn served::client::Wire>, Box::new(main), Box::new(plain)]
        {
            many_streams(wire).await;
        }
    });
}

async fn many_streams(wire: Box<dyn served::client::Wire>) {
    let io = hyper_util::rt::TokioIo::new(wire);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<bytes::Bytes>>(executor, io)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let calls = (0..150_usize).map(|number| {
        let mut sender = sender.clone();
        async move {
            let request = http::Request::post("http://test/app/len")
                .body(Full::new(vec![b'x'; number * 100].into()))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, (number * 100).to_string());
        }
    });
    futures_util::future::join_all(calls).await;
    drop(sender);
    connection.await.unwrap().unwrap();
}

type Http2Client = hyper::client::conn::http2::SendRequest<Full<bytes::Bytes>>;

/// A client on the plain interface that pings, and what it ends with.
async fn http2(served: &Served) -> (Http2Client, tokio::task::JoinHandle<hyper::Result<()>>) {
    let io = hyper_util::rt::TokioIo::new(served.connect("plain"));
    let executor = hyper_util::rt::TokioExecutor::new();
    let (client, connection) = hyper::client::conn::http2::Builder::new(executor)
        .timer(hyper_util::rt::TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(1))
        .handshake(io)
        .await
        .unwrap();
    (client, tokio::spawn(connection))
}

async fn call(client: &mut Http2Client, method: &str, path: &str) -> Response {
    let uri = format!("http://test{path}");
    let request = http::Request::builder().method(method).uri(uri).body(Full::default()).unwrap();
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

#[test]
fn a_reply_that_has_no_body_in_http_has_none() {
    in_virtual_time(async {
        let served = open_service("").await;
        let (mut client, _connection) = http2(&served).await;
        for (method, path, status) in [
            ("HEAD", "/node/state", StatusCode::METHOD_NOT_ALLOWED),
            ("HEAD", "/app/nowhere", StatusCode::NOT_FOUND),
            ("GET", "/app/empty", StatusCode::NO_CONTENT),
        ] {
            let whole = Client::plain(&served).call(method, path, "", b"").await;
            let reply = call(&mut client, method, path).await;
            assert_eq!((reply.status(), whole.status), (status, status), "{method} {path}");
            assert!(reply.body().is_empty() && whole.body.is_empty(), "{method} {path}");
            let length = reply.headers().get("content-length").map(|it| it.to_str().unwrap());
            assert_eq!(length, whole.header("content-length"), "{method} {path}");
            assert_eq!(length.is_some(), method == "HEAD", "{method} {path}");
        }
        assert_eq!(call(&mut client, "GET", "/node/state").await.status(), StatusCode::OK);
    });
}

#[test]
fn a_client_of_http2_that_takes_no_replies_is_let_go() {
    in_virtual_time(async {
        let served = open_service("").await;
        let (mut client, connection) = http2(&served).await;
        let request = || http::Request::get("http://test/app/big").body(Full::default()).unwrap();
        // Larger than what the client takes unread; its pings go on.
        let _held = client.send_request(request()).await.unwrap();
        let began = tokio::time::Instant::now();
        drop(tokio::time::timeout(Duration::from_secs(600), connection).await.unwrap());
        let took = began.elapsed();
        assert!((20..45).contains(&took.as_secs()), "{took:?}");

        // Whoever takes them slowly is served.
        let (mut client, _connection) = http2(&served).await;
        let mut body = client.send_request(request()).await.unwrap().into_body();
        let mut len = 0;
        while let Some(frame) = body.frame().await {
            len += frame.unwrap().into_data().unwrap().len();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(len, 4 << 20);
    });
}

#[test]
fn limits_are_per_interface() {
    in_virtual_time(async {
        let narrow = r#"
            "plain": {"bind_address": "127.0.0.1:1", "endorsement": {"authority": "Unsecured"},
                "accepted_endpoints": ["/node/.*", "/app/len"],
                "http_configuration": {"max_body_size": "1KB", "max_header_size": "2KB",
                    "max_headers_count": 10}}
        "#;
        let served = Served::configured(app(), narrow, "").await;
        served.open().await;
        let call = async |extra: &str, body: &[u8]| {
            Client::plain(&served).call("POST", "/app/len", extra, body).await
        };
        assert_eq!(call("", &[b'x'; 1024]).await.status, StatusCode::OK);
        let answer = call("", &[b'x'; 1025]).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.code(), "RequestBodyTooLarge");
        assert_eq!(answer.header("connection"), Some("close"));

        let mut client = Client::plain(&served);
        let piece = format!("400\r\n{}\r\n", "x".repeat(1024));
        let head = "POST /app/len HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        client.try_send(format!("{head}{piece}{piece}0\r\n\r\n").as_bytes()).await;
        assert_eq!(client.receive("POST").await.unwrap().code(), "RequestBodyTooLarge");
        assert!(client.is_closed().await);

        let long = format!("x-long: {}\r\n", "y".repeat(4000));
        let answer = call(&long, b"").await;
        assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(answer.code(), "RequestHeaderTooLarge");
        let many: String = (0..20).map(|number| format!("x-{number}: y\r\n")).collect();
        assert_eq!(call(&many, b"").await.code(), "RequestHeaderTooLarge");

        // Replies to requests before the faulty one are not lost.
        let mut client = Client::plain(&served);
        let fine = "POST /app/len HTTP/1.1\r\ncontent-length: 2\r\n\r\nab";
        client.send(format!("{fine}{fine}GET / HTTP/1.1\r\n{long}\r\n").as_bytes()).await;
        assert_eq!(client.receive("POST").await.unwrap().body, b"2");
        assert_eq!(client.receive("POST").await.unwrap().body, b"2");
        assert_eq!(client.receive("GET").await.unwrap().code(), "RequestHeaderTooLarge");
        assert!(client.is_closed().await);

        let refused = Client::plain(&served).get("/app/big").await;
        assert_eq!((refused.status, refused.body.len()), (StatusCode::SERVICE_UNAVAILABLE, 0));

        let metrics = Client::plain(&served).get("/node/metrics").await.json();
        let errors = &metrics["sessions"]["interfaces"]["plain"]["errors"];
        assert_eq!(errors["request_payload_too_large"], 2);
        assert_eq!(errors["request_header_too_large"], 3);
    });
}

#[test]
fn sessions_beyond_the_caps_are_refused() {
    in_virtual_time(async {
        let few = r#"
            "plain": {"bind_address": "127.0.0.1:1", "endorsement": {"authority": "Unsecured"},
                "max_open_sessions_soft": 2, "max_open_sessions_hard": 3}
        "#;
        let served = Served::configured(app(), few, "").await;
        let mut clients: Vec<_> = (0..4).map(|_| Client::plain(&served)).collect();
        assert_eq!(clients[0].get("/node/state").await.status, StatusCode::OK);
        assert_eq!(clients[1].get("/node/state").await.status, StatusCode::OK);
        for _ in 0..2 {
            let refused = clients[2].get("/node/state").await;
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(refused.code(), "SessionCapExhausted");
        }
        assert!(clients[3].is_closed().await);
        let metrics = clients[0].get("/node/metrics").await.json();
        assert_eq!(metrics["sessions"]["active"], 3);
        assert_eq!(metrics["sessions"]["peak"], 3);
        assert_eq!(metrics["sessions"]["interfaces"]["plain"]["soft_cap"], 2);
        // A place becomes free when a session ends.
        clients.truncate(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Client::plain(&served).get("/node/state").await.status, StatusCode::OK);
    });
}

/// How long until the server ends the connection.
async fn lifetime(client: &mut Client) -> Duration {
    let began = tokio::time::Instant::now();
    while client.receive("GET").await.is_some() {}
    began.elapsed()
}

#[test]
fn slow_clients_are_let_go() {
    in_virtual_time(async {
        let served = open_service(r#", "idle_connection_timeout": "30s""#).await;
        let between = |low: u64, high: u64, took: Duration| {
            let fits = (Duration::from_secs(low)..Duration::from_secs(high)).contains(&took);
            assert!(fits, "{took:?} is not within {low} s and {high} s");
        };
        // Nothing at all, with and without a handshake, and nothing after a request.
        between(30, 46, lifetime(&mut Client::plain(&served)).await);
        between(10, 11, lifetime(&mut Client::on(served.connect("main"))).await);
        let mut client = Client::tls(&served, None).await;
        client.get("/node/state").await;
        between(30, 46, lifetime(&mut client).await);

        // A head that trickles in.
        let mut client = Client::plain(&served);
        let began = tokio::time::Instant::now();
        for byte in "GET /node/state HTTP/1.1\r\n".bytes() {
            client.try_send(&[byte]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let answer = client.receive("GET").await.unwrap();
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
        assert!(client.is_closed().await);
        between(10, 30, began.elapsed());

        // A body that stops.
        let mut client = Client::plain(&served);
        client.send(b"POST /app/len HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc").await;
        let began = tokio::time::Instant::now();
        let answer = client.receive("POST").await.unwrap();
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
        between(20, 21, began.elapsed());
        assert!(client.is_closed().await);

        // A reply that is not taken.
        let mut stream = served.connect("plain");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /app/big HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut taken = Vec::new();
        stream.read_to_end(&mut taken).await.unwrap();
        assert!(taken.len() < 1 << 20, "{} bytes were sent", taken.len());

        let mut client = Client::plain(&served);
        let active = client.get("/node/metrics").await.json()["sessions"]["active"].clone();
        assert_eq!(active, 1, "all slow sessions are gone");
    });
}

#[test]
fn a_busy_session_is_never_idle() {
    in_virtual_time(async {
        let served = open_service(r#", "idle_connection_timeout": "2s""#).await;
        let mut client = Client::plain(&served);
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert_eq!(client.get("/node/state").await.status, StatusCode::OK);
        }
        let took = lifetime(&mut client).await;
        assert!(took < Duration::from_secs(4), "{took:?}");
    });
}

#[test]
fn a_stop_lets_requests_finish() {
    in_virtual_time(async {
        let served = open_service("").await;
        let mut idle = Client::tls(&served, None).await;
        idle.get("/node/state").await;
        let mut silent = Client::on(served.connect("main"));
        let mut busy = Client::plain(&served);
        let wait = "x-coco-wait: committed\r\ncontent-length: 1\r\n\r\nx";
        busy.send(format!("PUT /app/record HTTP/1.1\r\n{wait}").as_bytes()).await;
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        let ((), answer) = tokio::join!(served.server.stop(), async {
            let answer = busy.receive("PUT").await.unwrap();
            assert!(idle.is_closed().await);
            assert!(busy.is_closed().await);
            answer
        });
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.header("x-ms-ccf-transaction-id").is_some());
        assert!(began.elapsed() <= Duration::from_millis(10), "{:?}", began.elapsed());
        assert!(silent.is_closed().await);
        served.node.shutdown().await;
    });
}

#[test]
fn every_kind_of_client_key_can_shake_hands() {
    let fixture = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        let read = |part: &str| std::fs::read_to_string(format!("{folder}/{name}_{part}.pem"));
        (read("cert").unwrap(), read("key").unwrap())
    };
    in_virtual_time(async {
        let served = open_service("").await;
        for pems in [
            Someone::new(1, Curve::P256, 10).pems(),
            Someone::new(2, Curve::P384, 10).pems(),
            fixture("rsa"),
            fixture("ed25519"),
        ] {
            let wire = handshake(&served, "main", Some(pems), &[b"http/1.1"]).await.unwrap();
            assert_eq!(Client::on(wire).get("/node/state").await.status, StatusCode::OK);
        }
        // A certificate without its key.
        let (certificate, _) = Someone::new(1, Curve::P256, 10).pems();
        let (_, wrong_key) = Someone::new(3, Curve::P256, 10).pems();
        let wire = handshake(&served, "main", Some((certificate, wrong_key)), &[b"http/1.1"]).await;
        if let Ok(wire) = wire {
            assert!(Client::on(wire).is_closed().await);
        }
    });
}

/// Answers everything with nothing.
struct Silent;

impl Dispatch for Silent {
    fn dispatch(&self, _: &Arc<Session>, _: coco_adapter::Request) -> Reply {
        Reply::Now(Response::default())
    }
}

#[test]
fn a_certificate_is_replaced_while_sessions_go_on() {
    in_virtual_time(async {
        let (host, streams) = ServedHost::with_one_interface();
        let tls = Arc::new(ServerTls::new(host.clone()).unwrap());
        let interface = Arc::new(Interface::new("main", Endorsement::Service));
        let (own, silent) = (Some(tls.clone()), Arc::new(Silent));
        let listener = Listener::new(host, interface, own, silent, Arc::default());
        tokio::spawn(listener.clone().serve());
        let connect = async |expected: &Someone| {
            let (ours, theirs) = tokio::io::duplex(16 * 1024);
            streams.send(theirs).unwrap();
            shake_hands(ours, expected.certificate.der().to_vec(), None, &[b"http/1.1"]).await
        };
        let (old, new) = (Someone::new(1, Curve::P256, 1), Someone::new(2, Curve::P384, 1));
        // Without a certificate there is no handshake.
        assert!(connect(&old).await.is_err());
        let install = |someone: &Someone| {
            let (certificate, key) = someone.pems();
            tls.install(&certificate, &key)
        };
        install(&old).unwrap();
        let mut early = Client::on(connect(&old).await.unwrap());
        install(&new).unwrap();
        assert!(connect(&old).await.is_err());
        let mut late = Client::on(connect(&new).await.unwrap());
        for client in [&mut early, &mut late] {
            assert_eq!(client.get("/").await.status, StatusCode::OK);
        }
        // What cannot be used changes nothing.
        let (certificate, key) = (old.pems().0, new.pems().1);
        assert!(matches!(tls.install(&certificate, &key), Err(TlsError::Tls(_))));
        assert!(matches!(tls.install("", &key), Err(TlsError::NoCertificate)));
        assert!(matches!(tls.install(&certificate, "x"), Err(TlsError::Pem(_))));
        assert!(connect(&new).await.is_ok());
        listener.stop().await;
        assert_eq!(listener.metrics().active(), 0);
    });
}
