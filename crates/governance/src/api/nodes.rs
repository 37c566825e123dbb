//! Nodes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coco_adapter::{Call, ErrorResponse, Response};
use coco_crypto::Digest;
use coco_kv::Tx;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::request::{ApiVersion, id_param, not_found};
use super::{Endpoints, Governance};
use crate::tables::{NODE_ENDORSED_CERTS, NODES, NodeInfo, QuoteFormat, QuoteInfo, TableError};

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let any = ApiVersion::Preview;
    endpoints.get("/service/nodes", any, "All nodes", nodes);
    endpoints.get("/service/nodes/{nodeId}", any, "One node", node);
}

fn nodes(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let mut value = Vec::new();
    for (id, info) in NODES.rows(call.tx)? {
        value.push(describe(call.tx, &id, &info)?);
    }
    call.reply(&json!({"value": value}))
}

fn node(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = id_param(call, "nodeId")?;
    let info = NODES.get(call.tx, &id)?;
    let info = info.ok_or_else(|| not_found(format!("Node {id} does not exist.")))?;
    let description = describe(call.tx, &id, &info)?;
    call.reply(&description)
}

fn describe(tx: &mut Tx, id: &Digest, info: &NodeInfo) -> Result<Json, TableError> {
    let mut interfaces = Map::new();
    for (name, interface) in &info.rpc_interfaces {
        let published = interface.published_address.as_ref().unwrap_or(&interface.bind_address);
        let mut shown = json!({"publishedAddress": published});
        if let Some(protocol) = &interface.app_protocol {
            shown["protocol"] = protocol.as_str().into();
        }
        interfaces.insert(name.clone(), shown);
    }
    let mut node = json!({
        "nodeId": id.to_string(),
        "status": info.status,
        "nodeData": info.node_data,
        "retiredCommitted": info.retired_committed,
        "quoteInfo": describe_quote(&info.quote_info),
        "rpcInterfaces": interfaces,
    });
    if let Some(cert) = NODE_ENDORSED_CERTS.get(tx, id)? {
        node["certificate"] = cert.0.into();
    }
    Ok(node)
}

fn describe_quote(info: &QuoteInfo) -> Json {
    let mut shown = json!({"format": info.format});
    if info.format == QuoteFormat::InsecureVirtual {
        shown["rawQuote"] = STANDARD.encode(&info.quote.0).into();
        if let Some(details) = virtual_details(&info.quote.0) {
            shown["details"] = details;
        }
        return shown;
    }
    shown["quote"] = STANDARD.encode(&info.quote.0).into();
    shown["endorsements"] = STANDARD.encode(&info.endorsements.0).into();
    if let Some(endorsements) = &info.uvm_endorsements {
        shown["uvmEndorsements"] = STANDARD.encode(&endorsements.0).into();
    }
    if let Some(tcb) = &info.endorsed_tcb {
        shown["endorsedTcb"] = tcb.as_str().into();
    }
    shown
}

/// What the software TEE says of itself, if it says it in the known form.
fn virtual_details(quote: &[u8]) -> Option<Json> {
    #[derive(Deserialize)]
    struct Claims {
        measurement: String,
        host_data: String,
        report_data: String,
    }
    let claims: Claims = serde_json::from_slice(quote).ok()?;
    Some(json!({
        "measurement": claims.measurement,
        "hostData": claims.host_data,
        "reportData": claims.report_data,
    }))
}
