//! The layout a cluster serves with, and the change it is in the middle of.
//!
//! A [`LayoutState`] is what a cluster decides by consensus, one after the other: each epoch has one
//! state for ever. It says, for every shard, who is written to, who is read from and who has to catch
//! up first; it moves no data and knows nobody's progress. Quorums of one epoch and of the next always
//! overlap. Next to read: `layout.rs`; `galvani-protocol/src/layout/`, which goes from state to state.
//! Source: algorithms 9.4; joint quorums after Ongaro and Ousterhout 2014, section 6.

use super::layout::Layout;
use super::member::Member;
use crate::ids::{LaneIndex, NodeId, Partition, Shard};
use crate::limits::N_MAX;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

/// Owners of a shard, in preference order.
pub type Owners = SmallVec<[NodeId; N_MAX as usize]>;

/// How far a change of the layout is. Each phase is an epoch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Writes need quorums of the old owners and of the new ones; reads ask the old ones. New owners
    /// catch up.
    Copying,
    /// As before, but reads ask the new owners: they have caught up.
    Switching,
}

/// A change under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The layout that comes.
    pub next: Arc<Layout>,
    /// How far it is.
    pub phase: Phase,
    /// The epoch it began with: owners that are new keep it beside what they copy.
    pub begun: u64,
    /// How fast they copy.
    #[serde(default, skip_serializing_if = "Pace::is_free")]
    pub pace: Pace,
}

/// How fast new owners copy what the old ones have. Decided like everything else of a change, so that it
/// outlives every restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Whether they copy nothing for now. Reads, writes and what is under way go on.
    pub paused: bool,
    /// Bytes a second that each node copies at most; 0: as many as it can.
    pub bytes_per_second: u64,
}

impl Pace {
    /// Whether nothing holds the copying back.
    pub fn is_free(&self) -> bool {
        *self == Pace::default()
    }
}

/// One epoch of a cluster's layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct LayoutState {
    epoch: u64,
    current: Arc<Layout>,
    transition: Option<Transition>,
}

/// Why there can be no such state. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// One change at a time.
    #[error("the layout is changing already: to version {version}, since epoch {begun}")]
    Changing {
        /// The version it is changing to.
        version: u64,
        /// The epoch it began with.
        begun: u64,
    },
    /// Nothing is changing.
    #[error("the layout is not changing")]
    NotChanging,
    /// New owners are read from already: the change can only be finished.
    #[error("new owners are read from already, so the change can only be finished")]
    TooLate,
    /// The layout that is to come does not follow the current one.
    #[error("the layout was made after version {made_after}, the cluster is at version {version}")]
    NotNext {
        /// The version it follows.
        made_after: u64,
        /// The current version.
        version: u64,
    },
    /// A node that is in both has other lanes: its partitions would change hands within it.
    #[error("node {node} would have other lanes than it has")]
    OtherLanes {
        /// Its id.
        node: NodeId,
    },
    /// Its numbers cannot be those of a state.
    #[error("epochs {begun} and {epoch} cannot be those of a change")]
    Epochs {
        /// When the change began.
        begun: u64,
        /// The epoch.
        epoch: u64,
    },
    /// It is of another cluster, or has other partitions: those stay for a cluster's life.
    #[error("the layout is of another cluster, or has another number of partitions")]
    OtherCluster,
}

/// Whom a node has to catch up with before it may answer reads of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The old owners but itself.
    pub sources: Owners,
    /// Whether it was no owner at all: what it has of the shard from earlier days is out of date.
    pub fresh: bool,
}

impl LayoutState {
    /// The state a cluster begins with: epoch 1.
    pub fn founding(layout: Arc<Layout>) -> LayoutState {
        LayoutState { epoch: 1, current: layout, transition: None }
    }

    /// Its number: each state that the cluster decides on has the next one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The layout before the change, or the only one. Its members decide what comes next.
    pub fn current(&self) -> &Arc<Layout> {
        &self.current
    }

    /// The change under way.
    pub fn transition(&self) -> Option<&Transition> {
        self.transition.as_ref()
    }

    /// The layout that reads go by.
    pub fn reading(&self) -> &Arc<Layout> {
        match &self.transition {
            Some(Transition { next, phase: Phase::Switching, .. }) => next,
            Some(_) | None => &self.current,
        }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u16 {
        self.current.partitions()
    }

    /// Whether the shard exists.
    pub fn contains(&self, shard: Shard) -> bool {
        self.layouts().all(|layout| layout.contains(shard))
    }

    /// Who answers reads of a shard and coordinates its requests, in preference order.
    pub fn owners(&self, shard: Shard) -> Owners {
        self.reading().owners(shard)
    }

    /// The sets of which a write needs a quorum each: one, or the old owners and the new ones.
    pub fn write_sets(&self, shard: Shard) -> (Owners, Option<Owners>) {
        let first = self.current.owners(shard);
        let second = self.transition.as_ref().map(|change| change.next.owners(shard));
        let second = second.filter(|second| *second != first);
        (first, second)
    }

    /// Everybody who holds or is to hold the shard: those who are read from first.
    pub fn replicas(&self, shard: Shard) -> SmallVec<[NodeId; 2 * N_MAX as usize]> {
        let mut all: SmallVec<_> = self.owners(shard).into_iter().collect();
        for layout in self.layouts() {
            for node in layout.owners(shard) {
                if !all.contains(&node) {
                    all.push(node);
                }
            }
        }
        all
    }

    /// Whether a node holds or is to hold the shard.
    pub fn is_replica(&self, node: NodeId, shard: Shard) -> bool {
        self.layouts().any(|layout| layout.is_owner(node, shard))
    }

    /// Whether a node is a member when the change under way is over.
    pub fn is_to_stay(&self, node: NodeId) -> bool {
        self.transition.as_ref().is_none_or(|change| change.next.member(node).is_some())
    }

    /// Whom `node` has to catch up with before the change may go on; `None` if it need not. One that
    /// keeps its place among the owners, or gets a later one, need not: whoever is new makes up for
    /// what it lacks.
    pub fn incoming(&self, node: NodeId, shard: Shard) -> Option<Incoming> {
        let next = &self.transition.as_ref()?.next;
        let old = self.current.owners(shard);
        let new = next.owners(shard);
        let to = new.iter().position(|&owner| owner == node)?;
        let from = old.iter().position(|&owner| owner == node);
        if from.is_some_and(|from| from <= to) {
            return None;
        }
        let fresh = from.is_none();
        Some(Incoming { sources: old.into_iter().filter(|&owner| owner != node).collect(), fresh })
    }

    /// The partitions that `node` holds or is to hold when `n` copies are kept.
    pub fn held_by(&self, node: NodeId, n: u8) -> impl Iterator<Item = Partition> + '_ {
        (0..self.partitions())
            .map(Partition)
            .filter(move |&partition| self.is_replica(node, Shard { partition, n }))
    }

    /// Who may stand in for replicas of a shard, best first: nobody who holds it anyway.
    pub fn fallbacks(&self, shard: Shard) -> impl Iterator<Item = NodeId> + '_ {
        let reading = self.reading();
        let others = self.layouts().flat_map(move |layout| layout.preference(shard.partition));
        let mine = reading.preference(shard.partition);
        let others = others.filter(|&node| reading.member(node).is_none());
        let exists = self.contains(shard);
        mine.chain(others).filter(move |&node| exists && !self.is_replica(node, shard))
    }

    /// All nodes of the layouts, each once: first those that are read from.
    pub fn members(&self) -> impl Iterator<Item = &Member> + '_ {
        let reading = self.reading();
        let others = self.layouts().filter(move |layout| !Arc::ptr_eq(layout, reading));
        let others = others.flat_map(|layout| layout.members());
        let others = others.filter(move |member| reading.member(member.id()).is_none());
        reading.members().iter().chain(others)
    }

    /// The member that `node` is, or `None`.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.reading()
            .member(node)
            .or_else(|| self.layouts().find_map(|layout| layout.member(node)))
    }

    /// The member that people call `name`, or `None`.
    pub fn member_named(&self, name: &str) -> Option<&Member> {
        self.members().find(|member| member.name() == name)
    }

    /// The lane of `node` that serves `partition`, or `None` if it is no member.
    pub fn lane(&self, node: NodeId, partition: Partition) -> Option<LaneIndex> {
        self.member(node).map(|member| member.lane_of(partition))
    }

    /// Where the lane of `node` that serves `partition` listens, or `None` if it is no member.
    pub fn lane_address(&self, node: NodeId, partition: Partition) -> Option<SocketAddr> {
        self.member(node).map(|member| member.lane_address(partition))
    }

    /// The state in which the change to `next` begins.
    pub fn begin(&self, next: Arc<Layout>) -> Result<LayoutState, StateError> {
        if let Some(change) = &self.transition {
            let (version, begun) = (change.next.version(), change.begun);
            return Err(StateError::Changing { version, begun });
        }
        let epoch = self.epoch + 1;
        let pace = Pace::default();
        let transition = Some(Transition { next, phase: Phase::Copying, begun: epoch, pace });
        LayoutState { epoch, current: self.current.clone(), transition }.checked()
    }

    /// The state after the next step of the change.
    pub fn advance(&self) -> Result<LayoutState, StateError> {
        let change = self.transition.as_ref().ok_or(StateError::NotChanging)?;
        let epoch = self.epoch + 1;
        Ok(match change.phase {
            Phase::Copying => {
                let transition = Some(Transition { phase: Phase::Switching, ..change.clone() });
                LayoutState { epoch, current: self.current.clone(), transition }
            }
            Phase::Switching => {
                LayoutState { epoch, current: change.next.clone(), transition: None }
            }
        })
    }

    /// The state in which the change is given up: the old owners have everything.
    pub fn abort(&self) -> Result<LayoutState, StateError> {
        match self.transition.as_ref().map(|change| change.phase) {
            None => Err(StateError::NotChanging),
            Some(Phase::Switching) => Err(StateError::TooLate),
            Some(Phase::Copying) => {
                let (epoch, current) = (self.epoch + 1, self.current.clone());
                Ok(LayoutState { epoch, current, transition: None })
            }
        }
    }

    /// The next state, in which new owners copy at another pace.
    pub fn at_pace(&self, pace: Pace) -> Result<LayoutState, StateError> {
        let change = self.transition.as_ref().ok_or(StateError::NotChanging)?;
        if change.phase != Phase::Copying {
            return Err(StateError::TooLate);
        }
        let transition = Some(Transition { pace, ..change.clone() });
        Ok(LayoutState { transition, ..self.again() })
    }

    /// The state in which the change to `next` begins at a pace.
    pub fn begin_at(&self, next: Arc<Layout>, pace: Pace) -> Result<LayoutState, StateError> {
        let mut state = self.begin(next)?;
        if let Some(change) = &mut state.transition {
            change.pace = pace;
        }
        Ok(state)
    }

    /// The next state, in which everything stays as it is: only the epoch is over.
    pub fn again(&self) -> LayoutState {
        LayoutState { epoch: self.epoch + 1, ..self.clone() }
    }

    /// Whether `later` is a state that may come right after this one.
    pub fn may_become(&self, later: &LayoutState) -> bool {
        let change = later.transition.as_ref();
        let begun = change.map(|change| self.begin_at(change.next.clone(), change.pace));
        let paced = change.map(|change| self.at_pace(change.pace));
        let begun = [begun, paced].iter().flatten().any(|state| state.as_ref() == Ok(later));
        let goes_on = self.advance().as_ref() == Ok(later) || *later == self.again();
        begun || goes_on || self.abort().as_ref() == Ok(later)
    }

    fn layouts(&self) -> impl Iterator<Item = &Arc<Layout>> + Clone + '_ {
        core::iter::once(&self.current).chain(self.transition.iter().map(|change| &change.next))
    }

    fn checked(self) -> Result<LayoutState, StateError> {
        let begun = self.transition.as_ref().map_or(self.epoch, |change| change.begun);
        if self.epoch == 0 || self.epoch > EPOCH_MAX || begun == 0 || begun > self.epoch {
            return Err(StateError::Epochs { begun, epoch: self.epoch });
        }
        let Some(change) = &self.transition else { return Ok(self) };
        let (old, next) = (&self.current, &change.next);
        if next.cluster() != old.cluster() || next.partitions() != old.partitions() {
            return Err(StateError::OtherCluster);
        }
        let moved = next.members().iter().find(|member| {
            old.member(member.id()).is_some_and(|was| was.lanes() != member.lanes())
        });
        if let Some(member) = moved {
            return Err(StateError::OtherLanes { node: member.id() });
        }
        if Some(next.version()) != old.version().checked_add(1) {
            let made_after = next.version().saturating_sub(1);
            return Err(StateError::NotNext { made_after, version: old.version() });
        }
        Ok(self)
    }
}

/// No cluster gets so far.
const EPOCH_MAX: u64 = u64::MAX >> 1;

/// A state as it is stored and sent.
#[derive(Clone, Serialize, Deserialize)]
struct Parts {
    epoch: u64,
    current: Arc<Layout>,
    transition: Option<Transition>,
}

impl TryFrom<Parts> for LayoutState {
    type Error = StateError;

    fn try_from(parts: Parts) -> Result<LayoutState, StateError> {
        let Parts { epoch, current, transition } = parts;
        LayoutState { epoch, current, transition }.checked()
    }
}

impl From<LayoutState> for Parts {
    fn from(state: LayoutState) -> Parts {
        let LayoutState { epoch, current, transition } = state;
        Parts { epoch, current, transition }
    }
}

#[cfg(test)]
mod tests;
