//! An owner's side of handoff: fetching the hints that a peer holds for it.
//!
//! Every record goes through the same `apply` as all others, and the page is fsynced before the
//! next question says so, because the holder drops its copy then. A page that cannot be taken in
//! whole is not said to be taken. Next to read: `hold.rs`.

use super::{Handoff, RETRY_MICROS};
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use crate::replica::{self, Taken};
use crate::serve;
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{HintsPulled, PullHints};

/// Bytes a page may bring: a few milliseconds of a lane's work.
const CREDIT_BYTES: u32 = 256 << 10;
/// Pause between two pages while clients wait for this lane, in microseconds.
const BUSY_PAUSE_MICROS: u64 = 10_000;
/// How long a peer may take to answer, in microseconds.
const PATIENCE_MICROS: u64 = 5_000_000;

/// A page under way.
#[derive(Clone, Debug)]
pub(crate) struct FetchHintsOp {
    /// Who was asked.
    pub(crate) to: PeerLane,
    /// When the answer is given up, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl FetchHintsOp {
    /// Asks a peer for what it holds, and lets it drop what is durable here.
    pub(crate) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane) -> FetchHintsOp {
        let holder = ctx.handoff.holders.get_mut(&to);
        let taken = holder.map_or(0, |holder| core::mem::take(&mut holder.taken));
        let (node, lane) = (ctx.topology.node, ctx.config.lane);
        let pull = PullHints { node, lane, taken, credit: CREDIT_BYTES };
        ctx.ask(to, op, 0, Message::PullHints(pull));
        FetchHintsOp { to, deadline: ctx.now.micros + PATIENCE_MICROS }
    }

    /// The peer answered, or cannot. `busy` says whether clients wait for this lane.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard, busy: bool) -> Step {
        let now = ctx.now.micros;
        let (due, taken) = match heard {
            Heard::Reply(Message::HintsPulled(Ok(pulled))) => match take_in(ctx, pulled) {
                Ok(None) => (None, 0),
                Ok(Some(page)) => (Some(now + if busy { BUSY_PAUSE_MICROS } else { 0 }), page),
                // Asked again when this node learns of the bucket.
                Err(ReplicaError::UnknownBucket) => (None, 0),
                Err(_) => (Some(now + RETRY_MICROS), 0),
            },
            Heard::Reply(_) | Heard::Silence => (Some(now + RETRY_MICROS), 0),
        };
        self.finish(ctx.handoff, due, taken);
        Step::Done
    }

    /// No answer came in time.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        self.finish(ctx.handoff, Some(ctx.now.micros + RETRY_MICROS), 0);
        Step::Done
    }

    /// It was never sent, because the tick it was made in does not exist.
    pub(crate) fn unsay(&self, handoff: &mut Handoff) {
        self.finish(handoff, Some(self.deadline - PATIENCE_MICROS + RETRY_MICROS), 0);
    }

    fn finish(&self, handoff: &mut Handoff, due: Option<u64>, taken: u64) {
        if let Some(holder) = handoff.holders.get_mut(&self.to) {
            holder.asking = false;
            holder.taken = taken;
            holder.due = match (holder.due, due) {
                (Some(told), Some(due)) => Some(told.min(due)),
                (told, due) => told.or(due),
            };
        }
        handoff.reschedule();
    }
}

/// Takes a page in, to be fsynced by this tick. Returns its number, or `None` for an empty one.
fn take_in(ctx: &mut Ctx<'_>, pulled: HintsPulled) -> Result<Option<u64>, ReplicaError> {
    let HintsPulled { page, shards, records } = pulled;
    if shards.len() != records.heads.len() {
        return Err(ReplicaError::Malformed);
    }
    if shards.is_empty() {
        return Ok(None);
    }
    for (shard, record) in shards.into_iter().zip(records.into_records()) {
        let policy = serve::owned(ctx, shard, &record.head.key)?;
        if !record.is_intact() || record.head.dot.counter == 0 {
            return Err(ReplicaError::Malformed);
        }
        let failed = |error| replica::as_replica_error(&error);
        if replica::notice_amnesia_in(ctx.store, shard, &record.head).map_err(failed)? {
            ctx.counters.incarnations += 1;
        }
        match ctx.take_in(shard, record, policy, None).map_err(failed)? {
            Taken::New { discarded, retry } => {
                ctx.counters.hints_received += 1;
                ctx.counters.lww_discarded += u64::from(discarded);
                ctx.counters.retries_recognised += u64::from(retry);
            }
            Taken::Duplicate => ctx.counters.duplicates += 1,
        }
    }
    // Also where all were known: they may have come in a moment ago, unsynced.
    *ctx.fsync = true;
    Ok(Some(page))
}
