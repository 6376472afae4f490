//! Changes of the layout, step by step: fences, joint quorums, votes, and voters that forgot theirs.
//!
//! Whole changes, and everything that may go wrong in one, are the simulator's.

use crate::bench::{Bench, answers, asks, failure, peer, put};
use bytes::Bytes;
use galvani_model::ids::{NodeId, Partition, Shard};
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutState, Member};
use galvani_model::store::Holdings;
use galvani_protocol::{Effect, Input};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::layout::{Accept, Ballot, ChangeLayout, Prepare, Promise, Vote, Wish};
use galvani_wire::message::{Fetch, Replicated};
use std::sync::Arc;

/// The bench's layout and one more node after it.
fn next(bench: &Bench) -> Arc<Layout> {
    let current = bench.topology.layout().current();
    let mut members = current.members().to_vec();
    let address = "127.0.0.1:7999".parse().expect("an address");
    members.push(Member::new(NodeId(99), "n99", "z", 100, vec![address]).expect("a member"));
    Arc::new(current.next(members).expect("there are nodes enough"))
}

fn adopt(bench: &mut Bench, state: LayoutState) {
    let topology = Arc::new(bench.topology.with_layout(Arc::new(state)));
    bench.topology = topology.clone();
    bench.handle(Input::Topology(topology));
    bench.tick();
}

fn copying(bench: &Bench) -> LayoutState {
    bench.topology.layout().begin(next(bench)).expect("it follows")
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
fn what_goes_by_owners_of_before_is_refused_where_they_change() {
    let mut bench = Bench::new(Limits::default());
    let state = copying(&bench);
    adopt(&mut bench, state.clone());
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
    let state = copying(&bench);
    adopt(&mut bench, state.clone());
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
    let state = copying(&bench);
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
    adopt(&mut bench, state.clone());
    let decided = Ok(Vote::Decided(Box::new(state)));
    assert_eq!(vote(&mut bench, prepare(ballot(9, 2))), decided);
}

#[test]
fn a_vote_that_is_not_on_the_disk_is_not_given() {
    let mut bench = Bench::new(Limits::default());
    let message = Message::Prepare(Prepare { epoch: 2, ballot: ballot(1, 3) });
    bench.engine.set_full(true);
    let refused = vote(&mut bench, message);
    assert!(matches!(refused, Err(ReplicaError::DiskFull)), "{refused:?}");
    bench.engine.set_full(false);
}

#[test]
fn an_administrators_layout_is_decided_by_a_majority_and_then_adopted() {
    let mut bench = Bench::new(Limits::default());
    let state = copying(&bench);
    let wish = Wish::Begin(next(&bench));
    let change = |wish| Message::ChangeLayout(Box::new(ChangeLayout { wish, timeout_ms: 2_000 }));
    bench.request(false, change(wish));
    let asked = asks(&bench.tick());
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
    adopt(&mut bench, state);
    // Asking for it again is no error; asking for another one is.
    bench.request(
        false,
        change(Wish::Begin(bench.topology.layout().transition().expect("on").next.clone())),
    );
    assert!(matches!(answers(&bench.tick())[..], [Message::LayoutChanged(_)]));
    let mut members = bench.topology.layout().current().members().to_vec();
    members.pop();
    let other = bench.topology.layout().current().next(members).expect("there are enough");
    bench.request(false, change(Wish::Begin(Arc::new(other))));
    let expected = (Failure::LayoutChanging { version: 2 }, AppliedOutcome::No);
    assert_eq!(failure(&bench.tick()), expected);
}

#[test]
fn a_proposal_gives_way_to_what_was_accepted_before_it() {
    let mut bench = Bench::new(Limits::default());
    let mut members = bench.topology.layout().current().members().to_vec();
    members.pop();
    let other = bench.topology.layout().current().next(members).expect("there are enough");
    let other = bench.topology.layout().begin(Arc::new(other)).expect("it follows");
    let change = ChangeLayout { wish: Wish::Begin(next(&bench)), timeout_ms: 2_000 };
    bench.request(false, Message::ChangeLayout(Box::new(change)));
    let asked = asks(&bench.tick());
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
