//! Frames of other nodes, on their way to the engine. The engine stops the node at what cannot be;
//! so what a peer says is held against what is known here before.

use bytes::Bytes;
use coco_kv::View;
use raft::StateRole;

use super::{MAX_READS, Raft, translate};
use crate::wire::{Frame, LogEntry, Message, Position};
use crate::{FrameError, NodeId};

impl Raft {
    pub(super) fn step(&mut self, from: NodeId, frame: Bytes) -> Result<(), FrameError> {
        let mut frame = Frame::decode(frame)?;
        self.check(from, &frame)?;
        self.silent_ticks.remove(&from.number());
        match &frame.message {
            // It could not begin a view with everything persisted, see `Raft::tick`.
            Message::StandNow if !self.is_persisted() => return Ok(()),
            // Only a primary answers. The engine of a backup would pass it on, and stop at its view.
            Message::ReadRequest(_)
                if self.engine.raft.state != StateRole::Leader
                    || self.engine.raft.pending_read_count() >= MAX_READS =>
            {
                return Ok(());
            }
            Message::Install { membership, .. } => self.offered = membership.clone(),
            // The engine looks at no refusal of an earlier view. But if the voter has been voted
            // out, nobody else may know that this is committed, and it is asked as if it were not.
            Message::Vote { pre_vote: true, granted: false, committed }
                if committed.index > self.engine.raft.raft_log.committed =>
            {
                frame.view = frame.view.max(View(self.engine.raft.term));
            }
            _ => {}
        }
        self.correspondent = Some(from);
        // What it refuses, answers of nodes that take no part any more, needs no reaction.
        let _ = self.engine.step(translate::to_engine(frame));
        self.turn();
        Ok(())
    }

    fn check(&self, from: NodeId, frame: &Frame) -> Result<(), FrameError> {
        if frame.from != from || frame.from == self.me {
            return Err(FrameError::Sender);
        }
        if frame.to != self.me {
            return Err(FrameError::Recipient);
        }
        let twin = self.addresses.get(&from.number()).is_some_and(|known| *known != from);
        if twin || from.number() == self.me.number() {
            return Err(FrameError::Impossible("another node has the sender's number"));
        }
        let possible = match &frame.message {
            Message::Append { previous, entries, .. } => {
                are_in_order(previous, entries, frame.view)
                    && (frame.view.0 < self.engine.raft.term || self.keeps(previous, entries))
            }
            Message::Appended { index, .. } => {
                let raft = &self.engine.raft;
                let is_asked = raft.state == StateRole::Leader && frame.view.0 == raft.term;
                !is_asked || *index <= self.log().last_index()
            }
            Message::Heartbeat { committed, .. } => {
                frame.view.0 < self.engine.raft.term || *committed <= self.log().last_index()
            }
            Message::Install { at, ledger, membership } => {
                let is_new = at.index >= self.engine.raft.raft_log.committed;
                // For a place without a view, see `are_in_order`.
                at.index > 0
                    && at.view > View(0)
                    && at.view <= frame.view
                    && ledger.view <= at.view
                    && (!is_new || ledger.seqno >= self.log().committed().seqno)
                    && membership.nodes().contains(&self.me)
            }
            _ => true,
        };
        match possible {
            true => Ok(()),
            false => Err(FrameError::Impossible("what it says of the log")),
        }
    }
}

impl Raft {
    /// Whether entries agree with what is committed here, as far as that is still known.
    fn keeps(&self, previous: &Position, entries: &[LogEntry]) -> bool {
        let committed = self.engine.raft.raft_log.committed;
        let mut places = (previous.index.saturating_add(1)..=committed).zip(entries);
        let same = |(index, entry): (u64, &LogEntry)| {
            self.log().view_at(index).is_none_or(|view| view == entry.view)
        };
        places.all(same)
    }
}

/// Views only grow along a log, up to that of the primary who sends it, from the place before the
/// first entry on, which alone has none.
fn are_in_order(previous: &Position, entries: &[LogEntry], view: View) -> bool {
    let is_place = (previous.index == 0) == (previous.view == View(0));
    let mut last = previous.view;
    is_place
        && entries.iter().all(|entry| {
            let fits = entry.view >= last && entry.view > View(0);
            last = entry.view;
            fits
        })
        && last <= view
}
