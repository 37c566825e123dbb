//! The end of a recovery: members have agreed, and the service opens.

use std::sync::Arc;

use coco_adapter::{Outcome, TxStatus};
use coco_governance::complete_recovery;
use coco_governance::recovery::CompleteError;
use coco_governance::tables::ServiceStatus;
use tokio::sync::Notify;

use super::Node;
use crate::dispatch::committed_status;
use crate::pipeline::CommitError;

/// A recovered service does not open.
#[derive(Debug, thiserror::Error)]
enum ReopenError {
    #[error(transparent)]
    Complete(#[from] CompleteError),
    #[error("the opening: {0}")]
    Commit(#[from] CommitError),
    #[error("the node stopped first")]
    Stopped,
    #[error("the ledger's files could not be renamed: {0}")]
    Rename(#[from] std::io::Error),
}

/// Waits until members have agreed to the recovery, and opens the service. The secrets are at hand:
/// the TEE has unsealed them.
pub(super) async fn run(node: Node) {
    wait_for_members(&node).await;
    match reopen(&node).await {
        Ok(()) => tracing::info!("the members have agreed: the recovered service is open"),
        Err(error) => tracing::error!(%error, "the recovered service does not open"),
    }
}

async fn wait_for_members(node: &Node) {
    let committed = Arc::new(Notify::new());
    let told = Arc::clone(&committed);
    node.pipeline().on_committed(Box::new(move |_| told.notify_one()));
    while committed_status(node) != Some(ServiceStatus::WaitingForRecoveryShares) {
        committed.notified().await;
    }
}

async fn reopen(node: &Node) -> Result<(), ReopenError> {
    let outcome = Outcome { force_chunk: true, force_snapshot: true, ..Outcome::default() };
    let committed = loop {
        let mut tx = node.pipeline().store().begin();
        complete_recovery(&mut tx, &**node.service_keys(), node.environment())?;
        match node.pipeline().commit_and_wait(tx, &outcome) {
            Ok((_, committed)) => break committed,
            Err(CommitError::Conflict) => {}
            Err(CommitError::TooManyPending) => node.pipeline().more_committed().await,
            Err(error) => return Err(error.into()),
        }
    };
    if committed.await != TxStatus::Committed {
        return Err(ReopenError::Stopped);
    }
    Ok(node.pipeline().end_recovery().await?)
}
