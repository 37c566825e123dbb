//! JavaScript applications: which bundles members may install, and what is shown of them.

use coco_adapter::Template;
use coco_apps::Endpoint;
use coco_governance::tables::{ENDPOINTS, MODULES};
use serde_json::{Value as Json, json};

use super::harness::{Reply, Service};

/// Modules by name, without endpoints.
fn modules(modules: &[(&str, &str)]) -> Json {
    let module = |&(name, module): &(&str, &str)| json!({"name": name, "module": module});
    let modules: Vec<Json> = modules.iter().map(module).collect();
    json!({"metadata": {"endpoints": {}}, "modules": modules})
}

fn installed(service: &Service) -> Vec<(String, String)> {
    let rows = service.look(|tx| MODULES.rows(tx)).unwrap().into_iter();
    rows.map(|(name, text)| (name, text.0)).collect()
}

#[test]
fn modules_that_do_not_compile_leave_the_old_application() {
    let service = Service::open();
    let set = |bundle: Json| service.decide("set_js_app", json!({"bundle": bundle}));
    let old = [("/a.js", "import './b.js';"), ("/b.js", "import './a.js'; throw 1;")];
    set(modules(&old)).expect(200);
    let old = old.map(|(name, text)| (name.to_owned(), text.to_owned()));

    let why = |reply: Reply| reply.refused(500, "InternalError");
    for (bundle, expected) in [
        (modules(&[("a.js", ""), ("b.js", "\nthis is not js")]), "/b.js, line 2: SyntaxError: "),
        (modules(&[("a.js", "let let = 1;")]), "/a.js, line 1: SyntaxError: "),
        (modules(&[("a.js", "import './gone.js';")]), "/gone.js"),
    ] {
        let why = why(set(bundle));
        assert!(why.contains("Failed to refresh bytecode: "), "{why}");
        assert!(why.contains(expected), "{why}");
        assert_eq!(installed(&service), old);
    }

    // Whoever asks for no bytecode is not told; later he is.
    let bundle = modules(&[("a.js", "this is not js")]);
    service.pass("set_js_app", json!({"bundle": bundle, "disable_bytecode_cache": true}));
    let why = why(service.decide("refresh_js_app_bytecode_cache", json!({})));
    assert!(why.contains("/a.js, line 1: SyntaxError"), "{why}");
}

fn endpoint() -> Json {
    json!({
        "js_module": "a.js", "js_function": "f", "mode": "readonly",
        "forwarding_required": "never", "authn_policies": [],
    })
}

/// `endpoint` with one field changed, or without it.
fn with(field: &str, value: Option<&Json>) -> Json {
    let mut endpoint = endpoint();
    let fields = endpoint.as_object_mut().unwrap();
    match value {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
    endpoint
}

fn bundle(endpoints: &Json) -> Json {
    let mut bundle = modules(&[("a.js", "export function f() {}")]);
    bundle["metadata"]["endpoints"] = endpoints.clone();
    bundle
}

/// Whether the members may vote on it, as text for proposals that no `Json` can be.
fn is_valid(service: &Service, bundle: &str) -> bool {
    let body =
        format!(r#"{{"actions": [{{"name": "set_js_app", "args": {{"bundle": {bundle}}}}}]}}"#);
    let path = "/members/proposals:create";
    let reply = service.post(&service.members[0], "proposal", None, path, body.as_bytes());
    if reply.status != 200 {
        reply.refused(400, "ProposalFailedToValidate");
        return false;
    }
    true
}

#[test]
fn what_may_be_proposed_of_an_endpoint_can_be_read() {
    let service = Service::open();
    let odd = [json!(null), json!(true), json!(7), json!(""), json!("?"), json!([]), json!({})];
    let properties: [(&str, bool, &[Json]); 10] = [
        ("js_module", false, &[json!("a.js"), json!("/a.js")]),
        ("js_function", false, &[json!("f"), json!("?")]),
        ("mode", false, &["readwrite", "readonly", "historical"].map(Json::from)),
        ("forwarding_required", false, &["always", "sometimes", "never"].map(Json::from)),
        ("redirection_strategy", true, &["none", "to_primary", "to_backup"].map(Json::from)),
        (
            "authn_policies",
            false,
            &[
                json!([]),
                json!(["user_cert", "member_cert", "any_cert", "jwt", "user_cose_sign1"]),
                json!(["no_auth", "no_auth", {"all_of": ["no_auth", "jwt", "jwt"]}]),
            ],
        ),
        ("openapi", true, &[json!(null), json!({}), json!({"x": [1.5e300, -1, null, {"y": "é"}]})]),
        ("openapi_hidden", true, &[json!(true), json!(false)]),
        (
            "interpreter_reuse",
            true,
            &[json!(null), json!({"key": "k"}), json!({"key": "k", "newer": []})],
        ),
        ("newer", true, &odd),
    ];
    let mut accepted = Vec::new();
    for (field, may_be_absent, good) in properties {
        let without = with(field, None);
        let valid = is_valid(&service, &bundle(&json!({"/x": {"get": without}})).to_string());
        assert_eq!(valid, may_be_absent, "without {field}");
        accepted.extend(valid.then_some(without));
        for value in good.iter().chain(&odd) {
            let endpoint = with(field, Some(value));
            let valid = is_valid(&service, &bundle(&json!({"/x": {"get": endpoint}})).to_string());
            assert_eq!(valid, good.contains(value), "{field}: {value}");
            accepted.extend(valid.then_some(endpoint));
        }
    }
    for policies in [
        json!(["member_cose_sign1"]),
        json!([["jwt"]]),
        json!([null]),
        json!([{"all_of": []}]),
        json!([{"all_of": [{"all_of": ["jwt"]}]}]),
        json!([{"all_of": ["jwt"], "newer": 1}]),
    ] {
        let endpoint = with("authn_policies", Some(&policies));
        assert!(!is_valid(&service, &bundle(&json!({"/x": {"get": endpoint}})).to_string()));
    }
    for module in ["./a.js", "x/../a.js", "x//a.js", "/", "//a.js"] {
        let endpoint = with("js_module", Some(&json!(module)));
        let mut bundle = bundle(&json!({"/x": {"get": endpoint}}));
        bundle["modules"][0]["name"] = json!(module);
        assert!(!is_valid(&service, &bundle.to_string()), "{module}");
    }

    let paths = accepted.iter().enumerate();
    let paths = paths.map(|(index, endpoint)| (format!("/{index}"), json!({"GET": endpoint})));
    service.pass("set_js_app", json!({"bundle": bundle(&Json::Object(paths.collect()))}));
    let stored = service.look(|tx| ENDPOINTS.rows(tx)).unwrap();
    assert_eq!(stored.len(), accepted.len());
    for (key, properties) in stored {
        let read = Endpoint::parse(properties.to_string().as_bytes());
        assert!(read.is_ok(), "{key} {properties}: {read:?}");
    }
}

#[test]
fn what_no_reader_of_json_takes_is_not_proposed() {
    let service = Service::open();
    let proposed = |from: &str, to: &str| {
        let bundle = bundle(&json!({"/x": {"get": with("openapi", Some(&json!({"n": "v"})))}}));
        let text = bundle.to_string();
        assert!(text.contains(from), "{text}");
        is_valid(&service, &text.replace(from, to))
    };
    assert!(proposed(r#""n":"v""#, r#""\ud83d\ude00":"\ud83d\ude00""#));
    for (from, to) in [
        (r#""f""#, r#""\ud800""#),
        (r#""/x""#, r#""/\ud800""#),
        (r#""n":"v""#, r#""n":"\udc00""#),
        (r#""n":"v""#, r#""\udc00":1"#),
        (r#""openapi""#, r#""newer":{"n":"\ud800"},"openapi""#),
        ("export", r"\ud800"),
    ] {
        assert!(!proposed(from, to), "{to}");
    }
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(proposed(r#""v""#, &nested(80)));
    assert!(!proposed(r#""v""#, &nested(120)));
    assert!(!proposed(r#""v""#, &nested(100_000)));
}

#[test]
fn paths_that_may_be_proposed_can_be_read() {
    let service = Service::open();
    let accepted =
        ["/", "x", "/x/", "//", "/{a}", "/x{a}y/{b}", "/{a}:close", "/a b", "/%7B", "/z/{a b}"];
    for path in ["/{", "/}", "/{}", "/{a", "/a}", "/{a}{b}", "/{a}/{a}", "/{{a}}", "/}{", "/x}{a}"]
    {
        let bundle = bundle(&json!({path: {"get": endpoint()}}));
        assert!(!is_valid(&service, &bundle.to_string()), "{path}");
    }
    let paths = accepted.map(|path| (path.to_owned(), json!({"get": endpoint()})));
    service
        .pass("set_js_app", json!({"bundle": bundle(&Json::Object(paths.into_iter().collect()))}));
    for (key, _) in service.look(|tx| ENDPOINTS.rows(tx)).unwrap() {
        let path = key.strip_prefix("GET ").unwrap();
        assert!(Template::parse(path).is_ok(), "{path:?}");
    }
}
