//! The last phase of a retirement: that a node is retired is committed, and the primary says so, so
//! that everybody sees that the node may be stopped.

use std::sync::Arc;
use std::time::Duration;

use coco_adapter::Outcome;
use coco_consensus::Role;
use coco_governance::tables::{NODES, NodeStatus, TableError, TableKey as _};
use tokio::sync::Notify;

use super::Node;
use crate::pipeline::CommitError;

/// Many commitments are one occasion.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Records committed retirements for as long as the node runs.
pub(super) async fn run(node: Node) {
    let committed = Arc::new(Notify::new());
    let told = Arc::clone(&committed);
    node.pipeline().on_committed(Box::new(move |_| told.notify_one()));
    loop {
        if matches!(node.pipeline().role(), Role::Primary(_)) {
            match record(&node) {
                Ok(()) => {}
                Err(error) => tracing::error!(%error, "a retirement is not recorded"),
            }
        }
        committed.notified().await;
        node.host().sleep(DEBOUNCE).await;
    }
}

fn record(node: &Node) -> Result<(), TableError> {
    let pipeline = node.pipeline();
    let committed = pipeline.last_committed().seqno;
    let members = pipeline.membership().nodes();
    let mut tx = pipeline.store().begin();
    let rows = NODES.rows(&mut tx)?;
    let mut records = false;
    for (id, mut info) in rows {
        if info.status != NodeStatus::Retired || info.retired_committed {
            continue;
        }
        let version = tx.version_of_previous_write(NODES.name(), &id.to_bytes());
        let takes_part = members.contains(&coco_consensus::NodeId(id));
        if version.is_some_and(|version| version <= committed) && !takes_part {
            info.retired_committed = true;
            NODES.put(&mut tx, &id, &info);
            records = true;
        }
    }
    if records {
        match pipeline.commit(tx, &Outcome::default()) {
            Ok(_) => {}
            // The next commitment is another occasion.
            Err(CommitError::Conflict | CommitError::TooManyPending | CommitError::NotPrimary) => {}
            Err(error) => tracing::warn!(%error, "a retirement is not recorded"),
        }
    }
    Ok(())
}
