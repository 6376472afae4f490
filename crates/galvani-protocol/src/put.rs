//! Coordination of a put (a delete is a put of a tombstone).
//!
//! Refuse, or mint a dot, take the record in here, send it to the other owners, count who stored
//! it, answer when enough have. It never unwrites: what was taken in anywhere may spread, and the
//! answer says so. The own ack counts at once because effects leave only after the tick's commit.
//! Next to read: `replica.rs`, `refuse.rs`. Source: DeCandia et al. 2007, section 4.5.

use crate::effect::ReplyTo;
use crate::ops::{ACCOUNT_MICROS, Asked, Ctx, Heard, LINGER_MICROS, Step, shortfall, tracker};
use crate::refuse::{self, WriteQuorum};
use crate::replica::{self, Taken};
use crate::topology::Owners;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::hlc::Hlc;
use galvani_model::ids::Shard;
use galvani_model::quorum::{QuorumTracker, Requirement, Verdict};
use galvani_model::store::StoreError;
use galvani_model::version::{Context, Dot, DotSet, Kind, Record, RecordHead, value_hash};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, Outcome, QuorumKind, ReplicaError};
use galvani_wire::message::{Put, PutDone, Replicate, Replicated};

/// A put under way.
#[derive(Clone, Debug)]
pub(crate) struct PutOp {
    op: u64,
    reply_to: ReplyTo,
    need: WriteQuorum,
    asked: Asked,
    tracker: QuorumTracker,
    answered: bool,
    dot: Dot,
    context: bytes::Bytes,
    siblings: u32,
    /// When the client stops waiting, or late replicas are no longer listened to, in the lane's
    /// microseconds.
    pub(crate) deadline: u64,
}

impl PutOp {
    /// Starts a put on this owner; `None` if it was refused (and answered) or is over at once.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        put: Put,
        shard: Shard,
        owners: &Owners,
    ) -> Option<PutOp> {
        match Self::prepare(ctx, put, shard, owners) {
            Ok(prepared) => Self::launch(ctx, op, reply_to, prepared, owners),
            Err(failure) => {
                ctx.refuse(reply_to, op, failure);
                None
            }
        }
    }

    /// All that can refuse the write; on `Ok` its record is staged here.
    fn prepare(
        ctx: &mut Ctx<'_>,
        put: Put,
        shard: Shard,
        owners: &Owners,
    ) -> Result<Prepared, Failure> {
        let topology = ctx.topology;
        let (props, _) = topology.locate(&put.key).ok_or(Failure::UnknownBucket)?;
        let need = refuse::write_quorum(&put.options, props)?;
        let deadline = refuse::deadline(ctx, put.timeout_ms)?;
        let context = refuse::write_shape(ctx, &put, props)?;
        let counted = &owners[..need.n as usize];
        refuse::reachable(ctx, counted, shard, QuorumKind::W, need.w)?;
        refuse::reachable(ctx, counted, shard, QuorumKind::Pw, need.pw)?;
        refuse::reachable(ctx, counted, shard, QuorumKind::Dw, need.dw)?;
        let policy = props.policy;
        let timeout_ms = put.timeout_ms;
        let (record, siblings) =
            store_here(ctx, put, shard, context, policy).map_err(|refusal| match refusal {
                Refusal::Failure(failure) => failure,
                Refusal::Store(error) => Failure::Coordinator(replica::as_replica_error(&error)),
            })?;
        Ok(Prepared { record, siblings, shard, need, deadline, timeout_ms })
    }

    /// Sends the record to the other owners and counts this one.
    fn launch(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        prepared: Prepared,
        owners: &Owners,
    ) -> Option<PutOp> {
        let Prepared { record, siblings, shard, need, deadline, timeout_ms } = prepared;
        let fsync = need.dw > 0;
        *ctx.fsync |= fsync;
        let mut seen = record.head.past.clone();
        seen.insert(record.head.dot);
        let context = Context { seen, hlc: record.head.hlc };
        let mut put = PutOp {
            op,
            reply_to,
            need,
            asked: Asked::new(owners, ctx.now),
            tracker: tracker(&owners[..need.n as usize], need.w, need.pw, need.dw),
            answered: false,
            dot: record.head.dot,
            context: context.seal(&record.head.key, &ctx.topology.context_key).into(),
            siblings,
            deadline,
        };
        for (index, &node) in owners.iter().enumerate() {
            if ctx.is_me(node) {
                put.count(ctx, index, Ok(fsync || ctx.config.always_fsync));
            } else if let Some(lane) = ctx.reach(node, shard) {
                let (head, value) = (record.head.clone(), record.value.clone());
                let replicate = Replicate { shard, head, fsync, timeout_ms, value };
                ctx.ask(lane, op, index, Message::Replicate(replicate));
            } else {
                put.count(ctx, index, Err(Outcome::Unreachable));
            }
        }
        match put.progress(ctx) {
            Step::Wait => Some(put),
            Step::Done => None,
        }
    }

    /// An owner answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        let said = match heard {
            Heard::Reply(Message::Replicated(Replicated { result })) => {
                result.map_err(Outcome::Refused)
            }
            Heard::Reply(_) => Err(Outcome::Refused(ReplicaError::Malformed)),
            Heard::Silence => Err(Outcome::Unreachable),
        };
        self.count(ctx, index, said);
        self.progress(ctx)
    }

    /// Whether its client has its answer: then it only listens to late replicas.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered
    }

    /// The replicas it asked.
    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Time is up: what is known now is the answer.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        if !self.answered {
            self.answer_lost(ctx);
        }
        Step::Done
    }

    fn count(&mut self, ctx: &Ctx<'_>, index: usize, said: Result<bool, Outcome>) {
        let outcome = match &said {
            Ok(true) => Outcome::StoredDurably,
            Ok(false) => Outcome::Stored,
            Err(outcome) => outcome.clone(),
        };
        let Some(node) = self.asked.note(index, outcome, ctx.now) else {
            return;
        };
        match said {
            Ok(durable) => self.tracker.ack(node, durable),
            Err(_) => self.tracker.fail(node),
        };
    }

    fn progress(&mut self, ctx: &mut Ctx<'_>) -> Step {
        if !self.answered {
            match self.tracker.verdict() {
                Verdict::Pending => {}
                Verdict::Met => self.answer_met(ctx),
                Verdict::Lost if self.asked.is_complete() => self.answer_lost(ctx),
                // Decided, but who else answers in a moment belongs in the account of it.
                Verdict::Lost => {
                    self.deadline = self.deadline.min(ctx.now.micros + ACCOUNT_MICROS);
                }
            }
        }
        if self.answered && self.asked.is_complete() { Step::Done } else { Step::Wait }
    }

    fn answer_met(&mut self, ctx: &mut Ctx<'_>) {
        self.answered = true;
        self.deadline = self.deadline.min(ctx.now.micros + LINGER_MICROS);
        ctx.counters.puts += 1;
        let done = PutDone {
            dot: self.dot,
            context: self.context.clone(),
            siblings: self.siblings,
            answers: self.asked.answers(),
        };
        ctx.answer(self.reply_to, self.op, Message::PutDone(done));
    }

    fn answer_lost(&mut self, ctx: &mut Ctx<'_>) {
        self.answered = true;
        self.deadline = self.deadline.min(ctx.now.micros + LINGER_MICROS);
        let (requirement, need, got) = shortfall(&self.tracker);
        let what = match requirement {
            Requirement::Places => QuorumKind::W,
            Requirement::Primaries => QuorumKind::Pw,
            Requirement::Durable => QuorumKind::Dw,
        };
        let failure = Failure::QuorumNotMet { what, need, got, n: self.need.n };
        let applied = AppliedOutcome::Maybe { acks: self.asked.stored() };
        ctx.fail(self.reply_to, self.op, failure, applied, self.asked.answers());
    }
}

/// A write whose record is staged on this owner.
struct Prepared {
    record: Record,
    siblings: u32,
    shard: Shard,
    need: WriteQuorum,
    deadline: u64,
    timeout_ms: u32,
}

/// Why a write was not staged.
enum Refusal {
    Failure(Failure),
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal::Store(error)
    }
}

/// Mints a dot and takes the record in, or finds that an earlier try of the same logical write came
/// here already. Returns the record and how many values the key has now.
fn store_here(
    ctx: &mut Ctx<'_>,
    put: Put,
    shard: Shard,
    context: Context,
    policy: ConflictPolicy,
) -> Result<(Record, u32), Refusal> {
    if replica::notice_amnesia(ctx.store, shard, &[], &context.seen)? {
        ctx.counters.incarnations += 1;
    }
    let mut head = RecordHead {
        dot: Dot::new(galvani_model::ids::Origin(0), 0),
        past: context.seen,
        // A function of the request alone: every retry has the same, on every coordinator.
        hlc: put.issued.max(Hlc(context.hlc.0.saturating_add(1))),
        rid: put.rid,
        author: ctx.topology.node,
        kind: put.kind,
        value_len: put.value.len() as u32,
        value_hash: value_hash(put.kind, &put.value),
        key: put.key,
    };
    if let Some(earlier) = ctx.store.request(shard, head.write_id())? {
        ctx.counters.retries_recognised += 1;
        let record = replica::record(ctx.store, shard, earlier.dots[0])?;
        let siblings = values_now(ctx, shard, &record)?;
        return Ok((record, siblings));
    }
    sibling_limit(ctx, shard, &head, policy)?;
    let own = ctx.origins.mint(ctx.store, shard)?;
    head.dot = Dot::new(own.origin, own.counter);
    let record = Record { head, value: put.value };
    match ctx.take_in(shard, record.clone(), policy, Some(own))? {
        Taken::New { discarded, .. } => ctx.counters.lww_discarded += u64::from(discarded),
        Taken::Duplicate => {
            let what = format!("{shard}: minted {} twice", record.head.dot);
            panic!("invariant I6 is broken, stopping before it spreads: {what}");
        }
    }
    let siblings = values_now(ctx, shard, &record)?;
    Ok((record, siblings))
}

fn sibling_limit(
    ctx: &mut Ctx<'_>,
    shard: Shard,
    head: &RecordHead,
    policy: ConflictPolicy,
) -> Result<(), Refusal> {
    if policy == ConflictPolicy::Lww {
        return Ok(());
    }
    let limit = ctx.config.limits.siblings_max;
    let beside = beside(ctx, shard, head)?;
    if beside + 1 > limit {
        let (count, limit) = (beside as u32 + 1, limit as u32);
        return Err(Refusal::Failure(Failure::TooManySiblings { count, limit }));
    }
    Ok(())
}

/// Versions that would stand beside this write.
fn beside(ctx: &mut Ctx<'_>, shard: Shard, head: &RecordHead) -> Result<usize, StoreError> {
    let past: &DotSet = &head.past;
    Ok(ctx.store.object(shard, &head.key)?.siblings_after(past))
}

fn values_now(ctx: &mut Ctx<'_>, shard: Shard, record: &Record) -> Result<u32, StoreError> {
    let object = ctx.store.object(shard, &record.head.key)?;
    let values = object.versions().iter().filter(|version| version.kind == Kind::Put);
    Ok(values.count() as u32)
}
