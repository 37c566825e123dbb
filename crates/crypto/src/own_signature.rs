//! Signatures verified by whoever holds the private key.
//!
//! ECDSA verification finds the point `u1 G + u2 Q` (FIPS 186-5 section 6.4.2). Who knows the `d` of
//! `Q = d G` finds the same point as `(u1 + u2 d) G`: one multiplication of the base point, for which
//! there are tables, instead of two of which one has none. It takes less than half the time. The
//! factor is the signature's nonce and as secret as the key: it is computed in constant time, and
//! zeroized.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use p256::elliptic_curve::ops::Reduce as _;
use p256::elliptic_curve::{Field as _, PrimeField as _};
use p256::{FieldBytes, Scalar};
use zeroize::Zeroizing;

use crate::BadSignature;

/// Verifies `r || s` over a SHA-256 prehash on P-256 with the private scalar of the key, big-endian.
pub(crate) fn verify_p256(
    private: &[u8],
    prehash: [u8; 32],
    signature: &[u8],
) -> Result<(), BadSignature> {
    let (r, s) = signature.split_at_checked(32).ok_or(BadSignature)?;
    let (r, s) = (scalar(r)?, scalar(s)?);
    if r.is_zero().into() {
        return Err(BadSignature);
    }
    let private = Zeroizing::new(scalar(private)?);
    let number = Scalar::reduce(&FieldBytes::from(prehash));
    // Of these only the private scalar is secret; 0 has no inverse.
    let inverse = Option::<Scalar>::from(s.invert_vartime()).ok_or(BadSignature)?;
    let nonce = Zeroizing::new((number + r * *private) * inverse);
    let nonce = Zeroizing::new(<[u8; 32]>::from(nonce.to_repr()));
    let point = PrivateKey::from_private_key(&ECDH_P256, &*nonce)
        .and_then(|key| Ok(key.compute_public_key()?))
        .map_err(|_| BadSignature)?;
    let x: [u8; 32] = match point.as_ref() {
        [4, coordinates @ ..] => *coordinates.first_chunk().ok_or(BadSignature)?,
        _ => return Err(BadSignature),
    };
    if Scalar::reduce(&FieldBytes::from(x)) == r { Ok(()) } else { Err(BadSignature) }
}

/// A number below the order.
fn scalar(bytes: &[u8]) -> Result<Scalar, BadSignature> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| BadSignature)?;
    Option::from(Scalar::from_repr(FieldBytes::from(bytes))).ok_or(BadSignature)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::testing::Counter;
    use crate::{Curve, KeyPair};

    #[test]
    fn numbers_that_no_signature_has_are_refused() {
        let key = KeyPair::generate(Curve::P256, &Counter::new(1)).unwrap();
        let private = key.scalar().unwrap();
        let (d, zero) = (scalar(private.as_ref()).unwrap(), [0; 32]);
        let one = <[u8; 32]>::from(Scalar::ONE.to_repr());
        // The order itself is no number below it.
        let order = <[u8; 32]>::from((-Scalar::ONE).to_repr()).map(u16::from);
        let order: Vec<u8> =
            order.iter().enumerate().map(|(at, byte)| (byte + u16::from(at == 31)) as u8).collect();
        for (r, s) in
            [(&zero[..], &one[..]), (&one, &zero), (&zero, &zero), (&order, &one), (&one, &order)]
        {
            let refused = verify_p256(private.as_ref(), [7; 32], &[r, s].concat());
            assert_eq!(refused, Err(BadSignature));
        }
        // The point at infinity.
        let prehash = <[u8; 32]>::from((-d).to_repr());
        let refused = verify_p256(private.as_ref(), prehash, &[one, one].concat());
        assert_eq!(refused, Err(BadSignature));
        for length in [0, 63, 65] {
            let refused = verify_p256(private.as_ref(), [7; 32], &vec![1; length]);
            assert_eq!(refused, Err(BadSignature));
        }
    }

    proptest! {
        #[test]
        fn both_ways_of_verifying_agree(
            seed: u64, message: Vec<u8>, flip in proptest::option::of(0_usize..512), other: bool,
        ) {
            for curve in [Curve::P256, Curve::P384] {
                let key = KeyPair::generate(curve, &Counter::new(seed)).unwrap();
                let mut signature = key.sign_p1363(&message);
                if let Some(bit) = flip {
                    signature[bit / 8] ^= 1 << (bit % 8);
                }
                let stranger = KeyPair::generate(curve, &Counter::new(seed ^ 1)).unwrap();
                let verifier = if other { &stranger } else { &key };
                let verified = verifier.verify_own_p1363(&message, &signature);
                prop_assert_eq!(verified, verifier.public().verify_p1363(&message, &signature));
                prop_assert_eq!(verified.is_ok(), flip.is_none() && !other);
            }
        }
    }
}
