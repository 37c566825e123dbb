use coco_kv::TxId;
use proptest::prelude::*;

use super::*;
use crate::entry::Entry;
use crate::history::ViewHistory;
use crate::secret::{LedgerSecret, LedgerSecrets};
use crate::testing::recorded;
use coco_crypto::{Certificate, sha256};
use coco_kv::{Snapshot, SnapshotBuilder};

type Listed = Vec<(String, Vec<u8>, Vec<u8>, Seqno)>;

fn listed(state: &Snapshot) -> Listed {
    let entries = state.maps().flat_map(|(name, map)| {
        map.iter().map(move |(key, entry)| {
            (name.to_string(), key.to_vec(), entry.value.to_vec(), entry.version)
        })
    });
    entries.collect()
}

fn secrets() -> LedgerSecrets {
    let mut secrets = LedgerSecrets::new();
    secrets.insert(Seqno(1), LedgerSecret::new([9; 32]));
    secrets
}

fn views() -> ViewHistory {
    ViewHistory::from_starts(vec![Seqno(1), Seqno(1)]).unwrap()
}

fn small() -> Vec<u8> {
    let mut builder = SnapshotBuilder::new(TxId::new(2, 40));
    builder.insert(&MapName::new("public:a"), "key", "value", Seqno(7)).unwrap();
    builder.insert(&MapName::new("b"), "12345678", "", Seqno(40)).unwrap();
    encoded(builder.build().unwrap())
}

fn encoded(state: Snapshot) -> Vec<u8> {
    let secret = LedgerSecret::new([9; 32]);
    written(SnapshotEncoder::new(state, sha256(b"leaf"), &views(), &secret))
}

fn written(mut encoder: SnapshotEncoder) -> Vec<u8> {
    let mut file = vec![0; encoder.front_bytes() as usize];
    while let Some(piece) = encoder.piece().unwrap() {
        file.extend(piece);
    }
    let front = encoder.front();
    let room = file.split_at_mut(front.len()).0;
    room.copy_from_slice(&front);
    file
}

fn whole() -> StateWanted {
    StateWanted::Whole(secrets())
}

fn read_in_pieces(
    bytes: &[u8],
    piece_bytes: usize,
    wanted: StateWanted,
) -> Result<SnapshotFile, SnapshotError> {
    let read = |wanted| {
        let mut reader = SnapshotReader::new(wanted);
        bytes.chunks(piece_bytes).try_for_each(|piece| reader.add(piece))?;
        reader.finish()
    };
    if let StateWanted::Whole(secrets) = &wanted {
        read(StateWanted::Authentic(secrets.clone()))?;
    }
    read(wanted)
}

proptest! {
    #[test]
    fn a_state_reads_back(
        entries in proptest::collection::btree_map(
            ("(public:)?[a-d]{0,3}", proptest::collection::vec(any::<u8>(), 0..20)),
            (proptest::collection::vec(any::<u8>(), 0..40), 0_u64..100), 0..30),
        piece_bytes in 1_usize..200,
    ) {
        let mut builder = SnapshotBuilder::new(TxId::new(2, 99));
        for ((map, key), (value, version)) in &entries {
            builder.insert(&MapName::new(map), &key[..], &value[..], Seqno(*version)).unwrap();
        }
        let state = builder.build().unwrap();
        let bytes = encoded(state.clone());
        let file = read_in_pieces(&bytes, piece_bytes, whole()).unwrap();
        prop_assert_eq!((file.tx_id(), file.leaf()), (TxId::new(2, 99), sha256(b"leaf")));
        prop_assert_eq!((file.digest(), file.state_bytes()), (sha256(&bytes), bytes.len() as u64));
        prop_assert_eq!(file.views(), &views());
        prop_assert_eq!(listed(file.state()), listed(&state));
        prop_assert_eq!(file.verify(any_key().public()), Err(SnapshotError::NoReceipt));

        // As a whole, and in part.
        let again = SnapshotFile::read(&bytes, whole()).unwrap();
        prop_assert_eq!(listed(again.state()), listed(&state));
        let public = read_in_pieces(&bytes, piece_bytes, StateWanted::Public).unwrap();
        let of_public: Listed =
            listed(&state).into_iter().filter(|(map, ..)| map.starts_with("public:")).collect();
        prop_assert_eq!(listed(public.state()), of_public);
        let nothing = read_in_pieces(&bytes, piece_bytes, StateWanted::Nothing).unwrap();
        prop_assert_eq!(nothing.digest(), file.digest());
        prop_assert_eq!(nothing.state().maps().count(), 0);
    }

    #[test]
    fn a_snapshot_cut_short_is_refused(end: prop::sample::Index, piece_bytes in 1_usize..200) {
        let bytes = small();
        let cut = &bytes[..end.index(bytes.len())];
        for wanted in [StateWanted::Nothing, StateWanted::Public, whole()] {
            let refused = read_in_pieces(cut, piece_bytes, wanted).unwrap_err();
            prop_assert!(matches!(refused, SnapshotError::Truncated(_)), "{}", refused);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(at: prop::sample::Index, bit in 0..8_u8) {
        let mut bytes = small();
        let at = 8 + at.index(bytes.len() - 8);
        bytes[at] ^= 1 << bit;
        let authentic = SnapshotFile::read(&bytes, StateWanted::Authentic(secrets()));
        prop_assert!(authentic.is_err());
        // Decrypting it says no more.
        let whole = SnapshotFile::read(&bytes, whole());
        prop_assert_eq!(whole.err(), authentic.err());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(at: prop::sample::Index, byte: u8, end: prop::sample::Index) {
        let mut bytes = small();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(end.index(bytes.len() + 1));
        let _ = SnapshotFile::read(&bytes, StateWanted::Public);
        let _ = SnapshotFile::read(&bytes, whole());
    }
}

fn any_key() -> coco_crypto::KeyPair {
    let entropy = crate::testing::Counter::new(3);
    coco_crypto::KeyPair::generate(coco_crypto::Curve::P256, &entropy).unwrap()
}

#[test]
fn recorded_snapshots_verify_and_equal_the_replayed_ledger() {
    for service in recorded() {
        let current = Certificate::from_pem(&service.service_certificate).unwrap();
        for (name, bytes) in &service.snapshots {
            let name: SnapshotName = name.parse().unwrap();
            let wanted = StateWanted::Whole(service.secrets.clone());
            let file = read_in_pieces(bytes, 1000, wanted.clone()).unwrap();
            let state = file.state();
            assert_eq!(file.tx_id().seqno, name.seqno);

            // The identity that signed may be an earlier one, which the state names.
            let info = state.map(&MapName::new(crate::tables::SERVICE_INFO)).unwrap();
            let json: serde_json::Value =
                serde_json::from_slice(&info.get(&SINGLE_KEY).unwrap().value).unwrap();
            let then = Certificate::from_pem(json["cert"].as_str().unwrap()).unwrap();
            file.verify(&then.public_key().unwrap()).unwrap();
            if then != current {
                assert!(file.verify(&current.public_key().unwrap()).is_err());
            }
            let SnapshotReceipt::Json(receipt) = file.receipt().unwrap() else { panic!() };
            assert_eq!(receipt.to_json().as_bytes(), &bytes[file.state_bytes() as usize..]);

            // Replay.
            let mut replayed = Snapshot::empty(TxId::new(0, 0));
            let mut views = ViewHistory::new();
            for entry in service.entries().take(name.seqno.0 as usize) {
                let entry = Entry::parse(entry).unwrap();
                views.record(entry.tx_id()).unwrap();
                let writes = entry.writes(&service.secrets).unwrap();
                replayed = replayed.with_writes(&writes, entry.tx_id());
            }
            assert_eq!(&views, file.views());
            assert_eq!(listed(&replayed), listed(state));
            let last = service.entries().nth(name.seqno.0 as usize - 1).unwrap();
            assert_eq!(Entry::parse(last).unwrap().leaf(), file.leaf());

            // Our own bytes differ in the order of keys only.
            let secret = service.secrets.secret_for(name.seqno).unwrap();
            let again = SnapshotEncoder::new(state.clone(), file.leaf(), file.views(), secret);
            let again = SnapshotFile::read(&written(again), wanted).unwrap();
            assert_eq!(listed(again.state()), listed(state));
            assert_eq!(again.tree().unwrap().len(), name.seqno.0 + 1);
        }
    }
}

#[test]
fn a_receipt_of_another_snapshot_is_refused() {
    let services = recorded();
    let Some(sgx) = services.iter().find(|service| service.snapshots.len() == 2) else {
        assert!(services.is_empty());
        return;
    };
    let [(_, one), (_, other)] = &sgx.snapshots[..] else { panic!() };
    let state_bytes = |bytes: &[u8]| {
        SnapshotFile::read(bytes, StateWanted::Nothing).unwrap().state_bytes() as usize
    };
    let mixed = [&one[..state_bytes(one)], &other[state_bytes(other)..]].concat();
    let mixed = SnapshotFile::read(&mixed, StateWanted::Nothing).unwrap();
    let refused = mixed.verify(any_key().public());
    assert!(matches!(refused, Err(SnapshotError::Digest { .. })));
}

#[test]
fn a_large_state_is_read_in_any_pieces() {
    let mut builder = SnapshotBuilder::new(TxId::new(2, 99));
    let [small, large, public] = ["a", "b", "public:c"].map(MapName::new);
    // An entry that ends where a piece does, and one that is longer than several.
    builder.insert(&public, "key", vec![1; 3 << 20], Seqno(1)).unwrap();
    builder.insert(&small, "k", vec![2; (1 << 20) - 1 - 24 - 8 - 8 - 16], Seqno(2)).unwrap();
    builder.insert(&small, "l", "", Seqno(3)).unwrap();
    for number in 0..40_000_u64 {
        builder.insert(&large, number.to_be_bytes(), [3; 64], Seqno(4)).unwrap();
    }
    let state = builder.build().unwrap();
    let bytes = encoded(state.clone());
    for piece_bytes in [1009, 1 << 16, 1 << 20, bytes.len()] {
        let file = read_in_pieces(&bytes, piece_bytes, whole()).unwrap();
        assert!(listed(file.state()) == listed(&state));
    }
}

#[test]
fn a_receipt_has_a_longest_length() {
    let bytes = [small(), vec![b' '; 1 << 20]].concat();
    assert!(SnapshotFile::read(&bytes, StateWanted::Nothing).is_ok());
    let longer = [&bytes[..], b" "].concat();
    let refused = read_in_pieces(&longer, 1 << 16, StateWanted::Nothing).unwrap_err();
    assert_eq!(refused, SnapshotError::ReceiptTooLong);
}

#[test]
fn evidence_is_the_json_of_ccf() {
    let writes = snapshot_evidence(Digest::ZERO, Seqno(99));
    let value = crate::tables::single(&writes, SNAPSHOT_EVIDENCE).unwrap();
    let expected = format!(r#"{{"hash":"{}","version":99}}"#, "00".repeat(32));
    assert_eq!(value.as_slice(), expected.as_bytes());
}
