//! The layout after this one: other members, the fewest moves.
//!
//! Exact shares (`targets.rs`), the owners that stay (`keep.rs`), the rest along cheapest paths
//! (`fewest.rs`), each at the place of one that left (`seat.rs`). A pure function of the layout and
//! the members: every machine gets the same bytes. What is asked for in words is `change.rs`, what
//! comes of it `plan.rs`.

use super::change::Replaced;
use super::fewest::complete;
use super::keep::{Before, keep};
use super::layout::{Layout, problem_of, shares};
use super::member::Member;
use super::record::{LayoutError, LayoutRecord, check_frame};
use super::seat::seat;
use super::spread::Spread;
use super::targets::Problem;
use std::collections::BTreeMap;

impl Layout {
    /// The layout that follows this one when `members` (in any order) are its nodes: the same
    /// cluster, partitions and n, the next version. Every node gets its exact share by weight (±1),
    /// with distinct nodes and zones as in [`compute`](Self::compute), and no other table with these
    /// shares keeps more owners. An owner that stays keeps its place in its row. The same arguments
    /// give the same layout everywhere.
    pub fn next(&self, members: Vec<Member>) -> Result<Layout, LayoutError> {
        self.successor(members, &Replaced::new())
    }

    /// The same, where the rows of nodes that were replaced are those of the nodes in their place.
    pub(super) fn successor(
        &self,
        mut members: Vec<Member>,
        replaced: &Replaced,
    ) -> Result<Layout, LayoutError> {
        let (version, problem) = self.frame_after(&mut members)?;
        let before = self.rows_among(&members, replaced);
        let targets = shares(&problem, &before.held(members.len()))?;
        let mut spread = Spread::of_step(self.cluster(), version);
        let mut flow = keep(&problem, &targets, &before, &mut spread);
        complete(&mut flow, &before, &mut spread);
        let owners = seat(&problem, &before, &flow.owners, &mut spread);
        Ok(self.of_owners(version, members, owners, &problem))
    }

    /// This table with other nodes in the place of some, and nothing else.
    pub(super) fn substituted(
        &self,
        mut members: Vec<Member>,
        replaced: &Replaced,
    ) -> Result<Layout, LayoutError> {
        let (version, problem) = self.frame_after(&mut members)?;
        let rows = self.rows_among(&members, replaced).rows.into_iter();
        let owners = rows.map(|owner| owner.expect("each node stays or has one in its place"));
        Ok(self.of_owners(version, members, owners.collect(), &problem))
    }

    /// Puts `members` in order, and looks whether a table of them can follow this one.
    fn frame_after(&self, members: &mut [Member]) -> Result<(u64, Problem), LayoutError> {
        members.sort_by_key(|member| member.id());
        check_frame(self.partitions(), self.n(), members)?;
        Ok((self.version_after()?, problem_of(self.partitions(), self.n(), members)))
    }

    fn of_owners(
        &self,
        version: u64,
        members: Vec<Member>,
        owners: Vec<u16>,
        problem: &Problem,
    ) -> Layout {
        let (cluster, partitions, n) = (self.cluster(), self.partitions(), self.n());
        let record = LayoutRecord { cluster, version, partitions, n, members, owners };
        Layout::of_checked(record, problem)
    }

    fn version_after(&self) -> Result<u64, LayoutError> {
        let version = self.version();
        version.checked_add(1).ok_or(LayoutError::LastVersion { version })
    }

    fn rows_among(&self, members: &[Member], replaced: &Replaced) -> Before {
        let index: BTreeMap<_, u16> =
            members.iter().enumerate().map(|(index, member)| (member.id(), index as u16)).collect();
        let now: Vec<Option<u16>> = self
            .members()
            .iter()
            .map(|member| replaced.get(&member.id()).copied().unwrap_or(member.id()))
            .map(|id| index.get(&id).copied())
            .collect();
        let rows = self.record().owners.iter().map(|&owner| now[usize::from(owner)]).collect();
        Before { rows, n: usize::from(self.n()) }
    }
}
