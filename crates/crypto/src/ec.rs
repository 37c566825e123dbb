//! Signing keys on P-256 and P-384: identities of services, nodes, members and users.

use std::fmt;

use aws_lc_rs::agreement;
use aws_lc_rs::digest::{self, SHA256, SHA384};
use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    EcdsaVerificationAlgorithm, KeyPair as _, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::ecdsa_signature::{der_to_p1363, p1363_to_der};
use crate::pem::{self, PemError};
use crate::{Digest, Entropy, own_signature, sha256};

/// The curves of CCF's identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp256r1, signs SHA-256 (COSE ES256).
    P256,
    /// secp384r1, signs SHA-384 (COSE ES384).
    P384,
}

impl Curve {
    /// Length of a private key, of `r` and of `s`.
    pub const fn scalar_len_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    /// What precedes the uncompressed point in a SubjectPublicKeyInfo: RFC 5480 leaves no choice.
    pub(crate) const fn spki_prefix(self) -> &'static [u8] {
        match self {
            Self::P256 => {
                b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\
                  \x03\x01\x07\x03\x42\x00"
            }
            Self::P384 => {
                b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\
                  \x03\x62\x00"
            }
        }
    }

    const fn point_len_bytes(self) -> usize {
        1 + 2 * self.scalar_len_bytes()
    }

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        }
    }

    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
        }
    }

    pub(crate) fn agreement(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &agreement::ECDH_P256,
            Self::P384 => &agreement::ECDH_P384,
        }
    }

    /// A hash as the number that ECDSA signs, in the form in which aws-lc takes it: a digest of the
    /// curve's own hash. Of a longer hash ECDSA takes the leftmost bits, a shorter one is a smaller
    /// number (FIPS 186-5 section 6.4.1), so padding with zeros on the left changes nothing.
    fn number_of_prehash(self, prehash: &[u8]) -> digest::Digest {
        let len = self.scalar_len_bytes();
        let leftmost = prehash.get(..len).unwrap_or(prehash);
        let mut number = vec![0; len - leftmost.len()];
        number.extend_from_slice(leftmost);
        #[expect(clippy::expect_used, reason = "the length was just made right")]
        digest::Digest::import_less_safe(&number, self.hash())
            .expect("the curve's hash is as long as its scalars")
    }

    /// The curve's own hash.
    fn hash(self) -> &'static digest::Algorithm {
        match self {
            Self::P256 => &SHA256,
            Self::P384 => &SHA384,
        }
    }
}

/// Why bytes are not a usable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The PEM around the key is faulty.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Not the DER of a private key of the expected kind and strength.
    #[error("not a private key of a supported kind: {expected}")]
    PrivateKey {
        /// What was expected, e.g. `EC P-256 or P-384`.
        expected: &'static str,
    },
    /// Not the DER of a public key of the expected kind and strength, or a point off the curve.
    #[error("not a public key of a supported kind: {expected}")]
    PublicKey {
        /// What was expected.
        expected: &'static str,
    },
    /// The entropy source gave no valid key in many attempts: it is broken.
    #[error("the entropy source is broken: {attempts} draws and no private key")]
    Entropy {
        /// How often it was asked.
        attempts: u32,
    },
    /// The library could not make the key.
    #[error("key generation failed")]
    Generation,
}

/// The signature is not that of this key over this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify under this key")]
pub struct BadSignature;

pub(crate) const EXPECTED_EC: &str = "EC P-256 or P-384";
/// A draw fails with probability 2^-32 on P-256; so many in a row do not happen.
const MAX_DRAWS: u32 = 16;

/// A private key on P-256 or P-384; zeroized on drop, never printed.
///
/// ECDSA nonces come from aws-lc's own generator: it takes none from outside.
pub struct KeyPair {
    key: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    public: PublicKey,
}

impl KeyPair {
    /// A fresh key from `entropy`, by rejection sampling (FIPS 186-5 A.2.2).
    pub fn generate(curve: Curve, entropy: &dyn Entropy) -> Result<Self, KeyError> {
        let mut scalar = Zeroizing::new(vec![0; curve.scalar_len_bytes()]);
        for _ in 0..MAX_DRAWS {
            entropy.fill(&mut scalar);
            if let Ok(key) = Self::from_scalar(curve, &scalar) {
                return Ok(key);
            }
        }
        Err(KeyError::Entropy { attempts: MAX_DRAWS })
    }

    /// The key of a private scalar, big-endian in the curve's full length, in `1..n`.
    pub fn from_scalar(curve: Curve, scalar: &[u8]) -> Result<Self, KeyError> {
        let refused = KeyError::PrivateKey { expected: EXPECTED_EC };
        let public = agreement::PrivateKey::from_private_key(curve.agreement(), scalar)
            .map_err(|_| refused)?
            .compute_public_key()
            .map_err(|_| refused)?;
        EcdsaKeyPair::from_private_key_and_public_key(curve.signing(), scalar, public.as_ref())
            .map_err(|_| refused)
            .and_then(|key| Self::new(curve, key))
    }

    /// Reads PKCS#8 (`PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`) PEM.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = pem::blocks(text)?
            .into_iter()
            .find(|block| matches!(block.label, "PRIVATE KEY" | "EC PRIVATE KEY"))
            .map(|block| block.der)
            .ok_or(PemError::Missing { expected: "PRIVATE KEY" })?;
        Self::from_der(&der)
    }

    /// Reads PKCS#8 or SEC 1 DER.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        for curve in [Curve::P256, Curve::P384] {
            if let Ok(key) = EcdsaKeyPair::from_private_key_der(curve.signing(), der) {
                return Self::new(curve, key);
            }
        }
        Err(KeyError::PrivateKey { expected: EXPECTED_EC })
    }

    fn new(curve: Curve, key: EcdsaKeyPair) -> Result<Self, KeyError> {
        let refused = KeyError::PrivateKey { expected: EXPECTED_EC };
        let public = PublicKey::from_point(curve, key.public_key().as_ref())?;
        let pkcs8 = key.to_pkcs8v1().map_err(|_| refused)?;
        Ok(Self { key, pkcs8: Zeroizing::new(pkcs8.as_ref().to_vec()), public })
    }

    /// The key as PKCS#8 PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode("PRIVATE KEY", &self.pkcs8))
    }

    /// The key as PKCS#8 DER, for a TLS stack.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The private scalar, big-endian in the curve's full length.
    pub(crate) fn scalar(&self) -> Option<EcPrivateKeyBin<'static>> {
        self.key.private_key().as_be_bytes().ok()
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key's curve.
    pub fn curve(&self) -> Curve {
        self.public.curve
    }

    /// Signs a message with the curve's own hash; DER.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.sign_prehash(digest::digest(self.curve().hash(), message).as_ref())
    }

    /// Signs a message with the curve's own hash; `r || s`, as COSE and JOSE want it.
    pub fn sign_p1363(&self, message: &[u8]) -> Vec<u8> {
        self.p1363(&self.sign(message))
    }

    /// Verifies `r || s` that this key itself is said to have made over a message hashed with the
    /// curve's own hash. On P-256 it takes less than half the time of [`PublicKey::verify_p1363`].
    pub fn verify_own_p1363(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if self.curve() == Curve::P256
            && let Some(scalar) = self.scalar()
        {
            return own_signature::verify_p256(scalar.as_ref(), sha256(message).0, signature);
        }
        self.public.verify_p1363(message, signature)
    }

    /// Signs a 32-byte prehash on either curve; DER. CCF's ledger signs the Merkle root this way.
    pub fn sign_digest(&self, digest: &Digest) -> Vec<u8> {
        self.sign_prehash(&digest.0)
    }

    /// Signs the hash of a message, of any hash; DER.
    pub(crate) fn sign_prehash(&self, prehash: &[u8]) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "a valid key signs; only memory could be short")]
        let signature = self
            .key
            .sign_digest(&self.curve().number_of_prehash(prehash))
            .expect("a valid key signs a digest of its own hash's length");
        signature.as_ref().to_vec()
    }

    pub(crate) fn sign_prehash_p1363(&self, prehash: &[u8]) -> Vec<u8> {
        self.p1363(&self.sign_prehash(prehash))
    }

    fn p1363(&self, der: &[u8]) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "the signature was just made on this curve")]
        der_to_p1363(self.curve(), der).expect("a signature has two numbers below the order")
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?}, {})", self.curve(), self.public.id())
    }
}

/// A public key on P-256 or P-384; a valid point by construction.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    curve: Curve,
    spki_der: Vec<u8>,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo with a named curve and an uncompressed point, the only form
    /// that RFC 5480 and CCF use: one key has one encoding, so that its digest can name it.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        for curve in [Curve::P256, Curve::P384] {
            if let Some(point) = der.strip_prefix(curve.spki_prefix()) {
                return Self::from_point(curve, point);
            }
        }
        Err(KeyError::PublicKey { expected: EXPECTED_EC })
    }

    /// Reads `PUBLIC KEY` PEM.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_spki_der(&pem::decode(text, "PUBLIC KEY")?)
    }

    /// From an uncompressed SEC 1 point (`04 || x || y`).
    pub(crate) fn from_point(curve: Curve, point: &[u8]) -> Result<Self, KeyError> {
        let refused = KeyError::PublicKey { expected: EXPECTED_EC };
        if point.len() != curve.point_len_bytes() || point.first() != Some(&4) {
            return Err(refused);
        }
        UnparsedPublicKey::new(curve.verification(), point).parse().map_err(|_| refused)?;
        Ok(Self { curve, spki_der: [curve.spki_prefix(), point].concat() })
    }

    /// The SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// `PUBLIC KEY` PEM.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki_der)
    }

    /// The key's curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// SHA-256 of the SubjectPublicKeyInfo: its hex is the node id and the COSE key id.
    pub fn id(&self) -> Digest {
        sha256(&self.spki_der)
    }

    /// The uncompressed point, `04 || x || y`.
    pub(crate) fn point(&self) -> &[u8] {
        self.spki_der.strip_prefix(self.curve.spki_prefix()).unwrap_or_default()
    }

    /// Verifies a DER signature over a message hashed with the curve's own hash.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.verify_prehash(digest::digest(self.curve.hash(), message).as_ref(), signature)
    }

    /// Verifies `r || s` over a message hashed with the curve's own hash.
    pub fn verify_p1363(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.verify(message, &p1363_to_der(self.curve, signature).ok_or(BadSignature)?)
    }

    /// Verifies a DER signature over a 32-byte prehash, on either curve.
    pub fn verify_digest(&self, digest: &Digest, signature: &[u8]) -> Result<(), BadSignature> {
        self.verify_prehash(&digest.0, signature)
    }

    /// Verifies a DER signature over the hash of a message, of any hash.
    pub(crate) fn verify_prehash(
        &self,
        prehash: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        UnparsedPublicKey::new(self.curve.verification(), self.point())
            .verify_digest(&self.curve.number_of_prehash(prehash), signature)
            .map_err(|_| BadSignature)
    }

    pub(crate) fn verify_prehash_p1363(
        &self,
        prehash: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        self.verify_prehash(prehash, &p1363_to_der(self.curve, signature).ok_or(BadSignature)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?}, {})", self.curve, self.id())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::testing::{Counter, Stuck};
    use crate::{Certificate, testing};

    const CURVES: [Curve; 2] = [Curve::P256, Curve::P384];

    #[test]
    fn keys_round_trip_through_pem() {
        for curve in CURVES {
            let key = KeyPair::generate(curve, &Counter::new(1)).unwrap();
            let again = KeyPair::from_pem(&key.to_pem()).unwrap();
            assert_eq!(again.public(), key.public());
            assert_eq!(again.curve(), curve);
            assert_eq!(&PublicKey::from_pem(&key.public().to_pem()).unwrap(), key.public());
            assert_eq!(key.public().id(), sha256(key.public().spki_der()));
            assert!(!format!("{key:?}").contains("PRIVATE"));
        }
    }

    #[test]
    fn the_same_entropy_gives_the_same_key() {
        for curve in CURVES {
            let key = |seed| KeyPair::generate(curve, &Counter::new(seed)).unwrap();
            assert_eq!(key(1).public(), key(1).public());
            assert_ne!(key(1).public(), key(2).public());
        }
    }

    #[test]
    fn broken_entropy_is_an_error() {
        for curve in CURVES {
            for byte in [0, 0xff] {
                assert_eq!(
                    KeyPair::generate(curve, &Stuck(byte)).unwrap_err(),
                    KeyError::Entropy { attempts: MAX_DRAWS }
                );
            }
        }
    }

    #[test]
    fn openssl_sec1_keys_are_read() {
        let key = KeyPair::generate(Curve::P256, &Counter::new(3)).unwrap();
        let scalar = key.scalar().unwrap();
        let sec1 = crate::der::sequence(&[
            &crate::der::unsigned(&[1]),
            &crate::der::element(crate::der::OCTET_STRING, &[scalar.as_ref()]),
            &crate::der::element(0xa0, &[b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"]),
        ]);
        // `openssl ecparam -genkey` writes the parameters first.
        let text = pem::encode("EC PARAMETERS", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07")
            + &pem::encode("EC PRIVATE KEY", &sec1);
        assert_eq!(KeyPair::from_pem(&text).unwrap().public(), key.public());
    }

    #[test]
    fn a_prehash_is_what_the_curves_own_hash_would_sign() {
        for curve in CURVES {
            let key = KeyPair::generate(curve, &Counter::new(4)).unwrap();
            let hash = digest::digest(curve.hash(), b"message");
            let signature = key.sign_prehash(hash.as_ref());
            assert_eq!(key.public().verify(b"message", &signature), Ok(()));
        }
    }

    #[test]
    fn a_32_byte_prehash_on_p384_is_ecdsa_with_sha256() {
        let key = KeyPair::generate(Curve::P384, &Counter::new(5)).unwrap();
        let signature = key.sign_digest(&sha256(b"message"));
        // The same thing through aws-lc's own P-384 with SHA-256.
        UnparsedPublicKey::new(
            &aws_lc_rs::signature::ECDSA_P384_SHA256_ASN1,
            key.public().spki_der(),
        )
        .verify(b"message", &signature)
        .unwrap();
    }

    #[test]
    fn recorded_ledgers_are_signed_over_the_root_as_a_prehash() {
        let recorded = testing::vectors("ccf", ".committed");
        let mut checked = 0;
        for (file, chunk) in &recorded {
            for at in 0..chunk.len().saturating_sub(9) {
                if &chunk[at..at + 9] != b"{\"cert\":\"" {
                    continue;
                }
                let mut json = serde_json::Deserializer::from_slice(&chunk[at..]).into_iter();
                let Some(Ok(signature)) = json.next() else { continue };
                let signature: serde_json::Value = signature;
                let text = |name: &str| signature.get(name)?.as_str();
                let (Some(certificate), Some(root), Some(sig)) =
                    (text("cert"), text("root"), text("sig"))
                else {
                    continue;
                };
                let key = Certificate::from_pem(certificate).unwrap().public_key().unwrap();
                let sig = base64::engine::general_purpose::STANDARD.decode(sig).unwrap();
                assert_eq!(key.id().to_string(), text("node").unwrap());
                assert_eq!(key.verify_digest(&root.parse().unwrap(), &sig), Ok(()), "{file:?}");
                checked += 1;
            }
        }
        assert!(recorded.is_empty() || checked >= 100, "only {checked} signatures");
    }

    #[test]
    fn malformed_public_keys_are_refused() {
        let good = KeyPair::generate(Curve::P256, &Counter::new(6)).unwrap();
        let good = good.public().spki_der();
        let mut off_curve = good.to_vec();
        *off_curve.last_mut().unwrap() ^= 1;
        let mut compressed = good.to_vec();
        compressed[26] = 2;
        let infinity = [Curve::P256.spki_prefix(), &[0]].concat();
        let zeros = [Curve::P256.spki_prefix(), &[4], &[0; 64]].concat();
        let long = [good, &[0]].concat();
        for bad in [&[][..], &good[..90], &off_curve, &compressed, &infinity, &zeros, &long] {
            assert_eq!(
                PublicKey::from_spki_der(bad),
                Err(KeyError::PublicKey { expected: EXPECTED_EC })
            );
        }
    }

    #[test]
    fn degenerate_signatures_are_refused() {
        for curve in CURVES {
            let key = KeyPair::generate(curve, &Counter::new(7)).unwrap();
            let len = curve.scalar_len_bytes();
            for bad in [vec![0; 2 * len], vec![0xff; 2 * len], vec![], vec![1; 2 * len - 1]] {
                assert_eq!(key.public().verify_p1363(b"", &bad), Err(BadSignature));
                assert_eq!(key.public().verify(b"", &bad), Err(BadSignature));
            }
            // A signature in the non-canonical BER long form.
            let mut ber = key.sign(b"m");
            ber.splice(1..2, [0x81, ber[1]]);
            assert_eq!(key.public().verify(b"m", &ber), Err(BadSignature));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn signatures_verify_and_changes_do_not(
            seed: u32, message: Vec<u8>, digest: [u8; 32], bit in 0_usize..256,
        ) {
            for curve in CURVES {
                let key = KeyPair::generate(curve, &Counter::new(seed.into())).unwrap();
                let public = key.public();
                let digest = Digest(digest);
                let mut other = digest;
                other.0[bit / 8] ^= 1 << (bit % 8);
                let mut longer = message.clone();
                longer.push(0);

                let signature = key.sign(&message);
                prop_assert_eq!(public.verify(&message, &signature), Ok(()));
                prop_assert_eq!(public.verify(&longer, &signature), Err(BadSignature));
                let signature = key.sign_p1363(&message);
                prop_assert_eq!(public.verify_p1363(&message, &signature), Ok(()));
                prop_assert_eq!(public.verify_p1363(&longer, &signature), Err(BadSignature));
                let signature = key.sign_digest(&digest);
                prop_assert_eq!(public.verify_digest(&digest, &signature), Ok(()));
                prop_assert_eq!(public.verify_digest(&other, &signature), Err(BadSignature));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, text in "\\PC*") {
            let _ = PublicKey::from_spki_der(&bytes);
            let _ = KeyPair::from_der(&bytes);
            let _ = KeyPair::from_pem(&text);
            let _ = KeyPair::from_scalar(Curve::P256, &bytes);
        }
    }
}
