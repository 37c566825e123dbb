//! What a node has left after a step: carried out, and held against what must be.

use coco_consensus::{Membership, NodeId};

use super::{Event, World, first_bytes};
use crate::node::Commit;

impl World {
    pub(super) fn after_all(&mut self) -> Result<(), String> {
        let nodes: Vec<_> = self.processes.keys().copied().collect();
        nodes.into_iter().try_for_each(|node| self.after(node))
    }

    /// Carries out and checks what a node has left.
    pub(super) fn after(&mut self, id: NodeId) -> Result<(), String> {
        let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
        let outbox = std::mem::take(&mut process.node.outbox);
        let slow = process.slow_until_us > self.now_us;
        let syncs = process.node.disk.begin_sync();
        let is_full = process.disk_is_full && syncs;
        for view in outbox.leads {
            self.checker.lead(id, view)?;
            self.ambush(id);
        }
        for (to, frame) in outbox.frames {
            self.send(id, to, frame);
        }
        for (tx_id, entry) in outbox.encrypted {
            self.checker.encrypt(id, tx_id, entry)?;
        }
        for last in outbox.void {
            self.checker.take_back(id, last)?;
        }
        for commit in outbox.commits {
            self.commit(id, &commit)?;
        }
        if let Some(violation) = outbox.violation {
            return Err(violation);
        }
        for (operation, outcome) in outbox.replies {
            self.answer(operation, outcome)?;
        }
        if let Some(at) = outbox.install {
            let pause = self.random.between(5_000, 100_000);
            self.schedule(pause, Event::Fetched(id, at));
        }
        if syncs {
            let longest = if slow { 400_000 } else { self.plan.sync_us };
            let takes = self.random.between(self.plan.sync_us / 10, longest);
            self.schedule(takes, Event::Synced(id));
        }
        // The write fails, and the node cannot go on without it.
        if is_full && self.can_lose(id) {
            self.crash(id)?;
        }
        Ok(())
    }

    fn send(&mut self, from: NodeId, to: NodeId, frame: bytes::Bytes) {
        let link = (from, to);
        let arrivals = self.network.send(&self.plan, link, frame, self.now_us, &mut self.random);
        for arrival in arrivals {
            let after_us = arrival.at_us - self.now_us;
            self.schedule(after_us, Event::Frame(arrival));
        }
    }

    fn commit(&mut self, id: NodeId, commit: &Commit) -> Result<(), String> {
        let root = u64::from_be_bytes(first_bytes(NodeId(commit.root)));
        self.report.trace(commit.tx_id.seqno.0, root);
        let processes = &self.processes;
        let view = processes.get(&id).and_then(|process| process.node.leads()).unwrap_or_default();
        // What was on a disk before its host took it away has been there.
        let on_disk = |node: NodeId| {
            let process = processes.get(&node);
            process.is_some_and(|process| {
                process.is_harmed || process.node.disk.synced().holds(commit.tx_id)
            })
        };
        let in_view = |node: NodeId| {
            processes.get(&node).is_some_and(|process| process.node.raft.last().view >= view)
        };
        let any = |holds: &dyn Fn(NodeId) -> bool| {
            let mut known = commit.memberships.iter().filter(|known| !known.voters.is_empty());
            known.any(|membership| membership.is_quorum(holds))
        };
        // Whoever recovers the service from the disks of a quorum goes by the newest last batch.
        let last = |node: NodeId| {
            let process = processes
                .get(&node)
                .filter(|process| !process.is_harmed && !process.node.disk.has_gap())?;
            let last = process.node.disk.synced().batches.last();
            Some(last.map(|(last, _)| (last.view, last.seqno)).unwrap_or_default())
        };
        let misleads = |membership: &Membership, lacks: NodeId| {
            last(lacks).is_some_and(|newest| {
                membership.is_quorum(|other| last(other).is_some_and(|last| last <= newest))
            })
        };
        let misleading = || {
            let mut found = None;
            for membership in commit.memberships.iter().filter(|known| !known.voters.is_empty()) {
                let mut voters = membership.voters.union(&membership.outgoing).copied();
                found =
                    Some(voters.find(|voter| !on_disk(*voter) && misleads(membership, *voter))?);
            }
            found
        };
        self.checker.commit(id, commit, || any(&on_disk), || any(&in_view), misleading)
    }
}
