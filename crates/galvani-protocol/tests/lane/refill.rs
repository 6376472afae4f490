//! An owner that lost its disk, among three or four: whose word it relies on before it is read from.
//!
//! Whom it needs is tested in `sources.rs`, two owners in `anti_entropy/refill.rs`; here the others answer
//! one by one, and one says that it lost something itself, or is heard before another loss.
//! Next to read: `bench.rs`.

use crate::bench::{Bench, answers, peer};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{ClusterId, NodeId, Shard};
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutState};
use galvani_model::version::{ContextKey, PartitionClock};
use galvani_protocol::{Effect, Input, Topology, facts_of_a_loss};
use galvani_storage::engine::FailKind;
use galvani_storage::write_facts;
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{Clocks, Fetch};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Node 1 of four has lost its disk.
fn lost(mut bench: Bench) -> Bench {
    write_facts(&*bench.engine, &facts_of_a_loss(9)).expect("room");
    bench.restart();
    // What it was asked while it started is lost.
    bench.handle(Input::PeerDown(peer(NodeId(2))));
    bench.handle(Input::PeerUp(peer(NodeId(2))));
    bench.tick();
    bench
}

/// All four nodes own everything.
fn of_four_owners() -> Bench {
    let mut bench = Bench::new(Limits::default());
    let members = bench.topology.layout().current().members().to_vec();
    let layout = Layout::compute(ClusterId(5), 1, 16, 4, members).expect("a layout");
    bench.topology = Arc::new(Topology::new(
        NodeId(1),
        "test".into(),
        Arc::new(LayoutState::founding(Arc::new(layout))),
        BTreeMap::from([(BucketName::default_bucket(), BucketProps::with_copies(4))]),
        ContextKey([1; 16]),
    ));
    bench
}

fn left(bench: &Bench) -> u32 {
    bench.lane.refilling().left
}

/// A question for the clocks of some shards.
#[derive(Clone)]
struct Question {
    to: NodeId,
    id: u64,
    shards: Vec<Shard>,
}

fn questions(effects: Vec<Effect>) -> Vec<Question> {
    let question = |effect: Effect| match effect {
        Effect::Ask { to, id, message: Message::AskClocks(ask), .. } if !ask.durable => {
            Some(Question { to: to.node, id, shards: ask.shards })
        }
        _ => None,
    };
    effects.into_iter().filter_map(question).collect()
}

/// Who is asked at the next look.
fn asked(bench: &mut Bench) -> Vec<Question> {
    bench.now.micros += 50_000;
    bench.handle(Input::Wake);
    questions(bench.tick())
}

fn of(questions: &[Question], node: u128) -> Question {
    let found = questions.iter().find(|question| question.to == NodeId(node));
    found.unwrap_or_else(|| panic!("node {node} is asked")).clone()
}

/// Whoever was asked has taken in nothing, and lost something of `lacking`. Its answer is of this tick.
fn say(bench: &mut Bench, question: Question, lacking: Vec<Shard>) {
    let clocks = vec![Some(PartitionClock::new()); question.shards.len()];
    let message = Message::Clocks(Ok(Clocks { epoch: 1, clocks, lacking }));
    bench.handle(Input::Reply { id: question.id, message });
}

/// Of four owners a write of a majority is on one of any two others that lost nothing.
#[test]
fn the_word_of_an_owner_that_lost_something_itself_is_not_relied_on() {
    let mut bench = lost(of_four_owners());
    assert_eq!(left(&bench), 16);
    bench.handle(Input::Liveness { node: NodeId(4), alive: false });
    let questions = asked(&mut bench);
    say(&mut bench, of(&questions, 2), Vec::new());
    let third = of(&questions, 3);
    let lacking = third.shards.clone();
    say(&mut bench, third, lacking);
    bench.tick();
    assert_eq!(left(&bench), 16, "what both lost may be on the one that is down");
    bench.now.micros += 500_000;
    let questions = asked(&mut bench);
    say(&mut bench, of(&questions, 3), Vec::new());
    bench.tick();
    assert_eq!(left(&bench), 0, "it has all of it back");
}

/// Another process served as this node, and acked what the others need not have had when they were met.
#[test]
fn whoever_was_met_before_the_last_loss_is_met_anew() {
    let mut bench = lost(Bench::new(Limits::default()));
    let all = left(&bench);
    let before = asked(&mut bench);
    for node in [2, 3] {
        say(&mut bench, of(&before, node), Vec::new());
    }
    let unreadable = Message::Clocks(Err(ReplicaError::StorageFailed));
    bench.handle(Input::Reply { id: of(&before, 4).id, message: unreadable });
    bench.tick();
    bench.handle(Input::TwinServed(5));
    let anew = questions(bench.tick());
    assert_eq!(left(&bench), all, "nothing of it is whole any more");
    say(&mut bench, of(&anew, 4), Vec::new());
    bench.tick();
    assert_eq!(left(&bench), all, "one of two others has said what it has now");
    for node in [2, 3] {
        say(&mut bench, of(&anew, node), Vec::new());
    }
    bench.tick();
    assert_eq!(left(&bench), 0);
}

#[test]
fn a_shard_that_was_whole_in_a_failed_tick_only_is_not_read_from() {
    let mut bench = lost(Bench::new(Limits::default()));
    let all = left(&bench);
    let questions = asked(&mut bench);
    for node in [2, 3, 4] {
        say(&mut bench, of(&questions, node), Vec::new());
    }
    assert_eq!(left(&bench), 0, "this tick says so");
    bench.engine.fail_next_commits([FailKind::Full]);
    bench.tick();
    assert_eq!(left(&bench), all, "and the disk does not");
    let key = bench.key(true);
    let (shard, have, shown) = (bench.shard(&key), Vec::new(), Vec::new());
    let fetch = Fetch { shard, key, records: true, have, shown, epoch: 1, timeout_ms: 100 };
    bench.request(false, Message::Fetch(fetch));
    assert_eq!(answers(&bench.tick()), [&Message::Fetched(Err(ReplicaError::Refilling))]);
    let questions = asked(&mut bench);
    for node in [2, 3, 4] {
        say(&mut bench, of(&questions, node), Vec::new());
    }
    bench.tick();
    assert_eq!(left(&bench), 0);
}
