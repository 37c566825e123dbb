//! Signed batches in memory: what receipts of recent transactions are made of.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use coco_crypto::Digest;
use coco_kv::{Seqno, TxId};
use coco_ledger::{MerkleTree, SignatureTransaction, TreeError};

/// Entries and batches kept, whichever is reached first: some 10 MB.
const MAX_RECENT_ENTRIES: usize = 65_536;
const MAX_RECENT_BATCHES: usize = 2_048;

/// What of an entry its leaf is made of, next to the commit evidence, which the ledger secret
/// makes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeafParts {
    pub write_set_digest: Digest,
    pub claims_digest: Digest,
}

/// The entries between two signature transactions, and the later of these.
pub(crate) struct SignedBatch {
    pub first: Seqno,
    pub signed_at: TxId,
    pub signature: Arc<SignatureTransaction>,
    pub parts: Vec<LeafParts>,
    tree: OnceLock<Result<MerkleTree, TreeError>>,
}

impl SignedBatch {
    pub fn new(
        first: Seqno,
        signed_at: TxId,
        signature: Arc<SignatureTransaction>,
        parts: Vec<LeafParts>,
    ) -> Self {
        Self { first, signed_at, signature, parts, tree: OnceLock::new() }
    }

    /// The tree that the signature covers: it holds the leaves of this batch and, of all before,
    /// what their paths need. Parsed when the first receipt asks for it.
    pub fn tree(&self) -> Result<&MerkleTree, &TreeError> {
        self.tree.get_or_init(|| MerkleTree::parse(&self.signature.tree)).as_ref()
    }

    /// What an entry's leaf is made of; `None` for the signature and what is not in the batch.
    pub fn parts_of(&self, seqno: Seqno) -> Option<LeafParts> {
        let at = usize::try_from(seqno.0.checked_sub(self.first.0)?).ok()?;
        self.parts.get(at).copied()
    }
}

/// The last batches, up to a bound.
#[derive(Default)]
pub(crate) struct RecentBatches {
    batches: VecDeque<Arc<SignedBatch>>,
    entries: usize,
}

impl RecentBatches {
    pub fn push(&mut self, batch: Arc<SignedBatch>) {
        self.entries += batch.parts.len();
        self.batches.push_back(batch);
        while self.entries > MAX_RECENT_ENTRIES || self.batches.len() > MAX_RECENT_BATCHES {
            let Some(oldest) = self.batches.pop_front() else { return };
            self.entries -= oldest.parts.len();
        }
    }

    /// Forgets the batches that end after `seqno`.
    pub fn take_back(&mut self, seqno: Seqno) {
        while let Some(batch) = self.batches.pop_back_if(|batch| batch.signed_at.seqno > seqno) {
            self.entries -= batch.parts.len();
        }
    }

    /// The batch that holds `seqno`, as an entry or as its signature.
    pub fn holding(&self, seqno: Seqno) -> Option<Arc<SignedBatch>> {
        let at = self.batches.partition_point(|batch| batch.signed_at.seqno < seqno);
        self.batches.get(at).filter(|batch| batch.first <= seqno).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, signed_at: u64) -> Arc<SignedBatch> {
        let parts = LeafParts { write_set_digest: Digest::ZERO, claims_digest: Digest::ZERO };
        let signature = SignatureTransaction { node: None, service: None, tree: Vec::new() };
        let parts = vec![parts; (signed_at - first) as usize];
        let signature = Arc::new(signature);
        Arc::new(SignedBatch::new(Seqno(first), TxId::new(2, signed_at), signature, parts))
    }

    #[test]
    fn the_batch_of_a_position_is_found() {
        let mut recent = RecentBatches::default();
        for (first, last) in [(1, 4), (5, 5), (6, 9)] {
            recent.push(batch(first, last));
        }
        let found = |seqno| recent.holding(Seqno(seqno)).map(|batch| batch.first.0);
        assert_eq!([0, 1, 4, 5, 6, 9, 10].map(found), {
            [None, Some(1), Some(1), Some(5), Some(6), Some(6), None]
        });
        let batch = recent.holding(Seqno(4)).unwrap();
        assert!(batch.parts_of(Seqno(3)).is_some());
        assert!(batch.parts_of(Seqno(4)).is_none());
        assert!(batch.tree().is_err());
    }

    #[test]
    fn old_batches_make_room() {
        let mut recent = RecentBatches::default();
        (1..=3_000).for_each(|seqno| recent.push(batch(seqno, seqno)));
        assert!(recent.holding(Seqno(900)).is_none());
        assert!(recent.holding(Seqno(1_000)).is_some());
        recent.push(batch(3_001, 80_000));
        assert!(recent.batches.is_empty());
        assert_eq!(recent.entries, 0);
    }
}
