//! A backup fetches the snapshots that the primary writes, as `snapshots.backup_fetch` says: whatever
//! becomes of the primary, another node has the newest.

use std::sync::Arc;
use std::time::Duration;

use coco_consensus::Role;
use coco_kv::{MapName, Seqno};
use coco_ledger::tables::{SINGLE_KEY, SNAPSHOT_EVIDENCE};
use tokio::sync::Notify;

use super::Node;
use crate::config::BackupFetch;
use crate::snapshots::FetchRules;

/// Many commitments are one occasion.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Fetches each snapshot once it is recorded, for as long as the node runs.
pub(super) async fn run(node: Node, config: BackupFetch) {
    let committed = Arc::new(Notify::new());
    let told = Arc::clone(&committed);
    node.pipeline().on_committed(Box::new(move |_| told.notify_one()));
    let mut fetched = Seqno(0);
    loop {
        committed.notified().await;
        node.host().sleep(DEBOUNCE).await;
        let Some(recorded) = last_recorded(&node).filter(|recorded| *recorded > fetched) else {
            continue;
        };
        fetched = recorded;
        if matches!(node.pipeline().role(), Role::Backup { .. }) {
            fetch(&node, &config, recorded).await;
        }
    }
}

/// Where the newest snapshot is recorded, as far as that is committed.
fn last_recorded(node: &Node) -> Option<Seqno> {
    let pipeline = node.pipeline();
    let committed = pipeline.last_committed().seqno;
    let mut tx = pipeline.store().begin();
    let recorded = tx.version_of_previous_write(&MapName::new(SNAPSHOT_EVIDENCE), &SINGLE_KEY)?;
    (recorded <= committed).then_some(recorded)
}

async fn fetch(node: &Node, config: &BackupFetch, recorded: Seqno) {
    let rules = FetchRules::of_backup(config);
    for _ in 0..rules.attempts {
        // Who brings the ledger here brings a snapshot, too.
        if !node.pipeline().is_installing() {
            match node.pipeline().fetch_snapshot(rules).await {
                Ok(Some(newest)) if newest.evidence >= recorded => return,
                Ok(_) => tracing::debug!(%recorded, "no node has the snapshot yet"),
                Err(error) => tracing::warn!(%error, "a snapshot is not fetched"),
            }
        }
        node.host().sleep(rules.pause).await;
    }
    tracing::warn!(%recorded, "the snapshot recorded there is not fetched");
}
