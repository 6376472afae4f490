//! What came of a load while it runs: latencies, failures by name, what was not sent.
//!
//! A request without an answer in its time counts as a latency of at least that time: what a user
//! waited in vain for is not left out of the percentiles. One that asked its replicas and then failed
//! counts with what it took. Next to read: `summary.rs`.

use crate::commands::bench::driver::Ended;
use galvani_client::ErrorKind;
use galvani_load::recorder::Recorder;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What came of it so far.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) recorder: Recorder,
    /// When it began.
    pub(crate) began: Instant,
    /// How long requests were started.
    pub(crate) took: Duration,
    /// Requests of the schedule, or begun by workers.
    pub(crate) offered: u64,
    /// Of those, not sent for want of a place.
    pub(crate) shed: u64,
    /// Answered well and within their time.
    pub(crate) good: u64,
    /// Refused as overloaded or rate limited.
    pub(crate) refused: u64,
    /// Without an answer in time.
    pub(crate) timeouts: u64,
    /// Every failure by name; bounded by the kinds of errors.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Requests under way when the last one was due.
    pub(crate) waited_for: usize,
    /// The last good answer, and the longest time without one: from when, how long.
    last_good: Instant,
    pub(crate) longest_gap: (Duration, Duration),
}

impl Outcome {
    /// Nothing yet.
    pub(crate) fn new(began: Instant) -> Outcome {
        Outcome {
            recorder: Recorder::new(),
            began,
            took: Duration::ZERO,
            offered: 0,
            shed: 0,
            good: 0,
            refused: 0,
            timeouts: 0,
            errors: BTreeMap::new(),
            waited_for: 0,
            last_good: began,
            longest_gap: (Duration::ZERO, Duration::ZERO),
        }
    }

    /// One operation ended, which had `timeout`.
    pub(crate) fn note(&mut self, ended: Ended, timeout: Duration) {
        let Ended { kind, due, sent, at, result } = ended;
        let (since, due_to_sent) = (at.duration_since(self.began), sent.duration_since(due));
        let (took, served) = (at.duration_since(due), at.duration_since(sent));
        self.recorder.late(due_to_sent);
        match result {
            Ok(()) if took <= timeout => {
                self.good += 1;
                self.gap_until(at);
                self.last_good = self.last_good.max(at);
                self.recorder.record(kind, since, took, served);
            }
            Ok(()) => {
                self.timeouts += 1;
                self.fail(format!("{}: late", kind.name()));
                self.recorder.record(kind, since, took, served);
            }
            Err(error) => {
                self.fail(named(kind.name(), &error));
                match error {
                    ErrorKind::Timeout { .. } => self.timeouts += 1,
                    ErrorKind::Overloaded { .. } | ErrorKind::RateLimited { .. } => {
                        self.refused += 1;
                    }
                    _ => {}
                }
                match waited(&error, timeout) {
                    Some(least) => {
                        let (took, served) = (took.max(least), served.max(least));
                        self.recorder.fail_after(kind, since, took, served);
                    }
                    None => self.recorder.fail(since),
                }
            }
        }
    }

    /// The time since the last good answer counts as a gap, if it is the longest.
    pub(crate) fn gap_until(&mut self, at: Instant) {
        let gap = at.saturating_duration_since(self.last_good);
        if gap > self.longest_gap.1 {
            self.longest_gap = (self.last_good.duration_since(self.began), gap);
        }
    }

    fn fail(&mut self, what: String) {
        let what = match self.errors.len() < ERRORS_MAX || self.errors.contains_key(&what) {
            true => what,
            false => "other".to_owned(),
        };
        *self.errors.entry(what).or_default() += 1;
    }

    /// Operations that failed or were late.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Good answers per second.
    pub(crate) fn goodput(&self) -> f64 {
        self.good as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// The least latency that a failure counts with, beside what it took; `None`: with none, since
/// nobody was waited for.
fn waited(error: &ErrorKind, timeout: Duration) -> Option<Duration> {
    match error {
        ErrorKind::Timeout { .. } => Some(timeout),
        ErrorKind::Quorum { .. } => Some(Duration::ZERO),
        _ => None,
    }
}

/// The kind of an error without figures: the same failure is one line.
fn named(op: &str, error: &ErrorKind) -> String {
    let kind = error.to_string();
    let kind = kind.split([':', ',']).next().unwrap_or_default();
    let kind = kind.split(" in ").next().unwrap_or_default();
    format!("{op}: {kind}")
}

/// Kinds of failures told apart.
const ERRORS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::Outcome;
    use crate::commands::bench::driver::Ended;
    use galvani_client::{ErrorKind, QuorumKind};
    use galvani_load::workload::Kind;
    use std::time::{Duration, Instant};

    const SECOND: Duration = Duration::from_secs(1);

    fn answered(began: Instant, due_ms: u64, sent_ms: u64, at_ms: u64) -> Ended {
        let at = |ms| began + Duration::from_millis(ms);
        Ended { kind: Kind::Put, due: at(due_ms), sent: at(sent_ms), at: at(at_ms), result: Ok(()) }
    }

    #[test]
    fn latency_counts_from_when_a_request_was_due() {
        let began = Instant::now();
        let mut out = Outcome::new(began);
        out.note(answered(began, 100, 700, 800), SECOND);
        out.note(answered(began, 100, 100, 3_100), SECOND);
        let put = &out.recorder.kinds[Kind::Put.index()];
        assert!((699_000..=701_000).contains(&put.due.min()), "{}", put.due.min());
        assert!((99_000..=101_000).contains(&put.sent.min()), "{}", put.sent.min());
        assert!(put.due.max() >= 3_000_000, "late, and its latency stands");
        assert_eq!((out.good, out.timeouts, out.failed()), (1, 1, 1));
        assert!(out.recorder.lag.max() >= 600_000);
    }

    #[test]
    fn a_failure_after_a_wait_is_in_the_percentiles_and_a_refusal_is_not() {
        let began = Instant::now();
        let mut out = Outcome::new(began);
        let (after, detail) = (Duration::from_millis(800), String::new());
        let quorum =
            ErrorKind::Quorum { what: QuorumKind::W, need: 2, got: 1, n: 3, after, detail };
        let refused = ErrorKind::RateLimited { retry_after: SECOND };
        let late = ErrorKind::Timeout { after: SECOND, detail: String::new() };
        let mut found = Vec::new();
        for (error, at) in [(quorum, 900), (refused, 700), (late, 950)] {
            out.note(Ended { result: Err(error), ..answered(began, 0, 100, at) }, SECOND);
            let put = &out.recorder.kinds[Kind::Put.index()];
            found.push((put.due.len(), put.due.max() / 10_000, put.sent.max() / 10_000));
        }
        assert_eq!(found, [(1, 90, 80), (1, 90, 80), (2, 100, 100)]);
        assert_eq!((out.failed(), out.refused, out.timeouts), (3, 1, 1));
    }

    #[test]
    fn the_longest_time_without_an_answer_is_known() {
        let began = Instant::now();
        let mut out = Outcome::new(began);
        for at in [100, 200, 1_900, 2_000] {
            out.note(answered(began, at - 50, at - 50, at), SECOND);
        }
        let ms = Duration::from_millis;
        assert_eq!(out.longest_gap, (ms(200), ms(1_700)));
        out.gap_until(began + 9 * SECOND);
        assert_eq!(out.longest_gap, (ms(2_000), ms(7_000)));
    }

    #[test]
    fn goodput_counts_what_was_answered_well_in_the_time_offered() {
        let mut out = Outcome::new(Instant::now());
        (out.good, out.refused, out.took) = (200, 200, 4 * SECOND);
        assert!((out.goodput() - 50.0).abs() < 1e-9);
    }
}
