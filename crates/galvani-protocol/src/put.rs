//! Coordination of a put (a delete is a put of a tombstone).
//!
//! Refuse, or mint a dot, take the record in here, send it to the other owners, count who stored
//! it, answer when enough have. For an owner that is away, refuses, or is silent for long, a
//! stand-in is asked to hold the record as a hint. It never unwrites: what was taken in anywhere may
//! spread, and the answer says so. The own ack counts at once because effects leave only after the
//! tick's commit. Next to read: `stand_ins.rs`, `replica.rs`, `refuse.rs`.
//! Source: DeCandia et al. 2007, sections 4.5, 4.6.

use crate::effect::ReplyTo;
use crate::ops::{
    ACCOUNT_MICROS, Asked, Ctx, Heard, LINGER_MICROS, NOBODY, OVERLOAD_RETRY_MS, Step, shortfall,
    tracker,
};
use crate::refuse::{self, WriteQuorum};
use crate::replica::{self, Taken};
use crate::stand_ins::StandIns;
use crate::topology::Owners;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Shard};
use galvani_model::limits::SHOWN_DOTS_MAX;
use galvani_model::quorum::{OwnerSet, QuorumTracker, Requirement, Verdict};
use galvani_model::store::StoreError;
use galvani_model::version::{
    Context, Dot, DotSet, Kind, Record, RecordHead, emitted_bytes, value_hash,
};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, Outcome, QuorumKind, ReplicaError};
use galvani_wire::message::{Hint, Put, PutDone, Replicate, Replicated};
use smallvec::SmallVec;

/// A put under way.
#[derive(Clone, Debug)]
pub(crate) struct PutOp {
    op: u64,
    reply_to: ReplyTo,
    need: WriteQuorum,
    /// The epoch of the layout that it goes by.
    epoch: u64,
    asked: Asked,
    tracker: QuorumTracker,
    answered: bool,
    shard: Shard,
    /// Boxed, because operations move in and out of the table.
    record: Box<Record>,
    stand_ins: StandIns,
    /// When owners that are still silent get stand-ins, in the lane's microseconds.
    hint_at: Option<u64>,
    context: bytes::Bytes,
    siblings: u32,
    /// When the client stops waiting, or late replicas are no longer listened to, in the lane's
    /// microseconds.
    deadline: u64,
}

/// How long an owner may be silent before a stand-in is asked as well, in microseconds: far above a
/// healthy round trip, far below the usual deadline.
const HINT_AFTER_MICROS: u64 = 300_000;
/// How many values that have ended count for one sibling.
const ENDED_PER_SIBLING: usize = 4;

impl PutOp {
    /// Starts a put on this owner; `None` if it was refused (and answered) or is over at once.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        put: Put,
        shard: Shard,
    ) -> Option<PutOp> {
        let sets = ctx.topology.layout().write_sets(shard);
        match Self::prepare(ctx, put, shard, &sets) {
            Ok(prepared) => Self::launch(ctx, op, reply_to, prepared, &sets),
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
        sets: &WriteSets,
    ) -> Result<Prepared, Failure> {
        let topology = ctx.topology;
        let (props, _) = topology.locate(&put.key).ok_or(Failure::UnknownBucket)?;
        let need = refuse::write_quorum(&put.options, props)?;
        let deadline = refuse::deadline(ctx, put.timeout_ms)?;
        let context = refuse::write_shape(ctx, &put, props)?;
        let stand_ins = match put.options.strict {
            true => StandIns::default(),
            false => StandIns::of(ctx, shard),
        };
        if stand_ins.left() > 0 && !ctx.may_hold(put.value.len() + emitted_bytes(&put.emits)) {
            return Err(Failure::Overloaded { retry_after_ms: OVERLOAD_RETRY_MS });
        }
        for owners in core::iter::once(&sets.0).chain(&sets.1) {
            // A layout with fewer nodes than the bucket has copies cannot be served.
            let impossible = Failure::CopiesImpossible { asked: need.n, n: owners.len() as u8 };
            let counted = owners.get(..need.n as usize).ok_or(impossible)?;
            refuse::reachable(ctx, counted, shard, (QuorumKind::W, need.w), stand_ins.left())?;
            refuse::reachable(ctx, counted, shard, (QuorumKind::Pw, need.pw), 0)?;
            refuse::reachable(ctx, counted, shard, (QuorumKind::Dw, need.dw), stand_ins.left())?;
        }
        let (policy, expires_ms) = (props.policy, refuse::expiry(&put, props)?);
        let timeout_ms = put.timeout_ms;
        let Stored { record, siblings, seen, everywhere } =
            store_here(ctx, put, shard, context, (policy, expires_ms)).map_err(|refusal| {
                match refusal {
                    Refusal::Failure(failure) => failure,
                    Refusal::Store(error) => {
                        Failure::Coordinator(replica::as_replica_error(&error))
                    }
                }
            })?;
        let need = (need, deadline);
        let context = Context { seen, hlc: record.head.hlc };
        let context = context.seal(&record.head.key, &topology.context_key).into();
        Ok(Prepared { record, siblings, context, everywhere, shard, need, timeout_ms, stand_ins })
    }

    /// Sends the record to the other owners and counts this one.
    fn launch(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        prepared: Prepared,
        sets: &WriteSets,
    ) -> Option<PutOp> {
        let Prepared { record, siblings, context, everywhere, shard, need, timeout_ms, stand_ins } =
            prepared;
        let (need, deadline) = need;
        let fsync = need.dw > 0;
        *ctx.fsync |= fsync;
        let hint_at = ctx.now.micros + HINT_AFTER_MICROS;
        let owners = ctx.topology.replicas(shard);
        let mut put = PutOp {
            op,
            reply_to,
            need,
            epoch: ctx.topology.epoch(),
            asked: Asked::new(&owners, ctx.now),
            tracker: joint_tracker(sets, &need, stand_ins.left()),
            answered: false,
            hint_at: (stand_ins.left() > 0).then_some(hint_at),
            stand_ins,
            shard,
            context,
            siblings,
            deadline,
            record: Box::new(record),
        };
        let mut away: SmallVec<[NodeId; 4]> = SmallVec::new();
        for (index, &node) in owners.iter().enumerate() {
            if everywhere {
                put.count(ctx, index, Ok(true));
            } else if ctx.is_me(node) {
                put.count(ctx, index, Ok(fsync || ctx.config.always_fsync));
            } else if let Some(lane) = ctx.reach(node, shard) {
                let replicate = put.replicate(timeout_ms);
                ctx.ask(lane, op, index, Message::Replicate(replicate));
                if ctx.presumed_away(lane) {
                    away.push(node);
                }
            } else {
                put.count(ctx, index, Err(Outcome::Unreachable));
                away.push(node);
            }
        }
        // After all owners are asked: the last stand-in takes the value with it.
        for owner in away {
            put.stand_in(ctx, owner);
        }
        put.let_go();
        put.progress(ctx).keep(put)
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
        let away = matches!(&said, Err(outcome) if is_away(outcome));
        if let Some(node) = self.count(ctx, index, said)
            && away
        {
            // A stand-in that refuses is replaced by the next one.
            let owner = self.stand_ins.owner_of(index).unwrap_or(node);
            self.stand_in(ctx, owner);
        }
        self.progress(ctx)
    }

    /// When it is to be looked at again, in the lane's microseconds.
    pub(crate) fn wake_at(&self) -> u64 {
        match self.hint_at {
            Some(at) if !self.answered => at.min(self.deadline),
            Some(_) | None => self.deadline,
        }
    }

    /// Whether its client has its answer: then it only listens to late replicas.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Bytes of values and events it holds, for stand-ins that may yet be asked.
    pub(crate) fn held(&self) -> usize {
        self.record.value.len() + emitted_bytes(&self.record.head.emits)
    }

    /// Lets the value go when nobody can be asked to hold it any more.
    fn let_go(&mut self) {
        if self.stand_ins.left() == 0 {
            self.record.value = bytes::Bytes::new();
        }
    }

    /// The replicas it asked.
    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Owners are silent for long: stand-ins are asked, too. Or time is up: what is known now is
    /// the answer.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        let silent: SmallVec<[NodeId; 4]> = self.silent_owners().collect();
        if !self.answered && ctx.now.micros < self.deadline {
            self.hint_at = None;
            for owner in silent {
                self.stand_in(ctx, owner);
            }
            return self.progress(ctx);
        }
        if !self.answered {
            self.answer_lost(ctx);
        }
        for owner in silent {
            self.leave_hint(ctx, owner);
        }
        Step::Done
    }

    /// Owners that have not answered and that nobody stands in for.
    fn silent_owners(&self) -> impl Iterator<Item = NodeId> {
        let owners =
            self.asked.pending().filter(|(index, _)| self.stand_ins.owner_of(*index).is_none());
        owners.map(|(_, node)| node).filter(|&node| !self.stand_ins.has_for(node))
    }

    /// Asks the next stand-in to hold the record for `owner`, if there is one left. An owner that
    /// the request does not count must not use up those that count.
    fn stand_in(&mut self, ctx: &mut Ctx<'_>, owner: NodeId) {
        let counted = self.tracker.owners().any(|(node, _)| node == owner);
        if !counted && !self.answered {
            return;
        }
        let Some(lane) = self.stand_ins.next() else { return };
        let index = self.asked.add_stand_in(lane.node, owner);
        self.stand_ins.note(index, owner);
        let left_ms = self.deadline.saturating_sub(ctx.now.micros) / 1000;
        let record = self.replicate((left_ms as u32).max(1));
        ctx.ask(lane, self.op, index, Message::Hint(Hint { owner, record }));
        self.let_go();
    }

    /// Leaves the record with a stand-in without waiting for its ack.
    fn leave_hint(&mut self, ctx: &mut Ctx<'_>, owner: NodeId) {
        if let Some(lane) = self.stand_ins.next() {
            let record = self.replicate(0);
            ctx.ask(lane, NOBODY, 0, Message::Hint(Hint { owner, record }));
        }
    }

    fn replicate(&self, timeout_ms: u32) -> Replicate {
        let Record { head, value } = Record::clone(&self.record);
        let (shard, epoch) = (self.shard, self.epoch);
        Replicate { shard, head, fsync: self.need.dw > 0, epoch, timeout_ms, value }
    }

    /// Notes an answer; returns whose it was, if it had not spoken before.
    fn count(
        &mut self,
        ctx: &Ctx<'_>,
        index: usize,
        said: Result<bool, Outcome>,
    ) -> Option<NodeId> {
        let outcome = match &said {
            Ok(true) => Outcome::StoredDurably,
            Ok(false) => Outcome::Stored,
            Err(outcome) => outcome.clone(),
        };
        let node = self.asked.note(index, outcome, ctx.now)?;
        match (said, self.stand_ins.owner_of(index)) {
            (Ok(durable), None) => self.tracker.ack(node, durable),
            (Err(_), None) => self.tracker.fail(node),
            (Ok(durable), Some(owner)) => self.tracker.ack_stand_in(node, owner, durable),
            (Err(_), Some(_)) => self.tracker.fail_stand_in(node),
        };
        Some(node)
    }

    fn progress(&mut self, ctx: &mut Ctx<'_>) -> Step {
        if !self.answered {
            match self.tracker.verdict() {
                // Nobody is left who could decide it: an owner said no in a way that nobody else
                // can make good.
                Verdict::Pending if self.asked.is_complete() => self.answer_lost(ctx),
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
            dot: self.record.head.dot,
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
        let failure = ctx.or_layout_changed(&self.asked, failure);
        let applied = AppliedOutcome::Maybe { acks: self.asked.stored() };
        ctx.fail(self.reply_to, self.op, failure, applied, self.asked.answers());
    }
}

/// Counts towards a quorum of the owners, and while the layout changes of the new ones, too.
fn joint_tracker(sets: &WriteSets, need: &WriteQuorum, stand_ins: usize) -> QuorumTracker {
    let counted = need.n as usize;
    match &sets.1 {
        None => tracker(&sets.0[..counted], need.needs(), stand_ins),
        Some(new) => {
            let set = |owners: &Owners| OwnerSet {
                owners: owners[..counted].iter().copied().collect(),
                needs: need.needs(),
                stand_ins: stand_ins as u16,
            };
            QuorumTracker::joint(set(&sets.0), set(new))
                .expect("refuse.rs let pass only numbers that 1..=N_MAX distinct owners can meet")
        }
    }
}

/// The owners of whom a write needs a quorum, and while the layout changes the new ones.
type WriteSets = (Owners, Option<Owners>);

/// A write whose record is staged on this owner.
struct Prepared {
    record: Record,
    siblings: u32,
    /// What its author has seen with it, sealed.
    context: bytes::Bytes,
    /// Whether every owner is known to have taken it in durably.
    everywhere: bool,
    shard: Shard,
    /// And when it must be met, in the lane's microseconds.
    need: (WriteQuorum, u64),
    timeout_ms: u32,
    stand_ins: StandIns,
}

/// Whether a replica that says this is as good as away, so that another node is to stand in.
fn is_away(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Unreachable => true,
        Outcome::Refused(error) => match error {
            ReplicaError::DiskFull
            | ReplicaError::StorageFailed
            | ReplicaError::Damaged
            | ReplicaError::Expired
            | ReplicaError::Overloaded
            | ReplicaError::HintsFull => true,
            ReplicaError::NotOwner
            | ReplicaError::LayoutChanged
            | ReplicaError::UnknownBucket
            | ReplicaError::Refilling
            | ReplicaError::Malformed
            | ReplicaError::AnswerTooLarge => false,
        },
        Outcome::Stored | Outcome::StoredDurably | Outcome::Answered | Outcome::Pending => false,
    }
}

/// Why a write was not staged.
enum Refusal {
    Failure(Failure),
    Store(StoreError),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::Failure(failure)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal::Store(error)
    }
}

/// A write that this owner has taken in.
struct Stored {
    record: Record,
    /// How many values the key has now.
    siblings: u32,
    /// What its author has seen of the key.
    seen: DotSet,
    /// Whether every owner is known to have taken it in durably.
    everywhere: bool,
}

/// Mints a dot and takes the record in, or finds that an earlier try of the same logical write came
/// here already.
fn store_here(
    ctx: &mut Ctx<'_>,
    put: Put,
    shard: Shard,
    context: Context,
    (policy, expires_ms): (ConflictPolicy, u64),
) -> Result<Stored, Refusal> {
    if replica::notice_amnesia(ctx.store, shard, &[], &context.seen)? {
        ctx.on_amnesia();
    }
    let (issued, value) = (put.issued, put.value.clone());
    let mut head = unminted(ctx.topology.node, put, context, expires_ms);
    if let Some(earlier) = ctx.store.request(shard, head.write_id(), Some(head.hlc))? {
        ctx.counters.retries_recognised += 1;
        let (record, everywhere) = match ctx.store.record(shard, earlier.dots[0])? {
            Some(record) => (record, false),
            // It was trimmed, and so every owner had it; the request says what is needed of it here.
            None => {
                head.dot = earlier.dots[0];
                (Record { head, value }, true)
            }
        };
        return Ok(stored(ctx, shard, record, everywhere)?);
    }
    refuse::forgotten(ctx, shard, issued)?;
    if head.kind != Kind::Emit {
        see_beside(ctx, shard, &mut head, policy)?;
    }
    let own = ctx.origins.mint(ctx.store, shard)?;
    head.dot = Dot::new(own.origin, own.counter);
    let record = Record { head, value };
    match ctx.take_in(shard, record.clone(), policy, Some(own))? {
        Taken::New { discarded, .. } => ctx.counters.lww_discarded += u64::from(discarded),
        Taken::Duplicate => {
            let what = format!("{shard}: minted {} twice", record.head.dot);
            panic!("invariant I6 is broken, stopping before it spreads: {what}");
        }
    }
    Ok(stored(ctx, shard, record, false)?)
}

/// The record of a write that has no dot yet.
pub(crate) fn unminted(author: NodeId, put: Put, context: Context, expires_ms: u64) -> RecordHead {
    RecordHead {
        dot: Dot::new(galvani_model::ids::Origin(0), 0),
        past: context.seen,
        // A function of the request alone: every retry has the same, on every coordinator.
        hlc: put.issued.max(Hlc(context.hlc.0.saturating_add(1))),
        rid: put.rid,
        author,
        kind: put.kind,
        value_len: put.value.len() as u32,
        value_hash: value_hash(put.kind, &put.value),
        expires_ms,
        key: put.key,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: put.emits,
    }
}

/// Writes down what the key has here, for the feed: what the write replaces, and which values stay
/// beside it. Refuses a write that would leave too many. Values that have ended wait for their
/// collection, and count for less: a key that is written with a short time to live gathers them.
fn see_beside(
    ctx: &mut Ctx<'_>,
    shard: Shard,
    head: &mut RecordHead,
    policy: ConflictPolicy,
) -> Result<(), Refusal> {
    let limit = ctx.config.limits.siblings_max;
    let object = ctx.store.object(shard, &head.key)?;
    let now_ms = ctx.now.unix_ms;
    if policy == ConflictPolicy::Siblings {
        let (shown, ended) = object.siblings_after(&head.past, now_ms);
        let beside = shown + ended.div_ceil(ENDED_PER_SIBLING);
        if beside + 1 > limit {
            let (count, limit) = (beside as u32 + 1, limit as u32);
            return Err(Refusal::Failure(Failure::TooManySiblings { count, limit }));
        }
    }
    for version in object.versions().iter().take(SHOWN_DOTS_MAX) {
        let Some(&dot) = version.dots.first() else { continue };
        match version.is_replaced_by(&head.past) {
            true => head.supersedes.push(dot),
            false if version.is_value_at(now_ms) => head.concurrent.push(dot),
            false => {}
        }
    }
    Ok(())
}

/// What the key is after the write.
fn stored(
    ctx: &mut Ctx<'_>,
    shard: Shard,
    record: Record,
    everywhere: bool,
) -> Result<Stored, StoreError> {
    let (seen, object) = replica::seen_by_author(ctx.store, shard, &record.head)?;
    let siblings = object.values_at(ctx.now.unix_ms) as u32;
    Ok(Stored { record, siblings, seen, everywhere })
}
