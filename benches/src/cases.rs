//! The hot functions, one by one, as operations that can be repeated: for times
//! (`benches/ratios.rs`), allocations (`benches/allocations.rs`) and instruction counts
//! (`src/bin/hot.rs` under callgrind).
//!
//! What an operation takes as input is made before it is measured.

use crate::lane::{DrivenLane, Trio, get, put, shard_of};
use crate::{key, record};
use bytes::{Bytes, BytesMut};
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::{Origin, Shard};
use galvani_model::version::{Dot, Object, PartitionClock, ReadJoin, object_digest};
use galvani_protocol::{Effect, Input, ReplyTo};
use galvani_storage::engine::{Engine, MemoryEngine};
use galvani_wire::Message;
use galvani_wire::codec::{Frame, encode};
use galvani_wire::message::{Replicate, Replicated};
use std::collections::BTreeMap;
use std::hint::black_box;

/// One operation; may be called as often as it was built for.
pub type Op = Box<dyn FnMut()>;

/// Every case: its name, and what one operation of it is.
pub const CASES: &[(&str, &str)] = &[
    ("floor-row", "floor: XXH3 of a 16 B key, copy of 120 B"),
    ("floor-copy", "floor: copy of 1 KiB"),
    ("clock-compare", "two clocks of three origins compared"),
    ("clock-merge", "a clock of three origins merged into another"),
    ("clock-insert", "the next dot taken into a clock"),
    ("apply-object", "a replacing write applied to an object"),
    ("digest", "the digest of an object"),
    ("join", "three equal answers joined"),
    ("encode-put", "a put of 1 KiB encoded"),
    ("decode-put", "a put of 1 KiB decoded"),
    ("encode-replicate", "a record of 1 KiB encoded"),
    ("decode-replicate", "a record of 1 KiB decoded"),
    ("tick-empty", "lane: a tick with nothing in it"),
    ("tick-put", "lane: a put at its coordinator, both ticks"),
    ("tick-replicate", "lane: a put at another owner"),
    ("lanes-put", "lanes: a put W=2 N=3, all three owners"),
    ("lanes-get", "lanes: a get R=2 N=3, all three owners"),
];

/// Builds the case called `name` for `count` operations, with engines in memory.
pub fn build(name: &str, count: u64) -> Option<Op> {
    Some(match name {
        "floor-row" => floor_row(),
        "floor-copy" => floor_copy(),
        "clock-compare" => {
            let (one, other) = (clock(1_000), clock(1_001));
            Box::new(move || drop(black_box(black_box(&one).missing_from(black_box(&other)))))
        }
        "clock-merge" => {
            let (mut one, other) = (clock(1_000), clock(1_001));
            Box::new(move || black_box(&mut one).union(black_box(&other)))
        }
        "clock-insert" => {
            let mut one = clock(0);
            let mut counter = 0;
            Box::new(move || {
                counter += 1;
                black_box(one.insert(Dot::new(Origin(1), counter)));
            })
        }
        "apply-object" => apply_object(),
        "digest" => {
            let (key, object) = (key(1), object());
            Box::new(move || {
                black_box(object_digest(black_box(&key), black_box(&object)));
            })
        }
        "join" => {
            let object = object();
            let seen = object.seen();
            Box::new(move || {
                let mut join = ReadJoin::new();
                (0..3).for_each(|_| join.add(black_box(&object), &seen));
                black_box(join.object(ConflictPolicy::Siblings));
            })
        }
        "encode-put" => encoding(put(1)),
        "decode-put" => decoding(&put(1)),
        "encode-replicate" => encoding(replicate(shard_of(1), 1, 1)),
        "decode-replicate" => decoding(&replicate(shard_of(1), 1, 1)),
        "tick-empty" => {
            let mut lane = DrivenLane::new(1, MemoryEngine::new());
            Box::new(move || drop(black_box(lane.tick())))
        }
        "tick-put" => tick_put(MemoryEngine::new(), count),
        "tick-replicate" => tick_replicate(MemoryEngine::new(), count),
        "lanes-put" => lanes_put([(); 3].map(|()| MemoryEngine::new()), count),
        "lanes-get" => lanes_get([(); 3].map(|()| MemoryEngine::new()), count),
        _ => return None,
    })
}

fn floor_row() -> Op {
    let (key, row, mut out) = ([7_u8; 16], [1_u8; 120], [0_u8; 120]);
    Box::new(move || {
        black_box(xxhash_rust::xxh3::xxh3_64(black_box(&key)));
        out.copy_from_slice(black_box(&row));
        black_box(&out);
    })
}

fn floor_copy() -> Op {
    let (value, mut out) = (vec![b'x'; 1_024], BytesMut::with_capacity(4_096));
    Box::new(move || {
        out.clear();
        out.extend_from_slice(black_box(&value));
        black_box(&out);
    })
}

fn clock(counter: u64) -> PartitionClock {
    let mut clock = PartitionClock::new();
    for origin in 1..=3 {
        for counter in 1..=counter {
            clock.insert(Dot::new(Origin(origin), counter));
        }
    }
    clock
}

fn object() -> Object {
    let mut object = Object::absent();
    object.apply(&record(1, 1, 1, 1_024).head, false, ConflictPolicy::Siblings);
    object
}

fn apply_object() -> Op {
    let object = object();
    let mut second = record(2, 1, 1, 1_024);
    second.head.past.insert(record(1, 1, 1, 0).head.dot);
    Box::new(move || {
        let mut object = black_box(&object).clone();
        object.apply(black_box(&second.head), false, ConflictPolicy::Siblings);
        black_box(object);
    })
}

fn replicate(shard: Shard, counter: u64, number: u64) -> Message {
    let record = record(1, counter, number, 1_024);
    Message::Replicate(Replicate {
        shard,
        head: record.head,
        fsync: false,
        epoch: 1,
        timeout_ms: 2_000,
        value: record.value,
    })
}

fn encoding(message: Message) -> Op {
    let mut out = BytesMut::with_capacity(4_096);
    Box::new(move || {
        out.clear();
        encode(1, false, black_box(&message), &mut out).expect("a small header");
        black_box(&out);
    })
}

fn decoding(message: &Message) -> Op {
    let mut out = BytesMut::new();
    encode(1, false, message, &mut out).expect("a small header");
    let frame: Bytes = out.freeze();
    Box::new(move || drop(black_box(Frame::decode(frame.clone()))))
}

/// Puts at a coordinator whose replicas answer at once, in its next tick.
pub fn tick_put<E: Engine + 'static>(engine: E, count: u64) -> Op {
    let mut lane = DrivenLane::new(1, engine);
    let mut messages: Vec<Message> = (0..count).map(put).collect();
    Box::new(move || {
        let message = messages.pop().expect("as many as it was built for");
        for effect in lane.client_tick(message) {
            if let Effect::Ask { id, message: Message::Replicate(_), .. } = effect {
                let message = Message::Replicated(Replicated { result: Ok(false) });
                lane.handle(Input::Reply { id, message });
            }
        }
        let done =
            |effect: &Effect| matches!(effect, Effect::Answer { message: Message::PutDone(_), .. });
        assert!(lane.tick().iter().any(done), "a put that two owners have is done");
    })
}

/// Records that a coordinator sends, at one of the other owners.
pub fn tick_replicate<E: Engine + 'static>(engine: E, count: u64) -> Op {
    let mut lane = DrivenLane::new(2, engine);
    // Dense in each shard, so that clocks stay one span, as they do where nothing is lost.
    let mut counters = BTreeMap::new();
    let mut messages: Vec<Message> = (0..count)
        .map(|number| {
            let shard = shard_of(number);
            let counter = counters.entry(shard).or_insert(0);
            *counter += 1;
            replicate(shard, *counter, number)
        })
        .collect();
    messages.reverse();
    let mut id = 0;
    Box::new(move || {
        id += 1;
        lane.request(ReplyTo { link: 0, id }, messages.pop().expect("as many as built for"));
        let taken = |effect: &Effect| match effect {
            Effect::Answer { message: Message::Replicated(it), .. } => it.result.is_ok(),
            _ => false,
        };
        assert!(lane.tick().iter().any(taken), "an owner takes in what is new");
    })
}

/// Puts through all three owners.
pub fn lanes_put<E: Engine + 'static>(engines: [E; 3], count: u64) -> Op {
    let mut trio = Trio::new(engines);
    let mut messages: Vec<Message> = (0..count).map(put).collect();
    Box::new(move || drop(black_box(trio.run(messages.pop().expect("as many as built for")))))
}

/// Gets of 100 keys through all three owners.
pub fn lanes_get<E: Engine + 'static>(engines: [E; 3], count: u64) -> Op {
    let mut trio = Trio::new(engines);
    (0..100).for_each(|number| drop(trio.run(put(number))));
    let mut messages: Vec<Message> = (0..count).map(|number| get(number % 100)).collect();
    Box::new(move || drop(black_box(trio.run(messages.pop().expect("as many as built for")))))
}

#[cfg(test)]
mod tests {
    use super::{CASES, build};

    #[test]
    fn every_case_runs_as_often_as_it_was_built_for() {
        for (name, _) in CASES {
            let mut op = build(name, 20).unwrap_or_else(|| panic!("no case {name}"));
            (0..20).for_each(|_| op());
        }
        assert!(build("none", 1).is_none());
    }
}
