//! The log on Raft (Ongaro and Ousterhout 2014), by the engine of the crate `raft`.
//!
//! The engine decides; what is here turns its answers into [`Effect`]s and keeps it from what it
//! must not see. Five rules go beyond it:
//! * nothing of view and vote is ever read from a disk. A node that stops is gone; its successor
//!   has another key and joins. So votes need no disk, and only acknowledgements wait for it;
//! * a node whose own log is not yet on its disk does not stand for election, so that a primary
//!   begins with everything persisted;
//! * an acknowledgement that waits for the disk dies with the view it was meant for;
//! * a primary that is voted out hands over at once;
//! * what earlier views have left counts as committed once a batch of the present view does. The
//!   blank entry with which the engine begins a view is on no ledger, and whoever recovers a service
//!   from its disks goes by the view of the last batch on each.

mod log;
mod receive;
mod settings;
mod translate;
mod turn;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use coco_kv::{TxId, View};
use raft::eraftpb::{EntryType, Message as EngineMessage, MessageType};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};

pub use settings::Settings;

use crate::wire::{Content, MAX_BATCH_BYTES, Position};
use crate::{
    Batch, Change, Consensus, ConsensusError, Effect, FrameError, Membership, NodeId, ReadNo, Role,
    WriteNo,
};
use log::Log;
use translate::Addresses;

/// After so many election timeouts without a word a node is taken for gone. One is too few: a busy
/// machine pauses for as long.
const SILENT_ELECTION_TIMEOUTS: usize = 4;
/// Reads that wait for an answer, at most.
const MAX_READS: usize = 1_024;

/// A node's part of a log that many nodes keep.
pub struct Raft {
    me: NodeId,
    settings: Settings,
    engine_config: raft::Config,
    engine: RawNode<Log>,
    role: Role,
    /// Everybody in the membership.
    addresses: Addresses,
    /// Who sent the frame that is being acted upon: it may not be in the membership yet.
    correspondent: Option<NodeId>,
    /// What an installation that is being received says of the membership.
    offered: Membership,
    /// Ordered to be persisted, by index.
    writes: VecDeque<Write>,
    next_write: u64,
    /// What the engine waits for before it goes on.
    handed_out: VecDeque<HandedOut>,
    /// Acknowledgements that wait for the disk: the last to each node.
    acknowledgements: BTreeMap<u64, (NodeId, EngineMessage)>,
    /// Reads that wait for this index.
    reads: VecDeque<(u64, ReadNo)>,
    /// What is being installed, from the engine's order to the driver's report.
    installing: Option<TxId>,
    /// The installation that the driver is at.
    installing_now: Option<TxId>,
    /// How long each node has been at an installation, in ticks.
    install_ticks: BTreeMap<u64, usize>,
    /// How far the log was committed when the others were last told so.
    told_committed: u64,
    /// On the primary: for how long nothing has come from each node, in ticks.
    silent_ticks: BTreeMap<u64, usize>,
    sends: VecDeque<(NodeId, Bytes)>,
    effects: VecDeque<Effect>,
}

struct Write {
    number: WriteNo,
    index: u64,
    is_done: bool,
}

/// Something that the engine has handed out, and what must be on the disk before it is told so.
struct HandedOut {
    number: u64,
    needs: Needs,
}

enum Needs {
    Nothing,
    EntriesTo(u64),
    Installation,
}

/// How far another node has the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The node.
    pub node: NodeId,
    /// The ledger that it has persisted reaches at least to here.
    pub persisted: TxId,
    /// It is at an installation.
    pub is_installing: bool,
    /// Nothing has come from it for a few election timeouts.
    pub is_silent: bool,
}

impl Raft {
    /// The first node of a service, new or recovered: primary in `view` (at least 2) of a ledger
    /// that ends with `end`.
    pub fn start(settings: Settings, me: NodeId, view: View, end: TxId) -> Self {
        assert!(view > View(1) && end.view <= view, "a service begins with view 2 or a later one");
        let before = Position { index: 1, view: View(view.0 - 1) };
        let mut raft =
            Self::with_log(settings, me, Log::starting_after(before, end, Membership::of(me)));
        // Its own vote is a majority.
        let campaign = raft.engine.campaign();
        debug_assert!(campaign.is_ok());
        raft.turn();
        raft
    }

    /// A node that joins: it knows nothing, and waits to hear from the primary.
    pub fn join(settings: Settings, me: NodeId) -> Self {
        let log = Log::starting_after(Position::default(), TxId::default(), Membership::default());
        let mut raft = Self::with_log(settings, me, log);
        raft.turn();
        raft
    }

    fn with_log(settings: Settings, me: NodeId, log: Log) -> Self {
        let engine_config = settings.engine(me.number(), log.applied().index);
        let addresses =
            log.membership().nodes().into_iter().map(|node| (node.number(), node)).collect();
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        #[expect(
            clippy::expect_used,
            reason = "the settings are made to fit, the log is consistent"
        )]
        let engine =
            RawNode::new(&engine_config, log, &logger).expect("the engine accepts its settings");
        Self {
            me,
            settings,
            engine_config,
            engine,
            role: Role::Backup { view: View(0), primary: None },
            addresses,
            correspondent: None,
            offered: Membership::default(),
            writes: VecDeque::new(),
            next_write: 0,
            handed_out: VecDeque::new(),
            acknowledgements: BTreeMap::new(),
            reads: VecDeque::new(),
            installing: None,
            installing_now: None,
            install_ticks: BTreeMap::new(),
            told_committed: 0,
            silent_ticks: BTreeMap::new(),
            sends: VecDeque::new(),
            effects: VecDeque::new(),
        }
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The nodes of the log, as far as this one has it committed.
    pub fn membership(&self) -> &Membership {
        self.log().membership()
    }

    /// The last entry of this node's log.
    pub fn last(&self) -> Position {
        let index = self.log().last_index();
        Position { index, view: self.view_at(index).unwrap_or_default() }
    }

    /// The last transaction in this node's log.
    pub fn end(&self) -> TxId {
        self.log().end()
    }

    /// The view of the entry at an index of the log, if that is kept.
    pub fn view_at(&self, index: u64) -> Option<View> {
        self.log().view_at(index)
    }

    /// The last transaction of the ledger after an entry, if that is kept.
    pub fn end_at(&self, index: u64) -> Option<TxId> {
        self.log().end_at(index)
    }

    fn log(&self) -> &Log {
        self.engine.store()
    }

    fn is_primary(&self) -> bool {
        self.engine.raft.state == StateRole::Leader
    }

    /// Whether everything in the log is on this node's disk.
    fn is_persisted(&self) -> bool {
        let log = &self.engine.raft.raft_log;
        log.persisted == log.last_index()
    }

    fn admit(&self, batch: &Batch) -> Result<(), ConsensusError> {
        self.may_propose()?;
        let (view, end) = (View(self.engine.raft.term), self.log().end());
        let Batch { first, last, entries } = batch;
        if last.view != view {
            return Err(ConsensusError::WrongView { last: *last, current: view });
        }
        if !batch.follows(end.seqno, view) {
            let (first, last, end) = (*first, last.seqno, end.seqno);
            return Err(ConsensusError::NotConsecutive { first, last, end });
        }
        if entries.len() > MAX_BATCH_BYTES {
            return Err(ConsensusError::TooLarge { bytes: entries.len() });
        }
        Ok(())
    }

    /// Tells nodes again to install what they have been told before, if that takes long: the
    /// message may have been lost.
    fn retry_installations(&mut self) {
        let raft = &self.engine.raft;
        let installing: Vec<_> = match self.is_primary() {
            true => {
                raft.prs().iter().filter(|(_, at)| at.state == ProgressState::Snapshot).collect()
            }
            false => Vec::new(),
        };
        let mut ticks: BTreeMap<_, _> = installing
            .into_iter()
            .map(|(number, _)| (*number, 1 + self.install_ticks.get(number).unwrap_or(&0)))
            .collect();
        for number in self.install_ticks.keys().filter(|number| !ticks.contains_key(number)) {
            self.engine.store().forget_offer(*number);
        }
        for (number, ticks) in &mut ticks {
            if *ticks >= self.settings.install_retry_ticks.max(1) {
                self.engine.report_snapshot(*number, SnapshotStatus::Failure);
                *ticks = 0;
            }
        }
        self.install_ticks = ticks;
    }

    /// One tick more without a word from each of the others, as long as this node is primary.
    fn count_silence(&mut self) {
        if !self.is_primary() {
            self.silent_ticks.clear();
            return;
        }
        let counted = std::mem::take(&mut self.silent_ticks);
        let ticks = |number: &u64| counted.get(number).unwrap_or(&0).saturating_add(1);
        let others = self.addresses.keys().filter(|number| **number != self.me.number());
        self.silent_ticks = others.map(|number| (*number, ticks(number))).collect();
    }
}

impl Consensus for Raft {
    fn role(&self) -> Role {
        self.role
    }

    fn committed(&self) -> TxId {
        self.log().committed()
    }

    fn has_persisted(&self, tx_id: TxId) -> bool {
        let persisted = self.engine.raft.raft_log.persisted;
        let index = self.log().index_of(tx_id).filter(|_| self.installing.is_none());
        index.is_some_and(|index| index <= persisted)
    }

    fn may_propose(&self) -> Result<(), ConsensusError> {
        let raft = &self.engine.raft;
        if !self.is_primary() {
            return Err(ConsensusError::NotPrimary);
        }
        if raft.lead_transferee.is_some() {
            return Err(ConsensusError::Transferring);
        }
        match self.log().unapplied_bytes() < self.settings.max_uncommitted_bytes.max(1) {
            true => Ok(()),
            false => Err(ConsensusError::Full),
        }
    }

    fn may_change(&self, changes: &[Change]) -> Result<(), ConsensusError> {
        self.may_propose()?;
        let membership = self.membership();
        // The engine would silently replace the entry by a blank one.
        if self.engine.raft.has_pending_conf() || membership.is_joint() {
            return Err(ConsensusError::Changing);
        }
        Ok(membership.check(changes)?)
    }

    fn propose(&mut self, batch: Batch) -> Result<(), ConsensusError> {
        self.admit(&batch)?;
        let mut proposal = EngineMessage::default();
        proposal.set_msg_type(MessageType::MsgPropose);
        proposal.from = self.me.number();
        proposal.set_entries(vec![translate::batch_entry(batch)].into());
        // Everything that it would be refused for has been asked.
        self.engine.raft.step(proposal).map_err(|_| ConsensusError::Full)?;
        self.turn();
        Ok(())
    }

    fn propose_change(&mut self, batch: Batch, changes: &[Change]) -> Result<(), ConsensusError> {
        self.admit(&batch)?;
        self.may_change(changes)?;
        let context = crate::wire::write_membership_entry(changes, &batch);
        let proposed = self.engine.propose_conf_change(context, translate::conf_change(changes));
        proposed.map_err(|_| ConsensusError::Full)?;
        self.turn();
        let last = self.log().last_entry();
        assert!(
            last.is_some_and(|entry| entry.get_entry_type() == EntryType::EntryConfChangeV2),
            "a change of membership that may be made is what the log ends with"
        );
        Ok(())
    }

    fn persisted(&mut self, write: WriteNo) -> Result<(), ConsensusError> {
        if write.0 >= self.next_write {
            return Err(ConsensusError::NotOrdered(write));
        }
        if let Some(write) = self.writes.iter_mut().find(|ordered| ordered.number == write) {
            write.is_done = true;
        }
        self.turn();
        Ok(())
    }

    fn installed(&mut self, at: TxId) -> Result<(), ConsensusError> {
        if self.installing_now != Some(at) {
            return Err(ConsensusError::NotInstalling);
        }
        self.installing_now = None;
        // Otherwise a later one has been ordered meanwhile, and follows.
        if self.installing == Some(at) {
            self.installing = None;
        }
        self.turn();
        Ok(())
    }

    fn tick(&mut self) {
        if !self.is_primary() && !self.is_persisted() {
            let raft = &mut self.engine.raft;
            let before_standing = raft.randomized_election_timeout().saturating_sub(2);
            raft.election_elapsed = raft.election_elapsed.min(before_standing);
        }
        self.retry_installations();
        self.tell_committed();
        self.count_silence();
        self.engine.tick();
        self.turn();
    }

    fn tell_committed(&mut self) {
        let committed = self.engine.raft.raft_log.committed;
        if self.is_primary() && committed > self.told_committed {
            self.engine.raft.bcast_append();
            self.turn();
        }
        self.told_committed = committed;
    }

    fn receive(&mut self, from: NodeId, frame: Bytes) -> Result<(), FrameError> {
        self.step(from, frame)
    }

    fn unreachable(&mut self, node: NodeId) {
        if self.addresses.get(&node.number()) == Some(&node) {
            self.engine.report_unreachable(node.number());
            self.turn();
        }
    }

    fn replicas(&self) -> Vec<Replica> {
        if !self.is_primary() {
            return Vec::new();
        }
        let raft = &self.engine.raft;
        let silent_after =
            self.settings.max_election_ticks.saturating_mul(SILENT_ELECTION_TIMEOUTS);
        let replica = |(number, node): (&u64, &NodeId)| {
            let progress = raft.prs().get(*number).filter(|_| *node != self.me)?;
            let persisted = self.log().end_at(progress.matched).unwrap_or_default();
            let is_installing = progress.state == ProgressState::Snapshot;
            let is_silent =
                self.silent_ticks.get(number).is_some_and(|ticks| *ticks > silent_after);
            Some(Replica { node: *node, persisted, is_installing, is_silent })
        };
        self.addresses.iter().filter_map(replica).collect()
    }

    fn transfer(&mut self, to: NodeId) -> Result<(), ConsensusError> {
        if !self.is_primary() {
            return Err(ConsensusError::NotPrimary);
        }
        if to == self.me || !self.membership().voters.contains(&to) {
            return Err(ConsensusError::NotAnotherVoter(to));
        }
        self.engine.transfer_leader(to.number());
        self.turn();
        Ok(())
    }

    fn read(&mut self, read: ReadNo) -> Result<(), ConsensusError> {
        if self.engine.raft.leader_id == raft::INVALID_ID {
            return Err(ConsensusError::NoPrimary);
        }
        if self.reads.len() >= MAX_READS || self.engine.raft.pending_read_count() >= MAX_READS {
            return Err(ConsensusError::TooManyReads);
        }
        let context = crate::wire::ReadContext { node: self.me.number(), read: read.0 };
        self.engine.read_index(translate::read_bytes(context));
        self.turn();
        Ok(())
    }

    fn compact(&mut self, to: TxId) {
        let mut needed = u64::MAX;
        if self.is_primary() {
            let others =
                self.engine.raft.prs().iter().filter(|(number, _)| **number != self.me.number());
            // Whoever does not answer may be gone for ever.
            for (_, at) in others.filter(|(_, at)| at.recent_active) {
                let has = match at.state {
                    ProgressState::Snapshot => at.pending_snapshot,
                    _ => at.matched,
                };
                // A node that has nothing yet begins with an installation anyway.
                needed = needed.min(if has == 0 { u64::MAX } else { has + 1 });
            }
        }
        let max_bytes = self.settings.max_kept_bytes;
        self.engine.mut_store().compact(to, needed, max_bytes);
    }

    fn next_effect(&mut self) -> Option<Effect> {
        if let Some((to, frame)) = self.sends.pop_front() {
            return Some(Effect::Send(to, frame));
        }
        if self.installing_now.is_some() {
            return None;
        }
        let effect = self.effects.pop_front()?;
        if let Effect::Install(at) = effect {
            self.installing_now = Some(at);
        }
        Some(effect)
    }
}

/// Whether an entry changes who counts, and how.
fn changes_of(entry: &raft::eraftpb::Entry) -> Option<(Vec<Change>, Option<Batch>)> {
    if entry.get_entry_type() == EntryType::EntryNormal {
        return None;
    }
    Some(match translate::content_of(entry) {
        Content::Membership(changes, batch) => (changes, Some(batch)),
        _ => (Vec::new(), None),
    })
}

#[cfg(test)]
mod tests {
    use coco_crypto::Digest;
    use coco_kv::Seqno;

    use super::*;

    fn raft(settings: Settings) -> Raft {
        let mut raft = Raft::start(settings, NodeId(Digest([1; 32])), View(2), TxId::default());
        while raft.next_effect().is_some() {}
        raft
    }

    fn batch(seqno: u64, bytes: usize) -> Batch {
        let entries = vec![7; bytes].into();
        Batch { first: Seqno(seqno), last: TxId::new(2, seqno), entries }
    }

    /// A refusal after the batch was encrypted would burn its nonces.
    #[test]
    fn a_batch_that_may_be_proposed_is_taken_whatever_its_size() {
        let settings = Settings { max_uncommitted_bytes: 1_000, ..Settings::default() };
        let mut raft = raft(settings);
        let mut seqno = 0;
        while raft.may_propose().is_ok() {
            seqno += 1;
            raft.propose(batch(seqno, 700)).unwrap();
        }
        assert_eq!(seqno, 2);
        assert_eq!(raft.propose(batch(3, 1)), Err(ConsensusError::Full));
        let changes = [Change::Learner(NodeId(Digest([2; 32])))];
        assert_eq!(raft.may_change(&changes), Err(ConsensusError::Full));
        raft.persisted(WriteNo(0)).unwrap();
        assert_eq!(raft.may_propose(), Ok(()));
        let large = MAX_BATCH_BYTES + 1;
        let refused = raft.propose(batch(3, large));
        assert_eq!(refused, Err(ConsensusError::TooLarge { bytes: large }));
    }

    #[test]
    fn what_the_driver_gets_wrong_is_refused() {
        let mut raft = raft(Settings::default());
        assert!(matches!(raft.propose(batch(2, 1)), Err(ConsensusError::NotConsecutive { .. })));
        let other_view = Batch { last: TxId::new(3, 1), ..batch(1, 1) };
        assert!(matches!(raft.propose(other_view), Err(ConsensusError::WrongView { .. })));
        let unknown = WriteNo(0);
        assert_eq!(raft.persisted(unknown), Err(ConsensusError::NotOrdered(unknown)));
        assert_eq!(raft.installed(TxId::default()), Err(ConsensusError::NotInstalling));
        let mut joining = Raft::join(Settings::default(), NodeId(Digest([2; 32])));
        assert_eq!(joining.propose(batch(1, 1)), Err(ConsensusError::NotPrimary));
        assert_eq!(joining.read(ReadNo(0)), Err(ConsensusError::NoPrimary));
    }

    #[test]
    fn whoever_says_nothing_for_long_is_silent() {
        use crate::wire::{Frame, Message};
        let settings = Settings::default();
        let silent_after = settings.max_election_ticks * SILENT_ELECTION_TIMEOUTS;
        let mut raft = raft(settings);
        let (me, peer) = (raft.me(), NodeId(Digest([9; 32])));
        raft.propose_change(batch(1, 1), &[Change::Learner(peer)]).unwrap();
        raft.persisted(WriteNo(0)).unwrap();
        let is_silent = |raft: &Raft| {
            let replicas = raft.replicas();
            assert_eq!(replicas.len(), 1);
            replicas.iter().any(|replica| replica.node == peer && replica.is_silent)
        };
        for _ in 0..silent_after {
            raft.tick();
            assert!(!is_silent(&raft), "it may just have come");
        }
        raft.tick();
        assert!(is_silent(&raft));
        let message = Message::HeartbeatReply { committed: 0, read: None };
        let frame = Frame { from: peer, to: me, view: View(2), message }.encode();
        raft.receive(peer, frame).unwrap();
        assert!(!is_silent(&raft));
    }

    #[test]
    fn a_backup_that_is_asked_for_a_read_does_not_answer() {
        use crate::wire::{Frame, Message, ReadContext};
        let mut raft = raft(Settings::default());
        let (me, peer) = (raft.me(), NodeId(Digest([9; 32])));
        let mut receive = |message| {
            let frame = Frame { from: peer, to: me, view: View(3), message }.encode();
            raft.receive(peer, frame)
        };
        assert_eq!(receive(Message::Heartbeat { committed: 0, read: None }), Ok(()));
        let context = ReadContext { node: peer.number(), read: 1 };
        assert_eq!(receive(Message::ReadRequest(context)), Ok(()));
        assert_eq!(raft.role(), Role::Backup { view: View(3), primary: Some(peer) });
    }

    /// Frames that a correct node never sends have no effect, and stop nothing.
    #[test]
    fn a_peer_that_lies_is_refused() {
        use crate::wire::{Frame, Message};
        let mut raft = raft(Settings::default());
        let (me, peer) = (raft.me(), NodeId(Digest([9; 32])));
        let mut receive = |from, to, message| {
            let frame = Frame { from, to, view: View(3), message }.encode();
            raft.receive(peer, frame)
        };
        assert_eq!(receive(me, me, Message::StandNow), Err(FrameError::Sender));
        assert_eq!(receive(peer, peer, Message::StandNow), Err(FrameError::Recipient));
        let impossible = Err(FrameError::Impossible("what it says of the log"));
        let beyond = Message::Heartbeat { committed: 1_000, read: None };
        assert_eq!(receive(peer, me, beyond), impossible);
        let previous = Position { index: 2, view: View(9) };
        let backwards = Message::Append { previous, committed: 0, entries: Vec::new() };
        assert_eq!(receive(peer, me, backwards), impossible);
        // A place without a view is before the first entry; elsewhere the engine takes it for one
        // that it has forgotten, and stops the node at what is committed there.
        let nowhere = Position { index: 171, view: View(0) };
        let committed = Message::Append { previous: nowhere, committed: 171, entries: Vec::new() };
        assert_eq!(receive(peer, me, committed), impossible);
        let at = Position { index: 9, view: View(2) };
        let ledger = TxId::new(2, 7);
        let foreign = Message::Install { at, ledger, membership: Membership::of(peer) };
        assert_eq!(receive(peer, me, foreign), impossible);
        let at = Position { index: 63, view: View(0) };
        let ledger = TxId::default();
        let nowhere = Message::Install { at, ledger, membership: Membership::of(me) };
        assert_eq!(receive(peer, me, nowhere), impossible);
        assert!(raft.role() == Role::Primary(View(2)));
    }

    /// Nor does a primary take back what is committed.
    #[test]
    fn a_primary_that_rewrites_the_committed_past_is_refused() {
        use crate::wire::{Content, Frame, LogEntry, Message};
        let mut raft = raft(Settings::default());
        let (me, peer) = (raft.me(), NodeId(Digest([9; 32])));
        raft.propose(batch(1, 1)).unwrap();
        raft.persisted(WriteNo(0)).unwrap();
        let (committed, last) = (raft.committed(), raft.last());
        assert_eq!(committed, TxId::new(2, 1));
        let entries =
            (1..last.index).map(|_| LogEntry { view: View(3), content: Content::Blank }).collect();
        let previous = Position { index: 1, view: View(1) };
        let message = Message::Append { previous, committed: last.index, entries };
        let frame = Frame { from: peer, to: me, view: View(3), message }.encode();
        let impossible = Err(FrameError::Impossible("what it says of the log"));
        assert_eq!(raft.receive(peer, frame), impossible);
        assert_eq!((raft.committed(), raft.last()), (committed, last));
    }
}
