//! An object: the versions of one key that nothing its replica knows of replaces.
//!
//! `apply` takes in one record, whatever brought it: it is the algebra under the one `apply` of a
//! replica (`galvani-protocol/src/replica.rs`), and never looks at a clock or a disk. Retries of
//! one logical write form an alias group: one version with several dots, replaced as soon as any
//! of them is. Time changes no object: a value that has expired stays where it is and reads as a
//! tombstone, so what it replaced stays replaced. Next to read: `join.rs`.

use super::clock::PartitionClock;
use super::dot::Dot;
use super::dotset::DotSet;
use super::record::{Kind, RecordHead};
use crate::bucket::ConflictPolicy;
use crate::hlc::Hlc;
use crate::ids::{NodeId, WriteId};
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use std::borrow::Cow;

/// One live version: a value or a tombstone that nothing known replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The dots of this logical write, ascending; more than one after retries (alias group).
    pub dots: SmallVec<[Dot; 1]>,
    /// What it replaces: what its record says, and what those replaced that it replaced here. A
    /// context made after a tombstone was collected may name the tombstone and not what that replaced.
    pub past: DotSet,
    /// When, by hybrid clock; the same for every retry.
    pub hlc: Hlc,
    /// The logical write.
    pub write: WriteId,
    /// The node that minted the first of its dots that came here.
    pub author: NodeId,
    /// Value or tombstone.
    pub kind: Kind,
    /// Length of the value in bytes.
    pub value_len: u32,
    /// [`super::value_hash`] of the value.
    pub value_hash: u64,
    /// When the value is no value any more, in milliseconds since 1970; 0: never.
    pub expires_ms: u64,
    /// Whether it came as one that shows nothing here: see [`Object::apply_hidden`].
    #[serde(default)]
    pub hidden: bool,
}

impl Version {
    /// The version that `head` alone makes.
    pub fn of(head: &RecordHead) -> Version {
        Version {
            dots: smallvec![head.dot],
            past: head.past.clone(),
            hlc: head.hlc,
            write: head.write_id(),
            author: head.author,
            kind: head.kind,
            value_len: head.value_len,
            value_hash: head.value_hash,
            expires_ms: head.expires_ms,
            hidden: false,
        }
    }

    /// Whether it is a value at a time of the asker's clock, in milliseconds since 1970. If not, it
    /// reads as a tombstone. The only place that decides.
    pub fn is_value_at(&self, now_ms: u64) -> bool {
        self.kind == Kind::Put && !self.hidden && !self.has_ended(now_ms)
    }

    /// Whether it is a value that has expired at a time of the asker's clock, in milliseconds since
    /// 1970: then it may be collected, shown before or not.
    pub fn has_ended(&self, now_ms: u64) -> bool {
        self.kind == Kind::Put && self.expires_ms > 0 && self.expires_ms <= now_ms
    }

    /// Whether it is a value without an end: what owners of equal clocks must agree on. A tombstone
    /// and a value that expires are collected by each of them in its own time.
    pub fn is_lasting(&self) -> bool {
        self.kind == Kind::Put && self.expires_ms == 0
    }

    /// Whether any of its dots is in `past`: then the whole group is replaced.
    pub fn is_replaced_by(&self, past: &DotSet) -> bool {
        self.dots.iter().any(|&dot| past.contains(dot))
    }

    /// Whether it is a version of this record's logical write, as far as values go.
    pub fn agrees_with(&self, head: &RecordHead) -> bool {
        (self.value_hash, self.value_len, self.kind, self.expires_ms)
            == (head.value_hash, head.value_len, head.kind, head.expires_ms)
    }

    /// Takes in another replica's version of the same logical write: its dots, and that it is shown
    /// there. Where it was deleted and the tombstone is collected, no owner shows it.
    pub(super) fn join(&mut self, other: &Version) {
        self.absorb(&other.dots);
        self.inherit(&other.past);
        self.hidden &= other.hidden;
    }

    /// Replaces also what `past` names: that of a version it replaces, or of its own write.
    fn inherit(&mut self, past: &DotSet) {
        if !self.past.includes(past) {
            self.past.union(past);
        }
    }

    /// Takes in the dots of another copy of the same logical write.
    fn absorb(&mut self, dots: &[Dot]) {
        for &dot in dots {
            if let Err(at) = self.dots.binary_search(&dot) {
                self.dots.insert(at, dot);
            }
        }
    }

    /// What decides an `lww` bucket: a total order that agrees with replacement.
    fn rank(&self) -> (Hlc, WriteId) {
        (self.hlc, self.write)
    }
}

/// Adds a past to another that mostly holds it already.
fn inherit(heir: &mut Cow<'_, DotSet>, past: &DotSet) {
    if !heir.includes(past) {
        heir.to_mut().union(past);
    }
}

/// What taking in one record did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The record is (part of) a live version now.
    pub live: bool,
    /// Versions that are gone because a bucket of policy `lww` keeps one.
    pub discarded: u32,
}

/// The live versions of one key, ordered by their first dot; empty means absent.
///
/// Absence is the bottom of the lattice: an empty object joined with any is that one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    versions: Vec<Version>,
}

impl Object {
    /// The absent object.
    pub fn absent() -> Object {
        Object::default()
    }

    /// Takes in a record whose dot this replica has not seen before; one of events alone changes
    /// nothing. `retry` says whether the replica
    /// has seen another dot of the same logical write (the alias rule): then the record joins
    /// that version if it is live, and is obsolete if it is not.
    pub fn apply(&mut self, head: &RecordHead, retry: bool, policy: ConflictPolicy) -> Applied {
        self.take_in(head, retry, false, policy)
    }

    /// Takes in a record that a peer has taken in and does not hold: it is collected there, or a
    /// tombstone, collected since, replaced it. As [`Object::apply`], but it shows nothing. A value
    /// without an end makes no version, for a tombstone follows. One with an end makes a hidden
    /// version, because nothing else may come that replaces what it replaced; it is collected after
    /// its own end and not before, because the peer may have lost it or have a wrong clock.
    pub fn apply_hidden(
        &mut self,
        head: &RecordHead,
        retry: bool,
        policy: ConflictPolicy,
    ) -> Applied {
        self.take_in(head, retry, true, policy)
    }

    fn take_in(
        &mut self,
        head: &RecordHead,
        retry: bool,
        hidden: bool,
        policy: ConflictPolicy,
    ) -> Applied {
        if head.kind == Kind::Emit {
            return Applied::default();
        }
        let write = head.write_id();
        let covers = |version: &Version| version.write != write && version.past.contains(head.dot);
        let replaced = self.versions.iter().any(covers);
        // Also when the record itself is replaced or obsolete: what it replaces stays replaced.
        let gone = |version: &Version| match version.write == write {
            true => replaced,
            false => version.is_replaced_by(&head.past),
        };
        let mut past = Cow::Borrowed(&head.past);
        for version in self.versions.iter().filter(|version| gone(version)) {
            inherit(&mut past, &version.past);
        }
        self.versions.retain(|version| !gone(version));
        for version in self.versions.iter_mut().filter(|version| covers(version)) {
            version.inherit(&past);
        }
        match self.versions.iter_mut().find(|version| version.write == write) {
            Some(group) => {
                group.absorb(&[head.dot]);
                group.inherit(&past);
            }
            None if retry || replaced || (hidden && !head.expires()) => {}
            None => {
                let past = past.into_owned();
                self.versions.push(Version { past, hidden, ..Version::of(head) });
            }
        }
        let discarded = self.settle(policy);
        let live = self.versions.iter().any(|version| version.dots.contains(&head.dot));
        Applied { live, discarded }
    }

    /// The live versions, ordered by first dot.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Whether nothing is known of the key here.
    pub fn is_absent(&self) -> bool {
        self.versions.is_empty()
    }

    /// Every live dot, aliases included, ascending.
    pub fn dots(&self) -> SmallVec<[Dot; 2]> {
        let mut dots: SmallVec<[Dot; 2]> =
            self.versions.iter().flat_map(|version| version.dots.iter().copied()).collect();
        dots.sort_unstable();
        dots
    }

    /// Every dot of its tombstones, aliases included, in the order of versions.
    pub fn tombstones(&self) -> SmallVec<[Dot; 1]> {
        let deleted = self.versions.iter().filter(|version| version.kind == Kind::Delete);
        deleted.flat_map(|version| version.dots.iter().copied()).collect()
    }

    /// Every dot of its values that expire, with the expiry, aliases included, in the order of
    /// versions.
    pub fn expiring(&self) -> SmallVec<[(u64, Dot); 1]> {
        let ending = |version: &&Version| version.kind == Kind::Put && version.expires_ms > 0;
        let ending = self.versions.iter().filter(ending);
        let dots = |version: &Version| {
            let expires_ms = version.expires_ms;
            version.dots.clone().into_iter().map(move |dot| (expires_ms, dot))
        };
        ending.flat_map(dots).collect()
    }

    /// How many values it shows at a time of the asker's clock, in milliseconds since 1970.
    pub fn values_at(&self, now_ms: u64) -> usize {
        self.versions.iter().filter(|version| version.is_value_at(now_ms)).count()
    }

    /// The object without the tombstones, and without the values that expire, that `done` is true
    /// of. Values without an end always stay.
    pub fn without_ended(&self, done: impl Fn(&Version) -> bool) -> Object {
        let stays = |version: &&Version| version.is_lasting() || !done(version);
        Object { versions: self.versions.iter().filter(stays).cloned().collect() }
    }

    /// All that a reader of this object has seen or that was replaced for it: every version's
    /// dots and past. Exact; the caller may [`DotSet::compress`] it with its own clock.
    pub fn seen(&self) -> DotSet {
        let mut seen = DotSet::new();
        for version in &self.versions {
            seen.union(&version.past);
            for &dot in &version.dots {
                seen.insert(dot);
            }
        }
        seen
    }

    /// What the author of a write has seen of the key, once a replica with this clock holds it as this
    /// object: what it had seen before, and the write. Where that is all the key holds, it is told as
    /// briefly as to a reader there: else the context of whoever writes on and on, each time with the
    /// last one's, would name each of its writes. Of what it has not seen nothing is claimed.
    pub fn seen_by_author(&self, head: &RecordHead, clock: &PartitionClock) -> DotSet {
        let mut seen = head.past.clone();
        seen.insert(head.dot);
        let mut held = self.versions.iter().flat_map(|version| version.dots.iter());
        if !self.versions.is_empty() && held.all(|&dot| seen.contains(dot)) {
            seen.compress(clock);
        }
        seen
    }

    /// The latest hybrid time of its versions.
    pub fn hlc(&self) -> Hlc {
        self.versions.iter().map(|version| version.hlc).max().unwrap_or_default()
    }

    /// How many live versions a write that has seen `past` would leave beside itself: those that have
    /// not ended at a time of the asker's clock (milliseconds since 1970), and those that have.
    pub fn siblings_after(&self, past: &DotSet, now_ms: u64) -> (usize, usize) {
        let left = || self.versions.iter().filter(|version| !version.is_replaced_by(past));
        let ended = left().filter(|version| version.has_ended(now_ms)).count();
        (left().count() - ended, ended)
    }

    /// The object made of `versions` as they are: a reader's join, a peer's answer, a decoded row.
    pub fn from_versions(versions: Vec<Version>, policy: ConflictPolicy) -> Object {
        let mut object = Object { versions };
        object.settle(policy);
        object
    }

    /// Canonical order, and one version only where the policy says so. Returns how many it dropped.
    fn settle(&mut self, policy: ConflictPolicy) -> u32 {
        let mut discarded = 0;
        if policy == ConflictPolicy::Lww
            && let Some(best) = self.versions.iter().map(Version::rank).max()
        {
            let before = self.versions.len();
            self.versions.retain(|version| version.rank() == best);
            discarded = (before - self.versions.len()) as u32;
        }
        self.versions.sort_by(|a, b| a.dots.cmp(&b.dots));
        discarded
    }
}
