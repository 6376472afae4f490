//! Laws of positions in the feed: joining is commutative, associative and idempotent, nothing that is
//! done with comes again, bytes come back as what they were, and hostile bytes never panic.

use galvani_model::feed::{Cursor, FeedToken, Filter, Shows, TokenError};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{ClusterId, NodeId, Origin, Partition, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::version::{
    Dot, DotSet, Emit, Kind, PartitionClock, RecordHead, emits_fit, value_hash,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

fn dots() -> impl Strategy<Value = Vec<Dot>> {
    vec((0u128..3, 1u64..12).prop_map(|(o, n)| Dot::new(Origin(o), n)), 0..16)
}

fn clock(dots: &[Dot]) -> PartitionClock {
    let mut clock = PartitionClock::new();
    for &dot in dots {
        clock.insert(dot);
    }
    clock
}

fn cursors() -> impl Strategy<Value = Cursor> {
    (dots(), dots(), 0u32..2).prop_map(|(delivered, owed, resets)| {
        let mut cursor = Cursor::at(clock(&delivered));
        cursor.resets = resets;
        cursor.owe_all(&clock(&owed));
        cursor.settle();
        cursor
    })
}

fn joined(a: &Cursor, b: &Cursor) -> Cursor {
    let mut a = a.clone();
    a.join(b);
    a
}

proptest! {
    #[test]
    fn positions_join(a in cursors(), b in cursors(), c in cursors()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a.clone());
        prop_assert_eq!(joined(&a, &Cursor::default()), a.clone());
        if a.resets == b.resets {
            let both = joined(&a, &b);
            prop_assert!(both.pending(a.delivered()).is_empty(), "nothing comes again");
            prop_assert!(both.pending(b.delivered()).is_empty());
        }
    }

    #[test]
    fn what_is_pending_is_the_difference(taken in dots(), done in dots()) {
        let cursor = Cursor::at(clock(&done));
        let pending: PartitionClock = cursor.pending(&clock(&taken)).into_iter().collect();
        for dot in taken.iter().chain(&done) {
            let expected = taken.contains(dot) && !done.contains(dot);
            prop_assert_eq!(pending.contains(*dot), expected, "{}", dot);
        }
    }

    #[test]
    fn what_goes_after_its_successor_is_late_once(done in dots(), mut past in dots()) {
        past.sort();
        past.dedup();
        let mut cursor = Cursor::at(clock(&done));
        cursor.owe(&DotSet::from_iter(past.clone()));
        for dot in past {
            prop_assert_eq!(cursor.is_late(dot), !done.contains(&dot));
            cursor.deliver(dot);
            cursor.settle();
            prop_assert!(!cursor.is_late(dot));
        }
    }

    #[test]
    fn a_token_comes_back(
        cluster in any::<u128>(),
        filter in any::<u64>(),
        cursors in btree_map((0u16..300, 1u8..4), cursors(), 0..6),
    ) {
        let shard = |(partition, n)| Shard { partition: Partition(partition), n };
        let cursors = cursors.into_iter().map(|(at, cursor)| (shard(at), cursor)).collect();
        let token = FeedToken { cluster: ClusterId(cluster), filter, cursors };
        let bytes = token.to_bytes();
        prop_assert_eq!(FeedToken::from_bytes(&bytes), Ok(token));
        let cut = &bytes[..bytes.len() - 1];
        prop_assert_eq!(FeedToken::from_bytes(cut), Err(TokenError::Damaged));
    }

    #[test]
    fn hostile_tokens_never_panic(mut bytes in vec(any::<u8>(), 0..200)) {
        let _ = FeedToken::from_bytes(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = 9;
            prop_assert_eq!(FeedToken::from_bytes(&bytes), Err(TokenError::Newer { version: 9 }));
        }
    }

    #[test]
    fn what_a_clock_lacks_is_the_difference(have in dots(), want in dots(), base in 0u64..9) {
        let mut set = DotSet::from_iter(want);
        set.insert_through(Origin(1), base);
        let lacks: PartitionClock = clock(&have).lacks(&set).into_iter().collect();
        for origin in (0..3).map(Origin) {
            for dot in (1..14).map(|counter| Dot::new(origin, counter)) {
                let expected = set.contains(dot) && !have.contains(&dot);
                prop_assert_eq!(lacks.contains(dot), expected, "{}", dot);
            }
        }
    }
}

fn head(bucket: &str, key: &str, topics: &[&str]) -> RecordHead {
    let topics = topics.iter().map(|topic| topic.parse().expect("a topic"));
    RecordHead {
        dot: Dot::new(Origin(1), 1),
        key: Key::new(bucket.parse().expect("a name"), key.to_owned()).expect("a key"),
        past: DotSet::new(),
        hlc: Hlc::from_unix_ms(5),
        rid: RequestId(1),
        author: NodeId(1),
        kind: Kind::Put,
        value_len: 0,
        value_hash: value_hash(Kind::Put, b""),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: topics.map(|topic| Emit { topic, key: "".into(), payload: "p".into() }).collect(),
    }
}

#[test]
fn a_filter_asks_for_what_it_says() {
    let all = Filter::default();
    assert!(all.asks_for(&head("a", "k", &[])));
    let bucket = Filter { buckets: vec!["b".parse().expect("a name")], ..Filter::default() };
    assert!(!bucket.asks_for(&head("a", "k", &[])) && bucket.asks_for(&head("b", "k", &[])));
    let prefix = Filter { prefix: "ca".into(), ..Filter::default() };
    assert!(prefix.asks_for(&head("a", "cart", &[])) && !prefix.asks_for(&head("a", "k", &[])));
    let since = Filter { since: Some(Hlc::from_unix_ms(6)), ..Filter::default() };
    assert!(!since.asks_for(&head("a", "k", &[])));
    let by = |authors: &[u128]| Filter {
        authors: authors.iter().copied().map(NodeId).collect(),
        ..Filter::default()
    };
    assert!(by(&[2, 1]).asks_for(&head("a", "k", &[])), "node 1 coordinated it");
    assert!(!by(&[2]).asks_for(&head("a", "k", &[])));
    assert!(!by(&[7; 257]).is_bounded() && by(&[7; 256]).is_bounded());
    let topics = |names: &[&str]| {
        let shows = names.iter().map(|name| name.parse().expect("a topic")).collect();
        Filter { shows: Shows::Topics(shows), ..Filter::default() }
    };
    assert!(topics(&["x"]).asks_for(&head("a", "k", &["y", "x"])));
    assert!(!topics(&["x"]).asks_for(&head("a", "k", &["y"])));
    assert!(topics(&[]).asks_for(&head("a", "k", &["y"])));
    assert!(!topics(&[]).asks_for(&head("a", "k", &[])));
    let events_only = RecordHead { kind: Kind::Emit, ..head("a", "k", &["y"]) };
    assert!(!all.asks_for(&events_only), "it changes no key");
}

#[test]
fn positions_of_different_questions_are_told_apart() {
    let named = |names: &[&str]| Filter {
        buckets: names.iter().map(|name| name.parse().expect("a name")).collect(),
        ..Filter::default()
    };
    assert_eq!(named(&["a", "b"]).fingerprint(), named(&["b", "a", "a"]).fingerprint());
    assert_ne!(named(&["ab"]).fingerprint(), named(&["a", "b"]).fingerprint());
    let prefix = Filter { prefix: "a".into(), ..Filter::default() };
    assert_ne!(prefix.fingerprint(), Filter::default().fingerprint());
    assert_ne!(prefix.fingerprint(), named(&["a"]).fingerprint());
    let by = |authors: &[u128]| {
        let authors = authors.iter().copied().map(NodeId).collect();
        Filter { authors, ..prefix.clone() }.fingerprint()
    };
    assert_eq!(by(&[2, 1, 2]), by(&[1, 2]));
    assert_eq!(by(&[]), prefix.fingerprint());
    assert!(by(&[1]) != by(&[2]) && by(&[1]) != by(&[]));
    let without_values = Filter { values: false, ..prefix.clone() };
    assert_eq!(prefix.fingerprint(), without_values.fingerprint(), "it is done with the same");
}

#[test]
fn events_of_a_write_are_bounded_and_tell_writes_apart() {
    let one = head("a", "k", &["x"]);
    assert!(emits_fit(&one.emits) && !emits_fit(&vec![one.emits[0].clone(); 17]));
    let mut large = one.clone();
    large.emits[0].payload = vec![0; 256 << 10].into();
    assert!(!emits_fit(&large.emits));
    assert_ne!(one.write_id(), head("a", "k", &["y"]).write_id(), "no retry of each other");
    assert_ne!(one.write_id(), head("a", "k", &[]).write_id());
    assert_eq!(one.write_id(), head("a", "k", &["x"]).write_id());
}
