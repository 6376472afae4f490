//! How much a log keeps that nothing needs any more, and up to when records must go for it to be little
//! enough.
//!
//! Each walk through a shard's log weighs what could go, by age; there is no count that every write keeps
//! up. What is above the shard's share gives a moment: older records go in the next walk, although they
//! are younger than `limits.feed_keep_ms`. That they may go is proven for each as for any other. Between
//! two walks it is estimated from what was taken in whether another one is due. Next to read: `mod.rs`.

use galvani_model::version::RecordHead;
use std::collections::BTreeMap;

/// What one walk through a shard's log has weighed so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge {
    /// When the walk began, in milliseconds since 1970.
    began_ms: u64,
    /// How many writes the shard had taken in then.
    taken_in: u64,
    /// Whether it is asked of each young record if anything needs it; else all are taken for needless.
    pub(super) judges: bool,
    records: u64,
    bytes: u64,
    /// Bytes of records that nothing needs and that do not go in this walk, by age.
    kept: BTreeMap<u32, u64>,
    /// Bytes of those that were to go in this walk and have not gone.
    going: u64,
}

/// What the last whole walk through a shard's log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// Bytes of records that nothing needs.
    needless: u64,
    /// Average bytes of a record of this log.
    average: u64,
    /// Whether the whole log is more than the share, so that the next walk asks of each record.
    judges: bool,
    /// How many writes it had taken in.
    taken_in: u64,
    /// Records of this moment and before it go whatever their age, in milliseconds since 1970.
    pub(super) written_by_ms: u64,
    /// How far back the log reached when that moment was found, in milliseconds.
    pub(super) reach_ms: u64,
}

impl Gauge {
    /// A walk begins, in a shard that has taken in so many writes and was measured so before.
    pub(super) fn begin(unix_ms: u64, taken_in: u64, before: Option<Measure>) -> Gauge {
        let judges = before.is_some_and(|before| before.judges);
        Gauge { began_ms: unix_ms, taken_in, judges, ..Gauge::default() }
    }

    /// A record is in the log.
    pub(super) fn meet(&mut self, head: &RecordHead) {
        self.records += 1;
        self.bytes += weight(head);
    }

    /// Nothing needs it, and it is too young to go.
    pub(super) fn keep(&mut self, head: &RecordHead) {
        let age_ms = self.began_ms.saturating_sub(head.hlc.unix_ms());
        *self.kept.entry(class_of(age_ms)).or_default() += weight(head);
    }

    /// Nothing needs it, and it is to go.
    pub(super) fn let_go(&mut self, head: &RecordHead) {
        self.going += weight(head);
    }

    /// It has gone.
    pub(super) fn gone(&mut self, head: &RecordHead) {
        self.going = self.going.saturating_sub(weight(head));
    }

    /// The walk is over. What it comes to for a shard that may keep `share` bytes and was measured so before;
    /// and whether more is to go at once than went in this walk.
    pub(super) fn finish(&self, share: u64, before: Measure) -> (Measure, bool) {
        let kept: u64 = self.kept.values().sum();
        let exceeds = self.bytes > share;
        let mut measure = Measure {
            needless: if self.judges { kept + self.going } else { self.bytes },
            average: (self.bytes / self.records.max(1)).max(AVERAGE_MIN),
            judges: exceeds,
            taken_in: self.taken_in,
            ..before
        };
        if !self.judges {
            return (measure, exceeds);
        }
        if kept <= share {
            return (measure, false);
        }
        // Some room is made, or every write would be followed by a walk.
        let (mut sum, room) = (0, share / ROOM);
        let beyond = self.kept.iter().find(|(_, bytes)| {
            sum += **bytes;
            sum > share - room
        });
        let Some((&class, _)) = beyond else { return (measure, false) };
        measure.reach_ms = least_of(class);
        measure.written_by_ms = self.began_ms.saturating_sub(measure.reach_ms);
        (measure, measure.written_by_ms > before.written_by_ms)
    }
}

impl Measure {
    /// Whether a shard that has taken in so many writes by now may well keep more than `share`.
    pub(super) fn may_exceed(&self, share: u64, taken_in: u64) -> bool {
        let since = taken_in.saturating_sub(self.taken_in);
        self.needless.saturating_add(since.saturating_mul(self.average)) > share
    }
}

/// About what a record takes on disk.
fn weight(head: &RecordHead) -> u64 {
    head.about_bytes() as u64 + u64::from(head.value_len)
}

/// Classes of ages, each an eighth longer than the one before: so much more than must goes at most.
fn class_of(age_ms: u64) -> u32 {
    let age = age_ms.max(EIGHTHS);
    let octave = age.ilog2();
    let eighth = (age >> (octave - EIGHTHS.ilog2())) - EIGHTHS;
    octave * EIGHTHS as u32 + eighth as u32
}

/// The least age of a class.
fn least_of(class: u32) -> u64 {
    let (octave, eighth) = (class / EIGHTHS as u32, u64::from(class % EIGHTHS as u32));
    match (EIGHTHS + eighth) << (octave - EIGHTHS.ilog2()) {
        // The first class has all that is younger.
        EIGHTHS => 0,
        least => least,
    }
}

const EIGHTHS: u64 = 8;
/// What a record counts for at least where it is estimated what a shard keeps.
const AVERAGE_MIN: u64 = 256;
/// The part of its share that a shard has free after its oldest records went.
const ROOM: u64 = 8;

#[cfg(test)]
mod tests {
    use super::{Gauge, Measure, class_of, least_of};

    fn judging(unix_ms: u64, taken_in: u64) -> Gauge {
        let before = Measure { judges: true, ..Measure::default() };
        Gauge::begin(unix_ms, taken_in, Some(before))
    }

    #[test]
    fn a_log_that_is_small_in_all_is_asked_nothing_about() {
        let mut gauge = Gauge::begin(1_000, 10, None);
        (gauge.records, gauge.bytes) = (10, 1_000);
        let (measure, more) = gauge.finish(1_000, Measure::default());
        assert!(!more && !gauge.judges && !measure.judges);
        assert!(!measure.may_exceed(1_000, 10) && measure.may_exceed(1_000, 11));
        let (measure, more) = gauge.finish(999, Measure::default());
        assert!(more && Gauge::begin(1_000, 10, Some(measure)).judges);
        assert_eq!(measure.written_by_ms, 0, "nothing goes before that");
    }

    #[test]
    fn ages_are_told_apart_to_an_eighth() {
        for age in (0..10_000).chain((1..400).map(|step| step * 1_000_003)) {
            let least = least_of(class_of(age));
            assert!(least <= age, "{age}: {least}");
            assert!(age < 9 || age - least <= age / 8, "{age}: {least}");
        }
    }

    #[test]
    fn what_is_beyond_the_share_goes_and_the_youngest_stays() {
        let mut gauge = judging(1_000_000, 50);
        (gauge.records, gauge.bytes) = (100, 10_000);
        for (age_ms, bytes) in [(10, 300), (1_000, 300), (60_000, 300), (3_600_000, 300)] {
            gauge.kept.insert(class_of(age_ms), bytes);
        }
        let none = Measure::default();
        let (measure, more) = gauge.finish(1_200, none);
        assert_eq!((measure.written_by_ms, measure.needless, more), (0, 1_200, false));
        let (measure, more) = gauge.finish(700, none);
        assert!(more && measure.reach_ms <= 60_000 && measure.reach_ms > 50_000, "{measure:?}");
        assert_eq!(measure.written_by_ms, 1_000_000 - measure.reach_ms);
        // What is older than that could not go, for one reason or another: that is not tried without end.
        assert_eq!(gauge.finish(700, measure), (measure, false));
        // So much is taken in until it is looked at again.
        let fits = Measure { needless: 500, average: 100, taken_in: 50, ..none };
        assert!(!fits.may_exceed(700, 52) && fits.may_exceed(700, 53));
    }

    #[test]
    fn what_was_to_go_and_stayed_still_counts() {
        let mut gauge = judging(1_000, 1);
        gauge.going = 900;
        let (measure, more) = gauge.finish(500, Measure::default());
        assert_eq!((measure.needless, more), (900, false));
        assert!(measure.may_exceed(500, 1));
    }
}
