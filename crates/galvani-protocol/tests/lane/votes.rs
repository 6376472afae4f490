//! Voters whose disks lack votes that they gave: whom they ask, whose word counts, when they vote again.
//!
//! The register itself is tested in `layout.rs`, and both together by the simulator.

use crate::bench::{Bench, answers, peer};
use bytes::Bytes;
use galvani_model::ids::{LaneIndex, NodeId};
use galvani_model::limits::Limits;
use galvani_model::store::{Holdings, Store};
use galvani_model::version::Range;
use galvani_protocol::{Effect, Input};
use galvani_storage::engine::{Corruption, FailKind, Table};
use galvani_storage::format::keys;
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::layout::{Ballot, Prepare, Promise, Vote};
use galvani_wire::message::Compare;
use std::collections::BTreeSet;

fn ballot(round: u64, node: u128) -> Ballot {
    Ballot { round, node: NodeId(node) }
}

/// A new process on a disk that says nothing of votes.
fn forget(bench: &mut Bench) {
    bench.store.set_fact(b"voter", None).expect("room");
    bench.tick();
    bench.restart();
}

fn vote(bench: &mut Bench, epoch: u64, ballot: Ballot) -> Result<Vote, ReplicaError> {
    bench.request(false, Message::Prepare(Prepare { epoch, ballot }));
    let effects = bench.tick();
    let vote = answers(&effects).into_iter().find_map(|answer| match answer {
        Message::Voted(vote) => Some(vote.clone()),
        _ => None,
    });
    vote.expect("a vote")
}

/// Another voter, at the next question, says that it keeps this.
fn say(bench: &mut Bench, node: u128, vote: impl Fn(Box<Promise>) -> Vote) {
    let keeps =
        Promise { epoch: bench.topology.epoch() + 1, promised: ballot(4, 3), accepted: None };
    for _ in 0..40 {
        bench.now.micros += 200_000;
        bench.handle(Input::Wake);
        let asked = bench.tick().into_iter().find_map(|effect| match effect {
            Effect::Ask { to, id, message: Message::Prepare(prepare), .. }
                if to.node == NodeId(node) && prepare.ballot == Ballot::default() =>
            {
                Some(id)
            }
            _ => None,
        });
        if let Some(id) = asked {
            let message = Message::Voted(Ok(vote(Box::new(keeps.clone()))));
            bench.handle(Input::Reply { id, message });
            bench.tick();
            return;
        }
        // What nobody answers is asked again.
        let down = Input::PeerDown(peer(NodeId(node)));
        bench.handle(down);
        bench.handle(Input::PeerUp(peer(NodeId(node))));
    }
    panic!("node {node} is asked what it keeps");
}

#[test]
fn the_word_of_one_that_forgot_its_votes_does_not_count() {
    let mut bench = Bench::new(Limits::default());
    forget(&mut bench);
    let behind = Ok(Vote::Behind { epoch: 1 });
    say(&mut bench, 2, Vote::Kept);
    say(&mut bench, 3, Vote::Forgot);
    assert_eq!(vote(&mut bench, 2, ballot(9, 2)), behind, "two were needed, and one said it all");
    say(&mut bench, 4, Vote::Kept);
    let promised = Ok(Vote::Promised { ballot: ballot(9, 2), accepted: None });
    assert_eq!(vote(&mut bench, 2, ballot(9, 2)), promised);
    // It says of itself that it has no votes, as long as it asks.
    forget(&mut bench);
    let told = vote(&mut bench, 2, Ballot::default());
    assert!(matches!(told, Ok(Vote::Forgot(_))), "{told:?}");
}

/// The questions that are due next for what others keep of an epoch.
fn questions(bench: &mut Bench, epoch: u64) -> Vec<u64> {
    bench.now.micros += 200_000;
    bench.handle(Input::Wake);
    let effects = bench.tick();
    let asked = effects.iter().filter_map(|effect| match effect {
        Effect::Ask { id, message: Message::Prepare(prepare), .. } => {
            (prepare.epoch == epoch && prepare.ballot == Ballot::default()).then_some(*id)
        }
        _ => None,
    });
    asked.collect()
}

/// Whoever was asked these keeps a promise on an epoch, and every vote it ever gave.
fn keep(bench: &mut Bench, questions: &[u64], epoch: u64) {
    for &id in questions {
        let promise = Promise { epoch, promised: ballot(4, 3), accepted: None };
        let message = Message::Voted(Ok(Vote::Kept(Box::new(promise))));
        bench.handle(Input::Reply { id, message });
    }
    bench.tick();
}

/// Two words are enough for this voter. Neither the answer to a question about the epoch before is one on
/// this one, nor is what somebody keeps of another epoch than it was asked about.
#[test]
fn a_word_on_another_epoch_does_not_count_for_this_one() {
    let mut bench = Bench::new(Limits::default());
    forget(&mut bench);
    // Node 2 was asked when its link came up, and stays silent.
    let before = questions(&mut bench, 2);
    assert_eq!(before.len(), 2);
    bench.adopt(bench.copying());
    keep(&mut bench, &before, 2);
    let behind = Ok(Vote::Behind { epoch: 2 });
    assert_eq!(vote(&mut bench, 3, ballot(9, 2)), behind, "nobody spoke of this epoch");
    let now = questions(&mut bench, 3);
    assert_eq!(now.len(), 2, "they are asked anew");
    keep(&mut bench, &now, 2);
    assert_eq!(vote(&mut bench, 3, ballot(9, 2)), behind, "that is no answer");
    let again = questions(&mut bench, 3);
    assert_eq!(again.len(), 2);
    keep(&mut bench, &again, 3);
    let promised = Ok(Vote::Promised { ballot: ballot(9, 2), accepted: None });
    assert_eq!(vote(&mut bench, 3, ballot(9, 2)), promised);
}

#[test]
fn a_question_of_a_failed_tick_is_asked_again() {
    let mut bench = Bench::new(Limits::default());
    forget(&mut bench);
    // All are asked anew, in a tick that does not exist.
    let others: Vec<NodeId> = (2..=4).map(NodeId).collect();
    for &node in &others {
        bench.handle(Input::PeerDown(peer(node)));
        bench.handle(Input::PeerUp(peer(node)));
    }
    bench.now.micros += 200_000;
    bench.handle(Input::Wake);
    bench.store.set_fact(b"else", Some(Bytes::from_static(b"1"))).expect("room");
    bench.engine.fail_next_commits([FailKind::Full]);
    let asked = |effects: &[Effect]| -> BTreeSet<NodeId> {
        let asked = effects.iter().filter_map(|effect| match effect {
            Effect::Ask { to, message: Message::Prepare(_), .. } => Some(to.node),
            _ => None,
        });
        asked.collect()
    };
    assert_eq!(asked(&bench.tick()), BTreeSet::new());
    let mut again = BTreeSet::new();
    for _ in 0..10 {
        bench.now.micros += 200_000;
        bench.handle(Input::Wake);
        again.extend(asked(&bench.tick()));
    }
    assert_eq!(again, others.into_iter().collect());
}

#[test]
fn a_new_cluster_has_nothing_to_remember() {
    let mut bench = Bench::new(Limits::default());
    forget(&mut bench);
    let blank = |kept: Box<Promise>| {
        Vote::Forgot(Box::new(Promise { promised: Ballot::default(), ..*kept }))
    };
    say(&mut bench, 2, blank);
    say(&mut bench, 3, blank);
    let promised = Ok(Vote::Promised { ballot: ballot(1, 2), accepted: None });
    assert_eq!(vote(&mut bench, 2, ballot(1, 2)), promised, "nobody voted on anything yet");
}

#[test]
fn an_epoch_on_which_it_may_have_voted_is_left_to_those_who_can_decide_it() {
    let mut bench = Bench::new(Limits::default());
    let members = bench.topology.layout().current().members()[..3].to_vec();
    bench.change_to(members);
    forget(&mut bench);
    // A proposal may have its promise, and come to the others only after they were asked.
    say(&mut bench, 2, Vote::Kept);
    say(&mut bench, 3, Vote::Kept);
    let behind = Ok(Vote::Behind { epoch: 4 });
    assert_eq!(vote(&mut bench, 5, ballot(9, 2)), behind);
    bench.now.micros += 200_000;
    bench.handle(Input::Wake);
    let prepares = |effects: &[Effect]| -> Vec<u128> {
        let asked = effects.iter().filter_map(|effect| match effect {
            Effect::Ask { to, message: Message::Prepare(prepare), .. } => {
                (prepare.epoch == 5 && prepare.ballot != Ballot::default()).then_some(to.node.0)
            }
            _ => None,
        });
        asked.collect()
    };
    let mut asked = prepares(&bench.tick());
    for _ in 0..30 {
        bench.now.micros += 200_000;
        bench.handle(Input::Wake);
        asked.extend(prepares(&bench.tick()));
    }
    assert!(asked.contains(&2) && asked.contains(&3), "it has the epoch decided: {asked:?}");
    assert_eq!(vote(&mut bench, 5, ballot(99, 2)), behind, "and has no part in it");
    let again = bench.topology.layout().again();
    bench.adopt(again);
    bench.handle(Input::Wake);
    bench.tick();
    let promised = Ok(Vote::Promised { ballot: ballot(1, 2), accepted: None });
    assert_eq!(vote(&mut bench, 6, ballot(1, 2)), promised);
    assert_eq!(bench.store.fact(b"voter").expect("readable"), Some(Bytes::from_static(b"1")));
}

#[test]
fn a_node_that_is_to_be_a_voter_asks_before_it_is_one() {
    let mut bench = Bench::of(NodeId(99), Limits::default());
    forget(&mut bench);
    bench.adopt(bench.copying());
    let voter = |bench: &mut Bench| bench.store.fact(b"voter").expect("readable").is_some();
    say(&mut bench, 2, Vote::Kept);
    say(&mut bench, 3, Vote::Forgot);
    say(&mut bench, 1, Vote::Kept);
    assert!(!voter(&mut bench), "a majority must know of no later epoch");
    say(&mut bench, 4, Vote::Kept);
    assert!(voter(&mut bench), "it was never asked for a vote, and knows it");
}

fn damage(bench: &mut Bench, name: &[u8]) {
    let damaged = bench.engine.corrupt(Table::Meta, &keys::fact(name), Corruption::FlipBit(40));
    assert!(damaged, "there is such a row");
}

#[test]
fn a_damaged_promise_is_no_promise_to_nobody() {
    let mut bench = Bench::new(Limits::default());
    let (low, high) = (ballot(1, 2), ballot(4, 3));
    let promised = |ballot| Ok(Vote::Promised { ballot, accepted: None });
    assert_eq!(vote(&mut bench, 2, high), promised(high));
    damage(&mut bench, b"promise");
    let behind = Ok(Vote::Behind { epoch: 1 });
    assert_eq!(vote(&mut bench, 2, low), behind, "it does not know whom it promised what");
    assert!(!bench.lane.has_its_votes());
    assert_eq!(bench.store.fact(b"voter"), Ok(None), "nor would it after a restart");
    say(&mut bench, 3, Vote::Kept);
    say(&mut bench, 4, Vote::Kept);
    assert_eq!(vote(&mut bench, 2, low), Ok(Vote::Outbid(high)), "the others do");
    assert!(bench.lane.has_its_votes());
}

#[test]
fn a_disk_that_cannot_say_whether_it_has_all_votes_is_not_believed() {
    let mut bench = Bench::new(Limits::default());
    damage(&mut bench, b"voter");
    bench.restart();
    let behind = Ok(Vote::Behind { epoch: 1 });
    assert_eq!(vote(&mut bench, 2, ballot(1, 2)), behind);
    say(&mut bench, 2, Vote::Kept);
    say(&mut bench, 4, Vote::Kept);
    let promised = Ok(Vote::Promised { ballot: ballot(9, 2), accepted: None });
    assert_eq!(vote(&mut bench, 2, ballot(9, 2)), promised, "nor does it stand still for ever");
}

#[test]
fn a_disk_that_went_back_in_time_may_lack_votes() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    bench.request(false, crate::bench::put(key.clone(), 1, 1));
    bench.tick();
    assert!(bench.lane.has_its_votes());
    let shard = bench.shard(&key);
    let own = bench.store.replica(shard).expect("readable").own.expect("it wrote").origin;
    // A peer has more of this node's own writes than its disk.
    let clock = [Range { origin: own, first: 1, last: 9 }];
    let other = bench.topology.others(shard).next().expect("there are three");
    let shown = Compare {
        node: other,
        lane: LaneIndex(0),
        shards: vec![(shard, clock.into_iter().collect(), Default::default())],
    };
    bench.request(false, Message::Compare(shown));
    bench.tick();
    assert!(!bench.lane.has_its_votes(), "votes may be gone with the writes");
    assert_eq!(vote(&mut bench, 2, ballot(1, 2)), Ok(Vote::Behind { epoch: 1 }));
}
