//! Values that expire: shown until their end, then nothing, and collected by proof like tombstones.

use super::collect::delete;
use super::{Pair, SHARD, node};
use bytes::Bytes;
use galvani_model::bucket::{BucketName, ConflictPolicy};
use galvani_model::hlc::Hlc;
use galvani_model::ids::RequestId;
use galvani_model::key::Key;
use galvani_model::limits::{CLOCK_AHEAD_MS_MAX, Limits};
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::store::{Rewrite, Store};
use galvani_model::version::{Context, ContextKey, DotSet, Kind, ReadJoin};
use galvani_protocol::{Input, ReplyTo};
use galvani_storage::engine::{Corruption, Table};
use galvani_storage::format::keys;
use galvani_wire::Message;
use galvani_wire::message::{Get, GetDone, Put, Sibling};

/// As the limits have it.
const MARGIN_MS: u64 = 2 * CLOCK_AHEAD_MS_MAX;

/// For how long expired values are gathered, and a round.
const GATHERED_MS: u64 = 33_000;

fn key() -> Key {
    Key::new(BucketName::default_bucket(), "k").expect("a key")
}

impl Pair {
    /// Writes the key after everything `seen`, to live for `ttl_ms`.
    fn put_for(&mut self, side: usize, seen: &DotSet, ttl_ms: Option<u64>, value: &'static str) {
        self.rids += 1;
        let context = Context { seen: seen.clone(), hlc: Hlc::default() };
        let w = Some(Quorum::Exactly(1));
        let put = Put {
            emits: Vec::new(),
            key: key(),
            kind: Kind::Put,
            rid: RequestId(self.rids),
            issued: Hlc::from_unix_ms(self.now.unix_ms),
            retry: false,
            context: Some(context.seal(&key(), &ContextKey([1; 16])).into()),
            options: WriteOptions { w, ttl_ms, ..WriteOptions::default() },
            timeout_ms: 2000,
            value: Bytes::from_static(value.as_bytes()),
        };
        self.ask_and_flow(side, Message::Put(put));
    }

    fn ask_and_flow(&mut self, side: usize, message: Message) {
        let (from, arrived) = (ReplyTo { link: 1, id: 0 }, self.now.micros);
        self.handle(side, Input::Request { from, forwarded: false, arrived, message });
        self.flow();
    }

    /// What one side alone shows.
    fn shown(&mut self, side: usize) -> Vec<Sibling> {
        let options = ReadOptions { r: Some(Quorum::One), n: Some(1), ..ReadOptions::default() };
        let get = Message::Get(Get { key: key(), options, timeout_ms: 500 });
        let answers = self.ask(side, get);
        match &answers[..] {
            [Message::GetDone(GetDone { siblings, .. })] => siblings.clone(),
            other => panic!("one answer expected, got {other:?}"),
        }
    }

    fn live(&mut self, side: usize) -> usize {
        self.sides[side].store.object(SHARD, &key()).expect("readable").versions().len()
    }

    fn seen(&mut self, side: usize) -> DotSet {
        self.sides[side].store.object(SHARD, &key()).expect("readable").seen()
    }

    pub(super) fn put_named(&mut self, side: usize, name: &str, ttl_ms: u64) {
        self.rids += 1;
        let w = Some(Quorum::Exactly(1));
        let put = Put {
            emits: Vec::new(),
            key: Key::new(BucketName::default_bucket(), name.to_owned()).expect("a key"),
            kind: Kind::Put,
            rid: RequestId(self.rids),
            issued: Hlc::from_unix_ms(self.now.unix_ms),
            retry: false,
            context: None,
            options: WriteOptions { w, ttl_ms: Some(ttl_ms), ..WriteOptions::default() },
            timeout_ms: 2000,
            value: Bytes::from_static(b"v"),
        };
        self.ask_and_flow(side, Message::Put(put));
    }

    /// One side loses its disk.
    fn wipe(&mut self, side: usize) {
        let [one, two] = Pair::new().sides;
        self.sides[side] = if side == 0 { one } else { two };
    }

    /// Lets the clocks of both go on, and what is due then happen.
    fn skip(&mut self, millis: u64) {
        self.now.unix_ms += millis;
        self.now.micros += millis * 1000;
        self.pass(3_000);
    }
}

/// The owner whose copy a read at n=1 asks for.
fn first() -> usize {
    let topology = super::topology(0, 1);
    let owners = topology.layout().owners(SHARD);
    (0..2).find(|&side| owners[0] == node(side)).expect("both own it")
}

#[test]
fn a_value_is_shown_until_its_end_and_goes_when_every_owner_has_it() {
    let (mut pair, side) = (Pair::new(), first());
    pair.link(true);
    pair.put_for(side, &DotSet::new(), None, "old");
    let seen = pair.seen(side);
    pair.put_for(side, &seen, Some(10_000), "new");
    let digest = |pair: &mut Pair| pair.sides[side].store.replica(SHARD).expect("whole").digest;
    let before = digest(&mut pair);
    let siblings = pair.shown(side);
    assert_eq!((siblings[0].kind, &siblings[0].value[..]), (Kind::Put, &b"new"[..]));
    assert_eq!(siblings[0].expires_ms, pair.now.unix_ms + 10_000);
    pair.skip(9_999);
    assert_eq!(pair.shown(side)[0].kind, Kind::Put);
    pair.skip(1);
    let siblings = pair.shown(side);
    assert_eq!((siblings[0].kind, siblings[0].value.len()), (Kind::Delete, 0));
    assert_eq!(siblings.len(), 1, "nothing older comes back");
    // For the margin it stays, whatever the clocks of others say.
    pair.skip(MARGIN_MS - 3_000);
    assert_eq!((pair.live(0), pair.live(1)), (1, 1));
    pair.skip(GATHERED_MS);
    assert_eq!((pair.live(0), pair.live(1)), (0, 0), "and then it goes, on both");
    assert_eq!(digest(&mut pair), before, "which no digest notices");
    for side in 0..2 {
        let counters = pair.sides[side].lane.counters();
        assert_eq!((counters.expired_collected, counters.digests_unequal), (1, 0));
        assert_eq!(pair.sides[side].store.replica(SHARD).expect("whole").expiring, 0);
    }
}

/// A round is asked for because of a tombstone, while the value has been expired for less than the margin.
#[test]
fn a_round_for_a_tombstone_leaves_what_has_only_just_expired() {
    let (mut pair, side) = (Pair::new(), first());
    pair.link(true);
    pair.put_for(side, &DotSet::new(), Some(1_000), "new");
    pair.put(side, "other", b"v".to_vec());
    pair.skip(1_000);
    delete(&mut pair, side, "other");
    let tombstones = |pair: &mut Pair| {
        [0, 1].map(|side| pair.sides[side].store.replica(SHARD).expect("whole").tombstones)
    };
    assert_eq!(tombstones(&mut pair), [1, 1]);
    pair.pass(3_000);
    assert_eq!(tombstones(&mut pair), [0, 0], "collected on both");
    assert_eq!((pair.live(0), pair.live(1)), (1, 1), "others may still show it");
}

#[test]
fn an_expired_value_waits_for_an_owner_that_is_away() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put_for(0, &DotSet::new(), None, "old");
    pair.link(false);
    let seen = pair.seen(0);
    pair.put_for(0, &seen, Some(1_000), "new");
    pair.skip(1_000 + MARGIN_MS + GATHERED_MS);
    assert_eq!(pair.live(0), 1, "the other owner still shows what it replaced");
    pair.link(true);
    pair.pass(3_000);
    pair.skip(GATHERED_MS);
    assert_eq!((pair.live(0), pair.live(1)), (0, 0), "taken in there as what it is, and collected");
    assert_eq!(pair.sides[1].lane.counters().expired_collected, 1);
}

#[test]
fn a_value_that_another_owner_has_collected_already_stops_what_it_replaced() {
    let (mut pair, side) = (Pair::new(), first());
    pair.link(true);
    pair.put_for(1 - side, &DotSet::new(), None, "old");
    let seen = pair.seen(1 - side);
    pair.put_for(1 - side, &seen, Some(1_000), "new");
    pair.skip(1_000 + MARGIN_MS);
    pair.skip(GATHERED_MS);
    assert_eq!(pair.live(1 - side), 0);
    // The first owner loses its disk, and its clock says that the value has not ended yet.
    pair.link(false);
    pair.wipe(side);
    pair.now.unix_ms = 1_000_500;
    pair.link(true);
    pair.pass(3_000);
    assert_eq!(pair.clock(0), pair.clock(1), "it has all of it again");
    let values = pair.shown(side).into_iter().filter(|one| one.kind == Kind::Put).count();
    assert_eq!(values, 0, "neither the old value nor the new one");
}

#[test]
fn a_value_that_one_owner_lost_is_not_collected_by_another_before_its_end() {
    let (mut pair, side) = (Pair::forgetful(), first());
    pair.link(true);
    pair.put_for(1 - side, &DotSet::new(), None, "old");
    let seen = pair.seen(1 - side);
    pair.put_for(1 - side, &seen, Some(60_000), "new");
    let shown = pair.sides[side].store.object(SHARD, &key()).expect("readable");
    // One owner loses the row without a trace, the other one its disk; the third is not here.
    pair.link(false);
    let row = keys::object(SHARD, &key());
    assert!(pair.sides[1 - side].engine.corrupt(Table::Objects, &row, Corruption::Vanish));
    pair.wipe(side);
    pair.link(true);
    pair.pass(10_000);
    assert_eq!(pair.clock(0), pair.clock(1), "it has all of it again");
    let object = pair.sides[side].store.object(SHARD, &key()).expect("readable");
    assert_eq!(object.values_at(pair.now.unix_ms), 0, "it may have been deleted");
    let mut join = ReadJoin::new();
    [&object, &shown].into_iter().for_each(|one| join.add(one, &one.seen()));
    let joined = join.object(ConflictPolicy::Siblings);
    assert_eq!(joined, shown, "and the third owner shows that it was not");
    pair.skip(60_000 + MARGIN_MS - 20_000);
    assert_eq!(pair.live(side), 1);
    pair.skip(60_000);
    pair.skip(GATHERED_MS);
    assert_eq!(pair.live(side), 0, "collected like any other");
    assert_eq!(pair.sides[side].store.replica(SHARD).expect("whole").expiring, 0);
}

#[test]
fn shards_with_expired_values_share_their_rounds() {
    let mut pair = Pair::of(64, Limits { expiry_margin_ms: 0, ..Limits::default() });
    pair.link(true);
    for step in 0..2_000u64 {
        pair.now.unix_ms += 5;
        pair.put_named((step % 2) as usize, &format!("t{step}"), 1_000);
        pair.pass(5);
    }
    let asked: Vec<usize> = pair
        .seen
        .iter()
        .filter_map(|message| match message {
            Message::AskClocks(ask) => Some(ask.shards.len()),
            _ => None,
        })
        .collect();
    let shards: usize = asked.iter().sum();
    assert!((10..=30).contains(&asked.len()), "10 s, two owners: {asked:?}");
    assert!(shards > 32 * asked.len(), "{asked:?}");
    let collected = pair.sides.each_ref().map(|side| side.lane.counters().expired_collected);
    assert!(collected.iter().all(|&gone| gone > 1_400), "of 2,000 within 2 s: {collected:?}");
}

#[test]
fn a_row_that_no_object_bears_out_holds_up_nothing_for_ever() {
    let (mut pair, side) = (Pair::new(), first());
    pair.link(true);
    pair.put_for(side, &DotSet::new(), Some(1_000), "one");
    pair.put_for(side, &DotSet::new(), Some(1_000), "two");
    // The object is written anew, and knows nothing of the first.
    let object = pair.sides[side].store.object(SHARD, &key()).expect("readable");
    let first = object.versions()[0].dots[0];
    let object = object.without_ended(|version| version.dots.contains(&first));
    let anew = Rewrite::Object(key(), object, ConflictPolicy::Siblings);
    pair.sides[side].store.rewrite(SHARD, anew).expect("room");
    let expiring = |pair: &mut Pair| pair.sides[side].store.replica(SHARD).expect("whole").expiring;
    pair.flow();
    assert_eq!((pair.live(side), expiring(&mut pair)), (1, 2));
    pair.skip(1_000 + MARGIN_MS);
    pair.skip(GATHERED_MS);
    assert_eq!((pair.live(side), expiring(&mut pair)), (0, 0));
    let said = pair.seen.len();
    pair.pass(120_000);
    let asks = |message: &&Message| matches!(message, Message::AskClocks(_));
    assert_eq!(pair.seen[said..].iter().filter(asks).count(), 0, "nothing is left to ask about");
}
