//! Read repair one step at a time: in the background within its budget, or before the answer.

use crate::bench::{Bench, answers, failure, get, put};
use bytes::Bytes;
use galvani_model::ids::{Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::store::Store;
use galvani_model::version::{Dot, DotSet, Kind, Record, Version, value_hash};
use galvani_protocol::{Effect, Input, PeerLane};
use galvani_storage::engine::FailKind;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, QuorumKind, ReplicaError};
use galvani_wire::message::{Compared, Comparison, GetDone, Held, HintsPulled, Pulled, Replicated};

/// A lane that holds one write which nobody else has heard of.
fn with_a_write(limits: Limits) -> (Bench, Key, Record) {
    let mut bench = Bench::new(limits);
    let key = bench.key(true);
    bench.request(false, put(key.clone(), 1, 1));
    let head = bench.tick().into_iter().find_map(|effect| match effect {
        Effect::Ask { message: Message::Replicate(replicate), .. } => Some(replicate.head),
        _ => None,
    });
    let record = Record { head: head.expect("replicated"), value: Bytes::from_static(b"v") };
    (bench, key, record)
}

fn blocking(message: Message) -> Message {
    let Message::Get(mut get) = message else { panic!("only reads wait: {message:?}") };
    get.options.blocking_repair = true;
    Message::Get(get)
}

/// The asks of a tick that are what `wanted` says.
fn asked(effects: &[Effect], wanted: fn(&Message) -> bool) -> Vec<(PeerLane, u64)> {
    let ask = |effect: &Effect| match effect {
        Effect::Ask { to, id, message, .. } if wanted(message) => Some((*to, *id)),
        _ => None,
    };
    effects.iter().filter_map(ask).collect()
}

fn is_fetch(message: &Message) -> bool {
    matches!(message, Message::Fetch(_))
}

fn is_supply(message: &Message) -> bool {
    matches!(message, Message::Supply(_))
}

fn is_repair(message: &Message) -> bool {
    matches!(message, Message::Replicate(replicate) if replicate.timeout_ms == 0)
}

fn holds_nothing() -> Message {
    Message::Fetched(Ok(Held {
        versions: Vec::new(),
        seen: DotSet::new(),
        heads: Vec::new(),
        values: Vec::new(),
    }))
}

/// A concurrent write of the same key, which another owner has taken in; and that it holds that alone.
fn another(like: &Record) -> (Dot, Message) {
    let mut head = like.head.clone();
    (head.dot, head.rid) = (Dot::new(Origin(77), 1), RequestId(77));
    let (dot, seen) = (head.dot, DotSet::from_iter([head.dot]));
    let (versions, values) = (vec![Version::of(&head)], vec![like.value.clone()]);
    (dot, Message::Fetched(Ok(Held { versions, seen, heads: vec![head], values })))
}

/// Ten seconds and more in which the other owners say that they have all that this one has.
fn settle(bench: &mut Bench) {
    for _ in 0..2_000 {
        bench.now.micros += 10_000;
        bench.handle(Input::Wake);
        for effect in bench.tick() {
            let Effect::Ask { id, message, .. } = effect else { continue };
            let message = match message {
                Message::Compare(compare) => {
                    let shards = vec![Comparison::Equal; compare.shards.len()];
                    Message::Compared(Ok(Compared { shards }))
                }
                Message::PullHints(_) => {
                    let (page, shards, records) = (1, Vec::new(), Pulled::default());
                    Message::HintsPulled(Ok(HintsPulled { page, shards, records }))
                }
                _ => {
                    bench.handle(Input::Undelivered { id });
                    continue;
                }
            };
            bench.handle(Input::Reply { id, message });
        }
    }
    assert!(bench.lane.is_settled(), "nothing is left to do");
}

fn done(effects: &[Effect]) -> &GetDone {
    match answers(effects)[..] {
        [Message::GetDone(done)] => done,
        ref other => panic!("one answer is expected: {other:?}"),
    }
}

#[test]
fn blocking_repair_makes_reads_monotone_by_what_r_replicas_hold() {
    let (mut bench, key, record) = with_a_write(Limits::default());
    bench.request(false, blocking(get(key, 2)));
    let fetches = asked(&bench.tick(), is_fetch);
    bench.handle(Input::Reply { id: fetches[0].1, message: holds_nothing() });
    let effects = bench.tick();
    assert!(answers(&effects).is_empty(), "only one replica holds it");
    let supplies = asked(&effects, is_supply);
    assert_eq!(supplies.len(), 1);
    assert_eq!(supplies[0].0, fetches[0].0, "who lacks it is supplied");
    let took = Message::Replicated(Replicated { result: Ok(false) });
    bench.handle(Input::Reply { id: supplies[0].1, message: took });
    let effects = bench.tick();
    assert_eq!(done(&effects).siblings[0].dot, record.head.dot);
}

#[test]
fn what_expires_while_a_blocking_read_waits_is_not_shown_any_more() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let Message::Put(mut write) = put(key.clone(), 1, 1) else { panic!("made as a put") };
    write.options.ttl_ms = Some(1_000);
    bench.request(false, Message::Put(write));
    bench.tick();
    bench.request(false, blocking(get(key, 2)));
    let fetches = asked(&bench.tick(), is_fetch);
    bench.handle(Input::Reply { id: fetches[0].1, message: holds_nothing() });
    let supplies = asked(&bench.tick(), is_supply);
    (bench.now.micros, bench.now.unix_ms) = (bench.now.micros + 900_000, bench.now.unix_ms + 1_000);
    let took = Message::Replicated(Replicated { result: Ok(false) });
    bench.handle(Input::Reply { id: supplies[0].1, message: took });
    let effects = bench.tick();
    let shown = &done(&effects).siblings[0];
    assert_eq!((shown.kind, &shown.value[..]), (Kind::Delete, &b""[..]));
}

#[test]
fn a_blocking_read_of_replicas_that_agree_supplies_nobody() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    bench.request(false, blocking(get(key, 2)));
    let fetches = asked(&bench.tick(), is_fetch);
    bench.handle(Input::Reply { id: fetches[0].1, message: holds_nothing() });
    let effects = bench.tick();
    assert!(done(&effects).siblings.is_empty());
    assert!(asked(&effects, is_supply).is_empty());
}

#[test]
fn a_blocking_read_whose_repairs_fail_says_so() {
    let (mut bench, key, _) = with_a_write(Limits::default());
    bench.request(false, blocking(get(key, 2)));
    let fetches = asked(&bench.tick(), is_fetch);
    for (_, id) in &fetches {
        bench.handle(Input::Reply { id: *id, message: holds_nothing() });
    }
    let supplies = asked(&bench.tick(), is_supply);
    assert_eq!(supplies.len(), 2);
    let full = Message::Replicated(Replicated { result: Err(ReplicaError::DiskFull) });
    bench.handle(Input::Reply { id: supplies[0].1, message: full.clone() });
    // The answer comes twice: it is still one replica's.
    bench.handle(Input::Reply { id: supplies[0].1, message: full });
    assert!(answers(&bench.tick()).is_empty(), "the other may take it in yet");
    bench.handle(Input::PeerDown(supplies[1].0));
    let expected = Failure::QuorumNotMet { what: QuorumKind::R, need: 2, got: 1, n: 3 };
    assert_eq!(failure(&bench.tick()), (expected, AppliedOutcome::No));
}

#[test]
fn nothing_of_a_failed_tick_is_supplied() {
    let (mut bench, key, _) = with_a_write(Limits::default());
    bench.request(false, blocking(get(key.clone(), 2)));
    let fetches = asked(&bench.tick(), is_fetch);
    bench.handle(Input::Reply { id: fetches[0].1, message: holds_nothing() });
    // The same tick stages a write, so that its commit can fail.
    bench.request(false, put(key, 2, 1));
    bench.engine.fail_next_commits([FailKind::IoLost]);
    let effects = bench.tick();
    assert!(asked(&effects, is_supply).is_empty());
    let failures = answers(&effects);
    assert_eq!(failures.len(), 2, "the write and the read: {failures:?}");
    assert!(failures.iter().all(|m| matches!(m, Message::Failed(_))));
    assert_eq!(bench.lane.inflight(), 0);
}

/// A read of an earlier tick is met in one that fails, after a write was staged in it: it would show that
/// write, which is refused as never stored.
#[test]
fn a_read_that_was_met_in_a_failed_tick_is_not_answered_from_it() {
    let (mut bench, key, record) = with_a_write(Limits::default());
    bench.request(false, get(key.clone(), 2));
    let fetches = asked(&bench.tick(), is_fetch);
    bench.request(false, put(key, 2, 1));
    bench.handle(Input::Reply { id: fetches[0].1, message: another(&record).1 });
    bench.engine.fail_next_commits([FailKind::IoLost]);
    let effects = bench.tick();
    let failures = answers(&effects);
    assert_eq!(failures.len(), 2, "the write and the read: {failures:?}");
    assert!(failures.iter().all(|m| matches!(m, Message::Failed(_))), "{failures:?}");
}

/// Late answers teach an answered read something, so that it repairs with the own copy; which has a write
/// staged that this tick's failure takes back.
#[test]
fn no_repair_carries_what_a_failed_tick_staged() {
    for fails in [false, true] {
        let (mut bench, key, record) = with_a_write(Limits::default());
        bench.request(false, get(key.clone(), 1));
        let fetches = asked(&bench.tick(), is_fetch);
        bench.request(false, put(key, 2, 1));
        bench.handle(Input::Reply { id: fetches[0].1, message: another(&record).1 });
        bench.handle(Input::Reply { id: fetches[1].1, message: holds_nothing() });
        bench.engine.fail_next_commits(fails.then_some(FailKind::Full));
        let sent = asked(&bench.tick(), is_repair).len();
        // Two writes to one owner, three to the other.
        assert_eq!(sent, if fails { 0 } else { 5 });
    }
}

/// Its engine is shut, and takes in nothing of what the answers bring.
#[test]
fn an_owner_that_could_not_take_in_what_it_shows_does_not_count_itself() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let (_, _, like) = with_a_write(Limits::default());
    // The second time so soon its engine stays shut.
    for rid in [1, 2] {
        bench.engine.fail_next_commits([FailKind::Poisoned]);
        bench.request(false, put(key.clone(), rid, 1));
        bench.tick();
    }
    bench.request(false, blocking(get(key, 2)));
    let fetches = asked(&bench.tick(), is_fetch);
    let (dot, holds_it) = another(&like);
    bench.handle(Input::Reply { id: fetches[0].1, message: holds_it });
    assert!(answers(&bench.tick()).is_empty(), "one replica holds it");
    bench.handle(Input::Reply { id: fetches[1].1, message: holds_nothing() });
    let effects = bench.tick();
    assert!(answers(&effects).is_empty(), "still one");
    let supplies = asked(&effects, is_supply);
    assert_eq!(supplies.len(), 1, "the other one is supplied");
    let took = Message::Replicated(Replicated { result: Ok(false) });
    bench.handle(Input::Reply { id: supplies[0].1, message: took });
    let effects = bench.tick();
    assert_eq!(done(&effects).siblings[0].dot, dot);
}

#[test]
fn what_is_beyond_the_budget_is_left_to_anti_entropy() {
    let limits = Limits { read_repairs_per_second: 1, ..Limits::default() };
    let (mut bench, key, _) = with_a_write(limits);
    let mut sent = 0;
    for _ in 0..3 {
        bench.request(false, get(key.clone(), 1));
        for (_, id) in asked(&bench.tick(), is_fetch) {
            bench.handle(Input::Reply { id, message: holds_nothing() });
        }
        sent += asked(&bench.tick(), is_repair).len();
    }
    assert_eq!(sent, 1);
    assert!(bench.lane.counters().repairs_skipped >= 3);
    assert!(!bench.lane.is_settled(), "the shard is to be compared");
    bench.now.micros += 1_000_000;
    bench.request(false, get(key, 1));
    for (_, id) in asked(&bench.tick(), is_fetch) {
        bench.handle(Input::Reply { id, message: holds_nothing() });
    }
    assert_eq!(asked(&bench.tick(), is_repair).len(), 1, "a second later there is budget again");
}

/// Anti-entropy was at rest before, and nothing else makes it compare that shard again.
#[test]
fn what_is_beyond_the_budget_is_compared_again_though_all_was_settled() {
    let limits = Limits { read_repairs_per_second: 1, verify_hours: 0, ..Limits::default() };
    let (mut bench, key, _) = with_a_write(limits);
    settle(&mut bench);
    bench.request(false, get(key, 1));
    for (_, id) in asked(&bench.tick(), is_fetch) {
        bench.handle(Input::Reply { id, message: holds_nothing() });
    }
    let sent = asked(&bench.tick(), is_repair).len();
    assert_eq!((sent, bench.lane.counters().repairs_skipped), (1, 1), "two owners lack it");
    assert!(!bench.lane.is_settled(), "the shard is to be compared");
}

/// The same for what the own copy did not take in.
#[test]
fn what_the_own_copy_lacks_beyond_the_budget_is_compared_again_though_all_was_settled() {
    let limits = Limits { read_repairs_per_second: 0, verify_hours: 0, ..Limits::default() };
    let (mut bench, key, record) = with_a_write(limits);
    settle(&mut bench);
    bench.request(false, get(key, 2));
    let fetches = asked(&bench.tick(), is_fetch);
    let (dot, mut holds_both) = another(&record);
    if let Message::Fetched(Ok(held)) = &mut holds_both {
        // So that nothing is to be sent to it.
        held.seen.insert(record.head.dot);
        held.versions.push(Version::of(&record.head));
    }
    bench.handle(Input::Reply { id: fetches[0].1, message: holds_both });
    bench.handle(Input::Undelivered { id: fetches[1].1 });
    assert_eq!(done(&bench.tick()).siblings.len(), 2);
    let shard = bench.shard(&bench.key(true));
    assert!(!bench.store.replica(shard).expect("read").clock.contains(dot));
    assert_eq!(bench.lane.counters().repairs_skipped, 1);
    assert!(!bench.lane.is_settled(), "the shard is to be compared");
}

/// What an owner itself lacks of a read it coordinates is a repair like another, unless the read waits
/// for it.
#[test]
fn the_own_copy_takes_in_within_the_budget_too() {
    let mut bench = Bench::new(Limits { read_repairs_per_second: 1, ..Limits::default() });
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let (_, _, like) = with_a_write(Limits::default());
    // Reads, hears of another write, and says whether the own copy has it then.
    let read = |bench: &mut Bench, message: Message, counter| {
        bench.request(false, message);
        let fetches = asked(&bench.tick(), is_fetch);
        let mut head = like.head.clone();
        (head.dot, head.rid) = (Dot::new(Origin(77), counter), RequestId(counter.into()));
        let (dot, seen) = (head.dot, DotSet::from_iter([head.dot]));
        let (versions, values) = (vec![Version::of(&head)], vec![like.value.clone()]);
        let held = Held { versions, seen, heads: vec![head], values };
        bench.handle(Input::Reply { id: fetches[0].1, message: Message::Fetched(Ok(held)) });
        let effects = bench.tick();
        (bench.store.replica(shard).expect("read").clock.contains(dot), effects)
    };
    let (taken, effects) = read(&mut bench, get(key.clone(), 2), 1);
    assert_eq!((taken, done(&effects).siblings.len()), (true, 1), "there is budget for one");
    let (taken, effects) = read(&mut bench, get(key.clone(), 2), 2);
    assert_eq!(
        (taken, done(&effects).siblings.len()),
        (false, 2),
        "and for no more, but it is shown"
    );
    assert_eq!(bench.lane.counters().repairs_skipped, 1);
    let (taken, _) = read(&mut bench, blocking(get(key, 2)), 3);
    assert!(taken, "this one waits for it");
}

/// The other owner's version replaces more than its record says: it replaced a tombstone there that this
/// owner, filled anew, has not heard of yet.
#[test]
fn what_an_answer_replaces_by_inheritance_is_not_shown() {
    let (mut bench, key, own) = with_a_write(Limits::default());
    let (mut head, value) = (own.head.clone(), Bytes::from_static(b"w"));
    head.dot = Dot::new(Origin(77), 9);
    head.rid = RequestId(99);
    head.value_hash = value_hash(Kind::Put, &value);
    let mut version = Version::of(&head);
    version.past.insert(own.head.dot);
    let seen = DotSet::from_iter([own.head.dot, head.dot]);
    bench.request(false, get(key, 2));
    let fetches = asked(&bench.tick(), is_fetch);
    let held = Held { versions: vec![version], seen, heads: vec![head], values: vec![value] };
    bench.handle(Input::Reply { id: fetches[0].1, message: Message::Fetched(Ok(held)) });
    let effects = bench.tick();
    let shown: Vec<Bytes> = done(&effects).siblings.iter().map(|it| it.value.clone()).collect();
    assert_eq!(shown, [Bytes::from_static(b"w")]);
}
