//! Two runs beside each other, with what chance has to do with it.
//!
//! A change is called significant if the two series of seconds differ with p below one in twenty
//! (`stats.rs`). A limit such as `put.p99>+5%` is broken by a change that is both larger than that
//! and significant. Runs that were bound by their generator say nothing of the cluster: no
//! comparison.

use crate::run::{Batch, Run};
use crate::stats::{Series, welch};
use std::fmt;
use std::str::FromStr;

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// `ops`, or a kind of operation.
    pub of: String,
    /// Which of its latencies; `None` for `ops`.
    pub what: Option<Statistic>,
}

/// One figure of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The mean.
    Mean,
    /// The median.
    P50,
    /// 99 %.
    P99,
    /// 99.9 %.
    P999,
}

impl Statistic {
    const ALL: [Statistic; 4] = [Statistic::Mean, Statistic::P50, Statistic::P99, Statistic::P999];

    fn name(self) -> &'static str {
        match self {
            Statistic::Mean => "mean",
            Statistic::P50 => "p50",
            Statistic::P99 => "p99",
            Statistic::P999 => "p99.9",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Some(what) => write!(f, "{}.{}", self.of, what.name()),
            None => f.write_str(&self.of),
        }
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Metric, String> {
        let wrong =
            || format!("{text:?} is not ops, or one of {KINDS} with .mean .p50 .p99 .p99.9");
        if text == "ops" {
            return Ok(Metric { of: text.to_owned(), what: None });
        }
        let (of, what) = text.split_once('.').ok_or_else(wrong)?;
        let what = match what {
            "p999" => Some(Statistic::P999),
            what => Statistic::ALL.into_iter().find(|one| one.name() == what),
        };
        match KINDS.split(' ').any(|kind| kind == of) && what.is_some() {
            true => Ok(Metric { of: of.to_owned(), what }),
            false => Err(wrong()),
        }
    }
}

impl Metric {
    /// Its figure over a whole run; `None`: the run has none.
    pub fn whole(&self, run: &Run) -> Option<f64> {
        let Some(what) = self.what else { return Some(run.ops_per_second) };
        let (_, latency) = run.kinds().into_iter().find(|(kind, _)| *kind == self.of)?;
        Some(match what {
            Statistic::Mean => latency.mean_us,
            Statistic::P50 => latency.p50_us as f64,
            Statistic::P99 => latency.p99_us as f64,
            Statistic::P999 => latency.p999_us as f64,
        })
    }

    /// Its figures second by second.
    pub fn series(&self, run: &Run) -> Vec<f64> {
        run.whole_batches().iter().filter_map(|batch| self.of_batch(batch)).collect()
    }

    fn of_batch(&self, batch: &Batch) -> Option<f64> {
        let Some(what) = self.what else { return Some(batch.ops as f64) };
        let part = batch.kinds.get(&self.of)?;
        Some(match what {
            Statistic::Mean => part.mean_us,
            Statistic::P50 => part.p50_us as f64,
            Statistic::P99 => part.p99_us as f64,
            Statistic::P999 => part.p999_us as f64,
        })
    }
}

/// One figure of two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub metric: Metric,
    /// Of the first run.
    pub before: f64,
    /// Of the second.
    pub after: f64,
    /// How probable a difference like this is by chance; `None`: too few seconds to tell.
    pub p: Option<f64>,
}

impl Row {
    /// In percent of the first.
    pub fn change(&self) -> f64 {
        match self.before == 0.0 {
            true => 0.0,
            false => (self.after / self.before - 1.0) * 100.0,
        }
    }

    /// Whether it is more than chance.
    pub fn is_significant(&self) -> bool {
        self.p.is_some_and(|p| p < SIGNIFICANT)
    }
}

/// Compares one figure; `None`: one of the runs has none.
pub fn row(metric: Metric, before: &Run, after: &Run) -> Option<Row> {
    let (whole_before, whole_after) = (metric.whole(before)?, metric.whole(after)?);
    let series = |run| Series::of(&metric.series(run));
    let p = match (series(before), series(after)) {
        (Some(before), Some(after)) => Some(welch(&before, &after)),
        (None, _) | (_, None) => None,
    };
    Some(Row { metric, before: whole_before, after: whole_after, p })
}

/// Compares all that both runs have.
pub fn rows(before: &Run, after: &Run) -> Vec<Row> {
    let mut metrics = vec![Metric { of: "ops".to_owned(), what: None }];
    for kind in KINDS.split(' ') {
        let of = |what| Metric { of: kind.to_owned(), what: Some(what) };
        metrics.extend([Statistic::P50, Statistic::P99, Statistic::P999].map(of));
    }
    metrics.into_iter().filter_map(|metric| row(metric, before, after)).collect()
}

/// What must not happen: `put.p99>+5%`, `ops<-3%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Of which figure.
    pub metric: Metric,
    /// More than this, or less.
    pub more: bool,
    /// In percent.
    pub percent: f64,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        let wrong = || format!("{text:?} is not a limit such as put.p99>+5% or ops<-3%");
        let at = text.find(['<', '>']).ok_or_else(wrong)?;
        let percent = text[at + 1..].trim().strip_suffix('%').ok_or_else(wrong)?;
        let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
        match percent.is_finite() {
            true => Ok(Limit {
                metric: text[..at].trim().parse()?,
                more: text.as_bytes()[at] == b'>',
                percent,
            }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.more { '>' } else { '<' };
        write!(f, "{}{sign}{:+}%", self.metric, self.percent)
    }
}

impl Limit {
    /// Whether a change breaks it: beyond it, and more than chance.
    pub fn is_broken(&self, row: &Row) -> bool {
        let beyond = match self.more {
            true => row.change() > self.percent,
            false => row.change() < self.percent,
        };
        beyond && row.is_significant()
    }
}

/// What must hold of one run: `put.p99<5ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Of which latency.
    pub metric: Metric,
    /// It stays below this, in microseconds.
    pub micros: f64,
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Objective, String> {
        let wrong = || format!("{text:?} is not an objective such as put.p99<5ms");
        let (metric, time) = text.split_once('<').ok_or_else(wrong)?;
        let metric: Metric = metric.trim().parse()?;
        let time = time.trim();
        let units = [("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
        let found = units.iter().find_map(|(unit, scale)| {
            let number: f64 = time.strip_suffix(unit)?.trim().parse().ok()?;
            Some(number * scale)
        });
        match (found, metric.what) {
            (Some(micros), Some(_)) if micros > 0.0 && micros.is_finite() => {
                Ok(Objective { metric, micros })
            }
            (Some(_) | None, _) => Err(wrong()),
        }
    }
}

impl Objective {
    /// Whether a run held it.
    pub fn holds(&self, run: &Run) -> bool {
        self.metric.whole(run).is_some_and(|micros| micros < self.micros)
    }
}

/// Below this, a difference is called more than chance.
pub const SIGNIFICANT: f64 = 0.05;
const KINDS: &str = "get put insert rmw";

#[cfg(test)]
mod tests {
    use super::{Limit, Metric, Objective, row, rows};
    use crate::random::Random;
    use crate::run::{Batch, Latency, Part, Run};
    use std::collections::BTreeMap;

    /// A run whose puts had a p99 around so many microseconds in each of 30 seconds.
    fn run(seed: u64, p99: f64) -> Run {
        let mut random = Random::of(seed);
        let mut batch = |second| {
            let p99_us = (p99 * (0.9 + 0.2 * random.share())) as u64;
            let part = Part { count: 100, p99_us, ..Part::default() };
            Batch { second, ops: 100, kinds: BTreeMap::from([("put".to_owned(), part)]), errors: 0 }
        };
        let batches = (0..30).map(&mut batch).collect();
        let put = Some(Latency { p99_us: p99 as u64, ..Latency::default() });
        Run { seconds: 30.0, ops_per_second: 100.0, put, batches, ..Run::default() }
    }

    #[test]
    fn a_change_beyond_the_limit_breaks_it_only_if_it_is_no_chance() {
        let limit: Limit = "put.p99>+5%".parse().expect("a limit");
        let changed =
            |p99| row(limit.metric.clone(), &run(1, 1_000.0), &run(2, p99)).expect("puts");
        assert!(limit.is_broken(&changed(1_200.0)), "{:?}", changed(1_200.0));
        assert!(!limit.is_broken(&changed(1_030.0)), "3 % is within the limit");
        assert!(!limit.is_broken(&changed(800.0)), "faster");
        // One second of a wild run proves nothing.
        let mut short = run(3, 1_200.0);
        (short.seconds, short.batches) = (1.0, short.batches[..1].to_vec());
        let row = row(limit.metric.clone(), &run(1, 1_000.0), &short).expect("puts");
        assert!(row.p.is_none() && !limit.is_broken(&row), "{row:?}");
    }

    #[test]
    fn equal_runs_do_not_differ_and_absent_kinds_are_left_out() {
        let rows = rows(&run(1, 1_000.0), &run(9, 1_000.0));
        let names: Vec<String> = rows.iter().map(|row| row.metric.to_string()).collect();
        assert_eq!(names, ["ops", "put.p50", "put.p99", "put.p99.9"]);
        assert!(rows.iter().all(|row| !row.is_significant()), "{rows:?}");
    }

    #[test]
    fn limits_and_objectives_are_read_and_nonsense_is_not() {
        for text in ["put.p99>+5%", "ops<-3%", "get.p99.9>+10%", "rmw.mean>+0.5%"] {
            let limit: Limit = text.parse().unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(limit.to_string(), text);
        }
        for text in ["put.p99", "put.p98>+5%", "put>5%", "ops>5", "x.p99>+5%", "ops>inf%", ""] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
        let objective: Objective = "put.p99<5ms".parse().expect("an objective");
        assert_eq!(objective.metric, "put.p99".parse::<Metric>().expect("a figure"));
        assert!(objective.holds(&run(1, 4_900.0)) && !objective.holds(&run(1, 5_100.0)));
        for text in ["put.p99<5", "ops<5ms", "put.p99>5ms", "put.p99<-1ms", "put.p99<0ms"] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }
}
