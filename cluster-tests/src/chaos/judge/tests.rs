//! Planted violations: each rule must find its own.

use crate::chaos::judge::What;
use crate::chaos::ledger::{Kind, Ledger, Loss, Must, Seen, Shown, value_of};
use galvani_client::{Dot, Outcome, ReplicaAnswer};
use galvani_model::ids::Origin;

const KEY: &str = "k";
const SEED: u64 = 7;

fn ledger() -> Ledger {
    Ledger::new(SEED, 3)
}

fn put(ledger: &Ledger, seen: &[usize]) -> usize {
    write(ledger, Kind::Put, seen)
}

fn write(ledger: &Ledger, kind: Kind, seen: &[usize]) -> usize {
    let surely = seen.iter().fold(0, |set, number| set | 1 << number);
    let seen = Seen { surely, maybe: surely };
    ledger.issue(KEY, kind, seen, 0).expect("not full").0
}

fn ack(ledger: &Ledger, number: usize, nodes: &[&str]) {
    let dot = Dot::new(Origin(1), number as u64 + 1);
    ledger.acked(KEY, number, Some(dot), &answers(nodes));
}

fn answers(nodes: &[&str]) -> Vec<ReplicaAnswer> {
    let answer = |node: &&str| ReplicaAnswer {
        node: (*node).to_owned(),
        stands_in_for: None,
        outcome: Outcome::Stored,
        took: None,
    };
    nodes.iter().map(answer).collect()
}

fn value(number: usize) -> Shown {
    by_dot(number, 1)
}

fn by_dot(number: usize, origin: u128) -> Shown {
    let dot = Dot::new(Origin(origin), number as u64 + 1);
    Shown { value: Some(value_of(SEED, KEY, number)), dot: Some(dot) }
}

fn settled(ledger: &Ledger, shown: &[Shown]) -> Option<What> {
    ledger.check_settled(KEY, shown).err().map(|violation| violation.what)
}

fn read(ledger: &Ledger, must: Must, shown: &[Shown]) -> Result<Seen, What> {
    ledger.end_read(KEY, must, shown, 0).map_err(|violation| violation.what)
}

#[test]
fn a_lost_write_is_found() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    assert_eq!(settled(&ledger, &[]), None, "not acked: it may be anywhere or nowhere");
    ack(&ledger, zero, &["n1"]);
    assert_eq!(settled(&ledger, &[]), Some(What::Lost));
    assert_eq!(settled(&ledger, &[value(zero)]), None);
    // Blind beside it: it replaces nothing.
    let one = put(&ledger, &[]);
    ack(&ledger, one, &["n1"]);
    assert_eq!(settled(&ledger, &[value(one)]), Some(What::Lost));
    let two = put(&ledger, &[zero, one]);
    assert_eq!(settled(&ledger, &[value(two)]), None, "in doubt and there: it replaced both");
    assert_eq!(settled(&ledger, &[value(zero), value(one)]), None, "in doubt and nowhere");
}

#[test]
fn a_write_that_comes_back_is_found() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    ack(&ledger, zero, &["n1", "n2"]);
    let one = put(&ledger, &[zero]);
    ack(&ledger, one, &["n1"]);
    let gone = write(&ledger, Kind::Delete, &[zero, one]);
    ack(&ledger, gone, &["n2"]);
    assert_eq!(settled(&ledger, &[value(one)]), Some(What::CameBack));
    assert_eq!(settled(&ledger, &[value(zero)]), Some(What::CameBack));
    assert_eq!(settled(&ledger, &[]), None, "the tombstone may have been collected");
    let new = put(&ledger, &[zero, one, gone]);
    ack(&ledger, new, &["n1"]);
    assert_eq!(settled(&ledger, &[]), Some(What::Lost));
    assert_eq!(settled(&ledger, &[value(new)]), None);
}

#[test]
fn a_false_sibling_is_found() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    let must = ledger.begin_read(KEY, 1);
    assert_eq!(read(&ledger, must, &[value(zero), value(zero)]), Err(What::Twice));
    let one = put(&ledger, &[zero]);
    assert_eq!(
        read(&ledger, must, &[value(zero), value(one)]),
        Err(What::BesideItsReplacer),
        "whoever shows the one knows that the other is replaced"
    );
    let two = put(&ledger, &[zero]);
    let seen = read(&ledger, must, &[value(one), value(two)]).expect("they are concurrent");
    assert_eq!(seen.surely, 1 << zero | 1 << one | 1 << two);
}

#[test]
fn a_write_of_two_dots_may_stand_beside_what_replaced_one_of_them_until_all_agree() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    ack(&ledger, zero, &["n1"]);
    let one = put(&ledger, &[zero]);
    let must = ledger.begin_read(KEY, 1);
    assert_eq!(read(&ledger, must, &[value(zero), value(one)]), Err(What::BesideItsReplacer));
    read(&ledger, must, &[by_dot(zero, 2), value(one)]).expect("one has seen the other dot");
    assert_eq!(ledger.half_replaced(), 1);
    let all = [by_dot(zero, 2), value(one)];
    assert_eq!(settled(&ledger, &all), Some(What::BesideItsReplacer));
}

#[test]
fn a_no_that_appears_is_found_before_and_after_it_is_said() {
    let ledger = ledger();
    let (zero, one) = (put(&ledger, &[]), put(&ledger, &[]));
    let must = ledger.begin_read(KEY, 1);
    ledger.never(KEY, zero).expect("not shown");
    assert_eq!(read(&ledger, must, &[value(zero)]), Err(What::WasRefused));
    assert_eq!(settled(&ledger, &[value(zero)]), Some(What::WasRefused));
    read(&ledger, must, &[value(one)]).expect("under way");
    let violation = ledger.never(KEY, one).expect_err("it was shown");
    assert_eq!((violation.what, violation.number), (What::WasRefused, Some(one)));
    assert_eq!(settled(&ledger, &[]), Some(What::WasRefused));
}

#[test]
fn an_invention_is_found() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    let must = ledger.begin_read(KEY, 1);
    assert_eq!(read(&ledger, must, &[value(zero + 1)]), Err(What::NeverWritten));
    let foreign = Shown { value: Some(value_of(SEED, "other", zero)), dot: None };
    assert_eq!(read(&ledger, must, &[foreign]), Err(What::NeverWritten));
    let deleted = write(&ledger, Kind::Delete, &[]);
    assert_eq!(read(&ledger, must, &[value(deleted)]), Err(What::NeverWritten));
}

#[test]
fn a_read_that_cannot_have_missed_an_acked_write_must_show_it() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    let early = ledger.begin_read(KEY, 3);
    ack(&ledger, zero, &["n1", "n2"]);
    assert!(read(&ledger, early, &[]).is_ok(), "it began before the ack");
    assert!(read(&ledger, ledger.begin_read(KEY, 1), &[]).is_ok(), "1 + 2 = 3");
    assert_eq!(read(&ledger, ledger.begin_read(KEY, 2), &[]), Err(What::Missed));
    // n1 may lose some data now, and not know it: only n2 is sure to have what comes.
    ledger.begin_epoch(Some(Loss { node: 0, noticed: false }));
    let one = put(&ledger, &[zero]);
    ack(&ledger, one, &["n1", "n2"]);
    let two = ledger.begin_read(KEY, 2);
    assert!(read(&ledger, two, &[value(zero)]).is_ok());
    assert_eq!(read(&ledger, two, &[]), Err(What::Missed), "all owners had the first");
    assert_eq!(read(&ledger, ledger.begin_read(KEY, 3), &[value(zero)]), Err(What::CameBack));
}

#[test]
fn an_owner_that_knows_of_its_loss_is_not_read_from_and_excuses_nothing() {
    let ledger = ledger();
    ledger.begin_epoch(Some(Loss { node: 0, noticed: true }));
    let zero = put(&ledger, &[]);
    ack(&ledger, zero, &["n1", "n2"]);
    assert_eq!(read(&ledger, ledger.begin_read(KEY, 2), &[]), Err(What::Missed));
    let alone = put(&ledger, &[]);
    ack(&ledger, alone, &["n1"]);
    let both = ledger.begin_read(KEY, 3);
    assert!(read(&ledger, both, &[value(zero)]).is_ok(), "only the lost disk had the other one");
}

#[test]
fn a_read_that_cannot_have_missed_a_delete_shows_nothing_of_what_it_deleted() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    ack(&ledger, zero, &["n1", "n2", "n3"]);
    let gone = write(&ledger, Kind::Delete, &[zero]);
    let before = ledger.begin_read(KEY, 2);
    ack(&ledger, gone, &["n1", "n2"]);
    assert!(read(&ledger, before, &[value(zero)]).is_ok(), "it began before the ack");
    assert!(read(&ledger, ledger.begin_read(KEY, 1), &[value(zero)]).is_ok(), "1 + 2 = 3");
    assert_eq!(read(&ledger, ledger.begin_read(KEY, 2), &[value(zero)]), Err(What::CameBack));
    assert!(read(&ledger, ledger.begin_read(KEY, 2), &[]).is_ok(), "it may have been collected");
}

#[test]
fn a_stand_in_counts_for_durability_and_not_for_reads() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    let mut said = answers(&["n1", "n4"]);
    said[1].stands_in_for = Some("n2".to_owned());
    ledger.acked(KEY, zero, None, &said);
    assert!(read(&ledger, ledger.begin_read(KEY, 2), &[]).is_ok());
    assert_eq!(read(&ledger, ledger.begin_read(KEY, 3), &[]), Err(What::Missed));
    assert_eq!(settled(&ledger, &[]), Some(What::Lost));
}

#[test]
fn a_tombstone_may_be_shown_again_and_a_value_may_not() {
    let ledger = ledger();
    let deleted = write(&ledger, Kind::Delete, &[]);
    ack(&ledger, deleted, &["n1", "n2", "n3"]);
    let again = write(&ledger, Kind::Delete, &[deleted]);
    ack(&ledger, again, &["n1", "n2", "n3"]);
    let tombstone = Shown { value: None, dot: Some(Dot::new(Origin(1), deleted as u64 + 1)) };
    assert!(read(&ledger, ledger.begin_read(KEY, 2), &[tombstone]).is_ok());
    assert_eq!(ledger.late_tombstones(), 1);
    let before = put(&ledger, &[]);
    ack(&ledger, before, &["n1", "n2", "n3"]);
    let after = write(&ledger, Kind::Delete, &[before]);
    ack(&ledger, after, &["n1", "n2", "n3"]);
    assert_eq!(read(&ledger, ledger.begin_read(KEY, 2), &[value(before)]), Err(What::CameBack));
}

#[test]
fn what_a_read_made_sure_of_must_be_shown_until_a_disk_is_lost() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    assert!(read(&ledger, ledger.begin_read(KEY, 2), &[value(zero)]).is_ok());
    assert!(read(&ledger, ledger.begin_read(KEY, 2), &[]).is_ok(), "nobody acked it");
    ledger.end_read(KEY, ledger.begin_read(KEY, 2), &[value(zero)], 2).expect("as written");
    assert_eq!(read(&ledger, ledger.begin_read(KEY, 2), &[]), Err(What::Missed));
    assert!(read(&ledger, ledger.begin_read(KEY, 1), &[]).is_ok(), "the third owner may lack it");
    assert_eq!(ledger.judged(), 1);
    ledger.begin_epoch(Some(Loss { node: 0, noticed: true }));
    assert!(read(&ledger, ledger.begin_read(KEY, 2), &[]).is_ok(), "of two, one may have lost it");
}

#[test]
fn only_what_the_lost_disk_alone_had_acked_is_excused() {
    let ledger = ledger();
    let before = put(&ledger, &[]);
    ack(&ledger, before, &["n1"]);
    ledger.begin_epoch(Some(Loss { node: 0, noticed: true }));
    let alone = put(&ledger, &[before]);
    ack(&ledger, alone, &["n1"]);
    let both = put(&ledger, &[]);
    ack(&ledger, both, &["n1", "n2"]);
    assert_eq!(ledger.excused(), 1);
    assert_eq!(settled(&ledger, &[value(before), value(both)]), None, "what it replaced is back");
    assert_eq!(settled(&ledger, &[value(alone), value(both)]), None);
    assert_eq!(settled(&ledger, &[value(both)]), Some(What::Lost), "all had agreed on the first");
    assert_eq!(settled(&ledger, &[value(before)]), Some(What::Lost));
}

#[test]
fn a_tombstone_without_a_name_may_be_any_that_was_not_answered() {
    let ledger = ledger();
    let zero = put(&ledger, &[]);
    ack(&ledger, zero, &["n1", "n2"]);
    let delete = write(&ledger, Kind::Delete, &[zero]);
    let unknown = Shown { value: None, dot: Some(Dot::new(Origin(9), 9)) };
    let seen = read(&ledger, ledger.begin_read(KEY, 2), &[unknown]).expect("it deleted the value");
    assert_eq!(seen, Seen { surely: 0, maybe: 1 << zero | 1 << delete });
}
