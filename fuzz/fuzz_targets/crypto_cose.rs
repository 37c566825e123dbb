//! COSE_Sign1 messages of governance requests, ledger signatures and receipts.
#![no_main]

use coco_crypto::CoseSign1;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = CoseSign1::parse(bytes);
});
