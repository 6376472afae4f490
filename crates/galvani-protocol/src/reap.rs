//! Collection of tombstones and of expired values, by proof and never by time alone.
//!
//! A tombstone goes from this replica when every owner of its shard has taken in its dots and all
//! that it replaced: then a late copy of anything it replaced is a duplicate at every owner, and
//! nothing needs the tombstone any more. The reaper asks the other owners for their clocks, and they
//! answer after a sync: what an owner may still lose in a power cut proves nothing. An owner that
//! cannot be reached holds collection back, for as long as it takes, and is named. Clocks are not
//! kept from one round to the next, so an owner that lost its disk is never believed to hold what it
//! held before. Each replica collects for itself; the state digest covers values only, so replicas
//! that collect at different times agree. Tombstones of `lww` buckets stay: a later write may
//! still be outranked by one without being replaced by it. So do expired values there.
//!
//! A value that expires reads as a tombstone from its expiry on, and once it has been expired for a
//! margin it goes as one does, by the same proof. The margin is for clocks that are wrong: a replica
//! whose clock ran ahead must not have given away what is still a value.
//!
//! A round costs every other owner a sync, so shards are due at moments that all of them share
//! ([`turn`]), and expired values, of which some are ripe at any time, at few of those.
//!
//! "Presence wins" cannot revive what is collected: it acts where clocks are equal and values
//! differ, and of a value that a collected tombstone replaced every owner has taken in the
//! tombstone, so none shows it. An owner that lost its disk since lacks dots, so its clock is not
//! equal before it has pulled them all, the tombstone among them.
//! Next to read: `replica.rs`, `collect`. Source: algorithms 2.4, 2.7.

use crate::durable_clocks::{DurableClocks, Progress};
use crate::effect::{Now, PeerLane};
use crate::expiries::Expiries;
use crate::ops::{Ctx, Heard, Step};
use crate::replica;
use crate::serve;
use crate::topology::Topology;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::{NodeId, Origin, Shard};
use galvani_model::key::Key;
use galvani_model::store::{Indexed, StoreError};
use galvani_model::version::{Dot, PartitionClock, Version};
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{AskClocks, Clocks};
use std::collections::{BTreeMap, BTreeSet};

/// Shards asked about in one message: some 8 KB of answer.
pub(crate) const SHARDS_MAX: usize = 64;
/// Ranges of clocks in one answer (about 1 MB); what is beyond it is asked for again.
const RANGES_MAX: usize = 50_000;
/// Tombstones looked at with one round of clocks: a few milliseconds of a lane's work.
const SLICE: usize = 256;
/// Pause between two slices while clients wait for this lane, in microseconds.
const BUSY_PAUSE_MICROS: u64 = 10_000;
/// Longest time for which expired values are gathered before a round, in microseconds.
const GATHER_MAX_MICROS: u64 = 30_000_000;
/// Their margin is this many times as long, where it is shorter.
const GATHERS_PER_MARGIN: u64 = 20;
/// Longest pause after a round in which nothing could be collected, in microseconds.
const PAUSE_MAX_MICROS: u64 = 60_000_000;
/// Rounds without success after which a shard counts as being at rest.
const FRUITLESS_AT_REST: u32 = 3;

/// What a lane knows of tombstones that wait.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    /// How long after a delete, and after a fruitless round, in microseconds; 0: never.
    interval: u64,
    shards: BTreeMap<Shard, Waiting>,
    /// When there is more to collect because time has passed.
    expiries: Expiries,
    /// Since when peers cannot be reached, in milliseconds since 1970.
    away: BTreeMap<NodeId, u64>,
    /// When all shards of the lane are looked at for tombstones; `None`: they were.
    survey_at: Option<u64>,
    due_at: Option<u64>,
}

/// A shard that has tombstones or expired values.
#[derive(Clone, Debug)]
struct Waiting {
    /// When it is tried; `None` while an owner is away, and there is nothing new.
    due: Option<u64>,
    /// The pause before a round, in microseconds: a longer one where only expired values wait.
    pace: u64,
    /// Whether a round is under way.
    asking: bool,
    /// Where the next slice of tombstones starts.
    after: Option<Dot>,
    /// Where the next slice of expired values starts.
    after_expired: Option<(u64, Dot)>,
    /// Whether this pass over its tombstones has collected any.
    fruitful: bool,
    /// Whether this pass has met one that stays for now.
    kept: bool,
    /// Passes in a row that collected none.
    fruitless: u32,
}

impl Waiting {
    fn new(due: u64, pace: u64) -> Waiting {
        Waiting {
            due: Some(due),
            pace,
            asking: false,
            after: None,
            after_expired: None,
            fruitful: false,
            kept: false,
            fruitless: 0,
        }
    }

    /// The pass is over, and the next one starts anew. Returns whether it has met what stays for now.
    fn end_pass(&mut self, now: u64) -> bool {
        self.after = None;
        self.after_expired = None;
        self.fruitless = match core::mem::take(&mut self.fruitful) {
            true => 0,
            false => self.fruitless.saturating_add(1),
        };
        let doublings = self.fruitless.saturating_sub(1).min(16);
        let wait = (self.pace << doublings).min(PAUSE_MAX_MICROS);
        self.due = Some(turn(now + wait, self.pace));
        core::mem::take(&mut self.kept)
    }

    /// There is reason to try no later than `due`.
    fn hurry(&mut self, due: u64) {
        self.fruitless = 0;
        self.due = Some(self.due.map_or(due, |known| known.min(due)));
    }
}

/// Shards with the same owners, to be asked about together.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    shards: Vec<Shard>,
    peers: Vec<PeerLane>,
}

impl Reaper {
    /// Tries `interval_ms` after a delete, and `margin_ms` after an expiry; never if the first is 0.
    pub(crate) fn new(interval_ms: u32, margin_ms: u32) -> Reaper {
        let interval = u64::from(interval_ms) * 1000;
        let survey_at = (interval > 0).then_some(0);
        let gather = u64::from(margin_ms) * 1000 / GATHERS_PER_MARGIN;
        let gather = gather.min(GATHER_MAX_MICROS).max(interval);
        Reaper {
            interval,
            shards: BTreeMap::new(),
            expiries: Expiries::new(margin_ms, gather),
            away: BTreeMap::new(),
            survey_at,
            due_at: survey_at,
        }
    }

    /// A tombstone was taken in.
    pub(crate) fn note(&mut self, shard: Shard, now: Now) {
        if self.interval == 0 {
            return;
        }
        let soon = turn(now.micros + self.interval, self.interval);
        let waiting = self.shards.entry(shard).or_insert(Waiting::new(soon, self.interval));
        waiting.pace = self.interval;
        waiting.hurry(soon);
        self.look_by(soon);
    }

    /// A value that expires was taken in, or one that expires is the next of its shard.
    pub(crate) fn note_expiry(&mut self, shard: Shard, expires_ms: u64, now: Now) {
        if self.interval > 0 {
            let at = self.expiries.note(shard, expires_ms, now);
            self.look_by(at);
        }
    }

    /// This replica or another owner has taken something in of a shard: what could not be collected
    /// may be now.
    pub(crate) fn stir(&mut self, shard: Shard, now: Now) {
        if let Some(waiting) = self.shards.get_mut(&shard)
            && waiting.fruitless > 0
        {
            let soon = turn(now.micros + waiting.pace, waiting.pace);
            waiting.hurry(soon);
            self.look_by(soon);
        }
    }

    /// A peer can be reached: what waited for it may go on.
    pub(crate) fn peer_up(&mut self, peer: PeerLane, now: Now) {
        self.away.remove(&peer.node);
        self.survey_again(now);
    }

    /// A peer cannot be reached.
    pub(crate) fn peer_down(&mut self, peer: PeerLane, now: Now) {
        if self.interval > 0 {
            self.away.entry(peer.node).or_insert(now.unix_ms);
        }
    }

    /// All shards of the lane are looked at, soon.
    pub(crate) fn survey_again(&mut self, now: Now) {
        if self.interval > 0 {
            self.survey_at = Some(now.micros + self.interval);
            self.reschedule();
        }
    }

    /// The tick does not exist: what it collected is there still.
    pub(crate) fn unsay(&mut self) {
        if self.interval > 0 {
            self.survey_at = Some(0);
            self.reschedule();
        }
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due_at
    }

    /// Whether nothing is known that could be collected now.
    pub(crate) fn is_settled(&self) -> bool {
        let at_rest = |shard: &Waiting| shard.due.is_none() || shard.fruitless >= FRUITLESS_AT_REST;
        self.survey_at.is_none() && self.shards.values().all(at_rest)
    }

    /// Owners of shards with tombstones that cannot be reached, and since when.
    pub(crate) fn waits(
        &self,
        topology: &Topology,
        up: &BTreeSet<PeerLane>,
    ) -> BTreeMap<NodeId, u64> {
        let mut waits = BTreeMap::new();
        for shard in self.shards.keys() {
            for node in topology.replicas(*shard) {
                let lane = topology.lane_of(node, shard.partition);
                if node != topology.node && !lane.is_some_and(|lane| up.contains(&lane)) {
                    waits.insert(node, self.away.get(&node).copied().unwrap_or(0));
                }
            }
        }
        waits
    }

    /// The shard is held here no more.
    pub(crate) fn forget(&mut self, shard: Shard) {
        self.shards.remove(&shard);
        self.reschedule();
    }

    /// A round over `shards` said nothing: they are tried again later.
    fn failed(&mut self, shards: &[Shard], micros: u64) {
        for shard in shards {
            if let Some(waiting) = self.shards.get_mut(shard) {
                waiting.asking = false;
                waiting.due = Some(turn(micros + waiting.pace, waiting.pace));
            }
        }
        self.reschedule();
    }

    /// Something is due at `at`, or is as soon as a round under way is over.
    fn look_by(&mut self, at: u64) {
        self.due_at = Some(self.due_at.map_or(at, |known| known.min(at)));
    }

    fn reschedule(&mut self) {
        let idle = self.shards.values().filter(|waiting| !waiting.asking);
        let due = idle.filter_map(|waiting| waiting.due);
        self.due_at = due.chain(self.survey_at).chain(self.expiries.look_at()).min();
    }
}

/// Works out which owners are to be asked now. The lane starts an operation for each round.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<Round> {
    let now = ctx.now.micros;
    if ctx.reaper.due_at.is_none_or(|due| due > now) {
        return Vec::new();
    }
    if ctx.reaper.survey_at.is_some_and(|at| at <= now) {
        survey(ctx);
    }
    for shard in ctx.reaper.expiries.take_due(ctx.now) {
        let pace = ctx.reaper.expiries.gather();
        ctx.reaper.shards.entry(shard).or_insert(Waiting::new(now, pace)).hurry(now);
    }
    let due: Vec<Shard> = ctx
        .reaper
        .shards
        .iter()
        .filter(|(_, waiting)| !waiting.asking && waiting.due.is_some_and(|due| due <= now))
        .map(|(shard, _)| *shard)
        .take(SHARDS_MAX)
        .collect();
    let mut rounds: BTreeMap<Vec<PeerLane>, Vec<Shard>> = BTreeMap::new();
    for shard in due {
        let others = ctx.topology.others(shard);
        let reached: Option<Vec<PeerLane>> = others.map(|node| ctx.reach(node, shard)).collect();
        if let Some(waiting) = ctx.reaper.shards.get_mut(&shard) {
            // Where an owner is away: its return brings a survey.
            waiting.due = None;
            waiting.asking = reached.is_some();
        }
        if let Some(peers) = reached {
            rounds.entry(peers).or_default().push(shard);
        }
    }
    ctx.reaper.reschedule();
    rounds.into_iter().map(|(peers, shards)| Round { shards, peers }).collect()
}

/// Looks for shards of this lane that hold tombstones or values that expire.
fn survey(ctx: &mut Ctx<'_>) {
    ctx.reaper.survey_at = None;
    let (topology, me) = (ctx.topology, ctx.topology.node);
    for n in topology.copies() {
        for partition in topology.layout().held_by(me, n) {
            let mine = topology.layout().lane(me, partition) == Some(ctx.config.lane);
            let shard = Shard { partition, n };
            // A state that cannot be read is met again by whoever writes there.
            if mine && ctx.store.replica(shard).is_ok_and(|state| state.tombstones > 0) {
                let (now, pace) = (ctx.now.micros, ctx.reaper.interval);
                ctx.reaper.shards.entry(shard).or_insert(Waiting::new(now, pace)).hurry(now);
            }
            if mine && let Some(first_ms) = next_expiry(ctx, shard, None) {
                ctx.reaper.expiries.note(shard, first_ms, ctx.now);
            }
        }
    }
    ctx.reaper.reschedule();
}

/// When the first of a shard's values expires that does so after `after_ms`, if one does. A state or
/// an index that cannot be read is met again by whoever writes there.
fn next_expiry(ctx: &mut Ctx<'_>, shard: Shard, after_ms: Option<u64>) -> Option<u64> {
    if ctx.store.replica(shard).is_ok_and(|state| state.expiring == 0) {
        return None;
    }
    let after = after_ms.map(|ms| (ms, Dot::new(Origin(u128::MAX), u64::MAX)));
    let page = ctx.store.expiring(shard, after, u64::MAX, 1).ok()?;
    page.last.map(|(expires_ms, _)| expires_ms)
}

/// The first of the moments that are shared, so that all shards due are asked about together.
pub(crate) fn turn(at: u64, pace: u64) -> u64 {
    at.next_multiple_of(pace.max(1))
}

/// A round under way.
#[derive(Clone, Debug)]
pub(crate) struct ReapOp {
    /// Of the other owners of its shards.
    pub(crate) clocks: DurableClocks,
}

impl ReapOp {
    /// Asks the owners; where there are no others it is over at its deadline, at once.
    pub(crate) fn start(ctx: &mut Ctx<'_>, op: u64, round: Round) -> ReapOp {
        ReapOp { clocks: DurableClocks::ask(ctx, op, round.peers, round.shards) }
    }

    /// An owner answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        match self.clocks.on_heard(ctx, index, heard) {
            Progress::Waiting => return Step::Wait,
            Progress::Complete => self.collect(ctx),
            Progress::Failed => ctx.reaper.failed(self.clocks.shards(), ctx.now.micros),
        }
        Step::Done
    }

    /// Time is up.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        match self.clocks.asks_nobody() {
            true => self.collect(ctx),
            false => ctx.reaper.failed(self.clocks.shards(), ctx.now.micros),
        }
        Step::Done
    }

    /// Collects what the clocks prove, within one slice.
    fn collect(&self, ctx: &mut Ctx<'_>) {
        let pause = if ctx.busy { BUSY_PAUSE_MICROS } else { 0 };
        let mut left = SLICE;
        for (at, &shard) in self.clocks.shards().iter().enumerate() {
            let Some(mut waiting) = ctx.reaper.shards.remove(&shard) else { continue };
            waiting.asking = false;
            let looked = match self.clocks.of(ctx.topology, at) {
                Some(clocks) if left > 0 => slice(ctx, shard, &mut waiting, &clocks, left),
                Some(_) => Ok(0),
                None => {
                    waiting.kept = true;
                    Ok(0)
                }
            };
            let tombstones = ctx.store.replica(shard).map_or(true, |state| state.tombstones > 0);
            waiting.pace = match tombstones {
                true => ctx.reaper.interval,
                false => ctx.reaper.expiries.gather(),
            };
            let now = ctx.now.micros;
            let stays = match looked {
                // There may be more behind this slice, or this shard's turn has not come.
                Ok(looked) if looked == left => {
                    waiting.due = Some(now + pause);
                    true
                }
                Ok(_) | Err(_) => waiting.end_pass(now) || looked.is_err(),
            };
            left -= looked.unwrap_or(0).min(left);
            let expired_by = ctx.reaper.expiries.expired_by(ctx.now);
            if let Some(first_ms) = next_expiry(ctx, shard, Some(expired_by)) {
                ctx.reaper.expiries.note(shard, first_ms, ctx.now);
            }
            if stays || tombstones {
                ctx.reaper.shards.insert(shard, waiting);
            }
        }
        ctx.reaper.reschedule();
    }
}

/// Looks at up to `limit` tombstones and expired values of a shard. Returns how many those were. An
/// index that cannot be read does not hold up the other one.
fn slice(
    ctx: &mut Ctx<'_>,
    shard: Shard,
    waiting: &mut Waiting,
    others: &[&PartitionClock],
    limit: usize,
) -> Result<usize, StoreError> {
    let mut looked = 0;
    if let Some(page) = readable(ctx.store.tombstones(shard, waiting.after, limit), waiting)? {
        looked += page.looked;
        waiting.after = page.last.or(waiting.after);
        let rows = page.rows.into_iter().map(|(dot, key)| (Indexed::Tombstone(dot), key));
        take_away(ctx, shard, waiting, others, rows)?;
    }
    let (after, left) = (waiting.after_expired, limit.saturating_sub(looked));
    let expired_by = ctx.reaper.expiries.expired_by(ctx.now);
    if let Some(page) = readable(ctx.store.expiring(shard, after, expired_by, left), waiting)? {
        looked += page.looked;
        waiting.after_expired = page.last.or(waiting.after_expired);
        let rows = page.rows.into_iter().map(|((ms, dot), key)| (Indexed::Expiring(ms, dot), key));
        take_away(ctx, shard, waiting, others, rows)?;
    }
    Ok(looked)
}

/// What a store answered; `None` for what cannot be read, which stays.
fn readable<T>(
    answer: Result<T, StoreError>,
    waiting: &mut Waiting,
) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(StoreError::Corrupt { .. }) => {
            waiting.kept = true;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Collects what the clocks prove of what these rows name; a row that names nothing goes, too.
fn take_away(
    ctx: &mut Ctx<'_>,
    shard: Shard,
    waiting: &mut Waiting,
    others: &[&PartitionClock],
    rows: impl Iterator<Item = (Indexed, Key)>,
) -> Result<(), StoreError> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let expired_by = ctx.reaper.expiries.expired_by(ctx.now);
    let own = ctx.store.replica(shard)?.clock.clone();
    let proven = |version: &Version| {
        let taken_in = |clock: &PartitionClock| {
            version.dots.iter().all(|&dot| clock.contains(dot)) && clock.covers(&version.past)
        };
        taken_in(&own) && others.iter().all(|clock| taken_in(clock))
    };
    for (row, key) in rows {
        if serve::owned(ctx, shard, &key) != Ok(ConflictPolicy::Siblings) {
            waiting.kept = true;
            continue;
        }
        // A damaged row of that key: the others must not wait for it.
        let Some(object) = readable(ctx.store.object(shard, &key), waiting)? else { continue };
        if !row.is_of(&object) {
            let _ = readable(ctx.store.unindex(shard, &key, row), waiting)?;
            continue;
        }
        let gone = readable(replica::collect(ctx.store, shard, &key, expired_by, proven), waiting)?;
        let gone = gone.unwrap_or_default();
        waiting.fruitful |= gone != replica::Gone::default();
        ctx.counters.tombstones_collected += gone.tombstones;
        ctx.counters.expired_collected += gone.expired;
        waiting.kept |= row.is_of(&ctx.store.object(shard, &key)?);
    }
    Ok(())
}

/// Tells another owner what is taken in here, once it survives power loss.
pub(crate) fn answer(ctx: &mut Ctx<'_>, ask: &AskClocks) -> Result<Clocks, ReplicaError> {
    if ask.shards.len() > SHARDS_MAX {
        return Err(ReplicaError::Malformed);
    }
    // The answer leaves after this tick's commit, and so does what earlier ones left to the system.
    *ctx.fsync |= ask.durable;
    let sender = PeerLane { node: ask.node, lane: ask.lane };
    let mut room = RANGES_MAX;
    let (mut clocks, mut lacking) = (Vec::with_capacity(ask.shards.len()), Vec::new());
    for &shard in &ask.shards {
        // A node that owns the shard no more asks whether its copies may go.
        let lane = ctx.topology.lane_of(ask.node, shard.partition);
        let owner = lane.is_none_or(|lane| lane == sender);
        let mine = serve::mine(ctx, shard).is_ok();
        let clock = match ctx.store.replica(shard) {
            Ok(state) if owner && mine && state.clock.range_count() <= room => {
                room -= state.clock.range_count();
                Some(state.clock.clone())
            }
            Ok(_) | Err(_) => None,
        };
        if serve::whole(ctx, shard).is_err() {
            lacking.push(shard);
        }
        clocks.push(clock);
    }
    Ok(Clocks { epoch: ctx.topology.epoch(), clocks, lacking })
}
