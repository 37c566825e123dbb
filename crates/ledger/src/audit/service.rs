//! What the ledger itself says about who may sign it: the service's identity and its nodes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use coco_crypto::cbor::Value as Cbor;
use coco_crypto::{Certificate, CertificateError, CoseError, CoseSign1, Digest, PublicKey};
use coco_kv::{MapName, Snapshot, TxId, WriteSet};
use serde::Deserialize;

use crate::signature::{SignatureError, SignatureTransaction};
use crate::tables::{
    NODES_ENDORSED_CERTIFICATES, NODES_INFO, PREVIOUS_IDENTITY_ENDORSEMENT,
    PREVIOUS_LAST_SIGNED_ROOT, PREVIOUS_SERVICE_IDENTITY, SERVICE_INFO, single,
};

/// The maps that are followed.
pub(super) const FOLLOWED: [&str; 6] = [
    SERVICE_INFO,
    PREVIOUS_SERVICE_IDENTITY,
    PREVIOUS_LAST_SIGNED_ROOT,
    PREVIOUS_IDENTITY_ENDORSEMENT,
    NODES_INFO,
    NODES_ENDORSED_CERTIFICATES,
];

/// The ledger contradicts itself about the service or its nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceFault {
    /// A value of a built-in map is malformed.
    #[error("a value of {map} is malformed: {fault}")]
    Value {
        /// The map.
        map: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// A certificate in a built-in map is malformed.
    #[error("a certificate in {map} is malformed: {fault}")]
    Certificate {
        /// The map.
        map: &'static str,
        /// What is wrong.
        fault: CertificateError,
    },
    /// The service's status cannot change this way.
    #[error("the service's status went from {from:?} to {to:?}")]
    Status {
        /// The status before.
        from: ServiceStatus,
        /// The status after.
        to: ServiceStatus,
    },
    /// The service's key changed without a recovery that names the identity before.
    #[error("the service's identity changed without naming the one before")]
    Identity,
    /// The root that a recovery names is not the last that was signed before it.
    #[error("the recovery names {named} as last signed root, it was {actual}")]
    LastSignedRoot {
        /// The root that is named.
        named: Digest,
        /// The root that was signed.
        actual: Digest,
    },
    /// The endorsement of the previous identity does not hold.
    #[error("the endorsement of the previous service identity does not hold: {0}")]
    Endorsement(&'static str),
    /// The endorsement of the previous identity is malformed or not signed.
    #[error("the endorsement of the previous service identity: {0}")]
    EndorsementCose(#[from] CoseError),
    /// A node was removed that was not there.
    #[error("node {0} was removed and is not there")]
    NodeAbsent(String),
    /// A node's certificate is that of another key.
    #[error("the certificate of node {0} is that of another node")]
    NodeId(String),
    /// A node's certificate is not endorsed by the service.
    #[error("the certificate of node {node} is not endorsed by the service: {fault}")]
    NodeNotEndorsed {
        /// The node.
        node: String,
        /// What is wrong.
        fault: CertificateError,
    },
    /// A node has a certificate in both tables at once.
    #[error("node {0} has two certificates")]
    TwoCertificates(String),
    /// A signature by a node that is not part of the service.
    #[error("signed by node {0}, which is not part of the service")]
    SignerUnknown(String),
    /// A signature by a node whose key the present service has not endorsed.
    #[error("signed by node {0}, which the present service has not endorsed")]
    SignerNotEndorsed(String),
    /// A signature by a node that is not trusted yet.
    #[error("signed by node {0}, which is not trusted yet")]
    SignerPending(String),
    /// A signature comes with a certificate of another key than the node's.
    #[error("signed by node {0} under a certificate of another key")]
    SignerCertificate(String),
    /// A signature before the service has an identity.
    #[error("signed before the service had an identity")]
    NoService,
    /// A signature does not verify.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// The status of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ServiceStatus {
    /// Begun, governance only.
    Opening,
    /// In use.
    Open,
    /// Recovered in public, private data is still encrypted.
    WaitingForRecoveryShares,
    /// Begun from an earlier service's ledger.
    Recovering,
}

impl ServiceStatus {
    /// A disaster can strike at any point, so that a service may begin anew at any.
    fn may_become(self, next: Self) -> bool {
        use ServiceStatus::{Open, Opening, Recovering, WaitingForRecoveryShares};
        next == self
            || next == Opening
            || matches!(
                (self, next),
                (Opening, Open | WaitingForRecoveryShares)
                    | (Recovering, WaitingForRecoveryShares)
                    | (WaitingForRecoveryShares, Open)
                    | (Open, Recovering)
            )
    }
}

/// An identity of the service and where in the ledger it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceIdentity {
    /// Its first transaction.
    pub since: TxId,
    /// Its certificate, the latest if it was renewed.
    pub certificate: Certificate,
    /// Its key.
    pub key: PublicKey,
}

#[derive(Clone, Debug)]
struct Node {
    status: NodeStatus,
    /// What it may sign with: a key that the present service has endorsed.
    key: Option<PublicKey>,
    /// A key that only the nodes' table names, as of nodes that joined before CCF 2.0. The present
    /// service endorses it by signing the table.
    named: Option<PublicKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum NodeStatus {
    Pending,
    Trusted,
    Retired,
}

#[derive(Deserialize)]
struct ServiceInfoJson {
    cert: String,
    status: ServiceStatus,
}

#[derive(Deserialize)]
struct NodeInfoJson {
    status: NodeStatus,
    /// Before CCF 2.0.
    cert: Option<String>,
}

#[derive(Deserialize)]
struct EndorsementJson {
    endorsement: String,
    endorsing_key: String,
    endorsement_epoch_begin: String,
    endorsement_epoch_end: Option<String>,
}

/// The service as the transactions so far describe it.
#[derive(Clone, Debug, Default)]
pub struct ServiceHistory {
    identities: Vec<ServiceIdentity>,
    /// How many of them were there at the last signature that was verified.
    signed_identities: usize,
    status: Option<ServiceStatus>,
    nodes: BTreeMap<String, Node>,
    last_signed_root: Option<Digest>,
    /// The last root signed under the identity before the present one.
    previous_last_root: Option<Digest>,
}

impl ServiceHistory {
    /// The service as a snapshot's state describes it, for which the snapshot's receipt vouches.
    ///
    /// # Errors
    /// If the state's built-in maps are malformed.
    pub fn of_state(state: &Snapshot) -> Result<Self, ServiceFault> {
        let mut writes = WriteSet::new();
        for name in [SERVICE_INFO, NODES_INFO, NODES_ENDORSED_CERTIFICATES] {
            let name = MapName::new(name);
            for (key, entry) in state.map(&name).into_iter().flat_map(|map| map.iter()) {
                writes.put(&name, key, entry.value.clone());
            }
        }
        let mut history = Self::default();
        history.apply_service(state.tx_id(), &writes)?;
        // Retired nodes may have certificates by earlier identities: those are of no use.
        history.apply_nodes(&writes, true)?;
        history.vouch();
        Ok(history)
    }

    /// The identities in order of their beginning; the present one is the last.
    pub fn identities(&self) -> &[ServiceIdentity] {
        &self.identities
    }

    /// The identities up to the one that vouches for what was signed last. Those after it are only
    /// named, by transactions that nobody has signed.
    pub fn signed_identities(&self) -> &[ServiceIdentity] {
        self.identities.get(..self.signed_identities).unwrap_or_default()
    }

    /// The present status.
    pub fn status(&self) -> Option<ServiceStatus> {
        self.status
    }

    /// Follows a transaction's public writes.
    ///
    /// # Errors
    /// If they contradict what was before.
    pub fn apply(&mut self, tx_id: TxId, writes: &WriteSet) -> Result<(), ServiceFault> {
        self.apply_service(tx_id, writes)?;
        self.apply_nodes(writes, false)?;
        self.check_endorsement(writes)
    }

    /// Verifies the signatures of a signature transaction over `root`: each is by the present
    /// service or by a node that it has endorsed.
    ///
    /// # Errors
    /// If there is one that does not verify, or is by somebody who may not sign.
    pub fn verify(
        &self,
        signature: &SignatureTransaction,
        root: Digest,
    ) -> Result<(), ServiceFault> {
        let identity = self.identities.last().ok_or(ServiceFault::NoService)?;
        if let Some(node) = &signature.node {
            let id = || node.node_id.clone();
            let signer =
                self.nodes.get(&node.node_id).ok_or_else(|| ServiceFault::SignerUnknown(id()))?;
            if signer.status == NodeStatus::Pending {
                return Err(ServiceFault::SignerPending(id()));
            }
            let key = signer.key.as_ref().ok_or_else(|| ServiceFault::SignerNotEndorsed(id()))?;
            if let Some(certificate) = &node.certificate {
                let own = Certificate::from_pem(certificate).and_then(|own| own.public_key());
                if own.as_ref() != Ok(key) {
                    return Err(ServiceFault::SignerCertificate(id()));
                }
            }
            if node.root != root {
                let (signed, computed) = (node.root, root);
                return Err(SignatureError::Root { signed, computed }.into());
            }
            node.verify(key).map_err(SignatureError::from)?;
        }
        if let Some(service) = &signature.service {
            service.verify(&identity.key, root)?;
        }
        Ok(())
    }

    /// Notes the root of a signature transaction that was verified.
    pub fn note_signed(&mut self, root: Digest) {
        self.last_signed_root = Some(root);
        self.vouch();
    }

    /// The present identity vouches for all that is known so far, keys that are only named included.
    fn vouch(&mut self) {
        self.signed_identities = self.identities.len();
        for node in self.nodes.values_mut().filter(|node| node.status == NodeStatus::Trusted) {
            node.key = node.named.take().or(node.key.take());
        }
    }

    fn apply_service(&mut self, tx_id: TxId, writes: &WriteSet) -> Result<(), ServiceFault> {
        let Some(info) = parse_single::<ServiceInfoJson>(writes, SERVICE_INFO)? else {
            return Ok(());
        };
        if let Some(status) = self.status
            && !status.may_become(info.status)
        {
            return Err(ServiceFault::Status { from: status, to: info.status });
        }
        self.status = Some(info.status);
        let certificate = certificate(SERVICE_INFO, &info.cert)?;
        let key = key_of(SERVICE_INFO, &certificate)?;
        match self.identities.last_mut() {
            Some(present) if present.key == key => present.certificate = certificate,
            present => {
                if let Some(present) = present {
                    let named = parse_single::<String>(writes, PREVIOUS_SERVICE_IDENTITY)?
                        .ok_or(ServiceFault::Identity)?;
                    let named = self::certificate(PREVIOUS_SERVICE_IDENTITY, &named)?;
                    if key_of(PREVIOUS_SERVICE_IDENTITY, &named)? != present.key {
                        return Err(ServiceFault::Identity);
                    }
                    self.previous_last_root = self.last_signed_root;
                    check_last_root(writes, self.last_signed_root)?;
                }
                self.identities.push(ServiceIdentity { since: tx_id, certificate, key });
                self.forget_node_keys();
            }
        }
        Ok(())
    }

    /// Nodes sign for the identity that has endorsed them, not for the next.
    fn forget_node_keys(&mut self) {
        for node in self.nodes.values_mut() {
            (node.key, node.named) = (None, None);
        }
    }

    /// Certificates in the table of endorsed ones are by the present service, or, if that
    /// `may_be_earlier`, of no use.
    fn apply_nodes(&mut self, writes: &WriteSet, may_be_earlier: bool) -> Result<(), ServiceFault> {
        let infos = writes.map(&MapName::new(NODES_INFO));
        let mut with_certificate = Vec::new();
        for (key, value) in infos.into_iter().flat_map(|map| map.iter()) {
            let id = node_id(NODES_INFO, key)?;
            let Some(value) = value else {
                self.nodes.remove(&id).ok_or(ServiceFault::NodeAbsent(id))?;
                continue;
            };
            let info: NodeInfoJson = parse_json(NODES_INFO, value)?;
            let before = self.nodes.remove(&id);
            let (mut key, mut named) = before.map_or((None, None), |node| (node.key, node.named));
            if let Some(pem) = &info.cert {
                let (certificate, own) = node_key(NODES_INFO, &id, pem)?;
                match self.check_endorsed(&id, &certificate) {
                    Ok(()) => key = Some(own),
                    Err(_) => named = Some(own),
                }
                with_certificate.push(id.clone());
            }
            self.nodes.insert(id, Node { status: info.status, key, named });
        }
        let endorsed = writes.map(&MapName::new(NODES_ENDORSED_CERTIFICATES));
        for (key, value) in endorsed.into_iter().flat_map(|map| map.iter()) {
            let id = node_id(NODES_ENDORSED_CERTIFICATES, key)?;
            if with_certificate.contains(&id) {
                return Err(ServiceFault::TwoCertificates(id));
            }
            let key = match value {
                Some(pem) => self.endorsed_key(&id, pem, may_be_earlier)?,
                None => None,
            };
            // Nodes that were never trusted are removed without ever having had a certificate.
            match self.nodes.get_mut(&id) {
                Some(node) => (node.key, node.named) = (key, None),
                None if value.is_some() => return Err(ServiceFault::NodeAbsent(id)),
                None => {}
            }
        }
        Ok(())
    }

    /// The key in a node's certificate; `None` if it may be, and is, endorsed by an earlier
    /// identity.
    fn endorsed_key(
        &self,
        id: &str,
        pem: &[u8],
        may_be_earlier: bool,
    ) -> Result<Option<PublicKey>, ServiceFault> {
        let map = NODES_ENDORSED_CERTIFICATES;
        let pem = std::str::from_utf8(pem)
            .map_err(|_| ServiceFault::Value { map, fault: "not UTF-8".into() })?;
        let (certificate, key) = node_key(map, id, pem)?;
        match self.check_endorsed(id, &certificate) {
            Ok(()) => Ok(Some(key)),
            Err(_) if may_be_earlier => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn check_endorsed(&self, id: &str, certificate: &Certificate) -> Result<(), ServiceFault> {
        let service = self.identities.last().ok_or(ServiceFault::NoService)?;
        certificate
            .verify_signed_by_key(&service.key)
            .map_err(|fault| ServiceFault::NodeNotEndorsed { node: id.to_owned(), fault })
    }

    /// The present service endorses the identity before it, or its own if it has recorded none
    /// before.
    fn check_endorsement(&self, writes: &WriteSet) -> Result<(), ServiceFault> {
        let map = PREVIOUS_IDENTITY_ENDORSEMENT;
        let Some(json) = parse_single::<EndorsementJson>(writes, map)? else { return Ok(()) };
        let decode =
            |text: &str| BASE64.decode(text).map_err(|_| ServiceFault::Endorsement("not base64"));
        let (present, before) = match self.identities.as_slice() {
            [.., before, present] => (present, Some(before)),
            [present] => (present, None),
            [] => return Err(ServiceFault::NoService),
        };
        if decode(&json.endorsing_key)? != present.key.spki_der() {
            return Err(ServiceFault::Endorsement("another key than the service's endorses"));
        }
        let message = CoseSign1::parse(&decode(&json.endorsement)?)?;
        message.verify(&present.key, None)?;
        let endorsed = message.payload().unwrap_or_default();
        let is_own = endorsed == present.key.spki_der();
        if !is_own && before.is_none_or(|before| endorsed != before.key.spki_der()) {
            return Err(ServiceFault::Endorsement("another key than the previous is endorsed"));
        }
        let claims = message.protected().get("ccf.v1");
        let claim = |label: &str| claims.and_then(|claims| claims.entry(label));
        let tx_id = |label: &str| claim(label).and_then(Cbor::as_text);
        let begin = Some(json.endorsement_epoch_begin.as_str());
        let end = json.endorsement_epoch_end.as_deref();
        if tx_id("epoch.start.txid") != begin || tx_id("epoch.end.txid") != end {
            return Err(ServiceFault::Endorsement("the signed epoch is another one"));
        }
        let root = claim("epoch.end.merkle.root").and_then(Cbor::as_bytes);
        let known = self.previous_last_root.filter(|_| !is_own);
        match (root, known) {
            (Some(root), Some(known)) if root != known.0 => {
                Err(ServiceFault::Endorsement("the signed last root is another one"))
            }
            _ => Ok(()),
        }
    }
}

fn check_last_root(writes: &WriteSet, actual: Option<Digest>) -> Result<(), ServiceFault> {
    let map = PREVIOUS_LAST_SIGNED_ROOT;
    let (Some(named), Some(actual)) = (parse_single::<String>(writes, map)?, actual) else {
        return Ok(());
    };
    let named: Digest =
        named.parse().map_err(|_| ServiceFault::Value { map, fault: "not a digest".into() })?;
    if named != actual {
        return Err(ServiceFault::LastSignedRoot { named, actual });
    }
    Ok(())
}

fn parse_json<T: for<'de> Deserialize<'de>>(
    map: &'static str,
    json: &[u8],
) -> Result<T, ServiceFault> {
    serde_json::from_slice(json)
        .map_err(|error| ServiceFault::Value { map, fault: error.to_string() })
}

fn parse_single<T: for<'de> Deserialize<'de>>(
    writes: &WriteSet,
    map: &'static str,
) -> Result<Option<T>, ServiceFault> {
    single(writes, map).map(|json| parse_json(map, json)).transpose()
}

fn certificate(map: &'static str, pem: &str) -> Result<Certificate, ServiceFault> {
    Certificate::from_pem(pem).map_err(|fault| ServiceFault::Certificate { map, fault })
}

fn key_of(map: &'static str, certificate: &Certificate) -> Result<PublicKey, ServiceFault> {
    certificate.public_key().map_err(|fault| ServiceFault::Certificate { map, fault })
}

/// A node's certificate and key; the node's id is the digest of the key.
fn node_key(
    map: &'static str,
    id: &str,
    pem: &str,
) -> Result<(Certificate, PublicKey), ServiceFault> {
    let certificate = certificate(map, pem)?;
    let key = key_of(map, &certificate)?;
    if key.id().to_string() != id {
        return Err(ServiceFault::NodeId(id.to_owned()));
    }
    Ok((certificate, key))
}

fn node_id(map: &'static str, key: &[u8]) -> Result<String, ServiceFault> {
    let text = std::str::from_utf8(key);
    let text = text.map_err(|_| ServiceFault::Value { map, fault: "a node id is not text".into() });
    text.map(str::to_owned)
}
