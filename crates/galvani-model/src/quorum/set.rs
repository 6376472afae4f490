//! One owner set of a quorum: what its owners answered, and how many places that covers.
//!
//! Counts places, each covered by a node of its own: acked owners cover their own, and stand-ins
//! cover those of absent owners, at most one each (a maximum matching). Decides nothing: the
//! verdict over all sets is taken in `quorum.rs`.

use super::{
    Answer, Needs, OwnerSet, Progress, QuorumError, QuorumTracker, REQUIREMENTS, Requirement,
};
use crate::ids::NodeId;
use crate::limits::N_MAX;
use smallvec::SmallVec;

/// One ack of a stand-in.
#[derive(Clone, Copy, Debug)]
pub(super) struct StandIn {
    pub(super) node: NodeId,
    pub(super) owner: NodeId,
    pub(super) durable: bool,
}

/// One owner set and what its owners answered.
#[derive(Clone, Debug)]
pub(super) struct SetState {
    pub(super) owners: SmallVec<[NodeId; N_MAX as usize]>,
    pub(super) answers: [Answer; N_MAX as usize],
    needs: Needs,
    pub(super) stand_ins: u16,
}

impl SetState {
    pub(super) fn new(set: OwnerSet) -> Result<SetState, QuorumError> {
        let OwnerSet { owners, needs, stand_ins } = set;
        if !(1..=usize::from(N_MAX)).contains(&owners.len()) {
            return Err(QuorumError::OwnerCount { owners: owners.len() });
        }
        for (index, &node) in owners.iter().enumerate() {
            if owners[..index].contains(&node) {
                return Err(QuorumError::DuplicateOwner { node });
            }
        }
        let state =
            SetState { owners, answers: [Answer::Pending; N_MAX as usize], needs, stand_ins };
        for requirement in REQUIREMENTS {
            let need = state.need(requirement);
            let owners = state.owners.len() as u8;
            if need > owners || (requirement == Requirement::Places && need == 0) {
                return Err(QuorumError::Impossible { requirement, need, owners });
            }
        }
        Ok(state)
    }

    fn need(&self, requirement: Requirement) -> u8 {
        match requirement {
            Requirement::Places => self.needs.places,
            Requirement::Primaries => self.needs.primaries,
            Requirement::Durable => self.needs.durable,
        }
    }

    pub(super) fn progress(&self, requirement: Requirement, tracker: &QuorumTracker) -> Progress {
        let need = self.need(requirement);
        let (got, reachable) = match requirement {
            Requirement::Primaries => {
                let got = self.count(Answer::Acked) + self.count(Answer::Durable);
                (got, got + self.count(Answer::Pending))
            }
            Requirement::Places => self.coverage(Answer::Acked, tracker),
            Requirement::Durable => self.coverage(Answer::Durable, tracker),
        };
        Progress { need, got, reachable }
    }

    /// Places covered by answers at least as good as `least`, and places that may yet be.
    fn coverage(&self, least: Answer, tracker: &QuorumTracker) -> (u8, u8) {
        let own = self.answers().filter(|(_, answer)| *answer >= least).count() as u8;
        let got = own + self.covered_by_stand_ins(least, tracker);
        // Who is useless for this: nodes that failed, or acked less well than asked.
        let mut spent: SmallVec<[NodeId; 8]> = tracker.stand_in_failures.iter().copied().collect();
        for ack in &tracker.stand_in_acks {
            let best = tracker.stand_in_acks.iter().any(|a| a.node == ack.node && a.good(least));
            if !best && !spent.contains(&ack.node) {
                spent.push(ack.node);
            }
        }
        let spent = spent.iter().filter(|node| self.index_of(**node).is_none()).count();
        let left = usize::from(self.stand_ins).saturating_sub(spent).min(self.owners.len()) as u8;
        let places_open = self.owners.len() as u8 - own - self.count(Answer::Pending);
        (got, got.max(own + self.count(Answer::Pending) + left.min(places_open)))
    }

    /// The largest number of absent owners' places that distinct stand-ins cover: a matching,
    /// grown place by place along augmenting paths.
    fn covered_by_stand_ins(&self, least: Answer, tracker: &QuorumTracker) -> u8 {
        if tracker.stand_in_acks.is_empty() {
            return 0;
        }
        let mut covering = [None; N_MAX as usize];
        let mut covered = 0;
        for place in 0..self.owners.len() {
            if self.answers[place] < least {
                let mut tried = SmallVec::new();
                covered += u8::from(self.cover(place, least, tracker, &mut covering, &mut tried));
            }
        }
        covered
    }

    /// Finds `place` a stand-in, moving others to other places if need be. At most as deep as
    /// there are places.
    fn cover(
        &self,
        place: usize,
        least: Answer,
        tracker: &QuorumTracker,
        covering: &mut [Option<NodeId>; N_MAX as usize],
        tried: &mut SmallVec<[NodeId; 8]>,
    ) -> bool {
        for &ack in &tracker.stand_in_acks {
            let fits = ack.owner == self.owners[place] && ack.good(least) && self.may_count(ack);
            if !fits || tried.contains(&ack.node) {
                continue;
            }
            tried.push(ack.node);
            let busy = covering.iter().position(|node| *node == Some(ack.node));
            if busy.is_none_or(|other| self.cover(other, least, tracker, covering, tried)) {
                covering[place] = Some(ack.node);
                return true;
            }
        }
        false
    }

    pub(super) fn may_count(&self, ack: StandIn) -> bool {
        self.stand_ins > 0
            && self.index_of(ack.owner).is_some()
            && self.index_of(ack.node).is_none()
    }

    pub(super) fn index_of(&self, node: NodeId) -> Option<usize> {
        self.owners.iter().position(|owner| *owner == node)
    }

    pub(super) fn answers(&self) -> impl Iterator<Item = (NodeId, Answer)> + '_ {
        self.owners.iter().copied().zip(self.answers)
    }

    pub(super) fn count(&self, which: Answer) -> u8 {
        self.answers().filter(|(_, answer)| *answer == which).count() as u8
    }
}

impl StandIn {
    fn good(self, least: Answer) -> bool {
        self.durable || least < Answer::Durable
    }
}
