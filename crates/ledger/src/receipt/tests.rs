use coco_crypto::{Certificate, Curve, KeyPair};
use proptest::prelude::*;

use super::*;
use crate::chunk::ChunkWriterConfig;
use crate::merkle::{PathStep, Side};
use crate::testing::{Counter, OwnLedger, recorded};

fn ledger(curve: Curve) -> OwnLedger {
    let mut ledger = OwnLedger::new(curve, ChunkWriterConfig::default());
    for number in 0..20 {
        ledger.put(number);
        if number % 4 == 3 {
            ledger.sign();
        }
    }
    ledger
}

fn receipt_by(proof: &SignedProof, signer: &Signer) -> Receipt {
    proof.receipt_by(signer, signer.node_key.sign_digest(&proof.proof.root()))
}

#[test]
fn live_and_historical_receipts_are_the_same_and_verify() {
    for curve in [Curve::P256, Curve::P384] {
        let ledger = ledger(curve);
        let key = ledger.service.public_key().unwrap();
        for made in &ledger.entries {
            let seqno = made.tx_id.seqno;
            let (signed_at, signature) =
                ledger.signatures.iter().find(|(tx_id, _)| tx_id.seqno > seqno).cloned().unzip();
            let (Some(signed_at), Some(signature)) = (signed_at, signature) else { continue };
            let live =
                SignedProof::live(made.into(), seqno.0, &ledger.tree, signature, signed_at.seqno.0)
                    .unwrap();
            let entry = Entry::parse(&made.bytes).unwrap();
            let signature_entry = &ledger.entries[signed_at.seqno.0 as usize - 1];
            let signature_entry = Entry::parse(&signature_entry.bytes).unwrap();
            let historical =
                SignedProof::historical(&entry, &signature_entry, &ledger.secrets).unwrap();
            assert_eq!(historical.proof, live.proof);
            assert_eq!(historical.signature, live.signature);

            let receipt = match live.signature.node {
                Some(_) => live.receipt(None, Vec::new()).unwrap(),
                None => receipt_by(&live, &ledger.signer),
            };
            let read = Receipt::from_json(receipt.to_json().as_bytes()).unwrap();
            assert_eq!(read, receipt);
            read.verify_claims(&key, made.claims_digest).unwrap();
            let refused = read.verify_claims(&key, sha256(b"other"));
            assert_eq!(refused, Err(ReceiptError::Claims));

            let cose = live.cose_receipt().unwrap();
            let read = CoseReceipt::parse(&cose.to_bytes()).unwrap();
            assert_eq!(read, cose);
            assert_eq!(read.signature().tx_id, signed_at);
            read.verify_claims(&key, made.claims_digest).unwrap();
            let refused = read.verify_claims(&key, sha256(b"other"));
            assert_eq!(refused, Err(ReceiptError::Claims));
            let Leaf::Components(components) = &read.proofs()[0].leaf else { panic!() };
            assert_eq!(components.tx_id(), Some(made.tx_id));
        }
    }
}

#[test]
fn a_signature_transaction_has_a_receipt_of_its_root() {
    let ledger = ledger(Curve::P256);
    let (tx_id, _) = ledger.signatures[2];
    let bytes = &ledger.entries[tx_id.seqno.0 as usize - 1].bytes;
    let entry = Entry::parse(bytes).unwrap();
    let proof = SignedProof::historical(&entry, &entry, &ledger.secrets).unwrap();
    assert_eq!(proof.receipt(None, Vec::new()), Err(ReceiptError::Missing("node signature")));
    let receipt = receipt_by(&proof, &ledger.signer);
    let root = receipt.verify(&ledger.service.public_key().unwrap()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&receipt.to_json()).unwrap();
    assert_eq!(json["leaf"], root.to_string());
    assert_eq!(json["proof"], serde_json::json!([]));
    assert_eq!(json.get("leaf_components"), None);
    assert_eq!(proof.cose_receipt(), Err(ReceiptError::Missing("leaf components")));
}

#[test]
fn only_the_following_signature_makes_a_receipt() {
    let ledger = ledger(Curve::P256);
    let entry_at = |seqno: u64| Entry::parse(&ledger.entries[seqno as usize - 1].bytes).unwrap();
    let signed: Vec<u64> = ledger.signatures.iter().map(|(tx_id, _)| tx_id.seqno.0).collect();
    let historical = |entry, signature| {
        SignedProof::historical(&entry_at(entry), &entry_at(signature), &ledger.secrets)
    };
    assert!(historical(signed[1] + 1, signed[2]).is_ok());
    // Not one before it, nor one whose tree no longer holds its leaf, nor another entry.
    for signature in [signed[1], signed[3]] {
        let refused = historical(signed[1] + 1, signature).unwrap_err();
        assert!(matches!(refused, ReceiptError::NotCovered { .. }), "{refused}");
    }
    let refused = historical(signed[1] + 1, signed[1] + 2).unwrap_err();
    assert!(matches!(refused, ReceiptError::NotASignature(_)));
    let empty = LedgerSecrets::new();
    let refused = SignedProof::historical(&entry_at(signed[1] + 1), &entry_at(signed[2]), &empty)
        .unwrap_err();
    assert!(matches!(refused, ReceiptError::Entry(EntryError::NoSecret(_))));
}

#[test]
fn receipts_of_recorded_entries_of_every_type_verify() {
    for service in recorded() {
        let entries: Vec<Entry<'_>> =
            service.entries().map(|bytes| Entry::parse(bytes).unwrap()).collect();
        let mut at = 0;
        let (mut certificate, mut identity) = (None, None);
        while let Some(next) = entries[at..].iter().position(|entry| {
            SignatureTransaction::parse(&entry.public_writes().unwrap()).unwrap().is_some()
        }) {
            let signature = &entries[at + next];
            for entry in &entries[at..at + next] {
                let writes = entry.public_writes().unwrap();
                if let Some(info) = crate::tables::single(&writes, crate::tables::SERVICE_INFO) {
                    let info: serde_json::Value = serde_json::from_slice(info).unwrap();
                    let pem = info["cert"].as_str().unwrap();
                    identity = Some(Certificate::from_pem(pem).unwrap().public_key().unwrap());
                }
                let proof = SignedProof::historical(entry, signature, &service.secrets).unwrap();
                let node = proof.signature.node.as_ref().unwrap();
                // Before CCF 2.0 the certificate is in the nodes' table only.
                let nodes = writes.map(&coco_kv::MapName::new(crate::tables::NODES_INFO));
                for (key, value) in nodes.into_iter().flat_map(|nodes| nodes.puts()) {
                    let info: serde_json::Value = serde_json::from_slice(value).unwrap();
                    if **key == *node.node_id.as_bytes() && info["cert"].is_string() {
                        certificate = info["cert"].as_str().map(str::to_owned);
                    }
                }
                let receipt = proof.receipt(certificate.as_deref(), Vec::new()).unwrap();
                let read = Receipt::from_json(receipt.to_json().as_bytes()).unwrap();
                read.verify(identity.as_ref().unwrap())
                    .unwrap_or_else(|error| panic!("{} {}: {error}", service.name, entry.tx_id()));
                if proof.signature.service.is_some() {
                    let cose = CoseReceipt::parse(&proof.cose_receipt().unwrap().to_bytes());
                    cose.unwrap().verify(identity.as_ref().unwrap()).unwrap();
                }
            }
            at += next + 1;
        }
        assert!(at > 0);
    }
}

#[test]
fn an_earlier_identity_is_reached_by_endorsements() {
    use coco_crypto::SigningRequest;
    use coco_crypto::x509::{DistinguishedName, Validity};
    let mut ledger = ledger(Curve::P256);
    let (old, old_signer) = (ledger.service.clone(), ledger.signer.clone());
    let entry = Entry::parse(&ledger.entries[3].bytes).unwrap();
    let (tx_id, _) = ledger.signatures[1];
    let signature = Entry::parse(&ledger.entries[tx_id.seqno.0 as usize - 1].bytes).unwrap();
    let proof = SignedProof::historical(&entry, &signature, &ledger.secrets).unwrap();
    ledger.recover();
    let key = ledger.service.public_key().unwrap();
    assert!(proof.receipt(None, Vec::new()).unwrap().verify(&key).is_err());

    // The present service endorses the key of the one before.
    let request = SigningRequest::create(
        &old_signer.service_key,
        &DistinguishedName::common_name("CCF Service"),
        &[],
    )
    .unwrap();
    let validity = Validity::days(1_763_000_000, 1);
    let endorsement = request
        .endorse(&ledger.service, &ledger.signer.service_key, validity, &Counter::new(5))
        .unwrap();
    let receipt = proof.receipt(None, vec![endorsement.to_pem()]).unwrap();
    let read = Receipt::from_json(receipt.to_json().as_bytes()).unwrap();
    assert_eq!(read.endorsements.len(), 1);
    read.verify(&key).unwrap();
    let wrong = proof.receipt(None, vec![old.to_pem()]).unwrap();
    assert!(wrong.verify(&key).is_err());
}

#[test]
fn tampered_receipts_are_refused() {
    let ledger = ledger(Curve::P256);
    let key = ledger.service.public_key().unwrap();
    let (tx_id, signature) = ledger.signatures[1].clone();
    let made = &ledger.entries[tx_id.seqno.0 as usize - 2];
    let proof =
        SignedProof::live(made.into(), tx_id.seqno.0 - 1, &ledger.tree, signature, tx_id.seqno.0)
            .unwrap();
    let good = proof.receipt(None, Vec::new()).unwrap();
    good.verify(&key).unwrap();
    let mut other = good.clone();
    other.proof.path.0[0].sibling = Digest::ZERO;
    assert!(matches!(other.verify(&key), Err(ReceiptError::Root(_))));
    let mut other = good.clone();
    other.node_id = Digest::ZERO.to_string();
    assert!(matches!(other.verify(&key), Err(ReceiptError::NodeId(_))));
    let mut other = good.clone();
    other.certificate = ledger.service.to_pem();
    assert!(matches!(other.verify(&key), Err(ReceiptError::NodeId(_))));
    let mut other = good.clone();
    let Leaf::Components(components) = &mut other.proof.leaf else { panic!() };
    components.commit_evidence = Some("ce:2.4:00".into());
    assert!(matches!(other.verify(&key), Err(ReceiptError::Root(_))));
    let stranger = KeyPair::generate(Curve::P256, &Counter::new(99)).unwrap();
    assert!(matches!(good.verify(stranger.public()), Err(ReceiptError::Certificate(_))));

    let cose = proof.cose_receipt().unwrap();
    assert!(matches!(
        cose.verify(stranger.public()),
        Err(ReceiptError::Signature(SignatureError::KeyId))
    ));
    let bytes = cose.to_bytes();
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1;
        let verified = CoseReceipt::parse(&other).and_then(|receipt| receipt.verify(&key));
        assert!(verified.is_err(), "{at}");
    }
}

#[test]
fn an_inner_node_of_the_tree_is_no_transaction() {
    let ledger = ledger(Curve::P256);
    let key = ledger.service.public_key().unwrap();
    let (tx_id, signature) = ledger.signatures[1].clone();
    let made = &ledger.entries[tx_id.seqno.0 as usize - 2];
    let proof =
        SignedProof::live(made.into(), tx_id.seqno.0 - 1, &ledger.tree, signature, tx_id.seqno.0)
            .unwrap();
    let good = proof.receipt(None, Vec::new()).unwrap();
    assert_eq!(good.proof.subject(), Ok(Subject::Transaction(made.tx_id)));
    let inner = {
        let InclusionProof { leaf: Leaf::Components(leaf), path } = &good.proof else { panic!() };
        let (sibling, leaf) = (path.0[0].sibling, leaf.digest());
        match path.0[0].side {
            Side::Left => [sibling, leaf],
            Side::Right => [leaf, sibling],
        }
    };
    let shorter = Path(good.proof.path.0[1..].to_vec());
    let missing = Err(ReceiptError::Missing("commit evidence"));
    let forged = |leaf, path: &Path| {
        let proof = InclusionProof { leaf, path: path.clone() };
        Receipt { proof, ..good.clone() }
    };

    let root = good.proof.root();
    for evidence in [None, Some("ce".to_owned())] {
        let components = LeafComponents {
            write_set_digest: inner[0],
            commit_evidence: evidence.clone(),
            claims_digest: Some(inner[1]),
        };
        let forged = forged(Leaf::Components(components), &shorter);
        assert_eq!(forged.proof.root() == root, evidence.is_none());
        assert_eq!(forged.verify(&key), missing);
        assert_eq!(forged.verify_claims(&key, inner[1]), missing);
        assert_eq!(forged.proof.subject().map(|_| root), missing);
    }

    let node = coco_crypto::sha256_concat(&[&inner[0].0, &inner[1].0]);
    let forged_leaf = forged(Leaf::Digest(node), &shorter);
    assert_eq!(forged_leaf.proof.root(), root);
    assert_eq!(forged_leaf.proof.subject().map(|_| root), missing);
    let of_root = forged(Leaf::Digest(root), &Path::default());
    assert_eq!(of_root.verify(&key), Ok(root));
    assert_eq!(of_root.proof.subject(), Ok(Subject::Signature));
}

#[test]
fn malformed_receipts_are_refused() {
    for json in [
        "",
        "{}",
        "[]",
        r#"{"cert":"","node_id":"","proof":[],"signature":""}"#,
        r#"{"cert":"","leaf":"00","node_id":"","proof":[],"signature":""}"#,
        r#"{"cert":"","leaf":"","leaf_components":{"write_set_digest":""},"node_id":"","proof":[],"signature":""}"#,
    ] {
        assert!(
            matches!(Receipt::from_json(json.as_bytes()), Err(ReceiptError::Json(_))),
            "{json}"
        );
    }
    let zero = Digest::ZERO;
    let with = |proof: &str, signature: &str| {
        let json = format!(
            r#"{{"cert":"","leaf":"{zero}","node_id":"","proof":{proof},"signature":"{signature}"}}"#
        );
        Receipt::from_json(json.as_bytes())
    };
    assert!(with("[]", "AA==").is_ok());
    assert!(with("[]", "~").is_err());
    assert!(with("[{}]", "AA==").is_err());
    assert!(with(&format!(r#"[{{"left":"{zero}","right":"{zero}"}}]"#), "AA==").is_err());
    let long = format!("[{}]", vec![format!(r#"{{"left":"{zero}"}}"#); 65].join(","));
    assert!(with(&long, "AA==").is_err());
    let huge = vec![b' '; MAX_RECEIPT_BYTES + 1];
    assert_eq!(Receipt::from_json(&huge), Err(ReceiptError::TooLong(huge.len())));
    assert!(matches!(CoseReceipt::parse(&huge), Err(ReceiptError::TooLong(_))));
}

proptest! {
    #[test]
    fn a_json_receipt_reads_back(
        digests: [[u8; 32]; 3], evidence in proptest::option::of("[ -~]{0,40}"), claims: bool,
        path in proptest::collection::vec((any::<bool>(), any::<[u8; 32]>()), 0..20),
        signature: Vec<u8>, certificate in "\\PC{0,40}",
    ) {
        let steps = path.into_iter().map(|(left, sibling)| PathStep {
            side: if left { Side::Left } else { Side::Right }, sibling: Digest(sibling),
        });
        let components = LeafComponents {
            write_set_digest: Digest(digests[0]),
            commit_evidence: evidence,
            claims_digest: claims.then_some(Digest(digests[1])),
        };
        let receipt = Receipt {
            proof: InclusionProof { leaf: leaf_of(components), path: Path(steps.collect()) },
            certificate, node_id: Digest(digests[2]).to_string(), signature, endorsements: Vec::new(),
        };
        prop_assert_eq!(Receipt::from_json(receipt.to_json().as_bytes()), Ok(receipt));
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes: Vec<u8>) {
        let _ = Receipt::from_json(&bytes);
        let _ = CoseReceipt::parse(&bytes);
    }
}
