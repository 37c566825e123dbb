//! The transactions that governance cannot decide: those that start a service or a node of it.

use std::fmt;

use coco_crypto::x509::{Certificate, CertificateError};
use coco_crypto::{Digest, KeyError, RsaPublicKey};
use coco_kv::{Store, Tx, TxId, View};
use serde_json::Value as Json;

use crate::tables::{
    CONSTITUTION, CodeStatus, MEMBER_ACKS, MEMBER_CERTS, MEMBER_ENCRYPTION_KEYS, MEMBERS,
    MemberAck, MemberInfo, MemberStatus, NODE_ENDORSED_CERTS, NODES, NodeInfo, NodeStatus, Pem,
    Present, RecoveryRole, SERVICE_CONFIG, SERVICE_INFO, ServiceConfig, ServiceInfo, ServiceStatus,
    VIRTUAL_HOST_DATA, VIRTUAL_MEASUREMENTS,
};

/// A service as its operator configured it.
#[derive(Clone, Debug)]
pub struct NewService {
    /// The service's self-signed certificate.
    pub cert: Pem,
    /// Whatever the operator says about it.
    pub service_data: Json,
    /// Its configuration; a recovery threshold of 0 stands for "all recovery participants".
    pub config: ServiceConfig,
    /// The constitution's source.
    pub constitution: String,
    /// The founding members.
    pub members: Vec<NewMember>,
    /// The first node.
    pub node: NewNode,
}

/// A founding member.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// The member's certificate.
    pub cert: Pem,
    /// RSA key under which the member receives a recovery share.
    pub encryption_public_key: Option<Pem>,
    /// Whatever the operator says about the member.
    pub member_data: Json,
    /// What the member holds; by default a share if there is a key.
    pub recovery_role: Option<RecoveryRole>,
}

/// A node that needs nobody's consent: the first of a new or of a recovered service.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// SHA-256 of its public key.
    pub id: Digest,
    /// What the others know about it.
    pub info: NodeInfo,
    /// Its certificate, endorsed by the service.
    pub endorsed_cert: Pem,
    /// Its code, which more nodes may join with.
    pub code: TrustedCode,
}

/// Code as a TEE measured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedCode {
    /// The software TEE.
    Virtual {
        /// Measurement, text.
        measurement: String,
        /// Host data, hex.
        host_data: String,
    },
}

impl fmt::Display for TrustedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Virtual { measurement, host_data } = self;
        write!(f, "measurement {measurement:?}, host data {host_data}")
    }
}

/// Why a service cannot start like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Nobody would govern it.
    #[error("a service starts with at least one member")]
    NoMembers,
    /// A member's certificate is not one.
    #[error("the certificate of member {index}: {error}")]
    MemberCert {
        /// The member's place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// A member's encryption key is not one.
    #[error("the encryption key of member {index}: {error}")]
    EncryptionKey {
        /// The member's place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A member is to hold a share but has no key to receive it under.
    #[error("member {index} has the recovery role {role:?} but no encryption key")]
    RoleWithoutKey {
        /// The member's place in the list, from 0.
        index: usize,
        /// The role.
        role: RecoveryRole,
    },
    /// Two members have the same certificate.
    #[error("member {index} is listed before with the same certificate")]
    DuplicateMember {
        /// The second one's place in the list, from 0.
        index: usize,
    },
    /// The service could never be recovered.
    #[error(
        "a recovery threshold of {threshold} needs as many recovery participants, there are {members}"
    )]
    Threshold {
        /// The threshold.
        threshold: u64,
        /// How many recovery participants there are.
        members: u64,
    },
}

/// Writes the first transaction of a service. `create_tx_id` is the id it will have.
pub fn create_service(
    tx: &mut Tx,
    service: &NewService,
    create_tx_id: TxId,
) -> Result<(), GenesisError> {
    let threshold = add_founders(tx, &service.members, service.config.recovery_threshold)?;
    let config = ServiceConfig { recovery_threshold: threshold, ..service.config.clone() };
    SERVICE_CONFIG.put(tx, &config);
    let info = ServiceInfo {
        cert: service.cert.clone(),
        status: ServiceStatus::Opening,
        previous_service_identity_version: None,
        recovery_count: Some(0),
        service_data: service.service_data.clone(),
        current_service_create_txid: Some(create_tx_id.to_string()),
    };
    SERVICE_INFO.put(tx, &info);
    CONSTITUTION.put(tx, &service.constitution);
    trust_node(tx, &service.node);
    Ok(())
}

/// Whether a service can start with these members and this recovery threshold.
pub fn check_founders(members: &[NewMember], recovery_threshold: u64) -> Result<(), GenesisError> {
    let nowhere = Store::new(View(0));
    add_founders(&mut nowhere.begin(), members, recovery_threshold).map(drop)
}

/// Adds the founding members; the threshold that is configured or follows from them.
fn add_founders(
    tx: &mut Tx,
    members: &[NewMember],
    configured_threshold: u64,
) -> Result<u64, GenesisError> {
    if members.is_empty() {
        return Err(GenesisError::NoMembers);
    }
    let (mut participants, mut owners) = (0, 0_u64);
    for (index, member) in members.iter().enumerate() {
        match add_member(tx, index, member)? {
            RecoveryRole::Participant => participants += 1,
            RecoveryRole::Owner => owners += 1,
            RecoveryRole::NonParticipant => {}
        }
    }
    let threshold = match configured_threshold {
        0 if participants > 0 => participants,
        // An owner needs no share but its own.
        0 => owners.min(1),
        configured => configured,
    };
    // Owners hold no share: they do not count towards the threshold, and do not need it.
    match threshold > participants && (participants > 0 || owners == 0) {
        true => Err(GenesisError::Threshold { threshold, members: participants }),
        false => Ok(threshold),
    }
}

/// Adds a founding member; what it does in a recovery.
fn add_member(tx: &mut Tx, index: usize, member: &NewMember) -> Result<RecoveryRole, GenesisError> {
    let cert = Certificate::from_pem(&member.cert.0)
        .map_err(|error| GenesisError::MemberCert { index, error })?;
    let id = cert.fingerprint();
    if MEMBER_CERTS.has(tx, &id) {
        return Err(GenesisError::DuplicateMember { index });
    }
    MEMBER_CERTS.put(tx, &id, &member.cert);
    if let Some(key) = &member.encryption_public_key {
        RsaPublicKey::from_pem(&key.0)
            .map_err(|error| GenesisError::EncryptionKey { index, error })?;
        MEMBER_ENCRYPTION_KEYS.put(tx, &id, key);
    }
    let has_key = member.encryption_public_key.is_some();
    let role = match member.recovery_role {
        None if has_key => RecoveryRole::Participant,
        None | Some(RecoveryRole::NonParticipant) => RecoveryRole::NonParticipant,
        Some(role) if !has_key => return Err(GenesisError::RoleWithoutKey { index, role }),
        Some(role) => role,
    };
    let info = MemberInfo {
        status: MemberStatus::Accepted,
        member_data: member.member_data.clone(),
        recovery_role: member.recovery_role,
    };
    MEMBERS.put(tx, &id, &info);
    let ack = MemberAck { state_digest: String::new(), cose_sign1_req: None, signed_req: None };
    MEMBER_ACKS.put(tx, &id, &ack);
    Ok(role)
}

pub(crate) fn trust_node(tx: &mut Tx, node: &NewNode) {
    let info = NodeInfo { status: NodeStatus::Trusted, ..node.info.clone() };
    NODES.put(tx, &node.id, &info.with_legacy_addresses());
    NODE_ENDORSED_CERTS.put(tx, &node.id, &node.endorsed_cert);
    match &node.code {
        TrustedCode::Virtual { measurement, host_data } => {
            VIRTUAL_MEASUREMENTS.put(tx, measurement, &CodeStatus::AllowedToJoin);
            VIRTUAL_HOST_DATA.put(tx, host_data, &Present);
        }
    }
}
