//! Values that expire: what time does to a version, and what it never does.

use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps, ConflictPolicy};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::limits::{TTL_MS_MAX, TTL_MS_MIN};
use galvani_model::request::{TtlError, check_ttl};
use galvani_model::version::{
    Digest, Dot, DotSet, Kind, Object, ReadJoin, Record, RecordHead, Version, object_digest,
    value_hash,
};

const POLICY: ConflictPolicy = ConflictPolicy::Siblings;

fn key() -> Key {
    Key::new(BucketName::default_bucket(), "k").expect("a key")
}

/// The write with this counter, which replaces `past` and ends at `expires_ms`.
fn head(counter: u64, past: &[u64], expires_ms: u64) -> RecordHead {
    let mut seen = DotSet::new();
    for &counter in past {
        seen.insert(Dot::new(Origin(1), counter));
    }
    RecordHead {
        dot: Dot::new(Origin(1), counter),
        key: key(),
        past: seen,
        hlc: Hlc::from_unix_ms(counter),
        rid: RequestId(counter.into()),
        author: NodeId(1),
        kind: Kind::Put,
        value_len: 1,
        value_hash: value_hash(Kind::Put, b"v"),
        expires_ms,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: Vec::new(),
    }
}

fn shown(object: &Object, now_ms: u64) -> Vec<u64> {
    let values = object.versions().iter().filter(|version| version.is_value_at(now_ms));
    values.map(|version| version.dots[0].counter).collect()
}

#[test]
fn an_expired_value_shows_nothing_and_what_it_replaced_stays_replaced() {
    let mut object = Object::absent();
    object.apply(&head(2, &[1], 500), false, POLICY);
    assert_eq!((shown(&object, 499), object.values_at(499)), (vec![2], 1));
    assert_eq!((shown(&object, 500), object.values_at(500)), (vec![], 0));
    // A late copy of what it replaced, before and after.
    object.apply(&head(1, &[], 0), false, POLICY);
    assert_eq!(shown(&object, 499), [2]);
    assert_eq!(shown(&object, 500), [], "nothing older comes back");
    // A sibling that it did not replace is not its affair.
    object.apply(&head(3, &[], 0), false, POLICY);
    assert_eq!(shown(&object, 500), [3]);
    // A write that saw it replaces it as it would any other version.
    object.apply(&head(4, &[2, 3], 0), false, POLICY);
    assert_eq!((shown(&object, 0), object.versions().len()), (vec![4], 1));
}

#[test]
fn an_expired_winner_of_an_lww_bucket_stays_and_nothing_older_comes_back() {
    let mut object = Object::absent();
    object.apply(&head(2, &[], 500), false, ConflictPolicy::Lww);
    object.apply(&head(1, &[], 0), false, ConflictPolicy::Lww);
    assert_eq!((shown(&object, 499), shown(&object, 500)), (vec![2], vec![]));
}

#[test]
fn the_digest_knows_only_values_without_an_end() {
    let mut object = Object::absent();
    object.apply(&head(1, &[], 500), false, POLICY);
    assert_eq!(object_digest(&key(), &object), Digest::default(), "from the first moment");
    object.apply(&head(2, &[], 0), false, POLICY);
    let both = object_digest(&key(), &object);
    let lasting = object.without_ended(|_| true);
    assert_eq!(lasting.versions().len(), 1, "a value without an end is never collected");
    assert_eq!(object_digest(&key(), &lasting), both);
}

#[test]
fn the_expiry_belongs_to_the_write() {
    let ids = [0, 500, 501].map(|expires_ms| head(1, &[], expires_ms).write_id());
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    let hash = value_hash(Kind::Delete, &[]);
    let delete = |expires_ms| RecordHead {
        kind: Kind::Delete,
        value_len: 0,
        value_hash: hash,
        ..head(1, &[], expires_ms)
    };
    assert!(Record { head: delete(0), value: Bytes::new() }.is_intact());
    assert!(!Record { head: delete(5), value: Bytes::new() }.is_intact());
}

#[test]
fn a_hidden_value_that_expires_shows_nothing_and_replaces_what_it_replaced() {
    let mut object = Object::absent();
    object.apply_hidden(&head(2, &[1], 500), false, POLICY);
    assert_eq!(shown(&object, 10), []);
    object.apply(&head(1, &[], 0), false, POLICY);
    assert_eq!(shown(&object, 10), [], "whatever the order");
    assert!(object.versions()[0].agrees_with(&head(2, &[1], 500)), "the record is the same");
    assert!(!Version::of(&head(2, &[1], 500)).agrees_with(&head(2, &[1], 0)));
    // What has no end makes no version: a tombstone follows.
    let mut object = Object::absent();
    object.apply_hidden(&head(2, &[1], 0), false, POLICY);
    assert!(object.is_absent());
}

#[test]
fn a_hidden_value_waits_for_its_own_end_and_a_read_believes_whoever_shows_it() {
    let (mut live, mut hidden) = (Object::absent(), Object::absent());
    live.apply(&head(1, &[], 500), false, POLICY);
    hidden.apply_hidden(&head(1, &[], 500), false, POLICY);
    assert_eq!(hidden.expiring()[..], live.expiring()[..], "its end is that of its record");
    let left = |now_ms| hidden.without_ended(|version| version.has_ended(now_ms)).versions().len();
    assert_eq!((left(499), left(500)), (1, 0), "what hid it may have been a wrong clock");
    let join = |objects: &[&Object]| {
        let mut join = ReadJoin::new();
        objects.iter().for_each(|object| join.add(object, &object.seen()));
        join.object(POLICY)
    };
    assert_eq!(join(&[&live, &hidden]), join(&[&hidden, &live]));
    assert_eq!(shown(&join(&[&live, &hidden, &live]), 10), [1]);
    assert_eq!(shown(&join(&[&live, &hidden]), 500), []);
    assert_eq!(shown(&join(&[&hidden, &hidden]), 10), []);
}

#[test]
fn a_time_to_live_is_bounded() {
    for ttl_ms in [0, TTL_MS_MIN, TTL_MS_MAX] {
        assert_eq!(check_ttl(ttl_ms), Ok(()));
    }
    for ttl_ms in [1, TTL_MS_MIN - 1, TTL_MS_MAX + 1, u64::MAX] {
        assert_eq!(check_ttl(ttl_ms), Err(TtlError { ttl_ms }));
        assert!(BucketProps { ttl_ms, ..BucketProps::with_copies(3) }.check().is_err());
    }
}
