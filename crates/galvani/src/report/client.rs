//! Errors of the client as blocks: what, why per replica, what to type next.
//!
//! One table decides the exit code, and one place says what became of a write. The ways out depend
//! on the command, which gives them as [`Retype`].

use crate::exit::Exit;
use crate::report::text::{Size, Span};
use crate::report::{Report, json};
use galvani_client::{Applied, Error, ErrorKind, Outcome, Quorum, QuorumKind, ReplicaAnswer};
use serde_json::{Map, Value};

/// The command as it could be typed again.
#[derive(Clone, Debug)]
pub(crate) struct Retype {
    /// `put`, `get`, ...
    pub(crate) command: &'static str,
    /// What it was about, as people read it: `greeting`, or `bucket:key`.
    pub(crate) subject: String,
    /// The command and its arguments, without quorum options: `galvani put greeting hi`.
    pub(crate) typed: String,
}

impl Retype {
    /// With a smaller quorum.
    fn with(&self, what: QuorumKind, number: impl std::fmt::Display) -> String {
        format!("{} {} {number}", self.typed, option_of(what))
    }
}

/// What went wrong, in parts: tests make them, [`report`] takes them from a client error.
pub(crate) struct Failure<'a> {
    pub(crate) kind: &'a ErrorKind,
    pub(crate) applied: Applied,
    pub(crate) answers: &'a [ReplicaAnswer],
    pub(crate) write: bool,
}

/// The block of a client's error.
pub(crate) fn report(error: &Error, retype: &Retype) -> Report {
    let trace = error.trace();
    // A command that writes was refused also when its own read before the write failed.
    let write = WRITING.contains(&retype.command);
    let failure =
        Failure { kind: error.kind(), applied: error.applied(), answers: &trace.answers, write };
    let mut report = block(&failure, retype);
    if let Some(id) = trace.request_id {
        report = report.field("request_id", id.to_string());
    }
    if trace.attempts.len() > 1 {
        let tries = trace.attempts.iter().map(|attempt| {
            format!("{} {} ({})", attempt.node, attempt.outcome, Span(attempt.took))
        });
        let tries: Vec<Value> = tries.map(Value::from).collect();
        report = report.field("attempts", tries);
    }
    report
}

/// The block of a failure.
pub(crate) fn block(failure: &Failure<'_>, retype: &Retype) -> Report {
    let exit = exit_of(failure);
    let Retype { command, subject, .. } = retype;
    let what = what(failure.kind);
    let head = match subject.is_empty() {
        true => format!("{command}: {what}"),
        false => format!("{command} {subject}: {what}"),
    };
    let mut report = Report::new(exit, head).field("kind", kind_name(failure.kind));
    if !failure.answers.is_empty() {
        let said: Vec<String> = failure.answers.iter().map(ToString::to_string).collect();
        report = report.why(said.join("   "));
        report = report.field("answers", answers_json(failure.answers));
    }
    if failure.write {
        report = with_fate(report, failure);
    }
    with_ways(report, failure, retype)
}

/// What became of the write.
fn with_fate(report: Report, failure: &Failure<'_>) -> Report {
    match failure.applied {
        Applied::No => report.why("NOTHING WAS WRITTEN").field("applied", "no"),
        Applied::Maybe { acks } => {
            let stored = failure.answers.iter().filter(|answer| match answer.outcome {
                Outcome::Stored | Outcome::StoredDurably => true,
                Outcome::Answered
                | Outcome::Pending
                | Outcome::Unreachable
                | Outcome::Refused(_) => false,
            });
            let names: Vec<&str> = stored.map(|answer| answer.node.as_str()).collect();
            let line = match (acks, names.is_empty()) {
                (0, _) => "THE WRITE MAY BE STORED: no replica has said so, and it may spread. \
                           Repeating it is safe."
                    .to_owned(),
                (_, true) => format!(
                    "THE WRITE IS STORED on {acks} of the replicas; a read brings the others up \
                     to date. Repeating it is safe."
                ),
                (_, false) => format!(
                    "THE WRITE IS STORED on {}; a read brings the others up to date. Repeating it \
                     is safe.",
                    names.join(", ")
                ),
            };
            report.why(line).field("applied", "maybe").field("acks", acks)
        }
    }
}

/// What to type next.
fn with_ways(report: Report, failure: &Failure<'_>, retype: &Retype) -> Report {
    match failure.kind {
        ErrorKind::Quorum { what, need, got, n, .. } => {
            let report = report.field("need", *need).field("got", *got).field("n", *n);
            match got {
                0 => report.next("try", "galvani status"),
                _ => report.next_line(vec![
                    ("try", retype.with(*what, got)),
                    ("or see who is down:", "galvani status".to_owned()),
                ]),
            }
        }
        ErrorKind::ReplicasDown { what, need, up, n, .. } => {
            let report = report.field("need", *need).field("up", *up).field("n", *n);
            match up {
                0 => report.next("try", "galvani status"),
                _ => report.next_line(vec![
                    ("try", retype.with(*what, up)),
                    ("or see who is down:", "galvani status".to_owned()),
                ]),
            }
        }
        ErrorKind::QuorumTooLarge { what, n, .. } => report.field("n", *n).next_line(vec![
            ("try", retype.with(*what, n)),
            ("or", retype.with(*what, Quorum::All)),
        ]),
        ErrorKind::TooManyCopies { n, .. } => {
            report.field("n", *n).next("try", format!("{} -n {n}", retype.typed))
        }
        ErrorKind::TooLarge { size, limit } => report
            .field("size", *size)
            .field("limit", *limit)
            .why("split it, or make a bucket with a larger limit")
            .next("try", "galvani bucket create NAME --max-value 4MiB"),
        ErrorKind::Unreachable { .. }
        | ErrorKind::NoOwnerReachable
        | ErrorKind::ConnectionLost { .. }
        | ErrorKind::Stopping => report.next("try", "galvani status"),
        ErrorKind::Timeout { .. } => report.next_line(vec![
            ("try", format!("{} --timeout 10s", retype.typed)),
            ("or see who is down:", "galvani status".to_owned()),
        ]),
        ErrorKind::Overloaded { .. } => report.next("try", format!("{} (later)", retype.typed)),
        ErrorKind::UnknownBucket { bucket } => report.next_line(vec![
            ("see", "galvani bucket list".to_owned()),
            ("make", format!("galvani bucket create {bucket}")),
        ]),
        ErrorKind::BucketExists => {
            report.next("see", format!("galvani bucket show {}", retype.subject))
        }
        ErrorKind::ContextForged | ErrorKind::ContextOtherKey | ErrorKind::ContextMalformed => {
            report.next_line(vec![
                ("read again", format!("galvani get {} --context-out F", retype.subject)),
                ("or", format!("galvani update {} -- CMD", retype.subject)),
            ])
        }
        ErrorKind::TooManySiblings { count, limit } => report
            .field("siblings", *count)
            .field("limit", *limit)
            .why("blind writes, or writes under old contexts, left them")
            .next("merge", format!("galvani update {} -- CMD", retype.subject)),
        ErrorKind::Conflict { siblings } => report.field("siblings", *siblings),
        ErrorKind::ClockAhead { .. } => report.next("try", "timedatectl set-ntp true"),
        ErrorKind::Tls { .. } | ErrorKind::NotPermitted => report.next_line(vec![
            ("see", "galvani ctx ls".to_owned()),
            ("or say", format!("{} --identity DIR", retype.typed)),
        ]),
        ErrorKind::Protocol { .. } => report
            .why("most likely client and server are of different versions")
            .next("see", "galvani version && galvani status"),
        // The kinds of the client may grow; these say all there is to say in their own words.
        _ => report.next("see", "galvani help errors"),
    }
}

/// What failed, in the words of 4.6; other kinds word themselves.
fn what(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::QuorumTooLarge { what, asked, n } => {
            format!("{} {asked} asks for more copies than exist (n={n})", option_of(*what))
        }
        ErrorKind::TooManyCopies { asked, n } => {
            format!("-n {asked} is not between 1 and the bucket's n={n}")
        }
        ErrorKind::TooLarge { size, limit } => {
            format!("{} is over the bucket's limit ({})", Size(*size), Size(*limit))
        }
        ErrorKind::TooManySiblings { limit, .. } => {
            format!("it has {limit} siblings, the limit")
        }
        ErrorKind::Quorum { .. } => without_detail(kind),
        other => other.to_string(),
    }
}

/// Its first part: who answered what is told on the lines below.
fn without_detail(kind: &ErrorKind) -> String {
    let text = kind.to_string();
    match text.split_once(": ") {
        Some((head, _)) => head.to_owned(),
        None => text,
    }
}

/// The one table from failures to exit codes.
fn exit_of(failure: &Failure<'_>) -> Exit {
    if failure.write && matches!(failure.applied, Applied::Maybe { .. }) {
        return Exit::Unknown;
    }
    match failure.kind {
        ErrorKind::Quorum { .. } | ErrorKind::Timeout { .. } | ErrorKind::Coordinator { .. } => {
            match failure.write {
                true => Exit::Refused,
                false => Exit::TimedOut,
            }
        }
        ErrorKind::Unreachable { .. }
        | ErrorKind::ConnectionLost { .. }
        | ErrorKind::Stopping
        | ErrorKind::NoOwnerReachable => Exit::NoServer,
        ErrorKind::Conflict { .. } => Exit::Siblings,
        ErrorKind::Tls { .. } | ErrorKind::Identity { .. } | ErrorKind::NotPermitted => {
            Exit::NotTrusted
        }
        ErrorKind::ReplicasDown { .. }
        | ErrorKind::QuorumTooLarge { .. }
        | ErrorKind::TooManyCopies { .. }
        | ErrorKind::TooLarge { .. }
        | ErrorKind::Overloaded { .. }
        | ErrorKind::Key(_)
        | ErrorKind::BucketName(_)
        | ErrorKind::UnknownBucket { .. }
        | ErrorKind::BucketExists
        | ErrorKind::BucketRefused { .. }
        | ErrorKind::BucketHome { .. }
        | ErrorKind::NodeDown { .. }
        | ErrorKind::ContextForged
        | ErrorKind::ContextOtherKey
        | ErrorKind::ContextMalformed
        | ErrorKind::TooManySiblings { .. }
        | ErrorKind::ClockAhead { .. } => Exit::Refused,
        ErrorKind::Setting { .. } => Exit::Usage,
        // Protocol, Value, Closed, and what the client may add: nobody expects these.
        _ => Exit::Unexpected,
    }
}

fn kind_name(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Quorum { .. } => "quorum",
        ErrorKind::ReplicasDown { .. } => "replicas_down",
        ErrorKind::QuorumTooLarge { .. } => "quorum_too_large",
        ErrorKind::TooManyCopies { .. } => "too_many_copies",
        ErrorKind::Timeout { .. } => "timeout",
        ErrorKind::Conflict { .. } => "conflict",
        ErrorKind::Unreachable { .. } => "unreachable",
        ErrorKind::Tls { .. } => "tls",
        ErrorKind::Identity { .. } => "identity",
        ErrorKind::ConnectionLost { .. } => "connection_lost",
        ErrorKind::Overloaded { .. } => "overloaded",
        ErrorKind::NoOwnerReachable => "no_owner_reachable",
        ErrorKind::Stopping => "stopping",
        ErrorKind::Coordinator { .. } => "coordinator",
        ErrorKind::TooLarge { .. } => "too_large",
        ErrorKind::UnknownBucket { .. } => "unknown_bucket",
        ErrorKind::BucketExists => "bucket_exists",
        ErrorKind::BucketRefused { .. } => "bucket_refused",
        ErrorKind::NodeDown { .. } => "node_down",
        ErrorKind::ContextForged => "context_forged",
        ErrorKind::ContextOtherKey => "context_other_key",
        ErrorKind::ContextMalformed => "context_malformed",
        ErrorKind::TooManySiblings { .. } => "too_many_siblings",
        ErrorKind::ClockAhead { .. } => "clock_ahead",
        ErrorKind::NotPermitted => "not_permitted",
        ErrorKind::Protocol { .. } => "protocol",
        _ => "other",
    }
}

/// Each replica's part, for scripts.
pub(crate) fn answers_json(answers: &[ReplicaAnswer]) -> Vec<Value> {
    let one = |answer: &ReplicaAnswer| {
        let mut map = Map::new();
        map.insert("node".to_owned(), answer.node.as_str().into());
        let outcome = match &answer.outcome {
            Outcome::Stored => "stored",
            Outcome::StoredDurably => "stored_durably",
            Outcome::Answered => "answered",
            Outcome::Pending => "pending",
            Outcome::Unreachable => "unreachable",
            Outcome::Refused(why) => {
                map.insert("why".to_owned(), why.to_string().into());
                "refused"
            }
        };
        map.insert("outcome".to_owned(), outcome.into());
        if let Some(took) = answer.took {
            map.insert("ms".to_owned(), json::millis(took));
        }
        Value::Object(map)
    };
    answers.iter().map(one).collect()
}

fn option_of(what: QuorumKind) -> &'static str {
    match what {
        QuorumKind::R => "-r",
        QuorumKind::Pr => "--pr",
        QuorumKind::W => "-w",
        QuorumKind::Pw => "--pw",
        QuorumKind::Dw => "--dw",
    }
}

/// Commands that write.
const WRITING: [&str; 5] = ["put", "del", "update", "import", "bucket create"];

#[cfg(test)]
mod tests;
