//! A plan for people and for scripts: what each node owns now and after, what moves, what is forced.
//!
//! All figures are those of `Moves`; bytes are an estimate from what nodes said they hold, and say
//! so. Nothing here decides anything.

use super::kept::KeptPlan;
use super::show_line;
use crate::connect::App;
use crate::report::text::{Size, count, grouped};
use crate::report::{Report, json};
use galvani_model::ids::NodeId;
use galvani_model::placement::{Moves, NodeMoves, ZoneForce};
use serde_json::{Map, Value, json as value};

/// Prints it in the format that was asked for.
pub(super) fn print(app: &App, plan: &KeptPlan, all: bool) -> Result<(), Report> {
    let moves = plan.from.moves(&plan.layout);
    match app.out.is_json() {
        true => app.out.json(document(plan, &moves)),
        false => app.out.line(&page(plan, &moves, all)),
    }
}

/// The page.
pub(super) fn page(plan: &KeptPlan, moves: &Moves, all: bool) -> String {
    let header = ["node", "zone", "owns now", "after", "replicas in", "out", "data in", "out"];
    let mut table = crate::output::table(&header);
    let rows = if all { moves.nodes.len() } else { moves.nodes.len().min(NODES_SHOWN) };
    for node in &moves.nodes[..rows] {
        table.add_row(row(plan, moves, node));
    }
    let more = match moves.nodes.len() - rows {
        0 => String::new(),
        more => {
            let line = show_line(&plan.id()).flag("--all", true);
            format!("... {} more: {line}\n", count(more as u64, "node"))
        }
    };
    format!(
        "plan {}  of cluster {}  on layout v{}  (the same request on it is the same plan)\n\
         {}\n{more}\
         balance   {}\n\
         {}moves     {}\n\
         kept      {}",
        plan.id(),
        plan.cluster,
        plan.from.version(),
        crate::output::trimmed(&table),
        balance(plan, moves),
        forced(moves),
        total(plan, moves),
        show_line(&plan.id()),
    )
}

fn row(plan: &KeptPlan, moves: &Moves, node: &NodeMoves) -> Vec<String> {
    let share = |owned: usize| format!("{:.1} %", owned as f64 * 100.0 / moves.replicas as f64);
    let some = |replicas: usize, text: String| if replicas == 0 { "-".to_owned() } else { text };
    let data = |replicas: usize| {
        let bytes = estimate(plan, replicas);
        some(replicas, bytes.map_or("?".to_owned(), |bytes| Size(bytes).to_string()))
    };
    let zone = match plan.layout.member(node.member.id()) {
        Some(_) => node.member.zone().to_owned(),
        None => format!("{} (leaves)", node.member.zone()),
    };
    vec![
        node.member.name().to_owned(),
        zone,
        share(node.before),
        share(node.after),
        some(node.incoming, grouped(node.incoming as u64)),
        some(node.outgoing, grouped(node.outgoing as u64)),
        data(node.incoming),
        data(node.outgoing),
    ]
}

fn balance(plan: &KeptPlan, moves: &Moves) -> String {
    let fullest = moves.fullest_permille as f64 / 1000.0;
    let before = plan.from.moves(&plan.from).per_zone;
    let apart = match (moves.apart, moves.per_zone) {
        (true, most) if most > before => {
            format!("UP TO {most} copies of a partition in one zone, {before} now")
        }
        (true, 1) => "copies of a partition in distinct zones".to_owned(),
        (true, most) => format!("at most {most} copies of a partition in a zone"),
        (false, most) => format!("MORE than {most} copies of some partitions in one zone"),
    };
    format!("the fullest node has {fullest:.2} of its share   {apart}")
}

/// What zones force, a line each; none if they force nothing.
fn forced(moves: &Moves) -> String {
    let line = |force: &ZoneForce| {
        let ZoneForce { zone, nodes, copies, more } = force;
        let than = if *more { "more" } else { "less" };
        format!(
            "forced    zone {zone} has {} and {} {} of every partition: {than} than its weights ask for\n",
            count(*nodes as u64, "node"),
            if *more { "must hold" } else { "may hold" },
            copy(*copies),
        )
    };
    moves.forced.iter().map(line).collect()
}

/// One copy, two copies.
fn copy(copies: usize) -> String {
    match copies {
        1 => "1 copy".to_owned(),
        copies => format!("{copies} copies"),
    }
}

fn total(plan: &KeptPlan, moves: &Moves) -> String {
    if moves.moved == 0 {
        return format!("none of {} replicas", grouped(moves.replicas as u64));
    }
    let least = match moves.moved - moves.lower_bound.min(moves.moved) {
        0 => "the fewest there are".to_owned(),
        more => format!(
            "{} for the shares alone, {more} more to keep copies on distinct nodes and zones",
            moves.lower_bound
        ),
    };
    let bytes = match estimate(plan, moves.moved) {
        Some(bytes) => format!("about {} (an estimate, from the disk in use)", Size(bytes)),
        None => "bytes not known: no node said what it holds".to_owned(),
    };
    format!(
        "{} of {} replicas, {least}   {bytes}",
        grouped(moves.moved as u64),
        grouped(moves.replicas as u64)
    )
}

fn estimate(plan: &KeptPlan, replicas: usize) -> Option<u64> {
    plan.bytes_per_replica.map(|bytes| bytes.saturating_mul(replicas as u64))
}

/// The same for scripts.
pub(super) fn document(plan: &KeptPlan, moves: &Moves) -> Map<String, Value> {
    let name = |node: &NodeId| -> Value {
        let member = plan.layout.member(*node).or_else(|| plan.from.member(*node));
        member.map_or_else(|| node.to_string(), |member| member.name().to_owned()).into()
    };
    let names = |nodes: &[NodeId]| -> Value { nodes.iter().map(name).collect() };
    let mut map = json::object("galvani.plan/1");
    let fields = value!({
        "id": plan.id(),
        "layout": plan.layout.id().to_string(),
        "version": plan.layout.version(),
        "on_layout": plan.from.id().to_string(),
        "on_version": plan.from.version(),
        "cluster": plan.cluster,
        "cluster_id": plan.layout.cluster().to_string(),
        "request": plan.request,
        "replicas": moves.replicas,
        "moved": moves.moved,
        "lower_bound": moves.lower_bound,
        "bytes_estimate": estimate(plan, moves.moved),
        "balance": moves.fullest_permille as f64 / 1000.0,
        "copies_per_zone": moves.per_zone,
        "zones_apart": moves.apart,
        "forced": moves.forced.iter().map(|force| value!({
            "zone": force.zone,
            "nodes": force.nodes,
            "copies": force.copies,
            "share": if force.more { "more" } else { "less" },
        })).collect::<Vec<Value>>(),
        "nodes": moves.nodes.iter().map(|node| value!({
            "name": node.member.name(),
            "id": node.member.id().to_string(),
            "zone": node.member.zone(),
            "weight": node.member.weight(),
            "leaves": plan.layout.member(node.member.id()).is_none(),
            "joins": plan.from.member(node.member.id()).is_none(),
            "owns_now": node.before,
            "owns_after": node.after,
            "in": node.incoming,
            "out": node.outgoing,
            "bytes_in_estimate": estimate(plan, node.incoming),
            "bytes_out_estimate": estimate(plan, node.outgoing),
        })).collect::<Vec<Value>>(),
        "partitions": moves.partitions.iter().map(|change| value!({
            "partition": change.partition.0,
            "in": names(&change.incoming),
            "out": names(&change.outgoing),
        })).collect::<Vec<Value>>(),
    });
    if let Value::Object(fields) = fields {
        map.extend(fields);
    }
    map
}

/// Nodes in the table, unless all are asked for.
const NODES_SHOWN: usize = 24;
