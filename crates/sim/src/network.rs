//! The network between nodes: what is cut, lost, late or doubled.

use std::collections::BTreeMap;

use coco_consensus::NodeId;

use crate::plan::Plan;
use crate::random::Random;

/// Directed links that are down, until when.
#[derive(Debug, Default)]
pub struct Network {
    cut: BTreeMap<(NodeId, NodeId), u64>,
    /// Frames that did not arrive.
    pub lost: u64,
    /// Frames that arrived twice.
    pub doubled: u64,
    /// Frames that arrived much later.
    pub late: u64,
}

impl Network {
    /// Takes a link down.
    pub fn cut(&mut self, from: NodeId, to: NodeId, until_us: u64) {
        let end = self.cut.entry((from, to)).or_default();
        *end = (*end).max(until_us);
    }

    /// All links are up.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// When copies of a frame sent now arrive: none if it is lost, two if it is doubled.
    pub fn arrivals(
        &mut self,
        plan: &Plan,
        (from, to): (NodeId, NodeId),
        now_us: u64,
        random: &mut Random,
    ) -> Vec<u64> {
        let is_cut = self.cut.get(&(from, to)).is_some_and(|until| *until > now_us);
        if is_cut || random.chance(plan.loss_per_mille) {
            self.lost += 1;
            return Vec::new();
        }
        let copies = 1 + u64::from(random.chance(plan.double_per_mille));
        self.doubled += copies - 1;
        (0..copies)
            .map(|_| {
                let is_late = random.chance(plan.late_per_mille);
                self.late += u64::from(is_late);
                let more = if is_late { random.between(5_000, 80_000) } else { 0 };
                now_us + random.between(plan.delay_us / 4, plan.delay_us) + more
            })
            .collect()
    }
}
