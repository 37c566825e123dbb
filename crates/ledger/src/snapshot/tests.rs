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
    let secret = LedgerSecret::new([9; 32]);
    encode_snapshot(builder.build().unwrap(), sha256(b"leaf"), &views(), &secret).unwrap()
}

proptest! {
    #[test]
    fn a_state_reads_back(
        entries in proptest::collection::btree_map(
            ("(public:)?[a-d]{0,3}", proptest::collection::vec(any::<u8>(), 0..20)),
            (proptest::collection::vec(any::<u8>(), 0..40), 0_u64..100), 0..30),
    ) {
        let mut builder = SnapshotBuilder::new(TxId::new(2, 99));
        for ((map, key), (value, version)) in &entries {
            builder.insert(&MapName::new(map), &key[..], &value[..], Seqno(*version)).unwrap();
        }
        let state = builder.build().unwrap();
        let leaf = sha256(b"leaf");
        let secret = LedgerSecret::new([9; 32]);
        let bytes = encode_snapshot(state.clone(), leaf, &views(), &secret).unwrap();
        prop_assert_eq!(bytes.capacity(), bytes.len());
        let file = SnapshotFile::parse(&bytes).unwrap();
        prop_assert_eq!((file.tx_id(), file.leaf()), (TxId::new(2, 99), leaf));
        prop_assert_eq!(file.views(), &views());
        prop_assert_eq!(listed(&file.state(&secrets()).unwrap()), listed(&state));
        prop_assert_eq!(file.verify(any_key().public()), Err(SnapshotError::NoReceipt));
    }

    #[test]
    fn a_flipped_bit_is_noticed(at: prop::sample::Index, bit in 0..8_u8) {
        let mut bytes = small();
        let at = 8 + at.index(bytes.len() - 8);
        bytes[at] ^= 1 << bit;
        let read = SnapshotFile::parse(&bytes).and_then(|file| file.state(&secrets()));
        prop_assert!(read.is_err());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(at: prop::sample::Index, byte: u8, end: prop::sample::Index) {
        let mut bytes = small();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(end.index(bytes.len() + 1));
        let _ = SnapshotFile::parse(&bytes).and_then(|file| file.public_state());
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
            let file = SnapshotFile::parse(bytes).unwrap();
            let state = file.state(&service.secrets).unwrap();
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
            assert_eq!(receipt.to_json().as_bytes(), &bytes[file.state_bytes().len()..]);

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
            assert_eq!(listed(&replayed), listed(&state));
            let last = service.entries().nth(name.seqno.0 as usize - 1).unwrap();
            assert_eq!(Entry::parse(last).unwrap().leaf(), file.leaf());

            // Our own bytes differ in the order of keys only.
            let secret = service.secrets.secret_for(name.seqno).unwrap();
            let again = encode_snapshot(state.clone(), file.leaf(), file.views(), secret).unwrap();
            let again = SnapshotFile::parse(&again).unwrap();
            assert_eq!(listed(&again.state(&service.secrets).unwrap()), listed(&state));
            assert_eq!(again.tree(&state).unwrap().len(), name.seqno.0 + 1);
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
    let (one, other) = (SnapshotFile::parse(one).unwrap(), SnapshotFile::parse(other).unwrap());
    let SnapshotReceipt::Json(receipt) = other.receipt().unwrap() else { panic!() };
    let mut mixed = one.state_bytes().to_vec();
    attach_receipt(&mut mixed, receipt.to_json().as_bytes());
    let mixed = SnapshotFile::parse(&mixed).unwrap();
    let refused = mixed.verify(any_key().public());
    assert!(matches!(refused, Err(SnapshotError::Digest { .. })));
}

#[test]
fn evidence_is_the_json_of_ccf() {
    let writes = snapshot_evidence(Digest::ZERO, Seqno(99));
    let value = crate::tables::single(&writes, SNAPSHOT_EVIDENCE).unwrap();
    let expected = format!(r#"{{"hash":"{}","version":99}}"#, "00".repeat(32));
    assert_eq!(value.as_slice(), expected.as_bytes());
}
