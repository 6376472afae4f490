//! Budgets: how much of something a lane does per second.
//!
//! A token bucket in whole numbers: it fills with time, holds so much and no more, and says no when
//! it is empty. It queues nothing and never waits; who is refused does without, because some other
//! way gets there later, or comes again. Next to read: `read_repair.rs`, a user; the node's
//! `client_rates.rs` is the other.

/// Micro-tokens in a token, so that a microsecond's share is a whole number.
const MICRO: u64 = 1_000_000;

/// A token bucket.
#[derive(Clone, Debug)]
pub struct Budget {
    per_second: u64,
    /// Micro-tokens when full.
    full: u64,
    /// Micro-tokens left.
    left: u64,
    /// When it was last filled, in the lane's microseconds.
    at: u64,
}

impl Budget {
    /// A full bucket of one second's worth; 0 refuses everything.
    pub fn new(per_second: u32) -> Budget {
        Budget::with_burst(per_second, per_second)
    }

    /// A full bucket of `burst` tokens that fills with `per_second`.
    pub fn with_burst(per_second: u32, burst: u32) -> Budget {
        let full = u64::from(burst) * MICRO;
        Budget { per_second: u64::from(per_second), full, left: full, at: 0 }
    }

    /// How long after the last [`Budget::take`] there will be a token, in microseconds; an
    /// estimate without end if it never fills.
    pub fn wait_micros(&self) -> u64 {
        let lacking = MICRO.saturating_sub(self.left);
        match lacking {
            0 => 0,
            lacking => lacking.div_ceil(self.per_second.max(1)),
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now_micros: u64) -> bool {
        let passed = now_micros.saturating_sub(self.at);
        self.at = self.at.max(now_micros);
        let filled = self.left.saturating_add(passed.saturating_mul(self.per_second));
        self.left = filled.min(self.full);
        match self.left.checked_sub(MICRO) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn a_second_gives_its_worth_and_no_more() {
        let mut budget = Budget::new(100);
        let taken = |budget: &mut Budget, at| (0..1_000).filter(|_| budget.take(at)).count();
        assert_eq!(taken(&mut budget, 0), 100);
        assert_eq!(taken(&mut budget, 9_999), 0, "less than a token's time has passed");
        assert_eq!(taken(&mut budget, 10_000), 1);
        assert_eq!(taken(&mut budget, 510_000), 50);
        // However long nothing was taken: one second's worth at once.
        assert_eq!(taken(&mut budget, u64::MAX), 100);
        assert_eq!(taken(&mut budget, 0), 0, "a clock that goes back fills nothing");
        assert!(!Budget::new(0).take(1 << 40));
    }

    #[test]
    fn a_burst_is_all_that_is_saved_up_and_the_wait_is_told() {
        let mut budget = Budget::with_burst(10, 3);
        assert_eq!((0..9).filter(|_| budget.take(5_000_000)).count(), 3);
        assert_eq!(budget.wait_micros(), 100_000);
        assert!(!budget.take(5_099_999));
        assert_eq!(budget.wait_micros(), 1);
        assert!(budget.take(5_100_000));
    }
}
