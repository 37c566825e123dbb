//! Receipts, JSON and COSE.
#![no_main]

use coco_ledger::{CoseReceipt, Receipt};
use libfuzzer_sys::fuzz_target;

const SEED: &str = r#"{"signature": "AAAA", "cert": "PEM", "node_id":
    "0000000000000000000000000000000000000000000000000000000000000000", "proof": [{"left":
    "0000000000000000000000000000000000000000000000000000000000000001"}], "leaf_components": {
    "write_set_digest": "0000000000000000000000000000000000000000000000000000000000000002",
    "commit_evidence": "ce:2.3:0000000000000000000000000000000000000000000000000000000000000003",
    "claims_digest": "0000000000000000000000000000000000000000000000000000000000000004"},
    "service_endorsements": ["PEM"]}"#;

fuzz_target!(init: coco_fuzz::seed("ledger_receipt", [SEED]), |bytes: &[u8]| {
    if let Ok(receipt) = Receipt::from_json(bytes) {
        let again = Receipt::from_json(receipt.to_json().as_bytes());
        assert_eq!(again.map(|again| again.to_json()).ok(), Some(receipt.to_json()));
    }
    let _ = CoseReceipt::parse(bytes);
});
