//! Latencies of a run: from when each request was due and from when it was sent, over the whole run
//! and second by second.
//!
//! A second that is over is packed at once, so that a long run takes little memory. A request that
//! got no answer in its time counts with the time it had, at least. Next to read: `run.rs`.

use crate::hdr::histogram;
use crate::run::{Batch, Part};
use crate::workload::Kind;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Latencies of one kind of operation.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From when each request was due.
    pub due: Histogram<u64>,
    /// From when it was sent.
    pub sent: Histogram<u64>,
}

impl Latencies {
    fn new() -> Latencies {
        Latencies { due: histogram(), sent: histogram() }
    }
}

/// The second that is under way.
#[derive(Clone, Debug)]
struct Second {
    number: u64,
    errors: u64,
    /// Those of them whose latency counts.
    waited: u64,
    kinds: [Histogram<u64>; 4],
}

/// What is recorded while a run runs.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// By [`Kind::index`].
    pub kinds: [Latencies; 4],
    /// How much later than due requests were sent.
    pub lag: Histogram<u64>,
    second: Second,
    batches: Vec<Batch>,
}

impl Recorder {
    /// Nothing recorded.
    pub fn new() -> Recorder {
        Recorder {
            kinds: std::array::from_fn(|_| Latencies::new()),
            lag: histogram(),
            second: Second::of(0),
            batches: Vec::new(),
        }
    }

    /// An operation that was answered `at` this time of the run.
    pub fn record(&mut self, kind: Kind, at: Duration, due: Duration, sent: Duration) {
        self.reach(at);
        let latencies = &mut self.kinds[kind.index()];
        record(&mut latencies.due, due);
        record(&mut latencies.sent, sent);
        record(&mut self.second.kinds[kind.index()], due);
    }

    /// An operation that failed after a wait: its latency counts, and nothing was done.
    pub fn fail_after(&mut self, kind: Kind, at: Duration, due: Duration, sent: Duration) {
        self.record(kind, at, due, sent);
        self.second.errors += 1;
        self.second.waited += 1;
    }

    /// An operation that failed at once.
    pub fn fail(&mut self, at: Duration) {
        self.reach(at);
        self.second.errors += 1;
    }

    /// A request was sent so much later than it was due.
    pub fn late(&mut self, lag: Duration) {
        record(&mut self.lag, lag);
    }

    /// Operations recorded.
    pub fn done(&self) -> u64 {
        self.kinds.iter().map(|latencies| latencies.due.len()).sum()
    }

    /// What the last whole second was like.
    pub fn last(&self) -> Option<&Batch> {
        self.batches.last()
    }

    /// All kinds together, from when each request was due.
    pub fn all(&self) -> Histogram<u64> {
        let mut all = histogram();
        self.kinds.iter().for_each(|latencies| crate::hdr::merge(&mut all, &latencies.due));
        all
    }

    /// The seconds of the run, the one under way included.
    pub fn batches(mut self) -> Vec<Batch> {
        self.pack();
        self.batches
    }

    /// Packs what is over by `at`.
    pub fn reach(&mut self, at: Duration) {
        while self.second.number < at.as_secs() {
            self.pack();
        }
    }

    fn pack(&mut self) {
        let next = Second::of(self.second.number + 1);
        let second = std::mem::replace(&mut self.second, next);
        let kinds = Kind::ALL.iter().zip(&second.kinds);
        let kinds: BTreeMap<String, Part> = kinds
            .filter(|(_, histogram)| !histogram.is_empty())
            .map(|(kind, histogram)| (kind.name().to_owned(), Part::of(histogram)))
            .collect();
        let recorded: u64 = kinds.values().map(|part| part.count).sum();
        let ops = recorded - second.waited;
        self.batches.push(Batch { second: second.number, ops, errors: second.errors, kinds });
    }
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Second {
    fn of(number: u64) -> Second {
        Second { number, errors: 0, waited: 0, kinds: std::array::from_fn(|_| histogram()) }
    }
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    let micros = took.as_micros().clamp(1, LATENCY_MICROS_MAX) as u64;
    histogram.record(micros).expect("a histogram that resizes takes any value");
}

/// No request may take longer than a minute; an hour is more than enough.
const LATENCY_MICROS_MAX: u128 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use super::Recorder;
    use crate::hdr;
    use crate::workload::Kind;
    use std::time::Duration;

    #[test]
    fn seconds_add_up_to_the_run() {
        let (mut recorder, ms) = (Recorder::new(), Duration::from_millis);
        for (at, took) in [(100, 1), (900, 2), (2_100, 700), (2_200, 3)] {
            recorder.record(Kind::Put, ms(at), ms(took), ms(1));
        }
        recorder.record(Kind::Get, ms(2_300), ms(5), ms(5));
        recorder.fail(ms(2_400));
        recorder.fail_after(Kind::Put, ms(2_500), ms(900), ms(900));
        assert_eq!((recorder.done(), recorder.all().len()), (6, 6));
        let whole = recorder.kinds[Kind::Put.index()].due.clone();
        let batches = recorder.batches();
        let ops: Vec<u64> = batches.iter().map(|batch| batch.ops).collect();
        assert_eq!((ops, batches[2].errors), (vec![2, 0, 3], 2));
        let mut merged = hdr::histogram();
        for part in batches.iter().filter_map(|batch| batch.kinds.get("put")) {
            hdr::merge(&mut merged, &hdr::decode(&part.histogram).expect("our own"));
        }
        assert_eq!(merged, whole);
    }
}
