//! Replies that are given at commit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coco_adapter::{ErrorCode, ErrorResponse, Outcome, Response, TxStatus};
use coco_kv::{Tx, TxId};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::name_transaction;
use crate::host::BoxFuture;
use crate::pipeline::{CommitError, Executed, Pipeline};
use crate::session::Reply;

const WAIT: &str = "x-coco-wait";
const RECEIPT: &str = "x-coco-receipt";
const READ: &str = "x-coco-read";

/// What a caller wants to know before the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) committed: bool,
    receipt: bool,
    /// The state that is read holds everything that was committed before the request; and by now it
    /// does, if it is `Some(true)`.
    recent: Option<bool>,
}

impl Wishes {
    /// Reads `x-coco-wait`, `x-coco-receipt` and `x-coco-read`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ErrorResponse> {
        let wish = |name: &'static str, yes: &str, no: &str| match headers.get(name) {
            None => Ok(false),
            Some(value) if value == yes => Ok(true),
            Some(value) if value == no => Ok(false),
            Some(value) => {
                let message = format!("{name} is {value:?}, but must be {yes} or {no}.");
                Err(ErrorResponse::bad_request(ErrorCode::InvalidHeaderValue, message))
            }
        };
        let receipt = wish(RECEIPT, "true", "false")?;
        let waits = wish(WAIT, "committed", "executed")?;
        // What is read must not be taken back either.
        let linearizable = wish(READ, "linearizable", "local")?;
        let recent = linearizable.then_some(false);
        Ok(Self { committed: waits || receipt || linearizable, receipt, recent })
    }

    /// Whether the state here must catch up before anything is executed on it.
    pub(super) fn lag(self) -> bool {
        self.recent == Some(false)
    }

    /// The wishes when it has.
    pub(super) fn caught_up(self) -> Self {
        Self { recent: self.recent.map(|_| true), ..self }
    }
}

/// A transaction that has passed the commit point.
pub(super) struct Placed {
    pub(super) tx_id: TxId,
    wrote: bool,
    /// Resolves when its fate is known, if somebody waits for that.
    fate: Option<BoxFuture<'static, TxStatus>>,
}

impl Placed {
    /// Commits; begins to wait for the outcome at once if the reply is to.
    pub(super) fn commit(
        pipeline: &Pipeline,
        tx: Tx,
        outcome: &Outcome,
        waits: bool,
    ) -> Result<Self, CommitError> {
        if !waits {
            let Executed { tx_id, wrote } = pipeline.commit(tx, outcome)?;
            return Ok(Self { tx_id, wrote, fate: None });
        }
        let (Executed { tx_id, wrote }, fate) = pipeline.commit_and_wait(tx, outcome)?;
        Ok(Self { tx_id, wrote, fate: Some(Box::pin(fate)) })
    }
}

/// Gives the reply at once, or when what the caller wants is known.
pub(super) fn reply(
    pipeline: &Pipeline,
    wishes: Wishes,
    mut response: Response,
    placed: Placed,
) -> Reply {
    let Placed { tx_id, wrote, fate } = placed;
    let Some(fate) = fate else { return Reply::Now(response) };
    // What only read has no place on the ledger to prove.
    let wants_receipt = wishes.receipt && wrote;
    let pipeline = pipeline.clone();
    Reply::Later(Box::pin(async move {
        match fate.await {
            TxStatus::Committed if wants_receipt => {
                attach_receipt(&pipeline, &mut response, tx_id).await;
                response
            }
            TxStatus::Committed => response,
            status => not_committed(tx_id, status),
        }
    }))
}

/// Without a receipt the reply is still true; a client that needs it asks for it again.
async fn attach_receipt(pipeline: &Pipeline, response: &mut Response, tx_id: TxId) {
    let receipt = match pipeline.receipt(tx_id).await {
        Ok(receipt) => receipt,
        Err(error) => return tracing::error!(%tx_id, %error, "no receipt for a reply"),
    };
    if let Ok(value) = HeaderValue::try_from(STANDARD.encode(receipt.to_json())) {
        response.headers_mut().insert(RECEIPT, value);
    }
}

fn not_committed(tx_id: TxId, status: TxStatus) -> Response {
    let (code, message) = if status == TxStatus::Invalid {
        let message = format!("Transaction {tx_id} is invalid: it will never be committed.");
        (ErrorCode::TransactionInvalid, message)
    } else {
        let message = format!("The node stopped before it knew whether {tx_id} is committed.");
        (ErrorCode::TransactionReplicationFailed, message)
    };
    let error = ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
    let mut response = error.to_response();
    name_transaction(&mut response, tx_id);
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use http::HeaderName;

    use super::*;

    fn wishes(pairs: &[(&'static str, &'static str)]) -> Result<(bool, bool), ErrorCode> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let wishes = Wishes::of(&headers).map_err(|error| error.code)?;
        Ok((wishes.committed, wishes.receipt))
    }

    #[test]
    fn a_receipt_needs_commitment() {
        assert_eq!(wishes(&[]), Ok((false, false)));
        assert_eq!(wishes(&[(WAIT, "committed")]), Ok((true, false)));
        assert_eq!(wishes(&[(RECEIPT, "true")]), Ok((true, true)));
        assert_eq!(wishes(&[(WAIT, "executed"), (RECEIPT, "false")]), Ok((false, false)));
        assert_eq!(wishes(&[(WAIT, "yes")]), Err(ErrorCode::InvalidHeaderValue));
        assert_eq!(wishes(&[(RECEIPT, "1")]), Err(ErrorCode::InvalidHeaderValue));
    }

    #[test]
    fn a_linearizable_read_waits_for_the_past_and_for_commitment() {
        let wishes = |value| {
            Wishes::of(&HeaderMap::from_iter([(
                HeaderName::from_static(READ),
                HeaderValue::from_static(value),
            )]))
        };
        let linearizable = wishes("linearizable").unwrap();
        assert!(linearizable.committed && linearizable.lag());
        let caught_up = linearizable.caught_up();
        assert!(caught_up.committed && !caught_up.lag());
        let local = wishes("local").unwrap();
        assert!(!local.committed && !local.lag() && !local.caught_up().lag());
        assert_eq!(wishes("fresh").unwrap_err().code, ErrorCode::InvalidHeaderValue);
    }
}
