//! What the node is doing: state, consensus, probes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use coco_adapter::{Call, ErrorResponse, Mode, Response, RouteSyntax};
use coco_consensus::{NodeId, Role};
use coco_governance::tables::{JS_RUNTIME_OPTIONS, NODES};
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{Endpoints, not_found, primary_location, redirect, status, unreadable};
use crate::dispatch::is_app_open;
use crate::node::{Node, NodeState};

pub(super) fn add(to: &mut Endpoints) -> Result<(), RouteSyntax> {
    to.get("/state", "This node's state", state)?;
    to.get("/version", "Versions of the software", version)?;
    to.get("/config", "Nodes of the consensus configuration", config)?;
    to.get("/consensus", "State of the consensus", consensus)?;
    to.get("/primary", "200 exactly on the primary", primary)?;
    to.add(Method::HEAD, "/primary", Mode::ReadOnly, "200 exactly on the primary", primary)?;
    to.get("/backup", "200 exactly on a backup", backup)?;
    to.get("/js_metrics", "Limits of JavaScript applications", js_metrics)?;
    to.get("/jwt_keys/refresh/metrics", "How often token keys were fetched", jwt_refresh)?;
    to.get("/index/strategies", "Indexes of this node", index_strategies)?;
    to.get("/ready/app", "204 when the application is served", ready_app)?;
    to.get("/ready/gov", "204 when governance is served", ready_gov)
}

fn state(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    #[derive(Serialize)]
    struct Body {
        node_id: String,
        state: &'static str,
        last_signed_seqno: u64,
        startup_seqno: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        last_recovered_seqno: Option<u64>,
        stop_notice: bool,
    }
    call.reply(&Body {
        node_id: node.id().to_string(),
        state: node.state().as_str(),
        // Only signatures commit.
        last_signed_seqno: node.pipeline().last_committed().seqno.0,
        startup_seqno: node.startup_seqno().0,
        last_recovered_seqno: node.last_recovered_signed_seqno().map(|seqno| seqno.0),
        stop_notice: node.stop_notice(),
    })
}

fn version(_: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    call.reply(&json!({
        "ccf_version": concat!("coco-", env!("CARGO_PKG_VERSION")),
        "quickjs_version": coco_script::QUICKJS_VERSION,
        "unsafe": false,
    }))
}

fn config(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let nodes = addresses(call, node.pipeline().membership().nodes())?;
    call.reply(&nodes)
}

/// `{node id: {"address": …}}` of these nodes, where they are reached by others.
fn addresses(
    call: &mut Call<'_>,
    nodes: BTreeSet<NodeId>,
) -> Result<BTreeMap<String, Json>, ErrorResponse> {
    let mut addresses = BTreeMap::new();
    for NodeId(id) in nodes {
        let info = NODES.get(call.tx, &id).map_err(unreadable)?;
        let interface = info.and_then(|info| info.node_to_node_interface).unwrap_or_default();
        addresses.insert(id.to_string(), json!({ "address": interface.address() }));
    }
    Ok(addresses)
}

fn consensus(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let pipeline = node.pipeline();
    let membership = pipeline.membership();
    let (leadership, view) = match pipeline.role() {
        Role::Primary(view) => ("Leader", view),
        Role::Backup { view, .. } => ("Follower", view),
    };
    let me = NodeId(node.id());
    let membership_state = if membership.nodes().contains(&me) { "Active" } else { "Retired" };
    let counting = [&membership.outgoing, &membership.voters];
    let mut configs = Vec::new();
    for nodes in counting.into_iter().filter(|nodes| !nodes.is_empty()) {
        let nodes = addresses(call, nodes.clone())?;
        configs.push(json!({ "idx": node.startup_seqno().0, "rid": 0, "nodes": nodes }));
    }
    let acks = pipeline
        .replicas()
        .into_iter()
        .map(|replica| (replica.node.to_string(), json!({ "seqno": replica.persisted.seqno.0 })));
    let acks: BTreeMap<String, Json> = acks.collect();
    let learners = addresses(call, membership.learners)?;
    call.reply(&json!({ "details": {
        "membership_state": membership_state,
        "leadership_state": leadership,
        "configs": configs,
        "acks": acks,
        "current_view": view.0,
        "primary_id": node.primary().map(|primary| primary.to_string()),
        "reconfiguration_type": "OneTransaction",
        "learners": learners,
        "ticking": true,
    } }))
}

/// 200 on the primary. A backup knows who it is, for `HEAD`; for `GET` it is not here.
fn primary(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    if is_primary(node) {
        return Ok(status(StatusCode::OK));
    }
    if call.request.method() == Method::HEAD
        && let Some(location) = primary_location(node, call.tx, call.request)?
    {
        return Ok(redirect(StatusCode::PERMANENT_REDIRECT, location));
    }
    Err(not_found("Node is not primary"))
}

fn backup(node: &Node, _: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    match is_primary(node) {
        true => Err(not_found("Node is not backup")),
        false => Ok(status(StatusCode::OK)),
    }
}

fn is_primary(node: &Node) -> bool {
    matches!(node.pipeline().role(), Role::Primary(_))
}

fn js_metrics(_: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let options = JS_RUNTIME_OPTIONS.get(call.tx).map_err(unreadable)?.unwrap_or_default();
    let (mut modules, mut bytes) = (0_usize, 0_usize);
    let bytecode = coco_governance::tables::MODULES_BYTECODE.name();
    call.tx.for_each(bytecode, |_, compiled| {
        modules += 1;
        bytes += compiled.len();
        std::ops::ControlFlow::Continue(())
    });
    call.reply(&json!({
        "bytecode_size": bytes,
        "bytecode_used": modules > 0,
        "max_heap_size": options.max_heap_bytes,
        "max_stack_size": options.max_stack_bytes,
        "max_execution_time": options.max_execution_time_ms,
        "max_cached_interpreters": options.max_cached_interpreters,
    }))
}

fn jwt_refresh(node: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let metrics = node.refresh_metrics();
    call.reply(&json!({
        "attempts": metrics.attempts.load(Ordering::Relaxed),
        "successes": metrics.successes.load(Ordering::Relaxed),
        "failures": metrics.failures.load(Ordering::Relaxed),
    }))
}

/// There are no indexes yet.
fn index_strategies(_: &Node, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    call.reply(&json!([]))
}

fn ready_app(node: &Node, _: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    Ok(readiness(node.state() == NodeState::PartOfNetwork && is_app_open(node)))
}

fn ready_gov(node: &Node, _: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let is_served =
        matches!(node.state(), NodeState::PartOfNetwork | NodeState::PartOfPublicNetwork);
    Ok(readiness(is_served))
}

fn readiness(ready: bool) -> Response {
    status(if ready { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE })
}
