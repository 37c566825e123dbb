//! The service, as the governance tables describe it, and this node's certificate.

use coco_adapter::{Call, ErrorResponse, Response, RouteSyntax};
use coco_governance::tables::{
    PREVIOUS_SERVICE_IDENTITY, SERVICE_CONFIG, SERVICE_INFO, ServiceStatus,
};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{Endpoints, not_found, unreadable};
use crate::node::Node;

pub(super) fn add(to: &mut Endpoints) -> Result<(), RouteSyntax> {
    to.get("/network", "The service and its primary", network)?;
    to.get("/service/configuration", "The service's configuration", configuration)?;
    to.get("/service/previous_identity", "The service that this one recovers", previous)?;
    to.get("/self_signed_certificate", "This node's own certificate", self_signed)
}

fn network(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    #[derive(Serialize)]
    struct Body {
        service_status: ServiceStatus,
        service_certificate: String,
        current_view: u64,
        primary_id: Option<String>,
        recovery_count: u64,
        service_data: Json,
        current_service_create_txid: Option<String>,
    }
    let info = SERVICE_INFO
        .get(call.tx)
        .map_err(unreadable)?
        .ok_or_else(|| not_found("Service state not available"))?;
    call.reply(&Body {
        service_status: info.status,
        service_certificate: info.cert.0,
        current_view: node.pipeline().store().view().0,
        primary_id: node.primary().map(|primary| primary.to_string()),
        recovery_count: info.recovery_count.unwrap_or_default(),
        service_data: info.service_data,
        current_service_create_txid: info.current_service_create_txid,
    })
}

fn configuration(_: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let config = SERVICE_CONFIG
        .get(call.tx)
        .map_err(unreadable)?
        .ok_or_else(|| not_found("Service state not available"))?;
    call.reply(&config)
}

fn previous(_: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let identity = PREVIOUS_SERVICE_IDENTITY
        .get(call.tx)
        .map_err(unreadable)?
        .ok_or_else(|| not_found("This service is not a recovery of a previous service."))?;
    call.reply(&json!({ "previous_service_identity": identity }))
}

fn self_signed(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let certificate = node.identity().self_signed.to_pem();
    call.reply(&json!({ "self_signed_certificate": certificate }))
}
