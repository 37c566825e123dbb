//! A service with three members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use coco_adapter::{
    Call, Caller, CoseEnvelope, Endpoints, Environment, Find, HistoricalState, Outcome, Registry,
    TxStatus,
};
use coco_crypto::cose::{CoseSign1, Header, label};
use coco_crypto::x509::{Certificate, DistinguishedName, SigningRequest, Validity};
use coco_crypto::{Curve, Digest, Entropy, KeyPair, RsaKeyPair, sha256, sha256_concat};
use coco_governance::genesis::{NewMember, NewNode, NewService, TrustedCode, create_service};
use coco_governance::tables::{
    Base64, MEMBER_CERTS, NodeInfo, NodeStatus, NodeToNode, Pem, QuoteFormat, QuoteInfo,
    RecoveryRole, RpcInterface, ServiceConfig,
};
use coco_governance::{LedgerPeriod, ServiceControl, default_constitution, governance_api};
use coco_kv::{Committed, Seqno, Store, Tx, TxId, View};
use coco_ledger::LedgerSecret;
use coco_script::ScriptEngine;
use http::{Method, StatusCode};
use serde_json::{Value as Json, json};

pub const NOW_S: i64 = 1_800_000_000;

/// A member with its keys.
pub struct Member {
    pub id: Digest,
    pub cert: Certificate,
    pub key: KeyPair,
    pub encryption: Option<RsaKeyPair>,
}

impl Member {
    pub fn new(name: &str, with_encryption_key: bool, entropy: &dyn Entropy) -> Self {
        let key = KeyPair::generate(Curve::P256, entropy).unwrap();
        let cert = certificate(name, &key, entropy);
        let encryption = with_encryption_key.then(|| RsaKeyPair::generate(2048).unwrap());
        Self { id: cert.fingerprint(), cert, key, encryption }
    }

    /// A signed governance message.
    pub fn sign(&self, message: &Message<'_>) -> Bytes {
        let mut header = Header::for_key(self.key.public())
            .with(label::KEY_ID, self.id.to_string().into_bytes());
        if let Some(message_type) = message.message_type {
            header = header.with("ccf.gov.msg.type", message_type);
        }
        if let Some(created_at_s) = message.created_at_s {
            header = header.with("ccf.gov.msg.created_at", created_at_s);
        }
        if let Some(proposal) = &message.proposal {
            header = header.with("ccf.gov.msg.proposal_id", proposal.as_str());
        }
        CoseSign1::sign(header, message.body.clone(), &self.key).encode().into()
    }
}

/// What a member signs.
#[derive(Clone, Default)]
pub struct Message<'a> {
    pub message_type: Option<&'a str>,
    pub created_at_s: Option<u64>,
    pub proposal: Option<String>,
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
    pub content_type: String,
    pub outcome: Outcome,
    pub tx_id: Option<TxId>,
}

impl Reply {
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or(Json::Null)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> String {
        let error = self.json()["error"].clone();
        assert_eq!((self.status.as_u16(), error["code"].as_str()), (status, Some(code)), "{error}");
        assert!(self.tx_id.is_none());
        error["message"].as_str().unwrap().to_owned()
    }
}

/// The service.
pub struct Service {
    pub store: Store,
    pub members: Vec<Member>,
    pub keys: Arc<Keys>,
    pub environment: Node,
    pub node: Digest,
    pub cert: String,
    api: Registry,
    clock_s: AtomicU64,
}

impl Service {
    /// A new service with three recovery members, all Accepted.
    pub fn new() -> Self {
        Self::with_constitution(default_constitution())
    }

    pub fn with_constitution(constitution: String) -> Self {
        let environment = Node::default();
        let entropy = environment.entropy();
        let members: Vec<_> =
            (0..3).map(|index| Member::new(&format!("member{index}"), true, entropy)).collect();
        let key = Arc::new(KeyPair::generate(Curve::P256, entropy).unwrap());
        let subject = DistinguishedName::common_name("Service");
        let validity = Validity::days(NOW_S, 30);
        let cert = Certificate::for_service(&key, &subject, validity, entropy).unwrap();
        let keys = Arc::new(Keys { key, secret: Arc::new(LedgerSecret::new([7; 32])) });

        let node = new_node(&cert, &keys.key, entropy);
        let new = NewService {
            cert: Pem(cert.to_pem()),
            service_data: json!({"name": "test"}),
            config: ServiceConfig { recovery_threshold: 2, ..ServiceConfig::default() },
            constitution,
            members: members.iter().map(founding).collect(),
            node: node.clone(),
        };
        let store = Store::new(View(2));
        let mut tx = store.begin();
        create_service(&mut tx, &new, TxId::new(2, 1)).unwrap();
        store.commit(tx, |_, _| ()).unwrap();

        let api = governance_api(keys.clone(), Arc::new(ScriptEngine::new()));
        let clock_s = AtomicU64::new(NOW_S as u64);
        let (node, cert) = (node.id, cert.to_pem());
        Self { store, members, keys, environment, node, cert, api, clock_s }
    }

    /// A new service whose members are all active.
    pub fn active() -> Self {
        let service = Self::new();
        for member in &service.members {
            service.activate(member);
        }
        service
    }

    /// A new service that its members have opened.
    pub fn open() -> Self {
        let service = Self::active();
        let args = json!({"next_service_identity": service.cert});
        service.pass("transition_service_to_open", args);
        service
    }

    pub fn activate(&self, member: &Member) {
        let path = format!("/members/state-digests/{}", member.id);
        let digest = self.post(member, "state_digest", None, &format!("{path}:update"), b"");
        let digest = digest.expect(200).body;
        self.post(member, "ack", None, &format!("{path}:ack"), &digest).expect(204);
    }

    /// A later second than any before.
    pub fn tick(&self) -> u64 {
        self.clock_s.fetch_add(1, Ordering::Relaxed)
    }

    /// Submits a proposal of the first member.
    pub fn propose(&self, actions: Json) -> Reply {
        let body = json!({"actions": actions}).to_string();
        self.post(&self.members[0], "proposal", None, "/members/proposals:create", body.as_bytes())
    }

    /// Votes on a proposal.
    pub fn vote(&self, member: &Member, proposal: &str, ballot: &str) -> Reply {
        let path = format!("/members/proposals/{proposal}/ballots/{}:submit", member.id);
        let body = json!({"ballot": ballot}).to_string();
        self.post(member, "ballot", Some(proposal), &path, body.as_bytes())
    }

    /// Proposes one action and lets two members vote for it; the reply to the deciding vote.
    #[track_caller]
    pub fn decide(&self, action: &str, args: Json) -> Reply {
        let proposed = self.propose(json!([{"name": action, "args": args}])).expect(200).json();
        let id = proposed["proposalId"].as_str().unwrap();
        self.vote(&self.members[0], id, YES).expect(200);
        self.vote(&self.members[1], id, YES)
    }

    /// The same, where the action must pass.
    #[track_caller]
    pub fn pass(&self, action: &str, args: Json) -> Reply {
        let reply = self.decide(action, args).expect(200);
        assert_eq!(reply.json()["proposalState"], "Accepted", "{}", reply.text());
        reply
    }

    pub fn post(
        &self,
        member: &Member,
        message_type: &str,
        proposal: Option<&str>,
        path: &str,
        body: &[u8],
    ) -> Reply {
        let message = Message {
            message_type: Some(message_type),
            created_at_s: Some(self.tick()),
            proposal: proposal.map(str::to_owned),
            body: body.to_vec(),
        };
        self.post_signed(path, &member.sign(&message))
    }

    /// Posts a signed message, after the checks that the enclave's authentication makes.
    pub fn post_signed(&self, path: &str, message: &Bytes) -> Reply {
        let caller = self.authenticate(message);
        self.send(Method::POST, &format!("{path}?api-version=2024-07-01"), caller)
    }

    pub fn get(&self, path: &str) -> Reply {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}api-version=2024-07-01");
        self.send(Method::GET, &path, Caller::Unauthenticated)
    }

    pub fn authenticate(&self, message: &Bytes) -> Caller {
        let cose = CoseSign1::parse(message).unwrap();
        let key_id = std::str::from_utf8(cose.key_id().unwrap()).unwrap();
        let id: Digest = key_id.parse().unwrap();
        let cert = MEMBER_CERTS.get(&mut self.store.begin(), &id).unwrap();
        let Some(Pem(cert)) = cert else { return Caller::Unauthenticated };
        let key = Certificate::from_pem(&cert).unwrap().public_key().unwrap();
        cose.verify(&key, None).unwrap();
        let text = |name: &str| {
            cose.protected().get(name).and_then(|value| value.as_text()).map(str::to_owned)
        };
        let created_at = cose.protected().get("ccf.gov.msg.created_at");
        let envelope = CoseEnvelope {
            message: message.clone(),
            content: Bytes::copy_from_slice(cose.payload().unwrap()),
            signature: Bytes::copy_from_slice(cose.signature()),
            message_type: text("ccf.gov.msg.type"),
            created_at: created_at.and_then(|value| value.as_u64()),
            proposal_id: text("ccf.gov.msg.proposal_id"),
        };
        Caller::MemberCose { id, cert, data: Json::Null, envelope }
    }

    /// Executes a request and commits what it wrote.
    pub fn send(&self, method: Method, path: &str, caller: Caller) -> Reply {
        let request = http::Request::builder().method(method).uri(path).body(Bytes::new()).unwrap();
        let mut tx = self.store.begin();
        let Find::Endpoint(matched) =
            self.api.find(&mut tx, request.method(), request.uri().path())
        else {
            panic!("no endpoint for {path}");
        };
        let mut call = Call {
            request: &request,
            matched: &matched,
            caller: &caller,
            tx: &mut tx,
            historical: None,
            environment: &self.environment,
            outcome: Outcome::default(),
        };
        let result = self.api.execute(&mut call);
        let outcome = call.outcome;
        let response = result.unwrap_or_else(|error| error.to_response());
        let tx_id = if response.status().is_success() && tx.has_writes() {
            match self.store.commit(tx, |tx_id, _| tx_id).unwrap() {
                Committed::ReadOnly(_) => None,
                committed => Some(committed.tx_id()),
            }
        } else {
            None
        };
        let (parts, body) = response.into_parts();
        let content_type = parts.headers.get("content-type");
        let content_type = content_type.map_or("", |value| value.to_str().unwrap()).to_owned();
        Reply { status: parts.status, body, content_type, outcome, tx_id }
    }

    pub fn environment_entropy(&self) -> &dyn Entropy {
        self.environment.entropy()
    }

    /// Changes the tables, as the node does.
    pub fn write(&self, change: impl FnOnce(&mut Tx)) {
        let mut tx = self.store.begin();
        change(&mut tx);
        self.store.commit(tx, |_, _| ()).unwrap();
    }

    /// Looks at the present state.
    pub fn look<R>(&self, look: impl FnOnce(&mut Tx) -> R) -> R {
        look(&mut self.store.begin())
    }
}

pub const YES: &str = "export function vote(proposal, proposerId) { return true; }";
pub const NO: &str = "export function vote(proposal, proposerId) { return false; }";

pub fn certificate(name: &str, key: &KeyPair, entropy: &dyn Entropy) -> Certificate {
    let subject = DistinguishedName::common_name(name);
    Certificate::for_member(key, &subject, Validity::days(NOW_S, 365), entropy).unwrap()
}

pub fn founding(member: &Member) -> NewMember {
    let key = member.encryption.as_ref();
    NewMember {
        cert: Pem(member.cert.to_pem()),
        encryption_public_key: key.map(|key| Pem(key.public().to_pem())),
        member_data: Json::Null,
        recovery_role: key.map(|_| RecoveryRole::Participant),
    }
}

pub fn new_node(service: &Certificate, service_key: &KeyPair, entropy: &dyn Entropy) -> NewNode {
    let key = KeyPair::generate(Curve::P256, entropy).unwrap();
    let subject = DistinguishedName::common_name("Node");
    let request = SigningRequest::create(&key, &subject, &[]).unwrap();
    let validity = Validity::days(NOW_S, 30);
    let endorsed = request.endorse(service, service_key, validity, entropy).unwrap();
    let measurement = "Insecure hard-coded virtual measurement v1";
    let host_data = sha256(b"the program").to_string();
    let quote = json!({"measurement": measurement, "host_data": host_data, "report_data": ""});
    let interface = RpcInterface {
        bind_address: "127.0.0.1:8000".to_owned(),
        published_address: Some("example.com:443".to_owned()),
        app_protocol: Some("HTTP1".to_owned()),
        ..RpcInterface::default()
    };
    let info = NodeInfo {
        status: NodeStatus::Pending,
        node_to_node_interface: Some(NodeToNode {
            bind_address: "[::1]:8001".to_owned(),
            ..NodeToNode::default()
        }),
        rpc_interfaces: [("primary".to_owned(), interface)].into(),
        quote_info: QuoteInfo {
            format: QuoteFormat::InsecureVirtual,
            quote: Base64(quote.to_string().into_bytes()),
            endorsements: Base64(Vec::new()),
            uvm_endorsements: None,
            endorsed_tcb: None,
        },
        encryption_pub_key: Pem(String::new()),
        ledger_secret_seqno: None,
        code_digest: Some(hex::encode(measurement)),
        certificate_signing_request: Some(Pem(request.to_pem())),
        public_key: Some(Pem(key.public().to_pem())),
        node_data: Json::Null,
        retired_committed: false,
        cert: None,
        legacy: Default::default(),
    };
    let measurement = measurement.to_owned();
    let code = TrustedCode::Virtual { measurement, host_data };
    let endorsed_cert = Pem(endorsed.to_pem());
    NewNode { id: key.public().id(), info, endorsed_cert, code }
}

/// The service's keys.
pub struct Keys {
    pub key: Arc<KeyPair>,
    pub secret: Arc<LedgerSecret>,
}

impl ServiceControl for Keys {
    fn service_key(&self) -> Arc<KeyPair> {
        self.key.clone()
    }

    fn ledger_secret(&self) -> LedgerPeriod {
        let (valid_from, secret) = (Seqno(1), self.secret.clone());
        LedgerPeriod { valid_from, secret, previous_stored_at: None }
    }

    fn previous_ledger_secret(&self) -> Option<LedgerPeriod> {
        None
    }
}

/// A node without a ledger: the root at a position is a digest of the position.
#[derive(Default)]
pub struct Node {
    entropy: Counter,
}

#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let block = self.0.fetch_add(1, Ordering::Relaxed);
            let digest = sha256_concat(&[b"governance tests", &block.to_le_bytes()]);
            chunk.copy_from_slice(&digest.0[..chunk.len()]);
        }
    }
}

impl Environment for Node {
    fn entropy(&self) -> &dyn Entropy {
        &self.entropy
    }

    fn now_ms(&self) -> u64 {
        NOW_S as u64 * 1000
    }

    fn last_committed(&self) -> TxId {
        TxId::new(2, 1)
    }

    fn status(&self, tx_id: TxId) -> TxStatus {
        if tx_id == self.last_committed() { TxStatus::Committed } else { TxStatus::Unknown }
    }

    fn view_for_seqno(&self, _seqno: Seqno) -> Option<View> {
        Some(View(2))
    }

    fn root_at(&self, seqno: Seqno) -> Option<Digest> {
        Some(sha256(&seqno.0.to_le_bytes()))
    }

    fn state_range(
        &self,
        _handle: u64,
        _from: Seqno,
        _to: Seqno,
        _ttl_seconds: u64,
    ) -> Option<Vec<HistoricalState>> {
        None
    }

    fn drop_cached_states(&self, _handle: u64) -> bool {
        false
    }
}
