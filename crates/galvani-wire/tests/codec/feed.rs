//! One of each message of the feed.
//!
//! Next to read: `main.rs`, which sends them there and back.

use crate::{dot, head};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::feed::{Cursor, Filter, Shows, Visibility};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Partition, Shard};
use galvani_model::topic::Topic;
use galvani_model::version::{Emit, Kind, PartitionClock};
use galvani_wire::feed::{
    Advance, Begin, FeedEvent, FeedNext, FeedOpen, FeedOpened, FeedPage, FeedState, OldValue,
};
use galvani_wire::message::Message;

pub(crate) fn messages() -> Vec<Message> {
    let shard = Shard { partition: Partition(5), n: 3 };
    let mut clock = PartitionClock::new();
    clock.insert(dot(3));
    let topic: Topic = "orders".parse().expect("a topic");
    let filter = Filter {
        buckets: vec![BucketName::default_bucket()],
        prefix: Bytes::from_static(b"cart/"),
        shows: Shows::Topics(vec![topic.clone()]),
        values: false,
        visibility: Visibility::Quorum,
        since: Some(Hlc(7)),
        authors: vec![NodeId(3)],
    };
    let begin = vec![(shard, Begin::Now), (shard, Begin::At(Cursor::at(clock.clone())))];
    let mut shown = head(b"new");
    shown.supersedes.push(dot(2));
    shown.emits.push(Emit { topic, key: "k".into(), payload: "p".into() });
    let old = |kind, len| OldValue { dot: dot(2), kind, len };
    let event = FeedEvent {
        shard: 0,
        head: shown,
        late: true,
        dup_of: Some(dot(1)),
        carries: true,
        old: vec![old(Some(Kind::Put), 3), old(Some(Kind::Delete), 0), old(None, 0)],
        values: vec!["new".into(), "old".into(), Bytes::new(), Bytes::new()],
    };
    let keys_only = FeedEvent { carries: false, old: vec![], values: vec![], ..event.clone() };
    let (done, owed, gone) = (clock.clone(), PartitionClock::new(), clock.clone());
    let state = FeedState {
        behind: 4,
        oldest_ms: Some(9),
        held: 1,
        unreadable: 2,
        complete_through_ms: 8,
        unheard: vec![NodeId(2)],
        now_ms: 10,
    };
    let opened = FeedOpened {
        session: 4,
        began: vec![None, Some(Cursor::at(clock))],
        elsewhere: vec![shard],
    };
    vec![
        Message::FeedOpen(FeedOpen { filter, shards: begin, timeout_ms: 5 }),
        Message::FeedOpened(opened),
        Message::FeedNext(FeedNext { session: 4, page: 7, credit: 9, wait_ms: 500, close: true }),
        Message::FeedPage(FeedPage {
            session: 4,
            events: vec![event, keys_only],
            advances: vec![Advance { shard, done, owed, gone }],
            state,
        }),
    ]
}
