//! An endpoint of an application, as governance has stored it.
#![no_main]

use coco_apps::Endpoint;
use libfuzzer_sys::fuzz_target;

const SEED: &str = r#"{"js_module": "/a.js", "js_function": "f", "mode": "historical",
    "forwarding_required": "sometimes", "redirection_strategy": "to_primary",
    "interpreter_reuse": {"key": "k"}, "openapi": {"responses": {}}, "openapi_hidden": false,
    "authn_policies": ["jwt", {"all_of": ["user_cert", "user_cose_sign1"]}]}"#;

fuzz_target!(init: coco_fuzz::seed("apps_endpoint", [SEED]), |bytes: &[u8]| {
    let Ok(endpoint) = Endpoint::parse(bytes) else { return };
    let written = serde_json::to_vec(&endpoint).unwrap();
    assert!(Endpoint::parse(&written).is_ok(), "what is read can be read again");
});
