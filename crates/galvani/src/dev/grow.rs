//! `dev add`: nodes are made and started, apply to be members, and are taken in by a plan.
//!
//! It does what people do with real hosts, one step after the other: `cluster invite`, `server`,
//! `cluster plan add`, `cluster apply --wait`. Asked again, it goes on at the step that is not done.
//! Next to read: `shrink.rs`, `commands/cluster/change.rs`.

use crate::args::dev::{Add, Which};
use crate::args::line::Line;
use crate::args::plan::{NewNode, Plan, Shown};
use crate::commands::Done;
use crate::commands::cluster::change::{self, PATIENCE, REQUEST, Watch};
use crate::commands::cluster::plan::{self, kept::KeptPlan, kept::Plans};
use crate::commands::patience::Signals;
use crate::connect::{App, Session, TimeLeft};
use crate::dev::control::find;
use crate::dev::files::{DevNode, LAGGED, Local};
use crate::dev::{faults, ports, ready, show, up};
use crate::exit::Exit;
use crate::report::text::{Span, count};
use crate::report::{Report, json};
use galvani_client::{Client, ClusterView, NodeReport, Pace, Phase};
use galvani_model::placement::WEIGHT_NORMAL;
use galvani_node::cluster_file::ClusterFile;
use galvani_node::config::NodeConfig;
use galvani_node::provision::{JoinSpec, NodeSpec, create_joiner};
use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Makes them members.
pub(crate) async fn add(app: &App, args: &Add) -> Done {
    let mut local = find(app, &args.which)?;
    let _lock = Local::lock(&local.dir)?;
    let began = Instant::now();
    let session = connect(&local, &args.which).await?;
    let view = change::look(app, &session, &args.line()).await?;
    let names = names(&local, &view, args)?;
    // Asked again it is about the same nodes.
    let line = args.line_of(&names);
    make(&mut local, &view, args, &names)?;
    let named = |node: &DevNode| names.contains(&node.name);
    let nodes = local.memory.nodes.iter().enumerate();
    let indexes: Vec<usize> =
        nodes.filter(|(_, node)| named(node)).map(|(index, _)| index).collect();
    let mut children = up::start(&mut local, &indexes)?;
    until_known(app, &local, &session, &names, &mut children).await?;
    let plan = match change::look(app, &session, &args.line()).await?.change.clone() {
        // Somebody began it, perhaps this command before it was interrupted.
        Some(change) if names.iter().all(|name| change.new.member_named(name).is_some()) => {
            let next = change.new.as_ref().clone();
            Some(KeptPlan::new(&view.name, line.to_string(), &change.old, next))
        }
        Some(_) | None => planned(&session, args, &names)
            .await
            .map_err(|report| report.next("then", line.to_string()))?,
    };
    let mut whole = None;
    let moved = match &plan {
        Some(plan) => {
            // Whoever watches for that is not what is waited for.
            let watched = async {
                until_whole(&session, plan).await;
                whole = Some(began.elapsed());
                std::future::pending::<()>().await;
            };
            let moved = tokio::select! {
                moved = carry_out(app, &session, plan, &line, false) => moved?,
                () = watched => 0,
            };
            // A small change may be over before that was looked at.
            let seen = timeout(REQUEST, until_whole(&session, plan));
            if whole.is_none() && seen.await.is_ok() {
                whole = Some(began.elapsed());
            }
            moved
        }
        None => 0,
    };
    remember(&local, &session)?;
    local.select(app)?;
    let done = Moved { replicas: moved, took: began.elapsed(), whole };
    tell(app, &local, ("joined", "galvani.dev_add/1"), &names, done)?;
    Ok(Exit::Done)
}

/// Waits until every owner by the plan's layout is up and has all that it owns: from then on each partition
/// has as many live replicas as it has copies.
async fn until_whole(session: &Session, plan: &KeptPlan) {
    let wanted = plan.layout.id();
    loop {
        // One that does not answer now may answer at the next look.
        if let Ok(view) = session.client.look().await {
            let owns_now = match &view.change {
                Some(change) => change.new.id() == wanted && change.phase != Phase::Copying,
                None => view.layout.id() == wanted,
            };
            let reports = if owns_now { session.client.status().await } else { Vec::new() };
            let is_owner = |report: &&NodeReport| plan.layout.member(report.id).is_some();
            let owners: Vec<_> = reports.iter().filter(is_owner).collect();
            let all = owners.len() == plan.layout.members().len();
            if all && owners.iter().all(|report| report.status.is_ok()) {
                return;
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A client of the cluster, whatever context is selected.
pub(super) async fn connect(local: &Local, which: &Which) -> Result<Session, Report> {
    let connected = Client::builder()
        .seed(format!("galvani://{}", local.seeds().join(",")))
        .identity_dir(local.dir.join("client"))
        .connect_timeout(REQUEST)
        .timeout(REQUEST)
        .connect()
        .await;
    let client = connected.map_err(|error| {
        Report::new(Exit::NoServer, format!("cluster {}: {error}", local.memory.name))
            .why("its members decide together who is one: most of them must run")
            .next("try", which.line("dev start").to_string())
    })?;
    Ok(Session { client, context: None, time: TimeLeft::of(REQUEST) })
}

/// Who is to join: those that are named, or the next ones.
fn names(local: &Local, view: &ClusterView, args: &Add) -> Result<Vec<String>, Report> {
    let nodes = &local.memory.nodes;
    if args.nodes.is_empty() {
        let used = nodes.iter().map(|node| node.name.as_str());
        let used = used.chain(view.layout.members().iter().map(|member| member.name()));
        let numbers = used.filter_map(|name| name.strip_prefix('n')?.parse().ok());
        let last: u32 = numbers.max().unwrap_or(0);
        let count = u32::from(args.count.unwrap_or(1));
        return Ok((1..=count).map(|more| format!("n{}", last + more)).collect());
    }
    for name in &args.nodes {
        let mine = nodes.iter().any(|node| node.name == *name);
        if view.layout.member_named(name).is_some() && !mine {
            let what = format!("dev add: cluster {} has a node {name} already", view.name);
            return Err(Report::new(Exit::Refused, what).next("see", "galvani status"));
        }
        // It gives a directory its name.
        if name == LAGGED || name == "ca" || name == "client" {
            let what = format!("dev add: {name} is the name of something else in the directory");
            return Err(Report::new(Exit::Usage, what)
                .why("nothing was made")
                .next("try", args.which.line("dev add").to_string()));
        }
    }
    let mut names = args.nodes.clone();
    names.sort_unstable();
    names.dedup();
    if args.replace.is_some() && names.len() > 1 {
        let what = "dev add --replace: one node takes the place of one";
        return Err(Report::new(Exit::Usage, what)
            .why(format!("named are {}", names.join(" ")))
            .next("say", args.line_of(&names[..1]).to_string()));
    }
    Ok(names)
}

/// Makes the directories of those that have none, and remembers them.
fn make(local: &mut Local, view: &ClusterView, args: &Add, names: &[String]) -> Result<(), Report> {
    let known = |name: &&String| !local.memory.nodes.iter().any(|node| node.name == **name);
    let new: Vec<String> = names.iter().filter(known).cloned().collect();
    if new.is_empty() {
        return Ok(());
    }
    let template = local.memory.nodes.first().map(|node| local.config(node));
    let template = template.ok_or_else(|| Report::unexpected("the cluster has no node"))?;
    let config = NodeConfig::load(&template)
        .map_err(|error| crate::commands::server::config_report(&error))?;
    let failed = |error: &dyn std::fmt::Display| {
        Report::new(Exit::Refused, format!("dev add: {error}"))
            .why("nothing was changed in the cluster")
            .next("see", args.which.line("dev status").to_string())
    };
    // With the layout there is now: those that founded the cluster may be gone.
    let mut file = ClusterFile::load(&local.dir.join("cluster.json")).map_err(|it| failed(&it))?;
    file.layout = view.layout.clone();
    let taken: Vec<_> = local.memory.nodes.iter().map(|node| node.lanes.clone()).collect();
    let lanes = taken.first().map_or(1, |lanes| lanes.len() as u16);
    let mut places = ports::more(&taken, new.len() as u8, lanes)?.into_iter();
    for name in new {
        let lanes = places.next().expect("one for each");
        let replaced = args.replace.as_ref().map(|old| local.index_of(old)).transpose()?;
        let zone = match replaced {
            Some(old) => local.memory.nodes[old].zone.clone(),
            None => zone(&local.memory.nodes, &args.zones, local.memory.nodes.len()),
        };
        let node = NodeSpec {
            name: name.clone(),
            zone: zone.clone(),
            weight: WEIGHT_NORMAL,
            lanes: lanes.clone(),
        };
        let home = local.dir.join(&name);
        // What an interrupted command left: no node ever ran from it.
        if home.exists() && !home.join("data").exists() {
            std::fs::remove_dir_all(&home)
                .map_err(|error| crate::context::io_report(&home, &error))?;
        }
        let spec = JoinSpec {
            ca: &local.dir.join("ca"),
            cluster: &file,
            node,
            durability: config.node.durability,
            limits: config.limits.clone(),
            storage: config.storage.clone(),
            transport: config.transport.clone(),
        };
        create_joiner(&spec, &home).map_err(|error| failed(&error))?;
        local.memory.nodes.push(DevNode { name, zone, lanes, pid: None });
        local.save()?;
    }
    Ok(())
}

/// The zone of the node at `index`: as asked, else the next letter where each node has a zone of its
/// own, else the zone with the fewest nodes.
fn zone(nodes: &[DevNode], asked: &[String], index: usize) -> String {
    if !asked.is_empty() {
        return up::zone(asked, index);
    }
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    nodes.iter().for_each(|node| *sizes.entry(&node.zone).or_default() += 1);
    if sizes.values().all(|size| *size == 1) && nodes.len() < 26 {
        let mut letters = (0..26).map(|letter| up::zone(&[], letter));
        let free = letters.find(|letter| !sizes.contains_key(letter.as_str()));
        return free.unwrap_or_else(|| up::zone(&[], index));
    }
    let least = sizes.iter().min_by_key(|(_, size)| **size);
    least.map_or_else(|| up::zone(&[], index), |(zone, _)| (*zone).to_owned())
}

/// Waits until the members know of all of them.
async fn until_known(
    app: &App,
    local: &Local,
    session: &Session,
    names: &[String],
    children: &mut [(String, Child)],
) -> Result<(), Report> {
    let began = Instant::now();
    loop {
        if let Some(report) = ready::died(local, children) {
            return Err(report);
        }
        let reports = session.client.status().await;
        let answers = reports.iter().filter_map(|report| report.status.as_ref().ok());
        let known = |name: &&String| {
            reports.iter().any(|report| report.name == **name && report.status.is_ok())
                || answers.clone().any(|it| it.applicants.iter().any(|one| one.name() == **name))
        };
        let Some(missing) = names.iter().find(|name| !known(name)) else { return Ok(()) };
        if began.elapsed() >= DEADLINE {
            let what = format!("dev add: the members have not heard of {missing} after 30 s");
            let report = Report::new(Exit::NoServer, what);
            let report = report.why("it is no member yet, nothing was moved");
            return Err(faults::named_in(report, app, local).await.next_line(vec![
                ("see", local.line("dev logs").place(missing).to_string()),
                ("take it back", local.line("dev rm").place(missing).to_string()),
            ]));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The plan that takes them in, if they are not all in.
async fn planned(
    session: &Session,
    args: &Add,
    names: &[String],
) -> Result<Option<KeptPlan>, Report> {
    let view = session.client.cluster();
    let new = names.iter().filter(|name| view.layout.member_named(name).is_none());
    let new = new.map(|name| NewNode { name: name.clone(), zone: None, weight: None, place: None });
    let mut nodes: Vec<NewNode> = new.collect();
    let shown = Shown { all: false };
    let plan = match (nodes.len(), &args.replace) {
        (0, _) => return Ok(None),
        (_, None) => Plan::Add { nodes, shown },
        (_, Some(old)) => Plan::Replace { old: old.clone(), new: nodes.remove(0), shown },
    };
    plan::work_out(session, &plan).await.map(Some)
}

/// Keeps a plan, begins it and waits for its end; how many replicas move.
pub(crate) async fn carry_out(
    app: &App,
    session: &Session,
    plan: &KeptPlan,
    line: &Line,
    strict: bool,
) -> Result<usize, Report> {
    Plans::of(&app.state).keep(plan)?;
    let mut signals = Signals::taken()?;
    let (epoch, _) = change::begin(app, session, plan, line, Pace::default()).await?;
    let watch = Watch { app, session, plan, epoch, strict, patience: PATIENCE };
    tokio::select! {
        done = watch.until_done() => change::note_left(app, done?),
        () = signals.any() => {
            let what = "interrupted: the change goes on by itself";
            return Err(Report::new(Exit::Interrupted, what)
                .why("what comes after it is left to do")
                .next("go on", app.again(line.clone()).to_string())
                .next("or give it up", app.again(Line::new("cluster abort")).to_string()));
        }
    };
    Ok(plan.from.moves(&plan.layout).moved)
}

/// What a change of the nodes came to.
pub(super) struct Moved {
    pub(super) replicas: usize,
    pub(super) took: Duration,
    /// When every partition had all its live replicas again, if that was looked for and seen.
    pub(super) whole: Option<Duration>,
}

/// What `dev add` and `dev rm` say at their end.
pub(super) fn tell(
    app: &App,
    local: &Local,
    (did, schema): (&str, &'static str),
    names: &[String],
    Moved { replicas: moved, took, whole }: Moved,
) -> Result<(), Report> {
    if app.out.is_json() {
        let mut map = show::document(local);
        map.extend(json::object(schema));
        map.insert(did.to_owned(), names.into());
        map.insert("replicas_moved".to_owned(), moved.into());
        map.insert("ms".to_owned(), json::millis(took));
        if let Some(whole) = whole {
            map.insert("whole_after_ms".to_owned(), json::millis(whole));
        }
        return app.out.json(map);
    }
    if app.out.quiet {
        return Ok(());
    }
    let replicas = count(moved as u64, "replica");
    let (nodes, took) = (count(local.memory.nodes.len() as u64, "node"), Span(took));
    app.out.line(&format!("{} {did}  {replicas} moved  {took}  {nodes} now", names.join(" ")))?;
    if let Some(whole) = whole {
        let (n, whole) = (local.memory.n, Span(whole));
        app.out.say(&format!("every partition has its {n} live replicas after {whole}"));
    }
    Ok(())
}

/// Writes the layout there is now into the cluster's file: what `cluster invite` takes.
pub(super) fn remember(local: &Local, session: &Session) -> Result<(), Report> {
    let path = local.dir.join("cluster.json");
    let failed = |error| Report::unexpected(format!("{error}"));
    let mut file = ClusterFile::load(&path).map_err(failed)?;
    file.layout = session.client.cluster().layout.clone();
    file.save(&path).map_err(failed)
}

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::{DevNode, zone};

    fn nodes(zones: &[&str]) -> Vec<DevNode> {
        let node = |zone: &&str| DevNode {
            name: "n".into(),
            zone: (*zone).to_owned(),
            lanes: Vec::new(),
            pid: None,
        };
        zones.iter().map(node).collect()
    }

    #[test]
    fn a_new_node_stands_where_its_cluster_has_room() {
        assert_eq!(zone(&nodes(&["a", "b", "c"]), &[], 3), "d");
        assert_eq!(zone(&nodes(&["a", "c"]), &[], 2), "b", "one of them has left");
        assert_eq!(zone(&nodes(&["east", "west", "east"]), &[], 3), "west");
        assert_eq!(zone(&nodes(&["a", "a"]), &[], 2), "a");
        assert_eq!(zone(&nodes(&["a", "b"]), &["x".to_owned()], 2), "x");
    }
}
