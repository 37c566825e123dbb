//! Receipts and past states: recent ones from memory, older ones from the ledger's files.

use std::sync::Arc;

use coco_adapter::{HistoricalState, TxStatus};
use coco_kv::{Seqno, TxId};
use coco_ledger::{CoseReceipt, LeafComponents, Receipt, SignedProof};
use tokio::sync::OwnedSemaphorePermit;

use super::batch::SignedBatch;
use super::{Pipeline, ReceiptError};
use crate::historical::{Historical, Query};

impl Pipeline {
    /// The receipt of a committed transaction, as JSON carries it.
    pub async fn receipt(&self, tx_id: TxId) -> Result<Arc<Receipt>, ReceiptError> {
        let proof = self.proof(tx_id).await?;
        let unavailable = |reason: coco_ledger::ReceiptError| ReceiptError::NotAvailable {
            tx_id,
            reason: reason.to_string(),
        };
        self.inner.keys.receipt(&proof, tx_id.seqno).map(Arc::new).map_err(unavailable)
    }

    /// The COSE receipt of a committed transaction; `None` for a signature transaction, which has
    /// none.
    pub async fn cose_receipt(&self, tx_id: TxId) -> Result<Option<CoseReceipt>, ReceiptError> {
        Ok(self.proof(tx_id).await?.cose_receipt().ok())
    }

    /// What receipts of a committed transaction are made of, if it is recent enough to be in
    /// memory.
    pub fn proof_now(&self, tx_id: TxId) -> Option<SignedProof> {
        if self.status(tx_id) != TxStatus::Committed {
            return None;
        }
        self.recent_proof(tx_id)
    }

    /// As [`historical_state`](Self::historical_state), if no disk must be asked.
    pub fn historical_state_now(&self, tx_id: TxId) -> Option<HistoricalState> {
        if self.status(tx_id) != TxStatus::Committed {
            return None;
        }
        self.inner.historical.cached_state(tx_id)
    }

    /// Whoever fetches something for a client holds a place meanwhile; none is left if too many do.
    pub(crate) fn place_to_fetch(&self) -> Option<OwnedSemaphorePermit> {
        self.inner.historical.place()
    }

    /// What receipts of both kinds are made of, for a committed transaction.
    pub async fn proof(&self, tx_id: TxId) -> Result<SignedProof, ReceiptError> {
        self.require_committed(tx_id)?;
        if let Some(proof) = self.recent_proof(tx_id) {
            return Ok(proof);
        }
        let proven = self.inner.historical.fetch(tx_id).await;
        proven.map(|proven| proven.proof).map_err(|error| {
            tracing::warn!(%tx_id, %error, "a receipt is not available");
            ReceiptError::NotAvailable { tx_id, reason: error.to_string() }
        })
    }

    /// The state that holds just what a committed transaction wrote, with its receipt.
    pub async fn historical_state(&self, tx_id: TxId) -> Result<HistoricalState, ReceiptError> {
        self.require_committed(tx_id)?;
        self.inner.historical.state(tx_id).await.map_err(|error| {
            tracing::warn!(%tx_id, %error, "a past state is not available");
            ReceiptError::NotAvailable { tx_id, reason: error.to_string() }
        })
    }

    /// The states of `from..=to`, or `None` while they are being fetched or not yet committed.
    /// `handle` names the query; the answer is kept `ttl_seconds` after its last use. Must be
    /// called on the executor.
    pub fn state_range(
        &self,
        handle: u64,
        from: Seqno,
        to: Seqno,
        ttl_seconds: u64,
    ) -> Option<Vec<HistoricalState>> {
        if to > self.last_committed().seqno {
            return None;
        }
        let views = self.views_to(to);
        Historical::state_range(
            &self.inner.historical,
            Query { handle, from, to, ttl_seconds, views },
        )
    }

    /// Forgets what [`state_range`](Self::state_range) has fetched; whether there was anything.
    pub fn drop_cached_states(&self, handle: u64) -> bool {
        self.inner.historical.drop_cached_states(handle)
    }

    fn require_committed(&self, tx_id: TxId) -> Result<(), ReceiptError> {
        match self.status(tx_id) {
            TxStatus::Committed => Ok(()),
            TxStatus::Invalid => Err(ReceiptError::Invalid(tx_id)),
            TxStatus::Pending | TxStatus::Unknown => Err(ReceiptError::PendingOrUnknown(tx_id)),
        }
    }

    fn recent_proof(&self, tx_id: TxId) -> Option<SignedProof> {
        let batch = self.inner.recent.read().holding(tx_id.seqno)?;
        let SignedBatch { signed_at, signature, .. } = &*batch;
        let tree = batch.tree().ok()?;
        if tx_id == *signed_at {
            return Some(SignedProof::of_signature(tree.root(), Arc::clone(signature)));
        }
        let parts = batch.parts_of(tx_id.seqno)?;
        let secrets = self.inner.keys.secrets();
        let components = LeafComponents {
            write_set_digest: parts.write_set_digest,
            commit_evidence: Some(
                secrets.secret_for(tx_id.seqno)?.commit_evidence(tx_id).to_string(),
            ),
            claims_digest: Some(parts.claims_digest),
        };
        let seqno = tx_id.seqno.0;
        SignedProof::live(components, seqno, tree, Arc::clone(signature), signed_at.seqno.0)
    }
}
