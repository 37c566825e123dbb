//! Writing frames.

use bytes::Bytes;
use coco_kv::View;

use super::{Candidacy, Content, Frame, LogEntry, Message, Position, ReadContext};
use crate::{Batch, Change, Membership, NodeId};

pub(super) const VERSION: u8 = 1;
/// What a frame takes next to ledger entries, roughly.
const FRAME_OVERHEAD_BYTES: usize = 160;
const ENTRY_OVERHEAD_BYTES: usize = 40;

pub(super) fn frame(frame: &Frame) -> Bytes {
    let Frame { from, to, view, message } = frame;
    let mut to_write = Writer(Vec::with_capacity(estimated_bytes(message)));
    let out = &mut to_write;
    out.u8(VERSION);
    out.u8(kind_of(message));
    out.node(from);
    out.node(to);
    out.u64(view.0);
    match message {
        Message::Append { previous, committed, entries } => {
            out.position(previous);
            out.u64(*committed);
            // The engine fills messages far below this.
            out.u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            entries.iter().for_each(|entry| out.entry(entry));
        }
        Message::Appended { index, committed } => {
            out.u64(*index);
            out.u64(*committed);
        }
        Message::Refused { index, hint, committed } => {
            out.u64(*index);
            out.position(hint);
            out.u64(*committed);
        }
        Message::VoteRequest { candidacy, last, committed } => {
            out.u8(match candidacy {
                Candidacy::PreVote => 0,
                Candidacy::Vote => 1,
                Candidacy::Transfer => 2,
            });
            out.position(last);
            out.position(committed);
        }
        Message::Vote { pre_vote, granted, committed } => {
            out.u8(u8::from(*pre_vote));
            out.u8(u8::from(*granted));
            out.position(committed);
        }
        Message::Heartbeat { committed, read } | Message::HeartbeatReply { committed, read } => {
            out.u64(*committed);
            out.u8(u8::from(read.is_some()));
            read.iter().for_each(|read| out.read(read));
        }
        Message::Install { at, ledger, membership } => {
            out.position(at);
            out.u64(ledger.view.0);
            out.u64(ledger.seqno.0);
            out.membership(membership);
        }
        Message::StandNow => {}
        Message::ReadRequest(read) => out.read(read),
        Message::ReadReply { index, read } => {
            out.u64(*index);
            out.read(read);
        }
    }
    Bytes::from(to_write.0)
}

/// The changes and the batch of a membership entry, as a frame carries them.
pub(crate) fn write_membership_entry(changes: &[Change], batch: &Batch) -> Vec<u8> {
    let bytes = ENTRY_OVERHEAD_BYTES + 33 * changes.len() + batch.entries.len();
    let mut out = Writer(Vec::with_capacity(bytes));
    out.changes(changes);
    out.batch(batch);
    out.0
}

fn kind_of(message: &Message) -> u8 {
    match message {
        Message::Append { .. } => 1,
        Message::Appended { .. } => 2,
        Message::Refused { .. } => 3,
        Message::VoteRequest { .. } => 4,
        Message::Vote { .. } => 5,
        Message::Heartbeat { .. } => 6,
        Message::HeartbeatReply { .. } => 7,
        Message::Install { .. } => 8,
        Message::StandNow => 9,
        Message::ReadRequest(_) => 10,
        Message::ReadReply { .. } => 11,
    }
}

fn estimated_bytes(message: &Message) -> usize {
    let Message::Append { entries, .. } = message else { return FRAME_OVERHEAD_BYTES };
    let of_entry = |entry: &LogEntry| match &entry.content {
        Content::Batch(batch) => ENTRY_OVERHEAD_BYTES + batch.entries.len(),
        Content::Membership(changes, batch) => {
            ENTRY_OVERHEAD_BYTES + 33 * changes.len() + batch.entries.len()
        }
        Content::Blank | Content::LeaveJoint => ENTRY_OVERHEAD_BYTES,
    };
    FRAME_OVERHEAD_BYTES + entries.iter().map(of_entry).sum::<usize>()
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn node(&mut self, node: &NodeId) {
        self.0.extend_from_slice(&node.0.0);
    }

    fn position(&mut self, position: &Position) {
        let Position { index, view: View(view) } = position;
        self.u64(*index);
        self.u64(*view);
    }

    fn read(&mut self, read: &ReadContext) {
        self.u64(read.node);
        self.u64(read.read);
    }

    fn entry(&mut self, entry: &LogEntry) {
        self.u64(entry.view.0);
        match &entry.content {
            Content::Blank => self.u8(0),
            Content::Batch(batch) => {
                self.u8(1);
                self.batch(batch);
            }
            Content::Membership(changes, batch) => {
                self.u8(2);
                self.changes(changes);
                self.batch(batch);
            }
            Content::LeaveJoint => self.u8(3),
        }
    }

    fn batch(&mut self, batch: &Batch) {
        self.u64(batch.last.view.0);
        self.u64(batch.first.0);
        self.u64(batch.last.seqno.0);
        // A proposal is at most `MAX_BATCH_BYTES` long.
        self.u32(u32::try_from(batch.entries.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(&batch.entries);
    }

    fn changes(&mut self, changes: &[Change]) {
        // Checked by the membership: at most `MAX_MEMBERS`.
        self.u16(u16::try_from(changes.len()).unwrap_or(u16::MAX));
        for change in changes {
            self.u8(match change {
                Change::Voter(_) => 0,
                Change::Learner(_) => 1,
                Change::Remove(_) => 2,
            });
            self.node(&change.node());
        }
    }

    fn membership(&mut self, membership: &Membership) {
        let Membership { voters, outgoing, learners, learners_next } = membership;
        for list in [voters, outgoing, learners, learners_next] {
            self.u16(u16::try_from(list.len()).unwrap_or(u16::MAX));
            list.iter().for_each(|node| self.node(node));
        }
    }
}
