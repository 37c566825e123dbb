//! A run: nodes, network, clients, an operator and faults, one event after the other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coco_consensus::{Change, Consensus, Membership, NodeId};
use coco_kv::{Seqno, TxId};

use crate::check::Checker;
use crate::history::{Call, History, Observed};
use crate::keys::NodeKey;
use crate::mutant::Mutant;
use crate::network::Network;
use crate::node::{Node, Outcome};
use crate::plan::{Fault, Plan, TICK_US};
use crate::random::Random;
use crate::replica::{Replica, Service};
use crate::report::Report;

/// A client gives up on an answer.
const CLIENT_TIMEOUT_US: u64 = 1_500_000;
/// A read without an answer is asked for again.
const READ_AGAIN_US: u64 = 300_000;
/// The operator looks after the nodes.
const OPERATOR_US: u64 = 150_000;
/// Clients go on after the last fault.
const QUIET_US: u64 = 1_000_000;
/// All must be well again this long after the last fault.
const HEALED_WITHIN_US: u64 = 30_000_000;
/// Processes that a run starts, at most.
const MAX_NODES: u64 = 40;

#[derive(Debug)]
enum Event {
    Tick(NodeId),
    Frame { from: NodeId, to: NodeId, frame: Bytes },
    Synced(NodeId),
    Fetched(NodeId, TxId),
    Client(usize),
    Timeout(usize, u64),
    Operator,
    Fault,
    Resume(NodeId),
    Stop(NodeId),
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
    slow_until_us: u64,
    disk_is_full: bool,
    /// It is to be replaced.
    leaves: bool,
    was_member: bool,
    /// What came while it stood still.
    held: Vec<Event>,
}

struct Client {
    /// Whom it believes to be primary.
    primary: Option<NodeId>,
    doing: Option<Doing>,
}

#[derive(Clone, Copy)]
struct Doing {
    operation: u64,
    key: u64,
    /// What it writes; `None` for a read.
    value: Option<u64>,
    began_us: u64,
    told: Seqno,
    /// It has been handed to a node.
    sent: bool,
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
    service: Service,
    network: Network,
    checker: Checker,
    history: History,
    clients: Vec<Client>,
    next_operation: u64,
    /// Voters that a proposed change leads to, until its position is committed.
    proposed: Vec<(Seqno, Membership)>,
    answered_since_healing: u64,
    healed: bool,
    quiet: bool,
    report: Report,
}

impl World {
    /// The run of a seed.
    pub fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let clients = (0..plan.clients).map(|_| Client { primary: None, doing: None }).collect();
        let mut world = Self {
            mutant,
            seed,
            random,
            now_us: 0,
            events: BTreeMap::new(),
            next_event: 0,
            processes: BTreeMap::new(),
            service: Service::of(seed),
            network: Network::default(),
            checker: Checker::default(),
            history: History::default(),
            clients,
            next_operation: 1,
            proposed: Vec::new(),
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
            Event::Frame { to, .. } => Some(*to),
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
            Event::Tick(id) => {
                let tick_us = self.at(id, |process, service, random| {
                    process.node.tick(service, random);
                    process.tick_us
                });
                self.schedule(tick_us.unwrap_or(TICK_US), Event::Tick(id));
                self.after(id)
            }
            Event::Frame { from, to, frame } => {
                self.report.trace(frame.len() as u64, u64::from_be_bytes(first_bytes(from)));
                self.at(to, |process, service, random| {
                    process.node.receive(from, frame, service, random);
                });
                self.after(to)
            }
            Event::Synced(id) => {
                self.at(id, |process, service, random| process.node.synced(service, random));
                self.after(id)
            }
            Event::Fetched(id, at) => self.fetch(id, at),
            Event::Client(client) => self.client(client),
            Event::Timeout(client, operation) => self.time_out(client, operation),
            Event::Operator => {
                self.operate();
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
            Event::Stop(id) => self.stop(id),
            Event::Heal => {
                self.healed = true;
                self.network.heal();
                self.plan.loss_per_mille = 0;
                let nodes: Vec<_> = self.processes.keys().copied().collect();
                for node in nodes {
                    if let Some(process) = self.processes.get_mut(&node) {
                        process.tick_us = TICK_US;
                        process.slow_until_us = 0;
                    }
                    self.resume(node)?;
                }
                self.schedule(QUIET_US, Event::Quiet);
                Ok(())
            }
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
        let settings =
            coco_consensus::Settings { seed: self.random.next(), ..self.plan.settings.clone() };
        let public = key.public().clone();
        let node = Node::new(key, settings, number == 0, self.plan.compacts, self.mutant);
        let id = node.id;
        self.service.keys.insert(id, public);
        let skew = self.random.below(2 * self.plan.skew_per_mille + 1);
        let tick_us = TICK_US * (1_000 + skew - self.plan.skew_per_mille) / 1_000;
        let process = Process {
            node,
            state: State::Running,
            tick_us,
            slow_until_us: 0,
            disk_is_full: false,
            leaves: false,
            was_member: number == 0,
            held: Vec::new(),
        };
        self.processes.insert(id, process);
        self.report.processes += 1;
        let first_tick = self.random.below(TICK_US);
        self.schedule(first_tick, Event::Tick(id));
    }

    fn after_all(&mut self) -> Result<(), String> {
        let nodes: Vec<_> = self.processes.keys().copied().collect();
        nodes.into_iter().try_for_each(|node| self.after(node))
    }

    /// Carries out and checks what a node has left.
    fn after(&mut self, id: NodeId) -> Result<(), String> {
        let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
        let outbox = std::mem::take(&mut process.node.outbox);
        let slow = process.slow_until_us > self.now_us;
        let syncs = process.node.disk.begin_sync();
        let is_full = process.disk_is_full && syncs;
        for (to, frame) in outbox.frames {
            let link = (id, to);
            for at in self.network.arrivals(&self.plan, link, self.now_us, &mut self.random) {
                let event = Event::Frame { from: id, to, frame: frame.clone() };
                self.schedule(at - self.now_us, event);
            }
        }
        for view in outbox.leads {
            self.checker.lead(id, view)?;
        }
        for (tx_id, entry) in outbox.encrypted {
            self.checker.encrypt(id, tx_id, entry)?;
        }
        for last in outbox.void {
            self.checker.take_back(id, last)?;
        }
        for commit in outbox.commits {
            self.report
                .trace(commit.tx_id.seqno.0, u64::from_be_bytes(first_bytes(NodeId(commit.root))));
            let processes = &self.processes;
            let leads = processes.get(&id).and_then(|process| process.node.leads());
            let view = leads.unwrap_or_default();
            let on_disk = |node: NodeId| {
                let process = processes.get(&node);
                process.is_some_and(|process| process.node.disk.durable().holds(commit.tx_id))
            };
            let in_view = |node: NodeId| {
                processes.get(&node).is_some_and(|process| process.node.raft.last().view >= view)
            };
            let any = |holds: &dyn Fn(NodeId) -> bool| {
                let known = commit.memberships.iter().filter(|known| !known.voters.is_empty());
                known.into_iter().any(|membership| membership.is_quorum(holds))
            };
            self.checker.commit(id, &commit, || any(&on_disk), || any(&in_view))?;
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

    /// Brings a node the ledger that it was told to install, from whoever has it.
    fn fetch(&mut self, id: NodeId, at: TxId) -> Result<(), String> {
        let sources: Vec<_> = self
            .processes
            .values()
            .filter(|process| process.state == State::Running && process.node.id != id)
            .filter(|process| process.node.raft.committed().seqno >= at.seqno)
            .filter_map(|process| process.node.disk.written().up_to(at))
            .take(1)
            .collect();
        let Some(file) = sources.into_iter().next() else {
            self.schedule(100_000, Event::Fetched(id, at));
            return Ok(());
        };
        self.report.installations += 1;
        self.at(id, |process, service, _| process.node.bring(file, at, service));
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
        }
        open.into_iter().try_for_each(|operation| self.lose_answer(operation))
    }

    fn stop(&mut self, id: NodeId) -> Result<(), String> {
        match self.can_lose(id) {
            true => self.crash(id),
            false => Ok(()),
        }
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

/// Clients.
impl World {
    fn client(&mut self, number: usize) -> Result<(), String> {
        let Some(client) = self.clients.get(number) else { return Ok(()) };
        let doing = match client.doing {
            Some(doing) => doing,
            None if self.quiet => return Ok(()),
            None => self.begin(number),
        };
        if doing.sent && doing.value.is_some() {
            return Ok(());
        }
        let running: Vec<_> = self
            .processes
            .values()
            .filter(|process| process.state == State::Running)
            .map(|process| process.node.id)
            .collect();
        let believed = self.clients.get(number).and_then(|client| client.primary);
        let Some(target) = believed
            .filter(|node| running.contains(node) && doing.value.is_some())
            .or_else(|| self.random.pick(&running))
        else {
            self.schedule(50_000, Event::Client(number));
            return Ok(());
        };
        let Doing { operation, key, value, .. } = doing;
        let sent = self.at(target, |process, service, random| match value {
            Some(value) => process.node.write(operation, (key, value), service, random),
            None => process.node.read(operation, key, service, random),
        });
        let sent = sent.unwrap_or(false);
        let hint = self.processes.get(&target).and_then(|process| process.node.primary());
        if let Some(client) = self.clients.get_mut(number) {
            client.primary = hint.filter(|hint| *hint != target || sent);
            if let Some(doing) = &mut client.doing {
                doing.sent |= sent;
            }
        }
        let again = match (sent, value) {
            (true, Some(_)) => None,
            (true, None) => Some(READ_AGAIN_US),
            (false, _) => Some(self.random.between(1_000, 40_000)),
        };
        if let Some(again) = again {
            self.schedule(again, Event::Client(number));
        }
        self.after(target)
    }

    fn begin(&mut self, number: usize) -> Doing {
        let operation = self.next_operation;
        self.next_operation += 1;
        let doing = Doing {
            operation,
            key: self.random.below(self.plan.keys),
            value: self.random.chance(600).then_some(operation),
            began_us: self.now_us,
            told: self.checker.told(),
            sent: false,
        };
        if let Some(client) = self.clients.get_mut(number) {
            client.doing = Some(doing);
        }
        self.schedule(CLIENT_TIMEOUT_US, Event::Timeout(number, operation));
        doing
    }

    fn find(&mut self, operation: u64) -> Option<(usize, Doing)> {
        let is = |client: &Client| client.doing.is_some_and(|doing| doing.operation == operation);
        let number = self.clients.iter().position(is)?;
        let doing = self.clients.get_mut(number)?.doing.take()?;
        let pause = self.random.between(1_000, self.plan.think_us);
        self.schedule(pause, Event::Client(number));
        Some((number, doing))
    }

    fn answer(&mut self, operation: u64, outcome: Outcome) -> Result<(), String> {
        let Some((_, doing)) = self.find(operation) else { return Ok(()) };
        self.checker.answer(doing.key, doing.value.unwrap_or(0), doing.told, outcome)?;
        let call = match (outcome, doing.value) {
            (Outcome::Read(value, _), _) => Call::Read(value),
            (Outcome::Committed(_), Some(value)) => Call::Write(value),
            _ => return Ok(()),
        };
        self.answered_since_healing += u64::from(self.healed && doing.value.is_some());
        let observed = Observed { from_us: doing.began_us, to_us: self.now_us, call };
        self.history.note(doing.key, observed);
        Ok(())
    }

    /// Nobody knows what became of an operation.
    fn lose_answer(&mut self, operation: u64) -> Result<(), String> {
        let Some((number, doing)) = self.find(operation) else { return Ok(()) };
        if let Some(client) = self.clients.get_mut(number) {
            client.primary = None;
        }
        self.report.unknown += 1;
        if let (true, Some(value)) = (doing.sent, doing.value) {
            let call = Call::Write(value);
            self.history
                .note(doing.key, Observed { from_us: doing.began_us, to_us: u64::MAX, call });
        }
        Ok(())
    }

    fn time_out(&mut self, number: usize, operation: u64) -> Result<(), String> {
        let doing = self.clients.get(number).and_then(|client| client.doing);
        match doing {
            Some(doing) if doing.operation == operation => self.lose_answer(operation),
            _ => Ok(()),
        }
    }
}

/// The operator, who keeps as many voters running as the plan says.
impl World {
    fn runs(&self, node: NodeId) -> bool {
        self.processes.get(&node).is_some_and(|process| process.state != State::Gone)
    }

    fn leading(&self) -> Option<NodeId> {
        let running = self.processes.values().filter(|process| process.state == State::Running);
        running
            .filter_map(|process| Some((process.node.leads()?, process.node.id)))
            .max()
            .map(|(_, id)| id)
    }

    fn operate(&mut self) {
        let Some(primary) = self.leading() else { return };
        let Some(process) = self.processes.get(&primary) else { return };
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
                    && self.runs(replica.node)
            })
            .map(|replica| replica.node)
            .collect();
        self.let_go_of_former_members(&membership);
        if membership.is_joint() {
            return;
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

    fn let_go_of_former_members(&mut self, membership: &Membership) {
        let members = membership.nodes();
        let mut former = Vec::new();
        for process in self.processes.values_mut().filter(|process| process.state != State::Gone) {
            let is_member = members.contains(&process.node.id);
            if process.was_member && !is_member {
                process.was_member = false;
                former.push(process.node.id);
            }
            process.was_member |= is_member;
        }
        former.into_iter().for_each(|node| self.schedule(500_000, Event::Stop(node)));
    }

    /// What to change next, if anything; starts a process if one is missing.
    fn next_change(
        &mut self,
        membership: &Membership,
        caught_up: &[NodeId],
    ) -> Option<Vec<Change>> {
        let dead_learner = membership.learners.iter().find(|node| !self.runs(**node));
        if let Some(dead) = dead_learner {
            return Some(vec![Change::Remove(*dead)]);
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

/// Faults.
impl World {
    /// Whether the service can go on without a node, whoever's word counts.
    fn can_lose(&self, lost: NodeId) -> bool {
        let stays = |node: NodeId| node != lost && self.runs(node);
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

    fn inject(&mut self) {
        let Some(fault) = self.random.pick(&self.plan.faults.clone()) else { return };
        let running: Vec<_> = self
            .processes
            .values()
            .filter(|process| process.state == State::Running)
            .map(|process| process.node.id)
            .collect();
        // The primary twice: most goes wrong there.
        let candidates: Vec<_> = running.iter().copied().chain(self.leading()).collect();
        let Some(victim) = self.random.pick(&candidates) else { return };
        let lasts = self.random.between(50_000, 1_500_000);
        let until = self.now_us + lasts;
        match fault {
            Fault::Partition => {
                let apart: BTreeSet<_> =
                    running.iter().copied().filter(|_| self.random.chance(400)).collect();
                for one in &apart {
                    for other in running.iter().filter(|node| !apart.contains(node)) {
                        self.network.cut(*one, *other, until);
                        self.network.cut(*other, *one, until);
                    }
                }
            }
            Fault::OneWay => {
                for other in running.iter().filter(|node| **node != victim) {
                    self.network.cut(victim, *other, until);
                }
            }
            Fault::Flapping => {
                for other in running.iter().filter(|node| **node != victim) {
                    let short = self.now_us + self.random.between(5_000, 150_000);
                    self.network.cut(victim, *other, short);
                    self.network.cut(*other, victim, short);
                }
            }
            Fault::Crash if self.can_lose(victim) => {
                if self.crash(victim).is_err() {
                    return;
                }
            }
            Fault::FullDisk if self.can_lose(victim) => {
                if let Some(process) = self.processes.get_mut(&victim) {
                    process.disk_is_full = true;
                }
            }
            Fault::Pause => {
                if let Some(process) = self.processes.get_mut(&victim) {
                    process.state = State::Paused;
                }
                self.schedule(lasts, Event::Resume(victim));
            }
            Fault::SlowDisk => {
                if let Some(process) = self.processes.get_mut(&victim) {
                    process.slow_until_us = until;
                }
            }
            Fault::Transfer => {
                if let (Some(primary), true) = (self.leading(), running.len() > 1) {
                    self.at(primary, |process, service, random| {
                        process.node.hand_over(victim, service, random)
                    });
                }
            }
            Fault::Replace => {
                if let Some(process) = self.processes.get_mut(&victim) {
                    process.leaves |= process.was_member;
                }
            }
            Fault::Crash | Fault::FullDisk => return,
        }
        self.report.count(fault);
    }
}

/// The end.
impl World {
    fn members(&self) -> Vec<&Node> {
        let Some(primary) = self.leading().and_then(|id| self.processes.get(&id)) else {
            return Vec::new();
        };
        let members = primary.node.raft.membership().nodes();
        self.processes
            .values()
            .filter(|process| members.contains(&process.node.id) && process.state != State::Gone)
            .map(|process| &process.node)
            .collect()
    }

    fn is_settled(&self) -> bool {
        self.why_unsettled().is_empty()
    }

    /// What is still open; empty if nothing.
    fn why_unsettled(&self) -> String {
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
        for node in self.members() {
            let (committed, durable) = (node.raft.committed(), node.disk.durable());
            let on_disk = durable.batches.last().map(|(last, _)| *last).unwrap_or_default();
            if committed != end || on_disk != end || node.raft.membership() != membership {
                return format!("{:?} is at {committed}, on disk {on_disk}, not at {end}", node.id);
            }
        }
        String::new()
    }

    /// Reads every disk with fresh eyes, and explains what clients saw.
    fn check_end(&mut self) -> Result<(), String> {
        let end = self.checker.committed();
        let members: Vec<_> = self.members().iter().map(|node| node.id).collect();
        let mut digest = None;
        for (id, process) in self.processes.iter().filter(|(id, _)| members.contains(id)) {
            let mut replica = Replica::default();
            replica.apply(&process.node.disk.durable().bytes, &mut self.service).map_err(
                |bad| format!("the disk of {id:?} is wrong after {}: {}", bad.end, bad.reason),
            )?;
            let last = replica.end;
            process.node.check_nodes_table()?;
            if last.seqno != end || self.checker.batch_at(end).is_some_and(|known| known != last) {
                return Err(format!("the disk of {id:?} ends with {last} instead of {end}"));
            }
            let known = *digest.get_or_insert(replica.tree.root());
            if known != replica.tree.root() || process.node.replica.tree.root() != known {
                return Err(format!("{id:?} has another history"));
            }
        }
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
}

fn first_bytes(node: NodeId) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = node.0.0;
    [a, b, c, d, e, f, g, h]
}
