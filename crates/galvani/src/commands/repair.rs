//! `repair`: nodes read all they hold, mend what is damaged, and compare it with the other owners.
//!
//! The nodes do the work by themselves; this starts it, shows how far they are, and sums up. What
//! cannot be mended is named, and what to type then. Next to read: `damage.rs`,
//! `galvani-protocol/src/sync/run.rs`.

use crate::args::line::Line;
use crate::args::repair::Repair;
use crate::commands::patience::Signals;
use crate::commands::{Done, damage, progress};
use crate::connect::{App, RETRIES, Session};
use crate::exit::Exit;
use crate::report::client::Retype;
use crate::report::text::{Span, count, grouped, shell};
use crate::report::{Report, client, json};
use galvani_client::{ErrorKind, Member, Partition, RepairState};
use serde_json::{Map, Value, json as value};
use std::time::{Duration, Instant};

/// Starts it, and waits for its end.
pub(crate) async fn run(app: &App, args: Repair) -> Done {
    let session = app.connect_with(app.global.timeout.unwrap_or(REQUEST), RETRIES).await?;
    let mut nodes = start(app, &session, &args).await?;
    let began = Instant::now();
    if !args.no_wait {
        let mut signals = Signals::taken()?;
        tokio::select! {
            waited = wait(app, &session, &args, &mut nodes) => waited?,
            () = signals.any() => return Ok(left(app, &args)),
        }
    }
    let report = left_over(app, &args, &nodes);
    if app.out.is_json() {
        app.out.json(document(&args, &nodes, began.elapsed()))?;
        return Ok(report.map_or(Exit::Done, |report| report.exit));
    }
    for node in nodes.iter().filter(|_| !app.out.quiet) {
        app.out.line(&node.words(args.no_wait))?;
    }
    if report.is_none() && !app.out.quiet && !args.no_wait {
        app.out.line(&format!("repaired in {}", Span(began.elapsed())))?;
    }
    report.map_or(Ok(Exit::Done), Err)
}

/// One node that was asked.
struct Node {
    name: String,
    /// What it said last, or why it says nothing.
    state: Result<RepairState, String>,
    /// Since when it says nothing.
    silent_since: Option<Instant>,
}

impl Node {
    fn is_over(&self) -> bool {
        self.state.as_ref().map_or(true, |state| !state.running)
    }

    fn is_damaged(&self) -> bool {
        self.state.as_ref().is_ok_and(|state| {
            let files = !state.damaged_files.is_empty();
            state.rows_damaged > 0 || state.shards_unread > 0 || files
        })
    }

    fn words(&self, only_started: bool) -> String {
        let name = &self.name;
        let state = match &self.state {
            Err(why) => return format!("{name}  NO ANSWER: {why}"),
            Ok(state) if only_started => {
                return format!("{name}  started: {} to read", count(state.shards.into(), "shard"));
            }
            Ok(state) => state,
        };
        let mut words = vec![format!(
            "{name}  {} of {} and {} read",
            grouped(state.shards_read.into()),
            count(state.shards.into(), "shard"),
            count(state.rows_read, "row")
        )];
        let mut add = |number: u64, noun: &str, verb: &str| {
            if number > 0 {
                words.push(format!("{} {verb}", count(number, noun)));
            }
        };
        add(state.rows_found, "damaged row", "found");
        add(state.rows_mended, "row", "mended");
        add(state.readopted, "lost value", "held again");
        add(state.records_pulled, "record", "fetched");
        add(state.shards_behind.into(), "shard", "STILL LACKING something");
        add(state.shards_unread.into(), "shard", "NOT READ THROUGH");
        add(state.rows_damaged, "row", "STILL DAMAGED");
        if words.len() == 1 && state.damaged_files.is_empty() {
            words.push("all whole".to_owned());
        }
        let mut text = words.join(", ");
        for row in &state.named {
            text += &format!("\n    damaged  {}", damage::row(row));
        }
        for file in &state.damaged_files {
            text += &format!("\n    damaged  file {file}");
        }
        text
    }

    fn document(&self) -> Value {
        let state = match &self.state {
            Err(why) => return value!({ "name": self.name, "error": why }),
            Ok(state) => state,
        };
        value!({
            "name": self.name,
            "running": state.running,
            "shards": state.shards,
            "shards_read": state.shards_read,
            "shards_unread": state.shards_unread,
            "shards_behind": state.shards_behind,
            "rows_read": state.rows_read,
            "rows_found": state.rows_found,
            "rows_mended": state.rows_mended,
            "readopted": state.readopted,
            "digests_corrected": state.digests_corrected,
            "records_pulled": state.records_pulled,
            "rows_damaged": state.rows_damaged,
            "damaged": damage::document(&state.named),
            "unreadable": state.unreadable,
            "damaged_files": state.damaged_files,
            "data": state.data,
        })
    }
}

/// Asks every node that is meant; one that does not answer is noted.
async fn start(app: &App, session: &Session, args: &Repair) -> Result<Vec<Node>, Report> {
    let view = session.client.cluster();
    let mut names: Vec<String> = match &args.node {
        Some(name) => vec![name.clone()],
        None => view.layout.members().iter().map(Member::name).map(str::to_owned).collect(),
    };
    names.sort();
    let mut nodes = Vec::new();
    for name in names {
        let started = session.client.repair(&name, args.partition.map(Partition)).await;
        let state = match started {
            Ok(state) => Ok(state),
            Err(error) if is_final(error.kind()) => {
                let subject = name;
                let (line, about) = (app.again(args.line()), app.about());
                let retype = Retype { command: "repair", subject, line, about };
                return Err(client::report(&error, &retype));
            }
            Err(error) => Err(error.kind().to_string()),
        };
        nodes.push(Node { name, state, silent_since: None });
    }
    Ok(nodes)
}

/// Whether no node will answer it in another way.
fn is_final(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotPermitted | ErrorKind::Setting { .. })
}

/// Asks again and again until all nodes that answer are through, and lack nothing.
async fn wait(
    app: &App,
    session: &Session,
    args: &Repair,
    nodes: &mut [Node],
) -> Result<(), Report> {
    let bar = progress::bar(&app.out, Some(0), "shards read");
    let mut over_since = None;
    loop {
        for node in nodes.iter_mut().filter(|node| node.state.is_ok()) {
            look(session, args, node).await;
        }
        let states = || nodes.iter().filter_map(|node| node.state.as_ref().ok());
        let sum =
            |figure: fn(&RepairState) -> u32| states().map(|one| u64::from(figure(one))).sum();
        bar.set_length(sum(|state| state.shards));
        bar.set_position(sum(|state| state.shards_read + state.shards_unread));
        if states().any(|state| state.shards_comparing > 0 || state.shards_read == state.shards) {
            bar.set_message("shards read, mending and comparing");
        }
        let behind: u64 = sum(|state| state.shards_behind);
        if nodes.iter().all(Node::is_over) {
            let since: Instant = *over_since.get_or_insert_with(Instant::now);
            if behind == 0 || since.elapsed() >= BEHIND {
                bar.finish_and_clear();
                return Ok(());
            }
        } else {
            over_since = None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// One look at one node. It may be silent for a while; a node that was started anew is asked anew.
async fn look(session: &Session, args: &Repair, node: &mut Node) {
    let mut said = session.client.repair_state(&node.name).await;
    if said.as_ref().is_ok_and(|state| state.asked == 0) {
        said = session.client.repair(&node.name, args.partition.map(Partition)).await;
    }
    match said {
        Ok(state) => (node.state, node.silent_since) = (Ok(state), None),
        Err(error) => {
            let since = *node.silent_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= SILENT {
                node.state = Err(error.kind().to_string());
            }
        }
    }
}

/// Ctrl-C.
fn left(app: &App, args: &Repair) -> Exit {
    let line = app.again(args.line());
    app.out.note(&format!("the nodes go on with it; to see how far they are: {line}"));
    Exit::Interrupted
}

/// What is to be said if not all is well.
fn left_over(app: &App, args: &Repair, nodes: &[Node]) -> Option<Report> {
    let names = |of: &dyn Fn(&&Node) -> bool| {
        let names: Vec<&str> = nodes.iter().filter(of).map(|node| node.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let silent = names(&|node| node.state.is_err());
    let damaged = names(&|node| !args.no_wait && node.is_damaged());
    if silent.is_none() && damaged.is_none() {
        return None;
    }
    let nobody = nodes.iter().all(|node| node.state.is_err());
    let exit = if nobody { Exit::NoServer } else { Exit::TimedOut };
    let what = match (&damaged, &silent) {
        (Some(damaged), _) => format!("repair: damage is left on {damaged}"),
        (None, silent) => {
            format!("repair: {} did not answer", silent.as_deref().unwrap_or_default())
        }
    };
    let mut report = Report::new(exit, what);
    if let (Some(silent), Some(_)) = (&silent, &damaged) {
        report = report.why(format!("{silent} did not answer"));
    }
    for node in nodes {
        report = node_left_over(app, report, node, args.no_wait);
    }
    let see = app.again(Line::new("status")).to_string();
    Some(report.next_line(vec![("see", see), ("again", app.again(args.line()).to_string())]))
}

fn node_left_over(app: &App, report: Report, node: &Node, only_started: bool) -> Report {
    let name = &node.name;
    let state = match &node.state {
        Err(why) => return report.why(format!("{name}: {why}")),
        Ok(_) if only_started => return report,
        Ok(state) => state,
    };
    let report = match state.rows_damaged {
        0 => report,
        rows => report.why(format!(
            "{name}: {} that no other owner has whole; they are never served",
            count(rows, "damaged row")
        )),
    };
    if state.damaged_files.is_empty() && state.shards_unread == 0 {
        return report;
    }
    rebuild(app, report, name, state)
}

/// How a node whose files are damaged is filled anew.
fn rebuild(app: &App, report: Report, name: &str, state: &RepairState) -> Report {
    let aside = format!("{}.damaged", state.data);
    let [data, aside] = [&state.data, &aside].map(|path| shell(path.as_bytes()).into_owned());
    let report = report
        .why(format!("{name}: files in {data} are damaged; rows are mended, files are not"))
        .why(format!(
            "{name}: set its data aside, it fetches all from the other owners: one node at a time, \
             and only when nobody lacks anything"
        ))
        .next("first", app.again(Line::new("wait").with("--for", "settled")).to_string());
    let report = match app.about().local {
        true => report.next("then", format!("galvani dev stop {name}")),
        false => report.next("then", format!("stop the server of {name}, on its host")),
    };
    let report = report.next("then", format!("mv {data} {aside}"));
    match app.about().local {
        true => report.next("then", format!("galvani dev start {name}")),
        false => report.next("then", format!("start the server of {name}")),
    }
}

fn document(args: &Repair, nodes: &[Node], took: Duration) -> Map<String, Value> {
    let mut map = json::object("galvani.repair/1");
    map.insert("waited".to_owned(), (!args.no_wait).into());
    map.insert("partition".to_owned(), args.partition.into());
    map.insert("ms".to_owned(), json::millis(took));
    map.insert("nodes".to_owned(), nodes.iter().map(Node::document).collect());
    map
}

/// The time of one question.
const REQUEST: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(200);
/// How long a node may be silent before it counts as gone.
const SILENT: Duration = Duration::from_secs(10);
/// How long what was found lacking may take to arrive.
const BEHIND: Duration = Duration::from_secs(30);
