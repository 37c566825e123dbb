//! Requests at any node of a network: forwarded to the primary, or redirected, and what their
//! sessions see.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test"
)]

mod linked;
mod served;
mod simulated;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use coco_adapter::{
    AuthnPolicy, Call, Caller, EndpointProperties, Endpoints, ErrorResponse, ForwardingRequired,
    Mode, RedirectionStrategy, Registry, Response, TxStatus,
};
use coco_crypto::cose::{Header, label};
use coco_crypto::{CoseSign1, Curve, KeyPair};
use coco_enclave::channels::wire::MAX_EXCHANGED_BYTES;
use coco_enclave::host::Area;
use coco_governance::tables::{
    Base64, JWT_PUBLIC_SIGNING_KEYS, JwtKey, Pem, USER_CERTS, USERS, UserInfo,
};
use coco_kv::{MapName, TxId};
use coco_ledger::{ChunkName, Receipt};
use http::{Method, StatusCode};
use linked::{Network, govern, open, read, until, write};
use serde_json::{Value as Json, json};
use served::client::{Answer, Client};
use served::{START_S, Someone};
use simulated::{SeededEntropy, in_virtual_time};

const MAIN: u16 = 8000;
const REDIRECTING: u16 = 8100;
const BALANCED: u16 = 8200;
const WAIT: &str = "x-coco-wait: committed\r\n";

thread_local! {
    /// Called once while a request is executed. All nodes run on one thread.
    static DURING: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

fn records() -> MapName {
    MapName::new("records")
}

fn app() -> Arc<dyn Endpoints> {
    let mut app = Registry::new("test", "Test", "");
    for (path, policy) in [
        ("/user/{key}", AuthnPolicy::UserCert),
        ("/jwt/{key}", AuthnPolicy::Jwt),
        ("/cose/{key}", AuthnPolicy::UserCoseSign1),
        ("/anybody/{key}", AuthnPolicy::NoAuth),
    ] {
        let properties = EndpointProperties { authn_policies: vec![policy], ..Default::default() };
        app.add(Method::PUT, path, properties, json!({}), put).unwrap();
    }
    let never = EndpointProperties {
        forwarding_required: ForwardingRequired::Never,
        redirection_strategy: RedirectionStrategy::None,
        ..Default::default()
    };
    app.add(Method::PUT, "/here/{key}", never.clone(), json!({}), put).unwrap();
    let local = EndpointProperties { mode: Mode::ReadOnly, ..never };
    app.add(Method::GET, "/here/{key}", local.clone(), json!({}), get).unwrap();
    let sometimes =
        EndpointProperties { forwarding_required: ForwardingRequired::Sometimes, ..local.clone() };
    app.add(Method::GET, "/records/{key}", sometimes, json!({}), get).unwrap();
    let at_backup =
        EndpointProperties { redirection_strategy: RedirectionStrategy::ToBackup, ..local };
    app.add(Method::GET, "/at_backup/{key}", at_backup, json!({}), get).unwrap();
    let large = |call: &mut Call<'_>| {
        call.tx.put(&records(), "large", "written");
        Ok(Response::new(vec![b'x'; MAX_EXCHANGED_BYTES].into()))
    };
    app.add(Method::POST, "/large", EndpointProperties::default(), json!({}), large).unwrap();
    let refuse = |_: &mut Call<'_>| -> Result<Response, ErrorResponse> {
        let code = coco_adapter::ErrorCode::PreconditionFailed;
        Err(ErrorResponse::new(StatusCode::PRECONDITION_FAILED, code, "Not so."))
    };
    app.add(Method::POST, "/refused", EndpointProperties::default(), json!({}), refuse).unwrap();
    let count = |call: &mut Call<'_>| {
        let before = call.tx.get(&records(), b"count").map_or(0, |value| value[0]);
        call.tx.put(&records(), "count", [before + 1]);
        if let Some(during) = DURING.take() {
            during();
        }
        call.reply(&(before + 1))
    };
    app.add(Method::POST, "/count", EndpointProperties::default(), json!({}), count).unwrap();
    Arc::new(app)
}

/// Writes the body, and tells who has sent it.
fn put(call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let caller = match call.caller {
        Caller::UserCert { id, data, .. } => json!(["user", id.to_string(), data]),
        Caller::Jwt { payload, .. } => json!(["jwt", payload["sub"]]),
        Caller::UserCose { id, envelope, .. } => {
            json!(["cose", id.to_string(), String::from_utf8_lossy(&envelope.content)])
        }
        _ => json!(["nobody"]),
    };
    let (key, value) = (call.param("key").to_owned(), call.request.body().to_vec());
    call.tx.put(&records(), key, value);
    call.reply(&json!({ "caller": caller, "query": call.query("q") }))
}

fn get(call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let key = call.param("key").as_bytes().to_vec();
    let value = call.tx.get(&records(), &key);
    let value = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
    call.reply(&value)
}

/// An open service of three nodes, the first of which is primary.
async fn three() -> Network {
    three_configured("", "").await
}

async fn three_configured(main: &'static str, additions: &'static str) -> Network {
    let network = Network::running(app).configured(main, additions).with(3).await;
    open(network.node(0)).await;
    network.agree().await;
    // Whether the service is open is a question of what is committed.
    for number in 0..3 {
        let client = &mut network.client(number, MAIN, None).await;
        while client.get("/node/ready/app").await.status != StatusCode::NO_CONTENT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    network
}

/// Whether another node is primary instead of the first, and the third one knows.
fn succeeded(network: &Network) -> bool {
    let backups = [network.node(1), network.node(2)];
    let next = backups.iter().find(|node| node.pipeline().leads());
    next.is_some_and(|next| backups.iter().all(|node| node.primary() == Some(next.id())))
}

async fn write_at(client: &mut Client, path: &str, extra: &str) -> Answer {
    client.call("PUT", path, extra, b"1").await
}

fn summary(answer: &Answer) -> (StatusCode, String) {
    (answer.status, answer.code())
}

#[test]
fn a_write_through_any_node_is_its_callers() {
    in_virtual_time(async {
        let network = three().await;
        let (user, stranger) = (Someone::new(1, Curve::P256, 10), Someone::new(2, Curve::P384, 10));
        let issuer = KeyPair::generate(Curve::P256, &SeededEntropy::new(5)).unwrap();
        govern(&network, |tx| {
            USER_CERTS.put(tx, &user.id(), &Pem(user.certificate.to_pem()));
            USERS.put(tx, &user.id(), &UserInfo { user_data: json!({"role": "teller"}) });
            let key = JwtKey {
                public_key: Base64(issuer.public().spki_der().to_vec()),
                issuer: "https://issuer.example".to_owned(),
                constraint: None,
            };
            JWT_PUBLIC_SIGNING_KEYS.put(tx, &"k".to_owned(), &vec![key]);
        })
        .await;
        let encode = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let claims = json!({"sub": "ada", "exp": START_S + 600});
        let token = format!("{}.{}", encode(&json!({"alg": "ES256", "kid": "k"})), encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(issuer.sign_p1363(token.as_bytes()));
        let bearer = format!("authorization: Bearer {token}.{signature}\r\n");
        let id = user.id().to_string();
        let header = Header::for_key(user.key.public()).with(label::KEY_ID, id.as_bytes());
        let signed = CoseSign1::sign(header, b"signed".to_vec(), &user.key).encode();
        let cose = "content-type: application/cose\r\n";

        let mut refusals = Vec::new();
        for number in 0..3 {
            let mut known = network.client(number, MAIN, Some(&user)).await;
            let answer = write_at(&mut known, &format!("/app/user/{number}?q=1"), WAIT).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let expected = json!({"caller": ["user", id, {"role": "teller"}], "query": "1"});
            assert_eq!(answer.json(), expected);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let tx_id = answer.header("x-ms-ccf-transaction-id").unwrap().parse().unwrap();
            assert_eq!(network.node(0).pipeline().status(tx_id), TxStatus::Committed);
            assert_eq!(read(network.node(0), &number.to_string()).as_deref(), Some("1"));

            let mut nobody = network.client(number, MAIN, None).await;
            let answer = nobody.call("PUT", "/app/jwt/a", &bearer, b"x").await;
            assert_eq!(answer.json()["caller"], json!(["jwt", "ada"]), "{answer:?}");
            let answer = nobody.call("PUT", "/app/cose/a", cose, &signed).await;
            assert_eq!(answer.json()["caller"], json!(["cose", id, "signed"]));

            // Whoever is not who the endpoint wants is refused as on the primary.
            let mut other = network.client(number, MAIN, Some(&stranger)).await;
            let wrong = bearer.replace("Bearer ", "Bearer x");
            refusals.push([
                write_at(&mut nobody, "/app/user/x", "").await.body,
                write_at(&mut other, "/app/user/x", "").await.body,
                write_at(&mut other, "/app/jwt/x", &wrong).await.body,
                write_at(&mut other, "/app/cose/x", cose).await.body,
                other.call("POST", "/app/refused", "", b"").await.body,
            ]);
        }
        assert_eq!(refusals[0], refusals[1]);
        assert_eq!(refusals[0], refusals[2]);
        let text = String::from_utf8(refusals[1].concat()).unwrap();
        for expected in ["No caller user certificate", "matching user", "PreconditionFailed"] {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(read(network.node(0), "x"), None);
    });
}

#[test]
fn a_receipt_comes_with_the_reply_of_another_node() {
    in_virtual_time(async {
        let network = three().await;
        let mut client = network.client(2, MAIN, None).await;
        let answer = write_at(&mut client, "/app/anybody/a", "x-coco-receipt: true\r\n").await;
        let receipt = STANDARD.decode(answer.header("x-coco-receipt").unwrap()).unwrap();
        let receipt = Receipt::from_json(&receipt).unwrap();
        let key = network.node(0).identity().service_certificate.public_key().unwrap();
        receipt.verify(&key).unwrap();
    });
}

#[test]
fn a_node_answers_by_itself_what_never_leaves_it() {
    in_virtual_time(async {
        let network = three().await;
        let mut client = network.client(1, MAIN, None).await;
        let refused = write_at(&mut client, "/app/here/a", "").await;
        let code = "TransactionReplicationFailed".to_owned();
        assert_eq!(summary(&refused), (StatusCode::SERVICE_UNAVAILABLE, code));
        let mut at_primary = network.client(0, MAIN, None).await;
        let written = write_at(&mut at_primary, "/app/here/a", WAIT).await;
        assert_eq!(written.status, StatusCode::OK);
        network.agree().await;
        assert_eq!(client.get("/app/here/a").await.json(), "1");
        // Unknown paths and wrong verbs need no primary either.
        network.fabric.cut_off(0);
        assert_eq!(client.get("/app/nothing").await.status, StatusCode::NOT_FOUND);
        let wrong = client.call("POST", "/app/here/a", "", b"").await;
        assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    });
}

#[test]
fn an_interface_with_redirections_redirects() {
    in_virtual_time(async {
        let network = three().await;
        let mut at_backup = network.client(1, REDIRECTING, None).await;
        let redirected = write_at(&mut at_backup, "/app/anybody/a?q=1", "").await;
        assert_eq!(redirected.status, StatusCode::TEMPORARY_REDIRECT);
        let location = Some("https://node0:8100/app/anybody/a?q=1");
        assert_eq!(redirected.header("location"), location);
        // One that may not be redirected is when it turns out to write.
        let redirected = write_at(&mut at_backup, "/app/here/a", "").await;
        assert_eq!(redirected.header("location"), Some("https://node0:8100/app/here/a"));
        assert_eq!(at_backup.get("/app/at_backup/a").await.status, StatusCode::OK);

        let mut at_primary = network.client(0, REDIRECTING, None).await;
        let redirected = at_primary.get("/app/at_backup/a").await;
        assert_eq!(redirected.status, StatusCode::TEMPORARY_REDIRECT);
        let location = redirected.header("location").unwrap();
        let backups = ["https://node1:8100/app/at_backup/a", "https://node2:8100/app/at_backup/a"];
        assert!(backups.contains(&location), "{location}");
        assert_eq!(write_at(&mut at_primary, "/app/anybody/a", "").await.status, StatusCode::OK);
        assert_eq!(at_primary.get("/app/records/a").await.status, StatusCode::OK);

        let mut balanced = network.client(1, BALANCED, None).await;
        let redirected = write_at(&mut balanced, "/app/anybody/a?q=1", "").await;
        let location = Some("https://all.example:443/app/anybody/a?q=1");
        assert_eq!(redirected.header("location"), location);
        let mut balanced = network.client(0, BALANCED, None).await;
        let redirected = balanced.get("/app/at_backup/a").await;
        assert!(backups.contains(&redirected.header("location").unwrap()));

        network.node(2).shutdown().await;
        network.fabric.cut_off(0);
        until(|| network.node(1).primary().is_none()).await;
        let refused = write_at(&mut at_backup, "/app/anybody/a", "").await;
        let code = "PrimaryNotFound".to_owned();
        assert_eq!(summary(&refused), (StatusCode::SERVICE_UNAVAILABLE, code));
    });
}

#[test]
fn what_is_larger_than_nodes_send_each_other_is_refused() {
    in_virtual_time(async {
        let large = r#", "http_configuration": {"max_body_size": "64MB"}"#;
        let network = three_configured(large, "").await;
        let mut client = network.client(1, MAIN, None).await;
        let body = vec![b'x'; MAX_EXCHANGED_BYTES];
        let refused = client.call("PUT", "/app/anybody/a", "", &body).await;
        let code = "RequestBodyTooLarge".to_owned();
        assert_eq!(summary(&refused), (StatusCode::PAYLOAD_TOO_LARGE, code));
        assert_eq!(read(network.node(0), "a"), None);
        // A response is known to be too large when it is too late.
        let refused = client.call("POST", "/app/large", WAIT, b"").await;
        let code = "InternalError".to_owned();
        assert_eq!(summary(&refused), (StatusCode::INTERNAL_SERVER_ERROR, code));
        let tx_id = refused.header("x-ms-ccf-transaction-id").unwrap().parse().unwrap();
        assert_eq!(network.node(0).pipeline().status(tx_id), TxStatus::Committed);
        assert_eq!(read(network.node(0), "large").as_deref(), Some("written"));
    });
}

#[test]
fn a_session_reads_what_it_has_written_through_the_primary() {
    in_virtual_time(async {
        let network = three().await;
        let mut client = network.client(1, MAIN, None).await;
        for number in 0..20 {
            let body = number.to_string();
            let written = client.call("PUT", "/app/anybody/a", "", body.as_bytes()).await;
            assert_eq!(written.status, StatusCode::OK);
            // Executed, and not here yet.
            assert_eq!(client.get("/app/records/a").await.json(), json!(body));
        }
    });
}

#[test]
fn a_session_whose_write_was_lost_ends_and_one_whose_write_stands_goes_on() {
    in_virtual_time(async {
        let network = three_configured("", r#", "ledger_signatures": {"delay": "1s"}"#).await;
        let mut clients = Vec::new();
        for number in [1, 2] {
            let mut kept = network.client(number, MAIN, None).await;
            assert_eq!(write_at(&mut kept, "/app/anybody/a", WAIT).await.status, StatusCode::OK);
            clients.push((kept, network.client(number, MAIN, None).await));
        }
        network.agree().await;
        // Executed, and in no batch yet.
        for (_, lost) in &mut clients {
            assert_eq!(write_at(lost, "/app/anybody/b", "").await.status, StatusCode::OK);
        }
        network.fabric.cut_off(0);
        until(|| succeeded(&network)).await;
        for (kept, lost) in &mut clients {
            assert_eq!(kept.get("/app/records/a").await.json(), "1");
            let refused = lost.get("/app/records/b").await;
            let code = "SessionConsistencyLost".to_owned();
            assert_eq!(summary(&refused), (StatusCode::INTERNAL_SERVER_ERROR, code));
            assert!(lost.is_closed().await);
        }
    });
}

#[test]
fn what_was_on_its_way_when_the_primary_is_lost_is_unknown_and_done_at_most_once() {
    in_virtual_time(async {
        let network = three().await;
        let mut client = network.client(1, MAIN, None).await;
        let first = client.call("POST", "/app/count", WAIT, b"").await;
        assert_eq!(first.json(), 1);
        network.agree().await;
        let fabric = Arc::clone(&network.fabric);
        DURING.set(Some(Box::new(move || fabric.cut_off(0))));
        let begun_at = tokio::time::Instant::now();
        let unknown = client.call("POST", "/app/count", WAIT, b"").await;
        assert!(begun_at.elapsed() < Duration::from_secs(2), "{:?}", begun_at.elapsed());
        assert_eq!(unknown.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(unknown.header("content-type"), Some("text/plain"));
        assert!(String::from_utf8(unknown.body).unwrap().contains("may have been executed"));
        until(|| succeeded(&network)).await;
        network.fabric.heal();
        let mut client = network.client(1, MAIN, None).await;
        let counted = loop {
            let counted = client.call("POST", "/app/count", WAIT, b"").await;
            if counted.status == StatusCode::OK {
                break counted;
            }
            assert_eq!(counted.status, StatusCode::SERVICE_UNAVAILABLE, "{counted:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(counted.json(), 2, "what was executed at the lost primary was taken back");
        network.agree().await;
    });
}

#[test]
fn without_a_way_to_the_primary_nothing_is_executed() {
    in_virtual_time(async {
        let network = three().await;
        let mut client = network.client(1, MAIN, None).await;
        let before = network.node(0).pipeline().store().head();
        network.fabric.cut_off(0);
        // The channel has ended, and nobody misses the primary yet.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let refused = write_at(&mut client, "/app/anybody/a", "").await;
        let code = "PrimaryNotFound".to_owned();
        assert_eq!(summary(&refused), (StatusCode::SERVICE_UNAVAILABLE, code));
        assert_eq!(refused.header("retry-after"), Some("3"));
        assert_eq!(network.node(0).pipeline().store().head(), before);
    });
}

#[test]
fn a_primary_that_cannot_commit_in_time_leaves_the_outcome_open() {
    in_virtual_time(async {
        let network = three_configured(r#", "forwarding_timeout_ms": 400"#, "").await;
        for number in 0..3 {
            network.members[number].disk.crash_after(1);
        }
        let mut client = network.client(2, MAIN, None).await;
        let begun_at = tokio::time::Instant::now();
        let unknown = write_at(&mut client, "/app/anybody/a", WAIT).await;
        assert_eq!(unknown.status, StatusCode::GATEWAY_TIMEOUT);
        assert!(begun_at.elapsed() < Duration::from_millis(500), "{:?}", begun_at.elapsed());
        assert_eq!(read(network.node(0), "a").as_deref(), Some("1"), "it was executed");
        // The session goes on at the primary.
        assert_eq!(client.get("/app/records/a").await.json(), "1");
    });
}

#[test]
fn a_client_of_any_node_is_told_when_too_much_waits() {
    in_virtual_time(async {
        let few = r#", "consensus": {"max_uncommitted_tx_count": 5}"#;
        let network = three_configured("", few).await;
        for number in 0..3 {
            network.members[number].disk.crash_after(1);
        }
        let mut client = network.client(1, MAIN, None).await;
        let mut answers = Vec::new();
        for number in 0..8 {
            let answer = write_at(&mut client, &format!("/app/anybody/{number}"), "").await;
            let retry = answer.header("retry-after").map(str::to_owned);
            answers.push((answer.status, answer.code(), retry));
        }
        let executed = answers.iter().take_while(|(status, ..)| status.is_success()).count();
        assert!((1..=5).contains(&executed), "{answers:?}");
        for answer in &answers[executed..] {
            let code = "TooManyPendingTransactions".to_owned();
            let retry = Some("3".to_owned());
            assert_eq!(*answer, (StatusCode::SERVICE_UNAVAILABLE, code, retry));
        }
        assert_eq!(client.get("/app/records/0").await.json(), "1");
    });
}

#[test]
fn a_linearizable_read_sees_what_was_committed_anywhere() {
    in_virtual_time(async {
        let network = three().await;
        let linearizable = "x-coco-read: linearizable\r\n";
        let mut clients = Vec::new();
        for number in 0..3 {
            clients.push(network.client(number, MAIN, None).await);
        }
        for number in 0..10 {
            write(network.node(0), "a", &number.to_string()).await;
            for client in &mut clients {
                let answer = client.call("GET", "/app/here/a", linearizable, b"").await;
                assert_eq!(answer.json(), json!(number.to_string()));
            }
        }
        for path in ["/app/here/a", "/app/commit"] {
            let wrong = clients[1].call("GET", path, "x-coco-read: fresh\r\n", b"").await;
            let code = "InvalidHeaderValue".to_owned();
            assert_eq!(summary(&wrong), (StatusCode::BAD_REQUEST, code));
        }

        // The same goes for what is said of transactions.
        for number in 0..10 {
            let written = write(network.node(0), "b", &number.to_string()).await;
            for client in &mut clients {
                let answer = client.call("GET", "/app/commit", linearizable, b"").await.json();
                let committed: TxId = answer["transaction_id"].as_str().unwrap().parse().unwrap();
                assert!(committed >= written, "{committed} {written}");
                let path = format!("/app/tx?transaction_id={written}");
                let answer = client.call("GET", &path, linearizable, b"").await.json();
                assert_eq!(answer["status"], "Committed");
            }
        }

        // A primary that may have been voted out does not answer.
        network.fabric.cut_off(0);
        clients.remove(0);
        let caught_up = network.node(0).pipeline().catch_up(Duration::from_millis(200)).await;
        assert!(!caught_up, "no quorum answers it");
        assert_eq!(clients[0].get("/app/here/a").await.json(), "9");
        let next = network.primary().await;
        write(network.node(next), "a", "new").await;
        for client in &mut clients {
            let answer = client.call("GET", "/app/here/a", linearizable, b"").await;
            assert_eq!(answer.json(), "new");
        }
    });
}

#[test]
fn a_chunk_that_is_not_here_is_looked_for_elsewhere() {
    in_virtual_time(async {
        let main = r#", "enabled_operator_features": ["LedgerChunkRead"]"#;
        let network = three_configured(main, "").await;
        for number in 0..10 {
            write(network.node(0), "a", &"x".repeat(10_000 + number)).await;
        }
        network.agree().await;
        let disk = &network.members[1].disk;
        let chunks = disk.names(Area::Ledger).into_iter();
        let names = chunks.filter_map(|name| name.parse::<ChunkName>().ok());
        let first = names.min_by_key(|name| name.start).unwrap();
        let location = async |number: usize, since: u64| {
            let path = format!("/node/ledger_chunk?since={since}");
            let answer = network.client(number, MAIN, None).await.get(&path).await;
            (answer.status, answer.header("location").unwrap_or_default().to_owned())
        };
        let here = (StatusCode::PERMANENT_REDIRECT, format!("/node/ledger_chunk/{first}"));
        assert_eq!(location(1, 1).await, here);
        disk.remove(Area::Ledger, &first.to_string());

        let mut ids: Vec<_> = (0..3).map(|number| (network.node(number).id(), number)).collect();
        ids.sort();
        let mine = ids.iter().position(|(_, number)| *number == 1).unwrap();
        let (_, next) = ids[(mine + 1) % 3];
        let (status, at) = location(1, 1).await;
        assert_eq!(status, StatusCode::PERMANENT_REDIRECT);
        assert_eq!(at, format!("https://node{next}:{MAIN}/node/ledger_chunk?since=1"));
        let (status, at) = location(1, 1_000_000).await;
        assert_eq!(status, StatusCode::PERMANENT_REDIRECT);
        assert_eq!(at, format!("https://node0:{MAIN}/node/ledger_chunk?since=1000000"));
        assert_eq!(location(0, 1_000_000).await.0, StatusCode::NOT_FOUND);
    });
}
