//! What was there at a moment: the base, and of the journal what was issued before it.
//!
//! Writes are cut by hybrid time. A write's time is above that of everything its writer had seen, so a
//! cut never shows a write without what it was based on. For the same reason a key can be shown exactly
//! if the versions that the base has of it were issued before the cut: whatever they replaced was, too.
//! Where they were not, the key is blurred, and that is said. Retroactive: a write that comes late
//! changes what was. Next to read: `compare.rs`. Source: algorithms 5.2, "as-of read".

use crate::config::PAGE_KEYS_MAX;
use crate::error::LaggedError;
use crate::replica::Lagged;
use crate::select::Selector;
use crate::text::Blob;
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::hash::{key_hash, partition_of};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{Partition, RequestId, Shard, WriteId};
use galvani_model::key::Key;
use galvani_model::limits::KEY_BYTES_MAX;
use galvani_model::store::Store;
use galvani_model::version::{Dot, Object, RecordHead, Version};
use galvani_protocol::lagged;
use galvani_storage::engine::Engine;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which moment is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsOf {
    /// All that came.
    Latest,
    /// Through this moment, in milliseconds since 1970.
    Time(u64),
    /// Just before the write of this name was issued.
    Before(Dot),
    /// Just before the first write of this request was issued.
    BeforeRequest(RequestId),
}

/// A moment that was found out: it stays the same however long one looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Writes issued before this are shown; `None`: all that came.
    pub below: Option<Hlc>,
    /// The moment in milliseconds since 1970: values that had expired by then are none.
    pub at_ms: u64,
}

impl Moment {
    /// Whether a write was issued after it.
    pub fn is_before(&self, hlc: Hlc) -> bool {
        self.below.is_some_and(|below| hlc >= below)
    }
}

/// One key at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its shard.
    pub shard: Shard,
    /// The key.
    pub key: Key,
    /// Its versions then, tombstones included.
    pub versions: Vec<Version>,
    /// Versions among them that were to be left out, and are in the base already.
    pub kept: Vec<Dot>,
}

impl Found {
    /// The versions that were values at a moment.
    pub fn values(&self, at_ms: u64) -> impl Iterator<Item = &Version> {
        self.versions.iter().filter(move |version| version.is_value_at(at_ms))
    }
}

/// How far a scan is: shard by shard, and in a shard by key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The shard.
    pub shard: Shard,
    /// The last key looked at in it; `None`: none yet.
    pub key: Option<Blob>,
}

/// Some keys at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys of which anything was known then. May be none although there is more.
    pub found: Vec<Found>,
    /// Keys that were written after the moment, which is applied: what was there cannot be shown.
    pub blurred: Vec<Key>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Place>,
}

/// What could be made of a key.
enum Built {
    Exact(Found),
    /// The base has something of it that was issued after the moment, last at this time.
    Blurred {
        since_ms: u64,
    },
}

/// Keys, and what the base has of them.
type Objects = Vec<(Key, Object)>;

impl<E: Engine> Lagged<E> {
    /// Finds out a moment. `now_ms` (milliseconds since 1970) decides what has expired as of
    /// [`AsOf::Latest`], and what is in the future.
    pub fn moment(&self, as_of: AsOf, now_ms: u64) -> Result<Moment, LaggedError> {
        let before = |hlc: Hlc| Moment { below: Some(hlc), at_ms: hlc.unix_ms() };
        let moment = match as_of {
            AsOf::Latest => return Ok(Moment { below: None, at_ms: now_ms }),
            AsOf::Time(at_ms) => {
                let earliest_ms = self.earliest_ms().ok_or(LaggedError::NotSeeded)?;
                if at_ms > now_ms {
                    return Err(LaggedError::Future { asked_ms: at_ms, now_ms });
                }
                if at_ms < earliest_ms {
                    return Err(LaggedError::BeforeHorizon { asked_ms: at_ms, earliest_ms });
                }
                Moment { below: Some(Hlc::from_unix_ms(at_ms.saturating_add(1))), at_ms }
            }
            AsOf::Before(dot) => match self.journal.of_dot(dot)? {
                Some(at) => before(self.journal.record(at)?.head.hlc),
                None if self.has_taken(dot) => {
                    let earliest_ms = self.earliest_ms().ok_or(LaggedError::NotSeeded)?;
                    return Err(LaggedError::Applied { dot, earliest_ms });
                }
                None => return Err(LaggedError::UnknownDot { dot }),
            },
            AsOf::BeforeRequest(request) => {
                let mut first: Option<Hlc> = None;
                for at in self.journal.of_request(request)? {
                    let hlc = self.journal.record(at)?.head.hlc;
                    first = Some(first.map_or(hlc, |first| first.min(hlc)));
                }
                before(first.ok_or(LaggedError::UnknownRequest { request })?)
            }
        };
        self.check_seeded(&moment)?;
        Ok(moment)
    }

    /// A key at a moment, as if the writes that `without` names had not been; `None` if nothing was
    /// known of it, [`LaggedError::Blurred`] if it was written after the moment and that is applied.
    pub fn read_at(
        &mut self,
        key: &Key,
        moment: &Moment,
        without: Option<&Selector>,
    ) -> Result<Option<Found>, LaggedError> {
        self.check_seeded(moment)?;
        let partition = partition_of(key_hash(key), self.partitions);
        // A bucket keeps one number of copies for ever, so only one of these has the key.
        let shards: Vec<Shard> =
            self.journal.shards().keys().filter(|it| it.partition == partition).copied().collect();
        for shard in shards {
            let object = lagged::object(&mut self.base, shard, key)?;
            match self.build(shard, key.clone(), object, moment, without)? {
                Built::Blurred { since_ms } => {
                    return Err(LaggedError::Blurred { key: key.clone(), since_ms });
                }
                Built::Exact(found) if found.versions.is_empty() => {}
                Built::Exact(found) => return Ok(Some(found)),
            }
        }
        Ok(None)
    }

    /// Keys of a bucket that start with `prefix`, at a moment, as if the writes that `without` names
    /// had not been: shard by shard, at most `limit` of them, from `from` on. Pause before asking for
    /// several pages: what goes to the base meanwhile may blur keys of an early moment.
    pub fn scan_at(
        &mut self,
        bucket: &BucketName,
        prefix: &[u8],
        from: Option<&Place>,
        limit: usize,
        moment: &Moment,
        without: Option<&Selector>,
    ) -> Result<Page, LaggedError> {
        self.check_seeded(moment)?;
        if prefix.len() > KEY_BYTES_MAX {
            let (bucket, bytes) = (bucket.clone(), prefix.len());
            return Err(LaggedError::Prefix { bucket, bytes });
        }
        let limit = limit.clamp(1, PAGE_KEYS_MAX);
        let lowest = Shard { partition: Partition(0), n: 0 };
        let begin = from.map_or(lowest, |place| place.shard);
        let shards: Vec<Shard> =
            self.journal.shards().range(begin..).map(|(shard, _)| *shard).collect();
        let mut page = Page::default();
        let mut looked = 0;
        for (index, &shard) in shards.iter().enumerate() {
            let resumed = from.filter(|place| place.shard == shard);
            let mut after = resumed.and_then(|place| place.key.clone()).map(|blob| blob.0);
            loop {
                let room = limit - page.found.len();
                let (objects, last) =
                    self.objects_after(shard, bucket, prefix, after.as_deref(), room)?;
                looked += objects.len();
                for (key, object) in objects {
                    match self.build(shard, key.clone(), object, moment, without)? {
                        Built::Blurred { .. } => page.blurred.push(key),
                        Built::Exact(found) if found.versions.is_empty() => {}
                        Built::Exact(found) => page.found.push(found),
                    }
                }
                match last {
                    None => break,
                    Some(last) => after = Some(last),
                }
                if page.found.len() == limit || looked >= PAGE_KEYS_MAX {
                    page.next = Some(Place { shard, key: after.map(Blob) });
                    return Ok(page);
                }
            }
            if page.found.len() == limit || looked >= PAGE_KEYS_MAX {
                page.next = shards.get(index + 1).map(|&shard| Place { shard, key: None });
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// The value of a version that was found.
    pub fn value(&mut self, shard: Shard, version: &Version) -> Result<Bytes, LaggedError> {
        for &dot in &version.dots {
            if let Some(at) = self.journal.of_dot(dot)? {
                return Ok(self.journal.record(at)?.value);
            }
        }
        Ok(lagged::record(&mut self.base, shard, version)?.value)
    }

    /// What a write was, if it came here.
    pub fn head(&mut self, shard: Shard, dot: Dot) -> Result<Option<RecordHead>, LaggedError> {
        match self.journal.of_dot(dot)? {
            Some(at) => Ok(Some(self.journal.record(at)?.head)),
            None => Ok(self.base.record(shard, dot)?.map(|record| record.head)),
        }
    }

    /// Up to `room` keys with what the base has of them, and where to go on in this shard, if there
    /// may be more.
    fn objects_after(
        &mut self,
        shard: Shard,
        bucket: &BucketName,
        prefix: &[u8],
        after: Option<&[u8]>,
        room: usize,
    ) -> Result<(Objects, Option<Bytes>), LaggedError> {
        let listed = self.base.list(shard, bucket, prefix, after, room)?;
        let waiting = self.journal.keys(shard, bucket, prefix, after, room)?;
        let is_whole = listed.len() < room && waiting.len() < room;
        let mut objects: BTreeMap<Bytes, (Key, Object)> = BTreeMap::new();
        for listed in listed {
            objects.insert(listed.key.bytes().clone(), (listed.key, listed.object));
        }
        for bytes in waiting {
            objects.entry(bytes.clone()).or_insert_with(|| {
                let key = Key::new(bucket.clone(), bytes).expect("checked when it came");
                (key, Object::absent())
            });
        }
        // Both lists are whole up to their last key, so the first `room` of all are.
        let last = (!is_whole).then(|| objects.keys().nth(room - 1).cloned()).flatten();
        Ok((objects.into_values().take(room).collect(), last))
    }

    /// A key at a moment, from what the base has of it and what waits.
    fn build(
        &mut self,
        shard: Shard,
        key: Key,
        base: Object,
        moment: &Moment,
        without: Option<&Selector>,
    ) -> Result<Built, LaggedError> {
        if moment.is_before(base.hlc()) && !base.is_absent() {
            return Ok(Built::Blurred { since_ms: base.hlc().unix_ms() });
        }
        let policy = self.journal.policy(key.bucket());
        let mut waiting = Vec::new();
        for at in self.journal.of_key(shard, &key, moment.below)? {
            waiting.push(self.journal.record(at)?.head);
        }
        let left_out = match without {
            None => BTreeSet::new(),
            Some(without) => self.named(shard, &base, &waiting, without)?,
        };
        let kept = base.versions().iter().filter(|it| left_out.contains(&it.write));
        let kept: Vec<Dot> = kept.flat_map(|it| it.dots.iter().copied()).collect();
        let mut object = base;
        let mut writes = BTreeSet::new();
        for head in waiting {
            let write = head.write_id();
            let is_applied = self.base.replica(shard)?.clock.contains(head.dot);
            if is_applied || left_out.contains(&write) {
                continue;
            }
            let known = self.base.request(shard, write, Some(head.hlc))?.is_some();
            object.apply(&head, !writes.insert(write) || known, policy);
        }
        // What was said of the bucket after a record was applied counts, too.
        let object = Object::from_versions(object.versions().to_vec(), policy);
        let live = object.dots();
        let kept = kept.into_iter().filter(|dot| live.contains(dot)).collect();
        Ok(Built::Exact(Found { shard, key, versions: object.versions().to_vec(), kept }))
    }

    /// The writes of a key that a selector names. A write that was retried has several records, and is
    /// named with any of them.
    fn named(
        &mut self,
        shard: Shard,
        base: &Object,
        waiting: &[RecordHead],
        selector: &Selector,
    ) -> Result<BTreeSet<WriteId>, LaggedError> {
        let mut named = BTreeSet::new();
        for version in base.versions() {
            for &dot in &version.dots {
                let record = self.base.record(shard, dot)?;
                if record.is_some_and(|record| selector.names(&record.head)) {
                    named.insert(version.write);
                }
            }
        }
        let heads = waiting.iter().filter(|head| selector.names(head));
        named.extend(heads.map(RecordHead::write_id));
        Ok(named)
    }

    /// Refuses a moment before the replica had caught up, and one in a hole.
    fn check_seeded(&self, moment: &Moment) -> Result<(), LaggedError> {
        if moment.below.is_none() {
            return Ok(());
        }
        let (state, asked_ms) = (self.journal.state(), moment.at_ms);
        let earliest_ms = state.seeded_ms.ok_or(LaggedError::NotSeeded)?;
        if asked_ms < earliest_ms {
            return Err(LaggedError::BeforeHorizon { asked_ms, earliest_ms });
        }
        match state.holes.iter().find(|hole| hole.contains(asked_ms)) {
            None => Ok(()),
            Some(&hole) => Err(LaggedError::Unknown { asked_ms, hole }),
        }
    }
}
