//! One entry of the ledger, with every domain it may have.
#![no_main]

use coco_ledger::{Entry, LedgerSecrets, SignatureTransaction};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::parse(bytes) else { return };
    if let Ok(writes) = entry.public_writes() {
        let _ = SignatureTransaction::parse(&writes);
    }
    let _ = entry.private_writes(&LedgerSecrets::default());
});
