//! What a snapshot of a large state costs: `cargo bench -p coco-ledger --bench snapshot`. With as
//! many keys as `COCO_KEYS` says, or a million. The baseline is SHA-256 over as many bytes.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "this is the host's side")]

use std::hint::black_box;

use coco_crypto::{Digest, sha256};
use coco_kv::{MapName, Seqno, Snapshot, SnapshotBuilder, TxId};
use coco_ledger::{LedgerSecret, LedgerSecrets, SnapshotFile, ViewHistory, encode_snapshot};
use criterion::{Criterion, criterion_group, criterion_main};

fn state(keys: u64) -> Snapshot {
    let mut builder = SnapshotBuilder::new(TxId::new(2, keys));
    let map = MapName::new("records");
    for key in 1..=keys {
        builder.insert(&map, format!("account-{key:08}").as_str(), [7; 64], Seqno(key)).unwrap();
    }
    builder.build().unwrap()
}

fn snapshot(c: &mut Criterion) {
    let keys = std::env::var("COCO_KEYS").ok().and_then(|keys| keys.parse().ok());
    let keys = keys.unwrap_or(1_000_000);
    let state = state(keys);
    let views = ViewHistory::from_starts(vec![Seqno(1); 2]).unwrap();
    let secret = LedgerSecret::new([7; 32]);
    let mut secrets = LedgerSecrets::new();
    secrets.insert(Seqno(1), LedgerSecret::new([7; 32]));
    let encode = || encode_snapshot(state.clone(), Digest::ZERO, &views, &secret).unwrap();
    let bytes = encode();
    let name = format!("snapshot of {keys} keys, {} MB", bytes.len() >> 20);
    let mut group = c.benchmark_group(name);
    group.sample_size(10);
    group.bench_function("SHA-256 alone", |b| b.iter(|| sha256(black_box(&bytes))));
    group.bench_function("encode", |b| b.iter(encode));
    group.bench_function("decode", |b| {
        b.iter(|| SnapshotFile::parse(black_box(&bytes)).unwrap().state(&secrets).unwrap())
    });
    group.finish();
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
