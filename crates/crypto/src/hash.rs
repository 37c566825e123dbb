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

    /// Begins the hash of bytes that come one after the other.
    pub fn begin(self) -> Hasher {
        Hasher(digest::Context::new(self.aws()))
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

/// A hash that is being computed.
#[derive(Clone)]
pub struct Hasher(digest::Context);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything added.
    pub fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hash_as_the_whole() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512] {
            let mut hasher = algorithm.begin();
            [&b"one"[..], b"", b"two"].iter().for_each(|piece| hasher.update(piece));
            let digest = hasher.finish();
            assert_eq!(digest, algorithm.digest(b"onetwo"));
            assert_eq!(digest.len(), algorithm.len_bytes());
        }
    }
}
