//! One request of a JS application, without HTTP: find, execute, commit.
//!
//! `cargo bench -p coco-apps`: a handler that parses a JSON body, reads one key and writes another,
//! in a new realm for every call and in a reused one.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../../../script/tests/harness/mod.rs"]
mod harness;
#[path = "../tests/service/mod.rs"]
mod service;

use coco_adapter::Caller;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use service::{Service, endpoint, with};

const MODULE: &str = r#"
    export function run(request) {
        const { id, amount } = request.body.json();
        if (typeof id !== "string" || !(amount > 0)) return { statusCode: 400 };
        const key = ccf.strToBuf(id);
        const stored = ccf.kv["accounts"].get(key);
        const account = stored === undefined ? { balance: 0 } : ccf.bufToJsonCompatible(stored);
        account.balance += amount;
        ccf.kv["accounts"].set(key, ccf.jsonCompatibleToBuf(account));
        return { body: account };
    }
"#;

fn handler(c: &mut Criterion) {
    let isolated = endpoint("app.js", "run");
    let reused = with(isolated.clone(), "interpreter_reuse", json!({"key": "k"}));
    let endpoints = json!({"/isolated": {"post": isolated}, "/reused": {"post": reused}});
    let service = Service::new(&[("app.js", MODULE)], endpoints);
    let body = r#"{"id": "alice", "amount": 1}"#;
    for path in ["/isolated", "/reused"] {
        let request = http::Request::post(path)
            .header("host", "localhost:8000")
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap();
        c.bench_function(&format!("handler{path}"), |bencher| {
            bencher.iter(|| {
                let reply = service.request(request.clone(), &Caller::NoAuth);
                assert_eq!(reply.response().status(), 200);
            });
        });
    }
}

criterion_group!(benches, handler);
criterion_main!(benches);
