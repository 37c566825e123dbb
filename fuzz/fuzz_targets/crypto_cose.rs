//! COSE_Sign1 messages of governance requests, ledger signatures and receipts.
#![no_main]

use coco_crypto::cose::{CoseSign1, Header, label};
use coco_crypto::{Curve, Entropy, KeyPair};
use libfuzzer_sys::fuzz_target;

struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

fn seeds() -> [Vec<u8>; 2] {
    let key = KeyPair::generate(Curve::P256, &Sevens).unwrap();
    let header = Header::for_key(key.public())
        .with(label::KEY_ID, vec![b'a'; 64])
        .with("ccf.gov.msg.type", "proposal")
        .with("ccf.gov.msg.created_at", 1_700_000_000_u64);
    let attached = CoseSign1::sign(header.clone(), b"{}".to_vec(), &key).encode();
    [attached, CoseSign1::sign_detached(header, b"{}", &key).encode()]
}

fuzz_target!(init: coco_fuzz::seed("crypto_cose", seeds()), |bytes: &[u8]| {
    let Ok(message) = CoseSign1::parse(bytes) else { return };
    let again = CoseSign1::parse(&message.encode()).unwrap();
    assert_eq!(again.protected_bytes(), message.protected_bytes());
    let _ = (message.algorithm(), message.key_id(), message.signed_bytes(Some(b"detached")));
});
