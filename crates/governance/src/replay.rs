//! Protection against replayed proposals: a window over the most recent ones.
//!
//! Each proposal is remembered under `<created_at, 10 digits>:<SHA-256 of its signature>`, so the
//! keys sort by time. A proposal is new if it is not in the window and too young to have left it.

use coco_crypto::Digest;
use coco_kv::Tx;

use crate::tables::{COSE_RECENT_PROPOSALS, TableError};

/// Latest `created_at` that ten digits can hold (the year 2286).
pub(crate) const LATEST_CREATED_AT_S: u64 = 9_999_999_999;

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
    signature: &Digest,
    proposal: &Digest,
    window: u64,
) -> Result<Submission, TableError> {
    let key = format!("{created_at_s:010}:{signature}");
    let recent = COSE_RECENT_PROPOSALS.rows(tx)?;
    if let Some((_, earlier)) = recent.iter().find(|(recent, _)| *recent == key) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use coco_crypto::sha256;
    use coco_kv::{Store, View};
    use proptest::prelude::*;

    use super::*;

    fn submit_at(tx: &mut Tx, created_at_s: u64, signature: u64, window: u64) -> Submission {
        let signature = sha256(&signature.to_le_bytes());
        submit(tx, created_at_s, &signature, &signature, window).unwrap()
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
