//! A run: one event after the other, in virtual time.
//!
//! Here are the events and the processes that they concern; what acts on them is elsewhere:
//! `clients` write and read, the `operator` replaces nodes, `faults` happen, `observe` carries out
//! and checks what a node has left, and `end` is what must be true at last.

mod clients;
mod end;
mod faults;
mod observe;
mod operator;

use std::collections::BTreeMap;

use coco_consensus::{Membership, NodeId};
use coco_kv::{Seqno, TxId};

use crate::channel::Channels;
use crate::check::Checker;
use crate::disk::LedgerFile;
use crate::history::History;
use crate::keys::NodeKey;
use crate::mutant::Mutant;
use crate::network::{Arrival, Network};
use crate::node::Node;
use crate::plan::{Plan, TICK_US};
use crate::random::Random;
use crate::replica::Service;
use crate::report::Report;
use clients::Client;
use faults::Ambush;

/// The operator looks after the nodes.
const OPERATOR_US: u64 = 150_000;
/// Clients go on after the last fault.
const QUIET_US: u64 = 1_000_000;
/// All must be well again this long after the last fault.
const HEALED_WITHIN_US: u64 = 30_000_000;

#[derive(Debug)]
enum Event {
    Tick(NodeId),
    Frame(Arrival),
    Synced(NodeId),
    Fetched(NodeId, TxId),
    Client(usize),
    Timeout(usize, u64),
    Operator,
    Fault,
    Resume(NodeId),
    /// A disk is honest again.
    Honest(NodeId),
    Heal,
    Quiet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Gone,
}

struct Process {
    node: Node,
    state: State,
    /// The length of its ticks.
    tick_us: u64,
    /// Its clock stands still until then.
    stopped_until_us: u64,
    slow_until_us: u64,
    disk_is_full: bool,
    /// What its disk holds may be anything.
    is_harmed: bool,
    /// It is to be replaced.
    leaves: bool,
    was_member: bool,
    /// Says that it is not needed any more, once that is committed.
    let_go: Option<TxId>,
    /// What came while it stood still.
    held: Vec<Event>,
}

/// One run.
pub struct World {
    plan: Plan,
    mutant: Option<Mutant>,
    seed: u64,
    random: Random,
    now_us: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    processes: BTreeMap<NodeId, Process>,
    /// Disks of processes that have crashed.
    left: Vec<LedgerFile>,
    service: Service,
    network: Network,
    checker: Checker,
    history: History,
    clients: Vec<Client>,
    next_operation: u64,
    /// Voters that a proposed change leads to, until its position is committed.
    proposed: Vec<(Seqno, Membership)>,
    ambush: Option<Ambush>,
    answered_since_healing: u64,
    healed: bool,
    quiet: bool,
    report: Report,
}

impl World {
    /// The run of a seed.
    pub fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut random = Random::new(seed);
        // Of another stream, so that runs without what is new are what they were.
        let plan = Plan::draw(&mut random).worsened(&mut Random::new(!seed));
        let clients = (0..plan.clients).map(|_| Client::default()).collect();
        let mut world = Self {
            mutant,
            seed,
            random,
            now_us: 0,
            events: BTreeMap::new(),
            next_event: 0,
            processes: BTreeMap::new(),
            left: Vec::new(),
            service: Service::of(seed),
            network: Network::of(seed, &plan),
            checker: Checker::default(),
            history: History::default(),
            clients,
            next_operation: 1,
            proposed: Vec::new(),
            ambush: None,
            answered_since_healing: 0,
            healed: false,
            quiet: false,
            report: Report::of(seed),
            plan,
        };
        world.start_node();
        world.schedule(1_000, Event::Operator);
        world.schedule(world.plan.chaos_us, Event::Heal);
        world.schedule(world.plan.fault_every_us, Event::Fault);
        (0..world.clients.len()).for_each(|client| world.schedule(50_000, Event::Client(client)));
        world
    }

    /// Plays the run to its end.
    pub fn play(mut self) -> Report {
        let result = self.run().and_then(|()| self.check_end());
        self.report.violation = result.err();
        self.report.virtual_us = self.now_us;
        self.report.batches = self.checker.batches() as u64;
        self.report.views = self.checker.views() as u64;
        self.report.operations = self.history.len() as u64;
        self.report.frames_lost = self.network.lost;
        self.report.frames_doubled = self.network.doubled;
        self.report.frames_late = self.network.late;
        self.report.frames_tampered = self.network.tampered;
        self.report
    }

    fn run(&mut self) -> Result<(), String> {
        let deadline = self.plan.chaos_us + HEALED_WITHIN_US;
        while !(self.quiet && self.is_settled()) {
            let Some(((at, _), event)) = self.events.pop_first() else { break };
            self.now_us = at;
            if at > deadline {
                return Err(format!("no progress after healing: {}", self.why_unsettled()));
            }
            self.handle(event)?;
        }
        Ok(())
    }

    fn schedule(&mut self, after_us: u64, event: Event) {
        self.events.insert((self.now_us + after_us, self.next_event), event);
        self.next_event += 1;
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        let concerns = match &event {
            Event::Tick(node) | Event::Synced(node) | Event::Fetched(node, _) => Some(*node),
            Event::Frame(arrival) => Some(arrival.to),
            _ => None,
        };
        if let Some(node) = concerns {
            let Some(process) = self.processes.get_mut(&node) else { return Ok(()) };
            match process.state {
                State::Gone => return Ok(()),
                State::Paused => {
                    // A clock does not catch up; what came waits.
                    if !matches!(event, Event::Tick(_)) {
                        process.held.push(event);
                    }
                    return Ok(());
                }
                State::Running => {}
            }
            self.report.trace(self.now_us, u64::from_be_bytes(first_bytes(node)));
        }
        match event {
            Event::Tick(id) => self.tick(id),
            Event::Frame(arrival) => self.receive(&arrival),
            Event::Synced(id) => {
                self.at(id, |process, service, random| process.node.synced(service, random));
                self.after(id)
            }
            Event::Fetched(id, at) => self.fetch(id, at),
            Event::Client(client) => self.client(client),
            Event::Timeout(client, operation) => self.time_out(client, operation),
            Event::Operator => {
                self.operate()?;
                self.schedule(OPERATOR_US, Event::Operator);
                self.after_all()
            }
            Event::Fault => {
                if !self.healed {
                    self.inject();
                    let pause = self.random.between(20_000, self.plan.fault_every_us);
                    self.schedule(pause, Event::Fault);
                }
                self.after_all()
            }
            Event::Resume(id) => self.resume(id),
            Event::Honest(id) => {
                self.at(id, |process, _, _| process.node.disk.lie(false));
                Ok(())
            }
            Event::Heal => self.heal(),
            Event::Quiet => {
                // Clients go on until they have seen that the service works.
                match self.answered_since_healing >= 3 {
                    true => self.quiet = true,
                    false => self.schedule(QUIET_US / 4, Event::Quiet),
                }
                Ok(())
            }
        }
    }

    fn tick(&mut self, id: NodeId) -> Result<(), String> {
        let now_us = self.now_us;
        let next_us = self.at(id, |process, service, random| {
            if process.stopped_until_us > now_us {
                return process.stopped_until_us - now_us;
            }
            process.node.tick(service, random);
            process.tick_us
        });
        self.schedule(next_us.unwrap_or(TICK_US), Event::Tick(id));
        self.after(id)
    }

    fn receive(&mut self, arrival: &Arrival) -> Result<(), String> {
        let Arrival { from, to, bytes, .. } = arrival;
        let opened = match self.mutant {
            Some(Mutant::TrustFrames) if self.network.is_sealed() => {
                Some(Channels::unchecked(bytes))
            }
            _ => self.network.open(*from, *to, bytes),
        };
        let Some(frame) = opened else {
            self.report.frames_refused += 1;
            return Ok(());
        };
        self.report.trace(frame.len() as u64, u64::from_be_bytes(first_bytes(*from)));
        self.at(*to, |process, service, random| {
            process.node.receive(*from, frame, service, random);
        });
        self.after(*to)
    }

    /// The last fault is over.
    fn heal(&mut self) -> Result<(), String> {
        self.healed = true;
        self.ambush = None;
        self.network.heal();
        self.plan.loss_per_mille = 0;
        self.plan.tampered_per_mille = 0;
        self.plan.wrong_ledgers_per_mille = 0;
        let nodes: Vec<_> = self.processes.keys().copied().collect();
        for node in nodes {
            if let Some(process) = self.processes.get_mut(&node) {
                process.tick_us = TICK_US;
                process.stopped_until_us = 0;
                process.slow_until_us = 0;
                process.node.disk.lie(false);
            }
            self.resume(node)?;
        }
        self.schedule(QUIET_US, Event::Quiet);
        Ok(())
    }

    fn at<R>(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut Process, &mut Service, &mut Random) -> R,
    ) -> Option<R> {
        let process = self.processes.get_mut(&node)?;
        Some(act(process, &mut self.service, &mut self.random))
    }

    fn start_node(&mut self) {
        let number = self.processes.len() as u64;
        let key = NodeKey::of(self.seed, number);
        let signer = key.clone();
        let settings =
            coco_consensus::Settings { seed: self.random.next(), ..self.plan.settings.clone() };
        let cache = if self.plan.keeps_disks { self.left.pop() } else { None };
        let compacts = self.plan.compacts;
        let node = Node::new(key, settings, number == 0, compacts, cache, self.mutant);
        let id = node.id;
        self.service.keys.insert(id, signer);
        let skew = self.random.below(2 * self.plan.skew_per_mille + 1);
        let tick_us = TICK_US * (1_000 + skew - self.plan.skew_per_mille) / 1_000;
        let process = Process {
            node,
            state: State::Running,
            tick_us,
            stopped_until_us: 0,
            slow_until_us: 0,
            disk_is_full: false,
            is_harmed: false,
            leaves: false,
            was_member: number == 0,
            let_go: None,
            held: Vec::new(),
        };
        self.processes.insert(id, process);
        self.report.processes += 1;
        let first_tick = self.random.below(TICK_US);
        self.schedule(first_tick, Event::Tick(id));
    }

    /// Brings a node the ledger that it was told to install, from somebody who has it.
    fn fetch(&mut self, id: NodeId, at: TxId) -> Result<(), String> {
        let sources: Vec<_> = self
            .processes
            .values()
            .filter(|process| process.state == State::Running && process.node.id != id)
            .filter(|process| process.node.has_for_others(at))
            .map(|process| process.node.id)
            .collect();
        let source = self.random.pick(&sources).and_then(|source| self.processes.get(&source));
        let file = source.and_then(|source| source.node.disk.written().up_to(at));
        let (Some(source), Some(mut file)) = (source, file) else {
            self.schedule(100_000, Event::Fetched(id, at));
            return Ok(());
        };
        let is_sound = !source.is_harmed && !self.random.chance(self.plan.wrong_ledgers_per_mille);
        if !is_sound {
            match self.random.chance(500) {
                true => file.flip(&mut self.random),
                false => file.leave_out(&mut self.random),
            }
        }
        let brought = self.at(id, |process, service, _| process.node.bring(file, at, service));
        match brought {
            Some(Ok(used_cache)) => {
                self.report.installations += 1;
                self.report.caches_used += u64::from(used_cache);
            }
            Some(Err(bad)) if is_sound => {
                return Err(format!("a ledger that is right is refused: {}", bad.reason));
            }
            Some(Err(_)) => {
                self.report.ledgers_refused += 1;
                self.schedule(20_000, Event::Fetched(id, at));
            }
            None => {}
        }
        self.after(id)
    }

    fn crash(&mut self, id: NodeId) -> Result<(), String> {
        let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
        process.node.disk.crash(&mut self.random);
        process.held.clear();
        let open = process.node.open_operations();
        self.report.crashes += 1;
        if self.mutant == Some(Mutant::OldIdentity) {
            let settings =
                coco_consensus::Settings { seed: self.random.next(), ..self.plan.settings.clone() };
            process.node.come_back(settings);
            self.checker.forget(id);
        } else {
            process.state = State::Gone;
            self.left.push(process.node.disk.synced().clone());
        }
        open.into_iter().try_for_each(|operation| self.lose_answer(operation))
    }

    fn resume(&mut self, id: NodeId) -> Result<(), String> {
        let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
        if process.state != State::Paused {
            return Ok(());
        }
        process.state = State::Running;
        let held = std::mem::take(&mut process.held);
        let tick_us = process.tick_us;
        self.schedule(tick_us, Event::Tick(id));
        held.into_iter().try_for_each(|event| self.handle(event))
    }
}

fn first_bytes(node: NodeId) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = node.0.0;
    [a, b, c, d, e, f, g, h]
}
