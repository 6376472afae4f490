//! An owner that lost its disk: no read is answered from it before it has caught up.

use super::busy::wait_for_ever;
use super::collect::delete;
use super::{Pair, SHARD, Side, node, peer, topology};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::ids::{LaneIndex, RequestId};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::request::{Quorum, ReadOptions};
use galvani_model::store::{Holdings, Store};
use galvani_model::version::{Dot, Record};
use galvani_protocol::{Effect, Input, Lane, LaneConfig, facts_of_a_loss};
use galvani_storage::engine::{FailKind, MemoryEngine};
use galvani_storage::{MemoryConfig, NodeStore, StoreConfig, write_facts};
use galvani_wire::Message;
use galvani_wire::failure::{Failure, Outcome, ReplicaError};
use galvani_wire::message::{AskClocks, Clocks, FetchPage, Get, List, Replicate};
use std::sync::Arc;

/// A side whose process starts on what its engine holds.
pub(super) fn started(side: usize, engine: &Arc<MemoryEngine>, limits: &Limits) -> Side {
    let config = StoreConfig {
        lane: LaneIndex(0),
        lanes: 1,
        keep_origins: false,
        memory: MemoryConfig::of_lane(1),
        checkpoint_every: 2,
    };
    let mut store = NodeStore::open(engine.clone(), config).expect("whole").store;
    store.set_fact(b"voter", Some(Bytes::from_static(b"1"))).expect("room");
    store.commit(true).expect("room");
    let boot = 70 + side as u128;
    let config =
        LaneConfig { lane: LaneIndex(0), limits: limits.clone(), always_fsync: false, boot };
    Side { lane: Lane::new(config, topology(side, 1), []), store, engine: engine.clone() }
}

impl Pair {
    /// A side's disk is lost, and its process starts on an empty one.
    fn lose(&mut self, side: usize, limits: &Limits) {
        let engine = Arc::new(MemoryEngine::new());
        write_facts(&*engine, &facts_of_a_loss(9)).expect("room");
        self.sides[side] = started(side, &engine, limits);
        self.handle(side, Input::Wake);
        self.flow();
    }

    fn restart(&mut self, side: usize, limits: &Limits) {
        let engine = self.sides[side].engine.clone();
        self.sides[side] = started(side, &engine, limits);
        self.handle(side, Input::Wake);
        self.flow();
    }

    fn lacks(&self, side: usize) -> u32 {
        self.sides[side].lane.refilling().left
    }

    /// What one side answers at r=1: how many siblings it shows, or what it says of itself.
    fn read(&mut self, side: usize, name: &str) -> Result<usize, Outcome> {
        let key = Key::new(BucketName::default_bucket(), name.to_owned()).expect("a key");
        let options = ReadOptions { r: Some(Quorum::Exactly(1)), ..ReadOptions::default() };
        let answers = self.ask(side, Message::Get(Get { key, options, timeout_ms: 500 }));
        match &answers[..] {
            [Message::GetDone(done)] => Ok(done.siblings.len()),
            [Message::Failed(failed)] => {
                assert!(matches!(failed.failure, Failure::QuorumNotMet { .. }), "{failed:?}");
                let own = failed.answers.iter().find(|answer| answer.node == node(side));
                Err(own.expect("it speaks of itself").outcome.clone())
            }
            other => panic!("an answer to a read, got {other:?}"),
        }
    }

    /// What one side answers to whoever asks for its clock: whether it lacks something.
    fn says_it_lacks(&mut self, side: usize) -> bool {
        let (node, lane) = (node(1 - side), LaneIndex(0));
        let ask = AskClocks { node, lane, shards: vec![SHARD], durable: false };
        match &self.ask(side, Message::AskClocks(ask))[..] {
            [Message::Clocks(Ok(Clocks { lacking, .. }))] => lacking.contains(&SHARD),
            other => panic!("clocks, got {other:?}"),
        }
    }
}

const REFILLING: Result<usize, Outcome> = Err(Outcome::Refused(ReplicaError::Refilling));

fn is_filled_and_read_from_then(limits: &Limits) {
    let mut pair = Pair::with(|side| topology(side, 1), limits.clone());
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    pair.link(false);
    assert_eq!(pair.read(1, "k"), Ok(1));
    pair.lose(1, limits);
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING), "not 'nothing there'");
    assert_eq!(pair.sides[1].lane.refilling().waits, [node(0)]);
    assert!(pair.says_it_lacks(1) && !pair.says_it_lacks(0));
    let (shard, bucket) = (SHARD, BucketName::default_bucket());
    let page = FetchPage {
        shard,
        bucket,
        prefix: Bytes::new(),
        after: None,
        limit: 9,
        timeout_ms: 0,
        epoch: 1,
    };
    let listed = pair.ask(1, Message::FetchPage(page));
    assert_eq!(listed, [Message::FetchedPage(Err(ReplicaError::Refilling))]);
    // It is an owner all the same: what it takes in from now on is here.
    pair.put(1, "new", b"v".to_vec());
    assert!(!pair.sides[1].store.replica(SHARD).expect("whole").clock.is_empty());
    // A restart changes nothing of it.
    pair.restart(1, limits);
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING));
    pair.link(true);
    pair.pass(300);
    pair.link(false);
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (0, Ok(1)));
    assert_eq!(pair.read(1, "new"), Ok(1));
    assert!(!pair.says_it_lacks(1));
    pair.restart(1, limits);
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (0, Ok(1)), "it was written down");
}

#[test]
fn an_owner_that_lost_its_disk_is_read_from_when_it_is_filled_again() {
    is_filled_and_read_from_then(&Limits::default());
}

#[test]
fn it_is_filled_where_owners_are_compared_for_nothing_else() {
    is_filled_and_read_from_then(&Limits { anti_entropy_ms: 0, ..Limits::default() });
}

#[test]
fn what_is_only_noted_in_a_failed_tick_is_not_relied_on() {
    let limits = Limits::default();
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    pair.link(false);
    pair.lose(1, &limits);
    pair.link(true);
    // Every commit of the side that is filled fails, whatever comes.
    pair.sides[1].engine.fail_next_commits(vec![FailKind::Full; 10_000]);
    pair.pass(300);
    assert_eq!(pair.lacks(1), 1, "nothing of it is on the disk");
    assert!(pair.says_it_lacks(1));
}

fn tells_lanes(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::WentBack(_)))
}

impl Pair {
    /// One side is linked to nobody, and one is shown a write of the first one that it does not have.
    fn show_what_it_forgot(&mut self, side: usize, shown_to: usize) {
        self.link(true);
        self.put(side, "k", b"v".to_vec());
        let own = self.sides[side].store.replica(SHARD).expect("whole").own.expect("it has minted");
        assert_eq!(self.lacks(side), 0);
        self.link(false);
        let dot = Dot::new(own.origin, own.counter);
        let record = self.sides[side].store.record(SHARD, dot).expect("whole").expect("its own");
        let Record { mut head, value } = record;
        head.dot.counter += 1;
        head.rid = RequestId(99);
        let (shard, fsync, epoch, timeout_ms) = (SHARD, false, 1, 500);
        let replicate = Replicate { shard, head, fsync, epoch, timeout_ms, value };
        self.request(shown_to, Message::Replicate(replicate));
    }
}

#[test]
fn a_disk_that_went_back_is_filled_again_as_well_and_all_lanes_hear_of_it() {
    let mut pair = Pair::new();
    pair.show_what_it_forgot(1, 1);
    assert!(tells_lanes(&pair.tick(1)), "the disk is that of all lanes");
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING));
    pair.link(true);
    pair.pass(300);
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (0, Ok(2)));
    pair.link(false);
    pair.restart(1, &Limits::default());
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (0, Ok(2)), "it was written down");
    // As another lane does that is told so.
    pair.handle(1, Input::WentBack(4));
    assert!(!tells_lanes(&pair.tick(1)), "all know");
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING));
}

#[test]
fn a_node_that_had_a_twin_is_filled_again_once_for_each() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    pair.pass(300);
    for twin in [7, 8] {
        pair.link(false);
        pair.handle(1, Input::TwinServed(twin));
        assert!(!tells_lanes(&pair.tick(1)), "all are told");
        assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING));
        pair.link(true);
        pair.pass(300);
        assert_eq!((pair.lacks(1), pair.read(1, "k")), (0, Ok(1)));
        pair.handle(1, Input::TwinServed(twin));
        assert_eq!(pair.lacks(1), 0, "told again of the same one");
    }
    pair.link(false);
    pair.handle(1, Input::TwinServed(9));
    pair.tick(1);
    pair.restart(1, &Limits::default());
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING), "it was written down");
}

#[test]
fn what_was_heard_before_a_loss_says_nothing_of_it() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    pair.pass(300);
    pair.handle(1, Input::TwinServed(7));
    // The question that follows from it is answered, and then there is another loss.
    let mut asked = Vec::new();
    for _ in 0..50 {
        pair.now.micros += 1_000;
        pair.handle(1, Input::Wake);
        for effect in pair.tick(1) {
            match effect {
                Effect::Ask { id, message: Message::AskClocks(ask), .. } => asked.push((id, ask)),
                other => pair.deliver(1, other),
            }
        }
    }
    let (id, ask) = asked.pop().expect("the other owner is asked");
    let clock = pair.clock(1);
    pair.handle(1, Input::TwinServed(8));
    let clocks = vec![Some(clock); ask.shards.len()];
    let message = Message::Clocks(Ok(Clocks { epoch: 1, clocks, lacking: Vec::new() }));
    pair.handle(1, Input::Reply { id, message });
    pair.tick(1);
    assert_eq!(pair.lacks(1), 1, "the answer is older than the loss");
    pair.flow();
    pair.pass(600);
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (0, Ok(1)));
}

/// Lets reads go on and nothing else, and what side 1 answers its client.
fn said_to_the_client(pair: &mut Pair) -> Vec<Message> {
    let mut said = Vec::new();
    for _ in 0..20 {
        for side in [1, 0] {
            for effect in pair.tick(side) {
                match effect {
                    Effect::Answer { to, message, .. } if to.link == 1 => said.push(message),
                    Effect::Ask { message: Message::Fetch(_) | Message::FetchPage(_), .. }
                    | Effect::Answer { .. } => pair.deliver(side, effect),
                    _ => {}
                }
            }
        }
    }
    said
}

fn is_refilling(message: &Message) -> bool {
    match message {
        Message::Failed(failed) => failed.failure == Failure::Coordinator(ReplicaError::Refilling),
        _ => false,
    }
}

#[test]
fn a_read_that_learns_of_it_does_not_count_its_own_copy() {
    let mut pair = Pair::new();
    pair.show_what_it_forgot(1, 0);
    pair.flow();
    // The link is up again, and nothing has been compared when the read asks.
    pair.linked = true;
    for side in 0..2 {
        pair.handle(side, Input::PeerUp(peer(1 - side)));
    }
    pair.seen.clear();
    let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
    let options = ReadOptions { r: Some(Quorum::Exactly(2)), ..ReadOptions::default() };
    pair.request(1, Message::Get(Get { key, options, timeout_ms: 500 }));
    // Only the read goes on: nothing else tells the node before it does.
    let said = said_to_the_client(&mut pair);
    assert!(said.len() == 1 && said.iter().all(is_refilling), "{said:?}");
}

#[test]
fn a_listing_that_learns_of_it_does_not_count_its_own_page() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(1, "k", b"v".to_vec());
    let list = |timeout_ms| {
        let (bucket, prefix, after) = (BucketName::default_bucket(), Bytes::new(), None);
        let options = ReadOptions { r: Some(Quorum::Exactly(2)), ..ReadOptions::default() };
        Message::List(List {
            bucket,
            prefix,
            after,
            limit: 9,
            partition: SHARD.partition,
            options,
            timeout_ms,
        })
    };
    pair.request(1, list(500));
    let said = said_to_the_client(&mut pair);
    assert!(matches!(said[..], [Message::Listed(_)]), "{said:?}");
    pair.request(1, list(500));
    // Another lane has found it out.
    pair.handle(1, Input::WentBack(4));
    let said = said_to_the_client(&mut pair);
    assert!(said.len() == 1 && said.iter().all(is_refilling), "{said:?}");
}

#[test]
fn a_loss_that_could_not_be_written_down_is_one_all_the_same() {
    let mut pair = Pair::new();
    pair.show_what_it_forgot(1, 1);
    pair.sides[1].engine.fail_next_commits(vec![FailKind::Full; 3]);
    assert!(tells_lanes(&pair.tick(1)));
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING));
    pair.pass(200);
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING));
    pair.restart(1, &Limits::default());
    assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING), "it was written after all");
}

#[test]
fn a_lane_that_was_not_told_in_time_finds_out_when_it_starts() {
    let limits = Limits::default();
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    pair.link(false);
    // Another lane of the node found that its disk went back, and then the process ended.
    let found: (&[u8], _) = (b"loss/found", Some(Bytes::from_static(b"by lane 3")));
    write_facts(&*pair.sides[1].engine, &[found]).expect("room");
    for _ in 0..2 {
        pair.restart(1, &limits);
        assert_eq!((pair.lacks(1), pair.read(1, "k")), (1, REFILLING));
    }
    pair.link(true);
    pair.pass(300);
    pair.link(false);
    for _ in 0..2 {
        assert_eq!((pair.lacks(1), pair.read(1, "k")), (0, Ok(1)), "it is known, and made good");
        pair.restart(1, &limits);
    }
}

#[test]
fn a_value_that_was_deleted_shows_nothing_while_the_record_of_its_delete_is_still_to_come() {
    let mut pair = Pair::new();
    pair.link(true);
    // More than a page: the record of the delete is in the next one.
    pair.put(0, "k", vec![7; 300 << 10]);
    delete(&mut pair, 0, "k");
    pair.pass(3_000);
    let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
    let object = |pair: &mut Pair| pair.sides[1].store.object(SHARD, &key).expect("whole");
    assert!(object(&mut pair).versions().is_empty(), "its tombstone is collected");
    pair.link(false);
    pair.lose(1, &Limits::default());
    pair.seen.clear();
    pair.link(true);
    // While a client of the other side waits, pages come one by one.
    wait_for_ever(&mut pair, 0);
    let mut between = 0;
    for _ in 0..300 {
        pair.pass(1);
        assert_eq!(object(&mut pair).values_at(pair.now.unix_ms), 0, "it was deleted");
        between += usize::from(pair.pages().len() == 1);
    }
    assert!(between > 0, "never looked at between the pages");
    assert_eq!(pair.clock(0), pair.clock(1));
}

/// What it says it has is asked of it only while it counts as alive. Found by seed 52,060 of `sim`.
#[test]
fn a_source_that_was_heard_while_it_was_held_for_down_is_asked_when_it_is_back() {
    for interval in [0, 1_000] {
        let limits = Limits { anti_entropy_ms: interval, ..Limits::default() };
        let mut pair = Pair::with(|side| topology(side, 1), limits.clone());
        pair.put(0, "k", b"v".to_vec());
        pair.lose(1, &limits);
        pair.linked = true;
        pair.handle(0, Input::PeerUp(peer(1)));
        pair.handle(1, Input::PeerUp(peer(0)));
        pair.handle(1, Input::Liveness { node: node(0), alive: false });
        pair.pass(500);
        assert_eq!(pair.lacks(1), 1, "{interval}: nothing is pulled from one that is down");
        pair.handle(1, Input::Liveness { node: node(0), alive: true });
        pair.pass(500);
        assert_eq!(pair.lacks(1), 0, "{interval}");
    }
}
