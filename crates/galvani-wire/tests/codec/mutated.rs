//! Frames that were bent in several places at once (V7 and the fuzz targets of the list of cases, with the
//! stable toolchain): each is refused, or is a message like any other, which comes back from its own bytes.

use super::{all_messages, bytes_of};
use bytes::BytesMut;
use galvani_wire::codec::{Frame, encode};
use galvani_wire::message::Message;
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};

/// One bend. Places are taken modulo the length.
#[derive(Clone, Debug)]
enum Bend {
    Flip {
        at: usize,
        bit: u8,
    },
    Set {
        at: usize,
        byte: u8,
    },
    Insert {
        at: usize,
        byte: u8,
    },
    Remove {
        at: usize,
        count: usize,
    },
    /// Four bytes become a number that lengths are likely to stumble over.
    Number {
        at: usize,
        number: u32,
    },
    /// Some bytes are those of another place, as where two frames were mixed up.
    Copy {
        from: usize,
        to: usize,
        count: usize,
    },
    Cut {
        at: usize,
    },
}

fn bends() -> impl Strategy<Value = Vec<Bend>> {
    let place = any::<usize>;
    let numbers = prop_oneof![
        0u32..5,
        (1u32 << 16) - 2..(1 << 16) + 2,
        u32::MAX - 2..=u32::MAX,
        any::<u32>()
    ];
    let bend = prop_oneof![
        (place(), 0u8..8).prop_map(|(at, bit)| Bend::Flip { at, bit }),
        (place(), any::<u8>()).prop_map(|(at, byte)| Bend::Set { at, byte }),
        (place(), any::<u8>()).prop_map(|(at, byte)| Bend::Insert { at, byte }),
        (place(), 1usize..9).prop_map(|(at, count)| Bend::Remove { at, count }),
        (place(), numbers).prop_map(|(at, number)| Bend::Number { at, number }),
        (place(), place(), 1usize..17).prop_map(|(from, to, count)| Bend::Copy { from, to, count }),
        place().prop_map(|at| Bend::Cut { at }),
    ];
    vec(bend, 1..8)
}

fn bend(bytes: &mut Vec<u8>, bend: &Bend) {
    let length = bytes.len().max(1);
    match *bend {
        Bend::Insert { at, byte } => bytes.insert(at % (bytes.len() + 1), byte),
        Bend::Cut { at } => bytes.truncate(at % length),
        _ if bytes.is_empty() => {}
        Bend::Flip { at, bit } => bytes[at % length] ^= 1 << bit,
        Bend::Set { at, byte } => bytes[at % length] = byte,
        Bend::Remove { at, count } => {
            let at = at % length;
            bytes.drain(at..(at + count).min(length));
        }
        Bend::Number { at, number } => {
            let at = at % length;
            for (place, byte) in bytes[at..].iter_mut().zip(number.to_le_bytes()) {
                *place = byte;
            }
        }
        Bend::Copy { from, to, count } => {
            let from = from % length;
            let copied = bytes[from..(from + count).min(length)].to_vec();
            for (place, byte) in bytes[to % length..].iter_mut().zip(copied) {
                *place = byte;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn foreign_frames_are_refused_or_messages(pick in any::<usize>(), bends in bends()) {
        let messages: Vec<Message> = all_messages();
        let mut bytes = bytes_of(1, false, &messages[pick % messages.len()]).to_vec();
        for one in &bends {
            bend(&mut bytes, one);
        }
        if let Ok(frame) = Frame::decode(bytes.into()) {
            let mut again = BytesMut::new();
            encode(frame.id, frame.forwarded, &frame.message, &mut again).expect("a small header");
            let back = Frame::decode(again.freeze()).expect("what was taken in can be sent on");
            prop_assert_eq!(back.message, frame.message);
            prop_assert_eq!((back.id, back.forwarded), (frame.id, frame.forwarded));
        }
    }
}
