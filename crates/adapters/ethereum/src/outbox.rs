//! Transactions that clients have sent to a node and that are in no committed block yet.
//!
//! A backup hands them to the primary, and what a primary has executed may be taken back before it
//! is committed. The node whose client was told a hash remembers the transaction. Once something of
//! a later view is committed, whatever of an earlier view is in no block by then is sent again. To
//! send twice does no harm: a nonce is used once. All of it is in memory and bounded; what has no
//! place any more, or waits too long, is forgotten, as by any Ethereum node.

use std::collections::{BTreeMap, HashMap};

use alloy_primitives::{B256, Bytes};
use coco_kv::{TxId, View};
use parking_lot::Mutex;

/// The transactions, in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Outbox {
    sent: Mutex<Sent>,
}

/// Where the primary has a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Executed, as this transaction of the ledger.
    Executed(TxId),
    /// Not executed yet by the primary of this view, or of a later one.
    Waiting(View),
}

impl Place {
    fn view(self) -> View {
        match self {
            Self::Executed(tx_id) => tx_id.view,
            Self::Waiting(view) => view,
        }
    }
}

#[derive(Debug)]
struct Entry {
    hash: B256,
    raw: Bytes,
    place: Place,
    since_ms: u64,
}

#[derive(Debug, Default)]
struct Sent {
    by_arrival: BTreeMap<u64, Entry>,
    arrivals: HashMap<B256, u64>,
    next: u64,
    bytes: usize,
    /// None is of an earlier view.
    lowest: View,
}

impl Outbox {
    /// How many are remembered at most.
    pub const LIMIT: usize = 16_384;
    /// How many bytes of envelopes.
    pub const LIMIT_BYTES: usize = 64 * 1024 * 1024;
    /// How long one is remembered at most.
    pub const EXPIRY_MS: u64 = 10 * 60 * 1000;

    /// Remembers a transaction, or where it is now.
    pub fn add(&self, hash: B256, raw: Bytes, place: Place, now_ms: u64) {
        self.sent.lock().add(hash, raw, place, now_ms);
    }

    /// Where the primary has a transaction.
    pub fn place(&self, hash: &B256) -> Option<Place> {
        let sent = self.sent.lock();
        Some(sent.by_arrival.get(sent.arrivals.get(hash)?)?.place)
    }

    /// Forgets what is in a committed block.
    pub fn included(&self, hashes: &[B256]) {
        let mut sent = self.sent.lock();
        for hash in hashes {
            sent.remove(hash);
        }
    }

    /// Those that are of earlier views than this one, of which something is committed: in no block
    /// by now, they will not be by what was done with them then. They wait in this view from now on.
    pub fn overtaken(&self, view: View, now_ms: u64) -> Vec<Bytes> {
        let mut sent = self.sent.lock();
        sent.shorten(now_ms);
        if sent.by_arrival.is_empty() || sent.lowest >= view {
            return Vec::new();
        }
        sent.lowest = view;
        let earlier = sent.by_arrival.values_mut().filter(|entry| entry.place.view() < view);
        let again = earlier.map(|entry| {
            entry.place = Place::Waiting(view);
            entry.raw.clone()
        });
        again.collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sent.lock().by_arrival.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Sent {
    fn add(&mut self, hash: B256, raw: Bytes, place: Place, now_ms: u64) {
        let is_only = self.by_arrival.is_empty();
        self.lowest = if is_only { place.view() } else { self.lowest.min(place.view()) };
        let known = self.arrivals.get(&hash).and_then(|at| self.by_arrival.get_mut(at));
        if let Some(entry) = known {
            entry.place = place;
            return;
        }
        self.bytes = self.bytes.saturating_add(raw.len());
        self.arrivals.insert(hash, self.next);
        self.by_arrival.insert(self.next, Entry { hash, raw, place, since_ms: now_ms });
        self.next += 1;
        self.shorten(now_ms);
    }

    /// Keeps to the limits.
    fn shorten(&mut self, now_ms: u64) {
        while let Some((_, first)) = self.by_arrival.first_key_value()
            && (self.by_arrival.len() > Outbox::LIMIT
                || self.bytes > Outbox::LIMIT_BYTES
                || now_ms.saturating_sub(first.since_ms) >= Outbox::EXPIRY_MS)
        {
            let oldest = first.hash;
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, hash: &B256) {
        let arrival = self.arrivals.remove(hash);
        let removed = arrival.and_then(|arrival| self.by_arrival.remove(&arrival));
        self.bytes -= removed.map_or(0, |entry| entry.raw.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(number: u8) -> B256 {
        B256::repeat_byte(number)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add { number: u8, view: u64, executed: bool },
        Included(Vec<u8>),
        Committed { view: u64 },
        Pass { seconds: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..12_u8, 2..6_u64, any::<bool>())
                .prop_map(|(number, view, executed)| Step::Add { number, view, executed }),
            2 => prop::collection::vec(0..12_u8, 0..4).prop_map(Step::Included),
            2 => (2..7_u64).prop_map(|view| Step::Committed { view }),
            1 => (0..400_u64).prop_map(|seconds| Step::Pass { seconds }),
        ]
    }

    proptest! {
        /// The model: a list of (number, place, since).
        #[test]
        fn an_outbox_behaves_like_a_list(steps in prop::collection::vec(step(), 0..100)) {
            let outbox = Outbox::default();
            let mut model: Vec<(u8, Place, u64)> = Vec::new();
            let mut now_ms = 0;
            for step in steps {
                match step {
                    Step::Add { number, view, executed } => {
                        let place = match executed {
                            true => Place::Executed(TxId::new(view, 7)),
                            false => Place::Waiting(View(view)),
                        };
                        outbox.add(hash(number), vec![number].into(), place, now_ms);
                        match model.iter_mut().find(|(known, ..)| *known == number) {
                            Some(known) => known.1 = place,
                            None => {
                                model.push((number, place, now_ms));
                                let late = |since: u64| now_ms - since >= Outbox::EXPIRY_MS;
                                model.retain(|(.., since)| !late(*since));
                            }
                        }
                    }
                    Step::Included(numbers) => {
                        let hashes: Vec<_> = numbers.iter().copied().map(hash).collect();
                        outbox.included(&hashes);
                        model.retain(|(number, ..)| !numbers.contains(number));
                    }
                    Step::Committed { view } => {
                        let late = |since: u64| now_ms - since >= Outbox::EXPIRY_MS;
                        model.retain(|(.., since)| !late(*since));
                        let mut expected = Vec::new();
                        for (number, place, _) in &mut model {
                            if place.view() < View(view) {
                                *place = Place::Waiting(View(view));
                                expected.push(Bytes::from(vec![*number]));
                            }
                        }
                        prop_assert_eq!(outbox.overtaken(View(view), now_ms), expected);
                    }
                    Step::Pass { seconds } => now_ms += seconds * 1000,
                }
                prop_assert_eq!(outbox.len(), model.len());
                for number in 0..12 {
                    let expected = model.iter().find(|(known, ..)| *known == number);
                    prop_assert_eq!(outbox.place(&hash(number)), expected.map(|it| it.1));
                }
            }
        }
    }

    #[test]
    fn an_outbox_has_bounds() {
        let outbox = Outbox::default();
        let place = Place::Waiting(View(2));
        for number in 0..=Outbox::LIMIT {
            let hash = B256::from(alloy_primitives::U256::from(number));
            outbox.add(hash, vec![1].into(), place, 0);
        }
        assert_eq!(outbox.len(), Outbox::LIMIT);
        assert_eq!(outbox.place(&B256::ZERO), None, "the oldest goes first");
        outbox.add(B256::repeat_byte(1), vec![1; Outbox::LIMIT_BYTES].into(), place, 0);
        assert_eq!(outbox.len(), 1);
    }
}
