//! Protection against replayed proposals: a window over the most recent ones.
//!
//! Each proposal is remembered under `<created_at, 10 digits>:<SHA-256 of its signature>`, so the
//! keys sort by time. A proposal is new if it is not in the window and too young to have left it.
//!
//! An ECDSA signature `(r, s)` has a twin `(r, n - s)` that verifies too and that anybody can make;
//! whoever submits the twin submits the same message again.

use coco_crypto::{Digest, sha256};
use coco_kv::Tx;

use crate::tables::{COSE_RECENT_PROPOSALS, TableError};

/// Latest `created_at` that ten digits can hold (the year 2286).
pub(crate) const LATEST_CREATED_AT_S: u64 = 9_999_999_999;
/// How far a member's clock may be ahead of the node's.
pub(crate) const MAX_CLOCK_SKEW_S: u64 = 24 * 60 * 60;

/// How many proposals are remembered when the service's configuration does not say.
pub(crate) const DEFAULT_WINDOW: u64 = 100;

/// What the window says of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Submission {
    /// New; it is remembered now.
    Accepted,
    /// The same signed message was submitted before, as this proposal.
    Replay(Digest),
    /// It may have been submitted and forgotten: it must be younger than this.
    TooOld {
        /// Seconds since 1970.
        created_at_least: u64,
    },
}

/// Looks a submission up in the window and, if it is new, remembers it.
pub(crate) fn submit(
    tx: &mut Tx,
    created_at_s: u64,
    signature: &[u8],
    proposal: &Digest,
    window: u64,
) -> Result<Submission, TableError> {
    let key_of = |signature: &[u8]| format!("{created_at_s:010}:{}", sha256(signature));
    let key = key_of(signature);
    let twin = twin(signature).map(|twin| key_of(&twin));
    let recent = COSE_RECENT_PROPOSALS.rows(tx)?;
    let is_same = |recent: &String| *recent == key || Some(recent) == twin.as_ref();
    if let Some((_, earlier)) = recent.iter().find(|(recent, _)| is_same(recent)) {
        return Ok(Submission::Replay(*earlier));
    }
    let window = usize::try_from(window.max(1)).unwrap_or(usize::MAX);
    if let Some(created_at_least) = oldest_acceptable(&recent, window)
        && created_at_s < created_at_least
    {
        return Ok(Submission::TooOld { created_at_least });
    }
    COSE_RECENT_PROPOSALS.put(tx, &key, proposal);
    let surplus = (recent.len() + 1).saturating_sub(window);
    for (oldest, _) in recent.iter().take(surplus) {
        COSE_RECENT_PROPOSALS.remove(tx, oldest);
    }
    Ok(Submission::Accepted)
}

/// The time of the middle of the window. When the window is full, others of its oldest second may
/// have been forgotten already, so that this second is too old as well.
fn oldest_acceptable(recent: &[(String, Digest)], window: usize) -> Option<u64> {
    let time = |(key, _): &(String, Digest)| key.split(':').next()?.parse::<u64>().ok();
    let middle = recent.get(recent.len() / 2).and_then(time)?;
    let oldest = recent.first().and_then(time)?;
    Some(if recent.len() >= window { middle.max(oldest + 1) } else { middle })
}

/// Orders of the groups of P-256 and P-384.
const P256_ORDER: &[u8] = &[
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const P384_ORDER: &[u8] = &[
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf,
    0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

/// The other signature of the same message, of a raw `r || s`; by its length the curve is known.
fn twin(signature: &[u8]) -> Option<Vec<u8>> {
    let order = match signature.len() {
        64 => P256_ORDER,
        96 => P384_ORDER,
        _ => return None,
    };
    let (r, s) = signature.split_at(order.len());
    let mut difference = vec![0; order.len()];
    let mut borrow = 0;
    for ((out, minuend), subtrahend) in difference.iter_mut().zip(order).zip(s).rev() {
        let digit = i16::from(*minuend) - i16::from(*subtrahend) - borrow;
        borrow = i16::from(digit < 0);
        *out = digit.rem_euclid(256) as u8;
    }
    Some([r, &difference].concat())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use coco_crypto::{Curve, Entropy, KeyPair};
    use coco_kv::{Store, View};
    use proptest::prelude::*;

    use super::*;

    fn submit_at(tx: &mut Tx, created_at_s: u64, signature: u64, window: u64) -> Submission {
        let signature = signature.to_le_bytes();
        submit(tx, created_at_s, &signature, &sha256(&signature), window).unwrap()
    }

    struct Fixed;

    impl Entropy for Fixed {
        fn fill(&self, out: &mut [u8]) {
            out.fill(7);
        }
    }

    #[test]
    fn the_twin_of_a_signature_verifies_and_is_a_replay() {
        for curve in [Curve::P256, Curve::P384] {
            let key = KeyPair::generate(curve, &Fixed).unwrap();
            let signature = key.sign_p1363(b"proposal");
            let twin = twin(&signature).unwrap();
            assert_ne!(twin, signature);
            assert_eq!(super::twin(&twin), Some(signature.clone()));
            key.public().verify_p1363(b"proposal", &twin).unwrap();

            let mut tx = Store::new(View(2)).begin();
            let [first, second] = [1u64, 2].map(|id| sha256(&id.to_le_bytes()));
            let accepted = submit(&mut tx, 10, &signature, &first, 100);
            assert_eq!(accepted, Ok(Submission::Accepted));
            let replay = submit(&mut tx, 10, &twin, &second, 100);
            assert_eq!(replay, Ok(Submission::Replay(first)));
        }
    }

    #[test]
    fn the_middle_of_the_window_is_the_limit() {
        let mut tx = Store::new(View(2)).begin();
        for time in [10, 20, 30, 40] {
            assert_eq!(submit_at(&mut tx, time, time, 100), Submission::Accepted);
        }
        assert_eq!(submit_at(&mut tx, 29, 1, 100), Submission::TooOld { created_at_least: 30 });
        assert_eq!(submit_at(&mut tx, 30, 1, 100), Submission::Accepted);
        let earlier = sha256(&10u64.to_le_bytes());
        assert_eq!(submit_at(&mut tx, 10, 10, 100), Submission::Replay(earlier));
    }

    proptest! {
        #[test]
        fn nothing_is_accepted_twice_and_the_window_stays_small(
            window in 1u64..6,
            submissions in proptest::collection::vec((0u64..6, 0u64..6), 0..60),
        ) {
            let mut tx = Store::new(View(2)).begin();
            let mut accepted = BTreeSet::new();
            for (time, signature) in submissions {
                if submit_at(&mut tx, time, signature, window) == Submission::Accepted {
                    prop_assert!(accepted.insert((time, signature)));
                }
                let remembered = COSE_RECENT_PROPOSALS.rows(&mut tx).unwrap().len();
                prop_assert!(remembered as u64 <= window);
            }
        }
    }
}
