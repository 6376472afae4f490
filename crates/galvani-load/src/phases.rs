//! A run with faults in its phases: from one fault to the next, and after the last.
//!
//! A second belongs to the phase in which it ended, so what a fault does is never counted for the time before
//! it. Percentiles are of all requests of the phase, not means of percentiles. It draws nothing and
//! knows of no fault but its time and words. Next to read: `run.rs`.

use crate::hdr::{decode, histogram, merge};
use crate::run::{Batch, Broken, Latency, Run};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// What happened between two faults.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// What began it; empty for the time before the first fault.
    pub what: String,
    /// Whole seconds of it.
    pub seconds: u64,
    /// Operations done.
    pub ops: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Latencies by kind, from when each request was due.
    pub kinds: BTreeMap<String, Latency>,
}

/// The phases of a run, in their order; none of a run without faults. Those that lasted less than a second
/// are left out.
pub fn phases(run: &Run) -> Vec<Phase> {
    let Some(chaos) = &run.chaos else { return Vec::new() };
    let begins = [(0.0, "")].into_iter();
    let begins: Vec<(f64, &str)> =
        begins.chain(chaos.done.iter().map(|Broken { at, what }| (*at, what.as_str()))).collect();
    let ends = begins.iter().skip(1).map(|(at, _)| *at).chain([f64::INFINITY]);
    let of = |((from, what), to): (&(f64, &str), f64)| {
        // The last second may not be whole: it has fewer operations, and would make the rate a lesser one.
        let whole = run.batches.iter().filter(|batch| (batch.second as f64) < run.seconds.floor());
        let ended = |batch: &&Batch| (*from..to).contains(&((batch.second + 1) as f64));
        phase(what, whole.filter(ended))
    };
    begins.iter().zip(ends).map(of).filter(|phase| phase.seconds > 0).collect()
}

fn phase<'a>(what: &str, batches: impl Iterator<Item = &'a Batch>) -> Phase {
    let mut all: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
    let (what, kinds) = (what.to_owned(), BTreeMap::new());
    let mut phase = Phase { what, seconds: 0, ops: 0, errors: 0, kinds };
    for batch in batches {
        phase.seconds += 1;
        phase.ops += batch.ops;
        phase.errors += batch.errors;
        for (kind, part) in &batch.kinds {
            if let Some(one) = decode(&part.histogram) {
                merge(all.entry(kind.clone()).or_insert_with(histogram), &one);
            }
        }
    }
    let latencies = |(kind, of)| Latency::of(&of).map(|latency| (kind, latency));
    phase.kinds = all.into_iter().filter_map(latencies).collect();
    phase
}

#[cfg(test)]
mod tests {
    use super::phases;
    use crate::recorder::Recorder;
    use crate::run::{Broken, Chaos, Run};
    use crate::workload::Kind;
    use std::time::Duration;

    #[test]
    fn a_second_belongs_to_the_phase_in_which_it_ended() {
        let mut recorder = Recorder::new();
        for second in 0..10_u64 {
            for _ in 0..10 {
                let (at, took) = (Duration::from_millis(second * 1_000 + 500), second.max(1));
                let took = Duration::from_millis(took);
                recorder.record(Kind::Get, at, took, took);
            }
        }
        recorder.fail(Duration::from_millis(9_900));
        let broken = |at, what: &str| Broken { at, what: what.to_owned() };
        let done = vec![broken(3.5, "kill n2"), broken(3.6, "cut n1|n3"), broken(6.0, "start n2")];
        let chaos = Some(Chaos { done, ..Chaos::default() });
        let run = Run { seconds: 10.0, batches: recorder.batches(), chaos, ..Run::default() };
        let told = phases(&run).into_iter().map(|phase| {
            let max_ms = phase.kinds["get"].max_us / 1_000;
            (phase.what, phase.seconds, phase.ops, phase.errors, max_ms)
        });
        // Of the kill nothing whole is left: the cut came a moment after it.
        let expected = [("", 3, 30, 0, 2), ("cut n1|n3", 2, 20, 0, 4), ("start n2", 5, 50, 1, 9)];
        let expected =
            expected.map(|(what, s, ops, errors, ms)| (what.to_owned(), s, ops, errors, ms));
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!(phases(&Run { chaos: None, ..run }), []);
    }
}
