//! Catching up: what a lane must have of a shard before the shard is read from it.
//!
//! Each old owner that is in the first phase of the change, or later, is asked for its clock; the
//! shard is done when enough of those clocks are covered (`sources.rs`). A write of after is sent here
//! anyway. The records come by anti-entropy (`sync/`). What a node has of a shard from days when it owned
//! it is out of date (tombstones were collected without it) and goes first.
//! Next to read: `steward.rs`. Source: algorithms 9.4.

use super::gate::Gate;
use super::sources::{Own, Sources};
use super::{PATIENCE_MICROS, Wanted, fact_of, is_due, refill};
use crate::effect::{Now, PeerLane};
use crate::ops::{Ctx, Heard, Step};
use crate::reap::SHARDS_MAX;
use crate::sync;
use bytes::Bytes;
use galvani_model::ids::{Partition, Shard};
use galvani_model::placement::Phase;
use galvani_model::store::StoreError;
use galvani_wire::Message;
use galvani_wire::message::Clocks;
use galvani_wire::view::Copying;
use std::collections::{BTreeMap, BTreeSet};

/// How often it looks whether clocks are covered, in microseconds.
const PACE_MICROS: u64 = 50_000;
/// Rows that go in one tick: some milliseconds of work.
const ROWS_MAX: usize = 500;

/// The shards that a lane has to catch up with.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    /// The epoch that the change began with.
    begun: u64,
    shards: BTreeMap<Shard, Catching>,
    /// Whether it is written down that nothing of them is lacking.
    noted: bool,
    asking: BTreeSet<PeerLane>,
    due_at: Option<u64>,
    pub(crate) gate: Gate,
}

/// One shard.
#[derive(Debug)]
struct Catching {
    ready: Ready,
    /// Whether this node comes: it was none of the old owners.
    comes: bool,
    /// The old owners.
    sources: Sources,
}

/// Whether what a node had of the shard is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    /// It is not known, or not all of it is.
    No,
    /// It is, once this tick is committed.
    Staged,
    Yes,
}

impl Transfer {
    /// Shards that are not done.
    pub(crate) fn left(&self) -> usize {
        self.shards.values().filter(|it| !it.sources.is_done()).count()
    }

    /// Whether rows of days gone by are still to go: nothing may be taken in.
    pub(crate) fn is_being_emptied(&self, shard: Shard) -> bool {
        !self.shards.is_empty() && self.shards.get(&shard).is_some_and(|it| it.ready != Ready::Yes)
    }

    /// How far it is, for people.
    pub(crate) fn figures(&self, now_micros: u64) -> Copying {
        let open = self.shards.values().filter(|it| !it.sources.is_done());
        Copying {
            shards: self.shards.len() as u32,
            left: self.left() as u32,
            records_left: open.map(|it| it.sources.missing()).fold(0, u64::saturating_add),
            ..self.gate.figures(now_micros)
        }
    }

    /// When a shard may be filled further; `None`: now.
    pub(crate) fn held_until(&self, shard: Shard, now_micros: u64) -> Option<u64> {
        self.is_catching_up(shard).then(|| self.gate.shut_until(now_micros)).flatten()
    }

    /// A shard took in records; the bytes are those of heads and values.
    pub(crate) fn took(&mut self, shard: Shard, records: u64, bytes: u64, now_micros: u64) {
        if self.is_catching_up(shard) {
            self.gate.took(records, bytes, now_micros);
        }
    }

    /// Whether this node is to own a shard and has yet to get what its old owners have.
    pub(crate) fn is_coming(&self, shard: Shard) -> bool {
        self.shards.get(&shard).is_some_and(|it| it.comes && !it.sources.is_done())
    }

    /// An old owner's copies may lack something: they count for nothing in the change.
    pub(super) fn on_loss(&mut self, now: Now) {
        for it in self.shards.values_mut().filter(|it| !it.comes) {
            it.sources = it.sources.with_own_lost();
        }
        self.noted = false;
        self.due_at = (self.left() > 0).then_some(now.micros);
    }

    /// Whether a shard has yet to get what its old owners have.
    pub(crate) fn is_catching_up(&self, shard: Shard) -> bool {
        self.shards.get(&shard).is_some_and(|it| !it.sources.is_done())
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due_at
    }

    /// A peer is there or is not any more: its node is asked again. Another lane of it says the same.
    pub(crate) fn doubt_peer(&mut self, peer: PeerLane, now: Now) {
        self.shards.values_mut().for_each(|it| it.sources.doubt(peer.node));
        self.due_at = self.due_at.map(|at| at.min(now.micros + PACE_MICROS));
    }

    /// Nothing of a failed tick went.
    pub(crate) fn unsay(&mut self, now: Now) {
        for it in self.shards.values_mut() {
            if it.ready == Ready::Staged {
                it.ready = Ready::No;
            }
            it.sources.forget();
        }
        self.noted = false;
        if !self.shards.is_empty() {
            self.due_at = Some(now.micros + PACE_MICROS);
        }
    }
}

/// The layout may have another state, or there may be more buckets.
pub(crate) fn renew(ctx: &mut Ctx<'_>) {
    let state = ctx.topology.layout();
    let Some(change) = state.transition() else {
        ctx.layout.transfer = Transfer::default();
        return;
    };
    let lanes = state.member(ctx.topology.node).map_or(1, |member| member.lane_count());
    let transfer = &mut ctx.layout.transfer;
    if transfer.begun != change.begun {
        *transfer = Transfer { begun: change.begun, ..Transfer::default() };
    }
    if transfer.gate.set(change.pace, lanes, ctx.now.micros) {
        // What waits does so by the pace of before.
        ctx.sync.pull_now(|shard| transfer.is_catching_up(shard), ctx.now);
    }
    if change.phase != Phase::Copying {
        // Everybody has caught up, or it would not be so.
        transfer.due_at = None;
        transfer.shards.clear();
        return;
    }
    let me = ctx.topology.node;
    for n in ctx.topology.copies() {
        for partition in (0..state.partitions()).map(Partition) {
            let shard = Shard { partition, n };
            let mine = state.lane(me, partition) == Some(ctx.config.lane);
            if let Some(it) = transfer.shards.get_mut(&shard) {
                it.sources.ask_again();
                continue;
            }
            if !mine {
                continue;
            }
            let Some(incoming) = state.incoming(me, shard) else { continue };
            let own = match incoming.fresh {
                true => Own::NoOwner,
                false if ctx.layout.refill.lacks(shard) => Own::Lost,
                false => Own::Whole,
            };
            let sources = Sources::new(incoming.sources, own);
            let ready = if incoming.fresh { Ready::No } else { Ready::Yes };
            let catching = Catching { ready, comes: incoming.fresh, sources };
            transfer.noted = false;
            transfer.shards.insert(shard, catching);
        }
    }
    let left = transfer.shards.values().any(|it| !it.sources.is_done());
    transfer.due_at = left.then_some(ctx.now.micros);
}

/// Empties what has to be emptied, looks what is covered, and works out whom to ask.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<Wanted> {
    if !ctx.layout.transfer.due_at.is_some_and(|at| is_due(at, ctx.now)) {
        return Vec::new();
    }
    let emptied = make_ready(ctx);
    let open: Vec<Shard> = ctx.layout.transfer.open().collect();
    for shard in open {
        look(ctx, shard);
    }
    let wanted = questions(ctx);
    let transfer = &mut ctx.layout.transfer;
    let pace = if emptied { 0 } else { PACE_MICROS };
    transfer.due_at = (transfer.left() > 0).then_some(ctx.now.micros + pace.max(1));
    wanted
}

impl Transfer {
    /// Shards that may be filled and are not done.
    fn open(&self) -> impl Iterator<Item = Shard> + '_ {
        let open =
            self.shards.iter().filter(|(_, it)| it.ready == Ready::Yes && !it.sources.is_done());
        open.map(|(&shard, _)| shard)
    }
}

/// The fact that a shard was emptied for the change that began with an epoch.
fn joined(shard: Shard) -> Vec<u8> {
    fact_of(b"joined/", shard)
}

/// Takes away what a shard has, of at most `rows` rows, and counts them; one that never held anything
/// counts for little. Whether that was all.
fn empty(ctx: &mut Ctx<'_>, shard: Shard, rows: &mut usize) -> Result<bool, StoreError> {
    let was_held = ctx.store.replica(shard).map_or(true, |state| !state.clock.is_empty());
    let all = ctx.store.empty(shard, *rows)?;
    *rows = if was_held { 0 } else { rows.saturating_sub(ROWS_MAX / 100) };
    Ok(all)
}

/// Takes away what shards have from days gone by. Whether there is more to do at once.
fn make_ready(ctx: &mut Ctx<'_>) -> bool {
    let begun = ctx.layout.transfer.begun;
    let mark = Bytes::copy_from_slice(&begun.to_be_bytes());
    let mut rows = ROWS_MAX;
    let unready: Vec<Shard> = {
        // What was staged before is committed by now, or it was unsaid.
        let shards = &mut ctx.layout.transfer.shards;
        let staged = shards.iter_mut().filter(|(_, it)| it.ready == Ready::Staged);
        for (&shard, it) in staged {
            it.ready = Ready::Yes;
            ctx.layout.retire.is_emptied(shard);
            // What was refused meanwhile is asked for.
            ctx.sync.show_again(ctx.topology, shard, ctx.now);
        }
        let no = shards.iter().filter(|(_, it)| it.ready == Ready::No);
        no.map(|(&shard, _)| shard).collect()
    };
    for shard in unready {
        let name = joined(shard);
        // A disk that cannot be read or written now is tried again.
        // One that cannot be read says nothing: then the shard is emptied once more.
        let kept = match ctx.store.fact(&name) {
            Err(StoreError::Corrupt { .. }) => Ok(None),
            kept => kept,
        };
        let ready = match kept {
            // This process or an earlier one emptied it for this very change.
            Ok(Some(kept)) if kept == mark => Ready::Yes,
            Ok(_) if ctx.layout.retire.holds_back(shard) => continue,
            Ok(_) if rows == 0 => return true,
            Ok(_) => match empty(ctx, shard, &mut rows) {
                Ok(true) if ctx.store.set_fact(&name, Some(mark.clone())).is_ok() => Ready::Staged,
                Ok(true) => continue,
                Ok(false) => return true,
                Err(_) => continue,
            },
            Err(_) => continue,
        };
        if let Some(it) = ctx.layout.transfer.shards.get_mut(&shard) {
            it.ready = ready;
        }
    }
    rows < ROWS_MAX
}

/// Whether a shard has what it needs.
fn look(ctx: &mut Ctx<'_>, shard: Shard) {
    let Ok(state) = ctx.store.replica(shard) else { return };
    let Some(it) = ctx.layout.transfer.shards.get_mut(&shard) else { return };
    let stays = |node| ctx.topology.layout().is_to_stay(node);
    it.sources.look(&state.clock, ctx.down, |node| !stays(node), ctx.now.micros);
}

/// Notes on the disk that shards that have caught up have all that is to be read from them: it rests on
/// that from now on. Fails as storage does, and is then to be said later.
pub(super) fn note_done(ctx: &mut Ctx<'_>) -> Result<(), StoreError> {
    let transfer = &ctx.layout.transfer;
    if transfer.noted || transfer.left() > 0 {
        return Ok(());
    }
    // An old owner that lost its copy has more to wait for: `refill.rs` says when it is whole.
    let came = transfer.shards.iter().filter(|(_, it)| it.comes);
    let came: Vec<Shard> = came.map(|(&shard, _)| shard).collect();
    for shard in came {
        refill::note_whole(ctx, shard)?;
    }
    ctx.layout.transfer.noted = true;
    Ok(())
}

/// Whom to ask for which clocks.
fn questions(ctx: &mut Ctx<'_>) -> Vec<Wanted> {
    let mut by_source: BTreeMap<PeerLane, Vec<Shard>> = BTreeMap::new();
    let open: Vec<Shard> = ctx.layout.transfer.open().collect();
    for shard in open {
        for node in ctx.layout.transfer.shards[&shard].sources.to_ask(ctx.now.micros) {
            if let Some(lane) = ctx.reach(node, shard) {
                by_source.entry(lane).or_default().push(shard);
            }
        }
    }
    let asking = &mut ctx.layout.transfer.asking;
    by_source
        .into_iter()
        .filter_map(|(lane, mut shards)| {
            shards.truncate(SHARDS_MAX);
            asking.insert(lane).then_some(Wanted::Meet(lane, shards))
        })
        .collect()
}

/// A source is being asked for its clocks.
#[derive(Clone, Debug)]
pub(crate) struct MeetOp {
    pub(super) to: PeerLane,
    shards: Vec<Shard>,
    begun: u64,
    pub(super) deadline: u64,
}

impl MeetOp {
    pub(super) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane, shards: Vec<Shard>) -> MeetOp {
        ctx.ask_clocks(to, op, 0, &shards, false);
        let begun = ctx.layout.transfer.begun;
        MeetOp { to, shards, begun, deadline: ctx.now.micros + PATIENCE_MICROS }
    }

    pub(super) fn on_heard(&self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        ctx.layout.transfer.asking.remove(&self.to);
        let Heard::Reply(Message::Clocks(Ok(Clocks { epoch, clocks, lacking }))) = heard else {
            return Step::Done;
        };
        // A source that is not in the change yet may still take in writes that are sent to the old
        // owners only. It is asked again, and will have heard of it by then.
        let fenced = epoch >= self.begun && ctx.layout.transfer.begun == self.begun;
        if !fenced || clocks.len() != self.shards.len() {
            return Step::Done;
        }
        for (&shard, clock) in self.shards.iter().zip(clocks) {
            let Some(clock) = clock else { continue };
            let (whole, now) = (!lacking.contains(&shard), ctx.now.micros);
            let catching = ctx.layout.transfer.shards.get_mut(&shard);
            if catching.is_some_and(|it| it.sources.heard(self.to.node, &clock, whole, now)) {
                sync::learn_now(ctx, self.to, shard, clock);
            }
        }
        Step::Done
    }
}
