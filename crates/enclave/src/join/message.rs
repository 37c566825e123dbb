//! What a node that joins and the service say to each other, in CCF's JSON.
//!
//! Where CCF's answer carries the service's key and its ledger secrets in clear, inside TLS, ours
//! has them encrypted to the key of the node that was accepted (`sealed_secrets`).

use coco_attestation::Evidence;
use coco_crypto::key_wrap::{unwrap_rsa_aes_kwp, wrap_rsa_aes_kwp};
use coco_crypto::{Entropy, KeyError, KeyPair, KeyWrapError, RsaKeyPair, RsaPublicKey};
use coco_governance::tables::{Base64, NodeStatus, NodeToNode, Pem, RpcInterface, ServiceStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::sealed::{ServiceSecrets, secret_json};

/// Bits of the key that carries the secrets.
const TRANSPORT_KEY_BITS: usize = 256;
/// What the ciphertext is for.
const LABEL: &[u8] = b"coco join, version 1";

/// `POST /node/join`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub node_info_network: NodeInterfaces,
    pub quote_info: Evidence,
    pub public_encryption_key: Pem,
    /// Where the joining node would go on; ours begin with nothing and are given everything.
    #[serde(default)]
    pub startup_seqno: u64,
    pub certificate_signing_request: Pem,
    #[serde(default)]
    pub node_data: Json,
    /// What the node's protocols demand of the service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub protocols: BTreeMap<String, Json>,
    /// The operator's statement, if the node is to take the seat at its address: COSE_Sign1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat_statement: Option<Base64>,
}

/// Where the joining node is reached.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeInterfaces {
    pub node_to_node_interface: NodeToNode,
    pub rpc_interfaces: BTreeMap<String, RpcInterface>,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JoinResponse {
    pub node_status: NodeStatus,
    pub node_id: String,
    /// Why it does not take its seat, if it asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat_refusal: Option<String>,
    /// Once it is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_info: Option<NetworkInfo>,
}

/// What a node needs to take part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NetworkInfo {
    pub public_only: bool,
    pub service_status: ServiceStatus,
    pub endorsed_certificate: Pem,
    /// Encrypted to the node's encryption key.
    pub sealed_secrets: Base64,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Plain {
    service_key: String,
    secrets: String,
}

/// The secrets do not come out as they must.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    #[error(transparent)]
    Wrap(#[from] KeyWrapError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the secrets are not what this version gives: {0}")]
    Content(String),
}

/// Encrypts what a node must hold to take part.
pub(crate) fn seal_secrets(
    to: &RsaPublicKey,
    service_key: &KeyPair,
    secrets: &ServiceSecrets,
    entropy: &dyn Entropy,
) -> Result<Base64, SecretsError> {
    let content = |error: String| SecretsError::Content(error);
    let secrets = secrets.to_bytes().map_err(|error| content(error.to_string()))?;
    let text = std::str::from_utf8(&secrets).map_err(|error| content(error.to_string()))?;
    let plain = Plain { service_key: service_key.to_pem().to_string(), secrets: text.to_owned() };
    let plain = secret_json(&plain).map_err(|error| content(error.to_string()))?;
    let sealed = wrap_rsa_aes_kwp(to, TRANSPORT_KEY_BITS, LABEL, &plain, entropy)?;
    Ok(Base64(sealed))
}

/// Decrypts them.
pub(crate) fn open_secrets(
    key: &RsaKeyPair,
    sealed: &Base64,
) -> Result<(KeyPair, ServiceSecrets), SecretsError> {
    let plain = unwrap_rsa_aes_kwp(key, LABEL, &sealed.0)?;
    let plain: Plain =
        serde_json::from_slice(&plain).map_err(|error| SecretsError::Content(error.to_string()))?;
    let secrets =
        ServiceSecrets::from_bytes(plain.secrets.as_bytes()).map_err(SecretsError::Content)?;
    Ok((KeyPair::from_pem(&plain.service_key)?, secrets))
}
