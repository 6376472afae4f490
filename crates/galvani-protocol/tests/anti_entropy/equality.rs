//! A1: no alteration of one object hides behind equal digests, and all are found and undone.

use super::{Pair, SHARD};
use bytes::Bytes;
use galvani_model::bucket::{BucketName, ConflictPolicy};
use galvani_model::hlc::Hlc;
use galvani_model::ids::RequestId;
use galvani_model::key::Key;
use galvani_model::request::{Quorum, WriteOptions};
use galvani_model::store::{Listed, Store};
use galvani_model::version::{Digest, Dot, Kind, Object};
use galvani_protocol::{Effect, Input};
use galvani_storage::engine::{Batch, Durability, Engine, Table};
use galvani_storage::format::{keys, rows};
use galvani_wire::Message;
use galvani_wire::message::{Put, SliceIs};

const KEYS: usize = 40;

fn key(number: usize) -> Key {
    Key::new(BucketName::default_bucket(), format!("k{number:02}")).expect("a key")
}

/// A write that replaces what the one before it wrote to the key, if `replaces`.
fn put(pair: &mut Pair, side: usize, number: usize, replaces: Option<Bytes>) -> Bytes {
    pair.rids += 1;
    let put = Put {
        emits: Vec::new(),
        key: key(number),
        kind: Kind::Put,
        rid: RequestId(pair.rids),
        issued: Hlc::from_unix_ms(1_000_000),
        retry: false,
        context: replaces,
        options: WriteOptions { w: Some(Quorum::Exactly(1)), ..WriteOptions::default() },
        timeout_ms: 2000,
        value: Bytes::from_static(b"v"),
    };
    match pair.ask(side, Message::Put(put)).remove(0) {
        Message::PutDone(done) => done.context,
        other => panic!("refused: {}", other.name()),
    }
}

/// Two owners with equal clocks: one value, siblings, and values that replaced others, by turns;
/// the objects that each key had before.
fn filled() -> (Pair, Vec<Vec<Object>>) {
    let mut pair = Pair::new();
    pair.link(true);
    let mut before = vec![Vec::new(); KEYS];
    for (number, before) in before.iter_mut().enumerate() {
        let context = put(&mut pair, number % 2, number, None);
        before.push(pair.sides[number % 2].store.object(SHARD, &key(number)).expect("whole"));
        for more in 0..number % 4 {
            let context = (number % 3 == 0).then(|| context.clone());
            put(&mut pair, (number + more) % 2, number, context);
        }
    }
    pair.pass(10_000);
    assert_eq!(pair.clock(0), pair.clock(1));
    (pair, before)
}

/// Every other object that a key may be shown to have on a damaged disk.
fn alterations(object: &Object, before: &[Object]) -> Vec<Object> {
    let policy = ConflictPolicy::Siblings;
    let versions = object.versions();
    let without = |index: usize| {
        let left = versions.iter().enumerate().filter(|(at, _)| *at != index);
        Object::from_versions(left.map(|(_, version)| version.clone()).collect(), policy)
    };
    let mut all: Vec<Object> = (0..versions.len()).map(without).collect();
    all.push(Object::absent());
    all.extend(before.iter().filter(|old| old.dots() != object.dots()).cloned());
    all
}

fn alter(pair: &Pair, side: usize, number: usize, object: &Object) {
    let row = keys::object(SHARD, &key(number));
    let mut batch = Batch::new();
    match object.is_absent() {
        true => batch.delete(Table::Objects, &row),
        false => batch.put_with(Table::Objects, &row, |out| rows::put(&row, object, out)),
    }
    pair.sides[side].engine.commit(&batch, Durability::Os).expect("a disk in memory");
}

fn scan(pair: &mut Pair, side: usize) -> Vec<Listed> {
    pair.sides[side].store.slice(SHARD, None, 1_000).expect("whole").objects
}

/// What each key has, by its dots alone: pasts may be written differently.
fn shown(pair: &mut Pair, side: usize) -> Vec<(Key, Vec<Dot>)> {
    let dots = |listed: Listed| (listed.key, listed.object.dots().to_vec());
    scan(pair, side).into_iter().map(dots).collect()
}

#[test]
fn merkle_false_equality() {
    let (mut pair, before) = filled();
    let right = shown(&mut pair, 0);
    assert_eq!(shown(&mut pair, 1), right);
    let digest = pair.sides[0].store.replica(SHARD).expect("whole").digest;
    let mut tried = 0;
    for (number, before) in before.iter().enumerate() {
        let side = number / 2 % 2;
        let object = pair.sides[side].store.object(SHARD, &key(number)).expect("whole");
        for altered in alterations(&object, before) {
            alter(&pair, side, number, &altered);
            let what = format!("{} as {:?}", key(number), altered.dots());
            let false_state = pair.sides[side].store.derive_state(SHARD).expect("readable");
            assert_ne!(false_state.digest, digest, "{what}: the data's digest differs");
            pair.seen.clear();
            pair.handle(side, Input::Verify(None));
            pair.pass(6_000);
            let named = pair.seen.iter().any(|message| match message {
                Message::SliceIs(Ok(slice)) => slice.keys.iter().any(|(of, _)| *of == key(number)),
                _ => false,
            });
            assert!(named, "{what}: the comparison names the key");
            assert_eq!(shown(&mut pair, 0), right, "{what}");
            assert_eq!(shown(&mut pair, 1), right, "{what}");
            for side in 0..2 {
                let derived = pair.sides[side].store.derive_state(SHARD).expect("readable").digest;
                assert_eq!(derived, digest, "{what}");
                let kept = pair.sides[side].store.replica(SHARD).expect("whole").digest;
                assert_eq!(kept, digest, "{what}");
            }
            tried += 1;
        }
    }
    assert!(tried > 2 * KEYS, "{tried} alterations");
}

/// One that says the same part again and again would be asked for ever.
#[test]
fn a_peer_that_does_not_go_on_is_left_alone() {
    let (mut pair, _) = filled();
    alter(&pair, 0, 3, &Object::absent());
    pair.handle(0, Input::Verify(None));
    let (mut asked, clock) = (0, pair.clock(1));
    for _ in 0..5_000 {
        pair.now.micros += 1_000;
        for side in 0..2 {
            pair.handle(side, Input::Wake);
            for effect in pair.tick(side) {
                let Effect::Ask { id, message: Message::AskSlice(ask), .. } = effect else {
                    pair.deliver(side, effect);
                    continue;
                };
                asked += 1;
                let slice = SliceIs {
                    last: Some(key(5)),
                    digest: Digest::default(),
                    rows: 1,
                    clock: ask.keys.then(|| clock.clone()),
                    keys: Vec::new(),
                };
                let message = Message::SliceIs(Ok(slice));
                pair.handle(side, Input::Reply { id, message });
            }
        }
    }
    assert!((3..100).contains(&asked), "{asked} questions in five seconds");
}
