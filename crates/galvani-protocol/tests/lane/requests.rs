//! Requests of clients and peers: what a lane answers, asks and takes back, one input at a time.
//!
//! Whole clusters under faults are the simulator's; these pin down single steps. Next to read:
//! `bench.rs`.

use crate::bench::{Bench, answers, asks, failure, get, key, peer, put, strict};
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{LaneIndex, NodeId, Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::store::{Store, StoreError};
use galvani_model::version::{Digest, Dot, DotSet, Kind, RecordHead, Version, value_hash};
use galvani_protocol::{Effect, Input, ReplyTo};
use galvani_storage::engine::FailKind;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, QuorumKind, ReplicaError};
use galvani_wire::message::{
    Compare, CreateBucket, Failed, Fetch, FetchPage, Held, Hint, Put, Replicate, Replicated,
};

#[test]
fn dup_ack_a_write_is_answered_when_w_distinct_owners_have_it() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    bench.request(false, put(key, 1, 3));
    let effects = bench.tick();
    let asked = asks(&effects);
    assert_eq!(asked.len(), 2, "the other owners are asked");
    assert!(answers(&effects).is_empty());
    let stored = || Message::Replicated(Replicated { result: Ok(false) });
    bench.handle(Input::Reply { id: asked[0].1, message: stored() });
    bench.handle(Input::Reply { id: asked[0].1, message: stored() });
    assert!(answers(&bench.tick()).is_empty(), "the same replica twice is still one");
    bench.handle(Input::Reply { id: asked[1].1, message: stored() });
    assert!(matches!(answers(&bench.tick())[..], [Message::PutDone(_)]));
}

#[test]
fn what_cannot_be_reached_is_refused_before_it_is_written() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let owners = bench.topology.owners(bench.shard(&key));
    let away = *owners.iter().find(|&&node| node != NodeId(1)).expect("three owners");
    bench.handle(Input::PeerDown(peer(away)));
    bench.request(false, strict(put(key.clone(), 1, 3)));
    let expected = Failure::ReplicasDown { what: QuorumKind::W, need: 3, up: 2, n: 3 };
    let effects = bench.tick();
    assert_eq!(failure(&effects), (expected, AppliedOutcome::No));
    assert!(asks(&effects).is_empty());
    bench.request(false, get(key, 1));
    let Some(Message::GetDone(done)) = answers(&bench.tick()).first().cloned().cloned() else {
        panic!("r=1 is this node alone");
    };
    assert_eq!(done.siblings, []);
}

#[test]
fn a_replica_that_goes_away_decides_the_write_once_the_others_have_spoken() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    bench.request(false, strict(put(key, 1, 3)));
    let asked = asks(&bench.tick());
    bench.handle(Input::PeerDown(asked[0].0));
    assert!(answers(&bench.tick()).is_empty(), "the third may speak yet");
    let stored = Message::Replicated(Replicated { result: Ok(false) });
    bench.handle(Input::Reply { id: asked[1].1, message: stored });
    let expected = Failure::QuorumNotMet { what: QuorumKind::W, need: 3, got: 2, n: 3 };
    assert_eq!(failure(&bench.tick()), (expected, AppliedOutcome::Maybe { acks: 2 }));
}

#[test]
fn a_lost_write_does_not_wait_long_for_the_silent() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    bench.request(false, strict(put(key, 1, 3)));
    let asked = asks(&bench.tick());
    bench.handle(Input::PeerDown(asked[0].0));
    bench.tick();
    bench.now.micros += 200_000;
    bench.handle(Input::Wake);
    let expected = Failure::QuorumNotMet { what: QuorumKind::W, need: 3, got: 1, n: 3 };
    assert_eq!(failure(&bench.tick()), (expected, AppliedOutcome::Maybe { acks: 1 }));
}

#[test]
fn a_failed_commit_takes_back_what_the_tick_began() {
    for (fail, applied) in [
        (FailKind::Full, AppliedOutcome::No),
        (FailKind::IoLost, AppliedOutcome::Maybe { acks: 0 }),
        (FailKind::IoKept, AppliedOutcome::Maybe { acks: 0 }),
    ] {
        let mut bench = Bench::new(Limits::default());
        let key = bench.key(true);
        bench.engine.fail_next_commits([fail]);
        bench.request(false, put(key.clone(), 1, 1));
        let effects = bench.tick();
        let (failure, said) = failure(&effects);
        assert!(matches!(failure, Failure::Coordinator(_)), "{failure:?}");
        assert_eq!(said, applied, "{fail:?}");
        assert!(asks(&effects).is_empty(), "no dot of a failed tick leaves");
        assert_eq!(bench.lane.inflight(), 0);
        if applied == AppliedOutcome::No {
            bench.request(false, get(key, 1));
            let effects = bench.tick();
            assert!(
                matches!(answers(&effects)[..], [Message::GetDone(d)] if d.siblings.is_empty())
            );
        }
    }
}

#[test]
fn after_a_failed_commit_nothing_is_due_at_once() {
    let mut bench = Bench::new(Limits::default());
    bench.handle(Input::Wake);
    bench.tick();
    let due = bench.lane.next_deadline().expect("a member always looks at its peers again");
    bench.now.micros = due;
    bench.handle(Input::Wake);
    bench.lane.end_tick(Err(StoreError::Failed { what: "closed".into() }));
    let again = bench.lane.next_deadline().expect("nothing is given up");
    assert!(again >= due + 10_000, "due {due}, again {again}");
}

#[test]
fn what_is_not_mended_here_keeps_no_lane_awake() {
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let owners = bench.topology.owners(shard);
    let other = owners.into_iter().find(|&node| node != NodeId(1)).expect("three owners");
    let state = bench.store.replica(shard).expect("readable").clone();
    // A peer with anti-entropy compares: it has taken in the same and holds something else.
    let shards = vec![(shard, state.clock, Digest(7))];
    bench.request(false, Message::Compare(Compare { node: other, lane: LaneIndex(0), shards }));
    let effects = bench.tick();
    assert!(matches!(answers(&effects)[..], [Message::Compared(Ok(_))]), "{effects:?}");
    bench.handle(Input::Wake);
    bench.tick();
    assert!(bench.lane.next_deadline().is_none_or(|due| due > bench.now.micros));
}

#[test]
fn ack_before_fsync_becomes_an_error_when_the_commit_fails() {
    let mut coordinator = Bench::new(Limits::default());
    let key = coordinator.key(true);
    coordinator.request(false, put(key, 1, 1));
    let replicate = coordinator.tick().into_iter().find_map(|effect| match effect {
        Effect::Ask { message, .. } => Some(message),
        _ => None,
    });
    let mut replica = Bench::new(Limits::default());
    replica.request(true, replicate.expect("the others are asked"));
    let effects = replica.lane.end_tick(Err(StoreError::Full));
    let refused = Replicated { result: Err(ReplicaError::DiskFull) };
    assert_eq!(answers(&effects), [&Message::Replicated(refused)]);
}

#[test]
fn answered_writes_that_wait_for_a_silent_replica_do_not_fill_the_lane() {
    let limits = Limits { inflight: 4, anti_entropy_ms: 0, verify_hours: 0, ..Limits::default() };
    let mut bench = Bench::new(limits);
    let key = bench.key(true);
    for rid in 1..=100 {
        bench.request(false, put(key.clone(), rid, 1));
        let effects = bench.tick();
        let done = answers(&effects);
        let full = rid > 90 && matches!(done[..], [Message::Failed(_)]);
        assert!(matches!(done[..], [Message::PutDone(_)]) || full, "write {rid}: {done:?}");
    }
    assert_eq!(bench.lane.inflight(), 0);
    bench.now.micros += 1_000_000;
    bench.handle(Input::Wake);
    assert!(bench.lane.is_settled(), "nobody is listened to for ever");
}

#[test]
fn more_than_the_lane_takes_on_is_refused_and_comes_again() {
    let limits = Limits { inflight: 2, ..Limits::default() };
    let mut bench = Bench::new(limits);
    let key = bench.key(true);
    for rid in 1..=2 {
        bench.request(false, put(key.clone(), rid, 3));
        bench.tick();
    }
    bench.request(false, put(key, 3, 3));
    let (failure, applied) = failure(&bench.tick());
    assert!(matches!(failure, Failure::Overloaded { .. }));
    assert_eq!(applied, AppliedOutcome::No);
}

/// What a peer that lost its mind may answer to a fetch; none of it counts, none of it stays.
#[test]
fn answers_that_do_not_hold_together_are_no_answers() {
    let mut source = Bench::new(Limits::default());
    let key = source.key(true);
    source.request(false, put(key.clone(), 1, 1));
    let sent = source.tick().into_iter().find_map(|effect| match effect {
        Effect::Ask { message: Message::Replicate(replicate), .. } => Some(replicate),
        _ => None,
    });
    let good = sent.expect("the others are asked");
    let held = |version: Version, head: RecordHead| Held {
        versions: vec![version],
        seen: DotSet::new(),
        heads: vec![head],
        values: vec![good.value.clone()],
    };
    let no_dots = Version { dots: [].into_iter().collect(), ..Version::of(&good.head) };
    let mut zero = good.head.clone();
    zero.dot.counter = 0;
    let longer = Version { value_len: 99, ..Version::of(&good.head) };
    // A version whose record nobody sent: it could only be shown without its value.
    let mut named = held(Version::of(&good.head), good.head.clone());
    (named.heads, named.values) = (Vec::new(), Vec::new());
    for bad in [
        held(no_dots, good.head.clone()),
        held(Version::of(&zero), zero.clone()),
        held(longer, good.head.clone()),
        named,
    ] {
        let mut bench = Bench::new(Limits::default());
        bench.request(false, get(key.clone(), 3));
        for (_, id) in asks(&bench.tick()) {
            bench.handle(Input::Reply { id, message: Message::Fetched(Ok(bad.clone())) });
        }
        let expected = Failure::QuorumNotMet { what: QuorumKind::R, need: 3, got: 1, n: 3 };
        assert_eq!(failure(&bench.tick()).0, expected, "{bad:?}");
        bench.request(false, get(key.clone(), 1));
        let effects = bench.tick();
        assert!(matches!(answers(&effects)[..], [Message::GetDone(d)] if d.siblings.is_empty()));
    }
}

#[test]
fn a_request_is_sent_on_to_an_owner_once() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(false);
    bench.request(false, put(key.clone(), 1, 2));
    let asked = asks(&bench.tick());
    assert_eq!(asked.len(), 1);
    assert!(bench.topology.owners(bench.shard(&key)).contains(&asked[0].0.node));
    bench.request(true, put(key, 2, 2));
    let expected = Failure::LayoutChanged;
    assert_eq!(failure(&bench.tick()), (expected, AppliedOutcome::No));
}

#[test]
fn a_retry_is_the_same_write() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let mut dots = Vec::new();
    for _ in 0..2 {
        bench.request(false, put(key.clone(), 1, 1));
        for message in answers(&bench.tick()) {
            let Message::PutDone(done) = message else { panic!("{message:?}") };
            dots.push((done.dot, done.siblings));
        }
    }
    assert_eq!(dots[0], dots[1]);
    assert_eq!(bench.lane.counters().retries_recognised, 1);
}

#[test]
fn a_bucket_is_refused_at_once_while_a_node_is_known_to_be_down() {
    let create = || {
        let name: BucketName = "logs".parse().expect("a name");
        let props = BucketProps::with_copies(3);
        Message::CreateBucket(CreateBucket { name, props, timeout_ms: 2000 })
    };
    let defines = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::DefineBucket { .. }))
    };
    // Buckets are made on node 1: asked itself, and another node asked, while a third is away and
    // while node 1 itself is.
    let home = Bench::new(Limits::default()).topology.bucket_home();
    assert_eq!(home, NodeId(1));
    for (me, down, expected) in [
        (1, 3, Failure::MemberDown { node: NodeId(3) }),
        (2, 1, Failure::MemberDown { node: NodeId(1) }),
        (2, 3, Failure::BucketHome { node: home }),
    ] {
        let mut bench = Bench::of(NodeId(me), Limits::default());
        bench.handle(Input::PeerDown(peer(NodeId(down))));
        bench.tick();
        bench.request(false, create());
        let effects = bench.tick();
        assert_eq!(failure(&effects), (expected, AppliedOutcome::No), "{me} {down}");
        assert!(asks(&effects).is_empty() && !defines(&effects), "nothing is told to anyone");
        // Back again: it goes on, or the client is sent on.
        bench.handle(Input::PeerUp(peer(NodeId(down))));
        bench.request(false, create());
        let effects = bench.tick();
        assert_eq!(defines(&effects), me == 1, "{me} {down}");
    }
}

#[test]
fn reads_hold_no_more_bytes_of_values_than_the_lane_may() {
    let limits = Limits { held_bytes: 100, ..Limits::default() };
    let mut bench = Bench::new(limits);
    let key = bench.key(true);
    let value = |put: Message, bytes: usize| match put {
        Message::Put(put) => Message::Put(Put { value: vec![7; bytes].into(), ..put }),
        other => other,
    };
    for (rid, bytes) in [(1, 60), (2, 30)] {
        // Strict ones: they hold nothing for stand-ins.
        bench.request(false, strict(value(put(key.clone(), rid, 1), bytes)));
        bench.tick();
    }
    // Each holds 90 bytes until another replica answers; the second one would make it 180.
    bench.request(false, get(key.clone(), 3));
    assert!(answers(&bench.tick()).is_empty(), "it waits for the others");
    assert_eq!(bench.lane.held_bytes(), 90);
    bench.request(false, get(key.clone(), 3));
    bench.tick();
    assert_eq!(bench.lane.held_bytes(), 90, "its own copy was not taken as an answer");
    // Alone on its lane a read may hold all that its key has.
    bench.request(false, strict(value(put(key.clone(), 3, 1), 80)));
    bench.now.micros += 3_000_000;
    bench.handle(Input::Wake);
    bench.tick();
    assert_eq!(bench.lane.held_bytes(), 0, "answered reads hold nothing");
    bench.request(false, get(key.clone(), 3));
    bench.tick();
    assert_eq!(bench.lane.held_bytes(), 170);
    // Now nothing more is taken on, and nothing of it was done.
    bench.request(false, put(key, 4, 1));
    let (failure, applied) = failure(&bench.tick());
    assert!(matches!(failure, Failure::Overloaded { .. }), "{failure:?}");
    assert_eq!(applied, AppliedOutcome::No);
}

#[test]
fn expired_work_is_dropped() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let record = |counter| {
        let value = Bytes::from_static(b"v");
        let head = RecordHead {
            dot: Dot::new(Origin(77), counter),
            key: key.clone(),
            past: DotSet::new(),
            hlc: Hlc::from_unix_ms(1_000_000),
            rid: RequestId(u128::from(counter)),
            author: NodeId(2),
            kind: Kind::Put,
            value_len: 1,
            value_hash: value_hash(Kind::Put, &value),
            expires_ms: 0,
            supersedes: Default::default(),
            concurrent: Default::default(),
            emits: Vec::new(),
        };
        (head, value)
    };
    let replicate = |counter, timeout_ms| {
        let (head, value) = record(counter);
        Message::Replicate(Replicate { shard, head, fsync: false, epoch: 1, timeout_ms, value })
    };
    let hint = |counter, timeout_ms| {
        let (head, value) = record(counter);
        let record = Replicate { shard, head, fsync: false, epoch: 1, timeout_ms, value };
        Message::Hint(Hint { owner: NodeId(3), record })
    };
    let fetch = || {
        let (have, shown) = (Vec::new(), Vec::new());
        let (key, records) = (key.clone(), true);
        Message::Fetch(Fetch { shard, key, records, have, shown, epoch: 1, timeout_ms: 100 })
    };
    let page = || {
        let (bucket, prefix) = (BucketName::default_bucket(), Bytes::new());
        let (after, limit, timeout_ms) = (None, 9, 100);
        Message::FetchPage(FetchPage { shard, bucket, prefix, after, limit, timeout_ms, epoch: 1 })
    };
    // (request, milliseconds it waited in the inbox, what it is answered with)
    let expired: Result<bool, _> = Err(ReplicaError::Expired);
    let cases = [
        (replicate(1, 100), 100, Message::Replicated(Replicated { result: expired.clone() })),
        (replicate(1, 100), 99, Message::Replicated(Replicated { result: Ok(false) })),
        // A repair: nobody waits for it, and it is done whenever its turn comes.
        (replicate(2, 0), 60_000, Message::Replicated(Replicated { result: Ok(false) })),
        (hint(3, 100), 100, Message::Replicated(Replicated { result: expired.clone() })),
        (fetch(), 5_000, Message::Fetched(Err(ReplicaError::Expired))),
        (page(), 100, Message::FetchedPage(Err(ReplicaError::Expired))),
    ];
    for (message, waited_ms, answer) in cases {
        bench.now.micros += 100_000_000;
        let from = ReplyTo { link: 1, id: 500 };
        let arrived = bench.now.micros - waited_ms * 1000;
        bench.handle(Input::Request { from, forwarded: false, arrived, message });
        let effects = bench.tick();
        assert_eq!(answers(&effects), [&answer], "after {waited_ms} ms");
    }
    assert_eq!(bench.lane.counters().replicated, 2, "the expired one was not taken in");
    // A client's put that waited too long is refused, and certainly not stored.
    let arrived = bench.now.micros - 2_000_000;
    let from = ReplyTo { link: 1, id: 501 };
    let message = put(key.clone(), 9, 1);
    bench.handle(Input::Request { from, forwarded: false, arrived, message });
    let effects = bench.tick();
    let [Message::Failed(Failed { failure, applied, .. })] = answers(&effects)[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((failure, applied), (&Failure::DeadlinePassed, &AppliedOutcome::No));
    assert_eq!(bench.lane.counters().expired, 5);
    assert_eq!(bench.lane.inflight(), 0);
}

#[test]
fn a_write_from_the_future_and_a_delete_with_a_value_are_refused_before_they_are_stored() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let edit = |rid, change: fn(&mut Put)| {
        let Message::Put(mut made) = put(key.clone(), rid, 1) else { panic!("made as a put") };
        change(&mut made);
        Message::Put(made)
    };
    // The lane's clock says 1,000,000 ms; ten minutes ahead of it is the bound.
    bench.request(false, edit(1, |put| put.issued = Hlc::from_unix_ms(1_000_000 + 600_001)));
    let (ahead, applied) = failure(&bench.tick());
    assert!(matches!(ahead, Failure::ClockAhead { ahead_ms: 600_001 }), "{ahead:?}");
    assert_eq!(applied, AppliedOutcome::No);
    bench.request(false, edit(2, |put| put.kind = Kind::Delete));
    let (malformed, _) = failure(&bench.tick());
    assert!(matches!(malformed, Failure::Malformed { .. }), "{malformed:?}");
    assert_eq!(bench.lane.counters().puts, 0);
    bench.request(false, edit(3, |put| put.issued = Hlc::from_unix_ms(1_000_000 + 600_000)));
    assert!(!matches!(answers(&bench.tick())[..], [Message::Failed(_)]));
}

#[test]
fn a_record_that_names_more_of_our_own_writes_makes_us_take_a_new_incarnation() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let head = |effects: &[Effect]| {
        let head = effects.iter().find_map(|effect| match effect {
            Effect::Ask { message: Message::Replicate(replicate), .. } => Some(&replicate.head),
            _ => None,
        });
        head.cloned().expect("replicated")
    };
    bench.request(false, put(key.clone(), 1, 1));
    let first = head(&bench.tick());
    let dot = Dot::new(first.dot.origin, first.dot.counter + 4);
    let later = RecordHead { dot, rid: RequestId(9), ..first.clone() };
    let (shard, value) = (bench.shard(&key), Bytes::from_static(b"v"));
    let replicate =
        Replicate { shard, head: later, fsync: false, epoch: 1, timeout_ms: 100, value };
    bench.request(false, Message::Replicate(replicate));
    let effects = bench.tick();
    assert!(matches!(answers(&effects)[..], [Message::Replicated(Replicated { result: Ok(_) })]));
    assert_eq!(bench.lane.counters().incarnations, 1);
    bench.request(false, put(key, 2, 1));
    assert_ne!(head(&bench.tick()).dot.origin, first.dot.origin);
}

/// A write of `key` with what its author has seen, at one owner. What it has seen then.
fn write_on(bench: &mut Bench, key: &Key, rid: u128, seen: Option<Bytes>) -> (Bytes, u32) {
    let Message::Put(mut put) = put(key.clone(), rid, 1) else { unreachable!("made as a put") };
    put.context = seen;
    bench.request(false, Message::Put(put));
    let effects = bench.tick();
    let done = answers(&effects).into_iter().find_map(|answer| match answer {
        Message::PutDone(done) => Some((done.context.clone(), done.siblings)),
        _ => None,
    });
    done.expect("w=1 is met here")
}

#[test]
fn the_context_of_one_who_writes_on_and_on_does_not_grow() {
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let counter = bench.key(true);
    let shard = bench.shard(&counter);
    let mut keys = (0..).map(|number| key(&format!("other-{number}")));
    let other = keys.find(|key| bench.shard(key) == shard).expect("some key is in it");
    let (mut seen, mut seen_of_other) = (None, None);
    let mut longest = 0;
    for round in 0..500 {
        // Its dots have holes: others write other keys of the partition.
        let (context, _) = write_on(&mut bench, &other, 10_000 + round, seen_of_other);
        seen_of_other = Some(context);
        let (context, siblings) = write_on(&mut bench, &counter, round, seen);
        if round > 0 {
            assert_eq!(siblings, 1);
        }
        longest = longest.max(context.len());
        seen = Some(context);
    }
    assert!(longest < 100, "{longest} bytes");
}

#[test]
fn who_writes_on_never_replaces_what_it_has_not_seen() {
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(true);
    let (mine, _) = write_on(&mut bench, &key, 1, None);
    let (theirs, siblings) = write_on(&mut bench, &key, 2, None);
    assert_eq!(siblings, 2);
    let (mine, siblings) = write_on(&mut bench, &key, 3, Some(mine));
    assert_eq!(siblings, 2);
    let (mine, siblings) = write_on(&mut bench, &key, 4, Some(mine));
    assert_eq!(siblings, 2, "the other value was never shown to it");
    // And the other way round.
    let (_, siblings) = write_on(&mut bench, &key, 5, Some(theirs));
    assert_eq!(siblings, 2);
    let (_, siblings) = write_on(&mut bench, &key, 6, Some(mine));
    assert_eq!(siblings, 2);
}
