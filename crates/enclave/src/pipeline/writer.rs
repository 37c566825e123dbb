//! The writer: executed transactions become entries, and batches of entries are signed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coco_consensus::{Batch, Change};
use coco_governance::tables::NODES;
use coco_kv::{Seqno, Snapshot, Store, TxId};
use coco_ledger::{
    EncodeError, EncodedEntry, EntryFlags, LedgerSecrets, MerkleTree, SignatureError,
    SignatureTransaction, SignedBy, Signer, encode_entry,
};

use super::batch::{LeafParts, SignedBatch};
use super::follow::{self, BatchFault, CheckedBatch, KnownSigner};
use super::queue::Pending;
use crate::service::ServiceKeys;

/// Leaves kept before the last signature, so that roots of recent positions can be told.
pub(crate) const KEPT_LEAVES: u64 = 4_096;

/// So many bytes of a snapshot are loaded in the time that one of the ledger takes to be replayed,
/// at least.
const LOADED_PER_REPLAYED: u64 = 8;
/// Less than this is replayed at once.
const MIN_LEARNT_BYTES: u64 = 2 << 20;

/// The ledger cannot be continued: a bug, or keys that do not fit the ledger.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("transaction {0} does not follow the ledger's last entry {1}")]
    OutOfOrder(TxId, Seqno),
    #[error("no ledger secret is valid at {0}")]
    NoSecret(Seqno),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Sign(#[from] SignatureError),
    #[error("the Merkle tree does not reach back to {0}")]
    Flushed(Seqno),
}

/// Everything that is written since the last signature, and what the next one needs.
pub(crate) struct Writer {
    /// Leaves of everything written.
    tree: MerkleTree,
    last_signature: Seqno,
    /// Where the log ends: the last batch that it has taken.
    log_end: Seqno,
    /// A signed batch that it has not taken yet. It is offered again as it is, for its nonces are
    /// used.
    offer: Option<Offer>,
    /// A signature is due even if nothing was executed.
    must_sign: bool,
    /// When the node itself is to sign next, in the host's uptime.
    node_signs_at: Duration,
    /// What is written and not signed changes the list of nodes.
    changes_nodes: bool,
    /// Entries since then, back to back.
    entries: Vec<u8>,
    parts: Vec<LeafParts>,
    force_chunk: bool,
    force_snapshot: bool,
    /// Bytes of the chunk in use, as far as proposed.
    chunk_bytes: u64,
    /// The next entry is the first of a service's life.
    force_chunk_before: bool,
    last_snapshot: Seqno,
    /// Bytes of entries since then.
    since_snapshot_bytes: u64,
    /// What the last snapshot took.
    snapshot_bytes: u64,
    /// Who has signed the last batch of another primary.
    known_signer: Option<KnownSigner>,
}

/// When chunks end, snapshots are due and the node itself signs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutRules {
    /// The host's uptime.
    pub now: Duration,
    /// The pause between the node's own signatures.
    pub node_delay: Duration,
    pub chunk_bytes: u64,
    pub snapshot_tx_count: u64,
    /// One is due or being written: what it holds of the state is not held twice.
    pub is_snapshot_coming: bool,
    /// What is not committed may be taken back.
    pub committed: Seqno,
}

/// A signed batch, and what it changes of the list of nodes.
#[derive(Clone)]
pub(crate) struct Offer {
    pub batch: Batch,
    pub changes: Vec<Change>,
}

/// A signed batch on its way to the log.
pub(crate) struct Cut {
    pub batch: Batch,
    pub signed: Arc<SignedBatch>,
    pub snapshot: Option<SnapshotDue>,
    /// What the signature transaction writes.
    pub writes: coco_kv::WriteSet,
}

/// A snapshot is to be written of the state just after a signature transaction.
pub(crate) struct SnapshotDue {
    pub state: Snapshot,
    pub leaf: coco_crypto::Digest,
}

impl Writer {
    /// Continues a ledger whose leaves are `tree` and whose last entry is its last signature.
    pub fn new(tree: MerkleTree, last_snapshot: Seqno) -> Self {
        let last_signature = Seqno(tree.len() - 1);
        Self {
            tree,
            last_signature,
            log_end: last_signature,
            offer: None,
            must_sign: false,
            node_signs_at: Duration::ZERO,
            changes_nodes: false,
            entries: Vec::new(),
            parts: Vec::new(),
            force_chunk: false,
            force_snapshot: false,
            chunk_bytes: 0,
            // A restarted service begins a chunk of its own, so that old files stay as they are.
            force_chunk_before: last_signature > Seqno(0),
            last_snapshot,
            since_snapshot_bytes: 0,
            snapshot_bytes: 0,
            known_signer: None,
        }
    }

    /// The last entry written.
    pub fn last(&self) -> Seqno {
        Seqno(self.tree.len() - 1)
    }

    /// Entries written since the last signature, and their bytes.
    pub fn unsigned(&self) -> (usize, usize) {
        (self.parts.len(), self.entries.len())
    }

    /// The root over everything up to and including `seqno`, if it is recent.
    pub fn root_at(&self, seqno: Seqno) -> Option<coco_crypto::Digest> {
        self.tree.root_of(seqno.0.checked_add(1)?)
    }

    /// Makes the next snapshot due only when enough has happened after `seqno`: as many
    /// transactions as configured, and no fewer bytes of ledger than a snapshot takes, so that
    /// snapshots of a large state never cost more than the ledger itself.
    pub fn note_snapshot(&mut self, seqno: Seqno, bytes: u64) {
        self.last_snapshot = self.last_snapshot.max(seqno);
        self.snapshot_bytes = bytes;
    }

    /// Transactions written after the last snapshot.
    pub fn since_snapshot(&self) -> u64 {
        self.last().0.saturating_sub(self.last_snapshot.0)
    }

    /// Encrypts executed transactions and appends them.
    pub fn absorb(
        &mut self,
        pending: VecDeque<Pending>,
        secrets: &LedgerSecrets,
    ) -> Result<(), WriteError> {
        for Pending { tx_id, writes, claims, force_chunk, force_snapshot, .. } in pending {
            let secret =
                secrets.secret_for(tx_id.seqno).ok_or(WriteError::NoSecret(tx_id.seqno))?;
            let flags = match std::mem::take(&mut self.force_chunk_before) {
                true => EntryFlags::FORCE_CHUNK_BEFORE,
                false => EntryFlags::NONE,
            };
            let entry = encode_entry(tx_id, &writes, claims, secret, flags)?;
            self.parts.push(LeafParts {
                write_set_digest: entry.write_set_digest,
                claims_digest: entry.claims_digest,
            });
            self.append(&entry)?;
            self.changes_nodes |= writes.map(NODES.name()).is_some();
            self.force_chunk |= force_chunk;
            self.force_snapshot |= force_snapshot;
        }
        Ok(())
    }

    /// Closes the batch with a signature at `tx_id`. `before` is the state it is executed on.
    pub fn sign(
        &mut self,
        tx_id: TxId,
        before: Snapshot,
        signer: &Signer,
        secrets: &LedgerSecrets,
        issued_at_s: i64,
        rules: CutRules,
    ) -> Result<Cut, WriteError> {
        // The first of a chunk, too: the root that it names tells a torn chunk from a whole one.
        let signed_by = if self.chunk_bytes == 0 || rules.now >= self.node_signs_at {
            self.node_signs_at = rules.now.saturating_add(rules.node_delay);
            SignedBy::ServiceAndNode
        } else {
            SignedBy::Service
        };
        let (tree, flushed) = (&self.tree, self.last_signature.0);
        let signature =
            SignatureTransaction::sign(tx_id, tree, flushed, signer, signed_by, issued_at_s)?;
        let writes = signature.writes();
        let since_snapshot = tx_id.seqno.0.saturating_sub(self.last_snapshot.0);
        self.since_snapshot_bytes += self.entries.len() as u64;
        let snapshot_due = std::mem::take(&mut self.force_snapshot)
            || (!rules.is_snapshot_coming
                && since_snapshot >= rules.snapshot_tx_count
                && self.since_snapshot_bytes >= self.snapshot_bytes);
        let size = self.chunk_bytes + self.entries.len() as u64;
        let chunk_ends =
            std::mem::take(&mut self.force_chunk) || snapshot_due || size >= rules.chunk_bytes;
        let flags = if chunk_ends { EntryFlags::FORCE_CHUNK_AFTER } else { EntryFlags::NONE };
        let secret = secrets.secret_for(tx_id.seqno).ok_or(WriteError::NoSecret(tx_id.seqno))?;
        let entry = encode_entry(tx_id, &writes, coco_crypto::Digest::ZERO, secret, flags)?;
        self.append(&entry)?;

        let first = self.last_signature.next();
        self.chunk_bytes =
            if chunk_ends { 0 } else { self.chunk_bytes + self.entries.len() as u64 };
        self.last_signature = tx_id.seqno;
        self.must_sign = false;
        self.flush(rules.committed);
        let capacity = self.entries.len().min(MAX_SPARE_BYTES);
        let entries = std::mem::replace(&mut self.entries, Vec::with_capacity(capacity));
        let parts = std::mem::take(&mut self.parts);
        let snapshot = snapshot_due.then(|| {
            self.last_snapshot = tx_id.seqno;
            self.since_snapshot_bytes = 0;
            SnapshotDue { state: before.with_writes(&writes, tx_id), leaf: entry.leaf }
        });
        let batch = Batch { first, last: tx_id, entries: Bytes::from(entries) };
        let signed = Arc::new(SignedBatch::new(first, tx_id, Arc::new(signature), parts));
        Ok(Cut { batch, signed, snapshot, writes })
    }

    /// Where the log ends.
    pub fn log_end(&self) -> Seqno {
        self.log_end
    }

    /// The signed batch that the log is to take next.
    pub fn offer(&self) -> Option<&Offer> {
        self.offer.as_ref()
    }

    pub fn set_offer(&mut self, offer: Offer) {
        self.offer = Some(offer);
    }

    /// The log has taken the batch offered.
    pub fn taken(&mut self) {
        self.offer = None;
        self.log_end = self.last_signature;
    }

    /// Has a signature written even if nothing is executed.
    pub fn must_sign(&mut self) {
        self.must_sign = true;
    }

    /// Whether there is anything to sign, or a reason to.
    pub fn has_work(&self) -> bool {
        !self.parts.is_empty() || self.must_sign || self.offer.is_some()
    }

    /// Whether a signature is due whatever the pace.
    pub fn must_be_signed(&self) -> bool {
        self.must_sign || self.offer.is_some()
    }

    /// Whether what was written since the last signature changes the list of nodes; asked once.
    pub fn take_changes_nodes(&mut self) -> bool {
        std::mem::take(&mut self.changes_nodes)
    }

    /// Reads a batch of another primary, which follows the log's end. [`follow`](Self::follow) must
    /// come next.
    pub fn check(
        &mut self,
        batch: &Batch,
        store: &Store,
        keys: &ServiceKeys,
    ) -> Result<CheckedBatch, BatchFault> {
        follow::check(batch, &mut self.tree, store, keys, &mut self.known_signer)
    }

    /// Verifies what was read, and goes on after it; or stays where it was.
    pub fn follow(
        &mut self,
        batch: &Batch,
        checked: &CheckedBatch,
        keys: &ServiceKeys,
        committed: Seqno,
    ) -> Result<(), BatchFault> {
        if let Err(fault) = checked.verify(keys) {
            let retracted = self.tree.retract_to(batch.first.0);
            assert!(retracted, "what was just appended is not flushed");
            return Err(fault);
        }
        self.tree.append(checked.last_leaf);
        self.last_signature = batch.last.seqno;
        self.log_end = batch.last.seqno;
        self.since_snapshot_bytes += batch.entries.len() as u64;
        self.flush(committed);
        Ok(())
    }

    /// Bytes of the chunk in use, as the files have it.
    pub fn set_chunk_bytes(&mut self, bytes: u64) {
        self.chunk_bytes = bytes;
    }

    /// Goes on from a snapshot of so many bytes, whose tree this is.
    pub fn go_on_from(&mut self, tree: MerkleTree, snapshot_bytes: u64) {
        let last = Seqno(tree.len() - 1);
        *self = Self { snapshot_bytes, force_chunk_before: false, ..Self::new(tree, last) };
    }

    /// The tree over everything up to `seqno`, if that is recent.
    pub fn tree_to(&self, seqno: Seqno) -> Option<MerkleTree> {
        let mut tree = self.tree.clone();
        tree.retract_to(seqno.0.checked_add(1)?).then_some(tree)
    }

    /// Has a snapshot written with the next signature if loading one would cost a node that begins
    /// to learn much less than what was written since the last.
    pub fn prepare_for_learner(&mut self) {
        let since_snapshot = self.since_snapshot_bytes + self.entries.len() as u64;
        let worth_it = (self.snapshot_bytes / LOADED_PER_REPLAYED).max(MIN_LEARNT_BYTES);
        self.force_snapshot |= since_snapshot >= worth_it;
    }

    /// Takes back everything after `end`, which is a signature transaction.
    pub fn take_back(&mut self, end: Seqno) -> Result<(), WriteError> {
        if !self.tree.retract_to(end.0 + 1) {
            return Err(WriteError::Flushed(end));
        }
        self.last_signature = end;
        self.log_end = end;
        self.offer = None;
        self.must_sign = false;
        self.changes_nodes = false;
        self.entries.clear();
        self.parts.clear();
        self.force_chunk = false;
        self.force_snapshot = false;
        self.last_snapshot = self.last_snapshot.min(end);
        Ok(())
    }

    /// Drops leaves of long ago; not those that may be taken back.
    fn flush(&mut self, committed: Seqno) {
        let kept_from = self.last_signature.0.saturating_sub(KEPT_LEAVES);
        self.tree.flush_to(kept_from.min(committed.0));
    }

    fn append(&mut self, entry: &EncodedEntry) -> Result<(), WriteError> {
        if entry.tx_id.seqno != self.last().next() {
            return Err(WriteError::OutOfOrder(entry.tx_id, self.last()));
        }
        self.entries.extend_from_slice(&entry.bytes);
        self.tree.append(entry.leaf);
        Ok(())
    }
}

/// The buffer for the next batch starts as large as the last one was, up to this.
const MAX_SPARE_BYTES: usize = 1 << 20;
