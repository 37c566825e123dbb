//! One pass over the entries, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use coco_crypto::{Certificate, CertificateError, Digest, PublicKey};
use coco_kv::{Seqno, TxId, WriteSet};
use serde::Deserialize;

use super::fault::{Fault, FaultKind};
use super::report::{AuditReport, AuditStats};
use super::service::{FOLLOWED, ServiceHistory};
use super::tail::{WholePart, leave_out};
use crate::chunk::{ChunkEntry, ChunkError, ChunkName, ChunkReader, ChunkState};
use crate::entry::{Entry, EntryError, EntryFlags, MapBlock};
use crate::history::ViewHistory;
use crate::merkle::MerkleTree;
use crate::secret::LedgerSecrets;
use crate::signature::SignatureTransaction;
use crate::snapshot::{SnapshotError, SnapshotFile};
use crate::tables::{COSE_SIGNATURES, SIGNATURES, SNAPSHOT_EVIDENCE, TREE, single};

/// What an audit starts from.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// The key in the certificate of the present service: the one thing that is trusted.
    pub service: PublicKey,
    /// With secrets, each entry is authenticated and its commit evidence made again.
    pub secrets: Option<LedgerSecrets>,
    /// Accept that the end of the ledger is not there in full, as after a crash: what of the chunks
    /// that are not committed yet is torn is left out, as a node does that starts on these files.
    pub accept_torn_tail: bool,
}

impl AuditOptions {
    /// Trusts a service by its certificate, PEM.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn of_certificate(pem: &str) -> Result<Self, CertificateError> {
        let service = Certificate::from_pem(pem)?.public_key()?;
        Ok(Self { service, secrets: None, accept_torn_tail: false })
    }
}

/// An entry that passed. It is authentic once one with `signature` has followed.
#[derive(Clone, Copy, Debug)]
pub struct Audited<'a> {
    /// The file it is in.
    pub file: &'a str,
    /// Where it begins.
    pub offset: u64,
    /// The entry.
    pub entry: &'a Entry<'a>,
    /// Its writes to private maps, if secrets were given.
    pub private: Option<&'a WriteSet>,
    /// The signature transaction that it is, verified.
    pub signature: Option<&'a SignatureTransaction>,
}

/// Where an entry begins.
#[derive(Clone, Debug)]
struct Place {
    file: Arc<str>,
    offset: u64,
    seqno: Seqno,
}

impl Place {
    /// The first entry of a file that is not there in full.
    fn within(&self, name: ChunkName, file: &[u8]) -> Self {
        let chunk = ChunkReader::ignoring_table(name, file);
        let mut entries = chunk.entries();
        let mut place = entries.next_position();
        while let Some(Ok(_)) = entries.next() {
            place = entries.next_position();
        }
        Self { offset: place.0, seqno: place.1, ..self.clone() }
    }

    fn fault(&self, kind: impl Into<FaultKind>) -> Fault {
        let (file, seqno) = (self.file.to_string(), Some(self.seqno));
        Fault { file, offset: self.offset, seqno, kind: Box::new(kind.into()) }
    }
}

/// The verifier. Chunks are given to it in order; the first fault ends the audit.
///
/// A contradiction between entries is held back until the next signature transaction, whose tree
/// tells which of them is not the one that was signed.
#[derive(Clone, Debug)]
pub struct Auditor {
    options: AuditOptions,
    tree: MerkleTree,
    views: ViewHistory,
    service: ServiceHistory,
    last: TxId,
    last_signed: TxId,
    /// Where the entries from the last signature transaction on begin.
    places: BTreeMap<Seqno, Place>,
    /// A contradiction that awaits the next signature transaction.
    suspect: Option<Fault>,
    open_chunk: bool,
    torn_tail: Option<(String, u64)>,
    stats: AuditStats,
}

impl Auditor {
    /// An audit from the first entry of a ledger.
    pub fn new(options: AuditOptions) -> Self {
        Self {
            options,
            tree: MerkleTree::new(),
            views: ViewHistory::new(),
            service: ServiceHistory::default(),
            last: TxId::default(),
            last_signed: TxId::default(),
            places: BTreeMap::new(),
            suspect: None,
            open_chunk: false,
            torn_tail: None,
            stats: AuditStats::default(),
        }
    }

    /// An audit that goes on from a snapshot, whose receipt must be by the trusted service or by
    /// the identity that its own state names; the ledger must lead from that one to the trusted.
    ///
    /// # Errors
    /// If the snapshot is malformed or its receipt does not verify.
    pub fn after_snapshot(
        options: AuditOptions,
        snapshot: &SnapshotFile,
    ) -> Result<Self, SnapshotError> {
        let fault = |fault| SnapshotError::Map { map: String::new(), fault };
        let service = ServiceHistory::of_state(snapshot.state())
            .map_err(|_| fault("the service's maps are malformed"))?;
        let identity = service.identities().last().ok_or(fault("there is no service"))?;
        snapshot.verify(&identity.key)?;
        let tree = snapshot.tree()?;
        let last = snapshot.tx_id();
        let views = snapshot.views().clone();
        Ok(Self { tree, views, service, last, last_signed: last, ..Self::new(options) })
    }

    /// The Merkle tree over the entries so far.
    pub fn tree(&self) -> &MerkleTree {
        &self.tree
    }

    /// Where each view begins.
    pub fn views(&self) -> &ViewHistory {
        &self.views
    }

    /// The service as the entries so far describe it.
    pub fn service(&self) -> &ServiceHistory {
        &self.service
    }

    /// The last entry.
    pub fn last(&self) -> TxId {
        self.last
    }

    /// The last signature transaction.
    pub fn last_signed(&self) -> TxId {
        self.last_signed
    }

    /// Verifies the next chunk. After a fault the auditor is of no more use.
    ///
    /// # Errors
    /// The first fault.
    pub fn chunk(
        &mut self,
        file_name: &str,
        file: &[u8],
        visit: &mut dyn FnMut(Audited<'_>),
    ) -> Result<(), Fault> {
        let start = Place { file: file_name.into(), offset: 0, seqno: self.last.seqno.next() };
        let name: ChunkName = file_name
            .parse()
            .map_err(|error| Fault { seqno: None, ..start.fault(FaultKind::Name(error)) })?;
        let (expected, found) = (start.seqno, name.start);
        if found < expected {
            return Err(start.fault(FaultKind::Overlap { expected, found }));
        }
        let may_be_torn = self.options.accept_torn_tail && !name.is_committed();
        if self.open_chunk && may_be_torn {
            if leave_out(name, file, expected).map_err(|kind| start.fault(kind))? {
                self.torn_tail.get_or_insert((file_name.to_owned(), 0));
            }
            return Ok(());
        }
        if found > expected {
            return Err(start.fault(FaultKind::Gap { expected, found }));
        }
        if self.open_chunk {
            return Err(start.fault(FaultKind::AfterOpen));
        }
        let WholePart { chunk, torn_at } = match may_be_torn {
            true => WholePart::read(name, file, self.options.secrets.as_ref()),
            false => ChunkReader::new(name, file).map(|chunk| WholePart { chunk, torn_at: None }),
        }
        .map_err(|error| start.within(name, file).fault(error))?;
        self.torn_tail = torn_at.map(|offset| (file_name.to_owned(), offset));
        self.stats.chunks += 1;
        self.open_chunk = !chunk.is_complete();

        let mut entries = chunk.entries();
        let mut is_first = true;
        let mut ended: Option<Fault> = None;
        loop {
            let (offset, seqno) = entries.next_position();
            let place = Place { offset, seqno, ..start.clone() };
            let Some(entry) = entries.next() else { break };
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if is_torn(&error) && name.state == ChunkState::Open => {
                    return Err(place.fault(FaultKind::TornTail(error)));
                }
                Err(error) => return Err(place.fault(error)),
            };
            if let Some(fault) = ended.take() {
                self.suspect.get_or_insert(fault);
            }
            let flags = self.entry(&place, entry, is_first, visit)?;
            ended = flags
                .contains(EntryFlags::FORCE_CHUNK_AFTER)
                .then(|| place.fault(FaultKind::Flags(flags.bits())));
            is_first = false;
        }
        match self.places.last_key_value() {
            Some((_, last)) if chunk.is_complete() && self.last_signed != self.last => {
                Err(last.fault(FaultKind::ChunkEnd))
            }
            _ => Ok(()),
        }
    }

    /// Ends the audit: something must have been signed, and last by the trusted service or a node
    /// that it has endorsed.
    ///
    /// # Errors
    /// If it was not.
    pub fn finish(self) -> Result<AuditReport, Fault> {
        let last = self.places.last_key_value().map(|(_, place)| place.clone());
        let fault = |kind| match &last {
            Some(place) => place.fault(kind),
            None => Fault { file: String::new(), offset: 0, seqno: None, kind: Box::new(kind) },
        };
        if let Some(suspect) = self.suspect {
            return Err(suspect);
        }
        if self.stats.chunks == 0 {
            return Err(fault(FaultKind::NoChunks));
        }
        if self.last_signed.seqno == Seqno(0) {
            return Err(fault(FaultKind::NothingSigned));
        }
        let identities = self.service.signed_identities();
        if identities.last().is_none_or(|signing| signing.key != self.options.service) {
            return Err(fault(FaultKind::OtherService));
        }
        Ok(AuditReport {
            last_signed: self.last_signed,
            last: self.last,
            views: self.views,
            identities: identities.to_vec(),
            torn_tail: self.torn_tail,
            stats: self.stats,
        })
    }

    fn entry(
        &mut self,
        place: &Place,
        raw: ChunkEntry<'_>,
        is_first_of_chunk: bool,
        visit: &mut dyn FnMut(Audited<'_>),
    ) -> Result<EntryFlags, Fault> {
        let at = |error: FaultKind| place.fault(error);
        let entry = Entry::parse(raw.bytes).map_err(|error| at(error.into()))?;
        let tx_id = entry.tx_id();
        if tx_id.seqno != place.seqno {
            return Err(at(FaultKind::Seqno { found: tx_id.seqno }));
        }
        if tx_id.view > self.last.view && self.last != self.last_signed {
            self.suspect.get_or_insert(at(FaultKind::ViewUnsigned { found: tx_id }));
        } else if let Err(error) = self.views.record(tx_id) {
            self.suspect.get_or_insert(at(error.into()));
        }

        let private = match &self.options.secrets {
            Some(secrets) => Some(entry.private_writes(secrets).map_err(|error| at(error.into()))?),
            None => None,
        };
        let blocks: Vec<MapBlock<'_>> = entry
            .public_blocks()
            .collect::<Result<_, _>>()
            .map_err(|error| at(EntryError::from(error).into()))?;
        let touches = |maps: &[&str]| blocks.iter().any(|block| maps.contains(&block.name));
        let is_signature = touches(&[SIGNATURES, COSE_SIGNATURES]);
        let writes = match is_signature || touches(&FOLLOWED) || touches(&[TREE, SNAPSHOT_EVIDENCE])
        {
            true => entry.public_writes().map_err(|error| at(error.into()))?,
            false => WriteSet::new(),
        };

        let flags = entry.flags();
        let cuts_before = flags.contains(EntryFlags::FORCE_CHUNK_BEFORE);
        let cuts_after = flags.contains(EntryFlags::FORCE_CHUNK_AFTER);
        if (cuts_before && !is_first_of_chunk) || (cuts_after && !is_signature) {
            self.suspect.get_or_insert(at(FaultKind::Flags(flags.bits())));
        }
        if let Err(fault) = check_snapshot_evidence(&entry, &writes) {
            self.suspect.get_or_insert(at(fault));
        }
        if let Err(fault) = self.service.apply(tx_id, &writes) {
            self.suspect.get_or_insert(at(fault.into()));
        }
        self.places.insert(tx_id.seqno, place.clone());
        let signature = if is_signature { self.signature(place, tx_id, &writes)? } else { None };
        self.tree.append(entry.leaf());
        self.count(&entry, &blocks, private.as_ref(), signature.as_ref());
        self.last = tx_id;
        if signature.is_some() {
            self.last_signed = tx_id;
            self.tree.flush_to(self.places.keys().next().map_or(0, |first| first.0));
            self.places = self.places.split_off(&tx_id.seqno);
        }
        visit(Audited {
            file: &place.file,
            offset: raw.offset,
            entry: &entry,
            private: private.as_ref(),
            signature: signature.as_ref(),
        });
        Ok(flags)
    }

    /// Verifies the signature transaction at `tx_id` over the entries before it.
    fn signature(
        &mut self,
        place: &Place,
        tx_id: TxId,
        writes: &WriteSet,
    ) -> Result<Option<SignatureTransaction>, Fault> {
        let at = |error: FaultKind| place.fault(error);
        let Some(signature) =
            SignatureTransaction::parse(writes).map_err(|error| at(error.into()))?
        else {
            // The map of signatures was touched and holds none.
            return Err(at(FaultKind::TreeMismatch));
        };
        if let Some(found) = signature.tx_ids().find(|signed| *signed != tx_id) {
            return Err(at(FaultKind::SignedPosition { found }));
        }
        let root = self.tree.root();
        let stored = MerkleTree::parse(&signature.tree);
        if let Err(error) = self.service.verify(&signature, root) {
            // If the tree has another leaf for an entry, that entry is not the one that was signed.
            let altered =
                stored.as_ref().ok().and_then(|stored| self.first_other_leaf(stored)).cloned();
            return Err(match (altered, self.suspect.take()) {
                (Some(altered), _) => altered.fault(FaultKind::Leaf { signature: tx_id }),
                (None, Some(suspect)) => suspect,
                (None, None) => at(error.into()),
            });
        }
        if let Some(suspect) = self.suspect.take() {
            return Err(suspect);
        }
        let stored = stored.map_err(|error| at(error.into()))?;
        let is_same = stored.len() == tx_id.seqno.0
            && stored.root() == root
            && self.first_other_leaf(&stored).is_none()
            && (stored.flushed() < self.tree.flushed()
                || self.tree.serialise(stored.flushed()).as_ref() == Some(&signature.tree));
        if !is_same {
            return Err(at(FaultKind::TreeMismatch));
        }
        self.service.note_signed(root);
        Ok(Some(signature))
    }

    /// The first entry whose leaf is not the one that `stored` has for it.
    fn first_other_leaf(&self, stored: &MerkleTree) -> Option<&Place> {
        self.places.values().find(|place| {
            let leaf = |tree: &MerkleTree| -> Option<Digest> { tree.leaf(place.seqno.0) };
            leaf(stored).is_some_and(|expected| leaf(&self.tree).is_some_and(|own| own != expected))
        })
    }

    fn count(
        &mut self,
        entry: &Entry<'_>,
        blocks: &[MapBlock<'_>],
        private: Option<&WriteSet>,
        signature: Option<&SignatureTransaction>,
    ) {
        let stats = &mut self.stats;
        stats.entries += 1;
        stats.bytes += entry.bytes().len() as u64;
        stats.private_entries += u64::from(entry.has_private_writes());
        stats.decrypted += u64::from(private.is_some());
        for block in blocks {
            stats.count(block.name, block.puts.len(), block.removals.len());
        }
        for map in private.into_iter().flat_map(WriteSet::maps) {
            stats.count(map.name().as_str(), map.puts().count(), map.removals().count());
        }
        if let Some(signature) = signature {
            stats.signatures += 1;
            stats.node_signatures += u64::from(signature.node.is_some());
            stats.service_signatures += u64::from(signature.service.is_some());
        }
    }
}

/// Whether an open chunk may end like this after a crash.
fn is_torn(error: &ChunkError) -> bool {
    matches!(error, ChunkError::Frame(EntryError::Truncated(_)))
}

#[derive(Deserialize)]
struct EvidenceJson {
    hash: String,
}

/// The transaction that records a snapshot's digest claims it too, so that its receipt proves it.
fn check_snapshot_evidence(entry: &Entry<'_>, writes: &WriteSet) -> Result<(), FaultKind> {
    let Some(json) = single(writes, SNAPSHOT_EVIDENCE) else { return Ok(()) };
    let evidence: EvidenceJson =
        serde_json::from_slice(json).map_err(|_| FaultKind::SnapshotEvidence)?;
    match entry.claims_digest() {
        Some(claims) if claims.to_string() != evidence.hash => Err(FaultKind::SnapshotEvidence),
        _ => Ok(()),
    }
}
