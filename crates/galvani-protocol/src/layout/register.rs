//! The register that holds a cluster's layout: one decision an epoch, by a majority of voters.
//!
//! Single-decree Paxos for each epoch: the voters are members of the layout before it, at most
//! [`VOTERS_MAX`]. What a voter promises or accepts is on its disk before it says so; what it has to say
//! of an epoch that is over is the state that was decided. It knows nothing of what a state means, but
//! for what may follow what. Next to read: `mod.rs`.
//! Source: Lamport 2001 (Paxos made simple); Rystsov 2018 (CASPaxos), where the value follows from the
//! one before it.

use super::recall::{self, distrust};
use super::{PATIENCE_MICROS, adopt, first_lane};
use crate::effect::{PeerLane, ReplyTo};
use crate::ops::{Ctx, Heard, NOBODY, Step};
use bytes::Bytes;
use galvani_model::ids::NodeId;
use galvani_model::placement::LayoutState;
use galvani_model::store::StoreError;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::layout::{Accept, Ballot, Prepare, Promise, Vote};

/// Members that decide, at most: those with the smallest ids.
pub(crate) const VOTERS_MAX: usize = 31;
/// Under which name a voter keeps what it has promised and accepted.
const PROMISE: &[u8] = b"promise";
/// How long a round may take, in microseconds.
const ROUND_MICROS: u64 = 1_000_000;
/// The pause before another round, times up to sixteen, in microseconds.
const PAUSE_MICROS: u64 = 10_000;

/// Who decides what comes after a state.
pub(crate) fn voters(state: &LayoutState) -> impl Iterator<Item = NodeId> + '_ {
    state.current().members().iter().map(|member| member.id()).take(VOTERS_MAX)
}

/// What was read last of what this voter has promised.
#[derive(Debug, Default)]
pub(crate) struct Read {
    bytes: Bytes,
    promise: Promise,
}

/// What this voter has promised and accepted for the epoch that comes next. What cannot be read is no
/// word of having promised nothing: then it asks the others before it votes.
fn promise(ctx: &mut Ctx<'_>, epoch: u64) -> Result<Promise, StoreError> {
    let none = Promise { epoch, ..Promise::default() };
    let bytes = match ctx.store.fact(PROMISE) {
        Ok(None) => return Ok(none),
        Ok(Some(bytes)) => bytes,
        Err(StoreError::Corrupt { .. }) => {
            distrust(ctx);
            return Ok(none);
        }
        Err(error) => return Err(error),
    };
    let read = &mut ctx.layout.read;
    if read.bytes != bytes {
        let Ok(promise) = Promise::from_bytes(&bytes) else {
            distrust(ctx);
            return Ok(none);
        };
        *read = Read { bytes, promise };
    }
    let kept = &read.promise;
    Ok(if kept.epoch == epoch { kept.clone() } else { none })
}

fn keep(ctx: &mut Ctx<'_>, promise: &Promise) -> Result<(), StoreError> {
    ctx.store.set_fact(PROMISE, Some(promise.to_bytes()))?;
    *ctx.fsync = true;
    Ok(())
}

/// Says how a question for `epoch` stands to what is known here; `None`: it is the next one.
fn elsewhere(ctx: &mut Ctx<'_>, epoch: u64) -> Option<Vote> {
    let state = ctx.topology.layout();
    if epoch <= state.epoch() || epoch == u64::MAX {
        return Some(Vote::Decided(Box::new(LayoutState::clone(state))));
    }
    let votes = voters(state).any(|voter| voter == ctx.topology.node);
    if epoch > state.epoch() + 1 || !votes {
        let epoch_before = epoch - 1;
        let known = state.epoch();
        ctx.layout.heard_of(epoch_before);
        return Some(Vote::Behind { epoch: known });
    }
    None
}

/// Takes over what others keep of the epoch that comes next, as far as it is more.
pub(crate) fn raise(
    ctx: &mut Ctx<'_>,
    others: impl Iterator<Item = Promise>,
) -> Result<(), StoreError> {
    let mut promise = promise(ctx, ctx.topology.epoch() + 1)?;
    for other in others.filter(|other| other.epoch == ctx.topology.epoch() + 1) {
        promise.promised = promise.promised.max(other.promised);
        let of = |accepted: &Option<(Ballot, LayoutState)>| accepted.as_ref().map(|it| it.0);
        if of(&other.accepted) > of(&promise.accepted) {
            promise.accepted = other.accepted;
        }
    }
    keep(ctx, &promise)
}

/// Promises to accept nothing smaller, if nothing larger was promised. Ballot 0 asks what it keeps.
pub(crate) fn on_prepare(ctx: &mut Ctx<'_>, prepare: &Prepare) -> Result<Vote, StoreError> {
    if let Some(vote) = elsewhere(ctx, prepare.epoch) {
        return Ok(vote);
    }
    recall::look(ctx)?;
    let mut promise = promise(ctx, prepare.epoch)?;
    if prepare.ballot == Ballot::default() {
        let keeps = if ctx.layout.recall.is_whole() { Vote::Kept } else { Vote::Forgot };
        return Ok(keeps(Box::new(promise)));
    }
    if !ctx.layout.recall.may_vote(ctx.topology.epoch() + 1) {
        return Ok(Vote::Behind { epoch: ctx.topology.epoch() });
    }
    // Not twice under one ballot either: two proposals of one node must not share it.
    if prepare.ballot <= promise.promised {
        return Ok(Vote::Outbid(promise.promised));
    }
    promise.promised = prepare.ballot;
    keep(ctx, &promise)?;
    let accepted = promise.accepted.map(|(ballot, state)| (ballot, Box::new(state)));
    Ok(Vote::Promised { ballot: prepare.ballot, accepted })
}

/// Accepts a state, if nothing larger was promised and it may follow.
pub(crate) fn on_accept(ctx: &mut Ctx<'_>, accept: Accept) -> Result<Vote, StoreError> {
    let Accept { ballot, state } = accept;
    if let Some(vote) = elsewhere(ctx, state.epoch()) {
        return Ok(vote);
    }
    let most = ctx.topology.copies().into_iter().max().unwrap_or(1);
    let fits = state.transition().is_none_or(|change| most <= change.next.n_max());
    if !fits || !ctx.topology.layout().may_become(&state) {
        return Ok(Vote::Behind { epoch: ctx.topology.epoch() });
    }
    recall::look(ctx)?;
    let mut promise = promise(ctx, state.epoch())?;
    if !ctx.layout.recall.may_vote(ctx.topology.epoch() + 1) {
        return Ok(Vote::Behind { epoch: ctx.topology.epoch() });
    }
    if ballot < promise.promised {
        return Ok(Vote::Outbid(promise.promised));
    }
    promise.promised = ballot;
    promise.accepted = Some((ballot, state));
    keep(ctx, &promise)?;
    Ok(Vote::Accepted { ballot })
}

/// A proposal under way.
#[derive(Clone, Debug)]
pub(crate) struct ProposeOp {
    op: u64,
    reply_to: Option<ReplyTo>,
    /// What is wished for.
    wish: LayoutState,
    /// What is proposed: the wish, or what others have accepted before.
    value: LayoutState,
    ballot: Ballot,
    voters: Vec<PeerLane>,
    stage: Stage,
    /// Voters that have not answered in this stage.
    pending: Vec<bool>,
    ayes: usize,
    /// The largest ballot under which a voter has accepted something.
    best: Option<Ballot>,
    /// The largest round heard of.
    round: u64,
    /// When this round is given up, or the next one begins.
    round_at: u64,
    deadline: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preparing,
    Accepting,
    Pausing,
}

impl ProposeOp {
    /// Proposes `wish` as what comes next; `None` if that is decided at once.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: Option<ReplyTo>,
        wish: LayoutState,
        deadline: u64,
    ) -> Option<ProposeOp> {
        let voters: Vec<PeerLane> = voters(ctx.topology.layout()).map(first_lane).collect();
        let mut this = ProposeOp {
            op,
            reply_to,
            value: wish.clone(),
            wish,
            ballot: Ballot::default(),
            pending: vec![false; voters.len()],
            voters,
            stage: Stage::Pausing,
            ayes: 0,
            best: None,
            round: 0,
            round_at: 0,
            deadline,
        };
        this.begin_round(ctx).keep(this)
    }

    /// Whether a client waits for it.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.reply_to.is_some()
    }

    /// When it is to be looked at again, in the lane's microseconds.
    pub(crate) fn wake_at(&self) -> u64 {
        self.round_at.min(self.deadline)
    }

    /// The index of its ask that waits for `peer`.
    pub(crate) fn waits_for(&self, peer: PeerLane) -> Option<usize> {
        let index = self.voters.iter().position(|voter| *voter == peer)?;
        self.pending[index].then_some(index)
    }

    fn begin_round(&mut self, ctx: &mut Ctx<'_>) -> Step {
        self.round += 1;
        self.ballot = Ballot { round: self.round, node: ctx.topology.node };
        (self.best, self.value) = (None, self.wish.clone());
        self.enter(ctx, Stage::Preparing)
    }

    /// Asks every voter that can be reached, this node among them.
    fn enter(&mut self, ctx: &mut Ctx<'_>, stage: Stage) -> Step {
        (self.stage, self.ayes) = (stage, 0);
        self.round_at = ctx.now.micros + ROUND_MICROS;
        self.pending.fill(true);
        let mut step = Step::Wait;
        for index in 0..self.voters.len() {
            let voter = self.voters[index];
            if ctx.is_me(voter.node) {
                let vote = match stage {
                    Stage::Accepting => {
                        let (ballot, state) = (self.ballot, self.value.clone());
                        on_accept(ctx, Accept { ballot, state })
                    }
                    Stage::Preparing | Stage::Pausing => on_prepare(ctx, &self.prepare()),
                };
                step = self.count(ctx, index, vote.ok());
            } else if ctx.up.contains(&voter) {
                let message = match stage {
                    Stage::Accepting => {
                        let (ballot, state) = (self.ballot, self.value.clone());
                        Message::Accept(Box::new(Accept { ballot, state }))
                    }
                    Stage::Preparing | Stage::Pausing => Message::Prepare(self.prepare()),
                };
                ctx.ask(voter, self.op, index, message);
            } else {
                self.pending[index] = false;
            }
            if step == Step::Done || self.stage != stage {
                return step;
            }
        }
        self.pause_if_hopeless(ctx);
        step
    }

    fn prepare(&self) -> Prepare {
        Prepare { epoch: self.wish.epoch(), ballot: self.ballot }
    }

    /// A voter answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        let vote = match heard {
            Heard::Reply(Message::Voted(Ok(vote))) => Some(vote),
            Heard::Reply(_) | Heard::Silence => None,
        };
        let step = self.count(ctx, index, vote);
        if step == Step::Wait {
            self.pause_if_hopeless(ctx);
        }
        step
    }

    /// The round took too long, or the pause is over; or time is up.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        if ctx.now.micros < self.deadline {
            return self.begin_round(ctx);
        }
        // A voter may have accepted it: then whoever proposes next proposes it again.
        let applied = AppliedOutcome::Maybe { acks: 0 };
        self.fail(ctx, Failure::DeadlinePassed, applied)
    }

    fn count(&mut self, ctx: &mut Ctx<'_>, index: usize, vote: Option<Vote>) -> Step {
        let Some(pending) = self.pending.get_mut(index) else { return Step::Wait };
        match vote {
            Some(Vote::Decided(state)) => return self.decided(ctx, *state),
            Some(Vote::Promised { ballot, accepted }) => {
                if ballot != self.ballot || self.stage != Stage::Preparing || !*pending {
                    return Step::Wait;
                }
                *pending = false;
                self.ayes += 1;
                if let Some((of, state)) = accepted
                    && self.best.is_none_or(|best| best < of)
                {
                    (self.best, self.value) = (Some(of), *state);
                }
                if self.ayes > self.voters.len() / 2 {
                    return self.enter(ctx, Stage::Accepting);
                }
            }
            Some(Vote::Accepted { ballot }) => {
                if ballot != self.ballot || self.stage != Stage::Accepting || !*pending {
                    return Step::Wait;
                }
                *pending = false;
                self.ayes += 1;
                if self.ayes > self.voters.len() / 2 {
                    ctx.layout.steward.decided(self.value.epoch());
                    return self.decided(ctx, self.value.clone());
                }
            }
            Some(Vote::Outbid(ballot)) => {
                self.round = self.round.max(ballot.round.min(u64::MAX >> 1));
                *pending = false;
            }
            Some(Vote::Behind { epoch }) => {
                *pending = false;
                if epoch + 1 < self.wish.epoch() {
                    let state = Box::new(LayoutState::clone(ctx.topology.layout()));
                    ctx.ask(self.voters[index], NOBODY, 0, Message::LayoutIs(state));
                }
            }
            Some(Vote::Kept(_) | Vote::Forgot(_)) | None => *pending = false,
        }
        Step::Wait
    }

    /// Where no majority can come any more in this round, another one begins after a pause, which
    /// differs between nodes.
    fn pause_if_hopeless(&mut self, ctx: &Ctx<'_>) {
        let open = self.pending.iter().filter(|pending| **pending).count();
        if self.stage != Stage::Pausing && self.ayes + open <= self.voters.len() / 2 {
            self.stage = Stage::Pausing;
            let spread = (ctx.topology.node.0 as u64).wrapping_mul(self.round + 7) % 16;
            self.round_at = ctx.now.micros + PAUSE_MICROS * (1 + spread);
        }
    }

    /// The epoch is decided on: as was wished, or otherwise.
    fn decided(&mut self, ctx: &mut Ctx<'_>, state: LayoutState) -> Step {
        adopt(ctx, state.clone());
        ctx.layout.steward.proposed();
        // It may have gone on since.
        let id = |state: &LayoutState| state.transition().map(|change| change.next.id());
        let wished = id(&self.wish);
        let begun =
            wished.is_some() && (id(&state) == wished || Some(state.current().id()) == wished);
        if state == self.wish || (begun && self.reply_to.is_some()) {
            if let Some(to) = self.reply_to {
                ctx.answer(to, self.op, Message::LayoutChanged(Box::new(state)));
            }
            return Step::Done;
        }
        let failure = match (state.transition(), self.wish.transition()) {
            (Some(change), _) => Failure::LayoutChanging { version: change.next.version() },
            (None, Some(change)) => Failure::LayoutOutdated {
                made_after: change.next.version() - 1,
                version: state.current().version(),
            },
            (None, None) => Failure::LayoutChanged,
        };
        self.fail(ctx, failure, AppliedOutcome::No)
    }

    fn fail(&self, ctx: &mut Ctx<'_>, failure: Failure, applied: AppliedOutcome) -> Step {
        ctx.layout.steward.proposed();
        if let Some(to) = self.reply_to {
            ctx.fail(to, self.op, failure, applied, Vec::new());
        }
        Step::Done
    }
}

const _: () = assert!(ROUND_MICROS < PATIENCE_MICROS);
