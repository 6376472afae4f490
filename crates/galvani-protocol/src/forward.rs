//! Requests sent on: a client's request that this node does not own goes to an owner, once.
//!
//! Clients that know the layout go straight to an owner; this is for the others, and for the time
//! in which a client's layout is old. A request that was sent on already is never sent on again.
//! Next to read: `lane.rs`.

use crate::effect::{Effect, PeerLane, ReplyTo};
use crate::ops::{Ctx, Heard, Step, ask_id};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};

/// A request sent on, waiting for its answer.
#[derive(Clone, Debug)]
pub(crate) struct ForwardOp {
    op: u64,
    reply_to: ReplyTo,
    /// Whether it writes: then silence means that it may have been stored.
    writes: bool,
    /// When the client stops waiting, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl ForwardOp {
    /// Sends a request on to `to`.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        to: PeerLane,
        message: Message,
        deadline: u64,
    ) -> ForwardOp {
        let writes = matches!(message, Message::Put(_));
        ctx.effects.push(Effect::Ask { to, id: ask_id(op, 0), forwarded: true, message });
        ForwardOp { op, reply_to, writes, deadline }
    }

    /// The owner answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        match heard {
            Heard::Reply(message) => ctx.answer(self.reply_to, self.op, message),
            Heard::Silence => self.give_up(ctx, Failure::NoOwnerReachable),
        }
        Step::Done
    }

    /// Time is up.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        self.give_up(ctx, Failure::DeadlinePassed);
        Step::Done
    }

    fn give_up(&self, ctx: &mut Ctx<'_>, failure: Failure) {
        // It was on its way: only the owner knows whether it was stored.
        let applied = match self.writes {
            true => AppliedOutcome::Maybe { acks: 0 },
            false => AppliedOutcome::No,
        };
        ctx.fail(self.reply_to, self.op, failure, applied, Vec::new());
    }
}
