//! `cluster plan`: works out the layout that follows a request, shows what would move, keeps it.
//!
//! A plan is a pure function of the cluster's layout and the request: it is worked out here, and
//! every machine that asks the same gets the same id. Nothing in the cluster changes. What is asked
//! becomes `Change`s here; `plan/shown.rs` words what comes of them, `plan/kept.rs` keeps it.

mod applicants;
pub(crate) mod kept;
mod shown;

use crate::args::line::Line;
use crate::args::plan::{NewNode, Plan};
use crate::commands::Done;
use crate::commands::changes::known;
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::report::text::count;
use crate::report::{Report, json};
use galvani_client::{BucketName, BucketProps, ClusterView, LayoutChange, NodeReport};
use galvani_model::ids::NodeId;
use galvani_model::placement::{Change, Layout, LayoutError, Member, PlanError, WEIGHT_NORMAL};
use kept::{KeptPlan, Plans};
use serde_json::{Value, json as value};
use std::collections::{BTreeMap, BTreeSet};

/// Does what is asked with plans.
pub(crate) async fn run(app: &App, args: Plan) -> Done {
    let plans = Plans::of(&app.state);
    let shown = match &args {
        Plan::Add { shown, .. }
        | Plan::Remove { shown, .. }
        | Plan::Replace { shown, .. }
        | Plan::Reweigh { shown, .. }
        | Plan::Zone { shown, .. } => *shown,
        Plan::Show { id, shown } => {
            shown::print(app, &plans.find(id)?, shown.all)?;
            return Ok(Exit::Done);
        }
        Plan::List => return list(app, &plans),
        Plan::Drop { id } => return forget(app, &plans, id),
    };
    let session = app.connect().await?;
    let plan = work_out(&session, &args).await?;
    plans.keep(&plan)?;
    shown::print(app, &plan, shown.all)?;
    Ok(Exit::Done)
}

/// The plan that comes of a request on the layout there is. Keeps nothing.
pub(crate) async fn work_out(session: &Session, args: &Plan) -> Result<KeptPlan, Report> {
    let reports = session.client.status().await;
    let view = session.client.cluster();
    if let Some(change) = &view.change {
        return Err(changing(change));
    }
    let changes = changes(&view.layout, args, &known(&reports))?;
    let next = view.layout.changed(&changes);
    let next = next.map_err(|error| refused(&view.layout, &changes, &error))?;
    buckets_fit(&view.buckets, &next)?;
    Ok(KeptPlan::new(&view.name, args.line().to_string(), &view.layout, next)
        .with_estimate(bytes_per_replica(&view, &reports)))
}

/// There is no layout to plan on while it changes.
fn changing(change: &LayoutChange) -> Report {
    let (old, new) = (change.old.version(), change.new.version());
    Report::new(Exit::OutOfDate, format!("cluster plan: the layout is changing, v{old} -> v{new}"))
        .field("kind", "layout_changing")
        .why("a plan is made on a layout that stays; nothing was changed, no plan was kept")
        .next("see", "galvani status")
        .next("then", "galvani wait --for settled")
        .next("or give it up", "galvani cluster abort")
}

/// What is asked for, with names looked up.
fn changes(layout: &Layout, plan: &Plan, apply: &[Member]) -> Result<Vec<Change>, Report> {
    let id = |name: &String| known_member(layout, name).map(Member::id);
    match plan {
        Plan::Add { nodes, .. } => {
            let add = |node: &NewNode| {
                let node = &applicants::filled(node, apply)?;
                let zone = match &node.zone {
                    Some(zone) => zone.clone(),
                    None => only_zone(layout, node)?,
                };
                let weight = node.weight.unwrap_or(WEIGHT_NORMAL);
                Ok(Change::Add(new_member(node, &zone, weight)?))
            };
            nodes.iter().map(add).collect()
        }
        Plan::Remove { nodes, .. } => {
            nodes.iter().map(|node| Ok(Change::Remove(id(node)?))).collect()
        }
        Plan::Replace { old, new, .. } => {
            let old = known_member(layout, old)?;
            let new = &applicants::in_place_of(old, new, apply)?;
            let zone = new.zone.as_deref().unwrap_or(old.zone());
            let weight = new.weight.unwrap_or(old.weight());
            let new = new_member(new, zone, weight)?;
            Ok(vec![Change::Replace { old: old.id(), new }])
        }
        Plan::Reweigh { weights, .. } => {
            weights.iter().map(|new| Ok(Change::Reweigh(id(&new.node)?, new.weight))).collect()
        }
        Plan::Zone { zones, .. } => {
            zones.iter().map(|new| Ok(Change::Zone(id(&new.node)?, new.zone.clone()))).collect()
        }
        Plan::Show { .. } | Plan::List | Plan::Drop { .. } => Ok(Vec::new()),
    }
}

/// A node that is not in the layout yet, as a member of it.
fn new_member(node: &NewNode, zone: &str, weight: u32) -> Result<Member, Report> {
    let (id, lanes) = node.place.clone().expect("filled from what the node says of itself");
    let member = Member::new(id, node.name.as_str(), zone, weight, lanes);
    member.map_err(|error| {
        Report::new(Exit::Usage, format!("cluster plan: node {}: {error}", node.name))
            .next("see", "galvani help cluster plan add")
    })
}

/// The zone of all nodes; with several, a new node must say which is its.
fn only_zone(layout: &Layout, node: &NewNode) -> Result<String, Report> {
    let zones: BTreeSet<&str> = layout.members().iter().map(Member::zone).collect();
    let zones: Vec<&str> = zones.into_iter().collect();
    match zones.as_slice() {
        [one] => Ok((*one).to_owned()),
        several => {
            let what = format!("cluster plan: in which zone is node {}?", node.name);
            Err(Report::new(Exit::Usage, what)
                .why(format!("zones there are: {}", several.join(" ")))
                .next(
                    "say",
                    NewNode { zone: Some(several[0].to_owned()), ..node.clone() }.to_string(),
                ))
        }
    }
}

/// The member of this name.
pub(crate) fn known_member<'a>(layout: &'a Layout, name: &str) -> Result<&'a Member, Report> {
    layout.member_named(name).ok_or_else(|| {
        let mut names: Vec<&str> = layout.members().iter().map(Member::name).collect();
        names.sort_unstable();
        Report::new(Exit::Usage, format!("cluster plan: no node is named {name:?}"))
            .why(format!("nodes there are: {}", names.join(" ")))
            .next("see", "galvani status")
    })
}

/// Why there is no such plan, in the words of the request.
fn refused(layout: &Layout, changes: &[Change], error: &PlanError) -> Report {
    let called = |node: NodeId| {
        let member = layout.member(node).or_else(|| joining(changes, node));
        member.map_or_else(|| node.short(), |member| member.name().to_owned())
    };
    let what = match error {
        PlanError::NamedTwice { node } => format!("node {} is named twice", called(*node)),
        PlanError::NothingChanges => {
            format!("nothing would change: layout v{} is that already", layout.version())
        }
        PlanError::Layout(_)
        | PlanError::Member(_)
        | PlanError::UnknownNode { .. }
        | PlanError::AlreadyMember { .. }
        | PlanError::Unlike { .. } => error.to_string(),
    };
    let report = Report::new(Exit::Refused, format!("cluster plan: {what}"));
    let report = match error {
        PlanError::Layout(LayoutError::TooFewNodes { .. }) => report
            .why("each copy of a partition is on a node of its own: add nodes before others leave"),
        PlanError::Layout(LayoutError::ZonesTooSmall { .. }) => report
            .why(format!("nodes after the change: {}", zone_sizes(layout, changes)))
            .why("add a node to a small zone first, or put another node into it"),
        PlanError::Layout(LayoutError::DuplicateName { .. }) => {
            report.why("a node has the name of another only if it replaces it")
        }
        PlanError::Unlike { .. } => {
            report.why("leave zone and weight out, or remove the one and add the other")
        }
        PlanError::AlreadyMember { .. } => {
            report.why("a node is known by its id, whatever it is called")
        }
        PlanError::Layout(_)
        | PlanError::Member(_)
        | PlanError::UnknownNode { .. }
        | PlanError::NamedTwice { .. }
        | PlanError::NothingChanges => report,
    };
    report.why("nothing was changed, no plan was kept").next("see", "galvani status")
}

/// A node that the request brings.
fn joining(changes: &[Change], node: NodeId) -> Option<&Member> {
    changes.iter().find_map(|change| match change {
        Change::Add(new) | Change::Replace { new, .. } => Some(new).filter(|new| new.id() == node),
        Change::Remove(_) | Change::Reweigh(..) | Change::Zone(..) => None,
    })
}

/// How many nodes each zone would have.
fn zone_sizes(layout: &Layout, changes: &[Change]) -> String {
    let members = layout.members().iter();
    let mut zone_of: BTreeMap<NodeId, String> =
        members.map(|member| (member.id(), member.zone().to_owned())).collect();
    for change in changes {
        match change {
            Change::Add(new) => drop(zone_of.insert(new.id(), new.zone().to_owned())),
            Change::Remove(node) => drop(zone_of.remove(node)),
            Change::Replace { old, new } => {
                zone_of.remove(old);
                zone_of.insert(new.id(), new.zone().to_owned());
            }
            Change::Reweigh(..) => {}
            Change::Zone(node, zone) => drop(zone_of.insert(*node, zone.clone())),
        }
    }
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    zone_of.into_values().for_each(|zone| *sizes.entry(zone).or_default() += 1);
    let words = sizes.into_iter().map(|(zone, nodes)| format!("{zone} {}", count(nodes, "node")));
    words.collect::<Vec<String>>().join(", ")
}

/// Every bucket needs a node for each of its copies, also those that keep more than the layout.
fn buckets_fit(buckets: &BTreeMap<BucketName, BucketProps>, next: &Layout) -> Result<(), Report> {
    let Some((bucket, props)) = buckets.iter().find(|(_, props)| props.n > next.n_max()) else {
        return Ok(());
    };
    let nodes = count(next.members().len() as u64, "node");
    let what =
        format!("cluster plan: bucket {bucket} keeps n={} copies, {nodes} would be", props.n);
    Err(Report::new(Exit::Refused, what)
        .why("each copy of a partition is on a node of its own: add nodes before others leave")
        .why("nothing was changed, no plan was kept")
        .next("see", "galvani bucket ls"))
}

/// What one replica of a partition takes on disk, on the average of the nodes that answered.
fn bytes_per_replica(view: &ClusterView, reports: &[NodeReport]) -> Option<u64> {
    let n = view.layout.n();
    let (mut bytes, mut replicas) = (0u128, 0u128);
    for report in reports {
        let Ok(status) = &report.status else { continue };
        bytes += u128::from(status.disk_bytes);
        replicas += view.layout.owned(report.id, n).count() as u128;
    }
    u64::try_from(bytes.checked_div(replicas)?).ok()
}

fn list(app: &App, plans: &Plans) -> Done {
    let kept = plans.all()?;
    if app.out.is_json() {
        let rows = kept.iter().map(|plan| {
            value!({
                "id": plan.id(),
                "cluster": plan.cluster,
                "on_version": plan.from.version(),
                "request": plan.request,
            })
        });
        let mut map = json::object("galvani.plans/1");
        map.insert("plans".to_owned(), rows.collect::<Vec<Value>>().into());
        app.out.json(map)?;
        return Ok(Exit::Done);
    }
    if kept.is_empty() {
        app.out.say("no plan is kept; `galvani cluster plan add` makes one");
        return Ok(Exit::Done);
    }
    let mut table = crate::output::table(&["plan", "cluster", "on layout", "request"]);
    for plan in &kept {
        let on = format!("v{}", plan.from.version());
        table.add_row([plan.id(), plan.cluster.clone(), on, plan.request.clone()]);
    }
    app.out.line(&crate::output::trimmed(&table))?;
    Ok(Exit::Done)
}

fn forget(app: &App, plans: &Plans, id: &str) -> Done {
    let id = plans.forget(id)?;
    if app.out.is_json() {
        let mut map = json::object("galvani.plan_drop/1");
        map.insert("id".to_owned(), id.into());
        app.out.json(map)?;
    } else if !app.out.quiet {
        app.out.line(&format!("ok  plan {id} forgotten"))?;
    }
    Ok(Exit::Done)
}

/// The command that shows a plan.
fn show_line(id: &str) -> Line {
    Line::new("cluster plan show").place(id)
}

#[cfg(test)]
mod tests;
