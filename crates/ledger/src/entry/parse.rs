//! From the bytes of an entry to its parts, without copying.

use coco_crypto::{Digest, NotAuthentic, sha256};
use coco_kv::{Seqno, TxId, View, WriteSet};
use zeroize::Zeroizing;

use super::domain::{DomainError, MapBlock, MapBlocks, Visibility};
use super::{
    EntryFlags, EntryType, FIXED_BYTES, FRAME_HEADER_BYTES, FRAME_VERSION, MAX_ENTRY_BYTES,
    SNAPSHOT_BIT, leaf_digest,
};
use crate::bytes::{Cursor, Truncated};
use crate::secret::{LedgerSecret, LedgerSecrets};

/// An entry could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The bytes end before the entry does.
    #[error("the entry is cut short: {0}")]
    Truncated(#[from] Truncated),
    /// Not the one version there is.
    #[error("frame version {0}, only {FRAME_VERSION} is known")]
    Version(u8),
    /// A flag that nothing defines.
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    /// Too small to hold an entry, or larger than any.
    #[error("a size of {0} bytes is out of range")]
    Size(u64),
    /// Bytes follow the entry.
    #[error("{0} bytes follow the entry")]
    TrailingBytes(usize),
    /// A type of entry that nothing defines, or a snapshot.
    #[error("unknown entry type {0}")]
    Type(u8),
    /// A snapshot's IV, in an entry.
    #[error("the IV is that of a snapshot")]
    SnapshotIv,
    /// The IV and the public domain disagree on the seqno.
    #[error("seqno {header} in the header, {domain} in the public domain")]
    SeqnoMismatch {
        /// What the IV says.
        header: Seqno,
        /// What the public domain says.
        domain: Seqno,
    },
    /// The writes could not be read.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// No secret is known for this seqno.
    #[error("no ledger secret is known for seqno {0}")]
    NoSecret(Seqno),
    /// The header, the public domain or the ciphertext is not what was written.
    #[error("the entry does not authenticate under the ledger secret")]
    NotAuthentic(#[from] NotAuthentic),
    /// The commit evidence that the secret makes is not the one that was stored.
    #[error("the commit evidence does not belong to the ledger secret")]
    CommitEvidence,
}

/// The first 8 bytes of an entry or a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// How chunks are cut around the entry.
    pub flags: EntryFlags,
    /// Bytes that follow the header.
    pub size: u64,
}

impl FrameHeader {
    /// Reads the header at the front of `bytes`.
    ///
    /// # Errors
    /// If it is cut short, or version, flags or size are not possible.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        let header = Cursor::new(bytes).array::<FRAME_HEADER_BYTES>()?;
        let frame = u64::from_le_bytes(header);
        let [version, flags, ..] = header;
        let size = frame >> 16;
        if version != FRAME_VERSION {
            return Err(EntryError::Version(version));
        }
        let flags = EntryFlags::from_bits(flags).ok_or(EntryError::Flags(flags))?;
        let least = (FIXED_BYTES - FRAME_HEADER_BYTES) as u64;
        if !(least..=MAX_ENTRY_BYTES).contains(&size) {
            return Err(EntryError::Size(size));
        }
        Ok(Self { flags, size })
    }

    /// Bytes of header and body together.
    pub fn total_bytes(self) -> u64 {
        FRAME_HEADER_BYTES as u64 + self.size
    }
}

/// Splits entries that stand back to back after the first of them, of which only the header is read.
///
/// # Errors
/// If the header is not possible or the entry is cut short.
pub fn split_entry(bytes: &[u8]) -> Result<(&[u8], &[u8]), EntryError> {
    let header = FrameHeader::parse(bytes)?;
    let mut cursor = Cursor::new(bytes);
    Ok((cursor.take(header.total_bytes())?, cursor.rest()))
}

/// The frame's parts, common to entries and snapshots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub bytes: &'a [u8],
    pub flags: EntryFlags,
    pub tag: [u8; 16],
    pub nonce: [u8; 12],
    pub seqno: u64,
    pub view: u32,
    pub public: &'a [u8],
    pub ciphertext: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits the frame at the start of `bytes`; returns what follows too.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), EntryError> {
        let header = FrameHeader::parse(bytes)?;
        let (frame, after) = split_entry(bytes)?;
        let mut cursor = Cursor::new(frame);
        cursor.take(FRAME_HEADER_BYTES as u64)?;
        let tag = cursor.array()?;
        let nonce: [u8; 12] = cursor.array()?;
        let mut iv = Cursor::new(&nonce);
        let (seqno, view) = (iv.u64()?, iv.array().map(u32::from_le_bytes)?);
        let public = cursor.bytes64()?;
        let ciphertext = cursor.rest();
        let flags = header.flags;
        Ok((Self { bytes: frame, flags, tag, nonce, seqno, view, public, ciphertext }, after))
    }

    /// The private domain in plaintext.
    pub fn decrypt(&self, secret: &LedgerSecret) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let mut private = Zeroizing::new(self.ciphertext.to_vec());
        secret.key().open_in_place(self.nonce, self.public, &self.tag, &mut private)?;
        Ok(private)
    }
}

/// One transaction of the ledger, in the ledger's own bytes.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    frame: Frame<'a>,
    entry_type: EntryType,
    tx_id: TxId,
    claims_digest: Option<Digest>,
    commit_evidence_digest: Option<Digest>,
    max_conflict_version: u64,
    public_maps: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads an entry; the bytes must be exactly one.
    ///
    /// # Errors
    /// If the frame or the head of the public domain is malformed. The writes are read by
    /// [`Entry::public_writes`] and [`Entry::private_writes`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let (frame, after) = Frame::parse(bytes)?;
        if !after.is_empty() {
            return Err(EntryError::TrailingBytes(after.len()));
        }
        if frame.view & SNAPSHOT_BIT != 0 {
            return Err(EntryError::SnapshotIv);
        }
        let mut cursor = Cursor::new(frame.public);
        let byte = cursor.u8()?;
        let entry_type = EntryType::from_byte(byte).ok_or(EntryError::Type(byte))?;
        let (header, domain) = (Seqno(frame.seqno), Seqno(cursor.u64()?));
        if header != domain {
            return Err(EntryError::SeqnoMismatch { header, domain });
        }
        let mut digest = |there: bool| -> Result<Option<Digest>, Truncated> {
            there.then(|| cursor.array().map(Digest)).transpose()
        };
        let claims_digest = digest(entry_type.has_claims())?;
        let commit_evidence_digest = digest(entry_type.has_commit_evidence())?;
        let max_conflict_version = cursor.u64()?;
        Ok(Self {
            frame,
            entry_type,
            tx_id: TxId { view: View(frame.view.into()), seqno: header },
            claims_digest,
            commit_evidence_digest,
            max_conflict_version,
            public_maps: cursor.rest(),
        })
    }

    /// All bytes of the entry.
    pub fn bytes(&self) -> &'a [u8] {
        self.frame.bytes
    }

    /// View and seqno.
    pub fn tx_id(&self) -> TxId {
        self.tx_id
    }

    /// How chunks are cut around the entry.
    pub fn flags(&self) -> EntryFlags {
        self.frame.flags
    }

    /// Which digests it carries.
    pub fn entry_type(&self) -> EntryType {
        self.entry_type
    }

    /// What the application claims; `None` in old entries.
    pub fn claims_digest(&self) -> Option<Digest> {
        self.claims_digest
    }

    /// The digest of the commit evidence; `None` in old entries.
    pub fn commit_evidence_digest(&self) -> Option<Digest> {
        self.commit_evidence_digest
    }

    /// A relic of 1.x, zero today.
    pub fn max_conflict_version(&self) -> u64 {
        self.max_conflict_version
    }

    /// Whether there are encrypted writes.
    pub fn has_private_writes(&self) -> bool {
        !self.frame.ciphertext.is_empty()
    }

    /// SHA-256 of all bytes.
    pub fn write_set_digest(&self) -> Digest {
        sha256(self.frame.bytes)
    }

    /// The leaf of the Merkle tree.
    pub fn leaf(&self) -> Digest {
        leaf_digest(self.write_set_digest(), self.commit_evidence_digest, self.claims_digest)
    }

    /// The writes to public maps, map by map, without copying keys or values.
    pub fn public_blocks(
        &self,
    ) -> impl Iterator<Item = Result<MapBlock<'a>, DomainError>> + use<'a> {
        MapBlocks::new(self.public_maps, Visibility::Public)
    }

    /// The writes to public maps. They are authentic only once a signature above was verified.
    ///
    /// # Errors
    /// If they are malformed.
    pub fn public_writes(&self) -> Result<WriteSet, EntryError> {
        Ok(MapBlocks::new(self.public_maps, Visibility::Public).into_write_set()?)
    }

    /// Authenticates the entry under its ledger secret and returns the writes to private maps.
    ///
    /// # Errors
    /// If no secret is known, or the entry is not what was written under it, or the writes or the
    /// commit evidence are malformed.
    pub fn private_writes(&self, secrets: &LedgerSecrets) -> Result<WriteSet, EntryError> {
        let seqno = self.tx_id.seqno;
        let secret = secrets.secret_for(seqno).ok_or(EntryError::NoSecret(seqno))?;
        let private = self.frame.decrypt(secret)?;
        let stored = self.commit_evidence_digest;
        if stored.is_some_and(|stored| stored != secret.commit_evidence(self.tx_id).digest()) {
            return Err(EntryError::CommitEvidence);
        }
        Ok(MapBlocks::new(&private, Visibility::Private).into_write_set()?)
    }

    /// All writes, public and private.
    ///
    /// # Errors
    /// As [`Entry::private_writes`].
    pub fn writes(&self, secrets: &LedgerSecrets) -> Result<WriteSet, EntryError> {
        let mut writes = self.private_writes(secrets)?;
        for block in self.public_blocks() {
            let block = block?;
            let name = coco_kv::MapName::new(block.name);
            block.puts.iter().for_each(|(key, value)| writes.put(&name, *key, *value));
            block.removals.iter().for_each(|key| writes.remove(&name, *key));
        }
        Ok(writes)
    }
}
