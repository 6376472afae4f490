//! Every message comes back from its bytes; hostile bytes give errors, never panics.

mod faults;
mod feed;
mod golden;
mod layout;
mod mutated;
mod supply;

use bytes::{Bytes, BytesMut};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{BootId, LaneIndex, NodeId, Origin, Partition, RequestId, Shard, WriteId};
use galvani_model::key::Key;
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::store::{Damage, HintFigures};
use galvani_model::version::{
    Digest, Dot, DotSet, Kind, PartitionClock, Range, RecordHead, Version, value_hash,
};
use galvani_wire::codec::{DecodeError, Frame, HEADER_BYTES_MAX, HeaderTooLong, encode};
use galvani_wire::failure::{Answer, AppliedOutcome, Failure, Outcome, QuorumKind, ReplicaError};
use galvani_wire::message::{
    AskClocks, AskKnown, AskSlice, Clocks, Compare, Compared, Comparison, CreateBucket, Explain,
    Explained, Failed, Fetch, FetchPage, FindHints, Get, GetDone, Held, HeldPage, Hint, HintsFound,
    HintsPulled, HintsWait, HolderView, Known, List, Message, Page, Pull, PullHints, Pulled, Put,
    PutDone, ReplicaView, Replicate, Replicated, SetFaults, Sibling, SliceIs,
};
use galvani_wire::repair::{Repair, RepairState};
use galvani_wire::twin::{Greeting, Twin};
use galvani_wire::view::{Copying, Counters, NodeStatus, Refilling, UnequalShard};
use layout::view;
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, proptest};
use std::collections::BTreeMap;

fn dot(counter: u64) -> Dot {
    Dot::new(Origin(77), counter)
}

fn key() -> Key {
    Key::new(bucket(), &b"cart/42"[..]).expect("a key")
}

fn clock() -> PartitionClock {
    let range = |origin, first, last| Range { origin: Origin(origin), first, last };
    [range(4, 1, 9), range(4, 11, 11), range(5, 2, 3)].into_iter().collect()
}

fn bucket() -> BucketName {
    "default".parse().expect("a name")
}

fn head(value: &[u8]) -> RecordHead {
    RecordHead {
        dot: dot(3),
        key: key(),
        past: DotSet::from_iter([dot(1), dot(7)]),
        hlc: Hlc(99),
        rid: RequestId(5),
        author: NodeId(1),
        kind: Kind::Put,
        value_len: value.len() as u32,
        value_hash: value_hash(Kind::Put, value),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: Vec::new(),
    }
}

fn answers() -> Vec<Answer> {
    let outcomes = [
        Outcome::Stored,
        Outcome::StoredDurably,
        Outcome::Answered,
        Outcome::Pending,
        Outcome::Unreachable,
        Outcome::Refused(ReplicaError::Damaged),
    ];
    let answer = |outcome| {
        let stands_in_for = (outcome == Outcome::Stored).then_some(NodeId(3));
        Answer { node: NodeId(2), stands_in_for, outcome, micros: 7 }
    };
    outcomes.map(answer).to_vec()
}

fn client_messages() -> Vec<Message> {
    let value = Bytes::from_static(b"milk\neggs");
    let options = WriteOptions {
        n: Some(3),
        w: Some(Quorum::Exactly(2)),
        pw: Some(Quorum::All),
        dw: Some(Quorum::Majority),
        strict: true,
        ttl_ms: Some(60_000),
    };
    let read =
        ReadOptions { r: Some(Quorum::One), blocking_repair: true, ..ReadOptions::default() };
    let sibling = Sibling {
        dot: dot(1),
        kind: Kind::Put,
        hlc: Hlc(4),
        author: NodeId(3),
        value_len: value.len() as u32,
        expires_ms: 70_000,
        value: value.clone(),
    };
    let tombstone =
        Sibling { kind: Kind::Delete, value_len: 0, value: Bytes::new(), ..sibling.clone() };
    vec![
        Message::Put(Put {
            key: key(),
            kind: Kind::Put,
            rid: RequestId(8),
            issued: Hlc(3),
            retry: false,
            context: Some(Bytes::from_static(b"token")),
            options,
            timeout_ms: 2000,
            value: value.clone(),
            emits: Vec::new(),
        }),
        Message::PutDone(PutDone {
            dot: dot(1),
            context: Bytes::from_static(b"c"),
            siblings: 2,
            answers: answers(),
        }),
        Message::Get(Get { key: key(), options: read, timeout_ms: 1 }),
        Message::GetDone(GetDone {
            siblings: vec![sibling.clone(), tombstone, sibling],
            context: Bytes::new(),
            answers: answers(),
        }),
        Message::Failed(Failed {
            failure: Failure::QuorumNotMet { what: QuorumKind::W, need: 2, got: 1, n: 3 },
            applied: AppliedOutcome::Maybe { acks: 1 },
            answers: answers(),
        }),
        Message::Describe,
        Message::Described(Box::new(view())),
    ]
}

/// Messages of listings, buckets and tools.
fn tool_messages() -> Vec<Message> {
    let value = Bytes::from_static(b"milk\neggs");
    let read =
        ReadOptions { r: Some(Quorum::One), blocking_repair: true, ..ReadOptions::default() };
    let shard = Shard { partition: Partition(5), n: 3 };
    let replicas = vec![
        ReplicaView {
            node: NodeId(1),
            versions: Ok(vec![Version::of(&head(&value))]),
            seen: DotSet::from_iter([dot(1)]),
        },
        ReplicaView { node: NodeId(2), versions: Err(answers().remove(4)), seen: DotSet::new() },
    ];
    vec![
        Message::List(List {
            bucket: bucket(),
            partition: Partition(3),
            prefix: Bytes::from_static(b"a"),
            after: Some(Bytes::from_static(b"ab")),
            limit: 10,
            options: read,
            timeout_ms: 5,
        }),
        Message::Listed(Page {
            keys: vec![(Bytes::from_static(b"k"), 1)],
            next_after: Some(Bytes::from_static(b"k")),
        }),
        Message::CreateBucket(CreateBucket {
            name: bucket(),
            props: BucketProps::with_copies(5),
            timeout_ms: 9,
        }),
        Message::BucketCreated,
        Message::Explain(Explain { key: key(), hints: true, timeout_ms: 3 }),
        Message::Explained(Explained {
            hash: 1,
            shard,
            preference: vec![NodeId(1), NodeId(2)],
            replicas,
            coordinator: NodeId(1),
            holders: vec![HolderView { node: NodeId(2), hints: Ok(found()) }],
            now_ms: 5,
        }),
        Message::Status,
        Message::StatusIs(Box::new(NodeStatus {
            node: NodeId(1),
            version: "0.1.0".into(),
            pid: 3,
            uptime_s: 4,
            lanes: 1,
            durability: "os".into(),
            disk_bytes: 1,
            memory_bytes: 2,
            cpu_micros: 3,
            bytes_in: 7,
            bytes_out: 8,
            inflight: 0,
            shards_behind: 2,
            layout_epoch: 7,
            shards_copying: 3,
            refilling: Refilling { left: 2, records_left: 9, waits: vec![NodeId(5)] },
            shards_leaving: 4,
            applicants: view().layout.members().to_vec(),
            tombstones: 3,
            expiring: 2,
            collection_waits: BTreeMap::from([(NodeId(3), 0), (NodeId(4), 9)]),
            trim_waits: vec![NodeId(4)],
            hints: BTreeMap::from([(NodeId(3), HintFigures { count: 4, bytes: 5, since_ms: 6 })]),
            peers_up: vec![NodeId(2)],
            peers_down: vec![],
            peers_suspect: vec![NodeId(3)],
            peers_silent: vec![NodeId(4)],
            faults: faults::link_faults(),
            counters: Counters { puts: 3, ..Counters::default() },
            damaged: damaged_rows(),
            feed_keep_ms: 86_400_000,
            unreadable: 7,
            damaged_files: vec!["/data/engine/0".into()],
            copying: Copying { shards: 5, left: 4, records: 3, ..Copying::default() },
            runs_twice: BTreeMap::from([(
                NodeId(3),
                ["[::1]:7101".parse().expect("an address")].into(),
            )]),
            unequal: vec![UnequalShard { shard, peer: NodeId(2) }],
            unequal_all: 8,
        })),
        Message::SetFaults(SetFaults { heal: true, links: faults::link_faults() }),
        Message::FaultsSet(faults::link_faults()),
        Message::Repair(Repair { start: true, partition: Some(Partition(4)) }),
        Message::RepairState(Box::new(RepairState {
            asked: 1,
            running: true,
            named: damaged_rows(),
            data: "/data".into(),
            ..RepairState::of(NodeId(2))
        })),
    ]
}

fn damaged_rows() -> Vec<Damage> {
    let shard = Shard { partition: Partition(5), n: 3 };
    vec![
        Damage::Record(shard, Dot::new(Origin(1), 2)),
        Damage::Object(shard, key()),
        Damage::Request(shard, WriteId(3)),
    ]
}

fn all_messages() -> Vec<Message> {
    let mut all = client_messages();
    all.extend(tool_messages());
    all.extend(peer_messages());
    all.push(supply::message());
    all.extend(layout::messages());
    all.extend(feed::messages());
    all.extend(small_messages());
    all.extend(slice_messages());
    all.extend(explaining_messages());
    all
}

fn small_messages() -> Vec<Message> {
    let shards = vec![Shard { partition: Partition(5), n: 3 }];
    let address = "[::1]:7101".parse().expect("an address");
    let greeting = Greeting { boot: BootId(9), up_ms: 1_500, since_ms: 1_795_239_067_120, address };
    vec![
        Message::Greet(greeting.clone()),
        Message::Twin(Twin::Asked),
        Message::Twin(Twin::Runs(greeting)),
        Message::HintsWait(HintsWait { node: NodeId(2), lane: LaneIndex(0) }),
        Message::Noted,
        Message::AskClocks(AskClocks {
            node: NodeId(2),
            lane: LaneIndex(0),
            shards: shards.clone(),
            durable: true,
        }),
        Message::Clocks(Ok(Clocks {
            epoch: 3,
            clocks: vec![Some(clock()), None],
            lacking: shards,
        })),
        Message::Clocks(Err(ReplicaError::Malformed)),
    ]
}

fn peer_messages() -> Vec<Message> {
    let value = Bytes::from_static(b"milk\neggs");
    let shard = Shard { partition: Partition(5), n: 3 };
    let held = Held {
        versions: vec![Version::of(&head(&value))],
        seen: DotSet::from_iter([dot(3)]),
        heads: vec![head(&value), head(&value)],
        values: vec![value.clone(), value.clone()],
    };
    vec![
        Message::Replicate(Replicate {
            shard,
            head: head(&value),
            fsync: true,
            epoch: 1,
            timeout_ms: 10,
            value,
        }),
        Message::Replicated(Replicated { result: Ok(true) }),
        Message::Replicated(Replicated { result: Err(ReplicaError::DiskFull) }),
        Message::Fetch(Fetch {
            shard,
            key: key(),
            records: true,
            have: vec![dot(1), dot(2)],
            shown: vec![WriteId(3)],
            epoch: 1,
            timeout_ms: 5,
        }),
        Message::Fetched(Ok(held)),
        Message::Fetched(Err(ReplicaError::NotOwner)),
        Message::Fetched(Err(ReplicaError::Refilling)),
        Message::FetchPage(FetchPage {
            shard,
            bucket: bucket(),
            prefix: Bytes::new(),
            after: None,
            limit: 3,
            timeout_ms: 5,
            epoch: 1,
        }),
        Message::FetchedPage(Ok(HeldPage {
            keys: vec![(Bytes::from_static(b"k"), vec![Version::of(&head(b""))])],
            more: true,
        })),
        Message::DefineBucket(CreateBucket {
            name: bucket(),
            props: BucketProps::with_copies(1),
            timeout_ms: 1,
        }),
        Message::BucketDefined(Err(Failure::BucketExists)),
        Message::AskKnown(AskKnown { origins: vec![(shard, Origin(4))] }),
        Message::Known(Known { counters: vec![0, 9] }),
        Message::Compare(Compare {
            node: NodeId(3),
            lane: LaneIndex(1),
            shards: vec![(shard, clock(), Digest(5))],
        }),
        Message::Compared(Ok(Compared {
            shards: vec![
                Comparison::Equal,
                Comparison::Unequal(Digest(6)),
                Comparison::Differs(clock()),
                Comparison::Unknown(ReplicaError::NotOwner),
            ],
        })),
        Message::Compared(Err(ReplicaError::StorageFailed)),
        Message::Pull(Pull { shard, wanted: clock(), credit: 1 << 18 }),
        Message::Pulled(Ok(Pulled {
            heads: vec![head(b"milk\neggs"), head(b"")],
            through: Some(dot(9)),
            hidden: vec![1],
            trimmed: clock(),
            trimmed_until: Hlc(77),
            pause_ms: 30,
            values: vec![Bytes::from_static(b"milk\neggs"), Bytes::new()],
        })),
        Message::Pulled(Err(ReplicaError::DiskFull)),
        Message::Hint(Hint {
            owner: NodeId(4),
            record: Replicate {
                shard,
                head: head(b"milk\neggs"),
                fsync: true,
                epoch: 1,
                timeout_ms: 9,
                value: Bytes::from_static(b"milk\neggs"),
            },
        }),
        Message::PullHints(PullHints {
            node: NodeId(2),
            lane: LaneIndex(0),
            taken: 7,
            refused: vec![0, 500],
            credit: 9,
        }),
        hints_pulled(),
        Message::HintsPulled(Err(ReplicaError::NotOwner)),
    ]
}

fn hints_pulled() -> Message {
    let shard = Shard { partition: Partition(5), n: 3 };
    Message::HintsPulled(Ok(HintsPulled {
        page: 8,
        shards: vec![shard],
        records: Pulled {
            heads: vec![head(b"v")],
            through: None,
            hidden: Vec::new(),
            trimmed: PartitionClock::new(),
            trimmed_until: Hlc(0),
            pause_ms: 0,
            values: vec![Bytes::from_static(b"v")],
        },
    }))
}

fn slice_messages() -> Vec<Message> {
    let shard = Shard { partition: Partition(3), n: 3 };
    vec![
        Message::AskSlice(AskSlice { shard, after: Some(head(b"").key), keys: true }),
        Message::SliceIs(Ok(SliceIs {
            last: Some(head(b"").key),
            digest: Digest(7),
            rows: 3,
            clock: Some(clock()),
            keys: vec![(head(b"").key, vec![dot(9)])],
        })),
        Message::SliceIs(Err(ReplicaError::Damaged)),
    ]
}

fn explaining_messages() -> Vec<Message> {
    let shard = Shard { partition: Partition(5), n: 3 };
    vec![
        Message::FindHints(FindHints { shard, key: key() }),
        Message::HintsFound(Ok(found())),
        Message::HintsFound(Err(ReplicaError::NotOwner)),
    ]
}

fn found() -> HintsFound {
    HintsFound { hints: vec![(NodeId(1), dot(4))], more: true }
}

fn bytes_of(id: u64, forwarded: bool, message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    encode(id, forwarded, message, &mut out).expect("a small header");
    out.freeze()
}

#[test]
fn every_message_comes_back() {
    for message in all_messages() {
        for forwarded in [false, true] {
            let frame = Frame { id: 42, forwarded, message: message.clone() };
            let decoded = Frame::decode(bytes_of(42, forwarded, &message));
            assert_eq!(decoded, Ok(frame), "{}", message.name());
        }
    }
}

#[test]
fn what_no_receiver_would_take_is_not_encoded() {
    let keys = |count: usize| {
        let page = Page { keys: vec![(vec![7; 1_000].into(), 1); count], next_after: None };
        Message::Listed(page)
    };
    let mut out = BytesMut::from(&b"before"[..]);
    let refused = encode(1, false, &keys(10_000), &mut out);
    assert!(matches!(refused, Err(HeaderTooLong { bytes }) if bytes > HEADER_BYTES_MAX));
    assert_eq!(out, b"before"[..]);
    encode(1, false, &keys(8_000), &mut out).expect("it fits");
    Frame::decode(out.split_off(6).freeze()).expect("and is taken");
}

#[test]
fn kinds_are_distinct() {
    let mut kinds = BTreeMap::new();
    for message in &all_messages() {
        let name = kinds.insert(message.kind(), message.name());
        assert!(name.is_none_or(|name| name == message.name()), "{} twice", message.kind());
    }
    assert_eq!(kinds.len(), 63);
}

#[test]
fn only_requests_of_clients_are_taken_for_such() {
    for message in all_messages() {
        let request = matches!(
            message,
            Message::Put(_)
                | Message::Get(_)
                | Message::Describe
                | Message::List(_)
                | Message::CreateBucket(_)
                | Message::Explain(_)
                | Message::Status
                | Message::SetFaults(_)
                | Message::Repair(_)
                | Message::FeedOpen(_)
                | Message::FeedNext(_)
                | Message::ChangeLayout(_)
        );
        assert_eq!(Frame::is_client_request(&bytes_of(1, false, &message)), request);
    }
}

#[test]
fn a_range_longer_than_any_key_is_refused() {
    for (prefix, after) in [(2000, 0), (0, 2000)] {
        let message = Message::List(List {
            bucket: bucket(),
            partition: Partition(3),
            prefix: vec![b'x'; prefix].into(),
            after: Some(vec![b'x'; after].into()),
            limit: 10,
            options: ReadOptions::default(),
            timeout_ms: 5,
        });
        assert!(matches!(Frame::decode(bytes_of(1, false, &message)), Err(DecodeError::Key(_))));
    }
}

#[test]
fn a_cut_frame_is_refused_at_every_length() {
    for message in all_messages() {
        let whole = bytes_of(1, false, &message);
        for cut in 0..whole.len() {
            // A put's value is the rest of its frame: only QUIC's own framing bounds it.
            let shorter_value = matches!(message, Message::Put(_)) && cut > whole.len() - 10;
            let decoded = Frame::decode(whole.slice(..cut));
            assert!(decoded.is_err() || shorter_value, "{} cut at {cut}", message.name());
        }
    }
}

#[test]
fn values_share_the_frames_memory() {
    let message = &client_messages()[0];
    let frame = bytes_of(1, false, message);
    let Ok(Frame { message: Message::Put(put), .. }) = Frame::decode(frame.clone()) else {
        panic!("a put comes back as a put");
    };
    assert!(frame.as_ptr_range().contains(&put.value.as_ptr()), "the value was copied");
}

#[test]
fn an_announced_header_is_bounded() {
    let mut frame = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&u32::MAX.to_le_bytes());
    let error = Frame::decode(frame.into()).expect_err("4 GiB of header");
    assert_eq!(error, DecodeError::HeaderTooLong { bytes: u32::MAX as usize });
}

#[test]
fn a_key_out_of_bounds_is_refused() {
    let long = Key::new(bucket(), vec![b'x'; 1024]).expect("the longest key");
    let message = Message::Get(Get { key: long, options: ReadOptions::default(), timeout_ms: 1 });
    let mut bytes = bytes_of(1, false, &message).to_vec();
    // One byte more, in the key's own length and in the header's: bin16, 1025 bytes.
    let at = bytes.windows(3).position(|w| w == [0xc5, 0x04, 0x00]).expect("the key's length");
    bytes[at + 2] = 1;
    bytes.insert(at + 3, b'x');
    let header = u32::from_le_bytes(bytes[10..14].try_into().expect("four bytes")) + 1;
    bytes[10..14].copy_from_slice(&header.to_le_bytes());
    assert!(matches!(Frame::decode(bytes.into()), Err(DecodeError::Key(_))));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(bytes.into());
    }

    #[test]
    fn altered_frames_never_panic(pick in any::<usize>(), at in any::<usize>(), byte in any::<u8>()) {
        let messages: Vec<Message> = all_messages();
        let mut bytes = bytes_of(1, false, &messages[pick % messages.len()]).to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(frame) = Frame::decode(bytes.into()) {
            prop_assert!(frame.message.kind() > 0);
        }
    }
}
