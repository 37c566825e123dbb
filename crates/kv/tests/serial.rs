//! Random interleavings of open transactions, reservations, replay, rollback and compaction, against
//! a model that is nothing but the list of what was written, replayed from the start each time.

#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeBounds};

use coco_kv::{
    Committed, Conflict, MapName, NoSuchBoundary, NotReserved, OutOfOrder, Seqno, Snapshot, Store,
    Tx, TxId, View, WriteSet,
};
use proptest::prelude::*;

type Place = (u8, Vec<u8>);
type Writes = BTreeMap<Place, Option<Vec<u8>>>;
type State = BTreeMap<Place, (Seqno, Vec<u8>)>;

#[derive(Clone, Debug)]
enum Read {
    Get(Place),
    Has(Place),
    Version(Place),
    Len(u8),
    Range(u8, Bound<Vec<u8>>, Bound<Vec<u8>>, usize),
    All(u8),
}

/// What a read gives: its answer, and the versions it rests on.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    answer: Vec<(Vec<u8>, Vec<u8>)>,
    versions: Vec<(Vec<u8>, Option<Seqno>)>,
}

impl Read {
    /// The read on a state, overlaid with a transaction's own writes.
    fn on(&self, state: &State, own: &Writes) -> Seen {
        let mut overlaid: BTreeMap<Place, Vec<u8>> =
            state.iter().map(|(place, (_, value))| (place.clone(), value.clone())).collect();
        for (place, value) in own {
            match value {
                Some(value) => drop(overlaid.insert(place.clone(), value.clone())),
                None => drop(overlaid.remove(place)),
            }
        }
        let version = |place: &Place| state.get(place).map(|(version, _)| *version);
        let of_one = |place: &Place, answer: Option<Vec<u8>>| Seen {
            answer: answer.map(|answer| (place.1.clone(), answer)).into_iter().collect(),
            versions: vec![(place.1.clone(), version(place))],
        };
        let of_many = |map: u8, bounds: (Bound<&[u8]>, Bound<&[u8]>), limit: usize| {
            let entries: Vec<_> = overlaid
                .iter()
                .filter(|((other, key), _)| *other == map && bounds.contains(key.as_slice()))
                .take(limit)
                .collect();
            Seen {
                versions: entries.iter().map(|(p, _)| (p.1.clone(), version(p))).collect(),
                answer: entries.iter().map(|(p, value)| (p.1.clone(), (*value).clone())).collect(),
            }
        };
        match self {
            Read::Get(place) => of_one(place, overlaid.get(place).cloned()),
            Read::Has(place) => of_one(place, overlaid.contains_key(place).then(Vec::new)),
            Read::Version(place) => of_one(place, version(place).map(as_bytes)),
            Read::Len(map) => {
                let len = overlaid.keys().filter(|(other, _)| other == map).count();
                Seen { answer: vec![(vec![], as_bytes(Seqno(len as u64)))], versions: vec![] }
            }
            Read::Range(map, start, end, limit) => {
                of_many(*map, (borrowed(start), borrowed(end)), *limit)
            }
            Read::All(map) => of_many(*map, (Bound::Unbounded, Bound::Unbounded), usize::MAX),
        }
    }

    /// The read's answer from the real thing.
    fn from(&self, tx: &mut Tx) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        match self {
            Read::Get((map, key)) => {
                found.extend(tx.get(&name(*map), key).map(|v| (key.clone(), v.to_vec())));
            }
            Read::Has((map, key)) => {
                found.extend(tx.has(&name(*map), key).then(|| (key.clone(), vec![])));
            }
            Read::Version((map, key)) => {
                let version = tx.version_of_previous_write(&name(*map), key);
                found.extend(version.map(|version| (key.clone(), as_bytes(version))));
            }
            Read::Len(map) => {
                found.push((vec![], as_bytes(Seqno(tx.len(&name(*map)) as u64))));
            }
            Read::Range(map, start, end, limit) => {
                tx.range(&name(*map), (borrowed(start), borrowed(end)), |key, value| {
                    found.push((key.to_vec(), value.to_vec()));
                    match found.len() < *limit {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(()),
                    }
                });
            }
            Read::All(map) => tx.for_each(&name(*map), |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            }),
        }
        found
    }
}

fn as_bytes(seqno: Seqno) -> Vec<u8> {
    seqno.0.to_be_bytes().to_vec()
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn name(map: u8) -> MapName {
    MapName::new(["public:a", "b", "c"][usize::from(map)])
}

fn write_set(writes: &Writes) -> WriteSet {
    let mut set = WriteSet::new();
    for ((map, key), value) in writes {
        match value {
            Some(value) => set.put(&name(*map), key.as_slice(), value.as_slice()),
            None => set.remove(&name(*map), key.as_slice()),
        }
    }
    set
}

#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    Read(usize, Read),
    Put(usize, Place, Vec<u8>),
    Remove(usize, Place),
    Clear(usize, u8),
    DiscardWrites(usize),
    Commit(usize),
    Reserve,
    Fill(usize, Writes),
    Apply(Writes, u64),
    Rollback(u64, u64),
    Compact(u64),
    Hold,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(0u8..5, 1),
        1 => prop::collection::vec(0u8..3, 0..3),
        1 => (0u8..2).prop_map(|tail| [vec![1; 25], vec![tail]].concat()),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    (0u8..3, key())
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![5 => prop::collection::vec(any::<u8>(), 1..3), 1 => Just(vec![9; 80])]
}

fn writes() -> impl Strategy<Value = Writes> {
    prop::collection::btree_map(place(), prop::option::weighted(0.8, value()), 0..4)
}

fn read() -> impl Strategy<Value = Read> {
    let bound = || {
        prop_oneof![
            Just(Bound::Unbounded),
            key().prop_map(Bound::Included),
            key().prop_map(Bound::Excluded)
        ]
    };
    prop_oneof![
        4 => place().prop_map(Read::Get),
        1 => place().prop_map(Read::Has),
        1 => place().prop_map(Read::Version),
        1 => (0u8..3).prop_map(Read::Len),
        2 => (0u8..3, bound(), bound(), 1usize..6)
            .prop_map(|(map, start, end, limit)| Read::Range(map, start, end, limit)),
        1 => (0u8..3).prop_map(Read::All),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let open = || 0usize..4;
    prop_oneof![
        4 => open().prop_map(Step::Begin),
        8 => (open(), read()).prop_map(|(tx, read)| Step::Read(tx, read)),
        6 => (open(), place(), value()).prop_map(|(tx, place, v)| Step::Put(tx, place, v)),
        3 => (open(), place()).prop_map(|(tx, place)| Step::Remove(tx, place)),
        1 => (open(), 0u8..3).prop_map(|(tx, map)| Step::Clear(tx, map)),
        1 => open().prop_map(Step::DiscardWrites),
        7 => open().prop_map(Step::Commit),
        2 => Just(Step::Reserve),
        2 => (0usize..3, writes()).prop_map(|(at, writes)| Step::Fill(at, writes)),
        2 => (writes(), 0u64..2).prop_map(|(writes, views)| Step::Apply(writes, views)),
        1 => (0u64..6, 0u64..3).prop_map(|(back, views)| Step::Rollback(back, views)),
        1 => (0u64..6).prop_map(Step::Compact),
        1 => Just(Step::Hold),
    ]
}

/// An open transaction and what the model knows of it.
struct Open {
    tx: Tx,
    base: State,
    own: Writes,
    // With the own writes at that time.
    reads: Vec<(Read, Writes)>,
    rolled_back: bool,
}

/// The store, and the model: position `n` of the order is `log[n - 1]`.
struct World {
    store: Store,
    log: Vec<(TxId, Writes)>,
    view: View,
    committed: usize,
    reserved: Vec<TxId>,
    held: Vec<(Snapshot, State)>,
}

impl World {
    fn new() -> Self {
        let (store, view) = (Store::new(View(2)), View(2));
        Self { store, log: vec![], view, committed: 0, reserved: vec![], held: vec![] }
    }

    fn state(&self) -> State {
        let mut state = State::new();
        for (tx_id, writes) in &self.log {
            for (place, value) in writes {
                match value {
                    Some(value) => drop(state.insert(place.clone(), (tx_id.seqno, value.clone()))),
                    None => drop(state.remove(place)),
                }
            }
        }
        state
    }

    fn head(&self) -> TxId {
        self.log.last().map_or(TxId::default(), |(tx_id, _)| *tx_id)
    }

    fn next(&self) -> TxId {
        TxId { view: self.view, seqno: self.head().seqno.next() }
    }

    fn begin(&self) -> Open {
        let (tx, base) = (self.store.begin(), self.state());
        assert_eq!(tx.read_tx_id(), self.head());
        Open { tx, base, own: Writes::new(), reads: vec![], rolled_back: false }
    }

    fn commit(&mut self, open: Open) {
        let Open { tx, base, own, reads, rolled_back } = open;
        let (read_at, before, expected) = (tx.read_tx_id(), self.state(), self.next());
        let result = self.store.commit(tx, |tx_id, writes| (tx_id, writes));
        if own.is_empty() {
            assert_eq!(result, Ok(Committed::ReadOnly(read_at)));
            return;
        }
        let reads_the_same = reads.iter().all(|(read, own)| {
            let (then, now) = (read.on(&base, own), read.on(&before, own));
            then.answer == now.answer && then.versions == now.versions
        });
        match result {
            Ok(Committed::Written(tx_id, sunk)) => {
                assert!(!rolled_back, "committed after a rollback");
                assert_eq!((tx_id, &sunk), (expected, &(expected, write_set(&own))));
                for (read, own) in &reads {
                    let (then, now) = (read.on(&base, own), read.on(&before, own));
                    assert_eq!(then.answer, now.answer, "{read:?} is not explained");
                }
                self.log.push((tx_id, own));
            }
            Err(Conflict::RolledBack) => assert!(rolled_back),
            Err(Conflict::Changed { .. }) => {
                let exact = reads.iter().all(|(_, own)| own.is_empty());
                assert!(!(exact && reads_the_same), "a conflict over nothing: {reads:?}");
            }
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self, step: Step, open: &mut [Option<Open>; 4]) {
        match step {
            Step::Begin(tx) => open[tx] = Some(self.begin()),
            Step::Read(tx, read) => {
                let Some(open) = &mut open[tx] else { return };
                let expected = read.on(&open.base, &open.own).answer;
                assert_eq!(read.from(&mut open.tx), expected, "{read:?}");
                open.reads.push((read, open.own.clone()));
            }
            Step::Put(tx, place, value) => {
                let Some(open) = &mut open[tx] else { return };
                open.tx.put(&name(place.0), place.1.as_slice(), value.as_slice());
                open.own.insert(place, Some(value));
            }
            Step::Remove(tx, place) => {
                let Some(open) = &mut open[tx] else { return };
                open.tx.remove(&name(place.0), place.1.as_slice());
                open.own.insert(place, None);
            }
            Step::Clear(tx, map) => {
                let Some(open) = &mut open[tx] else { return };
                open.tx.clear(&name(map));
                open.reads.push((Read::All(map), Writes::new()));
                open.own.retain(|place, _| place.0 != map);
                let stored = open.base.keys().filter(|place| place.0 == map);
                open.own.extend(stored.map(|place| (place.clone(), None)));
            }
            Step::DiscardWrites(tx) => {
                let Some(open) = &mut open[tx] else { return };
                open.tx.discard_writes();
                open.own.clear();
            }
            Step::Commit(tx) => {
                let Some(open) = open[tx].take() else { return };
                assert_eq!(open.tx.has_writes(), !open.own.is_empty());
                self.commit(open);
            }
            Step::Reserve => {
                let (before, state, next) = (self.head(), self.state(), self.next());
                self.store.reserve(|tx_id, snapshot| {
                    assert_eq!((tx_id, snapshot.tx_id()), (next, before));
                    assert_same(&snapshot, &state);
                });
                self.log.push((next, Writes::new()));
                self.reserved.push(next);
            }
            Step::Fill(at, writes) => {
                if at >= self.reserved.len() {
                    let never = TxId { view: View(1), seqno: self.head().seqno };
                    let refused = self.store.fill(never, &write_set(&writes));
                    assert_eq!(refused, Err(NotReserved(never)));
                    return;
                }
                let tx_id = self.reserved.remove(at);
                assert_eq!(self.store.fill(tx_id, &write_set(&writes)), Ok(()));
                self.log[tx_id.seqno.0 as usize - 1].1 = writes;
            }
            Step::Apply(writes, views) => {
                let head = self.head();
                let skipping = TxId { view: self.view, seqno: head.seqno.next().next() };
                let refused = Err(OutOfOrder { given: skipping, head });
                assert_eq!(self.store.apply(skipping, &write_set(&writes)), refused);
                self.view.0 += views;
                let tx_id = self.next();
                assert_eq!(self.store.apply(tx_id, &write_set(&writes)), Ok(()));
                self.log.push((tx_id, writes));
            }
            Step::Rollback(back, views) => self.roll_back(back, views, open),
            Step::Compact(back) => {
                let filled = self.reserved.iter().map(|tx_id| tx_id.seqno.0 - 1).min();
                let to = self.head().seqno.0.saturating_sub(back).min(filled.unwrap_or(u64::MAX));
                self.store.compact(Seqno(to));
                self.committed = self.committed.max(to as usize);
            }
            Step::Hold => self.held.push((self.store.snapshot(), self.state())),
        }
    }

    fn roll_back(&mut self, back: u64, views: u64, open: &mut [Option<Open>; 4]) {
        let head = self.head().seqno;
        let to = head.0.saturating_sub(back);
        let view = View(self.view.0 + views);
        let result = self.store.rollback(Seqno(to), view);
        if (to as usize) < self.committed {
            let committed = Seqno(self.committed as u64);
            assert_eq!(result, Err(NoSuchBoundary { to: Seqno(to), committed, head }));
            return;
        }
        assert_eq!(result, Ok(()));
        self.view = view;
        self.log.truncate(to as usize);
        self.reserved.retain(|tx_id| tx_id.seqno.0 <= to);
        open.iter_mut().flatten().for_each(|open| open.rolled_back = true);
    }

    fn check(&self) {
        assert_eq!((self.store.head(), self.store.view()), (self.head(), self.view));
        assert_same(&self.store.snapshot(), &self.state());
        for (snapshot, state) in &self.held {
            assert_same(snapshot, state);
        }
    }
}

fn assert_same(snapshot: &Snapshot, state: &State) {
    let mut found = State::new();
    for (map, entries) in snapshot.maps() {
        let map = (0u8..3).find(|number| name(*number) == *map).expect("one of ours");
        for (key, entry) in entries.iter() {
            found.insert((map, key.to_vec()), (entry.version, entry.value.to_vec()));
        }
    }
    assert_eq!(&found, state);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn every_history_is_serial(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        let mut open = [None, None, None, None];
        for step in steps {
            world.step(step, &mut open);
            world.check();
        }
    }
}
