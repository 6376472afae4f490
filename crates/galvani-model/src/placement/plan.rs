//! What comes of a change: which owners come and leave, how even it is, what zones force.
//!
//! [`Moves`] compares two layouts of one cluster, whoever made them; it decides nothing. The least
//! there is to move is counted apart from how the second layout was computed, so that the two can
//! be held against each other. Next to read: `change.rs`.

use super::layout::{Layout, problem_of};
use super::member::Member;
use super::targets::Problem;
use crate::ids::{NodeId, Partition};
use std::collections::{BTreeMap, BTreeSet};

/// What one node owns before and after, in replicas of partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMoves {
    /// The node as the later layout has it, or the earlier one if it left.
    pub member: Member,
    /// Replicas it owns now.
    pub before: usize,
    /// Replicas it owns after.
    pub after: usize,
    /// Replicas it must get from others.
    pub incoming: usize,
    /// Replicas it gives up.
    pub outgoing: usize,
}

/// The owners of one partition that come and leave, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMoves {
    /// The partition.
    pub partition: Partition,
    /// Owners after, that were none before.
    pub incoming: Vec<NodeId>,
    /// Owners before, that are none after.
    pub outgoing: Vec<NodeId>,
}

/// A zone that holds another share than its weights ask for, because copies are kept apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneForce {
    /// The zone.
    pub zone: String,
    /// Its nodes.
    pub nodes: usize,
    /// Copies of every partition that it holds.
    pub copies: usize,
    /// Whether it holds more than its weights ask for (else less).
    pub more: bool,
}

/// The difference between a layout and one that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    /// All nodes of both layouts, in the order of their names.
    pub nodes: Vec<NodeMoves>,
    /// The partitions that change owners.
    pub partitions: Vec<PartitionMoves>,
    /// Replicas in all: partitions times n.
    pub replicas: usize,
    /// Replicas that move.
    pub moved: usize,
    /// Fewer than this no layout with these shares can move: what each node must gain, or what the
    /// bound of copies per zone forbids to stay, whichever is more.
    pub lower_bound: usize,
    /// Most copies of one partition in one zone that are wanted.
    pub per_zone: usize,
    /// Whether no zone holds more than that.
    pub apart: bool,
    /// Zones that hold more or less than their weights ask for.
    pub forced: Vec<ZoneForce>,
    /// Greatest share in proportion to weight, over the mean of all, in thousandths: 1000 is even.
    pub fullest_permille: u64,
}

impl Layout {
    /// What must move for this layout to become `next`, a layout of the same cluster.
    pub fn moves(&self, next: &Layout) -> Moves {
        let (now, after) = (owner_sets(self), owner_sets(next));
        let mut partitions = Vec::new();
        for (index, (now, after)) in now.iter().zip(&after).enumerate() {
            let without = |these: &[NodeId], those: &[NodeId]| -> Vec<NodeId> {
                these.iter().copied().filter(|node| !those.contains(node)).collect()
            };
            let (incoming, outgoing) = (without(after, now), without(now, after));
            if !incoming.is_empty() || !outgoing.is_empty() {
                let partition = Partition(index as u16);
                partitions.push(PartitionMoves { partition, incoming, outgoing });
            }
        }
        let nodes = node_moves(self, next, &partitions);
        let gained: usize = nodes.iter().map(|node| node.after.saturating_sub(node.before)).sum();
        let problem = problem_of(next.partitions(), next.n(), next.members());
        Moves {
            replicas: after.iter().map(Vec::len).sum(),
            moved: partitions.iter().map(|moves| moves.incoming.len()).sum(),
            lower_bound: gained.max(forbidden_to_stay(&now, next, &problem)),
            per_zone: problem.per_zone(),
            apart: after.iter().all(|owners| fullest_zone(owners, next) <= problem.per_zone()),
            forced: forced(&problem, next, &nodes),
            fullest_permille: fullest_permille(next, &nodes),
            nodes,
            partitions,
        }
    }
}

fn owner_sets(layout: &Layout) -> Vec<Vec<NodeId>> {
    let members = layout.members();
    let owners = layout.record().owners.chunks_exact(usize::from(layout.n()));
    owners.map(|row| row.iter().map(|&index| members[usize::from(index)].id()).collect()).collect()
}

fn node_moves(now: &Layout, next: &Layout, partitions: &[PartitionMoves]) -> Vec<NodeMoves> {
    let mut nodes: BTreeMap<NodeId, NodeMoves> = BTreeMap::new();
    for member in now.members().iter().chain(next.members()) {
        let fresh =
            NodeMoves { member: member.clone(), before: 0, after: 0, incoming: 0, outgoing: 0 };
        nodes.entry(member.id()).or_insert(fresh).member = member.clone();
    }
    let mut count = |node: NodeId, add: fn(&mut NodeMoves)| {
        nodes.get_mut(&node).into_iter().for_each(add);
    };
    owner_sets(now).into_iter().flatten().for_each(|node| count(node, |n| n.before += 1));
    owner_sets(next).into_iter().flatten().for_each(|node| count(node, |n| n.after += 1));
    for moves in partitions {
        moves.incoming.iter().for_each(|&node| count(node, |n| n.incoming += 1));
        moves.outgoing.iter().for_each(|&node| count(node, |n| n.outgoing += 1));
    }
    let mut nodes: Vec<NodeMoves> = nodes.into_values().collect();
    nodes.sort_by(|a, b| {
        let key = |node: &NodeMoves| (node.member.name().to_owned(), node.member.id());
        key(a).cmp(&key(b))
    });
    nodes
}

/// Copies that have to move because of who left and what a zone may hold, one partition at a time.
fn forbidden_to_stay(now: &[Vec<NodeId>], next: &Layout, problem: &Problem) -> usize {
    let may_stay = |owners: &Vec<NodeId>| {
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for member in owners.iter().filter_map(|&node| next.member(node)) {
            *zones.entry(member.zone()).or_default() += 1;
        }
        zones.into_values().map(|there| there.min(problem.per_zone())).sum::<usize>()
    };
    now.iter().map(|owners| problem.n.saturating_sub(may_stay(owners))).sum()
}

fn fullest_zone(owners: &[NodeId], layout: &Layout) -> usize {
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for member in owners.iter().filter_map(|&node| layout.member(node)) {
        *zones.entry(member.zone()).or_default() += 1;
    }
    zones.into_values().max().unwrap_or(0)
}

/// Zones at their bound whose weights ask for something else.
fn forced(problem: &Problem, next: &Layout, nodes: &[NodeMoves]) -> Vec<ZoneForce> {
    let slots = problem.partitions as u64 * problem.n as u64;
    let weights: u64 = problem.weights.iter().sum();
    let names: BTreeSet<&str> = next.members().iter().map(Member::zone).collect();
    let force = |zone: &str| {
        let here = || nodes.iter().filter(|node| node.after > 0 && node.member.zone() == zone);
        let members: Vec<&Member> =
            next.members().iter().filter(|member| member.zone() == zone).collect();
        let weight: u64 = members.iter().map(|member| u64::from(member.weight())).sum();
        let held = here().map(|node| node.after as u64).sum::<u64>();
        let copies = problem.per_zone().min(members.len());
        // Up to a slot a node is rounding.
        let off = (held * weights).abs_diff(slots * weight) >= members.len() as u64 * weights;
        let whole = held == copies as u64 * problem.partitions as u64;
        (off && whole).then(|| ZoneForce {
            zone: zone.to_owned(),
            nodes: members.len(),
            copies,
            more: held * weights > slots * weight,
        })
    };
    names.into_iter().filter_map(force).collect()
}

/// Greatest (slots / weight) over (all slots / all weights), in thousandths.
fn fullest_permille(next: &Layout, nodes: &[NodeMoves]) -> u64 {
    let there = || nodes.iter().filter(|node| next.member(node.member.id()).is_some());
    let slots: u64 = there().map(|node| node.after as u64).sum();
    let weights: u64 = there().map(|node| u64::from(node.member.weight())).sum();
    let of = |node: &NodeMoves| {
        let share = 1000 * node.after as u64 * weights;
        share / (u64::from(node.member.weight()) * slots)
    };
    there().map(of).max().unwrap_or(1000)
}
