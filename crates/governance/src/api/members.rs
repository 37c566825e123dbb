//! Members and participants.

use coco_adapter::{Call, ErrorResponse, Response};
use coco_crypto::Digest;
use coco_kv::Tx;
use serde_json::{Value as Json, json};

use super::request::{ApiVersion, id_param, not_found};
use super::{Endpoints, Governance};
use crate::tables::{
    MEMBER_CERTS, MEMBER_ENCRYPTION_KEYS, MEMBERS, MemberInfo, Pem, RecoveryRole, TableError,
    USER_CERTS, USERS,
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
        value.push(describe_member(call.tx, &id, &info)?);
    }
    call.reply(&json!({"value": value}))
}

fn member(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = id_param(call, "memberId")?;
    let info = MEMBERS.get(call.tx, &id)?;
    let info = info.ok_or_else(|| not_found(format!("Member {id} does not exist.")))?;
    let description = describe_member(call.tx, &id, &info)?;
    call.reply(&description)
}

fn users(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let mut value = Vec::new();
    for (id, cert) in USER_CERTS.rows(call.tx)? {
        value.push(describe_user(call.tx, &id, &cert)?);
    }
    call.reply(&json!({"value": value}))
}

fn user(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = id_param(call, "userId")?;
    let cert = USER_CERTS.get(call.tx, &id)?;
    let cert = cert.ok_or_else(|| not_found(format!("User {id} does not exist.")))?;
    let description = describe_user(call.tx, &id, &cert)?;
    call.reply(&description)
}

fn describe_member(tx: &mut Tx, id: &Digest, info: &MemberInfo) -> Result<Json, TableError> {
    let key = MEMBER_ENCRYPTION_KEYS.get(tx, id)?;
    let default_role =
        if key.is_some() { RecoveryRole::Participant } else { RecoveryRole::NonParticipant };
    let mut member = json!({
        "memberId": id.to_string(),
        "status": info.status,
        "memberData": info.member_data,
        "certificate": MEMBER_CERTS.get(tx, id)?,
        "recoveryRole": info.recovery_role.unwrap_or(default_role),
    });
    if let Some(key) = key {
        member["publicEncryptionKey"] = key.0.into();
    }
    Ok(member)
}

/// CCF shows a participant's data with the record around it.
fn describe_user(tx: &mut Tx, id: &Digest, cert: &Pem) -> Result<Json, TableError> {
    let data = USERS.get(tx, id)?;
    Ok(json!({"userId": id.to_string(), "certificate": cert, "userData": data}))
}
