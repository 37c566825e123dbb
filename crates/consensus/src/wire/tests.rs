use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::{FrameError, MAX_MEMBERS};
use bytes::BufMut;
use coco_crypto::Digest;
use coco_kv::Seqno;

fn node() -> impl Strategy<Value = NodeId> {
    any::<[u8; 32]>().prop_map(|bytes| NodeId(Digest(bytes)))
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..1_000, 0..MAX_NUMBER]
}

fn position() -> impl Strategy<Value = Position> {
    (number(), number()).prop_map(|(index, view)| Position { index, view: View(view) })
}

fn read() -> impl Strategy<Value = ReadContext> {
    (any::<u64>(), any::<u64>()).prop_map(|(node, read)| ReadContext { node, read })
}

fn batch(view: u64) -> impl Strategy<Value = Batch> {
    (1..MAX_NUMBER - 100, 0_u64..100, vec(any::<u8>(), 0..200)).prop_map(
        move |(first, more, bytes)| Batch {
            first: Seqno(first),
            last: TxId::new(view, first + more),
            entries: bytes.into(),
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        node().prop_map(Change::Voter),
        node().prop_map(Change::Learner),
        node().prop_map(Change::Remove),
    ]
}

fn entry() -> impl Strategy<Value = LogEntry> {
    number().prop_flat_map(|view| {
        let content = prop_oneof![
            Just(Content::Blank),
            Just(Content::LeaveJoint),
            batch(view).prop_map(Content::Batch),
            (vec(change(), 1..5), batch(view))
                .prop_map(|(changes, batch)| Content::Membership(changes, batch)),
        ];
        content.prop_map(move |content| LogEntry { view: View(view), content })
    })
}

fn membership() -> impl Strategy<Value = Membership> {
    // Disjoint lists, but for voters that stay.
    (btree_set(node(), 1..6), btree_set(node(), 0..4), btree_set(node(), 0..4)).prop_map(
        |(voters, gone, learners)| {
            let mut outgoing = gone.clone();
            if !gone.is_empty() {
                outgoing.extend(voters.first());
            }
            let learners_next = gone.into_iter().take(1).collect();
            Membership { voters, outgoing, learners, learners_next }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let candidacy =
        prop_oneof![Just(Candidacy::PreVote), Just(Candidacy::Vote), Just(Candidacy::Transfer)];
    let ledger = (number(), number()).prop_map(|(view, seqno)| TxId::new(view, seqno));
    prop_oneof![
        (position(), number(), vec(entry(), 0..6)).prop_map(|(previous, committed, entries)| {
            Message::Append { previous, committed, entries }
        }),
        (number(), number()).prop_map(|(index, committed)| Message::Appended { index, committed }),
        (number(), position(), number()).prop_map(|(index, hint, committed)| Message::Refused {
            index,
            hint,
            committed
        }),
        (candidacy, position(), position()).prop_map(|(candidacy, last, committed)| {
            Message::VoteRequest { candidacy, last, committed }
        }),
        (any::<bool>(), any::<bool>(), position()).prop_map(|(pre_vote, granted, committed)| {
            Message::Vote { pre_vote, granted, committed }
        }),
        (number(), proptest::option::of(read()))
            .prop_map(|(committed, read)| Message::Heartbeat { committed, read }),
        (number(), proptest::option::of(read()))
            .prop_map(|(committed, read)| Message::HeartbeatReply { committed, read }),
        (position(), ledger, membership()).prop_map(|(at, ledger, membership)| Message::Install {
            at,
            ledger,
            membership
        }),
        Just(Message::StandNow),
        read().prop_map(Message::ReadRequest),
        (number(), read()).prop_map(|(index, read)| Message::ReadReply { index, read }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    (node(), node(), 1..MAX_NUMBER, message()).prop_map(|(from, to, view, message)| Frame {
        from,
        to,
        view: View(view),
        message,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(frame in frame()) {
        prop_assert_eq!(Frame::decode(frame.encode()), Ok(frame));
    }

    #[test]
    fn no_part_of_a_frame_is_one(frame in frame(), at in any::<prop::sample::Index>()) {
        let bytes = frame.encode();
        let cut = at.index(bytes.len());
        prop_assert!(Frame::decode(bytes.slice(..cut)).is_err());
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        prop_assert!(Frame::decode(longer).is_err());
    }

    /// What is read is written again to the same bytes: no frame has two forms.
    #[test]
    fn a_changed_frame_is_another_or_none(
        frame in frame(),
        at in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let mut bytes = frame.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let bytes = Bytes::from(bytes);
        if let Ok(read) = Frame::decode(bytes.clone()) {
            prop_assert_ne!(&read, &frame);
            prop_assert_eq!(read.encode(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Frame::decode(bytes.into());
    }
}

/// The drawing in the module's documentation, in bytes.
#[test]
fn the_form_of_a_frame_is_fixed() {
    let entries = vec![
        LogEntry { view: View(3), content: Content::Blank },
        LogEntry {
            view: View(3),
            content: Content::Batch(Batch {
                first: Seqno(5),
                last: TxId::new(3, 6),
                entries: "ab".into(),
            }),
        },
    ];
    let previous = Position { index: 9, view: View(2) };
    let frame = Frame {
        from: NodeId(Digest([0x11; 32])),
        to: NodeId(Digest([0x22; 32])),
        view: View(3),
        message: Message::Append { previous, committed: 8, entries },
    };
    let mut expected = vec![1, 1];
    expected.extend([0x11; 32]);
    expected.extend([0x22; 32]);
    for number in [3_u64, 9, 2, 8] {
        expected.put_u64_le(number);
    }
    expected.put_u32_le(2);
    expected.put_u64_le(3);
    expected.push(0);
    expected.put_u64_le(3);
    expected.push(1);
    for number in [3_u64, 5, 6] {
        expected.put_u64_le(number);
    }
    expected.put_u32_le(2);
    expected.extend(b"ab");
    assert_eq!(frame.encode(), expected);
}

#[test]
fn what_no_writer_makes_is_refused() {
    let frame = |message| Frame {
        from: NodeId(Digest([1; 32])),
        to: NodeId(Digest([2; 32])),
        view: View(2),
        message,
    };
    let decode = |bytes: Vec<u8>| Frame::decode(bytes.into());
    let refused = |message| Frame::decode(frame(message).encode());
    let stand_now = frame(Message::StandNow).encode().to_vec();

    let mut other_version = stand_now.clone();
    other_version[0] = 2;
    assert_eq!(decode(other_version), Err(FrameError::Version(2)));
    let mut other_kind = stand_now.clone();
    other_kind[1] = 12;
    assert_eq!(decode(other_kind), Err(FrameError::Value { what: "the kind", value: 12 }));
    let mut no_view = stand_now.clone();
    no_view[66] = 0;
    assert_eq!(decode(no_view), Err(FrameError::Value { what: "the view", value: 0 }));

    let huge = Message::Appended { index: u64::MAX, committed: 0 };
    assert_eq!(refused(huge), Err(FrameError::Value { what: "an index", value: u64::MAX }));

    let other_view = Batch { first: Seqno(1), last: TxId::new(3, 1), entries: Bytes::new() };
    let entry = |batch| LogEntry { view: View(2), content: Content::Batch(batch) };
    let append = |batch| Message::Append {
        previous: Position::default(),
        committed: 0,
        entries: vec![entry(batch)],
    };
    assert!(matches!(refused(append(other_view)), Err(FrameError::Value { value: 3, .. })));
    let backwards = Batch { first: Seqno(4), last: TxId::new(2, 3), entries: Bytes::new() };
    assert!(matches!(refused(append(backwards)), Err(FrameError::Value { value: 3, .. })));

    // A count that the frame does not hold costs nothing.
    let empty = Message::Append { previous: Position::default(), committed: 0, entries: vec![] };
    let mut many = frame(empty).encode().to_vec();
    let count = many.len() - 4;
    many[count..].copy_from_slice(&60_000_u32.to_le_bytes());
    assert_eq!(decode(many.clone()), Err(FrameError::CutShort));
    many[count..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decode(many), Err(FrameError::Value { .. })));

    let install = |membership| Message::Install {
        at: Position { index: 4, view: View(2) },
        ledger: TxId::new(2, 7),
        membership,
    };
    let contradiction = FrameError::Impossible("a membership that contradicts itself");
    assert_eq!(refused(install(Membership::default())), Err(contradiction));
    let id = NodeId(Digest([5; 32]));
    let both = Membership { learners: [id].into(), ..Membership::of(id) };
    assert_eq!(refused(install(both)), Err(contradiction));
    let nodes = (0..=MAX_MEMBERS as u32).map(|number| {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        NodeId(Digest(digest))
    });
    let crowd = Membership { voters: nodes.collect(), ..Membership::default() };
    assert!(matches!(refused(install(crowd)), Err(FrameError::Value { .. })));
}
