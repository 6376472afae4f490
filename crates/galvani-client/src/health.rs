//! What a lane's recent requests cost: whether to ask it first, and how long to wait before another
//! lane is asked as well.
//!
//! Decisions only: times come in as arguments, and nothing here sends or sleeps. `net.rs` keeps one
//! [`Health`] for each address and notes what happens; `call.rs` asks for the verdict. A lane that
//! was silent is [`Standing::Suspect`] until anything arrives from it; when its cool-down is over
//! one probe goes out in the background, so that no caller pays for finding out.
//! Source: Jacobson's mean and deviation of round trips, as in RFC 6298, section 2.

use std::time::Duration;
use tokio::time::Instant;

/// Whether a lane should be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nothing speaks against it.
    Good,
    /// It did not answer lately: ask others first.
    Suspect,
}

/// What is known of one lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    /// Silences in a row; 0 is good.
    silences: u32,
    /// When a suspect lane may be probed.
    probe_at: Option<Instant>,
    pace: Pace,
}

impl Health {
    /// Something arrived from it: it is good again. True if it was suspect.
    pub(crate) fn note_alive(&mut self) -> bool {
        self.probe_at = None;
        std::mem::take(&mut self.silences) > 0
    }

    /// A request was done after `took`.
    pub(crate) fn note_done(&mut self, took: Duration) {
        self.pace.note(took);
    }

    /// It did not answer in time, or could not be reached.
    pub(crate) fn note_silence(&mut self, now: Instant) {
        self.silences = self.silences.saturating_add(1);
        self.probe_at = Some(now + self.cool_down());
    }

    /// Whether to ask it.
    pub(crate) fn standing(&self) -> Standing {
        if self.silences == 0 { Standing::Good } else { Standing::Suspect }
    }

    /// Whether it is suspect and its cool-down is over. Starts the next one: one probe each.
    pub(crate) fn takes_probe(&mut self, now: Instant) -> bool {
        let due = self.probe_at.is_some_and(|at| at <= now);
        if due {
            // Each unanswered probe is one more silence.
            self.note_silence(now);
        }
        due
    }

    /// What its requests take.
    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// Doubled with each further silence.
    fn cool_down(&self) -> Duration {
        let doublings = self.silences.saturating_sub(1).min(16);
        COOL_DOWN_FIRST.saturating_mul(1 << doublings).min(COOL_DOWN_MAX)
    }
}

/// Mean and deviation of what requests take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    known: Option<(Duration, Duration)>,
}

impl Pace {
    fn note(&mut self, took: Duration) {
        self.known = Some(match self.known {
            None => (took, took / 2),
            Some((mean, deviation)) => {
                ((mean * 7 + took) / 8, (deviation * 3 + mean.abs_diff(took)) / 4)
            }
        });
    }

    /// The slower of the two.
    pub(crate) fn slower(self, other: Pace) -> Pace {
        if self.expected() >= other.expected() { self } else { other }
    }

    /// How long an answer may take before another lane is asked as well: well beyond what is usual,
    /// at least [`HEDGE_MIN`], at most `most`, which is also the answer while nothing is known.
    pub(crate) fn hedge_after(self, most: Duration) -> Duration {
        match self.known {
            None => most,
            Some(_) => self.expected().saturating_mul(HEDGE_TIMES).max(HEDGE_MIN).min(most),
        }
    }

    fn expected(self) -> Duration {
        self.known.map_or(Duration::ZERO, |(mean, deviation)| mean + deviation * 4)
    }
}

/// How long a lane is left alone after its first silence, doubled with each further one.
const COOL_DOWN_FIRST: Duration = Duration::from_millis(200);
const COOL_DOWN_MAX: Duration = Duration::from_secs(5);
/// A lane is late at this many times what is to be expected of it.
const HEDGE_TIMES: u32 = 2;
/// Below this a busy machine looks like a silent one.
const HEDGE_MIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::{COOL_DOWN_MAX, HEDGE_MIN, Health, Standing};
    use std::time::Duration;
    use tokio::time::Instant;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_silent_lane_is_suspect_until_something_arrives() {
        let now = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.standing(), Standing::Good);
        health.note_silence(now);
        assert_eq!(health.standing(), Standing::Suspect);
        // Time alone makes it no better: only an answer does.
        assert!(health.takes_probe(now + 3600 * 1000 * MS));
        assert_eq!(health.standing(), Standing::Suspect);
        assert!(health.note_alive());
        assert_eq!(health.standing(), Standing::Good);
        assert!(!health.note_alive());
        assert!(!health.takes_probe(now + 7200 * 1000 * MS), "a good lane needs no probe");
    }

    #[test]
    fn probes_are_one_a_cool_down_and_rarer_each_time() {
        let mut now = Instant::now();
        let mut health = Health::default();
        health.note_silence(now);
        assert!(!health.takes_probe(now));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let began = now;
            while !health.takes_probe(now) {
                now += 10 * MS;
            }
            assert!(!health.takes_probe(now), "one probe, not two");
            pauses.push(now - began);
        }
        assert!(pauses.is_sorted() && pauses[0] == 200 * MS, "{pauses:?}");
        assert_eq!(pauses.last(), Some(&COOL_DOWN_MAX));
    }

    #[test]
    fn another_lane_is_asked_well_after_what_is_usual() {
        let most = 500 * MS;
        let mut health = Health::default();
        assert_eq!(health.pace().hedge_after(most), most, "nothing is known yet");
        (0..20).for_each(|_| health.note_done(MS));
        assert_eq!(health.pace().hedge_after(most), HEDGE_MIN);
        (0..20).for_each(|_| health.note_done(100 * MS));
        let slow = health.pace();
        assert!(slow.hedge_after(most) >= 200 * MS, "{slow:?}");
        (0..20).for_each(|_| health.note_done(2000 * MS));
        assert_eq!(health.pace().hedge_after(most), most);
        assert_eq!(slow.slower(health.pace()), health.pace());
        assert_eq!(health.pace().slower(slow), health.pace());
    }
}
