//! Keys, AEAD, hashes, COSE, X.509 and secret sharing.

mod aead;
pub mod cbor;
pub mod cose;
mod der;
mod digest;
mod ec;
mod ecdsa_signature;
mod entropy;
mod hash;
mod jwk;
pub mod key_wrap;
mod mac;
mod okp;
mod pem;
pub mod rsa;
pub mod sharing;
mod signing;
#[cfg(test)]
mod testing;
pub mod x509;

pub use aead::{AeadKey, GcmCipher, GcmCipherTooShort, GcmNonce, GcmTag, NotAuthentic};
pub use cose::{CoseError, CoseSign1};
pub use digest::{Digest, DigestSyntax, sha256, sha256_concat};
pub use ec::{BadSignature, Curve, KeyError, KeyPair, PublicKey};
pub use entropy::Entropy;
pub use hash::{HashAlgorithm, UnknownHash};
pub use jwk::JwkError;
pub use key_wrap::KeyWrapError;
pub use mac::{HKDF_SHA256_MAX_LEN_BYTES, HkdfLength, hkdf_sha256, hmac_sha256};
pub use okp::{OkpCurve, OkpKeyPair, OkpPublicKey};
pub use pem::{PEM_MAX_LEN_BYTES, PemError};
pub use rsa::{RsaError, RsaKeyPair, RsaPublicKey};
pub use sharing::{Share, SharingError};
pub use signing::{SignatureAlgorithm, SigningError};
pub use x509::{Certificate, CertificateError, SigningRequest};
