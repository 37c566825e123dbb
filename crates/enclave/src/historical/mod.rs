//! The past: transactions fetched back from the ledger's files and proven against a signature.
//!
//! Whatever the disk returns is verified before it is used: the entry's leaf must be in the Merkle
//! tree of the signature transaction after it, and that signature must be the service's. What the
//! disk does not have, as on a node that began with a snapshot, or has no more as it was, other
//! nodes are asked for; what they give is verified likewise. Chunks and verified signatures are
//! cached up to `historical_cache_soft_limit`.

mod chunks;
mod queries;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coco_adapter::HistoricalState;
use coco_consensus::NodeId;
use coco_crypto::PublicKey;
use coco_kv::{Seqno, Snapshot, TxId};
use coco_ledger::{
    ChunkName, Entry, LeafComponents, MerkleTree, ReceiptError as LedgerReceiptError,
    SignatureTransaction, SignedProof, ViewHistory, split_entry,
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use chunks::FetchError;
use chunks::{Chunks, LoadedChunk, VerifiedSignature};
use queries::Queries;
pub(crate) use queries::Query;

use crate::host::Host;
use crate::pipeline::Channels;
use crate::service::ServiceKeys;
use crate::session::within;

/// Entries for another node are given out in parts of this size.
const MAX_ENTRIES_BYTES: usize = 4 << 20;
/// Transactions that are fetched for clients at a time, whether they still wait or not.
const MAX_FETCHES: usize = 1_024;
/// Of them, those that another node is asked for.
const MAX_ASKED_FOR: usize = 2;
/// How long a transaction waits for its turn among those.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// What another node gives of one batch is at most about this long.
const MAX_FETCHED_BYTES: usize = coco_consensus::wire::MAX_BATCH_BYTES;

/// Fetches and verifies past transactions.
pub(crate) struct Historical {
    host: Arc<dyn Host>,
    keys: Arc<ServiceKeys>,
    channels: Arc<dyn Channels>,
    chunks: Chunks,
    /// The last that another node has asked for: each is asked for once, and kept for nobody.
    passed_on: Chunks,
    queries: Mutex<Queries>,
    fetches: Arc<Semaphore>,
    asked_for: Semaphore,
    /// Ranges that are put together at a time.
    ranges: Semaphore,
}

/// An entry of the ledger that is proven to be on it.
pub(crate) struct Proven {
    bytes: Bytes,
    pub proof: SignedProof,
}

impl Historical {
    /// At most about `limit_bytes` of history are kept in memory.
    pub fn new(
        host: Arc<dyn Host>,
        keys: Arc<ServiceKeys>,
        channels: Arc<dyn Channels>,
        limit_bytes: u64,
    ) -> Self {
        Self {
            host,
            keys,
            channels,
            chunks: Chunks::new(limit_bytes / 2),
            passed_on: Chunks::new(0),
            queries: Mutex::new(Queries::new(limit_bytes / 2)),
            fetches: Arc::new(Semaphore::new(MAX_FETCHES)),
            asked_for: Semaphore::new(MAX_ASKED_FOR),
            ranges: Semaphore::new(queries::MAX_RANGES_AT_ONCE),
        }
    }

    /// Forgets what was read of the files, which are others now.
    pub fn clear(&self) {
        self.chunks.clear();
        self.passed_on.clear();
    }

    /// Committed entries from `first` on, as they stand in this node's files: one at least, and no more
    /// than those up to `last`, of one chunk, or about so many bytes. Who reads them checks them.
    pub async fn entries(&self, first: Seqno, last: Seqno) -> Result<Bytes, FetchError> {
        let chunk = self.passed_on.load(&*self.host, first).await?;
        let mut entries = BytesMut::from(&*chunk.entry(first)?.0);
        for seqno in (first.0 + 1..=last.0).map(Seqno) {
            let Ok((entry, _)) = chunk.entry(seqno) else { break };
            if entries.len() + entry.len() > MAX_ENTRIES_BYTES {
                break;
            }
            entries.extend_from_slice(&entry);
        }
        Ok(entries.freeze())
    }

    /// The same for another node: only entries of this order, which its views tell. What was taken
    /// back has valid signatures, too, and may still stand in a file or in memory.
    pub async fn entries_of(
        &self,
        views: &ViewHistory,
        first: Seqno,
        last: Seqno,
    ) -> Result<Bytes, FetchError> {
        let mut entries = self.entries(first, last).await?;
        if !are_of(views, &entries) {
            self.passed_on.clear();
            entries = self.entries(first, last).await?;
        }
        match are_of(views, &entries) {
            true => Ok(entries),
            false => Err(FetchError::OtherView(first)),
        }
    }

    /// A place among those for whom something is fetched, unless there are too many.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.fetches).try_acquire_owned().ok()
    }

    /// A committed entry, from the disk or else from another node.
    pub async fn fetch(&self, tx_id: TxId) -> Result<Proven, FetchError> {
        let here = match self.chunks.load(&*self.host, tx_id.seqno).await {
            Ok(chunk) => self.prove(&chunk, tx_id),
            Err(fault) => Err(fault),
        };
        let Err(fault) = here else { return here };
        let turn = within(&*self.host, TURN_PATIENCE, self.asked_for.acquire());
        let Some(_turn) = turn.await else { return Err(fault) };
        // Whoever was before us may have brought it.
        if let Some(proven) = self.proven_in_memory(tx_id) {
            return Ok(proven);
        }
        for node in self.channels.sources() {
            match self.fetch_from(node, tx_id).await {
                Ok(proven) => return Ok(proven),
                Err(error) => tracing::debug!(%node, %tx_id, %error, "not to be had there"),
            }
        }
        Err(fault)
    }

    /// A committed entry and those up to the next signature at least, from another node.
    async fn fetch_from(&self, node: NodeId, tx_id: TxId) -> Result<Proven, FetchError> {
        let seqno = tx_id.seqno;
        let mut bytes = BytesMut::zeroed(coco_ledger::FIRST_ENTRY_OFFSET as usize);
        let mut last = Seqno(seqno.0.saturating_sub(1));
        loop {
            let more = self.channels.ledger(node, last, Seqno(u64::MAX), TxId::default()).await?;
            if more.is_empty() {
                return Err(FetchError::NoChunk(last.next()));
            }
            bytes.extend_from_slice(&more);
            let chunk = LoadedChunk::new(ChunkName::open(seqno), bytes.clone().freeze())?;
            if chunk.signature_at_or_after(seqno).is_ok() {
                let chunk = Arc::new(chunk);
                let proven = self.prove(&chunk, tx_id)?;
                self.chunks.keep(chunk);
                return Ok(proven);
            }
            if chunk.last() == last || bytes.len() > MAX_FETCHED_BYTES {
                return Err(FetchError::NoSignature { file: chunk.name, seqno });
            }
            last = chunk.last();
        }
    }

    /// The state of a committed transaction if its chunk is in memory.
    pub fn cached_state(&self, tx_id: TxId) -> Option<HistoricalState> {
        self.proven_in_memory(tx_id)?.state(tx_id.seqno, &self.keys).ok()
    }

    fn proven_in_memory(&self, tx_id: TxId) -> Option<Proven> {
        let chunk = self.chunks.cached(tx_id.seqno)?;
        self.prove(&chunk, tx_id).ok()
    }

    fn prove(&self, chunk: &LoadedChunk, tx_id: TxId) -> Result<Proven, FetchError> {
        let seqno = tx_id.seqno;
        let located = chunk.entry(seqno)?;
        let entry = chunk.parse(seqno, &located)?;
        let signed_at = chunk.signature_at_or_after(seqno)?;
        let verified = self.verified_signature(chunk, signed_at)?;
        let (file, offset) = (chunk.name, located.1);
        let not_signed = || FetchError::NotSigned { file, offset, seqno };
        let signature = Arc::clone(&verified.signature);
        if entry.tx_id() != tx_id {
            return Err(not_signed());
        }
        let proof = if seqno == signed_at {
            SignedProof::of_signature(verified.tree.root(), signature)
        } else {
            if verified.tree.leaf(seqno.0) != Some(entry.leaf()) {
                return Err(not_signed());
            }
            let components = LeafComponents::of_entry(&entry, &self.keys.secrets())
                .map_err(|fault| FetchError::Proof(seqno, fault))?;
            SignedProof::live(components, seqno.0, &verified.tree, signature, signed_at.0)
                .ok_or_else(not_signed)?
        };
        Ok(Proven { bytes: located.0, proof })
    }

    /// The state that holds just what a transaction wrote, with its receipt.
    pub async fn state(&self, tx_id: TxId) -> Result<HistoricalState, FetchError> {
        let proven = self.fetch(tx_id).await?;
        proven.state(tx_id.seqno, &self.keys)
    }

    fn verified_signature(
        &self,
        chunk: &LoadedChunk,
        seqno: Seqno,
    ) -> Result<Arc<VerifiedSignature>, FetchError> {
        if let Some(verified) = chunk.verified.lock().get(&seqno) {
            return Ok(Arc::clone(verified));
        }
        let file = chunk.name;
        let located = chunk.entry(seqno)?;
        let entry = chunk.parse(seqno, &located)?;
        let damaged = |fault| FetchError::Entry { file, offset: located.1, seqno, fault };
        let writes = entry.public_writes().map_err(damaged)?;
        let signature = SignatureTransaction::parse(&writes)
            .map_err(|fault| FetchError::Signature { file, seqno, fault })?
            .ok_or(FetchError::NoSignature { file, seqno })?;
        let tree = MerkleTree::parse(&signature.tree).map_err(|fault| FetchError::Tree {
            file,
            seqno,
            fault,
        })?;
        let verified = VerifiedSignature { signature: Arc::new(signature), tree };
        verify(&verified, entry.tx_id(), seqno, self.keys.identity_key(seqno))
            .map_err(|fault| FetchError::NotVerified { file, seqno, fault })?;
        let verified = Arc::new(verified);
        chunk.verified.lock().insert(seqno, Arc::clone(&verified));
        Ok(verified)
    }
}

/// Whether all of these entries have the views that they have in the order. As no seqno is used
/// twice in a view, they are those of the order then.
fn are_of(views: &ViewHistory, mut entries: &[u8]) -> bool {
    while !entries.is_empty() {
        let Ok((entry, rest)) = split_entry(entries) else { return false };
        let Ok(TxId { view, seqno }) = Entry::parse(entry).map(|entry| entry.tx_id()) else {
            return false;
        };
        if views.view_of(seqno) != Some(view) {
            return false;
        }
        entries = rest;
    }
    true
}

/// Checks the signatures of a signature transaction, and that it stands where it says.
fn verify(
    verified: &VerifiedSignature,
    tx_id: TxId,
    seqno: Seqno,
    service_key: &PublicKey,
) -> Result<(), LedgerReceiptError> {
    let VerifiedSignature { signature, tree } = verified;
    let misplaced = signature.tx_ids().any(|signed| signed != tx_id);
    if misplaced || tx_id.seqno != seqno || tree.len() != seqno.0 {
        return Err(LedgerReceiptError::NotASignature(tx_id));
    }
    let root = tree.root();
    let proof = SignedProof::of_signature(root, Arc::clone(signature));
    if signature.node.is_some() {
        proof.receipt(None, Vec::new())?.verify(service_key)?;
    }
    if let Some(service) = &signature.service {
        service.verify(service_key, root)?;
    }
    Ok(())
}

impl Proven {
    pub fn state(&self, seqno: Seqno, keys: &ServiceKeys) -> Result<HistoricalState, FetchError> {
        let damaged = |fault| FetchError::Proof(seqno, fault);
        let entry = Entry::parse(&self.bytes).map_err(damaged)?;
        let writes = entry.writes(&keys.secrets()).map_err(damaged)?;
        let tx_id = entry.tx_id();
        let receipt = keys.receipt(&self.proof, seqno).map_err(|fault| {
            FetchError::NotVerified { file: coco_ledger::ChunkName::open(seqno), seqno, fault }
        })?;
        Ok(HistoricalState {
            tx_id,
            receipt: Arc::new(receipt),
            state: Snapshot::of_writes(tx_id, &writes),
        })
    }

    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}
