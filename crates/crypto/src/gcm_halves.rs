//! The two halves of AES-256-GCM (NIST SP 800-38D, section 7), for messages that are never in
//! memory as a whole: one encrypts or decrypts them piece by piece, the other makes their tag.

use aws_lc_rs::cipher::{AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use zeroize::Zeroizing;

use crate::{AeadKey, GcmNonce, GcmTag, NotAuthentic};

const BLOCK_BYTES: usize = 16;

/// What a message is combined with, in order: the same to encrypt it and to decrypt it.
pub struct GcmKeystream(StreamingEncryptingKey);

impl GcmKeystream {
    /// The stream of the message that has this nonce.
    pub fn new(key: &AeadKey, nonce: GcmNonce) -> Self {
        Self::with_mask(key, nonce).0
    }

    /// The stream, and the block before it, which masks the tag.
    fn with_mask(key: &AeadKey, nonce: GcmNonce) -> (Self, [u8; BLOCK_BYTES]) {
        let mut counter = [0; BLOCK_BYTES];
        let (start, number) = counter.split_at_mut(nonce.len());
        start.copy_from_slice(&nonce);
        number.copy_from_slice(&1_u32.to_be_bytes());
        let mut stream = Self::at(key, counter);
        let mask = stream.block();
        (stream, mask)
    }

    fn at(key: &AeadKey, counter: [u8; BLOCK_BYTES]) -> Self {
        let context = EncryptionContext::Iv128(counter.into());
        let stream = UnboundCipherKey::new(&AES_256, key.as_bytes())
            .and_then(|key| StreamingEncryptingKey::less_safe_ctr(key, context));
        #[expect(clippy::expect_used, reason = "key and counter have the lengths of AES-256")]
        Self(stream.expect("AES-256 takes any 32 bytes"))
    }

    fn block(&mut self) -> [u8; BLOCK_BYTES] {
        let mut encrypted = Vec::with_capacity(2 * BLOCK_BYTES);
        self.apply(&[0; BLOCK_BYTES], &mut encrypted);
        encrypted.first_chunk().copied().unwrap_or_default()
    }

    /// Appends the next piece of the message, encrypted or decrypted, to `to`.
    pub fn apply(&mut self, piece: &[u8], to: &mut Vec<u8>) {
        let (start, end) = (to.len(), to.len() + piece.len());
        // The cipher asks for the room of almost a block more than it fills.
        to.resize(end + BLOCK_BYTES, 0);
        let room = to.get_mut(start..).unwrap_or_default();
        #[expect(clippy::expect_used, reason = "the room is what the cipher asks for")]
        self.0.update(piece, room).expect("pieces are far below 2 GiB");
        to.truncate(end);
    }
}

/// The tag of a message in the making.
pub struct GcmAuthenticator {
    hash: GHash,
    mask: [u8; BLOCK_BYTES],
    /// What did not fill a block yet.
    begun: Vec<u8>,
    aad_bytes: u64,
    ciphertext_bytes: u64,
}

impl GcmAuthenticator {
    /// Of the message that has this nonce. Nothing is in it yet.
    pub fn new(key: &AeadKey, nonce: GcmNonce) -> Self {
        let hash_key = Zeroizing::new(GcmKeystream::at(key, [0; BLOCK_BYTES]).block());
        Self {
            hash: GHash::new(&(*hash_key).into()),
            mask: GcmKeystream::with_mask(key, nonce).1,
            begun: Vec::with_capacity(BLOCK_BYTES),
            aad_bytes: 0,
            ciphertext_bytes: 0,
        }
    }

    /// Adds a piece of the additional data, all of which comes before the ciphertext.
    pub fn aad(&mut self, piece: &[u8]) {
        self.aad_bytes += piece.len() as u64;
        self.hash(piece);
    }

    /// Adds a piece of the ciphertext.
    pub fn ciphertext(&mut self, piece: &[u8]) {
        if self.ciphertext_bytes == 0 && !piece.is_empty() {
            self.fill_block();
        }
        self.ciphertext_bytes += piece.len() as u64;
        self.hash(piece);
    }

    /// The tag of all that was added.
    pub fn tag(mut self) -> GcmTag {
        self.fill_block();
        let bits = [8 * self.aad_bytes, 8 * self.ciphertext_bytes].map(u64::to_be_bytes);
        self.hash(bits.as_flattened());
        let mut tag = GcmTag::from(self.hash.finalize());
        tag.iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
        tag
    }

    /// Whether this is the tag of all that was added.
    ///
    /// # Errors
    /// If it is not.
    pub fn verify(self, tag: &GcmTag) -> Result<(), NotAuthentic> {
        verify_slices_are_equal(&self.tag(), tag).map_err(|_| NotAuthentic)
    }

    fn hash(&mut self, mut piece: &[u8]) {
        if !self.begun.is_empty() {
            let missing = piece.len().min(BLOCK_BYTES - self.begun.len());
            let (head, rest) = piece.split_at(missing);
            self.begun.extend_from_slice(head);
            piece = rest;
            if self.begun.len() < BLOCK_BYTES {
                return;
            }
            self.fill_block();
        }
        let (blocks, rest) = piece.split_at(piece.len() - piece.len() % BLOCK_BYTES);
        self.hash.update_padded(blocks);
        self.begun.extend_from_slice(rest);
    }

    fn fill_block(&mut self) {
        self.hash.update_padded(&self.begun);
        self.begun.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cuts a message where it is told, over and over.
    fn pieces<'a>(mut rest: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut cuts = cuts.iter().cycle();
        std::iter::from_fn(move || {
            let cut = cuts.next().map_or(rest.len(), |cut| rest.len().min(*cut));
            let (piece, after) = rest.split_at(cut);
            rest = after;
            (!piece.is_empty() || !rest.is_empty()).then_some(piece)
        })
    }

    proptest! {
        #[test]
        fn the_halves_make_the_whole(
            raw: [u8; 32], nonce: GcmNonce,
            aad in prop::collection::vec(any::<u8>(), 0..200),
            message in prop::collection::vec(any::<u8>(), 0..600),
            cuts in prop::collection::vec(0_usize..100, 0..5), last in 1_usize..100,
        ) {
            let cuts = [&cuts[..], &[last]].concat();
            let key = AeadKey::new(raw);
            let mut whole = message.clone();
            let tag = key.seal_in_place(nonce, &aad, &mut whole);

            let (mut stream, mut back) =
                (GcmKeystream::new(&key, nonce), GcmKeystream::new(&key, nonce));
            let mut authenticator = GcmAuthenticator::new(&key, nonce);
            let (mut encrypted, mut decrypted) = (Vec::new(), Vec::new());
            pieces(&message, &cuts).for_each(|piece| stream.apply(piece, &mut encrypted));
            pieces(&aad, &cuts).for_each(|piece| authenticator.aad(piece));
            pieces(&encrypted, &cuts).for_each(|piece| authenticator.ciphertext(piece));
            pieces(&encrypted, &cuts).for_each(|piece| back.apply(piece, &mut decrypted));
            prop_assert_eq!(&encrypted, &whole);
            prop_assert_eq!(&decrypted, &message);
            prop_assert_eq!(authenticator.tag(), tag);
        }

        #[test]
        fn another_tag_is_refused(bit in 0_usize..128, message: Vec<u8>) {
            let key = AeadKey::new([7; 32]);
            let authenticator = || {
                let mut authenticator = GcmAuthenticator::new(&key, [1; 12]);
                authenticator.ciphertext(&message);
                authenticator
            };
            let mut tag = authenticator().tag();
            prop_assert_eq!(authenticator().verify(&tag), Ok(()));
            tag[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(authenticator().verify(&tag), Err(NotAuthentic));
        }
    }
}
