//! Requests sent on: a client's request that this node does not own goes to an owner, once.
//!
//! Clients that know the layout go straight to an owner; this is for the others, and for the time
//! in which a client's layout is old. A request that was sent on already is never sent on again.
//! When an owner is silent for long the next one is asked as well: a write keeps its request id, so that
//! two coordinators make one write of it. A read is asked twice when it takes longer than 95 of 100 took
//! at that owner, within an allowance. So it is when an owner has no room for it, stops, or cannot tell
//! whether a late retry is one. The first answer counts, a failure only if no other comes.
//! Next to read: `route.rs`, which chooses the owners.

use crate::effect::{Effect, PeerLane, ReplyTo};
use crate::expired;
use crate::ops::{Ctx, Heard, Step, ask_id};
use galvani_model::version::emitted_bytes;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::message::Failed;
use smallvec::SmallVec;

/// A request sent on, waiting for its answer.
#[derive(Clone, Debug)]
pub(crate) struct ForwardOp {
    op: u64,
    reply_to: ReplyTo,
    message: Box<Message>,
    /// Whether it writes: then silence means that it may have been stored.
    writes: bool,
    /// When it came, in the lane's microseconds: what it has waited is taken off its timeout.
    started: u64,
    /// Owners that may still be asked, best last.
    left: SmallVec<[PeerLane; 4]>,
    /// Owners that were asked; `None` when nothing more is to come from them.
    asked: SmallVec<[Option<PeerLane>; 4]>,
    /// What an owner failed with while others could still answer.
    failed: Option<Box<Failed>>,
    /// Whether an owner that was asked fell silent for good.
    doubt: bool,
    /// When the next owner is asked as well, in the lane's microseconds.
    next_at: Option<u64>,
    /// When the owner that was asked last counts as silent. Before that a read may be asked twice within
    /// the lane's allowance, and a write not at all.
    late_at: u64,
    /// When the client stops waiting, in the lane's microseconds.
    deadline: u64,
}

impl ForwardOp {
    /// Sends a request on to the first of `owners`, best first.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        owners: &[PeerLane],
        message: Message,
        deadline: u64,
    ) -> ForwardOp {
        let mut forward = ForwardOp {
            op,
            reply_to,
            writes: matches!(message, Message::Put(_)),
            message: Box::new(message),
            started: ctx.now.micros,
            left: owners.iter().rev().copied().collect(),
            asked: SmallVec::new(),
            failed: None,
            doubt: false,
            next_at: None,
            late_at: 0,
            deadline,
        };
        forward.ask_next(ctx);
        forward
    }

    /// An owner answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        if self.asked.get_mut(index).and_then(Option::take).is_none() {
            return Step::Wait;
        }
        match heard {
            Heard::Reply(Message::Failed(failed)) => {
                if failed.failure == Failure::LayoutChanged {
                    ctx.layout.doubt();
                }
                // One that leaves the write in doubt stands, whatever another owner says after it.
                let certain = |known: &Failed| known.applied == AppliedOutcome::No;
                let elsewhere = matches!(
                    failed.failure,
                    Failure::Overloaded { .. }
                        | Failure::Stopping
                        | Failure::LayoutChanged
                        | Failure::RetryTooLate { .. }
                );
                let elsewhere = elsewhere && certain(&failed);
                if self.failed.as_deref().is_none_or(certain) {
                    self.failed = Some(Box::new(failed));
                }
                if elsewhere {
                    self.ask_next(ctx);
                }
            }
            Heard::Reply(message) => {
                ctx.answer(self.reply_to, self.op, message);
                return Step::Done;
            }
            Heard::Silence => {
                self.doubt = true;
                self.ask_next(ctx);
            }
        }
        if self.asked.iter().any(Option::is_some) {
            return Step::Wait;
        }
        self.give_up(ctx, Failure::NoOwnerReachable)
    }

    /// An owner has been silent for long: the next one is asked as well. Or time is up.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        if ctx.now.micros < self.deadline {
            if ctx.now.micros < self.late_at && !ctx.scores.take_hedge() {
                self.next_at = Some(self.late_at);
                return Step::Wait;
            }
            self.ask_next(ctx);
            return Step::Wait;
        }
        self.doubt = true;
        self.give_up(ctx, Failure::DeadlinePassed)
    }

    /// When it is to be looked at again, in the lane's microseconds.
    pub(crate) fn wake_at(&self) -> u64 {
        self.next_at.map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// The index of its ask that waits for `peer`.
    pub(crate) fn waits_for(&self, peer: PeerLane) -> Option<usize> {
        self.asked.iter().position(|asked| *asked == Some(peer))
    }

    /// Bytes of values and events it holds.
    pub(crate) fn held(&self) -> usize {
        match &*self.message {
            Message::Put(put) => put.value.len() + emitted_bytes(&put.emits),
            _ => 0,
        }
    }

    /// Whether an owner that was asked may have stored it: not one that refused it for certain.
    fn may_be_stored(&self) -> bool {
        let failed = self.failed.as_deref();
        let unsure = failed.is_some_and(|failed| failed.applied != AppliedOutcome::No);
        self.doubt || unsure || self.asked.iter().any(Option::is_some)
    }

    fn ask_next(&mut self, ctx: &mut Ctx<'_>) {
        self.next_at = None;
        let Some(to) = self.left.pop() else { return };
        let mut message = Message::clone(&self.message);
        let waited = ctx.now.micros.saturating_sub(self.started);
        if !expired::charge(&mut message, waited) {
            return;
        }
        if let Message::Put(put) = &mut message {
            put.retry |= self.may_be_stored();
        }
        let id = ask_id(self.op, self.asked.len());
        self.asked.push(Some(to));
        ctx.effects.push(Effect::Ask { to, id, forwarded: true, message });
        if !self.left.is_empty() {
            self.late_at = ctx.now.micros + ctx.scores.patience(to);
            self.next_at = Some(match *self.message {
                Message::Get(_) | Message::List(_) => ctx.now.micros + ctx.scores.hedge_after(to),
                _ => self.late_at,
            });
        }
    }

    /// Answers with what an owner failed with, or else with `failure`.
    fn give_up(&mut self, ctx: &mut Ctx<'_>, failure: Failure) -> Step {
        let failed = self.failed.take().map(|failed| *failed);
        let mut failed =
            failed.unwrap_or(Failed { failure, applied: AppliedOutcome::No, answers: Vec::new() });
        // It was on its way: only an owner that is silent knows whether it was stored there.
        if self.writes && self.doubt && failed.applied == AppliedOutcome::No {
            failed.applied = AppliedOutcome::Maybe { acks: 0 };
        }
        let Failed { failure, applied, answers } = failed;
        ctx.fail(self.reply_to, self.op, failure, applied, answers);
        Step::Done
    }
}
