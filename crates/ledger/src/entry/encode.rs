//! From a write set to an entry.

use coco_crypto::{Digest, sha256};
use coco_kv::{TxId, WriteSet};

use super::domain::{block_bytes, write_block};
use super::{
    EntryFlags, EntryType, FIXED_BYTES, FRAME_HEADER_BYTES, FRAME_VERSION, MAX_ENTRY_BYTES,
    SNAPSHOT_BIT, leaf_digest,
};
use crate::secret::{CommitEvidence, LedgerSecret};

/// A transaction cannot be written to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Views have 31 bits in an entry.
    #[error("view {0} does not fit an entry")]
    ViewTooLarge(u64),
    /// The entry would be larger than readers accept.
    #[error("the entry would take {0} bytes, more than {MAX_ENTRY_BYTES}")]
    TooLarge(u64),
}

/// A transaction ready for the ledger, and the digests it is known by.
#[derive(Clone, Debug)]
pub struct EncodedEntry {
    /// Its view and seqno.
    pub tx_id: TxId,
    /// The bytes of the ledger.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes.
    pub write_set_digest: Digest,
    /// What a receipt reveals; secret until commit.
    pub commit_evidence: CommitEvidence,
    /// What the application claims; zero if nothing.
    pub claims_digest: Digest,
    /// The leaf of the Merkle tree.
    pub leaf: Digest,
}

/// Serialises and encrypts a transaction.
///
/// # Errors
/// If the view has more than 31 bits, or the entry more than [`MAX_ENTRY_BYTES`].
pub fn encode_entry(
    tx_id: TxId,
    writes: &WriteSet,
    claims_digest: Digest,
    secret: &LedgerSecret,
    flags: EntryFlags,
) -> Result<EncodedEntry, EncodeError> {
    let head = Head {
        entry_type: EntryType::WithCommitEvidenceAndClaims,
        flags,
        claims_digest,
        max_conflict_version: 0,
    };
    encode_as(&head, tx_id, writes, secret)
}

/// What differs between the kinds of entries.
pub(super) struct Head {
    pub entry_type: EntryType,
    pub flags: EntryFlags,
    /// Left out if the type has none.
    pub claims_digest: Digest,
    pub max_conflict_version: u64,
}

pub(super) fn encode_as(
    head: &Head,
    tx_id: TxId,
    writes: &WriteSet,
    secret: &LedgerSecret,
) -> Result<EncodedEntry, EncodeError> {
    let view = u32::try_from(tx_id.view.0).ok().filter(|view| view & SNAPSHOT_BIT == 0);
    let view = view.ok_or(EncodeError::ViewTooLarge(tx_id.view.0))?;
    let commit_evidence = secret.commit_evidence(tx_id);
    let claims_digest = head.entry_type.has_claims().then_some(head.claims_digest);
    let evidence_digest = head.entry_type.has_commit_evidence().then(|| commit_evidence.digest());

    let mut public_bytes = 1 + 8 + 8;
    public_bytes +=
        32 * (usize::from(claims_digest.is_some()) + usize::from(evidence_digest.is_some()));
    let mut private_bytes = 0;
    for map in writes.maps() {
        let bytes = if map.name().is_public() { &mut public_bytes } else { &mut private_bytes };
        *bytes += block_bytes(map);
    }
    let total = FIXED_BYTES + public_bytes + private_bytes;
    let size = (total - FRAME_HEADER_BYTES) as u64;
    if size > MAX_ENTRY_BYTES {
        return Err(EncodeError::TooLarge(total as u64));
    }

    let mut bytes = Vec::with_capacity(total);
    // Size in the upper six bytes, flags and version below.
    let frame = size << 16 | u64::from(head.flags.bits()) << 8 | u64::from(FRAME_VERSION);
    let nonce = nonce(tx_id.seqno.0, view);
    bytes.extend_from_slice(&frame.to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&(public_bytes as u64).to_le_bytes());
    bytes.push(head.entry_type.byte());
    bytes.extend_from_slice(&tx_id.seqno.0.to_le_bytes());
    for digest in [claims_digest, evidence_digest].iter().flatten() {
        bytes.extend_from_slice(&digest.0);
    }
    bytes.extend_from_slice(&head.max_conflict_version.to_le_bytes());
    writes.maps().filter(|map| map.name().is_public()).for_each(|map| write_block(&mut bytes, map));
    writes
        .maps()
        .filter(|map| !map.name().is_public())
        .for_each(|map| write_block(&mut bytes, map));
    assert_eq!(bytes.len(), total, "an entry is as long as it was computed to be");

    seal(&mut bytes, public_bytes, nonce, secret);
    let write_set_digest = sha256(&bytes);
    let leaf = leaf_digest(write_set_digest, evidence_digest, claims_digest);
    let claims_digest = head.claims_digest;
    Ok(EncodedEntry { tx_id, bytes, write_set_digest, commit_evidence, claims_digest, leaf })
}

/// The IV: unique, since a seqno is used once in a view and snapshots set the highest bit.
pub(crate) fn nonce(seqno: u64, view: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (low, high) = nonce.split_at_mut(8);
    low.copy_from_slice(&seqno.to_le_bytes());
    high.copy_from_slice(&view.to_le_bytes());
    nonce
}

/// Encrypts what follows the public domain, and puts the tag in its place.
fn seal(bytes: &mut [u8], public_bytes: usize, nonce: [u8; 12], secret: &LedgerSecret) {
    let Some((fixed, domains)) = bytes.split_at_mut_checked(FIXED_BYTES) else { return };
    let Some((public, private)) = domains.split_at_mut_checked(public_bytes) else { return };
    let tag = secret.key().seal_in_place(nonce, public, private);
    if let Some(place) = fixed.get_mut(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + tag.len()) {
        place.copy_from_slice(&tag);
    }
}
