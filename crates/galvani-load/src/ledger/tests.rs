//! What the ledger says of histories whose ends are known.

use super::{Judgement, Ledger, Name};

const RUN: u64 = 7;
const FIRST: Name = Name { run: 3, sequence: 9 };
const FINE: Judgement = Judgement { lost: 0, resurrected: 0, foreign: 0, unjudged: 0 };

fn name(sequence: u32) -> Option<Name> {
    Some(Name { run: RUN, sequence })
}

fn one_key() -> Ledger<&'static str> {
    let mut ledger = Ledger::of(RUN);
    ledger.add("first", Some(FIRST));
    ledger
}

#[test]
fn names_come_back_from_values() {
    let mut value = vec![0xee; 20];
    let name = Name { run: u64::MAX - 5, sequence: 77 };
    name.stamp(&mut value);
    assert_eq!((Name::of(&value), &value[12..]), (Some(name), [0xee; 8].as_slice()));
    assert_eq!(Name::of(&value[..11]), None);
}

#[test]
fn a_lost_write_is_found_and_so_is_one_that_came_back() {
    let mut ledger = one_key();
    assert_eq!(ledger.judge(0, &[Some(FIRST)]), FINE, "nothing was written");
    for context in ["one", "two"] {
        let begun = ledger.begin(0);
        ledger.acked(&begun, context, true);
    }
    assert_eq!(ledger.acked, 2);
    assert_eq!(ledger.judge(0, &[name(2)]), FINE);
    assert_eq!(ledger.judge(0, &[]), Judgement { lost: 1, ..FINE });
    let back = Judgement { lost: 1, resurrected: 1, ..FINE };
    assert_eq!(ledger.judge(0, &[name(1)]), back, "the old value in place of the new");
    let beside = Judgement { resurrected: 1, ..FINE };
    assert_eq!(ledger.judge(0, &[name(2), name(1)]), beside);
    assert_eq!(ledger.judge(0, &[name(2), Some(FIRST)]), beside, "also the first one");
}

#[test]
fn writes_that_raced_must_both_be_there_until_one_replaces_them() {
    let mut ledger = one_key();
    let (one, two) = (ledger.begin(0), ledger.begin(0));
    ledger.acked(&one, "one", true);
    ledger.acked(&two, "two", false);
    assert_eq!(ledger.races, 1);
    assert_eq!(ledger.judge(0, &[name(1), name(2)]), FINE);
    assert_eq!(ledger.judge(0, &[name(2)]), Judgement { lost: 1, ..FINE });
    assert!(ledger.must_read(0), "siblings are read before they are replaced");
    let looking = ledger.look(0);
    ledger.saw(looking, &"both", [name(1), name(2)].into_iter().flatten());
    let three = ledger.begin(0);
    assert_eq!(three.context, Some("both"));
    ledger.acked(&three, "three", true);
    assert_eq!(ledger.judge(0, &[name(3)]), FINE);
}

#[test]
fn a_write_after_one_sibling_leaves_the_other() {
    let mut ledger = one_key();
    let (one, two) = (ledger.begin(0), ledger.begin(0));
    ledger.acked(&one, "one", true);
    ledger.acked(&two, "two", true);
    let three = ledger.begin(0);
    assert_eq!(three.context, Some("two"));
    ledger.acked(&three, "three", true);
    assert_eq!(ledger.judge(0, &[name(1), name(3)]), FINE);
    assert_eq!(ledger.judge(0, &[name(3)]), Judgement { lost: 1, ..FINE });
}

#[test]
fn a_write_in_doubt_may_be_there_and_what_it_replaces_may_be_gone() {
    let mut ledger = one_key();
    let begun = ledger.begin(0);
    ledger.in_doubt(&begun);
    for found in [vec![Some(FIRST)], vec![name(1)], vec![Some(FIRST), name(1)]] {
        assert_eq!(ledger.judge(0, &found), FINE, "{found:?}");
    }
    assert!(ledger.must_read(0));
    let looking = ledger.look(0);
    ledger.saw(looking, &"seen", std::iter::once(FIRST));
    let begun = ledger.begin(0);
    ledger.acked(&begun, "two", true);
    assert_eq!(ledger.judge(0, &[name(2), name(1)]), FINE, "it came late");
    assert_eq!(ledger.judge(0, &[name(1)]), Judgement { lost: 1, ..FINE });
}

#[test]
fn a_write_in_doubt_that_is_nowhere_excuses_no_loss() {
    let mut ledger = one_key();
    let acked = ledger.begin(0);
    ledger.acked(&acked, "one", true);
    let doubt = ledger.begin(0);
    ledger.in_doubt(&doubt);
    assert_eq!(ledger.judge(0, &[]), Judgement { lost: 1, ..FINE });
    assert_eq!(ledger.judge(0, &[name(2)]), FINE, "it is stored, and replaced the acked one");
    assert_eq!(ledger.judge(0, &[name(1)]), FINE, "it was never stored");
    // A second one after the first, which a read had seen.
    ledger.saw(ledger.look(0), &"two", name(2).into_iter());
    let after = ledger.begin(0);
    ledger.in_doubt(&after);
    assert_eq!(ledger.judge(0, &[]), Judgement { lost: 1, ..FINE });
    for found in 1..=3 {
        assert_eq!(ledger.judge(0, &[name(found)]), FINE, "only {found} is there");
    }
}

#[test]
fn what_a_replaced_write_in_doubt_had_replaced_is_replaced_too() {
    let mut ledger = one_key();
    let acked = ledger.begin(0);
    ledger.acked(&acked, "one", true);
    for (context, seen) in [("two", 2), ("three", 3)] {
        let doubt = ledger.begin(0);
        ledger.in_doubt(&doubt);
        ledger.saw(ledger.look(0), &context, name(seen).into_iter());
    }
    let last = ledger.begin(0);
    ledger.acked(&last, "four", true);
    assert_eq!(ledger.judge(0, &[name(4)]), FINE);
    assert_eq!(ledger.judge(0, &[]), Judgement { lost: 1, ..FINE }, "the last one alone");
    let back = Judgement { resurrected: 1, ..FINE };
    for old in 1..=3 {
        assert_eq!(ledger.judge(0, &[name(4), name(old)]), back, "{old} came back");
    }
}

#[test]
fn a_refused_write_must_never_appear() {
    let mut ledger = one_key();
    let begun = ledger.begin(0);
    ledger.refused(&begun);
    assert_eq!(ledger.judge(0, &[Some(FIRST)]), FINE);
    assert_eq!(ledger.judge(0, &[Some(FIRST), name(1)]), Judgement { resurrected: 1, ..FINE });
    assert!(!ledger.must_read(0), "what is known still holds");
}

#[test]
fn an_ack_that_comes_after_its_replacement_adds_nothing() {
    let mut ledger = one_key();
    let slow = ledger.begin(0);
    let looking = ledger.look(0);
    ledger.saw(looking, &"seen", [FIRST].into_iter().chain(name(1)));
    let begun = ledger.begin(0);
    ledger.acked(&begun, "two", true);
    ledger.acked(&slow, "one", true);
    assert_eq!(ledger.judge(0, &[name(2)]), FINE);
    assert_eq!(ledger.judge(0, &[name(1)]), Judgement { lost: 1, resurrected: 1, ..FINE });
}

#[test]
fn a_read_that_is_out_of_date_is_not_heeded() {
    let mut ledger = one_key();
    let looking = ledger.look(0);
    let begun = ledger.begin(0);
    ledger.acked(&begun, "one", true);
    ledger.saw(looking, &"old", std::iter::once(FIRST));
    assert_eq!(ledger.begin(0).context, Some("one"));
    // One that began in time and asked a replica that lags.
    ledger.saw(ledger.look(0), &"lags", std::iter::once(FIRST));
    assert_eq!(ledger.begin(0).context, Some("one"));
    ledger.saw(ledger.look(0), &"more", [name(1), name(2)].into_iter().flatten());
    assert_eq!(ledger.begin(0).context, Some("more"));
}

#[test]
fn where_somebody_else_wrote_a_missing_write_cannot_be_judged() {
    let mut ledger = one_key();
    let begun = ledger.begin(0);
    ledger.acked(&begun, "one", true);
    let other = Some(Name { run: 99, sequence: 1 });
    let beside = Judgement { foreign: 1, ..FINE };
    assert_eq!(ledger.judge(0, &[other, name(1)]), beside, "ours is there");
    assert_eq!(ledger.judge(0, &[other]), Judgement { unjudged: 1, ..beside });
    assert_eq!(ledger.judge(0, &[None]), Judgement { unjudged: 1, ..beside });
}

#[test]
fn new_keys_count_as_the_latest_once_all_before_them_are_there() {
    let mut ledger = one_key();
    ledger.reach(2);
    assert_eq!((ledger.len(), ledger.latest(0)), (3, 0));
    let (one, two) = (ledger.begin(1), ledger.begin(2));
    assert_eq!(one.context, None);
    ledger.acked(&two, "two", true);
    assert_eq!(ledger.latest(0), 0);
    ledger.acked(&one, "one", true);
    assert_eq!((ledger.latest(0), ledger.latest(1), ledger.latest(99)), (2, 1, 0));
    assert_eq!((ledger.maker(0), ledger.maker(1)), (None, Some(RUN)));
}

#[test]
fn new_keys_that_were_not_made_are_passed_over() {
    let mut ledger = one_key();
    ledger.reach(4);
    let [one, two, three, four] = [1, 2, 3, 4].map(|key| ledger.begin(key));
    ledger.refused(&one);
    ledger.acked(&two, "two", true);
    assert_eq!((ledger.latest(0), ledger.latest(1)), (2, 0), "1 was refused");
    ledger.acked(&four, "four", true);
    assert_eq!(ledger.latest(0), 2, "3 is under way");
    ledger.in_doubt(&three);
    let latest = [0, 1, 2, 3].map(|ago| ledger.latest(ago));
    assert_eq!(latest, [4, 2, 0, 0]);
}
