//! The state digest of a shard: the xor of a keyed hash of each key and dot of a lasting value.
//!
//! One put changes it in O(1): xor the old object's hash out and the new one's in. Two replicas
//! with equal clocks must have equal digests; if not, something is broken. It covers dots only:
//! pasts may legitimately be written differently by equal replicas. It covers values without an end
//! only: each replica collects tombstones and expired values when it can prove that it may, so equal
//! replicas may differ in them. So a digest never depends on the time of day.

use super::object::{Object, Version};
use crate::hash::key_hash_128;
use crate::key::Key;
use core::fmt;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A 128-bit xor digest. The empty state's digest is zero.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 2]", into = "[u64; 2]")]
pub struct Digest(pub u128);

impl Digest {
    /// Replaces one object's part by another's.
    pub fn replace(&mut self, old: Digest, new: Digest) {
        self.0 ^= old.0 ^ new.0;
    }
}

impl From<[u64; 2]> for Digest {
    fn from(halves: [u64; 2]) -> Digest {
        Digest(((halves[0] as u128) << 64) | halves[1] as u128)
    }
}

impl From<Digest> for [u64; 2] {
    fn from(digest: Digest) -> [u64; 2] {
        [(digest.0 >> 64) as u64, digest.0 as u64]
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The part of one object: zero where it has no value without an end.
pub fn object_digest(key: &Key, object: &Object) -> Digest {
    let values = object.versions().iter().filter(|version: &&Version| version.is_lasting());
    if values.clone().next().is_none() {
        return Digest::default();
    }
    let key_hash = key_hash_128(key, DIGEST_SEED);
    let mut digest = 0u128;
    for dot in values.flat_map(|version| version.dots.iter()) {
        let mut bytes = [0u8; 40];
        bytes[..16].copy_from_slice(&key_hash.to_le_bytes());
        bytes[16..32].copy_from_slice(&dot.origin.to_bytes());
        bytes[32..].copy_from_slice(&dot.counter.to_le_bytes());
        digest ^= xxh3_128_with_seed(&bytes, DIGEST_SEED);
    }
    Digest(digest)
}

/// Separates digests from every other use of the hash.
const DIGEST_SEED: u64 = 0x6761_6c76_6469_6731; // "galvdig1"
