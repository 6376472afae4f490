//! From what a server says to what the caller is told, and whether to try again.
//!
//! Two total functions over the wire's failures: [`verdict`] and [`kind_of`]. They send nothing and
//! know no clock. Next to read: `call.rs`, which acts on the verdict.

use crate::answer::named;
use crate::directory::Directory;
use crate::error::ErrorKind;
use galvani_model::bucket::BucketName;
use galvani_wire::message::Failed;
use galvani_wire::{Answer, Failure, ReplicaError};
use std::time::Duration;

/// What to do after a server refused or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether another attempt can help, and how long to wait for it at least.
    pub(crate) retry: Option<Duration>,
    /// Whether waiting cannot help, only another node that sees it otherwise: ask one such, once.
    pub(crate) once: bool,
    /// Whether the client's view of the cluster may be old.
    pub(crate) stale: bool,
    /// Whether the server has more to do than it can, so that nothing should be asked twice.
    pub(crate) overloaded: bool,
}

const AGAIN: Verdict =
    Verdict { retry: Some(Duration::ZERO), once: false, stale: false, overloaded: false };
const SECOND_OPINION: Verdict = Verdict { once: true, ..AGAIN };
/// How long nodes may take to hear of a layout, about.
const LAYOUT_PAUSE: Duration = Duration::from_millis(30);
const AGAIN_ELSEWHERE: Verdict = Verdict { stale: true, ..AGAIN };
const FINAL: Verdict = Verdict { retry: None, ..AGAIN };
const FINAL_BUT_STALE: Verdict = Verdict { stale: true, ..FINAL };

/// Whether to try again after `failure`.
pub(crate) fn verdict(failure: &Failure) -> Verdict {
    match failure {
        Failure::Overloaded { retry_after_ms } | Failure::RateLimited { retry_after_ms } => {
            let after = Duration::from_millis(u64::from(*retry_after_ms));
            Verdict { retry: Some(after), overloaded: true, ..AGAIN }
        }
        // Another owner may reach more of them, or remember.
        Failure::ReplicasDown { .. } | Failure::RetryTooLate { .. } => SECOND_OPINION,
        Failure::QuorumNotMet { .. } | Failure::DeadlinePassed | Failure::Stopping => AGAIN,
        Failure::NoOwnerReachable => AGAIN_ELSEWHERE,
        // Nodes hear of a layout within some milliseconds of each other.
        Failure::LayoutChanged => Verdict { retry: Some(LAYOUT_PAUSE), ..AGAIN_ELSEWHERE },
        Failure::Coordinator(why) => match why {
            ReplicaError::NotOwner | ReplicaError::LayoutChanged | ReplicaError::UnknownBucket => {
                AGAIN_ELSEWHERE
            }
            ReplicaError::Refilling
            | ReplicaError::DiskFull
            | ReplicaError::Damaged
            | ReplicaError::StorageFailed
            | ReplicaError::Expired
            | ReplicaError::HintsFull => AGAIN,
            ReplicaError::Overloaded => Verdict { overloaded: true, ..AGAIN },
            ReplicaError::Malformed | ReplicaError::AnswerTooLarge => FINAL,
        },
        Failure::UnknownBucket => FINAL_BUT_STALE,
        // Another node may have room, and a session is opened anew by whoever lost one.
        Failure::NoSession | Failure::TooManySessions { .. } => AGAIN,
        Failure::LayoutOutdated { .. }
        | Failure::LayoutChanging { .. }
        | Failure::LayoutRefused { .. } => FINAL_BUT_STALE,
        // Another member may reach it; the one that was asked has waited for a while already.
        Failure::JoinerUnfit { .. } => FINAL,
        Failure::QuorumImpossible { .. }
        | Failure::CopiesImpossible { .. }
        | Failure::BucketExists
        | Failure::BucketRefused { .. }
        | Failure::BucketHome { .. }
        | Failure::MemberDown { .. }
        | Failure::ValueTooLarge { .. }
        | Failure::EmitsTooLarge { .. }
        | Failure::ContextForged
        | Failure::ContextOtherKey
        | Failure::ContextTooLong
        | Failure::TooManySiblings { .. }
        | Failure::ClockAhead { .. }
        | Failure::TtlImpossible { .. }
        | Failure::NotPermitted
        | Failure::FaultsNotAllowed
        | Failure::Malformed { .. } => FINAL,
    }
}

/// What the caller is told of `failed`, `after` this long.
pub(crate) fn kind_of(
    failed: &Failed,
    bucket: Option<&BucketName>,
    after: Duration,
    directory: &Directory,
) -> ErrorKind {
    let detail = || missing(&failed.answers, directory);
    match &failed.failure {
        &Failure::QuorumNotMet { what, need, got, n } => {
            ErrorKind::Quorum { what, need, got, n, after, detail: detail() }
        }
        &Failure::ReplicasDown { what, need, up, n } => {
            ErrorKind::ReplicasDown { what, need, up, n, detail: detail() }
        }
        &Failure::QuorumImpossible { what, asked, n } => {
            ErrorKind::QuorumTooLarge { what, asked, n }
        }
        &Failure::CopiesImpossible { asked, n } => ErrorKind::TooManyCopies { asked, n },
        Failure::UnknownBucket => {
            let bucket = bucket.map(BucketName::to_string).unwrap_or_default();
            ErrorKind::UnknownBucket { bucket }
        }
        Failure::BucketExists => ErrorKind::BucketExists,
        Failure::BucketRefused { why } => ErrorKind::BucketRefused { why: why.clone() },
        &Failure::MemberDown { node } => ErrorKind::NodeDown { node: directory.name_of(node) },
        &Failure::BucketHome { node } => ErrorKind::BucketHome { node: directory.name_of(node) },
        &Failure::ValueTooLarge { size, limit } => ErrorKind::TooLarge { size, limit },
        &Failure::EmitsTooLarge { bytes, count } => ErrorKind::EmitsTooLarge { bytes, count },
        Failure::NoSession => ErrorKind::NoSession,
        &Failure::TooManySessions { limit } => ErrorKind::TooManySessions { limit },
        Failure::ContextForged => ErrorKind::ContextForged,
        Failure::ContextOtherKey => ErrorKind::ContextOtherKey,
        Failure::ContextTooLong => ErrorKind::ContextMalformed,
        &Failure::TooManySiblings { count, limit } => ErrorKind::TooManySiblings { count, limit },
        &Failure::ClockAhead { ahead_ms } => {
            ErrorKind::ClockAhead { ahead: Duration::from_millis(ahead_ms) }
        }
        &Failure::RetryTooLate { age_ms } => {
            ErrorKind::RetryTooLate { age: Duration::from_millis(age_ms) }
        }
        &Failure::TtlImpossible { ttl_ms } => {
            ErrorKind::TtlImpossible { ttl: Duration::from_millis(ttl_ms) }
        }
        &Failure::Overloaded { retry_after_ms } => {
            let retry_after = Duration::from_millis(u64::from(retry_after_ms));
            ErrorKind::Overloaded { retry_after }
        }
        &Failure::RateLimited { retry_after_ms } => {
            let retry_after = Duration::from_millis(u64::from(retry_after_ms));
            ErrorKind::RateLimited { retry_after }
        }
        Failure::Coordinator(why) => ErrorKind::Coordinator { why: why.clone() },
        Failure::NoOwnerReachable => ErrorKind::NoOwnerReachable,
        Failure::LayoutChanged => ErrorKind::LayoutChanged,
        Failure::LayoutOutdated { made_after, version } => {
            let why = format!(
                "the plan was made on version {made_after}, the cluster is at version {version}"
            );
            ErrorKind::LayoutRefused { why }
        }
        Failure::LayoutChanging { version } => {
            let why = format!("it is changing to version {version}");
            ErrorKind::LayoutRefused { why }
        }
        Failure::LayoutRefused { why } => ErrorKind::LayoutRefused { why: why.clone() },
        Failure::JoinerUnfit { node, why } => ErrorKind::JoinerUnfit { node: *node, why: *why },
        Failure::DeadlinePassed => ErrorKind::Timeout { after, detail: detail() },
        Failure::Stopping => ErrorKind::Stopping,
        Failure::NotPermitted => ErrorKind::NotPermitted,
        Failure::FaultsNotAllowed => ErrorKind::FaultsNotAllowed,
        Failure::Malformed { what } => ErrorKind::Protocol { what: what.clone() },
    }
}

/// Who did not do their part, and why: `n3 unreachable, n4 no answer`.
fn missing(answers: &[Answer], directory: &Directory) -> String {
    let answers = named(answers, directory);
    let failed = answers.iter().filter(|answer| !answer.is_ok());
    failed.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::verdict;
    use galvani_model::ids::NodeId;
    use galvani_model::request::Quorum;
    use galvani_wire::Failure;
    use galvani_wire::failure::QuorumKind;
    use std::time::Duration;

    #[test]
    fn what_cannot_change_is_never_tried_again() {
        let what = QuorumKind::W;
        let node = NodeId(1);
        let text = || "x".to_owned();
        for failure in [
            Failure::QuorumImpossible { what, asked: Quorum::Exactly(5), n: 3 },
            Failure::CopiesImpossible { asked: 5, n: 3 },
            Failure::UnknownBucket,
            Failure::BucketExists,
            Failure::BucketRefused { why: text() },
            Failure::BucketHome { node },
            Failure::MemberDown { node },
            Failure::ValueTooLarge { size: 2, limit: 1 },
            Failure::ContextForged,
            Failure::ContextOtherKey,
            Failure::ContextTooLong,
            Failure::TooManySiblings { count: 101, limit: 100 },
            Failure::ClockAhead { ahead_ms: 1 },
            Failure::NotPermitted,
            Failure::FaultsNotAllowed,
            Failure::Malformed { what: text() },
        ] {
            assert_eq!(verdict(&failure).retry, None, "{failure:?}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_after_the_hint() {
        let what = QuorumKind::R;
        for (failure, after_ms, stale) in [
            (Failure::Overloaded { retry_after_ms: 30 }, 30, false),
            (Failure::RateLimited { retry_after_ms: 70 }, 70, false),
            (Failure::ReplicasDown { what, need: 2, up: 1, n: 3 }, 0, false),
            (Failure::QuorumNotMet { what, need: 2, got: 1, n: 3 }, 0, false),
            (Failure::NoOwnerReachable, 0, true),
            (Failure::LayoutChanged, 30, true),
            (Failure::Stopping, 0, false),
        ] {
            let verdict = verdict(&failure);
            assert_eq!(verdict.retry, Some(Duration::from_millis(after_ms)), "{failure:?}");
            assert_eq!(verdict.stale, stale, "{failure:?}");
            let known_down = matches!(failure, Failure::ReplicasDown { .. });
            assert_eq!(verdict.once, known_down, "{failure:?}");
        }
    }
}
