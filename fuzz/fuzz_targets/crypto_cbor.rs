//! CBOR: what is accepted survives a round trip.
#![no_main]

use coco_crypto::cbor::Value;
use libfuzzer_sys::fuzz_target;

/// Of RFC 8949, appendix A: numbers, tags, strings, arrays and maps.
const SEEDS: [&[u8]; 6] = [
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xc1\x1a\x51\x4b\x67\xb0",
    b"\x83\x01\x82\x02\x03\x82\x04\x05",
    b"\xa2\x61a\x01\x61b\x82\x02\x03",
    b"\xd2\x84\x43\xa1\x01\x26\xa0\xf6\x42ab",
];

fuzz_target!(init: coco_fuzz::seed("crypto_cbor", SEEDS), |bytes: &[u8]| {
    if let Ok(value) = Value::parse(bytes) {
        assert_eq!(Value::parse(&value.encode()), Ok(value));
    }
});
