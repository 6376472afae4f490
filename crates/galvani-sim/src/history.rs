//! What clients asked and what they heard.
//!
//! A logical write has a number; its value is a function of seed, key and number, so that any value
//! anybody reads names its write. Next to read: `ledger.rs`, `oracles/`.

use bytes::Bytes;
use galvani_model::bucket::{BucketProps, ConflictPolicy};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::request::{ReadOptions, WriteOptions};
use galvani_model::version::{Dot, DotSet, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// A key of the run.
#[derive(Clone, Debug)]
pub(crate) struct KeyInfo {
    pub(crate) key: Key,
    pub(crate) shard: Shard,
    /// Its owners by position, in preference order.
    pub(crate) owners: Vec<usize>,
    pub(crate) props: BucketProps,
}

impl KeyInfo {
    pub(crate) fn is_lww(&self) -> bool {
        self.props.policy == ConflictPolicy::Lww
    }
}

/// What became of the calls of a write so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEnd {
    /// Nothing was heard, and nothing will be.
    Silence,
    /// Answered as done.
    Done,
    /// Answered: certainly not stored.
    No,
    /// Answered: perhaps stored.
    Maybe,
}

/// A logical write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: usize,
    pub(crate) kind: Kind,
    pub(crate) rid: RequestId,
    pub(crate) issued: Hlc,
    /// When its value ends, in milliseconds since 1970; 0: never.
    pub(crate) expires_ms: u64,
    pub(crate) context: Option<Bytes>,
    /// What its context says, if it is one.
    pub(crate) past: DotSet,
    pub(crate) value: Bytes,
    pub(crate) options: WriteOptions,
    pub(crate) timeout_ms: u32,
    /// Whether it must be refused whatever happens.
    pub(crate) impossible: bool,
    pub(crate) calls: Vec<usize>,
    /// The epoch that all members went by when it was first sent, if it was one and no change.
    pub(crate) epoch: Option<u64>,
    /// Its dots, as far as any node committed one.
    pub(crate) dots: BTreeSet<Dot>,
    /// The nodes that held it when it was first acked and still do.
    pub(crate) holders: BTreeSet<usize>,
    /// The nodes that held it then as owners, whatever became of that.
    pub(crate) owned_by: BTreeSet<usize>,
    /// When its first ack left, and the nodes that held it then.
    pub(crate) first_ack: Option<(u64, BTreeSet<usize>)>,
    /// Owners that held it, of each set that reads may ask: the fewest.
    pub(crate) held_by: u8,
    /// Owners to which a stand-in has handed it over since: they answer for it, too.
    pub(crate) handed: BTreeSet<usize>,
    pub(crate) acked_at: Option<u64>,
}

/// A read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) key: usize,
    pub(crate) options: ReadOptions,
    pub(crate) started: u64,
    /// The epoch that all members went by when it was sent, if it was one and no change.
    pub(crate) epoch: Option<u64>,
    /// Whether an owner did not know then of a collected tombstone of the key, having lost that unawares.
    pub(crate) met_unaware: bool,
    /// Whether the reader writes what it merged as soon as it has read.
    pub(crate) then_write: bool,
    /// Whether the run is quiet and all replicas were asked.
    pub(crate) last: bool,
    pub(crate) answered: bool,
}

/// An answered read that waited for its repairs.
#[derive(Clone, Debug)]
pub(crate) struct Confirmed {
    pub(crate) read: usize,
    pub(crate) key: usize,
    /// The writes it showed, and their dots as shown.
    pub(crate) writes: Vec<usize>,
    pub(crate) dots: Vec<Dot>,
    /// The nodes that held all of it then and still do.
    pub(crate) holders: BTreeSet<usize>,
    pub(crate) at: u64,
}

/// What a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Write(usize),
    Read(usize),
    Other,
}

/// One request of a client to one lane.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) client: Option<usize>,
    pub(crate) purpose: Purpose,
    pub(crate) node: usize,
    pub(crate) started: u64,
    pub(crate) end: Option<CallEnd>,
}

/// Everything clients asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    pub(crate) calls: Vec<Call>,
    pub(crate) confirmed: Vec<Confirmed>,
    pub(crate) by_rid: BTreeMap<RequestId, usize>,
}

impl History {
    /// Whether every call of the write was answered with "certainly not stored".
    pub(crate) fn is_denied(&self, write: usize) -> bool {
        let calls = &self.writes[write].calls;
        !calls.is_empty() && calls.iter().all(|&call| self.calls[call].end == Some(CallEnd::No))
    }

    /// The write that a value names, if it is one of this seed.
    pub(crate) fn write_of(&self, seed: u64, value: &[u8]) -> Option<usize> {
        let text = core::str::from_utf8(value).ok()?;
        let mut parts = text.split('/');
        let of_seed = parts.next()?.parse() == Ok(seed);
        let number: usize = parts.next()?.parse().ok()?;
        let write = self.writes.get(number)?;
        (of_seed && write.value == value).then_some(number)
    }
}

/// The value of write `number` of a seed, of some length that depends on both.
pub(crate) fn value_of(seed: u64, key: usize, number: usize) -> Bytes {
    let mut text = format!("{seed}/{number}/k{key}/");
    let mixed = (seed ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
    text.extend(core::iter::repeat_n('.', mixed as usize));
    Bytes::from(text)
}
