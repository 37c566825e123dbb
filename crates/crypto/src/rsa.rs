//! RSA: encryption to members and nodes (OAEP), and signatures of tokens and applications.
//!
//! Keys have 2048 to 8192 bits, two primes. The library takes no randomness from outside here: key
//! generation, OAEP seeds and PSS salts come from aws-lc's own generator.

use std::fmt;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey, PublicKeyComponents, RsaParameters,
    RsaPssSaltLength,
};
use aws_lc_rs::signature::{self, RsaEncoding, RsaSignatureEncoding};
use zeroize::Zeroizing;

use crate::der::{self, NotDer, Reader};
use crate::pem::{self, PemError};
use crate::{BadSignature, HashAlgorithm, KeyError};

const EXPECTED_RSA: &str = "RSA of 2048 to 8192 bits";
/// AlgorithmIdentifier of rsaEncryption with its NULL parameters (RFC 8017).
const RSA_ENCRYPTION: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Longest PSS salt that can be chosen for signing.
pub const PSS_MAX_SALT_LEN_BYTES: usize = 64;

/// One encoding per salt length: aws-lc wants them to live for ever.
type PssEncodings = [RsaSignatureEncoding; PSS_MAX_SALT_LEN_BYTES + 1];

fn pss_encodings(of_digest_len: fn() -> RsaSignatureEncoding) -> PssEncodings {
    std::array::from_fn(|salt| {
        of_digest_len().with_pss_salt_length(RsaPssSaltLength::Custom(salt as u16))
    })
}

static PSS_SHA256: LazyLock<PssEncodings> =
    LazyLock::new(|| pss_encodings(|| signature::RSA_PSS_SHA256));
static PSS_SHA384: LazyLock<PssEncodings> =
    LazyLock::new(|| pss_encodings(|| signature::RSA_PSS_SHA384));
static PSS_SHA512: LazyLock<PssEncodings> =
    LazyLock::new(|| pss_encodings(|| signature::RSA_PSS_SHA512));

/// The plaintext does not fit, or the ciphertext was not made for this key and label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RsaError {
    /// OAEP with SHA-256 carries 66 bytes less than the modulus has.
    #[error("{len_bytes} bytes do not fit into RSA-OAEP, the limit of this key is {limit_bytes}")]
    PlaintextTooLong {
        /// Length of the plaintext.
        len_bytes: usize,
        /// What the key can carry.
        limit_bytes: usize,
    },
    /// Not decryptable under this key and label.
    #[error("the ciphertext does not decrypt under this RSA key and label")]
    NotDecryptable,
    /// No key is generated with this size.
    #[error("an RSA key is generated with 2048, 3072, 4096 or 8192 bits, not {bits}")]
    KeySize {
        /// What was asked for.
        bits: u32,
    },
    /// No signature is made with this salt.
    #[error("a PSS salt of {len_bytes} bytes is not supported (limit {PSS_MAX_SALT_LEN_BYTES})")]
    SaltLength {
        /// What was asked for.
        len_bytes: usize,
    },
    /// The library failed.
    #[error("the RSA operation failed")]
    Operation,
}

/// An RSA public key.
#[derive(Clone, PartialEq, Eq)]
pub struct RsaPublicKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl RsaPublicKey {
    /// From big-endian modulus and exponent.
    pub fn from_components(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let refused = KeyError::PublicKey { expected: EXPECTED_RSA };
        let (modulus, exponent) = (der::trim_zeros(modulus), der::trim_zeros(exponent));
        let leading_zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !MODULUS_BITS.contains(&(modulus.len() * 8 - leading_zeros)) {
            return Err(refused);
        }
        let key = Self { modulus: modulus.to_vec(), exponent: exponent.to_vec() };
        aws_lc_rs::rsa::PublicKey::from_der(&key.pkcs1_der()).map_err(|_| refused)?;
        Ok(key)
    }

    /// Reads a SubjectPublicKeyInfo.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        fn pkcs1(der: &[u8]) -> Result<&[u8], NotDer> {
            let mut outer = Reader::new(der);
            let inner = outer.enter(der::SEQUENCE)?;
            outer.finish()?;
            let after = inner.rest().strip_prefix(RSA_ENCRYPTION).ok_or(NotDer)?;
            let mut inner = Reader::new(after);
            let key = inner.read_bit_string()?;
            inner.finish()?;
            Ok(key)
        }
        let refused = KeyError::PublicKey { expected: EXPECTED_RSA };
        Self::from_pkcs1_der(pkcs1(der).map_err(|_| refused)?)
    }

    /// Reads an `RSAPublicKey` of RFC 8017.
    pub fn from_pkcs1_der(der: &[u8]) -> Result<Self, KeyError> {
        fn components(der: &[u8]) -> Result<(&[u8], &[u8]), NotDer> {
            let mut outer = Reader::new(der);
            let mut inner = outer.enter(der::SEQUENCE)?;
            outer.finish()?;
            let components = (inner.read_unsigned()?, inner.read_unsigned()?);
            inner.finish()?;
            Ok(components)
        }
        let refused = KeyError::PublicKey { expected: EXPECTED_RSA };
        let (modulus, exponent) = components(der).map_err(|_| refused)?;
        Self::from_components(modulus, exponent)
    }

    /// Reads `PUBLIC KEY` or `RSA PUBLIC KEY` PEM.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        for block in pem::blocks(text)? {
            match block.label {
                "PUBLIC KEY" => return Self::from_spki_der(&block.der),
                "RSA PUBLIC KEY" => return Self::from_pkcs1_der(&block.der),
                _ => {}
            }
        }
        Err(PemError::Missing { expected: "PUBLIC KEY" }.into())
    }

    /// Big-endian, no leading zeros.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// Big-endian, no leading zeros.
    pub fn exponent(&self) -> &[u8] {
        &self.exponent
    }

    /// The SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        der::sequence(&[RSA_ENCRYPTION, &der::bit_string(&self.pkcs1_der())])
    }

    /// `PUBLIC KEY` PEM.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki_der())
    }

    fn pkcs1_der(&self) -> Vec<u8> {
        der::sequence(&[&der::unsigned(&self.modulus), &der::unsigned(&self.exponent)])
    }

    /// Encrypts with RSA-OAEP, SHA-256 for both hash and mask; no label is an empty label.
    pub fn encrypt_oaep(&self, plaintext: &[u8], label: &[u8]) -> Result<Vec<u8>, RsaError> {
        let key = PublicEncryptingKey::from_der(&self.spki_der())
            .map_err(|_| RsaError::Operation)
            .and_then(|key| OaepPublicEncryptingKey::new(key).map_err(|_| RsaError::Operation))?;
        let limit_bytes = key.max_plaintext_size(&OAEP_SHA256_MGF1SHA256);
        if plaintext.len() > limit_bytes {
            return Err(RsaError::PlaintextTooLong { len_bytes: plaintext.len(), limit_bytes });
        }
        let mut out = vec![0; key.ciphertext_size()];
        let len = key
            .encrypt(&OAEP_SHA256_MGF1SHA256, plaintext, &mut out, Some(label))
            .map_err(|_| RsaError::Operation)?
            .len();
        out.truncate(len);
        Ok(out)
    }

    /// Verifies RSASSA-PKCS1-v1_5 (JWT's RS256, RS384, RS512).
    pub fn verify_pkcs1(
        &self,
        hash: HashAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let parameters = match hash {
            HashAlgorithm::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            HashAlgorithm::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            HashAlgorithm::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        };
        self.verify(parameters, message, signature)
    }

    /// Verifies RSA-PSS with the same hash for the mask and a salt of exactly this length.
    pub fn verify_pss(
        &self,
        hash: HashAlgorithm,
        salt_len_bytes: usize,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let parameters = match hash {
            HashAlgorithm::Sha256 => signature::RSA_PSS_2048_8192_SHA256,
            HashAlgorithm::Sha384 => signature::RSA_PSS_2048_8192_SHA384,
            HashAlgorithm::Sha512 => signature::RSA_PSS_2048_8192_SHA512,
        };
        let salt = u16::try_from(salt_len_bytes).map_err(|_| BadSignature)?;
        let parameters = parameters.with_pss_salt_length(RsaPssSaltLength::Custom(salt));
        self.verify(&parameters, message, signature)
    }

    fn verify(
        &self,
        parameters: &RsaParameters,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        PublicKeyComponents { n: &self.modulus, e: &self.exponent }
            .verify(parameters, message, signature)
            .map_err(|_| BadSignature)
    }
}

impl fmt::Debug for RsaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaPublicKey({} bits)", self.modulus.len() * 8)
    }
}

/// An RSA private key; zeroized on drop, never printed.
pub struct RsaKeyPair {
    pkcs8: Zeroizing<Vec<u8>>,
    signer: aws_lc_rs::rsa::KeyPair,
    public: RsaPublicKey,
}

/// The numbers of an `RSAPrivateKey` (RFC 8017 A.1.2), big-endian without leading zeros.
pub(crate) struct RsaComponents<T> {
    pub(crate) n: T,
    pub(crate) e: T,
    pub(crate) d: T,
    pub(crate) p: T,
    pub(crate) q: T,
    pub(crate) dp: T,
    pub(crate) dq: T,
    pub(crate) qi: T,
}

impl RsaKeyPair {
    /// A fresh key with exponent 65537, from aws-lc's own generator: it offers no other way.
    pub fn generate(bits: u32) -> Result<Self, RsaError> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            8192 => KeySize::Rsa8192,
            _ => return Err(RsaError::KeySize { bits }),
        };
        let key = aws_lc_rs::rsa::KeyPair::generate(size).map_err(|_| RsaError::Operation)?;
        Self::new(key).map_err(|_| RsaError::Operation)
    }

    /// Reads PKCS#8 (`PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`) PEM.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let refused = KeyError::PrivateKey { expected: EXPECTED_RSA };
        for block in pem::blocks(text)? {
            match block.label {
                "PRIVATE KEY" => {
                    return aws_lc_rs::rsa::KeyPair::from_pkcs8(&block.der)
                        .map_err(|_| refused)
                        .and_then(Self::new);
                }
                "RSA PRIVATE KEY" => return Self::from_pkcs1_der(&block.der),
                _ => {}
            }
        }
        Err(PemError::Missing { expected: "PRIVATE KEY" }.into())
    }

    fn from_pkcs1_der(der: &[u8]) -> Result<Self, KeyError> {
        aws_lc_rs::rsa::KeyPair::from_der(der)
            .map_err(|_| KeyError::PrivateKey { expected: EXPECTED_RSA })
            .and_then(Self::new)
    }

    fn new(signer: aws_lc_rs::rsa::KeyPair) -> Result<Self, KeyError> {
        let refused = KeyError::PrivateKey { expected: EXPECTED_RSA };
        let public = signature::KeyPair::public_key(&signer);
        let public = RsaPublicKey::from_pkcs1_der(public.as_ref())?;
        let pkcs8 = Zeroizing::new(signer.as_der().map_err(|_| refused)?.as_ref().to_vec());
        Ok(Self { pkcs8, signer, public })
    }

    /// The key as PKCS#8 PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode("PRIVATE KEY", &self.pkcs8))
    }

    /// The public half.
    pub fn public(&self) -> &RsaPublicKey {
        &self.public
    }

    pub(crate) fn from_numbers(numbers: &RsaComponents<&[u8]>) -> Result<Self, KeyError> {
        let RsaComponents { n, e, d, p, q, dp, dq, qi } = *numbers;
        let parts = [&[0][..], n, e, d, p, q, dp, dq, qi]
            .map(|number| Zeroizing::new(der::unsigned(number)));
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
        Self::from_pkcs1_der(&Zeroizing::new(der::sequence(&parts)))
    }

    pub(crate) fn numbers(&self) -> Result<RsaComponents<&[u8]>, KeyError> {
        fn read(pkcs8: &[u8]) -> Result<RsaComponents<&[u8]>, NotDer> {
            let mut key = Reader::new(pkcs8).enter(der::SEQUENCE)?;
            key.read_unsigned()?;
            key.read(der::SEQUENCE)?;
            let mut numbers = Reader::new(key.read(der::OCTET_STRING)?).enter(der::SEQUENCE)?;
            numbers.read_unsigned()?;
            let mut next = || numbers.read_unsigned();
            Ok(RsaComponents {
                n: next()?,
                e: next()?,
                d: next()?,
                p: next()?,
                q: next()?,
                dp: next()?,
                dq: next()?,
                qi: next()?,
            })
        }
        read(&self.pkcs8).map_err(|_| KeyError::PrivateKey { expected: EXPECTED_RSA })
    }

    /// Decrypts RSA-OAEP with SHA-256.
    pub fn decrypt_oaep(
        &self,
        ciphertext: &[u8],
        label: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, RsaError> {
        let key = PrivateDecryptingKey::from_pkcs8(&self.pkcs8)
            .map_err(|_| RsaError::Operation)
            .and_then(|key| OaepPrivateDecryptingKey::new(key).map_err(|_| RsaError::Operation))?;
        let mut out = Zeroizing::new(vec![0; key.min_output_size()]);
        let len = key
            .decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut out, Some(label))
            .map_err(|_| RsaError::NotDecryptable)?
            .len();
        out.truncate(len);
        Ok(out)
    }

    /// Signs with RSASSA-PKCS1-v1_5.
    pub fn sign_pkcs1(&self, hash: HashAlgorithm, message: &[u8]) -> Result<Vec<u8>, RsaError> {
        let encoding = match hash {
            HashAlgorithm::Sha256 => &signature::RSA_PKCS1_SHA256,
            HashAlgorithm::Sha384 => &signature::RSA_PKCS1_SHA384,
            HashAlgorithm::Sha512 => &signature::RSA_PKCS1_SHA512,
        };
        self.sign(encoding, hash, message)
    }

    /// Signs with RSA-PSS, the same hash for the mask, and a salt of this length.
    pub fn sign_pss(
        &self,
        hash: HashAlgorithm,
        salt_len_bytes: usize,
        message: &[u8],
    ) -> Result<Vec<u8>, RsaError> {
        let encodings: &'static PssEncodings = match hash {
            HashAlgorithm::Sha256 => &PSS_SHA256,
            HashAlgorithm::Sha384 => &PSS_SHA384,
            HashAlgorithm::Sha512 => &PSS_SHA512,
        };
        let encoding = encodings
            .get(salt_len_bytes)
            .ok_or(RsaError::SaltLength { len_bytes: salt_len_bytes })?;
        self.sign(encoding, hash, message)
    }

    fn sign(
        &self,
        encoding: &'static dyn RsaEncoding,
        hash: HashAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, RsaError> {
        let mut signature = vec![0; self.signer.public_modulus_len()];
        self.signer
            .sign_digest(encoding, &digest::digest(hash.aws(), message), &mut signature)
            .map_err(|_| RsaError::Operation)?;
        Ok(signature)
    }
}

impl fmt::Debug for RsaKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaKeyPair({:?})", self.public)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASHES: [HashAlgorithm; 3] =
        [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];

    /// One key for all tests: generating one takes a second.
    pub(crate) fn key() -> &'static RsaKeyPair {
        static KEY: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(2048).unwrap());
        &KEY
    }

    #[test]
    fn keys_round_trip_through_pem_and_numbers() {
        let key = key();
        assert_eq!(RsaKeyPair::from_pem(&key.to_pem()).unwrap().public(), key.public());
        let pem = key.public().to_pem();
        assert_eq!(&RsaPublicKey::from_pem(&pem).unwrap(), key.public());
        let pkcs1 = pem::encode("RSA PUBLIC KEY", &key.public().pkcs1_der());
        assert_eq!(&RsaPublicKey::from_pem(&pkcs1).unwrap(), key.public());
        let again = RsaKeyPair::from_numbers(&key.numbers().unwrap()).unwrap();
        assert_eq!(*again.to_pem(), *key.to_pem());
        assert_eq!(format!("{key:?}"), "RsaKeyPair(RsaPublicKey(2048 bits))");
    }

    #[test]
    fn inconsistent_private_numbers_are_refused() {
        let mut numbers = key().numbers().unwrap();
        std::mem::swap(&mut numbers.dp, &mut numbers.dq);
        assert_eq!(
            RsaKeyPair::from_numbers(&numbers).unwrap_err(),
            KeyError::PrivateKey { expected: EXPECTED_RSA }
        );
    }

    #[test]
    fn weak_and_odd_public_keys_are_refused() {
        let modulus = key().public().modulus();
        for (n, e) in [
            (&[][..], &[1, 0, 1][..]),
            (&[0xff; 128], &[1, 0, 1]),  // 1024 bits
            (&[0xff; 1025], &[1, 0, 1]), // beyond 8192 bits
            (modulus, &[]),
            (modulus, &[1]),
            (modulus, &[2]),
            (modulus, &[0xff; 256]),
        ] {
            assert_eq!(
                RsaPublicKey::from_components(n, e),
                Err(KeyError::PublicKey { expected: EXPECTED_RSA }),
                "{} {e:?}",
                n.len()
            );
        }
        assert_eq!(RsaKeyPair::generate(1024).unwrap_err(), RsaError::KeySize { bits: 1024 });
    }

    #[test]
    fn oaep_opens_with_key_and_label_only() {
        let key = key();
        let sealed = key.public().encrypt_oaep(b"share", b"label").unwrap();
        assert_eq!(&**key.decrypt_oaep(&sealed, b"label").unwrap(), b"share");
        assert_eq!(key.decrypt_oaep(&sealed, b""), Err(RsaError::NotDecryptable));
        for bad in [&[][..], &[0; 256], &[0xff; 256], &sealed[..255], &[1; 257]] {
            assert_eq!(key.decrypt_oaep(bad, b"label"), Err(RsaError::NotDecryptable));
        }
        assert!(key.public().encrypt_oaep(&[0; 190], b"").is_ok());
        assert_eq!(
            key.public().encrypt_oaep(&[0; 191], b""),
            Err(RsaError::PlaintextTooLong { len_bytes: 191, limit_bytes: 190 })
        );
    }

    #[test]
    fn signatures_verify_with_their_own_parameters_only() {
        let public = key().public();
        for hash in HASHES {
            let signature = key().sign_pkcs1(hash, b"message").unwrap();
            for other in HASHES {
                let verdict = public.verify_pkcs1(other, b"message", &signature);
                assert_eq!(verdict.is_ok(), other == hash);
            }
            assert!(public.verify_pkcs1(hash, b"massage", &signature).is_err());
            for salt in [0, 20, 32, 48, 64] {
                let signature = key().sign_pss(hash, salt, b"message").unwrap();
                assert_eq!(public.verify_pss(hash, salt, b"message", &signature), Ok(()));
                assert!(public.verify_pss(hash, salt + 1, b"message", &signature).is_err());
                assert!(public.verify_pss(hash, salt, b"massage", &signature).is_err());
                assert!(public.verify_pkcs1(hash, b"message", &signature).is_err());
            }
        }
        assert_eq!(
            key().sign_pss(HashAlgorithm::Sha256, 65, b""),
            Err(RsaError::SaltLength { len_bytes: 65 })
        );
        let huge = public.verify_pss(HashAlgorithm::Sha256, usize::MAX, b"", &[0; 256]);
        assert_eq!(huge, Err(BadSignature));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, text in "\\PC*") {
            let _ = RsaPublicKey::from_spki_der(&bytes);
            let _ = RsaPublicKey::from_pkcs1_der(&bytes);
            let _ = RsaPublicKey::from_pem(&text);
            let _ = RsaKeyPair::from_pem(&pem::encode("PRIVATE KEY", &bytes));
            let _ = RsaKeyPair::from_pem(&pem::encode("RSA PRIVATE KEY", &bytes));
            let _ = key().public().verify_pkcs1(HashAlgorithm::Sha256, &bytes, &bytes);
        }
    }
}
