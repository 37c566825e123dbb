//! A ledger written here, from the first transaction of a service on.

use std::sync::Arc;

use coco_crypto::x509::{DistinguishedName, Validity};
use coco_crypto::{Certificate, Curve, Digest, KeyPair, SigningRequest};
use coco_kv::{MapName, Seqno, Snapshot, TxId, WriteSet};
use serde_json::json;

use super::{Counter, Disk};
use crate::chunk::{ChunkWriter, ChunkWriterConfig};
use crate::entry::{EncodedEntry, EntryFlags, encode_entry};
use crate::history::ViewHistory;
use crate::merkle::MerkleTree;
use crate::secret::{LedgerSecret, LedgerSecrets};
use crate::signature::{SignatureTransaction, SignedBy, Signer};
use crate::tables::{
    NODES_ENDORSED_CERTIFICATES, NODES_INFO, PREVIOUS_LAST_SIGNED_ROOT, PREVIOUS_SERVICE_IDENTITY,
    SERVICE_INFO, SINGLE_KEY,
};

const NOW_S: i64 = 1_763_000_000;

pub(crate) struct OwnLedger {
    entropy: Counter,
    curve: Curve,
    pub signer: Signer,
    pub service: Certificate,
    pub secrets: LedgerSecrets,
    pub tree: MerkleTree,
    pub views: ViewHistory,
    pub state: Snapshot,
    pub writer: ChunkWriter,
    pub disk: Disk,
    pub entries: Vec<EncodedEntry>,
    /// The signature transactions and where they stand.
    pub signatures: Vec<(TxId, Arc<SignatureTransaction>)>,
    view: u64,
    first_flags: EntryFlags,
}

impl OwnLedger {
    /// A service that has been opened, in two entries and a signature transaction.
    pub fn new(curve: Curve, config: ChunkWriterConfig) -> Self {
        let mut ledger = Self::empty(curve, config);
        let genesis = ledger.identity_writes("Opening");
        ledger.append(&genesis, Digest::ZERO);
        ledger.sign();
        ledger.set_status("Open");
        ledger
    }

    /// A service of which nothing is written yet.
    pub fn empty(curve: Curve, config: ChunkWriterConfig) -> Self {
        let entropy = Counter::new(7);
        let (signer, service) = identity(curve, &entropy);
        let mut secrets = LedgerSecrets::new();
        secrets.insert(Seqno(1), LedgerSecret::generate(&entropy));
        Self {
            entropy,
            curve,
            signer,
            service,
            secrets,
            tree: MerkleTree::new(),
            views: ViewHistory::new(),
            state: Snapshot::empty(TxId::default()),
            writer: ChunkWriter::new(config),
            disk: Disk::default(),
            entries: Vec::new(),
            signatures: Vec::new(),
            view: 2,
            first_flags: EntryFlags::NONE,
        }
    }

    fn identity_writes(&self, status: &str) -> WriteSet {
        let id = self.signer.node_key.public().id().to_string();
        let mut writes = WriteSet::new();
        let info = json!({"cert": self.service.to_pem(), "status": status});
        writes.put(&MapName::new(SERVICE_INFO), SINGLE_KEY, info.to_string());
        let node = json!({"status": "Trusted"}).to_string();
        writes.put(&MapName::new(NODES_INFO), id.as_str(), node);
        let certificate = self.signer.node_certificate.as_str();
        writes.put(&MapName::new(NODES_ENDORSED_CERTIFICATES), id.as_str(), certificate);
        writes
    }

    pub fn set_status(&mut self, status: &str) {
        let mut writes = WriteSet::new();
        let info = json!({"cert": self.service.to_pem(), "status": status});
        writes.put(&MapName::new(SERVICE_INFO), SINGLE_KEY, info.to_string());
        self.append(&writes, Digest::ZERO);
    }

    /// A disaster: another service goes on from here, under another identity and secret.
    pub fn recover(&mut self) {
        let before = (self.service.to_pem(), self.signatures.last().unwrap().1.clone());
        (self.signer, self.service) = identity(self.curve, &self.entropy);
        self.secrets.insert(Seqno(self.next().seqno.0), LedgerSecret::generate(&self.entropy));
        self.view += 2;
        let mut writes = self.identity_writes("Recovering");
        let (certificate, signature) = before;
        let root = MerkleTree::parse(&signature.tree).unwrap().root();
        let value = |text: String| serde_json::Value::from(text).to_string();
        writes.put(&MapName::new(PREVIOUS_SERVICE_IDENTITY), SINGLE_KEY, value(certificate));
        writes.put(&MapName::new(PREVIOUS_LAST_SIGNED_ROOT), SINGLE_KEY, value(root.to_string()));
        self.first_flags = EntryFlags::FORCE_CHUNK_BEFORE;
        self.append(&writes, Digest::ZERO);
        self.set_status("WaitingForRecoveryShares");
        self.set_status("Open");
    }

    /// A transaction that writes one public and one private record.
    pub fn put(&mut self, number: u64) -> TxId {
        let mut writes = WriteSet::new();
        writes.put(&MapName::new("public:log"), number.to_le_bytes(), format!("public {number}"));
        writes.put(&MapName::new("log"), number.to_le_bytes(), format!("private {number}"));
        if number % 5 == 4 {
            writes.remove(&MapName::new("log"), (number - 1).to_le_bytes());
        }
        self.append(&writes, coco_crypto::sha256(&number.to_le_bytes()))
    }

    /// Closes the batch; the node signs every second one, too.
    pub fn sign(&mut self) -> TxId {
        let (tx_id, flushed) = (self.next(), self.last_signed());
        let by = match self.signatures.len() % 2 {
            0 => SignedBy::Service,
            _ => SignedBy::ServiceAndNode,
        };
        let signature =
            SignatureTransaction::sign(tx_id, &self.tree, flushed, &self.signer, by, NOW_S);
        let signature = signature.unwrap();
        if self.writer.is_chunk_due(3_000) {
            self.first_flags = EntryFlags::FORCE_CHUNK_AFTER;
        }
        let writes = signature.writes();
        self.signatures.push((tx_id, Arc::new(signature)));
        self.append(&writes, Digest::ZERO)
    }

    pub fn append(&mut self, writes: &WriteSet, claims: Digest) -> TxId {
        let tx_id = self.next();
        let flags = std::mem::take(&mut self.first_flags);
        let secret = self.secrets.secret_for(tx_id.seqno).unwrap();
        let entry = encode_entry(tx_id, writes, claims, secret, flags).unwrap();
        self.tree.append(entry.leaf);
        self.views.record(tx_id).unwrap();
        self.state = self.state.with_writes(writes, tx_id);
        self.writer.append(tx_id.seqno, flags, &entry.bytes).unwrap();
        self.disk.apply(self.writer.take_operations());
        self.entries.push(entry);
        tx_id
    }

    pub fn commit(&mut self) {
        self.writer.commit(Seqno(self.last_signed()));
        self.disk.apply(self.writer.take_operations());
    }

    /// As on a graceful shutdown.
    pub fn trim(&mut self) {
        self.writer.trim();
        self.disk.apply(self.writer.take_operations());
    }

    pub fn last_signed(&self) -> u64 {
        self.signatures.last().map_or(0, |(tx_id, _)| tx_id.seqno.0)
    }

    pub fn next(&self) -> TxId {
        TxId::new(self.view, self.tree.len())
    }
}

fn identity(curve: Curve, entropy: &Counter) -> (Signer, Certificate) {
    let (node_key, service_key) =
        (KeyPair::generate(curve, entropy).unwrap(), KeyPair::generate(curve, entropy).unwrap());
    let validity = Validity::days(NOW_S, 365);
    let name = DistinguishedName::common_name("CCF Service");
    let service = Certificate::for_service(&service_key, &name, validity, entropy).unwrap();
    let name = DistinguishedName::common_name("CCF Node");
    let request = SigningRequest::create(&node_key, &name, &[]).unwrap();
    let node = request.endorse(&service, &service_key, validity, entropy).unwrap();
    let signer = Signer {
        node_key: Arc::new(node_key),
        node_certificate: node.to_pem(),
        service_key: Arc::new(service_key),
        issuer: "issuer".into(),
        subject: "subject".into(),
    };
    (signer, service)
}
