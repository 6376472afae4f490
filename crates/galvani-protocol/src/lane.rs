//! The lane: one core's single-threaded store front. It routes inputs to operations and keeps their
//! deadlines. What it decides itself is only whether a request is taken on at all.
//!
//! Contract: hand it any number of inputs with [`Lane::handle`], commit what they staged in the
//! store as one batch, tell [`Lane::end_tick`] how that went, and only then do the effects it
//! returns (INV-2: a dot never leaves a node before its batch is safe).
//! Next to read: `put.rs`, `get.rs`, `serve.rs`.

mod due;
mod failed_tick;
mod peers;
mod requests;

use crate::admission::Admission;
use crate::budget::Budget;
use crate::effect::{Effect, Input, Now, PeerLane, ReplyTo};
use crate::expired;
use crate::feed::clocks::HearOp;
use crate::feed::{self, Feeds};
use crate::handoff::fetch::FetchHintsOp;
use crate::handoff::{self, Handoff};
use crate::layout::{self, Layouts, refill};
use crate::membership::score::{Scores, is_waited_for};
use crate::membership::swim::{Standing, Swim};
use crate::ops::{Ctx, Heard, NOBODY, Step, of_ask_id};
use crate::origins::Origins;
use crate::reap::{self, ReapOp, Reaper};
use crate::share::Share;
use crate::sync::compare::CompareOp;
use crate::sync::damage::RecoverOp;
use crate::sync::pull::PullOp;
use crate::sync::run::RepairProgress;
use crate::sync::unequal::UnequalOp;
use crate::sync::{self, AntiEntropy, Ask};
use crate::table::{Op, OpTable};
use crate::topology::Topology;
use crate::trim::{self, TrimOp, Trimmer};
use galvani_model::ids::{LaneIndex, NodeId, Shard};
use galvani_model::limits::Limits;
use galvani_model::store::{OwnOrigin, Store, StoreError};
use galvani_wire::Message;
use galvani_wire::view::{Copying, Counters, Refilling};
use std::collections::{BTreeMap, BTreeSet};
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
    /// On lane 0 of a node that has others.
    swim: Option<Swim>,
    /// Nodes that are held for down.
    down: BTreeSet<NodeId>,
    scores: Scores,
    admission: Admission,
    /// The time of the last input.
    now: Now,
    origins: Origins,
    sync: AntiEntropy,
    handoff: Handoff,
    read_repairs: Budget,
    reaper: Reaper,
    feed: Feeds,
    trimmer: Trimmer,
    layout: Layouts,
    share: Share,
    /// Nothing is due before this, in its microseconds: the last commit failed.
    rests_until: u64,
    /// Whether it has not looked at its store yet.
    fresh: bool,
    counters: Counters,
    effects: Vec<Effect>,
    held_back: usize,
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
        // Any member may hold a hint that names what this one has forgotten.
        let members = topology.layout().members().map(|member| member.id());
        origins.know_members(members.filter(|&node| node != topology.node));
        for (shard, _) in kept {
            origins.keep(shard);
        }
        let sync = AntiEntropy::new(&config.limits, config.boot as u64);
        let handoff = Handoff::new((config.boot >> 64) as u64);
        let read_repairs = Budget::new(config.limits.read_repairs_per_second);
        let admission = Admission::new(config.limits.inflight);
        let reaper = Reaper::new(config.limits.anti_entropy_ms, config.limits.expiry_margin_ms);
        let trimmer = Trimmer::new(&config.limits);
        Lane {
            swim: peers::lives_with(&config, &topology),
            config,
            topology,
            table: OpTable::new(),
            up: BTreeSet::new(),
            down: BTreeSet::new(),
            scores: Scores::default(),
            admission,
            now: Now::default(),
            origins,
            sync,
            handoff,
            read_repairs,
            reaper,
            feed: Feeds::default(),
            trimmer,
            layout: Layouts::default(),
            share: Share::default(),
            rests_until: 0,
            fresh: true,
            counters: Counters::default(),
            effects: Vec::new(),
            held_back: 0,
            started: Vec::new(),
            fsync: false,
            stopping: false,
        }
    }

    /// Handles one input. Effects wait for [`Lane::end_tick`].
    pub fn handle(&mut self, input: Input, now: Now, store: &mut dyn Store) {
        self.now = now;
        if core::mem::take(&mut self.fresh) {
            self.with(now, store, |ctx, _| layout::on_topology(ctx));
        }
        match input {
            Input::Request { from, forwarded, arrived, mut message } => {
                if expired::charge(&mut message, now.micros.saturating_sub(arrived)) {
                    if is_waited_for(&message) {
                        self.share.served(now.micros);
                    }
                    self.on_request(from, forwarded, message, now, store);
                } else {
                    self.counters.expired += 1;
                    self.effects.push(expired::answer(from, &message));
                }
            }
            Input::Reply { id, message } => {
                let delay = self.scores.on_answer(id, is_done(&message), now.micros);
                if let Some(delay) = delay {
                    self.admission.on_delay(delay);
                }
                self.on_heard(id, Heard::Reply(message), now, store);
            }
            Input::Undelivered { id } => {
                self.scores.on_undelivered(id);
                self.on_heard(id, Heard::Silence, now, store);
            }
            Input::PeerUp(peer) => self.on_peer_up(peer, now, store),
            Input::PeerDown(peer) => self.on_peer_down(peer, now, store),
            Input::Datagram { from, bytes } => self.on_datagram(from, &bytes, now, store),
            Input::Liveness { node, alive } => self.on_liveness(node, alive, now, store),
            Input::WentBack(name) => self.with(now, store, |ctx, _| refill::on_told(ctx, name)),
            Input::TwinServed(name) => self.with(now, store, |ctx, _| refill::on_twin(ctx, name)),
            Input::Topology(topology) => self.on_topology(topology, now, store),
            Input::Verify(partition) => {
                self.sync.repair(&self.topology, self.config.lane, partition);
            }
            Input::Stop => self.stopping = true,
            Input::Wake => self.tell_feed(now, store),
        }
        self.on_time(now, store);
    }

    /// Pages of repair and hints took so much of the lane's time, their commit with it, up to now. Whoever
    /// drives the lane measures it: the next page of a lane that clients wait for comes the later for it.
    pub fn paid_for_pages(&mut self, micros: u64, now: Now) {
        self.share.paid(micros, now.micros, self.is_busy(now));
    }

    /// Bytes of values of the answers that the tick holds back. Whoever drives the lane ends the tick when
    /// they are many: a thousand reads may come at once.
    pub fn held_back(&self) -> usize {
        self.held_back
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
        // Once a tick: what came together is one sign.
        if self.admission.poll(self.now.micros) {
            self.scores.forget_best();
        }
        self.share.end_tick();
        self.fsync = false;
        let started = core::mem::take(&mut self.started);
        let effects = core::mem::take(&mut self.effects);
        self.held_back = 0;
        let effects = match committed {
            Ok(()) => {
                self.sync.committed(&self.topology);
                self.layout.refill.committed();
                effects
            }
            Err(error) => self.unsay(effects, &started, &error),
        };
        for effect in &effects {
            self.scores.on_effect(effect, self.now.micros);
        }
        effects
    }

    /// Operations that somebody waits for.
    pub fn inflight(&self) -> usize {
        self.table.waiting()
    }

    /// Whether nothing is under way, and anti-entropy and handoff with every peer that can be
    /// reached are at rest: all has been compared since it last changed, nothing that was seen to
    /// be missing here is still to come, no hint is held, and no tombstone can be collected.
    pub fn is_settled(&self) -> bool {
        let background = self.sync.is_settled() && self.handoff.is_settled();
        let layout = self.layout.is_settled(self.topology.epoch());
        self.table.is_empty() && background && self.reaper.is_settled() && layout
    }

    /// The epoch of the layout that it goes by.
    pub fn layout_epoch(&self) -> u64 {
        self.topology.epoch()
    }

    /// Whether its disk is known to have every vote on layouts that it ever gave: else it asks the others
    /// before it votes. Lane 0 of a member only.
    pub fn has_its_votes(&self) -> bool {
        self.layout.recall.is_whole()
    }

    /// Shards that it has yet to catch up with before the layout's change may go on.
    pub fn shards_copying(&self) -> usize {
        self.layout.transfer.left()
    }

    /// How far it is with that.
    pub fn copying(&self) -> Copying {
        self.layout.transfer.figures(self.now.micros)
    }

    /// What it has yet to get back after its disk was lost; it answers no reads of that.
    pub fn refilling(&self) -> Refilling {
        self.layout.refill.figures()
    }

    /// Shards that it holds and owns no more.
    pub fn shards_leaving(&self) -> usize {
        self.layout.retire.left()
    }

    /// Owners without which tombstones of this lane cannot be collected, and since when they cannot
    /// be reached (milliseconds since 1970); 0: not heard of since the lane was made.
    pub fn collection_waits(&self) -> BTreeMap<NodeId, u64> {
        self.reaper.waits(&self.topology, &self.up)
    }

    /// How long a record stays in the log after it was written once it was replaced, in milliseconds, as it
    /// is now: less than the limits say where their bytes do not reach so far back. 0: for ever.
    pub fn feed_keep_ms(&self) -> u64 {
        self.trimmer.keeps_ms()
    }

    /// Owners that hold the trimming of this lane's log back because they cannot be reached.
    pub fn trim_waits(&self) -> BTreeSet<NodeId> {
        self.trimmer.waits()
    }

    /// Shards of which this lane is known to lack something now.
    pub fn shards_behind(&self) -> usize {
        self.sync.shards_behind()
    }

    /// Other owners that hold other objects of a shard than this lane although both have taken in
    /// the same, as far as is known of those that can be reached.
    pub fn unequal(&self) -> impl Iterator<Item = (PeerLane, Shard)> {
        self.sync.unequal.all()
    }

    /// How far the repair that was asked for last is.
    pub fn repair(&self) -> RepairProgress {
        self.sync.repair_progress()
    }

    /// Consumers of the feed that have a session here.
    pub fn feed_sessions(&self) -> usize {
        self.feed.sessions()
    }

    /// Bytes of values that operations under way hold.
    pub fn held_bytes(&self) -> usize {
        self.table.held()
    }

    /// Bytes of values that the operation holds which holds most. Looks at all of them.
    pub fn held_most(&self) -> usize {
        self.table.held_most()
    }

    /// Answered operations that listen to late replicas: once a tick is over, at most
    /// [`LINGERING_PER_INFLIGHT`] for each request that the limits allow.
    pub fn lingering(&self) -> usize {
        self.table.lingering()
    }

    /// Client requests that may be under way now.
    pub fn admits(&self) -> usize {
        self.admission.limit()
    }

    /// Figures since the lane was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Peers' lanes that can be reached.
    pub fn peers_up(&self) -> impl Iterator<Item = PeerLane> {
        self.up.iter().copied()
    }

    /// How the nodes hold another node to be: known on lane 0 only, and what the lane was told
    /// elsewhere.
    pub fn standing(&self, node: NodeId) -> Standing {
        match &self.swim {
            _ if self.down.contains(&node) => Standing::Down,
            Some(swim) => swim.standing(node),
            None => Standing::Alive,
        }
    }

    /// Peers' lanes that did not answer this lane lately.
    pub fn peers_silent(&self) -> impl Iterator<Item = PeerLane> {
        self.scores.open()
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
            Op::Retried(retried, _) => retried.on_heard(ctx, index, heard),
            Op::Get(get, _) => get.on_heard(ctx, index, heard),
            Op::List(list, _) => list.on_heard(ctx, index, heard),
            Op::Explain(explain, _) => explain.on_heard(ctx, index, heard),
            Op::Forward(forward) => forward.on_heard(ctx, index, heard),
            Op::Bucket(bucket) => bucket.on_heard(ctx, heard),
            Op::Known(known) => known.on_heard(ctx, heard),
            Op::Compare(compare) => compare.on_heard(ctx, heard),
            Op::Pull(pull) => pull.on_heard(ctx, heard),
            Op::Recover(recover) => recover.on_heard(ctx, heard),
            Op::Unequal(unequal) => unequal.on_heard(ctx, heard),
            Op::FetchHints(fetch) => fetch.on_heard(ctx, heard),
            Op::Reap(reap) => reap.on_heard(ctx, index, heard),
            Op::Hear(hear) => hear.on_heard(ctx, heard),
            Op::Trim(trim) => trim.on_heard(ctx, index, heard),
            Op::Layout(layout) => layout.on_heard(ctx, index, heard),
        });
        match step {
            Step::Wait => self.table.insert(op, under_way),
            Step::Done => self.go_on(op, under_way, now, store),
        }
    }

    fn on_time(&mut self, now: Now, store: &mut dyn Store) {
        if self.swim.as_ref().is_some_and(|swim| swim.next_deadline() <= now.micros) {
            self.with_swim(now, store, |swim, out| swim.poll(now, out));
        }
        self.counters.breakers_opened += self.scores.poll(now.micros);
        let lingering = self.config.limits.inflight.saturating_mul(LINGERING_PER_INFLIGHT);
        while let Some((op, late)) =
            self.table.take_due(now.micros).or_else(|| self.table.take_lingering_above(lingering))
        {
            self.give_up(op, late, now, store);
        }
        for ask in self.with(now, store, |ctx, _| sync::poll(ctx)) {
            let op = self.table.next_id();
            let asked = self.with(now, store, |ctx, _| match ask {
                Ask::Compare(to, shards) => Op::Compare(CompareOp::start(ctx, op, to, shards)),
                Ask::Pull(to, shard, wanted) => Op::Pull(PullOp::start(ctx, op, to, shard, wanted)),
                Ask::Recover(to, shard, wanted) => {
                    Op::Recover(RecoverOp::start(ctx, op, to, shard, wanted))
                }
                Ask::Unequal(to, shard) => Op::Unequal(UnequalOp::start(ctx, op, to, shard)),
            });
            self.table.insert(op, asked);
        }
        for to in self.with(now, store, |ctx, _| handoff::poll(ctx)) {
            let op = self.table.next_id();
            let fetch = self.with(now, store, |ctx, _| FetchHintsOp::start(ctx, op, to));
            self.table.insert(op, Op::FetchHints(fetch));
        }
        for round in self.with(now, store, |ctx, _| reap::poll(ctx)) {
            let op = self.table.next_id();
            let reap = self.with(now, store, |ctx, _| ReapOp::start(ctx, op, round));
            self.table.insert(op, Op::Reap(reap));
        }
        for wanted in self.with(now, store, |ctx, _| layout::poll(ctx)) {
            let op = self.table.next_id();
            let started = self.with(now, store, |ctx, _| layout::start(ctx, op, wanted));
            if let Some(started) = started {
                self.table.insert(op, Op::Layout(started));
            }
        }
        if let Some(round) = self.with(now, store, |ctx, _| trim::poll(ctx)) {
            let op = self.table.next_id();
            let trim = self.with(now, store, |ctx, _| TrimOp::start(ctx, op, round));
            self.table.insert(op, Op::Trim(trim));
        }
    }

    /// Once a tick, when all that arrived in it was handled: consumers of the feed see what is new.
    fn tell_feed(&mut self, now: Now, store: &mut dyn Store) {
        if self.feed.is_idle() {
            return;
        }
        self.with(now, store, feed::poll);
        for (to, shards) in self.with(now, store, |ctx, _| feed::clocks::poll(ctx)) {
            let op = self.table.next_id();
            let hear = self.with(now, store, |ctx, _| HearOp::start(ctx, op, to, shards));
            self.table.insert(op, Op::Hear(hear));
        }
    }

    fn give_up(&mut self, op: u64, mut late: Op, now: Now, store: &mut dyn Store) {
        let step = self.with(now, store, |ctx, _| match &mut late {
            Op::Put(put, _) => put.on_deadline(ctx),
            Op::Retried(..) => Step::Done,
            Op::Get(get, _) => get.on_deadline(ctx),
            Op::List(list, _) => list.on_deadline(ctx),
            Op::Explain(explain, _) => explain.on_deadline(ctx),
            Op::Forward(forward) => forward.on_deadline(ctx),
            Op::Bucket(bucket) => bucket.on_deadline(ctx),
            Op::Known(_) => Step::Done,
            Op::Compare(compare) => compare.give_up(ctx),
            Op::Pull(pull) => pull.give_up(ctx),
            Op::Recover(recover) => recover.give_up(ctx),
            Op::Unequal(unequal) => unequal.give_up(ctx),
            Op::FetchHints(fetch) => fetch.give_up(ctx),
            Op::Reap(reap) => reap.give_up(ctx),
            Op::Hear(hear) => hear.give_up(ctx),
            Op::Trim(trim) => trim.give_up(ctx),
            Op::Layout(layout) => layout.on_deadline(ctx),
        });
        // A put may wait on, for stand-ins; a request that was sent on, for another owner.
        match step {
            Step::Wait => self.table.insert(op, late),
            Step::Done => {
                self.scores.forget_background(op);
                self.go_on(op, late, now, store);
            }
        }
    }

    /// Whether clients wait for this lane: for what it does itself, or does for another lane.
    fn is_busy(&self, now: Now) -> bool {
        self.table.waiting() > 0 || self.share.serves(now.micros)
    }

    /// Lends the lane's pieces to one operation.
    fn with<T>(
        &mut self,
        now: Now,
        store: &mut dyn Store,
        f: impl FnOnce(&mut Ctx<'_>, bool) -> T,
    ) -> T {
        let busy = self.is_busy(now);
        let mut ctx = Ctx {
            config: &self.config,
            topology: &self.topology,
            store,
            now,
            effects: &mut self.effects,
            held_back: &mut self.held_back,
            up: &self.up,
            down: &self.down,
            scores: &mut self.scores,
            counters: &mut self.counters,
            origins: &mut self.origins,
            sync: &mut self.sync,
            held: self.table.held(),
            handoff: &mut self.handoff,
            read_repairs: &mut self.read_repairs,
            reaper: &mut self.reaper,
            feed: &mut self.feed,
            trimmer: &mut self.trimmer,
            layout: &mut self.layout,
            share: &mut self.share,
            busy,
            fsync: &mut self.fsync,
        };
        f(&mut ctx, self.stopping)
    }
}

/// Whether an answer took the work that was asked for: a refusal is quick whatever stands in a queue.
fn is_done(answer: &Message) -> bool {
    match answer {
        Message::Failed(_) => false,
        Message::Replicated(replicated) => replicated.result.is_ok(),
        Message::Fetched(result) => result.is_ok(),
        Message::FetchedPage(result) => result.is_ok(),
        _ => true,
    }
}

/// Answered operations that may listen to late replicas, per operation that may be waited for.
pub const LINGERING_PER_INFLIGHT: usize = 4;
