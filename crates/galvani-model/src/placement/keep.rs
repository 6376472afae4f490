//! The owners that stay: a warm start for the layout after another one.
//!
//! Every owner that is still a member stays, except where a zone would hold too many copies of a
//! partition, or a node more than its target. Which partitions a node gives up is drawn, evenly:
//! first those that have lost the fewest owners so far, among these those where it stands at the
//! place it has most often. Nothing given up here is lost: `fewest.rs` may take it back. Next to
//! read: `fewest.rs`.

use super::assign::{Assignment, OwnerSet};
use super::spread::Spread;
use super::targets::Problem;
use core::cmp::Reverse;

/// The rows of the layout before, as indexes of the members after: `None` where the owner left.
pub(super) struct Before {
    /// n entries for each partition, first owner first.
    pub(super) rows: Vec<Option<u16>>,
    /// Entries in a row.
    pub(super) n: usize,
}

impl Before {
    /// The row of one partition.
    pub(super) fn row(&self, partition: usize) -> &[Option<u16>] {
        &self.rows[partition * self.n..(partition + 1) * self.n]
    }

    /// Whether `node` owned `partition`.
    pub(super) fn owned(&self, partition: usize, node: u16) -> bool {
        self.row(partition).contains(&Some(node))
    }

    /// How much each of `nodes` nodes owned.
    pub(super) fn held(&self, nodes: usize) -> Vec<usize> {
        let mut held = vec![0; nodes];
        self.rows.iter().flatten().for_each(|&node| held[usize::from(node)] += 1);
        held
    }
}

/// The assignment of the owners that stay: within all caps, short where owners left.
pub(super) fn keep<'a>(
    problem: &'a Problem,
    targets: &'a [usize],
    before: &Before,
    spread: &mut Spread,
) -> Assignment<'a> {
    let mut kept = Assignment::empty(problem, targets);
    let mut partitions: Vec<usize> = (0..problem.partitions).collect();
    spread.shuffle(&mut partitions);
    for &partition in &partitions {
        before.row(partition).iter().flatten().for_each(|&node| kept.give(partition, node));
    }
    for &partition in &partitions {
        thin_zones(&mut kept, partition, spread);
    }
    thin_nodes(&mut kept, before, spread);
    kept
}

/// Takes owners of zones that hold too many copies of `partition`: the fullest nodes first.
fn thin_zones(kept: &mut Assignment<'_>, partition: usize, spread: &mut Spread) {
    for zone in 0..kept.problem.zones {
        while kept.zone_used(partition, zone) > kept.per_zone {
            let mut there: OwnerSet = kept.owners[partition]
                .iter()
                .copied()
                .filter(|&node| kept.problem.zone_of[usize::from(node)] == zone)
                .collect();
            spread.shuffle(&mut there);
            let over = |node: u16| {
                kept.owned[usize::from(node)].len() as i64 - kept.targets[usize::from(node)] as i64
            };
            let node = there.into_iter().max_by_key(|&node| over(node));
            kept.take(partition, node.expect("a zone above its cap has owners here"));
        }
    }
}

/// Takes one partition after the other, in turns, from the nodes that have more than their target.
fn thin_nodes(kept: &mut Assignment<'_>, before: &Before, spread: &mut Spread) {
    let n = before.n;
    // How often each node stands at each place.
    let mut stands = vec![0usize; kept.targets.len() * n];
    let place_of = |partition: usize, node: u16| {
        let place = before.row(partition).iter().position(|owner| *owner == Some(node));
        place.expect("whoever stays was an owner")
    };
    for (partition, owners) in kept.owners.iter().enumerate() {
        for &node in owners {
            stands[usize::from(node) * n + place_of(partition, node)] += 1;
        }
    }
    let mut nodes: Vec<u16> = (0..kept.targets.len() as u16).collect();
    spread.shuffle(&mut nodes);
    while !nodes.is_empty() {
        nodes.retain(|&node| kept.owned[usize::from(node)].len() > kept.targets[usize::from(node)]);
        for &node in &nodes {
            let owned = &kept.owned[usize::from(node)];
            let (late, early) = owned.split_at(spread.below(owned.len() as u64) as usize);
            let rank = |partition: &&u16| {
                let partition = usize::from(**partition);
                let often = stands[usize::from(node) * n + place_of(partition, node)];
                (n - kept.owners[partition].len(), Reverse(often))
            };
            let partition = early.iter().chain(late).min_by_key(rank);
            let partition = usize::from(*partition.expect("a node above its target owns some"));
            kept.take(partition, node);
            stands[usize::from(node) * n + place_of(partition, node)] -= 1;
        }
    }
}
