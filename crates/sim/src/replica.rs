//! Ledger and store of one node, as far as its log goes.

use std::collections::{BTreeMap, BTreeSet};

use coco_consensus::NodeId;
use coco_crypto::{Digest, sha256_concat};
use coco_kv::{MapName, Seqno, Store, TxId, View, WriteSet};
use coco_ledger::{
    Entry, EntryFlags, LedgerSecret, LedgerSecrets, MerkleTree, NodeSignature,
    SignatureTransaction, encode_entry, split_entry,
};

use crate::keys::NodeKey;

/// What all nodes of a service know.
pub struct Service {
    /// The ledger secret.
    pub secrets: LedgerSecrets,
    /// Everybody's key, by node.
    pub keys: BTreeMap<NodeId, NodeKey>,
    /// Signatures that have verified before: nodes verify the same ones.
    verified: BTreeSet<Digest>,
    /// For the mutant that looks at no signature.
    pub trusts: bool,
}

impl Service {
    /// The service of a run.
    pub fn of(seed: u64) -> Self {
        let mut secrets = LedgerSecrets::new();
        let raw = sha256_concat(&[b"ledger secret", &seed.to_be_bytes()]);
        secrets.insert(Seqno(1), LedgerSecret::new(raw.0));
        Self { secrets, keys: BTreeMap::new(), verified: BTreeSet::new(), trusts: false }
    }

    fn verify(&mut self, signature: &NodeSignature) -> Result<(), String> {
        let NodeSignature { node_id, root, signature: bytes, .. } = signature;
        let name = sha256_concat(&[node_id.as_bytes(), &root.0, bytes]);
        if self.verified.contains(&name) {
            return Ok(());
        }
        let node = node_id.parse().map(NodeId).map_err(|_| "a signature names no node")?;
        let key = self.keys.get(&node).ok_or("a signature of nobody")?;
        // There is one signature of a key for a root here, and to make it again takes a tenth of
        // the time; some are verified as a node does.
        let verifies = match self.verified.len() % 16 {
            0 => signature.verify(key.public()).is_ok(),
            _ => key.sign_digest(root) == *bytes,
        };
        if !verifies {
            return Err("a signature does not verify".into());
        }
        self.verified.insert(name);
        Ok(())
    }
}

/// The state that the log's batches lead to.
pub struct Replica {
    /// The maps.
    pub store: Store,
    /// Leaves of the ledger.
    pub tree: MerkleTree,
    /// The last transaction, which is a signature.
    pub end: TxId,
}

impl Default for Replica {
    fn default() -> Self {
        Self { store: Store::new(View(1)), tree: MerkleTree::new(), end: TxId::default() }
    }
}

/// A ledger's bytes are wrong from here on.
#[derive(Debug)]
pub struct BadLedger {
    /// The last batch that is right.
    pub end: TxId,
    /// Behind its last byte.
    pub end_bytes: usize,
    /// What is wrong after it.
    pub reason: String,
}

impl Replica {
    /// Verifies batches, back to back, and applies what they write; returns that.
    pub fn apply(
        &mut self,
        batches: &[u8],
        service: &mut Service,
    ) -> Result<Vec<(TxId, WriteSet)>, BadLedger> {
        let mut applied = Vec::new();
        let mut signed = (self.end, 0);
        let bad = |(end, end_bytes): (TxId, usize), reason: &str| {
            let reason = reason.into();
            BadLedger { end, end_bytes, reason }
        };
        let mut bytes = batches;
        while !bytes.is_empty() {
            let (entry, rest) =
                split_entry(bytes).map_err(|error| bad(signed, &error.to_string()))?;
            bytes = rest;
            let entry = Entry::parse(entry).map_err(|error| bad(signed, &error.to_string()))?;
            let tx_id = entry.tx_id();
            if tx_id.seqno.0 != self.tree.len() || tx_id.view < signed.0.view {
                return Err(bad(signed, &format!("{tx_id} stands at {}", self.tree.len())));
            }
            let writes = entry.writes(&service.secrets);
            let writes = writes.map_err(|error| bad(signed, &error.to_string()))?;
            let signature = SignatureTransaction::parse(&writes);
            let signature = signature.map_err(|error| bad(signed, &error.to_string()))?;
            let is_signature = signature.is_some();
            let node = signature.and_then(|signature| signature.node);
            if let Some(node) = node.filter(|_| !service.trusts) {
                if node.root != self.tree.root() || node.tx_id != tx_id {
                    return Err(bad(signed, &format!("{tx_id} signs another history")));
                }
                service.verify(&node).map_err(|reason| bad(signed, &reason))?;
            }
            self.tree.append(entry.leaf());
            let applies = self.store.apply(tx_id, &writes);
            applies.map_err(|error| bad(signed, &error.to_string()))?;
            applied.push((tx_id, writes));
            if is_signature {
                signed = (tx_id, batches.len() - bytes.len());
                self.end = tx_id;
            }
        }
        match applied.last() {
            Some((last, _)) if *last != signed.0 => Err(bad(signed, "a batch without a signature")),
            _ => Ok(applied),
        }
    }

    /// Takes back everything after `to`, on the ledger and in the store.
    pub fn retract(&mut self, to: TxId, view: View) -> Result<(), String> {
        self.end = to;
        if !self.tree.retract_to(to.seqno.0 + 1) {
            return Err(format!("the tree does not reach back to {to}"));
        }
        self.store.rollback(to.seqno, view).map_err(|error| error.to_string())
    }

    /// Takes back what was executed after the last batch; new transactions are of `view`.
    pub fn retract_unsigned(&mut self, view: View) -> Result<(), String> {
        self.store.rollback(self.end.seqno, view).map_err(|error| error.to_string())
    }

    /// Encrypts and appends one transaction that has been executed.
    pub fn append(&mut self, tx_id: TxId, writes: &WriteSet, service: &Service) -> Vec<u8> {
        let secret = service.secrets.secret_for(tx_id.seqno);
        let entry = secret.and_then(|secret| {
            encode_entry(tx_id, writes, Digest::ZERO, secret, EntryFlags::NONE).ok()
        });
        entry.map_or_else(Vec::new, |entry| {
            self.tree.append(entry.leaf);
            entry.bytes.to_vec()
        })
    }

    /// What the next signature transaction writes.
    pub fn sign(&self, tx_id: TxId, node: NodeId, key: &NodeKey) -> WriteSet {
        let root = self.tree.root();
        let signature = NodeSignature {
            node_id: node.to_string(),
            certificate: None,
            root,
            tx_id,
            committed: TxId::default(),
            signature: key.sign_digest(&root),
        };
        let tree = self.tree.serialise(self.end.seqno.0).unwrap_or_default();
        SignatureTransaction { node: Some(signature), service: None, tree }.writes()
    }
}

/// Where clients write.
pub fn records() -> MapName {
    MapName::new("records")
}

/// Who takes part, as governance has it.
pub fn nodes_table() -> MapName {
    MapName::new("public:coco.gov.nodes")
}

/// Key and value of a client's write, if the transaction is one.
pub fn record_of(writes: &WriteSet) -> Option<(u64, u64)> {
    let (key, value) = writes.map(&records())?.puts().next()?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
    Some((number(key.as_ref())?, number(value.as_ref())?))
}
