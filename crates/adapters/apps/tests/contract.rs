//! The handler contract: what a function is given, what its reply means, how it fails.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../../script/tests/harness/mod.rs"]
mod harness;
mod service;

use coco_adapter::{Caller, CoseEnvelope};
use coco_crypto::Digest;
use serde_json::{Value as Json, json};
use service::{Service, endpoint, get, with};

#[test]
fn a_request_is_described() {
    let module = "export function show(request) {
        const { headers, params, query, path, url, route, method, hostname, caller } = request;
        const body = [request.body.text(), request.body.json(), request.body.arrayBuffer().byteLength];
        return { body: { headers, params, query, path, url, route, method, hostname, caller, body } };
    }";
    let endpoints = json!({"/log/{id}/{part}": {"put": endpoint("show.js", "show")}});
    let service = Service::new(&[("show.js", module)], endpoints);
    let request = http::Request::put("/app/log/a%20b/7?x=1&y=%20")
        .header("Host", "node.example:8000")
        .header("X-Twice", "one")
        .header("X-Twice", "two")
        .body(r#"{"é": 1}"#.into())
        .unwrap();
    assert_eq!(
        service.request(request, &Caller::Unauthenticated).json(),
        json!({
            "headers": {"host": "node.example:8000", "x-twice": "one, two"},
            "params": {"id": "a b", "part": "7"},
            "query": "x=1&y=%20",
            "path": "/app/log/a%20b/7",
            "url": "/app/log/a%20b/7?x=1&y=%20",
            "route": "/app/log/{id}/{part}",
            "method": "PUT",
            "hostname": "node.example:8000",
            "body": [r#"{"é": 1}"#, {"é": 1}, 9],
        }),
    );
}

#[test]
fn a_body_that_is_no_json_throws() {
    let service = Service::run("return { body: request.body.json() };");
    for body in ["", "{", "nul \0", "[1,]"] {
        let reply = service.post(body);
        assert_eq!(reply.error().message, "Exception thrown while executing.", "{body:?}");
    }
    assert_eq!(service.post(b"\xff\xfe".as_slice()).error().status, 500);
    assert_eq!(service.post("[1, null]").json(), json!([1, null]));
}

fn caller_seen(caller: &Caller) -> Json {
    let body = "const caller = request.caller;
        if (caller && caller.cose) caller.cose.content = ccf.bufToStr(caller.cose.content);
        return { body: caller === undefined ? 'none' : caller };";
    let request = http::Request::post("/app/run").body("".into()).unwrap();
    let reply = Service::run(body).request(request, caller);
    serde_json::from_slice(reply.response().body()).unwrap_or_else(|_| json!(reply.text()))
}

#[test]
fn callers_have_ccfs_shapes() {
    let (id, cert) = (Digest([0xab; 32]), "PEM".to_owned());
    let data = json!({"role": "teller"});
    assert_eq!(caller_seen(&Caller::Unauthenticated), json!("none"));
    assert_eq!(caller_seen(&Caller::NoAuth), json!({"policy": "no_auth"}));
    let user = Caller::UserCert { id, cert: cert.clone(), data: data.clone() };
    let user_json =
        json!({"policy": "user_cert", "id": id.to_string(), "cert": "PEM", "data": data});
    assert_eq!(caller_seen(&user), user_json);
    let member = Caller::MemberCert { id, cert: cert.clone(), data: Json::Null };
    let expected =
        json!({"policy": "member_cert", "id": id.to_string(), "cert": "PEM", "data": null});
    assert_eq!(caller_seen(&member), expected);
    let any = Caller::AnyCert { cert: cert.clone() };
    assert_eq!(caller_seen(&any), json!({"policy": "any_cert", "cert": "PEM"}));
    let jwt = Caller::Jwt {
        key_issuer: "issuer".to_owned(),
        header: json!({"alg": "ES256"}),
        payload: json!({"sub": "me"}),
    };
    let jwt_json = json!({"policy": "jwt", "jwt": {
        "keyIssuer": "issuer", "header": {"alg": "ES256"}, "payload": {"sub": "me"},
    }});
    assert_eq!(caller_seen(&jwt), jwt_json);
    let envelope = CoseEnvelope {
        message: "message".into(),
        content: "content".into(),
        signature: "signature".into(),
        message_type: None,
        created_at: None,
        proposal_id: None,
    };
    let cose = Caller::UserCose { id, cert, data: data.clone(), envelope };
    let expected = json!({
        "policy": "user_cose_sign1", "id": id.to_string(), "cert": "PEM", "data": data,
        "cose": {"content": "content"},
    });
    assert_eq!(caller_seen(&cose), expected);
    let all = Caller::AllOf(vec![("user_cert", user), ("jwt", jwt)]);
    let expected = json!({"policy": ["user_cert", "jwt"], "user_cert": user_json, "jwt": jwt_json});
    assert_eq!(caller_seen(&all), expected);
}

#[test]
fn replies_become_responses() {
    for (reply, status, content_type, body) in [
        ("{}", 200, None, ""),
        ("{ body: undefined }", 200, None, ""),
        ("{ statusCode: 204 }", 204, None, ""),
        ("{ statusCode: null, body: 'é' }", 200, Some("text/plain"), "é"),
        ("{ statusCode: 404, body: '' }", 404, Some("text/plain"), ""),
        ("{ body: { a: [1, null] } }", 200, Some("application/json"), r#"{"a":[1,null]}"#),
        ("{ body: null }", 200, Some("application/json"), "null"),
        ("{ body: 17 }", 200, Some("application/json"), "17"),
        ("{ body: [] }", 200, Some("application/json"), "[]"),
        ("{ body: ccf.strToBuf('x') }", 200, Some("application/octet-stream"), "x"),
        (
            "{ body: new Uint8Array([65, 66, 67]).subarray(1) }",
            200,
            Some("application/octet-stream"),
            "BC",
        ),
        ("{ body: new Uint16Array([0x4241]) }", 200, Some("application/octet-stream"), "AB"),
        (
            "{ body: '<p>', headers: { 'Content-Type': 'text/html' } }",
            200,
            Some("text/html"),
            "<p>",
        ),
    ] {
        let reply = Service::run(&format!("return {reply};")).post("");
        let response = reply.response();
        assert_eq!(response.status(), status, "{body}");
        assert_eq!(reply.header("content-type"), content_type, "{body}");
        assert_eq!(reply.text(), body);
    }
    let reply = Service::run("return { headers: { 'x-a': 'b', 'x-c': '' } };").post("");
    assert_eq!((reply.header("x-a"), reply.header("x-c")), (Some("b"), Some("")));
}

#[test]
fn the_framing_of_a_reply_is_the_nodes() {
    let framing = [
        ("Connection", "close"),
        ("Content-Length", "5"),
        ("Keep-Alive", "timeout=9"),
        ("Proxy-Connection", "close"),
        ("TE", "trailers"),
        ("Trailer", "x-sum"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "websocket"),
    ];
    let service = Service::run("return { headers: request.headers, body: 'longer than five' };");
    let mut request = http::Request::post("/app/run").header("x-mine", "kept");
    for (name, value) in framing {
        request = request.header(name, value);
    }
    let reply = service.request(request.body("".into()).unwrap(), &Caller::NoAuth);
    assert_eq!((reply.text().as_str(), reply.header("x-mine")), ("longer than five", Some("kept")));
    for (name, _) in framing {
        assert_eq!(reply.header(name), None, "{name}");
    }
}

#[test]
fn replies_that_are_none_are_refused() {
    for (reply, what) in [
        ("undefined", "not an object"),
        ("7", "not an object"),
        ("'text'", "not an object"),
        ("{ statusCode: '200' }", "status code type"),
        ("{ statusCode: 200.5 }", "status code type"),
        ("{ statusCode: 99 }", "status code type"),
        ("{ statusCode: 100 }", "status code type"),
        ("{ statusCode: 70000 }", "status code type"),
        ("{ statusCode: -1 }", "status code type"),
        ("{ headers: { a: 7 } }", "header value type"),
        ("{ headers: { a: '\\n' } }", "header value"),
        ("{ headers: { 'a b': 'x' } }", "header name"),
        ("{ body: () => 1 }", "error during string conversion of body"),
        ("{ body: Symbol('x') }", "error during string conversion of body"),
        ("{ body: '\\ud800' }", "error during string conversion of body"),
        ("{ body: 1n }", "error during JSON conversion of body"),
        (
            "{ body: { toJSON() { throw new Error('no'); } } }",
            "error during JSON conversion of body",
        ),
    ] {
        let reply = Service::run(&format!("return {reply};")).post("");
        let error = reply.error();
        assert_eq!((error.status.as_u16(), error.code.as_str()), (500, "InternalError"));
        let expected = format!("Invalid endpoint function return value ({what}).");
        assert_eq!(error.message, expected, "{reply:?}", reply = what);
    }
}

#[test]
fn exceptions_stay_inside_unless_governance_says_otherwise() {
    let service = Service::of(
        "import { fail } from './lib/fail.js';\nexport function run() {\n    return fail();\n}",
    );
    let modules = [
        ("app.js", "import { fail } from './lib/fail.js';\nexport const run = () => fail();"),
        ("lib/fail.js", "\n\nexport function fail() { throw new TypeError('inner'); }"),
    ];
    service.install(&modules, json!({"/run": {"post": endpoint("app.js", "run")}}));
    let reply = service.post("");
    assert_eq!(reply.error().message, "Exception thrown while executing.");
    assert!(reply.error().details.is_empty());
    service.options(&json!({"return_exception_details": true}));
    let reply = service.post("");
    let [detail] = &reply.error().details[..] else { panic!() };
    assert_eq!((detail.code.as_str(), &*detail.message), ("JSException", "TypeError: inner"));
    let trace = detail.trace.as_deref().unwrap();
    assert!(trace.starts_with("    at fail (/lib/fail.js:3:"), "{trace}");
    assert!(trace.contains("/app.js:2:"), "{trace}");
}

#[test]
fn anything_can_be_thrown() {
    for (thrown, message) in [
        ("'text'", "text"),
        ("{ code: 7 }", r#"{"code":7}"#),
        ("null", "null"),
        ("undefined", "a value of type undefined"),
        ("new Error('')", "Error"),
        ("new RangeError('far')", "RangeError: far"),
        (
            "(() => { const e = new Error('x'); Object.defineProperty(e, 'message', { get() { throw 1; } }); return e; })()",
            "Error",
        ),
        ("new Proxy({}, { get() { throw 1; }, ownKeys() { throw 2; } })", "a value of type proxy"),
    ] {
        let service = Service::run(&format!("throw {thrown};"));
        service.options(&json!({"return_exception_details": true}));
        let reply = service.post("");
        assert_eq!(reply.error().details[0].message, message, "{thrown}");
    }
}

#[test]
fn async_handlers_are_awaited() {
    let module = "const later = (value) => new Promise((resolve) => resolve(value));
        export async function run(request) {
            const first = await later(1);
            const second = await Promise.all([later(2), (async () => 3)()]);
            return { body: [first, ...second] };
        }";
    assert_eq!(Service::of(module).json(), json!([1, 2, 3]));

    let reply =
        Service::of("export async function run() { await null; throw new Error('x'); }").post("");
    assert_eq!(reply.error().message, "Exception thrown while executing.");

    let reply =
        Service::of("export async function run() { await new Promise(() => {}); }").post("");
    let expected = "The promise returned by run will never settle: nothing is left to run.";
    assert_eq!(reply.error().message, expected);

    let endless = "export async function run() { while (true) await null; }";
    let reply = Service::of(endless).ticking(100).post("");
    assert_eq!(reply.error().message, "Operation took too long to complete.");

    // What was started but not awaited still runs, within the request.
    let service = Service::run(
        "Promise.resolve().then(() => ccf.kv.late.set(ccf.strToBuf('k'), ccf.strToBuf('v')));
         return {};",
    );
    service.post("").response();
    assert_eq!(service.get("late", b"k").unwrap(), b"v");
}

#[test]
fn writes_are_applied_as_the_handler_says() {
    let write = "ccf.kv['records'].set(ccf.strToBuf('k'), ccf.strToBuf('v'));";
    for (rest, applied) in [
        ("return {};", true),
        ("return { statusCode: 400 };", false),
        ("ccf.rpc.setApplyWrites(false); return {};", false),
        ("ccf.rpc.setApplyWrites(true); return { statusCode: 400 };", true),
        ("throw new Error('no');", false),
        ("ccf.rpc.setApplyWrites(true); throw new Error('no');", false),
    ] {
        let service = Service::run(&format!("{write} {rest}"));
        service.post("");
        assert_eq!(service.get("records", b"k").is_some(), applied, "{rest}");
    }
}

#[test]
fn claims_are_bound() {
    let body = "ccf.rpc.setClaimsDigest(ccf.crypto.digest('SHA-256', ccf.strToBuf('claim')));
        return {};";
    let reply = Service::run(body).post("");
    assert_eq!(reply.outcome.claims, Some(coco_crypto::sha256(b"claim")));
    let reply = Service::run("ccf.rpc.setClaimsDigest(new ArrayBuffer(31));").post("");
    assert_eq!(reply.error().message, "Exception thrown while executing.");
}

#[test]
fn imports_nest_only_so_deep() {
    let chain = |length: usize| {
        let module = |number: usize| {
            let text = match number + 1 < length {
                true => format!("import './m{}.js'; export const n = {number};", number + 1),
                false => "export const last = true;".to_owned(),
            };
            (format!("m{number}.js"), text)
        };
        (0..length).map(module).collect::<Vec<_>>()
    };
    for (length, works) in [(50, true), (5_000, false)] {
        let chain = chain(length);
        let app = "import './m0.js'; export function run() { return {}; }";
        let mut modules = vec![("app.js", app)];
        modules.extend(chain.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        let endpoints = json!({"/run": {"post": endpoint("app.js", "run")}});
        let reply = Service::new(&modules, endpoints).post("");
        assert_eq!(reply.response.is_ok_and(|r| r.status() == 200), works, "{length}");
    }
}

#[test]
fn missing_functions_and_modules_are_named() {
    let service = Service::of("export const other = 1; export const run = 'no function';");
    let message = "Module /app.js does not export a function named run.";
    assert_eq!(service.post("").error().message, message);
    let service = Service::of("import './gone.js'; export function run() {}");
    service.options(&json!({"return_exception_details": true}));
    let reply = service.post("");
    let detail = &reply.error().details[0].message;
    assert!(detail.contains("/gone.js") && detail.contains("no such module"), "{detail}");
    let service = Service::of("export function run( {");
    service.options(&json!({"return_exception_details": true}));
    let reply = service.post("");
    let detail = &reply.error().details[0];
    assert!(detail.message.starts_with("SyntaxError"), "{detail:?}");
    assert!(detail.trace.as_deref().unwrap().contains("/app.js:1:"), "{detail:?}");
}

#[test]
fn an_endpoint_that_cannot_be_read_fails_alone() {
    let service = Service::run("return { body: 1 };");
    service.put("public:ccf.gov.endpoints", b"GET /bad", br#"{"js_module": 7}"#);
    service.put("public:ccf.gov.endpoints", b"nonsense", b"");
    let reply = service.request(get("/app/bad"), &Caller::NoAuth);
    assert!(reply.error().message.starts_with("The endpoint GET /bad is malformed"));
    assert_eq!(service.json(), json!(1));
}

#[test]
fn historical_endpoints_see_one_state_of_the_past() {
    let module = "export function run(request) {
        const { transactionId, receipt, kv } = ccf.historicalState;
        const value = ccf.bufToStr(kv.records.get(ccf.strToBuf('k')));
        let refused;
        try { kv.records.set(ccf.strToBuf('k'), ccf.strToBuf('v')); } catch (e) { refused = e.message; }
        return { body: { transactionId, cert: receipt.cert, leaf: receipt.leaf_components.commit_evidence.slice(0, 6), value, refused } };
    }
    export function now() { return { body: typeof ccf.historicalState }; }";
    let endpoints = json!({
        "/past": {"get": with(endpoint("app.js", "run"), "mode", json!("historical"))},
        "/now": {"get": endpoint("app.js", "now")},
    });
    let service = Service::new(&[("app.js", module)], endpoints);
    let state = service.node.remember(5, "records", b"k", b"then");
    let reply = service.request_at(get("/app/past"), &Caller::NoAuth, Some(&state));
    let refused = "Cannot call set on table named records: it is read-only in a read-only application endpoint. See https://microsoft.github.io/CCF/main/audit/read_write_restrictions.html";
    let expected = json!({
        "transactionId": "2.5", "cert": "PEM", "leaf": "ce:2.5", "value": "then", "refused": refused,
    });
    assert_eq!(reply.json(), expected);
    assert_eq!(service.request(get("/app/now"), &Caller::NoAuth).text(), "undefined");
}
