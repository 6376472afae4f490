//! A write that is tried again at another owner: who is asked for it first, and what comes of the answers.

use crate::bench::{Bench, answers, asks, failure, get, put};
use bytes::Bytes;
use galvani_model::ids::{NodeId, Origin};
use galvani_model::limits::Limits;
use galvani_model::version::{Dot, DotSet, Emit, Kind, Record, RecordHead, Version};
use galvani_protocol::{Effect, Input};
use galvani_storage::engine::FailKind;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::message::{Failed, Fetch, Held, Put, Replicate};

/// The write of `put`, tried again.
fn again(put: Message) -> Message {
    let Message::Put(put) = put else { panic!("{put:?}") };
    Message::Put(Put { retry: true, ..put })
}

/// The questions of a tick: their ids, and what they ask.
fn questions(effects: &[Effect]) -> Vec<(u64, Fetch)> {
    let question = |effect: &Effect| match effect {
        Effect::Ask { id, message: Message::Fetch(fetch), .. } => Some((*id, fetch.clone())),
        _ => None,
    };
    effects.iter().filter_map(question).collect()
}

/// The records that are sent to other owners.
fn sent(effects: &[Effect]) -> Vec<&Replicate> {
    let sent = |effect| match effect {
        &Effect::Ask { message: Message::Replicate(ref replicate), .. } => Some(replicate),
        _ => None,
    };
    effects.iter().filter_map(sent).collect()
}

/// What another owner made of the same write when it came there first.
fn minted_elsewhere(bench: &Bench, write: &Message) -> Record {
    let Message::Put(asked) = write else { panic!("{write:?}") };
    let owners = bench.topology.owners(bench.shard(&asked.key));
    let owner = owners.into_iter().find(|&node| node != NodeId(1)).expect("three of four");
    let mut other = Bench::of(owner, Limits::default());
    // Every bench mints as the same origin until it is started again.
    other.restart();
    other.request(false, write.clone());
    let effects = other.tick();
    let replicate = sent(&effects)[0].clone();
    Record { head: replicate.head, value: replicate.value }
}

fn held(live: &[&Record], also: &[&Record]) -> Message {
    let version = |record: &&Record| Version::of(&record.head);
    let records = || live.iter().chain(also);
    let mut seen: DotSet = records().map(|record| record.head.dot).collect();
    records().for_each(|record| seen.union(&record.head.past));
    Message::Fetched(Ok(Held {
        versions: live.iter().map(version).collect(),
        seen,
        heads: records().map(|record| record.head.clone()).collect(),
        values: records().map(|record| record.value.clone()).collect(),
    }))
}

fn nothing() -> Message {
    held(&[], &[])
}

fn shown(bench: &mut Bench, key: &galvani_model::key::Key) -> Vec<Dot> {
    bench.request(false, get(key.clone(), 1));
    let effects = bench.tick();
    match answers(&effects)[..] {
        [Message::GetDone(done)] => done.siblings.iter().map(|sibling| sibling.dot).collect(),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_retry_that_another_owner_has_gets_no_second_dot() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let first = minted_elsewhere(&bench, &put(key.clone(), 1, 1));
    bench.request(false, again(put(key.clone(), 1, 1)));
    let effects = bench.tick();
    let asked = questions(&effects);
    assert_eq!(asked.len(), 2, "both other owners");
    assert!(sent(&effects).is_empty() && answers(&effects).is_empty(), "nothing is minted yet");
    assert_eq!(asked[0].1.shown, [first.head.write_id()]);
    bench.handle(Input::Reply { id: asked[0].0, message: nothing() });
    assert!(sent(&bench.tick()).is_empty(), "the other one may have it");
    bench.handle(Input::Reply { id: asked[1].0, message: held(&[&first], &[]) });
    let effects = bench.tick();
    assert!(sent(&effects).iter().all(|replicate| replicate.head.dot == first.head.dot));
    assert!(
        matches!(answers(&effects)[..], [Message::PutDone(done)] if done.dot == first.head.dot)
    );
    assert_eq!(shown(&mut bench, &key), [first.head.dot]);
    assert_eq!(bench.lane.inflight(), 0);
}

#[test]
fn a_retry_waits_no_longer_than_until_it_is_known() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let first = minted_elsewhere(&bench, &put(key.clone(), 1, 1));
    bench.request(false, again(put(key.clone(), 1, 1)));
    let asked = questions(&bench.tick());
    bench.handle(Input::Reply { id: asked[1].0, message: held(&[&first], &[]) });
    assert!(matches!(answers(&bench.tick())[..], [Message::PutDone(_)]), "the other one is silent");
}

#[test]
fn events_alone_are_known_again_though_they_make_no_version() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let Message::Put(events) = put(key.clone(), 1, 1) else { panic!("it is a put") };
    let emit = Emit {
        topic: "t".parse().expect("a topic"),
        key: Bytes::new(),
        payload: Bytes::from_static(b"e"),
    };
    let events = Put { kind: Kind::Emit, emits: vec![emit], value: Bytes::new(), ..events };
    let first = minted_elsewhere(&bench, &Message::Put(events.clone()));
    bench.request(false, again(Message::Put(events)));
    for (id, _) in questions(&bench.tick()) {
        bench.handle(Input::Reply { id, message: held(&[], &[&first]) });
    }
    let effects = bench.tick();
    assert!(sent(&effects).iter().all(|replicate| replicate.head.dot == first.head.dot));
}

#[test]
fn a_retry_whose_time_is_over_while_it_waits_is_refused() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    bench.request(false, again(put(key.clone(), 1, 1)));
    bench.tick();
    // The process stood still.
    bench.now.micros += 3_000_000;
    bench.handle(Input::Wake);
    let effects = bench.tick();
    assert_eq!(failure(&effects), (Failure::DeadlinePassed, AppliedOutcome::No));
    assert!(sent(&effects).is_empty());
}

#[test]
fn what_is_sent_on_again_is_a_retry_only_if_it_may_be_stored() {
    for (answer, retry) in [
        (Some(Failure::Overloaded { retry_after_ms: 1 }), false),
        (Some(Failure::Stopping), false),
        (None, true),
    ] {
        let mut bench = Bench::new(Limits::default());
        let key = bench.key(false);
        bench.request(false, put(key, 1, 2));
        let (_, id) = asks(&bench.tick())[0];
        bench.handle(match answer {
            Some(failure) => {
                let (applied, answers) = (AppliedOutcome::No, Vec::new());
                let message = Message::Failed(Failed { failure, applied, answers });
                Input::Reply { id, message }
            }
            None => Input::Undelivered { id },
        });
        let effects = bench.tick();
        let again = effects.iter().find_map(|effect| match effect {
            Effect::Ask { message: Message::Put(put), .. } => Some(put.retry),
            _ => None,
        });
        assert_eq!(again, Some(retry));
    }
}

#[test]
fn a_retry_that_was_replaced_elsewhere_does_not_come_back() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let first = minted_elsewhere(&bench, &put(key.clone(), 1, 1));
    let mut second = minted_elsewhere(&bench, &put(key.clone(), 2, 1));
    second.head.dot = Dot::new(first.head.dot.origin, first.head.dot.counter + 1);
    second.head.past.insert(first.head.dot);
    bench.request(false, again(put(key.clone(), 1, 1)));
    let asked = questions(&bench.tick());
    for (id, _) in asked {
        bench.handle(Input::Reply { id, message: held(&[&second], &[&first]) });
    }
    let effects = bench.tick();
    assert!(
        matches!(answers(&effects)[..], [Message::PutDone(done)] if done.dot == first.head.dot)
    );
    assert_eq!(shown(&mut bench, &key), [second.head.dot]);
}

#[test]
fn what_nothing_replaces_where_it_comes_from_is_not_taken_in() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let first = minted_elsewhere(&bench, &put(key.clone(), 1, 1));
    bench.request(false, again(put(key.clone(), 1, 1)));
    // Its tombstone is collected there: only the record is left.
    for (id, _) in questions(&bench.tick()) {
        bench.handle(Input::Reply { id, message: held(&[], &[&first]) });
    }
    let effects = bench.tick();
    let dot = sent(&effects)[0].head.dot;
    assert_ne!(dot, first.head.dot);
    assert_eq!(shown(&mut bench, &key), [dot]);
}

#[test]
fn owners_that_do_not_answer_hold_a_retry_up_for_a_moment_only() {
    for silent in [true, false] {
        let mut bench = Bench::new(Limits::default());
        let key = bench.key(true);
        bench.request(false, again(put(key.clone(), 1, 1)));
        let asked = questions(&bench.tick());
        if silent {
            bench.now.micros += 99_000;
            bench.handle(Input::Wake);
            assert!(sent(&bench.tick()).is_empty(), "it waits");
            bench.now.micros += 1_000;
            bench.handle(Input::Wake);
        } else {
            let refused = Message::Fetched(Err(ReplicaError::Refilling));
            bench.handle(Input::Reply { id: asked[0].0, message: refused });
            bench.handle(Input::Undelivered { id: asked[1].0 });
        }
        let effects = bench.tick();
        assert_eq!(sent(&effects).len(), 2, "it is written as any other");
        let [Message::PutDone(done)] = answers(&effects)[..] else { panic!("{effects:?}") };
        // A late answer is nobody's.
        let late = minted_elsewhere(&bench, &put(key.clone(), 1, 1));
        bench.handle(Input::Reply { id: asked[0].0, message: held(&[&late], &[]) });
        bench.tick();
        assert_eq!(shown(&mut bench, &key), [done.dot]);
    }
}

#[test]
fn a_retry_that_is_known_here_or_refused_asks_nobody() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    bench.request(false, put(key.clone(), 1, 1));
    bench.tick();
    bench.request(false, again(put(key.clone(), 1, 1)));
    let effects = bench.tick();
    assert!(questions(&effects).is_empty());
    assert!(matches!(answers(&effects)[..], [Message::PutDone(_)]));
    bench.request(false, again(put(key.clone(), 2, 9)));
    let effects = bench.tick();
    assert!(questions(&effects).is_empty(), "it could never be stored");
    assert_eq!(failure(&effects).1, AppliedOutcome::No);
}

#[test]
fn a_lie_about_a_retry_is_not_taken_in() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let first = minted_elsewhere(&bench, &put(key.clone(), 1, 1));
    let head = RecordHead { dot: Dot::new(Origin(9), 3), ..first.head.clone() };
    let lie = Record { head, value: Bytes::from_static(b"other") };
    bench.request(false, again(put(key.clone(), 1, 1)));
    for (id, _) in questions(&bench.tick()) {
        bench.handle(Input::Reply { id, message: held(&[&lie], &[]) });
    }
    let effects = bench.tick();
    let dot = sent(&effects)[0].head.dot;
    assert_ne!(dot, lie.head.dot);
    assert_eq!(shown(&mut bench, &key), [dot]);
}

#[test]
fn a_tick_that_fails_answers_a_retry_once() {
    for together in [true, false] {
        let mut bench = Bench::new(Limits::default());
        let key = bench.key(true);
        bench.request(false, again(put(key.clone(), 1, 1)));
        if !together {
            let asked = questions(&bench.tick());
            bench.handle(Input::Reply { id: asked[0].0, message: nothing() });
            bench.handle(Input::Reply { id: asked[1].0, message: nothing() });
        } else {
            // Its questions are due before the tick is over.
            bench.now.micros += 1_000_000;
            bench.handle(Input::Wake);
        }
        bench.engine.fail_next_commits([FailKind::IoLost]);
        let effects = bench.tick();
        let (why, applied) = failure(&effects);
        assert!(matches!(why, Failure::Coordinator(_)), "{why:?}");
        assert_eq!(applied, AppliedOutcome::Maybe { acks: 0 });
        assert!(sent(&effects).is_empty());
        assert_eq!(bench.lane.inflight(), 0);
    }
}
