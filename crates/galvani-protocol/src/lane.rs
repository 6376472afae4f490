//! The lane: one core's single-threaded store front. It routes inputs to operations and keeps their
//! deadlines; it makes no decision of its own.
//!
//! Contract: hand it any number of inputs with [`Lane::handle`], commit what they staged in the
//! store as one batch, tell [`Lane::end_tick`] how that went, and only then do the effects it
//! returns (INV-2: a dot never leaves a node before its batch is safe).
//! Next to read: `put.rs`, `get.rs`, `serve.rs`.

use crate::buckets::{self, BucketOp};
use crate::effect::{Effect, Input, Now, PeerLane, ReplyTo};
use crate::explain::ExplainOp;
use crate::forward::ForwardOp;
use crate::get::GetOp;
use crate::known::{self, KnownOp};
use crate::list::ListOp;
use crate::ops::{Ctx, Heard, NOBODY, Step, of_ask_id};
use crate::origins::Origins;
use crate::put::PutOp;
use crate::refuse;
use crate::replica::as_replica_error;
use crate::serve;
use crate::table::{Op, OpTable};
use crate::topology::Topology;
use galvani_model::ids::{LaneIndex, Shard};
use galvani_model::limits::Limits;
use galvani_model::store::{OwnOrigin, Store, StoreError};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::message::{CreateBucket, Failed, Replicated};
use galvani_wire::view::{ClusterView, Counters};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a lane is told once.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// Which lane of its node it is.
    pub lane: LaneIndex,
    /// Bounds.
    pub limits: Limits,
    /// Whether every tick's commit is fsynced before its effects go out.
    pub always_fsync: bool,
    /// 128 random bits drawn for this start of this lane; origins are made of it.
    pub boot: u128,
}

/// One lane's machines and operations under way.
#[derive(Debug)]
pub struct Lane {
    config: LaneConfig,
    topology: Arc<Topology>,
    table: OpTable,
    up: BTreeSet<PeerLane>,
    origins: Origins,
    counters: Counters,
    effects: Vec<Effect>,
    /// Operations started since the last commit, and who asked.
    started: Vec<(u64, ReplyTo)>,
    fsync: bool,
    stopping: bool,
}

impl Lane {
    /// A lane with nothing under way. `kept` are origins that survived a clean stop.
    pub fn new(
        config: LaneConfig,
        topology: Arc<Topology>,
        kept: impl IntoIterator<Item = (Shard, OwnOrigin)>,
    ) -> Lane {
        let mut origins = Origins::new(config.boot);
        for (shard, _) in kept {
            let owners = topology.owners(shard);
            let others = owners.into_iter().filter(|&node| node != topology.node);
            origins.keep(shard, others.collect());
        }
        Lane {
            config,
            topology,
            table: OpTable::new(),
            up: BTreeSet::new(),
            origins,
            counters: Counters::default(),
            effects: Vec::new(),
            started: Vec::new(),
            fsync: false,
            stopping: false,
        }
    }

    /// Handles one input. Effects wait for [`Lane::end_tick`].
    pub fn handle(&mut self, input: Input, now: Now, store: &mut dyn Store) {
        match input {
            Input::Request { from, forwarded, message } => {
                self.on_request(from, forwarded, message, now, store);
            }
            Input::Reply { id, message } => self.on_heard(id, Heard::Reply(message), now, store),
            Input::Undelivered { id } => self.on_heard(id, Heard::Silence, now, store),
            Input::PeerUp(peer) => self.on_peer_up(peer, now, store),
            Input::PeerDown(peer) => self.on_peer_down(peer, now, store),
            Input::Topology(topology) => self.topology = topology,
            Input::Stop => self.stopping = true,
            Input::Wake => {}
        }
        self.on_time(now, store);
    }

    /// Whether the tick's commit must be fsynced, and everything before it with it. `staged` says
    /// whether there is anything to commit: where every commit is fsynced, an empty one is nothing.
    pub fn wants_fsync(&self, staged: bool) -> bool {
        if self.config.always_fsync { staged } else { self.fsync }
    }

    /// Ends the tick: the effects that may go out now that its commit succeeded, or what is left
    /// of them when it failed. Then nothing the tick staged exists: what was started in it is
    /// answered as refused, and acks of it become errors.
    pub fn end_tick(&mut self, committed: Result<(), StoreError>) -> Vec<Effect> {
        self.fsync = false;
        let started = core::mem::take(&mut self.started);
        let effects = core::mem::take(&mut self.effects);
        match committed {
            Ok(()) => effects,
            Err(error) => self.unsay(effects, &started, &error),
        }
    }

    /// When the next deadline is due, in the lane's microseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.table.next_deadline()
    }

    /// Operations that somebody waits for.
    pub fn inflight(&self) -> usize {
        self.table.waiting()
    }

    /// Figures since the lane was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Peers' lanes that can be reached.
    pub fn peers_up(&self) -> impl Iterator<Item = PeerLane> {
        self.up.iter().copied()
    }

    fn on_request(
        &mut self,
        from: ReplyTo,
        forwarded: bool,
        message: Message,
        now: Now,
        store: &mut dyn Store,
    ) {
        let from_client = matches!(
            message,
            Message::Put(_)
                | Message::Get(_)
                | Message::List(_)
                | Message::Explain(_)
                | Message::CreateBucket(_)
        );
        if from_client {
            let op = self.table.next_id();
            self.started.push((op, from));
            let full = self.table.waiting() >= self.config.limits.inflight;
            let started = self.with(now, store, |ctx, stopping| {
                let refusal = if stopping {
                    Some(Failure::Stopping)
                } else if full {
                    Some(Failure::Overloaded { retry_after_ms: OVERLOAD_RETRY_MS })
                } else {
                    None
                };
                match refusal {
                    Some(failure) => {
                        ctx.refuse(from, op, failure);
                        None
                    }
                    None => start(ctx, op, from, forwarded, message),
                }
            });
            if let Some(started) = started {
                self.table.insert(op, started);
            }
        } else {
            self.with(now, store, |ctx, _| serve_peer(ctx, from, message));
        }
    }

    fn on_heard(&mut self, id: u64, heard: Heard, now: Now, store: &mut dyn Store) {
        let (op, index) = of_ask_id(id);
        if op == NOBODY {
            return;
        }
        let Some(mut under_way) = self.table.take(op) else {
            return;
        };
        let step = self.with(now, store, |ctx, _| match &mut under_way {
            Op::Put(put, _) => put.on_heard(ctx, index, heard),
            Op::Get(get, _) => get.on_heard(ctx, index, heard),
            Op::List(list, _) => list.on_heard(ctx, index, heard),
            Op::Explain(explain, _) => explain.on_heard(ctx, index, heard),
            Op::Forward(forward, _) => forward.on_heard(ctx, heard),
            Op::Bucket(bucket) => bucket.on_heard(ctx, heard),
            Op::Known(known) => known.on_heard(ctx, heard),
        });
        if step == Step::Wait {
            self.table.insert(op, under_way);
        }
    }

    fn on_peer_up(&mut self, peer: PeerLane, now: Now, store: &mut dyn Store) {
        self.up.insert(peer);
        // A storage error leaves the origins unconfirmed: the next mint renews them, safely.
        let questions = self.with(now, store, |ctx, _| KnownOp::questions(ctx, peer));
        for asked in questions.unwrap_or_default() {
            let op = self.table.next_id();
            let known = self.with(now, store, |ctx, _| KnownOp::start(ctx, op, peer, asked));
            self.table.insert(op, Op::Known(known));
        }
    }

    fn on_peer_down(&mut self, peer: PeerLane, now: Now, store: &mut dyn Store) {
        self.up.remove(&peer);
        for id in self.table.asks_of(peer, &self.topology) {
            self.on_heard(id, Heard::Silence, now, store);
        }
    }

    fn on_time(&mut self, now: Now, store: &mut dyn Store) {
        let lingering = self.config.limits.inflight.saturating_mul(LINGERING_PER_INFLIGHT);
        while let Some((op, late)) =
            self.table.take_due(now.micros).or_else(|| self.table.take_lingering_above(lingering))
        {
            self.give_up(op, late, now, store);
        }
    }

    fn give_up(&mut self, op: u64, mut late: Op, now: Now, store: &mut dyn Store) {
        let step = self.with(now, store, |ctx, _| match &mut late {
            Op::Put(put, _) => put.on_deadline(ctx),
            Op::Get(get, _) => get.on_deadline(ctx),
            Op::List(list, _) => list.on_deadline(ctx),
            Op::Explain(explain, _) => explain.on_deadline(ctx),
            Op::Forward(forward, _) => forward.on_deadline(ctx),
            Op::Bucket(bucket) => bucket.on_deadline(ctx),
            Op::Known(_) => Step::Done,
        });
        debug_assert_eq!(step, Step::Done, "operation {op} outlived its deadline");
    }

    /// Lends the lane's pieces to one operation.
    fn with<T>(
        &mut self,
        now: Now,
        store: &mut dyn Store,
        f: impl FnOnce(&mut Ctx<'_>, bool) -> T,
    ) -> T {
        let mut ctx = Ctx {
            config: &self.config,
            topology: &self.topology,
            store,
            now,
            effects: &mut self.effects,
            up: &self.up,
            counters: &mut self.counters,
            origins: &mut self.origins,
            fsync: &mut self.fsync,
        };
        f(&mut ctx, self.stopping)
    }

    /// What remains to be done of a tick whose commit failed.
    fn unsay(
        &mut self,
        effects: Vec<Effect>,
        started: &[(u64, ReplyTo)],
        error: &StoreError,
    ) -> Vec<Effect> {
        let applied = match error {
            StoreError::InDoubt { .. } => AppliedOutcome::Maybe { acks: 0 },
            StoreError::Full | StoreError::Corrupt { .. } | StoreError::Failed { .. } => {
                AppliedOutcome::No
            }
        };
        let error = as_replica_error(error);
        let fresh: BTreeSet<u64> = started.iter().map(|(op, _)| *op).collect();
        for op in &fresh {
            self.table.take(*op);
        }
        let mut kept: Vec<Effect> =
            effects.into_iter().filter_map(|effect| unsay_one(effect, &fresh, &error)).collect();
        kept.extend(started.iter().map(|&(op, to)| {
            let failure = Failure::Coordinator(error.clone());
            let failed = Failed { failure, applied, answers: Vec::new() };
            Effect::Answer { to, op, message: Message::Failed(failed) }
        }));
        kept
    }
}

/// An effect as it stands after a failed commit: gone if it belongs to an operation of the tick, an
/// error if it is a replica's word on what it stored or holds, unchanged otherwise.
fn unsay_one(effect: Effect, fresh: &BTreeSet<u64>, error: &ReplicaError) -> Option<Effect> {
    match effect {
        Effect::Ask { id, .. } if fresh.contains(&of_ask_id(id).0) => None,
        Effect::Answer { op, .. } if fresh.contains(&op) => None,
        // A repair may carry what this tick staged.
        Effect::Ask { id, .. } if of_ask_id(id).0 == NOBODY => None,
        Effect::Answer { to, op, message } => {
            let error = error.clone();
            let message = match message {
                Message::Replicated(_) => Message::Replicated(Replicated { result: Err(error) }),
                Message::Fetched(_) => Message::Fetched(Err(error)),
                Message::FetchedPage(_) => Message::FetchedPage(Err(error)),
                // An earlier read may have been answered from what this tick staged.
                Message::GetDone(_) => {
                    let (failure, applied) = (Failure::Coordinator(error), AppliedOutcome::No);
                    Message::Failed(Failed { failure, applied, answers: Vec::new() })
                }
                Message::BucketDefined(_) => {
                    Message::BucketDefined(Err(Failure::Coordinator(error)))
                }
                other => other,
            };
            Some(Effect::Answer { to, op, message })
        }
        Effect::DefineBucket { .. } => None,
        Effect::Ask { .. } => Some(effect),
    }
}

/// Starts a client's request here, or sends it on to an owner.
fn start(
    ctx: &mut Ctx<'_>,
    op: u64,
    from: ReplyTo,
    forwarded: bool,
    message: Message,
) -> Option<Op> {
    let shard = match route(ctx, &message) {
        Ok(None) => return start_here(ctx, op, from, message, None),
        Ok(Some(shard)) => shard,
        Err(failure) => {
            ctx.refuse(from, op, failure);
            return None;
        }
    };
    let owners = ctx.topology.owners(shard);
    let me = ctx.topology.lane_of(ctx.topology.node, shard.partition);
    let here =
        owners.contains(&ctx.topology.node) && me.is_some_and(|lane| lane.lane == ctx.config.lane);
    if here {
        return start_here(ctx, op, from, message, Some(shard));
    }
    let failure = if forwarded {
        Failure::Coordinator(ReplicaError::NotOwner)
    } else {
        // Another lane of this node first, then the other owners in preference order.
        let mine = owners.iter().filter(|&&node| ctx.is_me(node));
        let others = owners.iter().filter(|&&node| !ctx.is_me(node));
        let to = mine.chain(others).find_map(|&node| ctx.reach(node, shard));
        match (to, refuse::deadline(ctx, timeout_of(&message))) {
            (Some(to), Ok(deadline)) => {
                let forward = ForwardOp::start(ctx, op, from, to, message, deadline);
                return Some(Op::Forward(forward, to));
            }
            (None, _) => Failure::NoOwnerReachable,
            (_, Err(failure)) => failure,
        }
    };
    ctx.refuse(from, op, failure);
    None
}

/// The shard whose owners may coordinate a request; `None` if it has none.
fn route(ctx: &Ctx<'_>, message: &Message) -> Result<Option<Shard>, Failure> {
    let key = match message {
        Message::Put(put) => &put.key,
        Message::Get(get) => &get.key,
        Message::Explain(explain) => &explain.key,
        Message::List(list) => {
            let props = ctx.topology.buckets.get(&list.bucket).ok_or(Failure::UnknownBucket)?;
            let shard = Shard { partition: list.partition, n: props.n };
            if !ctx.topology.layout.contains(shard) {
                let what = format!("partition {} does not exist", list.partition);
                return Err(Failure::Malformed { what });
            }
            return Ok(Some(shard));
        }
        _ => return Ok(None),
    };
    let (_, shard) = ctx.topology.locate(key).ok_or(Failure::UnknownBucket)?;
    Ok(Some(shard))
}

fn timeout_of(message: &Message) -> u32 {
    match message {
        Message::Put(put) => put.timeout_ms,
        Message::Get(get) => get.timeout_ms,
        Message::List(list) => list.timeout_ms,
        Message::Explain(explain) => explain.timeout_ms,
        _ => 0,
    }
}

fn start_here(
    ctx: &mut Ctx<'_>,
    op: u64,
    from: ReplyTo,
    message: Message,
    shard: Option<Shard>,
) -> Option<Op> {
    match (message, shard) {
        (Message::Put(put), Some(shard)) => {
            let owners = ctx.topology.owners(shard);
            PutOp::start(ctx, op, from, put, shard, &owners).map(|put| Op::Put(put, shard))
        }
        (Message::Get(get), Some(shard)) => {
            let owners = ctx.topology.owners(shard);
            GetOp::start(ctx, op, from, get, shard, &owners).map(|get| Op::Get(get, shard))
        }
        (Message::List(list), Some(shard)) => {
            ListOp::start(ctx, op, from, list, shard).map(|list| Op::List(list, shard))
        }
        (Message::Explain(explain), Some(shard)) => {
            ExplainOp::start(ctx, op, from, explain).map(|explain| Op::Explain(explain, shard))
        }
        (Message::CreateBucket(bucket), None) => start_bucket(ctx, op, from, bucket),
        (message, _) => {
            let what = format!("{} is not a request", message.name());
            ctx.refuse(from, op, Failure::Malformed { what });
            None
        }
    }
}

fn start_bucket(ctx: &mut Ctx<'_>, op: u64, from: ReplyTo, bucket: CreateBucket) -> Option<Op> {
    if ctx.config.lane != LaneIndex(0) {
        let node = ctx.topology.bucket_home();
        ctx.refuse(from, op, Failure::BucketHome { node });
        return None;
    }
    BucketOp::start(ctx, op, from, bucket).map(Op::Bucket)
}

/// Answers what needs no operation.
fn serve_peer(ctx: &mut Ctx<'_>, from: ReplyTo, message: Message) {
    match message {
        Message::Replicate(replicate) => serve::on_replicate(ctx, from, replicate),
        Message::Fetch(fetch) => serve::on_fetch(ctx, from, fetch),
        Message::FetchPage(fetch) => serve::on_fetch_page(ctx, from, fetch),
        Message::DefineBucket(bucket) => {
            let defined = buckets::on_define(ctx, bucket);
            ctx.answer(from, NOBODY, Message::BucketDefined(defined));
        }
        Message::AskKnown(ask) => match known::answer(ctx, &ask) {
            Ok(known) => ctx.answer(from, NOBODY, Message::Known(known)),
            Err(error) => {
                ctx.refuse(from, NOBODY, Failure::Coordinator(as_replica_error(&error)));
            }
        },
        Message::Describe => {
            let topology = ctx.topology;
            let view = ClusterView {
                cluster: topology.layout.cluster(),
                name: topology.name.clone(),
                node: topology.node,
                layout: topology.layout.clone(),
                buckets: topology.buckets.clone(),
            };
            ctx.answer(from, NOBODY, Message::Described(Box::new(view)));
        }
        message => {
            let what = format!("{} is not a request", message.name());
            ctx.refuse(from, NOBODY, Failure::Malformed { what });
        }
    }
}

/// Answered operations that may listen to late replicas, per operation that may be waited for.
const LINGERING_PER_INFLIGHT: usize = 4;

/// When a client refused for overload should come again: a few service times of a full table.
const OVERLOAD_RETRY_MS: u32 = 50;
