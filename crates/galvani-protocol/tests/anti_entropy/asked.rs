//! A repair that somebody asked for: when it is over, and who joins it.

use super::{Pair, SHARD};
use galvani_model::bucket::BucketName;
use galvani_model::key::Key;
use galvani_model::store::Store;
use galvani_protocol::{Input, RepairProgress};
use galvani_storage::engine::{Corruption, Table};
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
