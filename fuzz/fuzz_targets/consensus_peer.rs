//! Two other voters that say anything, in well-formed frames: the engine behind the codec stops a
//! node at what cannot be, so none of it may get there.
#![no_main]

use coco_consensus::wire::{Candidacy, Content, Frame, LogEntry, Message, Position, ReadContext};
use coco_consensus::{
    Batch, Change, Consensus, Effect, Membership, NodeId, Raft, ReadNo, Role, Settings,
};
use coco_crypto::Digest;
use coco_kv::{Seqno, TxId, View};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Small numbers, so that they meet.
#[derive(Arbitrary, Debug)]
struct Place(u8, u8);

#[derive(Arbitrary, Debug)]
enum Step {
    Tick(u8),
    Frame {
        from: bool,
        view: u8,
        said: Said,
    },
    Read,
    Propose,
    Transfer,
    /// Reports on disk only what was ordered up to here.
    HoldWrites(bool),
}

#[derive(Arbitrary, Debug)]
enum Said {
    Append { previous: Place, committed: u8, entries: Vec<(u8, Kind)> },
    Appended { index: u8, committed: u8 },
    Refused { index: u8, hint: Place, committed: u8 },
    VoteRequest { candidacy: u8, last: Place, committed: Place },
    Vote { pre_vote: bool, granted: bool, committed: Place },
    Heartbeat { committed: u8, read: Option<(u8, u8)> },
    HeartbeatReply { committed: u8, read: Option<(u8, u8)> },
    Install { at: Place, ledger: Place, only_me: bool },
    StandNow,
    ReadRequest(u8, u8),
    ReadReply { index: u8, read: (u8, u8) },
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Blank,
    Batch { view: u8, first: u8, entries: u8 },
    Add(u8),
    Remove(u8),
    LeaveJoint,
}

fn node(number: u8) -> NodeId {
    NodeId(Digest([number; 32]))
}

fn position(place: &Place) -> Position {
    Position { index: place.0.into(), view: View(place.1.into()) }
}

fn tx_id(place: &Place) -> TxId {
    TxId::new(place.1.into(), place.0.into())
}

fn batch(view: u8, first: u8, entries: u8) -> Batch {
    let last = u64::from(first) + u64::from(entries);
    let entries = vec![7; 8].into();
    Batch { first: Seqno(first.into()), last: TxId::new(view.into(), last), entries }
}

fn content(view: u8, kind: Kind) -> Content {
    match kind {
        Kind::Blank => Content::Blank,
        Kind::LeaveJoint => Content::LeaveJoint,
        Kind::Batch { view, first, entries } => Content::Batch(batch(view, first, entries)),
        Kind::Add(who) => {
            Content::Membership(vec![Change::Voter(node(who % 6))], batch(view, 1, 0))
        }
        Kind::Remove(who) => {
            Content::Membership(vec![Change::Remove(node(who % 6))], batch(view, 1, 0))
        }
    }
}

fn message(said: Said) -> Message {
    let context = |(node, read): (u8, u8)| ReadContext { node: node.into(), read: read.into() };
    match said {
        Said::Append { previous, committed, entries } => {
            let entry = |(view, kind)| LogEntry {
                view: View(u64::from(view)),
                content: content(view, kind),
            };
            let entries = entries.into_iter().map(entry).collect();
            Message::Append { previous: position(&previous), committed: committed.into(), entries }
        }
        Said::Appended { index, committed } => {
            Message::Appended { index: index.into(), committed: committed.into() }
        }
        Said::Refused { index, hint, committed } => Message::Refused {
            index: index.into(),
            hint: position(&hint),
            committed: committed.into(),
        },
        Said::VoteRequest { candidacy, last, committed } => {
            let kinds = [Candidacy::PreVote, Candidacy::Vote, Candidacy::Transfer];
            let candidacy = kinds[usize::from(candidacy) % kinds.len()];
            let (last, committed) = (position(&last), position(&committed));
            Message::VoteRequest { candidacy, last, committed }
        }
        Said::Vote { pre_vote, granted, committed } => {
            Message::Vote { pre_vote, granted, committed: position(&committed) }
        }
        Said::Heartbeat { committed, read } => {
            Message::Heartbeat { committed: committed.into(), read: read.map(context) }
        }
        Said::HeartbeatReply { committed, read } => {
            Message::HeartbeatReply { committed: committed.into(), read: read.map(context) }
        }
        Said::Install { at, ledger, only_me } => {
            let membership = Membership::of(node(if only_me { 1 } else { 2 }));
            Message::Install { at: position(&at), ledger: tx_id(&ledger), membership }
        }
        Said::StandNow => Message::StandNow,
        Said::ReadRequest(node, read) => Message::ReadRequest(context((node, read))),
        Said::ReadReply { index, read } => {
            Message::ReadReply { index: index.into(), read: context(read) }
        }
    }
}

/// Carries effects out; the disk says when it is done, unless it is held back.
fn settle(raft: &mut Raft, hold_writes: bool, held: &mut Vec<coco_consensus::WriteNo>) {
    while let Some(effect) = raft.next_effect() {
        match effect {
            Effect::Persist(write, _) => held.push(write),
            Effect::Install(at) => raft.installed(at).unwrap(),
            _ => {}
        }
        if !hold_writes {
            held.drain(..).for_each(|write| raft.persisted(write).unwrap());
        }
    }
}

/// A primary whose second voter is not heard of yet, and a learner.
fn primary() -> Raft {
    let mut raft = Raft::start(Settings::default(), node(1), View(2), TxId::default());
    let mut held = Vec::new();
    settle(&mut raft, false, &mut held);
    let changes = [Change::Learner(node(2)), Change::Learner(node(3)), Change::Voter(node(2))];
    for (number, change) in (1..).zip(changes) {
        let _ = raft.propose_change(batch(2, number, 0), &[change]);
        settle(&mut raft, false, &mut held);
        (0..4).for_each(|_| raft.tick());
        settle(&mut raft, false, &mut held);
    }
    raft
}

fuzz_target!(|steps: Vec<Step>| {
    let mut raft = primary();
    let (mut hold_writes, mut held, mut reads) = (false, Vec::new(), 0);
    let mut committed = raft.committed();
    for step in steps.into_iter().take(64) {
        match step {
            Step::Tick(times) => (0..times % 32).for_each(|_| raft.tick()),
            Step::Frame { from, view, said } => {
                let from = node(if from { 2 } else { 3 });
                let (to, message) = (node(1), message(said));
                let frame = Frame { from, to, view: View(view.into()), message };
                let _ = raft.receive(from, frame.encode());
            }
            Step::Read => {
                reads += 1;
                let _ = raft.read(ReadNo(reads));
            }
            Step::Propose => {
                let end = raft.end();
                if let Role::Primary(view) = raft.role()
                    && raft.may_propose().is_ok()
                {
                    let (first, seqno) = (end.seqno.next(), end.seqno.next());
                    let entries = bytes::Bytes::from_static(b"mine");
                    let _ = raft.propose(Batch { first, last: TxId { view, seqno }, entries });
                }
            }
            Step::Transfer => {
                let _ = raft.transfer(node(2));
            }
            Step::HoldWrites(hold) => hold_writes = hold,
        }
        settle(&mut raft, hold_writes, &mut held);
        let now = raft.committed();
        assert!(now.seqno >= committed.seqno, "{committed} was committed, now {now}");
        committed = now;
    }
});
