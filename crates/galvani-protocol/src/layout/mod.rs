//! How a cluster goes from one layout to the next while it serves.
//!
//! A majority of the members decides on each epoch ([`register`]); whoever decided tells everybody. In
//! the first phase of a change those that come catch up with the old owners ([`transfer`]); one node
//! sees to it that the change goes on ([`steward`]). Afterwards those that own a shard no more give up
//! what they hold ([`retire`]), and hints go to whoever owns their keys now ([`rehome`]). A voter
//! that lost its disk asks the others before it votes again ([`recall`]), an owner before it is read from
//! ([`refill`]). Those that are to come are looked at before a change begins ([`vet`]).
//! Reads and writes never wait for a decision: they go by the epoch they know, and are refused where
//! that is too old (`serve.rs`). Next to read: `galvani-model/src/placement/state.rs`; algorithms 9.4.

mod gate;
pub(crate) mod recall;
pub(crate) mod refill;
pub(crate) mod register;
pub(crate) mod rehome;
pub(crate) mod retire;
mod sources;
pub(crate) mod steward;
pub(crate) mod transfer;
pub(crate) mod vet;

use crate::effect::{Effect, Now, PeerLane, ReplyTo};
use crate::ops::{Ctx, Heard, NOBODY, Step};
use crate::refuse;
use crate::replica::as_replica_error;
use crate::topology::Topology;
use galvani_model::ids::{LaneIndex, NodeId, Shard};
use galvani_model::placement::{LayoutState, StateError};
use galvani_wire::Message;
use galvani_wire::failure::Failure;
use galvani_wire::layout::{ChangeLayout, Progress, Wish};
use galvani_wire::view::{ClusterView, LayoutChange};
use recall::{Recall, RecallOp};
use refill::{Refill, RefillOp};
use register::ProposeOp;
use rehome::{Rehome, RehomeOp};
use retire::{Retire, RetireOp};
use std::sync::Arc;
use steward::{Steward, SurveyOp, TellOp};
use transfer::{MeetOp, Transfer};
use vet::{VetOp, Vetted};

/// How often a lane that knows of a later epoch asks for it, in microseconds.
const ASK_MICROS: u64 = 100_000;
/// The pause after a question that only a doubt was the reason for, in microseconds.
const DOUBT_MICROS: u64 = 500_000;
/// No cluster gets so far: whoever speaks of a later epoch is not believed.
const EPOCH_MAX: u64 = u64::MAX >> 1;
/// How long a peer may take to answer anything here, in microseconds.
const PATIENCE_MICROS: u64 = 2_000_000;

/// What a lane does about its layout.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    /// The latest epoch that somebody spoke of.
    heard: u64,
    /// When it is asked for again.
    ask_at: u64,
    /// Whether something suggests that there is a later one, without saying which.
    doubts: bool,
    /// Who is asked next, of those that can be reached.
    ask_next: usize,
    /// The latest epoch that this lane has handed on to its node.
    adopting: u64,
    pub(crate) transfer: Transfer,
    pub(crate) retire: Retire,
    pub(crate) rehome: Rehome,
    pub(crate) steward: Steward,
    pub(crate) recall: Recall,
    pub(crate) refill: Refill,
    pub(crate) read: register::Read,
}

/// What is to be started.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Ask a peer for the layout.
    CatchUp(PeerLane),
    /// Ask a source for its clocks.
    Meet(PeerLane, Vec<Shard>),
    /// Ask an owner for its clocks of shards that this lane owns no more.
    Retire(PeerLane, Vec<Shard>),
    /// Hand hints to whoever owns their keys now.
    Rehome(rehome::Page),
    /// Tell a node of the layout.
    Tell(PeerLane),
    /// Ask a lane how far it is.
    Survey(PeerLane),
    /// Ask an owner for its clocks of shards that this lane lost.
    Refill(PeerLane, Vec<Shard>),
    /// Ask a voter what it has promised.
    Recall(PeerLane),
    /// Propose the next state.
    Propose(LayoutState),
}

/// Something under way.
#[derive(Clone, Debug)]
pub(crate) enum LayoutOp {
    CatchUp(CatchUpOp),
    Meet(MeetOp),
    Retire(RetireOp),
    Rehome(RehomeOp),
    Tell(TellOp),
    Survey(SurveyOp),
    Recall(RecallOp),
    Refill(RefillOp),
    Vet(Box<VetOp>),
    Propose(Box<ProposeOp>),
}

impl Layouts {
    /// Somebody goes by this epoch.
    pub(crate) fn heard_of(&mut self, epoch: u64) {
        self.heard = self.heard.max(epoch.min(EPOCH_MAX));
    }

    /// A peer goes by other owners: one of the two is behind.
    pub(crate) fn doubt(&mut self) {
        self.doubts = true;
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self, epoch: u64) -> Option<u64> {
        let ask = (self.heard > epoch || self.doubts).then_some(self.ask_at);
        let parts = [self.transfer.next_deadline(), self.retire.next_deadline()];
        let others = [self.rehome.next_deadline(), self.steward.next_deadline()];
        let lost = self.recall.next_deadline().into_iter().chain(self.refill.next_deadline());
        ask.into_iter().chain(lost).chain(parts.into_iter().chain(others).flatten()).min()
    }

    /// A peer is there or is not any more. What it said it has may be gone when it is back, and what it said
    /// while it was held for down was not asked for.
    pub(crate) fn doubt_peer(&mut self, peer: PeerLane, now: Now) {
        self.transfer.doubt_peer(peer, now);
        self.refill.doubt_peer(peer, now);
    }

    /// Whether nothing is left to do but what peers that cannot be reached hold up.
    pub(crate) fn is_settled(&self, epoch: u64) -> bool {
        let at_rest = self.transfer.left() == 0 && self.retire.left() == 0;
        self.heard <= epoch && at_rest && self.steward.is_settled() && self.rehome.is_settled()
    }

    /// What a failed commit took away: what was emptied or decided in it was not.
    pub(crate) fn unsay(&mut self, now: Now) {
        self.adopting = 0;
        self.transfer.unsay(now);
        self.retire.unsay(now);
        self.recall.unsay();
        self.refill.unsay(now);
    }
}

/// The layout has another state, or there are other buckets.
pub(crate) fn on_topology(ctx: &mut Ctx<'_>) {
    let epoch = ctx.topology.epoch();
    ctx.layout.heard_of(epoch);
    // What was lost decides what a copy here is worth in a change.
    refill::renew(ctx);
    transfer::renew(ctx);
    retire::renew(ctx);
    ctx.layout.rehome.look(ctx.now);
    steward::renew(ctx);
    recall::renew(ctx);
}

/// Works out what is to be done now. The lane starts an operation for each.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<Wanted> {
    let (now, epoch) = (ctx.now.micros, ctx.topology.epoch());
    if ctx.layout.next_deadline(epoch).is_none_or(|due| due > now) {
        return Vec::new();
    }
    let mut wanted: Vec<Wanted> = catch_up(ctx).into_iter().collect();
    wanted.extend(transfer::poll(ctx));
    wanted.extend(retire::poll(ctx));
    wanted.extend(rehome::poll(ctx));
    wanted.extend(steward::poll(ctx));
    wanted.extend(recall::poll(ctx));
    wanted.extend(refill::poll(ctx));
    wanted
}

fn catch_up(ctx: &mut Ctx<'_>) -> Option<Wanted> {
    let layout = &mut *ctx.layout;
    let is_behind = layout.heard > ctx.topology.epoch();
    if !(is_behind || layout.doubts) || layout.ask_at > ctx.now.micros {
        return None;
    }
    layout.doubts = false;
    if is_behind {
        // What was handed on may not have been written down.
        layout.adopting = 0;
    }
    layout.ask_at = ctx.now.micros + if is_behind { ASK_MICROS } else { DOUBT_MICROS };
    let first = |peer: &&PeerLane| peer.lane == LaneIndex(0) && peer.node != ctx.topology.node;
    let peers: Vec<PeerLane> = ctx.up.iter().filter(first).copied().collect();
    layout.ask_next = layout.ask_next.wrapping_add(1);
    peers.get(layout.ask_next % peers.len().max(1)).copied().map(Wanted::CatchUp)
}

/// Starts one of [`poll`]'s wishes; `None` if it is over at once.
pub(crate) fn start(ctx: &mut Ctx<'_>, op: u64, wanted: Wanted) -> Option<LayoutOp> {
    Some(match wanted {
        Wanted::CatchUp(to) => {
            ctx.ask(to, op, 0, Message::AskLayout);
            LayoutOp::CatchUp(CatchUpOp { to, deadline: ctx.now.micros + PATIENCE_MICROS })
        }
        Wanted::Meet(to, shards) => LayoutOp::Meet(MeetOp::start(ctx, op, to, shards)),
        Wanted::Retire(to, shards) => LayoutOp::Retire(RetireOp::start(ctx, op, to, shards)),
        Wanted::Rehome(page) => return RehomeOp::start(ctx, op, page).map(LayoutOp::Rehome),
        Wanted::Tell(to) => LayoutOp::Tell(TellOp::start(ctx, op, to)),
        Wanted::Survey(to) => LayoutOp::Survey(SurveyOp::start(ctx, op, to)),
        Wanted::Refill(to, shards) => LayoutOp::Refill(RefillOp::start(ctx, op, to, shards)),
        Wanted::Recall(to) => LayoutOp::Recall(RecallOp::start(ctx, op, to)),
        Wanted::Propose(state) => {
            let deadline = ctx.now.micros + steward::PROPOSE_MICROS;
            return propose(ctx, op, None, state, deadline);
        }
    })
}

impl LayoutOp {
    /// An answer came, or will not.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        match self {
            LayoutOp::CatchUp(_) => {
                if let Heard::Reply(Message::LayoutIs(state)) = heard {
                    adopt(ctx, *state);
                }
                Step::Done
            }
            LayoutOp::Meet(op) => op.on_heard(ctx, heard),
            LayoutOp::Retire(op) => op.on_heard(ctx, heard),
            LayoutOp::Rehome(op) => op.on_heard(ctx, index, heard),
            LayoutOp::Tell(op) => op.on_heard(ctx, &heard),
            LayoutOp::Survey(op) => op.on_heard(ctx, heard),
            LayoutOp::Recall(op) => op.on_heard(ctx, heard),
            LayoutOp::Refill(op) => op.on_heard(ctx, heard),
            LayoutOp::Vet(op) => {
                let vetted = op.on_heard(ctx, index, heard);
                self.vetted(ctx, vetted)
            }
            LayoutOp::Propose(op) => op.on_heard(ctx, index, heard),
        }
    }

    /// Time is up, or it is to try again.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        match self {
            LayoutOp::CatchUp(_) => Step::Done,
            LayoutOp::Meet(op) => op.on_heard(ctx, Heard::Silence),
            LayoutOp::Retire(op) => op.on_heard(ctx, Heard::Silence),
            LayoutOp::Rehome(op) => op.give_up(ctx),
            LayoutOp::Tell(op) => op.on_heard(ctx, &Heard::Silence),
            LayoutOp::Survey(op) => op.on_heard(ctx, Heard::Silence),
            LayoutOp::Recall(op) => op.on_heard(ctx, Heard::Silence),
            LayoutOp::Refill(op) => op.on_heard(ctx, Heard::Silence),
            LayoutOp::Vet(op) => {
                let vetted = op.on_deadline(ctx);
                self.vetted(ctx, vetted)
            }
            LayoutOp::Propose(op) => op.on_deadline(ctx),
        }
    }

    /// Those that are to join can, and the change is proposed; or they cannot.
    fn vetted(&mut self, ctx: &mut Ctx<'_>, vetted: Vetted) -> Step {
        let LayoutOp::Vet(vet) = self else { return Step::Wait };
        let (op, from) = (vet.op, vet.from);
        match vetted {
            Vetted::Wait => Step::Wait,
            Vetted::Unfit(failure) => {
                ctx.refuse(from, op, failure);
                Step::Done
            }
            Vetted::Fit => {
                let (next, deadline) = (vet.next.clone(), vet.client_deadline);
                match propose(ctx, op, Some(from), next, deadline) {
                    Some(proposal) => {
                        *self = proposal;
                        Step::Wait
                    }
                    None => Step::Done,
                }
            }
        }
    }

    /// When it is to be looked at again, in the lane's microseconds.
    pub(crate) fn deadline(&self) -> u64 {
        match self {
            LayoutOp::CatchUp(op) => op.deadline,
            LayoutOp::Meet(op) => op.deadline,
            LayoutOp::Retire(op) => op.deadline,
            LayoutOp::Rehome(op) => op.deadline,
            LayoutOp::Tell(op) => op.deadline,
            LayoutOp::Survey(op) => op.deadline,
            LayoutOp::Recall(op) => op.deadline,
            LayoutOp::Refill(op) => op.deadline,
            LayoutOp::Vet(op) => op.wake_at(),
            LayoutOp::Propose(op) => op.wake_at(),
        }
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_waited_for(&self) -> bool {
        match self {
            LayoutOp::Vet(_) => true,
            LayoutOp::Propose(op) => op.is_waited_for(),
            LayoutOp::CatchUp(_) | LayoutOp::Meet(_) | LayoutOp::Retire(_) => false,
            LayoutOp::Rehome(_) | LayoutOp::Tell(_) | LayoutOp::Survey(_) => false,
            LayoutOp::Recall(_) | LayoutOp::Refill(_) => false,
        }
    }

    /// The index of its ask that waits for `peer`, if one does.
    pub(crate) fn waits_for(&self, peer: PeerLane) -> Option<usize> {
        let only = |to: PeerLane| (to == peer).then_some(0);
        match self {
            LayoutOp::CatchUp(op) => only(op.to),
            LayoutOp::Meet(op) => only(op.to),
            LayoutOp::Retire(op) => only(op.to),
            LayoutOp::Rehome(op) => op.waits_for(peer),
            LayoutOp::Tell(op) => only(op.to),
            LayoutOp::Survey(op) => only(op.to),
            LayoutOp::Recall(op) => only(op.to),
            LayoutOp::Refill(op) => only(op.to),
            LayoutOp::Vet(op) => op.waits_for(peer),
            LayoutOp::Propose(op) => op.waits_for(peer),
        }
    }
}

/// A question for the layout under way.
#[derive(Clone, Debug)]
pub(crate) struct CatchUpOp {
    to: PeerLane,
    deadline: u64,
}

/// The cluster has decided on a state: if it is later than what is known, the node writes it down and
/// tells its lanes.
pub(crate) fn adopt(ctx: &mut Ctx<'_>, state: LayoutState) {
    let known = ctx.topology.epoch().max(ctx.layout.adopting);
    let known_layout = ctx.topology.layout();
    if state.current().cluster() != known_layout.current().cluster()
        || state.partitions() != known_layout.partitions()
    {
        return;
    }
    ctx.layout.heard_of(state.epoch());
    if state.epoch() > known {
        ctx.layout.adopting = state.epoch();
        ctx.effects.push(Effect::Adopt(Arc::new(state)));
    }
}

/// Answers what peers ask of the layout.
pub(crate) fn serve(ctx: &mut Ctx<'_>, from: ReplyTo, message: Message) {
    let answer = match message {
        Message::AskLayout => {
            Message::LayoutIs(Box::new(LayoutState::clone(ctx.topology.layout())))
        }
        Message::LayoutIs(state) if state.epoch() < ctx.topology.epoch() => {
            Message::LayoutIs(Box::new(LayoutState::clone(ctx.topology.layout())))
        }
        Message::LayoutIs(state) => {
            adopt(ctx, *state);
            Message::Noted
        }
        Message::Prepare(prepare) => {
            let vote = register::on_prepare(ctx, &prepare);
            Message::Voted(vote.map_err(|error| as_replica_error(&error)))
        }
        Message::Accept(accept) => {
            let vote = register::on_accept(ctx, *accept);
            Message::Voted(vote.map_err(|error| as_replica_error(&error)))
        }
        Message::AskJoiner(ask) => return vet::serve(ctx, from, &ask),
        Message::AskProgress(ask) => {
            ctx.layout.heard_of(ask.epoch);
            Message::Progress(progress(ctx))
        }
        message => {
            let what = format!("{} is not a request", message.name());
            return ctx.refuse(from, NOBODY, Failure::Malformed { what });
        }
    };
    ctx.answer(from, NOBODY, answer);
}

/// How far this lane is.
fn progress(ctx: &mut Ctx<'_>) -> Progress {
    // Reads are about to be answered on the strength of it.
    let left = match transfer::note_done(ctx) {
        Ok(()) => ctx.layout.transfer.left() as u32,
        Err(_) => ctx.layout.transfer.left().max(1) as u32,
    };
    *ctx.fsync |= left == 0;
    let buckets = ctx.topology.buckets_mark();
    Progress { epoch: ctx.topology.epoch(), left, buckets }
}

/// What a client is told of the cluster.
pub(crate) fn describe(topology: &Topology) -> ClusterView {
    let state = topology.layout();
    let change = state.transition().map(|change| LayoutChange {
        old: state.current().clone(),
        new: change.next.clone(),
        phase: change.phase,
        begun: change.begun,
        pace: change.pace,
    });
    ClusterView {
        cluster: state.current().cluster(),
        name: topology.name.clone(),
        node: topology.node,
        layout: state.reading().clone(),
        epoch: state.epoch(),
        change,
        buckets: topology.buckets.clone(),
    }
}

/// Starts what an administrator asks of the layout; `None` if it is over at once.
pub(crate) fn change(
    ctx: &mut Ctx<'_>,
    op: u64,
    from: ReplyTo,
    change: ChangeLayout,
) -> Option<LayoutOp> {
    let deadline = match refuse::deadline(ctx, change.timeout_ms) {
        Ok(deadline) => deadline,
        Err(failure) => {
            ctx.refuse(from, op, failure);
            return None;
        }
    };
    match wished(ctx, &change.wish) {
        Ok(Some(next)) => match VetOp::start(ctx, op, from, &next, deadline) {
            Some(vet) => Some(LayoutOp::Vet(Box::new(vet))),
            None => propose(ctx, op, Some(from), next, deadline),
        },
        Ok(None) => {
            let state = Box::new(LayoutState::clone(ctx.topology.layout()));
            ctx.answer(from, op, Message::LayoutChanged(state));
            None
        }
        Err(failure) => {
            ctx.refuse(from, op, failure);
            None
        }
    }
}

/// The state that is wished for; `None` where it is that already.
fn wished(ctx: &mut Ctx<'_>, wish: &Wish) -> Result<Option<LayoutState>, Failure> {
    let state = ctx.topology.layout();
    if ctx.config.lane != LaneIndex(0) || state.current().member(ctx.topology.node).is_none() {
        let why = "the node that was asked is no member yet, or no more: ask another one".into();
        return Err(Failure::LayoutRefused { why });
    }
    match wish {
        Wish::Begin { next, after, pace } => {
            let on_its_way = state.transition().is_some_and(|change| change.next.id() == next.id());
            if on_its_way || state.current().id() == next.id() {
                return Ok(None);
            }
            if state.epoch() < *after {
                return Err(behind(ctx, *after));
            }
            let most = ctx.topology.copies().into_iter().max().unwrap_or(1);
            if most > next.n_max() {
                let nodes = next.members().len();
                let why = format!("a bucket keeps {most} copies, and there would be {nodes} nodes");
                return Err(Failure::LayoutRefused { why });
            }
            let begun = state.begin_at(next.clone(), *pace).map_err(state_failure)?;
            let epoch = state.epoch();
            if epoch != *after {
                let why = format!("it was asked for in epoch {after}, now it is epoch {epoch}");
                return Err(Failure::LayoutRefused { why });
            }
            Ok(Some(begun))
        }
        Wish::Abort { begun } => match state.transition().map(|change| change.begun) {
            Some(under_way) if under_way == *begun => {
                state.abort().map(Some).map_err(state_failure)
            }
            _ if state.epoch() < *begun => Err(behind(ctx, *begun)),
            // What was meant is over, or was given up.
            _ => Ok(None),
        },
        Wish::Pace { begun, pace } => match state.transition() {
            Some(change) if change.begun == *begun && change.pace == *pace => Ok(None),
            Some(change) if change.begun == *begun => {
                state.at_pace(*pace).map(Some).map_err(state_failure)
            }
            _ if state.epoch() < *begun => Err(behind(ctx, *begun)),
            _ => Err(state_failure(StateError::NotChanging)),
        },
    }
}

/// Whoever asks knows of a later epoch than this node: the next try may find it there.
fn behind(ctx: &mut Ctx<'_>, epoch: u64) -> Failure {
    ctx.layout.heard_of(epoch);
    Failure::LayoutChanged
}

fn state_failure(error: StateError) -> Failure {
    match error {
        StateError::Changing { version, .. } => Failure::LayoutChanging { version },
        StateError::NotNext { made_after, version } => {
            Failure::LayoutOutdated { made_after, version }
        }
        StateError::NotChanging
        | StateError::TooLate
        | StateError::OtherCluster
        | StateError::OtherLanes { .. }
        | StateError::Epochs { .. } => Failure::LayoutRefused { why: error.to_string() },
    }
}

fn propose(
    ctx: &mut Ctx<'_>,
    op: u64,
    from: Option<ReplyTo>,
    state: LayoutState,
    deadline: u64,
) -> Option<LayoutOp> {
    let started = ProposeOp::start(ctx, op, from, state, deadline);
    started.map(|op| LayoutOp::Propose(Box::new(op)))
}

/// The first lane of a node: it keeps the node's part in decisions.
fn first_lane(node: NodeId) -> PeerLane {
    PeerLane { node, lane: LaneIndex(0) }
}

/// The name of a fact of one shard.
fn fact_of(name: &[u8], shard: Shard) -> Vec<u8> {
    [name, &shard.partition.0.to_be_bytes(), &[shard.n]].concat()
}

/// Whether something that is tried every so often is due.
fn is_due(at: u64, now: Now) -> bool {
    at <= now.micros
}
