//! The cost of the store per transaction at 1 M keys of 16 B with 64 B values, beside a plain
//! `BTreeMap` doing the same reads and writes with no transactions at all.
//!
//! `cargo bench -p coco-kv`. Memory is the growth of the resident set while loading.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark is not enclave code"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::{Bound, ControlFlow};

use coco_kv::{Committed, MapName, Seqno, SnapshotBuilder, Store, TxId, View};
use criterion::{Criterion, criterion_group, criterion_main};

const KEYS: u64 = 1_000_000;
const BATCH: u64 = 1_000;

/// A fixed permutation of the numbers: keys are spread, and the same in every run.
fn spread(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&spread(number % KEYS).to_be_bytes());
    key[8..].copy_from_slice(&spread(number % KEYS + KEYS).to_be_bytes());
    key
}

fn value(number: u64) -> [u8; 64] {
    [number.to_le_bytes()[0]; 64]
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0) * 4096
}

fn loaded_store(map: &MapName) -> Store {
    let store = Store::new(View(2));
    for number in 0..KEYS {
        let mut tx = store.begin();
        tx.put(map, key(number), value(number));
        commit(&store, tx);
        if number.is_multiple_of(BATCH) {
            store.compact(store.head().seqno);
        }
    }
    store
}

fn commit(store: &Store, tx: coco_kv::Tx) {
    match store.commit(tx, |tx_id, writes| (tx_id, writes)) {
        Ok(Committed::Written(_, written)) => drop(black_box(written)),
        other => panic!("not written: {other:?}"),
    }
}

/// Signs and commits a batch now and then, as a node does: the window stays at 1 to 2 batches.
fn close_batch(store: &Store) {
    let signed = store.reserve(|tx_id, _| tx_id);
    assert!(store.fill(signed, &coco_kv::WriteSet::new()).is_ok());
    store.compact(Seqno(signed.seqno.0.saturating_sub(BATCH)));
}

fn transactions(criterion: &mut Criterion) {
    let map = MapName::new("records");
    let before = resident_bytes();
    let store = loaded_store(&map);
    let grown = resident_bytes().saturating_sub(before);
    println!("store: {} MB, {} bytes/entry", grown / 1_000_000, grown / KEYS as usize);
    let mut number = 0u64;
    let mut next = move || {
        number += 1;
        spread(number)
    };

    let mut group = criterion.benchmark_group("store");
    for puts in [1, 2] {
        group.bench_function(format!("1 get, {puts} puts, commit"), |bencher| {
            bencher.iter(|| {
                let mut tx = store.begin();
                black_box(tx.get(&map, &key(next())));
                for _ in 0..puts {
                    tx.put(&map, key(next()), value(next()));
                }
                commit(&store, tx);
                if store.head().seqno.0.is_multiple_of(BATCH) {
                    close_batch(&store);
                }
            })
        });
    }
    group.bench_function("1 get, 2 puts, commit, another transaction open", |bencher| {
        let mut open = store.begin();
        bencher.iter(|| {
            let mut tx = store.begin();
            black_box(tx.get(&map, &key(next())));
            tx.put(&map, key(next()), value(next()));
            tx.put(&map, key(next()), value(next()));
            open = store.begin();
            commit(&store, tx);
            if store.head().seqno.0.is_multiple_of(BATCH) {
                close_batch(&store);
            }
        });
        drop(open);
    });
    group.bench_function("begin, 1 get", |bencher| {
        bencher.iter(|| store.begin().get(&map, &key(next())))
    });
    group.bench_function("begin, range of 100", |bencher| {
        bencher.iter(|| {
            let (start, mut left) = (key(next()), 100);
            let bounds = (Bound::Included(start.as_slice()), Bound::Unbounded);
            store.begin().range(&map, bounds, |key, value| {
                black_box((key, value));
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        })
    });
    group.bench_function("snapshot", |bencher| bencher.iter(|| store.snapshot()));
    group.bench_function("rollback of 1,000 transactions of 2 puts", |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let boundary = store.head();
                    for _ in 0..1_000 {
                        let mut tx = store.begin();
                        tx.put(&map, key(next()), value(next()));
                        tx.put(&map, key(next()), value(next()));
                        commit(&store, tx);
                    }
                    let started = std::time::Instant::now();
                    assert!(store.rollback(boundary.seqno, View(2)).is_ok());
                    started.elapsed()
                })
                .sum()
        })
    });
    group.finish();
    drop(store);

    let mut tree: BTreeMap<_, _> = (0..KEYS).map(|number| (key(number), value(number))).collect();
    let mut group = criterion.benchmark_group("BTreeMap");
    group.bench_function("1 get, 2 puts", |bencher| {
        bencher.iter(|| {
            black_box(tree.get(&key(next())));
            tree.insert(key(next()), value(next()));
            tree.insert(key(next()), value(next()));
        })
    });
    group.bench_function("1 get", |bencher| bencher.iter(|| tree.get(&key(next())).copied()));
    group.finish();
}

/// Everything in the processor's cache: what the store itself computes.
fn small_store(criterion: &mut Criterion) {
    let (store, map) = (Store::new(View(2)), MapName::new("records"));
    let mut number = 0u64;
    criterion.bench_function("1 get, 1 put, commit of 1,000 keys", |bencher| {
        bencher.iter(|| {
            number += 1;
            let mut tx = store.begin();
            black_box(tx.get(&map, &key(number % 1_000)));
            tx.put(&map, key((number + 500) % 1_000), value(number));
            commit(&store, tx);
            if number.is_multiple_of(BATCH) {
                close_batch(&store);
            }
        })
    });
}

/// Keys too long for the tree's nodes, such as hashes.
fn long_keys(criterion: &mut Criterion) {
    let (store, map) = (Store::new(View(2)), MapName::new("records"));
    let long_key = |number: u64| [key(number), key(number + 1)].concat();
    for number in 0..KEYS / 10 {
        let mut tx = store.begin();
        tx.put(&map, long_key(number), value(number));
        commit(&store, tx);
    }
    close_batch(&store);
    let mut number = 0u64;
    criterion.bench_function("1 get, 1 put, commit of 100 k keys of 32 B", |bencher| {
        bencher.iter(|| {
            number += 1;
            let mut tx = store.begin();
            black_box(tx.get(&map, &long_key(spread(number) % (KEYS / 10))));
            tx.put(&map, long_key(spread(number + KEYS) % (KEYS / 10)), value(number));
            commit(&store, tx);
            if number.is_multiple_of(BATCH) {
                close_batch(&store);
            }
        })
    });
}

fn snapshot_files(criterion: &mut Criterion) {
    let map = MapName::new("records");
    criterion.bench_function("restore of 100 k entries", |bencher| {
        bencher.iter(|| {
            let mut builder = SnapshotBuilder::new(TxId::new(2, KEYS));
            for number in 0..KEYS / 10 {
                let inserted = builder.insert(&map, key(number), value(number), Seqno(1));
                assert_eq!(inserted, Ok(()));
            }
            builder.build()
        })
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = transactions, small_store, long_keys, snapshot_files
}
criterion_main!(benches);
