//! Breaking the links of a local cluster on purpose, and mending them: cut, slow, lossy, heal.
//!
//! Each node is told by its own process what to drop or delay; both ends of a cut are told, so that
//! one end that starts again does not mend it. Nothing is set unless all nodes that must be told
//! run; if one does not take it all the same, the block says which, and what others have taken. A node
//! that runs and is no member any more is healed too, as far as it can be reached.

use crate::args::dev::Which;
use crate::args::faults::{Cut, Lossy, Slow};
use crate::args::line::Line;
use crate::commands::{Done, block_on};
use crate::connect::App;
use crate::dev::files::{DevNode, Local};
use crate::dev::process::ProcessState;
use crate::exit::Exit;
use crate::names::{Names, Past};
use crate::report::{Report, faults, json};
use galvani_client::{Client, ClusterView, Error, ErrorKind, LinkFaults, Member, NodeId};
use galvani_model::placement::WEIGHT_NORMAL;
use serde_json::{Value, json as value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What is to be set on each node, by the name of the other; the other's id is not known yet.
type Wanted = BTreeMap<String, Vec<(String, LinkFaults)>>;

/// What each node said it has now.
type Told = Vec<(String, Vec<LinkFaults>)>;

/// Cuts every pair across the bar.
pub(crate) fn cut(app: &App, local: &Local, args: &Cut) -> Done {
    let mut wanted = Wanted::new();
    let both = !args.one_way;
    for left in &args.groups.left {
        for right in &args.groups.right {
            let at_left = LinkFaults { cut_out: true, cut_in: both, ..nothing() };
            let at_right = LinkFaults { cut_in: true, cut_out: both, ..nothing() };
            wanted.entry(left.clone()).or_default().push((right.clone(), at_left));
            wanted.entry(right.clone()).or_default().push((left.clone(), at_right));
        }
    }
    let (left, right) = (args.groups.left.join(" "), args.groups.right.join(" "));
    let said = match args.one_way {
        false => format!("{left} and {right} do not hear each other any more"),
        true => {
            let verb = if args.groups.right.len() == 1 { "hears" } else { "hear" };
            format!("{right} {verb} nothing of {left} any more, only the other way round")
        }
    };
    let act = Act { line: args.line(), which: &args.which, said };
    set(app, local, &act, wanted)
}

/// What a node sends to others leaves later.
pub(crate) fn slow(app: &App, local: &Local, args: &Slow) -> Done {
    let name = &args.one.node;
    let delay = args.link_delay().map_err(|why| {
        let what = format!("{}: {why}", args.line());
        Report::new(Exit::Usage, what).next("see", "galvani dev slow --help")
    })?;
    let fault = LinkFaults { delay: Some(delay), ..nothing() };
    let said = match delay.micros {
        0 => format!("what {name} sends to other nodes is not late any more"),
        _ => format!("what {name} sends to other nodes is late now"),
    };
    let act = Act { line: args.line(), which: &args.one.which, said };
    set(app, local, &act, with_all_others(local, name, &fault)?)
}

/// A share of what a node sends and hears is lost.
pub(crate) fn lossy(app: &App, local: &Local, args: &Lossy) -> Done {
    let name = &args.one.node;
    let fault = LinkFaults { loss_ppm: Some(args.loss.ppm), ..nothing() };
    let said = match args.loss.ppm {
        0 => format!("nothing between {name} and other nodes is lost any more"),
        1_000_000.. => format!("all of what {name} and other nodes send each other is lost now"),
        _ => format!("part of what {name} and other nodes send each other is lost now"),
    };
    let act = Act { line: args.line(), which: &args.one.which, said };
    set(app, local, &act, with_all_others(local, name, &fault)?)
}

/// Clears all faults on all nodes that run; those that do not run have none.
pub(crate) fn heal(app: &App, local: &Local, which: &Which) -> Done {
    let nodes = local.memory.nodes.iter();
    let up = nodes.filter(|node| local.state(node) != ProcessState::Down);
    let wanted: Wanted = up.map(|node| (node.name.clone(), Vec::new())).collect();
    if wanted.is_empty() {
        let what = format!("no node of cluster {} runs", local.memory.name);
        return Err(Report::new(Exit::Refused, what)
            .why("faults live in the processes: a node that starts has none")
            .next("try", which.line("dev start").to_string()));
    }
    let said = "no faults are set any more".to_owned();
    let mut act = Act { line: which.line("dev heal"), which, said };
    let all = wanted.len();
    let (view, told) = block_on(heal_all(app, local, &act, wanted))?;
    if told.len() < all {
        act.said = "no faults are set on members any more".to_owned();
    }
    show(app, local, &act, &view, &told)
}

/// Members are told as the layout says; who is no member, at its own address.
async fn heal_all(
    app: &App,
    local: &Local,
    act: &Act<'_>,
    mut wanted: Wanted,
) -> Result<(Arc<ClusterView>, Told), Report> {
    let client = connect(local, act).await?;
    let view = client.cluster();
    let is_member = |node: &&DevNode| view.layout.member_named(&node.name).is_some();
    let mut healed = Told::new();
    for node in local.memory.nodes.iter().filter(|node| !is_member(node)) {
        if wanted.remove(&node.name).is_none() {
            continue;
        }
        match heal_former(local, node).await {
            Ok(()) => healed.push((node.name.clone(), Vec::new())),
            Err(why) => app.out.note(&format!(
                "{} is no member{why}: what is set on it stays  undo: {}",
                node.name,
                act.which.line("dev restart").place(&node.name)
            )),
        }
    }
    let mut told = tell(&client, local, act, true, wanted).await?;
    told.extend(healed);
    told.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok((view, told))
}

/// Clears the faults of a node that the layout does not have. If it may have some still: why, to be
/// said behind that it is no member.
async fn heal_former(local: &Local, node: &DevNode) -> Result<(), String> {
    if local.state(node) == ProcessState::Paused {
        return Err(" and is paused".to_owned());
    }
    let address = node.lanes.first().ok_or(" and listens nowhere")?;
    let client = Client::builder()
        .seed(format!("galvani://{address}"))
        .identity_dir(local.dir.join("client"))
        .connect_timeout(FORMER)
        .timeout(FORMER)
        .connect()
        .await
        .map_err(|_| format!(" and does not answer at {address}"))?;
    let view = client.cluster();
    // As long as it was cut off it has not heard that it is none.
    if view.layout.member_named(&node.name).is_some_and(|member| member.id() == view.node) {
        return match client.set_faults(&node.name, true, &[]).await {
            Ok(_) => Ok(()),
            // Then it has none.
            Err(error) if matches!(error.kind(), ErrorKind::FaultsNotAllowed) => Ok(()),
            Err(error) => Err(format!(" and was not healed ({})", error.kind())),
        };
    }
    // The client finds those it may tell in the layout; anybody may be asked.
    let lanes = node.lanes.clone();
    let member = Member::new(view.node, &*node.name, &*node.zone, WEIGHT_NORMAL, lanes)
        .map_err(|error| format!(" ({error})"))?;
    match client.status_of(&member).await.status {
        Ok(status) if status.faults.is_empty() => Ok(()),
        Ok(_) => Err(String::new()),
        Err(error) => Err(format!(" and does not say what is set on it ({})", error.kind())),
    }
}

/// What is set on each node that runs and answers at once, in words; nothing if none does.
pub(crate) async fn set_now(app: &App, local: &Local) -> Vec<String> {
    if !local.memory.nodes.iter().any(|node| local.state(node) == ProcessState::Up) {
        return Vec::new();
    }
    let client = Client::builder()
        .seed(format!("galvani://{}", local.seeds().join(",")))
        .identity_dir(local.dir.join("client"))
        .connect_timeout(LOOK)
        .timeout(LOOK)
        .connect()
        .await;
    // Processes are what this is about: one that does not answer has no faults to tell of.
    let Ok(client) = client else { return Vec::new() };
    let reports = client.status().await;
    let view = client.cluster();
    let names = names(app, local, &view);
    let words = reports.iter().filter_map(|report| {
        faults::words(&report.name, &names, &report.status.as_ref().ok()?.faults)
    });
    words.collect()
}

/// A report of something that did not come to be, with the faults that are set and what undoes them:
/// they may be why.
pub(super) async fn named_in(report: Report, app: &App, local: &Local) -> Report {
    with_faults(report, &set_now(app, local).await, &local.line("dev heal"))
}

fn with_faults(report: Report, set: &[String], undo: &Line) -> Report {
    match set {
        [] => report,
        set => report
            .why(format!("faults are SET ON PURPOSE: {}", set.join("   ")))
            .next("undo", undo.to_string()),
    }
}

fn names<'a>(app: &App, local: &Local, view: &'a ClusterView) -> Names<'a> {
    Names::of(view, Past::of(app, Some(local.dir.clone())))
}

/// A command as its reports need it.
struct Act<'a> {
    line: Line,
    which: &'a Which,
    said: String,
}

fn set(app: &App, local: &Local, act: &Act<'_>, wanted: Wanted) -> Done {
    for name in wanted.keys() {
        let node = &local.memory.nodes[local.index_of(name)?];
        let (what, back) = match local.state(node) {
            ProcessState::Up => continue,
            ProcessState::Down => ("does not run", "dev start"),
            ProcessState::Paused => ("is paused", "dev resume"),
        };
        return Err(Report::new(Exit::Refused, format!("{name} {what}: no fault was set"))
            .why("faults live in the node's process, which must take them")
            .next_line(vec![
                ("try", act.which.line(back).place(name).to_string()),
                ("then", act.line.to_string()),
            ]));
    }
    let (view, told) = block_on(async {
        let client = connect(local, act).await?;
        let told = tell(&client, local, act, false, wanted).await?;
        Ok((client.cluster(), told))
    })?;
    show(app, local, act, &view, &told)
}

async fn connect(local: &Local, act: &Act<'_>) -> Result<Client, Report> {
    Client::builder()
        .seed(format!("galvani://{}", local.seeds().join(",")))
        .identity_dir(local.dir.join("client"))
        .connect()
        .await
        .map_err(|error| {
            Report::new(Exit::NoServer, format!("{}: no node answers", act.line))
                .why(error.to_string())
                .next("see", act.which.line("dev status").to_string())
        })
}

/// Tells every node its part, one after the other, also after one has failed.
async fn tell(
    client: &Client,
    local: &Local,
    act: &Act<'_>,
    heal: bool,
    wanted: Wanted,
) -> Result<Told, Report> {
    let view = client.cluster();
    let (mut told, mut failed) = (Told::new(), Vec::new());
    for (name, links) in wanted {
        let links: Vec<LinkFaults> = links
            .into_iter()
            .filter_map(|(with, fault)| {
                let node = view.layout.member_named(&with)?.id();
                Some(LinkFaults { node, ..fault })
            })
            .collect();
        match client.set_faults(&name, heal, &links).await {
            Ok(set) => told.push((name, set)),
            Err(error) => failed.push((name, error)),
        }
    }
    match failed.is_empty() {
        true => Ok(told),
        false => Err(not_taken(local, act, heal, &told, &failed)),
    }
}

fn not_taken(
    local: &Local,
    act: &Act<'_>,
    heal: bool,
    told: &Told,
    failed: &[(String, Error)],
) -> Report {
    let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
    let refused = |(_, error): &(String, Error)| {
        matches!(error.kind(), ErrorKind::FaultsNotAllowed | ErrorKind::NotPermitted)
    };
    let exit = if failed.iter().all(refused) { Exit::Refused } else { Exit::NoServer };
    let mut report = Report::new(exit, format!("{}: not taken by {}", act.line, names.join(" ")));
    for (name, error) in failed {
        report = report.why(format!("{name}: {error}"));
    }
    report = match told.is_empty() {
        true => report.why("no other node was told anything"),
        false => {
            let told: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
            report.why(format!("taken by {}", told.join(" ")))
        }
    };
    for (name, error) in failed {
        let Some(node) = local.memory.nodes.iter().find(|node| node.name == *name) else {
            continue;
        };
        if matches!(error.kind(), ErrorKind::FaultsNotAllowed) {
            let path = local.config(node);
            let what = "write  faults = true  under [transport] in";
            report = report.why(format!("{name}: {what} {}, stop and start it", path.display()));
        }
        if local.state(node) == ProcessState::Paused {
            let line = act.which.line("dev resume").place(name);
            report = report.next("go on", line.to_string());
        }
    }
    let mut ways =
        vec![("see", act.which.line("dev status").to_string()), ("again", act.line.to_string())];
    if !heal && !told.is_empty() {
        ways.push(("undo", act.which.line("dev heal").to_string()));
    }
    report.next_line(ways)
}

fn show(app: &App, local: &Local, act: &Act<'_>, view: &ClusterView, told: &Told) -> Done {
    let names = names(app, local, view);
    if app.out.is_json() {
        let mut map = json::object("galvani.dev_faults/1");
        map.insert("cluster".to_owned(), local.memory.name.as_str().into());
        let node = |(name, set): &(String, Vec<LinkFaults>)| -> Value {
            value!({ "name": name, "faults": faults::document(&names, set) })
        };
        map.insert("nodes".to_owned(), told.iter().map(node).collect());
        app.out.json(map)?;
        return Ok(Exit::Done);
    }
    let any = told.iter().any(|(_, set)| !set.is_empty());
    match any {
        false => app.out.say(&act.said),
        true => {
            let undo = act.which.line("dev heal");
            app.out.say(&format!("{}  undo: {undo}", act.said));
            let words = told.iter().filter_map(|(name, set)| faults::words(name, &names, set));
            words.for_each(|words| app.out.say(&format!("  {words}")));
        }
    }
    Ok(Exit::Done)
}

/// The same fault between one node and every other one.
fn with_all_others(local: &Local, name: &str, fault: &LinkFaults) -> Result<Wanted, Report> {
    local.index_of(name)?;
    let others = local.memory.nodes.iter().filter(|node| node.name != name);
    let links: Vec<_> = others.map(|node| (node.name.clone(), fault.clone())).collect();
    if links.is_empty() {
        let what = format!("cluster {} has one node: it has no link to break", local.memory.name);
        return Err(Report::new(Exit::Refused, what).why("nothing was changed").next(
            "try",
            format!("galvani dev -d -n 3 --name {}-3 --ports auto", local.memory.name),
        ));
    }
    Ok(Wanted::from([(name.to_owned(), links)]))
}

/// How long a node that is no member has to answer.
const FORMER: Duration = Duration::from_secs(2);
/// How long nodes have to say what is set on them.
const LOOK: Duration = Duration::from_millis(500);

fn nothing() -> LinkFaults {
    // The other node's id is filled in once the cluster has told it.
    LinkFaults::none(NodeId(0))
}

#[cfg(test)]
mod tests {
    use super::with_faults;
    use crate::args::line::Line;
    use crate::exit::Exit;
    use crate::report::Report;

    #[test]
    fn what_does_not_come_to_be_is_told_with_the_faults_that_are_set() {
        let report = || Report::new(Exit::NoServer, "not ready").why("waited for n5 to be known");
        let undo = Line::new("dev heal");
        let none = with_faults(report(), &[], &undo).to_string();
        assert_eq!(none, report().to_string());
        let set = ["n1 (n5: cut)", "n2 (n5: cut)"].map(str::to_owned);
        assert_eq!(
            with_faults(report(), &set, &undo).to_string(),
            "error  not ready\n       waited for n5 to be known\n       \
             faults are SET ON PURPOSE: n1 (n5: cut)   n2 (n5: cut)\n  undo  galvani dev heal"
        );
    }
}
