//! Whether those that are to become members can: asked of each of their lanes before a change begins.
//!
//! A change that needs somebody who does not exist would stand for ever, and what a node holds from
//! days when it was a member has to be handed over first. One that cannot be reached yet is waited
//! for a while: members dial those that apply. Nothing is promised by it: a node may go down right
//! after. Next to read: `register.rs`, where the change is decided.

use super::is_due;
use crate::effect::{PeerLane, ReplyTo};
use crate::ops::{Ctx, Heard, NOBODY};
use galvani_model::ids::LaneIndex;
use galvani_model::placement::LayoutState;
use galvani_wire::Message;
use galvani_wire::failure::{Failure, ReplicaError};
use galvani_wire::layout::{AskJoiner, JoinerIs, Unfit};

/// How long joiners are waited for, in microseconds: members redial at least once a second.
const WAIT_MICROS: u64 = 3_000_000;
/// How often it looks whether one can be reached by now, in microseconds.
const PACE_MICROS: u64 = 100_000;
/// Lanes that are asked at once.
const ASKED_MAX: usize = 16;

/// Joiners are being asked.
#[derive(Clone, Debug)]
pub(crate) struct VetOp {
    pub(super) op: u64,
    pub(super) from: ReplyTo,
    /// The state in which they would join.
    pub(super) next: LayoutState,
    /// When the client gives up.
    pub(super) client_deadline: u64,
    /// Lanes that are to be asked.
    open: Vec<PeerLane>,
    /// Those that were asked; `None` where the answer was good.
    asked: Vec<Option<PeerLane>>,
    look_at: u64,
    give_up_at: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Vetted {
    Wait,
    /// All of them can join.
    Fit,
    /// One cannot.
    Unfit(Failure),
}

impl VetOp {
    /// Asks every lane of every node that `next` brings; `None` if it brings nobody.
    pub(super) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        from: ReplyTo,
        next: &LayoutState,
        client_deadline: u64,
    ) -> Option<VetOp> {
        let current = next.current();
        let joiners = next.members().filter(|member| current.member(member.id()).is_none());
        let lanes = joiners.flat_map(|member| {
            let lanes = (0..member.lane_count()).map(LaneIndex);
            lanes.map(|lane| PeerLane { node: member.id(), lane })
        });
        let open: Vec<PeerLane> = lanes.collect();
        if open.is_empty() {
            return None;
        }
        // The answer has to reach the client in time.
        let left = client_deadline.saturating_sub(ctx.now.micros) / 4 * 3;
        let give_up_at = ctx.now.micros + left.min(WAIT_MICROS);
        let (asked, look_at, next) = (Vec::new(), 0, next.clone());
        let mut this = VetOp { op, from, next, client_deadline, open, asked, look_at, give_up_at };
        this.ask_more(ctx);
        Some(this)
    }

    /// When it is to be looked at again, in the lane's microseconds.
    pub(super) fn wake_at(&self) -> u64 {
        if self.open.is_empty() { self.give_up_at } else { self.look_at.min(self.give_up_at) }
    }

    /// The index of its ask that waits for `peer`.
    pub(super) fn waits_for(&self, peer: PeerLane) -> Option<usize> {
        self.asked.iter().position(|asked| *asked == Some(peer))
    }

    /// A lane answered, or was not asked after all.
    pub(super) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Vetted {
        let Some(lane) = self.asked.get_mut(index).and_then(Option::take) else {
            return Vetted::Wait;
        };
        let why = match heard {
            Heard::Reply(Message::JoinerIs(Ok(JoinerIs { epoch, held }))) => {
                ctx.layout.heard_of(epoch);
                (held > 0).then_some(Unfit::Holds { shards: held })
            }
            Heard::Reply(_) => Some(Unfit::Unreadable),
            Heard::Silence => {
                self.open.push(lane);
                None
            }
        };
        if let Some(why) = why {
            return Vetted::Unfit(Failure::JoinerUnfit { node: lane.node, why });
        }
        // More are asked when it looks again, never from here: an ask that cannot leave is heard of at
        // once, and a tick must come to its end.
        match self.open.is_empty() && self.asked.iter().all(Option::is_none) {
            true => Vetted::Fit,
            false => Vetted::Wait,
        }
    }

    /// Time is up, or it is to look again who can be reached.
    pub(super) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Vetted {
        if !is_due(self.give_up_at, ctx.now) {
            self.ask_more(ctx);
            return Vetted::Wait;
        }
        let silent = self.asked.iter().flatten().next().map(|lane| (lane.node, Unfit::Silent));
        let unreached = self.open.first().map(|lane| (lane.node, Unfit::Unreachable));
        let (node, why) = unreached.or(silent).expect("it waits for some lane");
        Vetted::Unfit(Failure::JoinerUnfit { node, why })
    }

    /// Asks those that can be reached, so many at a time.
    fn ask_more(&mut self, ctx: &mut Ctx<'_>) {
        self.look_at = ctx.now.micros + PACE_MICROS;
        let epoch = ctx.topology.epoch();
        for lane in core::mem::take(&mut self.open) {
            let free = self.asked.iter().position(Option::is_none);
            let free = free.or((self.asked.len() < ASKED_MAX).then_some(self.asked.len()));
            match free.filter(|_| ctx.up.contains(&lane)) {
                Some(index) => {
                    ctx.ask(lane, self.op, index, Message::AskJoiner(AskJoiner { epoch }));
                    match self.asked.get_mut(index) {
                        Some(slot) => *slot = Some(lane),
                        None => self.asked.push(Some(lane)),
                    }
                }
                None => self.open.push(lane),
            }
        }
    }
}

/// Says what this lane holds that it does not own.
pub(super) fn serve(ctx: &mut Ctx<'_>, from: ReplyTo, ask: &AskJoiner) {
    ctx.layout.heard_of(ask.epoch);
    let epoch = ctx.topology.epoch();
    let me = ctx.topology.node;
    let held = match ctx.store.held_shards() {
        Ok(held) => {
            let not_owned = held.iter().filter(|shard| !ctx.topology.is_replica(me, **shard));
            Ok(JoinerIs { epoch, held: not_owned.count() as u32 })
        }
        Err(_) => Err(ReplicaError::StorageFailed),
    };
    ctx.answer(from, NOBODY, Message::JoinerIs(held));
}
