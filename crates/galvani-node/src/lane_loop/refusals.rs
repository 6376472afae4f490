//! What is said in place of an answer that cannot be sent, or of which part could not be written down.
//!
//! Each is small, of the kind that its asker waits for, and never denies what was done: a write that was
//! stored and cannot be told of is in doubt. Next to read: `lane_loop.rs`.

use galvani_protocol::Effect;
use galvani_wire::Message;
use galvani_wire::failure::{Answer, AppliedOutcome, Failure, Outcome, ReplicaError};
use galvani_wire::message::{Failed, Replicated};

/// What is sent in place of an answer that is too large, or that the asker is too slow to take.
pub(super) fn unsendable(message: Message, why: ReplicaError) -> Message {
    match message {
        Message::Fetched(_) => Message::Fetched(Err(why)),
        Message::FetchedPage(_) => Message::FetchedPage(Err(why)),
        Message::Replicated(_) => Message::Replicated(Replicated { result: Err(why) }),
        Message::Compared(_) => Message::Compared(Err(why)),
        Message::Pulled(_) => Message::Pulled(Err(why)),
        Message::SliceIs(_) => Message::SliceIs(Err(why)),
        Message::HintsPulled(_) => Message::HintsPulled(Err(why)),
        Message::Clocks(_) => Message::Clocks(Err(why)),
        Message::Voted(_) => Message::Voted(Err(why)),
        Message::HintsFound(_) => Message::HintsFound(Err(why)),
        Message::PutDone(done) => {
            let stored = |answer: &&Answer| {
                matches!(answer.outcome, Outcome::Stored | Outcome::StoredDurably)
            };
            let acks = done.answers.iter().filter(stored).count() as u8;
            let (failure, applied) = (Failure::Coordinator(why), AppliedOutcome::Maybe { acks });
            Message::Failed(Failed { failure, applied, answers: Vec::new() })
        }
        Message::Failed(failed) => Message::Failed(Failed { answers: Vec::new(), ..failed }),
        // It was done.
        Message::LayoutChanged(_) | Message::BucketCreated => {
            let (failure, applied) = (Failure::Coordinator(why), AppliedOutcome::Maybe { acks: 0 });
            Message::Failed(Failed { failure, applied, answers: Vec::new() })
        }
        _ => {
            let (failure, applied) = (Failure::Coordinator(why), AppliedOutcome::No);
            Message::Failed(Failed { failure, applied, answers: Vec::new() })
        }
    }
}

/// Whether it tells a peer of a bucket.
pub(super) fn is_bucket_ask(effect: &Effect) -> bool {
    matches!(effect, Effect::Ask { message: Message::DefineBucket(_), .. })
}

/// An effect of a tick whose bucket could not be written down: nobody may be told that it exists.
pub(super) fn without_bucket(effect: Effect, why: &str) -> Effect {
    let failure = Failure::BucketRefused { why: why.to_owned() };
    match effect {
        Effect::Answer { to, op, message: Message::BucketDefined(_) } => {
            Effect::Answer { to, op, message: Message::BucketDefined(Err(failure)) }
        }
        Effect::Answer { to, op, message: Message::BucketCreated } => {
            let applied = AppliedOutcome::No;
            let failed = Failed { failure, applied, answers: Vec::new() };
            Effect::Answer { to, op, message: Message::Failed(failed) }
        }
        Effect::Ask { .. }
        | Effect::Answer { .. }
        | Effect::Datagram { .. }
        | Effect::Liveness { .. }
        | Effect::WentBack(_)
        | Effect::Adopt(_)
        | Effect::Unequal { .. }
        | Effect::DefineBucket { .. } => effect,
    }
}
