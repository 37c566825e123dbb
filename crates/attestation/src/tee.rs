//! What a node needs of the TEE it runs in.

use coco_crypto::{Digest, Entropy};
use zeroize::Zeroizing;

use crate::Evidence;

/// Longest sealed blob that is read.
pub const SEALED_MAX_LEN_BYTES: usize = 64 * 1024;

/// The TEE that a node runs in.
pub trait Tee: Send + Sync {
    /// Evidence of the running code, bound to `report_data`: the digest of the node's public key.
    fn evidence(&self, report_data: &Digest) -> Result<Evidence, TeeError>;

    /// Seals a secret so that only the same code on the same platform opens it again. `context`
    /// says what it is, in clear; opening needs the same. The blob is JSON,
    /// `{"aad_text": context, "ciphertext": base64}`, as in CCF's `<version>.sealed.json`.
    fn seal(
        &self,
        context: &str,
        secret: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SealError>;

    /// Opens what [`Tee::seal`] made; the blob comes from the host and may be anything.
    fn unseal(&self, context: &str, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError>;
}

/// The TEE gave no evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the TEE gave no evidence: {reason}")]
pub struct TeeError {
    /// What it said.
    pub reason: String,
}

/// Why a secret was not sealed, or a blob not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The blob is, or would be, longer than [`SEALED_MAX_LEN_BYTES`].
    #[error("a sealed blob of {len_bytes} bytes is too long (limit {SEALED_MAX_LEN_BYTES})")]
    TooLong {
        /// Its length.
        len_bytes: usize,
    },
    /// The blob is not the JSON that sealing makes.
    #[error("malformed sealed blob: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The blob holds something else than was asked for.
    #[error("the sealed blob is for {found:?}, not for {expected:?}")]
    Context {
        /// What it says it is.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// Sealed by other code, on another platform, or changed since.
    #[error("the sealed blob does not open here: other code, another platform, or changed")]
    NotAuthentic,
}
