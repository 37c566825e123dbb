//! The operator, who keeps as many voters running as the plan says.

use coco_consensus::{Change, Consensus, Membership, NodeId};

use super::{State, World};

/// Processes that a run starts, at most.
const MAX_NODES: u64 = 40;

impl World {
    pub(super) fn runs(&self, node: NodeId) -> bool {
        self.processes.get(&node).is_some_and(|process| process.state != State::Gone)
    }

    /// Whether a node runs and its disk is its own.
    pub(super) fn is_sound(&self, node: NodeId) -> bool {
        self.runs(node) && self.processes.get(&node).is_some_and(|process| !process.is_harmed)
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        let running = self.processes.values().filter(|process| process.state == State::Running);
        running.map(|process| process.node.id).collect()
    }

    pub(super) fn leading(&self) -> Option<NodeId> {
        let running = self.processes.values().filter(|process| process.state == State::Running);
        running
            .filter_map(|process| Some((process.node.leads()?, process.node.id)))
            .max()
            .map(|(_, id)| id)
    }

    /// A look at the nodes, and what it asks for.
    pub(super) fn operate(&mut self) -> Result<(), String> {
        let Some(primary) = self.leading() else { return Ok(()) };
        let Some(process) = self.processes.get(&primary) else { return Ok(()) };
        let membership = process.node.raft.membership().clone();
        let committed = process.node.raft.committed().seqno;
        let caught_up: Vec<_> = process
            .node
            .raft
            .replicas()
            .into_iter()
            .filter(|replica| {
                membership.learners.contains(&replica.node)
                    && !replica.is_installing
                    && replica.persisted.seqno.0 + 8 >= committed.0
                    && self.is_sound(replica.node)
            })
            .map(|replica| replica.node)
            .collect();
        self.let_go_of_former_members(primary, &membership)?;
        if membership.is_joint() {
            return Ok(());
        }
        if let Some(changes) = self.next_change(&membership, &caught_up) {
            let done = self.at(primary, |process, service, random| {
                process.node.change(&changes, service, random)
            });
            if done == Some(true) {
                self.report.membership_changes += 1;
                self.note_proposed(primary, membership, &changes);
            }
        }
        Ok(())
    }

    fn note_proposed(&mut self, primary: NodeId, mut membership: Membership, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Voter(node) => membership.voters.insert(*node),
                Change::Learner(node) | Change::Remove(node) => membership.voters.remove(node),
            };
        }
        let end = self.processes.get(&primary).map(|process| process.node.replica.end.seqno);
        let committed = self.checker.committed();
        self.proposed.retain(|(seqno, _)| *seqno > committed);
        self.proposed.extend(end.map(|end| (end, membership)));
    }

    /// A former member is stopped when it is committed that it may be: by then, whoever can lead
    /// knows that it is none any more (CCF's `RetiredCommitted`).
    fn let_go_of_former_members(
        &mut self,
        primary: NodeId,
        membership: &Membership,
    ) -> Result<(), String> {
        let members = membership.nodes();
        let mut former = Vec::new();
        for process in self.processes.values_mut().filter(|process| process.state != State::Gone) {
            let is_member = members.contains(&process.node.id);
            process.was_member |= is_member;
            if process.was_member && !is_member {
                former.push((process.node.id, process.let_go));
            }
        }
        for (node, let_go) in former {
            let committed = let_go.and_then(|let_go| self.checker.is_committed(let_go));
            if committed == Some(true) {
                self.crash(node)?;
            } else if let_go.is_none() || committed == Some(false) {
                let let_go = self.at(primary, |process, service, random| {
                    process.node.let_go(node, service, random)
                });
                self.at(node, |process, _, _| process.let_go = let_go.flatten());
            }
        }
        Ok(())
    }

    /// What to change next, if anything; starts a process if one is missing.
    fn next_change(
        &mut self,
        membership: &Membership,
        caught_up: &[NodeId],
    ) -> Option<Vec<Change>> {
        let useless = membership.learners.iter().find(|node| !self.is_sound(**node));
        if let Some(useless) = useless {
            return Some(vec![Change::Remove(*useless)]);
        }
        let is_leaving = |node: &&NodeId| {
            let leaves = self.processes.get(*node).is_some_and(|process| process.leaves);
            leaves || !self.runs(**node)
        };
        let leaving = membership.voters.iter().find(is_leaving).copied();
        let wanted = membership.voters.len() as u64 + u64::from(leaving.is_none());
        let is_short = leaving.is_some() || wanted <= self.plan.nodes;
        if let (Some(ready), true) = (caught_up.first(), is_short) {
            let mut changes = vec![Change::Voter(*ready)];
            changes.extend(leaving.map(Change::Remove));
            return Some(changes);
        }
        let members = membership.nodes();
        let spare = self.processes.values().find(|process| {
            let is_new = !members.contains(&process.node.id) && !process.was_member;
            process.state == State::Running && is_new && process.node.raft.last().index == 0
        });
        let spare = spare.map(|process| process.node.id);
        match spare {
            _ if !is_short || !membership.learners.is_empty() => None,
            Some(spare) => Some(vec![Change::Learner(spare)]),
            None if (self.processes.len() as u64) < MAX_NODES => {
                self.start_node();
                None
            }
            None => None,
        }
    }
}
