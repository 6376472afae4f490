//! The owners that a replica must have caught up with before it may be read from.
//!
//! A write that a majority of the owners has is on one of any n + 1 - majority of them: whoever has
//! taken in all that so many have lacks no such write. Each is asked for its clock once, and is met when
//! that clock is covered. One that has lost what it had itself proves nothing, unless everybody is met:
//! then there is no more to know. Those that are away are done without where enough are met.
//! It asks nobody. Used by `transfer.rs` (nodes that come) and `refill.rs` (owners that lost their disk).

use super::steward::majority;
use galvani_model::ids::NodeId;
use galvani_model::version::PartitionClock;
use std::collections::{BTreeMap, BTreeSet};

/// How long a source's clock may stay uncovered before the source is asked again, in microseconds.
const ASK_AGAIN_MICROS: u64 = 10_000_000;
/// How often one that is met and has lost something is asked whether it has it back, in microseconds.
const HAS_IT_BACK_MICROS: u64 = 500_000;

/// The sources of one shard.
#[derive(Debug)]
pub(super) struct Sources {
    /// This node left out.
    of: BTreeMap<NodeId, Source>,
    /// How many of them are needed at least.
    least: usize,
    done: bool,
    /// Dots that some source was seen to have and that are not here.
    missing: u64,
}

/// What this node is to the shard itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// None of the owners that may have acked what it is to have.
    NoOwner,
    /// One of them, that has lost its copy.
    Lost,
    /// One of them, and its copy can be relied on.
    Whole,
}

#[derive(Debug)]
enum Source {
    Unasked,
    /// What it had taken in when it was asked, and when that was, in the lane's microseconds.
    Had {
        clock: PartitionClock,
        at: u64,
        whole: bool,
    },
    Met {
        /// When it was heard last.
        at: u64,
        whole: bool,
    },
}

impl Source {
    fn is_met(&self) -> bool {
        matches!(self, Source::Met { .. })
    }
}

impl Sources {
    /// `others` are the owners but for this node.
    pub(super) fn new(others: impl IntoIterator<Item = NodeId>, own: Own) -> Sources {
        let of: BTreeMap<NodeId, Source> =
            others.into_iter().map(|node| (node, Source::Unasked)).collect();
        let owners = of.len() + usize::from(own != Own::NoOwner);
        let known = usize::from(own == Own::Whole);
        let least = (owners + 1).saturating_sub(majority(owners) + known);
        Sources { of, least, done: false, missing: 0 }
    }

    /// The same ones, none of them met, for one whose own copy is lost.
    pub(super) fn with_own_lost(&self) -> Sources {
        Sources::new(self.of.keys().copied(), Own::Lost)
    }

    /// Whether enough of them are met.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Dots that are known to be still to come.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// Whether these are the sources.
    pub(super) fn are(&self, others: impl IntoIterator<Item = NodeId>) -> bool {
        let others: BTreeSet<NodeId> = others.into_iter().collect();
        self.of.keys().eq(&others)
    }

    /// Those that are not met.
    pub(super) fn unmet(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.of.iter().filter(|(_, source)| !source.is_met()).map(|(&node, _)| node)
    }

    /// Those that are to be asked now.
    pub(super) fn to_ask(&self, now: u64) -> impl Iterator<Item = NodeId> + '_ {
        let due = move |source: &Source| match source {
            Source::Unasked => true,
            Source::Met { at, whole: false } => at + HAS_IT_BACK_MICROS <= now,
            Source::Met { .. } | Source::Had { .. } => false,
        };
        self.of.iter().filter(move |(_, source)| due(source)).map(|(&node, _)| node)
    }

    /// What a source says it had when it was asked, and whether that is all it ever acked. Whether it was
    /// waited for.
    pub(super) fn heard(
        &mut self,
        node: NodeId,
        clock: &PartitionClock,
        whole: bool,
        now: u64,
    ) -> bool {
        match self.of.get_mut(&node) {
            Some(Source::Met { at, whole: false }) if !whole => {
                *at = now;
                false
            }
            Some(source @ (Source::Unasked | Source::Met { whole: false, .. })) => {
                *source = Source::Had { clock: clock.clone(), at: now, whole };
                true
            }
            Some(Source::Met { .. } | Source::Had { .. }) | None => false,
        }
    }

    /// Whether what is here covers enough of them. `down` are nodes that cannot be waited for; `given_up`
    /// are those of them whose data the cluster goes on without, because the next layout does.
    pub(super) fn look(
        &mut self,
        mine: &PartitionClock,
        down: &BTreeSet<NodeId>,
        given_up: impl Fn(NodeId) -> bool,
        now: u64,
    ) {
        self.missing = 0;
        for source in self.of.values_mut() {
            let Source::Had { clock, at, whole } = source else { continue };
            let missing = mine.missing_from(clock);
            let dots = missing.iter().map(|range| range.last - range.first + 1);
            self.missing = self.missing.max(dots.fold(0, u64::saturating_add));
            if missing.is_empty() {
                *source = Source::Met { at: *at, whole: *whole };
            } else if *at + ASK_AGAIN_MICROS <= now {
                // It may have lost since what nobody else has: a later word is as good.
                *source = Source::Unasked;
            }
        }
        let whole =
            self.of.values().filter(|it| matches!(it, Source::Met { whole: true, .. })).count();
        let all = self.unmet().next().is_none();
        let others = self.unmet().all(|node| down.contains(&node) && given_up(node));
        // One that leaves may be down for a moment only: the only owner there is is waited for.
        let some = self.of.values().any(Source::is_met);
        self.done = all
            || (some && others)
            || (whole >= self.least && self.unmet().all(|node| down.contains(&node)));
    }

    /// What a source had when it was asked may be lost with its disk: it is asked anew when it is back.
    pub(super) fn doubt(&mut self, node: NodeId) {
        if let Some(source @ Source::Had { .. }) = self.of.get_mut(&node) {
            *source = Source::Unasked;
        }
    }

    /// Those whose clocks are not covered are asked anew: what could not be taken in then, of a bucket that
    /// was not known, say, is asked for again.
    pub(super) fn ask_again(&mut self) {
        for source in self.of.values_mut() {
            if matches!(source, Source::Had { .. }) {
                *source = Source::Unasked;
            }
        }
    }

    /// What covered their clocks may be gone.
    pub(super) fn forget(&mut self) {
        self.done = false;
        self.of.values_mut().for_each(|source| *source = Source::Unasked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galvani_model::ids::Origin;
    use galvani_model::version::Range;

    const NOW: u64 = 5;
    const STAYS: fn(NodeId) -> bool = |_| false;

    fn node(number: u128) -> NodeId {
        NodeId(number)
    }

    fn clock(counters: &[u64]) -> PartitionClock {
        let range = |&counter| Range { origin: Origin(7), first: counter, last: counter };
        counters.iter().map(range).collect()
    }

    fn sources(others: u128) -> Sources {
        Sources::new((1..=others).map(node), Own::Lost)
    }

    fn down(nodes: &[u128]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(node).collect()
    }

    #[test]
    fn of_three_owners_both_others_are_needed() {
        let mut it = sources(2);
        assert!(it.heard(node(1), &clock(&[1]), true, NOW));
        it.look(&clock(&[1]), &down(&[2]), STAYS, NOW);
        assert!(!it.is_done(), "what the two of them acked may be on the one that is away only");
        assert!(it.heard(node(2), &clock(&[1, 2]), true, NOW));
        it.look(&clock(&[1]), &down(&[]), STAYS, NOW);
        assert_eq!((it.is_done(), it.missing()), (false, 1), "a record is still to come");
        it.look(&clock(&[1, 2]), &down(&[]), STAYS, NOW);
        assert!(it.is_done());
    }

    #[test]
    fn who_comes_needs_so_many_that_one_shows_every_write_of_a_majority() {
        let least = |others: u128, own| Sources::new((1..=others).map(node), own).least;
        assert_eq!([1, 2, 3, 4, 5].map(|others| least(others, Own::NoOwner)), [1, 1, 2, 2, 3]);
        assert_eq!([1, 2, 3, 4].map(|others| least(others, Own::Whole)), [0, 1, 1, 2]);
        assert_eq!([1, 2, 3, 4].map(|others| least(others, Own::Lost)), [1, 2, 2, 3]);
    }

    #[test]
    fn of_five_owners_one_may_be_away() {
        let mut it = sources(4);
        for number in 1..=3 {
            it.heard(node(number), &clock(&[]), true, NOW);
        }
        it.look(&clock(&[]), &down(&[]), STAYS, NOW);
        assert!(!it.is_done(), "the fourth can be asked");
        it.look(&clock(&[]), &down(&[4]), STAYS, NOW);
        assert!(it.is_done());
    }

    #[test]
    fn who_lost_something_proves_nothing_until_all_are_met() {
        let mut it = sources(4);
        it.heard(node(1), &clock(&[]), false, NOW);
        it.heard(node(2), &clock(&[]), true, NOW);
        it.heard(node(3), &clock(&[]), true, NOW);
        it.look(&clock(&[]), &down(&[4]), STAYS, NOW);
        assert!(!it.is_done());
        assert_eq!(it.to_ask(NOW).collect::<Vec<_>>(), [node(4)]);
        let later = NOW + HAS_IT_BACK_MICROS;
        assert_eq!(it.to_ask(later).collect::<Vec<_>>(), [node(1), node(4)]);
        assert!(!it.heard(node(1), &clock(&[]), false, later), "it has not");
        assert_eq!(it.to_ask(later).collect::<Vec<_>>(), [node(4)]);
        it.heard(node(4), &clock(&[]), true, later);
        it.look(&clock(&[]), &down(&[]), STAYS, later);
        assert!(it.is_done(), "everybody has said what there is");
        it.look(&clock(&[]), &down(&[4]), STAYS, later);
        it.heard(node(1), &clock(&[1]), true, later);
        it.look(&clock(&[]), &down(&[]), STAYS, later);
        assert!(!it.is_done(), "it has something back that is not here");
    }

    #[test]
    fn who_is_down_and_leaves_is_not_waited_for_once_all_others_are_met() {
        let mut it = sources(2);
        it.heard(node(1), &clock(&[]), false, NOW);
        let leaves = |node: NodeId| node == NodeId(2);
        it.look(&clock(&[]), &down(&[]), leaves, NOW);
        assert!(!it.is_done(), "it can be asked");
        it.look(&clock(&[]), &down(&[2]), STAYS, NOW);
        assert!(!it.is_done(), "it may have what the other one lost");
        it.look(&clock(&[]), &down(&[2]), leaves, NOW);
        assert!(it.is_done(), "an operator has given it up");
        let mut only = sources(1);
        only.look(&clock(&[]), &down(&[1]), |_| true, NOW);
        assert!(!only.is_done(), "there is no other owner than the one that leaves");
    }

    #[test]
    fn alone_there_is_nobody_to_wait_for() {
        let mut it = sources(0);
        it.look(&clock(&[]), &down(&[]), STAYS, NOW);
        assert!(it.is_done());
    }

    #[test]
    fn a_clock_that_stays_uncovered_is_asked_for_again() {
        let mut it = sources(1);
        it.heard(node(1), &clock(&[1]), true, NOW);
        it.look(&clock(&[]), &down(&[]), STAYS, NOW + ASK_AGAIN_MICROS - 1);
        assert_eq!(it.to_ask(NOW).count(), 0);
        it.look(&clock(&[]), &down(&[]), STAYS, NOW + ASK_AGAIN_MICROS);
        assert_eq!(it.to_ask(NOW).count(), 1);
        assert!(!it.heard(node(9), &clock(&[1]), true, NOW), "nobody asked it");
    }
}
