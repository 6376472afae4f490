//! Rows that are damaged or lost on one of two owners, and how they come back.

use super::collect::delete;
use super::{Pair, SHARD, Side, node, peer, topology};
use galvani_model::bucket::BucketName;
use galvani_model::ids::{LaneIndex, Shard};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::store::{Rewrite, Store};
use galvani_model::version::{Digest, Dot, Object};
use galvani_protocol::{Effect, Input};
use galvani_storage::MemoryConfig;
use galvani_storage::engine::{Batch, Corruption, Durability, Engine, Table};
use galvani_storage::format::keys;
use galvani_wire::Message;
use galvani_wire::message::{Compare, Replicate};
use galvani_wire::view::Counters;

fn key(name: &str) -> Key {
    Key::new(BucketName::default_bucket(), name.to_owned()).expect("a key")
}

/// Two owners that hold the same twenty keys and are at rest.
fn filled() -> Pair {
    fill(Pair::forgetful())
}

fn fill(mut pair: Pair) -> Pair {
    pair.link(true);
    for number in 0..20 {
        pair.put(number % 2, &format!("k{number:02}"), b"v".to_vec());
    }
    pair.pass(3_000);
    assert!(is_settled(&pair));
    pair
}

fn is_settled(pair: &Pair) -> bool {
    pair.sides.iter().all(|side| side.lane.is_settled())
}

fn counters(pair: &Pair, side: usize) -> &Counters {
    pair.sides[side].lane.counters()
}

fn object(pair: &mut Pair, side: usize, name: &str) -> Object {
    pair.sides[side].store.object(SHARD, &key(name)).expect("whole")
}

fn digests(pair: &mut Pair) -> [Digest; 2] {
    [0, 1].map(|side| pair.sides[side].store.replica(SHARD).expect("whole").digest)
}

/// Everything is read through, and what follows from it happens.
fn verify(pair: &mut Pair, side: usize) {
    pair.handle(side, Input::Verify(None));
    pair.pass(5_000);
    assert!(is_settled(pair), "it ends");
}

/// The row of a key goes as if it had never been written: no checksum can tell.
fn lose(pair: &Pair, side: usize, name: &str) {
    let mut batch = Batch::new();
    batch.delete(Table::Objects, &keys::object(SHARD, &key(name)));
    pair.sides[side].engine.commit(&batch, Durability::Os).expect("a disk in memory");
}

#[test]
fn ae_finds_planted_divergence() {
    let mut pair = filled();
    let before = object(&mut pair, 0, "k07");
    lose(&pair, 1, "k07");
    assert!(object(&mut pair, 1, "k07").is_absent(), "silently lost");
    verify(&mut pair, 1);
    assert_eq!(object(&mut pair, 1, "k07"), before);
    assert_eq!(object(&mut pair, 0, "k07"), before, "absence is never spread");
    let digests = digests(&mut pair);
    assert_eq!(digests[0], digests[1]);
    let found = counters(&pair, 1);
    assert_eq!((found.digests_corrected, found.readopted), (1, 1));
    assert_eq!(counters(&pair, 0).readopted, 0);
}

#[test]
fn every_shard_is_read_through_in_its_turn_though_nobody_asks() {
    let limits = Limits { verify_hours: 1, ..Limits::default() };
    let mut pair = fill(Pair::remembering(|side| topology(side, 1), limits, MemoryConfig::NONE));
    let before = object(&mut pair, 0, "k07");
    lose(&pair, 1, "k07");
    pair.pass(3_000);
    assert!(
        object(&mut pair, 1, "k07").is_absent(),
        "clocks and digests say that nothing is amiss"
    );
    for _minute in 0..61 {
        pair.now.micros += 60_000_000;
        pair.pass(20);
    }
    pair.pass(5_000);
    assert_eq!(object(&mut pair, 1, "k07"), before);
    assert_eq!(counters(&pair, 1).digests_corrected, 1);
}

#[test]
fn equal_clock_unequal_digest_is_found_and_presence_wins() {
    let mut pair = filled();
    // Each has lost what the other one holds.
    lose(&pair, 0, "k03");
    lose(&pair, 1, "k11");
    for side in 0..2 {
        pair.handle(side, Input::Verify(Some(SHARD.partition)));
    }
    pair.pass(10_000);
    for name in ["k03", "k11"] {
        let held = object(&mut pair, 0, name);
        assert!(!held.is_absent(), "{name}");
        assert_eq!(held, object(&mut pair, 1, name), "{name}");
    }
    let digests = digests(&mut pair);
    assert_eq!(digests[0], digests[1]);
    assert!(is_settled(&pair));
    let said = pair.seen.len();
    pair.pass(10_000);
    assert_eq!(pair.seen.len(), said, "it is at rest");
}

#[test]
fn unequal_replicas_are_told_once_when_found_and_once_when_mended() {
    let mut pair = filled();
    lose(&pair, 1, "k07");
    verify(&mut pair, 1);
    for (side, Side { lane, .. }) in pair.sides.iter().enumerate() {
        let told = pair.told.iter().filter(|(by, ..)| *by == side);
        let told: Vec<(Shard, bool)> = told.map(|&(_, shard, mended)| (shard, mended)).collect();
        assert_eq!(told, [(SHARD, false), (SHARD, true)], "side {side}: found, then mended");
        assert_eq!(lane.unequal().count(), 0);
        assert!(lane.counters().digests_unequal > 0, "what was met stays counted");
    }
}

#[test]
fn a_peer_that_goes_away_is_unequal_no_more_and_nobody_says_that_it_is_mended() {
    let mut pair = filled();
    let shards = vec![(SHARD, pair.clock(1), Digest(7))];
    let wrong = Message::Compare(Compare { node: node(0), lane: LaneIndex(0), shards });
    for _ in 0..2 {
        pair.request(1, wrong.clone());
    }
    assert_eq!(pair.sides[1].lane.unequal().collect::<Vec<_>>(), [(peer(0), SHARD)]);
    let told = |effects: Vec<Effect>| {
        effects.into_iter().filter(|effect| matches!(effect, Effect::Unequal { .. })).collect()
    };
    let said: Vec<Effect> = told(pair.tick(1));
    assert_eq!(said, [Effect::Unequal { peer: peer(0), shard: SHARD, mended: false }]);
    pair.handle(1, Input::PeerDown(peer(0)));
    assert_eq!(pair.sides[1].lane.unequal().count(), 0);
    let said: Vec<Effect> = told(pair.tick(1));
    assert_eq!(said, []);
}

#[test]
fn a_digest_that_its_data_does_not_bear_out_is_corrected_without_moving_values() {
    let mut pair = filled();
    let right = digests(&mut pair)[0];
    let wrong = Rewrite::Digest(Digest(7));
    pair.sides[1].store.rewrite(SHARD, wrong).expect("a healthy disk");
    pair.flow();
    // The next comparison finds it, whoever starts it.
    pair.handle(1, Input::Verify(None));
    pair.pass(5_000);
    assert_eq!(digests(&mut pair), [right, right]);
    assert_eq!(counters(&pair, 1).digests_corrected, 1);
    assert_eq!(counters(&pair, 0).readopted + counters(&pair, 1).readopted, 0);
    assert!(is_settled(&pair));
}

#[test]
fn writes_during_a_verify_are_counted_in() {
    let mut pair = Pair::new();
    pair.link(true);
    for number in 0..500 {
        pair.put(0, &format!("k{number:03}"), b"v".to_vec());
    }
    pair.pass(3_000);
    pair.handle(0, Input::Verify(None));
    for number in 0..500 {
        // Before and behind the place where it stands.
        pair.put(0, &format!("k{:03}", number * 7 % 500), b"w".to_vec());
        pair.put(0, &format!("l{number}"), b"w".to_vec());
        pair.pass(1);
    }
    pair.pass(5_000);
    assert!(is_settled(&pair));
    let found = counters(&pair, 0);
    assert!(found.rows_verified >= 1_000, "{}", found.rows_verified);
    assert_eq!((found.digests_corrected, found.readopted), (0, 0));
    assert_eq!(found.digests_unequal, 0);
}

#[test]
fn a_damaged_record_comes_back_from_the_other_owner() {
    for damage in [Corruption::FlipBit(99), Corruption::Truncate(5), Corruption::Vanish] {
        // Remembered or not: whoever checks the disk reads the disk.
        let mut pair =
            fill(if damage == Corruption::Vanish { Pair::forgetful() } else { Pair::new() });
        let dot = object(&mut pair, 1, "k04").dots()[0];
        let row = keys::log(SHARD, dot);
        assert!(pair.sides[1].store.record(SHARD, dot).is_ok());
        let was = pair.sides[0].engine.get(Table::Log, &row).expect("read").expect("a row");
        assert!(pair.sides[1].engine.corrupt(Table::Log, &row, damage));
        verify(&mut pair, 1);
        let is = pair.sides[1].engine.get(Table::Log, &row).expect("read");
        assert_eq!(is, Some(was), "{damage:?}");
        assert!(pair.sides[1].store.damaged().is_empty());
        assert_eq!(pair.sides[1].store.mended(), 1);
    }
}

#[test]
fn a_damaged_object_is_rebuilt_from_the_own_log_and_says_damaged_until_then() {
    let mut pair = filled();
    pair.link(false);
    let before = object(&mut pair, 1, "k05");
    pair.flow();
    let row = keys::object(SHARD, &key("k05"));
    assert!(pair.sides[1].engine.corrupt(Table::Objects, &row, Corruption::FlipBit(70)));
    pair.sides[1].store.object(SHARD, &key("k05")).expect_err("damaged");
    pair.pass(3_000);
    assert_eq!(object(&mut pair, 1, "k05"), before, "no peer was needed");
    assert_eq!(pair.sides[1].store.mended(), 1);
}

#[test]
fn an_own_record_that_is_lost_everywhere_stays_reported_under_a_new_incarnation() {
    let mut pair = Pair::new();
    pair.put(0, "k", b"v".to_vec());
    let own = pair.clock(0).ranges().next().expect("a write").origin;
    let row = keys::log(SHARD, Dot::new(own, 1));
    assert!(pair.sides[0].engine.corrupt(Table::Log, &row, Corruption::FlipBit(99)));
    pair.link(true);
    verify(&mut pair, 0);
    assert_eq!(pair.sides[0].store.damaged().len(), 1, "it stays reported");
    pair.sides[0].store.record(SHARD, Dot::new(own, 1)).expect_err("never absence");
    assert!(pair.clock(0).contains(Dot::new(own, 1)), "its dot is not forgotten");
    pair.put(0, "l", b"v".to_vec());
    assert!(!pair.clock(0).contains(Dot::new(own, 2)), "and it mints under another origin");
}

/// Whoever took its dot in as that of a trimmed record would take the copy that a stand-in still has for one
/// it knows.
#[test]
fn a_record_that_vanished_is_not_told_as_trimmed() {
    let mut pair = Pair::forgetful();
    pair.put(0, "k", b"v".to_vec());
    let dot = object(&mut pair, 0, "k").dots()[0];
    let row = keys::log(SHARD, dot);
    assert!(pair.sides[0].engine.corrupt(Table::Log, &row, Corruption::Vanish));
    pair.handle(0, Input::Verify(None));
    pair.pass(5_000);
    assert_eq!(pair.sides[0].store.damaged().len(), 1, "it is known to be lost");
    pair.link(true);
    pair.pass(3_000);
    let looked_up = pair.pages().iter().any(|page| page.through == Some(dot));
    assert!(looked_up, "the other owner has asked for it");
    assert!(!pair.clock(1).contains(dot));
}

#[test]
fn what_was_given_up_is_tried_again_when_an_operator_asks() {
    let mut pair = Pair::new();
    pair.put(0, "k", b"v".to_vec());
    let own = pair.clock(0).ranges().next().expect("a write").origin;
    let dot = Dot::new(own, 1);
    let record = pair.sides[0].store.record(SHARD, dot).expect("whole").expect("a record");
    let row = keys::log(SHARD, dot);
    assert!(pair.sides[0].engine.corrupt(Table::Log, &row, Corruption::FlipBit(99)));
    pair.link(true);
    verify(&mut pair, 0);
    assert_eq!(pair.sides[0].store.damaged().len(), 1, "nobody has it");
    // A stand-in brings it to the other owner.
    let head = record.head.clone();
    let replicate = Replicate {
        shard: SHARD,
        head,
        fsync: false,
        epoch: 1,
        timeout_ms: 100,
        value: record.value,
    };
    pair.ask(1, Message::Replicate(replicate));
    pair.pass(2_000);
    assert_eq!(pair.sides[0].store.damaged().len(), 1, "it is not asked for all the time");
    verify(&mut pair, 0);
    assert!(pair.sides[0].store.damaged().is_empty());
}

#[test]
fn repair_never_spreads_corruption() {
    let mut pair = filled();
    let dot = object(&mut pair, 0, "k06").dots()[0];
    let row = keys::log(SHARD, dot);
    let whole = pair.sides[1].engine.get(Table::Log, &row).expect("read");
    assert!(pair.sides[0].engine.corrupt(Table::Log, &row, Corruption::FlipBit(120)));
    let object_row = keys::object(SHARD, &key("k08"));
    let whole_object = pair.sides[1].engine.get(Table::Objects, &object_row).expect("read");
    assert!(pair.sides[0].engine.corrupt(Table::Objects, &object_row, Corruption::FlipBit(50)));
    for side in [1, 0] {
        verify(&mut pair, side);
    }
    for side in 0..2 {
        let engine = pair.sides[side].engine.clone();
        assert_eq!(engine.get(Table::Log, &row).expect("read"), whole, "side {side}");
        assert_eq!(
            engine.get(Table::Objects, &object_row).expect("read"),
            whole_object,
            "side {side}"
        );
    }
    assert_eq!(pair.sides[1].store.quarantined(), 0);
}

#[test]
fn what_a_newer_write_has_replaced_is_never_held_again() {
    let mut pair = filled();
    pair.link(false);
    lose(&pair, 1, "k09");
    // While the other owner still shows the old value, this one takes in one that it never saw.
    pair.put(1, "k09", b"new".to_vec());
    pair.handle(1, Input::Verify(None));
    pair.pass(1_000);
    pair.link(true);
    pair.pass(10_000);
    assert_eq!(object(&mut pair, 0, "k09"), object(&mut pair, 1, "k09"));
    assert_eq!(object(&mut pair, 1, "k09").versions().len(), 2, "siblings: neither saw the other");
    let digests = digests(&mut pair);
    assert_eq!(digests[0], digests[1]);
}

/// A value that a peer shows may have been replaced, and what replaced it collected, before it is heard.
#[test]
fn what_was_deleted_after_it_was_shown_is_never_held_again() {
    let mut pair = filled();
    lose(&pair, 1, "k03");
    pair.late = Some(Vec::new());
    pair.handle(1, Input::Verify(None));
    for _ in 0..2_000 {
        if pair.late.as_ref().is_some_and(|late| late.iter().any(|(to, _)| *to == 1)) {
            break;
        }
        pair.pass(1);
    }
    delete(&mut pair, 0, "k07");
    pair.pass(3_000);
    for side in 0..2 {
        let versions = object(&mut pair, side, "k07").versions().len();
        assert_eq!(versions, 0, "side {side}: its tombstone is collected");
    }
    let late = pair.late.take().expect("held up");
    assert!(late.iter().any(|(to, _)| *to == 1), "the other owner has shown its keys");
    for (to, input) in late {
        pair.handle(to, input);
    }
    pair.flow();
    assert!(object(&mut pair, 1, "k07").is_absent());
    pair.pass(10_000);
    for side in 0..2 {
        assert!(object(&mut pair, side, "k07").is_absent(), "side {side}");
        assert!(!object(&mut pair, side, "k03").is_absent(), "side {side}: what was lost is back");
    }
}
