//! A node's configuration.
#![no_main]

use coco_enclave::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Config::parse(text);
});
