//! What goes through a channel, byte by byte. Numbers are little-endian.
//!
//! ```text
//! message   length of the rest (4) │ kind (1) │ body
//!
//! kind body
//!  1 log             a frame of the log (coco_consensus::wire)
//!  2 ledger please   number (8) │ after (8) │ to (8)
//!  3 ledger          number (8) │ entries; none if there are none to give
//!  4 ping            nothing
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
use coco_kv::Seqno;
use coco_ledger::SnapshotName;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::snapshots::SnapshotOffer;

/// The largest message: a frame of the log and its kind.
const MAX_MESSAGE_BYTES: usize = MAX_FRAME_BYTES + 1;
/// Memory is taken as bytes come, in steps of this.
const READ_STEP_BYTES: usize = 1 << 20;

const LOG: u8 = 1;
const LEDGER_PLEASE: u8 = 2;
const LEDGER: u8 = 3;
const PING: u8 = 4;
const SNAPSHOT_PLEASE: u8 = 9;
const SNAPSHOT: u8 = 10;
const PIECE_PLEASE: u8 = 11;
const PIECE: u8 = 12;

const NO_SNAPSHOT: u8 = 0;
const SNAPSHOT_IS_COMING: u8 = 1;
const SNAPSHOT_IS_THERE: u8 = 2;

/// A message through a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A frame of the log.
    Log(Bytes),
    /// Entries of the ledger from right after one position on, up to another at most.
    LedgerPlease { number: u64, after: Seqno, to: Seqno },
    /// The answer to the request of this number.
    Ledger { number: u64, entries: Bytes },
    /// The line is alive.
    Ping,
    /// What the other node has of snapshots, no later than this position.
    SnapshotPlease { number: u64, to: Seqno },
    /// The answer to the request of this number.
    Snapshot { number: u64, offer: SnapshotOffer },
    /// The bytes of a committed snapshot from here on, as many as the other likes to send at once.
    PiecePlease { number: u64, name: SnapshotName, offset: u64 },
    /// The answer to the request of this number.
    Piece { number: u64, bytes: Bytes },
}

impl Message {
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(0);
        match self {
            Self::Log(frame) => {
                bytes.reserve(1 + frame.len());
                bytes.put_u8(LOG);
                bytes.put_slice(frame);
            }
            Self::LedgerPlease { number, after, to } => {
                bytes.put_u8(LEDGER_PLEASE);
                bytes.put_u64_le(*number);
                bytes.put_u64_le(after.0);
                bytes.put_u64_le(to.0);
            }
            Self::Ledger { number, entries } => {
                bytes.reserve(9 + entries.len());
                bytes.put_u8(LEDGER);
                bytes.put_u64_le(*number);
                bytes.put_slice(entries);
            }
            Self::Ping => bytes.put_u8(PING),
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
                bytes.reserve(9 + piece.len());
                bytes.put_u8(PIECE);
                bytes.put_u64_le(*number);
                bytes.put_slice(piece);
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
        let message = match kind {
            LOG => return Some(Self::Log(body)),
            LEDGER => return Some(Self::Ledger { number: number(&mut body)?, entries: body }),
            PIECE => return Some(Self::Piece { number: number(&mut body)?, bytes: body }),
            PING => Self::Ping,
            LEDGER_PLEASE => Self::LedgerPlease {
                number: number(&mut body)?,
                after: Seqno(number(&mut body)?),
                to: Seqno(number(&mut body)?),
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

    /// The next message; an error of kind `InvalidData` if the other node sends what none does.
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
            any::<[u64; 3]>().prop_map(|[number, after, to]| Message::LedgerPlease {
                number,
                after: Seqno(after),
                to: Seqno(to)
            }),
            (any::<u64>(), bytes())
                .prop_map(|(number, entries)| Message::Ledger { number, entries }),
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
            while Message::read(&mut stream).now_or_never().unwrap().is_ok() {}
        }
    }

    #[test]
    fn a_length_that_no_message_has_is_refused_at_once() {
        let mut stream = &u32::MAX.to_le_bytes()[..];
        let refused = Message::read(&mut stream).now_or_never().unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
