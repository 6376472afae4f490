//! `dev restart`: a node is stopped gracefully and started again; `--rolling`, one after the other.
//!
//! Nodes are started as the program that runs this command, so it is also how a local cluster is
//! upgraded. The next node is stopped only once the one before has met all the others and lacks
//! nothing that it knows of: else some keys would be left with one copy that has the last writes.
//! Next to read: `ready.rs`, which says when a node has met the others.

use crate::args::dev::Restart;
use crate::commands::{Done, block_on};
use crate::connect::App;
use crate::dev::control::find;
use crate::dev::files::{DevNode, LAGGED, Local};
use crate::dev::process::{self, ProcessState};
use crate::dev::{grow, lagged, ready, show, up};
use crate::exit::Exit;
use crate::report::text::{Span, count};
use crate::report::{Report, json};
use galvani_client::Client;
use std::time::{Duration, Instant};

/// Restarts what is meant.
pub(crate) fn run(app: &App, args: &Restart) -> Done {
    let mut local = find(app, &args.which)?;
    let _lock = Local::lock(&local.dir)?;
    let began = Instant::now();
    let names = match &args.node {
        Some(name) => vec![local.process(name)?.name],
        None => all_that_run(&local, args)?,
    };
    let mut steps = Vec::with_capacity(names.len());
    for (done, name) in names.iter().enumerate() {
        let step = one(app, &mut local, name).and_then(|took| {
            let is_last = done + 1 == names.len();
            if args.rolling && !is_last {
                block_on(until_whole(&local, args, name))?;
            }
            Ok(took)
        });
        let took = step.map_err(|report| match args.rolling {
            true => left_over(report, args, &names[..done], &names[done + 1..]),
            false => report,
        })?;
        if args.rolling && !app.out.is_json() {
            app.out.say(&format!("{name} is up again, ready in {}", Span(took)));
        }
        steps.push((name.clone(), took));
    }
    local.select(app)?;
    tell(app, &local, &steps, began.elapsed())?;
    Ok(Exit::Done)
}

/// All nodes, and last the lagged replica, which are to be up: whoever stops one of fewer takes away
/// what the quorums need.
fn all_that_run(local: &Local, args: &Restart) -> Result<Vec<String>, Report> {
    let processes = local.processes();
    let up = |node: &&DevNode| local.state(node) == ProcessState::Up;
    let down = processes.iter().filter(|node| node.name != LAGGED && !up(node));
    let down: Vec<&str> = down.map(|node| node.name.as_str()).collect();
    if down.is_empty() {
        return Ok(processes.iter().filter(up).map(|node| node.name.clone()).collect());
    }
    Err(Report::new(Exit::Refused, format!("{} does not run", down.join(" ")))
        .why("a rolling restart stops one node after the other while all others serve")
        .why("nothing was stopped")
        .next("first", args.which.line("dev start").to_string())
        .next("then", args.line().to_string()))
}

/// Stops one and starts it again; how long it took to be ready.
fn one(app: &App, local: &mut Local, name: &str) -> Result<Duration, Report> {
    let node = local.process(name)?;
    let late = process::stop(local, std::slice::from_ref(&node))?;
    if !late.is_empty() {
        app.out.note(&format!("{name} did not stop in time and was killed"));
    }
    if name == LAGGED {
        let began = Instant::now();
        lagged::start(local)?;
        return Ok(began.elapsed());
    }
    let index = local.index_of(name)?;
    let mut children = up::start(local, &[index])?;
    block_on(ready::wait(app, local, &mut children))
}

/// Waits until the node lacks nothing that it knows of, and nobody holds a hint for it.
async fn until_whole(local: &Local, args: &Restart, name: &str) -> Result<(), Report> {
    let session = grow::connect(local, &args.which).await?;
    let began = Instant::now();
    while let Some(missing) = missing(&session.client, name).await {
        if began.elapsed() >= DEADLINE {
            let what = format!("{name} is up, but {missing} after {} s", DEADLINE.as_secs());
            return Err(Report::new(Exit::TimedOut, what).next("see", "galvani status"));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// What the node still lacks, as it and the others say.
async fn missing(client: &Client, name: &str) -> Option<String> {
    let reports = client.status().await;
    // One that is no member holds nothing.
    let report = reports.iter().find(|report| report.name == name)?;
    // What one that does not answer holds for it nobody knows, and with two away writes would fail.
    let silent = reports.iter().find_map(|one| Some((&one.name, one.status.as_ref().err()?)));
    if let Some((who, error)) = silent {
        return Some(format!("{who} does not answer ({error})"));
    }
    let behind = report.status.as_ref().map_or(0, |it| it.shards_behind.max(it.refilling.left));
    let held = reports.iter().filter_map(|report| report.status.as_ref().ok());
    let held = held.filter_map(|status| status.hints.get(&report.id));
    let hints: u64 = held.map(|held| held.count).sum();
    match (behind, hints) {
        (0, 0) => None,
        (0, hints) => Some(format!("{} for it wait", count(hints, "hint"))),
        (behind, _) => Some(format!("lacks something of {}", count(behind.into(), "shard"))),
    }
}

/// Names who was restarted and who was not, and how to go on.
fn left_over(report: Report, args: &Restart, done: &[String], left: &[String]) -> Report {
    let named = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => names.join(" "),
    };
    report
        .why(format!("restarted: {}  not yet: {}", named(done), named(left)))
        .next("then", args.line().to_string())
}

fn tell(
    app: &App,
    local: &Local,
    steps: &[(String, Duration)],
    took: Duration,
) -> Result<(), Report> {
    if app.out.is_json() {
        let mut map = show::document(local);
        map.extend(json::object("galvani.dev_restart/1"));
        let restarted = steps.iter().map(|(name, _)| name.as_str());
        map.insert("restarted".to_owned(), restarted.collect::<Vec<_>>().into());
        let ready = steps.iter().map(|(name, took)| (name.clone(), json::millis(*took)));
        map.insert("ready_ms".to_owned(), ready.collect::<serde_json::Map<_, _>>().into());
        map.insert("ms".to_owned(), json::millis(took));
        return app.out.json(map);
    }
    if app.out.quiet {
        return Ok(());
    }
    let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
    app.out.line(&format!("{} restarted in {}", names.join(" "), Span(took)))
}

/// Most time a node may lack something before the next one is stopped.
const DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
