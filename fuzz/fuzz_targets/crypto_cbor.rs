//! CBOR: what is accepted survives a round trip.
#![no_main]

use coco_crypto::cbor::Value;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = Value::parse(bytes) {
        assert_eq!(Value::parse(&value.encode()), Ok(value));
    }
});
