//! Status of transactions.

use coco_adapter::{Call, ErrorCode, ErrorResponse, Response, TxStatus};
use coco_kv::TxId;
use serde_json::json;

use super::request::ApiVersion;
use super::{Endpoints, Governance};

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let any = ApiVersion::Preview;
    let path = "/service/transactions/commit";
    endpoints.get(path, any, "The last committed transaction", last_committed);
    endpoints.get("/service/transactions/{transactionId}", any, "A transaction's status", status);
}

fn last_committed(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let transaction_id = call.environment.last_committed().to_string();
    call.reply(&json!({"status": TxStatus::Committed, "transactionId": transaction_id}))
}

fn status(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let text = call.param("transactionId");
    let tx_id: TxId = text.parse().map_err(|error| {
        let message = format!("'{text}' is not a transaction id: {error}.");
        ErrorResponse::bad_request(ErrorCode::InvalidResourceName, message)
    })?;
    let status = call.environment.status(tx_id);
    call.reply(&json!({"status": status, "transactionId": tx_id.to_string()}))
}
