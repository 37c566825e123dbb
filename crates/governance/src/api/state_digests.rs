//! State digests: a new member acknowledges the state of the service, and becomes active.

use coco_adapter::{Call, ErrorCode, ErrorResponse, Response};
use coco_crypto::Digest;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::request::{
    ApiVersion, id_param, no_content, not_found, root_at_read, service_is_open, signed,
};
use super::{Endpoints, Governance};
use crate::custody;
use crate::tables::{Base64, MEMBER_ACKS, MEMBERS, MemberAck, MemberStatus};

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let digest = "/members/state-digests/{memberId}";
    endpoints.get(digest, ApiVersion::Preview, "The state digest to acknowledge", read);
    endpoints.post(&format!("{digest}:update"), "Take a fresh state digest", update);
    endpoints.post(&format!("{digest}:ack"), "Acknowledge the state digest", acknowledge);
}

fn read(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let member = id_param(call, "memberId")?;
    let ack = MEMBER_ACKS
        .get(call.tx, &member)?
        .ok_or_else(|| not_found(format!("No ACK record exists for member {member}.")))?;
    call.reply(&description(&member, &ack))
}

fn update(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let signed = signed(call, "state_digest")?;
    let member = id_param(call, "memberId")?;
    signed.require_member(&member)?;
    let state_digest = root_at_read(call)?.to_string();
    let earlier = MEMBER_ACKS.get(call.tx, &member)?;
    let ack = match earlier {
        Some(earlier) => MemberAck { state_digest, ..earlier },
        None => MemberAck { state_digest, cose_sign1_req: None, signed_req: None },
    };
    MEMBER_ACKS.put(call.tx, &member, &ack);
    call.reply(&description(&member, &ack))
}

fn acknowledge(governance: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    #[derive(Deserialize)]
    struct Acknowledgement {
        #[serde(rename = "stateDigest")]
        state_digest: String,
    }
    let signed = signed(call, "ack")?;
    let member = id_param(call, "memberId")?;
    signed.require_member(&member)?;
    let Some(mut ack) = MEMBER_ACKS.get(call.tx, &member)? else {
        let message = format!("No ACK record exists for member {member}.");
        return Err(ErrorResponse::forbidden(ErrorCode::AuthorizationFailed, message));
    };
    let given: Acknowledgement =
        serde_json::from_slice(&signed.envelope.content).map_err(|error| {
            let message = format!("Signed request body must have \"stateDigest\": {error}.");
            ErrorResponse::bad_request(ErrorCode::InvalidInput, message)
        })?;
    // Before the first update there is nothing to acknowledge.
    if ack.state_digest.is_empty() || ack.state_digest != given.state_digest {
        let message = "Submitted state digest is not valid.";
        return Err(ErrorResponse::bad_request(ErrorCode::StateDigestMismatch, message));
    }
    ack.cose_sign1_req = Some(Base64(signed.envelope.message.to_vec()));
    ack.signed_req = None;
    MEMBER_ACKS.put(call.tx, &member, &ack);
    activate(governance, call, &member)?;
    Ok(no_content())
}

/// An accepted member becomes active; of an open service a recovery member receives a share.
fn activate(
    governance: &Governance,
    call: &mut Call<'_>,
    member: &Digest,
) -> Result<(), ErrorResponse> {
    let Some(mut info) = MEMBERS.get(call.tx, member)? else {
        let message = format!("{member} is not a member.");
        return Err(ErrorResponse::forbidden(ErrorCode::AuthorizationFailed, message));
    };
    if info.status == MemberStatus::Active {
        return Ok(());
    }
    info.status = MemberStatus::Active;
    MEMBERS.put(call.tx, member, &info);
    if service_is_open(call.tx)? && custody::is_recovery_member(call.tx, member, &info) {
        let (control, entropy) = (governance.control.as_ref(), call.environment.entropy());
        custody::issue_recovery_shares(call.tx, control, entropy).map_err(|error| {
            ErrorResponse::internal(format!("Error issuing new recovery shares: {error}."))
        })?;
    }
    Ok(())
}

fn description(member: &Digest, ack: &MemberAck) -> Json {
    json!({"memberId": member.to_string(), "stateDigest": ack.state_digest})
}
