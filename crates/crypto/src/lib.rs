//! Keys, AEAD, hashes, COSE, X.509 and secret sharing: all the cryptography of a node, in CCF's
//! formats.
//!
//! It is a thin layer of typed keys and bounded parsers over aws-lc; it implements no primitive
//! except Shamir's sharing and AES key wrapping, joins the two halves of AES-GCM for what comes in
//! pieces ([`GcmAuthenticator`]), and has one shortcut of ECDSA
//! ([`KeyPair::verify_own_p1363`]). It is not a TLS stack, keeps no key store, and knows neither
//! ledger nor governance: those say *what* is signed or sealed, this crate says *how*.
//!
//! ```text
//!            bytes of others                    secrets
//!   pem  der  cbor ─▶ x509  cose  jwk           Entropy (host) ─▶ KeyPair  AeadKey  Share
//!                        │     │                                     │        │
//!                        └─────┴──▶ PublicKey  RsaPublicKey          ▼        ▼
//!                                     verify(..)                  sign(..)  seal(..)
//! ```
//!
//! Invariants:
//! * what comes from outside is bounded, parsed once and strictly (one encoding per key, no
//!   duplicate map keys, no trailing bytes), and gives a typed error, never a panic;
//! * a public key is a valid point or modulus by construction;
//! * secrets are zeroized when dropped and never printed;
//! * randomness comes from [`Entropy`], the few exceptions are named there.
//!
//! ```
//! use coco_crypto::{CoseSign1, Curve, Entropy, KeyPair, cose};
//!
//! # struct Counting;
//! # impl Entropy for Counting {
//! #     fn fill(&self, out: &mut [u8]) {
//! #         out.iter_mut().zip(1..).for_each(|(byte, n)| *byte = n);
//! #     }
//! # }
//! # let entropy = Counting;
//! let member = KeyPair::generate(Curve::P384, &entropy)?;
//! let header = cose::Header::for_key(member.public())
//!     .with(cose::label::KEY_ID, member.public().id().to_string().into_bytes())
//!     .with("ccf.gov.msg.type", "proposal");
//! let message = CoseSign1::sign(header, b"{}".to_vec(), &member).encode();
//!
//! let received = CoseSign1::parse(&message)?;
//! received.verify(member.public(), None)?;
//! assert_eq!(received.payload(), Some(&b"{}"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod aead;
pub mod cbor;
pub mod cose;
mod der;
mod digest;
mod ec;
mod ecdsa_signature;
mod entropy;
mod gcm_halves;
mod hash;
mod jwk;
pub mod key_wrap;
mod mac;
mod okp;
mod own_signature;
mod pem;
pub mod rsa;
pub mod sharing;
mod signing;
#[cfg(test)]
mod testing;
pub mod x509;

pub use aead::{AeadKey, GcmCipher, GcmCipherTooShort, GcmNonce, GcmTag, NotAuthentic};
pub use cose::{CoseError, CoseSign1};
pub use digest::{Digest, DigestSyntax, Sha256, sha256, sha256_concat};
pub use ec::{BadSignature, Curve, KeyError, KeyPair, PublicKey};
pub use entropy::Entropy;
pub use gcm_halves::{GcmAuthenticator, GcmKeystream};
pub use hash::{HashAlgorithm, Hasher, UnknownHash};
pub use jwk::JwkError;
pub use key_wrap::KeyWrapError;
pub use mac::{HKDF_SHA256_MAX_LEN_BYTES, HkdfLength, hkdf_sha256, hmac_sha256};
pub use okp::{OkpCurve, OkpKeyPair, OkpPublicKey};
pub use pem::{PEM_MAX_LEN_BYTES, PemError};
pub use rsa::{RsaError, RsaKeyPair, RsaPublicKey};
pub use sharing::{Share, SharingError};
pub use signing::{SignatureAlgorithm, SigningError};
pub use x509::{Certificate, CertificateError, SigningRequest};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<AeadKey>();
        shared::<KeyPair>();
        shared::<RsaKeyPair>();
        shared::<OkpKeyPair>();
        shared::<Share>();
        shared::<Certificate>();
    }
}
