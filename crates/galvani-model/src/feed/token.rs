//! A position in a whole feed, as bytes to keep: one cursor for each shard.
//!
//! It names the cluster and the filter it was reached under, and holds no node, no address and no
//! version of the layout. Not secret and not sealed: whoever alters one only reads other events.
//! The bytes are drawn in `docs/formats.md`.

use super::cursor::Cursor;
use crate::ids::{ClusterId, Origin, Partition, Shard};
use crate::limits::FEED_TOKEN_BYTES_MAX;
use crate::varint::{put_varint, take, take_varint};
use crate::version::{PartitionClock, Range};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A position in a whole feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedToken {
    /// The cluster.
    pub cluster: ClusterId,
    /// [`super::Filter::fingerprint`] of what was asked for.
    pub filter: u64,
    /// How far it is, shard by shard. A shard that is not named is at its beginning.
    pub cursors: BTreeMap<Shard, Cursor>,
}

/// Why bytes are no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Cut short, altered, or something else.
    #[error("these bytes are no position in a feed, or they were cut short or altered")]
    Damaged,
    /// Made by a newer version of this program.
    #[error("the position has format {version}, this program knows {TOKEN_VERSION}")]
    Newer {
        /// The format it names.
        version: u8,
    },
    /// Longer than [`FEED_TOKEN_BYTES_MAX`].
    #[error("the position has {bytes} bytes, the limit is {FEED_TOKEN_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl FeedToken {
    /// Its bytes: some 60 for each shard that was written to.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![TOKEN_VERSION];
        out.extend_from_slice(&self.cluster.to_bytes());
        out.extend_from_slice(&self.filter.to_le_bytes());
        put_varint(&mut out, self.cursors.len() as u64);
        for (shard, cursor) in &self.cursors {
            put_varint(&mut out, u64::from(shard.partition.0));
            out.push(shard.n);
            put_varint(&mut out, u64::from(cursor.resets));
            put_clock(&mut out, cursor.delivered());
            put_clock(&mut out, cursor.owed());
        }
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        out
    }

    /// The position that `bytes` spell.
    pub fn from_bytes(bytes: &[u8]) -> Result<FeedToken, TokenError> {
        if bytes.len() > FEED_TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong { bytes: bytes.len() });
        }
        match bytes.first() {
            Some(&version) if version > TOKEN_VERSION => return Err(TokenError::Newer { version }),
            _ => {}
        }
        let at = bytes.len().checked_sub(SUM_BYTES).ok_or(TokenError::Damaged)?;
        let (body, sum) = bytes.split_at(at);
        if checksum(body) != *sum {
            return Err(TokenError::Damaged);
        }
        decode(body).ok_or(TokenError::Damaged)
    }

    /// Is as far as either is. They must be of one cluster and one filter.
    pub fn join(&mut self, other: &FeedToken) {
        for (shard, cursor) in &other.cursors {
            self.cursors.entry(*shard).or_default().join(cursor);
        }
    }
}

fn decode(mut body: &[u8]) -> Option<FeedToken> {
    if take(&mut body, 1)?[0] != TOKEN_VERSION {
        return None;
    }
    let cluster = ClusterId::from_bytes(take(&mut body, 16)?.try_into().ok()?);
    let filter = u64::from_le_bytes(take(&mut body, 8)?.try_into().ok()?);
    let mut cursors = BTreeMap::new();
    for _ in 0..take_varint(&mut body)? {
        let partition = Partition(u16::try_from(take_varint(&mut body)?).ok()?);
        let shard = Shard { partition, n: take(&mut body, 1)?[0] };
        let resets = u32::try_from(take_varint(&mut body)?).ok()?;
        let mut cursor = Cursor::at(take_clock(&mut body)?);
        cursor.resets = resets;
        cursor.owe_all(&take_clock(&mut body)?);
        cursors.insert(shard, cursor);
    }
    body.is_empty().then_some(FeedToken { cluster, filter, cursors })
}

/// Origins in order; of each, how many ranges, and for each the distance to its first and its length.
fn put_clock(out: &mut Vec<u8>, clock: &PartitionClock) {
    let mut by_origin: BTreeMap<Origin, Vec<Range>> = BTreeMap::new();
    for range in clock.ranges() {
        by_origin.entry(range.origin).or_default().push(range);
    }
    put_varint(out, by_origin.len() as u64);
    for (origin, ranges) in by_origin {
        out.extend_from_slice(&origin.to_bytes());
        put_varint(out, ranges.len() as u64);
        let mut end = 0;
        for range in ranges {
            put_varint(out, range.first - end);
            put_varint(out, range.last - range.first);
            end = range.last;
        }
    }
}

fn take_clock(body: &mut &[u8]) -> Option<PartitionClock> {
    let mut clock = PartitionClock::new();
    for _ in 0..take_varint(body)? {
        let origin = Origin::from_bytes(take(body, 16)?.try_into().ok()?);
        let mut end = 0u64;
        for _ in 0..take_varint(body)? {
            let first = end.checked_add(take_varint(body)?).filter(|&first| first > 0)?;
            end = first.checked_add(take_varint(body)?)?;
            clock.insert_range(Range { origin, first, last: end });
        }
    }
    Some(clock)
}

fn checksum(body: &[u8]) -> [u8; SUM_BYTES] {
    xxh3_64_with_seed(body, TOKEN_SEED).to_le_bytes()
}

const TOKEN_VERSION: u8 = 1;
const SUM_BYTES: usize = 8;
/// Separates checksums of positions from every other use of the hash.
const TOKEN_SEED: u64 = 0x6761_6c76_746f_6b31; // "galvtok1"
