//! Members and participants.

use coco_adapter::{Call, ErrorResponse, Response};
use coco_crypto::Digest;
use coco_kv::Tx;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::request::{ApiVersion, id_param, not_found};
use super::{Endpoints, Governance};
use crate::tables::{
    MEMBER_CERTS, MEMBER_ENCRYPTION_KEYS, MEMBERS, MemberInfo, MemberStatus, Pem, RecoveryRole,
    TableError, USER_CERTS, USERS, UserInfo,
};

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let any = ApiVersion::Preview;
    endpoints.get("/service/members", any, "All members", members);
    endpoints.get("/service/members/{memberId}", any, "One member", member);
    endpoints.get("/service/users", any, "All participants", users);
    endpoints.get("/service/users/{userId}", any, "One participant", user);
}

fn members(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let mut value = Vec::new();
    for (id, info) in MEMBERS.rows(call.tx)? {
        value.push(describe_member(call.tx, &id, info)?);
    }
    call.reply(&json!({"value": value}))
}

fn member(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = id_param(call, "memberId")?;
    let info = MEMBERS.get(call.tx, &id)?;
    let info = info.ok_or_else(|| not_found(format!("Member {id} does not exist.")))?;
    let description = describe_member(call.tx, &id, info)?;
    call.reply(&description)
}

fn users(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let mut value = Vec::new();
    for (id, cert) in USER_CERTS.rows(call.tx)? {
        value.push(describe_user(call.tx, &id, cert)?);
    }
    call.reply(&json!({"value": value}))
}

fn user(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = id_param(call, "userId")?;
    let cert = USER_CERTS.get(call.tx, &id)?;
    let cert = cert.ok_or_else(|| not_found(format!("User {id} does not exist.")))?;
    let description = describe_user(call.tx, &id, cert)?;
    call.reply(&description)
}

/// A member as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberDescription {
    member_id: String,
    status: MemberStatus,
    member_data: Json,
    certificate: Option<Pem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_encryption_key: Option<Pem>,
    recovery_role: RecoveryRole,
}

fn describe_member(
    tx: &mut Tx,
    id: &Digest,
    info: MemberInfo,
) -> Result<MemberDescription, TableError> {
    let public_encryption_key = MEMBER_ENCRYPTION_KEYS.get(tx, id)?;
    let default_role = match public_encryption_key {
        Some(_) => RecoveryRole::Participant,
        None => RecoveryRole::NonParticipant,
    };
    Ok(MemberDescription {
        member_id: id.to_string(),
        status: info.status,
        member_data: info.member_data,
        certificate: MEMBER_CERTS.get(tx, id)?,
        public_encryption_key,
        recovery_role: info.recovery_role.unwrap_or(default_role),
    })
}

/// A participant as the API shows it: CCF shows the data with the record around it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserDescription {
    user_id: String,
    certificate: Pem,
    user_data: Option<UserInfo>,
}

fn describe_user(
    tx: &mut Tx,
    id: &Digest,
    certificate: Pem,
) -> Result<UserDescription, TableError> {
    Ok(UserDescription { user_id: id.to_string(), certificate, user_data: USERS.get(tx, id)? })
}
