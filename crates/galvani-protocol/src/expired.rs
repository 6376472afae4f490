//! Work whose time was up before its turn came: dropped, with a typed answer.
//!
//! A request waits in the lane's inbox while the lane is busy or its process stands still. Doing it
//! when nobody waits for it any more only delays those that somebody does wait for. What it has
//! waited is taken off its timeout, which counts from its arrival. Next to read: `lane.rs`.

use crate::effect::{Effect, ReplyTo};
use crate::ops::NOBODY;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::message::{Failed, Replicated};

/// Takes what a request has waited off its timeout. False: nothing is left of it. A peer's timeout
/// of 0 means that nobody waits (a repair), and such a request never expires.
pub(crate) fn charge(message: &mut Message, waited_micros: u64) -> bool {
    let timeout_ms = match message {
        Message::Put(put) => &mut put.timeout_ms,
        Message::Get(get) => &mut get.timeout_ms,
        Message::List(list) => &mut list.timeout_ms,
        Message::Explain(explain) => &mut explain.timeout_ms,
        Message::Replicate(replicate) => &mut replicate.timeout_ms,
        Message::Hint(hint) => &mut hint.record.timeout_ms,
        Message::Supply(supply) => &mut supply.timeout_ms,
        Message::Fetch(fetch) => &mut fetch.timeout_ms,
        Message::FetchPage(fetch) => &mut fetch.timeout_ms,
        _ => return true,
    };
    let waited_ms = u32::try_from(waited_micros / 1000).unwrap_or(u32::MAX);
    let expired = *timeout_ms != 0 && waited_ms >= *timeout_ms;
    *timeout_ms = timeout_ms.saturating_sub(waited_ms);
    !expired
}

/// The answer to a request that nothing was done for.
pub(crate) fn answer(to: ReplyTo, message: &Message) -> Effect {
    let message = match message {
        Message::Replicate(_) | Message::Hint(_) | Message::Supply(_) => {
            Message::Replicated(Replicated { result: Err(ReplicaError::Expired) })
        }
        Message::Fetch(_) => Message::Fetched(Err(ReplicaError::Expired)),
        Message::FetchPage(_) => Message::FetchedPage(Err(ReplicaError::Expired)),
        _ => {
            let (failure, applied) = (Failure::DeadlinePassed, AppliedOutcome::No);
            Message::Failed(Failed { failure, applied, answers: Vec::new() })
        }
    };
    Effect::Answer { to, op: NOBODY, message }
}
