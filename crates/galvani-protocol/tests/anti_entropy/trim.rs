//! Records that go out of the log: which, when, what holds them back, and who is told what of them.

use super::{Pair, SHARD, node, peer};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{LaneIndex, Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::store::Store;
use galvani_model::version::{Digest, Dot, Kind, Object, PartitionClock, Range, Record};
use galvani_protocol::{Effect, Input, ReplyTo};
use galvani_storage::engine::{Corruption, Table};
use galvani_storage::format::keys;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::message::{
    Compare, Compared, Comparison, Get, Pull, Pulled, Put, PutDone, Replicate,
};

fn key(name: &str) -> Key {
    Key::new(BucketName::default_bucket(), name.to_owned()).expect("a key")
}

/// Two owners that keep records for a second.
fn pair() -> Pair {
    keeping(1_000)
}

fn keeping(feed_keep_ms: u64) -> Pair {
    let mut pair = Pair::of(1, Limits { feed_keep_ms, ..Limits::default() });
    pair.link(true);
    pair
}

fn read(pair: &mut Pair, side: usize, name: &str) -> (Vec<Bytes>, Bytes) {
    let options = ReadOptions { r: Some(Quorum::Exactly(1)), ..ReadOptions::default() };
    let get = Get { key: key(name), options, timeout_ms: 2_000 };
    let read = match &pair.ask(side, Message::Get(get))[..] {
        [Message::GetDone(done)] => {
            let values = done.siblings.iter().filter(|sibling| sibling.kind == Kind::Put);
            (values.map(|sibling| sibling.value.clone()).collect(), done.context.clone())
        }
        other => panic!("a read, got {other:?}"),
    };
    pair.flow();
    read
}

/// A write on side 0 that replaces what is there.
fn write(pair: &mut Pair, name: &str, kind: Kind, value: &str) -> Put {
    let context = read(pair, 0, name).1;
    pair.rids += 1;
    let put = Put {
        emits: Vec::new(),
        key: key(name),
        kind,
        rid: RequestId(pair.rids),
        issued: Hlc::from_unix_ms(pair.now.unix_ms),
        retry: false,
        context: Some(context),
        options: WriteOptions { w: Some(Quorum::Exactly(1)), ..WriteOptions::default() },
        timeout_ms: 2_000,
        value: Bytes::from(value.to_owned()),
    };
    pair.request(0, Message::Put(put.clone()));
    pair.flow();
    put
}

fn overwrite(pair: &mut Pair, name: &str, times: usize) -> Vec<Put> {
    (0..times).map(|time| write(pair, name, Kind::Put, &format!("{name} {time}"))).collect()
}

/// What is written now becomes old, and everything happens that is due.
fn grow_old(pair: &mut Pair) {
    pair.now.unix_ms += 2_000;
    pair.pass(8_000);
}

/// The records that are in a log.
fn logged(pair: &mut Pair, side: usize) -> Vec<Record> {
    let store = &mut pair.sides[side].store;
    let dots = store.logged(SHARD, Dot::new(Origin(0), 0), 1_000).expect("whole");
    dots.into_iter().filter_map(|dot| store.record(SHARD, dot).expect("whole")).collect()
}

fn trimmed(pair: &Pair) -> [u64; 2] {
    [0, 1].map(|side| pair.sides[side].lane.counters().records_trimmed)
}

fn object(pair: &mut Pair, side: usize, name: &str) -> Object {
    pair.sides[side].store.object(SHARD, &key(name)).expect("whole")
}

/// A side comes back with an empty disk. It must not have written anything itself.
fn wipe(pair: &mut Pair, side: usize) {
    pair.link(false);
    let empty = Pair::of(1, Limits { feed_keep_ms: 1_000, ..Limits::default() });
    pair.sides[side] = empty.sides.into_iter().nth(side).expect("there are two");
    pair.link(true);
    pair.pass(3_000);
}

#[test]
fn replaced_records_go_from_both_logs_and_live_ones_stay() {
    let mut pair = pair();
    for name in ["a", "b"] {
        overwrite(&mut pair, name, 5);
    }
    pair.pass(3_000);
    assert_eq!(trimmed(&pair), [0, 0], "they are young");
    grow_old(&mut pair);
    assert_eq!(trimmed(&pair), [8, 8]);
    assert!(pair.sides.iter().all(|side| side.lane.is_settled()));
    for side in 0..2 {
        let left = logged(&mut pair, side);
        assert_eq!(left.len(), 2, "side {side}");
        assert_eq!(read(&mut pair, side, "a").0, ["a 4"]);
        assert!(pair.sides[side].store.damaged().is_empty(), "side {side}");
        assert!(pair.sides[side].lane.counters().bytes_trimmed > 0);
    }
    // What is written later goes in its turn, and what lives below what was trimmed with it.
    overwrite(&mut pair, "a", 2);
    grow_old(&mut pair);
    assert_eq!(trimmed(&pair), [10, 10]);
    assert_eq!(read(&mut pair, 1, "a").0, ["a 1"]);
}

#[test]
fn nothing_goes_unless_a_time_is_set_and_has_passed() {
    for keep_ms in [0, 3_600_000] {
        let mut pair = keeping(keep_ms);
        overwrite(&mut pair, "a", 5);
        grow_old(&mut pair);
        assert_eq!((trimmed(&pair), logged(&mut pair, 0).len()), ([0, 0], 5), "{keep_ms} ms");
    }
}

#[test]
fn an_owner_that_is_away_holds_everything_back_and_is_named() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 5);
    pair.link(false);
    grow_old(&mut pair);
    assert_eq!(trimmed(&pair), [0, 0]);
    assert_eq!(pair.sides[0].lane.trim_waits().into_iter().collect::<Vec<_>>(), [node(1)]);
    pair.link(true);
    grow_old(&mut pair);
    assert_eq!(trimmed(&pair), [4, 4]);
    assert!(pair.sides[0].lane.trim_waits().is_empty());
}

/// Side 1 grows old, and is answered nothing but that side 0 has taken this in.
fn grow_old_alone(pair: &mut Pair, clock: &PartitionClock) {
    pair.now.unix_ms += 2_000;
    pair.hears_only(clock, 8_000);
}

/// What the other one has besides may be what replaced a value here, of which this one shows another.
#[test]
fn nothing_goes_while_another_owner_has_what_is_lacking_here() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 5);
    let mut theirs = pair.clock(1);
    theirs.insert(Dot::new(Origin(77), 1));
    grow_old_alone(&mut pair, &theirs);
    assert_eq!(trimmed(&pair), [0, 0]);
    let same = pair.clock(1);
    grow_old_alone(&mut pair, &same);
    assert_eq!(trimmed(&pair), [0, 4]);
}

/// Something is lost on one of them, and may be held again by a record that is here.
#[test]
fn nothing_goes_while_another_owner_holds_other_objects() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 5);
    let clock = pair.clock(1);
    let digest = pair.sides[1].store.replica(SHARD).expect("whole").digest;
    let compare = |digest| {
        let shards = vec![(SHARD, clock.clone(), digest)];
        Message::Compare(Compare { node: node(0), lane: LaneIndex(0), shards })
    };
    pair.request(1, compare(Digest(7)));
    grow_old_alone(&mut pair, &clock);
    assert_eq!(pair.sides[1].lane.unequal().count(), 1, "nothing has mended it");
    assert_eq!(trimmed(&pair), [0, 0]);
    pair.request(1, compare(digest));
    grow_old_alone(&mut pair, &clock);
    assert_eq!(trimmed(&pair), [0, 4]);
}

#[test]
fn siblings_and_what_no_record_replaces_stay() {
    let mut pair = pair();
    pair.put(0, "a", b"one".to_vec());
    pair.put(1, "a", b"other".to_vec());
    grow_old(&mut pair);
    assert_eq!((trimmed(&pair), logged(&mut pair, 0).len()), ([0, 0], 2));
}

#[test]
fn what_a_tombstone_replaced_goes_and_its_own_record_stays() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 3);
    write(&mut pair, "a", Kind::Delete, "");
    pair.pass(3_000);
    assert!(object(&mut pair, 0, "a").is_absent(), "the tombstone is collected");
    grow_old(&mut pair);
    grow_old(&mut pair);
    for side in 0..2 {
        let left = logged(&mut pair, side);
        let kinds: Vec<Kind> = left.iter().map(|record| record.head.kind).collect();
        assert_eq!(kinds, [Kind::Delete], "side {side}");
    }
}

#[test]
fn events_go_when_they_are_old() {
    let mut pair = pair();
    write(&mut pair, "a", Kind::Put, "v");
    pair.rids += 1;
    let emit = galvani_model::version::Emit {
        topic: "t".parse().expect("a topic"),
        key: Bytes::new(),
        payload: Bytes::from_static(b"happened"),
    };
    let put = Put {
        kind: Kind::Emit,
        emits: vec![emit],
        context: None,
        value: Bytes::new(),
        ..write(&mut pair, "b", Kind::Put, "w")
    };
    pair.request(0, Message::Put(Put { rid: RequestId(900), ..put }));
    pair.flow();
    assert_eq!(logged(&mut pair, 1).len(), 3);
    grow_old(&mut pair);
    assert_eq!((trimmed(&pair), logged(&mut pair, 1).len()), ([1, 1], 2));
}

#[test]
fn a_replica_that_lost_its_disk_is_told_what_was_trimmed() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 4);
    let first = logged(&mut pair, 1)[0].clone();
    overwrite(&mut pair, "gone", 2);
    write(&mut pair, "gone", Kind::Delete, "");
    pair.pass(3_000);
    grow_old(&mut pair);
    assert_eq!(trimmed(&pair), [5, 5]);
    wipe(&mut pair, 1);
    let clock = pair.clock(0);
    assert_eq!(pair.clock(1), clock);
    assert_eq!(read(&mut pair, 1, "a").0, ["a 3"]);
    assert_eq!(logged(&mut pair, 1).len(), 2, "a value and a tombstone");
    assert!(pair.pages().iter().any(|page| !page.trimmed.is_empty()));
    // A late copy of what it was told of changes nothing.
    let Record { head, value } = first;
    let late = Replicate { shard: SHARD, head, fsync: false, epoch: 1, timeout_ms: 1_000, value };
    pair.ask(1, Message::Replicate(late));
    assert_eq!(read(&mut pair, 1, "a").0, ["a 3"]);
    // And it is told again of it what it was told.
    wipe(&mut pair, 0);
    assert_eq!(pair.clock(0), clock);
    assert_eq!(read(&mut pair, 0, "a").0, ["a 3"]);
    pair.pass(10_000);
    assert!(object(&mut pair, 0, "gone").is_absent());
}

#[test]
fn more_than_was_asked_for_is_not_believed() {
    let mut pair = pair();
    pair.put(1, "a", b"v".to_vec());
    pair.link(false);
    pair.put(1, "b", b"v".to_vec());
    pair.link(true);
    pair.now.micros += 30_000;
    pair.handle(0, Input::Wake);
    let pulls = pair.tick(0).into_iter().filter_map(|effect| match effect {
        Effect::Ask { id, message: Message::Pull(Pull { wanted, .. }), .. } => Some((id, wanted)),
        _ => None,
    });
    let (id, wanted) = pulls.last().expect("it lacks a record");
    let asked = wanted.ranges().next().expect("a dot");
    let through = Some(Dot::new(asked.origin, asked.last));
    let more = Range { last: asked.last + 1, ..asked };
    let trimmed = PartitionClock::from_iter([more]);
    let pulled = Pulled { through, trimmed, ..Pulled::default() };
    pair.handle(0, Input::Reply { id, message: Message::Pulled(Ok(pulled)) });
    assert!(!pair.clock(0).contains(Dot::new(asked.origin, asked.last)));
    assert!(!pair.clock(0).contains(Dot::new(asked.origin, asked.last + 1)));
}

#[test]
fn a_retry_of_a_trimmed_write_is_known_and_changes_nothing() {
    let mut pair = pair();
    let puts = overwrite(&mut pair, "a", 3);
    let dot = logged(&mut pair, 0)[0].head.dot;
    grow_old(&mut pair);
    assert_eq!(trimmed(&pair), [2, 2]);
    let first = Put { options: WriteOptions::default(), ..puts[0].clone() };
    match &pair.ask(0, Message::Put(first))[..] {
        [Message::PutDone(PutDone { dot: known, siblings: 1, .. })] => assert_eq!(*known, dot),
        other => panic!("it is stored, got {other:?}"),
    }
    assert_eq!(read(&mut pair, 0, "a").0, ["a 2"]);
    assert_eq!(logged(&mut pair, 0).len(), 1);
}

#[test]
fn an_owner_that_cannot_know_a_late_retry_leaves_it_to_one_that_can() {
    let mut pair = pair();
    let puts = overwrite(&mut pair, "a", 3);
    let dot = logged(&mut pair, 0)[0].head.dot;
    grow_old(&mut pair);
    wipe(&mut pair, 1);
    let again = |put: &Put| Put { options: WriteOptions::default(), ..put.clone() };
    pair.seen.clear();
    pair.request(1, Message::Put(again(&puts[0])));
    pair.flow();
    let known = |message: &Message| matches!(message, Message::PutDone(done) if done.dot == dot);
    assert!(pair.seen.iter().any(known), "side 0 says so: {:?}", pair.seen);
    // Given to it by another owner it does not know either, it writes nothing.
    let from = ReplyTo { link: 1, id: 0 };
    let (arrived, message) = (pair.now.micros, Message::Put(again(&puts[0])));
    pair.handle(1, Input::Request { from, forwarded: true, arrived, message });
    let refused = pair.tick(1).into_iter().any(|effect| match effect {
        Effect::Answer { message: Message::Failed(failed), .. } => {
            matches!(failed.failure, Failure::RetryTooLate { .. })
                && failed.applied == AppliedOutcome::No
        }
        _ => false,
    });
    assert!(refused);
    // Before it has met the other owner it knows of nothing that was trimmed, and does the same.
    let empty = Pair::of(1, Limits { feed_keep_ms: 1_000, ..Limits::default() });
    pair.link(false);
    pair.sides[1] = empty.sides.into_iter().nth(1).expect("there are two");
    let (arrived, message) = (pair.now.micros, Message::Put(again(&puts[0])));
    pair.handle(1, Input::Request { from, forwarded: true, arrived, message });
    let written = pair.tick(1).into_iter().any(|effect| match effect {
        Effect::Answer { message, .. } => !matches!(message, Message::Failed(_)),
        Effect::Ask { message, .. } => matches!(message, Message::Replicate(_)),
        _ => false,
    });
    assert!(!written);
    // Nor does it once the other has only said that it can tell nothing.
    pair.handle(1, Input::PeerUp(peer(0)));
    let mut compared = 0;
    for _ in 0..2_500 {
        pair.now.micros += 1_000;
        pair.handle(1, Input::Wake);
        for effect in pair.tick(1) {
            if let Effect::Ask { id, message: Message::Compare(compare), .. } = effect {
                let unknown = Comparison::Unknown(ReplicaError::AnswerTooLarge);
                let shards = vec![unknown; compare.shards.len()];
                compared += shards.len();
                let message = Message::Compared(Ok(Compared { shards }));
                pair.handle(1, Input::Reply { id, message });
            }
        }
    }
    assert!(compared > 0);
    let (arrived, message) = (pair.now.micros, Message::Put(again(&puts[0])));
    pair.handle(1, Input::Request { from, forwarded: true, arrived, message });
    let refused = pair.tick(1).into_iter().any(|effect| match effect {
        Effect::Answer { message: Message::Failed(failed), .. } => {
            matches!(failed.failure, Failure::RetryTooLate { .. })
        }
        _ => false,
    });
    assert!(refused);
    pair.link(true);
    pair.pass(3_000);
    // What is issued later than all that was trimmed cannot be one of those.
    let mut new = again(&puts[0]);
    new.rid = RequestId(99);
    new.issued = Hlc::from_unix_ms(pair.now.unix_ms);
    pair.seen.clear();
    pair.request(1, Message::Put(new));
    pair.flow();
    assert!(pair.seen.iter().any(|message| matches!(message, Message::Replicate(_))), "from here");
    for side in 0..2 {
        let values = read(&mut pair, side, "a").0;
        assert_eq!(values, ["a 2", "a 0"], "side {side}: the last one, and what is new");
    }
}

#[test]
fn an_object_is_worked_out_again_from_what_is_left_of_the_log() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 4);
    overwrite(&mut pair, "b", 2);
    write(&mut pair, "b", Kind::Delete, "");
    pair.pass(3_000);
    write(&mut pair, "b", Kind::Put, "again");
    grow_old(&mut pair);
    for name in ["a", "b"] {
        let whole = object(&mut pair, 0, name);
        let row = keys::object(SHARD, &key(name));
        assert!(pair.sides[0].engine.corrupt(Table::Objects, &row, Corruption::FlipBit(77)));
        pair.handle(0, Input::Verify(None));
        pair.pass(5_000);
        assert!(pair.sides[0].store.damaged().is_empty(), "{name}");
        assert_eq!(object(&mut pair, 0, name), whole, "{name}");
    }
}

#[test]
fn a_live_record_that_is_lost_among_trimmed_ones_is_found_and_mended() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 1);
    overwrite(&mut pair, "b", 3);
    grow_old(&mut pair);
    let dot = object(&mut pair, 0, "a").dots()[0];
    assert!(pair.sides[0].store.replica(SHARD).expect("whole").is_trimmed(dot));
    assert!(pair.sides[0].engine.corrupt(Table::Log, &keys::log(SHARD, dot), Corruption::Vanish));
    pair.handle(0, Input::Verify(None));
    pair.pass(5_000);
    assert_eq!(pair.sides[0].store.mended(), 1);
    assert!(pair.sides[0].store.record_on_disk(SHARD, dot).expect("whole").is_some());
}

/// An owner that takes its dot in as that of a trimmed record would have a value less, and not know it.
#[test]
fn a_live_record_that_is_lost_among_trimmed_ones_is_not_told_as_trimmed() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 1);
    overwrite(&mut pair, "b", 3);
    grow_old(&mut pair);
    let dot = object(&mut pair, 0, "a").dots()[0];
    pair.link(false);
    assert!(pair.sides[0].engine.corrupt(Table::Log, &keys::log(SHARD, dot), Corruption::Vanish));
    pair.handle(0, Input::Verify(None));
    pair.pass(5_000);
    assert_eq!(pair.sides[0].store.damaged().len(), 1, "it is known to be lost");
    wipe(&mut pair, 1);
    let clock = pair.clock(1);
    assert_eq!(pair.clock(0).len() - clock.len(), 1, "it was told of all but that: {clock:?}");
    assert!(!clock.contains(dot));
}

#[test]
fn a_damaged_record_that_nothing_needs_goes_when_the_others_have_let_it_go() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 3);
    let dot = logged(&mut pair, 0)[0].head.dot;
    // Its row on side 0 cannot be read, so it stays there while side 1 lets it go.
    let row = keys::log(SHARD, dot);
    assert!(pair.sides[0].engine.corrupt(Table::Log, &row, Corruption::FlipBit(99)));
    grow_old(&mut pair);
    assert_eq!(trimmed(&pair), [1, 2]);
    pair.handle(0, Input::Verify(None));
    pair.pass(5_000);
    assert!(pair.sides[0].store.damaged().is_empty());
    assert_eq!(logged(&mut pair, 0).len(), 1);
}

#[test]
fn a_late_copy_of_a_trimmed_write_stays_dead_when_its_object_is_worked_out_again() {
    let mut pair = pair();
    overwrite(&mut pair, "a", 2);
    let Record { mut head, value } = logged(&mut pair, 0)[0].clone();
    grow_old(&mut pair);
    assert_eq!(trimmed(&pair), [1, 1]);
    // Another coordinator took the same write in, and nothing names its dot.
    head.dot = Dot::new(Origin(77), 1);
    let late = Replicate { shard: SHARD, head, fsync: false, epoch: 1, timeout_ms: 1_000, value };
    for side in 0..2 {
        pair.ask(side, Message::Replicate(late.clone()));
    }
    pair.pass(3_000);
    let whole = object(&mut pair, 0, "a");
    let row = keys::object(SHARD, &key("a"));
    assert!(pair.sides[0].engine.corrupt(Table::Objects, &row, Corruption::FlipBit(77)));
    pair.handle(0, Input::Verify(None));
    pair.pass(5_000);
    assert!(pair.sides[0].store.damaged().is_empty());
    assert_eq!(object(&mut pair, 0, "a"), whole);
    assert_eq!(read(&mut pair, 0, "a").0, ["a 1"]);
    grow_old(&mut pair);
    assert_eq!(trimmed(&pair), [1, 1], "it stays as long as its write is known");
}

/// Two owners that keep records for an hour, and so many bytes of them.
fn weighing(feed_bytes: u64) -> Pair {
    let limits = Limits { feed_keep_ms: 3_600_000, feed_bytes, ..Limits::default() };
    let mut pair = Pair::of(1, limits);
    pair.link(true);
    pair
}

/// Lets the owners look twice whether they keep too much.
fn weigh(pair: &mut Pair) {
    for _ in 0..2 {
        pair.now.micros += 30_000_000;
        pair.now.unix_ms += 30_000;
        pair.pass(6_000);
    }
}

/// Red if bytes do not count; if what lives counts; or if more goes than must.
#[test]
fn the_oldest_records_go_when_there_are_too_many_bytes_of_them_though_they_are_young() {
    const WRITES: usize = 40;
    let large = |time: usize| format!("{time:04}{}", "x".repeat(996));
    let mut pair = weighing(10_000);
    for time in 0..WRITES {
        write(&mut pair, "a", Kind::Put, &large(time));
        // What lives is as much again, and is no matter.
        write(&mut pair, &format!("live {time}"), Kind::Put, &large(time));
        pair.now.unix_ms += 1_000;
    }
    assert_eq!(pair.sides[0].lane.feed_keep_ms(), 3_600_000);
    weigh(&mut pair);
    for side in 0..2 {
        let left = logged(&mut pair, side);
        let lives = left.iter().filter(|it| it.head.key != key("a")).count();
        assert_eq!(lives, WRITES, "side {side}");
        let of_a: Vec<&Record> = left.iter().filter(|it| it.head.key == key("a")).collect();
        // Some 1,170 bytes each, and the last of them lives.
        assert!((6..=9).contains(&of_a.len()), "side {side}: {} left", of_a.len());
        let oldest = of_a.iter().map(|it| it.value.slice(..4)).min().expect("some");
        assert_eq!(oldest, format!("{:04}", WRITES - of_a.len()), "the oldest have gone");
        assert_eq!(read(&mut pair, side, "a").0, [Bytes::from(large(WRITES - 1))]);
        let reach_ms = pair.sides[side].lane.feed_keep_ms();
        assert!((30_000..120_000).contains(&reach_ms), "side {side}: {reach_ms} ms");
        assert!(pair.sides[side].store.damaged().is_empty());
    }
}

/// Red if bytes let a record go that another owner may still need.
#[test]
fn too_many_bytes_are_kept_while_an_owner_is_away_and_go_when_it_is_back() {
    let mut pair = weighing(1_000);
    for _ in 0..20 {
        overwrite(&mut pair, "a", 1);
        pair.now.unix_ms += 1_000;
    }
    pair.link(false);
    weigh(&mut pair);
    assert_eq!(trimmed(&pair), [0, 0]);
    assert_eq!(pair.sides[0].lane.trim_waits().into_iter().collect::<Vec<_>>(), [node(1)]);
    pair.link(true);
    weigh(&mut pair);
    weigh(&mut pair);
    let left = [0, 1].map(|side| logged(&mut pair, side).len());
    assert!(left.iter().all(|left| (2..=7).contains(left)), "{left:?}");
}
