//! A tombstone goes when all other owners have told that they have it, and they are all there are.
//!
//! Whole clusters collect in `../anti_entropy/collect.rs`, where an owner has one other. Here it has two.

use crate::bench::{Bench, put};
use galvani_model::ids::Shard;
use galvani_model::limits::Limits;
use galvani_model::store::Store;
use galvani_model::version::Kind;
use galvani_protocol::{Effect, Input};
use galvani_wire::Message;
use galvani_wire::message::Clocks;

/// A tombstone in a shard whose owners change when node 99 joins, and the numbers of the questions for the
/// clocks of its other owners.
fn asked(bench: &mut Bench) -> (Shard, Vec<u64>) {
    let next = bench.copying();
    let mut keys = (0..).map(|number| crate::bench::key(&format!("key-{number}")));
    let moves = |shard: Shard| {
        let (old, new) = next.write_sets(shard);
        old.contains(&bench.topology.node) && new.is_some()
    };
    let key = keys.find(|key| moves(bench.shard(key))).expect("some key fits");
    let shard = bench.shard(&key);
    let Message::Put(mut delete) = put(key, 1, 1) else { panic!("it is a put") };
    (delete.kind, delete.value) = (Kind::Delete, Default::default());
    bench.request(false, Message::Put(delete));
    bench.tick();
    for _ in 0..200 {
        bench.now.micros += 100_000;
        bench.now.unix_ms += 100;
        bench.handle(Input::Wake);
        let ids = bench.tick().into_iter().filter_map(|effect| match effect {
            Effect::Ask { id, message: Message::AskClocks(ask), .. } if ask.durable => Some(id),
            _ => None,
        });
        let ids: Vec<u64> = ids.collect();
        if !ids.is_empty() {
            return (shard, ids);
        }
    }
    panic!("the owners are asked");
}

/// An owner says that it has all that this one has.
fn tell(bench: &mut Bench, shard: Shard, id: u64) {
    let clock = bench.store.replica(shard).expect("readable").clock.clone();
    let clocks =
        Clocks { epoch: bench.topology.epoch(), clocks: vec![Some(clock)], lacking: Vec::new() };
    bench.handle(Input::Reply { id, message: Message::Clocks(Ok(clocks)) });
    bench.tick();
}

fn tombstones(bench: &mut Bench, shard: Shard) -> u64 {
    bench.store.replica(shard).expect("readable").tombstones
}

#[test]
fn a_tombstone_waits_for_the_last_of_the_other_owners() {
    let mut bench = Bench::new(Limits::default());
    let (shard, ids) = asked(&mut bench);
    assert_eq!(ids.len(), 2, "three own it");
    tell(&mut bench, shard, ids[0]);
    assert_eq!(tombstones(&mut bench, shard), 1, "one has not said so");
    tell(&mut bench, shard, ids[1]);
    assert_eq!(tombstones(&mut bench, shard), 0);
}

/// Red if clocks count that were asked for before the shard came to more owners.
#[test]
fn a_tombstone_stays_when_others_own_its_shard_by_now() {
    let mut bench = Bench::new(Limits::default());
    let (shard, ids) = asked(&mut bench);
    bench.adopt(bench.copying());
    for id in ids {
        tell(&mut bench, shard, id);
    }
    assert_eq!(tombstones(&mut bench, shard), 1, "nobody has asked the new owner");
}
