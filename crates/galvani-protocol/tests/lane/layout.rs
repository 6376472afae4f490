//! Changes of the layout, step by step: fences, joint quorums, votes, and voters that forgot theirs.
//!
//! Whole changes, and everything that may go wrong in one, are the simulator's.

use crate::bench::{Bench, answers, asks, failure, peer, put};
use bytes::Bytes;
use galvani_model::ids::{NodeId, Partition, Shard};
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutState, Pace};
use galvani_model::store::{Holdings, Store};
use galvani_model::version::PartitionClock;
use galvani_protocol::{Effect, Input, PeerLane, Standing};
use galvani_storage::engine::FailKind;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::layout::{
    Accept, AskJoiner, Ballot, ChangeLayout, JoinerIs, Prepare, Promise, Unfit, Vote, Wish,
};
use galvani_wire::message::{Clocks, Fetch, Replicated};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An administrator asks for the layout in which node 99 joins. What the lane does then.
fn ask_for_next(bench: &mut Bench) -> Vec<Effect> {
    let wished = wish(bench, bench.next_layout());
    change(bench, wished);
    bench.tick()
}

/// The same where node 99 can be reached. The number of what it is asked, and nobody else.
fn ask_joiner(bench: &mut Bench) -> u64 {
    bench.handle(Input::PeerUp(peer(NodeId(99))));
    bench.tick();
    let effects = ask_for_next(bench);
    let [(joiner, id)] = asks(&effects)[..] else { panic!("only who comes is asked: {effects:?}") };
    assert_eq!(joiner, peer(NodeId(99)));
    id
}

/// The same, and node 99 says that it holds nothing. What was asked of the voters then.
fn begin(bench: &mut Bench) -> Vec<(PeerLane, u64)> {
    let id = ask_joiner(bench);
    let empty = Message::JoinerIs(Ok(JoinerIs { epoch: 1, held: 0 }));
    bench.handle(Input::Reply { id, message: empty });
    asks(&bench.tick())
}

fn wish(bench: &Bench, next: Arc<Layout>) -> Wish {
    Wish::Begin { next, after: bench.topology.epoch(), pace: Pace::default() }
}

fn change(bench: &mut Bench, wish: Wish) {
    let change = ChangeLayout { wish, timeout_ms: 2_000 };
    bench.request(false, Message::ChangeLayout(Box::new(change)));
}

/// What node 1 answers to a read of a shard by this epoch.
fn read_by(bench: &mut Bench, shard: Shard, epoch: u64) -> Option<ReplicaError> {
    let mut keys = (0..).map(|number| crate::bench::key(&format!("key-{number}")));
    let key = keys.find(|key| bench.shard(key) == shard).expect("some key fits");
    let (have, shown) = (Vec::new(), Vec::new());
    let fetch = Fetch { shard, key, records: true, have, shown, epoch, timeout_ms: 10 };
    bench.request(false, Message::Fetch(fetch));
    let effects = bench.tick();
    match answers(&effects)[..] {
        [Message::Fetched(Ok(_))] => None,
        [Message::Fetched(Err(error))] => Some(error.clone()),
        ref other => panic!("one answer expected, got {other:?}"),
    }
}

#[test]
fn stale_coordinator_is_refused_where_owners_change() {
    let mut bench = Bench::new(Limits::default());
    let state = bench.copying();
    bench.adopt(state.clone());
    let mine = (0..16).map(|at| Shard { partition: Partition(at), n: 3 });
    let mine: Vec<Shard> = mine.filter(|shard| state.is_replica(NodeId(1), *shard)).collect();
    let (mut refused, mut served) = (0, 0);
    for shard in mine {
        let moves = state.write_sets(shard).1.is_some();
        let expected = moves.then_some(ReplicaError::LayoutChanged);
        assert_eq!(read_by(&mut bench, shard, 1), expected, "{shard}");
        *if moves { &mut refused } else { &mut served } += 1;
        assert_eq!(read_by(&mut bench, shard, 2), None, "it goes by the same owners");
        assert_eq!(read_by(&mut bench, shard, 9), None, "this lane has not heard of those yet");
    }
    assert!(refused > 0 && served > 0, "{refused} {served}");
}

#[test]
fn while_owners_change_a_write_needs_both_quorums() {
    let mut bench = Bench::new(Limits::default());
    let state = bench.copying();
    bench.adopt(state.clone());
    bench.handle(Input::PeerUp(peer(NodeId(99))));
    bench.tick();
    let mut keys = (0..).map(|number| crate::bench::key(&format!("key-{number}")));
    let joins = |shard: Shard| {
        let (old, new) = state.write_sets(shard);
        let new = new.unwrap_or_default();
        old.contains(&NodeId(1)) && !new.contains(&NodeId(1)) && new.contains(&NodeId(99))
    };
    let key = keys.find(|key| joins(bench.shard(key))).expect("some key fits");
    let (old, new) = state.write_sets(bench.shard(&key));
    bench.request(false, put(key, 1, 2));
    let asked = asks(&bench.tick());
    let of = |node: NodeId| asked.iter().find(|(to, _)| to.node == node).map(|(_, id)| *id);
    assert_eq!(asked.len(), 3, "the other two, and the one that comes: {asked:?}");
    let stored = || Message::Replicated(Replicated { result: Ok(false) });
    let other = old.into_iter().find(|&node| node != NodeId(1)).expect("there are three");
    bench.handle(Input::Reply { id: of(other).expect("asked"), message: stored() });
    assert!(answers(&bench.tick()).is_empty(), "one of the new owners is not enough: {new:?}");
    bench.handle(Input::Reply { id: of(NodeId(99)).expect("asked"), message: stored() });
    assert!(matches!(answers(&bench.tick())[..], [Message::PutDone(_)]));
}

fn ballot(round: u64, node: u128) -> Ballot {
    Ballot { round, node: NodeId(node) }
}

fn vote(bench: &mut Bench, message: Message) -> Result<Vote, ReplicaError> {
    bench.request(false, message);
    let effects = bench.tick();
    match answers(&effects)[..] {
        [Message::Voted(vote)] => vote.clone(),
        ref other => panic!("one vote expected, got {other:?}"),
    }
}

#[test]
fn a_voter_keeps_its_word() {
    let mut bench = Bench::new(Limits::default());
    let state = bench.copying();
    let prepare = |ballot| Message::Prepare(Prepare { epoch: 2, ballot });
    let accept = |ballot, state: &LayoutState| {
        Message::Accept(Box::new(Accept { ballot, state: state.clone() }))
    };
    let (low, high) = (ballot(1, 2), ballot(1, 3));
    let promised = Ok(Vote::Promised { ballot: high, accepted: None });
    assert_eq!(vote(&mut bench, prepare(high)), promised);
    assert_eq!(vote(&mut bench, prepare(low)), Ok(Vote::Outbid(high)));
    assert_eq!(vote(&mut bench, accept(low, &state)), Ok(Vote::Outbid(high)));
    assert_eq!(vote(&mut bench, accept(high, &state)), Ok(Vote::Accepted { ballot: high }));
    let later = ballot(2, 2);
    let accepted = Some((high, Box::new(state.clone())));
    let expected = Ok(Vote::Promised { ballot: later, accepted });
    assert_eq!(vote(&mut bench, prepare(later)), expected);
    // What cannot follow is not accepted under any ballot; what is decided is told.
    let switching = state.advance().expect("it goes on");
    let behind = Ok(Vote::Behind { epoch: 1 });
    assert_eq!(vote(&mut bench, accept(ballot(9, 2), &switching)), behind);
    bench.adopt(state.clone());
    let decided = Ok(Vote::Decided(Box::new(state)));
    assert_eq!(vote(&mut bench, prepare(ballot(9, 2))), decided);
}

#[test]
fn a_vote_that_is_not_on_the_disk_is_not_given() {
    let mut bench = Bench::new(Limits::default());
    let message = Message::Prepare(Prepare { epoch: 2, ballot: ballot(1, 3) });
    bench.engine.fail_next_commits([FailKind::Full]);
    let refused = vote(&mut bench, message.clone());
    assert!(matches!(refused, Err(ReplicaError::DiskFull)), "{refused:?}");
    // A disk that is full for what clients send has room for votes: else it could not be given more.
    bench.engine.set_full(true);
    bench.request(false, put(bench.key(true), 1, 1));
    let refused = failure(&bench.tick());
    assert_eq!(refused.0, Failure::Coordinator(ReplicaError::DiskFull));
    let promised = Ok(Vote::Promised { ballot: ballot(1, 3), accepted: None });
    assert_eq!(vote(&mut bench, message), promised);
}

#[test]
fn an_administrators_layout_is_decided_by_a_majority_and_then_adopted() {
    let mut bench = Bench::new(Limits::default());
    let state = bench.copying();
    let asked = begin(&mut bench);
    let voters = bench.topology.layout().current().members().len();
    assert_eq!(asked.len(), voters - 1, "this node votes without being asked");
    let mine = ballot(1, 1);
    for &(_, id) in &asked[..voters / 2] {
        let promised = Vote::Promised { ballot: mine, accepted: None };
        bench.handle(Input::Reply { id, message: Message::Voted(Ok(promised)) });
    }
    let accepts = asks(&bench.tick());
    assert_eq!(accepts.len(), voters - 1);
    let mut effects = Vec::new();
    for &(_, id) in &accepts[..voters / 2] {
        assert!(effects.is_empty(), "no majority yet");
        let accepted = Vote::Accepted { ballot: mine };
        bench.handle(Input::Reply { id, message: Message::Voted(Ok(accepted)) });
        effects = bench.tick();
    }
    assert!(effects.contains(&Effect::Adopt(Arc::new(state.clone()))), "{effects:?}");
    assert!(matches!(answers(&effects)[..], [Message::LayoutChanged(told)] if **told == state));
    bench.adopt(state);
    // Asking for it again is no error; asking for another one is.
    let same = bench.topology.layout().transition().expect("on").next.clone();
    let wished = wish(&bench, same);
    change(&mut bench, wished);
    assert!(matches!(answers(&bench.tick())[..], [Message::LayoutChanged(_)]));
    let mut members = bench.topology.layout().current().members().to_vec();
    members.pop();
    let other = bench.topology.layout().current().next(members).expect("there are enough");
    let wished = wish(&bench, Arc::new(other));
    change(&mut bench, wished);
    let expected = (Failure::LayoutChanging { version: 2 }, AppliedOutcome::No);
    assert_eq!(failure(&bench.tick()), expected);
}

#[test]
fn a_wish_that_comes_late_ends_and_begins_nothing_else() {
    let mut bench = Bench::new(Limits::default());
    let early = wish(&bench, bench.next_layout());
    let state = bench.copying();
    bench.adopt(state.clone());
    // Given up, and begun again: by the same plan, or by another.
    bench.adopt(state.abort().expect("it is copying"));
    change(&mut bench, early);
    let refused = failure(&bench.tick());
    assert!(matches!(refused.0, Failure::LayoutRefused { .. }), "{refused:?}");
    let state = bench.copying();
    bench.adopt(state.clone());
    change(&mut bench, Wish::Abort { begun: 2 });
    let effects = bench.tick();
    assert!(matches!(answers(&effects)[..], [Message::LayoutChanged(told)] if **told == state));
    assert!(asks(&effects).is_empty(), "nothing is proposed: {effects:?}");
    // The change that is meant is given up, and one that was not heard of yet is asked for elsewhere.
    change(&mut bench, Wish::Abort { begun: 9 });
    assert_eq!(failure(&bench.tick()).0, Failure::LayoutChanged);
    change(&mut bench, Wish::Abort { begun: 4 });
    let others = bench.topology.layout().current().members().len() - 1;
    let prepared = bench.tick();
    let prepared = prepared.iter().filter(|effect| {
        matches!(effect, Effect::Ask { message: Message::Prepare(it), .. } if it.epoch == 5)
    });
    assert_eq!(prepared.count(), others);
}

/// What an administrator is told of node 99.
fn refused_for(bench: &mut Bench) -> Unfit {
    match failure(&bench.tick()) {
        (Failure::JoinerUnfit { node: NodeId(99), why }, AppliedOutcome::No) => why,
        other => panic!("node 99 cannot join: {other:?}"),
    }
}

#[test]
fn a_node_that_cannot_be_reached_is_not_taken_in() {
    let mut bench = Bench::new(Limits::default());
    let effects = ask_for_next(&mut bench);
    assert!(asks(&effects).is_empty() && answers(&effects).is_empty(), "it may come: {effects:?}");
    bench.now.micros += 1_400_000;
    bench.handle(Input::Wake);
    assert!(answers(&bench.tick()).is_empty(), "there is time left");
    bench.now.micros += 200_000;
    bench.handle(Input::Wake);
    assert_eq!(refused_for(&mut bench), Unfit::Unreachable);
}

#[test]
fn a_node_that_comes_in_time_is_taken_in_and_one_that_is_silent_is_not() {
    let mut bench = Bench::new(Limits::default());
    ask_for_next(&mut bench);
    bench.handle(Input::PeerUp(peer(NodeId(99))));
    bench.now.micros += 150_000;
    bench.handle(Input::Wake);
    let joiner = |(to, id): (PeerLane, u64)| (to == peer(NodeId(99))).then_some(id);
    let ids: Vec<u64> = asks(&bench.tick()).into_iter().filter_map(joiner).collect();
    assert!(!ids.is_empty(), "it can be reached by now");
    bench.now.micros += 1_500_000;
    bench.handle(Input::Wake);
    assert_eq!(refused_for(&mut bench), Unfit::Silent);
}

#[test]
fn a_node_that_holds_what_it_had_as_a_member_is_not_taken_in() {
    let mut bench = Bench::new(Limits::default());
    let id = ask_joiner(&mut bench);
    let holds = Message::JoinerIs(Ok(JoinerIs { epoch: 1, held: 3 }));
    bench.handle(Input::Reply { id, message: holds });
    assert_eq!(refused_for(&mut bench), Unfit::Holds { shards: 3 });
}

/// Red if it is asked in the same tick: while its link is gone and nobody has heard so, that has no end.
#[test]
fn a_node_that_cannot_be_sent_to_is_asked_again_and_not_at_once() {
    let mut bench = Bench::new(Limits::default());
    let id = ask_joiner(&mut bench);
    bench.handle(Input::Undelivered { id });
    assert!(asks(&bench.tick()).is_empty(), "nothing more in this moment");
    bench.now.micros += 150_000;
    bench.handle(Input::Wake);
    let asked = asks(&bench.tick()).into_iter().filter(|(to, _)| *to == peer(NodeId(99)));
    assert_eq!(asked.count(), 1);
}

#[test]
fn a_node_says_what_it_holds_and_does_not_own() {
    let mut bench = Bench::new(Limits::default());
    let ask = |bench: &mut Bench| {
        bench.request(false, Message::AskJoiner(AskJoiner { epoch: 1 }));
        match answers(&bench.tick())[..] {
            [Message::JoinerIs(Ok(is))] => is.held,
            ref other => panic!("one answer expected, got {other:?}"),
        }
    };
    let key = bench.key(true);
    bench.request(false, put(key.clone(), 1, 1));
    bench.tick();
    assert_eq!(ask(&mut bench), 0, "it owns what it holds");
    let mut members = bench.topology.layout().current().members().to_vec();
    members.retain(|member| member.id() != NodeId(1));
    bench.change_to(members);
    assert_eq!(ask(&mut bench), 1, "it is a member no more");
}

#[test]
fn a_proposal_gives_way_to_what_was_accepted_before_it() {
    let mut bench = Bench::new(Limits::default());
    let mut members = bench.topology.layout().current().members().to_vec();
    members.pop();
    let other = bench.topology.layout().current().next(members).expect("there are enough");
    let other = bench.topology.layout().begin(Arc::new(other)).expect("it follows");
    let asked = begin(&mut bench);
    let voters = bench.topology.layout().current().members().len();
    let mine = ballot(1, 1);
    for (at, &(_, id)) in asked[..voters / 2].iter().enumerate() {
        let accepted = (at == 0).then(|| (ballot(0, 7), Box::new(other.clone())));
        let promised = Vote::Promised { ballot: mine, accepted };
        bench.handle(Input::Reply { id, message: Message::Voted(Ok(promised)) });
    }
    let effects = bench.tick();
    let proposes = |effect: &Effect| match effect {
        Effect::Ask { message: Message::Accept(accept), .. } => Some(accept.state.clone()),
        _ => None,
    };
    let proposed: Vec<LayoutState> = effects.iter().filter_map(proposes).collect();
    assert_eq!(proposed.len(), voters - 1);
    assert!(proposed.iter().all(|state| *state == other), "another may be decided already");
}

#[test]
fn a_voter_without_its_votes_asks_the_others_before_it_votes() {
    let mut bench = Bench::new(Limits::default());
    bench.store.set_fact(b"voter", None).expect("room");
    bench.tick();
    // A new process on what looks like an empty disk.
    bench.restart();
    let prepare = Message::Prepare(Prepare { epoch: 2, ballot: ballot(3, 2) });
    assert_eq!(vote(&mut bench, prepare.clone()), Ok(Vote::Behind { epoch: 1 }));
    bench.now.micros += 300_000;
    bench.handle(Input::Wake);
    let asks_kept = |effect: &Effect| match effect {
        Effect::Ask { id, message: Message::Prepare(prepare), .. } => {
            assert_eq!(prepare.ballot, Ballot::default(), "it promises nothing for anybody");
            Some(*id)
        }
        _ => None,
    };
    let asked: Vec<u64> = bench.tick().iter().filter_map(asks_kept).collect();
    let voters = bench.topology.layout().current().members().len();
    // The first one was asked as soon as it could be.
    let needed = voters - voters / 2;
    assert!(asked.len() >= needed, "{asked:?}");
    let kept = Promise { epoch: 2, promised: ballot(4, 3), accepted: None };
    for (at, &id) in asked[..needed].iter().enumerate() {
        assert_eq!(vote(&mut bench, prepare.clone()), Ok(Vote::Behind { epoch: 1 }), "after {at}");
        let kept = Box::new(kept.clone());
        bench.handle(Input::Reply { id, message: Message::Voted(Ok(Vote::Kept(kept))) });
        bench.handle(Input::Wake);
        bench.tick();
    }
    assert_eq!(vote(&mut bench, prepare), Ok(Vote::Outbid(ballot(4, 3))), "as they promised");
    let trusted = bench.store.fact(b"voter").expect("readable");
    assert_eq!(trusted, Some(Bytes::from_static(b"1")));
}

#[test]
fn a_change_of_the_members_takes_back_for_all_lanes_who_is_down() {
    let mut bench = Bench::new(Limits::default());
    bench.handle(Input::Liveness { node: NodeId(2), alive: false });
    bench.tick();
    let topology = Arc::new(bench.topology.with_layout(Arc::new(bench.copying())));
    bench.handle(Input::Topology(topology));
    let told = bench.tick().into_iter().find_map(|effect| match effect {
        Effect::Liveness { node, alive } => Some((node, alive)),
        _ => None,
    });
    assert_eq!(
        told,
        Some((NodeId(2), true)),
        "another lane may have adopted it before the verdict"
    );
    assert_eq!(bench.lane.standing(NodeId(2)), Standing::Alive);
}

/// The owners that the node, which owns nothing any more, asks for their clocks, and whom it sends records.
fn asks_heirs(bench: &mut Bench) -> (BTreeMap<NodeId, u64>, Vec<NodeId>) {
    let (mut asked, mut sent) = (BTreeMap::new(), Vec::new());
    for _ in 0..20 {
        bench.now.micros += 100_000;
        bench.handle(Input::Wake);
        for effect in bench.tick() {
            match effect {
                Effect::Ask { to, id, message: Message::AskClocks(_), .. } => {
                    asked.insert(to.node, id);
                }
                Effect::Ask { to, message: Message::Replicate(_), .. } => sent.push(to.node),
                _ => {}
            }
        }
    }
    (asked, sent)
}

#[test]
fn handoff_to_self_is_none_and_nothing_goes_before_each_heir_has_it() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    bench.request(false, put(key, 1, 1));
    bench.tick();
    let clock = bench.store.replica(shard).expect("readable").clock.clone();
    let members = bench.topology.layout().current().members()[1..].to_vec();
    bench.change_to(members);
    let heirs: BTreeSet<NodeId> = bench.topology.replicas(shard).into_iter().collect();
    assert!(!heirs.contains(&NodeId(1)));
    let (asked, _) = asks_heirs(&mut bench);
    assert_eq!(asked.keys().copied().collect::<BTreeSet<_>>(), heirs, "and not itself");
    let answer = |bench: &mut Bench, id: u64, clock: PartitionClock| {
        let epoch = bench.topology.epoch();
        let clocks = Clocks { epoch, clocks: vec![Some(clock)], lacking: Vec::new() };
        bench.handle(Input::Reply { id, message: Message::Clocks(Ok(clocks)) });
        bench.tick()
    };
    let (&last, &id) = asked.last_key_value().expect("three");
    for (_, &id) in asked.iter().filter(|(node, _)| **node != last) {
        answer(&mut bench, id, clock.clone());
    }
    let donated = answer(&mut bench, id, PartitionClock::new());
    let is_sent = |effect: &Effect| match effect {
        Effect::Ask { to, message: Message::Replicate(_), .. } => to.node == last,
        _ => false,
    };
    assert!(donated.iter().any(is_sent), "what one lacks is sent there");
    let (again, _) = asks_heirs(&mut bench);
    assert!(bench.store.held_shards().expect("readable").contains(&shard), "it is kept until then");
    assert_eq!(again.keys().collect::<Vec<_>>(), [&last], "who has all is not asked again");
    answer(&mut bench, again[&last], clock);
    asks_heirs(&mut bench);
    assert!(!bench.store.held_shards().expect("readable").contains(&shard));
}
