//! The built-in endpoints and the rules of dispatch, over a whole node.
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

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coco_adapter::{
    Call, EndpointProperties, ErrorCode, ErrorResponse, Mode, Outcome, Registry, Response,
};
use coco_crypto::HashAlgorithm;
use coco_enclave::host::Area;
use coco_enclave::pipeline::Pipeline;
use coco_governance::tables::{NODES, NodeStatus};
use coco_kv::{MapName, TxId};
use coco_ledger::{CoseReceipt, Receipt};
use http::{Method, StatusCode};
use serde_json::{Value as Json, json};
use served::client::{Answer, Client};
use served::{INTERFACES, Served};
use simulated::in_virtual_time;

static PIPELINE: OnceLock<Pipeline> = OnceLock::new();

fn records() -> MapName {
    MapName::new("records")
}

fn properties(mode: Mode) -> EndpointProperties {
    EndpointProperties { mode, ..EndpointProperties::default() }
}

/// Records by key, with every way an endpoint can end.
fn app() -> Registry {
    let mut app = Registry::new("records", "Records", "Values by key.");
    let mut add = |method: Method, path: &str, properties: EndpointProperties, handler: Handler| {
        app.add(method, path, properties, json!({"summary": "x"}), handler).unwrap();
    };
    add(Method::PUT, "/records/{key}", properties(Mode::ReadWrite), put);
    add(Method::GET, "/records/{key}", properties(Mode::ReadOnly), get);
    add(Method::GET, "/past/{key}", properties(Mode::Historical), past);
    let waits = EndpointProperties { waits_for_commit: true, ..properties(Mode::ReadWrite) };
    add(Method::PUT, "/waits/{key}", waits, put);
    let long = EndpointProperties { long_running: true, ..properties(Mode::ReadWrite) };
    add(Method::PUT, "/long/{key}", long, put);
    add(Method::POST, "/refuse", properties(Mode::ReadWrite), |call| {
        call.tx.put(&records(), "refused", "x");
        Err(ErrorResponse::bad_request(ErrorCode::InvalidInput, "No."))
    });
    add(Method::POST, "/refuse_but_write", properties(Mode::ReadWrite), |call| {
        call.tx.put(&records(), "kept", "x");
        call.outcome.apply_writes = Some(true);
        Err(ErrorResponse::bad_request(ErrorCode::InvalidInput, "No."))
    });
    add(Method::POST, "/sneaky", properties(Mode::ReadOnly), |call| {
        call.tx.put(&records(), "sneaked", "x");
        Ok(Response::default())
    });
    // Somebody else is always faster.
    add(Method::POST, "/conflict", properties(Mode::ReadWrite), |call| {
        let count = call.tx.get(&records(), b"contended").map_or(0, |value| value.len());
        call.tx.put(&records(), "contended", vec![0; count + 1]);
        if call.query("once").is_none() || count == 0 {
            let pipeline = PIPELINE.get().unwrap();
            let mut faster = pipeline.store().begin();
            faster.put(&records(), "contended", vec![0; count + 1]);
            pipeline.commit(faster, &Outcome::default()).unwrap();
        }
        Ok(Response::default())
    });
    app
}

type Handler = fn(&mut Call<'_>) -> Result<Response, ErrorResponse>;

fn put(call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let (key, value) = (call.param("key").to_owned(), call.request.body().to_vec());
    call.tx.put(&records(), key.as_bytes(), value);
    Ok(Response::default())
}

fn get(call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let key = call.param("key").to_owned();
    let value = call.tx.get(&records(), key.as_bytes());
    let unknown = || ErrorResponse::not_found(ErrorCode::KeyNotFound, "No such record.");
    Ok(Response::new(Bytes::copy_from_slice(&value.ok_or_else(unknown)?)))
}

fn past(call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let state = call.historical.unwrap();
    let value = state.state.map(&records()).and_then(|map| map.get(call.param("key").as_bytes()));
    let value = value.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
    call.reply(&json!({"value": value, "tx": state.tx_id.to_string()}))
}

async fn open_service() -> Served {
    let served = Served::start(Arc::new(app())).await;
    served.open().await;
    served
}

fn tx_id(answer: &Answer) -> TxId {
    answer.header("x-ms-ccf-transaction-id").expect("a transaction id").parse().unwrap()
}

async fn put_committed(client: &mut Client, key: &str, value: &str) -> TxId {
    let path = format!("/app/records/{key}");
    let wait = "x-coco-wait: committed\r\n";
    let answer = client.call("PUT", &path, wait, value.as_bytes()).await;
    assert_eq!(answer.status, StatusCode::OK);
    tx_id(&answer)
}

#[test]
fn a_transaction_is_followed_from_pending_to_its_receipts() {
    in_virtual_time(async {
        let served = open_service().await;
        let service = served.node.identity().service_certificate.public_key().unwrap();
        let mut client = Client::plain(&served);
        let written = tx_id(&client.call("PUT", "/app/records/a", "", b"1").await);
        let status = async |client: &mut Client, prefix: &str, id: &str| {
            let answer = client.get(&format!("{prefix}/tx?transaction_id={id}")).await;
            assert_eq!(answer.json()["transaction_id"], id);
            answer.json()["status"].as_str().unwrap().to_owned()
        };
        assert_eq!(status(&mut client, "/app", &written.to_string()).await, "Pending");
        let early = client.get(&format!("/app/receipt?transaction_id={written}")).await;
        assert_eq!(
            (early.status, &*early.code()),
            (StatusCode::NOT_FOUND, "TransactionPendingOrUnknown")
        );
        assert_eq!(early.header("cache-control"), Some("no-cache"));
        tokio::time::sleep(Duration::from_millis(50)).await;

        let far = TxId { seqno: coco_kv::Seqno(written.seqno.0 + 1000), ..written };
        let other = TxId { view: coco_kv::View(1), ..written };
        for prefix in ["/app", "/gov", "/node", ""] {
            assert_eq!(status(&mut client, prefix, &written.to_string()).await, "Committed");
            assert_eq!(status(&mut client, prefix, &far.to_string()).await, "Unknown");
            assert_eq!(status(&mut client, prefix, &other.to_string()).await, "Invalid");
            let path = format!("{prefix}/receipt?transaction_id={written}");
            let receipt = Receipt::from_json(&client.get(&path).await.body).unwrap();
            receipt.verify(&service).unwrap();
            let cose = client.get(&format!("{prefix}/receipt/cose?transaction_id={written}")).await;
            assert_eq!(cose.header("content-type"), Some("application/cose"));
            CoseReceipt::parse(&cose.body).unwrap().verify(&service).unwrap();
            let commit = client.get(&format!("{prefix}/commit")).await.json();
            let committed: TxId = commit["transaction_id"].as_str().unwrap().parse().unwrap();
            assert!(committed >= written);
        }
        let invalid = client.get(&format!("/app/receipt?transaction_id={other}")).await;
        assert_eq!(
            (invalid.status, &*invalid.code()),
            (StatusCode::NOT_FOUND, "TransactionInvalid")
        );
        // A signature transaction has a JSON receipt only.
        let signature = TxId { seqno: written.seqno.next(), ..written };
        let path = format!("/app/receipt?transaction_id={signature}");
        assert_eq!(client.get(&path).await.status, StatusCode::OK);
        let path = format!("/app/receipt/cose?transaction_id={signature}");
        assert_eq!(client.get(&path).await.status, StatusCode::NOT_FOUND);

        for query in ["", "?transaction_id=", "?transaction_id=2", "?transaction_id=2.x", "?x=2.1"]
        {
            for path in ["tx", "receipt", "receipt/cose"] {
                let answer = client.get(&format!("/app/{path}{query}")).await;
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}{query}");
                assert_eq!(answer.code(), "InvalidQueryParameterValue");
            }
        }
    });
}

#[test]
fn view_history_lists_the_start_of_every_view() {
    in_virtual_time(async {
        let served = open_service().await;
        let mut client = Client::plain(&served);
        let mut history = async |query: &str| client.get(&format!("/node/commit{query}")).await;
        assert!(history("").await.json().get("view_history").is_none());
        assert!(history("?view_history=false").await.json().get("view_history").is_none());
        let all = history("?view_history=true").await.json();
        assert_eq!(all["view_history"], json!(["1.1", "2.1"]));
        let since = history("?view_history_since=2").await.json();
        assert_eq!(since["view_history"], json!(["2.1"]));
        for (query, status) in [
            ("?view_history=yes", StatusCode::BAD_REQUEST),
            ("?view_history_since=0", StatusCode::BAD_REQUEST),
            ("?view_history_since=x", StatusCode::BAD_REQUEST),
            ("?view_history=true&view_history_since=1", StatusCode::BAD_REQUEST),
            ("?view_history_since=3", StatusCode::NOT_FOUND),
        ] {
            let answer = history(query).await;
            assert_eq!(answer.status, status, "{query}");
            assert_eq!(answer.code(), "InvalidQueryParameterValue");
        }
    });
}

#[test]
fn replies_wait_for_commit_when_asked_and_carry_the_receipt() {
    in_virtual_time(async {
        let served = open_service().await;
        let service = served.node.identity().service_certificate.public_key().unwrap();
        let mut client = Client::plain(&served);
        let committed = put_committed(&mut client, "a", "1").await;
        assert!(served.node.pipeline().last_committed() >= committed);

        let receipt = "x-coco-receipt: true\r\n";
        let answer = client.call("PUT", "/app/records/a", receipt, b"2").await;
        let text = STANDARD.decode(answer.header("x-coco-receipt").unwrap()).unwrap();
        let parsed = Receipt::from_json(&text).unwrap();
        parsed.verify(&service).unwrap();
        let path = format!("/app/receipt?transaction_id={}", tx_id(&answer));
        assert_eq!(client.get(&path).await.body, text);

        // A read has nothing to prove, but sees only what is committed when it waits.
        client.call("PUT", "/app/records/a", "", b"3").await;
        let answer = client.call("GET", "/app/records/a", receipt, b"").await;
        assert_eq!((&*answer.body, answer.header("x-coco-receipt")), (&b"3"[..], None));
        assert!(served.node.pipeline().last_committed() >= tx_id(&answer));
        let answer = client.call("PUT", "/app/waits/a", "", b"4").await;
        assert!(served.node.pipeline().last_committed() >= tx_id(&answer));

        for extra in ["x-coco-wait: forever\r\n", "x-coco-receipt: 1\r\n"] {
            let answer = client.call("PUT", "/app/records/a", extra, b"5").await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            assert_eq!(answer.code(), "InvalidHeaderValue");
        }
        // A disk that fails: no reply claims what is not so.
        served.disk.fail_after(1);
        let answer = client.call("PUT", "/app/waits/a", "", b"6").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.code(), "TransactionReplicationFailed");
    });
}

#[test]
fn the_past_is_answered_from_the_ledger() {
    in_virtual_time(async {
        let served = open_service().await;
        let mut client = Client::plain(&served);
        let first = put_committed(&mut client, "a", "old").await;
        let second = put_committed(&mut client, "a", "new").await;
        for (at, value) in [(first, "old"), (second, "new"), (first, "old")] {
            let header = format!("x-ms-ccf-transaction-id: {at}\r\n");
            let answer = client.call("GET", "/app/past/a", &header, b"").await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.json(), json!({"value": value, "tx": at.to_string()}));
        }
        for (value, status, code) in [
            ("", StatusCode::BAD_REQUEST, "InvalidHeaderValue"),
            ("2", StatusCode::BAD_REQUEST, "InvalidHeaderValue"),
            ("2.99999", StatusCode::NOT_FOUND, "TransactionPendingOrUnknown"),
            ("1.3", StatusCode::NOT_FOUND, "TransactionInvalid"),
        ] {
            let header = format!("x-ms-ccf-transaction-id: {value}\r\n");
            let answer = client.call("GET", "/app/past/a", &header, b"").await;
            assert_eq!((answer.status, &*answer.code()), (status, code), "{value}");
        }
        let answer = client.get("/app/past/a").await;
        assert_eq!(answer.code(), "MissingRequiredHeader");
    });
}

#[test]
fn writes_apply_exactly_with_success() {
    in_virtual_time(async {
        let served = open_service().await;
        let mut client = Client::plain(&served);
        let refused = client.call("POST", "/app/refuse", "", b"").await;
        assert_eq!((refused.status, &*refused.code()), (StatusCode::BAD_REQUEST, "InvalidInput"));
        assert!(refused.header("x-ms-ccf-transaction-id").is_some());
        assert_eq!(client.get("/app/records/refused").await.code(), "KeyNotFound");
        let refused = client.call("POST", "/app/refuse_but_write", "", b"").await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(client.get("/app/records/kept").await.body, b"x");
        let sneaky = client.call("POST", "/app/sneaky", "", b"").await;
        assert_eq!(sneaky.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(client.get("/app/records/sneaked").await.code(), "KeyNotFound");
        let long = client.call("PUT", "/app/long/a", "", b"1").await;
        assert_eq!(long.status, StatusCode::OK);

        PIPELINE.set(served.node.pipeline().clone()).ok().unwrap();
        let answer = client.call("POST", "/app/conflict?once", "", b"").await;
        assert_eq!(answer.status, StatusCode::OK);
        let before = served.node.pipeline().metrics().conflicts;
        let answer = client.call("POST", "/app/conflict", "", b"").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.code(), "TransactionCommitAttemptsExceedLimit");
        assert_eq!(answer.header("retry-after"), Some("3"));
        assert_eq!(served.node.pipeline().metrics().conflicts, before + 30);
    });
}

const FEW_UNCOMMITTED: &str = r#", "consensus": {"max_uncommitted_tx_count": 5}"#;

/// The statuses of eight pipelined writes.
async fn eight_writes(client: &mut Client) -> Vec<(StatusCode, String)> {
    let one = "PUT /app/records/a HTTP/1.1\r\ncontent-length: 1\r\n\r\nx";
    client.send(one.repeat(8).as_bytes()).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        let answer = client.receive("PUT").await.unwrap();
        answers.push((answer.status, answer.code().to_string()));
    }
    answers
}

#[test]
fn writes_faster_than_the_disk_wait_for_it() {
    in_virtual_time(async {
        let served = Served::configured(Arc::new(app()), INTERFACES, FEW_UNCOMMITTED).await;
        served.open().await;
        let answers = eight_writes(&mut Client::plain(&served)).await;
        assert!(answers.iter().all(|(status, _)| status.is_success()), "{answers:?}");
    });
}

#[test]
fn without_a_disk_too_many_pending_writes_are_refused_and_reads_are_not() {
    in_virtual_time(async {
        let served = Served::configured(Arc::new(app()), INTERFACES, FEW_UNCOMMITTED).await;
        served.open().await;
        served.disk.crash_after(1);
        let mut client = Client::plain(&served);
        let answers = eight_writes(&mut client).await;
        let refused = |code: &str| code == "TooManyPendingTransactions";
        assert!(answers[..5].iter().all(|(status, _)| status.is_success()), "{answers:?}");
        assert!(answers[5..].iter().all(|(_, code)| refused(code)), "{answers:?}");
        assert_eq!(client.get("/app/records/a").await.status, StatusCode::OK);
    });
}

#[test]
fn paths_and_verbs_are_ccfs() {
    in_virtual_time(async {
        let served = Served::start(Arc::new(app())).await;
        let mut client = Client::plain(&served);
        let closed = client.get("/app/records/a").await;
        assert_eq!((closed.status, &*closed.code()), (StatusCode::NOT_FOUND, "FrontendNotOpen"));
        assert_eq!(client.get("/app/commit").await.code(), "FrontendNotOpen");
        assert_eq!(client.get("/node/ready/app").await.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(client.get("/node/ready/gov").await.status, StatusCode::NO_CONTENT);
        served.open().await;
        assert_eq!(client.get("/node/ready/app").await.status, StatusCode::NO_CONTENT);

        for path in ["/app/records/a", "/records/a"] {
            assert_eq!(client.call("PUT", path, "", b"1").await.status, StatusCode::OK);
        }
        for path in [
            "/",
            "/app",
            "/app/",
            "/app/nothing",
            "/node",
            "/node/nothing",
            "/gov/nothing",
            "/app/records",
            "/app/records/a/b",
            "/nodes/state",
            "/app/node/state",
        ] {
            let answer = client.get(path).await;
            assert_eq!(
                (answer.status, &*answer.code()),
                (StatusCode::NOT_FOUND, "ResourceNotFound")
            );
            assert!(answer.json()["error"]["message"].as_str().unwrap().contains(path));
        }
        for (path, allow) in [
            ("/app/records/a", "GET, OPTIONS, PUT"),
            ("/app/refuse", "OPTIONS, POST"),
            ("/node/state", "GET, OPTIONS"),
            ("/node/primary", "GET, HEAD, OPTIONS"),
            ("/app/commit", "GET, OPTIONS"),
        ] {
            let answer = client.call("PATCH", path, "", b"").await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert_eq!(answer.code(), "UnsupportedHttpVerb");
            assert_eq!(answer.header("allow"), Some(allow));
            let answer = client.call("OPTIONS", path, "", b"").await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT);
            assert_eq!(answer.header("allow"), Some(allow));
        }
        assert_eq!(
            client.call("OPTIONS", "/app/nothing", "", b"").await.status,
            StatusCode::NOT_FOUND
        );

        for accept in ["application/json", "*/*", "text/html, application/*;q=0.8"] {
            let extra = format!("accept: {accept}\r\n");
            for path in ["/node/state", "/app/commit"] {
                assert_eq!(client.call("GET", path, &extra, b"").await.status, StatusCode::OK);
            }
        }
        for path in ["/node/state", "/app/commit"] {
            let answer = client.call("GET", path, "accept: text/html\r\n", b"").await;
            assert_eq!(answer.status, StatusCode::NOT_ACCEPTABLE);
            assert_eq!(answer.code(), "UnsupportedContentType");
        }
        // Names and values of an app's templates are decoded.
        client.call("PUT", "/app/records/a%20b", "", b"spaced").await;
        assert_eq!(client.get("/app/records/a%20b").await.body, b"spaced");
    });
}

#[test]
fn the_node_describes_itself_and_its_service() {
    in_virtual_time(async {
        let served = open_service().await;
        let (id, identity) = (served.node.id().to_string(), served.node.identity());
        let mut client = Client::plain(&served);
        let mut get = async |path: &str| -> Json {
            let answer = client.get(&format!("/node{path}")).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
            answer.json()
        };
        let state = get("/state").await;
        assert_eq!((&state["node_id"], &state["state"]), (&json!(id), &json!("PartOfNetwork")));
        assert_eq!(state["last_signed_seqno"], served.node.pipeline().last_committed().seqno.0);
        assert_eq!(state["stop_notice"], false);

        let network = get("/network").await;
        assert_eq!(network["service_status"], "Open");
        assert_eq!(network["primary_id"], json!(id));
        assert_eq!(network["current_view"], 2);
        assert_eq!(network["current_service_create_txid"], "2.1");
        assert_eq!(network["service_certificate"], identity.service_certificate.to_pem());

        let nodes = get("/network/nodes").await;
        assert_eq!(nodes["nodes"].as_array().unwrap().len(), 1);
        let own = get("/network/nodes/self").await;
        assert_eq!((&nodes["nodes"][0], &own["status"]), (&own, &json!("Trusted")));
        assert_eq!((&own["primary"], &own["last_written"]), (&json!(true), &json!(1)));
        assert_eq!(own["rpc_interfaces"]["main"]["bind_address"], "127.0.0.1:8000");
        assert_eq!(get("/network/nodes/primary").await, own);
        assert_eq!(get(&format!("/network/nodes/{id}")).await, own);
        for (query, count) in [
            ("?status=Trusted", 1),
            ("?status=Retired", 0),
            ("?host=127.0.0.1&port=8000", 1),
            ("?host=10.0.0.1", 0),
            ("?port=1", 0),
        ] {
            let nodes = get(&format!("/network/nodes{query}")).await;
            assert_eq!(nodes["nodes"].as_array().unwrap().len(), count, "{query}");
        }
        assert_eq!(get("/network/removable_nodes").await["nodes"], json!([]));

        let own_quote = get("/quotes/self").await;
        assert_eq!(own_quote["node_id"], json!(id));
        assert_eq!(own_quote["format"], "Insecure_Virtual");
        assert!(STANDARD.decode(own_quote["raw"].as_str().unwrap()).is_ok());
        assert_eq!(get("/attestations/self").await, own_quote);
        assert_eq!(get("/quotes").await["quotes"], json!([own_quote]));
        assert_eq!(get("/attestations").await["attestations"], json!([own_quote]));

        let certificate = get("/self_signed_certificate").await;
        assert_eq!(certificate["self_signed_certificate"], identity.self_signed.to_pem());
        assert!(get("/config").await[&id]["address"].is_string());
        let details = &get("/consensus").await["details"];
        assert_eq!((&details["primary_id"], &details["current_view"]), (&json!(id), &json!(2)));
        assert_eq!(details["leadership_state"], "Leader");
        assert!(get("/service/configuration").await["recovery_threshold"].is_u64());
        assert_eq!(get("/js_metrics").await["max_execution_time"], 5000);
        assert!(get("/version").await["ccf_version"].as_str().unwrap().starts_with("coco-"));
        assert_eq!(get("/index/strategies").await, json!([]));
        let metrics = get("/metrics").await;
        assert_eq!(metrics["sessions"]["interfaces"]["plain"]["active"], 1);

        let text = client.get("/node/metrics/prometheus").await;
        assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4"));
        let text = String::from_utf8(text.body).unwrap();
        assert!(text.contains("coco_sessions{interface=\"plain\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE coco_transactions_total counter\n"));
        assert!(text.contains(&format!("coco_info{{node_id=\"{id}\"}} 1\n")));
        assert!(text.contains("coco_primary 1\n") && text.contains("coco_view 2\n"), "{text}");
        assert!(text.contains("coco_nodes{kind=\"voter\"} 1\n"), "{text}");
        let value = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        assert_eq!(value("coco_batches_in_flight "), 0);
        assert!(value("coco_committed_seqno ") > 0);
        assert_eq!(value("coco_commit_seconds_count "), value("coco_batches_total "));

        for method in ["GET", "HEAD"] {
            let answer = client.call(method, "/node/primary", "", b"").await;
            assert_eq!(answer.status, StatusCode::OK);
        }
        let backup = client.get("/node/backup").await;
        assert_eq!(backup.json()["error"]["message"], "Node is not backup");
        for (path, status, code) in [
            ("/node/service/previous_identity", StatusCode::NOT_FOUND, "ResourceNotFound"),
            ("/node/network/nodes/abc", StatusCode::NOT_FOUND, "ResourceNotFound"),
            ("/node/network/nodes?status=x", StatusCode::BAD_REQUEST, "InvalidQueryParameterValue"),
        ] {
            let answer = client.get(path).await;
            assert_eq!((answer.status, &*answer.code()), (status, code), "{path}");
        }
        let unknown = client.get(&format!("/node/network/nodes/{}", "0".repeat(64))).await;
        assert_eq!(unknown.json()["error"]["message"], "Node not found");
    });
}

#[test]
fn only_a_retired_node_can_be_forgotten() {
    in_virtual_time(async {
        let served = open_service().await;
        let mut client = Client::plain(&served);
        let other = coco_crypto::sha256(b"another node");
        let path = format!("/node/network/nodes/{other}");
        assert_eq!(client.call("DELETE", &path, "", b"").await.status, StatusCode::NOT_FOUND);
        let set = async |status, retired_committed| {
            served
                .govern(|tx| {
                    let mut info = NODES.get(tx, &served.node.id()).unwrap().unwrap();
                    info.status = status;
                    info.retired_committed = retired_committed;
                    NODES.put(tx, &other, &info);
                })
                .await;
        };
        for (status, retired) in [(NodeStatus::Trusted, false), (NodeStatus::Retired, false)] {
            set(status, retired).await;
            let answer = client.call("DELETE", &path, "", b"").await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            assert_eq!(answer.code(), "NodeNotRetiredCommitted");
        }
        set(NodeStatus::Retired, true).await;
        let removable = client.get("/node/network/removable_nodes").await.json();
        assert_eq!(removable["nodes"][0]["node_id"], other.to_string());
        let answer = client.call("DELETE", &path, "", b"").await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, &b"true"[..]));
        assert_eq!(client.get(&path).await.status, StatusCode::NOT_FOUND);
    });
}

#[test]
fn each_frontend_documents_itself() {
    in_virtual_time(async {
        let served = open_service().await;
        let mut client = Client::plain(&served);
        for (prefix, path) in [
            ("/app", "/records/{key}"),
            ("/node", "/network/nodes/{node_id}"),
            ("/gov", "/service/info"),
        ] {
            let document = client.get(&format!("{prefix}/api")).await.json();
            assert_eq!(document["openapi"], "3.0.0");
            assert_eq!(document["servers"][0]["url"], prefix);
            for path in [path, "/commit", "/tx", "/receipt", "/receipt/cose", "/api"] {
                let item = document["paths"][path]["get"].as_object().expect(path);
                assert!(item["responses"].is_object(), "{prefix}{path}");
            }
        }
        let document = client.get("/api").await.json();
        let parameter = &document["paths"]["/records/{key}"]["put"]["parameters"][0];
        assert_eq!((&parameter["name"], &parameter["in"]), (&json!("key"), &json!("path")));
    });
}

fn digest(algorithm: HashAlgorithm, name: &str, bytes: &[u8]) -> String {
    format!("{name}=:{}:", STANDARD.encode(algorithm.digest(bytes)))
}

/// Entity tags and digests of the file at `path`, which is `whole`.
async fn downloads_are_conditional(client: &mut Client, path: &str, whole: &Answer) {
    let all = &whole.body;
    let (sha256, sha512) = (HashAlgorithm::Sha256, HashAlgorithm::Sha512);
    let tag = format!("\"{}\"", digest(sha256, "sha-256", all));
    assert_eq!(whole.header("etag"), Some(&*tag));
    assert_eq!(whole.header("repr-digest"), None);
    let other = format!("\"{}\"", digest(sha512, "sha-512", all));
    let part_tag = format!("\"{}\"", digest(sha256, "sha-256", &all[4..8]));
    for (verb, headers, status, etag, len) in [
        ("GET", format!("if-none-match: {tag}\r\n"), 304, &tag, 0),
        ("HEAD", format!("if-none-match: \"x\", W/{tag}\r\n"), 304, &tag, 0),
        ("GET", format!("if-none-match: {other}\r\n"), 304, &tag, 0),
        ("GET", "if-none-match: *\r\n".to_owned(), 304, &tag, 0),
        ("GET", format!("if-none-match: {part_tag}\r\n"), 200, &tag, all.len()),
        ("HEAD", String::new(), 200, &tag, 0),
        ("GET", "range: bytes=4-7\r\n".to_owned(), 206, &part_tag, 4),
        ("HEAD", "range: bytes=4-7\r\n".to_owned(), 206, &part_tag, 0),
        ("GET", format!("range: bytes=4-7\r\nif-none-match: {part_tag}\r\n"), 304, &part_tag, 0),
        ("GET", format!("range: bytes=4-7\r\nif-none-match: {tag}\r\n"), 206, &part_tag, 4),
    ] {
        let answer = client.call(verb, path, &headers, b"").await;
        assert_eq!(answer.status.as_u16(), status, "{verb} {headers}");
        assert_eq!(answer.header("etag"), Some(&**etag), "{verb} {headers}");
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert_eq!(answer.body.len(), len, "{verb} {headers}");
    }
    let answer = client.call("GET", path, "if-none-match: x\r\n", b"").await;
    assert_eq!(answer.code(), "InvalidHeaderValue");
    for (wanted, expected) in [
        ("sha-256=1, sha-512=9", digest(sha512, "sha-512", all)),
        ("md5=1", digest(sha256, "sha-256", all)),
    ] {
        let headers = format!("want-repr-digest: {wanted}\r\nrange: bytes=-1\r\n");
        for verb in ["GET", "HEAD"] {
            let answer = client.call(verb, path, &headers, b"").await;
            assert_eq!(answer.header("repr-digest"), Some(&*expected), "of the whole file");
            assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
        }
    }
}

#[test]
fn files_are_served_only_where_an_operator_opened_them() {
    in_virtual_time(async {
        let interfaces = r#"
            "plain": {"bind_address": "127.0.0.1:1", "endorsement": {"authority": "Unsecured"},
                "enabled_operator_features":
                    ["SnapshotRead", "LedgerChunkRead", "SnapshotCreate"]},
            "closed": {"bind_address": "127.0.0.1:2", "endorsement": {"authority": "Unsecured"}}
        "#;
        let often = r#", "snapshots": {"tx_count": 10}, "ledger": {"chunk_size": "2KB"}"#;
        let served = Served::configured(Arc::new(app()), interfaces, often).await;
        served.open().await;
        let mut client = Client::plain(&served);
        for number in 0..20 {
            put_committed(&mut client, "a", &number.to_string()).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (kind, area, header) in [
            ("snapshot", Area::Snapshots, "x-ms-ccf-snapshot-name"),
            ("ledger_chunk", Area::Ledger, "x-ms-ccf-ledger-chunk-name"),
        ] {
            let found = client.get(&format!("/node/{kind}?since=3")).await;
            assert_eq!(found.status, StatusCode::PERMANENT_REDIRECT, "{found:?}");
            let location = found.header("location").unwrap().to_owned();
            let name = location.rsplit('/').next().unwrap();
            let whole = client.get(&location).await;
            assert_eq!(whole.header(header), Some(name));
            assert_eq!(Some(whole.body.clone()), served.disk.file(area, name));
            let part = client.call("GET", &location, "range: bytes=10-19\r\n", b"").await;
            assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
            assert_eq!(part.body, whole.body[10..20]);
            let expected = format!("bytes 10-19/{}", whole.body.len());
            assert_eq!(part.header("content-range"), Some(&*expected));
            let head = client.call("HEAD", &location, "", b"").await;
            assert_eq!(head.header("content-length"), Some(&*whole.body.len().to_string()));
            let bad = client.call("GET", &location, "range: bytes=9-1\r\n", b"").await;
            assert_eq!(bad.code(), "InvalidHeaderValue");
            for path in [
                format!("/node/{kind}/x"),
                format!("/node/{kind}?since=99999999"),
                format!("/node/{kind}/..%2fledger_1"),
                format!("{location}x"),
            ] {
                assert_eq!(client.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
            }
            assert_eq!(
                client.get(&format!("/node/{kind}?since=x")).await.status,
                StatusCode::BAD_REQUEST
            );
            assert_eq!(
                client.call("POST", &location, "", b"").await.status,
                StatusCode::METHOD_NOT_ALLOWED
            );
            let missing = client.get(&format!("/node/{kind}")).await;
            let expected = if kind == "snapshot" { 308 } else { 400 };
            assert_eq!(missing.status.as_u16(), expected);
            let mut closed = Client::on(served.connect("closed"));
            assert_eq!(closed.get(&location).await.code(), "ResourceNotFound");
            downloads_are_conditional(&mut client, &location, &whole).await;
        }
        let snapshots = served.disk.names(Area::Snapshots).len();
        let create = "/node/snapshot:create";
        let mut closed = Client::on(served.connect("closed"));
        assert_eq!(closed.call("POST", create, "", b"").await.code(), "ResourceNotFound");
        assert_eq!(client.call("POST", create, "", b"").await.status, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(served.disk.names(Area::Snapshots).len(), snapshots + 1);
    });
}
