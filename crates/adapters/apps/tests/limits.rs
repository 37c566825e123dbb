//! What scripts may use, and what one call leaves for the next.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../../script/tests/harness/mod.rs"]
mod harness;
mod service;

use coco_adapter::Caller;
use serde_json::{Value as Json, json};
use service::{Service, endpoint, with};

const TOO_LONG: &str = "Operation took too long to complete.";
const TOO_MUCH: &str = "Operation ran out of memory.";

fn error_of(service: &Service) -> String {
    service.post("").error().message.clone()
}

#[test]
fn endless_scripts_are_stopped() {
    for body in [
        "while (true);",
        "for (;;) { try { while (true); } catch {} finally { } }",
        "const f = () => { try { f(); } finally { f(); } }; f();",
        "[1, 2, 3].sort(() => { while (true); });",
        "Promise.resolve().then(() => { while (true); }); return {};",
        "return { get body() { while (true); } };",
        "return { body: { toJSON() { while (true); } } };",
        "const e = new Error(); Object.defineProperty(e, 'message', { get() { while (true); } }); throw e;",
        "/(a+)+$/.test('a'.repeat(40) + 'b');",
    ] {
        let service = Service::run(body).ticking(20);
        service.options(&json!({"max_execution_time_ms": 1000}));
        assert_eq!(error_of(&service), TOO_LONG, "{body}");
        // The interpreter that was stopped serves nobody else.
        service.install(
            &[("app.js", "export const run = () => ({});")],
            json!({"/run": {"post": endpoint("app.js", "run")}}),
        );
        assert_eq!(service.post("").response().status(), 200);
    }
    let service = Service::of("while (true); export function run() {}").ticking(100);
    assert_eq!(error_of(&service), TOO_LONG);
}

/// The engine itself would not ask for the time before all of these are done.
#[test]
fn time_spent_in_the_nodes_functions_counts() {
    for body in [
        "for (let i = 0; i < 200; i++) ccf.crypto.digest('SHA-256', new ArrayBuffer(8)); return {};",
        "for (let i = 0; i < 200; i++) { try { ccf.crypto.digest('MD5', 7); } catch {} } return {};",
        "try { for (let i = 0; i < 200; i++) ccf.kv.m.has(new ArrayBuffer(8)); } catch {} return {};",
        "try { for (let i = 0; i < 200; i++) request.body.text(); } finally { return {}; }",
        "return { get body() { for (let i = 0; i < 200; i++) ccf.strToBuf('x'); } };",
        "Promise.resolve().then(() => { for (let i = 0; i < 200; i++) Math.random(); }); return {};",
    ] {
        let service = Service::run(body).ticking(10);
        assert_eq!(service.post("").response().status(), 200, "{body}");
        service.options(&json!({"max_execution_time_ms": 1000}));
        assert_eq!(error_of(&service), TOO_LONG, "{body}");
    }
    let thrown = "const e = new Error(); throw Object.defineProperty(e, 'message',
        { get() { for (let i = 0; i < 200; i++) Date.now(); } });";
    let service = Service::run(thrown).ticking(10);
    service.options(&json!({"max_execution_time_ms": 1000}));
    assert_eq!(error_of(&service), TOO_LONG);
}

#[test]
fn a_clock_that_stands_still_gives_no_endless_time() {
    let service = Service::run("while (true);");
    service.options(&json!({"max_execution_time_ms": 2}));
    assert_eq!(error_of(&service), TOO_LONG);
}

#[test]
fn greedy_scripts_run_out_of_memory() {
    for body in [
        "const all = []; while (true) all.push(new Uint8Array(1000));",
        "const all = []; while (true) all.push(all.length);",
        "new ArrayBuffer(1e9);",
        "'x'.repeat(1e8);",
        "const map = ccf.kv.m, k = ccf.strToBuf('k'); map.set(k, new ArrayBuffer(1e6)); const all = []; while (true) all.push(map.get(k));",
        "JSON.stringify(Array.from({ length: 1e6 }, () => 'long enough to matter'));",
    ] {
        let service = Service::run(body).ticking(5);
        service.options(&json!({"max_heap_bytes": 8 << 20, "max_execution_time_ms": 5_000}));
        assert_eq!(error_of(&service), TOO_MUCH, "{body}");
    }
    // What one call left behind does not count against the next.
    let service = Service::run("globalThis.big = new Array(4e5).fill(1.5); return {};");
    service.options(&json!({"max_heap_bytes": 8 << 20}));
    for _ in 0..10 {
        assert_eq!(service.post("").response().status(), 200);
    }
}

/// As small as members may set them, limits give CCF's errors.
#[test]
fn limits_may_be_next_to_nothing() {
    const NO_STACK: &str = "Exception thrown while executing.";
    for body in [
        "return {};",
        "return { body: [request.headers, request.body.text()] };",
        "const key = ccf.strToBuf('k'); ccf.kv.m.set(key, key); throw new Error('no');",
        "await null; return {};",
    ] {
        let service = Service::of(&format!("export async function run(request) {{ {body} }}"));
        for (option, limit, message) in [
            ("max_execution_time_ms", 0, TOO_LONG),
            ("max_heap_bytes", 0, TOO_MUCH),
            ("max_heap_bytes", 1, TOO_MUCH),
            ("max_heap_bytes", 100, TOO_MUCH),
            ("max_stack_bytes", 0, NO_STACK),
            ("max_stack_bytes", 1, NO_STACK),
            ("max_stack_bytes", 100, NO_STACK),
        ] {
            service.options(&json!({option: limit}));
            assert_eq!(error_of(&service), message, "{option} {limit}: {body}");
        }
        for max_stack_bytes in (0..60_000).step_by(997) {
            service.options(&json!({"max_stack_bytes": max_stack_bytes}));
            let message = service.post("").response.err().map(|error| error.message);
            assert!(message.is_none_or(|message| message == NO_STACK), "{max_stack_bytes}: {body}");
        }
    }
}

#[test]
fn deep_recursion_is_an_exception() {
    for (body, caught) in [
        ("const f = (n) => 1 + f(n + 1); f(0);", false),
        (
            "const f = (n) => 1 + f(n + 1); try { f(0); } catch (e) { return { body: e.name }; }",
            true,
        ),
        (
            "let deep = []; for (let i = 0; i < 100000; i++) deep = [deep]; return { body: deep };",
            false,
        ),
        ("ccf.bufToJsonCompatible(ccf.strToBuf('['.repeat(1e6)));", false),
        ("const p = new Proxy({}, { get: (t, k, r) => r[k] }); p.x;", false),
        ("new RegExp('('.repeat(1e5));", false),
        (
            "const f = () => ccf.kv.m.set(ccf.strToBuf('k'), ccf.strToBuf('k')).forEach(f); f();",
            false,
        ),
    ] {
        for max_stack_bytes in [50_000_u64, 1 << 20, 1 << 40] {
            let service = Service::run(body);
            service.options(&json!({"max_stack_bytes": max_stack_bytes}));
            let reply = service.post("");
            if caught {
                assert_eq!(reply.text(), "RangeError", "{body}");
            } else {
                assert_eq!(reply.error().status, 500, "{body}");
            }
        }
    }
}

/// Wherever the heap ends, the call fails or succeeds in an orderly way, and the process lives.
#[test]
fn the_heap_may_end_anywhere() {
    let body = "
        const map = ccf.kv.m, buf = ccf.strToBuf, crypto = ccf.crypto;
        map.set(buf('k'), ccf.jsonCompatibleToBuf({ body: request.body.text() }));
        map.forEach((value, key) => ccf.bufToStr(key) + JSON.stringify(ccf.bufToJsonCompatible(value)));
        const key = crypto.generateEcdsaKeyPair('secp256r1');
        crypto.pubPemToJwk(key.publicKey, 'kid');
        crypto.sign({ name: 'ECDSA', hash: 'SHA-256' }, key.privateKey, buf('x'));
        console.log({ date: new Date(), random: Math.random() }, Object.keys(ccf));
        const { promise, resolve } = Promise.withResolvers();
        resolve(/a(b)c/.exec('abc').map((x) => new Map([[x, Symbol(x)]]).size));
        class A { #x = 1; get x() { return this.#x; } }
        return { body: [new A().x, ...(await promise)], headers: { a: 'b' } };";
    let module = format!("export async function run(request) {{ {body} }}");
    let mut succeeded = 0;
    for step in 0..400_u64 {
        let service = Service::of(&module);
        service.options(&json!({"max_heap_bytes": 20_000 + step * 997}));
        let reply = service.post("body");
        match &reply.response {
            Ok(_) => succeeded += 1,
            Err(error) => assert!(
                error.message == TOO_MUCH
                    || error.message.starts_with("Exception thrown")
                    || error.message.contains("will never settle"),
                "{step}: {error}"
            ),
        }
    }
    assert!(succeeded > 0 && succeeded < 400, "{succeeded}");
}

const COUNTER: &str = "let inModule = 0;
    export function run() {
        globalThis.inGlobal = (globalThis.inGlobal ?? 0) + 1;
        Array.prototype.mine = (Array.prototype.mine ?? 0) + 1;
        ccf.mine = (ccf.mine ?? 0) + 1;
        inModule += 1;
        return { body: [inModule, globalThis.inGlobal, [].mine, ccf.mine] };
    }";

#[test]
fn nothing_leaks_between_isolated_calls() {
    let service = Service::of(COUNTER);
    for _ in 0..5 {
        assert_eq!(service.json(), json!([1, 1, 1, 1]));
    }
}

#[test]
fn nothing_leaks_through_what_scripts_share_with_the_node() {
    // What a native, a map, a body or the language itself is made of, marked and destroyed.
    let service = Service::of(
        "export function run(request) {
            const shared = [
                ccf.strToBuf, ccf.crypto.sign, ccf.kv, ccf.kv.records, request, request.body,
                request.body.json, console.log, Date, Math, Promise.resolve(), Symbol.iterator,
                async () => {}, function* () {}, new Map(), /x/, new Uint8Array(1),
            ];
            let found = 0;
            const once = new Set();
            for (const object of shared) {
                const proto = Object.getPrototypeOf(object);
                if (proto && !once.has(proto)) { once.add(proto); found += Object.hasOwn(proto, 'seen'); }
            }
            for (const proto of once) {
                try { Object.defineProperty(proto, 'seen', { value: 1 }); } catch {}
            }
            delete ccf.kv; delete ccf.strToBuf; delete ccf.crypto; delete globalThis.ccf;
            delete Math.random; globalThis.Date = undefined; globalThis.console = null;
            Array.prototype.push = () => { throw 1; };
            globalThis.cycle = {}; cycle.cycle = cycle; cycle.request = request;
            Promise.resolve().then(() => { globalThis.later = 1; });
            return { body: { found, later: typeof later, cycle: 0 } };
        }",
    );
    for _ in 0..20 {
        assert_eq!(service.json(), json!({"found": 0, "later": "undefined", "cycle": 0}));
    }
}

#[test]
fn nothing_leaks_from_calls_that_fail() {
    let service = Service::of(
        "export function run(request) {
            const seen = [typeof leak, [].leak, typeof ccf.leak];
            globalThis.leak = 1; Array.prototype.leak = 1; ccf.leak = 1;
            switch (request.body.text()) {
                case 'throw': throw new Error('no');
                case 'loop': for (;;) {}
                case 'recurse': return run(request);
                case 'memory': { const all = []; for (;;) all.push(new Array(1000).fill(0)); }
                case 'never': return new Promise(() => {});
                case 'jobs': { const f = () => Promise.resolve().then(f); f(); return {}; }
            }
            return { body: seen };
        }",
    )
    .ticking(1);
    service.options(&json!({"max_heap_bytes": 4 << 20, "max_execution_time_ms": 50}));
    for _ in 0..2 {
        for how in ["throw", "loop", "recurse", "memory", "never", "jobs"] {
            service.post(how).error();
            assert_eq!(service.json(), json!(["undefined", null, "undefined"]), "after {how}");
        }
    }
}

fn reusing(module: &str, keys: &[(&str, &str)]) -> Service {
    let mut endpoints = json!({});
    for (path, key) in keys {
        let properties = with(endpoint("app.js", "run"), "interpreter_reuse", json!({"key": key}));
        endpoints[*path] = json!({"post": properties});
    }
    Service::new(&[("app.js", module)], endpoints)
}

fn post(service: &Service, path: &str) -> Json {
    let request = http::Request::post(path).body("".into()).unwrap();
    service.request(request, &Caller::NoAuth).json()
}

#[test]
fn a_job_left_by_the_reply_does_not_run_within_the_next_request() {
    let module = "
        let calls = 0;
        export function run() {
            calls += 1;
            const later = () => { calls += 100; ccf.kv['late'].set(new ArrayBuffer(1), new ArrayBuffer(1)); };
            return { body: { toJSON() { Promise.resolve().then(later); return calls; } } };
        }";
    let service = reusing(module, &[("/run", "a")]);
    for _ in 0..3 {
        assert_eq!(post(&service, "/run"), json!(1));
        assert_eq!(service.get("late", &[0]), None);
    }
}

#[test]
fn globals_live_on_where_interpreters_are_reused() {
    let service = reusing(COUNTER, &[("/run", "a"), ("/same", "a"), ("/other", "b")]);
    assert_eq!(post(&service, "/run"), json!([1, 1, 1, 1]));
    assert_eq!(post(&service, "/same"), json!([2, 2, 2, 2]));
    assert_eq!(post(&service, "/other"), json!([1, 1, 1, 1]));
    assert_eq!(post(&service, "/run"), json!([3, 3, 3, 3]));
    // Another version of the application starts anew, even if only an endpoint changed.
    let properties = with(endpoint("app.js", "run"), "interpreter_reuse", json!({"key": "a"}));
    service.install(&[("app.js", COUNTER)], json!({"/run": {"post": properties}}));
    assert_eq!(post(&service, "/run"), json!([1, 1, 1, 1]));
}

#[test]
fn only_so_many_interpreters_are_kept() {
    let service = reusing(COUNTER, &[("/run", "a"), ("/b", "b"), ("/c", "c")]);
    service.options(&json!({"max_cached_interpreters": 2}));
    let count = |path: &str| post(&service, path)[0].clone();
    assert_eq!([count("/run"), count("/b"), count("/run")], [1, 1, 2]);
    // Now b was used least recently.
    assert_eq!([count("/c"), count("/run"), count("/b")], [1, 3, 1]);
    service.options(&json!({"max_cached_interpreters": 0}));
    assert_eq!([count("/run"), count("/run")], [1, 1]);
}

#[test]
fn a_failed_call_leaves_no_interpreter_behind() {
    let module = "let calls = 0;
        export function run(request) {
            calls += 1;
            if (calls === 2) throw new Error('no');
            return { body: [calls] };
        }";
    let service = reusing(module, &[("/run", "a")]);
    assert_eq!(post(&service, "/run"), json!([1]));
    assert_eq!(error_of(&service), "Exception thrown while executing.");
    assert_eq!(post(&service, "/run"), json!([1]));
}

#[test]
fn a_reused_interpreter_sees_the_present_transaction() {
    let module = "let kept;
        export function run(request) {
            kept ??= { map: ccf.kv.m, size: 0 };
            const k = ccf.strToBuf(String(kept.map.size));
            kept.map.set(k, k);
            return { body: [kept.map.size] };
        }";
    let service = reusing(module, &[("/run", "a")]);
    for size in 1..5 {
        assert_eq!(post(&service, "/run"), json!([size]));
    }
    assert_eq!(service.get("m", b"3").unwrap(), b"3");
}

#[test]
fn states_of_the_past_are_not_kept() {
    let module = "let kept;
        export function run() {
            const states = ccf.historical.getStateRange(1, 3, 3, 10);
            const read = (state) => { try { return ccf.bufToStr(state.kv.m.get(ccf.strToBuf('k'))); } catch (e) { return e.message; } };
            const body = [read(states[0]), kept === undefined ? null : read(kept)];
            kept = states[0];
            return { body };
        }";
    let service = reusing(module, &[("/run", "a")]);
    service.node.remember(3, "m", b"k", b"three");
    assert_eq!(post(&service, "/run"), json!(["three", null]));
    let refused = "The historical state belongs to another request";
    assert_eq!(post(&service, "/run"), json!(["three", refused]));
}

#[test]
fn requests_run_in_parallel() {
    let service = Service::run(
        "let sum = 0; for (let i = 0; i < 20000; i++) sum += i; return { body: [sum, ++globalThis.n || (globalThis.n = 1)] };",
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(service.json(), json!([199_990_000, 1]));
                }
            });
        }
    });
}
