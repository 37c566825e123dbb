//! A snapshot file.
#![no_main]

use coco_ledger::{LedgerSecret, LedgerSecrets, SnapshotFile, SnapshotReader, StateWanted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = SnapshotFile::read(bytes, StateWanted::Public);
    if let Ok(snapshot) = &whole {
        let _ = snapshot.receipt();
        let _ = snapshot.tree();
    }
    // In pieces it is the same snapshot.
    let mut reader = SnapshotReader::new(StateWanted::Public);
    let pieces = bytes.chunks(usize::from(bytes.last().copied().unwrap_or_default()).max(1));
    let added = pieces.map(|piece| reader.add(piece)).collect::<Result<(), _>>();
    let in_pieces = added.and_then(|()| reader.finish());
    assert_eq!(in_pieces.is_ok(), whole.is_ok());
    // Nobody's secret: the private maps are noise.
    let mut secrets = LedgerSecrets::default();
    secrets.insert(coco_kv::Seqno(0), LedgerSecret::new([0; 32]));
    let _ = SnapshotFile::read(bytes, StateWanted::Authentic(secrets.clone()));
    let mut reader = SnapshotReader::new(StateWanted::Whole(secrets));
    let _ = reader.add(bytes).and_then(|()| reader.finish());
});
