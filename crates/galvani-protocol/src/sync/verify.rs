//! Reading a shard through: are its rows whole, and do its objects add up to its digest?
//!
//! Every shard has its turn once in `limits.verify_hours`, and at once when it was found unequal or
//! a row of it was mended. The turns begin anew with each start, at a shard that chance picks: a
//! node that is started every day reads others each day. First each record of the clock is
//! read, and its object with it; then the objects are added up. What is written meanwhile behind
//! the place where it stands is added as it happens, so writers never make it start again; a
//! damaged row or a failed commit does. A digest that the data does not bear out is corrected and
//! the shard is shown to the other owners, who find what is lost (`unequal.rs`). A step is a
//! bounded number of rows and of bytes; then clients have the lane at least as long as the step
//! took. It mends no row: `damage.rs` does.

use crate::ops::Ctx;
use crate::replica;
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::{Damage, Rewrite, StoreError};
use galvani_model::version::{Digest, Dot, Object, object_digest};
use std::collections::BTreeMap;

/// Rows of one step.
const STEP_ROWS: usize = 64;
/// Bytes of values after which a step of records ends.
const STEP_BYTES: usize = 1 << 20;
/// Pause between two steps of a shard whose turn it is, in microseconds: some 1,300 rows a second.
const PAUSE_MICROS: u64 = 50_000;
/// The same for a shard that something waits for.
const SHORT_PAUSE_MICROS: u64 = 2_000;
/// The longest that it rests after a step, in microseconds: a process that was stopped for a while
/// has not been at work.
const REST_MICROS_MAX: u64 = 1_000_000;
/// How long a shard that could not be read through waits, in microseconds.
const RETRY_MICROS: u64 = 2_000_000;
/// Attempts at a shard that something waits for; then it waits for its turn.
const TRIES_MAX: u32 = 10;

/// What is read through, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verify {
    /// How often every shard has its turn, in microseconds; 0: never.
    period: u64,
    /// Which shard has the first turn: any number.
    first: u64,
    /// When the next shard has its turn; `None` until the first poll.
    turn_at: Option<u64>,
    /// The last shard that had it.
    turn_of: Option<Shard>,
    /// Shards that something waits for.
    wanted: BTreeMap<Shard, Wanted>,
    progress: Option<Progress>,
    /// Shards that this tick has read to their ends: they are read if its commit succeeds.
    uncommitted: Vec<(Shard, Option<Wanted>)>,
    next_at: u64,
    /// When the last step was taken, until it is known how long it took.
    stepped_at: Option<u64>,
    /// No step is taken before this: the last one took as long.
    rest_until: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// Whether records are read, too.
    records: bool,
    not_before: u64,
    tries: u32,
}

#[derive(Clone, Debug)]
struct Progress {
    shard: Shard,
    /// The attempt it is, if something waits for it.
    wanted: Option<Wanted>,
    /// The next record to read; `None`: objects are read.
    record: Option<Dot>,
    /// Objects up to this key are added up.
    through: Option<Key>,
    digest: Digest,
    /// Whether what is added up may be wrong.
    spoiled: bool,
}

impl Verify {
    /// Reads everything through every so many hours, beginning at a shard that `first`, any number,
    /// picks; only what is wanted if that is 0.
    pub(crate) fn new(hours: u32, first: u64) -> Verify {
        Verify { period: u64::from(hours) * 3_600_000_000, first, ..Verify::default() }
    }

    /// The digest of a shard is to be worked out.
    pub(crate) fn digest_of(&mut self, shard: Shard) {
        self.want(shard, false);
    }

    /// A shard is to be read through, records and objects.
    pub(crate) fn all_of(&mut self, shard: Shard) {
        self.want(shard, true);
    }

    fn want(&mut self, shard: Shard, records: bool) {
        let new = Wanted { records, not_before: 0, tries: 0 };
        let wanted = self.wanted.entry(shard).or_insert(new);
        wanted.records |= records;
        wanted.tries = 0;
    }

    /// Whether a shard is being read through, so that writes to it have to be noted.
    pub(crate) fn is_reading(&self, shard: Shard) -> bool {
        self.progress.as_ref().is_some_and(|at| at.shard == shard)
    }

    /// A write has changed the digest from `before` to `after`.
    pub(crate) fn note(&mut self, shard: Shard, key: &Key, before: Digest, after: Digest) {
        if let Some(at) = self.progress.as_mut().filter(|at| at.shard == shard)
            && at.through.as_ref().is_some_and(|through| key <= through)
        {
            at.digest.replace(before, after);
        }
    }

    /// What is added up may be wrong: a commit failed, or a row was written anew.
    pub(crate) fn spoil(&mut self) {
        if let Some(at) = &mut self.progress {
            at.spoiled = true;
        }
    }

    /// Shards of which somebody who asked for a repair may be told that they are read: the tick that
    /// read them to their ends is committed.
    pub(super) fn take_committed(&mut self) -> Vec<Shard> {
        let read = core::mem::take(&mut self.uncommitted).into_iter();
        let asked = read.filter(|(_, wanted)| wanted.is_some_and(|wanted| wanted.records));
        asked.map(|(shard, _)| shard).collect()
    }

    /// The tick's commit failed: what it put right was not put right. Returns the shards that it is
    /// not tried for again.
    pub(super) fn unsay(&mut self, now: u64) -> Vec<Shard> {
        self.spoil();
        let read = core::mem::take(&mut self.uncommitted).into_iter();
        let new = Wanted { records: false, not_before: 0, tries: 0 };
        let over = read.filter(|&(shard, wanted)| !self.again(shard, wanted.unwrap_or(new), now));
        over.map(|(shard, _)| shard).collect()
    }

    /// A shard is read through again later, from its start; whether there is an attempt left.
    fn again(&mut self, shard: Shard, mut wanted: Wanted, now: u64) -> bool {
        wanted.tries += 1;
        wanted.not_before = now + RETRY_MICROS;
        if wanted.tries >= TRIES_MAX {
            return false;
        }
        // Somebody may have asked for it meanwhile: then it is read as that one wants it, too.
        let anew = self.wanted.entry(shard).or_insert(wanted);
        anew.records |= wanted.records;
        true
    }

    /// Whether nothing that something waits for is still to be read.
    pub(super) fn is_settled(&self) -> bool {
        let reads = self.progress.as_ref().is_some_and(|at| at.wanted.is_some());
        self.wanted.is_empty() && self.uncommitted.is_empty() && !reads
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        // A lane has no clock: how long a step took is the time until it is woken next.
        if let Some(at) = self.stepped_at {
            return Some(at + 1);
        }
        let due = if self.progress.is_some() {
            Some(self.next_at)
        } else {
            let wanted = self.wanted.values().map(|wanted| wanted.not_before).min();
            wanted.into_iter().chain(self.turn_at).min()
        };
        due.map(|due| due.max(self.rest_until))
    }

    /// The first look after a step: it rests as long as that took.
    fn rest(&mut self, now: u64) {
        if let Some(at) = self.stepped_at.filter(|&at| at < now) {
            self.rest_until = now + (now - at).min(REST_MICROS_MAX);
            self.stepped_at = None;
        }
    }

    /// Whether there is something to do now; the first time, its turns are laid out.
    fn is_due(&self, now: u64) -> bool {
        let is_idle = self.wanted.is_empty() && self.progress.is_none();
        let is_first = self.period > 0 && self.turn_at.is_none() && is_idle;
        is_first || self.next_deadline().is_some_and(|due| due <= now)
    }

    /// The shard to read through now, if one is due.
    fn begin(
        &mut self,
        owned: impl FnOnce() -> Vec<Shard>,
        now: u64,
    ) -> Option<(Shard, Option<Wanted>)> {
        let mut due = self.wanted.iter().filter(|(_, wanted)| wanted.not_before <= now);
        if let Some((&shard, &wanted)) = due.next() {
            self.wanted.remove(&shard);
            return Some((shard, Some(wanted)));
        }
        if self.period == 0 || self.turn_at.is_some_and(|at| at > now) {
            return None;
        }
        let owned = owned();
        let is_laid_out = self.turn_at.is_some();
        let count = owned.len().max(1) as u64;
        self.turn_at = Some(now + self.period / count);
        if !is_laid_out {
            return None;
        }
        let next = match self.turn_of {
            None => owned.get((self.first % count) as usize),
            Some(last) => owned.iter().find(|&&shard| shard > last),
        };
        let shard = *next.or(owned.first())?;
        self.turn_of = Some(shard);
        Some((shard, None))
    }
}

/// One step.
pub(crate) fn poll(ctx: &mut Ctx<'_>) {
    let now = ctx.now.micros;
    let verify = &mut ctx.sync.verify;
    verify.rest(now);
    if !verify.is_due(now) {
        return;
    }
    if verify.progress.is_none() {
        let (topology, lane) = (ctx.topology, ctx.config.lane);
        let Some((shard, wanted)) = verify.begin(|| super::owned(topology, lane), now) else {
            return;
        };
        let records = wanted.is_none_or(|wanted| wanted.records);
        let record = records.then_some(Dot::new(galvani_model::ids::Origin(0), 0));
        let (through, digest, spoiled) = (None, Digest::default(), false);
        let start = Progress { shard, wanted, record, through, digest, spoiled };
        verify.progress = Some(start);
    }
    let Some(mut at) = ctx.sync.verify.progress.take() else { return };
    let step = match at.record {
        Some(from) => read_records(ctx, &mut at, from).map(|()| false),
        None => read_objects(ctx, &mut at),
    };
    let pause = if at.wanted.is_some() { SHORT_PAUSE_MICROS } else { PAUSE_MICROS };
    ctx.sync.verify.next_at = now + if ctx.busy { pause * 4 } else { pause };
    ctx.sync.verify.stepped_at = Some(now);
    match step {
        Ok(false) => ctx.sync.verify.progress = Some(at),
        Ok(true) => finish(ctx, at),
        Err(_) => again(ctx, at),
    }
}

/// Reads records from `from` on, and the objects of their keys.
fn read_records(ctx: &mut Ctx<'_>, at: &mut Progress, from: Dot) -> Result<(), StoreError> {
    let dots = ctx.store.logged(at.shard, from, STEP_ROWS)?;
    let (full, mut bytes) = (dots.len() == STEP_ROWS, 0);
    for dot in dots {
        if bytes >= STEP_BYTES {
            at.record = Some(dot);
            return Ok(());
        }
        at.record = Some(Dot::new(dot.origin, dot.counter + 1));
        ctx.counters.rows_verified += 1;
        let record = match ctx.store.record_on_disk(at.shard, dot) {
            Ok(Some(record)) => record,
            // It is on the list of damaged rows now.
            Ok(None) | Err(StoreError::Corrupt { .. }) => continue,
            Err(error) => return Err(error),
        };
        bytes += record.value.len();
        match ctx.store.object_on_disk(at.shard, &record.head.key) {
            Ok(_) | Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if !full {
        at.record = None;
    }
    Ok(())
}

/// Adds objects up; returns whether those were the last.
fn read_objects(ctx: &mut Ctx<'_>, at: &mut Progress) -> Result<bool, StoreError> {
    let slice = ctx.store.slice(at.shard, at.through.as_ref(), STEP_ROWS)?;
    ctx.counters.rows_verified += (slice.objects.len() + slice.damaged) as u64;
    at.spoiled |= slice.damaged > 0;
    for object in slice.objects {
        at.digest.replace(Digest::default(), object_digest(&object.key, &object.object));
        find_lost(ctx, at.shard, &object.object)?;
    }
    at.through = slice.last;
    Ok(at.through.is_none())
}

/// Lists records of live versions as damaged that are not here: among those that were trimmed only
/// the objects tell of them.
fn find_lost(ctx: &mut Ctx<'_>, shard: Shard, object: &Object) -> Result<(), StoreError> {
    for dot in object.dots() {
        if !ctx.store.replica(shard)?.is_trimmed(dot) {
            continue;
        }
        match ctx.store.record_on_disk(shard, dot) {
            Ok(Some(_)) | Err(StoreError::Corrupt { .. }) => {}
            Ok(None) => drop(ctx.store.lost(shard, dot)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// All is read: is it what the digest says?
fn finish(ctx: &mut Ctx<'_>, at: Progress) {
    let shard = at.shard;
    let is_object = |row: &Damage| matches!(row, Damage::Object(of, _) if *of == shard);
    let Ok(state) = ctx.store.replica(shard) else { return again(ctx, at) };
    let kept = state.digest;
    if at.spoiled || ctx.store.damaged().iter().any(is_object) {
        return again(ctx, at);
    }
    // The clock row is written anew in any case: what is cached may be all that is left of it.
    if replica::mend(ctx.store, shard, Rewrite::Digest(at.digest)).is_err() {
        return again(ctx, at);
    }
    ctx.counters.digests_corrected += u64::from(kept != at.digest);
    if kept != at.digest || at.wanted.is_some() {
        ctx.sync.show_again(ctx.topology, shard, ctx.now);
    }
    ctx.sync.verify.uncommitted.push((shard, at.wanted));
}

/// It is read through again later, from its start.
fn again(ctx: &mut Ctx<'_>, at: Progress) {
    let Some(wanted) = at.wanted else { return };
    if !ctx.sync.verify.again(at.shard, wanted, ctx.now.micros) {
        ctx.sync.run.is_unread(at.shard);
    }
}

#[cfg(test)]
mod tests {
    use super::Verify;
    use galvani_model::ids::{Partition, Shard};
    use std::collections::BTreeSet;

    const SHARDS: u16 = 8;

    fn owned() -> Vec<Shard> {
        (0..SHARDS).map(|at| Shard { partition: Partition(at), n: 3 }).collect()
    }

    /// Shards that have their turns within so many periods of a shard after a start.
    fn read(first: u64, turns: u64) -> Vec<Shard> {
        let mut verify = Verify::new(1, first);
        assert!(verify.begin(owned, 0).is_none(), "the turns are laid out");
        let turn = verify.period / u64::from(SHARDS);
        let turns = (1..=turns).filter_map(|at| verify.begin(owned, at * turn));
        turns.map(|(shard, _)| shard).collect()
    }

    #[test]
    fn all_shards_have_their_turns_once_in_a_period_wherever_they_begin() {
        for first in [0, 3, 7, u64::MAX] {
            let read = read(first, u64::from(SHARDS));
            assert_eq!(read.iter().copied().collect::<BTreeSet<_>>().len(), 8, "{read:?}");
        }
    }

    #[test]
    fn a_node_that_is_started_again_and_again_reads_its_last_shards_too() {
        // Long before it is through it is started anew, with another number each time.
        let read: BTreeSet<Shard> = (0..64_u64)
            .flat_map(|boot| read(boot.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 7, 1))
            .collect();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), owned());
    }
}
