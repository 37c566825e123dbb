//! CCF's secret sharing of the key that wraps the ledger secret (since CCF 5.0).
//!
//! The secret is ten independent elements of the field of `2^31 - 1`; each is the value at zero of
//! a random polynomial, and a share is the values of all ten at its own `x`:
//!
//! ```text
//! +0   u32 LE        x, 0 for the secret itself (what a recovery owner holds)
//! +4   u32 LE x 10   one value below 2^31 - 1 per polynomial
//! ```

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{AeadKey, Entropy, hkdf_sha256};

const PRIME: u64 = (1 << 31) - 1;
const LIMBS: usize = 10;
/// Length of a serialised share.
pub const SHARE_LEN_BYTES: usize = 4 + 4 * LIMBS;
/// Most shares of one secret; so the threshold is at most that.
pub const MAX_SHARES: u8 = 255;

/// Why a secret cannot be split or put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharingError {
    /// A share of another length than [`SHARE_LEN_BYTES`].
    #[error("a share has {SHARE_LEN_BYTES} bytes, not {len_bytes}")]
    Length {
        /// Its length.
        len_bytes: usize,
    },
    /// A number of a share is not below `2^31 - 1`.
    #[error("a share holds a number outside the field")]
    Field,
    /// The threshold is zero or larger than the number of shares.
    #[error("a threshold of {threshold} is not possible with {shares} shares")]
    Threshold {
        /// The threshold.
        threshold: u8,
        /// How many shares there would be.
        shares: u8,
    },
    /// Fewer shares than the threshold.
    #[error("{shares} shares of {threshold} that are needed")]
    TooFew {
        /// How many were given.
        shares: usize,
        /// How many are needed.
        threshold: usize,
    },
    /// Two shares of the same `x`.
    #[error("two shares have the same index {x}")]
    Duplicate {
        /// The index.
        x: u32,
    },
    /// The secret itself stands among the shares.
    #[error("the full key cannot be combined with shares")]
    FullKeyAmongShares,
    /// The entropy source gave no field element in many attempts.
    #[error("the entropy source is broken")]
    Entropy,
}

/// A share, or the secret itself; zeroized on drop, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Share {
    x: u32,
    y: [u32; LIMBS],
}

impl Share {
    /// A fresh secret, in the form an owner holds.
    pub fn generate_secret(entropy: &dyn Entropy) -> Result<Self, SharingError> {
        Ok(Self { x: 0, y: random_elements(entropy)? })
    }

    /// Splits the secret so that any `threshold` of the `shares` give it back.
    pub fn split(
        &self,
        threshold: u8,
        shares: u8,
        entropy: &dyn Entropy,
    ) -> Result<Vec<Self>, SharingError> {
        if threshold == 0 || threshold > shares {
            return Err(SharingError::Threshold { threshold, shares });
        }
        let mut coefficients = Zeroizing::new(vec![self.y]);
        for _ in 1..threshold {
            coefficients.push(random_elements(entropy)?);
        }
        let at = |x: u32| {
            let mut y = [0; LIMBS];
            for row in coefficients.iter().rev() {
                for (value, coefficient) in y.iter_mut().zip(row) {
                    let next = (u64::from(*value) * u64::from(x) + u64::from(*coefficient)) % PRIME;
                    *value = next as u32;
                }
            }
            Self { x, y }
        };
        Ok((1..=u32::from(shares)).map(at).collect())
    }

    /// The secret from `threshold` or more shares; the first `threshold` count.
    ///
    /// Wrong shares give a wrong secret: what it opens must authenticate.
    pub fn combine(shares: &[Self], threshold: usize) -> Result<Self, SharingError> {
        let too_few = SharingError::TooFew { shares: shares.len(), threshold };
        let used = match shares.get(..threshold) {
            None | Some([]) => return Err(too_few),
            Some(used) => used,
        };
        let mut secret = Self { x: 0, y: [0; LIMBS] };
        for (at, share) in used.iter().enumerate() {
            if share.x == 0 {
                return Err(SharingError::FullKeyAmongShares);
            }
            let weight = lagrange_at_zero(share, at, used)?;
            for (value, y) in secret.y.iter_mut().zip(share.y) {
                *value = ((u64::from(*value) + u64::from(y) * weight) % PRIME) as u32;
            }
        }
        Ok(secret)
    }

    /// The secret's index: 0 for the secret itself, else the share's place.
    pub fn index(&self) -> u32 {
        self.x
    }

    /// Whether this is the secret itself rather than a share.
    pub fn is_full_key(&self) -> bool {
        self.x == 0
    }

    /// The 44 bytes drawn above.
    pub fn encode(&self) -> Zeroizing<[u8; SHARE_LEN_BYTES]> {
        let mut bytes = Zeroizing::new([0; SHARE_LEN_BYTES]);
        let numbers = std::iter::once(&self.x).chain(&self.y);
        for (chunk, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            chunk.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads the 44 bytes drawn above.
    pub fn parse(bytes: &[u8]) -> Result<Self, SharingError> {
        if bytes.len() != SHARE_LEN_BYTES {
            return Err(SharingError::Length { len_bytes: bytes.len() });
        }
        let (numbers, _) = bytes.as_chunks::<4>();
        let mut numbers = numbers.iter().map(|chunk| u32::from_le_bytes(*chunk));
        let mut next = || {
            let number = numbers.next().unwrap_or_default();
            if u64::from(number) < PRIME { Ok(number) } else { Err(SharingError::Field) }
        };
        let mut share = Self { x: next()?, y: [0; LIMBS] };
        for y in &mut share.y {
            *y = next()?;
        }
        Ok(share)
    }

    /// The key that wraps the ledger secret, derived from the secret: HKDF-SHA256 without salt and
    /// with the secret's 40 bytes both as input and as info, which is what CCF does.
    pub fn wrapping_key(&self) -> AeadKey {
        let bytes = self.encode();
        let secret = bytes.get(4..).unwrap_or_default();
        #[expect(clippy::expect_used, reason = "32 bytes are below HKDF's limit")]
        let derived = hkdf_sha256(secret, b"", secret, 32).expect("32 bytes are always given");
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&derived);
        AeadKey::new(*key)
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({})", self.x)
    }
}

/// The weight of `share` in the interpolation at zero: the product of `x_j / (x_j - x)`.
fn lagrange_at_zero(share: &Share, at: usize, all: &[Share]) -> Result<u64, SharingError> {
    let (mut numerator, mut denominator) = (1, 1);
    for (other_at, other) in all.iter().enumerate() {
        if other_at == at {
            continue;
        }
        if other.x == share.x {
            return Err(SharingError::Duplicate { x: share.x });
        }
        numerator = numerator * u64::from(other.x) % PRIME;
        denominator = denominator * (PRIME + u64::from(other.x) - u64::from(share.x)) % PRIME;
    }
    // Fermat: a^(p-2) is the inverse of a.
    Ok(numerator * power(denominator, PRIME - 2) % PRIME)
}

fn power(base: u64, mut exponent: u64) -> u64 {
    let (mut square, mut result) = (base % PRIME, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * square % PRIME;
        }
        square = square * square % PRIME;
        exponent >>= 1;
    }
    result
}

/// Uniform field elements, by rejection: 31 random bits are one unless they are all ones.
fn random_elements(entropy: &dyn Entropy) -> Result<[u32; LIMBS], SharingError> {
    let mut elements = [0; LIMBS];
    for element in &mut elements {
        let mut drawn = None;
        for _ in 0..16 {
            let bits = u32::from_le_bytes(crate::entropy::random(entropy)) >> 1;
            if u64::from(bits) < PRIME {
                drawn = Some(bits);
                break;
            }
        }
        *element = drawn.ok_or(SharingError::Entropy)?;
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::testing::{Counter, Stuck};
    use crate::{GcmCipher, testing};

    #[test]
    fn recorded_services_recover_their_secrets() {
        let recorded = testing::vectors("ccf", "decryption.json");
        let mut checked = 0;
        for (_, text) in &recorded {
            let json: serde_json::Value = serde_json::from_slice(text).unwrap();
            for sharing in json["sharing"].as_array().unwrap() {
                let bytes = |name: &str| hex::decode(sharing[name].as_str().unwrap()).unwrap();
                let threshold = sharing["threshold"].as_u64().unwrap() as usize;
                let mut points: Vec<_> = sharing["points"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|point| Share::parse(&hex::decode(point.as_str().unwrap()).unwrap()))
                    .collect::<Result<_, _>>()
                    .unwrap();
                points.reverse();
                let key = Share::combine(&points, threshold).unwrap().wrapping_key();
                assert_eq!(key.as_bytes().to_vec(), bytes("wrapping_hex"));
                let wrapped = sharing["wrapped_b64"].as_str().unwrap();
                let wrapped = base64::engine::general_purpose::STANDARD.decode(wrapped).unwrap();
                let opened = GcmCipher::parse(&wrapped).unwrap().open(&key, b"").unwrap();
                assert_eq!(*opened, bytes("opens_to_hex"));
                checked += 1;
            }
        }
        assert!(recorded.is_empty() || checked >= 4, "only {checked} sharings found");
    }

    #[test]
    fn faults_are_named() {
        let secret = Share::generate_secret(&Counter::new(1)).unwrap();
        let shares = secret.split(2, 3, &Counter::new(2)).unwrap();
        let [a, b, _] = &shares[..] else { panic!() };
        let combine = |shares: &[&Share], threshold| {
            let shares: Vec<Share> = shares.iter().map(|share| (*share).clone()).collect();
            Share::combine(&shares, threshold)
        };
        assert_eq!(combine(&[a], 2), Err(SharingError::TooFew { shares: 1, threshold: 2 }));
        assert_eq!(combine(&[], 0), Err(SharingError::TooFew { shares: 0, threshold: 0 }));
        assert_eq!(combine(&[a, a], 2), Err(SharingError::Duplicate { x: 1 }));
        assert_eq!(combine(&[a, &secret], 2), Err(SharingError::FullKeyAmongShares));
        assert_eq!(combine(&[b, a], 2), Ok(secret.clone()));
        for (threshold, shares) in [(0, 1), (2, 1), (0, 0), (255, 254)] {
            assert_eq!(
                secret.split(threshold, shares, &Counter::new(1)),
                Err(SharingError::Threshold { threshold, shares })
            );
        }
        assert_eq!(Share::generate_secret(&Stuck(0xff)), Err(SharingError::Entropy));
        assert_eq!(Share::parse(&[0; 43]), Err(SharingError::Length { len_bytes: 43 }));
        assert_eq!(Share::parse(&[0xff; 44]), Err(SharingError::Field));
        let mut top = [0; 44];
        top[40..].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        assert_eq!(Share::parse(&top), Err(SharingError::Field));
        assert_eq!(format!("{a:?}"), "Share(1)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_threshold_of_the_shares_is_enough_and_fewer_are_not(
            seed: u32, threshold in 1_u8..=20, more in 0_u8..=20, order: u64,
        ) {
            let entropy = Counter::new(seed.into());
            let secret = Share::generate_secret(&entropy).unwrap();
            let mut shares = secret.split(threshold, threshold + more, &entropy).unwrap();
            shares.sort_by_key(|share| order.rotate_left(share.x) % 61);
            let threshold = usize::from(threshold);
            prop_assert_eq!(Share::combine(&shares, threshold).unwrap(), secret.clone());
            if threshold > 1 {
                prop_assert_ne!(Share::combine(&shares, threshold - 1).unwrap(), secret);
            }
        }

        #[test]
        fn shares_come_back(bytes in prop::collection::vec(any::<u8>(), 40..48)) {
            if let Ok(share) = Share::parse(&bytes) {
                prop_assert_eq!(share.encode().to_vec(), bytes);
            }
        }

        #[test]
        fn hostile_shares_combine_without_panic(
            points in prop::collection::vec((0..u32::MAX >> 1, prop::array::uniform10(0..u32::MAX >> 1)), 0..6),
            threshold in 0_usize..8,
        ) {
            let shares: Vec<_> = points.into_iter().map(|(x, y)| Share { x, y }).collect();
            let _ = Share::combine(&shares, threshold);
        }
    }
}
