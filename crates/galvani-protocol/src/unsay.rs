//! What may still be said after a commit failed.
//!
//! Nothing of the tick exists then, so no effect may leave that rests on it: not a record, not an
//! ack, not a clock. What earlier ticks had committed stands. Next to read: `lane.rs`, which takes
//! back the tick's own operations.

use crate::effect::Effect;
use crate::ops::{NOBODY, of_ask_id};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::message::{Failed, Replicated};
use std::collections::BTreeSet;

/// An effect as it stands after a failed commit: gone if it belongs to an operation of the tick, an
/// error if it is a replica's word on what it stored or holds, unchanged otherwise.
pub(crate) fn unsay_one(
    effect: Effect,
    fresh: &BTreeSet<u64>,
    error: &ReplicaError,
) -> Option<Effect> {
    match effect {
        Effect::Ask { id, .. } if fresh.contains(&of_ask_id(id).0) => None,
        Effect::Answer { op, .. } if fresh.contains(&op) => None,
        // They may speak of what this tick staged; the lane asks again.
        Effect::Ask {
            message: Message::Compare(_) | Message::PullHints(_) | Message::Supply(_),
            ..
        } => None,
        // This node's own vote for it may be of this tick.
        Effect::Ask { message: Message::Prepare(_) | Message::Accept(_), .. } => None,
        // A repair may carry what this tick staged.
        Effect::Ask { id, .. } if of_ask_id(id).0 == NOBODY => None,
        Effect::Answer { to, op, message } => {
            let error = error.clone();
            let message = match message {
                Message::Replicated(_) => Message::Replicated(Replicated { result: Err(error) }),
                Message::Fetched(_) => Message::Fetched(Err(error)),
                Message::FetchedPage(_) => Message::FetchedPage(Err(error)),
                Message::Compared(_) => Message::Compared(Err(error)),
                Message::Pulled(_) => Message::Pulled(Err(error)),
                Message::SliceIs(_) => Message::SliceIs(Err(error)),
                Message::HintsPulled(_) => Message::HintsPulled(Err(error)),
                Message::Clocks(_) => Message::Clocks(Err(error)),
                Message::HintsFound(_) => Message::HintsFound(Err(error)),
                Message::Voted(_) => Message::Voted(Err(error)),
                // It may say that all has been caught up with, by this very tick.
                Message::Progress(_) | Message::LayoutChanged(_) => {
                    let (failure, applied) =
                        (Failure::Coordinator(error), AppliedOutcome::Maybe { acks: 0 });
                    Message::Failed(Failed { failure, applied, answers: Vec::new() })
                }
                // What it shows, or where it begins, may be what this tick staged.
                Message::FeedPage(_) | Message::FeedOpened(_) => {
                    let (failure, applied) = (Failure::NoSession, AppliedOutcome::No);
                    Message::Failed(Failed { failure, applied, answers: Vec::new() })
                }
                // An earlier read may have been answered from what this tick staged.
                Message::GetDone(_) => {
                    let (failure, applied) = (Failure::Coordinator(error), AppliedOutcome::No);
                    Message::Failed(Failed { failure, applied, answers: Vec::new() })
                }
                Message::BucketDefined(_) => {
                    Message::BucketDefined(Err(Failure::Coordinator(error)))
                }
                other => other,
            };
            Some(Effect::Answer { to, op, message })
        }
        Effect::DefineBucket { .. } | Effect::Adopt(_) => None,
        // They rest on nothing that is stored.
        Effect::Datagram { .. } | Effect::Liveness { .. } | Effect::Ask { .. } => Some(effect),
        // It is so, whatever becomes of this tick.
        Effect::WentBack(_) => Some(effect),
        // What a comparison found; the next one says it again.
        Effect::Unequal { .. } => Some(effect),
    }
}
