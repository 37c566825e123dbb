//! From a state to the bytes of a snapshot, a piece at a time.
//!
//! ```text
//! state ─▶ pieces of its maps ─▶ front, with the tag of them all
//! ```
//! The front of the file comes last, since the tag in it is made of what follows: so no more than a
//! piece is in memory as bytes.

use coco_crypto::{Digest, GcmAuthenticator, GcmKeystream};
use coco_kv::{Entry, IntoEntries, Key, MapName, Seqno, Snapshot, StateMap};
use zeroize::Zeroizing;

use super::{SNAPSHOT_TYPE, SnapshotError, padding};
use crate::entry::{
    EntryError, FIXED_BYTES, FRAME_HEADER_BYTES, FRAME_VERSION, MAX_ENTRY_BYTES, SNAPSHOT_BIT,
    nonce,
};
use crate::history::ViewHistory;
use crate::secret::LedgerSecret;

/// As many bytes come at a time, or an entry more.
const PIECE_BYTES: usize = 1 << 20;

/// Serialises and encrypts a state: the pieces of its maps, which begin at
/// [`SnapshotEncoder::front_bytes`] of the file, then its front. A receipt is to follow them.
///
/// While a state is held, every write elsewhere copies what it touches: each part of it is let go
/// of once it was given.
pub struct SnapshotEncoder {
    nonce: [u8; 12],
    public_head: Vec<u8>,
    /// What was given of the two domains.
    public_bytes: u64,
    private_bytes: u64,
    /// Maps that were not begun, the next one last.
    maps: Vec<(MapName, StateMap)>,
    /// Entries of the map that was, and whether it is public.
    begun: Option<(bool, IntoEntries)>,
    stream: GcmKeystream,
    authenticator: GcmAuthenticator,
}

impl SnapshotEncoder {
    /// Begins with a state. `leaf` is the Merkle leaf of its position, whose transaction is a
    /// signature transaction; `secret` the one valid there.
    pub fn new(state: Snapshot, leaf: Digest, views: &ViewHistory, secret: &LedgerSecret) -> Self {
        let seqno = state.tx_id().seqno;
        let nonce = nonce(seqno.0, SNAPSHOT_BIT);
        let mut public_head = vec![SNAPSHOT_TYPE];
        push_u64(&mut public_head, seqno.0);
        push_u64(&mut public_head, 0);
        push_bytes64(&mut public_head, &leaf.0);
        push_u64(&mut public_head, 8 * views.starts().len() as u64);
        views.starts().iter().for_each(|start| push_u64(&mut public_head, start.0));
        let mut authenticator = GcmAuthenticator::new(secret.key(), nonce);
        authenticator.aad(&public_head);

        let (public, private): (Vec<_>, Vec<_>) =
            state.into_maps().partition(|(name, _)| name.is_public());
        Self {
            nonce,
            public_bytes: public_head.len() as u64,
            private_bytes: 0,
            public_head,
            maps: public.into_iter().chain(private).rev().collect(),
            begun: None,
            stream: GcmKeystream::new(secret.key(), nonce),
            authenticator,
        }
    }

    /// Bytes before the first piece.
    pub fn front_bytes(&self) -> u64 {
        (FIXED_BYTES + self.public_head.len()) as u64
    }

    /// The next piece, of about a MiB; none if there are no more.
    ///
    /// # Errors
    /// If the snapshot is larger than readers accept.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        let Some(is_public) = self.is_next_public() else { return Ok(None) };
        let mut plaintext = Zeroizing::new(Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8));
        while plaintext.len() < PIECE_BYTES && self.is_next_public() == Some(is_public) {
            match &mut self.begun {
                Some((_, entries)) => match entries.next() {
                    Some((key, entry)) => push_entry(&mut plaintext, &key, &entry),
                    None => self.begun = None,
                },
                None => self.begin_map(&mut plaintext),
            }
        }
        let piece = if is_public {
            let piece = std::mem::take(&mut *plaintext);
            self.public_bytes += piece.len() as u64;
            self.authenticator.aad(&piece);
            piece
        } else {
            let mut piece = Vec::with_capacity(plaintext.len() + 16);
            self.private_bytes += plaintext.len() as u64;
            self.stream.apply(&plaintext, &mut piece);
            self.authenticator.ciphertext(&piece);
            piece
        };
        match self.size() {
            ..=MAX_ENTRY_BYTES => Ok(Some(piece)),
            too_large => Err(EntryError::Size(too_large).into()),
        }
    }

    /// What the file begins with, when all pieces were given.
    pub fn front(self) -> Vec<u8> {
        let mut front = Vec::with_capacity(FIXED_BYTES + self.public_head.len());
        push_u64(&mut front, self.size() << 16 | u64::from(FRAME_VERSION));
        front.extend_from_slice(&self.authenticator.tag());
        front.extend_from_slice(&self.nonce);
        push_u64(&mut front, self.public_bytes);
        front.extend_from_slice(&self.public_head);
        front
    }

    /// Bytes after the frame's header.
    fn size(&self) -> u64 {
        (FIXED_BYTES - FRAME_HEADER_BYTES) as u64 + self.public_bytes + self.private_bytes
    }

    fn is_next_public(&self) -> Option<bool> {
        let begun = self.begun.as_ref().map(|(is_public, _)| *is_public);
        begun.or_else(|| self.maps.last().map(|(name, _)| name.is_public()))
    }

    fn begin_map(&mut self, out: &mut Vec<u8>) {
        let Some((name, map)) = self.maps.pop() else { return };
        let mut version = Seqno(0);
        let mut state_bytes = 0;
        for (key, entry) in map.iter() {
            let (key_bytes, value_bytes) = (key.len() as u64, entry.value.len() as u64);
            state_bytes += 8 + key_bytes + padding(key_bytes);
            state_bytes += 16 + value_bytes + padding(value_bytes);
            version = version.max(entry.version);
        }
        push_bytes64(out, name.as_str().as_bytes());
        push_u64(out, version.0);
        push_u64(out, state_bytes);
        self.begun = Some((name.is_public(), map.into_entries()));
    }
}

fn push_entry(out: &mut Vec<u8>, key: &Key, entry: &Entry) {
    push_bytes64(out, key);
    pad(out, key.len());
    push_u64(out, 8 + entry.value.len() as u64);
    push_u64(out, entry.version.0);
    out.extend_from_slice(&entry.value);
    pad(out, entry.value.len());
}

fn push_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn push_bytes64(out: &mut Vec<u8>, bytes: &[u8]) {
    push_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn pad(out: &mut Vec<u8>, length: usize) {
    out.resize(out.len() + padding(length as u64) as usize, 0);
}
