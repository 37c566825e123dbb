//! Keys, AEAD, hashes, COSE, X.509 and secret sharing.

mod digest;

pub use digest::{Digest, DigestSyntax, sha256, sha256_concat};
