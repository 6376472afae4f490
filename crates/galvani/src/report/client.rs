//! Errors of the client as blocks: what, why per replica, what to type next.
//!
//! One table decides the exit code, and one place says what became of a write. The ways out depend
//! on the command, which gives them as [`Retype`].

use crate::args::line::Line;
use crate::args::retype::Options;
use crate::exit::Exit;
use crate::report::text::{Size, Span};
use crate::report::{Report, json};
use bytes::Bytes;
use galvani_client::{
    Applied, BucketName, Error, ErrorKind, Outcome, Quorum, QuorumKind, ReplicaAnswer,
};
use galvani_model::limits::VALUE_BYTES_MAX;
use serde_json::{Map, Value};
use std::time::Duration;

/// The command as it could be typed again, and what else can be typed about the same thing.
#[derive(Clone, Debug)]
pub(crate) struct Retype {
    /// `put`, `get`, ...
    pub(crate) command: &'static str,
    /// What it was about, as people read it: `greeting`, or `bucket:key`.
    pub(crate) subject: String,
    /// The command with all its options: `galvani put greeting hi -w 3`.
    pub(crate) line: Line,
    pub(crate) about: About,
}

/// The cluster, and perhaps the bucket and the key, that a command is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// The options that say which cluster.
    pub(crate) cluster: Options,
    /// Whether it is a local cluster, whose nodes can be started from here.
    pub(crate) local: bool,
    /// The time a request had.
    pub(crate) timeout: Duration,
    pub(crate) bucket: Option<BucketName>,
    pub(crate) key: Option<Bytes>,
}

impl About {
    /// Another command on the same cluster.
    pub(crate) fn command(&self, command: &'static str) -> Line {
        Line::new(command).with_all(&self.cluster)
    }

    /// Another command on the same key.
    pub(crate) fn on_key(&self, command: &'static str) -> Line {
        let line = match &self.key {
            Some(key) => Line::new(command).place(key),
            None => Line::new(command),
        };
        let line = match &self.bucket {
            Some(bucket) => line.in_bucket(bucket),
            None => line,
        };
        line.with_all(&self.cluster)
    }

    fn status_or(&self) -> Way {
        ("or see who is down:", self.command("status").to_string())
    }
}

impl Retype {
    /// With a smaller quorum, and no other one above it.
    fn with(&self, what: QuorumKind, number: u8, n: u8) -> Line {
        let line = self.line.clone().with(option_of(what), number);
        match what {
            QuorumKind::W => line.at_most(&["--pw", "--dw"], number, n),
            QuorumKind::R => line.at_most(&["--pr"], number, n),
            QuorumKind::Pr | QuorumKind::Pw | QuorumKind::Dw => line,
        }
    }

    /// The line under a label, if it is short enough to be typed again, and more ways.
    fn ways(&self, label: &'static str, line: Line, more: Vec<Way>) -> Vec<Way> {
        let first = line.is_short().then(|| (label, line.to_string()));
        first.into_iter().chain(more).collect()
    }
}

/// A label and a command.
type Way = (&'static str, String);

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

/// The block of a run on many records that gave up after `patience`; what to type next is its own.
pub(crate) fn gave_up(error: &Error, retype: &Retype, patience: Duration) -> Report {
    let (command, took) = (retype.command, Span(patience));
    let what = format!("{command}: gave up after {took} of trying: {}", what(error.kind()));
    let exit = report(error, retype).exit;
    let mut told = Report::new(exit, what).field("kind", kind_name(error.kind()));
    let answers = &error.trace().answers;
    if !answers.is_empty() {
        let said: Vec<String> = answers.iter().map(ToString::to_string).collect();
        told = told.why(said.join("   ")).field("answers", answers_json(answers));
    }
    told
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
        report = with_fate(report, failure, retype);
    }
    with_ways(report, failure, retype)
}

/// What became of the write.
fn with_fate(report: Report, failure: &Failure<'_>, retype: &Retype) -> Report {
    match failure.applied {
        Applied::Maybe { acks } if retype.command == BUCKET_CREATE => report
            .why("SOME NODES MAY KNOW THE BUCKET, not all do. Making it again finishes it.")
            .field("applied", "maybe")
            .field("acks", acks),
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
            let fate = match (acks, names.is_empty()) {
                (0, _) => {
                    "THE WRITE MAY BE STORED: no replica has said so, and it may spread.".to_owned()
                }
                (_, true) => format!(
                    "THE WRITE IS STORED on {acks} of the replicas and reaches the others by itself."
                ),
                (_, false) => format!(
                    "THE WRITE IS STORED on {} and reaches the others by itself.",
                    names.join(", ")
                ),
            };
            report
                .why(format!("{fate} {}", on_repeating(retype)))
                .field("applied", "maybe")
                .field("acks", acks)
        }
    }
}

/// Whether typing it again does harm: each command is a new write.
fn on_repeating(retype: &Retype) -> &'static str {
    let line = &retype.line;
    if line.has("--blind") {
        "Repeating it blind would add a sibling: without --blind it reads and replaces."
    } else if line.has("--context") {
        "Repeating it under the same context would add a sibling: read again first."
    } else {
        "Repeating it is safe."
    }
}

/// What to type next about a group.
fn on_group(kind: &ErrorKind, retype: &Retype) -> Vec<Way> {
    let on = |command| retype.about.command(command).place(&retype.subject);
    match kind {
        ErrorKind::GroupFollows { .. } => vec![("see", on("group show").to_string())],
        ErrorKind::GroupHalted { event, .. } => vec![
            ("deliver it again", on("group dlq retry").place(event).to_string()),
            ("or give it up", on("group dlq drop").place(event).to_string()),
        ],
        _ => vec![("see", retype.about.command("group list").to_string())],
    }
}

/// What to type next.
fn with_ways(report: Report, failure: &Failure<'_>, retype: &Retype) -> Report {
    let Retype { line, about, .. } = retype;
    let status = || ("try", about.command("status").to_string());
    match failure.kind {
        ErrorKind::Quorum { what, need, got, n, .. } => {
            let report = report.field("need", *need).field("got", *got).field("n", *n);
            with_fewer(report, *what, *got, *n, retype)
        }
        ErrorKind::ReplicasDown { what, need, up, n, .. } => {
            let report = report.field("need", *need).field("up", *up).field("n", *n);
            with_fewer(report, *what, *up, *n, retype)
        }
        ErrorKind::QuorumTooLarge { what, n, .. } => {
            let all = line.clone().with(option_of(*what), Quorum::All);
            let all = all.at_most(&["-r", "-w", "--pr", "--pw", "--dw"], *n, *n);
            let exactly = retype.with(*what, *n, *n);
            let more = retype.ways("or", all, Vec::new());
            report.field("n", *n).next_line(retype.ways("try", exactly, more))
        }
        ErrorKind::TooManyCopies { n, .. } => {
            let fewer = line.clone().with("-n", n);
            let fewer = fewer.at_most(&["-r", "-w", "--pr", "--pw", "--dw"], *n, *n);
            report.field("n", *n).next_line(retype.ways("try", fewer, Vec::new()))
        }
        ErrorKind::TooLarge { size, limit } => {
            with_room(report.field("size", *size).field("limit", *limit), *size, retype)
        }
        ErrorKind::Unreachable { .. }
        | ErrorKind::NoOwnerReachable
        | ErrorKind::ConnectionLost { .. }
        | ErrorKind::Stopping => report.next_line(vec![status()]),
        ErrorKind::Timeout { .. } => {
            let longer = (about.timeout * 2).clamp(TIMEOUT_SUGGESTED, TIMEOUT_MOST);
            let again = line.clone().with("--timeout", format!("{}s", longer.as_secs()));
            let more = vec![about.status_or()];
            let can = about.timeout < TIMEOUT_MOST;
            report.next_line(if can { retype.ways("try", again, more) } else { vec![status()] })
        }
        ErrorKind::Overloaded { .. } => {
            report.next_line(retype.ways("try later", line.clone(), vec![about.status_or()]))
        }
        ErrorKind::RateLimited { .. } => report
            .why("each identity has limits.client_requests_per_second of a node's galvani.toml")
            .next_line(retype.ways("try later", line.clone(), Vec::new())),
        ErrorKind::UnknownGroup { .. }
        | ErrorKind::GroupFollows { .. }
        | ErrorKind::GroupHalted { .. } => report.next_line(on_group(failure.kind, retype)),
        ErrorKind::UnknownBucket { bucket } => report.next_line(vec![
            ("see", about.command("bucket list").to_string()),
            ("make", about.command("bucket create").place(bucket).to_string()),
        ]),
        ErrorKind::FeedGap { .. } if retype.command == "feed" => past_gap(report, retype),
        ErrorKind::BucketExists => {
            let name = about.bucket.as_ref().map_or("default", BucketName::as_str);
            report.next("see", about.command("bucket show").place(name).to_string())
        }
        // Half made, or it never can be: then what is wrong with it is all there is to say.
        ErrorKind::BucketRefused { .. } if failure.applied != Applied::No => {
            report.next_line(retype.ways("try again", line.clone(), vec![about.status_or()]))
        }
        ErrorKind::NodeDown { node } => with_node_back(report, node, retype),
        ErrorKind::ContextForged | ErrorKind::ContextOtherKey | ErrorKind::ContextMalformed => {
            let read = about.on_key("get").with("--context-out", CONTEXT_FILE);
            let then = line.clone().with("--context", CONTEXT_FILE);
            report.next("read again", read.to_string()).next_line(retype.ways(
                "then",
                then,
                Vec::new(),
            ))
        }
        ErrorKind::TooManySiblings { count, limit } => report
            .field("siblings", *count)
            .field("limit", *limit)
            .why("blind writes, or writes under old contexts, left them; put --take picks one")
            .next("see", about.on_key("get").with("--siblings", "table").to_string()),
        ErrorKind::Conflict { siblings } => report.field("siblings", *siblings),
        ErrorKind::ClockAhead { .. } | ErrorKind::RetryTooLate { .. } => {
            report.next("try", "timedatectl set-ntp true")
        }
        ErrorKind::Tls { .. } | ErrorKind::Identity { .. } | ErrorKind::NotPermitted => report
            .why("the cluster's own root must have signed what --identity or the context names")
            .next("see", "galvani ctx ls"),
        ErrorKind::FaultsNotAllowed => report
            .why(
                "a node takes faults only with faults = true under [transport] in its galvani.toml",
            )
            .next("see", about.command("status").to_string()),
        ErrorKind::Protocol { .. } => {
            report.why("most likely client and server are of different versions").next_line(vec![
                ("see", "galvani version".to_owned()),
                ("and", about.command("status").to_string()),
            ])
        }
        ErrorKind::Setting { what } if what.contains("has no node") => {
            report.next("see", about.command("status").to_string())
        }
        // The kinds of the client may grow; these say all there is to say in their own words.
        _ => report.next("see", "galvani help errors"),
    }
}

/// Both ways to go on behind writes that are gone.
fn past_gap(report: Report, retype: &Retype) -> Report {
    let on_gap = |what: &str| retype.line.clone().with("--on-gap", what);
    report
        .why("they were replaced, and are kept for limits.feed_keep_ms after that")
        .next_line(retype.ways("go on without them", on_gap("tell"), Vec::new()))
        .next_line(retype.ways("or see all that is there", on_gap("restart"), Vec::new()))
}

/// The same with as many answers as there can be.
fn with_fewer(report: Report, what: QuorumKind, most: u8, n: u8, retype: &Retype) -> Report {
    match most {
        0 => report.next("try", retype.about.command("status").to_string()),
        _ => {
            let more = vec![retype.about.status_or()];
            report.next_line(retype.ways("try", retype.with(what, most, n), more))
        }
    }
}

/// A bucket in which the value has room, if there can be one.
fn with_room(report: Report, size: u64, retype: &Retype) -> Report {
    if size > VALUE_BYTES_MAX as u64 {
        let most = Size(VALUE_BYTES_MAX as u64);
        let report = report.why(format!("split it: no bucket takes more than {most}"));
        return report.next("see", "galvani help bucket create");
    }
    let about = &retype.about;
    let mib = size.div_ceil(1 << 20);
    let make = about.command("bucket create").place(ROOMY).with("--max-value", format!("{mib}MiB"));
    report
        .why("split it, or use a bucket with a larger limit")
        .next("make", make.to_string())
        .next_line(retype.ways("then", retype.line.clone().with("-b", ROOMY), Vec::new()))
}

/// A node must come back first.
fn with_node_back(report: Report, node: &str, retype: &Retype) -> Report {
    let report = report.field("node", node).why("it would not know of it when it comes back");
    let about = &retype.about;
    match about.local {
        true => report
            .next("start it", about.command("dev start").place(node).to_string())
            .next_line(retype.ways("then", retype.line.clone(), Vec::new())),
        false => report.next("see", about.command("status").to_string()).next_line(retype.ways(
            "then",
            retype.line.clone(),
            Vec::new(),
        )),
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
        ErrorKind::LayoutRefused { .. } => Exit::OutOfDate,
        ErrorKind::Conflict { .. } => Exit::Siblings,
        ErrorKind::Tls { .. } | ErrorKind::Identity { .. } | ErrorKind::NotPermitted => {
            Exit::NotTrusted
        }
        ErrorKind::ReplicasDown { .. }
        | ErrorKind::QuorumTooLarge { .. }
        | ErrorKind::TooManyCopies { .. }
        | ErrorKind::TooLarge { .. }
        | ErrorKind::EmitsTooLarge { .. }
        | ErrorKind::TooManySessions { .. }
        | ErrorKind::FeedGap { .. }
        | ErrorKind::FeedTokenOfAnother { .. }
        | ErrorKind::GroupFollows { .. }
        | ErrorKind::GroupHalted { .. }
        | ErrorKind::Overloaded { .. }
        | ErrorKind::RateLimited { .. }
        | ErrorKind::Key(_)
        | ErrorKind::BucketName(_)
        | ErrorKind::UnknownBucket { .. }
        | ErrorKind::BucketExists
        | ErrorKind::BucketRefused { .. }
        | ErrorKind::BucketHome { .. }
        | ErrorKind::NodeDown { .. }
        | ErrorKind::FaultsNotAllowed
        | ErrorKind::JoinerUnfit { .. }
        | ErrorKind::ContextForged
        | ErrorKind::ContextOtherKey
        | ErrorKind::ContextMalformed
        | ErrorKind::TooManySiblings { .. }
        | ErrorKind::ClockAhead { .. }
        | ErrorKind::RetryTooLate { .. }
        | ErrorKind::TtlImpossible { .. } => Exit::Refused,
        ErrorKind::UnknownGroup { .. } => Exit::NotFound,
        ErrorKind::Setting { .. } | ErrorKind::GroupName { .. } => Exit::Usage,
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
        ErrorKind::RateLimited { .. } => "rate_limited",
        ErrorKind::NoOwnerReachable => "no_owner_reachable",
        ErrorKind::Stopping => "stopping",
        ErrorKind::Coordinator { .. } => "coordinator",
        ErrorKind::TooLarge { .. } => "too_large",
        ErrorKind::EmitsTooLarge { .. } => "emits_too_large",
        ErrorKind::FeedGap { .. } => "feed_gap",
        ErrorKind::FeedTokenOfAnother { .. } => "feed_token_of_another",
        ErrorKind::GroupName { .. } => "group_name",
        ErrorKind::UnknownGroup { .. } => "unknown_group",
        ErrorKind::GroupFollows { .. } => "group_follows",
        ErrorKind::GroupDamaged { .. } => "group_damaged",
        ErrorKind::GroupHalted { .. } => "group_halted",
        ErrorKind::NoSession => "no_session",
        ErrorKind::TooManySessions { .. } => "too_many_sessions",
        ErrorKind::UnknownBucket { .. } => "unknown_bucket",
        ErrorKind::BucketExists => "bucket_exists",
        ErrorKind::BucketRefused { .. } => "bucket_refused",
        ErrorKind::NodeDown { .. } => "node_down",
        ErrorKind::ContextForged => "context_forged",
        ErrorKind::ContextOtherKey => "context_other_key",
        ErrorKind::ContextMalformed => "context_malformed",
        ErrorKind::TooManySiblings { .. } => "too_many_siblings",
        ErrorKind::ClockAhead { .. } => "clock_ahead",
        ErrorKind::RetryTooLate { .. } => "retry_too_late",
        ErrorKind::TtlImpossible { .. } => "ttl_impossible",
        ErrorKind::NotPermitted => "not_permitted",
        ErrorKind::FaultsNotAllowed => "faults_not_allowed",
        ErrorKind::LayoutChanged => "layout_changed",
        ErrorKind::LayoutRefused { .. } => "layout_refused",
        ErrorKind::JoinerUnfit { .. } => "joiner_unfit",
        ErrorKind::Protocol { .. } => "protocol",
        _ => "other",
    }
}

/// Each replica's part, for scripts.
pub(crate) fn answers_json(answers: &[ReplicaAnswer]) -> Vec<Value> {
    let one = |answer: &ReplicaAnswer| {
        let mut map = Map::new();
        map.insert("node".to_owned(), answer.node.as_str().into());
        if let Some(owner) = &answer.stands_in_for {
            map.insert("stands_in_for".to_owned(), owner.as_str().into());
        }
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

/// Where a suggestion puts a context.
const CONTEXT_FILE: &str = "new.context";
/// The bucket that a suggestion makes for large values.
const ROOMY: &str = "large";
const TIMEOUT_SUGGESTED: Duration = Duration::from_secs(10);
const TIMEOUT_MOST: Duration = Duration::from_secs(60);
/// Commands that write.
const WRITING: [&str; 5] = ["put", "del", "update", "import", BUCKET_CREATE];
const BUCKET_CREATE: &str = "bucket create";

#[cfg(test)]
mod tests;
