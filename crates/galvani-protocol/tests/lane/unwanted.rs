//! Pages that bring what was not asked for, or what is not what it says: nothing of that is taken in.
//!
//! What such a peer may say was trimmed is tested in `anti_entropy/trim.rs`, what it may answer to a read
//! in `requests.rs`. Next to read: `bench.rs`, `handoff_disk.rs`.

use crate::bench::{Bench, put};
use bytes::Bytes;
use galvani_model::ids::{LaneIndex, NodeId, Origin, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::store::Store;
use galvani_model::version::{Digest, Dot, PartitionClock, Range, Record};
use galvani_protocol::{Effect, Input};
use galvani_wire::Message;
use galvani_wire::message::{Compare, HintsPulled, HintsWait, PullHints, Pulled};

const THEIRS: Origin = Origin(77);

/// A lane, a key of it and its shard.
fn bench(limits: Limits) -> (Bench, Key, Shard) {
    let bench = Bench::new(limits);
    let key = bench.key(true);
    let shard = bench.shard(&key);
    (bench, key, shard)
}

/// A write of the key that another owner has taken in, and its record as it is there.
fn record(counter: u64) -> Record {
    let (mut bench, key, _) = bench(Limits::default());
    bench.request(false, put(key, 1, 1));
    let sent = bench.tick().into_iter().find_map(|effect| match effect {
        Effect::Ask { message: Message::Replicate(replicate), .. } => Some(replicate),
        _ => None,
    });
    let sent = sent.expect("the other owners are asked");
    let (mut head, value) = (sent.head, sent.value);
    (head.dot, head.rid) = (Dot::new(THEIRS, counter), RequestId(counter.into()));
    Record { head, value }
}

/// The same head with another value of that length.
fn altered(record: Record) -> Record {
    Record { value: Bytes::from_static(b"w"), ..record }
}

fn has(bench: &mut Bench, shard: Shard, counter: u64) -> bool {
    let clock = &bench.store.replica(shard).expect("readable").clock;
    clock.contains(Dot::new(THEIRS, counter))
}

/// Another owner shows that it has taken in the first write; the question for it.
fn asked_for_the_first(bench: &mut Bench, shard: Shard) -> u64 {
    let node = bench.topology.others(shard).next().expect("three owners");
    let clock = PartitionClock::from_iter([Range { origin: THEIRS, first: 1, last: 1 }]);
    let shards = vec![(shard, clock, Digest::default())];
    bench.request(false, Message::Compare(Compare { node, lane: LaneIndex(0), shards }));
    let pull = |effect: &Effect| match effect {
        Effect::Ask { id, message: Message::Pull(_), .. } => Some(*id),
        _ => None,
    };
    for _ in 0..200 {
        if let Some(id) = bench.tick().iter().find_map(pull) {
            return id;
        }
        bench.now.micros += 10_000;
        bench.handle(Input::Wake);
    }
    panic!("what is missing is asked for");
}

#[test]
fn a_page_with_a_record_that_is_not_what_it_says_or_was_not_asked_for_is_not_taken_in() {
    for (brought, taken) in
        [(record(1), [true, false]), (altered(record(1)), [false; 2]), (record(2), [false; 2])]
    {
        let (mut bench, _, shard) = bench(Limits::default());
        let id = asked_for_the_first(&mut bench, shard);
        let through = Some(brought.head.dot);
        let (heads, values) = (vec![brought.head], vec![brought.value]);
        let pulled = Pulled { heads, values, through, ..Pulled::default() };
        bench.handle(Input::Reply { id, message: Message::Pulled(Ok(pulled)) });
        bench.tick();
        assert_eq!([1, 2].map(|counter| has(&mut bench, shard, counter)), taken);
    }
}

#[test]
fn a_hint_that_is_not_what_it_says_stays_with_its_holder_and_is_not_taken_in() {
    let (mut bench, _, shard) = bench(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let asked = |effects: &[Effect]| -> Option<(u64, PullHints)> {
        effects.iter().find_map(|effect| match effect {
            Effect::Ask { id, message: Message::PullHints(pull), .. } => Some((*id, pull.clone())),
            _ => None,
        })
    };
    let wait = HintsWait { node: NodeId(2), lane: LaneIndex(0) };
    bench.request(false, Message::HintsWait(wait));
    bench.handle(Input::Wake);
    let (id, _) = asked(&bench.tick()).expect("whoever says that it holds hints is asked");
    let (bad, good) = (altered(record(1)), record(2));
    let (heads, values) = (vec![bad.head, good.head], vec![bad.value, good.value]);
    let records = Pulled { heads, values, ..Pulled::default() };
    let page = HintsPulled { page: 5, shards: vec![shard; 2], records };
    bench.handle(Input::Reply { id, message: Message::HintsPulled(Ok(page)) });
    let (_, next) = asked(&bench.tick()).expect("the next page is asked for");
    assert_eq!((next.taken, next.refused), (5, vec![0]));
    assert_eq!([1, 2].map(|counter| has(&mut bench, shard, counter)), [false, true]);
}
