//! Giving up shards that this lane owns no more: not before all of it is with every owner.
//!
//! The owners are asked for their clocks as they are on their disks; a record that one of them lacks is
//! sent there. Nothing lacks anywhere: the rows go, the clock last. A node that was away while the
//! layout changed gives up in this way what only it has. It serves none of it meanwhile. So does one
//! that owns a shard again before it gave up what it held of it: that goes, too, and must not be lost.
//! Next to read: `transfer.rs`, the other end of it.

use super::{PATIENCE_MICROS, Wanted, is_due};
use crate::effect::{Now, PeerLane};
use crate::ops::{Ctx, Heard, NOBODY, Step};
use crate::reap::SHARDS_MAX;
use galvani_model::ids::{NodeId, Shard};
use galvani_model::store::StoreError;
use galvani_model::version::{Dot, PartitionClock};
use galvani_wire::Message;
use galvani_wire::message::{Clocks, Replicate};
use std::collections::{BTreeMap, BTreeSet};

/// How often owners are asked, in microseconds.
const PACE_MICROS: u64 = 500_000;
/// Rows that go in one tick.
const ROWS_MAX: usize = 500;
/// Records that are sent of one shard to one owner before it is asked again.
const RECORDS_MAX: usize = 64;

/// Shards that are held and not owned.
#[derive(Debug, Default)]
pub(crate) struct Retire {
    shards: BTreeMap<Shard, Leaving>,
    asking: BTreeSet<PeerLane>,
    due_at: Option<u64>,
    /// Whether the disk could not say what it holds.
    unread: bool,
    /// The shard after which the next questions begin.
    after: Option<Shard>,
}

/// One shard.
#[derive(Debug, Default)]
struct Leaving {
    /// Owners that have all of it on their disks.
    covered: BTreeSet<NodeId>,
    /// Whether its rows are going.
    going: bool,
    /// Whether the last of them go with this tick.
    gone: bool,
}

impl Retire {
    /// Shards that are held and not owned.
    pub(crate) fn left(&self) -> usize {
        self.shards.len()
    }

    /// Whether something may be here of a shard that nobody else has.
    pub(crate) fn holds_back(&self, shard: Shard) -> bool {
        self.unread || self.shards.get(&shard).is_some_and(|it| !it.going)
    }

    /// What was held of a shard from earlier days is gone.
    pub(crate) fn is_emptied(&mut self, shard: Shard) {
        self.shards.remove(&shard);
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due_at
    }

    /// Nothing of a failed tick went. What it took away, or the disk, may be why it failed.
    pub(crate) fn unsay(&mut self, now: Now) {
        self.shards.values_mut().for_each(|it| it.gone = false);
        self.due_at = self.due_at.map(|due| due.max(now.micros + PACE_MICROS));
    }
}

/// The layout may have another state: looks what is held and not owned.
pub(crate) fn renew(ctx: &mut Ctx<'_>) {
    let held = ctx.store.held_shards();
    ctx.layout.retire.unread = held.is_err();
    let Ok(held) = held else {
        ctx.layout.retire.due_at = Some(ctx.now.micros + PACE_MICROS);
        return;
    };
    let me = ctx.topology.node;
    let transfer = &ctx.layout.transfer;
    let not_owned = held
        .into_iter()
        .filter(|shard| !ctx.topology.is_replica(me, *shard) || transfer.is_being_emptied(*shard));
    // Owners may be others than before: they are asked anew.
    let shards: BTreeMap<Shard, Leaving> =
        not_owned.map(|shard| (shard, Leaving::default())).collect();
    let retire = &mut ctx.layout.retire;
    retire.due_at = (!shards.is_empty()).then_some(ctx.now.micros + PACE_MICROS);
    retire.shards = shards;
}

/// Drops rows that may go, and works out whom to ask.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<Wanted> {
    if !ctx.layout.retire.due_at.is_some_and(|at| is_due(at, ctx.now)) {
        return Vec::new();
    }
    if ctx.layout.retire.unread {
        renew(ctx);
        return Vec::new();
    }
    let more = drop_rows(ctx);
    let mut by_owner: BTreeMap<PeerLane, Vec<Shard>> = BTreeMap::new();
    let mut waiting: Vec<Shard> = {
        let waiting = ctx.layout.retire.shards.iter().filter(|(_, it)| !it.going);
        waiting.map(|(&shard, _)| shard).collect()
    };
    // Those that stand still must not hold up the rest.
    let first = waiting.partition_point(|shard| Some(*shard) <= ctx.layout.retire.after);
    waiting.rotate_left(first);
    for shard in waiting {
        for node in heirs(ctx, shard) {
            let covered = ctx.layout.retire.shards[&shard].covered.contains(&node);
            if let Some(lane) = ctx.reach(node, shard).filter(|_| !covered) {
                by_owner.entry(lane).or_default().push(shard);
            }
        }
    }
    let retire = &mut ctx.layout.retire;
    let pace = if more { 1 } else { PACE_MICROS };
    retire.due_at = (!retire.shards.is_empty()).then_some(ctx.now.micros + pace);
    let (asking, after) = (&mut retire.asking, &mut retire.after);
    by_owner
        .into_iter()
        .filter_map(|(lane, mut shards)| {
            shards.truncate(SHARDS_MAX);
            *after = shards.last().copied();
            asking.insert(lane).then_some(Wanted::Retire(lane, shards))
        })
        .collect()
}

/// Who has to have all of a shard before it goes here.
fn heirs(ctx: &Ctx<'_>, shard: Shard) -> Vec<NodeId> {
    match ctx.layout.transfer.is_being_emptied(shard) {
        true => ctx.topology.owners(shard).into_iter().filter(|&node| !ctx.is_me(node)).collect(),
        false => ctx.topology.replicas(shard).into_iter().collect(),
    }
}

/// Drops rows of the first shard that may go. Whether there is more to drop at once.
fn drop_rows(ctx: &mut Ctx<'_>) -> bool {
    let retire = &mut ctx.layout.retire;
    // The last of their rows went with an earlier tick.
    retire.shards.retain(|_, it| !it.gone);
    let transfer = &ctx.layout.transfer;
    // What is to be filled again is emptied there.
    let mut going = retire.shards.iter_mut().filter(|(_, it)| it.going);
    let Some((&shard, it)) = going.find(|(shard, _)| !transfer.is_being_emptied(**shard)) else {
        return false;
    };
    match ctx.store.empty(shard, ROWS_MAX) {
        Ok(all) => {
            it.gone = all;
            true
        }
        Err(_) => false,
    }
}

/// An owner is being asked for its clocks.
#[derive(Clone, Debug)]
pub(crate) struct RetireOp {
    pub(super) to: PeerLane,
    shards: Vec<Shard>,
    epoch: u64,
    pub(super) deadline: u64,
}

impl RetireOp {
    pub(super) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane, shards: Vec<Shard>) -> RetireOp {
        ctx.ask_clocks(to, op, 0, &shards, true);
        let deadline = ctx.now.micros + PATIENCE_MICROS;
        RetireOp { to, shards, epoch: ctx.topology.epoch(), deadline }
    }

    pub(super) fn on_heard(&self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        ctx.layout.retire.asking.remove(&self.to);
        let Heard::Reply(Message::Clocks(Ok(Clocks { epoch, clocks, .. }))) = heard else {
            return Step::Done;
        };
        ctx.layout.heard_of(epoch);
        if clocks.len() != self.shards.len() || self.epoch != ctx.topology.epoch() {
            return Step::Done;
        }
        for (&shard, clock) in self.shards.iter().zip(clocks) {
            if let Some(clock) = clock {
                // What cannot be read now is looked at again.
                let _ = self.judge(ctx, shard, &clock);
            }
        }
        Step::Done
    }

    /// Sends an owner what it lacks of a shard, or notes that it lacks nothing.
    fn judge(
        &self,
        ctx: &mut Ctx<'_>,
        shard: Shard,
        theirs: &PartitionClock,
    ) -> Result<(), StoreError> {
        let state = ctx.store.replica(shard)?;
        let missing: PartitionClock = theirs.missing_from(&state.clock).into_iter().collect();
        let mut sent = 0;
        let mut lacks = false;
        for range in missing.ranges() {
            let mut from = Dot::new(range.origin, range.first);
            // Dots without a record were trimmed: every owner has had them.
            'range: loop {
                let dots = ctx.store.logged(shard, from, RECORDS_MAX)?;
                for &dot in &dots {
                    if dot.origin != range.origin || dot.counter > range.last {
                        break 'range;
                    }
                    let record = match ctx.store.record(shard, dot) {
                        // Nobody can give what cannot be read.
                        Err(StoreError::Corrupt { .. }) | Ok(None) => continue,
                        Ok(Some(record)) => record,
                        Err(error) => return Err(error),
                    };
                    lacks = true;
                    if sent == RECORDS_MAX {
                        return Ok(());
                    }
                    sent += 1;
                    let (epoch, head, value) = (ctx.topology.epoch(), record.head, record.value);
                    let replicate =
                        Replicate { shard, head, fsync: false, epoch, timeout_ms: 0, value };
                    ctx.ask(self.to, NOBODY, 0, Message::Replicate(replicate));
                    ctx.counters.records_donated += 1;
                }
                match dots.last() {
                    Some(last) if dots.len() == RECORDS_MAX => {
                        from = Dot::new(last.origin, last.counter + 1);
                    }
                    _ => break,
                }
            }
        }
        let owners = heirs(ctx, shard);
        let down = ctx.down;
        let returns = ctx.layout.transfer.is_being_emptied(shard);
        if let Some(leaving) = ctx.layout.retire.shards.get_mut(&shard)
            && !lacks
        {
            leaving.covered.insert(self.to.node);
            // One that is to be filled again cannot wait for owners that are away.
            let has = |owner: &NodeId| {
                leaving.covered.contains(owner) || (returns && down.contains(owner))
            };
            let whole = owners.iter().all(has);
            if whole && !leaving.going {
                leaving.going = true;
                ctx.layout.retire.due_at = Some(ctx.now.micros);
                ctx.origins.forget(shard);
                ctx.reaper.forget(shard);
            }
        }
        Ok(())
    }
}
