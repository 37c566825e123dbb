//! What has changed since a past block: the records of what accounts and slots were before.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use alloy_primitives::{Address, U256};
use coco_kv::{MapName, Tx};

use crate::maps::{ACCOUNTS_WAS, STORAGE_WAS, at_block, slot_of};
use crate::record::Change;

/// The accounts and slots that were written after the end of `block`. None if there are more than
/// `most`, or if more than eight times as many were ever written: each is looked at.
pub(crate) fn changes_after(tx: &Tx, block: u64, most: usize) -> Option<Vec<Change>> {
    let (mut found, mut seen) = (0, 0);
    let mut count = |is_later: bool| {
        found += usize::from(is_later);
        seen += 1;
        let is_over = found > most || seen > most.saturating_mul(8);
        if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut slots_of: BTreeMap<Address, Vec<U256>> = BTreeMap::new();
    let mut walked =
        each_written(tx, &ACCOUNTS_WAS, [&[0; 20], &[0xff; 20]], block, |key, later| {
            if let (true, Ok(address)) = (later, Address::try_from(key)) {
                slots_of.entry(address).or_default();
            }
            count(later)
        });
    if walked.is_continue() {
        walked = each_written(tx, &STORAGE_WAS, [&[0; 52], &[0xff; 52]], block, |key, later| {
            if let (true, Some((address, slot))) = (later, slot_of(key)) {
                slots_of.entry(address).or_default().push(slot);
            }
            count(later)
        });
    }
    let changes = slots_of.into_iter().map(|(address, slots)| Change { address, slots });
    walked.is_continue().then(|| changes.collect())
}

/// Calls `visit` in order for the keys between two, both included, that have records in `was`, and
/// tells it whether there is one of after the end of `block`; until it breaks. However often a key
/// was written, it takes two searches at most; none of it enters the read set.
pub(crate) fn each_written(
    tx: &Tx,
    was: &MapName,
    [first, last]: [&[u8]; 2],
    block: u64,
    mut visit: impl FnMut(&[u8], bool) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let Some(records) = tx.snapshot().map(was) else { return ControlFlow::Continue(()) };
    let end = at_block(last, u64::MAX);
    let next = |from: &[u8]| {
        let bounds = (Bound::Included(from), Bound::Included(end.as_slice()));
        let (record, _) = records.range(bounds).next()?;
        let (key, at) = record.split_last_chunk()?;
        Some((key, u64::from_be_bytes(*at)))
    };
    let mut from = first.to_vec();
    while let Some((key, at)) = next(&from) {
        let after = at_block(key, block.saturating_add(1));
        let is_later = at > block || next(&after).is_some_and(|(later, _)| later == key);
        visit(key, is_later)?;
        // Behind all records of the key.
        from = at_block(key, u64::MAX);
        from.push(0);
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use coco_kv::{Store, View};
    use proptest::prelude::*;

    use super::*;
    use crate::maps::slot_key;

    fn with_writes(tx: &Tx) -> Tx {
        Tx::on(tx.snapshot().with_writes(tx.writes(), tx.read_tx_id()))
    }

    proptest! {
        #[test]
        fn keys_with_records_are_found_once_and_in_order(
            records in prop::collection::btree_set((0u8..6, 0u64..6), 0..20),
            block in 0u64..7,
            first in 0u8..6,
            last in 0u8..6,
        ) {
            let mut tx = Store::new(View(2)).begin();
            for (key, at) in &records {
                tx.put(&ACCOUNTS_WAS, at_block(&[*key], *at), []);
            }
            let (tx, mut found) = (with_writes(&tx), Vec::new());
            let _ = each_written(&tx, &ACCOUNTS_WAS, [&[first], &[last]], block, |key, later| {
                found.push((key.to_vec(), later));
                ControlFlow::Continue(())
            });
            let within = records.iter().filter(|(key, _)| (first..=last).contains(key));
            let mut expected: BTreeMap<_, bool> = BTreeMap::new();
            for (key, at) in within {
                *expected.entry(vec![*key]).or_default() |= *at > block;
            }
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn what_has_changed_since_a_block_is_found_unless_it_is_too_much(
            accounts in prop::collection::btree_set((0u8..4, 0u64..6), 0..20),
            slots in prop::collection::btree_set((0u8..4, 0u64..4, 0u64..6), 0..20),
            block in 0u64..7,
            most in 0usize..20,
        ) {
            let mut tx = Store::new(View(2)).begin();
            for (address, at) in &accounts {
                tx.put(&ACCOUNTS_WAS, at_block(&[*address; 20], *at), []);
            }
            for (address, slot, at) in &slots {
                let key = slot_key(Address::repeat_byte(*address), U256::from(*slot));
                tx.put(&STORAGE_WAS, at_block(&key, *at), []);
            }
            let accounts: BTreeSet<_> =
                accounts.iter().filter(|(_, at)| *at > block).map(|(address, _)| *address).collect();
            let slots: BTreeSet<_> =
                slots.iter().filter(|(.., at)| *at > block).map(|(a, slot, _)| (*a, *slot)).collect();
            let mut expected: BTreeMap<Address, Vec<U256>> = BTreeMap::new();
            for address in &accounts {
                expected.entry(Address::repeat_byte(*address)).or_default();
            }
            for (address, slot) in &slots {
                let slots = expected.entry(Address::repeat_byte(*address)).or_default();
                slots.push(U256::from(*slot));
            }
            let found = changes_after(&with_writes(&tx), block, most);
            if accounts.len() + slots.len() > most {
                prop_assert_eq!(found, None);
            } else if let Some(found) = found {
                let found = found.into_iter().map(|change| (change.address, change.slots));
                prop_assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
            } else {
                prop_assert!(most < 8, "there are 20 keys at most");
            }
        }
    }
}
