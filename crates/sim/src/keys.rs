//! Keys of a run, and signatures that are the same in every run.

use coco_crypto::{Curve, Digest, KeyPair, PublicKey, sha256_concat};
use p256::ecdsa::Signature;
use p256::elliptic_curve::ops::Reduce as _;
use p256::elliptic_curve::point::AffineCoordinates;
use p256::{AffinePoint, FieldBytes, Scalar};

/// A node's key: P-256, from its number in the run.
#[derive(Clone)]
pub struct NodeKey {
    /// The signature's first half, the same for all.
    r: Scalar,
    /// That, times the secret.
    r_secret: Scalar,
    public: PublicKey,
}

impl NodeKey {
    /// The key of the run's node with this number.
    pub fn of(seed: u64, number: u64) -> Self {
        let secret = sha256_concat(&[&seed.to_be_bytes(), &number.to_be_bytes()]);
        #[expect(
            clippy::expect_used,
            reason = "out of range for one digest in 2^32 is no seed we meet"
        )]
        let pair = KeyPair::from_scalar(Curve::P256, &secret.0).expect("a digest is a scalar");
        let r = Scalar::reduce(&AffinePoint::GENERATOR.x());
        let r_secret = r * Scalar::reduce(&FieldBytes::from(secret.0));
        Self { r, r_secret, public: pair.public().clone() }
    }

    /// What verifies its signatures.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// ECDSA over the digest, DER, with the nonce 1: the secret is none here, and nothing is left
    /// to multiply but numbers, which is a hundred times faster than a point.
    pub fn sign_digest(&self, digest: &Digest) -> Vec<u8> {
        let z = Scalar::reduce(&FieldBytes::from(digest.0));
        let signed = Signature::from_scalars(self.r, z + self.r_secret);
        signed.map(|signature| signature.to_der().as_bytes().to_vec()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_verify_and_are_the_same_again() {
        let (key, digest) = (NodeKey::of(1, 2), sha256_concat(&[b"root"]));
        let signature = key.sign_digest(&digest);
        assert_eq!(signature, NodeKey::of(1, 2).sign_digest(&digest));
        key.public().verify_digest(&digest, &signature).unwrap();
        let other = NodeKey::of(1, 3);
        other.public().verify_digest(&digest, &signature).unwrap_err();
    }
}
