//! Nodes that wait to be trusted. They ask again and again; who asks no more is forgotten, so that
//! whoever has evidence cannot fill the list of nodes.

use std::collections::HashMap;
use std::time::Duration;

use coco_adapter::Outcome;
use coco_consensus::Role;
use coco_crypto::Digest;
use coco_governance::tables::{NODES, NodeStatus, TableError};
use coco_kv::Tx;
use parking_lot::Mutex;

use super::Node;
use crate::pipeline::CommitError;

/// The list is looked through no more often than this, and no more seldom than that.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When nodes that wait were last heard of, since this one is primary.
#[derive(Default)]
pub(crate) struct PendingNodes(Mutex<HashMap<Digest, Duration>>);

impl PendingNodes {
    /// One has asked, at this uptime.
    pub fn heard(&self, id: Digest, now: Duration) {
        self.0.lock().insert(id, now);
    }

    /// The one that was silent for longest, of these.
    pub fn most_silent(&self, pending: &[Digest]) -> Option<Digest> {
        let heard = self.0.lock();
        pending.iter().min_by_key(|id| (heard.get(id), **id)).copied()
    }

    /// Those of these, which are all that wait, that were silent for longer than `timeout`. Of who
    /// was not heard of yet the time begins to count.
    fn silent(&self, pending: &[Digest], now: Duration, timeout: Duration) -> Vec<Digest> {
        let mut heard = self.0.lock();
        heard.retain(|id, _| pending.contains(id));
        let is_silent = |id: &&Digest| {
            let last = *heard.entry(**id).or_insert(now);
            now.saturating_sub(last) > timeout
        };
        pending.iter().filter(is_silent).copied().collect()
    }
}

/// The nodes that wait.
pub(crate) fn pending(tx: &mut Tx) -> Result<Vec<Digest>, TableError> {
    let rows = NODES.rows(tx)?.into_iter();
    Ok(rows.filter(|(_, info)| info.status == NodeStatus::Pending).map(|(id, _)| id).collect())
}

/// Forgets who asks no more, for as long as the node runs.
pub(super) async fn run(node: Node) {
    let timeout = node.config().pending_node_timeout.0;
    let pause = (timeout / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    loop {
        node.host().sleep(pause).await;
        if !matches!(node.pipeline().role(), Role::Primary(_)) {
            node.pending_nodes().0.lock().clear();
        } else if let Err(error) = forget(&node, timeout) {
            tracing::error!(%error, "nodes that wait cannot be looked through");
        }
    }
}

fn forget(node: &Node, timeout: Duration) -> Result<(), TableError> {
    let mut tx = node.pipeline().store().begin();
    let pending = pending(&mut tx)?;
    let silent = node.pending_nodes().silent(&pending, node.host().uptime(), timeout);
    if silent.is_empty() {
        return Ok(());
    }
    for id in &silent {
        tracing::info!(node = %id, "forgotten: it has waited to be trusted and asks no more");
        NODES.remove(&mut tx, id);
    }
    match node.pipeline().commit(tx, &Outcome::default()) {
        Ok(_) => {}
        // The next look is another occasion.
        Err(CommitError::Conflict | CommitError::TooManyPending | CommitError::NotPrimary) => {}
        Err(error) => tracing::warn!(%error, "nodes that ask no more are not forgotten"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use coco_crypto::sha256;

    use super::*;

    #[test]
    fn who_asks_stays_and_who_is_silent_goes() {
        let ids: Vec<Digest> = (0..4_u8).map(|number| sha256(&[number])).collect();
        let at = Duration::from_secs;
        let nodes = PendingNodes::default();
        nodes.heard(ids[0], at(1));
        nodes.heard(ids[1], at(2));
        assert_eq!(nodes.most_silent(&ids[..2]), Some(ids[0]));
        assert!([ids[2], ids[3]].contains(&nodes.most_silent(&ids).unwrap()));
        assert_eq!(nodes.most_silent(&[]), None);

        let pending = &ids[..3];
        assert!(nodes.silent(pending, at(11), at(10)).is_empty(), "the third counts from now");
        nodes.heard(ids[1], at(20));
        assert_eq!(nodes.silent(pending, at(21), at(10)), [ids[0]]);
        assert_eq!(nodes.silent(pending, at(22), at(10)), [ids[0], ids[2]]);
        assert!(nodes.silent(&ids[1..2], at(22), at(10)).is_empty());
        assert_eq!(nodes.0.lock().len(), 1, "nobody is remembered who waits no more");
    }
}
