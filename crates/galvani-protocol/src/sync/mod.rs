//! Anti-entropy: owners show each other what they have taken in, and pull exactly the difference.
//!
//! Whenever a shard has changed, and when a peer comes back, this replica shows its partition clock
//! to the other owners ([`compare`]); whoever lacks dots asks for just their records ([`pull`]), a
//! page at a time, and takes them in with the same `apply` as everything else. So the cost follows
//! the difference, an idle cluster is silent but for a slow sweep, and a replica's clock never runs
//! ahead of its data: clocks are compared here, never merged but for dots whose records were trimmed.
//! It never sends unasked, never decides what a record means, and never waits for a peer.
//! Next to read: `compare.rs`, `pull.rs`. Source: Dotted-DB (Goncalves et al. 2017), section 4;
//! algorithms 2.5.

pub(crate) mod compare;
pub(crate) mod damage;
pub(crate) mod pull;
pub(crate) mod run;
pub(crate) mod unequal;
pub(crate) mod verify;

use crate::effect::{Now, PeerLane};
use crate::ops::Ctx;
use crate::replica;
use crate::topology::Topology;
use damage::Mender;
use galvani_model::ids::{LaneIndex, NodeId, Shard};
use galvani_model::limits::Limits;
use galvani_model::version::PartitionClock;
use run::Run;
use std::collections::{BTreeMap, BTreeSet};
use unequal::Unequal;
use verify::Verify;

/// How long dots that a peer's clock names may still be on their way here by replication before
/// they are pulled, in microseconds: far above a healthy round trip, so that a loaded cluster does
/// not send everything twice.
const SETTLE_MICROS: u64 = 1_000_000;
/// The same for a peer that has just come up: what it held before is not on its way.
const SETTLE_FRESH_MICROS: u64 = 20_000;
/// How long a peer counts as just come up, in microseconds.
const FRESH_MICROS: u64 = 500_000;
/// Every so often, in microseconds, all shards are compared, changed or not: so that a difference
/// that no change announced (a damaged disk, a lost message) is found within minutes. 256 empty
/// comparisons are some 25 KB.
const SWEEP_MICROS: u64 = 60_000_000;

/// What a lane knows of the exchanges with its peers.
#[derive(Clone, Debug)]
pub(crate) struct AntiEntropy {
    /// How long after a change owners compare, in microseconds; 0: never.
    interval: u64,
    /// Spreads the sweeps of nodes that start together.
    jitter: u64,
    peers: BTreeMap<PeerLane, Peer>,
    /// Shards that took something in and were not shown to anyone since.
    changed: BTreeSet<Shard>,
    /// When they are.
    spread_at: u64,
    /// Owners that a shard was compared with since this lane started, when nothing they had was lacking
    /// any more.
    met: BTreeSet<(Shard, NodeId)>,
    /// Shards that a pull is under way for: two peers never send the same records at once.
    pulling: BTreeSet<Shard>,
    /// Shards that were found unequal to a peer's with an equal clock.
    pub(crate) unequal: Unequal,
    /// Damaged rows on their way to being whole.
    pub(crate) mender: Mender,
    /// What is read through.
    pub(crate) verify: Verify,
    /// The repair that an operator asked for last.
    pub(crate) run: Run,
    /// When [`poll`] has something to do.
    due_at: Option<u64>,
}

/// One peer that can be reached.
#[derive(Clone, Debug)]
struct Peer {
    up_at: u64,
    /// Shards that were not compared with it since it came up, or of which not all has come yet.
    meeting: BTreeSet<Shard>,
    /// Shards that it should be shown.
    unsaid: BTreeSet<Shard>,
    compare_at: u64,
    comparing: bool,
    /// `None` where nothing is compared.
    sweep_at: Option<u64>,
    /// Shards of which it holds what this replica lacks.
    behind: BTreeMap<Shard, Behind>,
    pull_at: u64,
    /// Whether `pull_at` is a turn that was taken for it.
    has_turn: bool,
    pulling: bool,
}

#[derive(Clone, Debug)]
struct Behind {
    /// What the peer has taken in, or what is left to ask it for.
    clock: PartitionClock,
    due: u64,
}

/// What a poll wants asked.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Show a peer these shards.
    Compare(PeerLane, Vec<Shard>),
    /// Ask a peer for these dots.
    Pull(PeerLane, Shard, PartitionClock),
    /// Ask a peer for damaged records.
    Recover(PeerLane, Shard, PartitionClock),
    /// Find out in which objects a peer with an equal clock differs.
    Unequal(PeerLane, Shard),
}

impl AntiEntropy {
    /// Compares `anti_entropy_ms` after a change; never if that is 0. `jitter` is any number.
    pub(crate) fn new(limits: &Limits, jitter: u64) -> AntiEntropy {
        AntiEntropy {
            interval: u64::from(limits.anti_entropy_ms) * 1000,
            unequal: Unequal::default(),
            mender: Mender::default(),
            verify: Verify::new(limits.verify_hours, jitter),
            run: Run::default(),
            jitter,
            peers: BTreeMap::new(),
            changed: BTreeSet::new(),
            spread_at: 0,
            met: BTreeSet::new(),
            pulling: BTreeSet::new(),
            due_at: None,
        }
    }

    /// A shard has taken something in.
    pub(crate) fn note_change(&mut self, shard: Shard, now: Now) {
        if self.interval == 0 || !self.changed.insert(shard) || self.changed.len() > 1 {
            return;
        }
        self.spread_at = now.micros + self.interval;
        self.due_at = Some(self.due_at.map_or(self.spread_at, |due| due.min(self.spread_at)));
    }

    /// A peer can be reached: it is shown all that both own.
    pub(crate) fn peer_up(&mut self, peer: PeerLane, shared: BTreeSet<Shard>, now: Now) {
        if shared.is_empty() {
            return;
        }
        // Where nothing is compared, what a change of the layout needs is pulled all the same.
        let shared = if self.interval == 0 { BTreeSet::new() } else { shared };
        let spread = self.jitter.wrapping_add(u64::from(peer.lane.0)) % SWEEP_MICROS;
        let known = Peer {
            up_at: now.micros,
            meeting: shared.clone(),
            unsaid: shared,
            compare_at: now.micros,
            comparing: false,
            sweep_at: match self.interval {
                0 => None,
                _ => Some(now.micros + SWEEP_MICROS / 2 + spread),
            },
            behind: BTreeMap::new(),
            pull_at: 0,
            has_turn: false,
            pulling: false,
        };
        self.peers.insert(peer, known);
        self.reschedule();
    }

    /// A peer that can be reached is shown these shards, too.
    pub(crate) fn share(&mut self, peer: PeerLane, shared: BTreeSet<Shard>, now: Now) {
        match self.peers.get_mut(&peer) {
            Some(_) if self.interval == 0 => {}
            Some(known) => {
                known.unsaid.extend(shared);
                known.compare_at = now.micros;
                self.reschedule();
            }
            // It shared nothing until now.
            None => self.peer_up(peer, shared, now),
        }
    }

    /// The layout has another state: of what is held here no more nothing is shown or asked for.
    pub(crate) fn on_layout(&mut self, topology: &Topology, mine: LaneIndex) {
        let held: BTreeSet<Shard> = held(topology, mine).collect();
        self.changed.retain(|shard| held.contains(shard));
        self.met.retain(|(shard, node)| held.contains(shard) && topology.is_replica(*node, *shard));
        let shared = |lane: &PeerLane, shard: &Shard| {
            held.contains(shard)
                && topology.is_replica(lane.node, *shard)
                && topology.lane_of(lane.node, shard.partition) == Some(*lane)
        };
        self.unequal.retain(shared);
        for (lane, peer) in &mut self.peers {
            let shared = |shard: &Shard| shared(lane, shard);
            peer.meeting.retain(shared);
            peer.unsaid.retain(shared);
            peer.behind.retain(|shard, _| shared(shard));
        }
        self.reschedule();
    }

    /// A peer cannot be reached; its operations have heard so already.
    pub(crate) fn peer_down(&mut self, peer: PeerLane) {
        self.peers.remove(&peer);
        self.unequal.peer_down(peer);
        self.run.peer_down(peer);
        self.reschedule();
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        // As `poll` does: where anti-entropy is off nothing is mended either.
        let mends = self.interval > 0;
        let others = [self.unequal.next_deadline(), self.mender.next_deadline()];
        let others = others.map(|due| due.filter(|_| mends));
        let verify = self.verify.next_deadline();
        others.into_iter().chain([self.due_at, verify]).flatten().min()
    }

    /// Whether every peer that can be reached has been shown everything, and nothing it was seen
    /// to hold is still to come.
    pub(crate) fn is_settled(&self) -> bool {
        let at_rest = |peer: &Peer| {
            peer.unsaid.is_empty() && peer.behind.is_empty() && !peer.comparing && !peer.pulling
        };
        let mended =
            self.unequal.is_settled() && self.mender.is_settled() && self.verify.is_settled();
        mended && self.changed.is_empty() && self.peers.values().all(at_rest)
    }

    /// Whether every peer that can be reached has been compared with since it came up, and all that
    /// it was seen to hold then is held here. What is written meanwhile changes nothing of that.
    pub(crate) fn is_level(&self) -> bool {
        self.peers.values().all(|peer| peer.meeting.is_empty())
    }

    /// A shard was compared with a peer; unless that left this replica behind, it has met it there.
    fn met(&mut self, lane: PeerLane, shard: Shard) {
        if let Some(peer) = self.peers.get_mut(&lane)
            && !peer.behind.contains_key(&shard)
        {
            peer.meeting.remove(&shard);
            self.met.insert((shard, lane.node));
        }
    }

    /// Whether all that the other owners of a shard had when they were met has come: of every one that
    /// can be reached, and of one at least. Where owners are never compared it cannot be told, and
    /// nobody waits for it.
    pub(crate) fn has_met(&self, topology: &Topology, shard: Shard) -> bool {
        if self.interval == 0 {
            return true;
        }
        let met = |node| self.met.contains(&(shard, node));
        let is_up = |node| {
            let lane = topology.lane_of(node, shard.partition);
            lane.is_some_and(|lane| self.peers.contains_key(&lane))
        };
        let mut others = topology.others(shard).peekable();
        others.peek().is_none()
            || topology.others(shard).any(met) && others.all(|node| met(node) || !is_up(node))
    }

    /// A shard is shown to its other owners that can be reached, now.
    pub(crate) fn show_again(&mut self, topology: &Topology, shard: Shard, now: Now) {
        if self.interval == 0 {
            return;
        }
        for node in topology.replicas(shard) {
            let lane = topology.lane_of(node, shard.partition);
            if let Some(peer) = lane.and_then(|lane| self.peers.get_mut(&lane)) {
                peer.unsaid.insert(shard);
                peer.compare_at = peer.compare_at.min(now.micros);
            }
        }
        self.reschedule();
    }

    /// What is known to be lacking of some shards is asked for as soon as it may be.
    pub(crate) fn pull_now(&mut self, which: impl Fn(Shard) -> bool, now: Now) {
        for peer in self.peers.values_mut() {
            let behind = peer.behind.iter_mut().filter(|(shard, _)| which(**shard));
            behind.for_each(|(_, behind)| behind.due = behind.due.min(now.micros));
        }
        self.reschedule();
    }

    /// Shards of which some peer is known to hold what this replica lacks.
    pub(crate) fn shards_behind(&self) -> usize {
        let behind = self.peers.values().flat_map(|peer| peer.behind.keys());
        behind.collect::<BTreeSet<_>>().len()
    }

    /// A comparison that was not sent, or whose answer did not come, is made again later.
    fn compare_failed(&mut self, peer: PeerLane, shards: &[Shard], micros: u64) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.comparing = false;
            known.unsaid.extend(shards);
            known.compare_at = micros + self.interval;
        }
        self.reschedule();
    }

    /// Peers that own a changed shard are to be shown it.
    fn spread(&mut self, topology: &Topology, now: Now) {
        if self.changed.is_empty() || now.micros < self.spread_at {
            return;
        }
        for shard in core::mem::take(&mut self.changed) {
            for node in topology.replicas(shard) {
                let lane = topology.lane_of(node, shard.partition);
                if let Some(peer) = lane.and_then(|lane| self.peers.get_mut(&lane)) {
                    peer.unsaid.insert(shard);
                }
            }
        }
    }

    fn reschedule(&mut self) {
        let spread = (!self.changed.is_empty()).then_some(self.spread_at);
        let peers = self.peers.values().flat_map(|peer| {
            let compare = !peer.comparing && !peer.unsaid.is_empty();
            let due = peer.behind.iter().filter(|(shard, _)| !self.pulling.contains(shard));
            let due = due.map(|(_, behind)| behind.due).min().filter(|_| !peer.pulling);
            let pull = due.map(|due| due.max(peer.pull_at));
            [peer.sweep_at, compare.then_some(peer.compare_at), pull]
        });
        self.due_at = peers.flatten().chain(spread).min();
    }
}

/// Works out what is to be asked now. The lane starts an operation for each.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<Ask> {
    let now = ctx.now.micros;
    let mut asks = Vec::new();
    verify::poll(ctx);
    if ctx.sync.interval > 0 {
        asks.extend(damage::poll(ctx).map(|(to, shard, dots)| Ask::Recover(to, shard, dots)));
        asks.extend(ctx.sync.unequal.poll(now).map(|(to, shard)| Ask::Unequal(to, shard)));
    }
    if ctx.sync.due_at.is_none_or(|due| due > now) {
        return asks;
    }
    ctx.sync.spread(ctx.topology, ctx.now);
    let peers: Vec<PeerLane> = ctx.sync.peers.keys().copied().collect();
    for lane in peers {
        asks.extend(poll_compare(ctx, lane));
        asks.extend(poll_pull(ctx, lane));
    }
    ctx.sync.reschedule();
    asks
}

fn poll_compare(ctx: &mut Ctx<'_>, lane: PeerLane) -> Option<Ask> {
    let now = ctx.now.micros;
    let peer = ctx.sync.peers.get_mut(&lane)?;
    if peer.sweep_at.is_some_and(|at| at <= now) {
        peer.sweep_at = Some(now + SWEEP_MICROS);
        peer.unsaid.extend(shared(ctx.topology, ctx.config.lane, lane));
    }
    if peer.comparing || peer.unsaid.is_empty() || peer.compare_at > now {
        return None;
    }
    let shards: Vec<Shard> = peer.unsaid.iter().copied().take(compare::SHARDS_MAX).collect();
    for shard in &shards {
        peer.unsaid.remove(shard);
    }
    peer.comparing = true;
    Some(Ask::Compare(lane, shards))
}

fn poll_pull(ctx: &mut Ctx<'_>, lane: PeerLane) -> Option<Ask> {
    let now = ctx.now.micros;
    let sync = &mut *ctx.sync;
    let peer = sync.peers.get_mut(&lane)?;
    if peer.pulling || peer.pull_at > now {
        return None;
    }
    let has_turn = core::mem::take(&mut peer.has_turn);
    loop {
        let mut due = peer.behind.iter().filter(|(_, behind)| behind.due <= now);
        let (&shard, behind) = due.find(|(shard, _)| !sync.pulling.contains(shard))?;
        if let Some(at) = ctx.layout.transfer.held_until(shard, now) {
            let clock = behind.clock.clone();
            peer.behind.insert(shard, Behind { clock, due: at });
            continue;
        }
        // A clock that cannot be read: the next comparison finds the difference again.
        let missing = match ctx.store.replica(shard) {
            Ok(state) => state.clock.missing_from(&behind.clock),
            Err(_) => Vec::new(),
        };
        if missing.is_empty() {
            peer.behind.remove(&shard);
            peer.meeting.remove(&shard);
            sync.met.insert((shard, lane.node));
            continue;
        }
        let turn = if has_turn { now } else { ctx.share.take(now, ctx.busy) };
        if turn > now {
            (peer.pull_at, peer.has_turn) = (turn, true);
            return None;
        }
        let wanted = missing.into_iter().take(pull::RANGES_MAX).collect();
        peer.pulling = true;
        sync.pulling.insert(shard);
        return Some(Ask::Pull(lane, shard, wanted));
    }
}

/// A peer's clock of a shard is known: what it holds and this replica lacks is to be pulled, unless
/// replication brings it first.
pub(crate) fn learn(ctx: &mut Ctx<'_>, lane: PeerLane, shard: Shard, clock: PartitionClock) {
    if replica::notice_amnesia_in_clock(ctx.store, shard, &clock) == Ok(true) {
        ctx.on_amnesia();
    }
    let is_needed = ctx.layout.transfer.is_catching_up(shard) || ctx.layout.refill.lacks(shard);
    if ctx.sync.interval == 0 && !is_needed {
        return;
    }
    let Ok(state) = ctx.store.replica(shard) else { return };
    let lacks = !state.clock.missing_from(&clock).is_empty();
    let now = ctx.now.micros;
    let Some(peer) = ctx.sync.peers.get_mut(&lane) else { return };
    if !lacks {
        return;
    }
    let fresh = now < peer.up_at + FRESH_MICROS;
    let due = now + if fresh { SETTLE_FRESH_MICROS } else { SETTLE_MICROS };
    // This may be an older word than one that was heard before: what a peer has ever shown is
    // asked for, and only a page decides that it does not have it.
    let behind = peer.behind.entry(shard).or_insert(Behind { clock: PartitionClock::new(), due });
    behind.clock.union(&clock);
    behind.due = behind.due.min(due);
}

/// The same for what is needed soon: it is not on its way, or comes twice.
pub(crate) fn learn_now(ctx: &mut Ctx<'_>, lane: PeerLane, shard: Shard, clock: PartitionClock) {
    learn(ctx, lane, shard, clock);
    let now = ctx.now.micros;
    let peer = ctx.sync.peers.get_mut(&lane);
    if let Some(behind) = peer.and_then(|peer| peer.behind.get_mut(&shard)) {
        behind.due = behind.due.min(now);
    }
    ctx.sync.reschedule();
}

/// The shards that this lane holds or is to hold, ascending.
pub(crate) fn owned(topology: &Topology, mine: LaneIndex) -> Vec<Shard> {
    held(topology, mine).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether some other owner of this lane's shards cannot be reached.
pub(crate) fn misses_owners(ctx: &Ctx<'_>) -> bool {
    owned(ctx.topology, ctx.config.lane).into_iter().any(|shard| {
        let mut others = ctx.topology.others(shard);
        others.any(|node| ctx.reach(node, shard).is_none())
    })
}

/// Those of them that a peer's lane holds, too, or is to.
pub(crate) fn shared(topology: &Topology, mine: LaneIndex, peer: PeerLane) -> BTreeSet<Shard> {
    let theirs = |shard: &Shard| {
        topology.is_replica(peer.node, *shard)
            && topology.lane_of(peer.node, shard.partition) == Some(peer)
    };
    held(topology, mine).filter(theirs).collect()
}

/// The shards that this lane holds or is to hold, by n.
fn held(topology: &Topology, mine: LaneIndex) -> impl Iterator<Item = Shard> + '_ {
    let (layout, me) = (topology.layout(), topology.node);
    let held = topology
        .copies()
        .into_iter()
        .flat_map(move |n| layout.held_by(me, n).map(move |partition| Shard { partition, n }));
    held.filter(move |shard| layout.lane(me, shard.partition) == Some(mine))
}
