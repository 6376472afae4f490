//! The tracker against a naive twin that keeps every event and thinks anew each time: all short
//! sequences for n up to 5 with all needs, drawn ones with stand-ins and two sets for n up to 7.

use super::{Answer, Needs, OwnerSet, QuorumError, QuorumTracker, Requirement, Shortfall, Verdict};
use crate::ids::NodeId;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Ack(u8, bool),
    Fail(u8),
    AckStandIn(u8, u8, bool),
    FailStandIn(u8),
}

fn node(number: u8) -> NodeId {
    NodeId(u128::from(number))
}

fn set(owners: &[u8], needs: Needs, stand_ins: u16) -> OwnerSet {
    OwnerSet { owners: owners.iter().map(|&o| node(o)).collect(), needs, stand_ins }
}

fn needs(places: u8, primaries: u8, durable: u8) -> Needs {
    Needs { places, primaries, durable }
}

fn tell(tracker: &mut QuorumTracker, event: Event) -> Verdict {
    match event {
        Event::Ack(n, durable) => tracker.ack(node(n), durable),
        Event::Fail(n) => tracker.fail(node(n)),
        Event::AckStandIn(n, o, durable) => tracker.ack_stand_in(node(n), node(o), durable),
        Event::FailStandIn(n) => tracker.fail_stand_in(node(n)),
    }
}

/// One owner set, answered by a list of events.
struct Twin<'a> {
    owners: &'a [u8],
    stand_ins: u16,
    events: &'a [Event],
}

impl Twin<'_> {
    /// Events whose stand-ins are among the first that may be known. All stand-ins of a tracker
    /// with sets of `allowed` in sum.
    fn admitted(events: &[Event], sets: &[(Vec<u8>, u16)]) -> Vec<Event> {
        let allowed: usize = sets.iter().map(|(_, stand_ins)| usize::from(*stand_ins)).sum();
        let mut known = BTreeSet::new();
        let outside = |n: u8| sets.iter().any(|(owners, _)| !owners.contains(&n));
        let mut admit = |n: u8| known.contains(&n) || known.len() < allowed && known.insert(n);
        let admits = |event: &Event| match *event {
            Event::Ack(..) | Event::Fail(_) => true,
            Event::AckStandIn(n, o, _) => {
                let counts = |(owners, stand_ins): &(Vec<u8>, u16)| {
                    *stand_ins > 0 && owners.contains(&o) && !owners.contains(&n)
                };
                sets.iter().any(counts) && admit(n)
            }
            Event::FailStandIn(n) => outside(n) && admit(n),
        };
        events.iter().copied().filter(admits).collect()
    }

    fn owner_has(&self, owner: u8, durable: bool) -> bool {
        let acked = |e: &Event| matches!(*e, Event::Ack(n, d) if n == owner && (d || !durable));
        self.events.iter().any(acked)
    }

    fn owner_may(&self, owner: u8, durable: bool) -> bool {
        let spoke = |e: &Event| matches!(*e, Event::Ack(n, _) | Event::Fail(n) if n == owner);
        self.owner_has(owner, durable) || !self.events.iter().any(spoke)
    }

    /// For each stand-in that acked: the owners it stands for.
    fn standing(&self, durable: bool) -> BTreeMap<u8, BTreeSet<u8>> {
        let mut standing: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        for event in self.events {
            if let Event::AckStandIn(n, o, d) = *event
                && self.stand_ins > 0
                && (d || !durable)
                && !self.owners.contains(&n)
                && self.owners.contains(&o)
            {
                standing.entry(n).or_default().insert(o);
            }
        }
        standing
    }

    /// Tries every way to give each stand-in one place or none.
    fn best(stand_ins: &[BTreeSet<u8>], covered: &BTreeSet<u8>) -> usize {
        let Some((first, rest)) = stand_ins.split_first() else {
            return covered.len();
        };
        let mut best = Twin::best(rest, covered);
        for owner in first.difference(covered) {
            let mut more = covered.clone();
            more.insert(*owner);
            best = best.max(Twin::best(rest, &more));
        }
        best
    }

    fn got(&self, durable: bool) -> usize {
        let own = self.owners.iter().copied().filter(|&o| self.owner_has(o, durable)).collect();
        Twin::best(&self.standing(durable).into_values().collect::<Vec<_>>(), &own)
    }

    /// What there would be if everyone who may still answer did: owners that have not spoken, and
    /// as many stand-ins as are allowed less those that are spent, each for any owner.
    fn reachable(&self, durable: bool) -> usize {
        let own = self.owners.iter().filter(|&&o| self.owner_may(o, durable)).count();
        let fit: BTreeSet<u8> = self.standing(durable).into_keys().collect();
        let any_ack: BTreeSet<u8> = self
            .events
            .iter()
            .filter_map(|e| match *e {
                Event::AckStandIn(n, ..) => Some(n),
                Event::Ack(..) | Event::Fail(_) | Event::FailStandIn(_) => None,
            })
            .collect();
        let good = |n: u8| {
            let ok =
                |e: &Event| matches!(*e, Event::AckStandIn(m, _, d) if m == n && (d || !durable));
            fit.contains(&n) || self.events.iter().any(ok)
        };
        let spent: BTreeSet<u8> = self
            .events
            .iter()
            .filter_map(|e| match *e {
                Event::FailStandIn(n) => (!any_ack.contains(&n)).then_some(n),
                Event::AckStandIn(n, ..) => (!good(n)).then_some(n),
                Event::Ack(..) | Event::Fail(_) => None,
            })
            .filter(|n| !self.owners.contains(n))
            .collect();
        let left = usize::from(self.stand_ins).saturating_sub(spent.len());
        self.got(durable).max((own + left).min(self.owners.len()))
    }

    fn figures(&self) -> Figures {
        let has = |o: &&u8| self.owner_has(**o, false);
        let may = |o: &&u8| self.owner_may(**o, false);
        Figures {
            places: (self.got(false), self.reachable(false)),
            primaries: (
                self.owners.iter().filter(has).count(),
                self.owners.iter().filter(may).count(),
            ),
            durable: (self.got(true), self.reachable(true)),
        }
    }

    fn verdict(&self, needs: Needs) -> Verdict {
        self.figures().verdict(needs)
    }
}

/// What is there and what there may yet be, for each requirement.
struct Figures {
    places: (usize, usize),
    primaries: (usize, usize),
    durable: (usize, usize),
}

impl Figures {
    fn verdict(&self, needs: Needs) -> Verdict {
        let all = [
            (usize::from(needs.places), self.places),
            (usize::from(needs.primaries), self.primaries),
            (usize::from(needs.durable), self.durable),
        ];
        if all.iter().all(|(need, (got, _))| got >= need) {
            Verdict::Met
        } else if all.iter().any(|(need, (_, reachable))| reachable < need) {
            Verdict::Lost
        } else {
            Verdict::Pending
        }
    }
}

/// All canonical sequences of owner events: owners are alike, so the next new one is the lowest.
fn each_sequence(n: u8, length: usize, with: &mut dyn FnMut(&[Event])) {
    fn extend(n: u8, length: usize, seen: &mut Vec<Event>, used: u8, f: &mut dyn FnMut(&[Event])) {
        f(seen);
        if seen.len() == length {
            return;
        }
        for owner in 0..n.min(used + 1) {
            for event in [Event::Ack(owner, false), Event::Ack(owner, true), Event::Fail(owner)] {
                seen.push(event);
                extend(n, length, seen, used.max(owner + 1), f);
                seen.pop();
            }
        }
    }
    extend(n, length, &mut Vec::new(), 0, with);
}

/// Plays `events` to a tracker for each possible need, beside the twin.
fn compare_for_all_needs(n: u8, events: &[Event]) {
    let owners: Vec<u8> = (0..n).collect();
    let figures: Vec<Figures> = (1..=events.len())
        .map(|end| Twin { owners: &owners, stand_ins: 0, events: &events[..end] }.figures())
        .collect();
    for places in 1..=n {
        for (primaries, durable) in (0..=n).flat_map(|pw| (0..=n).map(move |dw| (pw, dw))) {
            let needs = needs(places, primaries, durable);
            let mut tracker = QuorumTracker::new(set(&owners, needs, 0)).expect("possible");
            let mut expected = Verdict::Pending;
            for (event, figures) in events.iter().zip(&figures) {
                if expected == Verdict::Pending {
                    expected = figures.verdict(needs);
                }
                assert_eq!(tell(&mut tracker, *event), expected, "n={n} {needs:?} {events:?}");
            }
        }
    }
}

#[test]
fn all_short_sequences_up_to_five_owners_agree_with_the_twin() {
    for (n, length) in [(1, 6), (2, 5), (3, 4), (4, 4), (5, 4)] {
        each_sequence(n, length, &mut |events| {
            // Shorter ones are the beginnings of these.
            if events.len() == length {
                compare_for_all_needs(n, events);
            }
        });
    }
}

#[test]
fn all_outcomes_of_five_owners_agree_with_the_twin() {
    // Each owner answers once, in order: all 3^5 rows of answers are all orders of all outcomes.
    for outcome in 0..243u32 {
        let event = |owner: u8| match outcome / 3u32.pow(u32::from(owner)) % 3 {
            0 => Event::Ack(owner, false),
            1 => Event::Ack(owner, true),
            _ => Event::Fail(owner),
        };
        compare_for_all_needs(5, &(0..5).map(event).collect::<Vec<_>>());
    }
}

type Drawn = (Vec<(Vec<u8>, u16)>, Vec<Needs>, Vec<Event>);

fn drawn() -> impl Strategy<Value = Drawn> {
    let set = (prop::collection::btree_set(0u8..9, 1..=7), 0u16..4);
    let sets = prop::collection::vec(set, 1..=2);
    let need = (any::<u8>(), any::<u8>(), any::<u8>());
    let event = (0u8..6, 0u8..12, 0u8..9, any::<bool>()).prop_map(|(kind, n, o, d)| match kind {
        0 | 1 => Event::Ack(n, d),
        2 => Event::Fail(n),
        3 | 4 => Event::AckStandIn(n, o, d),
        _ => Event::FailStandIn(n),
    });
    (sets, prop::collection::vec(need, 2), prop::collection::vec(event, 0..24)).prop_map(
        |(sets, raw, events)| {
            let sets: Vec<(Vec<u8>, u16)> =
                sets.into_iter().map(|(o, s)| (o.into_iter().collect(), s)).collect();
            let bound = |(set, raw): (&(Vec<u8>, u16), (u8, u8, u8))| {
                let n = set.0.len() as u8;
                needs(raw.0 % n + 1, raw.1 % (n + 1), raw.2 % (n + 1))
            };
            let all = sets.iter().zip(raw).map(bound).collect();
            (sets, all, events)
        },
    )
}

fn tracker_of(sets: &[(Vec<u8>, u16)], all: &[Needs]) -> QuorumTracker {
    let at = |i: usize| set(&sets[i].0, all[i], sets[i].1);
    match sets.len() {
        1 => QuorumTracker::new(at(0)).expect("possible"),
        _ => QuorumTracker::joint(at(0), at(1)).expect("possible"),
    }
}

fn expected(sets: &[(Vec<u8>, u16)], all: &[Needs], events: &[Event]) -> Verdict {
    let events = Twin::admitted(events, sets);
    let verdicts: Vec<Verdict> = sets
        .iter()
        .zip(all)
        .map(|((owners, stand_ins), needs)| {
            Twin { owners, stand_ins: *stand_ins, events: &events }.verdict(*needs)
        })
        .collect();
    if verdicts.iter().all(|v| *v == Verdict::Met) {
        Verdict::Met
    } else if verdicts.contains(&Verdict::Lost) {
        Verdict::Lost
    } else {
        Verdict::Pending
    }
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(4000))]

    #[test]
    fn drawn_sequences_with_stand_ins_and_two_sets_agree_with_the_twin(
        (sets, all, events) in drawn(), repeats in any::<u64>()
    ) {
        let mut tracker = tracker_of(&sets, &all);
        let mut told = Vec::new();
        let mut verdict = Verdict::Pending;
        for (index, event) in events.iter().enumerate() {
            told.push(*event);
            if verdict == Verdict::Pending {
                verdict = expected(&sets, &all, &told);
            }
            prop_assert_eq!(tell(&mut tracker, *event), verdict, "{:?}", told);
            if repeats >> (index % 64) & 1 == 1 {
                let before = format!("{tracker:?}");
                tell(&mut tracker, told[index / 2]);
                tell(&mut tracker, *event);
                prop_assert_eq!(format!("{tracker:?}"), before, "repeat of {:?}", event);
            }
            for (progress, set) in tracker.progress(Requirement::Places).iter().zip(&sets) {
                prop_assert!(progress.got <= progress.reachable, "{:?}", progress);
                prop_assert!(usize::from(progress.reachable) <= set.0.len(), "{:?}", progress);
            }
            let met = tracker.shortfall().is_none();
            prop_assert!(verdict != Verdict::Met || met, "met and still short");
            prop_assert!(verdict != Verdict::Pending || !met, "pending and not short");
        }
    }

    #[test]
    fn a_met_quorum_is_as_many_distinct_nodes((sets, all, events) in drawn()) {
        let mut tracker = tracker_of(&sets, &all);
        for event in events {
            let was = tracker.verdict();
            if tell(&mut tracker, event) == Verdict::Met && was == Verdict::Pending {
                for (set, needs) in sets.iter().zip(&all) {
                    prop_assert!(tracker.acked_nodes() >= usize::from(needs.places), "{:?}", set);
                }
            }
        }
    }

    #[test]
    fn the_order_of_acks_does_not_matter((sets, all, events) in drawn()) {
        let acks: Vec<Event> =
            events.into_iter().filter(|event| matches!(event, Event::Ack(..))).collect();
        let (mut ahead, mut back) = (tracker_of(&sets, &all), tracker_of(&sets, &all));
        acks.iter().for_each(|event| { tell(&mut ahead, *event); });
        acks.iter().rev().for_each(|event| { tell(&mut back, *event); });
        for requirement in [Requirement::Places, Requirement::Primaries, Requirement::Durable] {
            prop_assert_eq!(ahead.progress(requirement), back.progress(requirement));
        }
        let met = |tracker: &QuorumTracker| tracker.verdict() == Verdict::Met;
        prop_assert!(met(&ahead) == met(&back) || all.iter().any(|needs| needs.durable > 0));
    }
}

#[test]
fn an_owner_and_its_stand_in_are_one() {
    let mut tracker = QuorumTracker::new(set(&[1, 2, 3], needs(2, 0, 0), 2)).expect("possible");
    assert_eq!(tracker.ack(node(1), false), Verdict::Pending);
    assert_eq!(tracker.ack_stand_in(node(9), node(1), false), Verdict::Pending);
    assert_eq!(tracker.ack_stand_in(node(9), node(2), false), Verdict::Met);
}

#[test]
fn one_stand_in_for_two_owners_is_one() {
    let mut tracker = QuorumTracker::new(set(&[1, 2, 3], needs(2, 0, 0), 2)).expect("possible");
    tracker.ack_stand_in(node(9), node(1), false);
    assert_eq!(tracker.ack_stand_in(node(9), node(2), false), Verdict::Pending);
    assert_eq!(tracker.ack_stand_in(node(8), node(1), false), Verdict::Met);
}

#[test]
fn stand_ins_meet_w_and_never_pw() {
    let mut tracker = QuorumTracker::new(set(&[1, 2, 3], needs(2, 1, 0), 4)).expect("possible");
    tracker.ack_stand_in(node(8), node(1), false);
    tracker.ack_stand_in(node(9), node(2), false);
    assert_eq!(tracker.verdict(), Verdict::Pending);
    let [short] = [tracker.shortfall().expect("no primary yet")];
    assert_eq!(
        short,
        Shortfall {
            requirement: Requirement::Primaries,
            set: 0,
            need: 1,
            got: 0,
            failed: 0,
            owners: 3
        }
    );
    assert_eq!(tracker.ack(node(3), false), Verdict::Met);
}

#[test]
fn a_failed_owner_loses_a_strict_quorum_and_not_a_sloppy_one() {
    for (stand_ins, expected) in [(0, Verdict::Lost), (1, Verdict::Pending)] {
        let all = set(&[1, 2, 3], Needs::places(3), stand_ins);
        let mut tracker = QuorumTracker::new(all).expect("possible");
        assert_eq!(tracker.fail(node(2)), expected);
    }
}

#[test]
fn a_late_ack_counts_until_the_verdict_is_final() {
    let mut tracker = QuorumTracker::new(set(&[1, 2, 3], Needs::places(2), 0)).expect("possible");
    tracker.fail(node(1));
    tracker.ack(node(1), false);
    tracker.fail(node(2));
    assert_eq!(tracker.verdict(), Verdict::Pending);
    assert_eq!(tracker.fail(node(3)), Verdict::Lost);
    assert_eq!(tracker.ack(node(3), false), Verdict::Lost, "lost is final");
    let answers: Vec<Answer> = tracker.owners().map(|(_, answer)| answer).collect();
    assert_eq!(answers, [Answer::Acked, Answer::Failed, Answer::Acked], "but it is written down");
}

#[test]
fn a_layout_change_needs_both_sets() {
    let (old, new) = (set(&[1, 2, 3], Needs::places(2), 0), set(&[2, 3, 4], Needs::places(2), 0));
    let mut tracker = QuorumTracker::joint(old.clone(), new.clone()).expect("possible");
    tracker.ack(node(1), false);
    assert_eq!(tracker.ack(node(2), false), Verdict::Pending, "the new set has one");
    assert_eq!(tracker.ack(node(4), false), Verdict::Met);
    let mut both = QuorumTracker::joint(old, new).expect("possible");
    both.ack(node(2), false);
    assert_eq!(both.ack(node(3), false), Verdict::Met, "a node counts in each set it is in");
}

#[test]
fn quorums_that_can_never_be_met_are_refused() {
    let build = |owners: &[u8], needs| QuorumTracker::new(set(owners, needs, 0)).map(|_| ());
    assert_eq!(build(&[], Needs::places(1)), Err(QuorumError::OwnerCount { owners: 0 }));
    let eight = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(build(&eight, Needs::places(1)), Err(QuorumError::OwnerCount { owners: 8 }));
    assert_eq!(
        build(&[1, 1], Needs::places(1)),
        Err(QuorumError::DuplicateOwner { node: node(1) })
    );
    let impossible =
        |requirement, need| Err(QuorumError::Impossible { requirement, need, owners: 2 });
    assert_eq!(build(&[1, 2], needs(0, 0, 0)), impossible(Requirement::Places, 0));
    assert_eq!(build(&[1, 2], needs(3, 0, 0)), impossible(Requirement::Places, 3));
    assert_eq!(build(&[1, 2], needs(1, 3, 0)), impossible(Requirement::Primaries, 3));
    assert_eq!(build(&[1, 2], needs(1, 0, 3)), impossible(Requirement::Durable, 3));
}
