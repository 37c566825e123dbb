//! From a snapshot file to a state.

use coco_crypto::{Digest, PublicKey, sha256};
use coco_kv::{MapName, Seqno, Snapshot, SnapshotBuilder, TxId, View};

use super::{SNAPSHOT_TYPE, SnapshotError, padding};
use crate::bytes::{Cursor, Truncated};
use crate::entry::{Frame, SNAPSHOT_BIT, Visibility};
use crate::history::ViewHistory;
use crate::merkle::MerkleTree;
use crate::receipt::{CoseReceipt, Leaf, Receipt};
use crate::secret::LedgerSecrets;
use crate::tables::{SINGLE_KEY, TREE};

/// The first byte of a COSE receipt.
const COSE_SIGN1_TAG: u8 = 0xd2;

/// The receipt behind a snapshot.
#[derive(Clone, Debug)]
pub enum SnapshotReceipt {
    /// Signed by a node.
    Json(Receipt),
    /// Signed by the service.
    Cose(CoseReceipt),
}

/// A snapshot in its file's own bytes.
#[derive(Clone, Debug)]
pub struct SnapshotFile<'a> {
    frame: Frame<'a>,
    leaf: Digest,
    views: ViewHistory,
    public_maps: &'a [u8],
    receipt: &'a [u8],
}

impl<'a> SnapshotFile<'a> {
    /// Reads a snapshot, with or without its receipt. Nothing is verified yet.
    ///
    /// # Errors
    /// If frame or head are malformed.
    pub fn parse(file: &'a [u8]) -> Result<Self, SnapshotError> {
        let (frame, receipt) = Frame::parse(file)?;
        let mut cursor = Cursor::new(frame.public);
        let entry_type = cursor.u8()?;
        if entry_type != SNAPSHOT_TYPE {
            return Err(SnapshotError::Type(entry_type));
        }
        let seqno = Seqno(cursor.u64()?);
        if (seqno.0, SNAPSHOT_BIT) != (frame.seqno, frame.view) {
            return Err(SnapshotError::Iv(seqno));
        }
        let _max_conflict_version = cursor.u64()?;
        let leaf = cursor.bytes64()?;
        let leaf = leaf.try_into().map_err(|_| SnapshotError::Leaf(leaf.len()))?;
        let mut history = Cursor::new(cursor.bytes64()?);
        let mut starts = Vec::new();
        while !history.is_empty() {
            starts.push(Seqno(history.u64()?));
        }
        Ok(Self {
            frame,
            leaf: Digest(leaf),
            views: ViewHistory::from_starts(starts)?,
            public_maps: cursor.rest(),
            receipt,
        })
    }

    /// The position of the state. Its view is the one that the history tells.
    pub fn tx_id(&self) -> TxId {
        let seqno = Seqno(self.frame.seqno);
        TxId { view: self.views.view_of(seqno).unwrap_or(View(0)), seqno }
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
        sha256(self.frame.bytes)
    }

    /// The bytes before the receipt.
    pub fn state_bytes(&self) -> &'a [u8] {
        self.frame.bytes
    }

    /// The receipt.
    ///
    /// # Errors
    /// If there is none or it is malformed.
    pub fn receipt(&self) -> Result<SnapshotReceipt, SnapshotError> {
        match self.receipt.first() {
            None => Err(SnapshotError::NoReceipt),
            Some(&COSE_SIGN1_TAG) => Ok(SnapshotReceipt::Cose(CoseReceipt::parse(self.receipt)?)),
            Some(_) => Ok(SnapshotReceipt::Json(Receipt::from_json(self.receipt)?)),
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
        let (claimed, actual) = (claimed.unwrap_or_default(), self.digest());
        if claimed != actual {
            return Err(SnapshotError::Digest { claimed, actual });
        }
        match &receipt {
            SnapshotReceipt::Json(receipt) => receipt.verify_claims(service, actual).map(|_| ())?,
            SnapshotReceipt::Cose(receipt) => receipt.verify_claims(service, actual)?,
        }
        Ok(())
    }

    /// The public part of the state.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn public_state(&self) -> Result<Snapshot, SnapshotError> {
        let mut builder = SnapshotBuilder::new(self.tx_id());
        read_maps(&mut builder, self.public_maps, Visibility::Public)?;
        Ok(builder.build()?)
    }

    /// The whole state, decrypted and authenticated.
    ///
    /// # Errors
    /// If it is malformed, or not what was written under the ledger secret.
    pub fn state(&self, secrets: &LedgerSecrets) -> Result<Snapshot, SnapshotError> {
        let seqno = Seqno(self.frame.seqno);
        let secret = secrets.secret_for(seqno).ok_or(SnapshotError::NoSecret(seqno))?;
        let private = self.frame.decrypt(secret)?;
        let mut builder = SnapshotBuilder::new(self.tx_id());
        read_maps(&mut builder, self.public_maps, Visibility::Public)?;
        read_maps(&mut builder, &private, Visibility::Private)?;
        Ok(builder.build()?)
    }

    /// The Merkle tree from which a ledger goes on after the snapshot: that of the signature
    /// transaction at its position, and the leaf of that transaction itself.
    ///
    /// # Errors
    /// If `state`, which is the snapshot's own, has no such tree.
    pub fn tree(&self, state: &Snapshot) -> Result<MerkleTree, SnapshotError> {
        let value = state.map(&MapName::new(TREE)).and_then(|map| map.get(&SINGLE_KEY));
        let mut tree = MerkleTree::parse(&value.ok_or(SnapshotError::NoTree)?.value)?;
        if tree.len() != self.frame.seqno {
            return Err(SnapshotError::NoTree);
        }
        tree.append(self.leaf);
        Ok(tree)
    }
}

fn read_maps(
    builder: &mut SnapshotBuilder,
    bytes: &[u8],
    visibility: Visibility,
) -> Result<(), SnapshotError> {
    let mut cursor = Cursor::new(bytes);
    let mut previous: Option<&str> = None;
    while !cursor.is_empty() {
        let name = std::str::from_utf8(cursor.bytes64()?);
        let fault = |map: &str, fault| SnapshotError::Map { map: map.to_owned(), fault };
        let name = name.map_err(|_| fault("", "the name is not UTF-8"))?;
        if !visibility.holds(name) {
            return Err(fault(name, "it is in the wrong domain"));
        }
        if previous.is_some_and(|previous| previous >= name) {
            return Err(fault(name, "it is out of order"));
        }
        previous = Some(name);
        let _version = cursor.u64()?;
        let mut state = Cursor::new(cursor.bytes64()?);
        let map = MapName::new(name);
        while !state.is_empty() {
            let key = state.bytes64()?;
            skip_padding(&mut state, key.len() as u64)?;
            let length = state.u64()?;
            let value_bytes =
                length.checked_sub(8).ok_or_else(|| fault(name, "a value has no version"))?;
            let version = state.u64()?;
            let value = state.take(value_bytes)?;
            skip_padding(&mut state, value_bytes)?;
            // Before CCF 3.0 a version was signed, and a negative one marked a removed key.
            if i64::try_from(version).is_ok() {
                builder.insert(&map, key, value, Seqno(version))?;
            }
        }
    }
    Ok(())
}

fn skip_padding(cursor: &mut Cursor<'_>, length: u64) -> Result<(), Truncated> {
    cursor.take(padding(length)).map(|_| ())
}
