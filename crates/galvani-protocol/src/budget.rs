//! Budgets: how much of something optional a lane does per second.
//!
//! A token bucket in whole numbers: it fills with time, holds at most one second's worth, and says
//! no when it is empty. It queues nothing and never waits; who is refused does without, because
//! some other way gets there later. Next to read: `read_repair.rs`, its user.

/// Micro-tokens in a token, so that a microsecond's share is a whole number.
const MICRO: u64 = 1_000_000;

/// A token bucket.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    per_second: u64,
    /// Micro-tokens left.
    left: u64,
    /// When it was last filled, in the lane's microseconds.
    at: u64,
}

impl Budget {
    /// A full bucket of `per_second` tokens; 0 refuses everything.
    pub(crate) fn new(per_second: u32) -> Budget {
        let per_second = u64::from(per_second);
        Budget { per_second, left: per_second * MICRO, at: 0 }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now_micros: u64) -> bool {
        let passed = now_micros.saturating_sub(self.at);
        self.at = self.at.max(now_micros);
        let filled = self.left.saturating_add(passed.saturating_mul(self.per_second));
        self.left = filled.min(self.per_second * MICRO);
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
}
