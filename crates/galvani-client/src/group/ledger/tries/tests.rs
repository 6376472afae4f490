//! Attempts over the deaths of members: the single rules, and whole groups on a store that merges, with
//! members that die, hang and come back, and lose what they were about to keep.
//!
//! The store is a value here: a position for each that kept one, merged when it is read, and the attempts.

use super::super::tests::{RULES, dot, fill};
use super::super::{Covers, Ledger, Rules};
use galvani_model::feed::Cursor;
use galvani_model::version::Dot;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use std::collections::{BTreeMap, BTreeSet};

/// A shard that was taken over, and whose events 1 to `count` are each of their own key.
fn taken(count: u64, tries: &[(u64, u32)], wary: bool) -> Ledger<u64> {
    let mut ledger = Ledger::new(RULES, Cursor::default());
    ledger.take_over(tries.iter().map(|&(at, tries)| (dot(at), tries)).collect(), wary);
    fill(&mut ledger, 1..=count, |number| number);
    ledger
}

fn hand(ledger: &mut Ledger<u64>) -> Option<u64> {
    ledger.hand(u64::MAX / 2).map(|(number, _)| number)
}

fn note(ledger: &mut Ledger<u64>) -> Option<Vec<(u64, u32)>> {
    let tries = ledger.note(u64::MAX / 2, &mut true)?;
    Some(tries.into_iter().map(|(dot, tries)| (dot.counter, tries)).collect())
}

/// Red if attempts are counted anew by the next member.
#[test]
fn attempts_in_vain_are_kept_and_the_next_member_goes_on_counting() {
    let mut ledger = taken(2, &[], false);
    assert_eq!((hand(&mut ledger), note(&mut ledger)), (Some(1), None), "the first is not kept");
    ledger.nak(1, 0, Some(0), "no");
    assert_eq!(note(&mut ledger), Some(vec![(1, 1)]));
    assert_eq!(note(&mut ledger), None, "nothing new");
    ledger.noted(false);
    assert_eq!(note(&mut ledger), Some(vec![(1, 1)]), "it could not be kept");
    // What is forgotten because the shard is given up is counted all the same.
    ledger.stop(true);
    let mut next = taken(2, &[(1, 2)], false);
    assert_eq!(note(&mut next), Some(vec![(1, 3)]));
    next.noted(true);
    assert_eq!(hand(&mut next), Some(1));
    assert_eq!(next.unit(1).map(|unit| unit.attempt), Some(3));
    next.nak(1, 0, Some(0), "no");
    assert_eq!(next.take_dying(), [1], "that was the last");
    next.buried(1);
    assert_eq!(note(&mut next), Some(vec![]), "and is done with");
}

/// Red if what ended its member is handed out before that is in the store.
#[test]
fn after_a_death_nothing_is_handed_out_before_the_attempt_is_kept() {
    let mut ledger = taken(6, &[], true);
    assert_eq!(hand(&mut ledger), None);
    assert!(ledger.awaits_note(0));
    let first: Vec<(u64, u32)> = (1..=RULES.max_in_flight as u64).map(|at| (at, 1)).collect();
    assert_eq!(note(&mut ledger), Some(first.clone()), "as many as may be held");
    assert_eq!(hand(&mut ledger), None, "not yet");
    ledger.noted(false);
    assert_eq!(hand(&mut ledger), None, "it could not be kept");
    assert_eq!(note(&mut ledger), Some(first));
    ledger.noted(true);
    for number in 1..=4 {
        assert_eq!(hand(&mut ledger), Some(number));
        ledger.ack(number);
    }
    // So many were what another could have held.
    ledger.add(7, Some(7), Covers::Write(dot(7)), 1, 7);
    assert_eq!(hand(&mut ledger), Some(7));
}

/// Red if a death counts for more than one of those that may have brought it about.
#[test]
fn suspects_are_handed_out_one_at_a_time() {
    let mut ledger = taken(3, &[(1, 1), (2, 1)], false);
    assert_eq!(hand(&mut ledger), Some(3), "which nobody suspects");
    let mut free = true;
    let kept = ledger.note(0, &mut free).expect("one more attempt");
    assert_eq!((kept[&dot(1)], kept[&dot(2)], free), (2, 1, false));
    ledger.noted(true);
    assert!(ledger.tries_one());
    assert_eq!(hand(&mut ledger), Some(1));
    assert_eq!(ledger.note(0, &mut free), None, "while one is held");
    ledger.ack(1);
    assert!(!ledger.tries_one());
    assert_eq!(note(&mut ledger), Some(vec![(2, 2)]));
}

/// Red if an event that was given up by its attempts is handed out once more.
#[test]
fn an_event_that_ended_its_members_as_often_as_it_may_is_a_dead_letter() {
    let mut ledger = taken(2, &[(1, 3)], true);
    assert_eq!(ledger.take_dying(), [1]);
    assert_eq!(ledger.unit(1).map(|unit| unit.attempt), Some(3));
    ledger.buried(1);
    assert_eq!(note(&mut ledger), Some(vec![(2, 1)]));
}

/// Deaths that have nothing to do with an event. Each may count as an attempt of whatever is held then.
const OTHER_DEATHS: u32 = 3;
/// Rules of a group with such members.
const PATIENT: Rules = Rules { max_deliver: 2 * OTHER_DEATHS + 4, ..RULES };

/// What the group keeps of one shard.
#[derive(Default)]
struct Store {
    /// Positions that were written at once stand beside each other.
    positions: Vec<Cursor>,
    tries: BTreeMap<Dot, u32>,
    letters: BTreeSet<u64>,
}

impl Store {
    fn position(&self) -> Cursor {
        self.positions.iter().fold(Cursor::default(), |mut all, one| {
            all.join(one);
            all
        })
    }
}

/// A member that works on the shard: on all events that are not done with when it begins.
struct Member {
    ledger: Ledger<u64>,
    held: Vec<u64>,
}

impl Member {
    fn begin(store: &Store, keys: &[u64], wary: bool) -> Member {
        let position = store.position();
        let mut ledger = Ledger::new(PATIENT, position.clone());
        ledger.take_over(store.tries.clone(), wary);
        let all = 1..=keys.len() as u64;
        let left = all.filter(|number| !position.delivered().contains(dot(*number)));
        fill(&mut ledger, left, |number| keys[number as usize - 1]);
        Member { ledger, held: Vec::new() }
    }

    /// One round through the store, of which the later part may be lost.
    fn round(&mut self, store: &mut Store, parts: u8) {
        let dying = self.ledger.take_dying();
        for number in dying {
            match parts {
                0 => self.ledger.not_buried(number),
                _ => {
                    store.letters.insert(number);
                    self.ledger.buried(number);
                }
            }
        }
        if parts >= 2 {
            store.positions.push(self.ledger.cursor().clone());
        }
        let mut free = !self.ledger.tries_one();
        if let Some(tries) = self.ledger.note(u64::MAX / 2, &mut free) {
            if parts >= 3 {
                store.tries = tries;
            }
            self.ledger.noted(parts >= 3);
        }
    }
}

proptest! {
    /// Whatever members die of, hang at or lose: every event is acknowledged or a dead letter; what ends
    /// whoever holds it becomes one after a bounded number of deaths; nothing else does, as long as fewer
    /// members die of other things than an event may be delivered.
    #[test]
    fn a_group_gets_past_an_event_that_ends_its_members(
        keys in prop::collection::vec(0u64..6, 4..24),
        poison in any::<prop::sample::Index>(),
        steps in prop::collection::vec((0u8..16, any::<prop::sample::Index>()), 0..300),
    ) {
        let poison = poison.index(keys.len()) as u64 + 1;
        let behind = |number: u64| keys[number as usize - 1] == keys[poison as usize - 1]
            && number > poison;
        let mut store = Store::default();
        let mut acked = BTreeSet::new();
        let mut members = vec![Member::begin(&store, &keys, false)];
        let mut steps = steps.into_iter();
        let (mut deaths, mut others) = (0, 0);
        for _ in 0..20_000 {
            // When all that was drawn has happened, members work on without being disturbed.
            let drawn = steps.next();
            let (step, pick) = drawn.map_or((0, None), |(step, pick)| (step, Some(pick)));
            let at = pick.map_or(members.len() - 1, |pick| pick.index(members.len()));
            let (is_last, all) = (at + 1 == members.len(), members.len());
            let member = &mut members[at];
            match step {
                // It goes its round; what it loses of that it does again.
                1 | 2 => member.round(&mut store, step),
                0 | 3..=5 => member.round(&mut store, 3),
                // It is dead for the others, and goes on: its shard is taken over.
                6 if all < 3 && others < OTHER_DEATHS => {
                    (deaths, others) = (deaths + 1, others + 1);
                    members.push(Member::begin(&store, &keys, true));
                    continue;
                }
                // It is dead, for whatever reason.
                7 if is_last && others < OTHER_DEATHS => {
                    (deaths, others) = (deaths + 1, others + 1);
                    *member = Member::begin(&store, &keys, true);
                    continue;
                }
                8 => {
                    if let Some(number) = member.held.pop() {
                        member.ledger.nak(number, 0, Some(0), "not now");
                    }
                }
                _ => {}
            }
            if let Some(number) = hand(&mut member.ledger) {
                if number == poison {
                    // Of which it dies, whoever it is.
                    deaths += 1;
                    *member = Member::begin(&store, &keys, true);
                    continue;
                }
                member.held.push(number);
            }
            if step != 9 && !member.held.is_empty() {
                let number = member.held.remove(0);
                if member.ledger.ack(number).is_some() {
                    acked.insert(number);
                }
            }
            let last = members.last().expect("never empty");
            if drawn.is_none() && last.ledger.len() == 0 && store.position() == *last.ledger.cursor() {
                break;
            }
        }
        let all: BTreeSet<u64> = (1..=keys.len() as u64).collect();
        let done: BTreeSet<u64> = acked.union(&store.letters).copied().collect();
        prop_assert_eq!(done, all, "after {} deaths", deaths);
        prop_assert!(store.letters.contains(&poison) && !acked.contains(&poison));
        let innocent = |number: &&u64| **number != poison && !behind(**number);
        let mut innocent = store.letters.iter().filter(innocent);
        prop_assert_eq!(innocent.next(), None);
    }
}
