//! Requests that another node must execute: forwarded to it, or the client sent there.
//!
//! An interface with `redirections` sends clients there and forwards nothing, as in CCF; any other
//! forwards. What the primary executes for another node is dispatched as every request, but never
//! passed on again.

use std::sync::Arc;

use bytes::Bytes;
use coco_adapter::{
    EndpointProperties, ErrorCode, ErrorResponse, ForwardError, ForwardingRequired, Mode,
    RedirectionStrategy, Request, Response,
};
use http::{HeaderValue, StatusCode, header};

use super::{Dispatcher, Memory, Ran, Shared, try_again};
use crate::config::Redirection;
use crate::endpoints::redirect_to;
use crate::forward::message::{ForwardedRequest, ForwardedResponse, Refusal};
use crate::host::BoxFuture;
use crate::interface::{Endorsement, Interface, OperatorFeature};
use crate::pipeline::CommitError;
use crate::session::{Dispatch as _, PeerCertificate, Reply, Session};

/// The name of the interface over which requests of other nodes come.
const FORWARDED: &str = "forwarded";

impl Shared {
    /// What becomes of a request that is not to be executed here; `None` if it is. `lags` says that
    /// the state here lacks what the session has seen.
    pub(super) fn sent_elsewhere(
        &self,
        session: &Session,
        request: &Request,
        properties: &EndpointProperties,
        lags: bool,
    ) -> Option<Ran> {
        let leads = self.node.pipeline().leads();
        if let Some(redirections) = &session.interface.redirections {
            let target = match properties.redirection_strategy {
                RedirectionStrategy::ToPrimary if !leads => &redirections.to_primary,
                RedirectionStrategy::ToBackup if leads => &redirections.to_backup,
                _ => return None,
            };
            return Some(Ran::Refused(self.redirected(session, request, target)));
        }
        let forwards = match properties.forwarding_required {
            _ if leads => false,
            _ if session.is_forwarded => true,
            ForwardingRequired::Always => true,
            ForwardingRequired::Sometimes => {
                lags || properties.mode == Mode::ReadWrite || session.memory.lock().was_forwarded
            }
            ForwardingRequired::Never => false,
        };
        forwards.then(|| self.forwarded_once(session))
    }

    /// What becomes of a request that has been executed, in vain, for only the primary may write.
    pub(super) fn not_written(
        &self,
        session: &Session,
        request: &Request,
        properties: &EndpointProperties,
    ) -> Ran {
        if let Some(redirections) = &session.interface.redirections {
            return Ran::Refused(self.redirected(session, request, &redirections.to_primary));
        }
        match properties.forwarding_required {
            ForwardingRequired::Never if !session.is_forwarded => {
                super::not_committed(CommitError::NotPrimary).into()
            }
            _ => self.forwarded_once(session),
        }
    }

    fn forwarded_once(&self, session: &Session) -> Ran {
        if !session.is_forwarded {
            return Ran::Forward;
        }
        let message = "The request was already forwarded, to a node that is not the primary.";
        unavailable(ErrorCode::RequestAlreadyForwarded, message).into()
    }

    fn redirected(&self, session: &Session, request: &Request, target: &Redirection) -> Response {
        let mut tx = self.node.pipeline().store().begin();
        redirect_to(&self.node, &mut tx, target, &session.interface.name, request)
            .unwrap_or_else(|error| error.to_response())
    }

    /// Has the primary execute a request.
    pub(super) fn forward(&self, session: &Arc<Session>, request: Request) -> Reply {
        let Some(forwarder) = self.node.forwarder().cloned() else {
            return Reply::Now(not_forwarded(&ForwardError::NoPrimary));
        };
        let seen = {
            let mut memory = session.memory.lock();
            memory.was_forwarded = true;
            memory.last
        };
        let certificate = session.peer.as_ref().map(|peer| Bytes::copy_from_slice(peer.der()));
        let certificate = certificate.unwrap_or_default();
        let (session, patience) = (Arc::clone(session), session.interface.timeouts.forwarding);
        Reply::Later(Box::pin(async move {
            let request = ForwardedRequest { seen, certificate, request };
            match forwarder.request(request, patience).await {
                Ok(ForwardedResponse { seen, closes_session, response }) => {
                    if let Some(seen) = seen {
                        session.memory.lock().note(seen);
                    }
                    if closes_session {
                        session.close();
                    }
                    response
                }
                Err(error) => not_forwarded(&error),
            }
        }))
    }
}

impl Dispatcher {
    /// Executes a request that has come to another node.
    pub(crate) fn dispatch_forwarded(
        &self,
        forwarded: ForwardedRequest,
    ) -> Result<BoxFuture<'static, ForwardedResponse>, Refusal> {
        let ForwardedRequest { seen, certificate, request } = forwarded;
        let peer = match &*certificate {
            [] => None,
            der => Some(PeerCertificate::from_der(der).ok_or_else(|| {
                Refusal::NotServed("the client's certificate cannot be read".to_owned())
            })?),
        };
        // What the client's own interface lets in was decided there.
        let mut interface = Interface::new(FORWARDED, Endorsement::Node);
        interface.operator_features = vec![OperatorFeature::SnapshotCreate];
        let memory = Memory { last: seen, ..Memory::default() };
        let session = Arc::new(Session::forwarded(Arc::new(interface), peer, memory));
        let reply = self.dispatch(&session, request);
        Ok(Box::pin(async move {
            let response = reply.given().await;
            let seen = session.memory.lock().last;
            ForwardedResponse { seen, closes_session: session.is_closing(), response }
        }))
    }
}

fn unavailable(code: ErrorCode, message: impl Into<String>) -> ErrorResponse {
    ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
}

fn not_forwarded(error: &ForwardError) -> Response {
    let message = format!("{error}.");
    let refusal = match error {
        ForwardError::NoPrimary => unavailable(ErrorCode::PrimaryNotFound, message),
        ForwardError::TooMany => unavailable(ErrorCode::TooManyPendingTransactions, message),
        ForwardError::Refused(_) => unavailable(ErrorCode::NodeCannotHandleRequest, message),
        ForwardError::TooLarge { .. } => {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            ErrorResponse::new(status, ErrorCode::RequestBodyTooLarge, message)
        }
        ForwardError::Unknown => return no_answer(),
    };
    match refusal.status {
        StatusCode::SERVICE_UNAVAILABLE => try_again(&refusal),
        _ => refusal.to_response(),
    }
}

/// 504 without an error code, as in CCF: whether anything was executed is not known.
fn no_answer() -> Response {
    let text = "The primary has not answered in time. The request may have been executed.";
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
