//! What the cluster can still lose: counted on the layout and on what the nodes say of each other.
//!
//! An owner that answers a client is of no use to the others while they are cut off from it, and one
//! that lacks something is no copy of it. Only counting and words here; `status.rs` shows it.

use crate::report::text::count;
use galvani_client::{BucketName, ClusterView, Layout, NodeId, NodeReport, Partition, Shard};
use std::collections::{BTreeMap, BTreeSet};

/// What a node that answered is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Whom it cannot reach.
    down: BTreeSet<NodeId>,
    /// Why it does not count as a copy.
    flaw: Option<Flaw>,
}

/// Why a node is no full copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Lacks,
    Damaged,
}

/// The nodes that answered.
#[derive(Clone, Debug, Default)]
struct Sight(BTreeMap<NodeId, Seen>);

impl Sight {
    fn of(reports: &[NodeReport]) -> Sight {
        let answers =
            reports.iter().filter_map(|report| Some((report, report.status.as_ref().ok()?)));
        let mut sight = BTreeMap::new();
        for (report, status) in answers.clone() {
            let damaged = status.counters.rows_damaged > 0
                || !status.damaged_files.is_empty()
                || status.unreadable > 0;
            let hints = answers.clone().filter_map(|(_, other)| other.hints.get(&report.id));
            let lacks = status.shards_behind > 0
                || status.refilling.left > 0
                || hints.map(|held| held.count).sum::<u64>() > 0;
            let flaw = match (damaged, lacks) {
                (true, _) => Some(Flaw::Damaged),
                (false, true) => Some(Flaw::Lacks),
                (false, false) => None,
            };
            sight.insert(
                report.id,
                Seen { down: status.peers_down.iter().copied().collect(), flaw },
            );
        }
        Sight(sight)
    }

    /// Whether both answer and neither holds the other for unreachable.
    fn joined(&self, one: NodeId, other: NodeId) -> bool {
        match (self.0.get(&one), self.0.get(&other)) {
            (Some(a), Some(b)) => !a.down.contains(&other) && !b.down.contains(&one),
            _ => false,
        }
    }

    /// Answers, but reaches nobody else who answers.
    fn is_alone(&self, node: NodeId) -> bool {
        let mut others = self.0.keys().filter(|other| **other != node).peekable();
        self.0.contains_key(&node)
            && others.peek().is_some()
            && others.all(|other| !self.joined(node, *other))
    }

    /// The most of these nodes that all reach each other: one may go, and the rest still work.
    fn together(&self, nodes: &[NodeId]) -> usize {
        let all_joined = |set: u32| {
            let of = |set: u32| (0..nodes.len()).filter(move |&index| set >> index & 1 == 1);
            of(set).all(|a| of(set).all(|b| self.joined(nodes[a], nodes[b])))
        };
        // At most 7 owners: 128 sets.
        let sets = (0..1_u32 << nodes.len()).filter(|&set| all_joined(set));
        sets.map(|set| set.count_ones() as usize).max().unwrap_or(0)
    }

    /// The most of these nodes that one of them reaches, itself included: what a request can get.
    fn reached(&self, nodes: &[NodeId]) -> usize {
        let reached = |&from: &NodeId| nodes.iter().filter(|to| self.joined(from, **to)).count();
        nodes.iter().map(reached).max().unwrap_or(0)
    }
}

/// Nodes that do not answer, and those that no other node reaches; by name.
pub(super) fn away(reports: &[NodeReport]) -> Vec<String> {
    let sight = Sight::of(reports);
    let away = reports.iter().filter(|it| it.status.is_err() || sight.is_alone(it.id));
    away.map(|report| report.name.clone()).collect()
}

/// What bucket `default` can still bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Safety {
    pub(super) n: u8,
    pub(super) r: u8,
    pub(super) w: u8,
    /// Partitions with all owners up, with some down but r and w met, and with too few.
    pub(super) whole: usize,
    pub(super) degraded: usize,
    pub(super) lost: usize,
    /// Owners that may still go in the worst partition; negative: that many are missing.
    spare: i32,
    /// The same if only full copies count; not above `spare`.
    sound: i32,
    /// Nodes that are up and no full copies, and why, in words.
    flawed: Vec<(String, Flaw)>,
}

impl Safety {
    /// Counted on the layout and on what those who answer say.
    pub(crate) fn of(view: &ClusterView, reports: &[NodeReport]) -> Safety {
        let props = view.buckets.get(&BucketName::default_bucket());
        let n = props.map_or(view.layout.n(), |props| props.n);
        let majority = n / 2 + 1;
        let number = |asked: Option<u8>| asked.unwrap_or(majority);
        let r = number(props.and_then(|props| props.r.resolve(n)));
        let w = number(props.and_then(|props| props.w.resolve(n)));
        let sight = Sight::of(reports);
        let of = |layout: &Layout| {
            let partitions = (0..layout.partitions()).map(Partition);
            let owners = partitions.map(|partition| layout.owners(Shard { partition, n }).to_vec());
            Safety::counted([n, r, w], owners, &sight)
        };
        let mut safety = of(&view.layout);
        // While the layout changes, a write needs quorums of the owners in both.
        let layouts = view.change.iter().flat_map(|change| [&change.old, &change.new]);
        for layout in layouts.filter(|layout| layout.id() != view.layout.id()) {
            safety = safety.worse(of(layout));
        }
        let flaw =
            |report: &NodeReport| Some((report.name.clone(), sight.0.get(&report.id)?.flaw?));
        safety.flawed = reports.iter().filter_map(flaw).collect();
        safety
    }

    /// The worse of two, in each respect.
    fn worse(self, other: Safety) -> Safety {
        let (spare, sound) = (self.spare.min(other.spare), self.sound.min(other.sound));
        let of = |it: &Safety| (it.lost, it.degraded);
        let worse = if of(&other) > of(&self) { other } else { self };
        Safety { spare, sound, ..worse }
    }

    fn counted(
        [n, r, w]: [u8; 3],
        partitions: impl Iterator<Item = Vec<NodeId>>,
        sight: &Sight,
    ) -> Safety {
        let mut safety = Safety {
            n,
            r,
            w,
            whole: 0,
            degraded: 0,
            lost: 0,
            spare: i32::from(n),
            sound: i32::from(n),
            flawed: Vec::new(),
        };
        let need = i32::from(r.max(w));
        let full = |node: &NodeId| sight.0.get(node).is_some_and(|seen| seen.flaw.is_none());
        for owners in partitions {
            let sound: Vec<NodeId> = owners.iter().copied().filter(full).collect();
            let (together, reached) = (sight.together(&owners), sight.reached(&owners) as i32);
            let spare = match reached < need {
                true => reached - need,
                false => (together as i32 - need).max(0),
            };
            safety.spare = safety.spare.min(spare);
            safety.sound = safety.sound.min(spare).min(sight.together(&sound) as i32 - need);
            match (spare < 0, together == owners.len()) {
                (true, _) => safety.lost += 1,
                (false, true) => safety.whole += 1,
                (false, false) => safety.degraded += 1,
            }
        }
        safety
    }

    /// Partitions where too few owners reach each other for r and w.
    pub(crate) fn lost(&self) -> usize {
        self.lost
    }

    /// Nodes that may go without r or w being missed and without a last full copy going with them.
    pub(super) fn nodes(&self) -> u32 {
        self.sound.max(0) as u32
    }

    /// Nodes that do not count as copies.
    pub(super) fn flawed(&self) -> impl Iterator<Item = &str> {
        self.flawed.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn words(&self) -> String {
        let Safety { r, w, whole, degraded, lost, .. } = *self;
        if self.spare < 0 {
            let percent = (lost * 100).div_ceil((whole + degraded + lost).max(1));
            return format!("r={r} w={w} fails now for {percent} % of partitions");
        }
        let more = match self.nodes() {
            0 => format!("NOTHING more at r={r} w={w}"),
            spare => format!("any {} at r={r} w={w}", count(spare.into(), "node")),
        };
        match self.sound < self.spare {
            true => format!("{more} while {}", self.flaws()),
            false => more,
        }
    }

    fn flaws(&self) -> String {
        let named = |flaw, one: &str, many: &str| {
            let names = self.flawed.iter().filter(|(_, it)| *it == flaw);
            let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
            let verb = if names.len() == 1 { one } else { many };
            (!names.is_empty()).then(|| format!("{} {verb}", names.join(" ")))
        };
        let lacks = named(Flaw::Lacks, "lacks something", "lack something");
        let damaged = named(Flaw::Damaged, "has damage", "have damage");
        lacks.into_iter().chain(damaged).collect::<Vec<_>>().join(" and ")
    }
}

#[cfg(test)]
mod tests;
