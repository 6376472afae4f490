//! What all operations under way share: the replicas they asked, and the lane's pieces they may use.
//!
//! An operation is a value in the lane's table; its asks carry `op * 32 + replica`, so an answer
//! finds its operation without another table. Next to read: `put.rs`, `get.rs`.

use crate::budget::Budget;
use crate::effect::{Effect, Now, PeerLane, ReplyTo};
use crate::feed::Feeds;
use crate::handoff::Handoff;
use crate::lane::LaneConfig;
use crate::layout::{Layouts, recall, refill};
use crate::list::page_bytes;
use crate::membership::score::Scores;
use crate::origins::Origins;
use crate::reap::Reaper;
use crate::replica::{self, As, Taken};
use crate::share::Share;
use crate::stand_ins::STAND_INS_MAX;
use crate::sync::AntiEntropy;
use crate::topology::Topology;
use crate::trim::Trimmer;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::{LaneIndex, NodeId, Shard};
use galvani_model::key::Key;
use galvani_model::limits::N_MAX;
use galvani_model::quorum::{Needs, OwnerSet, QuorumTracker, Requirement};
use galvani_model::store::{OwnOrigin, Store, StoreError};
use galvani_model::version::{Dot, Kind, Record, RecordHead};
use galvani_wire::failure::{Answer, AppliedOutcome, Failure, Outcome, ReplicaError};
use galvani_wire::message::{AskClocks, Failed};
use galvani_wire::view::Counters;
use galvani_wire::{Message, value_bytes};
use smallvec::SmallVec;
use std::collections::BTreeSet;

/// Asks per operation that an ask id leaves room for: one per replica, while the layout changes of
/// two sets of owners, and those to stand-ins.
pub const ASKS_PER_OP: u64 = 32;
const _: () = assert!(2 * N_MAX as usize + STAND_INS_MAX <= ASKS_PER_OP as usize);

/// The id to ask replica `index` of operation `op` with.
pub(crate) fn ask_id(op: u64, index: usize) -> u64 {
    assert!(
        (index as u64) < ASKS_PER_OP,
        "an operation asks at most twice N_MAX replicas and STAND_INS_MAX others"
    );
    op * ASKS_PER_OP + index as u64
}

/// The operation and replica index of an ask id.
pub(crate) fn of_ask_id(id: u64) -> (u64, usize) {
    (id / ASKS_PER_OP, (id % ASKS_PER_OP) as usize)
}

/// The operation number of asks whose answers nobody waits for.
pub(crate) const NOBODY: u64 = 0;

/// How long an answered operation listens to late replicas, in microseconds: long enough for any
/// that is alive, short enough that a dead one costs little memory.
pub(crate) const LINGER_MICROS: u64 = 500_000;

/// How long an operation that cannot succeed any more waits for the replicas that have not spoken,
/// in microseconds, so that its error says truly who answered.
pub(crate) const ACCOUNT_MICROS: u64 = 100_000;

/// When a client refused for overload should come again: a few service times of a full table.
pub(crate) const OVERLOAD_RETRY_MS: u32 = 50;

/// What became of one ask.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "moved once on its way; a box would cost an allocation"
)]
pub(crate) enum Heard {
    /// The peer's answer.
    Reply(Message),
    /// It was never sent, or the connection broke.
    Silence,
}

/// Whether an operation stays in the lane's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It waits for more.
    Wait,
    /// It is over.
    Done,
}

impl Step {
    /// An operation after its first step: what goes into the lane's table, if it waits for more.
    pub(crate) fn keep<T>(self, op: T) -> Option<T> {
        match self {
            Step::Wait => Some(op),
            Step::Done => None,
        }
    }
}

/// The lane's pieces an operation may use while it handles one input.
pub(crate) struct Ctx<'a> {
    pub(crate) config: &'a LaneConfig,
    pub(crate) topology: &'a Topology,
    pub(crate) store: &'a mut dyn Store,
    pub(crate) now: Now,
    pub(crate) effects: &'a mut Vec<Effect>,
    /// Bytes of values of the answers among them.
    pub(crate) held_back: &'a mut usize,
    pub(crate) up: &'a BTreeSet<PeerLane>,
    /// Nodes that the others and this one hold for down.
    pub(crate) down: &'a BTreeSet<NodeId>,
    pub(crate) scores: &'a mut Scores,
    pub(crate) counters: &'a mut Counters,
    pub(crate) origins: &'a mut Origins,
    pub(crate) sync: &'a mut AntiEntropy,
    pub(crate) handoff: &'a mut Handoff,
    pub(crate) read_repairs: &'a mut Budget,
    pub(crate) reaper: &'a mut Reaper,
    pub(crate) feed: &'a mut Feeds,
    pub(crate) trimmer: &'a mut Trimmer,
    pub(crate) layout: &'a mut Layouts,
    pub(crate) share: &'a mut Share,
    /// Whether clients wait for this lane.
    pub(crate) busy: bool,
    /// Bytes of values that the lane's other operations hold.
    pub(crate) held: usize,
    /// Set when this tick's commit must be fsynced before its effects go out.
    pub(crate) fsync: &'a mut bool,
}

impl Ctx<'_> {
    /// Whether `node` is this node.
    pub(crate) fn is_me(&self, node: NodeId) -> bool {
        node == self.topology.node
    }

    /// The lane of `node` that serves `shard`, if it can be reached now.
    pub(crate) fn reach(&self, node: NodeId, shard: Shard) -> Option<PeerLane> {
        let lane = self.topology.lane_of(node, shard.partition)?;
        self.up.contains(&lane).then_some(lane)
    }

    /// Whether a peer is not expected to answer soon: its link is down, or the nodes hold it for
    /// down, or it did not answer this lane lately. It may be asked all the same, and silence alone is
    /// no reason to refuse anything.
    pub(crate) fn presumed_away(&self, peer: PeerLane) -> bool {
        !self.up.contains(&peer) || self.down.contains(&peer.node) || self.scores.is_open(peer)
    }

    /// Takes one record in here; what is new is shown to the other owners in due time.
    pub(crate) fn take_in(
        &mut self,
        shard: Shard,
        record: Record,
        policy: ConflictPolicy,
        minted: Option<OwnOrigin>,
    ) -> Result<Taken, StoreError> {
        self.take_in_as(As::Written, shard, record, policy, minted)
    }

    /// [`Ctx::take_in`] of a record that may be hidden.
    pub(crate) fn take_in_as(
        &mut self,
        how: As,
        shard: Shard,
        record: Record,
        policy: ConflictPolicy,
        minted: Option<OwnOrigin>,
    ) -> Result<Taken, StoreError> {
        let head = &record.head;
        let (deletes, expires) = (head.kind == Kind::Delete, head.expires());
        let expires_ms = head.expires_ms;
        // Seldom: a shard is read through once a week.
        let noted = match self.sync.verify.is_reading(shard) {
            true => Some((record.head.key.clone(), self.store.replica(shard)?.digest)),
            false => None,
        };
        let taken = replica::apply(self.store, shard, record, how, policy, minted, self.now)?;
        if let Some((key, before)) = noted {
            let after = self.store.replica(shard)?.digest;
            self.sync.verify.note(shard, &key, before, after);
        }
        match taken {
            Taken::New { .. } => {
                self.sync.note_change(shard, self.now);
                self.feed.note_change(shard);
                if deletes {
                    self.reaper.note(shard, self.now);
                }
                if expires && policy == ConflictPolicy::Siblings {
                    self.reaper.note_expiry(shard, expires_ms, self.now);
                }
            }
            Taken::Duplicate => {}
        }
        Ok(taken)
    }

    /// Others know of more of this node's own writes than it does: its disk went back in time, and the
    /// vnode has taken a new incarnation. Votes may be gone, too.
    pub(crate) fn on_amnesia(&mut self) {
        self.counters.incarnations += 1;
        refill::on_amnesia(self);
        if self.config.lane == LaneIndex(0) {
            recall::distrust(self);
        }
    }

    /// Holds a value again that was lost here. Returns whether anything changed.
    pub(crate) fn readopt(
        &mut self,
        shard: Shard,
        key: &Key,
        dot: Dot,
        policy: ConflictPolicy,
    ) -> Result<bool, StoreError> {
        let before = self.store.replica(shard)?.digest;
        let changed = replica::readopt(self.store, shard, key, dot, policy)?;
        let after = self.store.replica(shard)?.digest;
        self.sync.verify.note(shard, key, before, after);
        Ok(changed)
    }

    /// Whether an operation may hold `bytes` of values: whatever it needs if no other holds any.
    pub(crate) fn may_hold(&self, bytes: usize) -> bool {
        self.held == 0 || self.held.saturating_add(bytes) <= self.config.limits.held_bytes
    }

    /// `failure`, unless one that was asked goes by other owners than the operation: then that.
    pub(crate) fn or_layout_changed(&mut self, asked: &Asked, failure: Failure) -> Failure {
        let other = |error: &ReplicaError| {
            matches!(error, ReplicaError::LayoutChanged | ReplicaError::NotOwner)
        };
        let changed =
            |outcome: &Outcome| matches!(outcome, Outcome::Refused(error) if other(error));
        if !asked.slots.iter().any(|slot| changed(&slot.outcome)) {
            return failure;
        }
        self.layout.doubt();
        Failure::LayoutChanged
    }

    /// Answers a request of operation `op`.
    pub(crate) fn answer(&mut self, to: ReplyTo, op: u64, message: Message) {
        *self.held_back += value_bytes(&message) + listed_bytes(&message);
        self.effects.push(Effect::Answer { to, op, message });
    }

    /// Answers a request of operation `op` with a failure, and counts it.
    pub(crate) fn fail(
        &mut self,
        to: ReplyTo,
        op: u64,
        failure: Failure,
        applied: AppliedOutcome,
        answers: Vec<Answer>,
    ) {
        match failure {
            Failure::QuorumNotMet { .. } => self.counters.quorum_failures += 1,
            _ => self.counters.refused += 1,
        }
        self.answer(to, op, Message::Failed(Failed { failure, applied, answers }));
    }

    /// Refuses a request before anything was done.
    pub(crate) fn refuse(&mut self, to: ReplyTo, op: u64, failure: Failure) {
        self.fail(to, op, failure, AppliedOutcome::No, Vec::new());
    }

    /// Starts a request: its first step where it could be prepared, a refusal where not. `None`: it is over.
    pub(crate) fn begin<T>(
        &mut self,
        to: ReplyTo,
        op: u64,
        prepared: Result<T, Failure>,
        first: impl FnOnce(&mut T, &mut Self) -> Step,
    ) -> Option<T> {
        match prepared {
            Ok(mut started) => first(&mut started, self).keep(started),
            Err(failure) => {
                self.refuse(to, op, failure);
                None
            }
        }
    }

    /// Asks replica `index` of operation `op`.
    pub(crate) fn ask(&mut self, to: PeerLane, op: u64, index: usize, message: Message) {
        self.effects.push(Effect::Ask { to, id: ask_id(op, index), forwarded: false, message });
    }

    /// Asks it for its clocks of some shards: as they are, or `durable` as they are once they survive
    /// power loss.
    pub(crate) fn ask_clocks(
        &mut self,
        to: PeerLane,
        op: u64,
        index: usize,
        shards: &[Shard],
        durable: bool,
    ) {
        let (node, lane) = (self.topology.node, self.config.lane);
        let ask = AskClocks { node, lane, shards: shards.to_vec(), durable };
        self.ask(to, op, index, Message::AskClocks(ask));
    }
}

/// Counts the answers of `replicas`, and of at most so many stand-ins, towards numbers that
/// `refuse.rs` found possible.
pub(crate) fn tracker(replicas: &[NodeId], needs: Needs, stand_ins: usize) -> QuorumTracker {
    let (owners, stand_ins) = (replicas.iter().copied().collect(), stand_ins as u16);
    QuorumTracker::new(OwnerSet { owners, needs, stand_ins })
        .expect("refuse.rs let pass only numbers that 1..=N_MAX distinct owners can meet")
}

/// Which requirement a tracker that is not met lacks: what, needed, got.
pub(crate) fn shortfall(tracker: &QuorumTracker) -> (Requirement, u8, u8) {
    let shortfall = tracker.shortfall().expect("asked only of a tracker that is not met");
    (shortfall.requirement, shortfall.need, shortfall.got)
}

/// The replicas one operation asked, and what each said.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    started: u64,
    slots: SmallVec<[Answer; 4]>,
}

impl Asked {
    /// `nodes` in preference order; none has answered.
    pub(crate) fn new(nodes: &[NodeId], now: Now) -> Asked {
        let slot = |&node: &NodeId| Answer {
            node,
            stands_in_for: None,
            outcome: Outcome::Pending,
            micros: 0,
        };
        Asked { started: now.micros, slots: nodes.iter().map(slot).collect() }
    }

    /// One more is asked, in the place of an owner. Returns its index.
    pub(crate) fn add_stand_in(&mut self, node: NodeId, owner: NodeId) -> usize {
        let stands_in_for = Some(owner);
        self.slots.push(Answer { node, stands_in_for, outcome: Outcome::Pending, micros: 0 });
        self.slots.len() - 1
    }

    /// Notes what replica `index` said. Returns its node; `None` if it had spoken before.
    pub(crate) fn note(&mut self, index: usize, outcome: Outcome, now: Now) -> Option<NodeId> {
        let slot = self.slots.get_mut(index)?;
        if slot.outcome != Outcome::Pending {
            return None;
        }
        slot.outcome = outcome;
        slot.micros = now.micros.saturating_sub(self.started).min(u64::from(u32::MAX)) as u32;
        Some(slot.node)
    }

    /// Whether every replica has answered or cannot.
    pub(crate) fn is_complete(&self) -> bool {
        self.slots.iter().all(|slot| slot.outcome != Outcome::Pending)
    }

    /// The indices that have not answered, with their nodes.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (usize, NodeId)> {
        let pending = |(_, slot): &(usize, &Answer)| slot.outcome == Outcome::Pending;
        self.slots.iter().enumerate().filter(pending).map(|(index, slot)| (index, slot.node))
    }

    /// How many replicas stored a write.
    pub(crate) fn stored(&self) -> u8 {
        let stored =
            |slot: &&Answer| matches!(slot.outcome, Outcome::Stored | Outcome::StoredDurably);
        self.slots.iter().filter(stored).count() as u8
    }

    /// The node asked with `index`, if it has not answered.
    pub(crate) fn awaited(&self, index: usize) -> Option<NodeId> {
        let slot = self.slots.get(index)?;
        (slot.outcome == Outcome::Pending).then_some(slot.node)
    }

    /// What each said, for an answer.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.slots.to_vec()
    }
}

/// What an answer holds in memory beside values, where that may be much: keys and heads.
fn listed_bytes(message: &Message) -> usize {
    match message {
        Message::FetchedPage(Ok(page)) => page_bytes(page),
        Message::Listed(page) => {
            page.keys.iter().map(|(key, _)| key.len() + LISTED_KEY_BYTES).sum()
        }
        Message::Fetched(Ok(held)) => held.heads.iter().map(RecordHead::about_bytes).sum(),
        Message::Pulled(Ok(pulled)) => pulled.heads.iter().map(RecordHead::about_bytes).sum(),
        Message::HintsPulled(Ok(pulled)) => {
            pulled.records.heads.iter().map(RecordHead::about_bytes).sum()
        }
        _ => 0,
    }
}

/// What a key of a listing takes beside its bytes.
const LISTED_KEY_BYTES: usize = 40;
