//! CCF's `/node` frontend: what a node says of itself and of its service.
//!
//! Unauthenticated, and answered by the node that is asked; but for [`join`], which the primary
//! answers to whoever shows evidence.

mod attestation;
mod files;
mod join;
mod network;
mod observe;
mod service;

use std::sync::Arc;

use coco_adapter::{
    Call, EndpointProperties, ErrorCode, ErrorResponse, ForwardingRequired, Mode,
    RedirectionStrategy, Registry, Request, Response, RouteSyntax,
};
use coco_governance::tables::{NODES, TableError};
use coco_kv::Tx;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value as Json, json};

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

/// Sends a client to the primary for what only that can do.
pub(crate) fn to_primary(
    node: &Node,
    tx: &mut Tx,
    interface: Option<&str>,
    request: &Request,
    status: StatusCode,
) -> Result<Response, ErrorResponse> {
    let location = primary_location(node, tx, interface, request)?.ok_or_else(|| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        ErrorResponse::new(status, ErrorCode::PrimaryNotFound, "Primary unknown.")
    })?;
    Ok(redirect(status, location))
}

fn redirect(status: StatusCode, location: HeaderValue) -> Response {
    let mut response = self::status(status);
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Where the primary serves what is asked for here: on its interface of this name, or on its first.
/// `None` if no primary is known.
fn primary_location(
    node: &Node,
    tx: &mut Tx,
    interface: Option<&str>,
    request: &Request,
) -> Result<Option<HeaderValue>, ErrorResponse> {
    let Some(primary) = node.primary() else { return Ok(None) };
    let Some(info) = NODES.get(tx, &primary).map_err(unreadable)? else { return Ok(None) };
    let named = interface.and_then(|name| info.rpc_interfaces.get(name));
    let Some(interface) = named.or_else(|| info.rpc_interfaces.values().next()) else {
        return Ok(None);
    };
    let address = interface.address();
    let endorsement = interface.endorsement.as_ref().map(|it| it.authority.as_str());
    let scheme = if endorsement == Some("Unsecured") { "http" } else { "https" };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    Ok(HeaderValue::try_from(format!("{scheme}://{address}{path}")).ok())
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
