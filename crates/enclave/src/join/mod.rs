//! How a node comes to an existing service: it shows its evidence to one of the service's nodes and
//! asks until it is trusted.
//!
//! ```text
//!   new node ── POST /node/join: evidence, keys, addresses ──▶ a node of the service
//!            ◀─ Pending: ask again ────────────────────────── members vote, or the service opens,
//!                                                             or the node's seat becomes free
//!            ◀─ Trusted: secrets, encrypted to the new key ── once that is committed
//!   the log then calls it, and brings it the ledger
//! ```

pub(crate) mod message;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use coco_crypto::{Certificate, CertificateError, KeyPair};
use coco_governance::tables::NodeStatus;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;

use crate::channels::ServiceClient;
use crate::config::Join;
use crate::host::Host;
use crate::session::TlsError;
use message::{JoinRequest, JoinResponse, NetworkInfo};

/// The largest answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Redirects in a row.
const MAX_REDIRECTS: usize = 5;

/// A node cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Where to join is not configured.
    #[error("command.join.target_rpc_address is empty")]
    NoTarget,
    /// A node of a network has an address for the others.
    #[error("a node that joins needs network.node_to_node_interface")]
    NoInterface,
    /// The service's certificate is not one.
    #[error("command.service_certificate_file: {0}")]
    ServiceCertificate(#[source] CertificateError),
    /// TLS cannot be used with the node's key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The service does not want this node.
    #[error("{target} refuses this node: {status} {code}: {message}")]
    Refused {
        /// Who.
        target: String,
        /// HTTP status.
        status: StatusCode,
        /// CCF's code.
        code: String,
        /// For people.
        message: String,
    },
    /// The service gives what it must not.
    #[error("the answer of {target}: {reason}")]
    Answer {
        /// Who.
        target: String,
        /// What is wrong.
        reason: String,
    },
}

/// One try.
enum Tried {
    Answered(JoinResponse),
    /// Ask there.
    Elsewhere(String),
}

/// Why a try led to nothing.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error(transparent)]
    Final(#[from] JoinError),
    #[error("{target}: {error}")]
    Io { target: String, error: io::Error },
    #[error("{target}: {error}")]
    Http { target: String, error: hyper::Error },
    #[error("{target} answered {status}")]
    Busy { target: String, status: StatusCode },
}

/// Asks until the node is trusted; returns what the service gives it.
pub(crate) async fn join(
    host: &Arc<dyn Host>,
    config: &Join,
    service: &Certificate,
    self_signed: &Certificate,
    key: &KeyPair,
    request: &JoinRequest,
) -> Result<NetworkInfo, JoinError> {
    if config.target_rpc_address.is_empty() {
        return Err(JoinError::NoTarget);
    }
    let service_key = service.public_key().map_err(JoinError::ServiceCertificate)?;
    let client = ServiceClient::new(host, &self_signed.to_pem(), &key.to_pem(), service_key)?;
    let body = Bytes::from(serde_json::to_vec(request).unwrap_or_default());
    let mut target = config.target_rpc_address.clone();
    let mut redirects = 0;
    let mut waits_for = None;
    loop {
        match ask(host, &client, &target, &body).await {
            Ok(Tried::Elsewhere(other)) if config.follow_redirect && redirects < MAX_REDIRECTS => {
                tracing::info!(%target, %other, "asking the primary to join");
                (target, redirects) = (other, redirects + 1);
                continue;
            }
            Ok(Tried::Elsewhere(other)) => {
                tracing::warn!(%target, %other, "redirected, and not following");
            }
            Ok(Tried::Answered(answer)) => match (answer.node_status, answer.network_info) {
                (NodeStatus::Trusted, Some(network)) => return Ok(network),
                (NodeStatus::Retired, _) => {
                    let reason = "this node was retired".to_owned();
                    return Err(JoinError::Answer { target, reason });
                }
                _ if waits_for.as_ref() != Some(&answer.seat_refusal) => {
                    let seat = answer.seat_refusal.as_deref();
                    tracing::info!(node = %answer.node_id, seat, "waiting to be trusted");
                    waits_for = Some(answer.seat_refusal);
                }
                _ => {}
            },
            Err(TryError::Final(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "not joined yet");
                target = config.target_rpc_address.clone();
            }
        }
        redirects = 0;
        host.sleep(config.retry_timeout.0).await;
    }
}

async fn ask(
    host: &Arc<dyn Host>,
    client: &ServiceClient,
    target: &str,
    body: &Bytes,
) -> Result<Tried, TryError> {
    let io = |error| TryError::Io { target: target.to_owned(), error };
    let http = |error| TryError::Http { target: target.to_owned(), error };
    let stream = host.connect(target).await.map_err(io)?;
    let stream = client.connect(stream).await.map_err(io)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let exchange = async {
        let request = Request::post("/node/join")
            .header(header::HOST, target)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))
            .map_err(|error| io(io::Error::other(error)))?;
        let reply = sender.send_request(request).await.map_err(http)?;
        let (head, body) = reply.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| io(io::Error::other(error)))?.to_bytes();
        Ok::<_, TryError>((head, body))
    };
    // The connection lives no longer than the exchange, which it drives.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    let (head, body) = tokio::select! {
        biased;
        answer = exchange => answer?,
        never = driven => never,
    };
    match head.status {
        StatusCode::OK => {
            let answer = serde_json::from_slice(&body).map_err(|error| JoinError::Answer {
                target: target.to_owned(),
                reason: error.to_string(),
            })?;
            Ok(Tried::Answered(answer))
        }
        status if status.is_redirection() => {
            let location = head.headers.get(header::LOCATION).and_then(|at| at.to_str().ok());
            let uri = location.and_then(|location| location.parse::<http::Uri>().ok());
            let authority = uri.and_then(|uri| Some(uri.authority()?.to_string()));
            let busy = TryError::Busy { target: target.to_owned(), status };
            authority.map(Tried::Elsewhere).ok_or(busy)
        }
        status if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => {
            let body: Json = serde_json::from_slice(&body).unwrap_or_default();
            let text = |field: &str| {
                let text = body.get("error").and_then(|error| error.get(field));
                text.and_then(Json::as_str).unwrap_or_default().to_owned()
            };
            let (code, message) = (text("code"), text("message"));
            Err(JoinError::Refused { target: target.to_owned(), status, code, message }.into())
        }
        status => Err(TryError::Busy { target: target.to_owned(), status }),
    }
}
