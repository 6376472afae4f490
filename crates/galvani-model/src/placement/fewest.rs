//! The fewest moves: open slots are filled along cheapest augmenting paths.
//!
//! An owner that was one before costs nothing, a new one costs 1. The warm start (`keep.rs`) costs
//! nothing at all, so it is a cheapest flow of its size; each cheapest path leaves a cheapest flow
//! one slot larger; the full flow therefore has the fewest moves there are for these targets.
//! Paths may make an owner leave that stayed so far, which gives its cost back: lengths of edges
//! are -1, 0 or 1. `far` turns them into lengths that are never negative, so nodes are visited
//! level by level. Next to read: `seat.rs`. Source: successive shortest paths with potentials
//! (Edmonds, Karp 1972), buckets after Dial 1969.

use super::assign::{Assignment, Step};
use super::keep::Before;
use super::spread::Spread;

/// Fills every open slot of `flow`, which costs nothing yet.
pub(super) fn complete(flow: &mut Assignment<'_>, before: &Before, spread: &mut Spread) {
    let mut partitions: Vec<usize> = (0..flow.problem.partitions).collect();
    spread.shuffle(&mut partitions);
    // For each node a lower bound of what it costs to pass one slot on from it to a node with room.
    // Along every edge it falls by no more than the edge costs; where there is room it is 0.
    let mut far = vec![0; flow.targets.len()];
    for partition in partitions {
        while flow.owners[partition].len() < flow.problem.n {
            let mut search = Search::new(flow, before, &far, spread);
            let end = search.run(partition, spread);
            let (end, level) = end.expect("targets within all caps always admit a full flow");
            let Search { level_of, reached, .. } = search;
            for (far, reached_at) in far.iter_mut().zip(level_of) {
                *far += level.saturating_sub(reached_at);
            }
            flow.shift(end, &reached);
        }
    }
}

/// One search through the residual graph, nearest nodes first.
struct Search<'a> {
    flow: &'a Assignment<'a>,
    before: &'a Before,
    far: &'a [usize],
    /// The nodes of each zone, and the zones, in a drawn order.
    zones: Vec<(usize, Vec<u16>)>,
    level_of: Vec<usize>,
    reached: Vec<Option<Step>>,
    levels: Vec<Vec<u16>>,
}

impl<'a> Search<'a> {
    fn new(
        flow: &'a Assignment<'a>,
        before: &'a Before,
        far: &'a [usize],
        spread: &mut Spread,
    ) -> Search<'a> {
        let problem = flow.problem;
        let mut nodes: Vec<u16> = (0..problem.zone_of.len() as u16).collect();
        spread.shuffle(&mut nodes);
        let mut zones: Vec<(usize, Vec<u16>)> =
            (0..problem.zones).map(|zone| (zone, Vec::new())).collect();
        for &node in &nodes {
            zones[problem.zone_of[usize::from(node)]].1.push(node);
        }
        spread.shuffle(&mut zones);
        Search {
            flow,
            before,
            far,
            zones,
            level_of: vec![usize::MAX; nodes.len()],
            reached: vec![None; nodes.len()],
            levels: Vec::new(),
        }
    }

    /// The cheapest node with room on a path from `partition`, and its level; `None`: no path.
    fn run(&mut self, partition: usize, spread: &mut Spread) -> Option<(u16, usize)> {
        self.expand(partition, None, 0);
        let mut level = 0;
        while level < self.levels.len() {
            // A level grows while it is worked off: steps of length nothing stay on it.
            let mut next = 0;
            let mut looked_at = 0;
            while next < self.levels[level].len() {
                while let Some(&node) = self.levels[level].get(looked_at) {
                    if self.is_at(node, level) && self.flow.room(usize::from(node)) > 0 {
                        return Some((node, level));
                    }
                    looked_at += 1;
                }
                let node = self.levels[level][next];
                next += 1;
                if self.is_at(node, level) {
                    self.pass_on(node, level, spread);
                }
            }
            level += 1;
        }
        None
    }

    /// Not reached at a lower level since it was put on this one.
    fn is_at(&self, node: u16, level: usize) -> bool {
        self.level_of[usize::from(node)] == level
    }

    /// Lets `node` give up each of its partitions in turn, from a drawn one on, until that reaches a
    /// node with room on the same level.
    fn pass_on(&mut self, node: u16, level: usize, spread: &mut Spread) {
        let owned = &self.flow.owned[usize::from(node)];
        if owned.is_empty() {
            return;
        }
        let (late, early) = owned.split_at(spread.below(owned.len() as u64) as usize);
        for &partition in early.iter().chain(late) {
            if self.expand(usize::from(partition), Some(node), level) {
                return;
            }
        }
    }

    /// Reaches all nodes that could join `partition` if `replaced` left it: any node of a zone that
    /// then has room. True: one of them has room and lies on the same level.
    fn expand(&mut self, partition: usize, replaced: Option<u16>, level: usize) -> bool {
        let Search { flow, far, .. } = *self;
        let home = replaced.map(|node| flow.problem.zone_of[usize::from(node)]);
        let given_back =
            replaced.map_or(0, |node| self.cost(partition, node) + far[usize::from(node)]);
        let step = Step { partition: partition as u16, replaced };
        for (zone, nodes) in &self.zones {
            let leaves = usize::from(home == Some(*zone));
            if flow.zone_used(partition, *zone) - leaves >= flow.per_zone {
                continue;
            }
            for &node in nodes {
                let index = usize::from(node);
                if flow.owners[partition].contains(&node) {
                    continue;
                }
                let at = level + self.cost(partition, node) + far[index] - given_back;
                if at >= self.level_of[index] {
                    continue;
                }
                self.level_of[index] = at;
                self.reached[index] = Some(step);
                if self.levels.len() <= at {
                    self.levels.resize_with(at + 1, Vec::new);
                }
                self.levels[at].push(node);
                if at == level && replaced.is_some() && flow.room(index) > 0 {
                    return true;
                }
            }
        }
        false
    }

    /// What it costs that `node` owns `partition`.
    fn cost(&self, partition: usize, node: u16) -> usize {
        usize::from(!self.before.owned(partition, node))
    }
}
