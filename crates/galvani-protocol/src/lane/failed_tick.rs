//! A tick whose commit failed: nothing that it staged exists, so nothing of it may be said.
//!
//! Operations that it started are forgotten and answered as refused, asks it made are not sent, and
//! what its answers rest on becomes an error. What earlier ticks committed stands. Next to read:
//! `unsay.rs`, for single effects.

use super::Lane;
use crate::effect::{Effect, ReplyTo};
use crate::layout::LayoutOp;
use crate::ops::{NOBODY, of_ask_id};
use crate::replica::as_replica_error;
use crate::table::Op;
use crate::unsay::unsay_one;
use galvani_model::store::StoreError;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::message::Failed;
use std::collections::BTreeSet;

impl Lane {
    /// A proposal that no client waits for is not made, and no voter is asked what it remembers.
    fn give_up_proposal(&mut self, op: u64) {
        match self.table.take(op) {
            Some(Op::Layout(LayoutOp::Recall(asked))) => asked.unsay(&mut self.layout.recall),
            Some(Op::Layout(proposal)) if !proposal.is_waited_for() => {
                self.layout.steward.proposed();
            }
            Some(other) => self.table.insert(op, other),
            None => {}
        }
    }

    /// What remains to be done of a tick whose commit failed.
    pub(super) fn unsay(
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
        self.rest();
        self.handoff.unsay(self.now);
        let mut unread = Vec::new();
        self.reaper.unsay();
        let followers = self.feed.unsay();
        self.sync.unsay(self.now);
        self.layout.unsay(self.now);
        for effect in &effects {
            let unsent = match effect {
                Effect::Ask {
                    id,
                    message: Message::Compare(_) | Message::PullHints(_) | Message::Supply(_),
                    ..
                } => self.table.take(of_ask_id(*id).0),
                // What it goes by may be gone with the tick; whoever waits for it is told in time.
                Effect::Ask { id, message: Message::Prepare(_) | Message::Accept(_), .. } => {
                    self.give_up_proposal(of_ask_id(*id).0);
                    None
                }
                Effect::Ask { .. }
                | Effect::Answer { .. }
                | Effect::Datagram { .. }
                | Effect::Liveness { .. }
                | Effect::WentBack(_)
                | Effect::Adopt(_)
                | Effect::Unequal { .. }
                | Effect::DefineBucket { .. } => None,
            };
            match unsent {
                Some(Op::Compare(compare)) => compare.unsay(&mut self.sync),
                Some(Op::FetchHints(fetch)) => fetch.unsay(&mut self.handoff),
                // What it was to confirm may rest on this tick.
                Some(Op::Get(get, _)) if !get.is_answered() => unread.push(get.reply_to()),
                Some(_) | None => {}
            }
        }
        let mut kept: Vec<Effect> =
            effects.into_iter().filter_map(|effect| unsay_one(effect, &fresh, &error)).collect();
        kept.extend(followers.into_iter().map(|to| {
            let (failure, applied) = (Failure::NoSession, AppliedOutcome::No);
            let message = Message::Failed(Failed { failure, applied, answers: Vec::new() });
            Effect::Answer { to, op: NOBODY, message }
        }));
        let unread = unread.into_iter().map(|to| (NOBODY, to, AppliedOutcome::No));
        let started = started.iter().map(|&(op, to)| (op, to, applied));
        kept.extend(started.chain(unread).map(|(op, to, applied)| {
            let failure = Failure::Coordinator(error.clone());
            let failed = Failed { failure, applied, answers: Vec::new() };
            Effect::Answer { to, op, message: Message::Failed(failed) }
        }));
        kept
    }
}
