//! Laws of the ledger, with random events and consumers, and its single rules one by one.

use super::{Covers, Ledger, OnPoison, Rules};
use galvani_model::feed::Cursor;
use galvani_model::ids::Origin;
use galvani_model::version::{Dot, PartitionClock};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const RULES: Rules = Rules {
    ordered: true,
    max_in_flight: 4,
    max_deliver: 3,
    ack_wait_ms: 1_000,
    on_poison: OnPoison::ParkKey,
};

pub(super) fn dot(counter: u64) -> Dot {
    Dot { origin: Origin(7), counter }
}

/// Events 1 to `count`, each of the key that `line` says.
fn ledger(rules: Rules, count: u64, line: impl Fn(u64) -> u64) -> Ledger<u64> {
    let mut ledger = Ledger::new(rules, Cursor::default());
    fill(&mut ledger, 1..=count, line);
    ledger
}

/// Events of these numbers come, each of the key that `line` says.
pub(super) fn fill(
    ledger: &mut Ledger<u64>,
    numbers: impl IntoIterator<Item = u64>,
    line: impl Fn(u64) -> u64,
) {
    for number in numbers {
        ledger.add(number, Some(line(number)), Covers::Write(dot(number)), 1, number);
    }
}

fn hand(ledger: &mut Ledger<u64>, now_ms: u64) -> Option<u64> {
    ledger.hand(now_ms).map(|(number, _)| number)
}

fn done(ledger: &Ledger<u64>) -> Vec<u64> {
    let ranges = ledger.cursor().delivered().ranges();
    ranges.flat_map(|range| range.first..=range.last).collect()
}

/// Hands out and refuses until event `number` is on its way to the dead letters.
fn poison(ledger: &mut Ledger<u64>, number: u64, rules: Rules) {
    for _ in 0..rules.max_deliver {
        assert_eq!(hand(ledger, u64::MAX / 2), Some(number));
        ledger.nak(number, 0, Some(0), "it will not do");
    }
}

#[test]
fn acknowledged_in_any_order_only_what_is_done_with_is_in_the_position() {
    let mut ledger = ledger(RULES, 4, |number| number);
    for number in 1..=4 {
        assert_eq!(hand(&mut ledger, 0), Some(number));
    }
    ledger.ack(4);
    ledger.ack(2);
    assert_eq!(done(&ledger), [2, 4]);
}

#[test]
fn one_event_of_a_key_is_held_at_a_time_and_other_keys_go_on() {
    let mut ledger = ledger(RULES, 4, |number| number % 2);
    assert_eq!([hand(&mut ledger, 0), hand(&mut ledger, 0)], [Some(1), Some(2)]);
    assert_eq!(hand(&mut ledger, 0), None);
    ledger.ack(1);
    assert_eq!(hand(&mut ledger, 0), Some(3));
    ledger.nak(2, 0, Some(500), "later");
    assert_eq!(hand(&mut ledger, 499), None, "4 is of the key that waits");
    assert_eq!(hand(&mut ledger, 500), Some(2));
}

#[test]
fn without_order_a_key_does_not_wait() {
    let mut ledger = ledger(Rules { ordered: false, ..RULES }, 3, |_| 0);
    assert_eq!([hand(&mut ledger, 0), hand(&mut ledger, 0)], [Some(1), Some(2)]);
}

#[test]
fn what_is_held_is_bounded() {
    let mut ledger = ledger(RULES, 9, |number| number);
    let held = std::iter::from_fn(|| hand(&mut ledger, 0)).count();
    assert_eq!(held, RULES.max_in_flight);
}

#[test]
fn what_is_held_without_a_word_comes_again_and_progress_puts_that_off() {
    let mut ledger = ledger(RULES, 1, |_| 0);
    hand(&mut ledger, 0);
    ledger.expire(u64::MAX - 1);
    assert_eq!(ledger.in_flight(), 1, "nobody has taken it yet");
    ledger.progress(1, 0);
    ledger.progress(1, 600);
    ledger.expire(1_599);
    assert_eq!(ledger.in_flight(), 1);
    ledger.expire(1_600);
    assert_eq!(ledger.in_flight(), 0);
    let wake_ms = ledger.ready_ms().expect("it comes again");
    assert!((1_601..=2_200).contains(&wake_ms), "{wake_ms}");
    assert_eq!(hand(&mut ledger, wake_ms), Some(1));
    assert_eq!(ledger.unit(1).map(|unit| unit.attempt), Some(2));
}

#[test]
fn a_late_word_that_it_is_done_counts() {
    let mut ledger = ledger(RULES, 1, |_| 0);
    hand(&mut ledger, 0);
    ledger.progress(1, 0);
    ledger.expire(1_000);
    assert_eq!(ledger.ack(1), Some(1));
    assert_eq!(done(&ledger), [1]);
    assert_eq!(hand(&mut ledger, u64::MAX / 2), None);
}

/// Red if parking a key is no more than skipping one event of it.
#[test]
fn a_poisoned_event_takes_its_key_along_and_other_keys_flow() {
    let mut ledger = ledger(RULES, 6, |number| number % 2);
    assert_eq!(hand(&mut ledger, 0), Some(1));
    ledger.term(1, "no use");
    assert_eq!(ledger.take_dying(), [1, 3, 5]);
    assert_eq!(done(&ledger), [0u64; 0], "not before they are among the dead letters");
    ledger.add(7, Some(1), Covers::Write(dot(7)), 1, 7);
    assert_eq!(ledger.take_dying(), [7]);
    for number in [1, 3, 5, 7] {
        assert_eq!(ledger.buried(number), Some(number));
    }
    assert_eq!(done(&ledger), [1, 3, 5, 7]);
    for number in [2, 4, 6] {
        assert_eq!(hand(&mut ledger, 0), Some(number));
        ledger.ack(number);
    }
}

#[test]
fn an_event_is_delivered_so_often_and_no_more() {
    let mut ledger = ledger(RULES, 1, |_| 0);
    poison(&mut ledger, 1, RULES);
    assert_eq!(ledger.take_dying(), [1]);
    assert_eq!(ledger.unit(1).map(|it| it.error.as_str()), Some("it will not do"));
    assert_eq!(hand(&mut ledger, u64::MAX / 2), None);
}

/// Red if a retry lets the whole shard go on, or if a shard that stands still keeps what is retried.
#[test]
fn of_two_letters_that_halt_a_shard_one_may_be_retried_and_the_other_goes_on_halting_it() {
    let halt = Rules { on_poison: OnPoison::Halt, max_deliver: 1, ..RULES };
    let mut ledger = ledger(halt, 4, |number| number % 3);
    for number in 1..=2 {
        assert_eq!(hand(&mut ledger, 0), Some(number));
    }
    for number in 1..=2 {
        ledger.nak(number, 0, Some(0), "it will not do");
    }
    assert_eq!(ledger.take_dying(), [1, 2]);
    for number in 1..=2 {
        ledger.buried(number);
    }
    ledger.begin_round(2);
    let (none, both) = (BTreeSet::new(), BTreeSet::from([1, 2]));
    ledger.set_parked(&none, &both, 2);
    assert_eq!((hand(&mut ledger, 0), ledger.ready_ms()), (None, None));

    assert!(ledger.retry(1, vec![(11, 11)]));
    assert!(ledger.is_halted(), "by the other");
    assert_eq!(ledger.ready_ms(), Some(0));
    assert_eq!(hand(&mut ledger, 0), Some(11), "what somebody asked for");
    assert_eq!(hand(&mut ledger, 0), None);
    ledger.ack(11);
    assert_eq!(hand(&mut ledger, 0), None, "event 4 of its key waits as all else does");
    ledger.begin_round(3);
    ledger.set_parked(&none, &BTreeSet::from([2]), 3);
    assert_eq!(hand(&mut ledger, 0), None);

    assert!(ledger.retry(2, vec![(12, 12)]));
    let rest: Vec<_> = std::iter::from_fn(|| hand(&mut ledger, 0)).collect();
    assert_eq!((rest, ledger.is_halted()), (vec![3, 4, 12], false));
}

#[test]
fn what_its_events_take_in_memory_is_known_until_they_are_done_with() {
    let mut ledger = Ledger::new(RULES, Cursor::default());
    for number in 1..=3_u64 {
        ledger.add(number, Some(number), Covers::Write(dot(number)), 10 * number as usize, number);
    }
    assert_eq!(hand(&mut ledger, 0), Some(1));
    ledger.ack(1);
    assert_eq!(ledger.bytes(), 50);
    ledger.stop(true);
    assert_eq!(ledger.bytes(), 0);
}

#[test]
fn skipped_events_are_overtaken_and_halted_shards_stand_still() {
    let skip = Rules { on_poison: OnPoison::Skip, ..RULES };
    let mut skips = ledger(skip, 2, |_| 0);
    poison(&mut skips, 1, skip);
    assert_eq!((skips.take_dying(), hand(&mut skips, 0)), (vec![1], Some(2)));

    let halt = Rules { on_poison: OnPoison::Halt, ..RULES };
    let mut halts = ledger(halt, 2, |number| number);
    poison(&mut halts, 1, halt);
    assert_eq!((halts.take_dying(), hand(&mut halts, 0)), (vec![1], None));
    halts.buried(1);
    // The operator drops the letter: the next list has none.
    halts.begin_round(2);
    halts.set_parked(&BTreeSet::new(), &BTreeSet::new(), 2);
    assert_eq!(hand(&mut halts, 0), Some(2));
}

#[test]
fn a_key_is_parked_until_its_letters_are_gone_from_a_later_list() {
    let (none, listed) = (BTreeSet::new(), BTreeSet::from([0]));
    let mut ledger = ledger(RULES, 1, |_| 0);
    ledger.begin_round(5);
    poison(&mut ledger, 1, RULES);
    ledger.take_dying();
    ledger.buried(1);
    let parks = |ledger: &mut Ledger<u64>, number| {
        ledger.add(number, Some(0), Covers::Write(dot(number)), 1, number);
        let parks = ledger.take_dying() == [number];
        ledger.ack(number);
        ledger.buried(number);
        parks
    };
    ledger.set_parked(&none, &none, 5);
    assert!(parks(&mut ledger, 2), "that list may be older than the letter");
    ledger.set_parked(&listed, &none, 6);
    assert!(parks(&mut ledger, 3));
    ledger.set_parked(&none, &none, 7);
    assert!(!parks(&mut ledger, 4));
}

#[test]
fn retried_letters_come_before_what_is_newer_of_their_key() {
    let (none, listed) = (BTreeSet::new(), BTreeSet::from([0]));
    let mut ledger: Ledger<u64> = Ledger::new(RULES, Cursor::default());
    ledger.begin_round(1);
    ledger.set_parked(&listed, &none, 1);
    assert!(ledger.retry(0, vec![(10, 10), (11, 11)]));
    ledger.add(1, Some(0), Covers::Write(dot(1)), 1, 1);
    // The letters are still there while they are worked on: that parks nothing.
    ledger.set_parked(&listed, &none, 1);
    for number in [10, 11] {
        assert_eq!(hand(&mut ledger, 0), Some(number));
        assert_eq!(ledger.ack(number), Some(number));
    }
    ledger.set_parked(&listed, &none, 1);
    assert_eq!(hand(&mut ledger, 0), Some(1));
    assert!(ledger.take_dying().is_empty());
}

#[test]
fn letters_that_fail_again_park_their_key_again() {
    let mut ledger: Ledger<u64> = Ledger::new(RULES, Cursor::default());
    assert!(ledger.retry(0, vec![(10, 10), (11, 11)]));
    ledger.add(1, Some(0), Covers::Write(dot(1)), 1, 1);
    poison(&mut ledger, 10, RULES);
    assert_eq!(ledger.take_dying(), [10, 11, 1]);
    assert!(!ledger.retry(0, vec![(12, 12)]), "not while they are on their way");
}

#[test]
fn a_write_is_done_with_when_all_its_events_are() {
    let mut ledger: Ledger<u64> = Ledger::new(RULES, Cursor::default());
    ledger.add(1, Some(0), Covers::Write(dot(1)), 1, 1);
    ledger.add(2, Some(0), Covers::Write(dot(1)), 1, 2);
    assert_eq!(hand(&mut ledger, 0), Some(1));
    // The shard goes to another member before the second was handed out.
    ledger.stop(false);
    ledger.ack(1);
    assert!(done(&ledger).is_empty(), "the second has never been seen by anybody");
}

#[test]
fn gone_writes_are_handed_out_until_they_are_acknowledged() {
    let mut ledger: Ledger<u64> = Ledger::new(RULES, Cursor::default());
    let mut gone = PartitionClock::new();
    gone.insert(dot(3));
    ledger.add(1, None, Covers::Gone(gone), 1, 1);
    for _ in 0..=RULES.max_deliver {
        assert_eq!(hand(&mut ledger, u64::MAX / 2), Some(1));
        ledger.nak(1, 0, Some(0), "no");
    }
    hand(&mut ledger, 1);
    ledger.ack(1);
    assert_eq!(done(&ledger), [3]);
}

proptest! {
    /// Whatever consumers do, the position has exactly what was acknowledged, put among the dead
    /// letters or done by another member; bounds and the order of keys hold; and nothing is stuck.
    #[test]
    fn nothing_is_lost_or_out_of_order_whatever_consumers_do(
        keys in prop::collection::vec(0u64..4, 1..40),
        steps in prop::collection::vec((0u8..8, any::<prop::sample::Index>()), 0..200),
        parks in any::<bool>(),
    ) {
        let on_poison = if parks { OnPoison::ParkKey } else { OnPoison::Skip };
        let rules = Rules { on_poison, ..RULES };
        let mut ledger: Ledger<u64> = Ledger::new(rules, Cursor::default());
        let mut coming = keys.iter().copied().zip(1u64..);
        let mut expected = BTreeSet::new();
        let (mut held, mut now_ms) = (Vec::new(), 0);
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for (step, pick) in steps {
            now_ms += 100;
            let chosen = (!held.is_empty()).then(|| pick.index(held.len()));
            match (step, chosen) {
                (0 | 1, _) => {
                    if let Some((key, number)) = coming.next() {
                        ledger.add(number, Some(key), Covers::Write(dot(number)), 1, number);
                    }
                }
                (2 | 3, _) => {
                    if let Some(number) = hand(&mut ledger, now_ms) {
                        let key = keys[number as usize - 1];
                        prop_assert!(last.insert(key, number).is_none_or(|it| it <= number));
                        held.push(number);
                        ledger.progress(number, now_ms);
                    }
                }
                (4, Some(at)) => {
                    let number = held.swap_remove(at);
                    if ledger.ack(number).is_some() {
                        expected.insert(number);
                    }
                }
                (5, Some(at)) => ledger.nak(held.swap_remove(at), now_ms, None, "no"),
                (6, _) => ledger.expire(now_ms),
                _ => {
                    for number in ledger.take_dying() {
                        ledger.buried(number);
                        expected.insert(number);
                    }
                }
            }
            prop_assert!(ledger.in_flight() <= rules.max_in_flight);
            prop_assert_eq!(done(&ledger).into_iter().collect::<BTreeSet<_>>(), expected.clone());
        }
        for (key, number) in coming {
            ledger.add(number, Some(key), Covers::Write(dot(number)), 1, number);
        }
        ledger.expire(u64::MAX - 1);
        for number in held {
            ledger.ack(number);
        }
        while let Some(number) = hand(&mut ledger, u64::MAX) {
            ledger.ack(number);
        }
        for number in ledger.take_dying() {
            ledger.buried(number);
        }
        prop_assert_eq!(done(&ledger).len(), keys.len());
        prop_assert_eq!(ledger.len(), 0);
    }

    /// Two members that were handed the same events and commit theirs in any order: nothing that
    /// either is done with comes again, and nothing else is passed over.
    #[test]
    fn positions_of_two_members_merge(
        mine in prop::collection::btree_set(1u64..20, 0..20),
        theirs in prop::collection::btree_set(1u64..20, 0..20),
    ) {
        let rules = Rules { ordered: false, max_in_flight: 100, ..RULES };
        let cursor_of = |acked: &BTreeSet<u64>| {
            let mut ledger = ledger(rules, 20, |number| number);
            while hand(&mut ledger, 0).is_some() {}
            for number in acked {
                ledger.ack(*number);
            }
            ledger.cursor().clone()
        };
        let mut next = ledger(rules, 20, |number| number);
        next.join(&cursor_of(&theirs));
        next.join(&cursor_of(&mine));
        let again: BTreeSet<u64> = std::iter::from_fn(|| hand(&mut next, 0)).collect();
        let both: BTreeSet<u64> = mine.union(&theirs).copied().collect();
        prop_assert_eq!(again, (1..=20).filter(|it| !both.contains(it)).collect::<BTreeSet<_>>());
    }
}
