//! The endpoints that every frontend has: `/node`, `/gov` and `/app`. They answer from what the node
//! knows of its ledger, without a transaction of their own and without authentication.

use std::sync::Arc;

use bytes::Bytes;
use coco_adapter::{Endpoints, ErrorCode, ErrorResponse, Request, Response, TxStatus};
use coco_kv::{TxId, View};
use coco_ledger::SignedProof;
use http::{HeaderValue, Method, header};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::dispatch::{accepts_json, fetch, not_acceptable, wrong_verb};
use crate::node::Node;
use crate::openapi;
use crate::session::Reply;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrontendEndpoint {
    Commit,
    Tx,
    Receipt,
    CoseReceipt,
    Api,
}

impl FrontendEndpoint {
    const ALL: [Self; 5] = [Self::Commit, Self::Tx, Self::Receipt, Self::CoseReceipt, Self::Api];

    /// The endpoint at a path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|common| common.path() == path)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Commit => "/commit",
            Self::Tx => "/tx",
            Self::Receipt => "/receipt",
            Self::CoseReceipt => "/receipt/cose",
            Self::Api => "/api",
        }
    }

    /// Answers a request to one of a frontend's common endpoints.
    pub(crate) fn answer(
        self,
        node: &Node,
        adapter: &Arc<dyn Endpoints>,
        prefix: &str,
        request: Request,
    ) -> Reply {
        if request.method() != Method::GET {
            return Reply::Now(wrong_verb(&request, &[Method::GET]));
        }
        if self != Self::CoseReceipt && !accepts_json(&request) {
            return Reply::Now(not_acceptable());
        }
        let answer = match self {
            Self::Commit => commit(node, &request),
            Self::Tx => tx(node, &request),
            Self::Receipt => return receipt(node, &request),
            Self::CoseReceipt => return cose_receipt(node, &request),
            Self::Api => Ok(api(node, adapter, prefix)),
        };
        Reply::Now(answer.unwrap_or_else(|error| error.to_response()))
    }
}

fn commit(node: &Node, request: &Request) -> Result<Response, ErrorResponse> {
    #[derive(Serialize)]
    struct Body {
        transaction_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        view_history: Option<Vec<String>>,
    }
    let all = match query(request, "view_history") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid_query("view_history must be true or false.")),
    };
    let since = match query(request, "view_history_since") {
        None => None,
        Some(_) if all => {
            let message = "Only one of view_history and view_history_since may be given.";
            return Err(invalid_query(message));
        }
        Some(text) => Some(text.parse::<u64>().ok().filter(|&view| view > 0).ok_or_else(|| {
            invalid_query("view_history_since must be a view: a number, at least 1.")
        })?),
    };
    let view_history = match since.or(all.then_some(1)) {
        None => None,
        Some(since) => Some(view_history(node, since)?),
    };
    let transaction_id = node.pipeline().last_committed().to_string();
    json_reply(&Body { transaction_id, view_history })
}

/// The first transaction of every view from `since` on.
fn view_history(node: &Node, since: u64) -> Result<Vec<String>, ErrorResponse> {
    let starts = node.pipeline().view_history();
    let views = (1..).zip(starts).filter(|(view, _)| *view >= since);
    let history: Vec<_> =
        views.map(|(view, seqno)| TxId { view: View(view), seqno }.to_string()).collect();
    if history.is_empty() {
        let message = format!("View {since} has not begun yet.");
        return Err(ErrorResponse::not_found(ErrorCode::InvalidQueryParameterValue, message));
    }
    Ok(history)
}

fn tx(node: &Node, request: &Request) -> Result<Response, ErrorResponse> {
    #[derive(Serialize)]
    struct Body {
        transaction_id: String,
        status: TxStatus,
    }
    let tx_id = transaction_id(request)?;
    let status = node.pipeline().status(tx_id);
    json_reply(&Body { transaction_id: tx_id.to_string(), status })
}

fn receipt(node: &Node, request: &Request) -> Reply {
    prove(node, request, |node, proof, tx_id| {
        let receipt = node.service_keys().receipt(proof, tx_id.seqno).map_err(|error| {
            tracing::error!(%tx_id, %error, "no receipt can be made");
            ErrorResponse::internal(format!("There is no receipt for transaction {tx_id}."))
        })?;
        Ok(typed("application/json", receipt.to_json()))
    })
}

/// Signature transactions, and those signed before CCF 6, have none.
fn cose_receipt(node: &Node, request: &Request) -> Reply {
    prove(node, request, |_, proof, tx_id| {
        let receipt = proof.cose_receipt().map_err(|_| {
            let message = format!("There is no COSE receipt for transaction {tx_id}.");
            ErrorResponse::not_found(ErrorCode::ResourceNotFound, message)
        })?;
        Ok(typed("application/cose", receipt.to_bytes()))
    })
}

/// Answers with a proof in some form: at once if it is in memory.
fn prove(
    node: &Node,
    request: &Request,
    form: fn(&Node, &SignedProof, TxId) -> Result<Response, ErrorResponse>,
) -> Reply {
    let tx_id = match transaction_id(request) {
        Ok(tx_id) => tx_id,
        Err(error) => return Reply::Now(error.to_response()),
    };
    let node = node.clone();
    if let Some(proof) = node.pipeline().proof_now(tx_id) {
        let answer = form(&node, &proof, tx_id);
        return Reply::Now(answer.unwrap_or_else(|error| error.to_response()));
    }
    Reply::Later(Box::pin(async move {
        let pipeline = node.pipeline().clone();
        let proof = async move { pipeline.proof(tx_id).await };
        match fetch(&node, proof).await {
            Ok(proof) => form(&node, &proof, tx_id).unwrap_or_else(|error| error.to_response()),
            Err(response) => *response,
        }
    }))
}

fn api(node: &Node, adapter: &Arc<dyn Endpoints>, prefix: &str) -> Response {
    let mut tx = node.pipeline().store().begin();
    let mut paths = FrontendEndpoint::paths();
    paths.extend(adapter.openapi_paths(&mut tx));
    let document = openapi::document(prefix, adapter.openapi_info(), paths);
    typed("application/json", document.to_string())
}

fn json_reply<T: Serialize>(value: &T) -> Result<Response, ErrorResponse> {
    let text = serde_json::to_vec(value).map_err(|error| {
        ErrorResponse::internal(format!("Reply cannot be serialised: {error}."))
    })?;
    Ok(typed("application/json", text))
}

fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into());
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

fn transaction_id(request: &Request) -> Result<TxId, ErrorResponse> {
    let text = query(request, "transaction_id")
        .ok_or_else(|| invalid_query("transaction_id is required."))?;
    text.parse()
        .map_err(|_| invalid_query(format!("{text:?} is not a transaction id: view.seqno.")))
}

fn query<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

fn invalid_query(message: impl Into<String>) -> ErrorResponse {
    ErrorResponse::bad_request(ErrorCode::InvalidQueryParameterValue, message)
}

impl FrontendEndpoint {
    /// The OpenAPI `paths` of all of them.
    fn paths() -> Map<String, Json> {
        let operation = |common: Self| json!({ "get": common.operation() });
        Self::ALL.into_iter().map(|common| (common.path().to_owned(), operation(common))).collect()
    }

    fn operation(self) -> Json {
        let tx_id = json!({"type": "string", "pattern": "^[0-9]+\\.[0-9]+$"});
        let wanted = json!([{"name": "transaction_id", "in": "query", "required": true,
            "schema": tx_id}]);
        match self {
            Self::Commit => json!({
                "summary": "The last committed transaction, and the start of every view",
                "parameters": [
                    {"name": "view_history", "in": "query", "schema": {"type": "boolean"}},
                    {"name": "view_history_since", "in": "query",
                        "schema": {"type": "integer", "minimum": 1}},
                ],
                "responses": openapi::json_responses(&json!({
                    "type": "object",
                    "required": ["transaction_id"],
                    "properties": {
                        "transaction_id": tx_id,
                        "view_history": {"type": "array", "items": tx_id},
                    },
                })),
            }),
            Self::Tx => json!({
                "summary": "What is known of a transaction",
                "parameters": wanted,
                "responses": openapi::json_responses(&json!({
                    "type": "object",
                    "required": ["transaction_id", "status"],
                    "properties": {
                        "transaction_id": tx_id,
                        "status": {"type": "string",
                            "enum": ["Unknown", "Pending", "Committed", "Invalid"]},
                    },
                })),
            }),
            Self::Receipt => json!({
                "summary": "Proof that a transaction is on the ledger",
                "parameters": wanted,
                "responses": openapi::json_responses(&json!({"type": "object"})),
            }),
            Self::CoseReceipt => json!({
                "summary": "Proof that a transaction is on the ledger, as COSE_Sign1",
                "parameters": wanted,
                "responses": openapi::responses("application/cose",
                    &json!({"type": "string", "format": "binary"})),
            }),
            Self::Api => json!({
                "summary": "This document",
                "responses": openapi::json_responses(&json!({"type": "object"})),
            }),
        }
    }
}
