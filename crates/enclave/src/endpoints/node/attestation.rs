//! Evidence of what the nodes run, as they submitted it. CCF has two names for each endpoint.

use coco_adapter::{Call, ErrorResponse, Response, RouteSyntax};
use coco_crypto::Digest;
use coco_governance::tables::{Base64, NODES, NodeInfo, NodeStatus, QuoteFormat};
use serde::Serialize;
use serde_json::json;

use super::{Endpoints, not_found, unreadable};
use crate::node::Node;

pub(super) fn add(to: &mut Endpoints) -> Result<(), RouteSyntax> {
    for path in ["/quotes/self", "/attestations/self"] {
        to.get(path, "This node's evidence", own)?;
    }
    to.get("/quotes", "Evidence of all trusted nodes", |_, call| all(call, "quotes"))?;
    to.get("/attestations", "Evidence of all trusted nodes", |_, call| all(call, "attestations"))
}

#[derive(Serialize)]
struct Body {
    node_id: String,
    raw: Base64,
    endorsements: Base64,
    format: QuoteFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    measurement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uvm_endorsements: Option<Base64>,
}

impl Body {
    fn new(id: &Digest, info: NodeInfo) -> Self {
        let quote = info.quote_info;
        Self {
            node_id: id.to_string(),
            raw: quote.quote,
            endorsements: quote.endorsements,
            format: quote.format,
            measurement: info.code_digest,
            uvm_endorsements: quote.uvm_endorsements,
        }
    }
}

fn own(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = node.id();
    let info = NODES
        .get(call.tx, &id)
        .map_err(unreadable)?
        .ok_or_else(|| not_found("Could not find node quote."))?;
    call.reply(&Body::new(&id, info))
}

fn all(call: &mut Call<'_>, name: &str) -> Result<Response, ErrorResponse> {
    let rows = NODES.rows(call.tx).map_err(unreadable)?;
    let trusted = rows.into_iter().filter(|(_, info)| info.status == NodeStatus::Trusted);
    let quotes: Vec<Body> = trusted.map(|(id, info)| Body::new(&id, info)).collect();
    call.reply(&json!({ name: quotes }))
}
