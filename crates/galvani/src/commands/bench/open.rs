//! An open loop: requests start on schedule, whether or not earlier ones were answered.
//!
//! Arrivals are Poisson at the wanted rate, fixed by the seed beforehand, and a latency counts from
//! when the request was due: a cluster (or a bench) that falls behind cannot hide it. An arrival
//! that finds all keys, or all places, taken is not sent, and counted as shed. Next: `curve.rs`.

use crate::commands::bench::alarm::Alarm;
use crate::commands::bench::driver::Driver;
use crate::commands::bench::outcome::Outcome;
use futures_util::stream::{FuturesUnordered, StreamExt};
use galvani_load::random::Random;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// What an open loop asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Requests a second.
    pub(crate) rate: f64,
    /// For how long.
    pub(crate) duration: Duration,
    /// Requests under way at most.
    pub(crate) places: usize,
    /// What a request has, from when it was due.
    pub(crate) timeout: Duration,
    /// Of the arrivals.
    pub(crate) seed: u64,
}

/// Arrivals in one turn.
const BURST: usize = 256;

/// Starts the requests and waits for their ends.
pub(crate) async fn run(driver: &Driver<'_>, schedule: Schedule, out: &RefCell<Outcome>) {
    let Schedule { rate, duration, places, timeout, seed } = schedule;
    let mut random = Random::of(seed);
    let alarm = Alarm::new();
    let began = out.borrow().began;
    out.borrow_mut().took = duration;
    let ends = began + duration;
    // Seconds from the beginning: a sum of gaps that are rounded one by one would drift.
    let mut at = 0.0;
    let mut due = began;
    let mut running = FuturesUnordered::new();
    loop {
        // Not all that are due, where it lags: those under way and signals have their turn.
        for _ in 0..BURST {
            if due > Instant::now() || due >= ends {
                break;
            }
            let todo = (running.len() < places).then(|| driver.next(due)).flatten();
            let mut out = out.borrow_mut();
            out.offered += 1;
            match todo {
                Some(todo) => running.push(driver.one(todo)),
                None => out.shed += 1,
            }
            at += random.gap(rate);
            due = began + Duration::from_secs_f64(at);
            if due >= ends {
                out.waited_for = running.len();
            }
        }
        if due < ends && due <= Instant::now() {
            tokio::task::yield_now().await;
        }
        if due >= ends && running.is_empty() {
            out.borrow_mut().gap_until(ends);
            return;
        }
        tokio::select! {
            Some(ended) = running.next() => out.borrow_mut().note(ended, timeout),
            () = alarm.until(due), if due < ends => {}
        }
    }
}
