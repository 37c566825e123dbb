//! Replays entries one after the other and checks each against everything before it.

use std::sync::Arc;

use coco_crypto::Digest;
use coco_kv::{Seqno, Store, TxId, View};
use coco_ledger::{
    ChunkError, ChunkName, Entry, EntryError, LedgerSecrets, MerkleTree, ReceiptError, Resumed,
    SignatureError, SignatureTransaction, SignedProof, ViewHistory, ViewHistoryError,
};

use crate::identities::Identities;
use crate::pipeline::KEPT_LEAVES;

use super::{LoadedSnapshot, Recovered, RecoveryError};

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFault {
    /// The chunk's frame is broken there.
    #[error(transparent)]
    Chunk(ChunkError),
    /// It is malformed or does not authenticate.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// It is of another position, or of an earlier view than the one before it.
    #[error("the entry says that it is {0}")]
    TxId(TxId),
    /// Its view cannot follow.
    #[error(transparent)]
    View(#[from] ViewHistoryError),
    /// It is a malformed signature transaction.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Its signature is not the service's.
    #[error("the signature does not verify: {0}")]
    NotVerified(#[from] ReceiptError),
    /// The chunk does not end with a signature transaction.
    #[error("the chunk does not end with a signature")]
    NotSigned,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located {
    pub file: ChunkName,
    pub offset: u64,
    pub seqno: Seqno,
}

impl Located {
    pub fn damaged(self, fault: ReplayFault) -> RecoveryError {
        let Self { file, offset, seqno } = self;
        RecoveryError::Entry { file: file.to_string(), offset, seqno, fault }
    }
}

/// The state up to some entry of the ledger.
pub(super) struct Replay {
    secrets: Arc<LedgerSecrets>,
    identities: Identities,
    store: Store,
    tree: MerkleTree,
    views: ViewHistory,
    last: TxId,
    /// The last entry, if it is a signature transaction: to be verified when its chunk ends.
    signature: Option<(Located, Arc<SignatureTransaction>)>,
    /// Entries were replayed whose signature is not verified yet.
    unverified: bool,
}

impl Replay {
    /// Begins with an empty ledger.
    pub fn new(secrets: Arc<LedgerSecrets>, identities: Identities) -> Self {
        Self {
            secrets,
            identities,
            store: Store::new(View(0)),
            tree: MerkleTree::new(),
            views: ViewHistory::new(),
            last: TxId::default(),
            signature: None,
            unverified: false,
        }
    }

    /// Begins after a snapshot, which was verified.
    pub fn after_snapshot(self, snapshot: LoadedSnapshot) -> Self {
        let last = snapshot.state.tx_id();
        let store = Store::restore(snapshot.state, last.view);
        Self { store, tree: snapshot.tree, views: snapshot.views, last, ..self }
    }

    /// The last position replayed.
    pub fn last(&self) -> Seqno {
        self.last.seqno
    }

    pub fn last_tx_id(&self) -> TxId {
        self.last
    }

    pub fn secrets(&self) -> &LedgerSecrets {
        &self.secrets
    }

    /// Replays the next entry. Those that a snapshot held already are passed over.
    pub fn entry(&mut self, located: Located, bytes: &[u8]) -> Result<(), RecoveryError> {
        if located.seqno <= self.last.seqno {
            return Ok(());
        }
        self.try_entry(located, bytes).map_err(|fault| located.damaged(fault))
    }

    fn try_entry(&mut self, located: Located, bytes: &[u8]) -> Result<(), ReplayFault> {
        let entry = Entry::parse(bytes)?;
        let tx_id = entry.tx_id();
        if tx_id.seqno != self.last.seqno.next() || tx_id.view < self.last.view {
            return Err(ReplayFault::TxId(tx_id));
        }
        // Decryption authenticates the entry under a key that only enclaves hold.
        let writes = entry.writes(&self.secrets)?;
        self.views.record(tx_id)?;
        let signature = SignatureTransaction::parse(&writes)?;
        if let Some(signature) = &signature {
            self.check_signature(signature, tx_id)?;
        }
        self.store.apply(tx_id, &writes).map_err(|_| ReplayFault::TxId(tx_id))?;
        self.tree.append(entry.leaf());
        self.last = tx_id;
        if signature.is_some() {
            self.store.compact(tx_id.seqno);
            self.tree.flush_to(tx_id.seqno.0.saturating_sub(KEPT_LEAVES));
        }
        self.unverified = true;
        self.signature = signature.map(|signature| (located, Arc::new(signature)));
        Ok(())
    }

    /// Compares a signed root with the one computed here. The signatures themselves are verified
    /// at the end of the chunk: the last root covers all before it.
    fn check_signature(
        &self,
        signature: &SignatureTransaction,
        tx_id: TxId,
    ) -> Result<(), ReplayFault> {
        if let Some(other) = signature.tx_ids().find(|signed| *signed != tx_id) {
            return Err(ReplayFault::TxId(other));
        }
        let computed = self.tree.root();
        if let Some(node) = signature.node.as_ref().filter(|node| node.root != computed) {
            return Err(SignatureError::Root { signed: node.root, computed }.into());
        }
        Ok(())
    }

    /// Verifies the signature transaction that ends the chunk.
    pub fn end_of_chunk(&mut self, name: ChunkName) -> Result<(), RecoveryError> {
        if !std::mem::take(&mut self.unverified) {
            return Ok(());
        }
        let Some((located, signature)) = self.signature.take() else {
            let located = Located { file: name, offset: 0, seqno: self.last.seqno };
            return Err(located.damaged(ReplayFault::NotSigned));
        };
        self.verify(&signature).map_err(|fault| located.damaged(fault))
    }

    fn verify(&self, signature: &Arc<SignatureTransaction>) -> Result<(), ReplayFault> {
        // The signature transaction is the last leaf; it signs all before.
        let signed = self.tree.root_of(self.last.seqno.0).ok_or(ReplayFault::NotSigned)?;
        let proof = SignedProof::of_signature(signed, Arc::clone(signature));
        let key = &self.identities.at(self.last.seqno).key;
        if signature.node.is_some() {
            proof.receipt(None, Vec::new())?.verify(key)?;
        }
        if let Some(service) = &signature.service {
            service.verify(key, signed)?;
        }
        Ok(())
    }

    /// The recovered ledger, in which `view` begins.
    pub fn finish(
        mut self,
        view: View,
        files: Resumed,
        last_snapshot: Seqno,
    ) -> Result<Recovered, ViewHistoryError> {
        let last = self.last;
        // The last entry is a signature transaction; it signs all before.
        let last_signed_root = self.tree.root_of(last.seqno.0).unwrap_or(Digest::ZERO);
        // Nothing is taken back; only the view of what comes next changes.
        let moved = self.store.rollback(last.seqno, view);
        assert!(moved.is_ok(), "the head is always a possible target");
        self.views.record(TxId { view, seqno: last.seqno.next() })?;
        Ok(Recovered {
            store: self.store,
            tree: self.tree,
            views: self.views,
            last,
            last_signed_root,
            view,
            files,
            last_snapshot,
        })
    }
}
