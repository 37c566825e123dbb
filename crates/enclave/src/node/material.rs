//! What a node makes for itself before it has a service: keys, certificates, evidence.

use std::collections::BTreeMap;
use std::sync::Arc;

use coco_attestation::insecure::{InsecureSeed, SoftwareTee, SoftwareVerifier};
use coco_attestation::{Claims, Evidence, Tee, verify};
use coco_crypto::x509::{AlternativeName, DistinguishedName, NameError, Validity};
use coco_crypto::{Certificate, Curve, Digest, KeyPair, RsaKeyPair, SigningRequest};
use coco_governance::genesis::{NewNode, TrustedCode};
use coco_governance::tables::{
    Base64, Endorsement, NodeInfo, NodeStatus, NodeToNode, Pem, QuoteFormat, QuoteInfo,
    RpcInterface, SpokenProtocol,
};
use serde_json::Value as Json;

use super::{Identity, StartError};
use crate::config::{Config, CurveId, Files, Interface};
use crate::host::Host;
use crate::sealed;

/// Bits of the key under which a node receives ledger secrets.
const ENCRYPTION_KEY_BITS: u32 = 2_048;

/// The keys of a node, its certificates and what its TEE says of it.
pub(super) struct Material {
    pub tee: Arc<dyn Tee>,
    pub node_key: Arc<KeyPair>,
    pub encryption_key: RsaKeyPair,
    pub self_signed: Certificate,
    pub request: SigningRequest,
    pub evidence: Evidence,
    claims: Claims,
    validity: Validity,
}

impl Material {
    /// Makes everything anew: a node never starts twice with the same identity.
    pub async fn make(
        host: &dyn Host,
        config: &Config,
        files: &Files,
        now_s: i64,
    ) -> Result<Self, StartError> {
        // The slowest part by far, so that it goes in parallel with the rest.
        let encryption_key = tokio::spawn(async { RsaKeyPair::generate(ENCRYPTION_KEY_BITS) });
        let tee = software_tee(host, config, files.executable_digest).await?;
        let node_key = KeyPair::generate(curve(config), host.entropy())?;
        let evidence = tee.evidence(&node_key.public().id())?;
        let claims = verify(&evidence, &[&SoftwareVerifier])?;

        let subject: DistinguishedName = config.node_certificate.subject_name.parse()?;
        let names = alternative_names(config)?;
        let validity = Validity::days(now_s, config.node_certificate.initial_validity_days);
        let self_signed =
            Certificate::for_node(&node_key, &subject, &names, validity, host.entropy())?;
        let request = SigningRequest::create(&node_key, &subject, &names)?;
        let encryption_key = encryption_key.await.map_err(|_| StartError::Interrupted)??;
        Ok(Self {
            tee,
            node_key: Arc::new(node_key),
            encryption_key,
            self_signed,
            request,
            evidence,
            claims,
            validity,
        })
    }

    pub fn id(&self) -> Digest {
        self.node_key.public().id()
    }

    /// The node's certificates under a service, which endorses it now.
    pub fn endorsed(
        &self,
        service_certificate: Certificate,
        service_key: &KeyPair,
        host: &dyn Host,
    ) -> Result<Identity, StartError> {
        let node_certificate = self.request.endorse(
            &service_certificate,
            service_key,
            self.validity,
            host.entropy(),
        )?;
        Ok(Identity {
            service_certificate,
            node_certificate,
            self_signed: self.self_signed.clone(),
            node_key: Arc::clone(&self.node_key),
        })
    }

    /// What the ledger says of the node.
    pub fn record(&self, config: &Config, files: &Files, identity: &Identity) -> NewNode {
        let info = NodeInfo {
            status: NodeStatus::Trusted,
            node_to_node_interface: node_to_node(config),
            rpc_interfaces: rpc_interfaces(config),
            quote_info: QuoteInfo {
                format: QuoteFormat::InsecureVirtual,
                quote: Base64(self.evidence.quote.clone()),
                endorsements: Base64(self.evidence.endorsements.clone()),
                uvm_endorsements: None,
                endorsed_tcb: None,
            },
            encryption_pub_key: Pem(self.encryption_key.public().to_pem()),
            ledger_secret_seqno: None,
            code_digest: Some(hex::encode(&self.claims.measurement)),
            certificate_signing_request: Some(Pem(self.request.to_pem())),
            public_key: Some(Pem(self.node_key.public().to_pem())),
            node_data: files.node_data.clone().unwrap_or(Json::Null),
            retired_committed: false,
            cert: None,
            legacy: Default::default(),
        };
        NewNode {
            id: self.id(),
            info,
            endorsed_cert: Pem(identity.node_certificate.to_pem()),
            code: TrustedCode::Virtual {
                measurement: self.claims.measurement.clone(),
                host_data: self.claims.host_data.to_string(),
            },
        }
    }
}

/// The node's address for other nodes.
pub(super) fn node_to_node(config: &Config) -> Option<NodeToNode> {
    config.network.node_to_node_interface.as_ref().map(|interface| NodeToNode {
        bind_address: interface.bind_address.clone(),
        published_address: interface.published_address.clone(),
        ..NodeToNode::default()
    })
}

/// The node's interfaces, by name.
pub(super) fn rpc_interfaces(config: &Config) -> BTreeMap<String, RpcInterface> {
    let interfaces = config.network.rpc_interfaces.iter();
    interfaces.map(|(name, interface)| (name.clone(), record_of(interface))).collect()
}

pub(super) fn curve(config: &Config) -> Curve {
    match config.node_certificate.curve_id {
        CurveId::Secp256R1 => Curve::P256,
        CurveId::Secp384R1 => Curve::P384,
    }
}

/// The only TEE of this version. It keeps its seed only if something is to be sealed.
async fn software_tee(
    host: &dyn Host,
    config: &Config,
    executable: Digest,
) -> Result<Arc<dyn Tee>, StartError> {
    let seed: InsecureSeed = match config.output_files.sealed_service_location {
        Some(_) => sealed::software_seed(host).await?,
        None => sealed::fresh_seed(host.entropy()),
    };
    Ok(Arc::new(SoftwareTee::new(executable, &seed)))
}

/// The names under which the node is reached: as configured, or those of its interfaces.
pub(super) fn alternative_names(config: &Config) -> Result<Vec<AlternativeName>, NameError> {
    let configured = &config.node_certificate.subject_alt_names;
    if !configured.is_empty() {
        return configured.iter().map(|name| name.parse()).collect();
    }
    let mut names = Vec::new();
    for interface in config.network.rpc_interfaces.values() {
        let address = interface.address();
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = AlternativeName::of_host(host.trim_matches(['[', ']']))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn record_of(interface: &Interface) -> RpcInterface {
    let json = |value: Result<Json, serde_json::Error>| value.ok();
    RpcInterface {
        bind_address: interface.bind_address.clone(),
        published_address: Some(interface.address().to_owned()),
        protocol: interface.protocol.clone(),
        app_protocol: Some(format!("{:?}", interface.app_protocol)),
        max_open_sessions_soft: Some(interface.max_open_sessions_soft),
        max_open_sessions_hard: Some(interface.max_open_sessions_hard),
        endorsement: Some(Endorsement {
            authority: format!("{:?}", interface.endorsement.authority),
            other: Default::default(),
        }),
        http_configuration: json(serde_json::to_value(&interface.http_configuration)),
        forwarding_timeout_ms: Some(interface.forwarding_timeout_ms),
        accepted_endpoints: interface.accepted_endpoints.clone(),
        redirections: interface
            .redirections
            .as_ref()
            .and_then(|redirections| json(serde_json::to_value(redirections))),
        coco: interface
            .coco
            .as_ref()
            .map(|ours| SpokenProtocol { protocol: ours.protocol.clone() }),
        other: Default::default(),
    }
}
