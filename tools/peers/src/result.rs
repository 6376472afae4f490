//! What one run showed: a line of JSON in a file that runs are appended to.

use crate::error::PeerError;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The store, as the table names it.
    pub(crate) peer: String,
    /// `put` or `get`.
    pub(crate) op: String,
    /// Requests under way at once.
    pub(crate) concurrency: u32,
    /// Bytes of each value.
    pub(crate) value_bytes: u64,
    /// Answered requests a second.
    pub(crate) ops_per_second: f64,
    /// Median latency.
    pub(crate) p50_us: u64,
    /// 99th percentile.
    pub(crate) p99_us: u64,
    /// Processor time of all servers per request, if it is known.
    pub(crate) server_cpu_us: Option<f64>,
    /// Requests that failed.
    pub(crate) failed: u64,
}

impl Run {
    /// Appends the run to `file`, which is made if it is not there.
    pub(crate) fn append(&self, file: &Path) -> Result<(), PeerError> {
        let line = serde_json::to_string(self).map_err(std::io::Error::from)?;
        let mut file: File = OpenOptions::new().create(true).append(true).open(file)?;
        Ok(writeln!(file, "{line}")?)
    }
}

/// All runs in `file`.
pub(crate) fn read(file: &Path) -> Result<Vec<Run>, PeerError> {
    let text = std::fs::read_to_string(file)?;
    let parse = |line: &str| {
        serde_json::from_str(line)
            .map_err(|error| PeerError::Usage(format!("{}: {error}: {line}", file.display())))
    };
    text.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// Latency in microseconds at a quantile; 0 of nothing.
pub(crate) fn at(histogram: &Histogram<u64>, quantile: f64) -> u64 {
    if histogram.is_empty() { 0 } else { histogram.value_at_quantile(quantile) }
}
