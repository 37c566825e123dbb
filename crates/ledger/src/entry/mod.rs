//! Entries: transactions as they stand on the ledger.
//!
//! ```text
//! +0   u8      version = 1
//! +1   u8      flags
//! +2   u48     size: bytes after these first 8
//! +8   16      GCM tag
//! +24  12      GCM IV = u64 seqno, u32 view
//! +36  u64     length of the public domain
//! +44  ..      public domain, plaintext and the AEAD's additional data
//!        u8      entry type
//!        u64     seqno
//!        32      claims digest             types 2, 4
//!        32      commit evidence digest    types 3, 4
//!        u64     0 (other values in 1.x)
//!        ..      writes to public maps
//! ..   ..      private domain: writes to private maps, encrypted
//! ```
//! All integers are little-endian.

mod domain;
mod encode;
mod parse;

use std::ops::BitOr;

use coco_crypto::{Digest, sha256_concat};

pub(crate) use domain::Visibility;
pub use domain::{DomainError, MapBlock};
pub(crate) use encode::nonce;
pub use encode::{EncodeError, EncodedEntry, encode_entry};
pub use parse::{Entry, EntryError, FrameHeader, split_entry};

/// Bytes of the frame header: version, flags and size.
pub(crate) const FRAME_HEADER_BYTES: usize = 8;
/// Bytes before the public domain: frame header, GCM tag and IV, length of the public domain.
pub(crate) const FIXED_BYTES: usize = 44;
/// The largest entry that is written or read; the limit of CCF's own tools.
pub const MAX_ENTRY_BYTES: u64 = 1 << 30;
/// Set in the IV's view for snapshots, so that they never share an IV with an entry.
pub(crate) const SNAPSHOT_BIT: u32 = 1 << 31;
/// The only version of the frame.
pub(crate) const FRAME_VERSION: u8 = 1;

/// How chunks are cut around an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryFlags(u8);

impl EntryFlags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// The chunk ends with this entry, which is a signature transaction.
    pub const FORCE_CHUNK_AFTER: Self = Self(1);
    /// A new chunk starts with this entry, the first of a recovered service.
    pub const FORCE_CHUNK_BEFORE: Self = Self(2);

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags as the byte of the frame header.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The flags of a byte; `None` if it has unknown ones.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits & !3 == 0).then_some(Self(bits))
    }
}

impl BitOr for EntryFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which digests an entry carries next to its writes. Only the last is written today; the others
/// are in ledgers begun before CCF 2.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryType {
    /// Writes only.
    WriteSet,
    /// Writes and a claims digest.
    WithClaims,
    /// Writes and a commit evidence digest.
    WithCommitEvidence,
    /// Writes and both digests.
    WithCommitEvidenceAndClaims,
}

impl EntryType {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::WriteSet,
            2 => Self::WithClaims,
            3 => Self::WithCommitEvidence,
            4 => Self::WithCommitEvidenceAndClaims,
            _ => return None,
        })
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::WriteSet => 0,
            Self::WithClaims => 2,
            Self::WithCommitEvidence => 3,
            Self::WithCommitEvidenceAndClaims => 4,
        }
    }

    /// Whether a claims digest is there.
    pub fn has_claims(self) -> bool {
        matches!(self, Self::WithClaims | Self::WithCommitEvidenceAndClaims)
    }

    /// Whether a commit evidence digest is there.
    pub fn has_commit_evidence(self) -> bool {
        matches!(self, Self::WithCommitEvidence | Self::WithCommitEvidenceAndClaims)
    }
}

/// The Merkle leaf of an entry: the digests it has, hashed together in this order.
pub(crate) fn leaf_digest(
    write_set: Digest,
    commit_evidence: Option<Digest>,
    claims: Option<Digest>,
) -> Digest {
    match (&commit_evidence, &claims) {
        (None, None) => write_set,
        (Some(evidence), None) => sha256_concat(&[&write_set.0, &evidence.0]),
        (None, Some(claims)) => sha256_concat(&[&write_set.0, &claims.0]),
        (Some(evidence), Some(claims)) => sha256_concat(&[&write_set.0, &evidence.0, &claims.0]),
    }
}

#[cfg(test)]
mod tests {
    use coco_crypto::sha256;
    use coco_kv::{MapName, TxId, WriteSet};
    use proptest::prelude::*;

    use super::encode::{Head, encode_as};
    use super::*;
    use crate::secret::{LedgerSecret, LedgerSecrets};
    use crate::testing::recorded;

    fn secrets() -> LedgerSecrets {
        let mut secrets = LedgerSecrets::new();
        secrets.insert(coco_kv::Seqno(1), LedgerSecret::new([7; 32]));
        secrets
    }

    fn write_sets() -> impl Strategy<Value = WriteSet> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        let write = ("(public:)?[a-c.]{0,3}", bytes(), proptest::option::of(bytes()));
        proptest::collection::vec(write, 0..20).prop_map(|list| {
            let mut writes = WriteSet::new();
            for (map, key, value) in list {
                match value {
                    Some(value) => writes.put(&MapName::new(&map), key, value),
                    None => writes.remove(&MapName::new(&map), key),
                }
            }
            writes
        })
    }

    proptest! {
        #[test]
        fn an_entry_reads_back(
            writes in write_sets(), seqno in 1_u64.., view in 0_u64..1 << 31, claims: [u8; 32],
        ) {
            let (tx_id, secrets) = (TxId::new(view, seqno), secrets());
            let secret = secrets.secret_for(tx_id.seqno).unwrap();
            let flags = EntryFlags::FORCE_CHUNK_AFTER;
            let made = encode_entry(tx_id, &writes, Digest(claims), secret, flags).unwrap();
            prop_assert_eq!(made.bytes.capacity(), made.bytes.len());
            let entry = Entry::parse(&made.bytes).unwrap();
            prop_assert_eq!((entry.tx_id(), entry.flags()), (tx_id, flags));
            prop_assert_eq!(entry.claims_digest(), Some(Digest(claims)));
            prop_assert_eq!(entry.commit_evidence_digest(), Some(made.commit_evidence.digest()));
            prop_assert_eq!(entry.write_set_digest(), made.write_set_digest);
            prop_assert_eq!(entry.leaf(), made.leaf);
            prop_assert_eq!(entry.writes(&secrets).unwrap(), writes);
        }

        #[test]
        fn a_flipped_bit_is_noticed(writes in write_sets(), at: prop::sample::Index, bit in 0..8_u8) {
            let (tx_id, secrets) = (TxId::new(2, 9), secrets());
            let secret = secrets.secret_for(tx_id.seqno).unwrap();
            let none = EntryFlags::NONE;
            let made = encode_entry(tx_id, &writes, Digest::ZERO, secret, none).unwrap();
            let mut bytes = made.bytes.clone();
            // The frame header is covered by the leaf and the position in the chunk, not by the tag.
            let at = FRAME_HEADER_BYTES + at.index(bytes.len() - FRAME_HEADER_BYTES);
            bytes[at] ^= 1 << bit;
            let read = Entry::parse(&bytes).and_then(|entry| entry.private_writes(&secrets));
            prop_assert!(read.is_err());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..120), writes in write_sets(),
            at: prop::sample::Index, byte: u8,
        ) {
            let _ = Entry::parse(&bytes).map(|entry| entry.public_writes());
            let secret = LedgerSecret::new([7; 32]);
            let none = EntryFlags::NONE;
            let mut made =
                encode_entry(TxId::new(2, 9), &writes, Digest::ZERO, &secret, none).unwrap().bytes;
            let at = at.index(made.len());
            made[at] = byte;
            let _ = Entry::parse(&made).map(|entry| entry.public_writes());
        }
    }

    #[test]
    fn recorded_entries_read_and_write_back_to_the_byte() {
        for service in recorded() {
            let mut count = 0;
            for bytes in service.entries() {
                let entry = Entry::parse(bytes).unwrap();
                count += 1;
                assert_eq!(entry.tx_id().seqno.0, count, "{}", service.name);
                let writes = entry.writes(&service.secrets).unwrap();
                let head = Head {
                    entry_type: entry.entry_type(),
                    flags: entry.flags(),
                    claims_digest: entry.claims_digest().unwrap_or_default(),
                    max_conflict_version: entry.max_conflict_version(),
                };
                let secret = service.secrets.secret_for(entry.tx_id().seqno).unwrap();
                let made = encode_as(&head, entry.tx_id(), &writes, secret).unwrap();
                assert_eq!(made.bytes, bytes, "{} {count}", service.name);
                assert_eq!(made.leaf, entry.leaf());
            }
            assert!(count > 0);
        }
    }

    #[test]
    fn malformed_entries_are_named() {
        let secret = LedgerSecret::new([7; 32]);
        let mut writes = WriteSet::new();
        writes.put(&MapName::new("public:m"), "k", "v");
        let made = encode_entry(TxId::new(2, 9), &writes, Digest::ZERO, &secret, EntryFlags::NONE)
            .unwrap();
        let with = |at: usize, byte: u8| {
            let mut bytes = made.bytes.clone();
            bytes[at] = byte;
            Entry::parse(&bytes).map(|entry| entry.public_writes())
        };
        assert!(matches!(with(0, 2), Err(EntryError::Version(2))));
        assert!(matches!(with(1, 4), Err(EntryError::Flags(4))));
        assert!(matches!(with(2, 0), Err(EntryError::Size(_))));
        assert!(matches!(with(5, 1), Err(EntryError::Truncated(_))));
        assert!(matches!(with(7, 1), Err(EntryError::Size(_))));
        assert!(matches!(with(35, 0x80), Err(EntryError::SnapshotIv)));
        assert!(matches!(with(40, 1), Err(EntryError::Truncated(_))));
        assert!(matches!(with(44, 1), Err(EntryError::Type(1))));
        assert!(matches!(with(45, 8), Err(EntryError::SeqnoMismatch { .. })));
        // The first map's block starts after type, seqno, two digests and the old version.
        let block = 44 + 1 + 8 + 32 + 32 + 8;
        let name = block + 8;
        assert!(matches!(
            with(name, b'q'),
            Ok(Err(EntryError::Domain(DomainError::WrongDomain { .. })))
        ));
        assert!(matches!(with(name, 0xff), Ok(Err(EntryError::Domain(DomainError::NameNotUtf8)))));
        let reads = name + 8 + 8;
        assert!(matches!(
            with(reads, 1),
            Ok(Err(EntryError::Domain(DomainError::ReadsPresent { reads: 1, .. })))
        ));
        assert!(matches!(
            with(reads + 15, 255),
            Ok(Err(EntryError::Domain(DomainError::Truncated(_))))
        ));
        assert_eq!(Entry::parse(&made.bytes).unwrap().leaf(), made.leaf);
        assert_eq!(made.write_set_digest, sha256(&made.bytes));
    }

    #[test]
    fn a_view_beyond_31_bits_is_refused() {
        let secret = LedgerSecret::new([7; 32]);
        let tx_id = TxId::new(1 << 31, 9);
        let made = encode_entry(tx_id, &WriteSet::new(), Digest::ZERO, &secret, EntryFlags::NONE);
        assert!(matches!(made, Err(EncodeError::ViewTooLarge(_))));
    }
}
