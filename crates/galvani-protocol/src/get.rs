//! Coordination of a get, and the repair that follows from it.
//!
//! Ask the owners, join what they hold (absence takes part), answer once r have answered, keep
//! joining late answers, then send every replica that answered the records it lacks. Records this
//! replica lacks are taken in as they arrive, through the same `apply`, and where that taught it
//! something the answer is its own copy. A read waits for its repairs only where it was asked to
//! (`blocking_repair`), and never returns a value that its context does not cover.
//! Next to read: `read_repair.rs`, `replica.rs`. Source: DeCandia et al. 2007, sections 4.4-4.5.

use crate::effect::ReplyTo;
use crate::ops::{ACCOUNT_MICROS, Asked, Ctx, Heard, LINGER_MICROS, Step, shortfall, tracker};
use crate::read_repair::{self, Confirming, HeardFrom};
use crate::refuse::{self, ReadQuorum};
use crate::replica;
use crate::serve;
use crate::topology::Owners;
use bytes::Bytes;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::{NodeId, Shard, WriteId};
use galvani_model::key::Key;
use galvani_model::quorum::{QuorumTracker, Requirement, Verdict};
use galvani_model::store::StoreError;
use galvani_model::version::{
    Context, Dot, Kind, Object, ReadJoin, Record, Version, emitted_bytes,
};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, Outcome, QuorumKind, ReplicaError};
use galvani_wire::message::{Fetch, Get, GetDone, Held, Replicated, Sibling};
use std::collections::BTreeMap;

/// A get under way.
#[derive(Clone, Debug)]
pub(crate) struct GetOp {
    op: u64,
    reply_to: ReplyTo,
    key: Key,
    shard: Shard,
    /// The epoch of the layout that it goes by.
    epoch: u64,
    policy: ConflictPolicy,
    need: ReadQuorum,
    asked: Asked,
    tracker: QuorumTracker,
    answered: bool,
    /// Whether it is to be answered only once r replicas hold what it returns.
    blocking: bool,
    /// Set once it knows what it returns and waits for that.
    confirming: Option<Box<Confirming>>,
    join: ReadJoin,
    /// Records behind the versions heard of, from the own log or from answers.
    records: BTreeMap<Dot, Record>,
    /// What each replica that answered holds and has seen of the key.
    heard: Vec<HeardFrom>,
    /// Whether the own copy is one of the answers.
    own_counts: bool,
    /// Live dots of the own copy when the others were asked.
    own: Vec<Dot>,
    /// Live writes of the own copy then.
    shown: Vec<WriteId>,
    /// Whether an answer showed what the own copy did not.
    learned: bool,
    /// When the client stops waiting, or late replicas are no longer listened to, in the lane's
    /// microseconds.
    pub(crate) deadline: u64,
}

impl GetOp {
    /// Starts a get on this owner; `None` if it was refused (and answered) or is over at once.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        get: Get,
        shard: Shard,
        owners: &Owners,
    ) -> Option<GetOp> {
        let prepared = Self::prepare(ctx, op, reply_to, get, shard, owners);
        ctx.begin(reply_to, op, prepared, |this, ctx| {
            this.launch(ctx);
            this.progress(ctx)
        })
    }

    fn prepare(
        ctx: &Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        get: Get,
        shard: Shard,
        owners: &Owners,
    ) -> Result<GetOp, Failure> {
        let (props, _) = ctx.topology.locate(&get.key).ok_or(Failure::UnknownBucket)?;
        let need = refuse::read_quorum(&get.options, props)?;
        let replicas = &owners[..need.n as usize];
        Ok(GetOp {
            op,
            reply_to,
            shard,
            epoch: ctx.topology.epoch(),
            policy: props.policy,
            need,
            asked: Asked::new(replicas, ctx.now),
            tracker: tracker(replicas, need.needs(), 0),
            answered: false,
            blocking: get.options.blocking_repair,
            confirming: None,
            join: ReadJoin::new(),
            records: BTreeMap::new(),
            heard: Vec::new(),
            own_counts: false,
            own: Vec::new(),
            shown: Vec::new(),
            learned: false,
            deadline: refuse::deadline(ctx, get.timeout_ms)?,
            key: get.key,
        })
    }

    /// Reads the own copy, if this is an owner, and asks the other replicas for what it lacks.
    fn launch(&mut self, ctx: &mut Ctx<'_>) {
        let replicas: Vec<(usize, NodeId)> = self.asked.pending().collect();
        if let Some(&(index, me)) = replicas.iter().find(|(_, node)| ctx.is_me(*node)) {
            match self.read_own(ctx) {
                Ok(()) => {
                    self.own_counts = true;
                    self.count(ctx, index, Ok(()));
                }
                Err(error) => {
                    self.records.clear();
                    self.count(ctx, index, Err(Outcome::Refused(error)));
                }
            }
            debug_assert!(ctx.is_me(me), "found by that very question");
        }
        let have: Vec<Dot> = self.records.keys().copied().collect();
        self.own = have.clone();
        let timeout_ms = ((self.deadline - ctx.now.micros) / 1000) as u32;
        for (index, node) in replicas.into_iter().filter(|(_, node)| *node != ctx.topology.node) {
            let Some(lane) = ctx.reach(node, self.shard) else {
                self.count(ctx, index, Err(Outcome::Unreachable));
                continue;
            };
            let (key, have, shown) = (self.key.clone(), have.clone(), self.shown.clone());
            let (shard, epoch) = (self.shard, self.epoch);
            let fetch = Fetch { shard, key, records: true, have, shown, epoch, timeout_ms };
            ctx.ask(lane, self.op, index, Message::Fetch(fetch));
        }
    }

    fn read_own(&mut self, ctx: &mut Ctx<'_>) -> Result<(), ReplicaError> {
        serve::whole(ctx, self.shard)?;
        let refused = |error: StoreError| replica::as_replica_error(&error);
        let local = replica::read(ctx.store, self.shard, &self.key).map_err(refused)?;
        for dot in local.object.dots() {
            let record = replica::record(ctx.store, self.shard, dot).map_err(refused)?;
            if !ctx.may_hold(self.held() + carried(&record)) {
                return Err(ReplicaError::Overloaded);
            }
            self.records.insert(dot, record);
        }
        self.shown = local.object.versions().iter().map(|version| version.write).collect();
        self.join.add(&local.object, &local.seen);
        Ok(())
    }

    /// A replica answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        if let Some(confirming) = &mut self.confirming {
            let stored = match &heard {
                Heard::Reply(Message::Replicated(Replicated { result })) => result.is_ok(),
                Heard::Reply(_) | Heard::Silence => false,
            };
            if confirming.on_supplied(index, stored) {
                return self.progress(ctx);
            }
        }
        let Some(node) = self.asked.awaited(index) else {
            return Step::Wait;
        };
        let said = match heard {
            Heard::Reply(Message::Fetched(Ok(held))) => self.take_in(ctx, node, held),
            Heard::Reply(Message::Fetched(Err(error))) => Err(Outcome::Refused(error)),
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

    /// Where its answer goes.
    pub(crate) fn reply_to(&self) -> ReplyTo {
        self.reply_to
    }

    /// Bytes of values it holds until it is answered.
    pub(crate) fn held(&self) -> usize {
        self.records.values().map(carried).sum()
    }

    /// Time is up: answer with what is known, and repair whoever answered.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        if !self.answered {
            self.answer_lost(ctx);
        }
        self.repair(ctx);
        Step::Done
    }

    /// The ask that waits for `node`, if one does.
    pub(crate) fn waits_for(&self, node: NodeId) -> Option<usize> {
        let asked = self.asked.pending().find(|(_, asked)| *asked == node);
        let supplied = || self.confirming.as_ref().and_then(|it| it.waits_for(node));
        asked.map(|(index, _)| index).or_else(supplied)
    }

    /// Joins one replica's answer; what this replica lacks of it is taken in here at once, within the
    /// budget of repairs.
    fn take_in(&mut self, ctx: &mut Ctx<'_>, node: NodeId, held: Held) -> Result<(), Outcome> {
        let malformed = Err(Outcome::Refused(ReplicaError::Malformed));
        if held.versions.iter().any(|version| version.dots.is_empty()) {
            return malformed;
        }
        // More than the lane may hold counts as no answer: another replica's may still fit.
        let events = held.heads.iter().map(|head| emitted_bytes(&head.emits));
        let brings = held.values.iter().map(Bytes::len).chain(events).sum::<usize>();
        if !self.answered && !ctx.may_hold(self.held() + brings) {
            return Err(Outcome::Refused(ReplicaError::Overloaded));
        }
        let dots: Vec<Dot> =
            held.versions.iter().flat_map(|version| version.dots.clone()).collect();
        let Some(brought) = serve::vetted(&held, &self.key) else {
            return malformed;
        };
        // A version whose record nobody sent cannot be shown, so the answer does not count.
        let is_here = |dot: &Dot| {
            self.own.contains(dot)
                || self.records.contains_key(dot)
                || brought.iter().any(|record| record.head.dot == *dot)
        };
        if !dots.iter().all(is_here) {
            return malformed;
        }
        for record in brought {
            let dot = record.head.dot;
            self.learned |= !self.own.contains(&dot);
            if !self.answered {
                self.records.entry(dot).or_insert_with(|| record.clone());
            }
            if replica::notice_amnesia_in(ctx.store, self.shard, &record.head) == Ok(true) {
                ctx.on_amnesia();
            }
            let waited_for = self.blocking && !self.answered;
            if waited_for || self.may_repair(ctx, dot) {
                // Best effort: a full disk must not stop a read.
                let _ = ctx.take_in(self.shard, record, self.policy, None);
            }
        }
        self.learned |= dots.iter().any(|dot| !self.own.contains(dot));
        let shown = held.versions.iter().map(|version| version.write).collect();
        let object = Object::from_versions(held.versions, ConflictPolicy::Siblings);
        self.join.add(&object, &held.seen);
        let heard = HeardFrom { node, seen: held.seen, shown };
        if let Some(mut confirming) = self.confirming.take() {
            self.judge(ctx, &mut confirming, &heard);
            self.confirming = Some(confirming);
        }
        self.heard.push(heard);
        Ok(())
    }

    /// Whether the own copy takes in a record that it lacks, which a read in the background does within
    /// the budget of all repairs; beyond it, anti-entropy brings it.
    fn may_repair(&self, ctx: &mut Ctx<'_>, dot: Dot) -> bool {
        let own = ctx.store.replica(self.shard);
        if own.is_ok_and(|own| own.clock.contains(dot)) || ctx.read_repairs.take(ctx.now.micros) {
            return true;
        }
        ctx.counters.repairs_skipped += 1;
        ctx.sync.note_change(self.shard, ctx.now);
        false
    }

    fn count(&mut self, ctx: &Ctx<'_>, index: usize, said: Result<(), Outcome>) {
        let outcome = match &said {
            Ok(()) => Outcome::Answered,
            Err(outcome) => outcome.clone(),
        };
        let Some(node) = self.asked.note(index, outcome, ctx.now) else {
            return;
        };
        match said {
            Ok(()) => self.tracker.ack(node, false),
            Err(_) => self.tracker.fail(node),
        };
    }

    fn progress(&mut self, ctx: &mut Ctx<'_>) -> Step {
        if !self.answered {
            match self.tracker.verdict() {
                Verdict::Pending => {}
                Verdict::Met => self.on_met(ctx),
                Verdict::Lost if self.asked.is_complete() => self.answer_lost(ctx),
                // Decided, but who else answers in a moment belongs in the account of it.
                Verdict::Lost => {
                    self.deadline = self.deadline.min(ctx.now.micros + ACCOUNT_MICROS);
                }
            }
        }
        if self.answered && self.asked.is_complete() {
            self.repair(ctx);
            return Step::Done;
        }
        Step::Wait
    }

    /// Enough have answered: so does it, if r replicas hold what it returns or nobody asked for that.
    fn on_met(&mut self, ctx: &mut Ctx<'_>) {
        // One of the answers may have told this owner that its own copy, which was counted, is not whole.
        if self.own_counts && serve::whole(ctx, self.shard).is_err() {
            let failure = Failure::Coordinator(ReplicaError::Refilling);
            return self.fail_with(ctx, failure);
        }
        let confirming = match self.confirming.take() {
            Some(confirming) => confirming,
            None => {
                let (object, done) = self.settle(ctx);
                if !self.blocking {
                    return self.answer(ctx, done);
                }
                self.confirm(ctx, object, done)
            }
        };
        let got = self.holders(ctx, &confirming);
        if got >= self.need.r {
            let done = GetDone { answers: self.asked.answers(), ..confirming.done };
            return self.answer(ctx, done);
        }
        let hopeless = self.asked.is_complete() && confirming.is_complete();
        if hopeless {
            self.fail(ctx, QuorumKind::R, self.need.r, got);
        }
        self.confirming = Some(confirming);
    }

    /// How many of the replicas hold what is to be returned.
    fn holders(&self, ctx: &mut Ctx<'_>, confirming: &Confirming) -> u8 {
        confirming.holders() + u8::from(self.own_counts && confirming.is_here(ctx, self.shard))
    }

    /// Counts who holds `object`, and supplies who does not.
    fn confirm(&self, ctx: &mut Ctx<'_>, object: Object, done: GetDone) -> Box<Confirming> {
        let mut confirming = Confirming::new(done, object);
        for heard in &self.heard {
            self.judge(ctx, &mut confirming, heard);
        }
        Box::new(confirming)
    }

    fn judge(&self, ctx: &mut Ctx<'_>, confirming: &mut Confirming, heard: &HeardFrom) {
        let left_ms = (self.deadline.saturating_sub(ctx.now.micros) / 1000).max(1) as u32;
        confirming.judge(ctx, self.op, self.shard, heard, &self.records, left_ms);
    }

    fn answer(&mut self, ctx: &mut Ctx<'_>, mut done: GetDone) {
        // A blocking read has waited since it looked at the clock.
        let over = |one: &&mut Sibling| one.expires_ms > 0 && one.expires_ms <= ctx.now.unix_ms;
        for one in done.siblings.iter_mut().filter(over) {
            (one.kind, one.expires_ms) = (Kind::Delete, 0);
            (one.value_len, one.value) = (0, Bytes::new());
        }
        self.answered = true;
        self.deadline = self.deadline.min(ctx.now.micros + LINGER_MICROS);
        ctx.counters.gets += 1;
        // Late answers are listened to, but not at the price of holding values: repairs read them.
        self.records.clear();
        ctx.answer(self.reply_to, self.op, Message::GetDone(done));
    }

    /// What the answers so far add up to, and how that is told.
    fn settle(&mut self, ctx: &mut Ctx<'_>) -> (Object, GetDone) {
        let object = self.known(ctx, true);
        let context = Context { seen: self.join.seen().clone(), hlc: self.join.hlc() };
        let now_ms = ctx.now.unix_ms;
        let versions = object.versions().iter();
        let siblings = versions.map(|version| self.sibling(version, now_ms)).collect();
        let done = GetDone {
            siblings,
            context: context.seal(&self.key, &ctx.topology.context_key).into(),
            answers: self.asked.answers(),
        };
        (object, done)
    }

    /// What the answers add up to. Where the own copy has taken in all of them, it is that copy: it
    /// also knows which of the shown writes were replaced under another of their dots (a retry).
    fn known(&mut self, ctx: &mut Ctx<'_>, values: bool) -> Object {
        let joined = self.join.object(self.policy);
        if !self.learned || serve::whole(ctx, self.shard).is_err() {
            return joined;
        }
        match self.read_through(ctx, &joined, values) {
            Ok(Some(object)) => object,
            Ok(None) | Err(_) => joined,
        }
    }

    /// The own copy, if it has taken in everything in `joined`. It may not have: a full disk refuses
    /// what a read brings, at once or when the tick commits.
    fn read_through(
        &mut self,
        ctx: &mut Ctx<'_>,
        joined: &Object,
        values: bool,
    ) -> Result<Option<Object>, StoreError> {
        let clock = &ctx.store.replica(self.shard)?.clock;
        if !joined.dots().into_iter().all(|dot| clock.contains(dot)) {
            return Ok(None);
        }
        let mut local = replica::read(ctx.store, self.shard, &self.key)?;
        // A version of the answers may have inherited more than its record told this replica.
        let is_replaced = |own: &Version| {
            let mut others = joined.versions().iter().filter(|other| other.write != own.write);
            others.any(|other| own.is_replaced_by(&other.past))
        };
        if local.object.versions().iter().any(is_replaced) {
            let left = local.object.versions().iter().filter(|own| !is_replaced(own));
            local.object = Object::from_versions(left.cloned().collect(), self.policy);
        }
        for dot in local.object.dots() {
            if values && !self.records.contains_key(&dot) {
                let record = replica::record(ctx.store, self.shard, dot)?;
                self.records.insert(dot, record);
            }
        }
        self.join.add(&local.object, &local.seen);
        Ok(Some(local.object))
    }

    /// A version as this coordinator's clock has it: one that has expired is told as a tombstone.
    fn sibling(&self, version: &Version, now_ms: u64) -> Sibling {
        let (dot, hlc, author) = (version.dots[0], version.hlc, version.author);
        if !version.is_value_at(now_ms) {
            let (kind, value) = (Kind::Delete, Bytes::new());
            return Sibling { dot, kind, hlc, author, value_len: 0, expires_ms: 0, value };
        }
        let record = version.dots.iter().find_map(|dot| self.records.get(dot));
        // take_in and read_own refuse answers whose records are missing.
        let value = record.map_or(Bytes::new(), |record| record.value.clone());
        debug_assert_eq!(value.len(), version.value_len as usize, "value and version agree");
        Sibling {
            dot,
            kind: version.kind,
            hlc,
            author,
            value_len: value.len() as u32,
            expires_ms: version.expires_ms,
            value,
        }
    }

    fn answer_lost(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(confirming) = self.confirming.take() {
            let got = self.holders(ctx, &confirming);
            return self.fail(ctx, QuorumKind::R, self.need.r, got);
        }
        let (requirement, need, got) = shortfall(&self.tracker);
        let what = match requirement {
            Requirement::Primaries => QuorumKind::Pr,
            Requirement::Places | Requirement::Durable => QuorumKind::R,
        };
        self.fail(ctx, what, need, got);
    }

    fn fail(&mut self, ctx: &mut Ctx<'_>, what: QuorumKind, need: u8, got: u8) {
        let failure = Failure::QuorumNotMet { what, need, got, n: self.need.n };
        let failure = ctx.or_layout_changed(&self.asked, failure);
        self.fail_with(ctx, failure);
    }

    fn fail_with(&mut self, ctx: &mut Ctx<'_>, failure: Failure) {
        self.answered = true;
        self.deadline = self.deadline.min(ctx.now.micros + LINGER_MICROS);
        self.records.clear();
        ctx.fail(self.reply_to, self.op, failure, AppliedOutcome::No, self.asked.answers());
    }

    /// Brings the replicas that answered up to date, now that nobody waits.
    fn repair(&mut self, ctx: &mut Ctx<'_>) {
        let object = self.known(ctx, false);
        let heard = core::mem::take(&mut self.heard);
        read_repair::in_background(ctx, self.shard, &object, &heard, &self.records);
    }
}

/// What a record counts for while it is held.
fn carried(record: &Record) -> usize {
    record.value.len() + emitted_bytes(&record.head.emits)
}
