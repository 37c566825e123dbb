//! What goes through a channel, byte by byte. Numbers are little-endian.
//!
//! ```text
//! message   length of the rest (4) │ kind (1) │ body
//!
//! kind body
//!  1 log             a frame of the log (coco_consensus::wire)
//!  2 ledger please   number (8) │ after (8) │ to (8) │ committed: view (8) │ seqno (8)
//!  3 ledger          number (8) │ entries; none if there are none to give
//!  4 ping            nothing
//!  5 question        number (8) │ question (crate::forward::message)
//!  6 answer          number (8) │ answer (crate::forward::message)
//!  7 busy            number (8): the question is not taken up
//!  8 cancel          number (8): nobody waits for the answer
//!  9 snapshot please number (8) │ no later than (8)
//! 10 snapshot        number (8) │ 0: there is none
//!                               │ 1: one is being written │ seqno (8)
//!                               │ 2: seqno (8) │ evidence (8) │ bytes (8)
//! 11 piece please    number (8) │ seqno (8) │ evidence (8) │ from byte (8)
//! 12 piece           number (8) │ bytes; none if there are none to give
//! ```

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use coco_consensus::wire::MAX_FRAME_BYTES;
use coco_kv::{Seqno, TxId};
use coco_ledger::SnapshotName;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The largest message: a frame of the log and its kind.
const MAX_MESSAGE_BYTES: usize = MAX_FRAME_BYTES + 1;
/// Memory is taken as bytes come, in steps of this.
const READ_STEP_BYTES: usize = 1 << 20;

const LOG: u8 = 1;
const LEDGER_PLEASE: u8 = 2;
const LEDGER: u8 = 3;
const PING: u8 = 4;
const QUESTION: u8 = 5;
const ANSWER: u8 = 6;
const BUSY: u8 = 7;
const CANCEL: u8 = 8;
const SNAPSHOT_PLEASE: u8 = 9;
const SNAPSHOT: u8 = 10;
const PIECE_PLEASE: u8 = 11;
const PIECE: u8 = 12;

const NO_SNAPSHOT: u8 = 0;
const SNAPSHOT_IS_COMING: u8 = 1;
const SNAPSHOT_IS_THERE: u8 = 2;

/// The largest question or answer. What is larger would hold up the log behind it.
pub const MAX_EXCHANGED_BYTES: usize = 16 << 20;

/// What a node has to offer of its snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotOffer {
    /// No snapshot.
    Nothing,
    /// One of this position is being written.
    Coming(Seqno),
    /// This one, and how many bytes it takes.
    There(SnapshotName, u64),
}

/// A message through a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A frame of the log.
    Log(Bytes),
    /// Entries of the ledger are asked for.
    LedgerPlease {
        /// Of the request, among the asker's.
        number: u64,
        /// From right after here on.
        after: Seqno,
        /// Up to here at most.
        to: Seqno,
        /// This is committed, as the asker knows; 0.0 if it knows nothing.
        committed: TxId,
    },
    /// The answer to the request of this number.
    Ledger {
        /// Of the request.
        number: u64,
        /// Some entries, or none if there are none to give.
        entries: Bytes,
    },
    /// The line is alive.
    Ping,
    /// Something that only the other node can answer.
    Question {
        /// Of the question, among those of the line.
        number: u64,
        /// What is asked.
        question: Bytes,
    },
    /// The answer to the question of this number.
    Answer {
        /// Of the question.
        number: u64,
        /// What is answered.
        answer: Bytes,
    },
    /// The question of this number is not taken up: there are too many.
    Busy {
        /// Of the question.
        number: u64,
    },
    /// Nobody waits for the answer to the question of this number any more.
    Cancel {
        /// Of the question.
        number: u64,
    },
    /// What the other node has of snapshots is asked for.
    SnapshotPlease {
        /// Of the request, among the asker's.
        number: u64,
        /// No later than this.
        to: Seqno,
    },
    /// The answer to the request of this number.
    Snapshot {
        /// Of the request.
        number: u64,
        /// What there is.
        offer: SnapshotOffer,
    },
    /// Bytes of a committed snapshot are asked for, as many as the other likes to send at once.
    PiecePlease {
        /// Of the request, among the asker's.
        number: u64,
        /// Which snapshot.
        name: SnapshotName,
        /// From which byte on.
        offset: u64,
    },
    /// The answer to the request of this number.
    Piece {
        /// Of the request.
        number: u64,
        /// Some bytes, or none if there are none to give.
        bytes: Bytes,
    },
}

impl Message {
    /// The message as it goes through a channel, with its length.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(0);
        match self {
            Self::Log(frame) => {
                bytes.reserve(1 + frame.len());
                bytes.put_u8(LOG);
                bytes.put_slice(frame);
            }
            Self::LedgerPlease { number, after, to, committed: TxId { view, seqno } } => {
                bytes.put_u8(LEDGER_PLEASE);
                for number in [*number, after.0, to.0, view.0, seqno.0] {
                    bytes.put_u64_le(number);
                }
            }
            Self::Ledger { number, entries } => put(&mut bytes, LEDGER, *number, entries),
            Self::Ping => bytes.put_u8(PING),
            Self::Question { number, question } => put(&mut bytes, QUESTION, *number, question),
            Self::Answer { number, answer } => put(&mut bytes, ANSWER, *number, answer),
            Self::Busy { number } => put(&mut bytes, BUSY, *number, &[]),
            Self::Cancel { number } => put(&mut bytes, CANCEL, *number, &[]),
            Self::SnapshotPlease { number, to } => {
                bytes.put_u8(SNAPSHOT_PLEASE);
                bytes.put_u64_le(*number);
                bytes.put_u64_le(to.0);
            }
            Self::Snapshot { number, offer } => {
                bytes.put_u8(SNAPSHOT);
                bytes.put_u64_le(*number);
                put_offer(&mut bytes, *offer);
            }
            Self::PiecePlease { number, name, offset } => {
                bytes.put_u8(PIECE_PLEASE);
                for number in [*number, name.seqno.0, name.evidence.0, *offset] {
                    bytes.put_u64_le(number);
                }
            }
            Self::Piece { number, bytes: piece } => {
                put(&mut bytes, PIECE, *number, piece);
            }
        }
        let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
        if let Some(prefix) = bytes.first_chunk_mut() {
            *prefix = length.to_le_bytes();
        }
        bytes.freeze()
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let kind = *bytes.first()?;
        let mut body = bytes.split_off(1);
        let is_too_large = body.len() > 8 + MAX_EXCHANGED_BYTES;
        let message = match kind {
            LOG => return Some(Self::Log(body)),
            LEDGER => return Some(Self::Ledger { number: number(&mut body)?, entries: body }),
            PIECE => return Some(Self::Piece { number: number(&mut body)?, bytes: body }),
            QUESTION | ANSWER if is_too_large => return None,
            QUESTION => return Some(Self::Question { number: number(&mut body)?, question: body }),
            ANSWER => return Some(Self::Answer { number: number(&mut body)?, answer: body }),
            BUSY => Self::Busy { number: number(&mut body)? },
            CANCEL => Self::Cancel { number: number(&mut body)? },
            PING => Self::Ping,
            LEDGER_PLEASE => Self::LedgerPlease {
                number: number(&mut body)?,
                after: Seqno(number(&mut body)?),
                to: Seqno(number(&mut body)?),
                committed: TxId::new(number(&mut body)?, number(&mut body)?),
            },
            SNAPSHOT_PLEASE => {
                Self::SnapshotPlease { number: number(&mut body)?, to: Seqno(number(&mut body)?) }
            }
            SNAPSHOT => Self::Snapshot { number: number(&mut body)?, offer: offer(&mut body)? },
            PIECE_PLEASE => Self::PiecePlease {
                number: number(&mut body)?,
                name: name(&mut body)?,
                offset: number(&mut body)?,
            },
            _ => return None,
        };
        body.is_empty().then_some(message)
    }

    /// The next message.
    ///
    /// # Errors
    /// If the stream ends or fails; of kind `InvalidData` if the other node sends what none does.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let length = usize::try_from(stream.read_u32_le().await?).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE_BYTES {
            let error = format!("a message of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        let mut bytes = BytesMut::new();
        while bytes.len() < length {
            let step = (length - bytes.len()).min(READ_STEP_BYTES);
            bytes.reserve(step);
            let mut part = (&mut bytes).limit(step);
            if stream.read_buf(&mut part).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a malformed message");
        Self::decode(bytes.freeze()).ok_or_else(malformed)
    }
}

fn put(bytes: &mut BytesMut, kind: u8, number: u64, body: &[u8]) {
    bytes.reserve(9 + body.len());
    bytes.put_u8(kind);
    bytes.put_u64_le(number);
    bytes.put_slice(body);
}

fn number(body: &mut Bytes) -> Option<u64> {
    let number = body.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))?;
    let _ = body.split_to(8);
    Some(number)
}

/// The name of a committed snapshot.
fn name(body: &mut Bytes) -> Option<SnapshotName> {
    let (seqno, evidence) = (Seqno(number(body)?), Seqno(number(body)?));
    let name = SnapshotName { seqno, evidence, is_committed: true };
    (Seqno(0) < seqno && seqno < evidence).then_some(name)
}

fn offer(body: &mut Bytes) -> Option<SnapshotOffer> {
    let kind = *body.first()?;
    let _ = body.split_to(1);
    Some(match kind {
        NO_SNAPSHOT => SnapshotOffer::Nothing,
        SNAPSHOT_IS_COMING => SnapshotOffer::Coming(Seqno(number(body)?)),
        SNAPSHOT_IS_THERE => SnapshotOffer::There(name(body)?, number(body)?),
        _ => return None,
    })
}

fn put_offer(bytes: &mut BytesMut, offer: SnapshotOffer) {
    match offer {
        SnapshotOffer::Nothing => bytes.put_u8(NO_SNAPSHOT),
        SnapshotOffer::Coming(seqno) => {
            bytes.put_u8(SNAPSHOT_IS_COMING);
            bytes.put_u64_le(seqno.0);
        }
        SnapshotOffer::There(name, len_bytes) => {
            bytes.put_u8(SNAPSHOT_IS_THERE);
            for number in [name.seqno.0, name.evidence.0, len_bytes] {
                bytes.put_u64_le(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = SnapshotName> {
        (1..u64::MAX - 99, 1..99_u64).prop_map(|(seqno, after)| SnapshotName {
            seqno: Seqno(seqno),
            evidence: Seqno(seqno + after),
            is_committed: true,
        })
    }

    fn offer() -> impl Strategy<Value = SnapshotOffer> {
        prop_oneof![
            Just(SnapshotOffer::Nothing),
            any::<u64>().prop_map(|seqno| SnapshotOffer::Coming(Seqno(seqno))),
            (name(), any::<u64>()).prop_map(|(name, bytes)| SnapshotOffer::There(name, bytes)),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from);
        prop_oneof![
            bytes().prop_map(Message::Log),
            Just(Message::Ping),
            any::<[u64; 5]>().prop_map(|[number, after, to, view, seqno]| Message::LedgerPlease {
                number,
                after: Seqno(after),
                to: Seqno(to),
                committed: TxId::new(view, seqno),
            }),
            (any::<u64>(), bytes())
                .prop_map(|(number, entries)| Message::Ledger { number, entries }),
            (any::<u64>(), bytes())
                .prop_map(|(number, question)| Message::Question { number, question }),
            (any::<u64>(), bytes()).prop_map(|(number, answer)| Message::Answer { number, answer }),
            any::<u64>().prop_map(|number| Message::Busy { number }),
            any::<u64>().prop_map(|number| Message::Cancel { number }),
            any::<[u64; 2]>()
                .prop_map(|[number, to]| Message::SnapshotPlease { number, to: Seqno(to) }),
            (any::<u64>(), offer()).prop_map(|(number, offer)| Message::Snapshot { number, offer }),
            (any::<u64>(), name(), any::<u64>())
                .prop_map(|(number, name, offset)| Message::PiecePlease { number, name, offset }),
            (any::<u64>(), bytes()).prop_map(|(number, bytes)| Message::Piece { number, bytes }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in proptest::collection::vec(message(), 0..5)) {
            let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
            let mut stream = bytes.as_slice();
            for message in messages {
                let read = Message::read(&mut stream).now_or_never().unwrap().unwrap();
                prop_assert_eq!(read, message);
            }
            let end = Message::read(&mut stream).now_or_never().unwrap();
            prop_assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut stream = bytes.as_slice();
            while let Ok(message) = Message::read(&mut stream).now_or_never().unwrap() {
                let again = message.encode();
                let read = Message::read(&mut again.as_ref()).now_or_never().unwrap().unwrap();
                prop_assert_eq!(read, message);
            }
        }
    }

    #[test]
    fn a_length_that_no_message_has_is_refused_at_once() {
        let mut stream = &u32::MAX.to_le_bytes()[..];
        let refused = Message::read(&mut stream).now_or_never().unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_question_that_would_hold_up_the_log_is_refused() {
        for (bytes, is_read) in [(MAX_EXCHANGED_BYTES, true), (MAX_EXCHANGED_BYTES + 1, false)] {
            let question = Bytes::from(vec![7; bytes]);
            let message = Message::Question { number: 1, question }.encode();
            let read = Message::read(&mut message.as_ref()).now_or_never().unwrap();
            assert_eq!(read.is_ok(), is_read, "{bytes}");
        }
    }
}
