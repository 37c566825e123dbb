//! Signatures, wrapped keys and names, against keys that are fine.
#![no_main]

use std::sync::LazyLock;

use coco_crypto::key_wrap::{unwrap_aes_kwp, unwrap_rsa_aes_kwp, wrap_aes_kwp};
use coco_crypto::x509::{AlternativeName, DistinguishedName};
use coco_crypto::{Curve, Entropy, HashAlgorithm, KeyPair, OkpCurve, OkpKeyPair, RsaKeyPair};
use libfuzzer_sys::fuzz_target;

struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

struct Keys {
    ec: [KeyPair; 2],
    rsa: RsaKeyPair,
    okp: OkpKeyPair,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    ec: [Curve::P256, Curve::P384].map(|curve| KeyPair::generate(curve, &Sevens).unwrap()),
    rsa: RsaKeyPair::generate(2048).unwrap(),
    okp: OkpKeyPair::generate(OkpCurve::Ed25519, &Sevens).unwrap(),
});

const WRAPPING_KEY: [u8; 32] = [7; 32];

fn seeds() -> Vec<Vec<u8>> {
    let [p256, p384] = &KEYS.ec;
    vec![
        p256.sign(b"something else"),
        p384.sign(b"something else"),
        p256.sign_p1363(b"something else"),
        wrap_aes_kwp(&WRAPPING_KEY, b"a key of nineteen b").unwrap(),
        b"CN=service,O=Consortium,C=CH".to_vec(),
        b"dNSName:node.example.com".to_vec(),
        b"iPAddress:127.0.0.1".to_vec(),
    ]
}

fuzz_target!(init: coco_fuzz::seed("crypto_signature", seeds()), |bytes: &[u8]| {
    let Keys { ec, rsa, okp } = &*KEYS;
    let message = b"what nobody signed";
    for key in ec {
        assert!(key.public().verify(message, bytes).is_err());
        assert!(key.public().verify_p1363(message, bytes).is_err());
        assert!(key.verify_own_p1363(message, bytes).is_err());
    }
    let hash = HashAlgorithm::Sha256;
    assert!(rsa.public().verify_pkcs1(hash, message, bytes).is_err());
    assert!(rsa.public().verify_pss(hash, 32, message, bytes).is_err());
    assert!(okp.public().verify(message, bytes).is_err());
    let _ = unwrap_aes_kwp(&WRAPPING_KEY, bytes);
    assert!(unwrap_rsa_aes_kwp(rsa, b"label", bytes).is_err());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<DistinguishedName>();
        let _ = text.parse::<AlternativeName>();
        if let Ok(tx_id) = text.parse::<coco_kv::TxId>() {
            assert_eq!(tx_id.to_string().parse(), Ok(tx_id));
        }
    }
});
