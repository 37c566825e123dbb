//! Malformed input of every kind gets the listed status and code, and harms nobody else.
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

use coco_adapter::{AuthnPolicy, Call, EndpointProperties, Mode, Registry};
use coco_crypto::Curve;
use coco_crypto::cose::{Header, label};
use coco_crypto::{CoseSign1, cbor};
use coco_governance::tables::{MEMBERS, MemberStatus};
use http::{Method, StatusCode};
use serde_json::json;
use served::client::{Answer, Client};
use served::{START_S, Served, Someone};
use simulated::{Random, in_virtual_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn app() -> Arc<Registry> {
    let mut app = Registry::new("test", "Test", "");
    let mut add = |path: &str, policies: Vec<AuthnPolicy>| {
        let properties = EndpointProperties {
            mode: Mode::ReadOnly,
            authn_policies: policies,
            ..EndpointProperties::default()
        };
        let echo = |call: &mut Call<'_>| {
            let value: serde_json::Value = call.json()?;
            call.reply(&value)
        };
        app.add(Method::POST, path, properties, json!({}), echo).unwrap();
    };
    add("/json", vec![]);
    add("/jwt", vec![AuthnPolicy::Jwt]);
    add("/cose", vec![AuthnPolicy::UserCoseSign1]);
    Arc::new(app)
}

async fn open_service() -> Served {
    let served = Served::start(app()).await;
    served.open().await;
    served
}

/// The node still serves others.
async fn assert_alive(served: &Served) {
    let answer = Client::tls(served, None).await.get("/node/state").await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[test]
fn tls() {
    in_virtual_time(async {
        let served = open_service().await;
        let hello = |version: [u8; 2], len: u16, body: &[u8]| {
            [&[0x16], &version[..], &len.to_be_bytes(), body].concat()
        };
        let mut random = Random(1);
        let noise: Vec<u8> = (0..2000).map(|_| random.next() as u8).collect();
        for (what, bytes) in [
            ("plain HTTP", b"GET /node/state HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
            ("noise", noise),
            ("an alert", vec![0x15, 3, 3, 0, 2, 2, 40]),
            ("an empty record", hello([3, 1], 0, b"")),
            ("a record that is too long", hello([3, 3], 0xffff, &[1; 100])),
            (
                "a hello that lies about its length",
                hello([3, 1], 8, &[1, 0xff, 0xff, 0xff, 3, 3, 0, 0]),
            ),
            ("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
            ("application data first", vec![0x17, 3, 3, 0, 3, 1, 2, 3]),
            ("nothing but an end", Vec::new()),
        ] {
            let mut stream = served.connect("main");
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut reply = Vec::new();
            let _ = stream.read_to_end(&mut reply).await;
            // At most an alert, never HTTP.
            assert!(reply.is_empty() || reply[0] == 0x15, "{what}: {reply:?}");
            assert!(reply.len() < 64, "{what}");
        }
        assert_alive(&served).await;
    });
}

/// What comes back for raw bytes, up to the end of the connection.
async fn raw(served: &Served, bytes: &[u8]) -> (Option<Answer>, bool) {
    let mut client = Client::plain(served);
    client.try_send(bytes).await;
    let answer = client.receive("GET").await;
    (answer, client.is_closed().await)
}

#[test]
fn http1() {
    in_virtual_time(async {
        let served = open_service().await;
        let long = "x".repeat(20_000);
        let many: String = (0..300).map(|number| format!("x-{number}: 1\r\n")).collect();
        for (bytes, status) in [
            ("\0\0\0\0\r\n\r\n", 400),
            ("hello\r\n\r\n", 400),
            ("GET\r\n\r\n", 400),
            ("GET /node/state\r\n\r\n", 400),
            ("GET /node/state HTTP/9.9\r\n\r\n", 400),
            ("GET  /node/state HTTP/1.1\r\n\r\n", 400),
            ("GET /node/state HTTP/1.1\r\nno colon\r\n\r\n", 400),
            ("GET /node/state HTTP/1.1\r\nbad name: x\r\n\r\n", 400),
            ("GET /node/state HTTP/1.1\r\n: x\r\n\r\n", 400),
            ("GET /node/state HTTP/1.1\r\nx: a\0b\r\n\r\n", 400),
            ("GET /\u{7f}\u{1} HTTP/1.1\r\n\r\n", 400),
            ("POST /app/json HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
            ("POST /app/json HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
            ("POST /app/json HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}", 400),
            ("POST /app/json HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", 400),
            ("POST /app/json HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
            ("POST /app/json HTTP/1.1\r\ncontent-length: 18446744073709551613\r\n\r\n", 413),
            ("POST /app/json HTTP/1.1\r\ncontent-length: 2000000\r\n\r\n", 413),
            ("POST /app/json HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", 400),
            (
                "POST /app/json HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                400,
            ),
            (&format!("GET /{long} HTTP/1.1\r\n\r\n"), 431),
            (&format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"), 431),
            (&format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
            (&long, 431),
        ] {
            let what = bytes.get(..60).unwrap_or(bytes);
            let (answer, closed) = raw(&served, bytes.as_bytes()).await;
            let answer = answer.unwrap_or_else(|| panic!("no answer to {what:?}"));
            assert_eq!(answer.status.as_u16(), status, "{what:?}: {answer:?}");
            assert!(closed, "{what:?} must end the connection");
            let code = match status {
                413 => "RequestBodyTooLarge",
                431 => "RequestHeaderTooLarge",
                _ => continue,
            };
            assert_eq!(answer.code(), code, "{what:?}");
        }
        // Half a request and then nothing.
        let mut stream = served.connect("plain");
        stream.write_all(b"POST /app/json HTTP/1.1\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
        drop(stream);
        assert_alive(&served).await;
    });
}

#[test]
fn http2() {
    in_virtual_time(async {
        let served = open_service().await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let frame = |len: u32, kind: u8, stream: u32, body: &[u8]| {
            let len = len.to_be_bytes();
            [&len[1..], &[kind, 0], &stream.to_be_bytes(), body].concat()
        };
        for (what, bytes) in [
            ("a preface cut short", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()),
            ("no settings", frame(4, 0, 1, b"data")),
            ("a frame that is too long", frame(0x00ff_ffff, 0, 1, b"x")),
            ("data on no stream", frame(1, 0, 0, b"x")),
            ("headers that are not HPACK", frame(4, 1, 1, &[0xff, 0xff, 0xff, 0xff])),
            ("a window of zero", frame(4, 8, 0, &[0, 0, 0, 0])),
        ] {
            let mut stream = served.connect("plain");
            let all = match what {
                "a preface cut short" => bytes,
                "no settings" => [&preface[..], &bytes].concat(),
                _ => [&preface[..], &settings, &bytes].concat(),
            };
            let _ = stream.write_all(&all).await;
            let mut reply = Vec::new();
            // The server ends the connection by itself.
            let _ = stream.read_to_end(&mut reply).await;
            assert!(reply.len() < 512, "{what}");
        }
        assert_alive(&served).await;
    });
}

#[test]
fn json() {
    in_virtual_time(async {
        let served = open_service().await;
        let mut client = Client::plain(&served);
        let deep = "[".repeat(100_000);
        for body in [
            "",
            " ",
            "{",
            "}",
            "nul",
            "{\"a\":}",
            "[1,]",
            "\"\\ud800\"",
            "'a'",
            "{\"a\" 1}",
            "1 2",
            "\u{feff}{}",
            "01",
            "+1",
            "NaN",
            "1e999x",
            &deep,
        ] {
            let answer = client.call("POST", "/app/json", "", body.as_bytes()).await;
            let what = body.get(..20).unwrap_or(body);
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what:?}");
            assert_eq!(answer.code(), "InvalidInput", "{what:?}");
        }
        let answer = client.call("POST", "/app/json", "", b"\xff\xfe{}").await;
        assert_eq!(answer.code(), "InvalidInput");
        assert_eq!(client.call("POST", "/app/json", "", b"{}").await.status, StatusCode::OK);
    });
}

#[test]
fn jwt() {
    in_virtual_time(async {
        let served = open_service().await;
        let mut client = Client::plain(&served);
        let object = |text: &str| {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
        };
        let header = object(r#"{"alg":"ES256","kid":"k"}"#);
        let claims = object(r#"{"exp":1}"#);
        let deep = object(&"[".repeat(10_000));
        let mut tokens = vec![
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "a.b".to_owned(),
            "a.b.c.d".to_owned(),
            format!("{header}.{claims}"),
            format!("{header}.{claims}."),
            format!("{header}.{claims}.!!"),
            format!("{header}.{claims}.AA=="),
            format!("{header}..AA"),
            format!(".{claims}.AA"),
            format!("{deep}.{claims}.AA"),
            format!("{header}.{deep}.AA"),
            format!("{}.{claims}.AA", object("[]")),
            format!("{}.{claims}.AA", object(r#"{"alg":"ES256"}"#)),
            format!("{}.{claims}.AA", object(r#"{"alg":7,"kid":"k"}"#)),
            format!("{}.{claims}.AA", object(r#"{"alg":"ES256","kid":7}"#)),
            format!("{header}.{}.AA", object(r#"{"exp":"soon"}"#)),
            format!("{header}.{}.AA", object(r#"{"exp":1e400}"#)),
            format!("{header}.{}.AA", object("null")),
        ];
        let mut random = Random(7);
        for _ in 0..200 {
            let mut token = format!("{header}.{claims}.AAAA").into_bytes();
            let at = random.below(token.len() as u64) as usize;
            token[at] = b"aZ09._-!"[random.below(8) as usize];
            tokens.push(String::from_utf8(token).unwrap());
        }
        for token in &tokens {
            let extra = format!("authorization: Bearer {token}\r\n");
            let answer = client.call("POST", "/app/jwt", &extra, b"{}").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token}");
            assert_eq!(answer.code(), "InvalidAuthenticationInfo");
            assert!(answer.header("www-authenticate").is_some());
        }
        let answer = client.call("POST", "/app/jwt", "authorization: \u{e9}\r\n", b"{}").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    });
}

#[test]
fn cose_and_cbor() {
    in_virtual_time(async {
        let served = open_service().await;
        let user = Someone::new(1, Curve::P256, 10);
        served.add_user(&user, None).await;
        let mut client = Client::plain(&served);
        let cose = "content-type: application/cose\r\n";
        let id = user.id().to_string().into_bytes();
        let header = || Header::for_key(user.key.public()).with(label::KEY_ID, id.as_slice());
        let good = CoseSign1::sign(header(), b"{}".to_vec(), &user.key).encode();
        let answer = client.call("POST", "/app/cose", cose, &good).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "authenticated; the body is not JSON");

        let message = |protected: Header| CoseSign1::sign(protected, vec![], &user.key).encode();
        let mut deep = vec![0xd2];
        deep.extend_from_slice(&[0x81; 100_000]);
        let huge_array = [0xd2, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let huge_bytes = [0xd2, 0x84, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let created = message(header().with("ccf.gov.msg.created_at", "yesterday"));
        let kind = message(header().with("ccf.gov.msg.type", 7_u64));
        let critical = message(header().with(label::CRITICAL, cbor::Value::Array(vec![])));
        let raw_id =
            message(Header::for_key(user.key.public()).with(label::KEY_ID, &user.id().0[..]));
        let no_id = message(Header::for_key(user.key.public()));
        let other_algorithm = message(header().with(label::ALGORITHM, -35_i64));
        let no_algorithm = message(Header::new().with(label::KEY_ID, id.as_slice()));
        let mut bodies = vec![
            vec![],
            vec![0xd2],
            vec![0xff],
            good[1..].to_vec(),
            good[..good.len() - 1].to_vec(),
            [&good[..], b"x"].concat(),
            deep,
            huge_array.to_vec(),
            huge_bytes.to_vec(),
            vec![0xd2, 0x9f, 0xff],
            vec![0xd2, 0x84, 0xf6, 0xf6, 0xf6, 0xf6],
            created,
            kind,
            critical,
            raw_id,
            no_id,
            other_algorithm,
            no_algorithm,
        ];
        let mut random = Random(3);
        for _ in 0..300 {
            let mut bytes = good.clone();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            bodies.push(bytes);
        }
        for body in &bodies {
            let answer = client.call("POST", "/app/cose", cose, body).await;
            assert_eq!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{}",
                hex::encode(&body[..body.len().min(40)])
            );
            assert_eq!(answer.code(), "InvalidAuthenticationInfo");
        }
    });
}

#[test]
fn governance_messages() {
    in_virtual_time(async {
        let served = open_service().await;
        served
            .govern(|tx| {
                let mut info = MEMBERS.get(tx, &served.member.id()).unwrap().unwrap();
                info.status = MemberStatus::Active;
                MEMBERS.put(tx, &served.member.id(), &info);
            })
            .await;
        let mut client = Client::plain(&served);
        let version = "api-version=2024-07-01";
        let propose = format!("/gov/members/proposals:create?{version}");
        let cose = "content-type: application/cose\r\n";
        let sign = |kind: &str, created_at: Option<u64>, body: &str| {
            let id = served.member.id().to_string().into_bytes();
            let mut header = Header::for_key(served.member.key.public())
                .with(label::KEY_ID, id.as_slice())
                .with("ccf.gov.msg.type", kind);
            if let Some(created_at) = created_at {
                header = header.with("ccf.gov.msg.created_at", created_at);
            }
            CoseSign1::sign(header, body.as_bytes().to_vec(), &served.member.key).encode()
        };
        for (path, extra, body, status) in [
            (&*propose, "", b"{}".to_vec(), 401),
            (&*propose, cose, b"{}".to_vec(), 401),
            (&*propose, cose, sign("proposal", None, "{}"), 401),
            (&*propose, cose, sign("ballot", Some(START_S), "{}"), 401),
            ("/gov/members/proposals:create", cose, sign("proposal", Some(START_S), "{}"), 400),
            ("/gov/service/info?api-version=1999-01-01", "", vec![], 405),
        ] {
            let answer = client.call("POST", path, extra, &body).await;
            assert_eq!(answer.status.as_u16(), status, "{path}: {answer:?}");
            assert!(!answer.code().is_empty());
        }
        for (path, code) in [
            ("/gov/service/info", "MissingApiVersionParameter"),
            ("/gov/service/info?api-version=1999-01-01", "UnsupportedApiVersionValue"),
            ("/gov/service/members/xyz?api-version=2024-07-01", "InvalidResourceName"),
        ] {
            let answer = client.get(path).await;
            assert_eq!((answer.status, &*answer.code()), (StatusCode::BAD_REQUEST, code), "{path}");
        }
        let info = client.get("/gov/service/info?api-version=2024-07-01").await;
        assert_eq!(info.json()["status"], "Open");
    });
}
