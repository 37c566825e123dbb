//! What has changed since a past block: the records of what accounts and slots were before.

use std::ops::{Bound, ControlFlow};

use coco_kv::{MapName, Tx};

use crate::maps::at_block;

/// Calls `visit` in order for the keys between two, both included, that were written after the end
/// of `block`, until it breaks. `was` is the map of their records. However often a key was written,
/// it takes two searches at most; none of it enters the read set.
pub(crate) fn changed_after(
    tx: &Tx,
    was: &MapName,
    (first, last): (&[u8], &[u8]),
    block: u64,
    mut visit: impl FnMut(&[u8]) -> ControlFlow<()>,
) {
    let (Some(records), Some(next)) = (tx.snapshot().map(was), block.checked_add(1)) else {
        return;
    };
    let (mut from, end) = (first.to_vec(), at_block(last, u64::MAX));
    loop {
        let bounds = (Bound::Included(from.as_slice()), Bound::Included(end.as_slice()));
        let found = records.range(bounds).next();
        let Some((key, at)) = found.and_then(|(record, _)| record.split_last_chunk()) else {
            return;
        };
        from = if u64::from_be_bytes(*at) <= block {
            at_block(key, next)
        } else if visit(key).is_continue() {
            after_all(key)
        } else {
            return;
        };
    }
}

/// Where the records of the keys after this one begin.
fn after_all(key: &[u8]) -> Vec<u8> {
    let mut bound = at_block(key, u64::MAX);
    bound.push(0);
    bound
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use coco_kv::{Store, View};
    use proptest::prelude::*;

    use super::*;
    use crate::maps::ACCOUNTS_WAS;

    proptest! {
        #[test]
        fn keys_with_a_later_record_are_found_once_and_in_order(
            records in prop::collection::btree_set((0u8..6, 0u64..6), 0..20),
            block in 0u64..7,
            first in 0u8..6,
            last in 0u8..6,
        ) {
            let mut tx = Store::new(View(2)).begin();
            for (key, at) in &records {
                tx.put(&ACCOUNTS_WAS, at_block(&[*key], *at), []);
            }
            let tx = Tx::on(tx.snapshot().with_writes(tx.writes(), tx.read_tx_id()));
            let mut found = Vec::new();
            changed_after(&tx, &ACCOUNTS_WAS, (&[first], &[last]), block, |key| {
                found.push(key.to_vec());
                ControlFlow::Continue(())
            });
            let expected: BTreeSet<_> = records
                .iter()
                .filter(|(key, at)| (first..=last).contains(key) && *at > block)
                .map(|(key, _)| vec![*key])
                .collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
