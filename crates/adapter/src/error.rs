//! Refusals in CCF's form: an HTTP status and an OData body.

use bytes::Bytes;
use http::{StatusCode, header};
use serde::Serialize;

use crate::Response;

macro_rules! error_codes {
    ($($code:ident),+ $(,)?) => {
        /// The error codes of CCF's API; the text on the wire is the name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        #[allow(missing_docs, reason = "each is named after its wire text")]
        pub enum ErrorCode { $($code),+ }

        impl ErrorCode {
            /// The text on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code)),+ }
            }
        }
    };
}

error_codes! {
    AuthorizationFailed, InternalError, NotImplemented, InvalidAuthenticationInfo,
    InvalidHeaderValue, InvalidInput, InvalidQueryParameterValue, InvalidResourceName,
    MissingRequiredHeader, MissingApiVersionParameter, UnsupportedApiVersionValue,
    ResourceNotFound, RequestNotSigned, UnsupportedHttpVerb, UnsupportedContentType,
    RequestBodyTooLarge, RequestHeaderTooLarge, PreconditionFailed, SessionCapExhausted,
    FrontendNotOpen, KeyNotFound, NodeAlreadyRecovering, ProposalNotOpen, ProposalNotFound,
    ProposalFailedToValidate, ProposalReplay, ProposalCreatedTooLongAgo, InvalidCreatedAt,
    ServiceNotWaitingForRecoveryShares, StateDigestMismatch, TransactionNotFound,
    TransactionCommitAttemptsExceedLimit, TransactionReplicationFailed, TransactionInvalid,
    TransactionPendingOrUnknown, TooManyPendingTransactions, UnknownCertificate, VoteNotFound,
    VoteAlreadyExists, NodeCannotHandleRequest, PrimaryNotFound, BackupNotFound,
    RequestAlreadyForwarded, NodeNotRetiredCommitted, SessionConsistencyLost,
    InvalidQuote, InvalidNodeState, NodeAlreadyExists, StartupSeqnoIsOld,
    CSRPublicKeyInvalid, JSException,
}

/// One entry of an error's `details`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorDetail {
    /// The authentication policy that refused, if that is what this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_policy: Option<String>,
    /// The detail's own code.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// A stack trace, when the runtime options allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A refusal: `{"error":{"code","message","details"?}}`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {}: {message}", code.as_str())]
pub struct ErrorResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// CCF's code.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// What each part said.
    pub details: Vec<ErrorDetail>,
}

impl ErrorResponse {
    /// A refusal without details.
    pub fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new() }
    }

    /// 400.
    pub fn bad_request(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404.
    pub fn not_found(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 403.
    pub fn forbidden(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 500 `InternalError`.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::InternalError, message)
    }

    /// The refusal as an HTTP response.
    pub fn to_response(&self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            code: ErrorCode,
            message: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            details: &'a [ErrorDetail],
        }
        let body = Body {
            error: Inner { code: self.code, message: &self.message, details: &self.details },
        };
        let text = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Bytes::from(text));
        *response.status_mut() = self.status;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_odata() {
        let error = ErrorResponse::not_found(ErrorCode::ResourceNotFound, "Unknown path: /x.");
        let expected = r#"{"error":{"code":"ResourceNotFound","message":"Unknown path: /x."}}"#;
        assert_eq!(error.to_response().body(), expected);
    }
}
