//! An application bundle as `set_js_app` takes it.
#![no_main]

use coco_apps::install_bundle;
use coco_kv::{Store, View};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(bundle) = serde_json::from_slice(bytes) else { return };
    let mut tx = Store::new(View(2)).begin();
    if install_bundle(&mut tx, &bundle, false).is_err() {
        assert!(!tx.has_writes(), "a bundle is installed whole or not at all");
    }
});
