//! Batches of another primary: read and checked as a whole, before anything of them is applied.
//!
//! ```text
//!   check    entries, order, the signed root, who has signed     a sixth of the time
//!   verify   the signatures                                      while the disk takes the batch
//! ```

use std::sync::Arc;

use coco_consensus::{Batch, NodeId};
use coco_crypto::{Digest, PublicKey};
use coco_governance::tables::{NODES, NodeStatus};
use coco_kv::{StateMap, Store, Tx, TxId, WriteSet};
use coco_ledger::{
    Entry, EntryError, MerkleTree, SignatureError, SignatureTransaction, split_entry,
};

use super::batch::LeafParts;
use crate::service::ServiceKeys;

/// A batch that no correct node of this service proposes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchFault {
    #[error("an entry is malformed or does not authenticate: {0}")]
    Entry(#[from] EntryError),
    #[error("entry {found} stands where {expected} would")]
    TxId { found: TxId, expected: TxId },
    #[error("the signature at {0} is not the last entry, or the last entry is none")]
    Unsigned(TxId),
    #[error("the signature at {at}: {fault}")]
    Signature { at: TxId, fault: SignatureError },
    #[error("{node} signed {at} and is not a trusted node")]
    Signer { at: TxId, node: String },
}

/// A batch that may be applied once its signatures are verified.
pub(super) struct CheckedBatch {
    /// What the entries write, in order.
    pub transactions: Vec<(TxId, WriteSet)>,
    /// What the leaves of all but the signature are made of.
    pub parts: Vec<LeafParts>,
    pub signature: Arc<SignatureTransaction>,
    /// The leaf of the signature.
    pub last_leaf: Digest,
    /// The root that is signed.
    root: Digest,
    /// The key of the node that has signed it too, if one has.
    signer: Option<PublicKey>,
}

/// The key of a node that was trusted in a list of nodes. It is of use again as long as the list is
/// the same.
pub(super) struct KnownSigner {
    list: StateMap,
    node: String,
    key: PublicKey,
}

impl CheckedBatch {
    /// All signatures must hold: that of the service, and that of the node if there is one.
    pub fn verify(&self, keys: &ServiceKeys) -> Result<(), BatchFault> {
        let Some(service) = &self.signature.service else {
            let at = self.transactions.last().map_or_else(TxId::default, |(tx_id, _)| *tx_id);
            return Err(BatchFault::Unsigned(at));
        };
        let at = service.tx_id;
        let fault = |fault| BatchFault::Signature { at, fault };
        if let Some((node, signer)) = self.signature.node.as_ref().zip(self.signer.as_ref()) {
            node.verify(signer).map_err(|bad| fault(bad.into()))?;
        }
        keys.verify(service, self.root).map_err(fault)
    }
}

/// Whether the entry is a signature transaction.
pub(super) fn is_signature(entry: &[u8]) -> Result<bool, BatchFault> {
    let writes = Entry::parse(entry)?.public_writes()?;
    let fault = |fault| BatchFault::Signature { at: TxId::default(), fault };
    Ok(SignatureTransaction::parse(&writes).map_err(fault)?.is_some())
}

/// Reads a batch that follows the last leaf of `tree`, to which the leaves before its signature are
/// appended. `store` is in the state before the batch.
pub(super) fn check(
    batch: &Batch,
    tree: &mut MerkleTree,
    store: &Store,
    keys: &ServiceKeys,
    known: &mut Option<KnownSigner>,
) -> Result<CheckedBatch, BatchFault> {
    let size = tree.len();
    let checked = try_check(batch, tree, store, keys, known);
    if checked.is_err() {
        let retracted = tree.retract_to(size);
        assert!(retracted, "what was just appended is not flushed");
    }
    checked
}

fn try_check(
    batch: &Batch,
    tree: &mut MerkleTree,
    store: &Store,
    keys: &ServiceKeys,
    known: &mut Option<KnownSigner>,
) -> Result<CheckedBatch, BatchFault> {
    let secrets = keys.secrets();
    let mut transactions = Vec::new();
    let mut parts = Vec::new();
    let mut rest: &[u8] = &batch.entries;
    let mut expected = TxId { view: batch.last.view, seqno: batch.first };
    loop {
        let (entry, after) = split_entry(rest)?;
        rest = after;
        let entry = Entry::parse(entry)?;
        let tx_id = entry.tx_id();
        if tx_id != expected || tx_id.seqno.0 != tree.len() {
            return Err(BatchFault::TxId { found: tx_id, expected });
        }
        let writes = entry.writes(&secrets)?;
        let fault = |fault| BatchFault::Signature { at: tx_id, fault };
        let signature = SignatureTransaction::parse(&writes).map_err(fault)?;
        let is_last = tx_id == batch.last;
        if is_last != rest.is_empty() || is_last != signature.is_some() {
            return Err(BatchFault::Unsigned(tx_id));
        }
        if let Some(signature) = signature {
            let root = tree.root();
            let signer = check_signature(&signature, tx_id, root, &transactions, store, known)?;
            let (signature, last_leaf) = (Arc::new(signature), entry.leaf());
            transactions.push((tx_id, writes));
            return Ok(CheckedBatch { transactions, parts, signature, last_leaf, root, signer });
        }
        parts.push(leaf_parts(&entry));
        tree.append(entry.leaf());
        transactions.push((tx_id, writes));
        expected.seqno = expected.seqno.next();
    }
}

fn leaf_parts(entry: &Entry<'_>) -> LeafParts {
    LeafParts {
        write_set_digest: entry.write_set_digest(),
        claims_digest: entry.claims_digest().unwrap_or(Digest::ZERO),
    }
}

/// The service's signature must be there, for this place; a node's must be for this root, too, and
/// the node be trusted in the state that is signed. Returns that node's key.
fn check_signature(
    signature: &SignatureTransaction,
    tx_id: TxId,
    root: Digest,
    transactions: &[(TxId, WriteSet)],
    store: &Store,
    known: &mut Option<KnownSigner>,
) -> Result<Option<PublicKey>, BatchFault> {
    if let Some(found) = signature.tx_ids().find(|signed| *signed != tx_id) {
        return Err(BatchFault::TxId { found, expected: tx_id });
    }
    if signature.service.is_none() {
        return Err(BatchFault::Unsigned(tx_id));
    }
    let Some(node) = &signature.node else { return Ok(None) };
    if node.root != root {
        let fault = SignatureError::Root { signed: node.root, computed: root };
        return Err(BatchFault::Signature { at: tx_id, fault });
    }
    let signer = signer(&node.node_id, transactions, store, known);
    signer.map(Some).ok_or_else(|| BatchFault::Signer { at: tx_id, node: node.node_id.clone() })
}

/// The key of a node that is trusted after these transactions, which is looked up again only when
/// the list of nodes is another.
fn signer(
    node: &str,
    transactions: &[(TxId, WriteSet)],
    store: &Store,
    known: &mut Option<KnownSigner>,
) -> Option<PublicKey> {
    if transactions.iter().any(|(_, writes)| writes.map(NODES.name()).is_some()) {
        return trusted_key(node, transactions, store);
    }
    let list = store.snapshot().map(NODES.name())?.clone();
    if let Some(known) = known
        && known.node == node
        && known.list.is_same(&list)
    {
        return Some(known.key.clone());
    }
    let key = trusted_key(node, transactions, store)?;
    *known = Some(KnownSigner { list, node: node.to_owned(), key: key.clone() });
    Some(key)
}

/// The key of a node that is trusted after these transactions; also of one that is being retired,
/// as long as that is not committed.
fn trusted_key(node: &str, transactions: &[(TxId, WriteSet)], store: &Store) -> Option<PublicKey> {
    let NodeId(id) = node.parse().map(NodeId).ok()?;
    let mut tx = Tx::on(store.snapshot());
    let changed = transactions.iter().filter_map(|(_, writes)| writes.map(NODES.name()));
    for (key, value) in changed.flat_map(|map| map.iter()) {
        match value {
            Some(value) => tx.put(NODES.name(), key.clone(), value.clone()),
            None => tx.remove(NODES.name(), key.clone()),
        }
    }
    let info = NODES.get(&mut tx, &id).ok()??;
    let is_trusted = match info.status {
        NodeStatus::Trusted => true,
        NodeStatus::Retired => !info.retired_committed,
        NodeStatus::Pending => false,
    };
    let key = PublicKey::from_pem(&info.public_key.filter(|_| is_trusted)?.0).ok()?;
    (key.id() == id).then_some(key)
}
