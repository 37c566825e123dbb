//! Applications as installed: how modules find each other, what a new version changes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../../script/tests/harness/mod.rs"]
mod harness;
mod service;

use coco_adapter::{Caller, Endpoints};
use coco_kv::MapName;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use service::{Service, endpoint, get, with};

#[test]
fn modules_import_each_other() {
    let modules = [
        (
            "src/app.js",
            "import { a } from './lib/a.js';\nimport b, * as all from '../b.js';\nimport { c } from '/c.js';\nexport async function run() { const { late } = await import('./lib/late.js'); return { body: [a(), b, all.n, c, late] }; }",
        ),
        (
            "src/lib/a.js",
            "import { b2, back } from '../../b.js'; export const a = () => helper() + b2 + back(); export const helper = () => 'a';",
        ),
        (
            "b.js",
            "import { helper } from './src/lib/a.js'; export default 'b'; export const n = 7, b2 = 2, back = () => helper();",
        ),
        ("c.js", "export let c = await Promise.resolve('c');"),
        ("src/lib/late.js", "export const late = 'late';"),
        ("unused.js", "this is not even JavaScript"),
    ];
    let service = Service::new(&modules, json!({"/run": {"post": endpoint("src/app.js", "run")}}));
    service.options(&json!({"return_exception_details": true}));
    for _ in 0..2 {
        assert_eq!(service.json(), json!(["a2a", "b", 7, "c", "late"]));
    }
}

/// What a bundler makes of npm packages: one module with everything in it.
#[test]
fn a_bundled_application_runs() {
    let module = r#"
        'use strict';
        var commonjsGlobal = typeof globalThis !== 'undefined' ? globalThis : typeof self !== 'undefined' ? self : {};
        function getDefaultExportFromCjs(x) { return x && x.__esModule && Object.prototype.hasOwnProperty.call(x, 'default') ? x['default'] : x; }
        var lib = { exports: {} };
        (function (module, exports) {
            (function (root, factory) { module.exports = factory(); })(commonjsGlobal, function () {
                class Converter { constructor(size) { this.size = size; }
                    encode(n) { const buffer = new ArrayBuffer(this.size); new DataView(buffer).setBigUint64(0, BigInt(n), true); return buffer; }
                    decode(buffer) { return new DataView(buffer).getBigUint64(0, true); } }
                return { Converter, __esModule: true, default: (n) => new Converter(8) };
            });
        })(lib, lib.exports);
        var make = getDefaultExportFromCjs(lib.exports);
        class TypedKvMap {
            constructor(kv, kt, vt) { this.kv = kv; this.kt = kt; this.vt = vt; }
            get(key) { const v = this.kv.get(this.kt.encode(key)); return v === undefined ? undefined : this.vt.decode(v); }
            set(key, value) { this.kv.set(this.kt.encode(key), this.vt.encode(value)); return this; }
            forEach(callback) { this.kv.forEach((v, k) => callback(this.vt.decode(v), this.kt.decode(k), this)); }
        }
        const string = { encode: (s) => ccf.strToBuf(s), decode: (b) => ccf.bufToStr(b) };
        const map = new TypedKvMap(ccf.kv['public:counts'], string, make());
        export function run(request) {
            const before = map.get('n') ?? 0n;
            map.set('n', before + 2n ** 40n);
            const all = {}; map.forEach((v, k) => { all[k] = v.toString(); });
            return { body: { all, unicode: [..."e\u0301".normalize('NFC')].length, date: new Date(0).toISOString(), re: 'a-b'.replace(/(?<x>a)-(b)/u, '$<x>$2') } };
        }"#;
    let service = Service::of(module);
    let reply = |n: &str| json!({"all": {"n": n}, "unicode": 1, "date": "1970-01-01T00:00:00.000Z", "re": "ab"});
    assert_eq!(service.json(), reply("1099511627776"));
    assert_eq!(service.json(), reply("2199023255552"));
}

#[test]
fn a_new_version_replaces_the_old_at_once() {
    let service = Service::of("export { run } from './lib.js';");
    let run = json!({"/run": {"post": endpoint("app.js", "run")}});
    for version in 1..4 {
        let lib = format!("export const run = () => ({{ body: [{version}] }});");
        service.install(
            &[("app.js", "export { run } from './lib.js';"), ("lib.js", &lib)],
            run.clone(),
        );
        assert_eq!(service.json(), json!([version]));
    }
    // A module that governance changes alone counts as well.
    service.put("public:ccf.gov.modules", b"/lib.js", b"export const run = () => ({ body: [9] });");
    assert_eq!(service.json(), json!([9]));

    // A transaction that began before the change runs what it saw, and cannot be committed.
    let mut tx = service.store.begin();
    let old = get("/app/run");
    let request = http::Request::post("/app/run").body(old.into_body()).unwrap();
    let coco_adapter::Find::Endpoint(matched) =
        service.apps.find(&mut tx, request.method(), "/run")
    else {
        panic!()
    };
    service.install(&[("app.js", "export const run = () => ({ body: [10] });")], run);
    assert_eq!(service.json(), json!([10]));
    let mut call = coco_adapter::Call {
        request: &request,
        matched: &matched,
        caller: &Caller::NoAuth,
        tx: &mut tx,
        historical: None,
        environment: &service.node,
        outcome: coco_adapter::Outcome::default(),
    };
    let response = service.apps.execute(&mut call).unwrap();
    assert_eq!(response.body(), "[9]");
    tx.put(&MapName::new("m"), b"k".as_slice(), b"v".as_slice());
    assert!(service.store.commit(tx, |_, _| ()).is_err());
}

#[test]
fn removal_leaves_nothing() {
    let service = Service::run("return {};");
    service.install(&[], json!({}));
    let mut tx = service.store.begin();
    let found = service.apps.find(&mut tx, &http::Method::POST, "/run");
    assert!(matches!(found, coco_adapter::Find::UnknownPath));
}

#[test]
fn the_document_lists_what_is_shown() {
    let operation =
        json!({"summary": "Adds", "parameters": [{"name": "id", "in": "path", "required": true}]});
    let shown = with(endpoint("a.js", "f"), "openapi", operation.clone());
    let hidden = with(endpoint("a.js", "f"), "openapi_hidden", json!(true));
    let endpoints = json!({"/log/{id}": {"post": shown, "delete": hidden}, "/plain": {"get": endpoint("a.js", "f")}});
    let service = Service::new(&[("a.js", "")], endpoints);
    let paths = Json::Object(service.apps.openapi_paths(&mut service.store.begin()));
    assert_eq!(paths["/log/{id}"]["post"]["summary"], "Adds");
    assert_eq!(paths["/log/{id}"]["post"]["parameters"], operation["parameters"]);
    assert!(paths["/log/{id}"].get("delete").is_none());
    assert_eq!(
        paths["/plain"],
        json!({"get": {"responses": {"default": {"description": "Reply"}}}})
    );
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// JSON, text and bytes come through a handler and the store as they went in.
    #[test]
    fn values_survive_the_way_through_js(json in any_json(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        thread_local! {
            static SERVICES: [Service; 3] = [
                Service::run("ccf.kv.m.set(ccf.strToBuf('k'), ccf.jsonCompatibleToBuf(request.body.json()));
                    return { body: [ccf.bufToJsonCompatible(ccf.kv.m.get(ccf.strToBuf('k')))] };"),
                Service::run("ccf.kv.m.set(request.body.arrayBuffer(), request.body.arrayBuffer());
                    return { body: ccf.kv.m.get(request.body.arrayBuffer()) };"),
                Service::run("return { body: ccf.bufToStr(ccf.strToBuf(request.body.text())) };"),
            ];
        }
        SERVICES.with(|[as_json, as_bytes, as_text]| {
            let text = json.to_string();
            // The engine's JSON reader takes no NUL, escaped ones are none.
            prop_assert_eq!(as_json.post(text.clone()).json(), serde_json::json!([json]));
            prop_assert_eq!(as_text.post(text.clone()).text(), text);
            let reply = as_bytes.post(bytes.clone());
            prop_assert_eq!(&reply.response().body()[..], &bytes[..]);
            prop_assert_eq!(as_bytes.get("m", &bytes), Some(bytes));
            Ok(())
        })?;
    }

    /// Whatever text a module is, the request gets an answer.
    #[test]
    fn any_text_is_a_module_or_an_error(text in "[a-z(){};=+`'\"/*\\\\ \n0-9]{0,60}") {
        let service = Service::of(&text).ticking(20);
        prop_assert!(service.post("").response.is_err() || text.contains("run"));
    }
}
