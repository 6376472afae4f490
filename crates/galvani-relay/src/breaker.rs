//! When to try a target again, and with how much.
//!
//! While a target works, up to `max_in_flight` events are under way. Once it is down, none is sent until a
//! pause is over, and then exactly one: the prober. If that one is taken, all may go; if not, the next
//! pause is longer. It reads no clock: the time is an argument.

use crate::settings::Retry;
use std::time::Duration;
use tokio::time::Instant;

/// What is known of a target.
#[derive(Debug)]
pub(crate) struct Breaker {
    retry: Retry,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It works; so many failures in a row.
    Working { failures: u32 },
    /// It is down: leave it alone until then. So many pauses so far; whether it asked for this one.
    Down { until: Instant, pauses: u32, asked: bool },
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// Up to the usual bound.
    All,
    /// One event, if none is under way.
    Probe,
    /// None before then.
    NoneUntil(Instant),
}

impl Breaker {
    /// A target of which nothing bad is known.
    pub(crate) fn new(retry: Retry) -> Breaker {
        Breaker { retry, state: State::Working { failures: 0 } }
    }

    /// What may be sent at `now`.
    pub(crate) fn allowance(&self, now: Instant) -> Allowance {
        match self.state {
            State::Working { .. } => Allowance::All,
            State::Down { until, .. } if now >= until => Allowance::Probe,
            State::Down { until, .. } => Allowance::NoneUntil(until),
        }
    }

    /// The target took an event. One that was under way when it asked for a pause does not end the pause.
    pub(crate) fn on_taken(&mut self, now: Instant) {
        match self.state {
            State::Down { until, asked: true, .. } if now < until => {}
            State::Down { .. } | State::Working { .. } => {
                self.state = State::Working { failures: 0 };
            }
        }
    }

    /// A try failed. `down`: there is no use in trying others; `pause`: how long it asked to be left alone.
    pub(crate) fn on_failure(&mut self, now: Instant, down: bool, pause: Option<Duration>) {
        let wanted = pause.unwrap_or_default().min(PAUSE_MAX);
        match &mut self.state {
            State::Working { failures } => {
                *failures += 1;
                if down || *failures >= self.retry.failures_until_down {
                    let until = now + self.retry.wait(1).max(wanted);
                    self.state = State::Down { until, pauses: 1, asked: pause.is_some() };
                }
            }
            // The prober failed.
            State::Down { until, pauses, asked } if now >= *until => {
                *pauses = pauses.saturating_add(1);
                *until = now + self.retry.wait(*pauses).max(wanted);
                *asked = pause.is_some();
            }
            // One that was under way when the target went down.
            State::Down { until, asked, .. } => {
                *until = (*until).max(now + wanted);
                *asked |= pause.is_some();
            }
        }
    }
}

impl Retry {
    /// How long to wait after this many failures: between half of what doubles each time and all of it,
    /// by chance, so that many relays of one target do not return together.
    pub(crate) fn wait(&self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
        let full = self.first.saturating_mul(doubled).min(self.longest);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// The longest pause that a target may ask for: one that says a year must not stop a relay that nobody
/// watches.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn retry() -> Retry {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        Retry { first, longest, failures_until_down: 3, ..Retry::default() }
    }

    fn until(breaker: &Breaker, now: Instant) -> Instant {
        match breaker.allowance(now) {
            Allowance::NoneUntil(until) => until,
            other => panic!("not down: {other:?}"),
        }
    }

    #[test]
    fn waits_double_within_jitter_up_to_the_longest() {
        for (failures, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (4000, 1000)] {
            let all: Vec<_> = (0..200).map(|_| retry().wait(failures).as_millis()).collect();
            assert!(all.iter().all(|wait| (full / 2..=full).contains(wait)), "{failures}: {all:?}");
            assert!(all.iter().any(|wait| *wait != all[0]), "no jitter");
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(retry());
        breaker.on_failure(now, false, None);
        breaker.on_failure(now, false, None);
        breaker.on_taken(now);
        breaker.on_failure(now, false, None);
        breaker.on_failure(now, false, None);
        assert_eq!(breaker.allowance(now), Allowance::All);
        breaker.on_failure(now, false, None);
        let until = until(&breaker, now);
        assert_eq!(breaker.allowance(until), Allowance::Probe);
    }

    #[test]
    fn a_failed_probe_makes_the_next_pause_longer_and_stragglers_do_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(retry());
        breaker.on_failure(now, true, None);
        let first = until(&breaker, now);
        for _ in 0..50 {
            breaker.on_failure(now, true, None);
        }
        assert_eq!(until(&breaker, now), first);
        let mut at = first;
        for _ in 0..3 {
            breaker.on_failure(at, true, None);
            at = until(&breaker, at);
        }
        breaker.on_failure(at, true, None);
        assert!(until(&breaker, at) - at >= Duration::from_millis(500));
        breaker.on_taken(at);
        assert_eq!(breaker.allowance(at), Allowance::All);
    }

    #[test]
    fn the_pause_that_was_asked_for_is_kept_within_reason() {
        let now = Instant::now();
        let mut breaker = Breaker::new(retry());
        breaker.on_failure(now, true, Some(Duration::from_secs(60)));
        breaker.on_taken(now);
        assert_eq!(until(&breaker, now), now + Duration::from_secs(60));
        breaker.on_failure(now, true, Some(Duration::from_secs(100_000)));
        assert_eq!(until(&breaker, now), now + PAUSE_MAX);
    }
}
