//! How many partitions each node shall own: exact shares by water-filling, then whole numbers.
//!
//! Q·n slots are poured over the nodes in proportion to weight; a node is full at Q (it owns a
//! partition once), a zone at Q·c where c is how many copies of one partition a zone may hold.
//! All arithmetic is on integers, so every machine gets the same answer. Every node ends within
//! one slot of its exact share; which way it is rounded depends on what it owns already. Next to
//! read: `assign.rs`. Source: weighted max-min fairness.

use core::cmp::Ordering;

/// A placement problem: nodes are indexes, zones are indexes.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// Partitions to place, at least 1.
    pub(super) partitions: usize,
    /// Copies of each, at most the number of nodes.
    pub(super) n: usize,
    /// Zone of each node.
    pub(super) zone_of: Vec<usize>,
    /// Weight of each node, at least 1.
    pub(super) weights: Vec<u64>,
    /// How many zones there are.
    pub(super) zones: usize,
}

/// The zones cannot hold all copies within the bound per zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Infeasible {
    /// Copies of one partition that the zones have room for.
    pub(super) room: usize,
}

impl Problem {
    /// Most copies of one partition in one zone: 1 when there are zones enough for all copies,
    /// else as even as it goes.
    pub(super) fn per_zone(&self) -> usize {
        if self.zones >= self.n { 1 } else { self.n.div_ceil(self.zones) }
    }

    /// The nodes of each zone.
    pub(super) fn zone_nodes(&self) -> Vec<Vec<usize>> {
        let mut nodes = vec![Vec::new(); self.zones];
        for (node, &zone) in self.zone_of.iter().enumerate() {
            nodes[zone].push(node);
        }
        nodes
    }
}

/// Slots per node: they sum to Q·n, no node is above Q, no zone above Q·c. Slots that are left over
/// by rounding down stay with the nodes that have one more already, by `held`, what each node owns
/// now: so nothing moves for a rounding's sake. Then they go to the largest fractions.
pub(super) fn targets(problem: &Problem, held: &[usize]) -> Result<Vec<usize>, Infeasible> {
    let zone_nodes = problem.zone_nodes();
    let room = zone_nodes.iter().map(|nodes| nodes.len().min(problem.per_zone())).sum();
    if room < problem.n {
        return Err(Infeasible { room });
    }
    let q = problem.partitions as u64;
    let zone_cap = q * problem.per_zone() as u64;
    let (shares, full_zones) = water_fill(problem, &zone_nodes);
    let mut slots: Vec<u64> = shares.iter().map(|share| share.whole()).collect();

    // A full zone rounds to exactly its cap; the rest rounds together to what is left over.
    let mut rest = Vec::new();
    let mut rest_total = q * problem.n as u64;
    for (zone, nodes) in zone_nodes.iter().enumerate() {
        if full_zones[zone] {
            round_up(nodes, zone_cap, &shares, held, &mut slots, |_| true);
            rest_total -= zone_cap;
        } else {
            rest.extend_from_slice(nodes);
        }
    }
    let mut zone_slots: Vec<u64> =
        zone_nodes.iter().map(|nodes| nodes.iter().map(|&node| slots[node]).sum()).collect();
    round_up(&rest, rest_total, &shares, held, &mut slots, |node| {
        let used = &mut zone_slots[problem.zone_of[node]];
        let fits = *used < zone_cap;
        *used += u64::from(fits);
        fits
    });
    Ok(slots.into_iter().map(|slots| slots as usize).collect())
}

/// An exact share in slots: `num / den`.
#[derive(Clone, Copy)]
struct Share {
    num: u64,
    den: u64,
}

impl Share {
    fn whole(self) -> u64 {
        self.num / self.den
    }

    fn by_fraction(self, other: Share) -> Ordering {
        let left = u128::from(self.num % self.den) * u128::from(other.den);
        let right = u128::from(other.num % other.den) * u128::from(self.den);
        left.cmp(&right)
    }
}

/// Exact shares of all nodes, and which zones are full. The level `rest / weight` only rises as
/// limits are found exceeded, so what is full stays full and the loop ends after at most one
/// round for each node and zone.
fn water_fill(problem: &Problem, zone_nodes: &[Vec<usize>]) -> (Vec<Share>, Vec<bool>) {
    let q = problem.partitions as u64;
    let zone_cap = q * problem.per_zone() as u64;
    let mut full_nodes = vec![false; problem.zone_of.len()];
    let mut full_zones = vec![false; problem.zones];
    let (mut rest, mut weight);
    loop {
        rest = q * problem.n as u64;
        weight = 0;
        for (zone, nodes) in zone_nodes.iter().enumerate() {
            if full_zones[zone] {
                rest -= zone_cap;
                continue;
            }
            for &node in nodes {
                if full_nodes[node] {
                    rest -= q;
                } else {
                    weight += problem.weights[node];
                }
            }
        }
        let taken = |node: usize, full: &[bool]| {
            if full[node] { q * weight } else { (problem.weights[node] * rest).min(q * weight) }
        };
        let over = (0..problem.zones).find(|&zone| {
            let sum: u64 = zone_nodes[zone].iter().map(|&node| taken(node, &full_nodes)).sum();
            !full_zones[zone] && weight > 0 && sum > zone_cap * weight
        });
        if let Some(zone) = over {
            full_zones[zone] = true;
            continue;
        }
        let mut changed = false;
        for (node, full) in full_nodes.iter_mut().enumerate() {
            let free = !*full && !full_zones[problem.zone_of[node]];
            if free && problem.weights[node] * rest > q * weight {
                *full = true;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }

    let share = |node: usize, full: bool, rest: u64, weight: u64| {
        if full { Share { num: q, den: 1 } } else { share_of(problem.weights[node], rest, weight) }
    };
    let mut shares: Vec<Share> = full_nodes
        .iter()
        .enumerate()
        .map(|(node, &full)| share(node, full, rest, weight))
        .collect();
    for (zone, nodes) in zone_nodes.iter().enumerate() {
        if full_zones[zone] {
            fill_zone(problem, nodes, zone_cap, &mut shares);
        }
    }
    (shares, full_zones)
}

/// Shares `total` slots among the nodes of one full zone, each at most Q.
fn fill_zone(problem: &Problem, nodes: &[usize], total: u64, shares: &mut [Share]) {
    let q = problem.partitions as u64;
    let (mut rest, mut free) = (total, nodes.to_vec());
    loop {
        let weight: u64 = free.iter().map(|&node| problem.weights[node]).sum();
        let (over, under): (Vec<_>, Vec<_>) =
            free.iter().partition(|&&node| problem.weights[node] * rest > q * weight);
        if over.is_empty() {
            for node in under {
                shares[node] = share_of(problem.weights[node], rest, weight);
            }
            return;
        }
        for node in over {
            shares[node] = Share { num: q, den: 1 };
            rest -= q;
        }
        free = under;
    }
}

fn share_of(weight: u64, rest: u64, weights: u64) -> Share {
    Share { num: weight * rest, den: weights.max(1) }
}

/// Hands what `group` lacks of `total` to nodes with a fraction, one slot each, where `fits`: to
/// those that hold more than their whole part, then to the largest fractions.
fn round_up(
    group: &[usize],
    total: u64,
    shares: &[Share],
    held: &[usize],
    slots: &mut [u64],
    mut fits: impl FnMut(usize) -> bool,
) {
    let mut left = total - group.iter().map(|&node| slots[node]).sum::<u64>();
    let mut order: Vec<usize> = group
        .iter()
        .copied()
        .filter(|&node| !shares[node].num.is_multiple_of(shares[node].den))
        .collect();
    let holds_more = |node: usize| held[node] as u64 > shares[node].whole();
    order.sort_by(|&a, &b| {
        let kept = holds_more(b).cmp(&holds_more(a));
        kept.then(shares[b].by_fraction(shares[a])).then(a.cmp(&b))
    });
    for node in order {
        if left > 0 && fits(node) {
            slots[node] += 1;
            left -= 1;
        }
    }
    assert!(left == 0, "fractions that sum to a whole leave as many nodes to round up");
}
