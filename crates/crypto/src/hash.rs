//! The hash functions that signatures and `ccf.crypto.digest` choose from.

use std::str::FromStr;

use aws_lc_rs::digest;

/// A hash function by its WebCrypto name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// `SHA-256`, 32 bytes.
    Sha256,
    /// `SHA-384`, 48 bytes.
    Sha384,
    /// `SHA-512`, 64 bytes.
    Sha512,
}

impl HashAlgorithm {
    /// The hash of some bytes.
    pub fn digest(self, bytes: &[u8]) -> Vec<u8> {
        digest::digest(self.aws(), bytes).as_ref().to_vec()
    }

    pub(crate) fn aws(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    /// Length of a hash.
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// The name is none of `SHA-256`, `SHA-384`, `SHA-512`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hash algorithm must be SHA-256, SHA-384 or SHA-512")]
pub struct UnknownHash;

impl FromStr for HashAlgorithm {
    type Err = UnknownHash;

    fn from_str(name: &str) -> Result<Self, UnknownHash> {
        match name {
            "SHA-256" => Ok(Self::Sha256),
            "SHA-384" => Ok(Self::Sha384),
            "SHA-512" => Ok(Self::Sha512),
            _ => Err(UnknownHash),
        }
    }
}
