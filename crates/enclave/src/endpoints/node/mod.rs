//! CCF's `/node` frontend: what a node says of itself and of its service.
//!
//! Unauthenticated, and answered by the node that is asked; but for [`join`], which the primary
//! answers to whoever shows evidence.

mod attestation;
mod files;
mod join;
mod metrics;
mod network;
mod observe;
mod service;

use std::sync::Arc;

use coco_adapter::{
    Call, EndpointProperties, ErrorCode, ErrorResponse, ForwardingRequired, Mode,
    RedirectionStrategy, Registry, Request, Response, RouteSyntax,
};
use coco_consensus::NodeId;
use coco_crypto::Digest;
use coco_governance::tables::{NODES, NodeStatus, TableError};
use coco_kv::Tx;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value as Json, json};

use crate::config::{Redirection, Role};
use crate::node::Node;
use crate::openapi;
use crate::session::InterfaceMetrics;

pub(crate) use files::{Files, is_closed};

/// The interfaces of a node with what their sessions count.
pub type Sessions = Arc<Vec<(Arc<crate::interface::Interface>, Arc<InterfaceMetrics>)>>;

/// The `/node` endpoints of a node.
pub fn frontend(node: &Node, sessions: &Sessions) -> Result<Registry, RouteSyntax> {
    let description = "This node, and the service as it knows it.";
    let mut endpoints = Endpoints {
        registry: Registry::new("node", "Coco node", description),
        node: node.clone(),
        sessions: sessions.clone(),
    };
    observe::add(&mut endpoints)?;
    metrics::add(&mut endpoints)?;
    network::add(&mut endpoints)?;
    service::add(&mut endpoints)?;
    attestation::add(&mut endpoints)?;
    files::add(&mut endpoints)?;
    join::add(&mut endpoints)?;
    Ok(endpoints.registry)
}

/// The table under construction.
struct Endpoints {
    registry: Registry,
    node: Node,
    sessions: Sessions,
}

/// An endpoint's code.
type Answer = fn(&Node, &mut Call<'_>) -> Result<Response, ErrorResponse>;

impl Endpoints {
    /// Adds an endpoint that only reads.
    fn get(&mut self, path: &str, summary: &str, answer: Answer) -> Result<(), RouteSyntax> {
        let properties = properties(Mode::ReadOnly);
        let openapi = operation(summary);
        let node = self.node.clone();
        let handler = move |call: &mut Call<'_>| answer(&node, call);
        self.registry.add(Method::GET, path, properties, openapi, handler)
    }

    /// Adds an endpoint with another verb than GET.
    fn add(
        &mut self,
        method: Method,
        path: &str,
        mode: Mode,
        summary: &str,
        answer: Answer,
    ) -> Result<(), RouteSyntax> {
        let node = self.node.clone();
        let handler = move |call: &mut Call<'_>| answer(&node, call);
        self.registry.add(method, path, properties(mode), operation(summary), handler)
    }
}

fn properties(mode: Mode) -> EndpointProperties {
    let forwarding_required = match mode {
        Mode::ReadWrite => ForwardingRequired::Always,
        Mode::ReadOnly | Mode::Historical => ForwardingRequired::Never,
    };
    let redirection_strategy = RedirectionStrategy::None;
    EndpointProperties { mode, forwarding_required, redirection_strategy, ..Default::default() }
}

fn operation(summary: &str) -> Json {
    json!({ "summary": summary, "responses": openapi::json_responses(&json!({})) })
}

/// 307 to where an interface of this name sends clients.
pub(crate) fn redirect_to(
    node: &Node,
    tx: &mut Tx,
    target: &Redirection,
    interface: &str,
    request: &Request,
) -> Result<Response, ErrorResponse> {
    let (role, interface) = match target {
        Redirection::StaticAddress { address } => {
            let location = format!("https://{address}{}", path_of(request));
            let location = HeaderValue::try_from(location)
                .map_err(|_| ErrorResponse::internal("The configured address is none."))?;
            return Ok(redirect(StatusCode::TEMPORARY_REDIRECT, location));
        }
        Redirection::NodeByRole { role, interface: None } => (role, interface),
        Redirection::NodeByRole { role, interface: Some(named) } => (role, named.as_str()),
    };
    let unknown = |code, message: &str| {
        Err(ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, code, message))
    };
    let found = match role {
        Role::Primary => node.primary(),
        Role::Backup => backup(node, tx)?,
    };
    let location = location(tx, found, Some(interface), request)?;
    match (location, role) {
        (Some(location), _) => Ok(redirect(StatusCode::TEMPORARY_REDIRECT, location)),
        (None, Role::Primary) => unknown(ErrorCode::PrimaryNotFound, "Primary unknown."),
        (None, Role::Backup) => unknown(ErrorCode::BackupNotFound, "No backup is known."),
    }
}

/// A node that takes part and is not the primary.
fn backup(node: &Node, tx: &mut Tx) -> Result<Option<Digest>, ErrorResponse> {
    let primary = node.primary();
    for NodeId(id) in node.pipeline().membership().voters {
        let info = NODES.get(tx, &id).map_err(unreadable)?;
        if Some(id) != primary && info.is_some_and(|info| info.status == NodeStatus::Trusted) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn redirect(status: StatusCode, location: HeaderValue) -> Response {
    let mut response = self::status(status);
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Where the primary serves what is asked for here. `None` if no primary is known.
fn primary_location(
    node: &Node,
    tx: &mut Tx,
    request: &Request,
) -> Result<Option<HeaderValue>, ErrorResponse> {
    location(tx, node.primary(), None, request)
}

/// Where a node serves what is asked for here: on its interface of this name, or on its first for
/// CCF's endpoints.
fn location(
    tx: &mut Tx,
    node: Option<Digest>,
    interface: Option<&str>,
    request: &Request,
) -> Result<Option<HeaderValue>, ErrorResponse> {
    let Some(node) = node else { return Ok(None) };
    let Some(info) = NODES.get(tx, &node).map_err(unreadable)? else { return Ok(None) };
    let named = interface.and_then(|name| info.rpc_interfaces.get(name));
    let first = || info.rpc_interfaces.values().find(|interface| interface.is_ccf());
    let Some(interface) = named.or_else(first) else { return Ok(None) };
    let address = interface.address();
    let endorsement = interface.endorsement.as_ref().map(|it| it.authority.as_str());
    let scheme = if endorsement == Some("Unsecured") { "http" } else { "https" };
    Ok(HeaderValue::try_from(format!("{scheme}://{address}{}", path_of(request))).ok())
}

fn path_of(request: &Request) -> &str {
    request.uri().path_and_query().map_or("/", |path| path.as_str())
}

/// A reply without a body.
fn status(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

fn not_found(message: impl Into<String>) -> ErrorResponse {
    ErrorResponse::not_found(ErrorCode::ResourceNotFound, message)
}

fn unreadable(error: TableError) -> ErrorResponse {
    tracing::error!(%error, "a governed table cannot be read");
    ErrorResponse::internal(format!("{error}."))
}
