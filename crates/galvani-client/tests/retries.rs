//! Retries: what is tried again, what every attempt carries, and what stays in doubt.

mod support;

use bytes::Bytes;
use galvani_client::{Applied, Error, ErrorKind};
use galvani_model::request::Quorum;
use galvani_wire::failure::QuorumKind;
use galvani_wire::message::Put;
use galvani_wire::{AppliedOutcome, Failure, Message};
use std::time::{Duration, Instant};
use support::{Action, Asked, Cluster, SECOND, failed, found, refused, stored};

fn put_of(asked: &Asked) -> Put {
    match &asked.message {
        Message::Put(put) => put.clone(),
        other => panic!("{} instead of a put", other.name()),
    }
}

async fn put_error(cluster: &Cluster, timeout: Duration) -> Error {
    let db = cluster.client().await;
    let put = db.put("k", "v").blind().w(2).timeout(timeout);
    put.send().await.expect_err("the script never stores")
}

#[tokio::test]
async fn a_retry_is_the_same_write_at_another_owner() {
    let cluster = Cluster::start(3, |asked| match asked.number {
        0 => Action::Hangup,
        _ => stored(1),
    })
    .await;
    let db = cluster.client().await;
    let seen = galvani_client::Context::from_bytes(b"token").expect("short enough");
    let written = db.put("k", "v").after(&seen).w(2).send().await.expect("stored");
    assert_eq!((written.acks, written.siblings_now), (2, 1));
    let asked = cluster.asked();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].node, asked[1].node);
    let (first, again) = (put_of(&asked[0]), put_of(&asked[1]));
    assert_eq!(written.request_id, Some(first.rid));
    assert_eq!(first.context, Some(Bytes::from_static(b"token")));
    let timeout_ms = first.timeout_ms;
    assert!(again.timeout_ms <= timeout_ms, "the deadline is the call's, not the attempt's");
    assert!(again.retry && !first.retry, "the other owners are asked for it");
    assert_eq!(Put { timeout_ms, retry: false, ..again }, first);
}

#[tokio::test]
async fn an_overloaded_node_is_asked_again_after_its_hint() {
    let cluster = Cluster::start(1, |asked| match asked.number {
        0 => refused(Failure::Overloaded { retry_after_ms: 80 }),
        _ => found(&[Some("v")]),
    })
    .await;
    let db = cluster.client().await;
    let began = Instant::now();
    let read = db.get("k").await.expect("answered");
    assert_eq!(read.one().expect("one value").as_deref(), Some(&b"v"[..]));
    assert!(began.elapsed() >= Duration::from_millis(80));
    assert_eq!(cluster.asked().len(), 2);
}

#[tokio::test]
async fn a_write_that_was_refused_for_certain_is_no_retry() {
    let cluster = Cluster::start(3, |asked| match asked.number {
        0 => refused(Failure::Overloaded { retry_after_ms: 1 }),
        1 => Action::Hangup,
        _ => stored(1),
    })
    .await;
    let db = cluster.client().await;
    db.put("k", "v").blind().w(2).send().await.expect("stored");
    let marks: Vec<bool> = cluster.asked().iter().map(|asked| put_of(asked).retry).collect();
    assert_eq!(marks, [false, false, true]);
}

#[tokio::test]
async fn a_refusal_after_a_lost_attempt_leaves_the_write_in_doubt() {
    let cluster = Cluster::start(3, |asked| match asked.number {
        0 => Action::Hangup,
        _ => refused(Failure::TooManySiblings { count: 101, limit: 100 }),
    })
    .await;
    let error = put_error(&cluster, 2 * SECOND).await;
    assert_eq!(error.kind(), &ErrorKind::TooManySiblings { count: 101, limit: 100 });
    assert_eq!(error.applied(), Applied::Maybe { acks: 0 });
    assert_eq!(error.trace().attempts.len(), 2);
}

#[tokio::test]
async fn acks_once_told_are_not_forgotten() {
    let cluster = Cluster::start(3, |asked| {
        let (what, need, n) = (QuorumKind::W, 2, 3);
        match asked.number {
            0 => failed(
                Failure::QuorumNotMet { what, need, got: 1, n },
                AppliedOutcome::Maybe { acks: 1 },
            ),
            _ => refused(Failure::ReplicasDown { what, need, up: 1, n }),
        }
    })
    .await;
    let error = put_error(&cluster, 2 * SECOND).await;
    assert_eq!(error.applied(), Applied::Maybe { acks: 1 });
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_missed_quorum_names_who_was_missing() {
    let cluster = Cluster::start(3, |_| {
        let failure = Failure::QuorumNotMet { what: QuorumKind::W, need: 2, got: 1, n: 3 };
        failed(failure, AppliedOutcome::Maybe { acks: 1 })
    })
    .await;
    let error = put_error(&cluster, 2 * SECOND).await;
    let line = error.to_string();
    assert!(line.starts_with("put k: w=2 not reached, 1 of 3 acked in "), "{line}");
    assert!(line.contains(": n3 unreachable (request "), "{line}");
    let names: Vec<_> = error.trace().answers.iter().map(|one| one.node.as_str()).collect();
    assert_eq!(names, ["n1", "n3"]);
}

#[tokio::test]
async fn what_can_never_be_met_is_asked_once() {
    let cluster = Cluster::start(3, |_| {
        refused(Failure::QuorumImpossible { what: QuorumKind::W, asked: Quorum::Exactly(5), n: 3 })
    })
    .await;
    let error = put_error(&cluster, 2 * SECOND).await;
    assert!(error.to_string().contains("w=5 asks for more copies than exist (n=3)"), "{error}");
    assert_eq!(error.applied(), Applied::No);
    assert!(!error.is_retryable());
    assert_eq!(cluster.asked().len(), 1);
}

#[tokio::test]
async fn silence_ends_with_the_deadline_and_in_doubt() {
    let cluster = Cluster::start(3, |_| Action::Silent).await;
    let began = Instant::now();
    let error = put_error(&cluster, Duration::from_millis(400)).await;
    assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("no answer"), "{error}");
    assert_eq!(error.applied(), Applied::Maybe { acks: 0 });
    // Connecting to a node may take a while on a busy machine, the call itself may not.
    assert!(began.elapsed() < 5 * SECOND);
    for asked in cluster.asked() {
        assert!(put_of(&asked).timeout_ms <= 400);
    }
}

#[tokio::test]
async fn a_silent_owner_is_joined_by_another_and_then_avoided() {
    let cluster = Cluster::start(3, |_| found(&[Some("v")])).await;
    let db = cluster.client().await;
    cluster.deaf.lock().node = Some(cluster.first_owner("k"));
    let tried = || {
        let sent = &cluster.deaf.lock().sent;
        sent.iter().filter(|message| matches!(message, Message::Get(_))).count()
    };
    db.get("k").await.expect("another owner answers within the deadline");
    assert_eq!(tried(), 1, "it was asked first");
    let others = cluster.asked().len();
    db.get("k").await.expect("answered");
    // On a busy machine the others may seem late too; it comes after both of them.
    let (again, more) = (tried() - 1, cluster.asked().len() - others);
    assert!(more > 0 && (again == 0 || more >= 2), "{again} to the silent one, {more} to others");
}

#[tokio::test]
async fn a_late_answer_of_the_first_attempt_still_counts() {
    let cluster = Cluster::start(3, |asked| match (asked.number, stored(1)) {
        (0, Action::Reply(reply)) => Action::Late(Duration::from_millis(700), reply),
        _ => Action::Silent,
    })
    .await;
    let db = cluster.client().await;
    let written = db.put("k", "v").blind().send().await.expect("stored by the first attempt");
    let asked = cluster.asked();
    assert!(asked.len() > 1, "the silence brought in another owner");
    assert!(asked.iter().all(|asked| Some(put_of(asked).rid) == written.request_id));
}

#[tokio::test]
async fn a_call_is_tried_thrice_and_no_more() {
    let cluster = Cluster::start(1, |_| refused(Failure::Stopping)).await;
    let error = put_error(&cluster, 2 * SECOND).await;
    assert_eq!(error.kind(), &ErrorKind::Stopping);
    assert_eq!((error.applied(), cluster.asked().len()), (Applied::No, 3));
}

#[tokio::test]
async fn a_restarted_client_never_reuses_a_request_id() {
    let cluster = Cluster::start(1, |_| stored(1)).await;
    for _ in 0..2 {
        let db = cluster.client().await;
        db.put("k", "v").blind().send().await.expect("stored");
    }
    let asked = cluster.asked();
    assert_ne!(put_of(&asked[0]).rid, put_of(&asked[1]).rid);
}

#[tokio::test]
async fn a_dead_owner_is_passed_over_and_a_write_that_never_left_is_not_in_doubt() {
    let mut cluster = Cluster::start(3, |_| stored(1)).await;
    // The client has a link to its seed, the last node, only.
    let db = cluster.client().await;
    cluster.stop(0).await;
    cluster.stop(1).await;
    db.put("k", "v").blind().send().await.expect("one owner is left");
    cluster.stop(2).await;
    // A read finds out that the last link is gone too.
    db.get("k").await.expect_err("nobody is left");
    let asked = cluster.asked().len();
    let error = db.put("k", "v").blind().timeout(4 * SECOND).send().await.expect_err("all gone");
    assert!(error.is_retryable(), "{error}");
    assert_eq!(error.applied(), Applied::No, "{error}");
    assert_eq!(cluster.asked().len(), asked);
}

#[tokio::test]
async fn retries_stay_a_tenth_of_the_calls() {
    let cluster = Cluster::start(3, |_| refused(Failure::Overloaded { retry_after_ms: 0 })).await;
    let db = cluster.client().await;
    const CALLS: usize = 1_000;
    for _ in 0..CALLS / 50 {
        let calls = (0..50).map(|_| tokio::spawn(db.get("k").into_future()));
        for call in calls.collect::<Vec<_>>() {
            let error = call.await.expect("no panic").expect_err("overloaded");
            assert!(matches!(error.kind(), ErrorKind::Overloaded { .. }), "{error}");
        }
    }
    let retries = cluster.asked().len() - CALLS;
    assert!((100..=200).contains(&retries), "{retries} retries: the reserve and a tenth");
}
