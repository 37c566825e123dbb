//! Scenarios of a log on several nodes, in plain text: `tests/scenarios/*.txt`.
//!
//! A scenario is a list of commands, each followed by `----` and what happens then, up to an empty
//! line. Frames stay on their way until they are delivered, and batches unwritten until persisted.
//!
//! ```text
//! service abc         a service whose voters are a, b and c and have settled; a is primary
//! start a             the first node of a service, in view 2
//! join b              a node that knows nothing yet
//! tick a [n]          n ticks pass on a
//! propose a n         a batch of n entries
//! change a +b ?c -d   a batch of one entry, and: b votes, c learns, d goes
//! persist a           what a was ordered to write is on its disk
//! deliver a b         frames from a to b arrive; `*` is everybody
//! drop a b [n]        they do not, or the first n do not
//! settle              everything arrives and is written, until nothing is left
//! transfer a b        a hands over to b
//! read a n            a asks for read n
//! compact a v.s       what a's log holds of the ledger up to v.s may go
//! installed a v.s     a has brought the ledger there
//! has a v.s           whether a has it on its disk, for one that knows it as committed
//! status              who is what
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario that cannot be played fails"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use bytes::Bytes;
use coco_consensus::wire::{Candidacy, Content, Frame, LogEntry, Message, Position};
use coco_consensus::{
    Batch, Change, Consensus, Effect, Membership, NodeId, Raft, ReadNo, Role, Settings, WriteNo,
};
use coco_crypto::Digest;
use coco_kv::{Seqno, TxId, View};

/// A node is a letter.
fn id(name: &str) -> NodeId {
    NodeId(Digest([name.as_bytes()[0]; 32]))
}

fn name(node: NodeId) -> char {
    char::from(node.0.0[0])
}

fn names(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|node| name(*node)).collect()
}

#[derive(Default)]
struct Scenario {
    nodes: BTreeMap<NodeId, Raft>,
    unwritten: BTreeMap<NodeId, VecDeque<WriteNo>>,
    on_the_way: BTreeMap<(NodeId, NodeId), VecDeque<Bytes>>,
    output: String,
}

impl Scenario {
    fn run(&mut self, command: &str) {
        let words: Vec<_> = command.split_whitespace().collect();
        let result = match words[..] {
            ["service", nodes] => {
                self.form(nodes);
                Ok(())
            }
            ["start", node] => {
                let raft = Raft::start(Settings::default(), id(node), View(2), TxId::default());
                self.nodes.insert(id(node), raft);
                Ok(())
            }
            ["join", node] => {
                self.nodes.insert(id(node), Raft::join(Settings::default(), id(node)));
                Ok(())
            }
            ["tick", node] => self.tick(node, 1),
            ["tick", node, count] => self.tick(node, count.parse().unwrap()),
            ["propose", node, count] => {
                let batch = self.next_batch(node, count.parse().unwrap());
                self.node(node).propose(batch).map_err(|error| error.to_string())
            }
            ["change", node, ref changes @ ..] => {
                let batch = self.next_batch(node, 1);
                let changes: Vec<_> = changes.iter().map(|change| parse_change(change)).collect();
                let proposed = self.node(node).propose_change(batch, &changes);
                proposed.map_err(|error| error.to_string())
            }
            ["persist", node] => {
                self.persist(id(node));
                Ok(())
            }
            ["deliver", from, to] => {
                self.take(from, to).into_iter().for_each(|(from, to, frame)| {
                    self.deliver(from, to, frame);
                });
                Ok(())
            }
            ["drop", from, to] => {
                self.take(from, to);
                Ok(())
            }
            ["drop", from, to, count] => {
                let link = self.on_the_way.get_mut(&(id(from), id(to))).unwrap();
                link.drain(..count.parse::<usize>().unwrap());
                Ok(())
            }
            ["settle"] => {
                self.settle();
                Ok(())
            }
            ["transfer", from, to] => {
                self.node(from).transfer(id(to)).map_err(|error| error.to_string())
            }
            ["read", node, read] => {
                let read = ReadNo(read.parse().unwrap());
                self.node(node).read(read).map_err(|error| error.to_string())
            }
            ["compact", node, to] => {
                self.node(node).compact(to.parse().unwrap());
                Ok(())
            }
            ["installed", node, at] => {
                let installed = self.node(node).installed(at.parse().unwrap());
                installed.map_err(|error| error.to_string())
            }
            ["has", node, tx_id] => {
                let has = self.node(node).has_persisted(tx_id.parse().unwrap());
                self.say(if has { "yes" } else { "no" });
                Ok(())
            }
            ["status"] => {
                self.status();
                Ok(())
            }
            _ => panic!("what is {command:?}?"),
        };
        if let Err(error) = result {
            self.say(&error);
        }
        self.carry_out();
    }

    fn form(&mut self, nodes: &str) {
        let (first, others) = nodes.split_at(1);
        let others: Vec<_> = others.split("").filter(|node| !node.is_empty()).collect();
        let all =
            |sign: &str| -> String { others.iter().map(|node| format!(" {sign}{node}")).collect() };
        self.run(&format!("start {first}"));
        others.iter().for_each(|node| self.run(&format!("join {node}")));
        self.run(&format!("change {first}{}", all("?")));
        self.run("settle");
        self.run(&format!("tick {first} 2"));
        self.run("settle");
        others.iter().for_each(|node| self.run(&format!("installed {node} 2.1")));
        self.run("settle");
        self.run(&format!("change {first}{}", all("+")));
        self.run("settle");
        self.output.clear();
    }

    fn node(&mut self, node: &str) -> &mut Raft {
        self.nodes.get_mut(&id(node)).unwrap()
    }

    fn tick(&mut self, node: &str, count: usize) -> Result<(), String> {
        (0..count).for_each(|_| self.node(node).tick());
        Ok(())
    }

    fn next_batch(&mut self, node: &str, count: u64) -> Batch {
        let raft = self.node(node);
        let view = match raft.role() {
            Role::Primary(view) | Role::Backup { view, .. } => view,
        };
        let first = raft.end().seqno.next();
        let last = TxId { view, seqno: Seqno(first.0 + count - 1) };
        Batch { first, last, entries: Bytes::from(format!("entries to {last}")) }
    }

    fn persist(&mut self, node: NodeId) {
        for write in self.unwritten.remove(&node).unwrap_or_default() {
            self.nodes.get_mut(&node).unwrap().persisted(write).unwrap();
        }
    }

    fn take(&mut self, from: &str, to: &str) -> Vec<(NodeId, NodeId, Bytes)> {
        let is = |pattern: &str, node: NodeId| pattern == "*" || id(pattern) == node;
        let links = self.on_the_way.iter_mut();
        links
            .filter(|((sender, recipient), _)| is(from, *sender) && is(to, *recipient))
            .flat_map(|((sender, recipient), frames)| {
                frames.drain(..).map(|frame| (*sender, *recipient, frame))
            })
            .collect()
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, frame: Bytes) {
        let Some(node) = self.nodes.get_mut(&to) else { return };
        if let Err(error) = node.receive(from, frame) {
            self.say(&error.to_string());
        }
    }

    fn settle(&mut self) {
        loop {
            self.carry_out();
            let frames = self.take("*", "*");
            if frames.is_empty() && self.unwritten.values().all(VecDeque::is_empty) {
                return;
            }
            frames.into_iter().for_each(|(from, to, frame)| self.deliver(from, to, frame));
            self.carry_out();
            let nodes: Vec<_> = self.nodes.keys().copied().collect();
            nodes.into_iter().for_each(|node| self.persist(node));
        }
    }

    fn carry_out(&mut self) {
        let nodes: Vec<_> = self.nodes.keys().copied().collect();
        for node in nodes {
            while let Some(effect) = self.nodes.get_mut(&node).unwrap().next_effect() {
                self.note(node, effect);
            }
        }
    }

    fn note(&mut self, node: NodeId, effect: Effect) {
        let line = match effect {
            Effect::Persist(write, batch) => {
                self.unwritten.entry(node).or_default().push_back(write);
                format!("{}: persist {}", name(node), batch_name(&batch))
            }
            Effect::Send(to, bytes) => {
                let frame = Frame::decode(bytes.clone()).unwrap();
                self.on_the_way.entry((node, to)).or_default().push_back(bytes);
                format!("{} → {}: {}", name(node), name(to), describe(&frame))
            }
            Effect::Truncate(to) => format!("{}: truncate to {to}", name(node)),
            Effect::Install(at) => format!("{}: install {at}", name(node)),
            Effect::Committed(tx_id) => format!("{}: committed {tx_id}", name(node)),
            Effect::Role(role) => format!("{}: {}", name(node), describe_role(role)),
            Effect::Membership(membership) => {
                format!("{}: {}", name(node), describe_membership(&membership))
            }
            Effect::ReadReady(read) => format!("{}: read {} ready", name(node), read.0),
        };
        self.say(&line);
    }

    fn status(&mut self) {
        let describe = |(node, raft): (&NodeId, &Raft)| {
            let (committed, end) = (raft.committed(), raft.end());
            format!(
                "{}: {}, log to {} with {end}, committed {committed}, {}",
                name(*node),
                describe_role(raft.role()),
                describe_position(&raft.last()),
                describe_membership(raft.membership()),
            )
        };
        let lines: Vec<_> = self.nodes.iter().map(describe).collect();
        lines.iter().for_each(|line| self.say(line));
    }

    fn say(&mut self, line: &str) {
        writeln!(self.output, "{line}").unwrap();
    }
}

fn parse_change(text: &str) -> Change {
    let (what, node) = text.split_at(1);
    match what {
        "+" => Change::Voter(id(node)),
        "?" => Change::Learner(id(node)),
        "-" => Change::Remove(id(node)),
        _ => panic!("what is {text:?}?"),
    }
}

fn batch_name(batch: &Batch) -> String {
    format!("{}..{}", batch.first, batch.last)
}

fn describe_position(position: &Position) -> String {
    format!("{}@{}", position.index, position.view)
}

fn describe_role(role: Role) -> String {
    match role {
        Role::Primary(view) => format!("primary in {view}"),
        Role::Backup { view, primary: None } => format!("backup in {view}"),
        Role::Backup { view, primary: Some(primary) } => {
            format!("backup of {} in {view}", name(primary))
        }
    }
}

fn describe_membership(membership: &Membership) -> String {
    let mut text = format!("voters {}", names(&membership.voters));
    let lists = [
        ("outgoing", &membership.outgoing),
        ("learners", &membership.learners),
        ("learning next", &membership.learners_next),
    ];
    for (what, nodes) in lists.into_iter().filter(|(_, nodes)| !nodes.is_empty()) {
        write!(text, ", {what} {}", names(nodes)).unwrap();
    }
    text
}

fn describe_entry(entry: &LogEntry) -> String {
    match &entry.content {
        Content::Blank => "blank".into(),
        Content::Batch(batch) => batch_name(batch),
        Content::Membership(changes, batch) => {
            let change = |change: &Change| match change {
                Change::Voter(node) => format!("+{}", name(*node)),
                Change::Learner(node) => format!("?{}", name(*node)),
                Change::Remove(node) => format!("-{}", name(*node)),
            };
            let changes: Vec<_> = changes.iter().map(change).collect();
            format!("{} {}", batch_name(batch), changes.join(" "))
        }
        Content::LeaveJoint => "leave joint".into(),
    }
}

fn describe(frame: &Frame) -> String {
    let view = frame.view;
    match &frame.message {
        Message::Append { previous, committed, entries } => {
            let entries: Vec<_> = entries.iter().map(describe_entry).collect();
            let after = describe_position(previous);
            format!(
                "append in {view} after {after} [{}], committed {committed}",
                entries.join(", ")
            )
        }
        Message::Appended { index, .. } => format!("appended in {view} to {index}"),
        Message::Refused { index, hint, .. } => {
            format!("refused in {view} after {index}, try {}", describe_position(hint))
        }
        Message::VoteRequest { candidacy, last, .. } => {
            let what = match candidacy {
                Candidacy::PreVote => "pre-vote?",
                Candidacy::Vote => "vote?",
                Candidacy::Transfer => "vote (handed over)?",
            };
            format!("{what} in {view}, log to {}", describe_position(last))
        }
        Message::Vote { pre_vote, granted, .. } => {
            let what = if *pre_vote { "pre-vote" } else { "vote" };
            format!("{what} in {view}: {}", if *granted { "yes" } else { "no" })
        }
        Message::Heartbeat { committed, read } => {
            let read = read.map(|read| format!(", read {}", read.read)).unwrap_or_default();
            format!("heartbeat in {view}, committed {committed}{read}")
        }
        Message::HeartbeatReply { read, .. } => {
            let read = read.map(|read| format!(", read {}", read.read)).unwrap_or_default();
            format!("heartbeat seen in {view}{read}")
        }
        Message::Install { at, ledger, membership } => {
            let (at, members) = (describe_position(at), describe_membership(membership));
            format!("install in {view} at {at}, ledger {ledger}, {members}")
        }
        Message::StandNow => format!("stand now in {view}"),
        Message::ReadRequest(read) => format!("read {}?", read.read),
        Message::ReadReply { index, read } => format!("read {} at {index}", read.read),
    }
}

/// Runs a scenario; returns it as it should have been written.
fn played(text: &str) -> String {
    let mut scenario = Scenario::default();
    let mut result = String::new();
    let mut in_output = false;
    for line in text.lines() {
        if in_output && !line.is_empty() {
            continue;
        }
        in_output = line == "----";
        writeln!(result, "{line}").unwrap();
        if in_output {
            result.push_str(&std::mem::take(&mut scenario.output));
        } else if !line.is_empty() && !line.starts_with('#') {
            scenario.run(line);
        }
    }
    result
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let expected = include_str!(concat!("scenarios/", stringify!($name), ".txt"));
            let played = played(expected);
            assert!(played == expected, "another trace:\n{played}");
        })*
    };
}

scenarios!(
    replication,
    failover,
    divergent_logs,
    old_views_are_not_counted,
    membership,
    voted_out,
    voted_out_with_more,
    installation,
    installation_without_the_primary,
    installation_in_a_new_view,
    handing_over,
    reading,
    slow_disk,
);
