//! Nodes.

use std::collections::BTreeMap;

use coco_adapter::{Call, ErrorResponse, Response};
use coco_crypto::{Certificate, Digest};
use coco_kv::Tx;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::request::{ApiVersion, id_param, not_found};
use super::{Endpoints, Governance};
use crate::seats::sitting_at;
use crate::tables::{
    Base64, NODE_ENDORSED_CERTS, NODES, NodeInfo, NodeStatus, Pem, QuoteFormat, QuoteInfo, SEATS,
    TableError,
};

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let any = ApiVersion::Preview;
    endpoints.get("/service/nodes", any, "All nodes", nodes);
    endpoints.get("/service/nodes/{nodeId}", any, "One node", node);
    let summary = "Ours: who may put a node where without a vote";
    endpoints.get("/service/seats", any, summary, seats);
}

fn nodes(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let mut value = Vec::new();
    for (id, info) in NODES.rows(call.tx)? {
        value.push(describe(call.tx, &id, info)?);
    }
    call.reply(&json!({"value": value}))
}

fn node(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = id_param(call, "nodeId")?;
    let info = NODES.get(call.tx, &id)?;
    let info = info.ok_or_else(|| not_found(format!("Node {id} does not exist.")))?;
    let description = describe(call.tx, &id, info)?;
    call.reply(&description)
}

fn seats(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let mut value = Vec::new();
    for (address, seat) in SEATS.rows(call.tx)? {
        let operator = Certificate::from_pem(&seat.operator_cert.0).ok();
        let node_ids = sitting_at(call.tx, &address)?.into_iter().map(|(id, _)| id.to_string());
        value.push(SeatDescription {
            node_ids: node_ids.collect(),
            operator_id: operator.map(|operator| operator.fingerprint().to_string()),
            operator_certificate: seat.operator_cert,
            address,
        });
    }
    call.reply(&json!({"value": value}))
}

/// A seat as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SeatDescription {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator_id: Option<String>,
    operator_certificate: Pem,
    /// Who is trusted there, by vote or by seat.
    node_ids: Vec<String>,
}

/// A node as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeDescription {
    node_id: String,
    status: NodeStatus,
    node_data: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Pem>,
    retired_committed: bool,
    quote_info: QuoteDescription,
    rpc_interfaces: BTreeMap<String, InterfaceDescription>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InterfaceDescription {
    published_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
}

fn describe(tx: &mut Tx, id: &Digest, info: NodeInfo) -> Result<NodeDescription, TableError> {
    let interfaces = info.rpc_interfaces.into_iter().map(|(name, interface)| {
        let published_address = interface.address().to_owned();
        (name, InterfaceDescription { published_address, protocol: interface.app_protocol })
    });
    Ok(NodeDescription {
        node_id: id.to_string(),
        status: info.status,
        node_data: info.node_data,
        certificate: NODE_ENDORSED_CERTS.get(tx, id)?,
        retired_committed: info.retired_committed,
        quote_info: QuoteDescription::of(info.quote_info),
        rpc_interfaces: interfaces.collect(),
    })
}

/// Evidence as the API shows it; which fields there are depends on its format.
#[derive(Serialize)]
#[serde(untagged)]
enum QuoteDescription {
    #[serde(rename_all = "camelCase")]
    Virtual {
        format: QuoteFormat,
        raw_quote: Base64,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<VirtualDetails>,
    },
    #[serde(rename_all = "camelCase")]
    Hardware {
        format: QuoteFormat,
        quote: Base64,
        endorsements: Base64,
        #[serde(skip_serializing_if = "Option::is_none")]
        uvm_endorsements: Option<Base64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        endorsed_tcb: Option<String>,
    },
}

/// What the software TEE says of itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all(serialize = "camelCase"))]
struct VirtualDetails {
    measurement: String,
    host_data: String,
    report_data: String,
}

impl QuoteDescription {
    fn of(info: QuoteInfo) -> Self {
        let QuoteInfo { format, quote, endorsements, uvm_endorsements, endorsed_tcb } = info;
        if format == QuoteFormat::InsecureVirtual {
            let details = serde_json::from_slice(&quote.0).ok();
            return Self::Virtual { format, raw_quote: quote, details };
        }
        Self::Hardware { format, quote, endorsements, uvm_endorsements, endorsed_tcb }
    }
}
