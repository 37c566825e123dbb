//! What a transaction costs on its way to the ledger: encoding, encrypting, hashing, the tree.
//! The baseline is SHA-256 over as many bytes as the entry has.

use std::hint::black_box;

use coco_crypto::{Digest, sha256};
use coco_kv::{MapName, TxId, WriteSet};
use coco_ledger::{EntryFlags, LedgerSecret, MerkleTree, encode_entry};
use criterion::{Criterion, criterion_group, criterion_main};

fn small_write() -> WriteSet {
    let mut writes = WriteSet::new();
    writes.put(&MapName::new("records"), "account-1234567", [7; 64]);
    writes
}

fn encode(c: &mut Criterion) {
    let (writes, secret) = (small_write(), LedgerSecret::new([7; 32]));
    let entry =
        |seqno| encode_entry(TxId::new(2, seqno), &writes, Digest::ZERO, &secret, EntryFlags::NONE);
    let bytes = entry(1).map(|entry| entry.bytes).unwrap_or_default();
    let mut group = c.benchmark_group(format!("entry of {} bytes", bytes.len()));
    group.bench_function("SHA-256 alone", |b| b.iter(|| sha256(black_box(&bytes))));
    group.bench_function("commit evidence", |b| {
        b.iter(|| secret.commit_evidence(black_box(TxId::new(2, 123_456))).digest())
    });
    let mut seqno = 0;
    group.bench_function("encode", |b| {
        b.iter(|| {
            seqno += 1;
            entry(seqno)
        })
    });
    let mut tree = MerkleTree::new();
    group.bench_function("encode and append", |b| {
        b.iter(|| {
            if let Ok(entry) = entry(tree.len()) {
                tree.append(entry.leaf);
            }
            if tree.len().is_multiple_of(4_096) {
                tree.flush_to(tree.len() - 1_024);
            }
        })
    });
    group.finish();
}

fn tree(c: &mut Criterion) {
    let mut tree = MerkleTree::new();
    (1..1_000_000_u64).for_each(|leaf| tree.append(Digest([leaf as u8; 32])));
    let mut group = c.benchmark_group("tree of a million leaves");
    group.bench_function("root", |b| b.iter(|| tree.root()));
    group.bench_function("path", |b| b.iter(|| tree.path(black_box(777_777), tree.len())));
    group.bench_function("serialise 1,000 leaves", |b| b.iter(|| tree.serialise(999_000)));
    group.finish();
}

criterion_group!(benches, encode, tree);
criterion_main!(benches);
