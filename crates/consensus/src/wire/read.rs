//! Reading frames: everything here comes from another machine.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};
use coco_crypto::Digest;
use coco_kv::{Seqno, TxId, View};

use super::write::VERSION;
use super::{
    Candidacy, Content, Frame, LogEntry, MAX_BATCH_BYTES, MAX_FRAME_BYTES, MAX_FRAME_ENTRIES,
    MAX_NUMBER, Message, Position, ReadContext,
};
use crate::{Batch, Change, FrameError, MAX_MEMBERS, Membership, NodeId};

pub(super) fn frame(bytes: Bytes) -> Result<Frame, FrameError> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge(bytes.len()));
    }
    let mut reader = Reader(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let kind = reader.u8()?;
    let (from, to, view) = (reader.node()?, reader.node()?, reader.view()?);
    let message = reader.message(kind)?;
    if view == View(0) && !matches!(message, Message::ReadRequest(_)) {
        return Err(FrameError::Value { what: "the view", value: 0 });
    }
    reader.finish()?;
    Ok(Frame { from, to, view, message })
}

/// The changes and the batch of a membership entry.
pub(crate) fn read_membership_entry(bytes: Bytes) -> Result<(Vec<Change>, Batch), FrameError> {
    let mut reader = Reader(bytes);
    let entry = (reader.changes()?, reader.batch()?);
    reader.finish()?;
    Ok(entry)
}

struct Reader(Bytes);

impl Reader {
    fn finish(self) -> Result<(), FrameError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(FrameError::TrailingBytes(left)),
        }
    }

    fn take(&mut self, len_bytes: usize) -> Result<Bytes, FrameError> {
        if self.0.len() < len_bytes {
            return Err(FrameError::CutShort);
        }
        Ok(self.0.split_to(len_bytes))
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.take(1)?.get_u8())
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(self.take(2)?.get_u16_le())
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(self.take(4)?.get_u32_le())
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(self.take(8)?.get_u64_le())
    }

    fn bounded(&mut self, what: &'static str) -> Result<u64, FrameError> {
        match self.u64()? {
            value if value < MAX_NUMBER => Ok(value),
            value => Err(FrameError::Value { what, value }),
        }
    }

    fn index(&mut self) -> Result<u64, FrameError> {
        self.bounded("an index")
    }

    fn view(&mut self) -> Result<View, FrameError> {
        self.bounded("a view").map(View)
    }

    fn seqno(&mut self) -> Result<Seqno, FrameError> {
        self.bounded("a seqno").map(Seqno)
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, FrameError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(FrameError::Value { what, value: value.into() }),
        }
    }

    fn node(&mut self) -> Result<NodeId, FrameError> {
        let mut digest = [0; 32];
        self.take(32)?.copy_to_slice(&mut digest);
        Ok(NodeId(Digest(digest)))
    }

    fn position(&mut self) -> Result<Position, FrameError> {
        Ok(Position { index: self.index()?, view: self.view()? })
    }

    fn read(&mut self) -> Result<ReadContext, FrameError> {
        Ok(ReadContext { node: self.u64()?, read: self.u64()? })
    }

    fn optional_read(&mut self) -> Result<Option<ReadContext>, FrameError> {
        self.flag("whether there is a read")?.then(|| self.read()).transpose()
    }

    fn message(&mut self, kind: u8) -> Result<Message, FrameError> {
        Ok(match kind {
            1 => Message::Append {
                previous: self.position()?,
                committed: self.index()?,
                entries: self.entries()?,
            },
            2 => Message::Appended { index: self.index()?, committed: self.index()? },
            3 => Message::Refused {
                index: self.index()?,
                hint: self.position()?,
                committed: self.index()?,
            },
            4 => Message::VoteRequest {
                candidacy: self.candidacy()?,
                last: self.position()?,
                committed: self.position()?,
            },
            5 => Message::Vote {
                pre_vote: self.flag("whether it is a pre-vote")?,
                granted: self.flag("whether it is granted")?,
                committed: self.position()?,
            },
            6 => Message::Heartbeat { committed: self.index()?, read: self.optional_read()? },
            7 => Message::HeartbeatReply { committed: self.index()?, read: self.optional_read()? },
            8 => Message::Install {
                at: self.position()?,
                ledger: TxId { view: self.view()?, seqno: self.seqno()? },
                membership: self.membership()?,
            },
            9 => Message::StandNow,
            10 => Message::ReadRequest(self.read()?),
            11 => Message::ReadReply { index: self.index()?, read: self.read()? },
            _ => return Err(FrameError::Value { what: "the kind", value: kind.into() }),
        })
    }

    fn candidacy(&mut self) -> Result<Candidacy, FrameError> {
        Ok(match self.u8()? {
            0 => Candidacy::PreVote,
            1 => Candidacy::Vote,
            2 => Candidacy::Transfer,
            value => return Err(FrameError::Value { what: "a candidacy", value: value.into() }),
        })
    }

    fn entries(&mut self) -> Result<Vec<LogEntry>, FrameError> {
        let count = self.u32()?;
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= MAX_FRAME_ENTRIES)
            .ok_or(FrameError::Value { what: "the number of entries", value: count.into() })?;
        // A vector grows with what is really there: each entry takes nine bytes or more.
        let mut entries = Vec::with_capacity(count.min(self.0.len() / 9));
        for _ in 0..count {
            entries.push(self.entry()?);
        }
        Ok(entries)
    }

    fn entry(&mut self) -> Result<LogEntry, FrameError> {
        let view = self.view()?;
        let content = match self.u8()? {
            0 => Content::Blank,
            1 => Content::Batch(self.batch()?),
            2 => Content::Membership(self.changes()?, self.batch()?),
            3 => Content::LeaveJoint,
            kind => {
                return Err(FrameError::Value { what: "the kind of entry", value: kind.into() });
            }
        };
        match &content {
            // A batch of another view would be void everywhere: nobody proposes it.
            Content::Batch(batch) | Content::Membership(_, batch) if batch.last.view != view => {
                Err(FrameError::Value { what: "a batch's view", value: batch.last.view.0 })
            }
            _ => Ok(LogEntry { view, content }),
        }
    }

    fn batch(&mut self) -> Result<Batch, FrameError> {
        let (view, first, last) = (self.view()?, self.seqno()?, self.seqno()?);
        if first == Seqno(0) || last < first {
            return Err(FrameError::Value { what: "a batch's last seqno", value: last.0 });
        }
        let length = self.u32()?;
        let entries = match usize::try_from(length) {
            Ok(length) if length <= MAX_BATCH_BYTES => self.take(length)?,
            _ => return Err(FrameError::Value { what: "a batch's length", value: length.into() }),
        };
        Ok(Batch { first, last: TxId { view, seqno: last }, entries })
    }

    fn changes(&mut self) -> Result<Vec<Change>, FrameError> {
        let count = self.u16()?;
        if count == 0 || usize::from(count) > MAX_MEMBERS {
            return Err(FrameError::Value { what: "the number of changes", value: count.into() });
        }
        (0..count)
            .map(|_| {
                let (what, node) = (self.u8()?, self.node()?);
                Ok(match what {
                    0 => Change::Voter(node),
                    1 => Change::Learner(node),
                    2 => Change::Remove(node),
                    _ => return Err(FrameError::Value { what: "a change", value: what.into() }),
                })
            })
            .collect()
    }

    fn membership(&mut self) -> Result<Membership, FrameError> {
        let membership = Membership {
            voters: self.nodes()?,
            outgoing: self.nodes()?,
            learners: self.nodes()?,
            learners_next: self.nodes()?,
        };
        let Membership { voters, outgoing, learners, learners_next } = &membership;
        let nodes = membership.nodes();
        let numbers: BTreeSet<_> = nodes.iter().map(|node| node.number()).collect();
        let well_formed = !voters.is_empty()
            && numbers.len() == nodes.len()
            && nodes.len() <= MAX_MEMBERS
            && learners.is_disjoint(voters)
            && learners.is_disjoint(outgoing)
            && learners_next.is_subset(outgoing)
            && learners_next.is_disjoint(voters);
        match well_formed {
            true => Ok(membership),
            false => Err(FrameError::Impossible("a membership that contradicts itself")),
        }
    }

    fn nodes(&mut self) -> Result<BTreeSet<NodeId>, FrameError> {
        let count = self.u16()?;
        if usize::from(count) > MAX_MEMBERS {
            return Err(FrameError::Value { what: "the number of nodes", value: count.into() });
        }
        let mut nodes = BTreeSet::new();
        for _ in 0..count {
            let node = self.node()?;
            // In ascending order, as they are written: so each list has one form.
            if nodes.last().is_some_and(|last| *last >= node) {
                return Err(FrameError::Impossible("nodes out of order"));
            }
            nodes.insert(node);
        }
        Ok(nodes)
    }
}
