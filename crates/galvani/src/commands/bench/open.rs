//! An open loop: requests start on schedule, whether or not earlier ones were answered.
//!
//! Arrivals are Poisson at the wanted rate, and a latency counts from when the request was due: a
//! cluster (or a bench) that falls behind cannot hide it. An arrival that finds all keys, or all
//! places, taken is not sent, and counted as shed. Next to read: `curve.rs`.

use crate::args::data::{Copies, ReadQuorum, WriteQuorum};
use crate::commands::bench::worker::{Key, Tally, next_random, record};
use crate::commands::options;
use crate::connect::Session;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use galvani_client::{Applied, Bucket, Error, ErrorKind};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What an open loop asks for.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) bucket: Bucket,
    pub(crate) copies: Copies,
    pub(crate) read: ReadQuorum,
    pub(crate) write: WriteQuorum,
    pub(crate) value: Bytes,
    /// Percent of operations that are reads.
    pub(crate) reads: u8,
    /// Requests under way at most.
    pub(crate) places: usize,
    /// What a request has, from when it was due.
    pub(crate) timeout: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Requests a second that were wanted.
    pub(crate) rate: f64,
    /// How long requests were started.
    pub(crate) took: Duration,
    /// Arrivals of the schedule.
    pub(crate) offered: u64,
    /// Of those, not sent for want of a place.
    pub(crate) shed: u64,
    /// Answered well and within their time.
    pub(crate) good: u64,
    /// Refused as overloaded or rate limited.
    pub(crate) refused: u64,
    /// Without an answer in time.
    pub(crate) timeouts: u64,
    /// Latencies of good and of late answers, and every failure by name.
    pub(crate) tally: Tally,
    /// How far behind its schedule the bench itself started a request, at worst.
    pub(crate) lag: Duration,
    /// Most memory that one node had, in bytes; 0: none said.
    pub(crate) memory: u64,
}

impl Outcome {
    /// Good answers per second.
    pub(crate) fn goodput(&self) -> f64 {
        self.good as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Failures that are neither refusals nor late.
    pub(crate) fn other(&self) -> u64 {
        self.offered - self.shed - self.good - self.refused - self.timeouts
    }

    /// The latency that this share of all answered requests kept within, in microseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> u64 {
        let mut all = self.tally.gets.clone();
        all.add(&self.tally.puts).expect("a histogram that resizes takes any value");
        all.value_at_quantile(quantile)
    }
}

/// One request's end.
struct Ended {
    key: Key,
    wrote: bool,
    due: Instant,
    at: Instant,
    result: Result<(), Error>,
}

impl Load {
    /// Starts `rate` requests a second for `duration`, and waits for their ends.
    pub(crate) async fn run(
        &self,
        session: &Session,
        keys: &mut Vec<Key>,
        rate: f64,
        duration: Duration,
        seed: u64,
    ) -> Outcome {
        let mut state = seed;
        let began = Instant::now();
        let (ends, mut due) = (began + duration, began);
        let mut out = Outcome::new(rate, duration);
        let mut running = FuturesUnordered::new();
        let watch = watch_memory(session, ends);
        tokio::pin!(watch);
        let mut watched = false;
        loop {
            while due <= Instant::now() && due < ends {
                out.offered += 1;
                out.lag = out.lag.max(due.elapsed());
                let reads = next_random(&mut state) % 100 < u64::from(self.reads);
                match take_key(keys, running.len() < self.places, &mut state) {
                    Some(key) => running.push(self.one(key, reads, due)),
                    None => out.shed += 1,
                }
                due += gap(next_random(&mut state), rate);
            }
            if due >= ends && running.is_empty() && watched {
                return out;
            }
            tokio::select! {
                Some(ended) = running.next() => keys.push(out.note(ended, self.timeout)),
                memory = &mut watch, if !watched => {
                    watched = true;
                    out.memory = memory;
                }
                () = sleep_until(due), if due < ends => {}
            }
        }
    }

    /// One request. A key whose last write ended in doubt is read, whatever was wanted: its next
    /// write needs what the read tells.
    async fn one(&self, mut key: Key, reads: bool, due: Instant) -> Ended {
        let (wrote, result) = match key.context.take() {
            Some(context) if !reads => {
                let put = self.bucket.put(key.name.clone(), self.value.clone()).after(&context);
                let put = options::write(put, self.copies, self.write);
                let result = match put.send().await {
                    Ok(written) => {
                        let alone = written.siblings_now <= 1;
                        key.context = alone.then_some(written.context);
                        Ok(())
                    }
                    Err(error) => {
                        key.context = (error.applied() == Applied::No).then_some(context);
                        Err(error)
                    }
                };
                (true, result)
            }
            known => {
                let get = self.bucket.get(key.name.clone());
                let mut get = options::read(get, self.copies, self.read);
                if self.copies.strict {
                    get = get.strict();
                }
                let result = get.await.map(|read| key.context = Some(read.context));
                key.context = key.context.or(known);
                (false, result)
            }
        };
        Ended { key, wrote, due, at: Instant::now(), result }
    }
}

impl Outcome {
    fn new(rate: f64, took: Duration) -> Outcome {
        Outcome {
            rate,
            took,
            offered: 0,
            shed: 0,
            good: 0,
            refused: 0,
            timeouts: 0,
            tally: Tally::new(),
            lag: Duration::ZERO,
            memory: 0,
        }
    }

    fn note(&mut self, ended: Ended, timeout: Duration) -> Key {
        let Ended { key, wrote, due, at, result } = ended;
        let took = at.duration_since(due);
        let (histogram, op) = match wrote {
            true => (&mut self.tally.puts, "put"),
            false => (&mut self.tally.gets, "get"),
        };
        match result {
            Ok(()) => {
                record(histogram, took);
                match took <= timeout {
                    true => self.good += 1,
                    false => self.timeouts += 1,
                }
            }
            Err(error) => {
                match error.kind() {
                    ErrorKind::Overloaded { .. } | ErrorKind::RateLimited { .. } => {
                        self.refused += 1;
                    }
                    ErrorKind::Timeout { .. } => self.timeouts += 1,
                    _ => {}
                }
                self.tally.fail(op, &error);
            }
        }
        key
    }
}

/// A key that no other request uses, at random.
fn take_key(keys: &mut Vec<Key>, room: bool, state: &mut u64) -> Option<Key> {
    if !room || keys.is_empty() {
        return None;
    }
    let index = next_random(state) % keys.len() as u64;
    Some(keys.swap_remove(index as usize))
}

/// The time to the next arrival: exponential, so that arrivals know nothing of each other.
fn gap(random: u64, rate: f64) -> Duration {
    // 53 bits: a number above 0 and at most 1.
    let even = ((random >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    Duration::from_secs_f64(-even.ln() / rate)
}

/// The most memory of any node, asked every second.
async fn watch_memory(session: &Session, until: Instant) -> u64 {
    let client = session.client.with_timeout(WATCH);
    let mut most: BTreeMap<_, u64> = BTreeMap::new();
    loop {
        for report in client.status().await {
            if let Ok(status) = report.status {
                let seen = most.entry(report.id).or_default();
                *seen = status.memory_bytes.max(*seen);
            }
        }
        if Instant::now() >= until {
            return most.into_values().max().unwrap_or(0);
        }
        sleep_until((Instant::now() + WATCH).min(until)).await;
    }
}

const WATCH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::{Outcome, gap, take_key};
    use crate::commands::bench::worker::{Key, next_random};
    use bytes::Bytes;
    use std::time::Duration;

    #[test]
    fn gaps_are_random_and_make_the_rate() {
        let mut state = 7;
        let gaps: Vec<Duration> =
            (0..10_000).map(|_| gap(next_random(&mut state), 1_000.0)).collect();
        let sum: Duration = gaps.iter().sum();
        assert!((9.5..10.5).contains(&sum.as_secs_f64()), "{sum:?} for 10,000 at 1,000 a second");
        let short = gaps.iter().filter(|gap| **gap < Duration::from_millis(1)).count();
        assert!((6_100..6_550).contains(&short), "{short}: an exponential has 63 % below its mean");
        assert!(gap(0, 1.0) < Duration::from_secs(60));
        assert_eq!(gap(u64::MAX, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_key_is_used_by_one_request_at_a_time() {
        let key = |n: u8| Key { name: Bytes::from(vec![n]), context: None };
        let mut keys: Vec<Key> = (0..3).map(key).collect();
        let mut state = 1;
        assert!(take_key(&mut keys, false, &mut state).is_none(), "no place");
        let mut taken: Vec<u8> =
            (0..3).map(|_| take_key(&mut keys, true, &mut state).expect("free").name[0]).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
        assert!(take_key(&mut keys, true, &mut state).is_none());
    }

    #[test]
    fn goodput_counts_what_was_answered_well_in_the_time_offered() {
        let mut out = Outcome::new(100.0, Duration::from_secs(4));
        out.good = 200;
        out.refused = 200;
        assert!((out.goodput() - 50.0).abs() < 1e-9);
    }
}
