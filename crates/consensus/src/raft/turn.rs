//! After every input: what the engine has to say, as effects.

use coco_kv::{TxId, View};
use raft::eraftpb::{ConfChangeV2, Entry, Message as EngineMessage, MessageType, Snapshot};
use raft::{ReadState, StateRole};

use super::{HandedOut, Needs, Raft, Write, changes_of, translate};
use crate::wire::{Frame, Position};
use crate::{Change, Effect, NodeId, ReadNo, Role, WriteNo};

impl Raft {
    /// Takes from the engine all that it has, until it waits for something.
    pub(super) fn turn(&mut self) {
        loop {
            self.tell_persisted();
            self.draw_timeout();
            if !self.engine.has_ready() {
                break;
            }
            let mut ready = self.engine.ready();
            self.note_role();
            let mut needs = Needs::Nothing;
            if !ready.snapshot().is_empty() {
                self.install(ready.snapshot());
                needs = Needs::Installation;
            }
            let entries = ready.take_entries();
            if let Some(last) = entries.last() {
                needs = Needs::EntriesTo(last.index);
            }
            self.append(entries);
            self.handed_out.push_back(HandedOut { number: ready.number(), needs });
            let mut messages = ready.take_messages();
            // The engine would have them wait for the disk; only acknowledgements must.
            messages.append(&mut ready.take_persisted_messages());
            let committed = ready.take_committed_entries();
            let reads = ready.take_read_states();
            self.engine.advance_append_async(ready);

            messages.into_iter().for_each(|message| self.send_or_hold(message));
            self.apply(committed);
            reads.into_iter().for_each(|read| self.note_read(read));
        }
        self.release_acknowledgements();
        self.answer_reads();
    }

    /// Tells the engine how far the disk is.
    fn tell_persisted(&mut self) {
        while self.writes.front().is_some_and(|write| write.is_done) {
            self.writes.pop_front();
        }
        let persisted = match (self.installing, self.writes.front()) {
            (Some(_), _) => 0,
            (None, Some(waiting)) => waiting.index - 1,
            (None, None) => self.log().last_index(),
        };
        while let Some(HandedOut { number, needs }) = self.handed_out.front() {
            let is_there = match needs {
                Needs::Nothing => true,
                Needs::EntriesTo(index) => *index <= persisted,
                Needs::Installation => self.installing.is_none(),
            };
            if !is_there {
                return;
            }
            self.engine.on_persist_ready(*number);
            if matches!(needs, Needs::Installation) {
                let applied = self.log().applied().index;
                self.engine.advance_apply_to(applied);
            }
            self.handed_out.pop_front();
        }
    }

    /// The engine draws its election timeouts from a global random source whenever its role or view
    /// changes; ours take their place before the first is looked at.
    fn draw_timeout(&mut self) {
        let raft = &mut self.engine.raft;
        let (id, view, role) = (raft.id, raft.term, raft.state as u64);
        let timeout = self.settings.election_timeout(id, view, role, &self.engine_config);
        raft.set_randomized_election_timeout(timeout);
    }

    fn note_role(&mut self) {
        let raft = &self.engine.raft;
        let view = View(raft.term);
        let role = match raft.state {
            StateRole::Leader => Role::Primary(view),
            _ => Role::Backup { view, primary: self.address_of(raft.leader_id) },
        };
        if role != self.role {
            self.role = role;
            self.effects.push_back(Effect::Role(role));
        }
    }

    fn address_of(&self, number: u64) -> Option<NodeId> {
        let of_correspondent = || self.correspondent.filter(|node| node.number() == number);
        self.addresses.get(&number).copied().or_else(of_correspondent)
    }

    /// The log begins anew elsewhere: the driver must bring the ledger there first.
    fn install(&mut self, snapshot: &Snapshot) {
        let end = translate::install_end(snapshot);
        let metadata = snapshot.get_metadata();
        let position = Position { index: metadata.index, view: View(metadata.term) };
        let committed = self.log().committed();
        assert!(end.seqno >= committed.seqno, "what is committed is never taken back");
        let membership = self.offered.clone();
        self.addresses = membership.nodes().into_iter().map(|node| (node.number(), node)).collect();
        self.engine.mut_store().install(position, end, membership.clone());
        self.writes.clear();
        self.handed_out.iter_mut().for_each(|handed_out| handed_out.needs = Needs::Nothing);
        self.acknowledgements.clear();
        // What was ordered and not begun is of no use.
        self.effects.retain(|effect| matches!(effect, Effect::Role(_)));
        self.effects.push_back(Effect::Install(end));
        self.effects.push_back(Effect::Committed(end));
        self.effects.push_back(Effect::Membership(membership));
        self.installing = Some(end);
    }

    fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        if first <= self.log().last_index() {
            self.take_back(first);
        }
        for entry in entries {
            let index = entry.index;
            let Some(batch) = self.engine.mut_store().append(entry) else { continue };
            let number = WriteNo(self.next_write);
            self.next_write += 1;
            self.writes.push_back(Write { number, index, is_done: false });
            self.effects.push_back(Effect::Persist(number, batch));
        }
    }

    /// The entries from `first` on are void: another primary's take their place.
    fn take_back(&mut self, first: u64) {
        let before = self.log().end();
        self.engine.mut_store().truncate(first);
        let (end, committed) = (self.log().end(), self.log().committed());
        assert!(end.seqno >= committed.seqno, "what is committed is never taken back");
        self.writes.retain(|write| write.index < first);
        for handed_out in &mut self.handed_out {
            if let Needs::EntriesTo(index) = &mut handed_out.needs {
                *index = (*index).min(first - 1);
            }
        }
        self.acknowledgements.retain(|_, (_, message)| message.index < first);
        if end != before {
            self.effects.push_back(Effect::Truncate(end));
        }
    }

    /// Sends a message, unless it says that something is persisted here which is not yet.
    fn send_or_hold(&mut self, message: EngineMessage) {
        let Some(to) = self.address_of(message.to) else { return };
        let acknowledges =
            message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject;
        if !acknowledges || message.index <= self.engine.raft.raft_log.persisted {
            return self.send(to, &message);
        }
        // The last one says it all.
        let held = self.acknowledgements.get(&message.to);
        if held.is_none_or(|(_, held)| held.term < message.term || held.index <= message.index) {
            self.acknowledgements.insert(message.to, (to, message));
        }
    }

    fn release_acknowledgements(&mut self) {
        let log = &self.engine.raft.raft_log;
        let (view, persisted) = (self.engine.raft.term, log.persisted);
        for (number, (to, message)) in std::mem::take(&mut self.acknowledgements) {
            if message.term != view {
                continue;
            }
            match message.index <= persisted {
                true => self.send(to, &message),
                false => drop(self.acknowledgements.insert(number, (to, message))),
            }
        }
    }

    fn send(&mut self, to: NodeId, message: &EngineMessage) {
        let (from, view) = (self.me, View(message.term));
        if let Some(message) = translate::from_engine(message, &self.addresses) {
            self.sends.push_back((to, Frame { from, to, view, message }.encode()));
        }
    }

    /// Entries that are committed, and persisted here.
    fn apply(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|last| last.index) else { return };
        for entry in entries {
            let end = self.log().end_at(entry.index);
            self.commit_to(end);
            // A change whose batch is void is void too.
            if let Some((changes, batch)) = changes_of(&entry)
                && batch.is_none_or(|batch| Some(batch.last) == end)
            {
                self.change_membership(&changes);
            }
            let position = Position { index: entry.index, view: View(entry.term) };
            self.engine.mut_store().set_applied(position);
        }
        self.engine.advance_apply_to(last);
        self.leave_office();
    }

    /// What earlier views have left waits for a batch of this one.
    fn commit_to(&mut self, end: Option<TxId>) {
        let (view, committed) = (View(self.engine.raft.term), self.log().committed());
        if let Some(end) = end.filter(|end| end.view == view && end.seqno > committed.seqno) {
            self.engine.mut_store().set_committed(end);
            self.effects.push_back(Effect::Committed(end));
        }
    }

    /// Makes the changes; none of them means that a joint membership ends.
    fn change_membership(&mut self, changes: &[Change]) {
        self.addresses.extend(changes.iter().map(|change| (change.node().number(), change.node())));
        let conf_change = match changes {
            [] => ConfChangeV2::default(),
            _ => translate::conf_change(changes),
        };
        // What cannot be made is made nowhere: all nodes see the same.
        let Ok(state) = self.engine.apply_conf_change(&conf_change) else { return };
        let membership = translate::membership(&state, &self.addresses);
        let nodes = membership.nodes();
        self.addresses.retain(|_, node| nodes.contains(node));
        self.engine.mut_store().set_membership(membership.clone());
        self.effects.push_back(Effect::Membership(membership));
    }

    /// A primary that has been voted out leaves at once, and the voter that has most of the log
    /// stands.
    fn leave_office(&mut self) {
        let membership = self.membership();
        let counts =
            |node: &NodeId| membership.voters.contains(node) || membership.outgoing.contains(node);
        if !self.is_primary() || counts(&self.me) {
            return;
        }
        let voters = membership.voters.iter().map(|node| node.number());
        let progress = self.engine.raft.prs();
        let matched = |number: &u64| progress.get(*number).map_or(0, |at| at.matched);
        let best = voters.max_by_key(|number| (matched(number), *number));
        let view = self.engine.raft.term;
        if let Some(best) = best {
            self.engine.raft.send_timeout_now(best);
        }
        self.engine.raft.become_follower(view, raft::INVALID_ID);
    }

    fn note_read(&mut self, read: ReadState) {
        let context = translate::read_context(&read.request_ctx);
        if let Some(context) = context.filter(|context| context.node == self.me.number()) {
            self.reads.push_back((read.index, ReadNo(context.read)));
        }
    }

    fn answer_reads(&mut self) {
        let log = self.engine.store();
        let (applied, committed) = (log.applied().index, log.committed().seqno);
        let effects = &mut self.effects;
        self.reads.retain(|(index, read)| {
            // What is not kept any more is committed.
            let counts = log.end_at(*index).is_none_or(|end| end.seqno <= committed);
            let waits = *index > applied || !counts;
            if !waits {
                effects.push_back(Effect::ReadReady(*read));
            }
            waits
        });
    }
}
