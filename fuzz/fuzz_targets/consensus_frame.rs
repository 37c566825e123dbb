//! A frame from another node: what is accepted is exactly what would be sent.
#![no_main]

use bytes::Bytes;
use coco_consensus::wire::{Candidacy, Content, Frame, LogEntry, Message, Position, ReadContext};
use coco_consensus::{Batch, Change, Membership, NodeId};
use coco_crypto::Digest;
use coco_kv::{Seqno, TxId, View};
use libfuzzer_sys::fuzz_target;

fn seeds() -> Vec<Bytes> {
    let node = |number| NodeId(Digest([number; 32]));
    let position = Position { index: 3, view: View(2) };
    let read = ReadContext { node: 1, read: 7 };
    let batch = Batch { first: Seqno(4), last: TxId::new(2, 6), entries: "entries".into() };
    let contents = [
        Content::Blank,
        Content::Batch(batch.clone()),
        Content::Membership(vec![Change::Learner(node(3)), Change::Remove(node(1))], batch),
        Content::LeaveJoint,
    ];
    let entries = contents.map(|content| LogEntry { view: View(2), content }).into();
    let membership = Membership::of(node(1));
    let messages = [
        Message::Append { previous: position, committed: 3, entries },
        Message::Appended { index: 3, committed: 2 },
        Message::Refused { index: 3, hint: position, committed: 2 },
        Message::VoteRequest { candidacy: Candidacy::Vote, last: position, committed: position },
        Message::Vote { pre_vote: true, granted: false, committed: position },
        Message::Heartbeat { committed: 2, read: Some(read) },
        Message::HeartbeatReply { committed: 2, read: None },
        Message::Install { at: position, ledger: TxId::new(2, 6), membership },
        Message::StandNow,
        Message::ReadRequest(read),
        Message::ReadReply { index: 3, read },
    ];
    let frame = |message| Frame { from: node(1), to: node(2), view: View(2), message };
    messages.into_iter().map(|message| frame(message).encode()).collect()
}

fuzz_target!(init: coco_fuzz::seed("consensus_frame", seeds()), |bytes: &[u8]| {
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(frame.encode(), bytes);
    }
});
