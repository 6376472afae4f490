//! The store under a lane: the real one, watched.
//!
//! Every change a tick stages is noted and checked on its way (a version may only vanish for a
//! reason), and the lies of a mutant are told here. Next to read: `drive.rs`.

use crate::disk::Disk;
use crate::mutant::Mutant;
use crate::oracles::vanish;
use bytes::Bytes;
use galvani_model::bucket::{BucketName, ConflictPolicy};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, Partition, Shard, WriteId};
use galvani_model::key::Key;
use galvani_model::store::{
    Change, Damage, HintFigures, HintPage, Holdings, IndexPage, Indexed, Listed, LogPage,
    OwnOrigin, ReplicaState, RequestEntry, Rewrite, Slice, Store, StoreError,
};
use galvani_model::version::{Dot, Kind, Object, PartitionClock, Record, RecordHead, Version};
use galvani_storage::NodeStore;
use galvani_storage::engine::FailKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Policies by bucket: what the oracles judge by.
pub(crate) type Policies = Arc<BTreeMap<BucketName, ConflictPolicy>>;

/// A change of the tick under way.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub(crate) shard: Shard,
    pub(crate) record: Record,
    pub(crate) minted: bool,
}

/// What a tick changes of the hints a node holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct StagedHints {
    pub(crate) held: Vec<(NodeId, Shard, Dot)>,
    pub(crate) released: Vec<(NodeId, Shard, Dot)>,
}

/// Which calls to forget an origin a mutant does not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deaf {
    /// None: the guard is there.
    No,
    /// The next one.
    Once,
    /// All of them.
    Always,
}

/// The real store, watched.
pub(crate) struct SimStore {
    inner: NodeStore<Disk>,
    policies: Policies,
    mutant: Option<Mutant>,
    staged: Vec<Staged>,
    vanished: Vec<String>,
    collected: Vec<(Shard, Version)>,
    trimmed: Vec<(Shard, Dot)>,
    hints: StagedHints,
    emptied: BTreeSet<Shard>,
    /// No damage: what a mutant sees.
    none: BTreeSet<Damage>,
    commits: u64,
    /// What a mutant does not hear now.
    pub(crate) deaf: Deaf,
    /// Actors as they were before the tick minted, and those that a mutant goes on with.
    before: BTreeMap<Shard, OwnOrigin>,
    revived: BTreeMap<Shard, ReplicaState>,
}

impl SimStore {
    pub(crate) fn new(inner: NodeStore<Disk>, policies: Policies, mutant: Option<Mutant>) -> Self {
        let (staged, vanished) = (Vec::new(), Vec::new());
        SimStore {
            inner,
            policies,
            mutant,
            staged,
            vanished,
            collected: Vec::new(),
            trimmed: Vec::new(),
            hints: StagedHints::default(),
            emptied: BTreeSet::new(),
            none: BTreeSet::new(),
            commits: 0,
            deaf: Deaf::No,
            before: BTreeMap::new(),
            revived: BTreeMap::new(),
        }
    }

    /// Commits the tick as the real driver does; `changed` says whether it staged anything.
    pub(crate) fn commit(&mut self, fsync: bool, changed: bool) -> Result<(), StoreError> {
        self.commits += 1;
        let fsync = fsync && self.mutant != Some(Mutant::NeverFsyncs);
        let lost =
            self.mutant == Some(Mutant::LosesCommits) && changed && self.commits.is_multiple_of(5);
        if lost {
            self.inner.engine().memory().fail_next_commits([FailKind::IoLost]);
            return self.inner.commit(fsync).or(Ok(()));
        }
        let committed = self.inner.commit(fsync);
        self.revive(committed.is_ok());
        committed
    }

    /// After a failed commit [`Mutant::RevivesOrigins`] goes on with the actors before it.
    fn revive(&mut self, committed: bool) {
        for (shard, own) in core::mem::take(&mut self.before) {
            self.revived.remove(&shard);
            if !committed
                && self.mutant == Some(Mutant::RevivesOrigins)
                && let Ok(state) = self.inner.replica(shard)
            {
                let state = ReplicaState { own: Some(own), ..state.clone() };
                self.revived.insert(shard, state);
            }
        }
    }

    /// What the tick staged, and versions that vanished in it without a reason.
    pub(crate) fn take_tick(&mut self) -> (Vec<Staged>, Vec<String>) {
        (core::mem::take(&mut self.staged), core::mem::take(&mut self.vanished))
    }

    /// The tombstones that the tick collected.
    pub(crate) fn take_collected(&mut self) -> Vec<(Shard, Version)> {
        core::mem::take(&mut self.collected)
    }

    /// The records that the tick trimmed.
    pub(crate) fn take_trimmed(&mut self) -> Vec<(Shard, Dot)> {
        core::mem::take(&mut self.trimmed)
    }

    /// What a mutant trims beside what may go.
    fn trims_as_well(&mut self, shard: Shard) -> Result<Vec<Dot>, StoreError> {
        let trims = [Mutant::TrimsLive, Mutant::TrimsWithoutProof, Mutant::TrimsTombstones];
        let Some(mutant) = self.mutant.filter(|mutant| trims.contains(mutant)) else {
            return Ok(Vec::new());
        };
        // A damaged row says nothing of what may go.
        let Ok(page) = self.inner.log_page(shard, Dot::new(Origin(0), 0), PAGE) else {
            return Ok(Vec::new());
        };
        let mut also = Vec::new();
        for RecordHead { dot, key, kind, .. } in page.heads {
            let Ok(object) = self.inner.object(shard, &key) else { continue };
            let is_live = object.dots().contains(&dot);
            let goes = match mutant {
                Mutant::TrimsLive => is_live,
                Mutant::TrimsWithoutProof => !is_live,
                Mutant::TrimsTombstones => object.is_absent() && kind == Kind::Delete,
                _ => false,
            };
            also.extend(goes.then_some(dot));
        }
        Ok(also)
    }

    /// Shards of which rows are going for good.
    pub(crate) fn take_emptied(&mut self) -> BTreeSet<Shard> {
        core::mem::take(&mut self.emptied)
    }

    /// The hints that the tick took in and let go.
    pub(crate) fn take_hints(&mut self) -> StagedHints {
        core::mem::take(&mut self.hints)
    }

    /// The real store.
    pub(crate) fn inner(&mut self) -> &mut NodeStore<Disk> {
        &mut self.inner
    }
}

impl Holdings for SimStore {
    fn held_shards(&mut self) -> Result<Vec<Shard>, StoreError> {
        self.inner.held_shards()
    }

    fn empty(&mut self, shard: Shard, limit: usize) -> Result<bool, StoreError> {
        self.emptied.insert(shard);
        self.inner.empty(shard, limit)
    }

    fn fact(&mut self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if self.mutant == Some(Mutant::ForgetsVotes) && name == b"promise" {
            return Ok(None);
        }
        self.inner.fact(name)
    }

    fn set_fact(&mut self, name: &[u8], value: Option<Bytes>) -> Result<(), StoreError> {
        self.inner.set_fact(name, value)
    }
}

impl Store for SimStore {
    fn object(&mut self, shard: Shard, key: &Key) -> Result<Object, StoreError> {
        self.inner.object(shard, key)
    }

    fn record(&mut self, shard: Shard, dot: Dot) -> Result<Option<Record>, StoreError> {
        self.inner.record(shard, dot)
    }

    fn record_on_disk(&mut self, shard: Shard, dot: Dot) -> Result<Option<Record>, StoreError> {
        self.inner.record_on_disk(shard, dot)
    }

    fn object_on_disk(&mut self, shard: Shard, key: &Key) -> Result<Object, StoreError> {
        self.inner.object_on_disk(shard, key)
    }

    fn request(
        &mut self,
        shard: Shard,
        write: WriteId,
        issued: Option<Hlc>,
    ) -> Result<Option<RequestEntry>, StoreError> {
        match self.mutant {
            Some(Mutant::ForgetsRequests) => Ok(None),
            _ => self.inner.request(shard, write, issued),
        }
    }

    fn replica(&mut self, shard: Shard) -> Result<&ReplicaState, StoreError> {
        let state = self.inner.replica(shard)?;
        if state.own.is_some() {
            self.revived.remove(&shard);
        }
        match self.revived.get_mut(&shard) {
            Some(revived) => {
                revived.clock = state.clock.clone();
                revived.digest = state.digest;
                Ok(revived)
            }
            None => self.inner.replica(shard),
        }
    }

    fn stage(&mut self, mut change: Change) -> Result<(), StoreError> {
        let before = self.inner.object(change.shard, &change.record.head.key)?;
        let policy = self.policies.get(change.record.head.key.bucket()).copied();
        if let Some(why) = vanish::check(&before, &change, policy.unwrap_or_default()) {
            self.vanished.push(why);
        }
        if self.mutant == Some(Mutant::StaleDigest) {
            change.digest = self.inner.replica(change.shard)?.digest;
        }
        let minted = change.own.is_some();
        if let Some(OwnOrigin { origin, counter }) = change.own {
            let before = OwnOrigin { origin, counter: counter - 1 };
            self.before.entry(change.shard).or_insert(before);
        }
        let (shard, record) = (change.shard, change.record.clone());
        // A store that knows its disk is full refuses here, and nothing is staged.
        self.inner.stage(change)?;
        self.staged.push(Staged { shard, record, minted });
        Ok(())
    }

    fn tombstones(
        &mut self,
        shard: Shard,
        after: Option<Dot>,
        limit: usize,
    ) -> Result<IndexPage<Dot>, StoreError> {
        self.inner.tombstones(shard, after, limit)
    }

    fn expiring(
        &mut self,
        shard: Shard,
        after: Option<(u64, Dot)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<IndexPage<(u64, Dot)>, StoreError> {
        self.inner.expiring(shard, after, until_ms, limit)
    }

    fn unindex(&mut self, shard: Shard, key: &Key, row: Indexed) -> Result<(), StoreError> {
        self.inner.unindex(shard, key, row)
    }

    fn stage_collected(
        &mut self,
        shard: Shard,
        key: &Key,
        object: Object,
    ) -> Result<(), StoreError> {
        let before = self.inner.object(shard, key)?;
        self.inner.stage_collected(shard, key, object.clone())?;
        let stays = |old: &&Version| !object.versions().contains(old);
        let gone: Vec<Version> = before.versions().iter().filter(stays).cloned().collect();
        if gone.iter().any(Version::is_lasting) {
            self.vanished.push(format!("{key}: a value was collected"));
        }
        self.collected.extend(gone.into_iter().map(|version| (shard, version)));
        Ok(())
    }

    fn rewrite(&mut self, shard: Shard, row: Rewrite) -> Result<(), StoreError> {
        self.inner.rewrite(shard, row)
    }

    fn logged(&mut self, shard: Shard, from: Dot, limit: usize) -> Result<Vec<Dot>, StoreError> {
        self.inner.logged(shard, from, limit)
    }

    fn log_page(&mut self, shard: Shard, from: Dot, limit: usize) -> Result<LogPage, StoreError> {
        self.inner.log_page(shard, from, limit)
    }

    fn trim(&mut self, shard: Shard, dots: &[Dot], until: Hlc) -> Result<(), StoreError> {
        let mut dots = dots.to_vec();
        dots.extend(self.trims_as_well(shard)?);
        dots.sort_unstable();
        dots.dedup();
        self.inner.trim(shard, &dots, until)?;
        self.trimmed.extend(dots.into_iter().map(|dot| (shard, dot)));
        Ok(())
    }

    fn adopt_trimmed(
        &mut self,
        shard: Shard,
        dots: &PartitionClock,
        until: Hlc,
    ) -> Result<(), StoreError> {
        self.inner.adopt_trimmed(shard, dots, until)
    }

    fn trim_arrivals(
        &mut self,
        shard: Shard,
        from: u64,
        limit: usize,
    ) -> Result<Option<u64>, StoreError> {
        self.inner.trim_arrivals(shard, from, limit)
    }

    fn lost(&mut self, shard: Shard, dot: Dot) -> StoreError {
        self.inner.lost(shard, dot)
    }

    fn damaged(&self) -> &BTreeSet<Damage> {
        match self.mutant {
            Some(Mutant::NeverMends) => &self.none,
            _ => self.inner.damaged(),
        }
    }

    fn damage_changes(&self) -> u64 {
        self.inner.damage_changes()
    }

    fn slice(
        &mut self,
        shard: Shard,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Slice, StoreError> {
        self.inner.slice(shard, after, limit)
    }

    fn forget_origin(&mut self, shard: Shard) -> Result<(), StoreError> {
        if self.deaf != Deaf::No || self.mutant == Some(Mutant::KeepsOrigins) {
            if self.deaf == Deaf::Once {
                self.deaf = Deaf::No;
            }
            return Ok(());
        }
        self.revived.remove(&shard);
        self.inner.forget_origin(shard)
    }

    fn hold(&mut self, target: NodeId, shard: Shard, record: &Record) -> Result<(), StoreError> {
        if self.mutant == Some(Mutant::HoldsNothing) {
            return Ok(());
        }
        let before = self.inner.staged_bytes();
        self.inner.hold(target, shard, record)?;
        // One that is held already is as safe as it was.
        if self.inner.staged_bytes() > before {
            self.hints.held.push((target, shard, record.head.dot));
        }
        Ok(())
    }

    fn hints(
        &mut self,
        target: NodeId,
        after: Option<(Shard, Dot)>,
        partitions: &[Partition],
        credit: usize,
        limit: usize,
    ) -> Result<HintPage, StoreError> {
        let page = self.inner.hints(target, after, partitions, credit, limit)?;
        if self.mutant == Some(Mutant::LosesHints) {
            for (shard, record) in &page.records {
                self.inner.release(target, *shard, record.head.dot)?;
            }
            return Ok(HintPage { records: Vec::new(), ..page });
        }
        if self.mutant == Some(Mutant::ReleasesEarly) {
            for (shard, record) in &page.records {
                self.release(target, *shard, record.head.dot)?;
            }
        }
        Ok(page)
    }

    fn release(&mut self, target: NodeId, shard: Shard, dot: Dot) -> Result<(), StoreError> {
        self.inner.release(target, shard, dot)?;
        self.hints.released.push((target, shard, dot));
        Ok(())
    }

    fn hint_bytes(&self, target: NodeId) -> (u64, u64) {
        self.inner.hint_bytes(target)
    }

    fn hinted(&mut self, shard: Shard, origin: Origin) -> Result<u64, StoreError> {
        self.inner.hinted(shard, origin)
    }

    fn hint_figures(&self) -> &BTreeMap<NodeId, HintFigures> {
        self.inner.hint_figures()
    }

    fn list(
        &mut self,
        shard: Shard,
        bucket: &BucketName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(shard, bucket, prefix, after, limit)
    }
}

/// Records that a mutant looks at when something is trimmed.
const PAGE: usize = 64;
