//! Seeing to it that a change goes on: whose word is believed, for how long, and what copying needs.
//!
//! Node 1 is the first member, so it is the one that proposes. Next to read: `layout.rs`.

use crate::bench::{Bench, answers, peer};
use bytes::Bytes;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId, Shard};
use galvani_model::limits::Limits;
use galvani_model::placement::Pace;
use galvani_model::version::{Dot, Kind, PartitionClock, Range, RecordHead, value_hash};
use galvani_protocol::{Effect, Input};
use galvani_wire::Message;
use galvani_wire::layout::{AskProgress, Ballot, Progress};
use galvani_wire::message::{Clocks, Pull, Pulled};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Node 99 joins, and the copying has begun.
fn copying(bench: &mut Bench) {
    bench.adopt(bench.copying());
    bench.handle(Input::PeerUp(peer(NodeId(99))));
    bench.tick();
}

/// What this node says of the buckets it knows.
fn mark(bench: &mut Bench) -> u32 {
    bench.request(false, Message::AskProgress(AskProgress { epoch: 2 }));
    match answers(&bench.tick())[..] {
        [Message::Progress(progress)] => progress.buckets,
        ref other => panic!("one answer expected, got {other:?}"),
    }
}

/// Some seconds, in which the others say that they are done, and node 99 what it is told to.
fn run(bench: &mut Bench, says: impl Fn(u32) -> Option<Progress>) -> Vec<Effect> {
    let mark = mark(bench);
    let mut seen = Vec::new();
    for _ in 0..40 {
        bench.now.micros += 60_000;
        bench.handle(Input::Wake);
        for effect in bench.tick() {
            if let Effect::Ask { to, id, ref message, .. } = effect {
                let done = Progress { epoch: 2, left: 0, buckets: mark };
                let answer = match message {
                    Message::AskProgress(_) if to.node == NodeId(99) => {
                        says(mark).map(Message::Progress)
                    }
                    Message::AskProgress(_) => Some(Message::Progress(done)),
                    Message::LayoutIs(_) => Some(Message::Noted),
                    _ => None,
                };
                answer.into_iter().for_each(|message| bench.handle(Input::Reply { id, message }));
            }
            seen.push(effect);
        }
    }
    seen
}

fn done(mark: u32) -> Option<Progress> {
    Some(Progress { epoch: 2, left: 0, buckets: mark })
}

fn proposes(effects: &[Effect]) -> bool {
    let for_next = |effect: &Effect| match effect {
        Effect::Ask { message: Message::Prepare(prepare), .. } => {
            prepare.epoch == 3 && prepare.ballot != Ballot::default()
        }
        _ => false,
    };
    effects.iter().any(for_next)
}

#[test]
fn a_phase_ends_when_every_lane_says_so() {
    let mut bench = Bench::new(Limits::default());
    copying(&mut bench);
    assert!(!proposes(&run(&mut bench, |_| None)), "node 99 has said nothing");
    let behind = |mark| Some(Progress { epoch: 2, left: 1, buckets: mark });
    assert!(!proposes(&run(&mut bench, behind)), "it has a shard to catch up with");
    assert!(proposes(&run(&mut bench, done)));
}

#[test]
fn what_a_lane_said_does_not_hold_for_the_process_after_it() {
    let mut bench = Bench::new(Limits::default());
    copying(&mut bench);
    // One of the others holds the phase up while node 99 says that it is done.
    let third = peer(NodeId(3));
    bench.handle(Input::PeerDown(third));
    assert!(!proposes(&run(&mut bench, done)), "node 3 has said nothing");
    // It is started anew, perhaps on another disk.
    bench.handle(Input::PeerDown(peer(NodeId(99))));
    bench.handle(Input::PeerUp(peer(NodeId(99))));
    bench.handle(Input::PeerUp(third));
    let seen = run(&mut bench, |_| None);
    assert!(!proposes(&seen), "nothing is known of this process");
    let told = |effect: &Effect| match effect {
        Effect::Ask { to, message: Message::LayoutIs(_), .. } => to.node == NodeId(99),
        _ => false,
    };
    assert!(seen.iter().any(told), "nor whether it knows of the change");
    assert!(proposes(&run(&mut bench, done)));
}

#[test]
fn as_many_buckets_are_not_the_same_buckets() {
    let mut bench = Bench::new(Limits::default());
    copying(&mut bench);
    let other = |mark: u32| Some(Progress { epoch: 2, left: 0, buckets: mark ^ 1 });
    let seen = run(&mut bench, other);
    assert!(!proposes(&seen), "it would refuse writes of a bucket that it does not know");
    let taught = |effect: &Effect| match effect {
        Effect::Ask { to, message: Message::DefineBucket(_), .. } => to.node == NodeId(99),
        _ => false,
    };
    assert!(seen.iter().any(taught), "it is told of them");
    assert!(proposes(&run(&mut bench, done)));
}

/// Node 99 catches up with shards of which the old owners have three records each; how many pages of one
/// record it asks for in so many microseconds: few enough that nobody is held for down.
fn pulls(bench: &mut Bench, micros: u64, bytes: usize) -> usize {
    let theirs: PartitionClock =
        [Range { origin: Origin(7), first: 1, last: 3 }].into_iter().collect();
    let (end, mut pulled) = (bench.now.micros + micros, 0);
    while bench.now.micros < end {
        bench.now.micros += 60_000;
        bench.handle(Input::Wake);
        for effect in bench.tick() {
            let Effect::Ask { id, message, .. } = effect else { continue };
            match message {
                Message::AskClocks(ask) => {
                    let clocks = ask.shards.iter().map(|_| Some(theirs.clone())).collect();
                    let message =
                        Message::Clocks(Ok(Clocks { epoch: 2, clocks, lacking: Vec::new() }));
                    bench.handle(Input::Reply { id, message });
                }
                Message::Pull(pull) => {
                    pulled += 1;
                    let page = page(bench, &pull, bytes);
                    bench.handle(Input::Reply { id, message: Message::Pulled(Ok(page)) });
                }
                _ => {}
            }
        }
    }
    pulled
}

/// The first of the records that are asked for.
fn page(bench: &Bench, pull: &Pull, bytes: usize) -> Pulled {
    let mut keys = (0..).map(|number| crate::bench::key(&format!("key-{number}")));
    let key = keys.find(|key| bench.shard(key) == pull.shard).expect("some key fits");
    let counter = pull.wanted.ranges().next().expect("something is asked for").first;
    let value = Bytes::from(vec![7; bytes]);
    let head = RecordHead {
        dot: Dot::new(Origin(7), counter),
        key,
        past: Default::default(),
        hlc: Hlc::from_unix_ms(1_000_000),
        rid: RequestId(u128::from(pull.shard.partition.0) << 8 | u128::from(counter)),
        author: NodeId(1),
        kind: Kind::Put,
        value_len: bytes as u32,
        value_hash: value_hash(Kind::Put, &value),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Vec::new(),
        emits: Vec::new(),
    };
    let through = Some(head.dot);
    Pulled { heads: vec![head], values: vec![value], through, ..Pulled::default() }
}

#[test]
fn copying_keeps_to_its_pace_and_rests_when_it_is_told_to() {
    let limits = Limits { anti_entropy_ms: 0, ..Limits::default() };
    let mut bench = Bench::of(NodeId(99), limits);
    copying(&mut bench);
    // What it asks for at once is for `pulls` to answer.
    let paced = |bench: &mut Bench, pace| {
        let state = bench.topology.layout().at_pace(pace).expect("it is copying");
        bench.topology = Arc::new(bench.topology.with_layout(Arc::new(state)));
        bench.handle(Input::Topology(bench.topology.clone()));
    };
    paced(&mut bench, Pace { paused: true, bytes_per_second: 0 });
    // The first questions for clocks were not answered, and are made again after two seconds.
    assert_eq!(pulls(&mut bench, 2_200_000, 1_000), 0, "it rests");
    let all = bench.lane.copying();
    assert_eq!(all.records_left, 3 * u64::from(all.left), "{all:?}");
    // One from each owner at once, and then one in a tenth of a second.
    paced(&mut bench, Pace { paused: false, bytes_per_second: 10_000 });
    let slow = pulls(&mut bench, 700_000, 1_000) as u64;
    assert!((1..=12).contains(&slow), "{slow} pages of 1,000 bytes in 0.7 seconds");
    let copied = bench.lane.copying();
    assert_eq!(copied.records, slow, "{copied:?}");
    assert!(copied.bytes >= slow * 1_000 && copied.records_left > 0, "{copied:?}");
    paced(&mut bench, Pace::default());
    let fast = pulls(&mut bench, 700_000, 1_000) as u64;
    assert!(fast > slow, "nothing holds it back: {fast} pages and {slow}");
}

#[test]
fn a_change_is_copied_also_where_owners_are_not_compared() {
    let limits = Limits { anti_entropy_ms: 0, ..Limits::default() };
    let mut bench = Bench::of(NodeId(99), limits);
    copying(&mut bench);
    let theirs: PartitionClock =
        [Range { origin: Origin(7), first: 1, last: 3 }].into_iter().collect();
    let (mut met, mut pulled) = (BTreeSet::<Shard>::new(), BTreeSet::<Shard>::new());
    for _ in 0..40 {
        bench.now.micros += 60_000;
        bench.handle(Input::Wake);
        for effect in bench.tick() {
            let Effect::Ask { id, message, .. } = effect else { continue };
            match message {
                Message::AskClocks(ask) => {
                    met.extend(&ask.shards);
                    let clocks = ask.shards.iter().map(|_| Some(theirs.clone())).collect();
                    let message =
                        Message::Clocks(Ok(Clocks { epoch: 2, clocks, lacking: Vec::new() }));
                    bench.handle(Input::Reply { id, message });
                }
                Message::Pull(pull) => {
                    assert_eq!(pull.wanted, theirs);
                    pulled.insert(pull.shard);
                }
                Message::Compare(_) => panic!("nothing is compared"),
                _ => {}
            }
        }
    }
    assert!(!met.is_empty(), "it has shards to catch up with");
    assert!(!pulled.is_empty(), "and asks for what it lacks");
    assert!(pulled.is_subset(&met));
}
