//! Keys of a run, and signatures that are the same in every run.

use coco_crypto::{Curve, Digest, KeyPair, PublicKey, sha256_concat};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{DerSignature, SigningKey};

/// A node's key: P-256, from its number in the run.
pub struct NodeKey {
    signing: SigningKey,
    public: PublicKey,
}

impl NodeKey {
    /// The key of the run's node with this number.
    pub fn of(seed: u64, number: u64) -> Self {
        let scalar = sha256_concat(&[&seed.to_be_bytes(), &number.to_be_bytes()]);
        #[expect(
            clippy::expect_used,
            reason = "out of range for one digest in 2^32 is no seed we meet"
        )]
        let signing = SigningKey::from_slice(&scalar.0).expect("a digest is a scalar");
        #[expect(clippy::expect_used, reason = "as above")]
        let pair = KeyPair::from_scalar(Curve::P256, &scalar.0).expect("a digest is a scalar");
        Self { signing, public: pair.public().clone() }
    }

    /// What verifies its signatures.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// ECDSA over the digest with the nonce of RFC 6979, DER.
    pub fn sign_digest(&self, digest: &Digest) -> Vec<u8> {
        let signed: Result<DerSignature, _> = self.signing.sign_prehash(&digest.0);
        signed.map(|signature| signature.as_bytes().to_vec()).unwrap_or_default()
    }
}
