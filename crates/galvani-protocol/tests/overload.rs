//! A retry storm against one queue, with the real admission: what it refuses at the door is what
//! keeps the rest in time, and nothing of the storm outlives it.
//!
//! Time is virtual. The queue is a lane and its peers: first come, first served, so many a second;
//! what expired in it is served all the same, for nobody. Clients try three times with no budget,
//! which is worse than ours. With a fixed bound the same storm must be a collapse: otherwise the
//! test shows nothing.

use galvani_protocol::admission::Admission;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Requests the queue serves a second, and what one takes.
const CAPACITY: u64 = 1_000;
const SERVICE_MICROS: u64 = 1_000_000 / CAPACITY;
/// What a request has, from its first try.
const TIMEOUT_MICROS: u64 = 2_000_000;
const INFLIGHT: usize = 4_096;
const TRIES: u32 = 3;
const STORM_SECONDS: u64 = 60;

/// One request of a client.
#[derive(Clone, Copy)]
struct Request {
    began: u64,
    tries: u32,
}

/// Good answers in each second of a storm of three times the capacity, and after it of 0.7 times.
/// Returns also the most that were in the queue.
fn storm(adaptive: bool) -> (Vec<u64>, usize) {
    let seconds = STORM_SECONDS + 20;
    let mut admission = Admission::new(INFLIGHT);
    let mut queue: VecDeque<(u64, u64, Request)> = VecDeque::new();
    let mut retries: BTreeMap<u64, Vec<Request>> = BTreeMap::new();
    let (mut good, mut longest) = (vec![0; seconds as usize], 0);
    // Those that somebody still waits for, by deadline: who expired is no longer in a lane's table,
    // but still in the queue.
    let mut waiting: BTreeSet<(u64, u64)> = BTreeSet::new();
    let (mut credit, mut free_at, mut number) = (0, 0, 0);
    for now in (0..seconds * 1_000_000).step_by(SERVICE_MICROS as usize) {
        // Arrivals of this millisecond: new ones, and those whose pause is over.
        credit += if now < STORM_SECONDS * 1_000_000 { 30 } else { 7 };
        let mut arrivals = Vec::new();
        while credit >= 10 {
            credit -= 10;
            arrivals.push(Request { began: now, tries: 0 });
        }
        while let Some(due) = retries.first_entry().filter(|due| *due.key() <= now) {
            arrivals.extend(due.remove());
        }
        for request in arrivals {
            let left = (request.began + TIMEOUT_MICROS).saturating_sub(now);
            while waiting.first().is_some_and(|(deadline, _)| *deadline <= now) {
                waiting.pop_first();
            }
            match admission.admit(waiting.len(), left) {
                _ if left == 0 => {}
                Err(turned) => {
                    let again = now + u64::from(turned.retry_after_ms) * 1_000;
                    let request = Request { tries: request.tries + 1, ..request };
                    if request.tries < TRIES {
                        retries.entry(again).or_default().push(request);
                    }
                }
                Ok(()) => {
                    number += 1;
                    waiting.insert((request.began + TIMEOUT_MICROS, number));
                    queue.push_back((now, number, request));
                }
            }
        }
        longest = longest.max(queue.len());
        if free_at <= now
            && let Some((came, number, request)) = queue.pop_front()
        {
            free_at = now + SERVICE_MICROS;
            admission.on_delay(now - came);
            waiting.remove(&(request.began + TIMEOUT_MICROS, number));
            if now + SERVICE_MICROS <= request.began + TIMEOUT_MICROS {
                good[(now / 1_000_000) as usize] += 1;
            }
        }
        if adaptive {
            admission.poll(now);
        }
    }
    (good, longest)
}

#[test]
fn retry_storm() {
    let storm_ends = STORM_SECONDS as usize;
    let (good, longest) = storm(true);
    let in_storm: u64 = good[5..storm_ends].iter().sum();
    let able = CAPACITY * (storm_ends as u64 - 5);
    assert!(in_storm * 10 >= able * 9, "{in_storm} of {able} that could have been: {good:?}");
    assert!(longest < INFLIGHT / 2, "{longest} waited at once");
    let after = &good[storm_ends + 10..];
    let offered = CAPACITY * 7 / 10;
    assert!(after.iter().all(|&good| good >= offered * 99 / 100), "{after:?} of {offered}");
}

#[test]
fn the_same_storm_is_a_collapse_with_a_fixed_bound() {
    let (good, _) = storm(false);
    let in_storm: u64 = good[5..STORM_SECONDS as usize].iter().sum();
    let able = CAPACITY * (STORM_SECONDS - 5);
    assert!(in_storm * 2 < able, "{in_storm} of {able}: this storm shows nothing");
}
