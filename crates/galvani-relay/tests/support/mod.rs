//! What the tests with real servers share: events, a delivery through a kill of the server, the verdict.
//!
//! The servers themselves are in `cluster-tests/brokers`. Each test file uses a part of this one. Next to
//! read: `redis.rs`, `nats.rs`, `webhook.rs`.
#![allow(dead_code, unreachable_pub)]

use galvani_brokers::Broker;
use galvani_relay::{FiguresHandle, Outgoing, Relay, Retry, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long anything may take, on a machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// `count` events of `keys` keys. Each body names its event, its key and its place.
pub fn events(name: &str, count: usize, keys: usize) -> Vec<Outgoing> {
    let event = |n: usize| {
        let (id, key) = (format!("{name}-{n}#0"), format!("k{}", n % keys));
        let body = format!(r#"{{"id":"{id}","key":"{key}","n":{n}}}"#);
        Outgoing::new(id, "orders".into(), key.into(), body.into())
    };
    (0..count).map(event).collect()
}

/// Settings that try again soon.
pub fn settings() -> Settings {
    let (first, longest) = (Duration::from_millis(20), Duration::from_millis(200));
    Settings {
        attempt_timeout: Duration::from_secs(20),
        retry: Retry { first, longest, ..Retry::default() },
        ..Settings::default()
    }
}

/// Panics unless the target has these events, each once, and each key's in its order. `got` is bodies in
/// the order of the target.
pub fn assert_all_once_in_order(got: &[Vec<u8>], sent: &[Outgoing]) {
    let wanted: BTreeSet<&[u8]> = sent.iter().map(|event| &event.body[..]).collect();
    let have: BTreeSet<&[u8]> = got.iter().map(|body| &body[..]).collect();
    let missing = wanted.difference(&have).count();
    let foreign = have.difference(&wanted).count();
    assert_eq!((missing, foreign), (0, 0), "missing and foreign of {}", wanted.len());
    assert_eq!(got.len(), have.len(), "duplicates");
    let mut places: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    let place_of: BTreeMap<&[u8], usize> =
        got.iter().enumerate().map(|(place, body)| (&body[..], place)).collect();
    for event in sent {
        places.entry(&event.key).or_default().push(place_of[&event.body[..]]);
    }
    assert!(places.values().all(|places| places.is_sorted()), "a key's events are out of order");
}

/// Waits until `done` says so.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "in vain: {what}");
        // wait: for the condition, until the deadline above.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Delivers both halves of `events`, kills the server amid the first, lets the relay notice, and starts
/// the server again.
pub async fn deliver_through_a_kill(
    mut relay: Relay,
    broker: &mut Broker,
    events: Vec<Outgoing>,
) -> Relay {
    let figures: FiguresHandle = relay.figures();
    let before = figures.read().delivered;
    let half = events.len() as u64 / 2;
    let (killed, was_killed) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let mut events = events;
        let rest = events.split_off(half as usize);
        relay.deliver(events).await.expect("the first half");
        was_killed.await.expect("the test goes on");
        relay.deliver(rest).await.expect("the second half");
        relay
    });
    until("a tenth is delivered", || figures.read().delivered >= before + half / 10).await;
    broker.kill();
    killed.send(()).expect("the delivery goes on");
    until("the relay notices", || figures.read().failing_since.is_some()).await;
    broker.restart();
    let relay = tokio::time::timeout(DEADLINE, task).await.expect("all in time").expect("no panic");
    assert_eq!(figures.read().delivered, before + 2 * half);
    relay
}
