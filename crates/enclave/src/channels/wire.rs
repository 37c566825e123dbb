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
//! ```

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use coco_consensus::wire::MAX_FRAME_BYTES;
use coco_kv::Seqno;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The largest message: a frame of the log and its kind.
const MAX_MESSAGE_BYTES: usize = MAX_FRAME_BYTES + 1;
/// Memory is taken as bytes come, in steps of this.
const READ_STEP_BYTES: usize = 1 << 20;

const LOG: u8 = 1;
const LEDGER_PLEASE: u8 = 2;
const LEDGER: u8 = 3;
const PING: u8 = 4;

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
        let mut number = || {
            let number = body.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))?;
            let _ = body.split_to(8);
            Some(number)
        };
        match kind {
            LOG => Some(Self::Log(body)),
            LEDGER_PLEASE => {
                let (number, after, to) = (number()?, Seqno(number()?), Seqno(number()?));
                body.is_empty().then_some(Self::LedgerPlease { number, after, to })
            }
            LEDGER => {
                let number = number()?;
                Some(Self::Ledger { number, entries: body })
            }
            PING => body.is_empty().then_some(Self::Ping),
            _ => None,
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

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
