//! A record: one write as it is logged, sent and kept, never changed after it was minted.
//!
//! The head travels through codecs; the value's bytes travel raw beside it. Copies of a record are
//! equal on every replica, whatever brought them there. Next to read: `object.rs`.

use super::dot::Dot;
use super::dotset::DotSet;
use crate::hash::key_hash_128;
use crate::hlc::Hlc;
use crate::ids::{NodeId, RequestId, WriteId};
use crate::key::Key;
use crate::limits::{EMIT_BYTES_MAX, EMITS_MAX, SHOWN_DOTS_MAX};
use crate::topic::Topic;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// What a write does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Stores a value.
    Put,
    /// Leaves a tombstone: a version without a value, like any other in every merge.
    Delete,
    /// Changes no key: carries events for the feed only ([`Emit`]). Logged and replicated like any
    /// other write; it is no version of its key.
    Emit,
}

/// One event of the application, stored inside the record that it belongs to: as atomic and as safe
/// as the write itself (a transactional outbox). Source: algorithms 4.11.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emit {
    /// What it is about; consumers ask for topics.
    pub topic: Topic,
    /// A key of the application's choice, for consumers that group by it; empty for none.
    pub key: Bytes,
    /// The event, opaque.
    pub payload: Bytes,
}

impl Emit {
    /// Bytes it counts for, against [`EMIT_BYTES_MAX`](crate::limits::EMIT_BYTES_MAX).
    pub fn bytes(&self) -> usize {
        self.topic.as_str().len() + self.key.len() + self.payload.len()
    }
}

/// Everything of a record but its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHead {
    /// The name of this write.
    pub dot: Dot,
    /// The key written.
    pub key: Key,
    /// What it replaces: exactly the dots its writer had seen.
    pub past: DotSet,
    /// When, by hybrid clock: at or after the client's reading and above everything in `past`.
    /// A function of the request alone, so every retry has the same.
    pub hlc: Hlc,
    /// Which logical write this is; retries share it.
    pub rid: RequestId,
    /// The node that minted the dot, for people.
    pub author: NodeId,
    /// Put or delete.
    pub kind: Kind,
    /// Length of the value in bytes; 0 for a delete.
    pub value_len: u32,
    /// [`value_hash`] of kind and value: travels with the value from its first coordinator to
    /// every disk.
    pub value_hash: u64,
    /// When the value is no value any more, in milliseconds since 1970; 0: never. A function of the
    /// request alone, so every retry and every replica has the same. 0 for a delete.
    pub expires_ms: u64,
    /// The versions that it replaced where it was minted, by the first of their dots. What consumers
    /// of the feed are shown; no merge looks at it.
    pub supersedes: SmallVec<[Dot; 1]>,
    /// The values that stayed beside it where it was minted, by the first of their dots.
    pub concurrent: Vec<Dot>,
    /// Events of the application that were written with it.
    pub emits: Vec<Emit>,
}

impl RecordHead {
    /// About how many bytes it takes in a message or a row, the value left out: at most a few too many.
    pub fn about_bytes(&self) -> usize {
        let past: usize = self.past.iter().map(|(_, _, cloud)| 24 + 9 * cloud.len()).sum();
        let named = 32 * (self.supersedes.len() + self.concurrent.len());
        FIXED_BYTES + self.key.bytes().len() + past + named + emitted_bytes(&self.emits)
    }

    /// Whether it is or was a value with an end.
    pub fn expires(&self) -> bool {
        self.kind == Kind::Put && self.expires_ms > 0
    }

    /// Which logical write this is: equal for a retry (same request id, key, value, context, client
    /// time, expiry and events), different for anything else. A request id that is used again for another key
    /// or value by mistake therefore never hides a write.
    pub fn write_id(&self) -> WriteId {
        let mut bytes: SmallVec<[u8; 128]> = SmallVec::new();
        bytes.extend_from_slice(&self.rid.to_bytes());
        bytes.extend_from_slice(&key_hash_128(&self.key, WRITE_SEED).to_le_bytes());
        bytes.extend_from_slice(&self.hlc.0.to_le_bytes());
        bytes.extend_from_slice(&self.value_hash.to_le_bytes());
        bytes.extend_from_slice(&self.expires_ms.to_le_bytes());
        bytes.push(match self.kind {
            Kind::Put => 0,
            Kind::Delete => 1,
            Kind::Emit => 2,
        });
        for emit in &self.emits {
            for part in [emit.topic.as_str().as_bytes(), &emit.key, &emit.payload] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(&xxh3_64(part).to_le_bytes());
            }
        }
        for (origin, base, cloud) in self.past.iter() {
            bytes.extend_from_slice(&origin.to_bytes());
            bytes.extend_from_slice(&base.to_le_bytes());
            bytes.extend_from_slice(&(cloud.len() as u64).to_le_bytes());
            for counter in cloud {
                bytes.extend_from_slice(&counter.to_le_bytes());
            }
        }
        WriteId(xxh3_128_with_seed(&bytes, WRITE_SEED))
    }
}

/// Separates write ids from every other use of the hash.
const WRITE_SEED: u64 = 0x6761_6c76_7772_6931; // "galvwri1"

/// One write, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// All but the value.
    pub head: RecordHead,
    /// The value; empty for a delete.
    pub value: Bytes,
}

impl Record {
    /// Whether the value is the one the head speaks of, what has no value is nothing but that, and
    /// no list in it is longer than a coordinator makes it.
    pub fn is_intact(&self) -> bool {
        let head = &self.head;
        let lists = head.supersedes.len().max(head.concurrent.len());
        (head.kind == Kind::Put || (self.value.is_empty() && head.expires_ms == 0))
            && lists <= SHOWN_DOTS_MAX
            && emits_fit(&head.emits)
            && self.value.len() == self.head.value_len as usize
            && value_hash(self.head.kind, &self.value) == self.head.value_hash
    }
}

/// XXH3-64 of a value; a delete has a hash of its own, so that it never equals an empty put.
pub fn value_hash(kind: Kind, value: &[u8]) -> u64 {
    match kind {
        Kind::Put => xxh3_64(value),
        Kind::Delete => 0x64656c_65746564,   // "deleted"
        Kind::Emit => 0x656d_6974_7465_6400, // "emitted"
    }
}

/// Bytes of events, as they count against [`EMIT_BYTES_MAX`].
pub fn emitted_bytes(emits: &[Emit]) -> usize {
    emits.iter().map(Emit::bytes).sum()
}

/// What a head takes beside what has a length of its own.
const FIXED_BYTES: usize = 160;

/// Whether a write may carry these events.
pub fn emits_fit(emits: &[Emit]) -> bool {
    emits.len() <= EMITS_MAX && emitted_bytes(emits) <= EMIT_BYTES_MAX
}
