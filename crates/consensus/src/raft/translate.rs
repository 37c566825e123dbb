//! Between the engine's types and ours. No protobuf library reads a byte of another node.

use std::collections::BTreeMap;

use bytes::Bytes;
use coco_kv::{Seqno, TxId, View};
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
    EntryType, Message as EngineMessage, MessageType, Snapshot,
};

use crate::wire::{
    Candidacy, Content, Frame, LogEntry, Message, Position, ReadContext, read_membership_entry,
    write_membership_entry,
};
use crate::{Batch, Change, Membership, NodeId};

/// Node ids by the engine's numbers.
pub(super) type Addresses = BTreeMap<u64, NodeId>;

const BATCH_CONTEXT_BYTES: usize = 24;

/// An ordinary batch: its bytes are the entry's data, its name is the entry's context.
pub(super) fn batch_entry(batch: Batch) -> Entry {
    let mut context = Vec::with_capacity(BATCH_CONTEXT_BYTES);
    for number in [batch.last.view.0, batch.first.0, batch.last.seqno.0] {
        context.extend_from_slice(&number.to_le_bytes());
    }
    let mut entry = Entry::default();
    entry.data = batch.entries;
    entry.context = context.into();
    entry
}

/// What the engine is to do at a change of membership: in one step if one voter changes, else with
/// a joint membership, which the primary ends by itself.
pub(super) fn conf_change(changes: &[Change]) -> ConfChangeV2 {
    let single = |change: &Change| {
        let mut single = ConfChangeSingle::default();
        single.node_id = change.node().number();
        single.set_change_type(match change {
            Change::Voter(_) => ConfChangeType::AddNode,
            Change::Learner(_) => ConfChangeType::AddLearnerNode,
            Change::Remove(_) => ConfChangeType::RemoveNode,
        });
        single
    };
    let mut conf_change = ConfChangeV2::default();
    conf_change.set_transition(ConfChangeTransition::Auto);
    conf_change.set_changes(changes.iter().map(single).collect::<Vec<_>>().into());
    conf_change
}

/// What an entry carries, as we know it.
pub(super) fn content_of(entry: &Entry) -> Content {
    let context = &entry.context;
    match entry.get_entry_type() {
        EntryType::EntryNormal => match batch_name(context) {
            Some((first, last)) => {
                Content::Batch(Batch { first, last, entries: entry.data.clone() })
            }
            None => Content::Blank,
        },
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            // The engine writes this entry without a context itself; all others are ours.
            match read_membership_entry(context.clone()) {
                Ok((changes, batch)) => Content::Membership(changes, batch),
                Err(_) => Content::LeaveJoint,
            }
        }
    }
}

pub(super) fn batch_of(entry: &Entry) -> Option<Batch> {
    match content_of(entry) {
        Content::Batch(batch) | Content::Membership(_, batch) => Some(batch),
        Content::Blank | Content::LeaveJoint => None,
    }
}

fn batch_name(context: &[u8]) -> Option<(Seqno, TxId)> {
    let context: &[u8; BATCH_CONTEXT_BYTES] = context.try_into().ok()?;
    let (numbers, _) = context.as_chunks::<8>();
    let [view, first, last] = numbers else { return None };
    let [view, first, last] = [view, first, last].map(|bytes| u64::from_le_bytes(*bytes));
    Some((Seqno(first), TxId::new(view, last)))
}

fn engine_entry(entry: LogEntry, index: u64) -> Entry {
    let mut translated = match entry.content {
        Content::Blank => Entry::default(),
        Content::Batch(batch) => batch_entry(batch),
        Content::Membership(changes, batch) => {
            let mut entry = Entry::default();
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.context = write_membership_entry(&changes, &batch).into();
            entry
        }
        Content::LeaveJoint => {
            let mut entry = Entry::default();
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry
        }
    };
    translated.term = entry.view.0;
    translated.index = index;
    translated
}

pub(super) fn conf_state(membership: &Membership) -> ConfState {
    let numbers = |nodes: &std::collections::BTreeSet<NodeId>| -> Vec<u64> {
        nodes.iter().map(|node| node.number()).collect()
    };
    let mut state = ConfState::default();
    state.voters = numbers(&membership.voters);
    state.voters_outgoing = numbers(&membership.outgoing);
    state.learners = numbers(&membership.learners);
    state.learners_next = numbers(&membership.learners_next);
    // All our joint memberships end by themselves.
    state.auto_leave = membership.is_joint();
    state
}

/// The membership that the engine is in. Everybody in it has an address.
pub(super) fn membership(state: &ConfState, addresses: &Addresses) -> Membership {
    let nodes = |numbers: &[u64]| {
        numbers.iter().filter_map(|number| addresses.get(number).copied()).collect()
    };
    Membership {
        voters: nodes(&state.voters),
        outgoing: nodes(&state.voters_outgoing),
        learners: nodes(&state.learners),
        learners_next: nodes(&state.learners_next),
    }
}

/// The end of the ledger, as the engine carries it with an installation.
pub(super) fn install_data(end: TxId) -> Bytes {
    let mut data = Vec::with_capacity(16);
    data.extend_from_slice(&end.view.0.to_le_bytes());
    data.extend_from_slice(&end.seqno.0.to_le_bytes());
    data.into()
}

pub(super) fn install_end(snapshot: &Snapshot) -> TxId {
    let (numbers, _) = snapshot.data.as_chunks::<8>();
    match numbers {
        [view, seqno] => TxId::new(u64::from_le_bytes(*view), u64::from_le_bytes(*seqno)),
        _ => TxId::default(),
    }
}

pub(super) fn read_context(bytes: &[u8]) -> Option<ReadContext> {
    let (numbers, _) = bytes.as_chunks::<8>();
    match numbers {
        [node, read] => {
            Some(ReadContext { node: u64::from_le_bytes(*node), read: u64::from_le_bytes(*read) })
        }
        _ => None,
    }
}

pub(super) fn read_bytes(read: ReadContext) -> Vec<u8> {
    [read.node.to_le_bytes(), read.read.to_le_bytes()].concat()
}

/// A message as the engine takes it.
pub(super) fn to_engine(frame: Frame) -> EngineMessage {
    let mut out = EngineMessage::default();
    out.from = frame.from.number();
    out.to = frame.to.number();
    out.term = frame.view.0;
    match frame.message {
        Message::Append { previous, committed, entries } => {
            out.set_msg_type(MessageType::MsgAppend);
            out.index = previous.index;
            out.log_term = previous.view.0;
            out.commit = committed;
            let entries = entries.into_iter().zip(previous.index + 1..);
            let entries: Vec<_> =
                entries.map(|(entry, index)| engine_entry(entry, index)).collect();
            out.set_entries(entries.into());
        }
        Message::Appended { index, committed } => {
            out.set_msg_type(MessageType::MsgAppendResponse);
            out.index = index;
            out.commit = committed;
        }
        Message::Refused { index, hint, committed } => {
            out.set_msg_type(MessageType::MsgAppendResponse);
            out.reject = true;
            out.index = index;
            out.reject_hint = hint.index;
            out.log_term = hint.view.0;
            out.commit = committed;
        }
        Message::VoteRequest { candidacy, last, committed } => {
            out.set_msg_type(match candidacy {
                Candidacy::PreVote => MessageType::MsgRequestPreVote,
                Candidacy::Vote | Candidacy::Transfer => MessageType::MsgRequestVote,
            });
            if candidacy == Candidacy::Transfer {
                out.context = CAMPAIGN_TRANSFER.into();
            }
            out.index = last.index;
            out.log_term = last.view.0;
            out.commit = committed.index;
            out.commit_term = committed.view.0;
        }
        Message::Vote { pre_vote, granted, committed } => {
            out.set_msg_type(match pre_vote {
                true => MessageType::MsgRequestPreVoteResponse,
                false => MessageType::MsgRequestVoteResponse,
            });
            out.reject = !granted;
            out.commit = committed.index;
            out.commit_term = committed.view.0;
        }
        Message::Heartbeat { committed, read } => {
            out.set_msg_type(MessageType::MsgHeartbeat);
            out.commit = committed;
            out.context = read.map(read_bytes).unwrap_or_default().into();
        }
        Message::HeartbeatReply { committed, read } => {
            out.set_msg_type(MessageType::MsgHeartbeatResponse);
            out.commit = committed;
            out.context = read.map(read_bytes).unwrap_or_default().into();
        }
        Message::Install { at, ledger, membership } => {
            out.set_msg_type(MessageType::MsgSnapshot);
            let snapshot = out.mut_snapshot();
            snapshot.data = install_data(ledger);
            let metadata = snapshot.mut_metadata();
            metadata.index = at.index;
            metadata.term = at.view.0;
            metadata.set_conf_state(conf_state(&membership));
        }
        Message::StandNow => out.set_msg_type(MessageType::MsgTimeoutNow),
        Message::ReadRequest(read) => {
            out.set_msg_type(MessageType::MsgReadIndex);
            out.set_entries(vec![read_entry(read)].into());
        }
        Message::ReadReply { index, read } => {
            out.set_msg_type(MessageType::MsgReadIndexResp);
            out.index = index;
            out.set_entries(vec![read_entry(read)].into());
        }
    }
    out
}

fn read_entry(read: ReadContext) -> Entry {
    let mut entry = Entry::default();
    entry.data = read_bytes(read).into();
    entry
}

/// A message as we send it; `None` for those that never leave a node.
pub(super) fn from_engine(message: &EngineMessage, addresses: &Addresses) -> Option<Message> {
    let place = |index, view| Position { index, view: View(view) };
    let position = place(message.index, message.log_term);
    let committed = place(message.commit, message.commit_term);
    let read = || read_context(&message.context);
    Some(match message.get_msg_type() {
        MessageType::MsgAppend => {
            let entry =
                |entry: &Entry| LogEntry { view: View(entry.term), content: content_of(entry) };
            let entries = message.get_entries().iter().map(entry).collect();
            Message::Append { previous: position, committed: message.commit, entries }
        }
        MessageType::MsgAppendResponse if message.reject => Message::Refused {
            index: message.index,
            hint: place(message.reject_hint, message.log_term),
            committed: message.commit,
        },
        MessageType::MsgAppendResponse => {
            Message::Appended { index: message.index, committed: message.commit }
        }
        MessageType::MsgRequestPreVote => {
            Message::VoteRequest { candidacy: Candidacy::PreVote, last: position, committed }
        }
        MessageType::MsgRequestVote => {
            let candidacy = match &*message.context == CAMPAIGN_TRANSFER {
                true => Candidacy::Transfer,
                false => Candidacy::Vote,
            };
            Message::VoteRequest { candidacy, last: position, committed }
        }
        MessageType::MsgRequestPreVoteResponse => {
            Message::Vote { pre_vote: true, granted: !message.reject, committed }
        }
        MessageType::MsgRequestVoteResponse => {
            Message::Vote { pre_vote: false, granted: !message.reject, committed }
        }
        MessageType::MsgHeartbeat => Message::Heartbeat { committed: message.commit, read: read() },
        MessageType::MsgHeartbeatResponse => {
            Message::HeartbeatReply { committed: message.commit, read: read() }
        }
        MessageType::MsgSnapshot => {
            let snapshot = message.get_snapshot();
            let metadata = snapshot.get_metadata();
            Message::Install {
                at: place(metadata.index, metadata.term),
                ledger: install_end(snapshot),
                membership: membership(metadata.get_conf_state(), addresses),
            }
        }
        MessageType::MsgTimeoutNow => Message::StandNow,
        MessageType::MsgReadIndex => {
            Message::ReadRequest(read_context(&message.get_entries().first()?.data)?)
        }
        MessageType::MsgReadIndexResp => Message::ReadReply {
            index: message.index,
            read: read_context(&message.get_entries().first()?.data)?,
        },
        _ => return None,
    })
}
