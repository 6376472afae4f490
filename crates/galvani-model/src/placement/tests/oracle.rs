//! The fewest moves, found in other ways than `fewest.rs` finds them.
//!
//! Small clusters: every table there is, by dynamic programming over what nodes have yet to get.
//! Larger ones: a certificate. A table has the fewest moves for its shares exactly if its residual
//! graph has no cycle of negative cost (Klein 1967).

use super::super::targets::Problem;
use super::partitions;
use crate::ids::{NodeId, Shard};
use crate::placement::Layout;
use crate::placement::layout::problem_of;
use std::collections::BTreeMap;

/// What `now` and `next` have of a partition, as indexes of the members of `next`.
fn rows(now: &Layout, next: &Layout) -> Vec<(Vec<usize>, Vec<usize>)> {
    let index = |id: &NodeId| next.members().iter().position(|member| member.id() == *id);
    let of = |layout: &Layout, partition| {
        let owners = layout.owners(Shard { partition, n: layout.n() });
        owners.iter().filter_map(index).collect()
    };
    partitions(now).map(|partition| (of(now, partition), of(next, partition))).collect()
}

/// The least number of moves of any table that gives each node what it owns in `next`.
pub(super) fn fewest_of_all_tables(now: &Layout, next: &Layout) -> usize {
    let problem = problem_of(next.partitions(), next.n(), next.members());
    let rows = rows(now, next);
    let mut left = vec![0u8; problem.zone_of.len()];
    rows.iter().flat_map(|row| &row.1).for_each(|&node| left[node] += 1);
    // What the nodes have yet to get -> the fewest moves so far.
    let mut states = BTreeMap::from([(left, 0)]);
    for (before, _) in &rows {
        let mut after = BTreeMap::new();
        for (left, moves) in states {
            for set in sets(&problem, &left) {
                let new = set.iter().filter(|node| !before.contains(node)).count();
                let mut left = left.clone();
                set.iter().for_each(|&node| left[node] -= 1);
                let least = after.entry(left).or_insert(usize::MAX);
                *least = (moves + new).min(*least);
            }
        }
        states = after;
    }
    states.into_values().next().expect("the table of `next` is one of them")
}

/// All owner sets of nodes that have slots left, within the bound per zone.
fn sets(problem: &Problem, left: &[u8]) -> Vec<Vec<usize>> {
    let all = (0u32..1 << left.len()).filter(|set| set.count_ones() as usize == problem.n);
    let nodes = |set: u32| (0..left.len()).filter(move |node| set & 1 << node != 0);
    let fits = |set: &Vec<usize>| {
        let mut zones = vec![0; problem.zones];
        set.iter().for_each(|&node| zones[problem.zone_of[node]] += 1);
        set.iter().all(|&node| left[node] > 0)
            && zones.iter().all(|used| *used <= problem.per_zone())
    };
    all.map(|set| nodes(set).collect()).filter(fits).collect()
}

/// Whether owners could be exchanged along some cycle so that fewer move than for `next`.
pub(super) fn has_a_cheaper_cycle(now: &Layout, next: &Layout) -> bool {
    let problem = problem_of(next.partitions(), next.n(), next.members());
    let (zones, nodes) = (problem.zones, problem.zone_of.len());
    // Vertices: nodes, then partitions, then cells of partition and zone.
    let at_partition = |partition: usize| nodes + partition;
    let at_cell =
        |partition: usize, zone: usize| nodes + problem.partitions + partition * zones + zone;
    let mut edges: Vec<(usize, usize, i32)> = Vec::new();
    for (partition, (before, after)) in rows(now, next).iter().enumerate() {
        let mut used = vec![0; zones];
        after.iter().for_each(|&node| used[problem.zone_of[node]] += 1);
        for (zone, used) in used.into_iter().enumerate() {
            if used < problem.per_zone() {
                edges.push((at_partition(partition), at_cell(partition, zone), 0));
            }
            if used > 0 {
                edges.push((at_cell(partition, zone), at_partition(partition), 0));
            }
        }
        for node in 0..nodes {
            let cell = at_cell(partition, problem.zone_of[node]);
            let cost = i32::from(!before.contains(&node));
            match after.contains(&node) {
                true => edges.push((node, cell, -cost)),
                false => edges.push((cell, node, cost)),
            }
        }
    }
    // Bellman and Ford from everywhere at once: without a negative cycle it comes to rest.
    let vertices = nodes + problem.partitions * (1 + zones);
    let mut least = vec![0; vertices];
    for _ in 0..=vertices {
        let mut changed = false;
        for &(from, to, cost) in &edges {
            if least[from] + cost < least[to] {
                least[to] = least[from] + cost;
                changed = true;
            }
        }
        if !changed {
            return false;
        }
    }
    true
}
