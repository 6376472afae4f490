//! Keys of the journal's rows.
//!
//! A record's place says when it came, so that whoever looks for what is due reads places in order.
//! The index by key is ordered by bucket, key, hybrid time and dot, so that all writes of a key up to
//! a moment are one range. Drawn in `docs/formats.md`. Next to read: `journal.rs`.

use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::version::Dot;
use galvani_storage::format::keys;
use serde::{Deserialize, Serialize};

/// Where a record is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct At {
    /// Its arrival number.
    pub(crate) number: u64,
    /// When it came, in milliseconds since 1970; never before one that came earlier.
    pub(crate) wall_ms: u64,
    /// When it came, by the replica's own clock, which only runs while the replica does.
    pub(crate) tick_ms: u64,
    /// Its shard.
    pub(crate) shard: Shard,
}

const AT_BYTES: usize = 24 + keys::SHARD_BYTES;

impl At {
    /// The row key: the number first.
    pub(crate) fn to_key(self) -> [u8; AT_BYTES] {
        let mut out = [0; AT_BYTES];
        out[..8].copy_from_slice(&self.number.to_be_bytes());
        out[8..16].copy_from_slice(&self.wall_ms.to_be_bytes());
        out[16..24].copy_from_slice(&self.tick_ms.to_be_bytes());
        out[24..].copy_from_slice(&keys::shard(self.shard));
        out
    }

    /// What a row key says.
    pub(crate) fn of_key(key: &[u8]) -> Option<At> {
        let key: &[u8; AT_BYTES] = key.try_into().ok()?;
        let number = |from: usize| {
            let bytes = key[from..from + 8].try_into().expect("eight bytes");
            u64::from_be_bytes(bytes)
        };
        let shard = keys::shard_of(&key[24..])?;
        Some(At { number: number(0), wall_ms: number(8), tick_ms: number(16), shard })
    }
}

/// The row of a write by its dot.
pub(crate) fn by_dot(dot: Dot) -> [u8; 24] {
    let mut out = [0; 24];
    out[..16].copy_from_slice(&dot.origin.to_bytes());
    out[16..].copy_from_slice(&dot.counter.to_be_bytes());
    out
}

/// The row of a write by its request id, which several records may share.
pub(crate) fn by_request(rid: RequestId, number: u64) -> [u8; 24] {
    let mut out = [0; 24];
    out[..16].copy_from_slice(&rid.to_bytes());
    out[16..].copy_from_slice(&number.to_be_bytes());
    out
}

/// What all index rows of a bucket's keys that start with `prefix` start with.
pub(crate) fn bucket_prefix(shard: Shard, bucket: &BucketName, prefix: &[u8]) -> Vec<u8> {
    let mut out = keys::object_prefix(shard, bucket, &[]);
    escape(prefix, &mut out);
    out
}

/// What all index rows of one key start with.
pub(crate) fn key_prefix(shard: Shard, key: &Key) -> Vec<u8> {
    let mut out = bucket_prefix(shard, key.bucket(), key.bytes());
    out.extend_from_slice(&KEY_END);
    out
}

/// The index row of one write of a key.
pub(crate) fn by_key(shard: Shard, key: &Key, hlc: Hlc, dot: Dot) -> Vec<u8> {
    let mut out = key_prefix(shard, key);
    out.extend_from_slice(&hlc.0.to_be_bytes());
    out.extend_from_slice(&by_dot(dot));
    out
}

/// The key bytes in an index row.
pub(crate) fn key_of(row: &[u8]) -> Option<Vec<u8>> {
    let rest = row.get(keys::SHARD_BYTES..)?;
    let bucket_end = rest.iter().position(|&byte| byte == 0)?;
    let escaped = &rest[bucket_end + 1..rest.len().checked_sub(HLC_AND_DOT_BYTES)?];
    let mut bytes = escaped.strip_suffix(&KEY_END)?.iter();
    let mut out = Vec::with_capacity(escaped.len());
    while let Some(&byte) = bytes.next() {
        out.push(byte);
        if byte == 0 && bytes.next() != Some(&ESCAPED_ZERO) {
            return None;
        }
    }
    Some(out)
}

/// A zero byte of a key is written as 00 FF, and a key ends with 00 01: then keys of any bytes are
/// ordered as themselves, and none runs into another.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(ESCAPED_ZERO);
        }
    }
}

const ESCAPED_ZERO: u8 = 0xff;
const KEY_END: [u8; 2] = [0, 1];
const HLC_AND_DOT_BYTES: usize = 8 + 24;

#[cfg(test)]
mod tests {
    use super::*;
    use galvani_model::ids::{Origin, Partition};

    const SHARD: Shard = Shard { partition: Partition(0x0102), n: 3 };

    fn row(bytes: &[u8]) -> Vec<u8> {
        let key = Key::new(BucketName::default_bucket(), bytes.to_vec()).expect("short");
        by_key(SHARD, &key, Hlc(7), Dot::new(Origin(u128::MAX), 1))
    }

    #[test]
    fn places_come_back_from_their_bytes_in_order_of_number() {
        let at = At { number: 9, wall_ms: 5, tick_ms: 3, shard: SHARD };
        assert_eq!(At::of_key(&at.to_key()), Some(at));
        assert_eq!(At::of_key(&at.to_key()[1..]), None);
        let next = At { number: 10, wall_ms: 0, ..at };
        assert!(next.to_key() > at.to_key());
    }

    #[test]
    fn keys_of_any_bytes_are_ordered_as_themselves() {
        let mut keys: Vec<&[u8]> =
            vec![b"a", b"a\0", b"a\0\0", b"a\0\x01", b"a\x01", b"a\xff", b"ab", b"\0", b"\xff\xff"];
        keys.sort_unstable();
        let rows: Vec<Vec<u8>> = keys.iter().map(|key| row(key)).collect();
        assert!(rows.is_sorted());
        for (key, row) in keys.iter().zip(&rows) {
            assert_eq!(key_of(row).as_deref(), Some(*key));
        }
    }

    #[test]
    fn no_key_is_within_the_range_of_another() {
        let key = Key::new(BucketName::default_bucket(), &b"a"[..]).expect("short");
        let prefix = key_prefix(SHARD, &key);
        for other in [&b"a\0"[..], b"ab", b"a\xff", b"a\0\x01"] {
            assert!(!row(other).starts_with(&prefix), "{other:?}");
        }
        assert!(row(b"a").starts_with(&prefix));
    }
}
