//! What a snapshot of a large state costs: `cargo bench -p coco-ledger --bench snapshot`. With as
//! many keys as `COCO_KEYS` says, or a million. The baseline is SHA-256 over as many bytes.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "this is the host's side")]

use std::hint::black_box;

use coco_crypto::{Digest, Sha256};
use coco_kv::{MapName, Seqno, Snapshot, SnapshotBuilder, TxId};
use coco_ledger::{
    LedgerSecret, LedgerSecrets, SnapshotEncoder, SnapshotReader, StateWanted, ViewHistory,
};
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
    let encode = |take: &mut dyn FnMut(Vec<u8>)| {
        let mut encoder = SnapshotEncoder::new(state.clone(), Digest::ZERO, &views, &secret);
        while let Some(piece) = encoder.piece().unwrap() {
            take(piece);
        }
        encoder.front()
    };
    let mut pieces = vec![Vec::new()];
    let front = encode(&mut |piece| pieces.push(piece));
    pieces.iter_mut().take(1).for_each(|first| first.clone_from(&front));
    let len_bytes: usize = pieces.iter().map(Vec::len).sum();
    let name = format!("snapshot of {keys} keys, {} MB", len_bytes >> 20);
    let digest = |pieces: &mut dyn Iterator<Item = &Vec<u8>>| {
        let mut hasher = Sha256::new();
        pieces.for_each(|piece| hasher.update(piece));
        hasher.finish()
    };
    let mut group = c.benchmark_group(name);
    group.sample_size(10);
    group.bench_function("SHA-256 alone", |b| b.iter(|| digest(&mut pieces.iter())));
    group.bench_function("encode", |b| {
        b.iter(|| encode(&mut |piece| drop(black_box(piece))));
    });
    group.bench_function("decode", |b| {
        b.iter(|| {
            let authentic = StateWanted::Authentic(secrets.clone());
            [authentic, StateWanted::Whole(secrets.clone())].map(|wanted| {
                let mut reader = SnapshotReader::new(wanted);
                pieces.iter().for_each(|piece| reader.add(black_box(piece)).unwrap());
                reader.finish().unwrap()
            })
        })
    });
    group.finish();
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
