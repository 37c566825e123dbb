//! Past transactions: which one is asked for, and what to answer while it is fetched.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coco_adapter::{
    Call, ErrorCode, ErrorResponse, HistoricalState, Outcome, Request, Response, TxStatus,
};
use coco_kv::TxId;
use http::{HeaderValue, StatusCode, header};

use super::{Shared, TRANSACTION_ID, Target, execute, find, name_transaction};
use crate::node::Node;
use crate::pipeline::{Pipeline, ReceiptError};
use crate::session::{Reply, Session, within};

/// How long a request waits for the disk before its caller is told to come back.
const PATIENCE: Duration = Duration::from_secs(1);

/// When to come back, in seconds.
pub(super) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("3");

impl Shared {
    /// Executes on a past state, which is taken from memory or has to be fetched.
    pub(super) fn historical(
        self: &Arc<Self>,
        session: &Arc<Session>,
        request: Request,
        target: Target,
    ) -> Reply {
        if let Err(response) = self.admit_historical(session, &request, target) {
            return Reply::Now(*response);
        }
        let tx_id = match requested(&request) {
            Ok(tx_id) => tx_id,
            Err(refusal) => return Reply::Now(refusal.to_response()),
        };
        let pipeline = self.node.pipeline();
        if let Err(response) = check_committed(pipeline, tx_id) {
            return Reply::Now(*response);
        }
        if let Some(state) = pipeline.historical_state_now(tx_id) {
            return Reply::Now(self.run_on(session, &request, target, &state));
        }
        let (shared, session, pipeline) = (self.clone(), session.clone(), pipeline.clone());
        Reply::Later(Box::pin(async move {
            let state = async move { pipeline.historical_state(tx_id).await };
            match fetch(&shared.node, state).await {
                Ok(state) => shared.run_on(&session, &request, target, &state),
                Err(response) => *response,
            }
        }))
    }

    /// Authenticates before anything is fetched for the caller.
    fn admit_historical(
        &self,
        session: &Session,
        request: &Request,
        target: Target,
    ) -> Result<(), Box<Response>> {
        let mut tx = self.node.pipeline().store().begin();
        let matched = find(self.adapter(target.frontend), &mut tx, request, target)?;
        let mut credentials = self.credentials(session, request);
        self.authenticate(session, &matched, &mut credentials, &mut tx)?;
        Ok(())
    }

    fn run_on(
        &self,
        session: &Session,
        request: &Request,
        target: Target,
        state: &HistoricalState,
    ) -> Response {
        let adapter = self.adapter(target.frontend);
        let mut tx = self.node.pipeline().store().begin();
        let matched = match find(adapter, &mut tx, request, target) {
            Ok(matched) => matched,
            Err(response) => return *response,
        };
        let mut credentials = self.credentials(session, request);
        let caller = match self.authenticate(session, &matched, &mut credentials, &mut tx) {
            Ok(caller) => caller,
            Err(response) => return *response,
        };
        let mut call = Call {
            request,
            matched: &matched,
            caller: &caller,
            tx: &mut tx,
            historical: Some(state),
            environment: self.node.environment(),
            outcome: Outcome::default(),
        };
        let mut response = execute(adapter.as_ref(), &mut call);
        name_transaction(&mut response, tx.read_tx_id());
        response
    }
}

/// The transaction that the request header names.
fn requested(request: &Request) -> Result<TxId, ErrorResponse> {
    let value = request.headers().get(TRANSACTION_ID).ok_or_else(|| {
        let message = format!("Historical query is missing '{TRANSACTION_ID}' header.");
        ErrorResponse::bad_request(ErrorCode::MissingRequiredHeader, message)
    })?;
    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let message = format!("The value in header '{TRANSACTION_ID}' is not a transaction id.");
        ErrorResponse::bad_request(ErrorCode::InvalidHeaderValue, message)
    })
}

/// Refuses what is not committed.
fn check_committed(pipeline: &Pipeline, tx_id: TxId) -> Result<(), Box<Response>> {
    match pipeline.status(tx_id) {
        TxStatus::Committed => Ok(()),
        TxStatus::Invalid => Err(Box::new(not_available(&ReceiptError::Invalid(tx_id)))),
        TxStatus::Pending | TxStatus::Unknown => {
            Err(Box::new(not_available(&ReceiptError::PendingOrUnknown(tx_id))))
        }
    }
}

/// Fetches from the ledger: the value, or 202 if it takes long. Fetching then goes on, so that the
/// caller's next try finds the value in memory; unless too much is fetched already.
pub(crate) async fn fetch<T: Send + 'static>(
    node: &Node,
    value: impl Future<Output = Result<T, ReceiptError>> + Send + 'static,
) -> Result<T, Box<Response>> {
    let place = node.pipeline().place_to_fetch().ok_or_else(|| Box::new(come_back()))?;
    let fetching = tokio::spawn(async move {
        let value = value.await;
        drop(place);
        value
    });
    match within(node.host().as_ref(), PATIENCE, fetching).await {
        Some(Ok(Ok(value))) => Ok(value),
        Some(Ok(Err(error))) => Err(Box::new(not_available(&error))),
        Some(Err(error)) => {
            tracing::error!(%error, "fetching from the ledger failed");
            let error = ErrorResponse::internal("Fetching from the ledger failed.");
            Err(Box::new(error.to_response()))
        }
        None => Err(Box::new(come_back())),
    }
}

fn come_back() -> Response {
    let text = "Historical transaction is not currently available.";
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

/// Why there is no receipt, in CCF's words.
fn not_available(error: &ReceiptError) -> Response {
    let code = match error {
        ReceiptError::PendingOrUnknown(_) => ErrorCode::TransactionPendingOrUnknown,
        ReceiptError::Invalid(_) => ErrorCode::TransactionInvalid,
        ReceiptError::NotAvailable { tx_id, reason } => {
            tracing::error!(%tx_id, reason, "a committed transaction cannot be read");
            let message = format!("Transaction {tx_id} is not available on this node.");
            return ErrorResponse::internal(message).to_response();
        }
    };
    let mut response = ErrorResponse::not_found(code, format!("{error}.")).to_response();
    if code == ErrorCode::TransactionPendingOrUnknown {
        let no_cache = HeaderValue::from_static("no-cache");
        response.headers_mut().insert(header::CACHE_CONTROL, no_cache);
    }
    response
}
