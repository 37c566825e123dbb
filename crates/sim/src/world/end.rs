//! The end: what must be true when everything is well again.

use coco_consensus::{Consensus, NodeId};
use coco_ledger::split_entry;

use super::{Process, State, World};
use crate::receipts::check_receipts;
use crate::replica::Replica;

/// Where the flags of an entry stand in its frame header.
const FLAGS_AT: usize = 1;

impl World {
    fn members(&self) -> Vec<&Process> {
        let Some(primary) = self.leading().and_then(|id| self.processes.get(&id)) else {
            return Vec::new();
        };
        let members = primary.node.raft.membership().nodes();
        self.processes
            .values()
            .filter(|process| members.contains(&process.node.id) && process.state != State::Gone)
            .collect()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.why_unsettled().is_empty()
    }

    /// What is still open; empty if nothing.
    pub(super) fn why_unsettled(&self) -> String {
        let Some(primary) = self.leading().and_then(|id| self.processes.get(&id)) else {
            return "nobody leads".into();
        };
        let membership = primary.node.raft.membership();
        if membership.is_joint() || !membership.learners.is_empty() {
            return format!("the membership changes: {membership:?}");
        }
        if (membership.voters.len() as u64) < self.plan.nodes {
            return format!("{} voters instead of {}", membership.voters.len(), self.plan.nodes);
        }
        if let Some(gone) = membership.voters.iter().find(|node| !self.runs(**node)) {
            return format!("{gone:?} is gone and votes");
        }
        let end = primary.node.replica.end;
        for Process { node, is_harmed, .. } in self.members() {
            let (committed, synced) = (node.raft.committed(), node.disk.synced());
            let on_disk = synced.batches.last().map(|(last, _)| *last).unwrap_or_default();
            let is_on_disk = on_disk == end || *is_harmed;
            if committed != end || !is_on_disk || node.raft.membership() != membership {
                return format!("{:?} is at {committed}, on disk {on_disk}, not at {end}", node.id);
            }
        }
        String::new()
    }

    /// Reads every disk with fresh eyes, verifies receipts, and explains what clients saw.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        let (harmed, sound): (Vec<_>, Vec<_>) =
            self.members().into_iter().partition(|process| process.is_harmed);
        let ids = |processes: Vec<&Process>| -> Vec<NodeId> {
            processes.into_iter().map(|process| process.node.id).collect()
        };
        let (harmed, sound) = (ids(harmed), ids(sound));
        let mut ledger = Vec::new();
        for id in sound {
            let bytes = self.check_disk(id)?;
            if !ledger.is_empty() && ledger != bytes {
                return Err(format!("{id:?} has another history"));
            }
            ledger = bytes;
        }
        harmed.into_iter().try_for_each(|id| self.check_harmed_disk(id, &ledger))?;
        self.report.receipts = check_receipts(&ledger, &self.service, &mut self.random)?;
        let open: Vec<_> = self.clients.iter().filter_map(|client| client.doing).collect();
        open.into_iter().try_for_each(|doing| self.lose_answer(doing.operation))?;
        self.report.history_checked = self.history.len() as u64;
        let (unexplained, undecided) = self.history.check();
        self.report.undecided = undecided;
        match unexplained {
            Some(key) => Err(format!("the operations on key {key} are not linearizable")),
            None => Ok(()),
        }
    }

    /// A disk that nobody has harmed holds the whole history, and nothing else.
    fn check_disk(&mut self, id: NodeId) -> Result<Vec<u8>, String> {
        let Some(process) = self.processes.get(&id) else { return Ok(Vec::new()) };
        let bytes = process.node.disk.synced().bytes.clone();
        let mut replica = Replica::default();
        replica.apply(&bytes, &mut self.service).map_err(|bad| {
            format!("the disk of {id:?} is wrong after {}: {}", bad.end, bad.reason)
        })?;
        process.node.check_nodes_table()?;
        let (last, end) = (replica.end, self.checker.committed());
        if last.seqno != end || self.checker.batch_at(end).is_some_and(|known| known != last) {
            return Err(format!("the disk of {id:?} ends with {last} instead of {end}"));
        }
        match process.node.replica.tree.root() == replica.tree.root() {
            true => Ok(bytes),
            false => Err(format!("{id:?} has another history in memory")),
        }
    }

    /// Whatever has become of a disk: as far as it verifies, it is the one history.
    fn check_harmed_disk(&mut self, id: NodeId, ledger: &[u8]) -> Result<(), String> {
        let Some(process) = self.processes.get(&id) else { return Ok(()) };
        let bytes = &process.node.disk.synced().bytes;
        let right = match Replica::default().apply(bytes, &mut self.service) {
            Ok(_) => bytes.len(),
            Err(bad) => bad.end_bytes,
        };
        match bytes.get(..right).map(unflagged) == ledger.get(..right).map(unflagged) {
            true => Ok(()),
            false => Err(format!("the disk of {id:?} verifies and is another history")),
        }
    }
}

/// A ledger without the flags of its entries: they say where chunks end, and as in CCF nobody signs
/// them, so that a harmed disk verifies whatever they are.
fn unflagged(ledger: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (ledger.to_vec(), ledger);
    while let Ok((_, after)) = split_entry(rest) {
        let entry_at = bytes.len() - rest.len();
        if let Some(flags) = bytes.get_mut(entry_at + FLAGS_AT) {
            *flags = 0;
        }
        rest = after;
    }
    bytes
}
