//! In which order the owners of a partition stand: who is asked and coordinates first.
//!
//! Place by place: each node gets its share (±1) of first places, then of second places, and so
//! on, because a bucket with fewer copies than the layout uses only the first places. A zone comes
//! a second time only when all zones of the owners have come once; where that forbids an even
//! share, zones win. Each place is a matching partition -> owner with caps, found by augmenting
//! paths. Next to read: `preference.rs`.

use super::assign::OwnerSet;
use super::spread::Spread;
use super::targets::Problem;
use std::collections::VecDeque;

/// The owner table: for each partition its n owners in order, all in one row after another.
pub(super) fn order(problem: &Problem, sets: Vec<OwnerSet>, spread: &mut Spread) -> Vec<u16> {
    let n = problem.n;
    let mut rest = sets;
    let mut zone_used = vec![OwnerSet::new(); problem.partitions];
    let mut table = vec![0; problem.partitions * n];
    for place in 0..n {
        let mut left = vec![0; problem.zone_of.len()];
        rest.iter().flatten().for_each(|&node| left[usize::from(node)] += 1);
        let candidates = rest
            .iter()
            .zip(&zone_used)
            .map(|(owners, used)| least_used_zones(problem, owners, used))
            .collect();
        let chosen = Places::new(candidates, &left, n - place).fill(spread);
        for (partition, node) in chosen.into_iter().enumerate() {
            table[partition * n + place] = node;
            rest[partition].retain(|owner| *owner != node);
            zone_used[partition].push(problem.zone_of[usize::from(node)] as u16);
        }
    }
    table
}

/// The owners whose zones stand least often among `used`.
fn least_used_zones(problem: &Problem, owners: &OwnerSet, used: &OwnerSet) -> OwnerSet {
    let times = |node: u16| {
        let zone = problem.zone_of[usize::from(node)];
        used.iter().filter(|&&used| usize::from(used) == zone).count()
    };
    let least = owners.iter().map(|&node| times(node)).min();
    owners.iter().copied().filter(|&node| Some(times(node)) == least).collect()
}

/// One place of all partitions, being filled.
struct Places {
    candidates: Vec<OwnerSet>,
    /// Partitions each node is a candidate of.
    wanted: Vec<Vec<u16>>,
    chosen: Vec<Option<u16>>,
    counts: Vec<usize>,
    floors: Vec<usize>,
    caps: Vec<usize>,
}

impl Places {
    /// A node that owns `left` partitions without a place yet, of `places` places to come, shall
    /// get `left / places` of this one, rounded down or up.
    fn new(candidates: Vec<OwnerSet>, left: &[usize], places: usize) -> Places {
        let mut wanted = vec![Vec::new(); left.len()];
        for (partition, nodes) in candidates.iter().enumerate() {
            for &node in nodes {
                wanted[usize::from(node)].push(partition as u16);
            }
        }
        Places {
            chosen: vec![None; candidates.len()],
            candidates,
            wanted,
            counts: vec![0; left.len()],
            floors: left.iter().map(|&left| left / places).collect(),
            caps: left.iter().map(|&left| left.div_ceil(places)).collect(),
        }
    }

    fn fill(mut self, spread: &mut Spread) -> Vec<u16> {
        let mut partitions: Vec<u16> = (0..self.candidates.len() as u16).collect();
        spread.shuffle(&mut partitions);
        for partition in partitions {
            spread.shuffle(&mut self.candidates[usize::from(partition)]);
            while !self.place(partition) {
                // Zones forbid an even share here: let the emptiest candidate take one more.
                let node = *self.candidates[usize::from(partition)]
                    .iter()
                    .min_by_key(|&&node| self.counts[usize::from(node)])
                    .expect("a partition with a place left has an owner left");
                self.caps[usize::from(node)] = self.counts[usize::from(node)] + 1;
            }
        }
        for node in 0..self.counts.len() as u16 {
            while self.counts[usize::from(node)] < self.floors[usize::from(node)] && self.pull(node)
            {
            }
        }
        let chosen = self.chosen.into_iter();
        chosen.map(|node| node.expect("the loop above placed every partition")).collect()
    }

    /// Gives `partition` a candidate below its cap, moving others along if need be.
    fn place(&mut self, partition: u16) -> bool {
        // `via[node]`: the partition that would choose the node.
        let mut via: Vec<Option<u16>> = vec![None; self.counts.len()];
        let mut queue = VecDeque::from([partition]);
        while let Some(asking) = queue.pop_front() {
            for &node in &self.candidates[usize::from(asking)] {
                if via[usize::from(node)].is_some() {
                    continue;
                }
                via[usize::from(node)] = Some(asking);
                if self.counts[usize::from(node)] < self.caps[usize::from(node)] {
                    self.counts[usize::from(node)] += 1;
                    self.choose_along(node, &via);
                    return true;
                }
                queue.extend(self.chosen_by(node));
            }
        }
        false
    }

    /// Each partition on the path chooses the node it reached; the first had none before.
    fn choose_along(&mut self, mut node: u16, via: &[Option<u16>]) {
        loop {
            let partition = via[usize::from(node)].expect("every node of a path was reached");
            match self.chosen[usize::from(partition)].replace(node) {
                Some(before) => node = before,
                None => return,
            }
        }
    }

    /// Brings one more partition to `node` from a node above its floor, over others if need be.
    fn pull(&mut self, node: u16) -> bool {
        // `via[other]`: the partition that `other` would give up, and to whom.
        let mut via: Vec<Option<(u16, u16)>> = vec![None; self.counts.len()];
        let mut queue = VecDeque::from([node]);
        while let Some(taker) = queue.pop_front() {
            for &partition in &self.wanted[usize::from(taker)] {
                let giver = self.chosen[usize::from(partition)].expect("all places are filled");
                if giver == node || giver == taker || via[usize::from(giver)].is_some() {
                    continue;
                }
                via[usize::from(giver)] = Some((partition, taker));
                if self.counts[usize::from(giver)] > self.floors[usize::from(giver)] {
                    self.counts[usize::from(giver)] -= 1;
                    self.counts[usize::from(node)] += 1;
                    let mut giver = giver;
                    while giver != node {
                        let (partition, taker) =
                            via[usize::from(giver)].expect("every node of a path was reached");
                        self.chosen[usize::from(partition)] = Some(taker);
                        giver = taker;
                    }
                    return true;
                }
                queue.push_back(giver);
            }
        }
        false
    }

    fn chosen_by(&self, node: u16) -> impl Iterator<Item = u16> {
        let chose = move |p: &u16| self.chosen[usize::from(*p)] == Some(node);
        self.wanted[usize::from(node)].iter().copied().filter(chose)
    }
}
