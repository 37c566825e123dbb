//! An application bundle as `set_js_app` takes it.
#![no_main]

use coco_apps::install_bundle;
use coco_kv::{Store, View};
use libfuzzer_sys::fuzz_target;

const SEED: &str = r#"{"metadata": {"endpoints": {"/a/{b}": {"get": {"js_module": "a.js",
    "js_function": "f", "mode": "historical", "forwarding_required": "sometimes",
    "redirection_strategy": "to_primary", "interpreter_reuse": {"key": "k"},
    "authn_policies": ["jwt", {"all_of": ["user_cert", "user_cose_sign1"]}],
    "openapi": {"responses": {}}, "openapi_hidden": false}}}},
    "modules": [{"name": "/a.js", "module": "import 'b.js'; export function f() {}"},
        {"name": "b.js", "module": "export const c = 1;"}]}"#;

fuzz_target!(init: coco_fuzz::seed("apps_bundle", [SEED]), |bytes: &[u8]| {
    let Ok(bundle) = serde_json::from_slice(bytes) else { return };
    let mut tx = Store::new(View(2)).begin();
    if install_bundle(&mut tx, &bundle, false).is_err() {
        assert!(!tx.has_writes(), "a bundle is installed whole or not at all");
    }
});
