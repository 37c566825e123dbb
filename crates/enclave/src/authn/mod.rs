//! Who calls: CCF's authentication policies over the governance tables.
//!
//! An endpoint lists policies; they are tried in order and the first that passes says who the
//! caller is. Tables are read through the request's own transaction, so that a revocation that
//! commits first wins. Only work on immutable bytes is remembered between requests: that a
//! signature verifies under a key, or what a certificate's owner is called.

mod certificate;
mod cose;
mod jwt;
mod remembered;

use std::sync::Arc;

use coco_adapter::Response;
use coco_adapter::{AuthnPolicy, Caller, ErrorCode, ErrorDetail, ErrorResponse, Request};
use coco_kv::Tx;
use http::{HeaderValue, StatusCode, header};

use self::cose::SignedBody;
use self::jwt::Token;
pub use self::remembered::Remembered;
use self::remembered::TwoGenerations;
use crate::session::PeerCertificate;

/// How many verified tokens are remembered.
const REMEMBERED_TOKENS: usize = 4096;

/// Authenticates requests.
pub struct Authenticator {
    tokens: TwoGenerations<coco_crypto::Digest, Arc<jwt::VerifiedToken>>,
}

/// What a request shows of its caller; lives as long as the request, over all its executions.
pub struct Credentials<'a> {
    request: &'a Request,
    peer: Option<&'a PeerCertificate>,
    now_s: u64,
    body: Option<Result<SignedBody, Refusal>>,
    token: Option<Result<Token, Refusal>>,
}

impl<'a> Credentials<'a> {
    /// The credentials of a request that came over a session with this client certificate.
    pub fn new(request: &'a Request, peer: Option<&'a PeerCertificate>, now_ms: u64) -> Self {
        Self { request, peer, now_s: now_ms / 1000, body: None, token: None }
    }
}

/// Why a policy does not pass, for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal(String);

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A governed table that cannot be read is not the caller's fault, but nobody passes because of it.
impl From<coco_governance::tables::TableError> for Refusal {
    fn from(error: coco_governance::tables::TableError) -> Self {
        tracing::error!(%error, "authentication cannot read a governed table");
        Self::new("The service's record of the caller cannot be read.")
    }
}

impl Default for Authenticator {
    fn default() -> Self {
        Self { tokens: TwoGenerations::new(REMEMBERED_TOKENS) }
    }
}

impl Authenticator {
    /// The caller, or a 401 that says what each policy missed.
    pub fn authenticate(
        &self,
        policies: &[AuthnPolicy],
        credentials: &mut Credentials<'_>,
        remembered: &mut Remembered,
        tx: &mut Tx,
    ) -> Result<Arc<Caller>, Box<Response>> {
        if policies.is_empty() {
            return Ok(Arc::new(Caller::Unauthenticated));
        }
        let mut details = Vec::new();
        for policy in policies {
            match self.pass(policy, credentials, remembered, tx) {
                Ok(caller) => return Ok(caller),
                Err(Refusal(message)) => details.push(ErrorDetail {
                    auth_policy: Some(policy.name().to_owned()),
                    code: ErrorCode::InvalidAuthenticationInfo,
                    message,
                    trace: None,
                }),
            }
        }
        Err(Box::new(refuse(policies, details)))
    }

    fn pass(
        &self,
        policy: &AuthnPolicy,
        credentials: &mut Credentials<'_>,
        remembered: &mut Remembered,
        tx: &mut Tx,
    ) -> Result<Arc<Caller>, Refusal> {
        match policy {
            AuthnPolicy::UserCert => certificate::user(credentials, remembered, tx),
            AuthnPolicy::MemberCert => certificate::member(credentials, remembered, tx),
            AuthnPolicy::AnyCert => certificate::any(credentials).map(Arc::new),
            AuthnPolicy::NodeCert => certificate::node(credentials, tx).map(Arc::new),
            AuthnPolicy::Jwt => self.token(credentials, tx).map(Arc::new),
            AuthnPolicy::UserCoseSign1 => cose::user(credentials, tx).map(Arc::new),
            AuthnPolicy::MemberCoseSign1 => cose::member(credentials, tx, false).map(Arc::new),
            AuthnPolicy::ActiveMemberCoseSign1 => cose::member(credentials, tx, true).map(Arc::new),
            AuthnPolicy::NoAuth => Ok(Arc::new(Caller::NoAuth)),
            AuthnPolicy::AllOf(policies) => {
                let mut callers = Vec::with_capacity(policies.len());
                for policy in policies {
                    let caller = self.pass(policy, credentials, remembered, tx)?;
                    callers.push((policy.name(), Arc::unwrap_or_clone(caller)));
                }
                Ok(Arc::new(Caller::AllOf(callers)))
            }
        }
    }
}

fn refuse(policies: &[AuthnPolicy], details: Vec<ErrorDetail>) -> Response {
    let message = "Invalid authentication credentials.";
    let code = ErrorCode::InvalidAuthenticationInfo;
    let mut error = ErrorResponse::new(StatusCode::UNAUTHORIZED, code, message);
    error.details = details;
    let mut response = error.to_response();
    if policies.iter().any(wants_token) {
        let challenge = r#"Bearer realm="JWT bearer token access", error="invalid_token""#;
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

fn wants_token(policy: &AuthnPolicy) -> bool {
    match policy {
        AuthnPolicy::Jwt => true,
        AuthnPolicy::AllOf(policies) => policies.iter().any(wants_token),
        _ => false,
    }
}
