//! Which records may go: those that no owner needs for anything, whatever happens to another one.
//!
//! A record is needed while it is a live version's, hidden ones included. It is needed, too, while it
//! is all that says that others are replaced: a replica that lost its disk, came back from an old
//! copy, or works an object out from its log is told by it. So of a key with live versions a record
//! goes if their records replace it and all that it replaced. Of what a tombstone replaced that was
//! collected since, or an expired value, every value without an end goes, and the record that was
//! collected stays: as long as it is in the log, each replica that lacks it will take it in. Every
//! live version must be taken in everywhere, with all that it replaces: then the record is dead on
//! every owner. It decides nothing about age. Next to read: `round.rs`.

use crate::ops::Ctx;
use crate::serve;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::StoreError;
use galvani_model::version::{Dot, DotSet, Kind, Object, PartitionClock, RecordHead, Version};
use std::collections::BTreeMap;

/// Judges records of one shard by the same clocks.
pub(super) struct Judge<'a> {
    shard: Shard,
    /// What the owners have taken in, this one included; none where they were not asked yet.
    clocks: &'a [&'a PartitionClock],
    keys: BTreeMap<Key, Judged>,
}

/// What is known of a key.
struct Judged {
    /// `None` where its bucket is not known here, or its row cannot be read.
    object: Option<(Object, ConflictPolicy)>,
    /// Whether all owners have taken in its live versions and what those replace.
    proven: bool,
    /// What the records of its live versions replace; worked out when it is asked for.
    replaced: Option<DotSet>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(shard: Shard, clocks: &'a [&'a PartitionClock]) -> Judge<'a> {
        Judge { shard, clocks, keys: BTreeMap::new() }
    }

    /// Whether the record of `head` may go.
    pub(super) fn may_go(
        &mut self,
        ctx: &mut Ctx<'_>,
        head: &RecordHead,
    ) -> Result<bool, StoreError> {
        if !self.clocks.iter().all(|clock| clock.contains(head.dot)) {
            return Ok(false);
        }
        if head.kind == Kind::Emit {
            return Ok(true);
        }
        let shard = self.shard;
        let judged = self.judged(ctx, &head.key)?;
        let Some((object, policy)) = &judged.object else { return Ok(false) };
        let versions = object.versions();
        if !judged.proven || versions.iter().any(|version| version.dots.contains(&head.dot)) {
            return Ok(false);
        }
        // One of several records of a write stays with the others: a late copy of one of them must
        // meet the others everywhere.
        match ctx.store.request(shard, head.write_id(), Some(head.hlc)) {
            Ok(entry) if entry.as_ref().is_some_and(|entry| entry.dots.len() > 1) => {
                return Ok(false);
            }
            Ok(_) => {}
            Err(StoreError::Corrupt { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        if *policy == ConflictPolicy::Lww {
            // The version that is left outranks all others, for ever.
            return Ok(!versions.is_empty());
        }
        let is_end = head.kind == Kind::Delete || head.expires();
        let is_claimed = versions.iter().any(|version| version.past.contains(head.dot));
        if !is_end && !is_claimed {
            return Ok(true);
        }
        let replaced = self.replaced(ctx, &head.key)?;
        Ok(replaced.contains(head.dot) && replaced.includes(&head.past))
    }

    fn judged(&mut self, ctx: &mut Ctx<'_>, key: &Key) -> Result<&Judged, StoreError> {
        if !self.keys.contains_key(key) {
            let policy = serve::owned(ctx, self.shard, key).ok();
            let object = match ctx.store.object(self.shard, key) {
                Ok(object) => policy.map(|policy| (object, policy)),
                Err(StoreError::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            let taken_in = |version: &Version| {
                self.clocks.iter().all(|clock| {
                    version.dots.iter().all(|&dot| clock.contains(dot))
                        && clock.covers(&version.past)
                })
            };
            let proven = object.iter().flat_map(|(object, _)| object.versions()).all(taken_in);
            self.keys.insert(key.clone(), Judged { object, proven, replaced: None });
        }
        Ok(&self.keys[key])
    }

    /// What the records of a key's live versions replace. What a version has inherited here is in no
    /// record, and counts for nothing: another replica would not learn of it.
    fn replaced(&mut self, ctx: &mut Ctx<'_>, key: &Key) -> Result<&DotSet, StoreError> {
        let shard = self.shard;
        let judged = self.keys.get_mut(key).expect("judged by the caller");
        if judged.replaced.is_none() {
            let mut replaced = DotSet::new();
            let versions = judged.object.iter().flat_map(|(object, _)| object.versions());
            let first: Vec<Dot> =
                versions.filter_map(|version| version.dots.first().copied()).collect();
            for dot in first {
                match ctx.store.record(shard, dot) {
                    Ok(Some(record)) => replaced.union(&record.head.past),
                    // It is live and is not here: it is mended first.
                    Ok(None) => drop(ctx.store.lost(shard, dot)),
                    Err(StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            judged.replaced = Some(replaced);
        }
        Ok(judged.replaced.get_or_insert_default())
    }
}
