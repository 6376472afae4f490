//! Tombstones of two owners: when they go, what holds them back, and what keeps them in doubt.

use super::{Pair, SHARD, node};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{LaneIndex, RequestId};
use galvani_model::key::Key;
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::store::Store;
use galvani_model::version::{Kind, Record};
use galvani_wire::Message;
use galvani_wire::message::{AskClocks, Get, Put, Replicate};

fn key(name: &str) -> Key {
    Key::new(BucketName::default_bucket(), name.to_owned()).expect("a key")
}

/// Reads on one side and deletes what was seen there.
fn delete(pair: &mut Pair, side: usize, name: &str) {
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
        key: key(name),
        kind: Kind::Delete,
        rid: RequestId(pair.rids),
        issued: Hlc::from_unix_ms(1_000_000),
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
    let ask = AskClocks { node: node(0), lane: LaneIndex(0), shards: vec![SHARD] };
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
    let late = Replicate { shard: SHARD, head, fsync: false, timeout_ms: 1_000, value };
    for side in 0..2 {
        pair.ask(side, Message::Replicate(late.clone()));
    }
    pair.pass(3_000);
    assert!(is_gone(&mut pair, "k"));
}
