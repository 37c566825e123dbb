//! JavaScript applications: which bundles members may install, and what is shown of them.

use coco_governance::tables::MODULES;
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
