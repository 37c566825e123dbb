//! Receipts, JSON and COSE.
#![no_main]

use coco_ledger::{CoseReceipt, Receipt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(receipt) = Receipt::from_json(bytes) {
        let again = Receipt::from_json(receipt.to_json().as_bytes());
        assert_eq!(again.map(|again| again.to_json()).ok(), Some(receipt.to_json()));
    }
    let _ = CoseReceipt::parse(bytes);
});
