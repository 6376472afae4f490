//! Waiting until a local cluster answers: every node that was started, and a quorum.
//!
//! Ready means that each of those nodes says it is connected to the others, that a write and a read
//! with majorities have been answered through the client, and that a node without its disk is filled
//! again, where that takes seconds. There is a deadline, and what is waited for has a name.

use crate::args::line::Line;
use crate::commands::server::set_aside;
use crate::connect::App;
use crate::dev::faults;
use crate::dev::files::{DevNode, Local};
use crate::dev::process::{ProcessState, log_tail};
use crate::exit::Exit;
use crate::report::Report;
use crate::report::text::count;
use galvani_client::{BucketName, Client, NodeId, NodeReport, Quorum, Refilling, Topic};
use std::collections::BTreeSet;
use std::process::Child;
use std::time::{Duration, Instant};

/// Waits; how long it took.
pub(crate) async fn wait(
    app: &App,
    local: &Local,
    children: &mut [(String, Child)],
) -> Result<Duration, Report> {
    let began = Instant::now();
    let mut told = false;
    let mut client = None;
    loop {
        if let Some(report) = died(local, children) {
            return Err(report);
        }
        let missing = match step(local, &mut client, began.elapsed()).await {
            Ok(lacking) => {
                let settled = Line::new("wait").given("--for", Some("settled"));
                lacking.iter().for_each(|lacks| app.out.note(&format!("{lacks}  see: {settled}")));
                return Ok(began.elapsed());
            }
            Err(missing) => missing,
        };
        if began.elapsed() >= DEADLINE {
            let first = local.memory.nodes.first().map_or("n1", |node| node.name.as_str());
            let what = format!("cluster {} is not ready after 30 s", local.memory.name);
            let report = Report::new(Exit::NoServer, what).why(format!("waited for {missing}"));
            return Err(faults::named_in(report, app, local).await.next_line(vec![
                ("see", local.line("dev status").to_string()),
                ("or", local.line("dev logs").place(first).to_string()),
            ]));
        }
        if !told && began.elapsed() >= TELL_AFTER {
            app.out.say(&format!("waiting for {missing}"));
            told = true;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A child that ended is not waited for: its log says why.
pub(super) fn died(local: &Local, children: &mut [(String, Child)]) -> Option<Report> {
    children.iter_mut().find_map(|(name, child)| {
        let status = child.try_wait().ok().flatten()?;
        let node = local.memory.nodes.iter().find(|node| node.name == *name)?;
        let mut report = Report::unexpected(format!("{name} ended at its start: {status}"));
        let lines = log_tail(&local.log(node), LOG_LINES);
        let says = |words: &str| lines.iter().any(|line| line.contains(words));
        let is_damaged = says("storage is damaged") || says("a damaged row");
        for line in lines.iter().filter(|line| !is_damaged || line.starts_with("error")) {
            report = report.why(line.as_str());
        }
        if is_damaged {
            let report = set_aside(report, &local.data(node));
            return Some(report.next("then", local.line("dev start").place(name).to_string()));
        }
        Some(report.next("see", local.line("dev logs").place(name).to_string()))
    })
}

/// One try; what is missing, or what some lack still although the others are enough.
async fn step(
    local: &Local,
    client: &mut Option<Client>,
    waited: Duration,
) -> Result<Vec<String>, String> {
    let running: Vec<&DevNode> =
        local.memory.nodes.iter().filter(|node| local.state(node) == ProcessState::Up).collect();
    let connected = match client {
        Some(client) => client,
        None => client.insert(connect(local).await?),
    };
    let reports = connected.status().await;
    nodes_meet(&running, &reports)?;
    let majority = usize::from(local.memory.n) / 2 + 1;
    let away = local.memory.nodes.len() - running.len();
    // Nodes that lost their disk are read from when they are filled again; a new cluster's, too.
    let lost: Vec<&NodeReport> = reports.iter().filter(|report| is_refilling(report)).collect();
    let there = usize::from(local.memory.n).saturating_sub(away);
    let enough = there.saturating_sub(lost.len()) >= majority;
    let answers = |id: &NodeId| reports.iter().any(|it| it.id == *id && it.status.is_ok());
    let can_be_filled = |report: &&&NodeReport| {
        report.status.as_ref().is_ok_and(|status| status.refilling.waits.iter().all(answers))
    };
    // Little data is there in a moment; where it is much, the others answer meanwhile.
    let patient = there >= majority && (!enough || waited < FILL_TIME);
    if let Some(report) = lost.iter().find(can_be_filled).filter(|_| patient) {
        return Err(format!("{} to be filled", report.name));
    }
    if enough {
        quorum_answers(connected).await?;
    }
    let name = |id: &NodeId| reports.iter().find(|it| it.id == *id).map(|it| it.name.as_str());
    let lack = |report: &NodeReport| {
        let it = &report.status.as_ref().ok()?.refilling;
        let from: Vec<&str> = it.waits.iter().filter_map(name).collect();
        Some(lacks(&report.name, it, &from))
    };
    Ok(lost.into_iter().filter_map(lack).collect())
}

/// What a node is still to be filled with, in words.
fn lacks(node: &str, it: &Refilling, from: &[&str]) -> String {
    let shards = count(u64::from(it.left), "shard");
    let what = match it.records_left {
        0 => String::new(),
        records => format!(", {} or more are missing", count(records, "record")),
    };
    let from = match from {
        [] => String::new(),
        from => format!(", from {}", from.join(" and ")),
    };
    format!("{node} is still to be filled: it answers no reads of {shards}{what}{from}")
}

fn is_refilling(report: &NodeReport) -> bool {
    report.status.as_ref().is_ok_and(|status| status.refilling.left > 0)
}

async fn connect(local: &Local) -> Result<Client, String> {
    Client::builder()
        .seed(format!("galvani://{}", local.seeds().join(",")))
        .identity_dir(local.dir.join("client"))
        .connect_timeout(CONNECT_TIME)
        .timeout(REQUEST_TIME)
        .connect()
        .await
        .map_err(|error| format!("an answer: {error}"))
}

/// Whether every running node answers and is connected to every other running one; those that
/// somebody has cut off from each other need not be.
fn nodes_meet(running: &[&DevNode], reports: &[NodeReport]) -> Result<(), String> {
    let expected: BTreeSet<_> = reports
        .iter()
        .filter(|report| running.iter().any(|node| node.name == report.name))
        .map(|report| report.id)
        .collect();
    for node in running {
        let Some(report) = reports.iter().find(|report| report.name == node.name) else {
            match applies(node, reports) {
                true => continue,
                false => return Err(format!("{} to be known", node.name)),
            }
        };
        let status = report.status.as_ref().map_err(|_| format!("{} to answer", node.name))?;
        let met: BTreeSet<_> = status.peers_up.iter().copied().chain([report.id]).collect();
        let mut missing = expected.difference(&met);
        if let Some(id) = missing.find(|id| !are_cut(report.id, **id, reports)) {
            let name = reports.iter().find(|other| other.id == *id).map_or("?", |one| &one.name);
            return Err(format!("{} to reach {name}", node.name));
        }
    }
    Ok(())
}

/// Whether a node is no member and says so: it has nobody to meet.
fn applies(node: &DevNode, reports: &[NodeReport]) -> bool {
    let answers = reports.iter().filter_map(|report| report.status.as_ref().ok());
    answers.flat_map(|status| &status.applicants).any(|member| member.name() == node.name)
}

/// Whether a fault that is set on one of two nodes cuts it off from the other.
fn are_cut(one: NodeId, other: NodeId, reports: &[NodeReport]) -> bool {
    let cuts = |at: NodeId, from: NodeId| {
        let at = reports.iter().filter(move |report| report.id == at);
        at.filter_map(|report| report.status.as_ref().ok())
            .flat_map(|status| &status.faults)
            .any(|link| link.node == from && (link.cut_in || link.cut_out))
    };
    cuts(one, other) || cuts(other, one)
}

/// A write and a read with majorities. The write is an event of a topic of its own, without a value: no
/// listing shows it, and no feed of keys.
async fn quorum_answers(client: &Client) -> Result<(), String> {
    let tell = |what: &'static str| move |error| format!("a {what}: {error}");
    let topic: Topic = READY_TOPIC.parse().map_err(|error| format!("a topic: {error}"))?;
    let bucket = client.bucket(BucketName::default_bucket().as_str());
    let write = bucket.emit(READY_KEY).emit(topic, "", "").w(Quorum::Majority).send();
    write.await.map_err(tell("quorum write"))?;
    client.get(READY_KEY).r(Quorum::Majority).await.map_err(tell("quorum read"))?;
    Ok(())
}

const READY_TOPIC: &str = "galvani.ready";
const READY_KEY: &str = "galvani/ready";
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a node is waited for that lost its disk, where the others are enough.
const FILL_TIME: Duration = Duration::from_secs(5);
const TELL_AFTER: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(25);
/// Short, so that a node that ends at its start is noticed soon.
const CONNECT_TIME: Duration = Duration::from_secs(1);
const REQUEST_TIME: Duration = Duration::from_secs(2);
/// Lines of the log of a node that ended at its start.
const LOG_LINES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_ready_before_it_is_filled_says_so() {
        let it = Refilling { left: 163, records_left: 148_765, waits: Vec::new() };
        let said = lacks("n3", &it, &["n1", "n2"]);
        let words = "no reads of 163 shards, 148 765 records or more are missing, from n1 and n2";
        assert_eq!(said, format!("n3 is still to be filled: it answers {words}"));
        let unknown = lacks("n3", &Refilling { left: 1, ..Refilling::default() }, &[]);
        assert!(unknown.ends_with("no reads of 1 shard"), "{unknown}");
    }
}
