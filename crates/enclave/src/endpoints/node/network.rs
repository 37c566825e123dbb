//! The nodes of the network, as the governance tables list them.

use coco_adapter::{Call, ErrorCode, ErrorResponse, Mode, Response, RouteSyntax};
use coco_crypto::Digest;
use coco_governance::tables::{NODES, NodeInfo, NodeStatus, RpcInterface, TableKey};
use coco_kv::Seqno;
use http::Method;
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

use super::{Endpoints, not_found, unreadable};
use crate::node::Node;

const UNKNOWN: &str = "Node not found";

pub(super) fn add(to: &mut Endpoints) -> Result<(), RouteSyntax> {
    to.get("/network/nodes", "Nodes; filtered by host, port, status", nodes)?;
    to.get("/network/nodes/self", "This node", |node, call| one(node, call, node.id()))?;
    to.get("/network/nodes/primary", "The primary", primary)?;
    to.get("/network/nodes/{node_id}", "One node", named)?;
    to.get("/network/removable_nodes", "Nodes that may be stopped for good", removable)?;
    let summary = "Forget a node that is listed as removable";
    to.add(Method::DELETE, "/network/nodes/{node_id}", Mode::ReadWrite, summary, remove)
}

#[derive(Serialize)]
struct Body {
    node_id: String,
    status: NodeStatus,
    primary: bool,
    rpc_interfaces: BTreeMap<String, RpcInterface>,
    node_data: Json,
    /// Seqno.
    last_written: Option<u64>,
}

impl Body {
    fn new(node: &Node, call: &mut Call<'_>, id: Digest, info: NodeInfo) -> Self {
        let last_written = version(call, &id).map(|seqno| seqno.0);
        let NodeInfo { status, rpc_interfaces, node_data, .. } = info;
        let primary = node.primary() == Some(id);
        Self { node_id: id.to_string(), status, primary, rpc_interfaces, node_data, last_written }
    }
}

fn version(call: &mut Call<'_>, id: &Digest) -> Option<Seqno> {
    call.tx.version_of_previous_write(NODES.name(), &id.to_bytes())
}

fn nodes(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let (host, port) = (call.query("host"), call.query("port"));
    let (host, port) = (host.map(str::to_owned), port.map(str::to_owned));
    let status = call.query("status").map(parse_status).transpose()?;
    let rows = NODES.rows(call.tx).map_err(unreadable)?;
    let wanted = rows.into_iter().filter(|(_, info)| {
        status.is_none_or(|status| status == info.status)
            && info.rpc_interfaces.values().any(|interface| {
                let address = interface.address();
                let (its_host, its_port) = address.rsplit_once(':').unwrap_or((address, ""));
                host.as_ref().is_none_or(|host| host == its_host)
                    && port.as_ref().is_none_or(|port| port == its_port)
            })
    });
    let nodes: Vec<Body> = wanted.map(|(id, info)| Body::new(node, call, id, info)).collect();
    call.reply(&json!({ "nodes": nodes }))
}

fn parse_status(text: &str) -> Result<NodeStatus, ErrorResponse> {
    serde_json::from_value(Json::from(text)).map_err(|_| {
        let message = format!("Query parameter 'status' is not a node status: {text}");
        ErrorResponse::bad_request(ErrorCode::InvalidQueryParameterValue, message)
    })
}

fn primary(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = node.primary().ok_or_else(|| not_found("Primary unknown"))?;
    one(node, call, id)
}

fn named(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = call.param("node_id").parse().map_err(|_| not_found(UNKNOWN))?;
    one(node, call, id)
}

fn one(node: &Node, call: &mut Call<'_>, id: Digest) -> Result<Response, ErrorResponse> {
    let info = NODES.get(call.tx, &id).map_err(unreadable)?.ok_or_else(|| not_found(UNKNOWN))?;
    let body = Body::new(node, call, id, info);
    call.reply(&body)
}

fn removable(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let rows = NODES.rows(call.tx).map_err(unreadable)?;
    let mut nodes = Vec::new();
    for (id, info) in rows {
        if is_removable(call, &id, &info) {
            nodes.push(Body::new(node, call, id, info));
        }
    }
    call.reply(&json!({ "nodes": nodes }))
}

/// Its retirement was recorded, and that record is committed.
fn is_removable(call: &mut Call<'_>, id: &Digest, info: &NodeInfo) -> bool {
    let committed = call.environment.last_committed().seqno;
    info.status == NodeStatus::Retired
        && info.retired_committed
        && version(call, id).is_some_and(|version| version <= committed)
}

fn remove(_: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id: Digest = call.param("node_id").parse().map_err(|_| not_found(UNKNOWN))?;
    let info = NODES.get(call.tx, &id).map_err(unreadable)?.ok_or_else(|| not_found(UNKNOWN))?;
    if !is_removable(call, &id, &info) {
        let message = format!("Node {id} is not retired, or its retirement is not yet committed.");
        return Err(ErrorResponse::bad_request(ErrorCode::NodeNotRetiredCommitted, message));
    }
    NODES.remove(call.tx, &id);
    coco_governance::tables::NODE_ENDORSED_CERTS.remove(call.tx, &id);
    call.reply(&true)
}
