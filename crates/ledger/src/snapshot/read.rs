//! From a snapshot file, a piece at a time, to a state.
//!
//! ```text
//! pieces ─▶ head ─▶ public maps ─▶ private maps ─▶ receipt
//!                    as they are     decrypted
//! ```
//! Private maps are decrypted only of bytes that were authenticated before, in a pass of their own:
//! what a parser says of changed ones would tell what is encrypted.

use coco_crypto::{Digest, GcmAuthenticator, GcmKeystream, GcmTag, PublicKey, Sha256};
use coco_kv::{MapName, Seqno, Snapshot, SnapshotBuilder, TxId, View};
use zeroize::Zeroizing;

use super::maps::MapsReader;
use super::{SNAPSHOT_TYPE, SnapshotError};
use crate::bytes::{Cursor, Truncated};
use crate::entry::{FIXED_BYTES, FRAME_HEADER_BYTES, FrameHeader, SNAPSHOT_BIT, Visibility};
use crate::history::{MAX_RECORDED_VIEW, ViewHistory};
use crate::merkle::MerkleTree;
use crate::receipt::{CoseReceipt, Leaf, Receipt};
use crate::secret::LedgerSecrets;
use crate::tables::{SINGLE_KEY, TREE};

/// The first byte of a COSE receipt.
const COSE_SIGN1_TAG: u8 = 0xd2;
/// The longest receipt that is read.
const MAX_RECEIPT_BYTES: usize = 1 << 20;

/// The receipt behind a snapshot.
#[derive(Clone, Debug)]
pub enum SnapshotReceipt {
    /// Signed by a node.
    Json(Receipt),
    /// Signed by the service.
    Cose(CoseReceipt),
}

/// What of a snapshot's state is to be read.
#[derive(Clone, Debug)]
pub enum StateWanted {
    /// Nothing: its digest and receipt are.
    Nothing,
    /// Nothing, if it is what was written under one of these.
    Authentic(LedgerSecrets),
    /// The public maps.
    Public,
    /// All maps, which are decrypted with these. The same bytes must have been found authentic.
    Whole(LedgerSecrets),
}

/// A snapshot that was read to its end.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    seqno: Seqno,
    leaf: Digest,
    views: ViewHistory,
    digest: Digest,
    state_bytes: u64,
    state: Snapshot,
    receipt: Vec<u8>,
}

impl SnapshotFile {
    /// Reads a file that is in memory, and is authenticated first if it is to be decrypted.
    ///
    /// # Errors
    /// As [`SnapshotReader`] has them.
    pub fn read(file: &[u8], wanted: StateWanted) -> Result<Self, SnapshotError> {
        if let StateWanted::Whole(secrets) = &wanted {
            Self::read(file, StateWanted::Authentic(secrets.clone()))?;
        }
        let mut reader = SnapshotReader::new(wanted);
        reader.add(file)?;
        reader.finish()
    }

    /// The position of the state. Its view is the one that the history tells.
    pub fn tx_id(&self) -> TxId {
        tx_id(self.seqno, &self.views)
    }

    /// The Merkle leaf of the position.
    pub fn leaf(&self) -> Digest {
        self.leaf
    }

    /// The history of views up to the position.
    pub fn views(&self) -> &ViewHistory {
        &self.views
    }

    /// The SHA-256 of everything before the receipt, which the evidence transaction recorded.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes before the receipt.
    pub fn state_bytes(&self) -> u64 {
        self.state_bytes
    }

    /// The state, as far as it was wanted. Of public maps alone [`SnapshotFile::verify`] must say
    /// that they are the service's.
    pub fn state(&self) -> &Snapshot {
        &self.state
    }

    /// The state, as [`SnapshotFile::state`] has it.
    pub fn into_state(self) -> Snapshot {
        self.state
    }

    /// The receipt.
    ///
    /// # Errors
    /// If there is none or it is malformed.
    pub fn receipt(&self) -> Result<SnapshotReceipt, SnapshotError> {
        match self.receipt.first() {
            None => Err(SnapshotError::NoReceipt),
            Some(&COSE_SIGN1_TAG) => Ok(SnapshotReceipt::Cose(CoseReceipt::parse(&self.receipt)?)),
            Some(_) => Ok(SnapshotReceipt::Json(Receipt::from_json(&self.receipt)?)),
        }
    }

    /// Verifies that the service recorded this very snapshot: its receipt, and that the receipt's
    /// claims are the snapshot's digest.
    ///
    /// # Errors
    /// If it did not.
    pub fn verify(&self, service: &PublicKey) -> Result<(), SnapshotError> {
        let receipt = self.receipt()?;
        let leaf = match &receipt {
            SnapshotReceipt::Json(receipt) => Some(&receipt.proof.leaf),
            SnapshotReceipt::Cose(receipt) => receipt.proofs().first().map(|proof| &proof.leaf),
        };
        let claimed = match leaf {
            Some(Leaf::Components(components)) => components.claims_digest,
            _ => None,
        };
        let (claimed, actual) = (claimed.unwrap_or_default(), self.digest);
        if claimed != actual {
            return Err(SnapshotError::Digest { claimed, actual });
        }
        match &receipt {
            SnapshotReceipt::Json(receipt) => receipt.verify_claims(service, actual).map(|_| ())?,
            SnapshotReceipt::Cose(receipt) => receipt.verify_claims(service, actual)?,
        }
        Ok(())
    }

    /// The Merkle tree from which a ledger goes on after the snapshot: that of the signature
    /// transaction at its position, and the leaf of that transaction itself.
    ///
    /// # Errors
    /// If the state, as far as it was wanted, has no such tree.
    pub fn tree(&self) -> Result<MerkleTree, SnapshotError> {
        let value = self.state.map(&MapName::new(TREE)).and_then(|map| map.get(&SINGLE_KEY));
        let mut tree = MerkleTree::parse(&value.ok_or(SnapshotError::NoTree)?.value)?;
        if tree.len() != self.seqno.0 {
            return Err(SnapshotError::NoTree);
        }
        tree.append(self.leaf);
        Ok(tree)
    }
}

fn tx_id(seqno: Seqno, views: &ViewHistory) -> TxId {
    TxId { view: views.view_of(seqno).unwrap_or(View(0)), seqno }
}

/// Reads a snapshot whose file comes in pieces, with or without its receipt. No more of it is held
/// than the state that is wanted, and the entry that is being read.
///
/// Its errors: the file is malformed, cut short, or not what was written under the ledger secret.
pub struct SnapshotReader {
    wanted: StateWanted,
    /// Of what is being read, the bytes that made no whole yet; in plaintext.
    begun: Zeroizing<Vec<u8>>,
    body: Option<Body>,
    receipt: Vec<u8>,
}

/// What follows the head, as far as it was read.
struct Body {
    head: Head,
    digest: Sha256,
    authenticator: Option<GcmAuthenticator>,
    stream: Option<GcmKeystream>,
    maps: MapsReader,
    public_left: u64,
    private_left: u64,
}

impl SnapshotReader {
    /// Begins to read; nothing is there yet.
    pub fn new(wanted: StateWanted) -> Self {
        Self { wanted, begun: Zeroizing::default(), body: None, receipt: Vec::new() }
    }

    /// Reads the next piece, of any length.
    ///
    /// # Errors
    /// If the snapshot cannot be read.
    pub fn add(&mut self, mut piece: &[u8]) -> Result<(), SnapshotError> {
        if self.body.is_none() {
            self.begun.extend_from_slice(piece);
            let Some(head) = Head::parse(&self.begun)? else { return Ok(()) };
            let (read, rest) = self.begun.split_at(head.len_bytes.min(self.begun.len()));
            self.body = Some(Body::begin(head, read, &self.wanted)?);
            let begun = piece.len().saturating_sub(rest.len());
            piece = piece.get(begun..).unwrap_or_default();
            self.begun.clear();
        }
        let Some(body) = &mut self.body else { return Ok(()) };
        let rest = body.add(piece, &self.wanted, &mut self.begun)?;
        if self.receipt.len() + rest.len() > MAX_RECEIPT_BYTES {
            return Err(SnapshotError::ReceiptTooLong);
        }
        self.receipt.extend_from_slice(rest);
        Ok(())
    }

    /// What was read, when the last piece is.
    ///
    /// # Errors
    /// If pieces are missing, or the snapshot is not what was written under the ledger secret.
    pub fn finish(self) -> Result<SnapshotFile, SnapshotError> {
        let cut_short = |needed| Truncated { offset: self.begun.len(), needed, available: 0 };
        let body = self.body.ok_or(cut_short(FIXED_BYTES as u64))?;
        match body.public_left + body.private_left {
            0 => {}
            missing => return Err(cut_short(missing).into()),
        }
        if let Some(authenticator) = body.authenticator {
            authenticator.verify(&body.head.tag)?;
        }
        Ok(SnapshotFile {
            seqno: body.head.seqno,
            leaf: body.head.leaf,
            views: body.head.views,
            digest: body.digest.finish(),
            state_bytes: body.head.frame.total_bytes(),
            state: body.maps.finish()?,
            receipt: self.receipt,
        })
    }
}

impl Body {
    fn begin(head: Head, read: &[u8], wanted: &StateWanted) -> Result<Self, SnapshotError> {
        let mut digest = Sha256::new();
        digest.update(read);
        let secret = |secrets: &LedgerSecrets| {
            let secret = secrets.secret_for(head.seqno).cloned();
            secret.ok_or(SnapshotError::NoSecret(head.seqno))
        };
        let (mut authenticator, mut stream) = (None, None);
        match wanted {
            StateWanted::Nothing | StateWanted::Public => {}
            StateWanted::Authentic(secrets) => {
                let new = GcmAuthenticator::new(secret(secrets)?.key(), head.nonce);
                authenticator.insert(new).aad(read.get(FIXED_BYTES..).unwrap_or_default());
            }
            StateWanted::Whole(secrets) => {
                stream = Some(GcmKeystream::new(secret(secrets)?.key(), head.nonce));
            }
        }
        let maps = MapsReader::new(SnapshotBuilder::new(tx_id(head.seqno, &head.views)));
        let public_left =
            (FIXED_BYTES as u64 + head.public_bytes).saturating_sub(read.len() as u64);
        let private_left =
            head.frame.total_bytes().saturating_sub(FIXED_BYTES as u64 + head.public_bytes);
        Ok(Self { head, digest, authenticator, stream, maps, public_left, private_left })
    }

    /// Reads what belongs to the domains, and returns the rest.
    fn add<'a>(
        &mut self,
        piece: &'a [u8],
        wanted: &StateWanted,
        begun: &mut Vec<u8>,
    ) -> Result<&'a [u8], SnapshotError> {
        let (public, rest) = split_at_most(piece, self.public_left);
        if !public.is_empty() {
            self.public_left -= public.len() as u64;
            self.digest.update(public);
            self.authenticator.iter_mut().for_each(|it| it.aad(public));
            if matches!(wanted, StateWanted::Public | StateWanted::Whole(_)) {
                begun.extend_from_slice(public);
                self.maps.read(begun, Visibility::Public, self.public_left)?;
            }
        }
        let (private, rest) = split_at_most(rest, self.private_left);
        if !private.is_empty() {
            self.private_left -= private.len() as u64;
            self.digest.update(private);
            self.authenticator.iter_mut().for_each(|it| it.ciphertext(private));
            if let Some(stream) = &mut self.stream {
                stream.apply(private, begun);
                self.maps.read(begun, Visibility::Private, self.private_left)?;
            }
        }
        Ok(rest)
    }
}

fn split_at_most(bytes: &[u8], most: u64) -> (&[u8], &[u8]) {
    let at = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_at(at)
}

/// Everything before the maps.
struct Head {
    frame: FrameHeader,
    tag: GcmTag,
    nonce: [u8; 12],
    public_bytes: u64,
    seqno: Seqno,
    leaf: Digest,
    views: ViewHistory,
    len_bytes: usize,
}

impl Head {
    /// None if `bytes` end before it does.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, SnapshotError> {
        if bytes.len() < FIXED_BYTES {
            return Ok(None);
        }
        let frame = FrameHeader::parse(bytes)?;
        let (within, _) = split_at_most(bytes, frame.total_bytes());
        let mut cursor = Cursor::new(within);
        cursor.take(FRAME_HEADER_BYTES as u64)?;
        let (tag, nonce) = (cursor.array()?, cursor.array()?);
        let public_bytes = cursor.u64()?;
        let all = frame.total_bytes() - FIXED_BYTES as u64;
        if public_bytes > all {
            let available = usize::try_from(all).unwrap_or(usize::MAX);
            return Err(Truncated { offset: FIXED_BYTES, needed: public_bytes, available }.into());
        }
        let (public, _) = split_at_most(cursor.rest(), public_bytes);
        match Self::parse_public(frame, tag, nonce, public_bytes, public) {
            Err(SnapshotError::Truncated(_)) if (public.len() as u64) < public_bytes => Ok(None),
            head => head.map(Some),
        }
    }

    fn parse_public(
        frame: FrameHeader,
        tag: GcmTag,
        nonce: [u8; 12],
        public_bytes: u64,
        public: &[u8],
    ) -> Result<Self, SnapshotError> {
        let mut cursor = Cursor::new(public);
        let entry_type = cursor.u8()?;
        if entry_type != SNAPSHOT_TYPE {
            return Err(SnapshotError::Type(entry_type));
        }
        let seqno = Seqno(cursor.u64()?);
        if nonce != crate::entry::nonce(seqno.0, SNAPSHOT_BIT) {
            return Err(SnapshotError::Iv(seqno));
        }
        let _max_conflict_version = cursor.u64()?;
        let leaf_bytes = cursor.u64()?;
        if leaf_bytes != size_of::<Digest>() as u64 {
            return Err(SnapshotError::Leaf(leaf_bytes));
        }
        let leaf = Digest(cursor.array()?);
        let views_bytes = cursor.u64()?;
        if views_bytes % 8 != 0 || views_bytes / 8 > MAX_RECORDED_VIEW {
            return Err(SnapshotError::ViewsLength(views_bytes));
        }
        let (starts, _) = cursor.take(views_bytes)?.as_chunks();
        let starts = starts.iter().map(|start| Seqno(u64::from_le_bytes(*start))).collect();
        let views = ViewHistory::from_starts(starts)?;
        let len_bytes = FIXED_BYTES + cursor.offset();
        Ok(Self { frame, tag, nonce, public_bytes, seqno, leaf, views, len_bytes })
    }
}
