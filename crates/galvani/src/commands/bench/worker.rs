//! One worker: its own keys, one request at a time, latencies into histograms.
//!
//! A write is made after the last one of its key, so that a bench leaves no siblings. After a
//! failed write the key is read again before it is written: that read is not measured.

use crate::args::data::{Copies, ReadQuorum, WriteQuorum};
use crate::commands::options;
use bytes::Bytes;
use galvani_client::{Bucket, Context, Error};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A key and the context its next write is made after.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: Bytes,
    /// `None`: to be read again first.
    pub(crate) context: Option<Context>,
}

/// When to stop.
#[derive(Debug)]
pub(crate) struct Plan {
    until: Option<Instant>,
    left: AtomicU64,
}

impl Plan {
    pub(crate) fn until(end: Instant) -> Plan {
        Plan { until: Some(end), left: AtomicU64::new(u64::MAX) }
    }

    pub(crate) fn of_count(count: u64) -> Plan {
        Plan { until: None, left: AtomicU64::new(count) }
    }

    /// Whether there is one more operation to do; takes it.
    fn take(&self) -> bool {
        let open = self.until.is_none_or(|end| Instant::now() < end);
        let one_less = |left: u64| left.checked_sub(1);
        open && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// What workers measured.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Latencies of reads that were answered, in microseconds.
    pub(crate) gets: Histogram<u64>,
    /// Latencies of writes that were stored, in microseconds.
    pub(crate) puts: Histogram<u64>,
    /// What failed, how often; bounded by the kinds of errors.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        // Grows as needed, to minutes: a latency is never cut.
        let histogram = || Histogram::new(3).expect("3 digits are within 0..=5");
        Tally { gets: histogram(), puts: histogram(), errors: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.gets.add(&other.gets).expect("a histogram that resizes takes any value");
        self.puts.add(&other.puts).expect("a histogram that resizes takes any value");
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
    }

    pub(crate) fn done(&self) -> u64 {
        self.gets.len() + self.puts.len()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    pub(crate) fn fail(&mut self, op: &str, error: &Error) {
        // Its kind without figures: the same failure is one line.
        let kind = error.kind().to_string();
        let kind: String = kind.split([':', ',']).next().unwrap_or_default().to_owned();
        let kind = kind.split(" in ").next().unwrap_or_default();
        if self.errors.len() < ERRORS_MAX {
            *self.errors.entry(format!("{op}: {kind}")).or_default() += 1;
        } else {
            *self.errors.entry("other".to_owned()).or_default() += 1;
        }
    }
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) bucket: Bucket,
    pub(crate) copies: Copies,
    pub(crate) read: ReadQuorum,
    pub(crate) write: WriteQuorum,
    pub(crate) value: Bytes,
    /// Percent of operations that are reads.
    pub(crate) reads: u8,
    pub(crate) keys: Vec<Key>,
    /// Of its random numbers.
    pub(crate) state: u64,
}

impl Worker {
    /// Does operations until the plan ends.
    pub(crate) async fn run(&mut self, plan: &Plan) -> Tally {
        let mut tally = Tally::new();
        while plan.take() {
            let random = next_random(&mut self.state);
            let index = (random >> 32) as usize % self.keys.len();
            match (random as u32 % 100) < u32::from(self.reads) {
                true => self.get(index, &mut tally).await,
                false => self.put(index, &mut tally).await,
            }
        }
        tally
    }

    async fn get(&mut self, index: usize, tally: &mut Tally) {
        let get = self.bucket.get(self.keys[index].name.clone());
        let mut get = options::read(get, self.copies, self.read);
        if self.copies.strict {
            get = get.strict();
        }
        let began = Instant::now();
        match get.await {
            Ok(_) => record(&mut tally.gets, began.elapsed()),
            Err(error) => tally.fail("get", &error),
        }
    }

    async fn put(&mut self, index: usize, tally: &mut Tally) {
        let name = self.keys[index].name.clone();
        let context = match self.keys[index].context.take() {
            Some(context) => context,
            None => {
                let get = options::read(self.bucket.get(name.clone()), self.copies, self.read);
                match get.await {
                    Ok(read) => read.context,
                    Err(error) => return tally.fail("get before put", &error),
                }
            }
        };
        let put = self.bucket.put(name, self.value.clone()).after(&context);
        let put = options::write(put, self.copies, self.write);
        let began = Instant::now();
        match put.send().await {
            Ok(written) => {
                record(&mut tally.puts, began.elapsed());
                let alone = written.siblings_now <= 1;
                self.keys[index].context = alone.then_some(written.context);
            }
            Err(error) => tally.fail("put", &error),
        }
    }
}

pub(crate) fn record(histogram: &mut Histogram<u64>, took: Duration) {
    let micros = took.as_micros().clamp(1, LATENCY_MICROS_MAX) as u64;
    histogram.record(micros).expect("a histogram that resizes takes any value");
}

/// SplitMix64: good enough to pick keys, the same for every run.
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// No request may take longer than a minute; an hour is more than enough.
const LATENCY_MICROS_MAX: u128 = 3_600_000_000;
/// Kinds of failures told apart.
const ERRORS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::{Plan, Tally, record};
    use std::time::{Duration, Instant};

    #[test]
    fn a_plan_ends_by_count_or_by_time() {
        let plan = Plan::of_count(3);
        assert_eq!((0..9).filter(|_| plan.take()).count(), 3);
        assert!(!Plan::until(Instant::now()).take());
        assert!(Plan::until(Instant::now() + Duration::from_secs(3600)).take());
    }

    #[test]
    fn tallies_add_up() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        record(&mut one.gets, Duration::from_micros(100));
        record(&mut other.gets, Duration::from_millis(300_000));
        record(&mut other.puts, Duration::ZERO);
        other.errors.insert("put: x".to_owned(), 2);
        one.add(&other);
        assert_eq!((one.done(), one.failed()), (3, 2));
        assert!(one.gets.max() >= 300_000_000);
    }
}
