//! Signatures by name of the algorithm over PEM keys, as `ccf.crypto.sign` and
//! `ccf.crypto.verifySignature` have them.

use aws_lc_rs::hmac;

use crate::x509::{Certificate, CertificateError};
use crate::{
    BadSignature, HashAlgorithm, KeyError, KeyPair, OkpKeyPair, OkpPublicKey, PublicKey, RsaError,
    RsaKeyPair, RsaPublicKey,
};

/// A signature algorithm with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// `RSA-PSS`, the same hash for the mask.
    RsaPss {
        /// The hash.
        hash: HashAlgorithm,
        /// Length of the salt.
        salt_len_bytes: usize,
    },
    /// `RSASSA-PKCS1-v1_5`.
    RsaPkcs1 {
        /// The hash.
        hash: HashAlgorithm,
    },
    /// `ECDSA` on P-256 or P-384 with any hash; signatures are IEEE P1363.
    Ecdsa {
        /// The hash.
        hash: HashAlgorithm,
    },
    /// `EdDSA`, which is Ed25519.
    EdDsa,
    /// `HMAC`; the key is the text's bytes.
    Hmac {
        /// The hash.
        hash: HashAlgorithm,
    },
}

/// Why nothing was signed or verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The key does not fit the algorithm.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate that should hold the public key is faulty.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// RSA refused.
    #[error(transparent)]
    Rsa(#[from] RsaError),
}

impl SignatureAlgorithm {
    /// Signs with a private key in PEM, or with the shared key of an HMAC.
    pub fn sign(self, key: &str, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        Ok(match self {
            Self::RsaPss { hash, salt_len_bytes } => {
                RsaKeyPair::from_pem(key)?.sign_pss(hash, salt_len_bytes, message)?
            }
            Self::RsaPkcs1 { hash } => RsaKeyPair::from_pem(key)?.sign_pkcs1(hash, message)?,
            Self::Ecdsa { hash } => {
                KeyPair::from_pem(key)?.sign_prehash_p1363(&hash.digest(message))
            }
            Self::EdDsa => OkpKeyPair::from_pem(key)?.sign(message)?,
            Self::Hmac { hash } => hmac::sign(&hmac_key(hash, key), message).as_ref().to_vec(),
        })
    }

    /// Verifies with a public key or a certificate in PEM, or with the shared key of an HMAC.
    /// A wrong signature is `false`, an unusable key an error.
    pub fn verify(self, key: &str, message: &[u8], signature: &[u8]) -> Result<bool, SigningError> {
        let verdict = match self {
            Self::Hmac { hash } => {
                hmac::verify(&hmac_key(hash, key), message, signature).map_err(|_| BadSignature)
            }
            Self::RsaPss { hash, salt_len_bytes } => {
                let key = public(key, RsaPublicKey::from_pem, RsaPublicKey::from_spki_der)?;
                key.verify_pss(hash, salt_len_bytes, message, signature)
            }
            Self::RsaPkcs1 { hash } => {
                let key = public(key, RsaPublicKey::from_pem, RsaPublicKey::from_spki_der)?;
                key.verify_pkcs1(hash, message, signature)
            }
            Self::Ecdsa { hash } => {
                let key = public(key, PublicKey::from_pem, PublicKey::from_spki_der)?;
                key.verify_prehash_p1363(&hash.digest(message), signature)
            }
            Self::EdDsa => {
                let key = public(key, OkpPublicKey::from_pem, OkpPublicKey::from_spki_der)?;
                key.verify(message, signature)
            }
        };
        Ok(verdict.is_ok())
    }
}

fn public<K>(
    pem: &str,
    from_pem: fn(&str) -> Result<K, KeyError>,
    from_spki_der: fn(&[u8]) -> Result<K, KeyError>,
) -> Result<K, SigningError> {
    if pem.trim_start().starts_with("-----BEGIN CERTIFICATE-----") {
        Ok(from_spki_der(Certificate::from_pem(pem)?.spki_der())?)
    } else {
        Ok(from_pem(pem)?)
    }
}

fn hmac_key(hash: HashAlgorithm, key: &str) -> hmac::Key {
    let algorithm = match hash {
        HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HashAlgorithm::Sha384 => hmac::HMAC_SHA384,
        HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::Key::new(algorithm, key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::Counter;
    use crate::x509::{DistinguishedName, Validity};
    use crate::{Curve, OkpCurve, PemError};

    const HASHES: [HashAlgorithm; 3] =
        [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];

    fn check(algorithm: SignatureAlgorithm, private: &str, public: &str) {
        let signature = algorithm.sign(private, b"message").unwrap();
        assert_eq!(algorithm.verify(public, b"message", &signature), Ok(true), "{algorithm:?}");
        assert_eq!(algorithm.verify(public, b"massage", &signature), Ok(false));
        assert_eq!(algorithm.verify(public, b"message", &signature[1..]), Ok(false));
        assert_eq!(algorithm.verify(public, b"message", b""), Ok(false));
    }

    #[test]
    fn every_algorithm_with_every_hash() {
        let entropy = Counter::new(1);
        for hash in HASHES {
            for curve in [Curve::P256, Curve::P384] {
                let key = KeyPair::generate(curve, &entropy).unwrap();
                let algorithm = SignatureAlgorithm::Ecdsa { hash };
                check(algorithm, &key.to_pem(), &key.public().to_pem());
                let name = DistinguishedName::common_name("signer");
                let certificate =
                    Certificate::for_member(&key, &name, Validity::days(0, 1), &entropy).unwrap();
                check(algorithm, &key.to_pem(), &certificate.to_pem());
            }
            let rsa = crate::rsa::tests::key();
            let (private, public) = (rsa.to_pem(), rsa.public().to_pem());
            check(SignatureAlgorithm::RsaPkcs1 { hash }, &private, &public);
            check(SignatureAlgorithm::RsaPss { hash, salt_len_bytes: 0 }, &private, &public);
            check(SignatureAlgorithm::RsaPss { hash, salt_len_bytes: 32 }, &private, &public);
            check(SignatureAlgorithm::Hmac { hash }, "shared", "shared");
        }
        let key = OkpKeyPair::generate(OkpCurve::Ed25519, &entropy).unwrap();
        check(SignatureAlgorithm::EdDsa, &key.to_pem(), &key.public().to_pem());
    }

    #[test]
    fn ecdsa_with_another_hash_is_the_librarys() {
        let key = KeyPair::generate(Curve::P256, &Counter::new(2)).unwrap();
        let algorithm = SignatureAlgorithm::Ecdsa { hash: HashAlgorithm::Sha512 };
        let signature = algorithm.sign(&key.to_pem(), b"message").unwrap();
        let der = crate::ecdsa_signature::p1363_to_der(Curve::P256, &signature).unwrap();
        aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ECDSA_P256_SHA512_ASN1,
            key.public().spki_der(),
        )
        .verify(b"message", &der)
        .unwrap();
    }

    #[test]
    fn keys_of_another_kind_are_errors() {
        let key = KeyPair::generate(Curve::P256, &Counter::new(2)).unwrap();
        let (private, public) = (key.to_pem(), key.public().to_pem());
        let hash = HashAlgorithm::Sha256;
        for algorithm in [SignatureAlgorithm::RsaPkcs1 { hash }, SignatureAlgorithm::EdDsa] {
            assert!(matches!(algorithm.sign(&private, b""), Err(SigningError::Key(_))));
            assert!(matches!(algorithm.verify(&public, b"", b""), Err(SigningError::Key(_))));
        }
        let ecdsa = SignatureAlgorithm::Ecdsa { hash };
        assert_eq!(
            ecdsa.verify("", b"", b""),
            Err(KeyError::Pem(PemError::Missing { expected: "PUBLIC KEY" }).into())
        );
        assert!(matches!(
            ecdsa.verify("-----BEGIN CERTIFICATE-----", b"", b""),
            Err(SigningError::Certificate(_))
        ));
    }
}
