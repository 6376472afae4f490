//! When the next value of each shard has been expired for long enough to be collected.
//!
//! Only the earliest of a shard is kept here; the store has the others in order. Shards are due
//! together, at moments some way apart, with all that has become ripe between them. Expiry is a time
//! of day, and timers count from the start of the lane: the clock may jump, so it is looked at ten
//! seconds later at most, or at the next of those moments. It collects nothing. Next to read:
//! `reap.rs`.

use crate::effect::Now;
use crate::reap::turn;
use galvani_model::ids::Shard;
use std::collections::BTreeMap;

/// Longest time between two looks at the clock, in microseconds.
const LOOK_MICROS: u64 = 10_000_000;

/// The earliest expiry of each shard that has one.
#[derive(Clone, Debug)]
pub(crate) struct Expiries {
    /// How long after its expiry a value may be collected, in milliseconds.
    margin_ms: u64,
    /// How far the moments are apart at which shards are due, in microseconds.
    gather: u64,
    /// When the first value of a shard may be collected, in milliseconds since 1970.
    first: BTreeMap<Shard, u64>,
    /// When the clock is looked at, in the lane's microseconds.
    look_at: Option<u64>,
}

impl Expiries {
    pub(crate) fn new(margin_ms: u32, gather: u64) -> Expiries {
        let margin_ms = u64::from(margin_ms);
        Expiries { margin_ms, gather, first: BTreeMap::new(), look_at: None }
    }

    /// For how long ripe values wait for others, in microseconds.
    pub(crate) fn gather(&self) -> u64 {
        self.gather
    }

    /// Values that expired at or before this may be collected: milliseconds since 1970.
    pub(crate) fn expired_by(&self, now: Now) -> u64 {
        now.unix_ms.saturating_sub(self.margin_ms)
    }

    /// A value of a shard expires at `expires_ms`. Returns when the clock is looked at for it.
    pub(crate) fn note(&mut self, shard: Shard, expires_ms: u64, now: Now) -> u64 {
        let ripe_ms = expires_ms.saturating_add(self.margin_ms);
        let first = self.first.entry(shard).or_insert(ripe_ms);
        *first = (*first).min(ripe_ms);
        let at = look_at(*first, self.gather, now);
        self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
        at
    }

    /// The shards that have something to collect now; each is named once, and noted again by whoever
    /// looks for what expires after that.
    pub(crate) fn take_due(&mut self, now: Now) -> Vec<Shard> {
        if self.look_at.is_none_or(|at| at > now.micros) {
            return Vec::new();
        }
        let ripe = |first: &u64| *first <= now.unix_ms;
        let due = self.first.iter().filter(|(_, first)| ripe(first));
        let due: Vec<Shard> = due.map(|(shard, _)| *shard).collect();
        self.first.retain(|_, first| !ripe(first));
        self.look_at = self.first.values().min().map(|&first| look_at(first, self.gather, now));
        due
    }

    /// When [`Expiries::take_due`] has something to do, in the lane's microseconds.
    pub(crate) fn look_at(&self) -> Option<u64> {
        self.look_at
    }
}

fn look_at(ripe_ms: u64, gather: u64, now: Now) -> u64 {
    let wait = ripe_ms.saturating_sub(now.unix_ms).saturating_mul(1000);
    turn(now.micros + wait.min(LOOK_MICROS), gather)
}

#[cfg(test)]
mod tests {
    use super::{Expiries, LOOK_MICROS};
    use crate::effect::Now;
    use galvani_model::ids::{Partition, Shard};

    const ONE: Shard = Shard { partition: Partition(1), n: 3 };
    const TWO: Shard = Shard { partition: Partition(2), n: 3 };

    #[test]
    fn a_shard_is_due_when_its_first_value_has_been_expired_for_the_margin() {
        let now =
            |seconds: u64| Now { micros: seconds * 1_000_000, unix_ms: 9_000 + seconds * 1000 };
        let mut expiries = Expiries::new(500, 1);
        expiries.note(ONE, 19_000, now(0));
        expiries.note(ONE, 12_000, now(0));
        expiries.note(TWO, 15_000, now(0));
        assert_eq!(expiries.look_at(), Some(3_500_000));
        assert_eq!(expiries.take_due(now(3)), []);
        assert_eq!(expiries.take_due(now(4)), [ONE]);
        assert_eq!(expiries.look_at(), Some(6_500_000));
        assert_eq!(expiries.take_due(now(7)), [TWO]);
        assert_eq!(expiries.look_at(), None);
    }

    #[test]
    fn shards_that_become_ripe_at_different_times_are_due_together() {
        let now = |millis: u64| Now { micros: millis * 1_000, unix_ms: millis };
        let mut expiries = Expiries::new(500, 3_000_000);
        assert_eq!(expiries.note(ONE, 2_600, now(1_000)), 6_000_000);
        expiries.note(TWO, 4_800, now(1_000));
        assert_eq!(expiries.take_due(now(5_999)), []);
        assert_eq!(expiries.take_due(now(6_000)), [ONE, TWO]);
        // What is ripe already waits for the next of those moments as well.
        assert_eq!(expiries.note(ONE, 100, now(6_001)), 9_000_000);
    }

    #[test]
    fn a_clock_that_jumps_is_noticed_soon() {
        let mut expiries = Expiries::new(0, 1);
        expiries.note(ONE, 4_000_000, Now { micros: 0, unix_ms: 0 });
        assert_eq!(expiries.look_at(), Some(LOOK_MICROS));
        // It went back meanwhile, and then to where it should be.
        assert_eq!(expiries.take_due(Now { micros: LOOK_MICROS, unix_ms: 0 }), []);
        assert_eq!(expiries.look_at(), Some(2 * LOOK_MICROS));
        let later = Now { micros: 2 * LOOK_MICROS, unix_ms: 4_000_000 };
        assert_eq!(expiries.take_due(later), [ONE]);
    }
}
