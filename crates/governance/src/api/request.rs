//! What every governance request has: a version, ids in its path, a member's signature.

use bytes::Bytes;
use coco_adapter::{Call, Caller, CoseEnvelope, ErrorCode, ErrorDetail, ErrorResponse, Response};
use coco_crypto::Digest;
use coco_kv::Tx;
use http::{HeaderValue, StatusCode, header};

use crate::tables::{MEMBERS, MemberStatus, SERVICE_INFO, ServiceStatus, TableError};

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ApiVersion {
    Preview,
    V2024,
}

impl ApiVersion {
    pub(super) const ALL: [Self; 2] = [Self::Preview, Self::V2024];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Preview => "2023-06-01-preview",
            Self::V2024 => "2024-07-01",
        }
    }
}

/// Refuses a request without a version, or with one that does not know the endpoint.
pub(super) fn require_version(call: &Call<'_>, since: ApiVersion) -> Result<(), ErrorResponse> {
    let Some(asked) = call.query("api-version") else {
        return Err(ErrorResponse::bad_request(
            ErrorCode::MissingApiVersionParameter,
            "The api-version query parameter (?api-version=) is required for all requests.",
        ));
    };
    let known = ApiVersion::ALL.iter().find(|version| version.as_str() == asked);
    let unsupported =
        |message| Err(ErrorResponse::bad_request(ErrorCode::UnsupportedApiVersionValue, message));
    match known {
        Some(version) if *version >= since => Ok(()),
        Some(_) => unsupported(format!(
            "The api-version '{asked}' does not have this path; it is there since '{}'.",
            since.as_str(),
        )),
        None => unsupported(format!(
            "Unsupported api-version '{asked}'. The supported api-versions are: {}.",
            ApiVersion::ALL.map(ApiVersion::as_str).join(", "),
        )),
    }
}

/// An id in the path: 64 hex digits.
pub(super) fn id_param(call: &Call<'_>, name: &str) -> Result<Digest, ErrorResponse> {
    let text = call.param(name);
    text.parse().map_err(|_| {
        let message = format!("'{text}' is not a valid {name}: it must be 64 hex digits.");
        ErrorResponse::bad_request(ErrorCode::InvalidResourceName, message)
    })
}

/// A member's signed message.
pub(super) struct Signed<'a> {
    pub(super) member: Digest,
    pub(super) envelope: &'a CoseEnvelope,
    pub(super) created_at_s: u64,
}

/// The message of a member of any status.
pub(super) fn signed<'a>(call: &Call<'a>, message_type: &str) -> Result<Signed<'a>, ErrorResponse> {
    let Caller::MemberCose { id, envelope, .. } = call.caller else {
        return Err(unauthenticated("The request must be signed by a member (COSE Sign1)."));
    };
    match envelope.message_type.as_deref() {
        Some(given) if given == message_type => {}
        Some(given) => {
            let message = format!("Unexpected message type: {given}, expected: {message_type}.");
            return Err(unauthenticated(message));
        }
        None => return Err(unauthenticated("ccf.gov.msg.type must be in the protected header.")),
    }
    let created_at_s = envelope.created_at.ok_or_else(|| {
        unauthenticated("ccf.gov.msg.created_at must be in the protected header.")
    })?;
    Ok(Signed { member: *id, envelope, created_at_s })
}

/// The message of an active member.
pub(super) fn signed_by_active<'a>(
    call: &mut Call<'a>,
    message_type: &str,
) -> Result<Signed<'a>, ErrorResponse> {
    let signed = signed(call, message_type)?;
    match MEMBERS.get(call.tx, &signed.member)?.map(|info| info.status) {
        Some(MemberStatus::Active) => Ok(signed),
        _ => Err(unauthenticated("The signer is not an active member.")),
    }
}

impl Signed<'_> {
    /// Refuses a message about another proposal than the path names.
    pub(super) fn require_proposal(&self, proposal: &Digest) -> Result<(), ErrorResponse> {
        match &self.envelope.proposal_id {
            Some(id) if *id == proposal.to_string() => Ok(()),
            Some(id) => mismatch(format!(
                "Authenticated proposal id ({id}) does not match URL ({proposal}).",
            )),
            None => mismatch("ccf.gov.msg.proposal_id must be in the protected header."),
        }
    }

    /// Refuses a message of another member than the path names.
    pub(super) fn require_member(&self, member: &Digest) -> Result<(), ErrorResponse> {
        if self.member == *member {
            return Ok(());
        }
        let signer = self.member;
        mismatch(format!("Authenticated member id ({signer}) does not match URL ({member})."))
    }
}

fn mismatch(message: impl Into<String>) -> Result<(), ErrorResponse> {
    Err(ErrorResponse::bad_request(ErrorCode::InvalidAuthenticationInfo, message))
}

fn unauthenticated(message: impl Into<String>) -> ErrorResponse {
    let code = ErrorCode::InvalidAuthenticationInfo;
    let detail = ErrorDetail {
        auth_policy: Some("member_cose_sign1".to_owned()),
        code,
        message: message.into(),
        trace: None,
    };
    let mut error = ErrorResponse::new(StatusCode::UNAUTHORIZED, code, "Invalid info");
    error.details.push(detail);
    error
}

/// The root of the Merkle tree over everything that the transaction reads.
pub(super) fn root_at_read(call: &Call<'_>) -> Result<Digest, ErrorResponse> {
    let read = call.tx.read_tx_id();
    call.environment.root_at(read.seqno).ok_or_else(|| {
        ErrorResponse::internal(format!("The Merkle root at {read} is not known on this node."))
    })
}

/// A 200 with a text body.
pub(super) fn text_response(text: impl Into<Bytes>, content_type: &'static str) -> Response {
    let mut response = Response::new(text.into());
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// A 204.
pub(super) fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A 404 for something that is not in the governed state.
pub(super) fn not_found(message: impl Into<String>) -> ErrorResponse {
    ErrorResponse::not_found(ErrorCode::ResourceNotFound, message)
}

/// A table that cannot be read is nobody's fault who calls.
impl From<TableError> for ErrorResponse {
    fn from(error: TableError) -> Self {
        Self::internal(error.to_string())
    }
}

/// Whether the service serves participants.
pub(super) fn service_is_open(tx: &mut Tx) -> Result<bool, TableError> {
    Ok(SERVICE_INFO.get(tx)?.is_some_and(|service| service.status == ServiceStatus::Open))
}
