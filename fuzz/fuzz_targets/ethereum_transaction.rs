//! A raw transaction: what is accepted is the canonical encoding of itself.
#![no_main]

use coco_ethereum::SignedTransaction;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(transaction) = SignedTransaction::from_wire(bytes) {
        assert_eq!(&*transaction.to_bytes(), bytes);
        let _ = transaction.to_evm();
    }
});
