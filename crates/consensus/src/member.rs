//! Who takes part in the log.

use std::collections::BTreeSet;
use std::fmt;

use coco_crypto::Digest;

/// Nodes that take part in a log at once, at most.
pub const MAX_MEMBERS: usize = 128;

/// A node: the digest of the key that was made in its enclave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub Digest);

impl NodeId {
    /// The number that the engine knows the node by: the first eight bytes of the digest. Two nodes
    /// of one log must not share it, see [`ChangeError::SameNumber`].
    pub(crate) fn number(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0.0;
        // The engine keeps 0 for "nobody".
        u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("node ")?;
        let [a, b, c, ..] = self.0.0;
        write!(f, "{a:02x}{b:02x}{c:02x}")
    }
}

/// What becomes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Counts for the quorum.
    Voter(NodeId),
    /// Receives the log, but does not count.
    Learner(NodeId),
    /// Takes no part any more.
    Remove(NodeId),
}

impl Change {
    /// The node that it is about.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Voter(node) | Self::Learner(node) | Self::Remove(node) => *node,
        }
    }
}

/// The nodes of a log. While voters are exchanged the membership is *joint*: a quorum is a majority
/// of `voters` and a majority of `outgoing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Nodes that count for the quorum.
    pub voters: BTreeSet<NodeId>,
    /// The voters before the change under way; empty if there is none.
    pub outgoing: BTreeSet<NodeId>,
    /// Nodes that receive the log and do not count.
    pub learners: BTreeSet<NodeId>,
    /// Outgoing voters that become learners at the end of the change.
    pub learners_next: BTreeSet<NodeId>,
}

impl Membership {
    /// The membership of a log with one node.
    pub fn of(node: NodeId) -> Self {
        Self { voters: BTreeSet::from([node]), ..Self::default() }
    }

    /// Whether a change of voters is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether nobody takes part but one node.
    pub fn is_alone(&self) -> bool {
        let lists = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        lists.into_iter().map(BTreeSet::len).sum::<usize>() <= 1
    }

    /// Everybody who takes part, in whatever way.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let lists = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        lists.into_iter().flatten().copied().collect()
    }

    /// Whether the nodes for which `holds` is true are enough to decide.
    pub fn is_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        let majority = |voters: &BTreeSet<NodeId>| {
            voters.is_empty()
                || voters.iter().filter(|node| holds(**node)).count() > voters.len() / 2
        };
        majority(&self.voters) && majority(&self.outgoing)
    }

    /// Whether the changes can be made to this membership.
    ///
    /// # Errors
    /// If they contradict each other or leave nobody.
    pub fn check(&self, changes: &[Change]) -> Result<(), ChangeError> {
        let changed: BTreeSet<_> = changes.iter().map(Change::node).collect();
        if changes.is_empty() || changed.len() != changes.len() {
            return Err(ChangeError::Contradiction);
        }
        let mut voters = self.voters.clone();
        let mut nodes = self.nodes();
        for change in changes {
            let node = change.node();
            voters.remove(&node);
            match change {
                Change::Voter(_) => voters.insert(node) | nodes.insert(node),
                Change::Learner(_) => nodes.insert(node),
                Change::Remove(_) => false,
            };
        }
        if voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        if nodes.len() > MAX_MEMBERS {
            return Err(ChangeError::TooMany);
        }
        let numbers: BTreeSet<_> = nodes.iter().map(|node| node.number()).collect();
        if numbers.len() != nodes.len() {
            return Err(ChangeError::SameNumber);
        }
        Ok(())
    }
}

/// A membership cannot be changed in this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no change, or two about one node.
    #[error("a change of membership names each node once, and at least one")]
    Contradiction,
    /// Nobody would be left to decide.
    #[error("a log needs a voter")]
    NoVoters,
    /// More than [`MAX_MEMBERS`].
    #[error("a log has at most {MAX_MEMBERS} nodes")]
    TooMany,
    /// Two digests agree in their first eight bytes, which the engine tells nodes apart by: one of
    /// them must make itself another key.
    #[error("the ids of two nodes begin with the same eight bytes")]
    SameNumber,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId(Digest([number; 32]))
    }

    #[test]
    fn a_change_that_cannot_be_made_is_refused() {
        let three = Membership { voters: (1..=3).map(node).collect(), ..Membership::default() };
        let check = |changes: &[Change]| three.check(changes);
        assert_eq!(check(&[]), Err(ChangeError::Contradiction));
        let twice = [Change::Voter(node(4)), Change::Remove(node(4))];
        assert_eq!(check(&twice), Err(ChangeError::Contradiction));
        let all: Vec<_> = (1..=3).map(|number| Change::Remove(node(number))).collect();
        assert_eq!(check(&all), Err(ChangeError::NoVoters));
        let demoted: Vec<_> = (1..=3).map(|number| Change::Learner(node(number))).collect();
        assert_eq!(check(&demoted), Err(ChangeError::NoVoters));
        let mut twin = node(1);
        twin.0.0[31] = 0;
        assert_eq!(check(&[Change::Learner(twin)]), Err(ChangeError::SameNumber));
        let many: Vec<_> = (4..=200).map(|number| Change::Learner(node(number))).collect();
        assert_eq!(check(&many), Err(ChangeError::TooMany));
        assert_eq!(check(&[Change::Voter(node(4)), Change::Remove(node(1))]), Ok(()));
    }

    #[test]
    fn one_node_is_alone_until_another_takes_part_in_whatever_way() {
        let alone = Membership::of(node(1));
        assert!(alone.is_alone());
        let others = [
            Membership { voters: [1, 2].map(node).into(), ..Membership::default() },
            Membership { outgoing: [node(2)].into(), ..alone.clone() },
            Membership { learners: [node(2)].into(), ..alone.clone() },
            Membership { learners_next: [node(2)].into(), ..alone },
        ];
        assert!(others.iter().all(|membership| !membership.is_alone()));
    }

    #[test]
    fn a_joint_membership_needs_both_majorities() {
        let joint = Membership {
            voters: (1..=3).map(node).collect(),
            outgoing: (3..=5).map(node).collect(),
            ..Membership::default()
        };
        let among = |numbers: &[u8]| joint.is_quorum(|id| numbers.contains(&id.0.0[0]));
        assert!(among(&[1, 3, 4]));
        assert!(!among(&[1, 2, 3]));
        assert!(!among(&[3, 4, 5]));
    }
}
