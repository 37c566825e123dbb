//! Conflicts: one plain case of each kind, long reads, and real threads.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicU64, Ordering};

use coco_kv::{
    Committed, Conflict, Key, MapName, Seqno, Snapshot, Store, Tx, TxId, Value, View, WriteSet,
};

fn commit(store: &Store, tx: Tx) -> Result<TxId, Conflict> {
    store.commit(tx, |_, _| ()).map(|committed| committed.tx_id())
}

fn put(store: &Store, map: &MapName, key: impl Into<Key>, value: impl Into<Value>) {
    let mut tx = store.begin();
    tx.put(map, key, value);
    commit(store, tx).expect("blind writes never conflict");
}

fn count(tx: &mut Tx, map: &MapName, start: Bound<&[u8]>, end: Bound<&[u8]>) -> usize {
    let mut count = 0;
    tx.range(map, (start, end), |_, _| {
        count += 1;
        ControlFlow::Continue(())
    });
    count
}

#[test]
fn a_read_key_that_changes_is_a_conflict_and_another_key_is_not() {
    let (store, map) = (Store::new(View(2)), MapName::new("records"));
    put(&store, &map, "a", "1");
    for (read, conflicts) in [("a", true), ("absent", true), ("b", false)] {
        let mut tx = store.begin();
        tx.get(&map, read.as_bytes());
        tx.put(&map, "result", read);
        put(&store, &map, "a", "2");
        let mut other = store.begin();
        match other.has(&map, b"absent") {
            true => other.remove(&map, "absent"),
            false => other.put(&map, "absent", "no more"),
        }
        commit(&store, other).expect("nobody interferes");
        let changed = Conflict::Changed { map: map.clone() };
        assert_eq!(commit(&store, tx).err(), conflicts.then_some(changed), "{read}");
    }
}

#[test]
fn a_removal_inside_a_range_is_a_conflict_and_one_outside_is_not() {
    // Short ranges are walked again, long ones compared by what changed: try both.
    for keys in [10u32, 1_000] {
        let (store, map) = (Store::new(View(2)), MapName::new("records"));
        for key in 0..keys {
            put(&store, &map, key.to_be_bytes(), "1");
        }
        let (first, last) = (1u32.to_be_bytes(), (keys - 2).to_be_bytes());
        for (removed, conflicts) in [(0, false), (keys - 1, false), (keys / 2, true), (1, true)] {
            let mut tx = store.begin();
            let walked = count(&mut tx, &map, Bound::Included(&first), Bound::Included(&last));
            assert!(walked >= keys as usize - 3);
            tx.put(&MapName::new("results"), "count", walked.to_string());
            let mut other = store.begin();
            other.remove(&map, removed.to_be_bytes());
            commit(&store, other).expect("a blind removal never conflicts");
            assert_eq!(commit(&store, tx).is_err(), conflicts, "{removed} of {keys}");
        }
    }
}

#[test]
fn many_reads_of_one_map_are_all_remembered() {
    let (store, map) = (Store::new(View(2)), MapName::new("records"));
    for key in 0..500u32 {
        put(&store, &map, key.to_be_bytes(), "1");
    }
    for changed in [0u32, 250, 499] {
        let (mut points, mut ranges) = (store.begin(), store.begin());
        for key in (0..500u32).chain(0..500) {
            points.get(&map, &key.to_be_bytes());
            let bytes = key.to_be_bytes();
            count(&mut ranges, &map, Bound::Included(&bytes), Bound::Included(&bytes));
        }
        points.put(&map, "points", "");
        ranges.put(&map, "ranges", "");
        put(&store, &map, changed.to_be_bytes(), "2");
        assert!(commit(&store, points).is_err(), "point {changed}");
        assert!(commit(&store, ranges).is_err(), "range {changed}");
    }
}

#[test]
fn snapshots_that_are_not_of_this_store_are_refused() {
    let (store, other) = (Store::new(View(2)), Store::new(View(2)));
    let map = MapName::new("records");
    let foreign = [
        (Snapshot::of_writes(TxId::default(), &WriteSet::new()), Conflict::Detached),
        (store.snapshot().with_writes(&WriteSet::new(), TxId::new(2, 1)), Conflict::Detached),
        (other.snapshot(), Conflict::RolledBack),
    ];
    for (snapshot, conflict) in foreign {
        let mut tx = Tx::on(snapshot);
        tx.put(&map, "key", "value");
        assert_eq!(commit(&store, tx), Err(conflict));
    }
    assert_eq!(store.head(), TxId::default());
}

#[test]
fn a_restored_store_continues_after_its_snapshot() {
    let (store, map) = (Store::new(View(2)), MapName::new("records"));
    put(&store, &map, "a", "1");
    let restored = Store::restore(store.snapshot(), View(4));
    assert_eq!((restored.head(), restored.view()), (TxId::new(2, 1), View(4)));
    put(&restored, &map, "b", "2");
    assert_eq!(restored.head(), TxId::new(4, 2));
    assert!(restored.rollback(Seqno(0), View(5)).is_err(), "a snapshot is final");
    assert_eq!(restored.rollback(Seqno(1), View(5)), Ok(()));
    assert_eq!(restored.head(), TxId::new(2, 1));
    assert_eq!(restored.begin().len(&map), 1);
}

/// Eight threads move money between accounts, one more adds it up in transactions of its own,
/// while batches are cut and compacted; the sinks see every position once and in order.
#[test]
fn a_store_that_is_reset_goes_on_after_the_snapshot() {
    let (ahead, map) = (Store::new(View(3)), MapName::new("records"));
    (0..5).for_each(|key: u8| put(&ahead, &map, [key], "1"));
    let store = Store::new(View(2));
    put(&store, &map, "a", "lost");
    let (mut before, read_before) = (store.begin(), store.snapshot());
    before.put(&map, "b", "lost too");
    store.reset(ahead.snapshot());
    assert_eq!((store.head(), store.view()), (TxId::new(3, 5), View(3)));
    assert_eq!(commit(&store, before), Err(Conflict::RolledBack));
    assert_eq!(read_before.map(&map).map(|map| map.len()), Some(1));
    assert_eq!(store.begin().len(&map), 5);
    assert!(store.rollback(Seqno(4), View(3)).is_err(), "a snapshot is final");
    put(&store, &map, "c", "2");
    assert_eq!(store.head(), TxId::new(3, 6));
    assert_eq!(store.rollback(Seqno(5), View(4)), Ok(()));
}

#[test]
fn concurrent_transfers_keep_the_sum() {
    const ACCOUNTS: u64 = 16;
    const TRANSFERS: u64 = 3_000;
    let (store, map) = (Store::new(View(2)), MapName::new("accounts"));
    let balance = |tx: &mut Tx, account: u64| {
        let value = tx.get(&map, &account.to_be_bytes()).expect("every account exists");
        u64::from_be_bytes(value.as_slice().try_into().expect("eight bytes"))
    };
    for account in 0..ACCOUNTS {
        put(&store, &map, account.to_be_bytes(), 1_000u64.to_be_bytes());
    }
    let last_sunk = AtomicU64::new(store.head().seqno.0);
    let sink = |tx_id: TxId| {
        assert_eq!(last_sunk.swap(tx_id.seqno.0, Ordering::SeqCst) + 1, tx_id.seqno.0);
    };
    let (moved, conflicts) = (AtomicU64::new(0), AtomicU64::new(0));
    let transfer = |from: u64, to: u64, amount: u64| {
        loop {
            let mut tx = store.begin();
            let (payer, payee) = (balance(&mut tx, from), balance(&mut tx, to));
            if from == to || payer < amount {
                return;
            }
            tx.put(&map, from.to_be_bytes(), (payer - amount).to_be_bytes());
            tx.put(&map, to.to_be_bytes(), (payee + amount).to_be_bytes());
            match store.commit(tx, |tx_id, _| sink(tx_id)) {
                Ok(Committed::Written(..)) => {
                    moved.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(Conflict::Changed { .. }) => conflicts.fetch_add(1, Ordering::Relaxed),
                other => panic!("{other:?}"),
            };
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let transfer = &transfer;
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..TRANSFERS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let pick = random >> 33;
                    transfer(pick % ACCOUNTS, (pick / ACCOUNTS) % ACCOUNTS, pick % 50);
                    if pick.is_multiple_of(4) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        scope.spawn(|| {
            for round in 0..300 {
                let mut tx = store.begin();
                let mut sum = 0;
                tx.for_each(&map, |_, value| {
                    sum += u64::from_be_bytes(value.as_slice().try_into().expect("eight bytes"));
                    ControlFlow::Continue(())
                });
                assert_eq!(sum, ACCOUNTS * 1_000);
                let signed = store.reserve(|tx_id, _| {
                    sink(tx_id);
                    tx_id
                });
                let mut writes = WriteSet::new();
                writes.put(&MapName::new("signatures"), "", format!("{round}"));
                store.fill(signed, &writes).expect("reserved just now");
                store.compact(signed.seqno);
            }
        });
    });
    let (moved, conflicts) = (moved.into_inner(), conflicts.into_inner());
    eprintln!("{moved} transfers, {conflicts} conflicts");
    assert_eq!(store.head().seqno.0, ACCOUNTS + moved + 300);
    let mut tx = store.begin();
    let sum: u64 = (0..ACCOUNTS).map(|account| balance(&mut tx, account)).sum();
    assert_eq!(sum, ACCOUNTS * 1_000);
}
