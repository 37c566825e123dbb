//! Receipts: evidence, checkable offline, that a transaction is in the ledger.
//!
//! ```text
//!   leaf components ─▶ leaf ─ path ─▶ root ◀─ signed by a node ◀─ endorsed by the service   JSON
//!                                       ◀──── signed by the service                          COSE
//! ```

mod cose;
mod json;

use std::sync::Arc;

use coco_crypto::cbor::CborError;
use coco_crypto::{BadSignature, CertificateError, CoseError, Digest, sha256};
use coco_kv::TxId;

pub use cose::CoseReceipt;
pub use json::Receipt;

use crate::entry::{EncodedEntry, Entry, EntryError, leaf_digest};
use crate::merkle::{MerkleTree, Path, TreeError};
use crate::secret::LedgerSecrets;
use crate::signature::{SignatureError, SignatureTransaction, Signer};

/// The longest receipt that is read.
pub const MAX_RECEIPT_BYTES: usize = 1 << 20;
/// No ledger needs a longer path.
const MAX_PATH_STEPS: usize = 64;

/// A receipt cannot be made, read or trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Longer than any receipt.
    #[error("a receipt of {0} bytes is too long")]
    TooLong(usize),
    /// The JSON, or a field of it, is malformed.
    #[error("not a receipt: {0}")]
    Json(String),
    /// The COSE envelope is malformed or does not verify.
    #[error(transparent)]
    Cose(#[from] CoseError),
    /// An inclusion proof is not CBOR.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// The receipt lacks a part that is needed.
    #[error("the receipt has no usable {0}")]
    Missing(&'static str),
    /// The signature's header is not that of a ledger signature, or names another key.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The signature does not fit the root.
    #[error("the root is not signed: {0}")]
    Root(#[from] BadSignature),
    /// A certificate is malformed, or not endorsed by the next.
    #[error("the certificate chain does not reach the service: {0}")]
    Certificate(#[from] CertificateError),
    /// The node's certificate is not that of the node named.
    #[error("the certificate is not that of node {0}")]
    NodeId(String),
    /// The application's claims are not those that the receipt covers.
    #[error("the receipt covers other claims")]
    Claims,
    /// The entry cannot be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The signature transaction's tree cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The entry given as the signature is not a signature transaction.
    #[error("{0} is not a signature transaction")]
    NotASignature(TxId),
    /// The signature transaction does not cover the entry.
    #[error("the signature transaction at {signature} does not cover {tx_id}")]
    NotCovered {
        /// The transaction that a receipt was asked for.
        tx_id: TxId,
        /// The signature transaction.
        signature: TxId,
    },
}

/// What a leaf of the Merkle tree is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafComponents {
    /// SHA-256 of the entry.
    pub write_set_digest: Digest,
    /// Proves that the entry was committed; not in entries older than CCF 2.0.
    pub commit_evidence: Option<String>,
    /// What the application claims; not in old entries.
    pub claims_digest: Option<Digest>,
}

impl LeafComponents {
    /// Those of an entry of the ledger; the commit evidence is made again.
    ///
    /// # Errors
    /// If no secret is known for the entry, or it makes another commit evidence.
    pub fn of_entry(entry: &Entry<'_>, secrets: &LedgerSecrets) -> Result<Self, EntryError> {
        let tx_id = entry.tx_id();
        let commit_evidence = entry.commit_evidence_digest().map(|stored| {
            let secret =
                secrets.secret_for(tx_id.seqno).ok_or(EntryError::NoSecret(tx_id.seqno))?;
            let evidence = secret.commit_evidence(tx_id);
            (evidence.digest() == stored)
                .then(|| evidence.to_string())
                .ok_or(EntryError::CommitEvidence)
        });
        Ok(Self {
            write_set_digest: entry.write_set_digest(),
            commit_evidence: commit_evidence.transpose()?,
            claims_digest: entry.claims_digest(),
        })
    }

    /// The leaf.
    pub fn digest(&self) -> Digest {
        let evidence = self.commit_evidence.as_ref().map(|text| sha256(text.as_bytes()));
        leaf_digest(self.write_set_digest, evidence, self.claims_digest)
    }

    /// The transaction that the commit evidence names.
    pub fn tx_id(&self) -> Option<TxId> {
        let (tx_id, _) = self.commit_evidence.as_ref()?.strip_prefix("ce:")?.split_once(':')?;
        tx_id.parse().ok()
    }

    fn require_tx_id(&self) -> Result<TxId, ReceiptError> {
        self.tx_id().ok_or(ReceiptError::Missing("commit evidence"))
    }
}

impl From<&EncodedEntry> for LeafComponents {
    fn from(entry: &EncodedEntry) -> Self {
        Self {
            write_set_digest: entry.write_set_digest,
            commit_evidence: Some(entry.commit_evidence.to_string()),
            claims_digest: Some(entry.claims_digest),
        }
    }
}

/// The start of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// The parts that are hashed to the leaf.
    Components(LeafComponents),
    /// The leaf itself: that of an entry without further digests, or the root that a signature
    /// transaction signed.
    Digest(Digest),
}

/// What a proof is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The transaction that the commit evidence names.
    Transaction(TxId),
    /// A signature transaction: all that is shown is that its root was signed.
    Signature,
}

/// A leaf and its path to a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// The leaf.
    pub leaf: Leaf,
    /// From there to the root.
    pub path: Path,
}

impl InclusionProof {
    /// The root that the proof leads to.
    pub fn root(&self) -> Digest {
        self.path.root_from(match &self.leaf {
            Leaf::Components(components) => components.digest(),
            Leaf::Digest(digest) => *digest,
        })
    }

    /// What the proof is of. The tree's nodes are hashed as leaves of two digests are, so that
    /// without commit evidence a leaf may as well be an inner node.
    ///
    /// # Errors
    /// If there is no commit evidence. A bare leaf with a path, of an entry older than CCF 2.0, proves
    /// something only to who has the entry, and knows by its digest that this is the leaf.
    pub fn subject(&self) -> Result<Subject, ReceiptError> {
        match &self.leaf {
            Leaf::Components(components) => components.require_tx_id().map(Subject::Transaction),
            Leaf::Digest(_) if self.path.0.is_empty() => Ok(Subject::Signature),
            Leaf::Digest(_) => Err(ReceiptError::Missing("commit evidence")),
        }
    }
}

/// A proof together with the signature transaction over its root: all that receipts of both kinds
/// are made of.
#[derive(Clone, Debug)]
pub struct SignedProof {
    /// Leads to the signed root.
    pub proof: InclusionProof,
    /// Over the root.
    pub signature: Arc<SignatureTransaction>,
}

impl SignedProof {
    /// Of a transaction whose leaf is still in memory. `signed_at` is the seqno of the signature
    /// transaction; `None` if the tree does not hold what is needed.
    pub fn live(
        components: LeafComponents,
        seqno: u64,
        tree: &MerkleTree,
        signature: Arc<SignatureTransaction>,
        signed_at: u64,
    ) -> Option<Self> {
        let path = tree.path(seqno, signed_at)?;
        let proof = InclusionProof { leaf: leaf_of(components), path };
        Some(Self { proof, signature })
    }

    /// Of a transaction on the ledger, from its entry and the entry of the first signature
    /// transaction after it, or the same entry twice for a signature transaction itself.
    ///
    /// # Errors
    /// If the entries do not belong together, or no secret is known for the commit evidence.
    pub fn historical(
        entry: &Entry<'_>,
        signature_entry: &Entry<'_>,
        secrets: &LedgerSecrets,
    ) -> Result<Self, ReceiptError> {
        let (tx_id, signed_at) = (entry.tx_id(), signature_entry.tx_id());
        let writes = signature_entry.public_writes()?;
        let signature =
            SignatureTransaction::parse(&writes)?.ok_or(ReceiptError::NotASignature(signed_at))?;
        let tree = MerkleTree::parse(&signature.tree)?;
        let signature = Arc::new(signature);
        if tree.len() != signed_at.seqno.0 {
            return Err(ReceiptError::NotCovered { tx_id, signature: signed_at });
        }
        if tx_id == signed_at && entry.bytes() == signature_entry.bytes() {
            return Ok(Self::of_signature(tree.root(), signature));
        }
        let seqno = tx_id.seqno.0;
        let path = tree.path(seqno, tree.len()).filter(|_| tree.leaf(seqno) == Some(entry.leaf()));
        let path = path.ok_or(ReceiptError::NotCovered { tx_id, signature: signed_at })?;
        let leaf = leaf_of(LeafComponents::of_entry(entry, secrets)?);
        Ok(Self { proof: InclusionProof { leaf, path }, signature })
    }

    /// Of a signature transaction itself: the root, and no path.
    pub fn of_signature(root: Digest, signature: Arc<SignatureTransaction>) -> Self {
        let proof = InclusionProof { leaf: Leaf::Digest(root), path: Path::default() };
        Self { proof, signature }
    }

    /// The JSON receipt that the ledger has the signature for. `node_certificate` is used if the
    /// signature transaction has none, as before CCF 2.0; `endorsements` lead from an earlier service
    /// identity to the present one.
    ///
    /// # Errors
    /// If there is no node's signature, or no certificate.
    pub fn receipt(
        &self,
        node_certificate: Option<&str>,
        endorsements: Vec<String>,
    ) -> Result<Receipt, ReceiptError> {
        let node = self.signature.node.as_ref().ok_or(ReceiptError::Missing("node signature"))?;
        let certificate = node.certificate.as_deref().or(node_certificate);
        Ok(Receipt {
            proof: self.proof.clone(),
            certificate: certificate.ok_or(ReceiptError::Missing("node certificate"))?.to_owned(),
            node_id: node.node_id.clone(),
            signature: node.signature.clone(),
            endorsements,
        })
    }

    /// The JSON receipt of a root that no node has signed on the ledger, with the `signature` that
    /// `signer`'s node makes of it for that. The root must be committed.
    pub fn receipt_by(&self, signer: &Signer, signature: Vec<u8>) -> Receipt {
        Receipt {
            proof: self.proof.clone(),
            certificate: signer.node_certificate.clone(),
            node_id: signer.node_key.public().id().to_string(),
            signature,
            endorsements: Vec::new(),
        }
    }

    /// The COSE receipt.
    ///
    /// # Errors
    /// If there is no service's signature, or the leaf is not made of all three components.
    pub fn cose_receipt(&self) -> Result<CoseReceipt, ReceiptError> {
        let service =
            self.signature.service.as_ref().ok_or(ReceiptError::Missing("service signature"))?;
        CoseReceipt::new(service.clone(), vec![self.proof.clone()])
    }
}

/// An entry without further digests is its own leaf.
fn leaf_of(components: LeafComponents) -> Leaf {
    match (&components.commit_evidence, components.claims_digest) {
        (None, None) => Leaf::Digest(components.write_set_digest),
        _ => Leaf::Components(components),
    }
}

#[cfg(test)]
mod tests;
