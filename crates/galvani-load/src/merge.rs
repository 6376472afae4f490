//! Runs of several machines against one cluster at the same time, as one run.
//!
//! One generator has a limit of its own; several beside each other do not share it. Histograms are
//! merged, percentiles never averaged; seconds are laid over each other by the clocks of the machines,
//! to a second. What each run saw of the same nodes (their CPU, their memory) is not added up. It does
//! not make runs comparable that asked for different things: those are refused. Next to read: `run.rs`.

use crate::hdr;
use crate::run::{Batch, Check, Histograms, Latency, Part, Run};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, BTreeSet};

/// Why runs are not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Fewer than two.
    #[error("one run is merged with nothing")]
    Alone,
    /// They asked for different things.
    #[error("they differ in {what}: {one} and {other}")]
    NotAlike {
        /// In what.
        what: &'static str,
        /// Of the first.
        one: String,
        /// Of another.
        other: String,
    },
    /// They loaded the cluster one after the other.
    #[error(
        "one began {late_s} s after the other, which is more than half of the shorter one's {seconds} s"
    )]
    Apart {
        /// Seconds between their beginnings.
        late_s: u64,
        /// Seconds that the shorter one lasted.
        seconds: u64,
    },
    /// It was saved without its histograms, or they are damaged.
    #[error("the histograms of {kind} cannot be read")]
    Histogram {
        /// The kind of operation.
        kind: String,
    },
    /// It has a second that it did not last.
    #[error("it has a second {second}, long after its end")]
    Second {
        /// Which.
        second: u64,
    },
}

/// How long after its end a run may have had answers, in seconds.
const SECONDS_MORE: u64 = 120;

/// One run of several. What adds up is added; of what each saw of the same nodes, and of how far each
/// generator was late, the most counts; seconds are those from the first beginning to the last end.
pub fn merge(runs: &[Run]) -> Result<Run, MergeError> {
    let [first, others @ ..] = runs else { return Err(MergeError::Alone) };
    if others.is_empty() {
        return Err(MergeError::Alone);
    }
    for other in others {
        are_alike(first, other)?;
    }
    let span = span(runs)?;
    let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
    let most = |of: fn(&Run) -> u64| runs.iter().map(of).max().unwrap_or_default();
    let rates: Option<Vec<f64>> = runs.iter().map(|run| run.rate).collect();
    let workers: Option<Vec<u32>> = runs.iter().map(|run| run.concurrency).collect();
    let began = runs.iter().min_by_key(|run| run.started_ms).unwrap_or(first);
    let mut errors = BTreeMap::new();
    for (what, count) in runs.iter().flat_map(|run| &run.errors) {
        *errors.entry(what.clone()).or_default() += count;
    }
    let Merged { texts, due, sent } = histograms(runs)?;
    let latency = |kind: &str| due.get(kind).copied();
    let (ops, cpu_micros) = (sum(|run| run.ops), most(|run| run.cpu_micros));
    let hosts: BTreeSet<&str> = runs.iter().map(|run| run.host.as_str()).collect();
    Ok(Run {
        started_at: began.started_at.clone(),
        started_ms: began.started_ms,
        rate: rates.map(|rates| rates.into_iter().sum()),
        concurrency: workers.map(|workers| workers.into_iter().sum()),
        keys: most(|run| run.keys),
        seconds: span,
        offered: sum(|run| run.offered),
        shed: sum(|run| run.shed),
        waited_for: sum(|run| run.waited_for),
        ops,
        ops_per_second: ops as f64 / span.max(1e-9),
        failed: sum(|run| run.failed),
        refused: sum(|run| run.refused),
        timeouts: sum(|run| run.timeouts),
        errors,
        get: latency("get"),
        put: latency("put"),
        insert: latency("insert"),
        rmw: latency("rmw"),
        service: sent,
        lag: runs.iter().filter_map(|run| run.lag).max_by_key(|lag| lag.p99_us),
        generator_cpu: runs.iter().map(|run| run.generator_cpu).fold(0.0, f64::max),
        generator_bound: runs.iter().any(|run| run.generator_bound),
        cpu_micros,
        // Each saw the nodes while it ran itself: known only where all ran for the same time.
        cpu_seconds_per_1000_ops: (ops > 0 && cpu_micros > 0 && is_same_time(runs))
            .then(|| cpu_micros as f64 / 1e6 / (ops as f64 / 1e3)),
        cpu_nodes: runs.iter().map(|run| run.cpu_nodes).max().unwrap_or_default(),
        cpu_nodes_lacking: runs.iter().map(|run| run.cpu_nodes_lacking).max().unwrap_or_default(),
        node_memory_bytes_max: most(|run| run.node_memory_bytes_max),
        races: sum(|run| run.races),
        check: checks(runs),
        host: hosts.into_iter().collect::<Vec<_>>().join(" + "),
        histograms: texts,
        batches: batches(runs, began.started_ms)?,
        ..first.clone()
    })
}

fn are_alike(one: &Run, other: &Run) -> Result<(), MergeError> {
    let words = |run: &Run| {
        let faults = if run.chaos.is_some() { "some" } else { "none" };
        let more = [("quorum", format!("{:?}", run.quorum)), ("faults", faults.to_owned())];
        run.asked().into_iter().chain(more)
    };
    match words(one).zip(words(other)).find(|(one, other)| one != other) {
        None => Ok(()),
        Some(((what, one), (_, other))) => Err(MergeError::NotAlike { what, one, other }),
    }
}

/// Whether all began within a second of each other and lasted as long, to a second.
fn is_same_time(runs: &[Run]) -> bool {
    let close = |of: fn(&Run) -> u64| {
        let all = || runs.iter().map(of);
        all().max().unwrap_or_default() - all().min().unwrap_or_default() <= 1_000
    };
    close(|run| times(run).0) && close(|run| times(run).1)
}

/// When a run began and ended, in milliseconds since 1970.
fn times(run: &Run) -> (u64, u64) {
    (run.started_ms, run.started_ms.saturating_add((run.seconds.max(0.0) * 1e3) as u64))
}

/// Seconds from the first beginning to the last end. All of them must have run together for a half of the
/// shortest at least.
fn span(runs: &[Run]) -> Result<f64, MergeError> {
    let all = || runs.iter().map(times);
    let first = all().map(|(began, _)| began).min().unwrap_or_default();
    let last = all().map(|(began, _)| began).max().unwrap_or_default();
    let shortest_ms = all().map(|(began, ended)| ended - began).min().unwrap_or_default();
    let late_ms = last - first;
    if late_ms * 2 > shortest_ms {
        return Err(MergeError::Apart { late_s: late_ms / 1_000, seconds: shortest_ms / 1_000 });
    }
    let ended = all().map(|(_, ended)| ended).max().unwrap_or_default();
    Ok((ended - first) as f64 / 1e3)
}

type ByKind<T> = BTreeMap<String, T>;

/// The histograms of all runs together, and what they say: from when requests were due, and sent.
#[derive(Debug, Default)]
struct Merged {
    texts: ByKind<Histograms>,
    due: ByKind<Latency>,
    sent: ByKind<Latency>,
}

fn histograms(runs: &[Run]) -> Result<Merged, MergeError> {
    let mut all: ByKind<(Histogram<u64>, Histogram<u64>)> = BTreeMap::new();
    for run in runs {
        for (kind, _) in run.kinds() {
            let texts = run.histograms.get(kind);
            let texts = texts.ok_or_else(|| MergeError::Histogram { kind: kind.to_owned() })?;
            let (due, sent) =
                all.entry(kind.to_owned()).or_insert_with(|| (hdr::histogram(), hdr::histogram()));
            hdr::merge(due, &decoded(kind, &texts.due)?);
            hdr::merge(sent, &decoded(kind, &texts.sent)?);
        }
    }
    let mut merged = Merged::default();
    for (kind, (due, sent)) in all {
        merged.due.extend(Latency::of(&due).map(|latency| (kind.clone(), latency)));
        merged.sent.extend(Latency::of(&sent).map(|latency| (kind.clone(), latency)));
        let texts = Histograms { due: hdr::encode(&due), sent: hdr::encode(&sent) };
        merged.texts.insert(kind, texts);
    }
    Ok(merged)
}

fn decoded(kind: &str, text: &str) -> Result<Histogram<u64>, MergeError> {
    hdr::decode(text).ok_or_else(|| MergeError::Histogram { kind: kind.to_owned() })
}

/// Seconds over each other: those of a run that began later are later ones.
fn batches(runs: &[Run], began_ms: u64) -> Result<Vec<Batch>, MergeError> {
    let mut seconds: BTreeMap<u64, (u64, u64, ByKind<Histogram<u64>>)> = BTreeMap::new();
    for run in runs {
        let late_s = (run.started_ms - began_ms + 500) / 1_000;
        // What was under way at the end was waited for, no longer than a request may take.
        let end = run.seconds.max(0.0) as u64 + SECONDS_MORE;
        for batch in &run.batches {
            if batch.second > end {
                return Err(MergeError::Second { second: batch.second });
            }
            let (ops, errors, kinds) = seconds.entry(batch.second + late_s).or_default();
            *ops += batch.ops;
            *errors += batch.errors;
            for (kind, part) in &batch.kinds {
                let into = kinds.entry(kind.clone()).or_insert_with(hdr::histogram);
                hdr::merge(into, &decoded(kind, &part.histogram)?);
            }
        }
    }
    // A second of which no run has anything is one in which nothing was answered.
    let end = seconds.last_key_value().map_or(0, |(last, _)| last + 1);
    let batch = |second| {
        let (ops, errors, kinds) = seconds.remove(&second).unwrap_or_default();
        let kinds = kinds.iter().map(|(kind, all)| (kind.clone(), Part::of(all))).collect();
        Batch { second, ops, errors, kinds }
    };
    Ok((0..end).map(batch).collect())
}

/// What all of them found in the end; nothing where one did not look.
fn checks(runs: &[Run]) -> Option<Check> {
    let mut all = Check::default();
    for run in runs {
        let Check { acked, keys, unread, lost, resurrected, foreign, unjudged } = run.check?;
        all.acked += acked;
        all.keys += keys;
        all.unread += unread;
        all.lost += lost;
        all.resurrected += resurrected;
        all.foreign += foreign;
        all.unjudged += unjudged;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::{MergeError, merge};
    use crate::hdr::{decode, encode};
    use crate::recorder::Recorder;
    use crate::run::{Chaos, Check, Histograms, Latency, Run, SCHEMA};
    use crate::workload::Kind;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// A run that began at this second, with a read of so many milliseconds in each of its seconds.
    fn run(began_s: u64, reads_ms: &[u64]) -> Run {
        let mut recorder = Recorder::new();
        for (second, ms) in reads_ms.iter().enumerate() {
            let (at, took) = (Duration::from_secs(second as u64), Duration::from_millis(*ms));
            recorder.record(Kind::Get, at, took, took / 2);
        }
        let of = &recorder.kinds[Kind::Get.index()];
        let histograms = Histograms { due: encode(&of.due), sent: encode(&of.sent) };
        Run {
            schema: SCHEMA.to_owned(),
            started_ms: 1_000_000 + began_s * 1_000,
            workload: "get".to_owned(),
            rate: Some(10.0),
            seconds: reads_ms.len() as f64,
            ops: reads_ms.len() as u64,
            ops_per_second: 1.0,
            get: Latency::of(&of.due),
            cpu_micros: 500,
            check: Some(Check { acked: 3, ..Check::default() }),
            errors: BTreeMap::from([("get: late".to_owned(), began_s)]),
            host: format!("host {began_s}"),
            histograms: BTreeMap::from([("get".to_owned(), histograms)]),
            batches: recorder.batches(),
            ..Run::default()
        }
    }

    #[test]
    fn counts_add_up_histograms_are_merged_and_seconds_laid_over_each_other() {
        let all = merge(&[run(1, &[1, 1, 1, 100]), run(0, &[3, 3, 3, 3, 3, 3])]).expect("alike");
        assert_eq!((all.ops, all.rate), (10, Some(20.0)));
        assert_eq!((all.seconds, all.started_ms), (6.0, 1_000_000));
        assert!((all.ops_per_second - 10.0 / 6.0).abs() < 1e-9, "{}", all.ops_per_second);
        let get = all.get.expect("reads");
        assert_eq!((get.count, get.p50_us / 10), (10, 300));
        assert!(get.max_us >= 100_000 && all.service["get"].max_us < 60_000);
        let merged = decode(&all.histograms["get"].due).expect("a histogram");
        assert_eq!(Latency::of(&merged), Some(get), "no percentile is an average");
        let counts: Vec<u64> = all.batches.iter().map(|batch| batch.ops).collect();
        assert_eq!(counts, [1, 2, 2, 2, 2, 1]);
        assert!(all.batches[4].kinds["get"].max_us >= 100_000);
        assert_eq!(all.cpu_micros, 500, "both saw the same nodes");
        assert_eq!(all.cpu_seconds_per_1000_ops, Some(500.0 / 1e6 / (10.0 / 1e3)));
        let longer = merge(&[run(0, &[1; 4]), run(0, &[1; 8])]).expect("alike");
        assert_eq!(longer.cpu_seconds_per_1000_ops, None, "neither saw all of it");
        assert_eq!(all.check.map(|check| check.acked), Some(6));
        assert_eq!(all.errors["get: late"], 1);
        assert_eq!(all.host, "host 0 + host 1");
    }

    #[test]
    fn what_is_no_run_of_the_same_load_is_refused() {
        let one = run(0, &[1; 4]);
        assert_eq!(merge(std::slice::from_ref(&one)), Err(MergeError::Alone));
        let apart = merge(&[one.clone(), run(3, &[1; 4])]);
        assert_eq!(apart, Err(MergeError::Apart { late_s: 3, seconds: 4 }));
        // Each of the two with the first, and not with each other.
        let chain = merge(&[run(5, &[1; 10]), run(0, &[1; 10]), run(10, &[1; 10])]);
        assert_eq!(chain, Err(MergeError::Apart { late_s: 10, seconds: 10 }));
        let mut late = one.clone();
        late.batches[3].second = u64::MAX;
        assert_eq!(merge(&[one.clone(), late]), Err(MergeError::Second { second: u64::MAX }));
        let broken = Run { chaos: Some(Chaos::default()), ..one.clone() };
        let alike = merge(&[one.clone(), broken]);
        assert!(matches!(alike, Err(MergeError::NotAlike { what: "faults", .. })));
        let other = Run { value_bytes: 7, ..one.clone() };
        let alike = merge(&[one.clone(), other]);
        assert!(matches!(alike, Err(MergeError::NotAlike { what: "value bytes", .. })));
        let short = Run { histograms: BTreeMap::new(), ..one.clone() };
        let kind = "get".to_owned();
        assert_eq!(merge(&[one.clone(), short]), Err(MergeError::Histogram { kind }));
        let unchecked = Run { check: None, ..one.clone() };
        assert_eq!(merge(&[one, unchecked]).expect("alike").check, None);
    }
}
