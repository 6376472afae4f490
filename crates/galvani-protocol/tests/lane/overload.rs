//! Overload of one lane: what is turned away at the door, when, and what it costs.
//!
//! The bound itself is tested in `admission.rs`, a storm against it in `tests/overload.rs`; here it
//! is wired into a lane. Next to read: `bench.rs`.

use crate::bench::{Bench, answers, asks, failure, get, key, put, strict};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::ids::{NodeId, Origin, Partition, RequestId};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::request::{Quorum, ReadOptions};
use galvani_model::version::{Dot, DotSet, Version};
use galvani_protocol::admission::{INTERVAL_MICROS, LEAST};
use galvani_protocol::{Effect, Input};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::message::{Failed, Held, HeldPage, List, Put, Replicated};

/// Sends so many writes at once, and lets all that they ask be answered this much later. Returns
/// how many were turned away.
fn round(bench: &mut Bench, writes: u32, late_micros: u64) -> usize {
    let (mut asked, mut turned) = (Vec::new(), 0);
    for _ in 0..writes {
        let rid = u128::from(bench.requests) + 1_000;
        let owned = |key: &Key| bench.topology.is_replica(NodeId(1), bench.shard(key));
        let mut keys = (0..).map(|number| key(&format!("{rid}-{number}")));
        let key = keys.find(owned).expect("some key is owned");
        bench.request(false, strict(put(key, rid, 2)));
        let effects = bench.tick();
        asked.extend(asks(&effects));
        turned += answers(&effects).into_iter().filter(|answer| is_turned_away(answer)).count();
    }
    bench.now.micros += late_micros;
    for (_, id) in asked {
        let stored = Message::Replicated(Replicated { result: Ok(false) });
        bench.handle(Input::Reply { id, message: stored });
        bench.tick();
    }
    turned
}

fn is_turned_away(answer: &Message) -> bool {
    let Message::Failed(Failed { failure: Failure::Overloaded { .. }, applied, .. }) = answer
    else {
        return false;
    };
    *applied == AppliedOutcome::No
}

#[test]
fn more_than_can_be_done_is_turned_away_before_it_is_stored_and_taken_again_later() {
    let mut bench = Bench::new(Limits::default());
    assert_eq!(round(&mut bench, 100, 1_000), 0, "all is well");
    assert_eq!(round(&mut bench, 100, INTERVAL_MICROS * 2), 0, "once may be a burst");
    for _ in 0..10 {
        round(&mut bench, 100, INTERVAL_MICROS * 2);
    }
    assert_eq!(bench.lane.admits(), LEAST);
    let before = bench.lane.counters().turned_away;
    assert_eq!(round(&mut bench, 100, INTERVAL_MICROS * 2), 100 - LEAST);
    assert_eq!(bench.lane.counters().turned_away, before + 100 - LEAST as u64);
    for _ in 0..20 {
        round(&mut bench, 10, INTERVAL_MICROS / 100);
        bench.now.micros += INTERVAL_MICROS;
    }
    assert_eq!(round(&mut bench, 100, 1_000), 0, "the queue is gone");
}

#[test]
fn a_way_that_has_become_longer_is_not_taken_for_a_queue_for_ever() {
    let mut bench = Bench::new(Limits::default());
    round(&mut bench, 100, 1_000);
    let mut least = usize::MAX;
    for _ in 0..80 {
        round(&mut bench, 100, INTERVAL_MICROS * 2);
        least = least.min(bench.lane.admits());
    }
    assert_eq!(least, LEAST);
    assert!(bench.lane.admits() > 4 * LEAST, "{}", bench.lane.admits());
}

#[test]
fn a_peer_that_is_slow_alone_turns_nobody_away() {
    let mut bench = Bench::new(Limits { siblings_max: 1_000_000, ..Limits::default() });
    let key = bench.key(true);
    for rid in 1..=600 {
        bench.request(false, strict(put(key.clone(), rid, 2)));
        let effects = bench.tick();
        assert!(!answers(&effects).into_iter().any(is_turned_away), "write {rid}");
        // The first owner answers at once, the second one half a second later, after a good start.
        let asked = asks(&effects);
        bench.now.micros += 1_000;
        let stored = || Message::Replicated(Replicated { result: Ok(false) });
        bench.handle(Input::Reply { id: asked[0].1, message: stored() });
        bench.now.micros += if rid > 10 { 500_000 } else { 0 };
        bench.handle(Input::Reply { id: asked[1].1, message: stored() });
        bench.tick();
    }
    assert_eq!(bench.lane.admits(), Limits::default().inflight);
}

/// The keys of a partition as all three owners have them.
fn list(partition: Partition) -> Message {
    let options = ReadOptions { r: Some(Quorum::Exactly(3)), ..ReadOptions::default() };
    Message::List(List {
        bucket: BucketName::default_bucket(),
        prefix: Bytes::new(),
        after: None,
        limit: 1_000,
        partition,
        options,
        timeout_ms: 60_000,
    })
}

/// Pages of keys are held until the other replicas have answered, too.
#[test]
fn listings_count_against_what_a_lane_holds() {
    let limits = Limits { held_bytes: 2 << 20, ..Limits::default() };
    let mut bench = Bench::new(limits.clone());
    let mut shard = None;
    for number in 0..400_u128 {
        let key = key(&format!("{number:01000}"));
        if bench.topology.is_replica(NodeId(1), bench.shard(&key)) {
            shard.get_or_insert(bench.shard(&key));
        }
        bench.request(true, put(key, number + 1, 1));
        bench.tick();
    }
    let partition = shard.expect("some key is owned").partition;
    let (mut held, mut turned) = (0, 0);
    for _ in 0..1_000 {
        bench.request(false, list(partition));
        turned += answers(&bench.tick()).into_iter().filter(|one| is_turned_away(one)).count();
        held = held.max(bench.lane.held_bytes());
    }
    assert!(held > limits.held_bytes / 4 && held <= limits.held_bytes, "{held}");
    assert!(turned > 500, "{turned} of 1,000");
}

/// A page that a replica sends is held until the others have answered, as the own one is.
#[test]
fn a_page_of_another_replica_that_does_not_fit_counts_as_no_answer() {
    let limits = Limits { held_bytes: 2 << 20, ..Limits::default() };
    let mut bench = Bench::new(limits.clone());
    let shard = bench.shard(&bench.key(true));
    // Whoever is alone may hold what it needs.
    bench.request(true, put(bench.key(true), 1, 3));
    bench.tick();
    assert!(bench.lane.held_bytes() > 0);
    bench.request(false, list(shard.partition));
    let effects = bench.tick();
    let entry = |number: usize| (Bytes::from(format!("{number:01000}")), Vec::new());
    let page = || HeldPage { keys: (0..1_200).map(entry).collect(), more: false };
    let asked = asks(&effects);
    assert_eq!(asked.len(), 2, "the other owners");
    for (turn, &(_, id)) in asked.iter().enumerate() {
        assert_eq!(answers(&bench.tick()), [] as [&Message; 0], "page {turn}");
        bench.handle(Input::Reply { id, message: Message::FetchedPage(Ok(page())) });
        assert!(bench.lane.held_bytes() <= limits.held_bytes, "page {turn}");
    }
    let effects = bench.tick();
    let (failure, _) = failure(&effects);
    assert!(matches!(failure, Failure::QuorumNotMet { .. }), "{failure:?}");
}

/// The same for the values of a key: they are held until all that are asked have answered.
#[test]
fn values_of_another_replica_that_do_not_fit_count_as_no_answer() {
    let large = vec![7; 600 << 10];
    let mut source = Bench::new(Limits::default());
    let key = source.key(true);
    let Message::Put(made) = put(key.clone(), 9, 1) else { panic!("made as a put") };
    source.request(false, Message::Put(Put { value: large.into(), ..made }));
    let sent = source.tick().into_iter().find_map(|effect| match effect {
        Effect::Ask { message: Message::Replicate(replicate), .. } => Some(replicate),
        _ => None,
    });
    let sent = sent.expect("the other owners are asked");
    // Of another write each.
    let held = |counter: u64| {
        let mut head = sent.head.clone();
        (head.dot, head.rid) = (Dot::new(Origin(77), counter), RequestId(counter.into()));
        let (versions, seen) = (vec![Version::of(&head)], DotSet::from_iter([head.dot]));
        Held { versions, seen, heads: vec![head], values: vec![sent.value.clone()] }
    };
    let limits = Limits { held_bytes: 1 << 20, ..Limits::default() };
    let mut bench = Bench::new(limits.clone());
    // Whoever is alone may hold what it needs.
    bench.request(true, put(key.clone(), 1, 3));
    bench.tick();
    assert!(bench.lane.held_bytes() > 0);
    bench.request(false, get(key, 3));
    let asked = asks(&bench.tick());
    assert_eq!(asked.len(), 2, "the other owners");
    for (counter, (_, id)) in (1..).zip(asked) {
        assert_eq!(answers(&bench.tick()), [] as [&Message; 0], "answer {counter}");
        bench.handle(Input::Reply { id, message: Message::Fetched(Ok(held(counter))) });
        assert!(bench.lane.held_bytes() <= limits.held_bytes, "answer {counter}");
    }
    let (failure, _) = failure(&bench.tick());
    assert!(matches!(failure, Failure::QuorumNotMet { got: 2, .. }), "{failure:?}");
}

/// Whatever clients send, and if no peer ever answers: the lane holds what its limits say.
#[test]
fn memory_bound() {
    const VALUE: usize = 64 << 10;
    let limits = Limits { held_bytes: 1 << 20, inflight: 200, ..Limits::default() };
    let mut bench = Bench::new(limits.clone());
    let mut turned = 0;
    for number in 0..2_000 {
        let Message::Put(made) = put(key(&format!("k{number}")), number, 3) else {
            panic!("made as a put")
        };
        let large = Put { value: vec![7; VALUE].into(), ..made };
        bench.request(number % 2 == 0, Message::Put(large));
        bench.request(false, get(key(&format!("k{number}")), 3));
        let effects = bench.tick();
        turned += answers(&effects).into_iter().filter(|answer| is_turned_away(answer)).count();
        for effect in &effects {
            assert!(!matches!(effect, Effect::Datagram { .. }), "nothing else is said");
        }
        assert!(bench.lane.held_bytes() <= limits.held_bytes + VALUE, "request {number}");
        assert!(bench.lane.inflight() <= limits.inflight, "request {number}");
    }
    assert!(turned > 1_000, "{turned} of 4,000");
}
