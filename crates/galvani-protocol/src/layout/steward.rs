//! Seeing to it that a change of the layout goes on: one node tells, asks, and proposes the next phase.
//!
//! It is the first member that is not held for down; should two think so, the register keeps them
//! apart. A phase ends when every node that matters is known to be in it and, in the first, has caught
//! up. It moves nothing itself. Next to read: `transfer.rs`. Source: algorithms 9.4.

use super::{PATIENCE_MICROS, Wanted, first_lane, is_due};
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, NOBODY, Step};
use crate::topology::Topology;
use galvani_model::ids::{LaneIndex, NodeId, Partition, Shard};
use galvani_model::placement::{LayoutState, Phase};
use galvani_wire::Message;
use galvani_wire::layout::{AskProgress, Progress};
use galvani_wire::message::CreateBucket;
use std::collections::{BTreeMap, BTreeSet};

/// How often lanes are asked how far they are, and nodes are told that may not know, in microseconds.
const PACE_MICROS: u64 = 50_000;
/// How often the others look whether they have to see to it, in microseconds.
const WATCH_MICROS: u64 = 500_000;
/// How often a node that was told once is told again, while it does not say that it heard, in
/// microseconds.
const TELL_MICROS: u64 = 300_000;
/// How long a proposal of the next phase may take, in microseconds.
pub(crate) const PROPOSE_MICROS: u64 = 5_000_000;

/// What this lane does for the change; only the first lane of a member does anything.
#[derive(Debug, Default)]
pub(crate) struct Steward {
    /// Whether this node decided on the epoch that it goes by: then it tells the others.
    decided: u64,
    /// When something is to be done next.
    due_at: Option<u64>,
    /// Whether that is only for members that cannot be reached.
    waits: bool,
    /// Nodes that have the epoch, as far as they said.
    told: BTreeSet<NodeId>,
    /// When each node was told last.
    told_at: BTreeMap<NodeId, u64>,
    /// Members of an earlier layout who are to hear that they are none any more.
    former: BTreeSet<NodeId>,
    members: BTreeSet<NodeId>,
    /// What lanes said in this epoch.
    reports: BTreeMap<PeerLane, Progress>,
    asking: BTreeSet<PeerLane>,
    proposing: bool,
    epoch: u64,
}

impl Steward {
    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due_at
    }

    /// Whether it waits for nothing.
    pub(crate) fn is_settled(&self) -> bool {
        self.due_at.is_none() || self.waits
    }

    /// This node has decided on an epoch.
    pub(crate) fn decided(&mut self, epoch: u64) {
        self.decided = epoch;
    }

    /// A lane cannot be reached: what it said may not hold for the process that comes after it, nor may
    /// its node know any more what it was told.
    pub(crate) fn peer_down(&mut self, peer: PeerLane) {
        self.reports.remove(&peer);
        if peer.lane == LaneIndex(0) {
            self.told.remove(&peer.node);
        }
    }

    /// A proposal is over.
    pub(crate) fn proposed(&mut self) {
        self.proposing = false;
    }
}

/// The layout may have another state.
pub(crate) fn renew(ctx: &mut Ctx<'_>) {
    let (state, epoch) = (ctx.topology.layout(), ctx.topology.epoch());
    let steward = &mut ctx.layout.steward;
    if ctx.config.lane != LaneIndex(0) || steward.epoch == epoch {
        return;
    }
    let members: BTreeSet<NodeId> = state.members().map(|member| member.id()).collect();
    let before = core::mem::replace(&mut steward.members, members);
    steward.former.extend(before);
    steward.former.retain(|node| !steward.members.contains(node));
    steward.epoch = epoch;
    steward.told.clear();
    steward.told_at.clear();
    steward.reports.clear();
    steward.due_at = (epoch > 1).then_some(ctx.now.micros);
}

/// Who sees to the change, as far as this node knows: it may not have heard of it yet.
fn leader(ctx: &Ctx<'_>) -> NodeId {
    let mut members = ctx.topology.layout().current().members().iter().map(|member| member.id());
    let first = members.find(|node| ctx.is_me(*node) || !ctx.down.contains(node));
    first.unwrap_or(ctx.topology.node)
}

/// Works out whom to tell and to ask, and whether the next phase may begin.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<Wanted> {
    if !ctx.layout.steward.due_at.is_some_and(|at| is_due(at, ctx.now)) {
        return Vec::new();
    }
    let changing = ctx.topology.layout().transition().is_some();
    let mut wanted = Vec::new();
    let leader = leader(ctx);
    let leads = ctx.is_me(leader);
    let only = (!leads && ctx.layout.steward.decided != ctx.topology.epoch()).then_some(leader);
    let told_all = tell(ctx, only, &mut wanted);
    if changing && leads {
        survey(ctx, &mut wanted);
        if !ctx.layout.steward.proposing
            && let Some(next) = next_state(ctx)
        {
            ctx.layout.steward.proposing = true;
            wanted.push(Wanted::Propose(next));
        }
    }
    if changing && !leads {
        // Whoever sees to it may not reach this node.
        ctx.layout.doubt();
    }
    let now = changing && leads || told_all == Told::NotAll;
    let pace = if now { PACE_MICROS } else { WATCH_MICROS };
    let again = changing || told_all != Told::All;
    ctx.layout.steward.waits = !changing && told_all == Told::AllReached;
    ctx.layout.steward.due_at = again.then_some(ctx.now.micros + pace);
    wanted
}

/// Who knows of the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    All,
    /// All that can be reached.
    AllReached,
    NotAll,
}

/// Tells those that can be reached and may not know; or only one, whose part it is to tell the others.
fn tell(ctx: &mut Ctx<'_>, only: Option<NodeId>, wanted: &mut Vec<Wanted>) -> Told {
    let (now, me, up) = (ctx.now.micros, ctx.topology.node, ctx.up);
    let steward = &mut ctx.layout.steward;
    // Those who were members and cannot be reached will ask when they are back.
    steward.former.retain(|node| up.contains(&first_lane(*node)));
    let mut all = Told::All;
    for node in steward.members.iter().chain(&steward.former).copied() {
        let lane = first_lane(node);
        let passed_over = only.is_some_and(|only| only != node);
        if node == me || passed_over || steward.told.contains(&node) {
            continue;
        }
        if !up.contains(&lane) {
            all = all.max(Told::AllReached);
            continue;
        }
        all = Told::NotAll;
        let last = steward.told_at.get(&node).copied();
        if last.is_none_or(|at| at + TELL_MICROS <= now) {
            steward.told_at.insert(node, now);
            wanted.push(Wanted::Tell(lane));
        }
    }
    all
}

/// Asks the lanes that have not said what is needed.
fn survey(ctx: &mut Ctx<'_>, wanted: &mut Vec<Wanted>) {
    let own = super::progress(ctx);
    let me = PeerLane { node: ctx.topology.node, lane: ctx.config.lane };
    ctx.layout.steward.reports.insert(me, own);
    let asked: Vec<PeerLane> = lanes(ctx.topology)
        .filter(|lane| *lane != me && !is_done(ctx, *lane) && ctx.up.contains(lane))
        .collect();
    for lane in asked {
        if ctx.layout.steward.asking.insert(lane) {
            wanted.push(Wanted::Survey(lane));
        }
    }
}

/// All lanes of all members.
fn lanes(topology: &Topology) -> impl Iterator<Item = PeerLane> + '_ {
    topology.layout().members().flat_map(|member| {
        let lanes = (0..member.lane_count()).map(LaneIndex);
        lanes.map(|lane| PeerLane { node: member.id(), lane })
    })
}

/// Whether a lane goes by this epoch, has caught up, and knows the same buckets.
fn is_done(ctx: &Ctx<'_>, lane: PeerLane) -> bool {
    let (epoch, buckets) = (ctx.topology.epoch(), ctx.topology.buckets_mark());
    let report = ctx.layout.steward.reports.get(&lane);
    report.is_some_and(|it| it.epoch == epoch && it.left == 0 && it.buckets == buckets)
}

/// Whether all lanes of a node are known to go by this epoch.
fn has_adopted(ctx: &Ctx<'_>, node: NodeId) -> bool {
    let reports = &ctx.layout.steward.reports;
    let mut of_node = lanes(ctx.topology).filter(|lane| lane.node == node);
    of_node.all(|lane| reports.get(&lane).is_some_and(|it| it.epoch == ctx.topology.epoch()))
}

/// The next state, if everything is as it must be before it.
fn next_state(ctx: &Ctx<'_>) -> Option<LayoutState> {
    let state = ctx.topology.layout();
    let change = state.transition()?;
    let may = match change.phase {
        // Those that come have caught up with enough of the old owners, who were all in this phase
        // when they were asked. Those that only keep their shards need not even know.
        Phase::Copying => change.next.members().iter().all(|member| {
            if ctx.down.contains(&member.id()) && comes_nowhere(ctx, state, member.id()) {
                return true;
            }
            let mut of_node = lanes(ctx.topology).filter(|lane| lane.node == member.id());
            of_node.all(|lane| is_done(ctx, lane))
        }),
        // Whoever still reads from the old owners meets one that refuses.
        Phase::Switching => old_owners_are_fenced(ctx, state),
    };
    may.then(|| state.advance().ok()).flatten()
}

/// Whether a node has nothing to catch up with in a change.
fn comes_nowhere(ctx: &Ctx<'_>, state: &LayoutState, node: NodeId) -> bool {
    let all = |n| (0..state.partitions()).map(move |at| Shard { partition: Partition(at), n });
    ctx.topology
        .copies()
        .into_iter()
        .flat_map(all)
        .all(|shard| state.incoming(node, shard).is_none())
}

/// Whether all old owners that are not held for down go by this epoch, and of each shard that moves
/// so many that those who do not are no quorum of reads by majority.
fn old_owners_are_fenced(ctx: &Ctx<'_>, state: &LayoutState) -> bool {
    let mut late = BTreeSet::new();
    for member in state.current().members() {
        if has_adopted(ctx, member.id()) {
            continue;
        }
        if !ctx.down.contains(&member.id()) {
            return false;
        }
        late.insert(member.id());
    }
    if late.is_empty() {
        return true;
    }
    ctx.topology.copies().into_iter().all(|n| {
        let mut shards = (0..state.partitions()).map(|at| Shard { partition: Partition(at), n });
        shards.all(|shard| {
            let (old, new) = state.write_sets(shard);
            let missing = old.iter().filter(|node| late.contains(node)).count();
            new.is_none() || missing < majority(old.len())
        })
    })
}

/// More than half.
pub(crate) fn majority(n: usize) -> usize {
    n / 2 + 1
}

/// A node is being told of the layout.
#[derive(Clone, Debug)]
pub(crate) struct TellOp {
    pub(super) to: PeerLane,
    epoch: u64,
    pub(super) deadline: u64,
}

impl TellOp {
    pub(super) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane) -> TellOp {
        let state = Box::new(LayoutState::clone(ctx.topology.layout()));
        let epoch = state.epoch();
        ctx.ask(to, op, 0, Message::LayoutIs(state));
        TellOp { to, epoch, deadline: ctx.now.micros + PATIENCE_MICROS }
    }

    pub(super) fn on_heard(&self, ctx: &mut Ctx<'_>, heard: &Heard) -> Step {
        let steward = &mut ctx.layout.steward;
        match heard {
            Heard::Reply(Message::Noted) if steward.epoch == self.epoch => {
                steward.told.insert(self.to.node);
                steward.former.remove(&self.to.node);
            }
            Heard::Reply(Message::LayoutIs(state)) => super::adopt(ctx, LayoutState::clone(state)),
            Heard::Reply(_) | Heard::Silence => {}
        }
        Step::Done
    }
}

/// A lane is being asked how far it is.
#[derive(Clone, Debug)]
pub(crate) struct SurveyOp {
    pub(super) to: PeerLane,
    pub(super) deadline: u64,
}

impl SurveyOp {
    pub(super) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane) -> SurveyOp {
        let epoch = ctx.topology.epoch();
        ctx.ask(to, op, 0, Message::AskProgress(AskProgress { epoch }));
        SurveyOp { to, deadline: ctx.now.micros + PATIENCE_MICROS }
    }

    pub(super) fn on_heard(&self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        ctx.layout.steward.asking.remove(&self.to);
        if let Heard::Reply(Message::Progress(progress)) = heard {
            ctx.layout.heard_of(progress.epoch);
            let differs = progress.buckets != ctx.topology.buckets_mark();
            if differs && self.to.lane == LaneIndex(0) {
                tell_buckets(ctx, self.to);
            }
            ctx.layout.steward.reports.insert(self.to, progress);
        }
        Step::Done
    }
}

/// Tells a node of every bucket: one that joins knows those of its cluster file only.
fn tell_buckets(ctx: &mut Ctx<'_>, to: PeerLane) {
    let buckets = ctx.topology.buckets.iter();
    let buckets: Vec<CreateBucket> = buckets
        .map(|(name, props)| CreateBucket {
            name: name.clone(),
            props: props.clone(),
            timeout_ms: 0,
        })
        .collect();
    for bucket in buckets {
        ctx.ask(to, NOBODY, 0, Message::DefineBucket(bucket));
    }
}
