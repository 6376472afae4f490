//! `node drain` and `node forget`: a node leaves, planned, applied and waited for in one go.
//!
//! A drained node says itself that it holds nothing more; a forgotten one says nothing, so it must be
//! down, and what only it holds is lost unless it returns and gives that to the owners: that is told
//! before. Next to read: `cluster/change.rs`.

use crate::args::line::Line;
use crate::args::node::{Forget, Leave, Node};
use crate::args::plan::{Plan, Shown};
use crate::commands::Done;
use crate::commands::cluster::change::{self, PATIENCE, REQUEST, Watch};
use crate::commands::cluster::plan::kept::{KeptPlan, Plans};
use crate::commands::cluster::plan::{known_member, work_out};
use crate::commands::patience::Signals;
use crate::connect::{App, RETRIES, Session};
use crate::exit::Exit;
use crate::report::text::{Span, count};
use crate::report::{Report, json};
use galvani_client::{BucketName, ClusterView, NodeId, NodeReport, Pace, Partition, Shard};
use std::collections::BTreeSet;
use std::time::Instant;

/// Does what is asked with a node.
pub(crate) async fn run(app: &App, args: Node) -> Done {
    match args {
        Node::Drain(leave) => drain(app, &leave).await,
        Node::Forget(forget) => self::forget(app, &forget).await,
    }
}

async fn drain(app: &App, leave: &Leave) -> Done {
    let line = leave.line("node drain");
    let (session, view) = connected(app, &line).await?;
    let node = known_member(&view.layout, &leave.node)?;
    if let Err(error) = session.client.status_of(node).await.status {
        let name = node.name();
        return Err(Report::new(
            Exit::Refused,
            format!("node drain: {name} does not answer: {error}"),
        )
        .why("it can hand nothing over; nothing was changed")
        .next("wait for it", format!("galvani wait --for node={name}:up"))
        .next("or, if it is lost", format!("galvani node forget {name}")));
    }
    let ended = go(app, &session, leave, &line, true).await?;
    let name = &leave.node;
    tell(app, "galvani.node_drain/1", leave, &ended, || {
        format!("ok  {name} holds nothing more and is no member  {}", ended.words())
    })
}

async fn forget(app: &App, args: &Forget) -> Done {
    let leave = &args.leave;
    let line = leave.line("node forget");
    let (session, view) = connected(app, &line).await?;
    let node = known_member(&view.layout, &leave.node)?;
    let (name, reports) = (node.name(), session.client.status().await);
    let answers = |it: &NodeReport| it.id == node.id() && it.status.is_ok();
    if reports.iter().any(answers) {
        let what = format!("node forget: {name} is up: it can hand over what it holds");
        return Err(Report::new(Exit::Refused, what)
            .why("nothing was changed")
            .next("say", format!("galvani node drain {name}")));
    }
    let lost = alone(&view, &reports, node.id());
    let words = match lost {
        0 => "every partition it owns has another owner that answers".to_owned(),
        lost => {
            let partitions = partitions(lost);
            format!(
                "of {partitions} it is the only owner left: THEIR DATA IS LOST unless it returns"
            )
        }
    };
    if !args.yes {
        let what = format!("node forget: {name} would be no member any more");
        return Err(Report::new(Exit::Refused, what)
            .field("partitions_lost", lost)
            .why(words)
            .why("writes that only it has taken in are lost unless it returns; nothing was changed yet")
            .next("if it is lost", line.flag("--yes", true).to_string())
            .next("or put another there", format!("galvani cluster plan replace {name} NEW")));
    }
    app.out.note(&words);
    let ended = go(app, &session, leave, &line.flag("--yes", true), false).await?;
    tell(app, "galvani.node_forget/1", leave, &ended, || {
        format!("ok  {} is forgotten  {}", leave.node, ended.words())
    })
}

async fn connected(
    app: &App,
    line: &Line,
) -> Result<(Session, std::sync::Arc<ClusterView>), Report> {
    let session = app.connect_with(app.global.timeout.unwrap_or(REQUEST), RETRIES).await?;
    let view = change::look(app, &session, line).await?;
    Ok((session, view))
}

/// Partitions of which no other owner answers.
fn alone(view: &ClusterView, reports: &[NodeReport], node: NodeId) -> usize {
    let n = view.buckets.get(&BucketName::default_bucket()).map_or(view.layout.n(), |it| it.n);
    let up: BTreeSet<NodeId> =
        reports.iter().filter(|it| it.status.is_ok()).map(|it| it.id).collect();
    let partitions = (0..view.layout.partitions()).map(Partition);
    let owners = partitions.map(|partition| view.layout.owners(Shard { partition, n }));
    owners.filter(|all| all.contains(&node) && !all.iter().any(|it| up.contains(it))).count()
}

fn partitions(number: usize) -> String {
    count(number as u64, "partition")
}

/// How it went.
struct Ended {
    plan: KeptPlan,
    took: std::time::Duration,
}

impl Ended {
    fn moved(&self) -> u64 {
        self.plan.from.moves(&self.plan.layout).moved as u64
    }

    fn words(&self) -> String {
        let (from, to) = (self.plan.from.version(), self.plan.layout.version());
        format!("v{from} -> v{to}  {} moved in {}", count(self.moved(), "replica"), Span(self.took))
    }
}

/// Plans, applies, waits.
async fn go(
    app: &App,
    session: &Session,
    leave: &Leave,
    line: &Line,
    strict: bool,
) -> Result<Ended, Report> {
    let nodes = vec![leave.node.clone()];
    let view = session.client.cluster();
    let plan = match &view.change {
        // It leaves already, perhaps by this command before it was interrupted.
        Some(change) if change.new.member_named(&leave.node).is_none() => {
            let next = change.new.as_ref().clone();
            KeptPlan::new(&view.name, line.to_string(), &change.old, next)
        }
        Some(_) | None => {
            work_out(session, &Plan::Remove { nodes, shown: Shown { all: false } }).await?
        }
    };
    Plans::of(&app.state).keep(&plan)?;
    let (began, mut signals) = (Instant::now(), Signals::taken()?);
    let (epoch, _) = change::begin(app, session, &plan, line, Pace::default()).await?;
    let patience = leave.wait_timeout.unwrap_or(PATIENCE);
    let watch = Watch { app, session, plan: &plan, epoch, strict, patience };
    tokio::select! {
        done = watch.until_done() => {
            // That a forgotten node says nothing is no news.
            let gone = format!("no answer from {}", leave.node);
            change::note_left(app, done?.filter(|left| *left != gone));
        }
        () = signals.any() => {
            return Err(Report::new(Exit::Interrupted, "interrupted: the change goes on by itself")
                .next("go on waiting", app.again(line.clone()).to_string())
                .next("or give it up", app.again(Line::new("cluster abort")).to_string()));
        }
    };
    Ok(Ended { took: began.elapsed(), plan })
}

fn tell(
    app: &App,
    schema: &'static str,
    leave: &Leave,
    ended: &Ended,
    words: impl Fn() -> String,
) -> Done {
    if app.out.is_json() {
        let mut map = json::object(schema);
        map.insert("node".to_owned(), leave.node.as_str().into());
        map.insert("plan".to_owned(), ended.plan.id().into());
        map.insert("to_version".to_owned(), ended.plan.layout.version().into());
        map.insert("replicas_moved".to_owned(), ended.moved().into());
        map.insert("ms".to_owned(), json::millis(ended.took));
        app.out.json(map)?;
    } else if !app.out.quiet {
        app.out.line(&words())?;
    }
    Ok(Exit::Done)
}
