//! What a lane's recent requests cost: whether to ask it first, and how long to wait before another
//! lane is asked as well.
//!
//! Decisions only: times come in as arguments, and nothing here sends or sleeps. `net.rs` keeps one
//! [`Health`] for each address and notes what happens; `call.rs` asks for the verdict. A lane that
//! another overtook is [`Standing::Owing`] until anything arrives from it, and when that takes too
//! long, or when it was silent, [`Standing::Suspect`]; when its cool-down is over one probe goes
//! out in the background, so that no caller pays for finding out.
//! Source: Jacobson's mean and deviation of round trips, as in RFC 6298, section 2.

use galvani_model::quantile::Recent;
use std::time::Duration;
use tokio::time::Instant;

/// Whether a lane should be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nothing speaks against it.
    Good,
    /// Another answered a read that it was asked before, and nothing arrived from it since.
    Owing,
    /// It did not answer lately: ask others first.
    Suspect,
}

/// What is known of one lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// Silences in a row; 0 is good.
    silences: u32,
    /// When a suspect lane may be probed.
    probe_at: Option<Instant>,
    /// Until when something has to arrive from a lane that was overtaken.
    owes_until: Option<Instant>,
    pace: Pace,
    recent: Recent,
}

impl Health {
    /// Something arrived from it: it is good again. True if it was suspect.
    pub(crate) fn note_alive(&mut self) -> bool {
        self.probe_at = None;
        self.owes_until = None;
        std::mem::take(&mut self.silences) > 0
    }

    /// A request was done after `took`.
    pub(crate) fn note_done(&mut self, took: Duration) {
        self.pace.note(took);
        self.recent.note(took);
    }

    /// Another answered first, after this one had `took` already: that long it takes at least. Without
    /// this the slow ones would never be counted, and the percentile would sink with each of them.
    pub(crate) fn note_overtaken(&mut self, took: Duration, owes_until: Instant) {
        self.recent.note(took);
        self.owes_until.get_or_insert(owes_until);
    }

    /// It did not answer in time, or could not be reached.
    pub(crate) fn note_silence(&mut self, now: Instant) {
        self.silences = self.silences.saturating_add(1);
        self.probe_at = Some(now + self.cool_down());
    }

    /// Whether to ask it.
    pub(crate) fn standing(&mut self, now: Instant) -> Standing {
        if self.silences == 0 && self.owes_until.is_some_and(|until| until <= now) {
            self.note_silence(now);
        }
        match (self.silences, self.owes_until) {
            (0, None) => Standing::Good,
            (0, Some(_)) => Standing::Owing,
            (1.., _) => Standing::Suspect,
        }
    }

    /// Whether it is as if nothing were known of it.
    pub(crate) fn is_good(&self) -> bool {
        self.silences == 0 && self.owes_until.is_none()
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

    /// How long a read may take before the next owner is asked as well: the 95th percentile, at least
    /// [`HEDGE_MIN`]. `None` while too little is known.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        self.recent.p95().map(|p95| p95.max(HEDGE_MIN))
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

    /// How long an answer may take before its lane counts as late: well beyond what is usual,
    /// at least [`LATE_MIN`], at most `most`, which is also the answer while nothing is known.
    pub(crate) fn late_after(self, most: Duration) -> Duration {
        match self.known {
            None => most,
            Some(_) => self.expected().saturating_mul(LATE_TIMES).max(LATE_MIN).min(most),
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
const LATE_TIMES: u32 = 2;
/// Below this a busy machine looks like a silent one.
const LATE_MIN: Duration = Duration::from_millis(50);
/// Below this a thread that waits for its turn looks like a slow node.
const HEDGE_MIN: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::{COOL_DOWN_MAX, HEDGE_MIN, Health, LATE_MIN, Standing};
    use std::time::Duration;
    use tokio::time::Instant;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_silent_lane_is_suspect_until_something_arrives() {
        let now = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.standing(now), Standing::Good);
        health.note_silence(now);
        assert_eq!(health.standing(now), Standing::Suspect);
        // Time alone makes it no better: only an answer does.
        assert!(health.takes_probe(now + 3600 * 1000 * MS));
        assert_eq!(health.standing(now), Standing::Suspect);
        assert!(health.note_alive());
        assert_eq!(health.standing(now), Standing::Good);
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
        assert_eq!(health.pace().late_after(most), most, "nothing is known yet");
        (0..20).for_each(|_| health.note_done(MS));
        assert_eq!(health.pace().late_after(most), LATE_MIN);
        (0..20).for_each(|_| health.note_done(100 * MS));
        let slow = health.pace();
        assert!(slow.late_after(most) >= 200 * MS, "{slow:?}");
        (0..20).for_each(|_| health.note_done(2000 * MS));
        assert_eq!(health.pace().late_after(most), most);
        assert_eq!(slow.slower(health.pace()), health.pace());
        assert_eq!(health.pace().slower(slow), health.pace());
    }

    #[test]
    fn a_read_is_asked_twice_after_the_slow_twentieth() {
        let mut health = Health::default();
        (0..19).for_each(|_| health.note_done(MS));
        assert_eq!(health.hedge_after(), None, "too little is known");
        health.note_done(MS);
        assert_eq!(health.hedge_after(), Some(HEDGE_MIN));
        // One in ten takes long: the mean hardly says so, the percentile does.
        for _ in 0..100 {
            (0..9).for_each(|_| health.note_done(8 * MS));
            health.note_done(200 * MS);
        }
        assert!(health.hedge_after() >= Some(200 * MS), "{:?}", health.hedge_after());
    }

    #[test]
    fn what_was_overtaken_counts_as_taking_that_long() {
        let mut health = Health::default();
        (0..100).for_each(|_| health.note_done(MS));
        let now = Instant::now();
        (0..30).for_each(|_| health.note_overtaken(30 * MS, now));
        assert!(health.hedge_after() >= Some(30 * MS), "{:?}", health.hedge_after());
    }

    #[test]
    fn a_lane_that_was_overtaken_owes_until_something_arrives_and_then_is_suspect() {
        let now = Instant::now();
        let mut health = Health::default();
        health.note_overtaken(MS, now + 50 * MS);
        assert_eq!(health.standing(now), Standing::Owing);
        // The first that it owes decides.
        health.note_overtaken(MS, now + 90 * MS);
        assert_eq!(health.standing(now + 49 * MS), Standing::Owing);
        assert_eq!(health.standing(now + 50 * MS), Standing::Suspect);
        assert!(health.takes_probe(now + 250 * MS), "it is probed like any other");
        assert!(health.note_alive());
        assert_eq!(health.standing(now + 251 * MS), Standing::Good);
        health.note_overtaken(MS, now + 300 * MS);
        assert!(!health.note_alive(), "it was not suspect");
        assert_eq!(health.standing(now + 400 * MS), Standing::Good);
    }
}
