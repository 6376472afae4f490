//! The layout: which nodes own which partition, and every question a request asks of it.
//!
//! A [`Layout`] is immutable and always valid: it is computed from members, or decoded and
//! checked whole. The preference list of every partition is laid out once when it is made, so a
//! request costs a table look-up. It never says who is alive. Next to read: `preference.rs` for
//! the order of fallbacks, `record.rs` for what is stored.
//! Source: DeCandia et al. 2007, sections 4.2 and 6.2 (strategy 3: fixed equal partitions).

use super::assign::assign;
use super::member::Member;
use super::order::order;
use super::preference::lists;
use super::record::{LayoutError, LayoutRecord, check_frame};
use super::spread::{Spread, seed_of};
use super::targets::{Problem, targets};
use crate::hash;
use crate::ids::{ClusterId, LaneIndex, LayoutId, NodeId, Partition, Shard};
use crate::key::Key;
use crate::limits::N_MAX;
use core::fmt;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// Who owns what. Cheap to ask, dear to clone: share it by reference count.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LayoutRecord", into = "LayoutRecord")]
pub struct Layout {
    record: LayoutRecord,
    id: LayoutId,
    /// For each partition all members, owners first: `partitions` rows of `members.len()`.
    preference: Vec<u16>,
}

impl Layout {
    /// Computes the layout of `members` (in any order) with `n` copies of each of `partitions`
    /// partitions. Every node gets its exact share by weight (±1), copies are on distinct nodes,
    /// and in distinct zones when there are at least n zones (else evenly over the zones). The same
    /// arguments give the same layout everywhere; `version` and addresses do not move anything.
    pub fn compute(
        cluster: ClusterId,
        version: u64,
        partitions: u16,
        n: u8,
        mut members: Vec<Member>,
    ) -> Result<Layout, LayoutError> {
        members.sort_by_key(Member::id);
        check_frame(partitions, n, &members)?;
        let problem = problem_of(partitions, n, &members);
        let targets = shares(&problem, &vec![0; members.len()])?;
        let mut spread = Spread::of(cluster);
        let sets = assign(&problem, &targets, &mut spread);
        let owners = order(&problem, sets, &mut spread);
        Ok(Layout::of_checked(
            LayoutRecord { cluster, version, partitions, n, members, owners },
            &problem,
        ))
    }

    pub(super) fn of_checked(record: LayoutRecord, problem: &Problem) -> Layout {
        let ids: Vec<NodeId> = record.members.iter().map(Member::id).collect();
        let preference = lists(problem, &ids, &record.owners, seed_of(record.cluster));
        Layout { id: record.content_id(), record, preference }
    }

    /// The content id: equal layouts have equal ids, see [`LayoutRecord::content_id`].
    pub fn id(&self) -> LayoutId {
        self.id
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.record.cluster
    }

    /// Its number in the cluster's history.
    pub fn version(&self) -> u64 {
        self.record.version
    }

    /// How many partitions there are (Q).
    pub fn partitions(&self) -> u16 {
        self.record.partitions
    }

    /// The copies the table is balanced for.
    pub fn n(&self) -> u8 {
        self.record.n
    }

    /// Most copies any bucket can have here: no more than there are nodes, nor than [`N_MAX`].
    pub fn n_max(&self) -> u8 {
        self.record.members.len().min(usize::from(N_MAX)) as u8
    }

    /// All nodes, in the order of their ids.
    pub fn members(&self) -> &[Member] {
        &self.record.members
    }

    /// The layout as it is stored and sent.
    pub fn record(&self) -> &LayoutRecord {
        &self.record
    }

    /// The member that `node` is, or `None`.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let members = &self.record.members;
        members.binary_search_by_key(&node, Member::id).ok().map(|index| &members[index])
    }

    /// The member that people call `name`, or `None`.
    pub fn member_named(&self, name: &str) -> Option<&Member> {
        self.record.members.iter().find(|member| member.name() == name)
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &Key) -> Partition {
        hash::partition_of(hash::key_hash(key), self.record.partitions)
    }

    /// The shard of a key whose bucket keeps `n` copies.
    pub fn shard_of(&self, key: &Key, n: u8) -> Shard {
        Shard { partition: self.partition_of(key), n }
    }

    /// Whether the shard exists here: its partition does, and there are nodes for its copies.
    pub fn contains(&self, shard: Shard) -> bool {
        shard.partition.0 < self.record.partitions && (1..=self.n_max()).contains(&shard.n)
    }

    /// All nodes in the order to ask for `partition`: the owners in table order, then the
    /// fallbacks, zones that are not covered first. Empty for a partition that does not exist.
    pub fn preference(
        &self,
        partition: Partition,
    ) -> impl ExactSizeIterator<Item = NodeId> + Clone + '_ {
        self.row(partition).iter().map(|&index| self.id_at(index))
    }

    /// The owners of a shard in order: the first n of the preference list, also where the bucket's
    /// n differs from the layout's. Empty for a shard that does not exist (see
    /// [`contains`](Self::contains)).
    pub fn owners(&self, shard: Shard) -> SmallVec<[NodeId; N_MAX as usize]> {
        self.owner_row(shard).iter().map(|&index| self.id_at(index)).collect()
    }

    /// The nodes that stand in for owners of a shard, best first: the rest of the preference list.
    pub fn fallbacks(&self, shard: Shard) -> impl ExactSizeIterator<Item = NodeId> + Clone + '_ {
        let row = if self.contains(shard) { self.row(shard.partition) } else { &[] };
        row[self.owner_row(shard).len()..].iter().map(|&index| self.id_at(index))
    }

    /// The first owner of a shard: the natural coordinator of its keys.
    pub fn first_owner(&self, shard: Shard) -> Option<NodeId> {
        self.owner_row(shard).first().map(|&index| self.id_at(index))
    }

    /// Whether `node` is an owner of the shard.
    pub fn is_owner(&self, node: NodeId, shard: Shard) -> bool {
        self.owner_row(shard).iter().any(|&index| self.id_at(index) == node)
    }

    /// The partitions of which `node` is an owner when `n` copies are kept.
    pub fn owned(&self, node: NodeId, n: u8) -> impl Iterator<Item = Partition> + '_ {
        (0..self.record.partitions)
            .map(Partition)
            .filter(move |&partition| self.is_owner(node, Shard { partition, n }))
    }

    /// Where the lane of `node` that serves `partition` listens, or `None` if it is no member.
    pub fn lane_address(&self, node: NodeId, partition: Partition) -> Option<SocketAddr> {
        self.member(node).map(|member| member.lane_address(partition))
    }

    /// The lane of `node` that serves `partition`, or `None` if it is no member.
    pub fn lane(&self, node: NodeId, partition: Partition) -> Option<LaneIndex> {
        self.member(node).map(|member| member.lane_of(partition))
    }

    fn row(&self, partition: Partition) -> &[u16] {
        let nodes = self.record.members.len();
        let start = usize::from(partition.0) * nodes;
        self.preference.get(start..start + nodes).unwrap_or(&[])
    }

    fn owner_row(&self, shard: Shard) -> &[u16] {
        if self.contains(shard) { &self.row(shard.partition)[..usize::from(shard.n)] } else { &[] }
    }

    fn id_at(&self, index: u16) -> NodeId {
        self.record.members[usize::from(index)].id()
    }
}

impl TryFrom<LayoutRecord> for Layout {
    type Error = LayoutError;
    fn try_from(record: LayoutRecord) -> Result<Layout, LayoutError> {
        record.check()?;
        let problem = problem_of(record.partitions, record.n, &record.members);
        Ok(Layout::of_checked(record, &problem))
    }
}

impl From<Layout> for LayoutRecord {
    fn from(layout: Layout) -> LayoutRecord {
        layout.record
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LayoutRecord { version, partitions, n, members, .. } = &self.record;
        write!(f, "Layout(v{version} {} Q={partitions} n={n}", self.id.short())?;
        write!(f, " nodes={})", members.len())
    }
}

/// The slots of each node, of which it has `held` now, or why there are none.
pub(super) fn shares(problem: &Problem, held: &[usize]) -> Result<Vec<usize>, LayoutError> {
    targets(problem, held).map_err(|infeasible| LayoutError::ZonesTooSmall {
        zones: problem.zones,
        per_zone: problem.per_zone(),
        room: infeasible.room,
        n: problem.n as u8,
    })
}

/// Members as indexes; zones are numbered in the order of their names.
pub(super) fn problem_of(partitions: u16, n: u8, members: &[Member]) -> Problem {
    let mut zones: BTreeMap<&str, usize> = members.iter().map(|m| (m.zone(), 0)).collect();
    for (number, zone) in zones.values_mut().enumerate() {
        *zone = number;
    }
    Problem {
        partitions: usize::from(partitions),
        n: usize::from(n),
        zone_of: members.iter().map(|member| zones[member.zone()]).collect(),
        weights: members.iter().map(|member| u64::from(member.weight())).collect(),
        zones: zones.len(),
    }
}
