//! A snapshot file.
#![no_main]

use coco_ledger::{LedgerSecrets, SnapshotFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(snapshot) = SnapshotFile::parse(bytes) else { return };
    let _ = snapshot.receipt();
    if let Ok(state) = snapshot.public_state() {
        let _ = snapshot.tree(&state);
    }
    let _ = snapshot.state(&LedgerSecrets::default());
});
