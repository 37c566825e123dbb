//! The signing keys of a token issuer.
#![no_main]

use coco_governance::jwt::set_public_signing_keys;
use coco_kv::{Store, View};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(keys) = serde_json::from_slice(bytes) else { return };
    let mut tx = Store::new(View(2)).begin();
    let _ = set_public_signing_keys(&mut tx, "https://issuer.example", &keys);
});
