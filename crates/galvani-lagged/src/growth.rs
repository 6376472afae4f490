//! How fast the replica's files grow, and how long the free space lasts at that rate.
//!
//! A sample is taken now and then while the replica runs, and kept for an hour. The rate is that between
//! the oldest and the newest one; of less than a minute nothing is said, for engines write in bursts.
//! It is a guess about the future from the past, and is meant as an alarm. Next to read: `status.rs`.

use std::collections::VecDeque;

/// Samples of the bytes on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Growth {
    /// When, in milliseconds by the replica's own clock, and how many bytes; oldest first.
    samples: VecDeque<(u64, u64)>,
}

impl Growth {
    /// Whether it is time for another sample.
    pub(crate) fn is_due(&self, tick_ms: u64) -> bool {
        self.samples.back().is_none_or(|&(last_ms, _)| tick_ms >= last_ms + SAMPLE_MS)
    }

    /// Takes a sample: so many bytes at this moment.
    pub(crate) fn note(&mut self, tick_ms: u64, bytes: u64) {
        self.samples.push_back((tick_ms, bytes));
        while self.samples.front().is_some_and(|&(first_ms, _)| first_ms + SPAN_MS < tick_ms) {
            self.samples.pop_front();
        }
    }

    /// How long `free_bytes` last at the rate of the samples, in seconds; `None`: not known, or the
    /// files do not grow.
    pub(crate) fn seconds_left(&self, free_bytes: u64) -> Option<u64> {
        let (&(first_ms, first), &(last_ms, last)) = (self.samples.front()?, self.samples.back()?);
        let took_ms = last_ms.checked_sub(first_ms).filter(|&ms| ms >= SPAN_MS_MIN)?;
        let grown = last.checked_sub(first).filter(|&bytes| bytes > 0)?;
        let left_ms = u128::from(free_bytes) * u128::from(took_ms) / u128::from(grown);
        Some(u64::try_from(left_ms / 1000).unwrap_or(u64::MAX))
    }
}

/// How often a sample is taken, in milliseconds: looking at the files costs a little.
const SAMPLE_MS: u64 = 10_000;

/// How far back samples are kept, in milliseconds.
const SPAN_MS: u64 = 3_600_000;

/// The shortest time from which a rate is worked out, in milliseconds.
const SPAN_MS_MIN: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::{Growth, SAMPLE_MS, SPAN_MS};

    #[test]
    fn free_space_lasts_as_the_rate_of_the_last_hour_says() {
        let mut growth = Growth::default();
        assert_eq!(growth.seconds_left(1_000), None, "nothing is known");
        growth.note(0, 500);
        assert!(!growth.is_due(SAMPLE_MS - 1) && growth.is_due(SAMPLE_MS));
        growth.note(59_999, 5_000);
        assert_eq!(growth.seconds_left(1_000), None, "too short to tell");
        growth.note(100_000, 1_500);
        assert_eq!(growth.seconds_left(1_000), Some(100), "10 bytes a second");
        growth.note(120_000, 500);
        assert_eq!(growth.seconds_left(1_000), None, "it does not grow");
        // What is longer ago than the hour counts no more.
        growth.note(120_000 + SPAN_MS, 500 + SPAN_MS / 1000);
        assert_eq!(growth.seconds_left(7), Some(7));
        assert_eq!(growth.samples.len(), 2);
        assert_eq!(growth.seconds_left(u64::MAX), Some(u64::MAX));
    }
}
