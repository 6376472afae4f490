//! Rows that are not what was written (V7 and the fuzz targets of the list of cases, with the stable
//! toolchain): bent rows are refused, and so are bodies that a hand has sealed again, unless they are rows
//! like any other; no key of any table makes anything but itself or nothing. Nothing panics.

use bytes::Bytes;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::version::{
    Dot, DotSet, Kind, Object, PartitionClock, Record, RecordHead, Version, value_hash,
};
use galvani_storage::format::{RowError, keys, rows};
use proptest::collection::vec;
use proptest::prelude::{
    ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

const KEY: &[u8] = b"where it is";
const CRC_BYTES: usize = 4;

/// One bend of a row. Places are taken modulo the length.
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
    Cut {
        at: usize,
    },
}

fn bends() -> impl Strategy<Value = Vec<Bend>> {
    let place = any::<usize>;
    let numbers = prop_oneof![0u32..5, u32::MAX - 2..=u32::MAX, any::<u32>()];
    let bend = prop_oneof![
        (place(), 0u8..8).prop_map(|(at, bit)| Bend::Flip { at, bit }),
        (place(), any::<u8>()).prop_map(|(at, byte)| Bend::Set { at, byte }),
        (place(), any::<u8>()).prop_map(|(at, byte)| Bend::Insert { at, byte }),
        (place(), 1usize..9).prop_map(|(at, count)| Bend::Remove { at, count }),
        (place(), numbers).prop_map(|(at, number)| Bend::Number { at, number }),
        place().prop_map(|at| Bend::Cut { at }),
    ];
    vec(bend, 1..6)
}

fn bent(row: &[u8], bends: &[Bend]) -> Vec<u8> {
    let mut bytes = row.to_vec();
    for bend in bends {
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
        }
    }
    bytes
}

/// A row with this inside and a checksum that is right.
fn sealed(inside: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(KEY), inside);
    [inside, &crc.to_le_bytes()].concat()
}

fn record(value: &[u8], past: &[u64]) -> Record {
    let dot = |counter: &u64| Dot::new(Origin(9), *counter);
    let head = RecordHead {
        dot: Dot::new(Origin(9), 77),
        key: Key::new("default".parse().expect("a name"), &b"k"[..]).expect("a key"),
        past: past.iter().map(dot).collect(),
        hlc: Hlc(5),
        rid: RequestId(6),
        author: NodeId(7),
        kind: Kind::Put,
        value_len: value.len() as u32,
        value_hash: value_hash(Kind::Put, value),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: Vec::new(),
    };
    Record { head, value: Bytes::copy_from_slice(value) }
}

/// A bent row of this value is refused; sealed again it is refused, or is a value that is written and
/// read like any other.
fn is_guarded<T>(value: &T, bends: &[Bend])
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut row = Vec::new();
    rows::put(KEY, value, &mut row);
    assert_eq!(rows::get::<T>(KEY, &row).as_ref(), Ok(value));
    let other = bent(&row, bends);
    if other != row {
        let read = rows::get::<T>(KEY, &other);
        assert!(matches!(read, Err(RowError::Checksum | RowError::Short)), "{other:?}: {read:?}");
    }
    let inside = bent(&row[..row.len() - CRC_BYTES], bends);
    if let Ok(read) = rows::get::<T>(KEY, &sealed(&inside)) {
        let mut again = Vec::new();
        rows::put(KEY, &read, &mut again);
        assert_eq!(rows::get::<T>(KEY, &again), Ok(read));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn foreign_rows_are_refused_or_rows(
        value in vec(any::<u8>(), 0..60),
        past in vec(1u64..70, 0..6),
        bends in bends(),
    ) {
        let record = record(&value, &past);
        let versions = vec![Version::of(&record.head)];
        is_guarded(&Object::from_versions(versions, Default::default()), &bends);
        is_guarded(&record.head, &bends);
        is_guarded(&past.iter().map(|&at| Dot::new(Origin(1), at)).collect::<DotSet>(), &bends);
        let mut clock = PartitionClock::new();
        for counter in past {
            clock.insert(Dot::new(Origin(2), counter));
        }
        is_guarded(&clock, &bends);
    }

    #[test]
    fn foreign_records_are_refused_or_records(
        value in vec(any::<u8>(), 0..60),
        past in vec(1u64..70, 0..6),
        bends in bends(),
    ) {
        let record = record(&value, &past);
        let mut row = Vec::new();
        rows::put_record(KEY, &record, &mut row);
        let other = bent(&row, &bends);
        if other != row {
            prop_assert!(rows::get_head(KEY, &other).is_err(), "{:?}", other);
            prop_assert!(rows::get_record(KEY, &Bytes::from(other)).is_err());
        }
        let inside = sealed(&bent(&row[..row.len() - CRC_BYTES], &bends));
        let head = rows::get_head(KEY, &inside);
        if let Ok(read) = rows::get_record(KEY, &Bytes::from(inside)) {
            prop_assert!(read.is_intact());
            prop_assert_eq!(Ok(&read.head), head.as_ref());
            let mut again = Vec::new();
            rows::put_record(KEY, &read, &mut again);
            prop_assert_eq!(rows::get_record(KEY, &Bytes::from(again)), Ok(read));
        }
    }

    #[test]
    fn foreign_keys_of_rows_say_themselves_or_nothing(bytes in vec(any::<u8>(), 0..64)) {
        let shard = keys::shard_of(&bytes);
        prop_assert_eq!(shard.is_some(), bytes.len() >= keys::SHARD_BYTES);
        let Some(shard) = shard else { return Ok(()) };
        if let Some((bucket, key)) = keys::split_object(&bytes) {
            let whole = [&keys::shard(shard)[..], bucket, &[0], key].concat();
            prop_assert_eq!(&whole, &bytes);
        }
        if let Some(dot) = keys::dot_of_log(&bytes) {
            prop_assert_eq!(&keys::log(shard, dot)[..], &bytes[..]);
        }
        if let Some((when, dot)) = keys::split_expiring(&bytes) {
            prop_assert_eq!(&keys::expiring(shard, when, dot)[..], &bytes[..]);
        }
        if let Some(number) = keys::number_of_arrival(&bytes) {
            prop_assert_eq!(&keys::arrival(shard, number)[..], &bytes[..]);
        }
        if let Some((of, write)) = keys::split_request(&bytes) {
            prop_assert_eq!(&keys::request(of, write)[..], &bytes[..]);
        }
        if let Some((target, of, dot)) = keys::split_hint(&bytes) {
            prop_assert_eq!(&keys::hint(target, of, dot)[..], &bytes[..]);
        }
    }
}
