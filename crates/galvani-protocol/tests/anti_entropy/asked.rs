//! A repair that somebody asked for: when it is over, and who joins it.

use super::{Pair, SHARD};
use galvani_model::bucket::BucketName;
use galvani_model::key::Key;
use galvani_model::store::Store;
use galvani_protocol::{Input, RepairProgress};
use galvani_storage::engine::{Corruption, FailKind, Table};
use galvani_storage::format::keys;

fn filled() -> Pair {
    let mut pair = Pair::new();
    pair.link(true);
    for number in 0..300 {
        pair.put(number % 2, &format!("k{number:03}"), b"v".to_vec());
    }
    pair.pass(3_000);
    pair
}

fn k004() -> Key {
    Key::new(BucketName::default_bucket(), "k004").expect("a key")
}

fn progress(pair: &Pair) -> RepairProgress {
    pair.sides[1].lane.repair()
}

#[test]
fn a_repair_is_over_when_all_is_read_mended_and_compared() {
    let mut pair = filled();
    assert_eq!(progress(&pair), RepairProgress::default(), "nobody has asked");
    let compared = pair.sides[1].lane.counters().shards_compared;
    let object = pair.sides[1].store.object(SHARD, &k004()).expect("whole");
    let row = keys::log(SHARD, object.dots()[0]);
    assert!(pair.sides[1].engine.corrupt(Table::Log, &row, Corruption::FlipBit(99)));
    pair.handle(1, Input::Verify(None));
    let begun = progress(&pair);
    assert_eq!((begun.number, begun.running, begun.shards, begun.read), (1, true, 1, 0));
    let mut passed = 0;
    while progress(&pair).running {
        assert!(passed < 5_000, "{:?}", progress(&pair));
        pair.pass(1);
        passed += 1;
    }
    let over = progress(&pair);
    assert_eq!((over.number, over.shards, over.read, over.unread), (1, 1, 1, 0));
    assert!(pair.sides[1].store.damaged().is_empty(), "not over before it is mended");
    assert_eq!(pair.sides[1].store.mended(), 1);
    assert!(pair.sides[1].lane.counters().shards_compared > compared, "nor before it is shown");
}

#[test]
fn a_repair_that_is_asked_for_while_one_runs_joins_it() {
    let mut pair = filled();
    pair.handle(1, Input::Verify(None));
    pair.pass(2);
    let rows = |pair: &Pair| pair.sides[1].lane.counters().rows_verified;
    let read = rows(&pair);
    assert!(read > 0 && progress(&pair).running);
    pair.handle(1, Input::Verify(Some(SHARD.partition)));
    pair.handle(1, Input::Verify(None));
    assert_eq!(progress(&pair).number, 1);
    pair.pass(5_000);
    assert!(!progress(&pair).running);
    assert_eq!(rows(&pair), 600, "each record and each object once");
    pair.handle(1, Input::Verify(None));
    assert_eq!(progress(&pair).number, 2, "the next one is a new one");
}

#[test]
fn asking_again_and_again_reads_nothing_twice() {
    let mut pair = Pair::of_two_shards();
    pair.link(true);
    for number in 0..300 {
        pair.put(1, &format!("k{number:03}"), b"v".to_vec());
    }
    pair.pass(3_000);
    let rows = pair.sides[1].lane.counters().rows_verified;
    pair.handle(1, Input::Verify(None));
    assert_eq!(progress(&pair).shards, 2, "one of them is empty, and read all the same");
    let (mut asked, mut before) = (0, 0);
    loop {
        assert!(asked < 5_000, "{:?}", progress(&pair));
        pair.pass(1);
        let now = progress(&pair);
        assert!(now.read >= before, "{before} were read: {now:?}");
        if !now.running {
            break;
        }
        pair.handle(1, Input::Verify(None));
        (asked, before) = (asked + 1, now.read);
    }
    let over = progress(&pair);
    assert_eq!((over.number, over.read), (1, 2));
    assert!(asked > 0);
    let read = pair.sides[1].lane.counters().rows_verified - rows;
    assert_eq!(read, 600, "each record and each object once");
}

#[test]
fn a_step_is_bounded_in_bytes() {
    let mut pair = Pair::new();
    pair.link(true);
    for number in 0..20 {
        pair.put(1, &format!("k{number:03}"), vec![7; 500 << 10]);
    }
    pair.pass(3_000);
    let rows = |pair: &Pair| pair.sides[1].lane.counters().rows_verified;
    let (before, mut last, mut steps) = (rows(&pair), rows(&pair), 0);
    pair.handle(1, Input::Verify(None));
    while last < before + 20 {
        let step = rows(&pair) - last;
        assert!(step <= 3, "more than a mebibyte and a value at once: {step} rows");
        (last, steps) = (last + step, steps + 1);
        assert!(steps < 1_000);
        pair.pass(1);
    }
    pair.pass(3_000);
    assert_eq!(rows(&pair), before + 40, "and nothing is left out");
}

#[test]
fn after_a_step_clients_have_the_lane_as_long_as_it_took() {
    const TOOK: u64 = 300_000;
    let mut pair = filled();
    let rows = |pair: &Pair| pair.sides[1].lane.counters().rows_verified;
    let before = rows(&pair);
    pair.handle(1, Input::Verify(None));
    let one = rows(&pair);
    assert!(one > before && one < before + 300, "one step");
    pair.now.micros += TOOK;
    let mut rested = 0;
    while rows(&pair) == one {
        assert!(rested < 10 * TOOK);
        pair.handle(1, Input::Wake);
        pair.now.micros += 1_000;
        rested += 1_000;
    }
    assert!(rested >= TOOK, "{rested}");
    assert!(rested < TOOK + 10_000, "{rested}");
}

#[test]
fn a_shard_is_read_when_what_its_reading_put_right_is_committed() {
    let mut pair = filled();
    let rows = |pair: &Pair| pair.sides[1].lane.counters().rows_verified;
    let before = rows(&pair);
    // Nothing is written but what the reading puts right at its end.
    pair.sides[1].engine.fail_next_commits([FailKind::Full]);
    pair.handle(1, Input::Verify(None));
    while rows(&pair) < before + 600 {
        assert_eq!(progress(&pair).read, 0);
        pair.pass(1);
    }
    pair.pass(10);
    assert_eq!((progress(&pair).running, progress(&pair).read), (true, 0), "it was not written");
    pair.sides[1].store.try_disk_again();
    pair.pass(5_000);
    assert_eq!((progress(&pair).running, progress(&pair).read), (false, 1));
    assert!(rows(&pair) >= before + 1_200, "it was read again");
}

#[test]
fn a_peer_that_goes_away_is_not_waited_for() {
    let mut pair = filled();
    pair.handle(1, Input::Verify(None));
    pair.link(false);
    pair.pass(3_000);
    assert!(!progress(&pair).running, "{:?}", progress(&pair));
}

#[test]
fn what_nobody_can_mend_ends_a_repair_as_not_read() {
    let mut pair = filled();
    let object = pair.sides[1].store.object(SHARD, &k004()).expect("whole");
    let row = keys::log(SHARD, object.dots()[0]);
    for side in 0..2 {
        assert!(pair.sides[side].engine.corrupt(Table::Log, &row, Corruption::FlipBit(99)));
    }
    let row = keys::object(SHARD, &k004());
    assert!(pair.sides[1].engine.corrupt(Table::Objects, &row, Corruption::FlipBit(70)));
    pair.handle(1, Input::Verify(None));
    pair.pass(60_000);
    let over = progress(&pair);
    assert_eq!((over.running, over.read, over.unread), (false, 0, 1), "{over:?}");
    assert_eq!(pair.sides[1].store.damaged().len(), 2, "both are named still");
}
