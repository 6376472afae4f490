//! Requests: what is sent, to whom, and what comes back.

mod support;

use bytes::Bytes;
use galvani_client::{
    Applied, BucketProps, Dot, ErrorKind, LinkFaults, ListedKey, Merge, Outcome, Quorum,
};
use galvani_model::ids::{Origin, Partition};
use galvani_model::request::{ReadOptions, WriteOptions};
use galvani_model::version::Kind;
use galvani_wire::message::{HintsFound, HolderView, Page, SetFaults};
use galvani_wire::{Failure, Message, NodeStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Action, Cluster, SECOND, found, node_id, refused, stored};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn choices_travel_and_answers_come_back_by_name() {
    let cluster = Cluster::start(3, |asked| match &asked.message {
        Message::Get(_) => found(&[Some("a"), None]),
        _ => stored(2),
    })
    .await;
    let db = cluster.builder().r(Quorum::All).w(1).connect().await.expect("connected");
    let read =
        db.get("k").n(2).pr(1).strict().blocking_repair().timeout(SECOND).await.expect("answered");
    assert_eq!(read.siblings[0].node, "n1");
    assert_eq!(read.siblings[0].written_at, UNIX_EPOCH + SECOND);
    assert_eq!(read.siblings[1].value, None);
    assert_eq!(read.one().expect("one value").as_deref(), Some(&b"a"[..]));
    assert_eq!(read.answers[1].to_string(), "n2 ok 0.3 ms");
    let deleted = db.delete("k").after(&read).pw(1).dw(Quorum::One).send().await.expect("stored");
    assert_eq!((deleted.acks, deleted.siblings_now), (2, 2));
    assert_eq!(deleted.answers[2].outcome, Outcome::Pending);

    let asked = cluster.asked();
    let Message::Get(get) = &asked[0].message else { panic!("a get first") };
    let options = ReadOptions {
        n: Some(2),
        r: Some(Quorum::All),
        pr: Some(1.into()),
        strict: true,
        blocking_repair: true,
    };
    assert_eq!(get.options, options);
    assert!((500..=1_000).contains(&get.timeout_ms), "{}", get.timeout_ms);
    let Message::Put(put) = &asked[1].message else { panic!("then a delete") };
    assert_eq!(put.kind, galvani_model::version::Kind::Delete);
    assert_eq!(put.context.as_deref(), Some(&b"context of a read"[..]));
    let options = WriteOptions {
        n: None,
        w: Some(1.into()),
        pw: Some(1.into()),
        dw: Some(Quorum::One),
        strict: false,
        ttl_ms: None,
    };
    assert_eq!(put.options, options);
}

#[tokio::test]
async fn an_end_is_exact_and_one_that_cannot_be_is_not_sent() {
    let cluster = Cluster::start(1, |_| stored(1)).await;
    let db = cluster.client().await;
    let end = SystemTime::now() + 60 * SECOND;
    db.put("k", "v").blind().ttl(SECOND).expires_at(end).send().await.expect("stored");
    let asked = cluster.asked();
    let Message::Put(put) = &asked[0].message else { panic!("a put") };
    let end_ms = end.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let ttl_ms = put.options.ttl_ms.expect("it ends");
    assert_eq!(u128::from(put.issued.unix_ms() + ttl_ms), end_ms);

    let now = SystemTime::now();
    for end in [UNIX_EPOCH - SECOND, now - SECOND, now, now + SECOND / 2, now + 4_000 * DAY] {
        let error = db.put("k", "v").blind().expires_at(end).send().await.expect_err("impossible");
        assert!(matches!(error.kind(), ErrorKind::TtlImpossible { .. }), "{error}");
        assert_eq!(error.applied(), Applied::No);
    }
    assert_eq!(cluster.asked().len(), 1);
}

#[tokio::test]
async fn keys_go_to_their_owner_and_to_one_nearby_first() {
    let cluster = Cluster::start(5, |_| found(&[])).await;
    let db = cluster.client().await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        db.get(key).await.expect("answered");
        assert_eq!(cluster.asked().last().expect("asked").node, cluster.first_owner(key));
    }
    let near = cluster.builder().zone("z2").connect().await.expect("connected");
    let key = |at: u32| format!("key{at}");
    let layout = &near.cluster().layout;
    for at in 0..20 {
        let bucket = galvani_model::bucket::BucketName::default_bucket();
        let shard = layout
            .shard_of(&galvani_model::key::Key::new(bucket, key(at)).expect("a key"), layout.n());
        let expected = match layout.is_owner(node_id(1), shard) {
            true => node_id(1),
            false => layout.first_owner(shard).expect("an owner"),
        };
        near.get(key(at)).await.expect("answered");
        assert_eq!(node_id(cluster.asked().last().expect("asked").node), expected);
    }
}

#[tokio::test]
async fn a_client_of_one_node_asks_no_other_not_even_when_that_one_fails() {
    let down = || refused(Failure::Stopping);
    let cluster = Cluster::start(5, move |asked| match asked.number {
        0..8 => found(&[]),
        _ => down(),
    })
    .await;
    let db = cluster.builder().only("n4").connect().await.expect("connected");
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        db.get(key).await.expect("answered");
    }
    db.get("i").await.expect_err("it refuses, and there is nobody else");
    let nodes: BTreeSet<_> = cluster.asked().iter().map(|asked| node_id(asked.node)).collect();
    let n4 = db.cluster().layout.member_named("n4").expect("a node").id();
    assert_eq!(nodes, BTreeSet::from([n4]));
    let error = cluster.builder().only("n9").connect().await.expect_err("no such node");
    assert_eq!(error.kind(), &ErrorKind::Setting { what: "the cluster has no node n9".into() });
}

#[tokio::test]
async fn requests_that_cannot_be_are_not_sent() {
    let cluster = Cluster::start(1, |_| found(&[])).await;
    let db = cluster.client().await;
    let kind = |error: galvani_client::Error| error.kind().clone();
    let error = db.get("").await.expect_err("no key");
    assert!(matches!(kind(error), ErrorKind::Key(_)));
    let error = db.get(vec![b'x'; 2_000]).await.expect_err("long key");
    assert!(error.to_string().len() < 400, "{error}");
    let error = db.bucket("No Bucket").get("k").await.expect_err("no name");
    assert!(matches!(kind(error), ErrorKind::BucketName(_)));
    let error = db.get("k").timeout(Duration::ZERO).await.expect_err("no time");
    assert_eq!(error.to_string(), "get k: a timeout of 0ns is not between 1 ms and 60 s");
    let large = vec![0; (16 << 20) + 1];
    let error = db.put("k", large).blind().send().await.expect_err("too large");
    assert_eq!(kind(error), ErrorKind::TooLarge { size: (16 << 20) + 1, limit: 16 << 20 });
    assert!(cluster.asked().is_empty());
}

#[tokio::test]
async fn an_unknown_bucket_is_asked_about_once() {
    let cluster = Cluster::start(3, |_| refused(Failure::UnknownBucket)).await;
    let db = cluster.client().await;
    let error = db.bucket("shop").get("k").await.expect_err("no such bucket");
    assert_eq!(error.to_string(), "get shop:k: no bucket \"shop\"");
    assert_eq!(cluster.asked().len(), 1);
}

#[tokio::test]
async fn an_update_goes_on_until_one_value_is_left() {
    let cluster = Cluster::start(3, |asked| match asked.number {
        0 => found(&[Some("a")]),
        1 => stored(2),
        2 => found(&[Some("a+"), Some("b")]),
        _ => stored(1),
    })
    .await;
    let db = cluster.client().await;
    let join = |all: Vec<galvani_client::Sibling>| {
        let values: BTreeSet<Bytes> = all.into_iter().filter_map(|one| one.value).collect();
        Merge::Put(values.into_iter().collect::<Vec<_>>().join(&b'|').into())
    };
    let written = db.update("k", join).await.expect("merged");
    assert_eq!(written.siblings_now, 1);
    let asked = cluster.asked();
    let Message::Put(put) = &asked[3].message else { panic!("a put last") };
    assert_eq!(put.value, "a+|b");
    let Message::Put(first) = &asked[1].message else { panic!("a put before") };
    assert_ne!(first.rid, put.rid, "another round is another write");
}

#[tokio::test]
async fn an_update_that_deletes_does_not_ask_for_an_expiry() {
    let cluster = Cluster::start(3, |asked| match asked.number {
        0 => found(&[Some("a")]),
        _ => stored(0),
    })
    .await;
    let db = cluster.client().await;
    let update = db.update("k", |_| Merge::Delete).ttl(Duration::from_secs(60));
    update.await.expect("deleted");
    let asked = cluster.asked();
    let Message::Put(put) = &asked[1].message else { panic!("a write after the read") };
    assert_eq!((put.kind, put.options.ttl_ms), (Kind::Delete, None));
}

#[tokio::test]
async fn an_update_that_wrote_is_never_called_unapplied() {
    let cluster = Cluster::start(3, |asked| match asked.number {
        0 => found(&[Some("a")]),
        1 => stored(2),
        _ => refused(Failure::NotPermitted),
    })
    .await;
    let db = cluster.client().await;
    let merge = |_| Merge::Put("x".into());
    let error = db.update("k", merge).await.expect_err("the second read is refused");
    assert_eq!(error.kind(), &ErrorKind::NotPermitted);
    assert_eq!(error.applied(), Applied::Maybe { acks: 2 });
    assert_eq!(error.operation(), "update");
}

#[tokio::test]
async fn a_view_changes_once_and_then_only_resolves() {
    let cluster = Cluster::start(3, |asked| match asked.number {
        0 => found(&[Some("3"), Some("5")]),
        1 => stored(2),
        2 => found(&[Some("6"), Some("9")]),
        3 => stored(1),
        _ => found(&[Some("1"), Some("2")]),
    })
    .await;
    let db = cluster.client().await;
    let counts = db.view::<String>("count/");
    let largest = |all: Vec<String>| all.into_iter().max().unwrap_or_default();
    let add = |now: Option<String>| match now.unwrap_or_default().parse::<u32>() {
        Ok(now) => (now + 1).to_string(),
        Err(_) => "1".to_owned(),
    };
    let after = counts.clone().resolver(largest).update("a", add).await.expect("written");
    assert_eq!(after, "9", "6 was this call's own write, merged with another's");
    let Message::Put(first) = &cluster.asked()[1].message else { panic!("a put") };
    assert_eq!((&first.value[..], &first.key.bytes()[..]), (&b"6"[..], &b"count/a"[..]));
    let error = counts.get("a").await.expect_err("two values and no resolver");
    assert_eq!(error.to_string(), "get count/a: 2 siblings (concurrent writes) and no resolver");
}

#[tokio::test]
async fn a_listing_sees_every_partition_once_and_goes_on_after_an_error() {
    let cluster = Cluster::start(3, |asked| {
        let Message::List(list) = &asked.message else { panic!("only listings") };
        if asked.number == 5 {
            return refused(Failure::NotPermitted);
        }
        let key = |part: &str| Bytes::from(format!("{}{part}", list.partition.0));
        Action::Reply(Message::Listed(match (list.partition.0 % 4, &list.after) {
            (0, _) => Page { keys: Vec::new(), next_after: None },
            (_, None) => Page { keys: vec![(key("a"), 1)], next_after: Some(key("a")) },
            (_, Some(_)) => Page { keys: vec![(key("b"), 2)], next_after: None },
        }))
    })
    .await;
    let db = cluster.client().await;
    let mut listing = db.list("").page_keys(1);
    let mut seen = Vec::new();
    let mut errors = 0;
    loop {
        match listing.next_page().await {
            Ok(Some(page)) => seen.extend(page.keys),
            Ok(None) => break,
            Err(_) => errors += 1,
        }
    }
    assert_eq!(errors, 1);
    seen.sort_by(|a: &ListedKey, b: &ListedKey| a.key.cmp(&b.key));
    let expected = (0..16).filter(|at| at % 4 != 0).flat_map(|at| [(at, "a", 1), (at, "b", 2)]);
    let mut expected: Vec<_> =
        expected.map(|(at, part, values)| (Bytes::from(format!("{at}{part}")), values)).collect();
    expected.sort();
    assert_eq!(seen.into_iter().map(|one| (one.key, one.values)).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_bucket_is_made_at_its_home() {
    let cluster = Cluster::start(3, |asked| match asked.node {
        2 => Action::Reply(Message::BucketCreated),
        _ => refused(Failure::BucketHome { node: node_id(2) }),
    })
    .await;
    let db = cluster.client().await;
    db.create_bucket("shop", BucketProps::with_copies(3)).await.expect("made");
    assert_eq!(cluster.asked().last().expect("asked").node, 2);
    let error = db.create_bucket("shop", BucketProps::with_copies(9)).await.expect_err("9 copies");
    assert!(matches!(error.kind(), ErrorKind::BucketRefused { .. }));
}

#[tokio::test]
async fn status_is_partial_rather_than_late() {
    let cluster = Cluster::start(3, |asked| match asked.node {
        1 => Action::Silent,
        node => Action::Reply(Message::StatusIs(Box::new(NodeStatus {
            node: node_id(node),
            version: "0.1.0".to_owned(),
            pid: 1,
            uptime_s: 1,
            lanes: 1,
            durability: "os".to_owned(),
            disk_bytes: 0,
            memory_bytes: 0,
            cpu_micros: 0,
            bytes_in: 0,
            bytes_out: 0,
            inflight: 0,
            shards_behind: 0,
            layout_epoch: 1,
            shards_copying: 0,
            refilling: Default::default(),
            shards_leaving: 0,
            applicants: Vec::new(),
            tombstones: 0,
            expiring: 0,
            collection_waits: Default::default(),
            trim_waits: Vec::new(),
            hints: Default::default(),
            peers_up: Vec::new(),
            peers_down: Vec::new(),
            peers_suspect: Vec::new(),
            peers_silent: Vec::new(),
            faults: Vec::new(),
            counters: galvani_client::Counters::default(),
            damaged: Vec::new(),
            feed_keep_ms: 0,
            unreadable: 0,
            damaged_files: Vec::new(),
            runs_twice: BTreeMap::new(),
            copying: Default::default(),
            unequal: Vec::new(),
            unequal_all: 0,
        }))),
    })
    .await;
    let db = cluster.client().await;
    let reports = db.status().await;
    let told: Vec<_> = reports.iter().map(|one| (one.name.as_str(), one.status.is_ok())).collect();
    assert_eq!(told, [("n1", true), ("n2", false), ("n3", true)]);
    let error = reports[1].status.as_ref().expect_err("silent");
    assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn faults_are_set_on_the_named_node_alone() {
    let cluster = Cluster::start(3, |asked| match (&asked.message, asked.node) {
        (Message::SetFaults(set), 1) => Action::Reply(Message::FaultsSet(set.links.clone())),
        _ => refused(Failure::FaultsNotAllowed),
    })
    .await;
    let db = cluster.client().await;
    let cut = LinkFaults { cut_in: true, ..LinkFaults::none(node_id(0)) };
    let set = db.set_faults("n2", false, std::slice::from_ref(&cut)).await.expect("allowed");
    assert_eq!(set, std::slice::from_ref(&cut));
    let asked = cluster.asked();
    let last = asked.last().expect("asked");
    let expected = SetFaults { heal: false, links: vec![cut.clone()] };
    assert_eq!((last.node, &last.message), (1, &Message::SetFaults(expected)));
    let error = db.set_faults("n1", true, &[]).await.expect_err("not allowed");
    assert_eq!(error.kind(), &ErrorKind::FaultsNotAllowed);
    let before = cluster.asked().len();
    let far = LinkFaults { loss_ppm: Some(1_000_001), ..cut };
    for (node, links) in [("n2", vec![far]), ("n9", Vec::new())] {
        let error = db.set_faults(node, false, &links).await.expect_err(node);
        assert!(matches!(error.kind(), ErrorKind::Setting { .. }), "{error}");
    }
    assert_eq!(cluster.asked().len(), before, "nothing was sent");
}

#[tokio::test]
async fn an_explanation_speaks_in_names() {
    let cluster = Cluster::start(3, |_| {
        let hints = HintsFound { hints: vec![(node_id(0), Dot::new(Origin(4), 2))], more: false };
        Action::Reply(Message::Explained(galvani_wire::message::Explained {
            hash: 9,
            shard: galvani_model::ids::Shard { partition: Partition(1), n: 2 },
            preference: vec![node_id(1), node_id(0), node_id(2)],
            replicas: vec![],
            coordinator: node_id(1),
            holders: vec![HolderView { node: node_id(2), hints: Ok(hints) }],
            now_ms: 5,
        }))
    })
    .await;
    let explained = cluster.client().await.explain("k").await.expect("answered");
    assert_eq!(explained.owners, ["n2", "n1"]);
    assert_eq!(explained.fallbacks, ["n3"]);
    assert_eq!(explained.coordinator, "n2");
    let holder = &explained.holders[0];
    assert_eq!((holder.node.as_str(), holder.more), ("n3", false));
    assert_eq!(holder.hints, Ok(vec![("n1".to_owned(), Dot::new(Origin(4), 2))]));
}
