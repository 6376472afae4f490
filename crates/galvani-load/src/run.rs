//! A run as it is saved: schema `galvani.bench/1`.
//!
//! Everything that was asked for and found, second by second, with the histograms themselves:
//! percentiles are never averaged. Fields are only ever added, and what is missing has a default.

use crate::hdr::encode;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema's name.
pub const SCHEMA: &str = "galvani.bench/1";

/// Copies of a key, and how many of them a read and a write wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Copies.
    pub n: u8,
    /// Answers to a read.
    pub r: u8,
    /// Acks of a write.
    pub w: u8,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// [`SCHEMA`].
    pub schema: String,
    /// Of the program that ran it.
    pub version: String,
    /// When measuring began, in words.
    pub started_at: String,
    /// The same in milliseconds since 1970.
    pub started_ms: u64,
    /// put, get, mix, or a letter of YCSB.
    pub workload: String,
    /// How keys were chosen.
    pub distribution: String,
    /// `open` or `closed`.
    #[serde(rename = "loop")]
    pub shape: String,
    /// Requests a second that were wanted, of an open loop.
    pub rate: Option<f64>,
    /// What a closed loop of the cluster gave before, if the rate came from that.
    pub sustainable_per_second: Option<f64>,
    /// Requests under way at once, of a closed loop.
    pub concurrency: Option<u32>,
    /// Of its random numbers.
    pub seed: u64,
    /// Keys at the beginning.
    pub keys: u64,
    /// Bytes of each value.
    pub value_bytes: u64,
    /// As asked; null: the bucket's.
    pub n: Option<u8>,
    /// As asked; null: the bucket's.
    pub r: Option<String>,
    /// As asked; null: the bucket's.
    pub w: Option<String>,
    /// What that came to, in copies.
    pub quorum: Option<Quorum>,
    /// What each request had.
    pub timeout_ms: u64,
    /// How long was measured.
    pub seconds: f64,
    /// Requests of the schedule.
    pub offered: u64,
    /// Of those, not sent for want of a place.
    pub shed: u64,
    /// Requests under way when the last one had been sent; all of them were waited for.
    pub waited_for: u64,
    /// Operations done.
    pub ops: u64,
    /// The same in each second.
    pub ops_per_second: f64,
    /// Operations that failed, timeouts included.
    pub failed: u64,
    /// Of those, refused as overloaded or rate limited.
    pub refused: u64,
    /// Of those, without an answer in time.
    pub timeouts: u64,
    /// Failures by name.
    pub errors: BTreeMap<String, u64>,
    /// Latencies of reads, from when each was due.
    pub get: Option<Latency>,
    /// Of writes.
    pub put: Option<Latency>,
    /// Of new keys.
    pub insert: Option<Latency>,
    /// Of reads with a write after them.
    pub rmw: Option<Latency>,
    /// From when each request was sent, by kind.
    pub service: BTreeMap<String, Latency>,
    /// How much later than due requests were sent.
    pub lag: Option<Latency>,
    /// Share of one core that the bench itself took.
    pub generator_cpu: f64,
    /// The figures say more of the bench than of the cluster.
    pub generator_bound: bool,
    /// CPU time of the node processes while measuring, in microseconds.
    pub cpu_micros: u64,
    /// The same for 1000 operations, in seconds; null: not known.
    pub cpu_seconds_per_1000_ops: Option<f64>,
    /// Node processes that it is of.
    pub cpu_nodes: usize,
    /// Nodes that were restarted or did not answer.
    pub cpu_nodes_lacking: usize,
    /// The most memory that one node had.
    pub node_memory_bytes_max: u64,
    /// Writes that found or made a sibling.
    pub races: u64,
    /// What was found at the end.
    pub check: Option<Check>,
    /// Where it ran.
    pub host: String,
    /// Histograms of the whole run, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub histograms: BTreeMap<String, Histograms>,
    /// Second by second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<Batch>,
    /// What faults did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chaos: Option<Chaos>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half of them were not slower.
    pub p50_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 95 %.
    pub p95_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl Latency {
    /// Of a histogram; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Latency {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max(),
        })
    }
}

/// Histograms of one kind of operation, as text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histograms {
    /// From when each request was due.
    pub due: String,
    /// From when it was sent.
    pub sent: String,
}

/// One second of a run, by the time of the answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Batch {
    /// Which one, from 0.
    pub second: u64,
    /// Operations done in it.
    pub ops: u64,
    /// Operations that failed in it.
    pub errors: u64,
    /// Latencies by kind, of those that failed after a wait too.
    pub kinds: BTreeMap<String, Part>,
}

/// One kind of operation in one second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Their median.
    pub p50_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
    /// All of them.
    pub histogram: String,
}

impl Part {
    /// Of a histogram.
    pub fn of(histogram: &Histogram<u64>) -> Part {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Part {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max(),
            histogram: encode(histogram),
        }
    }
}

/// What was found of all acked writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// Acked writes that it is about.
    pub acked: u64,
    /// Keys read again.
    pub keys: u64,
    /// Keys that could not be read.
    pub unread: u64,
    /// Acked writes that are gone and that nothing replaced.
    pub lost: u64,
    /// Values that had been replaced or refused, and are there.
    pub resurrected: u64,
    /// Values that somebody else wrote.
    pub foreign: u64,
    /// Keys that lack an acked write which a value of somebody else may have replaced.
    pub unjudged: u64,
}

impl Check {
    /// Whether nothing is wrong with what could be judged.
    pub fn passed(&self) -> bool {
        self.lost == 0 && self.resurrected == 0 && self.unread == 0
    }

    /// In a word; a pass says that all was judged.
    pub fn verdict(&self) -> &'static str {
        match (self.passed(), self.unjudged) {
            (true, 0) => "PASS",
            (true, 1..) => "NOT ALL JUDGED",
            (false, _) => "FAIL",
        }
    }
}

/// What faults did to a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Chaos {
    /// What was done.
    pub done: Vec<Broken>,
    /// The longest time without a good answer, in seconds.
    pub unavailable_seconds: f64,
    /// When it began, in seconds of the run.
    pub unavailable_from: f64,
    /// Hints made meanwhile.
    pub hints_made: u64,
    /// Hints that their owners took over.
    pub hints_drained: u64,
    /// Hints that are left.
    pub hints_left: u64,
}

/// A fault, or its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Broken {
    /// In seconds of the run.
    pub at: f64,
    /// In words.
    pub what: String,
}

impl Run {
    /// A run that was saved; an error says what it is instead.
    pub fn parse(text: &str) -> Result<Run, ParseRunError> {
        let run: Run = serde_json::from_str(text)
            .map_err(|error| ParseRunError::Malformed { detail: error.to_string() })?;
        match run.schema == SCHEMA {
            true => Ok(run),
            false => Err(ParseRunError::Schema { found: run.schema }),
        }
    }

    /// What was asked for of the cluster, by name: runs that differ in it did different things.
    pub fn asked(&self) -> [(&'static str, String); 6] {
        [
            ("workload", self.workload.clone()),
            ("distribution", self.distribution.clone()),
            ("loop", self.shape.clone()),
            ("value bytes", self.value_bytes.to_string()),
            ("n r w", format!("{:?} {:?} {:?}", self.n, self.r, self.w)),
            ("timeout", self.timeout_ms.to_string()),
        ]
    }

    /// Latencies by kind, of the kinds there were.
    pub fn kinds(&self) -> Vec<(&'static str, &Latency)> {
        let kinds =
            [("get", &self.get), ("put", &self.put), ("insert", &self.insert), ("rmw", &self.rmw)];
        kinds.into_iter().filter_map(|(name, latency)| Some((name, latency.as_ref()?))).collect()
    }

    /// Whole seconds of the run: the first and what came after the end are not.
    pub fn whole_batches(&self) -> &[Batch] {
        let end = (self.seconds.floor() as usize).min(self.batches.len());
        &self.batches[..end]
    }
}

/// A text that is no saved run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRunError {
    /// No JSON, or of another shape.
    #[error("it is no JSON of a run: {detail}")]
    Malformed {
        /// Where and what.
        detail: String,
    },
    /// Another document.
    #[error("its schema is {found:?}, not galvani.bench/1")]
    Schema {
        /// What it says it is.
        found: String,
    },
}

#[cfg(test)]
mod tests {
    use super::{Check, ParseRunError, Run, SCHEMA};

    #[test]
    fn a_run_comes_back_and_anything_else_is_named() {
        let run = Run { schema: SCHEMA.to_owned(), seconds: 3.5, ..Run::default() };
        let text = serde_json::to_string(&run).expect("plain JSON");
        assert_eq!(Run::parse(&text), Ok(run));
        let other = Run::parse(r#"{"schema":"galvani.get/1"}"#);
        assert_eq!(other, Err(ParseRunError::Schema { found: "galvani.get/1".to_owned() }));
        assert!(matches!(Run::parse("x"), Err(ParseRunError::Malformed { .. })));
        // A field that came later is missing in what was saved before.
        assert!(Run::parse(r#"{"schema":"galvani.bench/1","later":[1]}"#).is_ok());
    }

    #[test]
    fn a_key_that_could_not_be_read_is_no_pass() {
        let fine = Check { acked: 5, keys: 2, foreign: 1, ..Check::default() };
        assert_eq!((fine.passed(), fine.verdict()), (true, "PASS"));
        let open = Check { unjudged: 1, ..fine };
        assert_eq!((open.passed(), open.verdict()), (true, "NOT ALL JUDGED"));
        for bad in [
            Check { lost: 1, ..Check::default() },
            Check { resurrected: 1, ..Check::default() },
            Check { unread: 1, ..Check::default() },
            Check { lost: 1, unjudged: 1, ..Check::default() },
        ] {
            assert_eq!((bad.passed(), bad.verdict()), (false, "FAIL"), "{bad:?}");
        }
    }
}
