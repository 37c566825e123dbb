//! The network between nodes, and the hosts that carry frames over it: what is cut, lost, late,
//! doubled, or tampered with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use coco_consensus::NodeId;

use crate::channel::Channels;
use crate::plan::Plan;
use crate::random::Random;

/// Frames that a bad host keeps to repeat them.
const KEPT_FRAMES: usize = 256;

/// Bytes that arrive.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When.
    pub at_us: u64,
    /// Whose they are said to be.
    pub from: NodeId,
    /// Whom they are brought to.
    pub to: NodeId,
    /// What arrives.
    pub bytes: Bytes,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    /// Directed links that are down, until when.
    cut: BTreeMap<(NodeId, NodeId), u64>,
    /// Of a run in which hosts tamper with frames; there is no need for them in others.
    channels: Option<Channels>,
    kept: VecDeque<Arrival>,
    nodes: BTreeSet<NodeId>,
    /// Frames that did not arrive.
    pub lost: u64,
    /// Frames that arrived twice.
    pub doubled: u64,
    /// Frames that arrived much later.
    pub late: u64,
    /// Frames that the host changed, brought to another node, or repeated.
    pub tampered: u64,
}

impl Network {
    /// The network of a run.
    pub fn of(seed: u64, plan: &Plan) -> Self {
        Self {
            cut: BTreeMap::new(),
            channels: (plan.tampered_per_mille > 0).then(|| Channels::of(seed)),
            kept: VecDeque::new(),
            nodes: BTreeSet::new(),
            lost: 0,
            doubled: 0,
            late: 0,
            tampered: 0,
        }
    }

    /// Takes a link down.
    pub fn cut(&mut self, from: NodeId, to: NodeId, until_us: u64) {
        let end = self.cut.entry((from, to)).or_default();
        *end = (*end).max(until_us);
    }

    /// Brings the links between two nodes up.
    pub fn mend(&mut self, one: NodeId, other: NodeId) {
        self.cut.remove(&(one, other));
        self.cut.remove(&(other, one));
    }

    /// All links are up.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// What arrives of a frame that is sent now, and perhaps of others.
    pub fn send(
        &mut self,
        plan: &Plan,
        (from, to): (NodeId, NodeId),
        frame: Bytes,
        now_us: u64,
        random: &mut Random,
    ) -> Vec<Arrival> {
        let times = self.times(plan, (from, to), now_us, random);
        let Some(channels) = &self.channels else {
            let arrival = |at_us| Arrival { at_us, from, to, bytes: frame.clone() };
            return times.into_iter().map(arrival).collect();
        };
        let bytes = channels.seal(from, to, &frame);
        let arrival = |at_us| Arrival { at_us, from, to, bytes: bytes.clone() };
        let mut arrivals: Vec<_> = times.into_iter().map(arrival).collect();
        self.nodes.insert(from);
        self.kept.extend(arrivals.first().cloned());
        if self.kept.len() > KEPT_FRAMES {
            self.kept.pop_front();
        }
        if random.chance(plan.tampered_per_mille) {
            self.tampered += 1;
            self.tamper(&mut arrivals, now_us, random);
        }
        arrivals
    }

    /// What the host does to frames on their way.
    fn tamper(&mut self, arrivals: &mut Vec<Arrival>, now_us: u64, random: &mut Random) {
        match (random.below(3), arrivals.last_mut()) {
            (0, Some(last)) => {
                let mut bytes = last.bytes.to_vec();
                let (at, bit) = (random.below(bytes.len() as u64), random.below(8));
                if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                    *byte ^= 1 << bit;
                }
                last.bytes = bytes.into();
            }
            (1, Some(last)) => {
                let nodes: Vec<_> = self.nodes.iter().copied().collect();
                last.to = random.pick(&nodes).unwrap_or(last.to);
            }
            _ => {
                let at = random.below(self.kept.len() as u64);
                let old = usize::try_from(at).ok().and_then(|at| self.kept.get(at)).cloned();
                let at_us = now_us + random.between(1_000, 500_000);
                arrivals.extend(old.map(|old| Arrival { at_us, ..old }));
            }
        }
    }

    /// Whether frames go through channels.
    pub fn is_sealed(&self) -> bool {
        self.channels.is_some()
    }

    /// The frame that has arrived, unless its channel refuses it.
    pub fn open(&self, from: NodeId, to: NodeId, bytes: &Bytes) -> Option<Bytes> {
        match &self.channels {
            Some(channels) => channels.open(from, to, bytes),
            None => Some(bytes.clone()),
        }
    }

    /// When copies of a frame sent now arrive: none if it is lost, two if it is doubled.
    fn times(
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
