//! Members and participants.

use coco_crypto::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::codec::json_values;
use super::{Base64, Pem, Table, tables};

tables! {
    /// Member id -> certificate.
    MEMBER_CERTS: Table<Digest, Pem> = "public:ccf.gov.members.certs";
    /// Member id -> RSA key under which the member receives a recovery share.
    MEMBER_ENCRYPTION_KEYS: Table<Digest, Pem> = "public:ccf.gov.members.encryption_public_keys";
    /// Member id -> status, data and recovery role.
    MEMBERS: Table<Digest, MemberInfo> = "public:ccf.gov.members.info";
    /// Member id -> the state digest that the member is to acknowledge, or has.
    MEMBER_ACKS: Table<Digest, MemberAck> = "public:ccf.gov.members.acks";
    /// Participant id -> certificate.
    USER_CERTS: Table<Digest, Pem> = "public:ccf.gov.users.certs";
    /// Participant id -> data. A participant without data has no row.
    USERS: Table<Digest, UserInfo> = "public:ccf.gov.users.info";
}

/// Whether a member takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberStatus {
    /// Known, has not acknowledged the service's state yet.
    Accepted,
    /// May propose and vote.
    Active,
}

/// What a member holds for recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryRole {
    /// Nothing.
    NonParticipant,
    /// A share.
    Participant,
    /// The whole key.
    Owner,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Status.
    pub status: MemberStatus,
    /// Whatever the constitution knows about the member.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub member_data: Json,
    /// Recovery role; absent means a share exactly if there is an encryption key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_role: Option<RecoveryRole>,
}

/// A member's acknowledgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberAck {
    /// 64 hex digits, or empty before the first update.
    pub state_digest: String,
    /// The signed acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cose_sign1_req: Option<Base64>,
    /// Its form before CCF 4.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_req: Option<Json>,
}

/// A participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserInfo {
    /// Whatever the constitution knows about the participant.
    #[serde(default)]
    pub user_data: Json,
}

json_values!(MemberInfo, MemberAck, UserInfo);
