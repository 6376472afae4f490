//! Damaged rows are written anew: records from the other owners, the rest from the own log.
//!
//! A record is asked for by its dot, of one owner after the other. An object or a request row is
//! what its records add up to, and the log has all of them; it waits until they are whole. Until a
//! row is mended its replica says that it is damaged. A record that no owner has stays damaged and
//! reported; if this vnode minted it under the origin it has now, it takes a new one, so that
//! nobody can ever take one dot for another. Next to read: `../replica.rs`. Source: algorithms 2.5.

use super::pull;
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use crate::replica;
use crate::serve;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, Shard};
use galvani_model::store::{Damage, RequestEntry, Rewrite, StoreError};
use galvani_model::version::{Dot, DotSet, Object, PartitionClock, Version};
use galvani_wire::Message;
use galvani_wire::message::Pulled;
use std::collections::{BTreeMap, BTreeSet};

/// Damaged records asked for at once.
const RECORDS_MAX: usize = 256;
/// Records of the own log that one step reads, and bytes of them.
const STEP_ROWS: usize = 128;
const STEP_BYTES: usize = 1 << 20;
/// Pause between two steps, in microseconds, and after one that failed.
const PAUSE_MICROS: u64 = 1_000;
const RETRY_MICROS: u64 = 1_000_000;
/// How long a row that cannot be mended waits, in microseconds.
const GIVEN_UP_MICROS: u64 = 60_000_000;

/// What is known of attempts at damaged rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mender {
    rows: BTreeMap<Damage, Tried>,
    /// The change of the store's list up to which these follow it.
    follows: Option<u64>,
    /// Whether a peer is being asked: one at a time.
    asking: bool,
    rebuild: Option<Rebuild>,
    next_at: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Tried {
    /// Owners that do not have it.
    lacking: BTreeSet<NodeId>,
    not_before: u64,
    /// Where one of them has trimmed it: no write that it trimmed was issued later.
    trimmed: Option<Hlc>,
    /// Whether nobody could mend it.
    given_up: bool,
}

/// An object or a request row on its way from the log.
#[derive(Clone, Debug)]
struct Rebuild {
    row: Damage,
    from: Dot,
    object: Object,
    /// What any record of the key replaces. The live ones alone do not say: once a tombstone is
    /// collected, a later write may name it as replaced without naming what it replaced itself.
    covered: DotSet,
    entry: RequestEntry,
    writes: BTreeSet<galvani_model::ids::WriteId>,
}

impl Rebuild {
    /// What is left of the key's records, whatever the order they stand in.
    fn object(&self, policy: ConflictPolicy) -> Object {
        let is_live = |version: &&Version| {
            let replaced = version.dots.iter().any(|&dot| self.covered.contains(dot));
            policy == ConflictPolicy::Lww || !replaced
        };
        let live = self.object.versions().iter().filter(is_live).cloned().collect();
        Object::from_versions(live, policy)
    }
}

impl Mender {
    /// Whoever was asked has answered, or will not; nothing is mended before `at`, in the lane's
    /// microseconds.
    fn heard(&mut self, at: u64) {
        self.asking = false;
        // What waited for it is looked at again then, whatever else is due when.
        self.next_at = Some(at);
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.next_at
    }

    /// Whether no damaged row is left that may still be mended.
    pub(super) fn is_settled(&self) -> bool {
        !self.asking && self.rows.values().all(|tried| tried.given_up)
    }

    /// Whatever was given up is tried again now: an operator asks, and others may have it by now.
    /// What is under way goes on: somebody who asks often must not make it start over.
    pub(super) fn try_all(&mut self) {
        for tried in self.rows.values_mut().filter(|tried| tried.given_up) {
            *tried = Tried::default();
            self.next_at = Some(0);
        }
    }

    /// Whether a shard has damaged records, and none that may still be mended.
    fn has_given_up(&self, shard: Shard) -> bool {
        let is_record = |row: &Damage| matches!(row, Damage::Record(of, _) if *of == shard);
        let mut records = self.rows.iter().filter(|(row, _)| is_record(row)).peekable();
        records.peek().is_some() && records.all(|(_, tried)| tried.given_up)
    }

    fn retry(&mut self, row: &Damage, at: u64) {
        if let Some(tried) = self.rows.get_mut(row) {
            tried.not_before = at;
        }
    }
}

/// Goes on with what is damaged; returns whom to ask for which records.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Option<(PeerLane, Shard, PartitionClock)> {
    if ctx.store.damaged().is_empty() {
        ctx.sync.mender = Mender { asking: ctx.sync.mender.asking, ..Mender::default() };
        return None;
    }
    let now = ctx.now.micros;
    let mender = &mut ctx.sync.mender;
    let changes = ctx.store.damage_changes();
    // Asked at every step of the lane, of thousands of rows that nobody may be able to mend.
    if mender.follows != Some(changes) {
        mender.follows = Some(changes);
        let damaged = ctx.store.damaged();
        mender.rows.retain(|row, _| damaged.contains(row));
        if mender.rows.len() < damaged.len() {
            for row in damaged {
                mender.rows.entry(row.clone()).or_default();
            }
            mender.next_at = Some(now);
        }
    }
    if mender.next_at.is_none_or(|at| at > now) {
        return None;
    }
    let ask = if mender.rebuild.is_some() {
        step(ctx);
        None
    } else {
        next(ctx)
    };
    let mender = &mut ctx.sync.mender;
    // Who waits for records is told when they come.
    let waits = |row: &Damage| mender.asking && matches!(row, Damage::Record(..));
    let due = mender.rows.iter().filter(|(row, _)| !waits(row)).map(|(_, tried)| tried.not_before);
    let due = if mender.rebuild.is_some() { Some(0) } else { due.min() };
    mender.next_at = due.map(|at| at.max(now + PAUSE_MICROS));
    ask
}

/// Takes up the next row that is due.
fn next(ctx: &mut Ctx<'_>) -> Option<(PeerLane, Shard, PartitionClock)> {
    let now = ctx.now.micros;
    let mender = &ctx.sync.mender;
    let asking = mender.asking;
    let may = |row: &Damage| !(asking && matches!(row, Damage::Record(..)));
    let mut due = mender.rows.iter().filter(|(row, tried)| tried.not_before <= now && may(row));
    let row = due.next()?.0.clone();
    match row {
        Damage::Record(shard, dot) => ask_for(ctx, shard, dot),
        Damage::Object(..) | Damage::Request(..) => {
            let (from, writes) = (Dot::new(Origin(0), 0), BTreeSet::new());
            let entry = RequestEntry { dots: Default::default(), at_ms: ctx.now.unix_ms };
            let object = Object::absent();
            ctx.sync.mender.rebuild =
                Some(Rebuild { row, from, object, covered: DotSet::new(), entry, writes });
            None
        }
    }
}

/// Whom to ask for a record, and for others of its shard that this owner was not asked for yet.
fn ask_for(ctx: &mut Ctx<'_>, shard: Shard, dot: Dot) -> Option<(PeerLane, Shard, PartitionClock)> {
    let now = ctx.now.micros;
    let first = Damage::Record(shard, dot);
    let others: Vec<NodeId> = ctx.topology.others(shard).collect();
    let lacking = ctx.sync.mender.rows.get(&first)?.lacking.clone();
    let left: Vec<NodeId> = others.into_iter().filter(|node| !lacking.contains(node)).collect();
    let trimmed = ctx.sync.mender.rows.get(&first)?.trimmed;
    if let Some(until) = trimmed.filter(|_| left.is_empty()) {
        // Nothing needs it, and so it need not be whole.
        if replica::trim(ctx.store, shard, &[dot], until).is_err() {
            ctx.sync.mender.retry(&first, now + RETRY_MICROS);
        }
        return None;
    }
    if left.is_empty() {
        give_up(ctx, &first);
        forget_own(ctx, shard, dot);
        return None;
    }
    let Some(to) = left.into_iter().find_map(|node| ctx.reach(node, shard)) else {
        // Nor can the shard's other records be asked for.
        let of_shard = ctx.sync.mender.rows.range_mut(first..);
        let is_record = |row: &Damage| matches!(row, Damage::Record(of, _) if *of == shard);
        for (_, tried) in of_shard.take_while(|(row, _)| is_record(row)) {
            tried.not_before = tried.not_before.max(now + RETRY_MICROS);
        }
        return None;
    };
    let mut wanted = PartitionClock::new();
    for (row, tried) in ctx.sync.mender.rows.range(first..).take(RECORDS_MAX) {
        match row {
            Damage::Record(of, dot) if *of == shard && !tried.lacking.contains(&to.node) => {
                wanted.insert(*dot);
            }
            Damage::Record(..) | Damage::Object(..) | Damage::Request(..) => {}
        }
    }
    ctx.sync.mender.asking = true;
    Some((to, shard, wanted))
}

/// Nobody can mend a row now.
fn give_up(ctx: &mut Ctx<'_>, row: &Damage) {
    if let Some(tried) = ctx.sync.mender.rows.get_mut(row) {
        tried.given_up = true;
        tried.lacking.clear();
        tried.not_before = ctx.now.micros + GIVEN_UP_MICROS;
    }
}

/// An own record that is lost everywhere: its dot must never be minted again.
fn forget_own(ctx: &mut Ctx<'_>, shard: Shard, dot: Dot) {
    let own = ctx.store.replica(shard).ok().and_then(|state| state.own);
    if own.is_some_and(|own| own.origin == dot.origin) && ctx.store.forget_origin(shard).is_ok() {
        ctx.counters.incarnations += 1;
    }
}

/// Reads on in the log; at its end the row is written.
fn step(ctx: &mut Ctx<'_>) {
    let Some(mut rebuild) = ctx.sync.mender.rebuild.take() else { return };
    let retry_at = ctx.now.micros + RETRY_MICROS;
    match read_on(ctx, &mut rebuild) {
        Ok(false) => ctx.sync.mender.rebuild = Some(rebuild),
        Ok(true) => write(ctx, rebuild),
        // A record is damaged, and nobody can mend it: the row cannot be, either.
        Err(StoreError::Corrupt { .. }) if ctx.sync.mender.has_given_up(rebuild.row.shard()) => {
            give_up(ctx, &rebuild.row);
        }
        // It is mended first; or the disk is full, or worse.
        Err(_) => ctx.sync.mender.retry(&rebuild.row, retry_at),
    }
}

fn read_on(ctx: &mut Ctx<'_>, rebuild: &mut Rebuild) -> Result<bool, StoreError> {
    let shard = rebuild.row.shard();
    let dots = ctx.store.logged(shard, rebuild.from, STEP_ROWS)?;
    let mut bytes = 0;
    for &dot in &dots {
        let record = ctx.store.record(shard, dot)?;
        rebuild.from = Dot::new(dot.origin, dot.counter + 1);
        let Some(record) = record else { continue };
        bytes += record.value.len();
        let head = record.head;
        let write = head.write_id();
        match &rebuild.row {
            Damage::Object(_, key) if head.key == *key => {
                let unknown = |_| StoreError::Failed { what: "its bucket is not known yet".into() };
                let policy = serve::owned(ctx, shard, key).map_err(unknown)?;
                let retry = !rebuild.writes.insert(write);
                rebuild.object.apply(&head, retry, policy);
                rebuild.covered.union(&head.past);
            }
            Damage::Request(_, wanted) if write == *wanted => {
                rebuild.entry.dots.push(dot);
                rebuild.entry.at_ms = rebuild.entry.at_ms.max(head.hlc.unix_ms());
            }
            Damage::Object(..) | Damage::Request(..) | Damage::Record(..) => {}
        }
        if bytes > STEP_BYTES {
            return Ok(false);
        }
    }
    Ok(dots.len() < STEP_ROWS)
}

/// Takes out what a record makes whose write has another one that was trimmed: it is dead, and only
/// its request row says so.
fn without_trimmed(ctx: &mut Ctx<'_>, rebuild: &mut Rebuild) -> Result<(), StoreError> {
    let shard = rebuild.row.shard();
    let mut versions = Vec::new();
    for version in rebuild.object.versions() {
        let entry = ctx.store.request(shard, version.write, Some(version.hlc))?;
        let mut is_dead = false;
        for dot in entry.map(|entry| entry.dots).unwrap_or_default() {
            let trimmed = ctx.store.replica(shard)?.is_trimmed(dot);
            is_dead |= trimmed && ctx.store.record(shard, dot)?.is_none();
        }
        if !is_dead {
            versions.push(version.clone());
        }
    }
    rebuild.object = Object::from_versions(versions, ConflictPolicy::Siblings);
    Ok(())
}

fn write(ctx: &mut Ctx<'_>, mut rebuild: Rebuild) {
    let (row, shard) = (rebuild.row.clone(), rebuild.row.shard());
    if without_trimmed(ctx, &mut rebuild).is_err() {
        return ctx.sync.mender.retry(&row, ctx.now.micros + RETRY_MICROS);
    }
    let anew = match &row {
        Damage::Object(_, key) => match serve::owned(ctx, shard, key) {
            // Nothing explains the row: it is not for this replica to say that the key is absent.
            Ok(policy) if rebuild.object(policy).is_absent() => return give_up(ctx, &row),
            Ok(policy) => Rewrite::Object(key.clone(), rebuild.object(policy), policy),
            Err(_) => return give_up(ctx, &row),
        },
        Damage::Request(_, write) => {
            let entry = rebuild.entry;
            Rewrite::Request(*write, (!entry.dots.is_empty()).then_some(entry))
        }
        Damage::Record(..) => return,
    };
    match replica::mend(ctx.store, shard, anew) {
        Ok(()) => {
            ctx.sync.verify.spoil();
            ctx.sync.verify.digest_of(shard);
            // The log brings tombstones and expired values back that were collected.
            ctx.reaper.note(shard, ctx.now);
        }
        Err(_) => ctx.sync.mender.retry(&row, ctx.now.micros + RETRY_MICROS),
    }
}

/// Damaged records asked of a peer.
#[derive(Clone, Debug)]
pub(crate) struct RecoverOp {
    /// Who was asked.
    pub(crate) to: PeerLane,
    shard: Shard,
    wanted: PartitionClock,
    /// When the answer is given up, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl RecoverOp {
    /// Asks a peer for the records of `wanted`.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        to: PeerLane,
        shard: Shard,
        wanted: PartitionClock,
    ) -> RecoverOp {
        let deadline = pull::ask(ctx, op, to, shard, wanted.clone());
        RecoverOp { to, shard, wanted, deadline }
    }

    /// The peer answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        let mut pause_ms = 0;
        match heard {
            Heard::Reply(Message::Pulled(Ok(pulled))) => {
                pause_ms = pulled.pause_ms;
                self.take_in(ctx, pulled);
            }
            Heard::Reply(_) | Heard::Silence => self.fail(ctx),
        }
        // As whoever gave the page wants it, and in turn with what else comes here.
        let now = ctx.now.micros;
        ctx.share.rest(now, ctx.busy);
        let turn = ctx.share.take(now, ctx.busy).max(now + u64::from(pause_ms) * 1_000);
        ctx.sync.mender.heard(turn);
        ctx.sync.reschedule();
        Step::Done
    }

    /// No answer came in time.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        self.fail(ctx);
        ctx.sync.mender.heard(ctx.now.micros);
        ctx.sync.reschedule();
        Step::Done
    }

    fn fail(&self, ctx: &mut Ctx<'_>) {
        let at = ctx.now.micros + RETRY_MICROS;
        for (row, tried) in &mut ctx.sync.mender.rows {
            if matches!(row, Damage::Record(of, dot) if *of == self.shard && self.wanted.contains(*dot))
            {
                tried.not_before = at;
            }
        }
    }

    fn take_in(&self, ctx: &mut Ctx<'_>, pulled: Pulled) {
        let (through, trimmed) = (pulled.through, pulled.trimmed.clone());
        let until = pulled.trimmed_until;
        for record in pulled.into_records() {
            let row = Damage::Record(self.shard, record.head.dot);
            let wanted =
                self.wanted.contains(record.head.dot) && ctx.store.damaged().contains(&row);
            if !wanted
                || !record.is_intact()
                || serve::owned(ctx, self.shard, &record.head.key).is_err()
            {
                continue;
            }
            if replica::mend(ctx.store, self.shard, Rewrite::Record(Box::new(record))).is_err() {
                return self.fail(ctx);
            }
            ctx.sync.mender.rows.remove(&row);
        }
        // What it has passed over it does not have; what is beyond the page is asked for again.
        let to = self.to.node;
        for (row, tried) in &mut ctx.sync.mender.rows {
            let Damage::Record(of, dot) = row else { continue };
            let asked = *of == self.shard && self.wanted.contains(*dot);
            if asked && through.is_none_or(|through| *dot <= through) {
                tried.lacking.insert(to);
                if trimmed.contains(*dot) {
                    tried.trimmed = tried.trimmed.max(Some(until));
                }
            }
        }
    }
}
