//! Faults.

use std::collections::BTreeSet;

use coco_consensus::NodeId;

use super::{Event, State, World};
use crate::plan::{Fault, TICK_US};

/// The next primary is cut off, among many from all but the former one.
pub(super) struct Ambush {
    former: NodeId,
    /// Has what the former primary has, and may take its place after the next: itself among few.
    heir: NodeId,
    until_us: u64,
}

impl World {
    /// Whether the service can go on without a node and its disk, whoever's word counts.
    pub(super) fn can_lose(&self, lost: NodeId) -> bool {
        let stays = |node: NodeId| node != lost && self.is_sound(node);
        let committed = self.checker.committed();
        let mut to_come = self.proposed.iter().filter(|(seqno, _)| *seqno > committed);
        to_come.all(|(_, membership)| membership.is_quorum(stays))
            && self
                .processes
                .values()
                .filter(|process| process.state != State::Gone && process.node.id != lost)
                .all(|process| {
                    let membership = process.node.raft.membership();
                    membership.voters.is_empty() || membership.is_quorum(stays)
                })
            && self.processes.values().any(|process| {
                process.state != State::Gone
                    && process.node.id != lost
                    && !process.node.raft.membership().voters.is_empty()
            })
    }

    /// One fault, if it can be now.
    pub(super) fn inject(&mut self) {
        let Some(fault) = self.random.pick(&self.plan.faults) else { return };
        let running = self.running();
        // The primary twice: most goes wrong there.
        let candidates: Vec<_> = running.iter().copied().chain(self.leading()).collect();
        let Some(victim) = self.random.pick(&candidates) else { return };
        let lasts_us = self.random.between(50_000, 1_500_000);
        let happens = match fault {
            Fault::Partition | Fault::OneWay | Fault::Flapping => {
                self.cut_links(fault, victim, &running, lasts_us)
            }
            Fault::Usurp => self.lay_ambush(lasts_us),
            Fault::Crash => self.can_lose(victim) && self.crash(victim).is_ok(),
            Fault::Pause => self.pause(victim, lasts_us),
            Fault::SlowDisk
            | Fault::FullDisk
            | Fault::BitFlip
            | Fault::RollBack
            | Fault::LyingSync => self.harm_disk(fault, victim, lasts_us),
            Fault::ClockJump | Fault::ClockStop | Fault::ClockDrift => {
                self.turn_clock(fault, victim, lasts_us)
            }
            Fault::Transfer => self.transfer(victim, &running),
            Fault::Replace => {
                let leave = self.at(victim, |process, _, _| process.leaves |= process.was_member);
                leave.is_some()
            }
        };
        if happens {
            self.report.count(fault);
        }
    }

    fn cut_links(
        &mut self,
        fault: Fault,
        victim: NodeId,
        running: &[NodeId],
        lasts_us: u64,
    ) -> bool {
        let until_us = self.now_us + lasts_us;
        if fault == Fault::Partition {
            let apart = running.iter().copied().filter(|_| self.random.chance(400)).collect();
            self.cut_off(&apart, running, until_us);
            return true;
        }
        for other in running.iter().filter(|node| **node != victim) {
            if fault == Fault::OneWay {
                self.network.cut(victim, *other, until_us);
            } else {
                let short = self.now_us + self.random.between(5_000, 150_000);
                self.network.cut(victim, *other, short);
                self.network.cut(*other, victim, short);
            }
        }
        true
    }

    fn cut_off(&mut self, apart: &BTreeSet<NodeId>, all: &[NodeId], until_us: u64) {
        for one in apart {
            for other in all.iter().filter(|node| !apart.contains(node)) {
                self.network.cut(*one, *other, until_us);
                self.network.cut(*other, *one, until_us);
            }
        }
    }

    /// Cuts the primary off, among many with one backup: what it still writes is there only.
    fn lay_ambush(&mut self, lasts_us: u64) -> bool {
        let primary = self.leading().and_then(|id| self.processes.get(&id));
        let Some(primary) = primary.map(|process| &process.node) else { return false };
        let (former, membership) = (primary.id, primary.raft.membership().clone());
        let voters: Vec<_> = membership.voters.iter().copied().collect();
        let others: Vec<_> = voters.iter().copied().filter(|node| *node != former).collect();
        let Some(heir) = self.random.pick(&others).filter(|_| voters.len() >= 3) else {
            return false;
        };
        let heir = if voters.len() >= 5 { heir } else { former };
        let until_us = self.now_us + lasts_us.max(700_000);
        self.cut_off(&BTreeSet::from([former, heir]), &voters, until_us);
        self.ambush = Some(Ambush { former, heir, until_us });
        true
    }

    /// A node begins to lead, and has not said so yet.
    pub(super) fn ambush(&mut self, leads: NodeId) {
        let is_next = |ambush: &mut Ambush| ambush.former != leads;
        let Some(Ambush { former, heir, until_us }) = self.ambush.take_if(is_next) else { return };
        if until_us < self.now_us || heir == leads {
            return;
        }
        let all: Vec<_> = self.processes.keys().copied().collect();
        let until_us = self.now_us + 1_000_000;
        for other in all.iter().filter(|node| ![former, leads].contains(node)) {
            self.network.mend(heir, *other);
        }
        let mut apart = BTreeSet::from([leads]);
        if heir != former {
            self.network.mend(former, leads);
            apart.insert(former);
        }
        self.cut_off(&apart, &all, until_us);
    }

    fn pause(&mut self, victim: NodeId, lasts_us: u64) -> bool {
        self.at(victim, |process, _, _| process.state = State::Paused);
        self.schedule(lasts_us, Event::Resume(victim));
        true
    }

    fn harm_disk(&mut self, fault: Fault, victim: NodeId, lasts_us: u64) -> bool {
        let can_lose = self.can_lose(victim);
        let until_us = self.now_us + lasts_us;
        if fault == Fault::LyingSync {
            self.schedule(lasts_us, Event::Honest(victim));
        }
        let harmed = self.at(victim, |process, _, random| {
            match fault {
                Fault::SlowDisk => process.slow_until_us = until_us,
                Fault::LyingSync => process.node.disk.lie(true),
                _ if !can_lose => return false,
                Fault::FullDisk => process.disk_is_full = true,
                Fault::BitFlip => {
                    process.node.disk.flip(random);
                    process.is_harmed = true;
                }
                _ => {
                    process.node.disk.roll_back(random);
                    process.is_harmed = true;
                }
            }
            true
        });
        harmed == Some(true)
    }

    fn turn_clock(&mut self, fault: Fault, victim: NodeId, lasts_us: u64) -> bool {
        let until_us = self.now_us + lasts_us;
        let turned = self.at(victim, |process, service, random| match fault {
            Fault::ClockStop => process.stopped_until_us = until_us,
            Fault::ClockDrift => process.tick_us = random.between(TICK_US / 3, TICK_US * 3),
            _ => {
                for _ in 0..random.between(2, 60) {
                    process.node.tick(service, random);
                }
            }
        });
        turned.is_some()
    }

    fn transfer(&mut self, to: NodeId, running: &[NodeId]) -> bool {
        if let (Some(primary), true) = (self.leading(), running.len() > 1) {
            self.at(primary, |process, service, random| {
                process.node.hand_over(to, service, random)
            });
        }
        true
    }
}
