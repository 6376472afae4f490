//! When a write ends: worked out from the request and the bucket alone, or refused.

use crate::bench::{Bench, answers, failure, put};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, RequestId};
use galvani_model::key::Key;
use galvani_model::limits::{Limits, TTL_MS_MAX};
use galvani_model::version::{Kind, RecordHead};
use galvani_protocol::{Effect, Input, Topology};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::message::Put;
use std::sync::Arc;

const ISSUED_MS: u64 = 1_000_123;

fn write(key: &Key, ttl_ms: Option<u64>, change: impl FnOnce(&mut Put)) -> Message {
    let Message::Put(mut made) = put(key.clone(), 1, 1) else { panic!("made as a put") };
    made.issued = Hlc::from_unix_ms(ISSUED_MS);
    made.options.ttl_ms = ttl_ms;
    change(&mut made);
    Message::Put(made)
}

/// The record that a coordinator sends to the other owners.
fn sent(bench: &mut Bench, message: Message) -> RecordHead {
    bench.request(false, message);
    let effects = bench.tick();
    let head = effects.iter().find_map(|effect| match effect {
        Effect::Ask { message: Message::Replicate(replicate), .. } => Some(&replicate.head),
        _ => None,
    });
    head.cloned().expect("replicated")
}

fn with_bucket_ttl(me: NodeId, ttl_ms: u64) -> Bench {
    let mut bench = Bench::of(me, Limits::default());
    let props = BucketProps { ttl_ms, ..BucketProps::with_copies(3) };
    let buckets = [(BucketName::default_bucket(), props)].into();
    let mut topology = Topology::clone(&bench.topology);
    topology.buckets = buckets;
    let topology = Arc::new(topology);
    bench.topology = topology.clone();
    bench.handle(Input::Topology(topology));
    bench.tick();
    bench
}

#[test]
fn every_coordinator_gives_a_write_the_same_end_whatever_its_own_clock_says() {
    let mut one = Bench::of(NodeId(1), Limits::default());
    let key = one.key(true);
    let shard = one.shard(&key);
    let owners = one.topology.owners(shard);
    let other = owners.into_iter().find(|&node| node != NodeId(1)).expect("three owners");
    // By its clock the write is old, and it has not met the others: it must be sure of knowing a retry.
    let mut two = Bench::of(other, Limits { feed_bytes: 0, ..Limits::default() });
    two.now.unix_ms += 400_000;
    let first = sent(&mut one, write(&key, Some(60_000), |_| {}));
    let second = sent(&mut two, write(&key, Some(60_000), |_| {}));
    assert_eq!(first.expires_ms, ISSUED_MS + 60_000);
    assert_eq!(first.write_id(), second.write_id(), "so a retry is known as one");
}

#[test]
fn a_buckets_ttl_is_for_puts_that_name_none() {
    let ends = |ttl_ms, change: fn(&mut Put)| {
        let mut bench = with_bucket_ttl(NodeId(1), 5_000);
        let key = bench.key(true);
        sent(&mut bench, write(&key, ttl_ms, change)).expires_ms
    };
    assert_eq!(ends(None, |_| {}), ISSUED_MS + 5_000);
    assert_eq!(ends(Some(2_000), |_| {}), ISSUED_MS + 2_000);
    assert_eq!(ends(Some(0), |_| {}), 0, "for ever");
    let delete = |put: &mut Put| (put.kind, put.value) = (Kind::Delete, Default::default());
    assert_eq!(ends(None, delete), 0, "a tombstone has no end of its own");
}

#[test]
fn an_impossible_ttl_is_refused_before_anything_is_stored() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    for ttl_ms in [1, 999, TTL_MS_MAX + 1, u64::MAX] {
        bench.request(false, write(&key, Some(ttl_ms), |_| {}));
        let said = failure(&bench.tick());
        assert_eq!(said, (Failure::TtlImpossible { ttl_ms }, AppliedOutcome::No));
    }
    let delete = |put: &mut Put| (put.kind, put.value) = (Kind::Delete, Default::default());
    bench.request(false, write(&key, Some(5_000), delete));
    assert!(matches!(failure(&bench.tick()), (Failure::Malformed { .. }, AppliedOutcome::No)));
    assert!(!bench.store.has_staged());
    bench.request(false, write(&key, Some(TTL_MS_MAX), |_| {}));
    assert!(matches!(answers(&bench.tick())[..], [Message::PutDone(_)]));
}

#[test]
fn values_that_have_ended_count_for_less_among_siblings_and_are_bounded() {
    let mut bench = Bench::new(Limits { siblings_max: 4, ..Limits::default() });
    let key = bench.key(true);
    let mut written = 0;
    let mut blind = |bench: &mut Bench| {
        written += 1;
        let change = |put: &mut Put| put.rid = RequestId(written);
        bench.request(false, write(&key, Some(1_000), change));
        bench.tick().into_iter().find_map(|effect| match effect {
            Effect::Answer { message: Message::Failed(failed), .. } => Some(failed.failure),
            _ => None,
        })
    };
    let before_it_is_refused = |bench: &mut Bench, blind: &mut dyn FnMut(&mut Bench) -> _| {
        for taken in 0..100 {
            match blind(bench) {
                None => {}
                Some(Failure::TooManySiblings { count: 5, limit: 4 }) => return taken,
                Some(other) => panic!("refused as {other:?}"),
            }
        }
        panic!("never refused")
    };
    assert_eq!(before_it_is_refused(&mut bench, &mut blind), 4, "while they are shown");
    bench.now.unix_ms = ISSUED_MS + 1_000;
    // Of 13 that have ended 12 count for three: beside them there is room for the last.
    assert_eq!(before_it_is_refused(&mut bench, &mut blind), 9);
}
