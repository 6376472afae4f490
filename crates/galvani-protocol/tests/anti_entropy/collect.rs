//! Tombstones of two owners: when they go, what holds them back, and what keeps them in doubt.

use super::{Pair, SHARD, node, peer};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{LaneIndex, RequestId};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::store::Store;
use galvani_model::version::{Kind, Record};
use galvani_protocol::Input;
use galvani_storage::engine::{Corruption, Table};
use galvani_storage::format::keys;
use galvani_wire::Message;
use galvani_wire::message::{AskClocks, Get, Put, Replicate};

fn key(name: &str) -> Key {
    Key::new(BucketName::default_bucket(), name.to_owned()).expect("a key")
}

/// Reads on one side and deletes what was seen there.
pub(crate) fn delete(pair: &mut Pair, side: usize, name: &str) {
    let one = Some(Quorum::Exactly(1));
    let options = ReadOptions { r: one, ..ReadOptions::default() };
    let context = match &pair
        .ask(side, Message::Get(Get { key: key(name), options, timeout_ms: 2_000 }))[..]
    {
        [Message::GetDone(done)] => done.context.clone(),
        other => panic!("a read, got {other:?}"),
    };
    pair.rids += 1;
    let put = Put {
        emits: Vec::new(),
        key: key(name),
        kind: Kind::Delete,
        rid: RequestId(pair.rids),
        issued: Hlc::from_unix_ms(1_000_000),
        retry: false,
        context: Some(context),
        options: WriteOptions { w: one, ..WriteOptions::default() },
        timeout_ms: 2_000,
        value: Bytes::new(),
    };
    pair.request(side, Message::Put(put));
    pair.flow();
}

fn tombstones(pair: &mut Pair) -> [u64; 2] {
    [0, 1].map(|side| pair.sides[side].store.replica(SHARD).expect("whole").tombstones)
}

fn is_gone(pair: &mut Pair, name: &str) -> bool {
    let mut gone = |side: usize| {
        let object = pair.sides[side].store.object(SHARD, &key(name)).expect("whole");
        object.versions().is_empty()
    };
    gone(0) && gone(1)
}

#[test]
fn a_tombstone_goes_once_every_owner_has_it() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    delete(&mut pair, 0, "k");
    assert_eq!(tombstones(&mut pair), [1, 1]);
    pair.pass(3_000);
    assert_eq!(tombstones(&mut pair), [0, 0]);
    assert!(is_gone(&mut pair, "k"));
    for side in 0..2 {
        assert_eq!(pair.sides[side].lane.counters().tombstones_collected, 1, "side {side}");
        assert!(pair.sides[side].lane.is_settled(), "side {side}");
    }
}

fn record(pair: &mut Pair, side: usize, name: &str) -> Record {
    let store = &mut pair.sides[side].store;
    let dot = store.object(SHARD, &key(name)).expect("whole").dots()[0];
    store.record(SHARD, dot).expect("whole").expect("written")
}

/// Side 1 goes on for ten seconds, and is answered nothing but what side 0 has taken in.
fn hears_only_clocks(pair: &mut Pair) {
    let clock = pair.clock(0);
    pair.hears_only(&clock, 10_000);
}

/// The other owner has all of it. Here a late copy of what the tombstone replaced would be new, and live.
#[test]
fn a_tombstone_stays_where_what_it_replaced_was_not_taken_in() {
    let mut pair = Pair::new();
    pair.put(0, "k", b"v".to_vec());
    let value = record(&mut pair, 0, "k");
    delete(&mut pair, 0, "k");
    let tombstone = record(&mut pair, 0, "k");
    let replicate = |Record { head, value }| {
        let (shard, fsync, epoch, timeout_ms) = (SHARD, false, 1, 1_000);
        Message::Replicate(Replicate { shard, head, fsync, epoch, timeout_ms, value })
    };
    pair.handle(1, Input::PeerUp(peer(0)));
    pair.ask(1, replicate(tombstone));
    hears_only_clocks(&mut pair);
    assert_eq!(tombstones(&mut pair)[1], 1);
    pair.ask(1, replicate(value));
    hears_only_clocks(&mut pair);
    assert_eq!(tombstones(&mut pair)[1], 0, "now it is a duplicate everywhere");
    assert!(pair.sides[1].store.object(SHARD, &key("k")).expect("whole").is_absent());
}

#[test]
fn an_owner_that_is_away_holds_collection_back_and_is_named() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    pair.link(false);
    delete(&mut pair, 0, "k");
    pair.pass(120_000);
    assert_eq!(tombstones(&mut pair)[0], 1, "two minutes prove nothing");
    let waits = pair.sides[0].lane.collection_waits();
    assert_eq!(waits.keys().collect::<Vec<_>>(), [&node(1)]);
    pair.link(true);
    pair.pass(5_000);
    assert!(is_gone(&mut pair, "k"));
    assert!(pair.sides[0].lane.collection_waits().is_empty());
}

#[test]
fn a_clock_is_told_only_once_it_survives_power_loss() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    let ask = AskClocks { node: node(0), lane: LaneIndex(0), shards: vec![SHARD], durable: true };
    pair.request(1, Message::AskClocks(ask));
    let side = &mut pair.sides[1];
    assert!(side.lane.wants_fsync(side.store.has_staged()), "the answer waits for a sync");
}

#[test]
fn a_collection_whose_commit_failed_is_made_again() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    delete(&mut pair, 0, "k");
    // One side's disk is full for a while: what it collected does not stay collected.
    pair.sides[1].engine.set_full(true);
    pair.pass(3_000);
    assert_eq!(tombstones(&mut pair)[1], 1);
    pair.sides[1].engine.set_full(false);
    pair.pass(120_000);
    assert!(is_gone(&mut pair, "k"));
}

#[test]
fn a_late_copy_of_a_collected_value_changes_nothing() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    let dot = pair.sides[0].store.object(SHARD, &key("k")).expect("whole").dots()[0];
    let record = pair.sides[0].store.record(SHARD, dot).expect("whole").expect("written");
    delete(&mut pair, 1, "k");
    pair.pass(3_000);
    assert!(is_gone(&mut pair, "k"));
    let Record { head, value } = record;
    let late = Replicate { shard: SHARD, head, fsync: false, epoch: 1, timeout_ms: 1_000, value };
    for side in 0..2 {
        pair.ask(side, Message::Replicate(late.clone()));
    }
    pair.pass(3_000);
    assert!(is_gone(&mut pair, "k"));
}

/// Damages the index row of a key's tombstone on one side, and its record on both: so nothing says
/// whose tombstone it is.
fn make_nameless(pair: &mut Pair, name: &str) {
    let dot = pair.sides[0].store.object(SHARD, &key(name)).expect("whole").dots()[0];
    let row = keys::log(SHARD, dot);
    let bad = Corruption::FlipBit(9);
    assert!(pair.sides[0].engine.corrupt(Table::Tombstones, &row, bad));
    for side in 0..2 {
        assert!(pair.sides[side].engine.corrupt(Table::Log, &row, Corruption::FlipBit(200)));
    }
}

#[test]
fn rows_of_which_nobody_knows_the_key_hold_up_no_other() {
    let mut pair = Pair::new();
    pair.link(true);
    for number in 0..300 {
        pair.put(0, &format!("k{number}"), b"v".to_vec());
        delete(&mut pair, 0, &format!("k{number}"));
    }
    for number in 0..280 {
        make_nameless(&mut pair, &format!("k{number}"));
    }
    pair.pass(4_000);
    assert!(tombstones(&mut pair)[0] <= 280, "{:?}", tombstones(&mut pair));
}

#[test]
fn an_index_of_expiring_values_that_cannot_be_read_holds_up_no_tombstone() {
    let mut pair = Pair::of(1, Limits { expiry_margin_ms: 0, ..Limits::default() });
    pair.put(0, "k", b"v".to_vec());
    pair.put_named(0, "t", 1_000);
    let t = Key::new(BucketName::default_bucket(), "t").expect("a key");
    let (expires_ms, dot) = pair.sides[0].store.object(SHARD, &t).expect("whole").expiring()[0];
    let row = keys::expiring(SHARD, expires_ms, dot);
    assert!(pair.sides[0].engine.corrupt(Table::Expiring, &row, Corruption::Unreadable));
    delete(&mut pair, 0, "k");
    pair.now.unix_ms += 2_000;
    pair.link(true);
    pair.pass(4_000);
    assert_eq!(tombstones(&mut pair), [0, 0]);
    let expiring =
        [0, 1].map(|side| pair.sides[side].store.replica(SHARD).expect("whole").expiring);
    assert_eq!(expiring, [1, 0], "the value stays where nothing can be read of it");
}
