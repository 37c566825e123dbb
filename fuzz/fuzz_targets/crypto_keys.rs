//! Keys in every encoding: DER, PEM, JWK; wrapped secrets and recovery shares.
#![no_main]

use coco_crypto::{
    GcmCipher, KeyPair, OkpKeyPair, OkpPublicKey, PublicKey, RsaKeyPair, RsaPublicKey, Share,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = GcmCipher::parse(bytes);
    let _ = Share::parse(bytes);
    let _ = PublicKey::from_spki_der(bytes);
    let _ = KeyPair::from_der(bytes);
    let _ = RsaPublicKey::from_spki_der(bytes);
    let _ = RsaPublicKey::from_pkcs1_der(bytes);
    let _ = OkpPublicKey::from_spki_der(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = PublicKey::from_pem(text);
        let _ = KeyPair::from_pem(text);
        let _ = RsaPublicKey::from_pem(text);
        let _ = RsaKeyPair::from_pem(text);
        let _ = OkpPublicKey::from_pem(text);
        let _ = OkpKeyPair::from_pem(text);
    }
    if let Ok(jwk) = serde_json::from_slice(bytes) {
        let _ = PublicKey::from_jwk(&jwk);
        let _ = KeyPair::from_jwk(&jwk);
        let _ = RsaPublicKey::from_jwk(&jwk);
        let _ = RsaKeyPair::from_jwk(&jwk);
        let _ = OkpPublicKey::from_jwk(&jwk);
        let _ = OkpKeyPair::from_jwk(&jwk);
    }
});
