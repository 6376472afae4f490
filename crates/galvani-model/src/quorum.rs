//! When an operation is done: sets of nodes that answered, never counts of messages.
//!
//! A [`QuorumTracker`] holds one owner set, or two while a layout changes (then a quorum is needed
//! in both). It knows nothing but node ids: not what was asked, nor when. The verdict goes from
//! Pending to Met or Lost and never on from there; answers that come later are still written down,
//! for error texts and for whoever must bring the others up to date.
//! Next to read: `quorum/set.rs` for the counting, `quorum_promise.rs` for what n, r, w are worth.
//! Source: DeCandia et al. 2007, sections 4.5, 4.6; joint quorums: Ongaro 2014, section 4.3.
//!
//! **What counts.** An owner that stored the write covers its own place. A stand-in that stored it
//! for an absent owner covers that owner's place. `need` counts covered places, each by a node of
//! its own: an owner and its stand-in are one, a stand-in for two owners is one, so `need` places
//! are always `need` distinct nodes. `primaries` counts owners only. `durable` counts places
//! covered by a node that had fsynced.

mod set;

use self::set::{SetState, StandIn};
use crate::ids::NodeId;
use crate::limits::N_MAX;
use smallvec::SmallVec;

/// How an operation stands. Met and Lost are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided: answers are still to come that may decide it.
    Pending,
    /// Every requirement holds in every owner set.
    Met,
    /// Some requirement can no longer hold, whoever else answers.
    Lost,
}

/// What one owner set must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Places to be covered (r or w), 1..=n.
    pub places: u8,
    /// Of those, by their owners themselves (pr or pw), 0..=n; 0 asks nothing.
    pub primaries: u8,
    /// Of those, by nodes that fsynced first (dw), 0..=n; 0 asks nothing.
    pub durable: u8,
}

impl Needs {
    /// Needs that ask for `places` and nothing else.
    pub fn places(places: u8) -> Needs {
        Needs { places, primaries: 0, durable: 0 }
    }
}

/// Owners of which some must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerSet {
    /// The owners: 1..=[`N_MAX`] distinct nodes, in any order.
    pub owners: SmallVec<[NodeId; N_MAX as usize]>,
    /// What they must give.
    pub needs: Needs,
    /// How many other nodes may stand in for them at most; 0 makes the quorum strict. Bounds what
    /// the tracker remembers, and tells when a quorum is out of reach.
    pub stand_ins: u16,
}

/// Why there can be no such quorum. Nothing was asked of anyone; the request is to be refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// An owner set has 1..=[`N_MAX`] nodes.
    #[error("{owners} owners are not between 1 and {N_MAX}")]
    OwnerCount {
        /// How many were given.
        owners: usize,
    },
    /// A node is in an owner set twice.
    #[error("owner {node} is listed twice")]
    DuplicateOwner {
        /// The node.
        node: NodeId,
    },
    /// More is asked than there are owners, or no answer at all.
    #[error("{requirement} of {need} cannot be asked of {owners} owners")]
    Impossible {
        /// Which need.
        requirement: Requirement,
        /// What was asked.
        need: u8,
        /// How many owners there are.
        owners: u8,
    },
}

/// Which of the needs is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Covered places: r or w.
    Places,
    /// Owners' own answers: pr or pw.
    Primaries,
    /// Fsynced answers: dw.
    Durable,
}

impl core::fmt::Display for Requirement {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Requirement::Places => "a quorum",
            Requirement::Primaries => "a quorum of primaries",
            Requirement::Durable => "a durable quorum",
        })
    }
}

/// What is known of one node. Answers only get better: a failure may be followed by a late ack, an
/// ack by a durable one, never the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Nothing yet.
    Pending,
    /// It refused, or is known not to answer.
    Failed,
    /// It did what was asked.
    Acked,
    /// It did, and fsynced first.
    Durable,
}

/// How one requirement of one owner set stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is needed.
    pub need: u8,
    /// What is there.
    pub got: u8,
    /// The most there can be if all who may still answer do.
    pub reachable: u8,
}

/// A requirement that does not hold, for an error text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Which one.
    pub requirement: Requirement,
    /// In which owner set: 0, or 1 for the second of two.
    pub set: u8,
    /// What was needed.
    pub need: u8,
    /// What is there.
    pub got: u8,
    /// How many owners of the set failed.
    pub failed: u8,
    /// How many owners of the set there are.
    pub owners: u8,
}

/// Decides one operation.
///
/// Laws, for any sequence of events: the verdict leaves [`Verdict::Pending`] at most once; an event
/// that repeats an earlier one changes nothing; an event of a node that is no owner (or, for
/// stand-ins, beyond the number allowed) changes nothing; the order of acks does not matter. After
/// a failure a node is expected to stay silent, so Lost may come while it could still answer; if it
/// answers before, the ack counts.
#[derive(Clone, Debug)]
pub struct QuorumTracker {
    first: SetState,
    second: Option<SetState>,
    verdict: Verdict,
    stand_in_acks: SmallVec<[StandIn; 4]>,
    stand_in_failures: SmallVec<[NodeId; 4]>,
    stand_ins_max: usize,
}

impl QuorumTracker {
    /// A tracker that needs a quorum of one owner set.
    pub fn new(set: OwnerSet) -> Result<QuorumTracker, QuorumError> {
        QuorumTracker::with(set, None)
    }

    /// A tracker that needs a quorum of `first` and a quorum of `second`. A node in both counts in
    /// both.
    pub fn joint(first: OwnerSet, second: OwnerSet) -> Result<QuorumTracker, QuorumError> {
        QuorumTracker::with(first, Some(second))
    }

    fn with(first: OwnerSet, second: Option<OwnerSet>) -> Result<QuorumTracker, QuorumError> {
        let first = SetState::new(first)?;
        let second = second.map(SetState::new).transpose()?;
        let stand_ins_max = [Some(&first), second.as_ref()].into_iter().flatten();
        let stand_ins_max = stand_ins_max.map(|set| usize::from(set.stand_ins)).sum();
        Ok(QuorumTracker {
            first,
            second,
            verdict: Verdict::Pending,
            stand_in_acks: SmallVec::new(),
            stand_in_failures: SmallVec::new(),
            stand_ins_max,
        })
    }

    /// Owner `node` did what was asked; `durable` if it fsynced first.
    pub fn ack(&mut self, node: NodeId, durable: bool) -> Verdict {
        let answer = if durable { Answer::Durable } else { Answer::Acked };
        self.on_owner(node, answer)
    }

    /// Owner `node` refused, or will not answer. Changes nothing after its ack.
    pub fn fail(&mut self, node: NodeId) -> Verdict {
        self.on_owner(node, Answer::Failed)
    }

    /// `node`, no owner itself, did it in the place of `owner`. In a set where `node` is an owner
    /// this counts nothing: there only its own [`ack`](Self::ack) does.
    pub fn ack_stand_in(&mut self, node: NodeId, owner: NodeId, durable: bool) -> Verdict {
        let ack = StandIn { node, owner, durable };
        if !self.sets().any(|set| set.may_count(ack)) || !self.admits(node) {
            return self.verdict;
        }
        self.stand_in_failures.retain(|failed| *failed != node);
        let known = self.stand_in_acks.iter_mut().find(|a| (a.node, a.owner) == (node, owner));
        match known {
            Some(known) => known.durable |= durable,
            None => self.stand_in_acks.push(ack),
        }
        self.decide()
    }

    /// A stand-in refused, or will not answer. Changes nothing after its ack.
    pub fn fail_stand_in(&mut self, node: NodeId) -> Verdict {
        let acked = self.stand_in_acks.iter().any(|ack| ack.node == node);
        let outside = self.sets().any(|set| set.index_of(node).is_none());
        if !acked && outside && self.admits(node) && !self.stand_in_failures.contains(&node) {
            self.stand_in_failures.push(node);
        }
        self.decide()
    }

    /// How the operation stands.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// How one requirement stands in the first set, and in the second if there are two.
    pub fn progress(&self, requirement: Requirement) -> SmallVec<[Progress; 2]> {
        self.sets().map(|set| set.progress(requirement, self)).collect()
    }

    /// The first requirement that does not hold, or `None`. Says why after Lost or a deadline.
    /// After Lost, prefers one that can no longer hold.
    pub fn shortfall(&self) -> Option<Shortfall> {
        let open = |lost_only: bool| {
            self.sets().enumerate().find_map(|(index, set)| {
                REQUIREMENTS.into_iter().find_map(|requirement| {
                    let Progress { need, got, reachable } = set.progress(requirement, self);
                    let short = if lost_only { reachable < need } else { got < need };
                    short.then(|| Shortfall {
                        requirement,
                        set: index as u8,
                        need,
                        got,
                        failed: set.count(Answer::Failed),
                        owners: set.owners.len() as u8,
                    })
                })
            })
        };
        open(true).or_else(|| open(false))
    }

    /// Every owner once and what it answered, in the order given; a second set's own owners last.
    pub fn owners(&self) -> impl Iterator<Item = (NodeId, Answer)> + '_ {
        let rest = self.second.iter().flat_map(SetState::answers);
        self.first.answers().chain(rest.filter(|(node, _)| self.first.index_of(*node).is_none()))
    }

    /// Every stand-in's ack: the node, the owner it stands for, and whether it fsynced.
    pub fn stand_ins(&self) -> impl Iterator<Item = (NodeId, NodeId, bool)> + '_ {
        self.stand_in_acks.iter().map(|ack| (ack.node, ack.owner, ack.durable))
    }

    /// How many distinct nodes are known to have done what was asked, owners and stand-ins.
    pub fn acked_nodes(&self) -> usize {
        let owners = self.owners().filter(|(_, answer)| *answer >= Answer::Acked).count();
        let acked_owner = |node| self.owners().any(|(o, a)| o == node && a >= Answer::Acked);
        let stand_ins = self.stand_in_acks.iter().enumerate().filter(|(index, ack)| {
            let earlier = self.stand_in_acks[..*index].iter().any(|other| other.node == ack.node);
            !earlier && !acked_owner(ack.node)
        });
        owners + stand_ins.count()
    }

    fn on_owner(&mut self, node: NodeId, answer: Answer) -> Verdict {
        for set in core::iter::once(&mut self.first).chain(&mut self.second) {
            if let Some(index) = set.index_of(node) {
                set.answers[index] = set.answers[index].max(answer);
            }
        }
        self.decide()
    }

    fn decide(&mut self) -> Verdict {
        if self.verdict == Verdict::Pending {
            let all = |holds: fn(Progress) -> bool| {
                self.sets().all(|set| REQUIREMENTS.iter().all(|&r| holds(set.progress(r, self))))
            };
            if all(|progress| progress.got >= progress.need) {
                self.verdict = Verdict::Met;
            } else if !all(|progress| progress.reachable >= progress.need) {
                self.verdict = Verdict::Lost;
            }
        }
        self.verdict
    }

    /// Whether `node` is a stand-in already known, or one more is allowed.
    fn admits(&self, node: NodeId) -> bool {
        let mut known: SmallVec<[NodeId; 8]> = self.stand_in_failures.iter().copied().collect();
        for ack in &self.stand_in_acks {
            if !known.contains(&ack.node) {
                known.push(ack.node);
            }
        }
        known.contains(&node) || known.len() < self.stand_ins_max
    }

    fn sets(&self) -> impl Iterator<Item = &SetState> {
        core::iter::once(&self.first).chain(&self.second)
    }
}

/// All requirements, in the order they are reported.
const REQUIREMENTS: [Requirement; 3] =
    [Requirement::Places, Requirement::Primaries, Requirement::Durable];

#[cfg(test)]
mod tests;
