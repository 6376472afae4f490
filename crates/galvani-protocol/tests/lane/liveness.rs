//! What follows from a node that is held for down, and from an owner that is silent.

use crate::bench::{Bench, answers, asks, failure, get, peer, put, strict};
use galvani_model::ids::NodeId;
use galvani_model::limits::Limits;
use galvani_protocol::{Effect, Input, PeerLane, Standing};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::message::{Failed, GetDone, Replicated};

/// Owners of the bench's key other than node 1.
fn others(bench: &Bench) -> Vec<PeerLane> {
    let owners = bench.topology.owners(bench.shard(&bench.key(true)));
    owners.into_iter().filter(|&node| node != NodeId(1)).map(peer).collect()
}

fn asked(effects: &[Effect]) -> Vec<(PeerLane, &'static str)> {
    let ask = |effect: &Effect| match effect {
        Effect::Ask { to, message, .. } => Some((*to, message.name())),
        _ => None,
    };
    effects.iter().filter_map(ask).collect()
}

fn wait(bench: &mut Bench, micros: u64) -> Vec<Effect> {
    bench.now.micros += micros;
    bench.handle(Input::Wake);
    let effects = bench.tick();
    effects.into_iter().filter(|effect| matches!(effect, Effect::Ask { .. })).collect()
}

#[test]
fn a_write_asks_a_stand_in_at_once_for_an_owner_that_is_down_and_the_owner_as_well() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let away = others(&bench)[0];
    bench.handle(Input::Liveness { node: away.node, alive: false });
    bench.tick();
    assert_eq!(bench.lane.standing(away.node), Standing::Down);
    bench.request(false, put(key.clone(), 1, 3));
    let effects = bench.tick();
    let names: Vec<&str> = asked(&effects).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["Replicate", "Replicate", "Hint"]);
    bench.handle(Input::Liveness { node: away.node, alive: true });
    bench.tick();
    bench.request(false, put(key, 2, 3));
    let effects = bench.tick();
    assert!(asked(&effects).iter().all(|(_, name)| *name == "Replicate"), "{effects:?}");
}

#[test]
fn an_owner_found_down_answers_open_asks_with_silence_and_keeps_its_link() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    bench.request(false, strict(put(key.clone(), 1, 3)));
    let sent = asks(&bench.tick());
    bench.handle(Input::Liveness { node: sent[0].0.node, alive: false });
    let stored = Message::Replicated(Replicated { result: Ok(false) });
    bench.handle(Input::Reply { id: sent[1].1, message: stored });
    let (failed, applied) = failure(&bench.tick());
    assert!(matches!(failed, Failure::QuorumNotMet { need: 3, got: 2, .. }), "{failed:?}");
    assert_eq!(applied, AppliedOutcome::Maybe { acks: 2 });
    // A write that needs it is refused before it is written; one that does not still asks it.
    bench.request(false, strict(put(key.clone(), 2, 3)));
    let (failed, applied) = failure(&bench.tick());
    assert!(matches!(failed, Failure::ReplicasDown { need: 3, up: 2, .. }), "{failed:?}");
    assert_eq!(applied, AppliedOutcome::No);
    bench.request(false, strict(put(key, 3, 2)));
    let effects = bench.tick();
    assert!(asked(&effects).contains(&(sent[0].0, "Replicate")), "{effects:?}");
}

#[test]
fn whoever_is_back_is_compared_with_again() {
    let mut bench = Bench::new(Limits::default());
    let away = others(&bench)[0];
    bench.handle(Input::Liveness { node: away.node, alive: false });
    wait(&mut bench, 20_000_000);
    bench.handle(Input::Liveness { node: away.node, alive: true });
    let compared = (0..10).any(|_| {
        let effects = wait(&mut bench, 100_000);
        asked(&effects).contains(&(away, "Compare"))
    });
    assert!(compared);
}

#[test]
fn a_silent_owner_is_joined_by_the_next_and_then_asked_last() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(false);
    let mut first = None;
    for rid in 1..=3 {
        bench.request(false, put(key.clone(), rid, 2));
        let effects = bench.tick();
        let to = asked(&effects)[0].0;
        assert_eq!(to, *first.get_or_insert(to), "nothing is known yet");
    }
    // None of the three was answered: the second owner gets them all.
    let effects = wait(&mut bench, 300_000);
    let second: Vec<PeerLane> = asked(&effects).into_iter().map(|(to, _)| to).collect();
    assert!(second.len() == 3 && second.iter().all(|&to| Some(to) != first), "{second:?}");
    assert_eq!(bench.lane.peers_silent().next(), first);
    bench.request(false, get(key, 1));
    let effects = bench.tick();
    assert_ne!(Some(asked(&effects)[0].0), first, "others first");
    // Any answer of the silent one closes its breaker.
    let Some(first) = first else { panic!("it was asked") };
    bench.handle(Input::PeerUp(first));
    assert_eq!(bench.lane.peers_silent().next(), None);
}

#[test]
fn a_read_that_is_sent_on_is_asked_twice_when_it_takes_long_and_a_twentieth_of_them_at_most() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(false);
    for _ in 0..120 {
        bench.request(false, get(key.clone(), 1));
        let sent = asks(&bench.tick());
        bench.now.micros += 1_000;
        let done =
            GetDone { siblings: Vec::new(), context: Default::default(), answers: Vec::new() };
        bench.handle(Input::Reply { id: sent[0].1, message: Message::GetDone(done) });
        bench.tick();
    }
    for rid in 0..10 {
        bench.request(false, get(key.clone(), 1));
        bench.request(false, put(key.clone(), rid, 2));
    }
    assert_eq!(bench.tick().len(), 20);
    let again = wait(&mut bench, 4_900);
    assert!(again.is_empty(), "no sooner than five milliseconds: {again:?}");
    let again: Vec<&str> = asked(&wait(&mut bench, 200)).iter().map(|(_, name)| *name).collect();
    assert_eq!(again, ["Get"; 6], "of 130 reads, and no write");
    let again = wait(&mut bench, 300_000);
    let reads = asked(&again).iter().filter(|(_, name)| *name == "Get").count();
    assert!(reads >= 4, "the rest, when their owners are late: {again:?}");
}

#[test]
fn unknown_not_failed_whatever_another_owner_says() {
    let refused = |applied| {
        let failure = Failure::Coordinator(ReplicaError::Overloaded);
        Message::Failed(Failed { failure, applied, answers: Vec::new() })
    };
    let (no, maybe) = (AppliedOutcome::No, AppliedOutcome::Maybe { acks: 1 });
    for (first, second, expected) in
        [(maybe, no, maybe), (no, maybe, maybe), (no, no, no), (maybe, maybe, maybe)]
    {
        let mut bench = Bench::new(Limits::default());
        bench.request(false, put(bench.key(false), 1, 2));
        let mut sent = asks(&bench.tick());
        sent.extend(asks(&wait(&mut bench, 300_000)));
        let ids: Vec<u64> = sent.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), 2, "the second is asked as well");
        bench.handle(Input::Reply { id: ids[0], message: refused(first) });
        assert!(answers(&bench.tick()).is_empty(), "the other one may have done it");
        bench.handle(Input::Reply { id: ids[1], message: refused(second) });
        assert_eq!(failure(&bench.tick()).1, expected, "{first:?} then {second:?}");
    }
    // Silence is doubt, too.
    let mut bench = Bench::new(Limits::default());
    bench.request(false, put(bench.key(false), 1, 2));
    let sent = asks(&bench.tick());
    let second = asks(&wait(&mut bench, 300_000));
    bench.handle(Input::Reply { id: second[0].1, message: refused(no) });
    bench.handle(Input::PeerDown(sent[0].0));
    let effects = bench.tick();
    let third = asks(&effects);
    if let [(_, id)] = third[..] {
        bench.handle(Input::Reply { id, message: refused(no) });
        assert_eq!(failure(&bench.tick()).1, AppliedOutcome::Maybe { acks: 0 });
    } else {
        assert_eq!(failure(&effects).1, AppliedOutcome::Maybe { acks: 0 });
    }
}

#[test]
fn the_first_answer_of_two_owners_counts() {
    let mut bench = Bench::new(Limits::default());
    let from = bench.request(false, get(bench.key(false), 1));
    let mut sent = asks(&bench.tick());
    sent.extend(asks(&wait(&mut bench, 300_000)));
    let done = || {
        let done =
            GetDone { siblings: Vec::new(), context: Default::default(), answers: Vec::new() };
        Message::GetDone(done)
    };
    bench.handle(Input::Reply { id: sent[1].1, message: done() });
    let effects = bench.tick();
    assert!(effects.iter().any(|e| matches!(e, Effect::Answer { to, .. } if *to == from)));
    bench.handle(Input::Reply { id: sent[0].1, message: done() });
    assert!(answers(&bench.tick()).is_empty(), "once");
}

#[test]
fn an_owner_that_has_no_room_is_followed_by_the_next_and_all_of_them_refuse_in_the_end() {
    let mut bench = Bench::new(Limits::default());
    bench.request(false, put(bench.key(false), 1, 2));
    let mut owners = Vec::new();
    for _ in 0..3 {
        let (to, id) = asks(&bench.tick())[0];
        owners.push(to.node);
        let failure = Failure::Overloaded { retry_after_ms: 70 };
        let full = Failed { failure, applied: AppliedOutcome::No, answers: Vec::new() };
        bench.handle(Input::Reply { id, message: Message::Failed(full) });
    }
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners.len(), 3, "each owner once");
    let (failed, applied) = failure(&bench.tick());
    assert_eq!((failed, applied), (Failure::Overloaded { retry_after_ms: 70 }, AppliedOutcome::No));
}

#[test]
fn silences_with_answers_between_them_make_nobody_silent() {
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(true);
    for rid in 1..=5 {
        bench.request(false, strict(put(key.clone(), rid, 1)));
        let sent = asks(&bench.tick());
        wait(&mut bench, 300_000);
        // Looked at before the answer, which closes any breaker.
        assert_eq!(bench.lane.peers_silent().next(), None, "after {rid}");
        for (_, id) in sent {
            // A refusal is an answer, and says nothing of how long things take.
            let refused = Replicated { result: Err(ReplicaError::Overloaded) };
            bench.handle(Input::Reply { id, message: Message::Replicated(refused) });
        }
        bench.tick();
    }
    for rid in 6..=8 {
        bench.request(false, strict(put(key.clone(), rid, 1)));
        bench.tick();
    }
    wait(&mut bench, 300_000);
    assert_eq!(bench.lane.peers_silent().count(), 2, "three in a row do");
}
