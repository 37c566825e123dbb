//! AES-256-GCM, and CCF's container for a self-contained ciphertext.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::Entropy;

/// A GCM nonce. Never used twice under one key: the caller derives it from a counter, or draws it
/// at random for keys that seal few messages.
pub type GcmNonce = [u8; 12];
/// A GCM authentication tag.
pub type GcmTag = [u8; 16];

/// The ciphertext, its additional data or its tag are not what was sealed under this key and nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext does not authenticate under this key")]
pub struct NotAuthentic;

/// An AES-256 key for GCM; zeroized on drop, never printed.
pub struct AeadKey {
    raw: Zeroizing<[u8; 32]>,
    /// The expanded key: expanding costs as much as sealing a small entry.
    cipher: LessSafeKey,
}

impl AeadKey {
    /// The key of these 32 bytes.
    pub fn new(raw: [u8; 32]) -> Self {
        let raw = Zeroizing::new(raw);
        #[expect(clippy::expect_used, reason = "a 32-byte key is the only requirement")]
        let key = UnboundKey::new(&AES_256_GCM, &*raw).expect("AES-256 takes any 32 bytes");
        Self { raw, cipher: LessSafeKey::new(key) }
    }

    /// A fresh random key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut raw = Zeroizing::new([0; 32]);
        entropy.fill(&mut *raw);
        Self::new(*raw)
    }

    /// The key itself, for wrapping and for deriving from it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.raw
    }

    /// Encrypts `data` where it lies and returns the tag, which also covers `aad`.
    pub fn seal_in_place(&self, nonce: GcmNonce, aad: &[u8], data: &mut [u8]) -> GcmTag {
        #[expect(clippy::expect_used, reason = "only messages of 64 GiB and more are refused")]
        let tag = self
            .cipher
            .seal_in_place_separate_tag(Nonce::from(&nonce), Aad::from(aad), data)
            .expect("entries, snapshots and messages are bounded far below 64 GiB");
        let mut bytes = [0; 16];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Decrypts `data` where it lies; on failure its content is lost.
    pub fn open_in_place(
        &self,
        nonce: GcmNonce,
        aad: &[u8],
        tag: &GcmTag,
        data: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        self.cipher
            .open_in_place_separate_tag(Nonce::from(&nonce), Aad::from(aad), tag, data)
            .map(|_| ())
            .map_err(|_| NotAuthentic)
    }
}

impl Clone for AeadKey {
    fn clone(&self) -> Self {
        Self::new(*self.raw)
    }
}

impl PartialEq for AeadKey {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&*self.raw, &*other.raw).is_ok()
    }
}

impl Eq for AeadKey {}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

/// CCF's `GcmCipher`: a sealed message with its own nonce.
///
/// ```text
/// +0   16  tag
/// +16  12  iv
/// +28  ..  ciphertext, as long as the plaintext
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcmCipher {
    /// The authentication tag.
    pub tag: GcmTag,
    /// The nonce.
    pub iv: GcmNonce,
    /// The encrypted bytes.
    pub ciphertext: Vec<u8>,
}

/// Fewer bytes than the tag and nonce of a [`GcmCipher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed message starts with 28 bytes of tag and nonce, got {len_bytes}")]
pub struct GcmCipherTooShort {
    /// How many bytes there were.
    pub len_bytes: usize,
}

impl GcmCipher {
    /// Seals `plaintext` under a nonce the caller vouches for.
    pub fn seal(key: &AeadKey, iv: GcmNonce, aad: &[u8], plaintext: &[u8]) -> Self {
        let mut ciphertext = plaintext.to_vec();
        let tag = key.seal_in_place(iv, aad, &mut ciphertext);
        Self { tag, iv, ciphertext }
    }

    /// Seals `plaintext` under a random nonce.
    pub fn seal_random(key: &AeadKey, entropy: &dyn Entropy, aad: &[u8], plaintext: &[u8]) -> Self {
        Self::seal(key, crate::entropy::random(entropy), aad, plaintext)
    }

    /// The plaintext, if tag, nonce, ciphertext and `aad` belong together under `key`.
    pub fn open(&self, key: &AeadKey, aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let mut plaintext = Zeroizing::new(self.ciphertext.clone());
        key.open_in_place(self.iv, aad, &self.tag, &mut plaintext)?;
        Ok(plaintext)
    }

    /// The bytes as laid out above.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28 + self.ciphertext.len());
        bytes.extend_from_slice(&self.tag);
        bytes.extend_from_slice(&self.iv);
        bytes.extend_from_slice(&self.ciphertext);
        bytes
    }

    /// Splits bytes laid out as above; nothing is authenticated before [`GcmCipher::open`].
    pub fn parse(bytes: &[u8]) -> Result<Self, GcmCipherTooShort> {
        let too_short = GcmCipherTooShort { len_bytes: bytes.len() };
        let (tag, rest) = bytes.split_first_chunk().ok_or(too_short)?;
        let (iv, ciphertext) = rest.split_first_chunk().ok_or(too_short)?;
        Ok(Self { tag: *tag, iv: *iv, ciphertext: ciphertext.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gcm_of_the_nist_test_case_16() {
        let key = AeadKey::new(
            hex::decode("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
                .unwrap()
                .try_into()
                .unwrap(),
        );
        let iv = hex::decode("cafebabefacedbaddecaf888").unwrap().try_into().unwrap();
        let aad = hex::decode("feedfacedeadbeeffeedfacedeadbeefabaddad2").unwrap();
        let plaintext = hex::decode(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ))
        .unwrap();
        let sealed = GcmCipher::seal(&key, iv, &aad, &plaintext);
        assert_eq!(
            hex::encode(&sealed.ciphertext),
            concat!(
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
            )
        );
        assert_eq!(hex::encode(sealed.tag), "76fc6ece0f4e1768cddf8853bb2d551b");
    }

    #[test]
    fn short_messages_are_refused() {
        for len_bytes in 0..28 {
            assert_eq!(GcmCipher::parse(&vec![0; len_bytes]), Err(GcmCipherTooShort { len_bytes }));
        }
        let empty = GcmCipher::parse(&[0; 28]).unwrap();
        assert_eq!(empty.open(&AeadKey::new([0; 32]), b""), Err(NotAuthentic));
    }

    #[test]
    fn keys_do_not_print() {
        assert_eq!(format!("{:?}", AeadKey::new([7; 32])), "AeadKey(..)");
    }

    proptest! {
        #[test]
        fn seals_open_and_any_flipped_bit_does_not(
            raw: [u8; 32], iv: [u8; 12], aad: Vec<u8>, plaintext: Vec<u8>, flip: prop::sample::Index, bit in 0_u32..8,
        ) {
            let key = AeadKey::new(raw);
            let sealed = GcmCipher::seal(&key, iv, &aad, &plaintext);
            let mut bytes = sealed.encode();
            prop_assert_eq!(bytes.len(), plaintext.len() + 28);
            let parsed = GcmCipher::parse(&bytes).unwrap();
            prop_assert_eq!(&parsed, &sealed);
            prop_assert_eq!(&*parsed.open(&key, &aad).unwrap(), &plaintext);

            let at = flip.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(GcmCipher::parse(&bytes).unwrap().open(&key, &aad), Err(NotAuthentic));
            let mut other_aad = aad.clone();
            other_aad.push(0);
            prop_assert_eq!(sealed.open(&key, &other_aad), Err(NotAuthentic));
        }
    }
}
