//! What a run says: whether an oracle was broken, and what the run covered.
//!
//! Plain values, added up over many runs; nothing here decides what is asked for. Next to read: `run.rs`,
//! which fills them, and `tests/seeds.rs`, which asks.

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

/// Counts by name: faults injected, operations, rare states met; and how many runs met each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<&'static str, Count>,
}

/// How often something was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    total: u64,
    /// Runs that met it.
    runs: u64,
}

impl Coverage {
    /// Adds `count` to `name`, in one run.
    pub fn add(&mut self, name: &'static str, count: u64) {
        let known = self.counts.entry(name).or_default();
        known.total += count;
        known.runs = known.runs.max(u64::from(known.total > 0));
    }

    /// How often `name` was counted.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default().total
    }

    /// How many runs met `name`.
    pub fn runs(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default().runs
    }

    /// Adds all of another run's counts.
    pub fn merge(&mut self, other: &Coverage) {
        for (name, count) in &other.counts {
            let known = self.counts.entry(name).or_default();
            known.total += count.total;
            known.runs += count.runs;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<34} {:>8} {:>12}", "met", "seeds", "in all")?;
        for (name, Count { total, runs }) in &self.counts {
            writeln!(f, "  {name:<34} {runs:>8} {total:>12}")?;
        }
        let never: Vec<&str> =
            self.counts.iter().filter(|(_, it)| it.total == 0).map(|(name, _)| *name).collect();
        if !never.is_empty() {
            writeln!(f, "never met: {}", never.join(" "))?;
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

#[cfg(test)]
mod tests {
    use super::Coverage;

    #[test]
    fn runs_that_met_something_are_counted_beside_how_often_it_was_met() {
        let run = |counts: &[u64]| {
            let mut coverage = Coverage::default();
            counts.iter().for_each(|&count| coverage.add("fault", count));
            coverage
        };
        let mut all = Coverage::default();
        for one in [run(&[0]), run(&[2, 3]), run(&[0, 1])] {
            all.merge(&one);
        }
        assert_eq!((all.runs("fault"), all.count("fault")), (2, 6));
        assert_eq!((run(&[0]).runs("fault"), all.runs("nothing")), (0, 0));
        assert!(run(&[0]).to_string().ends_with("never met: fault\n"));
    }
}
