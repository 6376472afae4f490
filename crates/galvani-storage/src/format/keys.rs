//! Row keys. Every table of a shard starts with the shard, so a shard is one range of each table.
//!
//! Big-endian numbers make byte order numeric order: a log scans ascending per origin, arrivals
//! scan in order, objects scan by bucket and then by key.

use galvani_model::bucket::BucketName;
use galvani_model::ids::{NodeId, Origin, Partition, Shard, WriteId};
use galvani_model::key::Key;
use galvani_model::version::Dot;

/// Bytes of a shard's prefix: partition, then n.
pub const SHARD_BYTES: usize = 3;
const BUCKET_END: u8 = 0;

/// The prefix of a shard's rows, and the key of its clock row.
pub fn shard(shard: Shard) -> [u8; SHARD_BYTES] {
    let partition = shard.partition.0.to_be_bytes();
    [partition[0], partition[1], shard.n]
}

/// The shard that a key starts with.
pub fn shard_of(key: &[u8]) -> Option<Shard> {
    let [high, low, n] = *key.first_chunk::<SHARD_BYTES>()?;
    Some(Shard { partition: Partition(u16::from_be_bytes([high, low])), n })
}

/// The key of an object row.
pub fn object(of: Shard, key: &Key) -> Vec<u8> {
    let mut out = object_prefix(of, key.bucket(), &[]);
    out.extend_from_slice(key.bytes());
    out
}

/// What the object rows of a bucket's keys with `prefix` start with. Bucket names hold no zero
/// byte, so no bucket's rows run into another's.
pub fn object_prefix(of: Shard, bucket: &BucketName, prefix: &[u8]) -> Vec<u8> {
    let bucket = bucket.as_str().as_bytes();
    let mut out = Vec::with_capacity(SHARD_BYTES + bucket.len() + 1 + prefix.len() + 32);
    out.extend_from_slice(&shard(of));
    out.extend_from_slice(bucket);
    out.push(BUCKET_END);
    out.extend_from_slice(prefix);
    out
}

/// The bucket and key bytes of an object row's key.
pub fn split_object(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = row.get(SHARD_BYTES..)?;
    let end = rest.iter().position(|&byte| byte == BUCKET_END)?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// The key of a shard's second row of what was trimmed, in the table of facts about the store.
pub fn trimmed(of: Shard) -> [u8; SHARD_BYTES + 8] {
    let mut out = *b"trimmed/\0\0\0";
    out[8..].copy_from_slice(&shard(of));
    out
}

/// The key of a fact that a lane keeps, in the table of facts about the store.
pub fn fact(name: &[u8]) -> Vec<u8> {
    [b"fact/", name].concat()
}

/// The key of a log row.
pub fn log(of: Shard, dot: Dot) -> [u8; SHARD_BYTES + 24] {
    let mut out = [0; SHARD_BYTES + 24];
    out[..SHARD_BYTES].copy_from_slice(&shard(of));
    out[SHARD_BYTES..SHARD_BYTES + 16].copy_from_slice(&dot.origin.to_bytes());
    out[SHARD_BYTES + 16..].copy_from_slice(&dot.counter.to_be_bytes());
    out
}

/// The dot of a log row's key, and of a tombstone's.
pub fn dot_of_log(row: &[u8]) -> Option<Dot> {
    let rest: &[u8; 24] = row.get(SHARD_BYTES..)?.try_into().ok()?;
    let origin = Origin::from_bytes(*rest.first_chunk()?);
    let counter = u64::from_be_bytes(*rest.last_chunk()?);
    Some(Dot::new(origin, counter))
}

/// The key of an expiring value's row: when, then as in the log.
pub fn expiring(of: Shard, expires_ms: u64, dot: Dot) -> [u8; SHARD_BYTES + 32] {
    let mut out = [0; SHARD_BYTES + 32];
    out[..SHARD_BYTES].copy_from_slice(&shard(of));
    out[SHARD_BYTES..SHARD_BYTES + 8].copy_from_slice(&expires_ms.to_be_bytes());
    out[SHARD_BYTES + 8..].copy_from_slice(&log(of, dot)[SHARD_BYTES..]);
    out
}

/// Where the rows of a shard's values start that expire at `expires_ms`.
pub fn expiring_from(of: Shard, expires_ms: u64) -> [u8; SHARD_BYTES + 8] {
    arrival(of, expires_ms)
}

/// When a value expires, and its dot: an expiring value's key.
pub fn split_expiring(row: &[u8]) -> Option<(u64, Dot)> {
    let (when, dot) = row.get(SHARD_BYTES..)?.split_first_chunk::<8>()?;
    let (origin, counter) = dot.split_first_chunk::<16>()?;
    let counter = u64::from_be_bytes(counter.try_into().ok()?);
    Some((u64::from_be_bytes(*when), Dot::new(Origin::from_bytes(*origin), counter)))
}

/// The key of an arrival row.
pub fn arrival(of: Shard, number: u64) -> [u8; SHARD_BYTES + 8] {
    let mut out = [0; SHARD_BYTES + 8];
    out[..SHARD_BYTES].copy_from_slice(&shard(of));
    out[SHARD_BYTES..].copy_from_slice(&number.to_be_bytes());
    out
}

/// The number of an arrival row's key.
pub fn number_of_arrival(row: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(row.get(SHARD_BYTES..)?.try_into().ok()?))
}

/// The key of a request row.
pub fn request(of: Shard, write: WriteId) -> [u8; SHARD_BYTES + 16] {
    let mut out = [0; SHARD_BYTES + 16];
    out[..SHARD_BYTES].copy_from_slice(&shard(of));
    out[SHARD_BYTES..].copy_from_slice(&write.to_bytes());
    out
}

/// The shard and the write of a request row.
pub fn split_request(row: &[u8]) -> Option<(Shard, WriteId)> {
    let write = row.get(SHARD_BYTES..)?.try_into().ok()?;
    Some((shard_of(row)?, WriteId::from_bytes(write)))
}

/// Bytes of the prefix of all hints for one target.
pub const TARGET_BYTES: usize = 16;
/// Bytes of a hint's key.
pub const HINT_BYTES: usize = TARGET_BYTES + SHARD_BYTES + 24;

/// The key of a hint's row: whom it is for, then as in the log.
pub fn hint(target: NodeId, of: Shard, dot: Dot) -> [u8; HINT_BYTES] {
    let mut out = [0; HINT_BYTES];
    out[..TARGET_BYTES].copy_from_slice(&target.to_bytes());
    out[TARGET_BYTES..].copy_from_slice(&log(of, dot));
    out
}

/// The range of one target's hints of one partition: its start, and its end if there is one.
pub fn hints_of(target: NodeId, partition: Partition) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut start = target.to_bytes().to_vec();
    start.extend_from_slice(&partition.0.to_be_bytes());
    let end = after_prefix(&start);
    (start, end)
}

/// Whom a hint's row is for, and which record it holds.
pub fn split_hint(row: &[u8]) -> Option<(NodeId, Shard, Dot)> {
    let (target, log) = row.split_first_chunk::<TARGET_BYTES>()?;
    Some((NodeId::from_bytes(*target), shard_of(log)?, dot_of_log(log)?))
}

/// The first key after every key that starts with `prefix`; `None` if there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut out = prefix[..=last].to_vec();
    out[last] += 1;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard { partition: Partition(0x0102), n: 3 };

    #[test]
    fn keys_come_back_from_their_bytes() {
        let key = Key::new("users".parse().expect("a name"), &b"a\0b"[..]).expect("a key");
        let row = object(SHARD, &key);
        assert_eq!(row, b"\x01\x02\x03users\0a\0b");
        assert_eq!(split_object(&row), Some((&b"users"[..], &b"a\0b"[..])));
        assert_eq!(shard_of(&row), Some(SHARD));
        let dot = Dot::new(Origin(7), 300);
        assert_eq!(dot_of_log(&log(SHARD, dot)), Some(dot));
        let write = WriteId(77);
        assert_eq!(split_request(&request(SHARD, write)), Some((SHARD, write)));
        let held = hint(NodeId(9), SHARD, dot);
        assert_eq!(split_hint(&held), Some((NodeId(9), SHARD, dot)));
        assert_eq!(split_hint(&held[..20]), None);
        assert!(log(SHARD, Dot::new(Origin(7), 256)) > log(SHARD, Dot::new(Origin(7), 255)));
    }

    #[test]
    fn the_end_of_a_prefix_is_above_all_its_keys() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff\xff"), None);
    }
}
