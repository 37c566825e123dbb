//! The signing keys of a token issuer.
#![no_main]

use coco_governance::jwt::set_public_signing_keys;
use coco_kv::{Store, View};
use libfuzzer_sys::fuzz_target;

const SEED: &str = r#"{"keys": [{"kty": "RSA", "kid": "a", "use": "sig", "n": "AQAB", "e": "AQAB",
    "x5c": ["MIIB"], "issuer": "https://a/{tenantid}"},
    {"kty": "EC", "crv": "P-256", "kid": "b", "x": "AQAB", "y": "AQAB"}]}"#;

fuzz_target!(init: coco_fuzz::seed("governance_jwks", [SEED]), |bytes: &[u8]| {
    let Ok(keys) = serde_json::from_slice(bytes) else { return };
    let mut tx = Store::new(View(2)).begin();
    let _ = set_public_signing_keys(&mut tx, "https://issuer.example", &keys);
});
