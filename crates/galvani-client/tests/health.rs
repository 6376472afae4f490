//! What a node that is away costs a caller: little once, and then nothing until it is back.

mod support;

use galvani_client::{Applied, Client, ErrorKind};
use galvani_wire::failure::QuorumKind;
use galvani_wire::{Failure, Message};
use std::time::{Duration, Instant};
use support::{Cluster, SECOND, found, refused, stored};

/// A client that has links to all three nodes and knows what requests take.
async fn warmed(cluster: &Cluster) -> Client {
    let mut builder = cluster.builder();
    for node in 0..3 {
        builder = builder.seed(format!("galvani://{}", cluster.address(node)));
    }
    let db = builder.connect().await.expect("connected");
    let deadline = Instant::now() + 10 * SECOND;
    let mut met = [false; 3];
    for key in 0.. {
        assert!(Instant::now() < deadline, "not every node was asked: {met:?}");
        db.get(format!("warm/{key}")).timeout(10 * SECOND).await.expect("answered");
        cluster.asked().iter().for_each(|asked| met[asked.node] = true);
        if key >= 20 && met == [true; 3] {
            break;
        }
    }
    db
}

#[tokio::test]
async fn a_stopped_node_costs_a_caller_little_once_and_is_asked_again_when_it_is_back() {
    let cluster = Cluster::start(3, |asked| match asked.message {
        Message::Put(_) => stored(1),
        _ => found(&[Some("v")]),
    })
    .await;
    let db = warmed(&cluster).await;
    let first = cluster.first_owner("k");
    cluster.deaf.lock().node = Some(first);
    let timeout = 40 * SECOND;
    let began = Instant::now();
    db.get("k").timeout(timeout).await.expect("another owner answers");
    // Of the time of this call, silence is a second.
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let gets = || {
        let deaf = cluster.deaf.lock();
        deaf.sent.iter().filter(|message| **message != Message::Describe).count()
    };
    assert_eq!(gets(), 1);
    for _ in 0..10 {
        db.get("k").timeout(timeout).await.expect("another owner answers");
        db.put("k", "v").blind().timeout(timeout).send().await.expect("another owner stores");
    }
    assert_eq!(gets(), 1, "nobody waits for it a second time");

    cluster.deaf.lock().node = None;
    let before = cluster.asked().len();
    let deadline = Instant::now() + 20 * SECOND;
    while !cluster.asked()[before..].iter().any(|asked| asked.node == first) {
        assert!(Instant::now() < deadline, "it is never asked again");
        db.get("k").timeout(timeout).await.expect("answered");
        // wait: until a probe in the background has found it back
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_refusal_because_owners_are_down_comes_at_once() {
    let cluster = Cluster::start(3, |asked| match asked.message {
        Message::Put(_) => {
            // The third node is named as unreachable.
            refused(Failure::ReplicasDown { what: QuorumKind::W, need: 3, up: 2, n: 3 })
        }
        _ => found(&[]),
    })
    .await;
    let db = warmed(&cluster).await;
    cluster.deaf.lock().node = Some(2);
    // A key whose first owner is up.
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let key = keys.into_iter().find(|key| cluster.first_owner(key) != 2).expect("one of them");
    let before = cluster.asked().len();
    let began = Instant::now();
    let put = db.put(key, "v").blind().w(3).timeout(40 * SECOND);
    let error = put.send().await.expect_err("owners are down");
    assert!(matches!(error.kind(), ErrorKind::ReplicasDown { up: 2, .. }), "{error}");
    assert_eq!(error.applied(), Applied::No);
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let asked = &cluster.asked()[before..];
    assert_eq!(asked.len(), 2, "one that refuses, and one other that may know better");
    assert!(cluster.deaf.lock().sent.is_empty(), "the one that is down is not asked");
}

#[tokio::test]
async fn a_node_that_sees_the_others_contradicts_a_refusal() {
    let cluster = Cluster::start(3, |asked| match (&asked.message, asked.node) {
        (Message::Put(_), 0) => {
            refused(Failure::ReplicasDown { what: QuorumKind::W, need: 2, up: 1, n: 3 })
        }
        (Message::Put(_), _) => stored(1),
        _ => found(&[]),
    })
    .await;
    let db = warmed(&cluster).await;
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let key = keys.into_iter().find(|key| cluster.first_owner(key) == 0).expect("one of them");
    let written = db.put(key, "v").blind().w(2).timeout(20 * SECOND).send().await;
    assert_eq!(written.expect("the second node stores").siblings_now, 1);
}
