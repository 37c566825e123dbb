//! A node's evidence, and a blob that it sealed.
#![no_main]

use coco_attestation::insecure::{InsecureSeed, SoftwareTee, SoftwareVerifier};
use coco_attestation::{Tee, verify};
use coco_crypto::Digest;
use libfuzzer_sys::fuzz_target;

fn tee() -> SoftwareTee {
    SoftwareTee::new(Digest::ZERO, &InsecureSeed::new([7; 32]))
}

fn seeds() -> Vec<Vec<u8>> {
    vec![serde_json::to_vec(&tee().evidence(&Digest::ZERO).unwrap()).unwrap()]
}

fuzz_target!(init: coco_fuzz::seed("attestation_evidence", seeds()), |bytes: &[u8]| {
    if let Ok(evidence) = serde_json::from_slice(bytes) {
        let _ = verify(&evidence, &[&SoftwareVerifier]);
    }
    assert!(tee().unseal("fuzz", bytes).is_err(), "nobody sealed this");
});
