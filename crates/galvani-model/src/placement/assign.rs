//! Which nodes own which partition: a maximum flow through partition -> zone -> node -> target.
//!
//! Edges: a partition takes n nodes, at most c of one zone, a node once; a node takes its target.
//! The graph is implicit in the owner sets. `deal` fills it by weighted draws, `complete` finishes
//! it by augmenting paths; with integer targets that respect the caps a full flow exists, so it
//! always ends. Visiting orders are drawn: in a fixed order nodes would share partitions with a few
//! peers only. This makes a cluster's first layout; those after it start from the owners there are
//! (`keep.rs`, `fewest.rs`). Next to read: `order.rs`.

use super::spread::Spread;
use super::targets::Problem;
use crate::limits::N_MAX;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// The owners of one partition, as node indexes.
pub(super) type OwnerSet = SmallVec<[u16; N_MAX as usize]>;

/// The owner sets of all partitions, with every node at exactly its target.
pub(super) fn assign(problem: &Problem, targets: &[usize], spread: &mut Spread) -> Vec<OwnerSet> {
    let mut assignment = Assignment::empty(problem, targets);
    assignment.deal(spread);
    assignment.complete(spread);
    assignment.owners
}

/// A flow that may be partial: no cap is ever exceeded.
pub(super) struct Assignment<'a> {
    pub(super) problem: &'a Problem,
    pub(super) targets: &'a [usize],
    pub(super) per_zone: usize,
    pub(super) owners: Vec<OwnerSet>,
    /// Partitions each node owns: the other direction of `owners`.
    pub(super) owned: Vec<Vec<u16>>,
}

impl<'a> Assignment<'a> {
    pub(super) fn empty(problem: &'a Problem, targets: &'a [usize]) -> Assignment<'a> {
        Assignment {
            problem,
            targets,
            per_zone: problem.per_zone(),
            owners: vec![OwnerSet::new(); problem.partitions],
            owned: vec![Vec::new(); targets.len()],
        }
    }

    /// Gives each partition, in drawn order, owners drawn in proportion to the room nodes have
    /// left. The few partitions that end short are left to `complete`.
    fn deal(&mut self, spread: &mut Spread) {
        let mut partitions: Vec<usize> = (0..self.problem.partitions).collect();
        spread.shuffle(&mut partitions);
        for partition in partitions {
            let mut zone_used = vec![0; self.problem.zones];
            for &node in &self.owners[partition] {
                zone_used[self.problem.zone_of[usize::from(node)]] += 1;
            }
            while self.owners[partition].len() < self.problem.n {
                let Some(node) = self.draw_owner(partition, &zone_used, spread) else {
                    break;
                };
                zone_used[self.problem.zone_of[usize::from(node)]] += 1;
                self.give(partition, node);
            }
        }
    }

    fn draw_owner(
        &self,
        partition: usize,
        zone_used: &[usize],
        spread: &mut Spread,
    ) -> Option<u16> {
        let weight = |node: usize| {
            let zone_full = zone_used[self.problem.zone_of[node]] >= self.per_zone;
            let taken = zone_full || self.owners[partition].contains(&(node as u16));
            if taken { 0 } else { self.room(node) as u64 }
        };
        let total: u64 = (0..self.targets.len()).map(weight).sum();
        let mut left = if total == 0 {
            return None;
        } else {
            spread.below(total)
        };
        for node in 0..self.targets.len() {
            match left.checked_sub(weight(node)) {
                Some(rest) => left = rest,
                None => return Some(node as u16),
            }
        }
        unreachable!("the draw is below the sum of all weights")
    }

    /// Finds an augmenting path for every slot still open.
    fn complete(&mut self, spread: &mut Spread) {
        for partition in 0..self.problem.partitions {
            while self.owners[partition].len() < self.problem.n {
                let mut search = Search::new(self, spread);
                let end = search.run(self, partition);
                let end = end.expect("targets within all caps always admit a full flow");
                let reached = search.reached;
                self.shift(end, &reached);
            }
        }
    }

    /// Takes the path that ends at `node`: each partition on it swaps one owner, the first gains.
    pub(super) fn shift(&mut self, mut node: u16, reached: &[Option<Step>]) {
        loop {
            let step = reached[usize::from(node)].expect("every node of a path was reached");
            let partition = usize::from(step.partition);
            let Some(replaced) = step.replaced else {
                self.give(partition, node);
                return;
            };
            self.take(partition, replaced);
            self.give(partition, node);
            node = replaced;
        }
    }

    pub(super) fn give(&mut self, partition: usize, node: u16) {
        self.owners[partition].push(node);
        self.owned[usize::from(node)].push(partition as u16);
    }

    pub(super) fn take(&mut self, partition: usize, node: u16) {
        self.owners[partition].retain(|owner| *owner != node);
        self.owned[usize::from(node)].retain(|&owned| usize::from(owned) != partition);
    }

    pub(super) fn room(&self, node: usize) -> usize {
        self.targets[node] - self.owned[node].len()
    }

    pub(super) fn zone_used(&self, partition: usize, zone: usize) -> usize {
        let in_zone = |node: &&u16| self.problem.zone_of[usize::from(**node)] == zone;
        self.owners[partition].iter().filter(in_zone).count()
    }
}

/// How a node was reached: it would join `partition`, in the place of `replaced` if any.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) partition: u16,
    pub(super) replaced: Option<u16>,
}

/// One breadth-first search through the residual graph. Nodes not yet reached wait in a pool per
/// zone, so each is looked at about once whatever the number of partitions.
struct Search {
    reached: Vec<Option<Step>>,
    pools: Vec<Vec<u16>>,
    zones_open: Vec<usize>,
    expanded: Vec<bool>,
    queue: VecDeque<u16>,
}

impl Search {
    fn new(assignment: &Assignment<'_>, spread: &mut Spread) -> Search {
        let problem = assignment.problem;
        let mut nodes: Vec<u16> = (0..problem.zone_of.len() as u16).collect();
        spread.shuffle(&mut nodes);
        let mut pools = vec![Vec::new(); problem.zones];
        for &node in &nodes {
            pools[problem.zone_of[usize::from(node)]].push(node);
        }
        let mut zones_open: Vec<usize> = (0..problem.zones).collect();
        spread.shuffle(&mut zones_open);
        Search {
            reached: vec![None; nodes.len()],
            pools,
            zones_open,
            expanded: vec![false; problem.partitions],
            queue: VecDeque::new(),
        }
    }

    /// The nearest node with room on a path from `partition`, or `None` if there is no path.
    fn run(&mut self, assignment: &Assignment<'_>, partition: usize) -> Option<u16> {
        let mut found = self.expand(assignment, partition, None);
        while found.is_none() {
            let node = self.queue.pop_front()?;
            for &partition in &assignment.owned[usize::from(node)] {
                found = self.expand(assignment, usize::from(partition), Some(node));
                if found.is_some() {
                    break;
                }
            }
        }
        found
    }

    /// Reaches all nodes that could join `partition` if `replaced` left it: any node of a zone
    /// that then has room, or another of the same zone. Returns one that has room, if reached.
    fn expand(
        &mut self,
        assignment: &Assignment<'_>,
        partition: usize,
        replaced: Option<u16>,
    ) -> Option<u16> {
        let home = replaced.map(|node| assignment.problem.zone_of[usize::from(node)]);
        if self.expanded[partition] {
            return home.and_then(|zone| self.reach_zone(assignment, partition, zone, replaced));
        }
        self.expanded[partition] = true;
        self.zones_open.retain(|&zone| !self.pools[zone].is_empty());
        for index in 0..self.zones_open.len() {
            let zone = self.zones_open[index];
            let leaves = usize::from(home == Some(zone));
            if assignment.zone_used(partition, zone) - leaves < assignment.per_zone {
                let found = self.reach_zone(assignment, partition, zone, replaced);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    fn reach_zone(
        &mut self,
        assignment: &Assignment<'_>,
        partition: usize,
        zone: usize,
        replaced: Option<u16>,
    ) -> Option<u16> {
        let step = Step { partition: partition as u16, replaced };
        for node in core::mem::take(&mut self.pools[zone]) {
            if assignment.owners[partition].contains(&node) {
                self.pools[zone].push(node);
                continue;
            }
            self.reached[usize::from(node)] = Some(step);
            if assignment.room(usize::from(node)) > 0 {
                return Some(node);
            }
            self.queue.push_back(node);
        }
        None
    }
}
