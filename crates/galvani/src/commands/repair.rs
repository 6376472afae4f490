//! `repair`: nodes read all they hold, mend what is damaged, and compare it with the other owners.
//!
//! The nodes do the work by themselves, one after the other; this starts it, shows how far they are,
//! and sums up. What cannot be mended is named, and what to type then. Next to read: `damage.rs`,
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
use indicatif::ProgressBar;
use serde_json::{Map, Value, json as value};
use std::time::{Duration, Instant};

/// Starts it, and waits for its end.
pub(crate) async fn run(app: &App, args: Repair) -> Done {
    let session = app.connect_with(app.global.timeout.unwrap_or(REQUEST), RETRIES).await?;
    let asker = Asker { app, session: &session, args: &args, names: names(&session, &args) };
    let mut nodes = Vec::new();
    let began = Instant::now();
    if args.no_wait || args.state {
        for name in &asker.names {
            nodes.push(asker.ask(name).await?);
        }
    } else {
        let mut signals = Signals::taken()?;
        tokio::select! {
            waited = asker.wait(&mut nodes) => waited?,
            () = signals.any() => return Ok(asker.left(&nodes)),
        }
    }
    let report = left_over(app, &args, &nodes);
    if app.out.is_json() {
        app.out.json(document(&args, &nodes, began.elapsed()))?;
        return Ok(report.map_or(Exit::Done, |report| report.exit));
    }
    for node in nodes.iter().filter(|_| !app.out.quiet) {
        app.out.line(&node.words(&args))?;
    }
    if report.is_none() && !app.out.quiet && !args.no_wait && !args.state {
        app.out.line(&format!("repaired in {}", Span(began.elapsed())))?;
    }
    report.map_or(Ok(Exit::Done), Err)
}

/// The nodes that are meant.
fn names(session: &Session, args: &Repair) -> Vec<String> {
    let view = session.client.cluster();
    let mut names: Vec<String> = match &args.node {
        Some(name) => vec![name.clone()],
        None => view.layout.members().iter().map(Member::name).map(str::to_owned).collect(),
    };
    names.sort();
    names
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
            !state.running && (state.rows_damaged > 0 || state.shards_unread > 0 || files)
        })
    }

    fn words(&self, args: &Repair) -> String {
        let name = &self.name;
        let state = match &self.state {
            Err(why) => return format!("{name}  NO ANSWER: {why}"),
            Ok(state) if args.no_wait => {
                return format!("{name}  started: {} to read", count(state.shards.into(), "shard"));
            }
            Ok(state) if args.state && state.asked == 0 => {
                return format!("{name}  no repair was asked for since it started");
            }
            Ok(state) => state,
        };
        let how = match (args.state, state.running) {
            (false, _) => "",
            (true, true) => "is at it: ",
            (true, false) => "is through: ",
        };
        let mut words = vec![format!(
            "{name}  {how}{} of {} and {} read",
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
        if words.len() == 1 && state.damaged_files.is_empty() && !(args.state && state.running) {
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
            "asked": state.asked,
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

/// Who asks, for what, and whom.
struct Asker<'a> {
    app: &'a App,
    session: &'a Session,
    args: &'a Repair,
    /// All nodes that are meant, in the order of their turns.
    names: Vec<String>,
}

impl Asker<'_> {
    /// Asks a node; one that does not answer is noted.
    async fn ask(&self, name: &str) -> Result<Node, Report> {
        let asked = match self.args.state {
            true => self.session.client.repair_state(name).await,
            false => self.start(name).await,
        };
        let state = match asked {
            Ok(state) => Ok(state),
            Err(error) if is_final(error.kind()) => {
                let (line, about) = (self.app.again(self.args.line()), self.app.about());
                let retype = Retype { command: "repair", subject: name.to_owned(), line, about };
                return Err(client::report(&error, &retype));
            }
            Err(error) => Err(error.kind().to_string()),
        };
        Ok(Node { name: name.to_owned(), state, silent_since: None })
    }

    async fn start(&self, name: &str) -> galvani_client::Result<RepairState> {
        self.session.client.repair(name, self.args.partition.map(Partition)).await
    }

    /// Asks node after node, and each again and again until it is through or does not answer; in the
    /// end all of them until they lack nothing.
    async fn wait(&self, nodes: &mut Vec<Node>) -> Result<(), Report> {
        let bar = progress::bar(&self.app.out, None, "shards read");
        let mut over_since = None;
        loop {
            for node in nodes.iter_mut().filter(|node| node.state.is_ok()) {
                self.look(node).await;
            }
            if let Some(name) = next_turn(&self.names, nodes) {
                nodes.push(self.ask(name).await?);
                over_since = None;
                continue;
            }
            self.show(&bar, nodes);
            let states = nodes.iter().filter_map(|node| node.state.as_ref().ok());
            let behind: u64 = states.map(|state| u64::from(state.shards_behind)).sum();
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

    /// How far the node is whose turn it is.
    fn show(&self, bar: &ProgressBar, nodes: &[Node]) {
        let Some(node) = nodes.last() else { return };
        let Ok(state) = &node.state else { return };
        bar.set_position((state.shards_read + state.shards_unread).into());
        progress::set_total(bar, state.shards.into());
        let what = match state.shards_comparing > 0 || state.shards_read == state.shards {
            true => "shards read, mending and comparing",
            false => "shards read",
        };
        let (name, turn, all) = (&node.name, nodes.len(), self.names.len());
        bar.set_message(format!("{what} on {name}, node {turn} of {all}"));
    }

    /// One look at one node. It may be silent for a while; one that was started anew is asked anew.
    async fn look(&self, node: &mut Node) {
        let mut said = self.session.client.repair_state(&node.name).await;
        if said.as_ref().is_ok_and(|state| state.asked == 0) {
            said = self.start(&node.name).await;
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
    fn left(&self, nodes: &[Node]) -> Exit {
        let asked: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let line = self.app.again(self.args.look_line());
        let not_asked = self.names[nodes.len()..].join(", ");
        let mut note = match asked.last() {
            Some(name) => format!("{name} goes on with it"),
            None => "no node has answered yet".to_owned(),
        };
        if !not_asked.is_empty() {
            note += &format!(", not begun: {not_asked}");
        }
        self.app.out.note(&format!("{note}; to see how far it is: {line}"));
        Exit::Interrupted
    }
}

/// The node whose turn it is, once those before are through: the others have their disks and lanes
/// for clients meanwhile, and no more than one copy of anything is slow.
fn next_turn<'a>(names: &'a [String], nodes: &[Node]) -> Option<&'a str> {
    let next = names.get(nodes.len())?;
    nodes.iter().all(Node::is_over).then_some(next.as_str())
}

/// Whether no node will answer it in another way.
fn is_final(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotPermitted | ErrorKind::Setting { .. })
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
        Ok(state) if only_started || state.running => return report,
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
    // It may never take in what waits for it.
    let wait = Line::new("wait").with("--for", "settled").with("--but", name);
    let [data, aside] = [&state.data, &aside].map(|path| shell(path.as_bytes()).into_owned());
    let report = report
        .why(format!("{name}: files in {data} are damaged; rows are mended, files are not"))
        .why(format!(
            "{name}: set its data aside, it fetches all from the other owners: one node at a time, \
             and only when no other lacks anything"
        ))
        .why("writes that no other has acked (w=1) stay in what is set aside")
        .next("first", app.again(wait).to_string());
    let about = app.about();
    let report = match about.local {
        true => report.next("then", about.command("dev stop").place(name).to_string()),
        false => report.next("then", format!("stop the server of {name}, on its host")),
    };
    let report = report.next("then", format!("mv {data} {aside}"));
    match about.local {
        true => report.next("then", about.command("dev start").place(name).to_string()),
        false => report.next("then", format!("start the server of {name}")),
    }
}

fn document(args: &Repair, nodes: &[Node], took: Duration) -> Map<String, Value> {
    let mut map = json::object("galvani.repair/1");
    map.insert("waited".to_owned(), (!args.no_wait && !args.state).into());
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

#[cfg(test)]
mod tests {
    use super::{Node, next_turn};
    use galvani_client::{NodeId, RepairState};

    fn node(name: &str, running: bool) -> Node {
        let state = RepairState { running, asked: 1, ..RepairState::of(NodeId(1)) };
        Node { name: name.to_owned(), state: Ok(state), silent_since: None }
    }

    #[test]
    fn nodes_have_their_turns_one_after_the_other() {
        let names = ["n1", "n2", "n3"].map(str::to_owned);
        assert_eq!(next_turn(&names, &[]), Some("n1"));
        assert_eq!(next_turn(&names, &[node("n1", true)]), None, "it is at it");
        assert_eq!(next_turn(&names, &[node("n1", false)]), Some("n2"));
        let silent = Node { state: Err("gone".into()), ..node("n2", true) };
        assert_eq!(next_turn(&names, &[node("n1", false), silent]), Some("n3"), "nobody hangs");
        let again = [node("n1", true), node("n2", false)];
        assert_eq!(next_turn(&names, &again), None, "the first was started anew");
        let all = [node("n1", false), node("n2", false), node("n3", false)];
        assert_eq!(next_turn(&names, &all), None);
    }
}
