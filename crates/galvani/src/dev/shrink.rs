//! `dev rm`: nodes leave by a plan, hand over all they hold, and are then removed with their files.
//!
//! A node's files go only after it said itself that it holds nothing the others lack: no shard, no
//! hint. So a node that is down is not removed, unless it is a member no more and that is wanted.
//! Next to read: `grow.rs`, `commands/cluster/change.rs`.

use crate::args::dev::Rm;
use crate::args::plan::{Plan, Shown};
use crate::commands::Done;
use crate::commands::cluster::change;
use crate::commands::cluster::plan::{self, kept::KeptPlan};
use crate::connect::{App, Session};
use crate::context::io_report;
use crate::dev::control::find;
use crate::dev::files::{DevNode, Local};
use crate::dev::grow::{Moved, carry_out, connect, remember, tell};
use crate::dev::process::{self, ProcessState};
use crate::exit::Exit;
use crate::report::Report;
use galvani_client::{ClusterView, Member};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Takes them out.
pub(crate) async fn rm(app: &App, args: &Rm) -> Done {
    let mut local = find(app, &args.which)?;
    let _lock = Local::lock(&local.dir)?;
    let began = Instant::now();
    let nodes = nodes(&local, args)?;
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let session = connect(&local, &args.which).await?;
    let view = change::look(app, &session, &args.line()).await?;
    refuse_down(&local, &view, args, &nodes)?;
    let moved = match leaving(&session, &view, args, &names).await? {
        Some(plan) => carry_out(app, &session, &plan, &args.line(), true).await?,
        None => 0,
    };
    until_empty(app, &local, &session, args, &nodes).await?;
    let late = process::stop(&local, &nodes)?;
    if !late.is_empty() {
        app.out.note(&format!("{} did not stop in time and was killed", late.join(" ")));
    }
    for name in &names {
        let home = local.dir.join(name);
        match std::fs::remove_dir_all(&home) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_report(&home, &error));
            }
            Ok(()) | Err(_) => {}
        }
        local.memory.nodes.retain(|node| node.name != *name);
        local.save()?;
    }
    remember(&local, &session)?;
    local.select(app)?;
    let done = Moved { replicas: moved, took: began.elapsed(), whole: None };
    tell(app, &local, ("left", "galvani.dev_rm/1"), &names, done)?;
    Ok(Exit::Done)
}

/// Those that are named.
fn nodes(local: &Local, args: &Rm) -> Result<Vec<DevNode>, Report> {
    let names: BTreeSet<&String> = args.nodes.iter().collect();
    let index = |name: &&String| local.index_of(name);
    let indexes: Vec<usize> = names.iter().map(index).collect::<Result<_, _>>()?;
    let nodes: Vec<DevNode> =
        indexes.into_iter().map(|index| local.memory.nodes[index].clone()).collect();
    if nodes.len() == local.memory.nodes.len() {
        let what = format!("dev rm: no node of cluster {} would be left", local.memory.name);
        return Err(Report::new(Exit::Refused, what)
            .why("nothing was changed")
            .next("remove it all", args.which.line("dev destroy").to_string()));
    }
    Ok(nodes)
}

/// A node that is down can hand nothing over.
fn refuse_down(
    local: &Local,
    view: &ClusterView,
    args: &Rm,
    nodes: &[DevNode],
) -> Result<(), Report> {
    let not_up = |node: &&DevNode| local.state(node) != ProcessState::Up;
    for node in nodes.iter().filter(not_up) {
        let (name, state) = (&node.name, local.state(node).word());
        let is_member = is_member(view, name);
        if !is_member && args.yes && local.state(node) == ProcessState::Down {
            continue;
        }
        let what = format!("dev rm: {name} is {state}: it can hand nothing over");
        let start = match local.state(node) {
            ProcessState::Paused => args.which.line("dev resume").place(name),
            ProcessState::Up | ProcessState::Down => args.which.line("dev start").place(name),
        };
        let report = Report::new(Exit::Refused, what)
            .why("NOTHING WAS CHANGED, its files are there")
            .next("first", start.to_string());
        return Err(match is_member {
            true => report
                .next("or, if it is lost", format!("galvani node forget {name}"))
                .next("or put another there", format!("galvani cluster plan replace {name} NEW")),
            false => report.next("or, whatever is in it", args.line_with_yes().to_string()),
        });
    }
    Ok(())
}

fn is_member(view: &ClusterView, name: &str) -> bool {
    let change = view.change.iter().flat_map(|change| [&change.old, &change.new]);
    let mut layouts = std::iter::once(&view.layout).chain(change);
    layouts.any(|layout| layout.member_named(name).is_some())
}

/// The plan by which those that are members leave; none if none is one.
async fn leaving(
    session: &Session,
    view: &ClusterView,
    args: &Rm,
    names: &[String],
) -> Result<Option<KeptPlan>, Report> {
    if let Some(change) = &view.change {
        let goes = |name: &String| change.new.member_named(name).is_none();
        if names.iter().all(goes) {
            let (line, next) = (args.line().to_string(), change.new.as_ref().clone());
            return Ok(Some(KeptPlan::new(&view.name, line, &change.old, next)));
        }
    }
    let members = names.iter().filter(|name| is_member(view, name));
    let nodes: Vec<String> = members.cloned().collect();
    if nodes.is_empty() {
        return Ok(None);
    }
    let plan = Plan::Remove { nodes, shown: Shown { all: false } };
    plan::work_out(session, &plan).await.map(Some)
}

/// Waits until each of those that run says that it is no member and holds nothing more.
async fn until_empty(
    app: &App,
    local: &Local,
    session: &Session,
    args: &Rm,
    nodes: &[DevNode],
) -> Result<(), Report> {
    let began = Instant::now();
    let runs = |node: &&DevNode| local.state(node) == ProcessState::Up;
    for node in nodes.iter().filter(runs) {
        loop {
            let view = change::look(app, session, &args.line()).await?;
            let left = match applicant(session, node).await {
                Some(member) => held(session, &view, &member).await,
                None => Some("the members to hear of it".to_owned()),
            };
            let Some(left) = left else { break };
            if began.elapsed() >= DEADLINE {
                let what = format!("dev rm: {} is not empty after 60 s", node.name);
                return Err(Report::new(Exit::TimedOut, what)
                    .why(format!("waited for {left}; it runs on, and its files are there"))
                    .next("see", args.which.line("dev logs").place(&node.name).to_string())
                    .next("again", args.line().to_string()));
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// The node as it says of itself that it would be a member again.
async fn applicant(session: &Session, node: &DevNode) -> Option<Member> {
    let reports = session.client.status().await;
    let answers = reports.iter().filter_map(|report| report.status.as_ref().ok());
    let mut all = answers.flat_map(|status| &status.applicants);
    all.find(|member| member.name() == node.name && member.lanes() == node.lanes).cloned()
}

/// What a node that is no member holds, in words; `None` if nothing.
async fn held(session: &Session, view: &ClusterView, member: &Member) -> Option<String> {
    let name = member.name();
    let status = match session.client.status_of(member).await.status {
        Ok(status) => status,
        Err(error) => return Some(format!("an answer of {name}: {error}")),
    };
    let hints: u64 = status.hints.values().map(|held| held.count).sum();
    match (status.layout_epoch < view.epoch, status.shards_leaving, hints) {
        (true, _, _) => Some(format!("{name} to hear that it is no member")),
        (false, 0, 0) => None,
        (false, shards, hints) => {
            Some(format!("{name} to hand over {shards} shards, {hints} hints"))
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
