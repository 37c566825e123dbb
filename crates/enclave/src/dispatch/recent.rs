//! What the state must hold before a request is executed on it: what its session was told of, and,
//! if it asks for that, everything that was committed before.

use std::sync::Arc;

use coco_adapter::{ErrorCode, ErrorResponse, Request, Response, TxStatus};
use coco_kv::{Tx, TxId};
use http::StatusCode;

use super::wait::Wishes;
use super::{Attempt, Shared, Target, try_again};
use crate::session::{Reply, Session, within};

impl Shared {
    /// Whether the state lacks the newest transaction that the session was told of. An error if it
    /// always will: a session must not see that.
    pub(super) fn lags(&self, session: &Session, tx: &Tx) -> Result<bool, ErrorResponse> {
        let (seen, now) = (session.memory.lock().last, tx.read_tx_id());
        let Some(seen) = seen else { return Ok(false) };
        let pipeline = self.node.pipeline();
        let is_of_now = |tx_id: TxId| pipeline.view_for_seqno(tx_id.seqno) == Some(tx_id.view);
        let is_before = seen.seqno <= now.seqno;
        if is_before && (seen.view == now.view || is_of_now(seen) && is_of_now(now)) {
            return Ok(false);
        }
        let is_lost = match pipeline.status(seen) {
            TxStatus::Invalid => true,
            // Nobody but the primary adds to its state.
            TxStatus::Unknown => pipeline.leads(),
            TxStatus::Pending | TxStatus::Committed => false,
        };
        if !is_lost {
            return Ok(true);
        }
        session.close();
        let message = format!("Transaction {seen} of this session may be lost in an election.");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Err(ErrorResponse::new(status, ErrorCode::SessionConsistencyLost, message))
    }

    /// Answers from what is known to be committed here: at once, unless that is to be everything that
    /// was committed before.
    pub(super) fn when_known(
        self: &Arc<Self>,
        session: &Session,
        wishes: Wishes,
        answer: impl FnOnce(&Arc<Self>) -> Reply + Send + 'static,
    ) -> Reply {
        if !wishes.lag() {
            return answer(self);
        }
        let (this, patience) = (self.clone(), session.interface.timeouts.forwarding);
        Reply::Later(Box::pin(async move {
            let pipeline = this.node.pipeline();
            if !pipeline.catch_up(patience).await {
                return not_confirmed();
            }
            // It is here; that it is committed may have to be heard yet.
            let known = pipeline.wait_committed(pipeline.store().head());
            match within(this.node.host().as_ref(), patience, known).await {
                Some(TxStatus::Committed) => answer(&this).given().await,
                _ => not_confirmed(),
            }
        }))
    }

    /// Executes once everything that was committed before is known to be here.
    pub(super) fn when_caught_up(
        self: &Arc<Self>,
        session: Arc<Session>,
        request: Request,
        target: Target,
        wishes: Wishes,
    ) -> Reply {
        let this = self.clone();
        Reply::Later(Box::pin(async move {
            let patience = session.interface.timeouts.forwarding;
            if !this.node.pipeline().catch_up(patience).await {
                return not_confirmed();
            }
            let reply = match this.attempt(&session, request, target, wishes.caught_up()) {
                Attempt::Answered(reply) => reply,
                Attempt::Full(request) | Attempt::Behind(request) => {
                    this.when_there_is_room(session, request, target, wishes.caught_up())
                }
            };
            reply.given().await
        }))
    }
}

fn not_confirmed() -> Response {
    let message = "No quorum has confirmed in time that the state of this node is recent.";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    try_again(&ErrorResponse::new(status, ErrorCode::PrimaryNotFound, message))
}
