//! Keys on Curve25519: Ed25519 for signatures, X25519 for key agreement (RFC 8032, 7748, 8410).

use std::fmt;

use aws_lc_rs::agreement;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::pem;
use crate::{BadSignature, Entropy, KeyError};

/// Which use of Curve25519.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OkpCurve {
    /// Signatures.
    Ed25519,
    /// Key agreement.
    X25519,
}

impl OkpCurve {
    /// The last byte of the object identifier 1.3.101.x.
    const fn arc(self) -> u8 {
        match self {
            Self::Ed25519 => 0x70,
            Self::X25519 => 0x6e,
        }
    }

    const fn spki_prefix(self) -> [u8; 12] {
        [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, self.arc(), 0x03, 0x21, 0x00]
    }

    const fn pkcs8_prefix(self) -> [u8; 16] {
        let arc = self.arc();
        [0x30, 0x2e, 2, 1, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, arc, 0x04, 0x22, 0x04, 0x20]
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::X25519 => "X25519",
        }
    }

    const fn both() -> [Self; 2] {
        [Self::Ed25519, Self::X25519]
    }
}

const EXPECTED: &str = "Ed25519 or X25519";

/// A public key on Curve25519.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OkpPublicKey {
    /// Its use.
    pub curve: OkpCurve,
    /// The encoded point.
    pub bytes: [u8; 32],
}

impl OkpPublicKey {
    /// Reads a SubjectPublicKeyInfo of RFC 8410.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let read = |curve: OkpCurve| {
            let bytes = der.strip_prefix(&curve.spki_prefix())?.try_into().ok()?;
            Some(Self { curve, bytes })
        };
        let found = OkpCurve::both().into_iter().find_map(read);
        found.ok_or(KeyError::PublicKey { expected: EXPECTED })
    }

    /// Reads `PUBLIC KEY` PEM.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_spki_der(&pem::decode(text, "PUBLIC KEY")?)
    }

    /// The SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        [&self.curve.spki_prefix()[..], &self.bytes].concat()
    }

    /// `PUBLIC KEY` PEM.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki_der())
    }

    /// Verifies an Ed25519 signature; no X25519 key verifies anything.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        match self.curve {
            OkpCurve::X25519 => Err(BadSignature),
            OkpCurve::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.bytes)
                .verify(message, signature)
                .map_err(|_| BadSignature),
        }
    }
}

/// A private key on Curve25519; zeroized on drop, never printed.
pub struct OkpKeyPair {
    secret: Zeroizing<[u8; 32]>,
    public: OkpPublicKey,
}

impl OkpKeyPair {
    /// A fresh key: any 32 bytes are one.
    pub fn generate(curve: OkpCurve, entropy: &dyn Entropy) -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0; 32]);
        entropy.fill(&mut *secret);
        Self::from_secret(curve, secret)
    }

    pub(crate) fn from_secret(
        curve: OkpCurve,
        secret: Zeroizing<[u8; 32]>,
    ) -> Result<Self, KeyError> {
        let refused = KeyError::PrivateKey { expected: curve.expected() };
        let mut bytes = [0; 32];
        match curve {
            OkpCurve::Ed25519 => {
                let key = Ed25519KeyPair::from_seed_unchecked(&*secret).map_err(|_| refused)?;
                bytes.copy_from_slice(key.public_key().as_ref());
            }
            OkpCurve::X25519 => {
                let public = agreement::PrivateKey::from_private_key(&agreement::X25519, &*secret)
                    .map_err(|_| refused)?
                    .compute_public_key()
                    .map_err(|_| refused)?;
                bytes.copy_from_slice(public.as_ref());
            }
        }
        Ok(Self { secret, public: OkpPublicKey { curve, bytes } })
    }

    /// Reads PKCS#8 PEM, version 1, as OpenSSL writes it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = pem::decode(text, "PRIVATE KEY")?;
        for curve in OkpCurve::both() {
            if let Some(secret) = der.strip_prefix(&curve.pkcs8_prefix()) {
                let secret = Zeroizing::new(
                    secret
                        .try_into()
                        .map_err(|_| KeyError::PrivateKey { expected: curve.expected() })?,
                );
                return Self::from_secret(curve, secret);
            }
        }
        Err(KeyError::PrivateKey { expected: EXPECTED })
    }

    /// The key as PKCS#8 PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let prefix = self.public.curve.pkcs8_prefix();
        let der = Zeroizing::new([&prefix[..], &*self.secret].concat());
        Zeroizing::new(pem::encode("PRIVATE KEY", &der))
    }

    /// The public half.
    pub fn public(&self) -> &OkpPublicKey {
        &self.public
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Signs with Ed25519; an X25519 key cannot.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let refused = KeyError::PrivateKey { expected: "Ed25519" };
        match self.public.curve {
            OkpCurve::X25519 => Err(refused),
            OkpCurve::Ed25519 => Ed25519KeyPair::from_seed_unchecked(&*self.secret)
                .map_err(|_| refused)?
                .try_sign(message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| refused),
        }
    }
}

impl fmt::Debug for OkpKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OkpKeyPair({:?})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(curve: OkpCurve, secret: &str) -> OkpKeyPair {
        let secret = hex::decode(secret).unwrap().try_into().unwrap();
        OkpKeyPair::from_secret(curve, Zeroizing::new(secret)).unwrap()
    }

    #[test]
    fn ed25519_of_rfc_8032_test_2() {
        let key = key(
            OkpCurve::Ed25519,
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        );
        assert_eq!(
            hex::encode(key.public().bytes),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = key.sign(b"\x72").unwrap();
        assert_eq!(
            hex::encode(&signature),
            concat!(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            )
        );
        assert_eq!(key.public().verify(b"\x72", &signature), Ok(()));
        assert_eq!(key.public().verify(b"\x73", &signature), Err(BadSignature));
    }

    #[test]
    fn x25519_of_rfc_7748_section_6_1() {
        let key = key(
            OkpCurve::X25519,
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        );
        assert_eq!(
            hex::encode(key.public().bytes),
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
        );
        assert_eq!(key.sign(b"").unwrap_err(), KeyError::PrivateKey { expected: "Ed25519" });
        assert_eq!(key.public().verify(b"", &[0; 64]), Err(BadSignature));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn keys_come_back(secret: [u8; 32]) {
            for curve in OkpCurve::both() {
                let key = OkpKeyPair::from_secret(curve, Zeroizing::new(secret)).unwrap();
                let again = OkpKeyPair::from_pem(&key.to_pem()).unwrap();
                prop_assert_eq!(again.public(), key.public());
                prop_assert_eq!(&OkpPublicKey::from_pem(&key.public().to_pem()).unwrap(), key.public());
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = OkpPublicKey::from_spki_der(&bytes);
            let _ = OkpKeyPair::from_pem(&pem::encode("PRIVATE KEY", &bytes));
        }
    }
}
