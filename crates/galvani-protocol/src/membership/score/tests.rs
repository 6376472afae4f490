//! The breaker: when it opens, what closes it, what it never holds against a peer.

use super::{PATIENCE_MICROS, PROBE_MICROS, SILENT_MAX, STILL_MICROS, Scores};
use crate::effect::{Effect, PeerLane};
use crate::ops::ask_id;
use galvani_model::bucket::BucketName;
use galvani_model::ids::{LaneIndex, NodeId, Partition, Shard};
use galvani_model::key::Key;
use galvani_wire::Message;
use galvani_wire::message::Fetch;

const PEER: PeerLane = PeerLane { node: NodeId(2), lane: LaneIndex(0) };

fn ask(scores: &mut Scores, op: u64, now: u64) -> u64 {
    let id = ask_id(op, 0);
    let ask = Effect::Ask { to: PEER, id, forwarded: true, message: Message::Describe };
    scores.on_effect(&ask, now);
    id
}

/// Asks that get no answer, each after the one before; returns when the last has taken too long.
fn silence(scores: &mut Scores, asks: u64, from: u64) -> u64 {
    for op in 1..=asks {
        ask(scores, from + op, from + op);
        scores.poll(from + op + PATIENCE_MICROS);
    }
    from + asks + PATIENCE_MICROS
}

#[test]
fn it_opens_after_several_silent_asks_and_closes_with_any_answer() {
    let mut scores = Scores::default();
    let now = silence(&mut scores, u64::from(SILENT_MAX) - 1, 0);
    assert!(!scores.is_open(PEER));
    let late = ask(&mut scores, 100, now);
    assert_eq!(scores.poll(now + PATIENCE_MICROS), 1);
    assert!(scores.is_open(PEER));
    assert_eq!(scores.open().collect::<Vec<_>>(), vec![PEER]);
    scores.on_answer(late, true, now + PATIENCE_MICROS + 1);
    assert!(!scores.is_open(PEER), "a late answer is an answer");
}

#[test]
fn an_answer_in_between_keeps_it_closed() {
    let mut scores = Scores::default();
    for round in 0..10 {
        let now = silence(&mut scores, u64::from(SILENT_MAX) - 1, round * 10 * PATIENCE_MICROS);
        let id = ask(&mut scores, now + 7, now);
        scores.on_answer(id, true, now + 100);
    }
    assert!(!scores.is_open(PEER));
}

#[test]
fn background_work_and_what_never_left_are_no_evidence() {
    let mut scores = Scores::default();
    for op in 1..20 {
        let id = ask(&mut scores, op, 0);
        scores.on_undelivered(id);
        let message = Message::Describe;
        let id = ask_id(100 + op, 0);
        scores.on_effect(&Effect::Ask { to: PEER, id, forwarded: false, message }, 0);
    }
    assert_eq!((scores.poll(u64::MAX / 2), scores.next_deadline()), (0, None));
}

#[test]
fn while_open_one_request_goes_through_now_and_then() {
    let mut scores = Scores::default();
    let now = silence(&mut scores, u64::from(SILENT_MAX), 0);
    assert!(scores.is_passed_over(PEER, now));
    assert!(!scores.is_passed_over(PEER, now + PROBE_MICROS), "a probe");
    assert!(scores.is_passed_over(PEER, now + PROBE_MICROS + 1), "one only");
    scores.on_link(PEER);
    assert!(!scores.is_passed_over(PEER, now), "a new link begins anew");
}

#[test]
fn a_lane_that_stood_still_blames_nobody() {
    let mut scores = Scores::default();
    let ids: Vec<u64> = (1..10).map(|op| ask(&mut scores, op, 0)).collect();
    let woken = PATIENCE_MICROS * 20;
    assert_eq!(scores.poll(woken), 0);
    // The answers were in the inbox.
    for id in ids {
        scores.on_answer(id, true, woken);
    }
    assert!(!scores.is_open(PEER));
    // Without answers it finds out a little later.
    let mut scores = Scores::default();
    let _ids: Vec<u64> = (1..10).map(|op| ask(&mut scores, op, 0)).collect();
    scores.poll(woken);
    assert_eq!(scores.poll(woken + STILL_MICROS), 1);
}

#[test]
fn a_slow_peer_gets_more_patience_and_costs_more() {
    let other = PeerLane { node: NodeId(3), ..PEER };
    let mut scores = Scores::default();
    for op in 1..50 {
        let id = ask(&mut scores, op, 0);
        scores.on_answer(id, true, 100_000);
    }
    assert!(scores.patience(PEER) > scores.patience(other));
    assert!(scores.cost(PEER) > scores.cost(other));
    let idle = scores.cost(PEER);
    for op in 100..108 {
        ask(&mut scores, op, 0);
    }
    assert!(scores.cost(PEER) > idle, "asks under way cost too");
}

#[test]
fn delay_is_told_of_work_done_for_clients_here_and_of_nothing_else() {
    let mut scores = Scores::default();
    let shard = Shard { partition: Partition(0), n: 3 };
    let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
    let mut answered = |op, forwarded, done, took| {
        let (have, shown) = (Vec::new(), Vec::new());
        let fetch = Fetch {
            shard,
            key: key.clone(),
            records: true,
            have,
            shown,
            epoch: 1,
            timeout_ms: 100,
        };
        let (id, message) = (ask_id(op, 0), Message::Fetch(fetch));
        scores.on_effect(&Effect::Ask { to: PEER, id, forwarded, message }, 0);
        scores.on_answer(id, done, took)
    };
    assert_eq!(answered(1, false, true, 2_000), Some(0));
    assert_eq!(
        answered(2, false, false, 10),
        None,
        "a refusal is quick whatever stands in a queue"
    );
    assert_eq!(answered(3, true, true, 20), None, "what was sent on took more than this peer");
    assert_eq!(answered(4, false, true, 2_500), Some(500), "neither of them is a best");
}
