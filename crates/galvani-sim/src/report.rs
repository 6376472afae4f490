//! What a run says: whether an oracle was broken, and what the run covered.

use core::fmt;
use std::collections::BTreeMap;

/// An oracle that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The oracle's name, as in `oracles/`.
    pub oracle: &'static str,
    /// What was found.
    pub details: String,
    /// When, in virtual microseconds.
    pub at_micros: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.at_micros / 1000;
        write!(f, "oracle {} at {ms} ms: {}", self.oracle, self.details)
    }
}

/// Counts by name: faults injected, operations, rare states met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Adds `count` to `name`.
    pub fn add(&mut self, name: &'static str, count: u64) {
        *self.counts.entry(name).or_default() += count;
    }

    /// How often `name` was counted.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// Adds all of another run's counts.
    pub fn merge(&mut self, other: &Coverage) {
        for (name, count) in &other.counts {
            self.add(name, *count);
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.counts {
            writeln!(f, "  {name:<34} {count:>12}")?;
        }
        Ok(())
    }
}

/// One finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first oracle that was broken, if one was.
    pub violation: Option<Violation>,
    /// What was covered.
    pub coverage: Coverage,
    /// Hash of everything that happened.
    pub trace_hash: u64,
    /// Events handled.
    pub events: u64,
    /// Virtual microseconds that passed.
    pub micros: u64,
    /// The last events as text, if they were kept.
    pub lines: Vec<String>,
    /// What the seed drew, for people.
    pub profile: String,
}
