//! An owner's side of handoff: fetching the hints that a peer holds for it.
//!
//! Every record goes through the same `apply` as all others, and the page is fsynced before the
//! next question says so, because the holder drops its copies then: all but those of records that
//! could not be taken in, which the question names. Nothing of a page whose commit fails is said to
//! be taken. Next to read: `hold.rs`.

use super::{Handoff, RETRY_MICROS};
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use crate::replica::{self, Taken};
use crate::serve;
use crate::share::page_bytes;
use galvani_model::ids::Shard;
use galvani_model::version::Record;
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{HintsPulled, PullHints};

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
        let (mut taken, mut refused) = (0, Vec::new());
        if let Some(holder) = ctx.handoff.holders.get_mut(&to) {
            taken = core::mem::take(&mut holder.taken);
            refused = core::mem::take(&mut holder.refused);
        }
        let (node, lane) = (ctx.topology.node, ctx.config.lane);
        let pull = PullHints { node, lane, taken, refused, credit: page_bytes(ctx.busy) };
        ctx.ask(to, op, 0, Message::PullHints(pull));
        FetchHintsOp { to, deadline: ctx.now.micros + PATIENCE_MICROS }
    }

    /// The peer answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        let now = ctx.now.micros;
        let none = Taking { page: 0, refused: Vec::new() };
        let (due, taken) = match heard {
            Heard::Reply(Message::HintsPulled(Ok(pulled))) => {
                let pause = u64::from(pulled.records.pause_ms) * 1_000;
                match take_in(ctx, pulled) {
                    Ok(None) => (None, none),
                    Ok(Some(taken)) => (Some(now + pause), taken),
                    Err(_) => (Some(now + RETRY_MICROS), none),
                }
            }
            Heard::Reply(_) | Heard::Silence => (Some(now + RETRY_MICROS), none),
        };
        self.finish(ctx.handoff, due, taken);
        ctx.share.rest(now, ctx.busy);
        Step::Done
    }

    /// No answer came in time.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        let none = Taking { page: 0, refused: Vec::new() };
        self.finish(ctx.handoff, Some(ctx.now.micros + RETRY_MICROS), none);
        Step::Done
    }

    /// It was never sent, because the tick it was made in does not exist.
    pub(crate) fn unsay(&self, handoff: &mut Handoff) {
        let none = Taking { page: 0, refused: Vec::new() };
        self.finish(handoff, Some(self.deadline - PATIENCE_MICROS + RETRY_MICROS), none);
    }

    fn finish(&self, handoff: &mut Handoff, due: Option<u64>, taken: Taking) {
        if let Some(holder) = handoff.holders.get_mut(&self.to) {
            holder.asking = false;
            (holder.taken, holder.refused) = (taken.page, taken.refused);
            // When this page says, or the word that came meanwhile that there is something.
            holder.due = due.or(holder.due);
        }
        handoff.reschedule();
    }
}

/// What became of a page.
struct Taking {
    /// Its number, 0 if nothing of it may be dropped.
    page: u64,
    /// Positions of records that could not be taken in.
    refused: Vec<u16>,
}

/// Takes a page in, to be fsynced by this tick; `None` for an empty one. A record that cannot be
/// taken in is refused and stays with its holder: the rest must not wait for it.
fn take_in(ctx: &mut Ctx<'_>, pulled: HintsPulled) -> Result<Option<Taking>, ReplicaError> {
    let HintsPulled { page, shards, records } = pulled;
    if shards.len() != records.heads.len() {
        return Err(ReplicaError::Malformed);
    }
    if shards.is_empty() {
        return Ok(None);
    }
    let mut refused = Vec::new();
    for (index, (shard, record)) in shards.into_iter().zip(records.into_records()).enumerate() {
        match take_in_one(ctx, shard, record) {
            Ok(()) => {}
            // Nothing more of this page goes in now either.
            Err(error @ (ReplicaError::DiskFull | ReplicaError::StorageFailed)) => {
                return Err(error);
            }
            Err(_) => refused.push(index as u16),
        }
    }
    // Also where all were known: they may have come in a moment ago, unsynced.
    *ctx.fsync = true;
    Ok(Some(Taking { page, refused }))
}

fn take_in_one(ctx: &mut Ctx<'_>, shard: Shard, record: Record) -> Result<(), ReplicaError> {
    let policy = serve::owned(ctx, shard, &record.head.key)?;
    if !record.is_intact() || record.head.dot.counter == 0 {
        return Err(ReplicaError::Malformed);
    }
    let failed = |error| replica::as_replica_error(&error);
    if replica::notice_amnesia_in(ctx.store, shard, &record.head).map_err(failed)? {
        ctx.on_amnesia();
    }
    match ctx.take_in(shard, record, policy, None).map_err(failed)? {
        Taken::New { discarded, retry } => {
            ctx.counters.hints_received += 1;
            ctx.counters.lww_discarded += u64::from(discarded);
            ctx.counters.retries_recognised += u64::from(retry);
        }
        Taken::Duplicate => ctx.counters.duplicates += 1,
    }
    Ok(())
}
