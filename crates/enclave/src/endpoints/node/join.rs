//! `POST /node/join`: another node asks to take part.
//!
//! Only the primary answers; others say who that is. The checks run in CCF's order. A node is
//! trusted at once while the service is not open yet, or if it takes a seat that its members have
//! approved ([`coco_governance::seats`]), and waits for them otherwise. The secrets leave only when
//! the trust is committed, and only encrypted to the key that the evidence of the accepted node
//! stands for.

use std::collections::{BTreeMap, BTreeSet};

use coco_adapter::{
    AuthnPolicy, Call, Caller, ErrorCode, ErrorResponse, ForwardingRequired, Mode, Response,
    RouteSyntax,
};
use coco_attestation::insecure::SoftwareVerifier;
use coco_attestation::{Claims, Evidence, EvidenceFormat, Manifests, appraise, verify};
use coco_consensus::Role;
use coco_crypto::x509::Validity;
use coco_crypto::{Certificate, Digest, PublicKey, RsaPublicKey, SigningRequest};
use coco_governance::seats::{Candidate, SeatError, Usher};
use coco_governance::tables::{
    Base64, NODE_ENDORSED_CERTS, NODES, NodeInfo, NodeStatus, Pem, QuoteFormat, QuoteInfo,
    SERVICE_INFO, ServiceStatus, VIRTUAL_HOST_DATA, VIRTUAL_MEASUREMENTS,
};
use coco_kv::Tx;
use http::{Method, StatusCode};
use serde_json::Value as Json;

use super::{Endpoints, operation, primary_location, properties, redirect, unreadable};
use crate::join::message::{JoinRequest, JoinResponse, NetworkInfo, seal_secrets};
use crate::node::Node;
use crate::node::pending::pending;
use coco_governance::ServiceControl as _;

/// Nodes that wait to be trusted, at most.
const MAX_PENDING: usize = 100;
/// The largest text of a key or request; evidence has limits of its own.
const MAX_PART_BYTES: usize = 64 << 10;

pub(super) fn add(to: &mut Endpoints) -> Result<(), RouteSyntax> {
    let mut properties = properties(Mode::ReadWrite);
    properties.authn_policies = vec![AuthnPolicy::AnyCert];
    properties.waits_for_commit = true;
    // The constitution may be asked.
    properties.long_running = true;
    // The node that asks is to know whom it has asked.
    properties.forwarding_required = ForwardingRequired::Never;
    let node = to.node.clone();
    let handler = move |call: &mut Call<'_>| join(&node, call);
    let openapi = operation("Ask to take part in the network");
    to.registry.add(Method::POST, "/join", properties, openapi, handler)
}

fn join(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    if !node.is_networked() {
        let message = "This node has no node-to-node interface: no other node can join it.";
        let status = StatusCode::NOT_IMPLEMENTED;
        return Err(ErrorResponse::new(status, ErrorCode::NotImplemented, message));
    }
    if let Role::Backup { .. } = node.pipeline().role() {
        let location = primary_location(node, call.tx, call.request)?.ok_or_else(|| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            ErrorResponse::new(status, ErrorCode::PrimaryNotFound, "Primary unknown.")
        })?;
        return Ok(redirect(StatusCode::PERMANENT_REDIRECT, location));
    }
    if node.pipeline().is_recovering() {
        // What is written now is no part of the ledger before members have agreed to it.
        let message = "The service is being recovered: nodes join once it is open.";
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::FrontendNotOpen);
        return Err(ErrorResponse::new(status, code, message));
    }
    let mut request: JoinRequest = call.json()?;
    let key = caller_key(call)?;
    let service = SERVICE_INFO.expect(call.tx).map_err(unreadable)?;
    let id = key.id();
    let statement = request.seat_statement.take();
    if let Some(info) = NODES.get(call.tx, &id).map_err(unreadable)? {
        node.pending_nodes().heard(id, node.host().uptime());
        let (info, refusal) = match statement {
            Some(Base64(statement)) if info.status == NodeStatus::Pending => {
                seat_waiting(node, call, &key, info, request.quote_info, &statement)?
            }
            _ => (info, None),
        };
        if let Some(refusal) = &refusal {
            tracing::debug!(node = %id, %refusal, "a node does not take its seat yet");
        }
        return answer(node, call, id, &info, service.status, refusal);
    }
    let is_open =
        matches!(service.status, ServiceStatus::Open | ServiceStatus::WaitingForRecoveryShares);
    admit(node, call, &request.protocols)?;
    let mut info = accept(call, &key, request, is_open)?;
    make_room(node, call.tx)?;
    node.pending_nodes().heard(id, node.host().uptime());
    if !is_open {
        info.status = NodeStatus::Trusted;
        info.ledger_secret_seqno = Some(node.service_keys().ledger_secret().valid_from.0);
        let endorsed = endorse(node, call, &info, &service.cert)?;
        NODE_ENDORSED_CERTS.put(call.tx, &id, &endorsed);
    }
    NODES.put(call.tx, &id, &info);
    tracing::info!(node = %id, status = ?info.status, "a node asks to join");
    let (info, refusal) = match statement {
        Some(Base64(statement)) if is_open => seat(node, call, id, info, &statement)?,
        _ => (info, None),
    };
    if let Some(refusal) = &refusal {
        tracing::warn!(node = %id, %refusal, "a node does not take its seat, and waits");
    }
    answer(node, call, id, &info, service.status, refusal)
}

/// A node that waits asks again for its seat. What members trust may have changed since it came.
fn seat_waiting(
    node: &Node,
    call: &mut Call<'_>,
    key: &PublicKey,
    mut info: NodeInfo,
    evidence: Evidence,
    statement: &[u8],
) -> Result<(NodeInfo, Option<String>), ErrorResponse> {
    let claims = match appraised(call.tx, &evidence, key)? {
        Ok(claims) => claims,
        Err(reason) => return Ok((info, Some(format!("its evidence is not accepted: {reason}")))),
    };
    info.code_digest = Some(hex::encode(&claims.measurement));
    info.quote_info = recorded(evidence);
    seat(node, call, key.id(), info, statement)
}

/// The record of a node that takes its seat; or as it was, and why it does not.
fn seat(
    node: &Node,
    call: &mut Call<'_>,
    node_id: Digest,
    info: NodeInfo,
    statement: &[u8],
) -> Result<(NodeInfo, Option<String>), ErrorResponse> {
    let silent = node.pipeline().replicas().into_iter().filter(|replica| replica.is_silent);
    let silent: BTreeSet<Digest> = silent.map(|replica| replica.node.0).collect();
    let usher = Usher {
        control: &**node.service_keys(),
        engine: node.engine(),
        environment: call.environment,
        is_silent: &|id| silent.contains(id),
    };
    match usher.seat(call.tx, &Candidate { node_id, info: &info, statement }) {
        Ok(seated) => {
            tracing::info!(node = %node_id, "trusted without a vote: it takes its seat");
            Ok((seated, None))
        }
        Err(SeatError::Table(error)) => Err(unreadable(error)),
        Err(refusal) => {
            if let SeatError::Constitution(error) = &refusal {
                tracing::warn!(node = %node_id, %error, "the constitution's mayTakeSeat() failed");
            }
            Ok((info, Some(refusal.to_string())))
        }
    }
}

/// Refuses a node whose protocols do not find here what they demand: trusted, it would count, and
/// not start.
fn admit(
    node: &Node,
    call: &mut Call<'_>,
    protocols: &BTreeMap<String, Json>,
) -> Result<(), ErrorResponse> {
    let refused = |message: String| ErrorResponse::bad_request(ErrorCode::InvalidInput, message);
    for (name, demands) in protocols {
        let protocol = node.protocol(name);
        let protocol =
            protocol.ok_or_else(|| refused(format!("This service has no protocol {name:?}.")))?;
        let admitted = protocol.admit(call.tx, demands);
        admitted.map_err(|error| refused(format!("{name}: {error}.")))?;
    }
    Ok(())
}

/// The key that the caller proved to hold in the handshake.
fn caller_key(call: &Call<'_>) -> Result<PublicKey, ErrorResponse> {
    let refused = || {
        let message = "The client certificate cannot be used.";
        ErrorResponse::bad_request(ErrorCode::InvalidInput, message)
    };
    let Caller::AnyCert { cert } = call.caller else { return Err(refused()) };
    let certificate = Certificate::from_pem(cert).map_err(|_| refused())?;
    certificate.public_key().map_err(|_| refused())
}

/// The record of a node whose evidence holds.
fn accept(
    call: &mut Call<'_>,
    key: &PublicKey,
    request: JoinRequest,
    is_open: bool,
) -> Result<NodeInfo, ErrorResponse> {
    let JoinRequest {
        node_info_network,
        quote_info: evidence,
        public_encryption_key,
        certificate_signing_request,
        node_data,
        ..
    } = request;
    let parts = [&*public_encryption_key.0, &*certificate_signing_request.0];
    if parts.iter().any(|part| part.len() > MAX_PART_BYTES) {
        let message = "A part of the request is too long.";
        return Err(ErrorResponse::bad_request(ErrorCode::InvalidInput, message));
    }
    let address = node_info_network.node_to_node_interface.address();
    let former = others_at(call.tx, address, is_open)?;
    let claims = appraised(call.tx, &evidence, key)?.map_err(|reason| {
        let message = format!("Quote could not be verified: {reason}.");
        ErrorResponse::new(StatusCode::UNAUTHORIZED, ErrorCode::InvalidQuote, message)
    })?;
    let csr = SigningRequest::from_pem(&certificate_signing_request.0);
    if csr.ok().is_none_or(|csr| csr.public_key() != key) {
        let message = "Public key in CSR does not match TLS session key.";
        return Err(ErrorResponse::bad_request(ErrorCode::CSRPublicKeyInvalid, message));
    }
    if RsaPublicKey::from_pem(&public_encryption_key.0).is_err() {
        let message = "The public encryption key is not an RSA key.";
        return Err(ErrorResponse::bad_request(ErrorCode::InvalidInput, message));
    }
    // Whoever waited at this address, and was not trusted, is gone.
    former.iter().for_each(|id| NODES.remove(call.tx, id));
    Ok(NodeInfo {
        status: NodeStatus::Pending,
        node_to_node_interface: Some(node_info_network.node_to_node_interface),
        rpc_interfaces: node_info_network.rpc_interfaces,
        quote_info: recorded(evidence),
        encryption_pub_key: public_encryption_key,
        ledger_secret_seqno: None,
        code_digest: Some(hex::encode(&claims.measurement)),
        certificate_signing_request: Some(certificate_signing_request),
        public_key: Some(Pem(key.to_pem())),
        node_data,
        retired_committed: false,
        cert: None,
        legacy: Default::default(),
    }
    .with_legacy_addresses())
}

/// Of too many that wait, who asked least recently gives way: the others ask all the time.
fn make_room(node: &Node, tx: &mut Tx) -> Result<(), ErrorResponse> {
    let pending = pending(tx).map_err(unreadable)?;
    if pending.len() >= MAX_PENDING
        && let Some(id) = node.pending_nodes().most_silent(&pending)
    {
        tracing::warn!(node = %id, "forgotten: too many nodes wait to be trusted");
        NODES.remove(tx, &id);
    }
    Ok(())
}

/// What evidence says of the holder of a key, if members trust that; otherwise why not.
fn appraised(
    tx: &mut Tx,
    evidence: &Evidence,
    key: &PublicKey,
) -> Result<Result<Claims, String>, ErrorResponse> {
    let manifests = Tables::read(tx)?;
    let claims = match verify(evidence, &[&SoftwareVerifier]) {
        Ok(claims) => claims,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let appraisal = appraise(&claims, &manifests, key);
    Ok(appraisal.map(|()| claims).map_err(|error| error.to_string()))
}

/// Pending nodes at an address, whose place another one takes. One that is trusted may have been
/// there before, and have stopped: once the service is open it is for its members to see that,
/// since nothing is given to the new one before they trust it.
fn others_at(tx: &mut Tx, address: &str, is_open: bool) -> Result<Vec<Digest>, ErrorResponse> {
    let rows = NODES.rows(tx).map_err(unreadable)?;
    let at = |info: &NodeInfo| {
        info.node_to_node_interface.as_ref().is_some_and(|its| its.address() == address)
    };
    let mut pending = Vec::new();
    for (id, other) in rows.into_iter().filter(|(_, other)| at(other)) {
        match other.status {
            NodeStatus::Pending => pending.push(id),
            NodeStatus::Trusted if is_open => {
                tracing::warn!(node = %id, address, "a node joins at the address of another one");
            }
            NodeStatus::Trusted => {
                let message = format!("A node with the same address {address} exists: {id}.");
                return Err(ErrorResponse::bad_request(ErrorCode::NodeAlreadyExists, message));
            }
            NodeStatus::Retired => {}
        }
    }
    Ok(pending)
}

/// Evidence as the ledger has it. The software TEE's is the only one that is verified.
fn recorded(evidence: Evidence) -> QuoteInfo {
    QuoteInfo {
        format: QuoteFormat::InsecureVirtual,
        quote: Base64(evidence.quote),
        endorsements: Base64(evidence.endorsements),
        uvm_endorsements: None,
        endorsed_tcb: None,
    }
}

/// The certificate that channels and clients will see.
fn endorse(
    node: &Node,
    call: &Call<'_>,
    info: &NodeInfo,
    service: &Pem,
) -> Result<Pem, ErrorResponse> {
    let failed = |error: coco_crypto::CertificateError| {
        ErrorResponse::internal(format!("The node cannot be endorsed: {error}."))
    };
    let csr = info.certificate_signing_request.as_ref().map(|csr| csr.0.as_str());
    let csr = SigningRequest::from_pem(csr.unwrap_or_default()).map_err(failed)?;
    let service = Certificate::from_pem(&service.0).map_err(failed)?;
    let now_s = i64::try_from(call.environment.now_ms() / 1_000).unwrap_or(i64::MAX);
    let validity = Validity::days(now_s, node.config().node_certificate.initial_validity_days);
    let key = node.service_keys().service_key();
    let endorsed = csr.endorse(&service, &key, validity, call.environment.entropy());
    Ok(Pem(endorsed.map_err(failed)?.to_pem()))
}

fn answer(
    node: &Node,
    call: &mut Call<'_>,
    id: Digest,
    info: &NodeInfo,
    service_status: ServiceStatus,
    seat_refusal: Option<String>,
) -> Result<Response, ErrorResponse> {
    let mut response = JoinResponse {
        node_status: info.status,
        node_id: id.to_string(),
        seat_refusal,
        network_info: None,
    };
    let endorsed = NODE_ENDORSED_CERTS.get(call.tx, &id).map_err(unreadable)?;
    if info.status == NodeStatus::Trusted
        && let Some(endorsed_certificate) = endorsed
    {
        let failed = |reason: String| ErrorResponse::internal(format!("{reason}."));
        let key = RsaPublicKey::from_pem(&info.encryption_pub_key.0);
        let key = key.map_err(|error| failed(error.to_string()))?;
        let keys = node.service_keys();
        let (secrets, entropy) = (keys.to_share(), call.environment.entropy());
        let sealed_secrets = seal_secrets(&key, &keys.service_key(), &secrets, entropy);
        let sealed_secrets = sealed_secrets.map_err(|error| failed(error.to_string()))?;
        response.network_info = Some(NetworkInfo {
            public_only: false,
            service_status,
            endorsed_certificate,
            sealed_secrets,
        });
    }
    call.reply(&response)
}

/// What members trust of the software TEE.
struct Tables {
    measurements: Vec<String>,
    host_data: Vec<String>,
}

impl Tables {
    fn read(tx: &mut Tx) -> Result<Self, ErrorResponse> {
        let measurements = VIRTUAL_MEASUREMENTS.rows(tx).map_err(unreadable)?;
        let host_data = VIRTUAL_HOST_DATA.rows(tx).map_err(unreadable)?;
        Ok(Self {
            measurements: measurements.into_iter().map(|(measurement, _)| measurement).collect(),
            host_data: host_data.into_iter().map(|(host_data, _)| host_data).collect(),
        })
    }
}

impl Manifests for Tables {
    fn trusts_measurement(&self, format: EvidenceFormat, measurement: &str) -> bool {
        format == EvidenceFormat::InsecureVirtual
            && self.measurements.iter().any(|trusted| trusted == measurement)
    }

    fn trusts_host_data(&self, format: EvidenceFormat, host_data: &Digest) -> bool {
        let host_data = host_data.to_string();
        format == EvidenceFormat::InsecureVirtual && self.host_data.contains(&host_data)
    }
}
