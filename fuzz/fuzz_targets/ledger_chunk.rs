//! A chunk file, complete or open, and the recovery of a torn one.
#![no_main]

use coco_kv::Seqno;
use coco_ledger::{ChunkName, ChunkReader, Entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let open = ChunkName::open(Seqno(1));
    if let Ok(reader) = ChunkReader::new(open, bytes) {
        for entry in reader.entries() {
            match entry {
                Ok(entry) => drop(Entry::parse(entry.bytes)),
                Err(_) => break,
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(name) = text.parse::<ChunkName>() {
            assert_eq!(name.to_string().parse::<ChunkName>().ok(), Some(name));
        }
    }
});
