//! `wait`: until the cluster is as somebody needs it, with a deadline, for scripts and people.
//!
//! Asks every node for its status again and again; a node that does not answer may hold or lack
//! anything, so what is said of all nodes is not true then. A cluster that does not answer at all is
//! waited for as well. Says what is missing after two seconds, and again when that changes.

use crate::args::line::Line;
use crate::args::wait::{Condition, Wait};
use crate::commands::safety::Safety;
use crate::commands::{Done, changes, refill};
use crate::connect::{App, RETRIES, Session};
use crate::exit::Exit;
use crate::names::Names;
use crate::report::text::{Span, count};
use crate::report::{Report, json};
use galvani_client::{ClusterView, NodeId, NodeReport, NodeStatus, Refilling};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Waits.
pub(crate) async fn run(app: &App, args: Wait) -> Done {
    let patience = args.patience.or(app.global.timeout).unwrap_or(PATIENCE);
    let line = app.again(args.line());
    let began = Instant::now();
    let (mut session, mut calm_since) = (None, None);
    let mut said = Said { at: began, missing: String::new() };
    loop {
        let left = patience.saturating_sub(began.elapsed());
        let missing = look(app, &args, &mut session, &mut calm_since, left).await?;
        let Some(missing) = missing else { return done(app, &args, began.elapsed()) };
        if began.elapsed() + POLL >= patience {
            return Err(not_so(app, &line, session.is_some(), &missing, began.elapsed()));
        }
        said.say(app, &missing, began);
        tokio::time::sleep(POLL).await;
    }
}

/// One look; what is missing, if something is.
async fn look(
    app: &App,
    args: &Wait,
    session: &mut Option<Session>,
    calm_since: &mut Option<Instant>,
    left: Duration,
) -> Result<Option<String>, Report> {
    let session = match session {
        Some(session) => session,
        None => {
            let time = REQUEST.min(left).max(POLL);
            match app.connect_with(time, RETRIES).await {
                Ok(connected) => session.insert(connected),
                Err(report) if report.has("kind", "unreachable") => {
                    return Ok(Some("any server to answer".to_owned()));
                }
                Err(report) => return Err(report),
            }
        }
    };
    // Which nodes there are may change meanwhile; who does not answer is found out below.
    let _ = session.client.look().await;
    let reports = session.client.status().await;
    let view = session.client.cluster();
    let names = app.names(&view);
    let nodes: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
    let why = args.conditions.iter().find_map(|condition| never(condition, &nodes));
    if let Some(why) = why.or_else(|| wrong_but(args, &nodes)) {
        let report = Report::new(Exit::Usage, format!("wait: {why}")).why("nothing was waited for");
        return Err(report.next("see", app.again(Line::new("status")).to_string()));
    }
    let (but, settled) = (args.but.as_deref(), args.conditions.contains(&Condition::Settled));
    let reports = match but {
        Some(but) => without(but, reports),
        None => reports,
    };
    let missing = args.conditions.iter().find_map(|condition| {
        let missing = missing(condition, &view, &names, &reports)?;
        Some(format!("{condition}: {missing}"))
    });
    let damaged = but.filter(|_| settled).and_then(|but| damaged(but, &reports));
    let missing = missing.or(damaged.map(|damaged| format!("settled: {damaged}")));
    if missing.is_some() {
        *calm_since = None;
        return Ok(missing);
    }
    // What a replica lacks it notices when it compares, not at once.
    let since = *calm_since.get_or_insert_with(Instant::now);
    let settling = settled && since.elapsed() < CALM;
    Ok(settling.then(|| "settled: so far nothing is lacking, for three seconds".to_owned()))
}

/// What keeps a condition from being true.
fn missing(
    condition: &Condition,
    view: &ClusterView,
    names: &Names<'_>,
    reports: &[NodeReport],
) -> Option<String> {
    match condition {
        Condition::Ready => match Safety::of(view, reports).lost() {
            0 => None,
            lost => {
                let why = match silent(reports).as_slice() {
                    [] => "nodes do not reach each other".to_owned(),
                    silent => format!("no answer from {}", silent.join(" ")),
                };
                let lost = count(lost as u64, "partition");
                Some(format!("{lost} without a quorum, {why}"))
            }
        },
        Condition::Up(nodes) => {
            let up = reports.iter().filter(|report| report.status.is_ok()).count();
            let all = reports.len();
            ((up as u64) < u64::from(*nodes)).then(|| format!("{up} of {all} nodes answer"))
        }
        Condition::NodeUp(name) => {
            let report = reports.iter().find(|report| report.name == *name);
            match report.map(|report| &report.status) {
                Some(Ok(_)) => None,
                Some(Err(error)) => Some(error.to_string()),
                None => Some(format!("the cluster has no node {name}")),
            }
        }
        Condition::Hints(most) => {
            let held = hints(reports).into_iter();
            let held: Vec<(String, u64)> =
                held.map(|(owner, count)| (names.word(owner), count)).collect();
            hints_left(&held, *most, &silent(reports))
        }
        Condition::Behind(most) => behind(reports, *most),
        // Whoever does not answer is named with the hints that wait for it.
        Condition::Settled if !silent(reports).is_empty() => {
            missing(&Condition::Hints(0), view, names, reports)
        }
        Condition::Settled => apart(reports)
            .or_else(|| changes::pending(view, reports))
            .or_else(|| refill::left(names, reports))
            .or_else(|| lacking(view, names, reports)),
    }
}

/// A node other than `but` that has rows which are damaged: `but` may be the only one that has them whole.
fn damaged(but: &str, reports: &[NodeReport]) -> Option<String> {
    reports.iter().filter(|report| report.name != but).find_map(|report| {
        let rows = report.status.as_ref().map_or(0, |status| status.counters.rows_damaged);
        (rows > 0).then(|| format!("{} has {}", report.name, count(rows, "damaged row")))
    })
}

/// Hints that wait, and who lacks something: the one is often why of the other.
fn lacking(view: &ClusterView, names: &Names<'_>, reports: &[NodeReport]) -> Option<String> {
    let both = [Condition::Hints(0), Condition::Behind(0)];
    let both = both.iter().filter_map(|condition| missing(condition, view, names, reports));
    let both: Vec<String> = both.collect();
    (!both.is_empty()).then(|| both.join("; "))
}

/// The same without what this node lacks, and without the hints that wait for it: whoever takes it away loses
/// nothing of these.
fn without(but: &str, mut reports: Vec<NodeReport>) -> Vec<NodeReport> {
    let ids = reports.iter().filter(|report| report.name == but).map(|report| report.id);
    let ids: Vec<NodeId> = ids.collect();
    for report in &mut reports {
        let Ok(status) = &mut report.status else { continue };
        if report.name == but {
            (status.shards_behind, status.refilling) = (0, Refilling::default());
        } else {
            status.hints.retain(|target, _| !ids.contains(target));
        }
    }
    reports
}

fn silent(reports: &[NodeReport]) -> Vec<&str> {
    let silent = reports.iter().filter(|report| report.status.is_err());
    silent.map(|report| report.name.as_str()).collect()
}

/// `n2 does not answer`, `n2 n4 do not answer`; nothing if all do.
fn silent_words(silent: &[&str]) -> Option<String> {
    match silent {
        [] => None,
        [one] => Some(format!("{one} does not answer")),
        all => Some(format!("{} do not answer", all.join(" "))),
    }
}

/// A node that does not reach another.
fn apart(reports: &[NodeReport]) -> Option<String> {
    reports.iter().find_map(|report| {
        let down = report.status.as_ref().map_or(0, |status| status.peers_down.len());
        let peers = count(down as u64, "peer");
        (down > 0).then(|| format!("{} does not reach {peers}", report.name))
    })
}

/// How many hints those hold who answer, by the node that they wait for.
fn hints(reports: &[NodeReport]) -> BTreeMap<NodeId, u64> {
    let mut all = BTreeMap::new();
    for status in reports.iter().filter_map(|report| report.status.as_ref().ok()) {
        for (&owner, held) in &status.hints {
            *all.entry(owner).or_default() += held.count;
        }
    }
    all
}

/// Whether more than `most` hints wait, and for whom; one that does not answer may hold any number.
fn hints_left(held: &[(String, u64)], most: u64, silent: &[&str]) -> Option<String> {
    let all: u64 = held.iter().map(|(_, count)| count).sum();
    let waiting = held.iter().filter(|(_, count)| *count > 0).map(|(owner, held)| match held {
        1 => format!("1 hint waits for {owner}"),
        held => format!("{} wait for {owner}", count(*held, "hint")),
    });
    let waiting = waiting.collect::<Vec<_>>().join(", ");
    match silent_words(silent) {
        None => (all > most).then_some(waiting),
        Some(silent) if waiting.is_empty() => Some(silent),
        Some(silent) => Some(format!("{waiting}; {silent}")),
    }
}

/// Whether more than `most` shards lack something, or a node does not say.
fn behind(reports: &[NodeReport], most: u64) -> Option<String> {
    if let Some(silent) = silent_words(&silent(reports)) {
        return Some(silent);
    }
    let figure = |status: &NodeStatus| u64::from(status.shards_behind);
    let figure = |report: &NodeReport| report.status.as_ref().map_or(0, figure);
    let all: u64 = reports.iter().map(figure).sum();
    let each = reports.iter().filter(|report| figure(report) > 0);
    let each = each.map(|report| shards_behind(&report.name, figure(report)));
    (all > most).then(|| each.collect::<Vec<_>>().join(", "))
}

fn shards_behind(node: &str, shards: u64) -> String {
    format!("{node} {} behind", count(shards, "shard"))
}

/// Why a condition can never be true of a cluster with these nodes.
fn never(condition: &Condition, nodes: &[&str]) -> Option<String> {
    match condition {
        Condition::Up(wanted) if *wanted as usize > nodes.len() => {
            let have = count(nodes.len() as u64, "node");
            Some(format!("{condition} can never be: the cluster has {have}"))
        }
        Condition::NodeUp(name) if !nodes.contains(&name.as_str()) => {
            let nodes = nodes.join(" ");
            Some(format!("{condition} can never be: the cluster has no node {name}, only {nodes}"))
        }
        _ => None,
    }
}

/// Why `--but` says nothing of what is waited for, or of this cluster.
fn wrong_but(args: &Wait, nodes: &[&str]) -> Option<String> {
    let but = args.but.as_deref()?;
    if !nodes.contains(&but) {
        let nodes = nodes.join(" ");
        return Some(format!("--but {but}: the cluster has no node {but}, only {nodes}"));
    }
    let other = args.conditions.iter().find(|condition| !condition.is_of_lacks())?;
    Some(format!("--but {but} goes with settled, hints=N and behind=N, not with {other}"))
}

/// What was said last.
struct Said {
    at: Instant,
    missing: String,
}

impl Said {
    fn say(&mut self, app: &App, missing: &str, began: Instant) {
        let due = began.elapsed() >= TELL_AFTER && self.missing != missing;
        if due && (self.missing.is_empty() || self.at.elapsed() >= TELL_AFTER) {
            app.out.say(&format!("waiting for {missing}"));
            (self.at, self.missing) = (Instant::now(), missing.to_owned());
        }
    }
}

fn done(app: &App, args: &Wait, took: Duration) -> Done {
    let words: Vec<String> = args.conditions.iter().map(ToString::to_string).collect();
    if app.out.is_json() {
        let mut map = json::object("galvani.wait/1");
        map.insert("for".to_owned(), words.into());
        map.insert("ms".to_owned(), json::millis(took));
        app.out.json(map)?;
    } else if !app.out.quiet {
        app.out.line(&format!("{} after {}", words.join(", "), Span(took)))?;
    }
    Ok(Exit::Done)
}

fn not_so(app: &App, line: &Line, answered: bool, missing: &str, took: Duration) -> Report {
    let exit = if answered { Exit::TimedOut } else { Exit::NoServer };
    Report::new(exit, format!("wait: not so after {}", Span(took)))
        .why(format!("waited for {missing}"))
        .field("waited_for", missing)
        .next_line(vec![
            ("see", app.again(Line::new("status")).to_string()),
            ("again", line.to_string()),
        ])
}

/// How long, unless somebody says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time of one request.
const REQUEST: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);
const TELL_AFTER: Duration = Duration::from_secs(2);
/// Owners that differ have compared by then (docs/guarantees.md, section 2).
const CALM: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::{hints_left, never, shards_behind};

    #[test]
    fn what_can_never_be_is_told_from_what_may_come() {
        let nodes = ["n1", "n2", "n3"];
        let never = |text: &str| never(&text.parse().expect(text), &nodes);
        for text in ["up=3", "up=0", "node=n3:up", "ready", "settled", "hints=0", "behind=0"] {
            assert_eq!(never(text), None, "{text}");
        }
        assert_eq!(never("up=9").as_deref(), Some("up=9 can never be: the cluster has 3 nodes"));
        let other = never("node=n9:up").expect("no such node");
        assert!(other.ends_with("has no node n9, only n1 n2 n3"), "{other}");
    }

    #[test]
    fn shards_are_behind() {
        assert_eq!(shards_behind("n3", 34), "n3 34 shards behind");
    }

    #[test]
    fn hints_are_told_of_with_whom_they_wait_for_and_who_does_not_answer() {
        let held = [("n2".to_owned(), 29), ("n4".to_owned(), 1), ("n5".to_owned(), 0)];
        let words = "29 hints wait for n2, 1 hint waits for n4";
        assert_eq!(hints_left(&held, 0, &[]).as_deref(), Some(words));
        assert_eq!(hints_left(&held, 30, &[]), None);
        let words = "29 hints wait for n2, 1 hint waits for n4; n2 does not answer";
        assert_eq!(hints_left(&held, 0, &["n2"]).as_deref(), Some(words));
        // It may hold any number.
        let words = Some("n2 n4 do not answer");
        assert_eq!(hints_left(&[], 99, &["n2", "n4"]).as_deref(), words);
    }
}
