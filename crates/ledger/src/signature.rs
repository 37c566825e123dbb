//! Signature transactions: what closes a batch.
//!
//! The transaction at seqno `s` signs the Merkle root over the leaves `0..s` with the service's key
//! (COSE_Sign1, the root as detached payload) and, as often as is configured, also with the key of
//! the node that made it (JSON, ECDSA directly over the 32 bytes of the root). With them it carries
//! the leaves since the previous signature transaction, so that a receipt can be made of two entries
//! alone.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use coco_crypto::cbor::Value as Cbor;
use coco_crypto::cose::{Header, label};
use coco_crypto::{BadSignature, CoseError, CoseSign1, Digest, KeyPair, PublicKey};
use coco_kv::{MapName, TxId, WriteSet};
use serde::{Deserialize, Serialize};

use crate::merkle::MerkleTree;
use crate::tables::{COSE_SIGNATURES, SIGNATURES, SINGLE_KEY, TREE, single};

/// The verifiable data structure of CCF's ledger: `CCF_LEDGER_SHA256`.
pub(crate) const VDS_CCF_LEDGER_SHA256: i64 = 2;
/// The protected header's map of CCF's own claims.
const CCF_CLAIMS: &str = "ccf.v1";
const CWT_ISSUER: i64 = 1;
const CWT_SUBJECT: i64 = 2;
const CWT_ISSUED_AT: i64 = 6;

/// A signature transaction is malformed or does not verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The JSON signature cannot be read.
    #[error("the node's signature is not readable: {0}")]
    Json(String),
    /// The COSE signature is not a base64 text in JSON.
    #[error("the service's signature is not readable: {0}")]
    CoseText(String),
    /// The COSE signature is malformed or does not verify.
    #[error("the service's signature: {0}")]
    Cose(#[from] CoseError),
    /// A header that every COSE signature of a ledger has.
    #[error("the service's signature has no usable header {0}")]
    CoseHeader(&'static str),
    /// The service's signature names another key.
    #[error("the service's signature names another key")]
    KeyId,
    /// The node's signature is not that of its key.
    #[error("the node's signature does not verify")]
    Node(#[from] BadSignature),
    /// The serialised tree is missing.
    #[error("the signature transaction has no Merkle tree")]
    NoTree,
    /// The tree does not reach the signed position, or was flushed beyond it.
    #[error("a tree of {leaves} leaves cannot be signed at {tx_id}, flushed to {flushed}")]
    Tree {
        /// Where the signature would stand.
        tx_id: TxId,
        /// Leaves of the tree.
        leaves: u64,
        /// Leaves to leave out.
        flushed: u64,
    },
    /// The signatures are over another root.
    #[error("the signed root {signed} is not the ledger's {computed}")]
    Root {
        /// The root in the transaction.
        signed: Digest,
        /// The root over the entries before it.
        computed: Digest,
    },
}

/// The keys and names that a node signs with.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The node's own key.
    pub node_key: Arc<KeyPair>,
    /// The node's certificate, endorsed by the service, PEM.
    pub node_certificate: String,
    /// The service's key.
    pub service_key: Arc<KeyPair>,
    /// The issuer that COSE signatures name.
    pub issuer: String,
    /// The subject that COSE signatures name.
    pub subject: String,
}

/// Who signs a root on the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// The service.
    Service,
    /// The service, and the node itself.
    ServiceAndNode,
}

/// A node's signature over a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSignature {
    /// Hex of the SHA-256 of the node's public key.
    pub node_id: String,
    /// The node's certificate, PEM; in the nodes' table only before CCF 2.0.
    pub certificate: Option<String>,
    /// The signed root.
    pub root: Digest,
    /// The position of the signature transaction.
    pub tx_id: TxId,
    /// What was committed when this was signed; recorded before CCF 2.0 only, else zero.
    pub committed: TxId,
    /// ECDSA over the root as it is, DER.
    pub signature: Vec<u8>,
}

impl NodeSignature {
    /// Verifies the signature over the root.
    ///
    /// # Errors
    /// If it is not that of `key`.
    pub fn verify(&self, key: &PublicKey) -> Result<(), BadSignature> {
        key.verify_digest(&self.root, &self.signature)
    }
}

/// The service's signature over a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSignature {
    /// The message; its payload is detached.
    pub message: CoseSign1,
    /// The position of the signature transaction.
    pub tx_id: TxId,
}

impl ServiceSignature {
    /// Takes the position out of a COSE signature's header.
    ///
    /// # Errors
    /// If the headers are not those of a ledger signature.
    pub fn of_message(message: CoseSign1) -> Result<Self, SignatureError> {
        let header = message.protected();
        if header.get(label::VDS).and_then(Cbor::as_i64) != Some(VDS_CCF_LEDGER_SHA256) {
            return Err(SignatureError::CoseHeader("395 (vds)"));
        }
        let claims = header.get(CCF_CLAIMS).ok_or(SignatureError::CoseHeader(CCF_CLAIMS))?;
        let tx_id = claims.entry("txid").and_then(Cbor::as_text).and_then(|text| text.parse().ok());
        let tx_id = tx_id.ok_or(SignatureError::CoseHeader("txid"))?;
        Ok(Self { message, tx_id })
    }

    /// Verifies the signature over `root`, and that it names `key`.
    ///
    /// # Errors
    /// If it does not verify.
    pub fn verify(&self, key: &PublicKey, root: Digest) -> Result<(), SignatureError> {
        self.require_key(key)?;
        Ok(self.message.verify(key, Some(&root.0))?)
    }

    /// As [`verify`](Self::verify), by a node of the service: it holds the key.
    ///
    /// # Errors
    /// If it does not verify.
    pub fn verify_own(&self, key: &KeyPair, root: Digest) -> Result<(), SignatureError> {
        self.require_key(key.public())?;
        Ok(self.message.verify_own(key, Some(&root.0))?)
    }

    fn require_key(&self, key: &PublicKey) -> Result<(), SignatureError> {
        let is_named = self.message.key_id() == Some(key.id().to_string().as_bytes());
        is_named.then_some(()).ok_or(SignatureError::KeyId)
    }

    /// Issuer and subject, which a recovered service goes on with.
    pub fn issuer_and_subject(&self) -> Option<(&str, &str)> {
        let claims = self.message.protected().get(label::CWT_CLAIMS)?;
        let text = |label| claims.entry(label).and_then(Cbor::as_text);
        Some((text(CWT_ISSUER)?, text(CWT_SUBJECT)?))
    }
}

/// The content of a signature transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureTransaction {
    /// The node's signature; not in every signature transaction since CCF 7.
    pub node: Option<NodeSignature>,
    /// The service's signature; missing in ledgers before CCF 6.
    pub service: Option<ServiceSignature>,
    /// The serialised Merkle tree.
    pub tree: Vec<u8>,
}

impl SignatureTransaction {
    /// Signs the root over all leaves of `tree` as transaction `tx_id`. The serialised tree leaves
    /// out the leaves before `flushed`, the seqno of the previous signature transaction or 0.
    ///
    /// # Errors
    /// If `tx_id` does not follow the last leaf, or the tree does not reach back to `flushed`.
    pub fn sign(
        tx_id: TxId,
        tree: &MerkleTree,
        flushed: u64,
        signer: &Signer,
        signed_by: SignedBy,
        issued_at_s: i64,
    ) -> Result<Self, SignatureError> {
        let leaves = tree.len();
        let refused = SignatureError::Tree { tx_id, leaves, flushed };
        if tx_id.seqno.0 != leaves {
            return Err(refused);
        }
        let serialised = tree.serialise(flushed).ok_or(refused)?;
        let root = tree.root();
        let node = (signed_by == SignedBy::ServiceAndNode).then(|| NodeSignature {
            node_id: signer.node_key.public().id().to_string(),
            certificate: Some(signer.node_certificate.clone()),
            root,
            tx_id,
            committed: TxId::default(),
            signature: signer.node_key.sign_digest(&root),
        });
        let header = service_header(tx_id, signer, issued_at_s);
        let message = CoseSign1::sign_detached(header, &root.0, &signer.service_key);
        let service = ServiceSignature { message, tx_id };
        Ok(Self { node, service: Some(service), tree: serialised })
    }

    /// Reads the signatures out of a transaction's public writes; `None` if it has none.
    ///
    /// # Errors
    /// If it is a signature transaction, but a malformed one.
    pub fn parse(writes: &WriteSet) -> Result<Option<Self>, SignatureError> {
        let node = single(writes, SIGNATURES).map(|json| parse_node_signature(json)).transpose()?;
        let service = single(writes, COSE_SIGNATURES)
            .map(|json| parse_service_signature(json))
            .transpose()?;
        if node.is_none() && service.is_none() {
            return Ok(None);
        }
        let tree = single(writes, TREE).ok_or(SignatureError::NoTree)?.to_vec();
        Ok(Some(Self { node, service, tree }))
    }

    /// What the transaction writes.
    pub fn writes(&self) -> WriteSet {
        let mut writes = WriteSet::new();
        if let Some(service) = &self.service {
            let json = format!("\"{}\"", BASE64.encode(service.message.encode()));
            writes.put(&MapName::new(COSE_SIGNATURES), SINGLE_KEY, json);
        }
        if let Some(node) = &self.node {
            writes.put(&MapName::new(SIGNATURES), SINGLE_KEY, node_signature_json(node));
        }
        writes.put(&MapName::new(TREE), SINGLE_KEY, self.tree.clone());
        writes
    }

    /// Where the signatures say they stand; they must all say the same.
    pub fn tx_ids(&self) -> impl Iterator<Item = TxId> {
        let node = self.node.as_ref().map(|node| node.tx_id);
        node.into_iter().chain(self.service.as_ref().map(|service| service.tx_id))
    }
}

fn service_header(tx_id: TxId, signer: &Signer, issued_at_s: i64) -> Header {
    let key = signer.service_key.public();
    let cwt_claims = Cbor::Map(vec![
        (CWT_ISSUED_AT.into(), issued_at_s.into()),
        (CWT_ISSUER.into(), signer.issuer.as_str().into()),
        (CWT_SUBJECT.into(), signer.subject.as_str().into()),
    ]);
    Header::for_key(key)
        .with(label::KEY_ID, key.id().to_string().into_bytes())
        .with(label::VDS, VDS_CCF_LEDGER_SHA256)
        .with(label::CWT_CLAIMS, cwt_claims)
        .with(CCF_CLAIMS, Cbor::Map(vec![("txid".into(), tx_id.to_string().into())]))
}

/// CCF's JSON, fields in order of their names. `hashed_nonce` is a relic.
#[derive(Serialize, Deserialize)]
struct NodeSignatureJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cert: Option<String>,
    #[serde(default)]
    commit_seqno: u64,
    #[serde(default)]
    commit_view: u64,
    #[serde(default)]
    hashed_nonce: String,
    node: String,
    root: String,
    seqno: u64,
    sig: String,
    view: u64,
}

fn node_signature_json(node: &NodeSignature) -> String {
    let json = NodeSignatureJson {
        cert: node.certificate.clone(),
        commit_seqno: node.committed.seqno.0,
        commit_view: node.committed.view.0,
        hashed_nonce: Digest::ZERO.to_string(),
        node: node.node_id.clone(),
        root: node.root.to_string(),
        seqno: node.tx_id.seqno.0,
        sig: BASE64.encode(&node.signature),
        view: node.tx_id.view.0,
    };
    #[expect(clippy::expect_used, reason = "strings and numbers only, written to memory")]
    serde_json::to_string(&json).expect("a struct of strings and numbers is valid JSON")
}

fn parse_node_signature(json: &[u8]) -> Result<NodeSignature, SignatureError> {
    let json: NodeSignatureJson =
        serde_json::from_slice(json).map_err(|error| SignatureError::Json(error.to_string()))?;
    let root = json.root.parse().map_err(|_| SignatureError::Json("root".into()))?;
    let signature = BASE64.decode(&json.sig).map_err(|_| SignatureError::Json("sig".into()))?;
    Ok(NodeSignature {
        node_id: json.node,
        certificate: json.cert,
        root,
        tx_id: TxId::new(json.view, json.seqno),
        committed: TxId::new(json.commit_view, json.commit_seqno),
        signature,
    })
}

fn parse_service_signature(json: &[u8]) -> Result<ServiceSignature, SignatureError> {
    let text: String = serde_json::from_slice(json)
        .map_err(|error| SignatureError::CoseText(error.to_string()))?;
    let bytes = BASE64.decode(text).map_err(|error| SignatureError::CoseText(error.to_string()))?;
    ServiceSignature::of_message(CoseSign1::parse(&bytes)?)
}

#[cfg(test)]
mod tests {
    use coco_crypto::{Curve, sha256};

    use super::*;
    use crate::entry::Entry;
    use crate::testing::{Counter, recorded};

    fn signer(curve: Curve) -> Signer {
        let entropy = Counter::new(1);
        Signer {
            node_key: Arc::new(KeyPair::generate(curve, &entropy).unwrap()),
            node_certificate: "-----BEGIN CERTIFICATE-----\n".into(),
            service_key: Arc::new(KeyPair::generate(curve, &entropy).unwrap()),
            issuer: "issuer".into(),
            subject: "subject".into(),
        }
    }

    fn tree() -> MerkleTree {
        let mut tree = MerkleTree::new();
        (1_u8..9).for_each(|leaf| tree.append(sha256(&[leaf])));
        tree
    }

    #[test]
    fn a_signature_transaction_reads_back_and_verifies() {
        for curve in [Curve::P256, Curve::P384] {
            let (signer, tree, tx_id) = (signer(curve), tree(), TxId::new(2, 9));
            let sign = |by| SignatureTransaction::sign(tx_id, &tree, 5, &signer, by, 1_763_000_000);
            let made = sign(SignedBy::Service).unwrap();
            assert_eq!(SignatureTransaction::parse(&made.writes()), Ok(Some(made.clone())));
            assert_eq!(made.node, None);
            made.service.unwrap().verify(signer.service_key.public(), tree.root()).unwrap();

            let made = sign(SignedBy::ServiceAndNode).unwrap();
            let read = SignatureTransaction::parse(&made.writes()).unwrap().unwrap();
            assert_eq!(read, made);
            assert!(read.tx_ids().all(|signed| signed == tx_id));
            assert_eq!(MerkleTree::parse(&read.tree).unwrap().root(), tree.root());
            let (node, service) = (read.node.unwrap(), read.service.unwrap());
            node.verify(signer.node_key.public()).unwrap();
            service.verify(signer.service_key.public(), tree.root()).unwrap();
            service.verify_own(&signer.service_key, tree.root()).unwrap();
            assert!(service.verify_own(&signer.service_key, Digest::ZERO).is_err());
            let other = service.verify_own(&signer.node_key, tree.root());
            assert_eq!(other, Err(SignatureError::KeyId));
            assert_eq!(service.issuer_and_subject(), Some(("issuer", "subject")));
            assert!(node.verify(signer.service_key.public()).is_err());
            assert!(service.verify(signer.service_key.public(), Digest::ZERO).is_err());
            let other = service.verify(signer.node_key.public(), tree.root());
            assert_eq!(other, Err(SignatureError::KeyId));
        }
    }

    #[test]
    fn only_the_position_after_the_last_leaf_can_be_signed() {
        let (signer, tree) = (signer(Curve::P256), tree());
        for (seqno, flushed) in [(8, 0), (10, 0), (9, 9)] {
            let tx_id = TxId::new(2, seqno);
            let by = SignedBy::Service;
            let refused = SignatureTransaction::sign(tx_id, &tree, flushed, &signer, by, 0);
            assert_eq!(refused, Err(SignatureError::Tree { tx_id, leaves: 9, flushed }));
        }
    }

    #[test]
    fn recorded_signatures_write_back_to_the_byte() {
        let mut cose = 0;
        for service in recorded() {
            for entry in service.entries() {
                let writes = Entry::parse(entry).unwrap().public_writes().unwrap();
                if let Some(signature) = SignatureTransaction::parse(&writes).unwrap() {
                    assert_eq!(signature.writes(), writes);
                    cose += u32::from(signature.service.is_some());
                }
            }
        }
        assert!(cose > 0 || recorded().is_empty());
    }

    #[test]
    fn malformed_signatures_are_refused() {
        let (tree, signer, by) = (tree(), signer(Curve::P256), SignedBy::ServiceAndNode);
        let made = SignatureTransaction::sign(TxId::new(2, 9), &tree, 0, &signer, by, 0);
        let made = made.unwrap().writes();
        let with = |map: &str, value: &[u8]| {
            let mut writes = made.clone();
            writes.put(&MapName::new(map), SINGLE_KEY, value);
            SignatureTransaction::parse(&writes)
        };
        for json in ["", "{}", "[]", "\"\"", r#"{"node":1}"#] {
            assert!(matches!(with(SIGNATURES, json.as_bytes()), Err(SignatureError::Json(_))));
        }
        assert!(matches!(with(COSE_SIGNATURES, b"{}"), Err(SignatureError::CoseText(_))));
        assert!(matches!(with(COSE_SIGNATURES, b"\"~\""), Err(SignatureError::CoseText(_))));
        assert!(matches!(with(COSE_SIGNATURES, b"\"0oRA\""), Err(SignatureError::Cose(_))));
        let mut no_tree = made.clone();
        no_tree.remove(&MapName::new(TREE), SINGLE_KEY);
        assert_eq!(SignatureTransaction::parse(&no_tree), Err(SignatureError::NoTree));
        assert_eq!(SignatureTransaction::parse(&WriteSet::new()), Ok(None));
    }
}
