//! Key wrapping of `ccf.crypto`: AES-KWP (RFC 5649), RSA-OAEP, and the two combined as PKCS#11's
//! `CKM_RSA_AES_KEY_WRAP` does.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use crate::{Entropy, RsaError, RsaKeyPair, RsaPublicKey};

/// Longest key that is wrapped.
pub const WRAPPED_KEY_MAX_LEN_BYTES: usize = 64 * 1024;
/// The alternative initial value of RFC 5649 section 3, before the length.
const INITIAL_VALUE: [u8; 4] = [0xa6, 0x59, 0x59, 0xa6];

/// Why a key is not wrapped or unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyWrapError {
    /// An AES key has 128, 192 or 256 bits.
    #[error("an AES key has 128, 192 or 256 bits, not {bits}")]
    AesKeySize {
        /// What was given or asked for.
        bits: usize,
    },
    /// Empty, or longer than [`WRAPPED_KEY_MAX_LEN_BYTES`].
    #[error("a key of {len_bytes} bytes cannot be wrapped (1 to {WRAPPED_KEY_MAX_LEN_BYTES})")]
    Length {
        /// Its length.
        len_bytes: usize,
    },
    /// The wrapped key is not authentic under this wrapping key.
    #[error("the wrapped key does not unwrap under this key")]
    NotAuthentic,
    /// The RSA part failed.
    #[error(transparent)]
    Rsa(#[from] RsaError),
}

/// A fresh AES key of 128, 192 or 256 bits.
pub fn generate_aes_key(
    bits: usize,
    entropy: &dyn Entropy,
) -> Result<Zeroizing<Vec<u8>>, KeyWrapError> {
    if !matches!(bits, 128 | 192 | 256) {
        return Err(KeyWrapError::AesKeySize { bits });
    }
    let mut key = Zeroizing::new(vec![0; bits / 8]);
    entropy.fill(&mut key);
    Ok(key)
}

/// Wraps a key under an AES key, RFC 5649.
pub fn wrap_aes_kwp(wrapping_key: &[u8], key: &[u8]) -> Result<Vec<u8>, KeyWrapError> {
    let cipher = EncryptingKey::ecb(cipher_key(wrapping_key)?)
        .map_err(|_| KeyWrapError::AesKeySize { bits: wrapping_key.len() * 8 })?;
    let encrypt = |block: &mut [u8; 16]| {
        cipher.encrypt(block).map(|_| ()).map_err(|_| KeyWrapError::NotAuthentic)
    };
    let too_long = KeyWrapError::Length { len_bytes: key.len() };
    let len = u32::try_from(key.len()).map_err(|_| too_long)?;
    if key.is_empty() || key.len() > WRAPPED_KEY_MAX_LEN_BYTES {
        return Err(too_long);
    }
    let mut register = join(INITIAL_VALUE, len.to_be_bytes());
    let mut padded = Zeroizing::new(key.to_vec());
    padded.resize(key.len().next_multiple_of(8), 0);
    let (blocks, _) = padded.as_chunks_mut::<8>();
    if let [only] = blocks {
        let mut block = join(register, *only);
        encrypt(&mut block)?;
        return Ok(block.to_vec());
    }
    let mut step = 0_u64;
    for _ in 0..6 {
        for half in &mut *blocks {
            step += 1;
            let mut block: [u8; 16] = join(register, *half);
            encrypt(&mut block)?;
            (register, *half) = split(block);
            register = xor(register, step);
        }
    }
    Ok([&register, blocks.as_flattened()].concat())
}

/// Unwraps what [`wrap_aes_kwp`] made.
pub fn unwrap_aes_kwp(
    wrapping_key: &[u8],
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyWrapError> {
    let cipher = DecryptingKey::ecb(cipher_key(wrapping_key)?)
        .map_err(|_| KeyWrapError::AesKeySize { bits: wrapping_key.len() * 8 })?;
    let decrypt = |block: &mut [u8; 16]| {
        cipher
            .decrypt(block, DecryptionContext::None)
            .map(|_| ())
            .map_err(|_| KeyWrapError::NotAuthentic)
    };
    if wrapped.len() > WRAPPED_KEY_MAX_LEN_BYTES + 16 {
        return Err(KeyWrapError::Length { len_bytes: wrapped.len() });
    }
    let (mut register, rest) = wrapped
        .split_first_chunk()
        .ok_or(KeyWrapError::NotAuthentic)
        .map(|(first, rest)| (*first, rest))?;
    if rest.is_empty() || rest.len() % 8 != 0 {
        return Err(KeyWrapError::NotAuthentic);
    }
    let mut padded = Zeroizing::new(rest.to_vec());
    let (blocks, _) = padded.as_chunks_mut::<8>();
    if let [only] = blocks {
        let mut block = join(register, *only);
        decrypt(&mut block)?;
        (register, *only) = split(block);
    } else {
        let mut step = 6 * blocks.len() as u64;
        for _ in 0..6 {
            for half in blocks.iter_mut().rev() {
                let mut block: [u8; 16] = join(xor(register, step), *half);
                decrypt(&mut block)?;
                (register, *half) = split(block);
                step -= 1;
            }
        }
    }
    let (value, len): ([u8; 4], [u8; 4]) = split(register);
    let len = u32::from_be_bytes(len) as usize;
    let padding = padded.get(len..).filter(|zeros| len > 0 && zeros.len() < 8);
    let zeros = padding.is_some_and(|zeros| zeros.iter().fold(0, |sum, byte| sum | byte) == 0);
    if verify_slices_are_equal(&value, &INITIAL_VALUE).is_err() || !zeros {
        return Err(KeyWrapError::NotAuthentic);
    }
    padded.truncate(len);
    Ok(padded)
}

/// Wraps a key of any length: a fresh AES key under RSA-OAEP, then the key under that AES key.
pub fn wrap_rsa_aes_kwp(
    wrapping_key: &RsaPublicKey,
    aes_key_bits: usize,
    label: &[u8],
    key: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, KeyWrapError> {
    let aes_key = generate_aes_key(aes_key_bits, entropy)?;
    let mut wrapped = wrapping_key.encrypt_oaep(&aes_key, label)?;
    wrapped.extend(wrap_aes_kwp(&aes_key, key)?);
    Ok(wrapped)
}

/// Unwraps what [`wrap_rsa_aes_kwp`] made; the AES key's size is in it.
pub fn unwrap_rsa_aes_kwp(
    wrapping_key: &RsaKeyPair,
    label: &[u8],
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyWrapError> {
    let modulus_len = wrapping_key.public().modulus().len();
    let (aes_key, wrapped) =
        wrapped.split_at_checked(modulus_len).ok_or(KeyWrapError::NotAuthentic)?;
    unwrap_aes_kwp(&wrapping_key.decrypt_oaep(aes_key, label)?, wrapped)
}

fn cipher_key(key: &[u8]) -> Result<UnboundCipherKey, KeyWrapError> {
    let refused = KeyWrapError::AesKeySize { bits: key.len().saturating_mul(8) };
    let algorithm = match key.len() {
        16 => &AES_128,
        24 => &AES_192,
        32 => &AES_256,
        _ => return Err(refused),
    };
    UnboundCipherKey::new(algorithm, key).map_err(|_| refused)
}

fn join<const HALF: usize, const WHOLE: usize>(left: [u8; HALF], right: [u8; HALF]) -> [u8; WHOLE] {
    const { assert!(WHOLE == 2 * HALF) };
    let mut whole = [0; WHOLE];
    for (to, from) in whole.iter_mut().zip(left.into_iter().chain(right)) {
        *to = from;
    }
    whole
}

fn split<const HALF: usize, const WHOLE: usize>(whole: [u8; WHOLE]) -> ([u8; HALF], [u8; HALF]) {
    const { assert!(WHOLE == 2 * HALF) };
    let (mut left, mut right) = ([0; HALF], [0; HALF]);
    for (to, from) in left.iter_mut().chain(&mut right).zip(whole) {
        *to = from;
    }
    (left, right)
}

fn xor(register: [u8; 8], step: u64) -> [u8; 8] {
    (u64::from_be_bytes(register) ^ step).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::key_wrap::{self, KeyWrapPadded as _};
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::testing::Counter;

    #[test]
    fn the_examples_of_rfc_5649() {
        let kek = hex::decode("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8").unwrap();
        for (key, wrapped) in [
            (
                "c37b7e6492584340bed12207808941155068f738",
                "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
            ),
            ("466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"),
        ] {
            let key = hex::decode(key).unwrap();
            let made = wrap_aes_kwp(&kek, &key).unwrap();
            assert_eq!(hex::encode(&made), wrapped);
            assert_eq!(*unwrap_aes_kwp(&kek, &made).unwrap(), key);
        }
    }

    #[test]
    fn faults_are_named() {
        let kek = [1; 16];
        assert_eq!(wrap_aes_kwp(&[0; 15], b"k"), Err(KeyWrapError::AesKeySize { bits: 120 }));
        assert_eq!(wrap_aes_kwp(&kek, b""), Err(KeyWrapError::Length { len_bytes: 0 }));
        let long = vec![0; WRAPPED_KEY_MAX_LEN_BYTES + 1];
        let too_long = KeyWrapError::Length { len_bytes: long.len() };
        assert_eq!(wrap_aes_kwp(&kek, &long), Err(too_long));
        for bad in [&[][..], &[0; 7], &[0; 8], &[0; 15], &[0; 16], &[0; 17], &[0; 24]] {
            assert_eq!(unwrap_aes_kwp(&kek, bad), Err(KeyWrapError::NotAuthentic));
        }
        assert!(matches!(
            unwrap_aes_kwp(&kek, &vec![0; WRAPPED_KEY_MAX_LEN_BYTES + 24]),
            Err(KeyWrapError::Length { .. })
        ));
        assert_eq!(
            generate_aes_key(100, &Counter::new(0)),
            Err(KeyWrapError::AesKeySize { bits: 100 })
        );
    }

    #[test]
    fn rsa_and_aes_together() {
        let rsa = crate::rsa::tests::key();
        for bits in [128, 192, 256] {
            let entropy = Counter::new(3);
            let key = vec![7; 3000];
            let wrapped = wrap_rsa_aes_kwp(rsa.public(), bits, b"l", &key, &entropy).unwrap();
            assert_eq!(*unwrap_rsa_aes_kwp(rsa, b"l", &wrapped).unwrap(), key);
            assert!(unwrap_rsa_aes_kwp(rsa, b"", &wrapped).is_err());
            assert!(unwrap_rsa_aes_kwp(rsa, b"l", &wrapped[..300]).is_err());
            assert_eq!(
                unwrap_rsa_aes_kwp(rsa, b"l", &wrapped[..255]),
                Err(KeyWrapError::NotAuthentic)
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_same_as_the_librarys_where_it_has_the_key_size(
            kek in prop_oneof![
                prop::collection::vec(any::<u8>(), 16), prop::collection::vec(any::<u8>(), 32)
            ],
            key in prop::collection::vec(any::<u8>(), 1..70),
            flip in any::<prop::sample::Index>(), bit in 0_u32..8,
        ) {
            let cipher = if kek.len() == 16 { &key_wrap::AES_128 } else { &key_wrap::AES_256 };
            let mut out = vec![0; key.len() + 15];
            let theirs = key_wrap::AesKek::new(cipher, &kek).unwrap()
                .wrap_with_padding(&key, &mut out).unwrap();
            let mut ours = wrap_aes_kwp(&kek, &key).unwrap();
            prop_assert_eq!(&ours, theirs);
            prop_assert_eq!(&*unwrap_aes_kwp(&kek, &ours).unwrap(), &key);
            let at = flip.index(ours.len());
            ours[at] ^= 1_u8 << bit;
            prop_assert_eq!(unwrap_aes_kwp(&kek, &ours), Err(KeyWrapError::NotAuthentic));
        }

        #[test]
        fn any_bytes_unwrap_without_panic(bytes: Vec<u8>, kek: [u8; 24]) {
            prop_assert!(unwrap_aes_kwp(&kek, &bytes).is_err());
        }
    }
}
