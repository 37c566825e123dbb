//! Recovery shares.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coco_adapter::{Call, ErrorCode, ErrorResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::request::{ApiVersion, id_param, not_found, signed};
use super::{Endpoints, Governance};
use crate::tables::{RECOVERY_SHARES, SERVICE_INFO, ServiceStatus};

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let shares = "/recovery/encrypted-shares/{memberId}";
    endpoints.get(shares, ApiVersion::Preview, "A member's encrypted share", encrypted_share);
    endpoints.post("/recovery/members/{memberId}:recover", "Submit a share", recover);
}

fn encrypted_share(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let member = id_param(call, "memberId")?;
    let shares = RECOVERY_SHARES.get(call.tx)?.map(|shares| shares.encrypted_shares);
    let share = shares.and_then(|mut shares| shares.remove(&member.to_string()));
    let share =
        share.ok_or_else(|| not_found(format!("Recovery share not found for member {member}.")))?;
    let encrypted_share = STANDARD.encode(&share.0);
    call.reply(&json!({"memberId": member.to_string(), "encryptedShare": encrypted_share}))
}

fn recover(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let signed = signed(call, "recovery_share")?;
    signed.require_member(&id_param(call, "memberId")?)?;
    let status = SERVICE_INFO.expect(call.tx)?.status;
    if status != ServiceStatus::WaitingForRecoveryShares {
        let message =
            format!("Service is not waiting for recovery shares, it is {}.", status.as_str());
        let code = ErrorCode::ServiceNotWaitingForRecoveryShares;
        return Err(ErrorResponse::forbidden(code, message));
    }
    // The service that issued the shares got this far under another implementation.
    Err(ErrorResponse::new(
        StatusCode::NOT_IMPLEMENTED,
        ErrorCode::NotImplemented,
        "This version of the node does not recover services from members' shares.",
    ))
}
