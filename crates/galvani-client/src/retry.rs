//! When to try again: the budget, the pause, and what stays in doubt afterwards.
//!
//! [`Budget`] keeps retries, and what is asked twice (`hedge.rs`), to a share of the calls, so that a
//! struggling cluster is not struck harder the worse it fares. [`pause`] is full jitter. [`Fate`] is
//! the rule that an attempt whose end is unknown can never be talked away by a later one. Source:
//! "Exponential Backoff And Jitter" (Brooker 2015); token bucket of calls as in gRPC's retry
//! throttling (proposal A6).

use crate::error::{Applied, worse};
use galvani_transport::Network;
use galvani_wire::AppliedOutcome;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Allowance of requests beyond the first of each call, shared by all calls of a client.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Thousandths of a request.
    left: AtomicU32,
    /// The most it holds, and what it begins with, in thousandths.
    reserve: u32,
    /// What a call earns, in thousandths.
    per_call: u32,
}

impl Budget {
    /// Of retries: a tenth of the calls.
    pub(crate) fn of_retries() -> Budget {
        Budget::new(RETRIES_RESERVE, RETRY_PER_CALL)
    }

    /// Of reads that are asked twice: a twentieth of them.
    pub(crate) fn of_hedges() -> Budget {
        Budget::new(HEDGES_RESERVE, HEDGE_PER_CALL)
    }

    fn new(reserve: u32, per_call: u32) -> Budget {
        Budget { left: AtomicU32::new(reserve), reserve, per_call }
    }

    /// A call began: earns its share of a request.
    pub(crate) fn earn(&self) {
        self.change(|left| Some((left + self.per_call).min(self.reserve)));
    }

    /// Takes one request; false if there is none left.
    pub(crate) fn spend(&self) -> bool {
        self.change(|left| left.checked_sub(ONE))
    }

    /// Gives up what is left.
    pub(crate) fn forfeit(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    fn change(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

/// The pause before the `retries`-th retry of a call (from 0): anything from nothing to a bound
/// that doubles each time.
pub(crate) fn pause(network: &Network, retries: u32) -> Duration {
    let bound = PAUSE_FIRST.saturating_mul(1 << retries.min(10)).min(PAUSE_MAX);
    jittered(network, Duration::ZERO, bound)
}

/// A duration between the two, evenly.
pub(crate) fn jittered(network: &Network, least: Duration, most: Duration) -> Duration {
    let spread = most.saturating_sub(least).as_micros() as u64;
    least + Duration::from_micros(network.random_up_to(spread))
}

/// What may have become of a write, over all attempts so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    applied: Applied,
}

impl Fate {
    pub(crate) fn new() -> Fate {
        Fate { applied: Applied::No }
    }

    /// An attempt may have arrived, and nobody said what came of it.
    pub(crate) fn note_unknown(&mut self) {
        self.applied = worse(self.applied, Applied::Maybe { acks: 0 });
    }

    /// A server said what came of an attempt. "No" speaks of that attempt only.
    pub(crate) fn note_answer(&mut self, outcome: AppliedOutcome) {
        let told = match outcome {
            AppliedOutcome::No => Applied::No,
            AppliedOutcome::Maybe { acks } => Applied::Maybe { acks },
        };
        self.applied = worse(self.applied, told);
    }

    pub(crate) fn applied(self) -> Applied {
        self.applied
    }
}

/// Thousandths of a retry in the bucket when full, and at the start: a hundred retries, so that
/// what one busy client has under way at a node survives that node's death.
const RETRIES_RESERVE: u32 = 100 * ONE;
const ONE: u32 = 1_000;
/// What a call earns: a tenth of a retry.
const RETRY_PER_CALL: u32 = ONE / 10;
/// Reads that may be asked twice at once: few enough that a cluster which turns slow hardly notices.
const HEDGES_RESERVE: u32 = 20 * ONE;
/// What a read earns: a twentieth, as many as are beyond the 95th percentile where nothing is wrong.
const HEDGE_PER_CALL: u32 = ONE / 20;
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::{Budget, Fate, PAUSE_MAX, pause};
    use crate::error::Applied;
    use galvani_transport::Network;
    use galvani_wire::AppliedOutcome;

    #[test]
    fn retries_are_a_tenth_of_the_calls_and_a_reserve() {
        let budget = Budget::of_retries();
        let reserve = std::iter::repeat_with(|| budget.spend()).take_while(|&taken| taken).count();
        assert_eq!(reserve, 100);
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.earn();
            retries += usize::from(budget.spend());
        }
        assert_eq!(retries, 100);
    }

    #[test]
    fn quiet_times_do_not_pile_up_retries() {
        let budget = Budget::of_retries();
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 100);
    }

    #[test]
    fn pauses_are_bounded() {
        for retries in [0, 1, 5, 31, u32::MAX] {
            assert!(pause(&Network::os(), retries) <= PAUSE_MAX);
        }
    }

    /// Every sequence of up to four outcomes: once anything is in doubt the end is in doubt, and
    /// the acks told are the most anyone vouched for.
    #[test]
    fn no_later_answer_takes_doubt_away() {
        #[derive(Clone, Copy, PartialEq)]
        enum Told {
            Unknown,
            No,
            Maybe(u8),
        }
        let outcomes = [Told::Unknown, Told::No, Told::Maybe(1), Told::Maybe(2)];
        for code in 0..4_usize.pow(4) {
            let told: Vec<Told> = (0..4).map(|at| outcomes[code / 4_usize.pow(at) % 4]).collect();
            let mut fate = Fate::new();
            for one in &told {
                match *one {
                    Told::Unknown => fate.note_unknown(),
                    Told::No => fate.note_answer(AppliedOutcome::No),
                    Told::Maybe(acks) => fate.note_answer(AppliedOutcome::Maybe { acks }),
                }
            }
            let acks = told.iter().filter_map(|one| match *one {
                Told::Maybe(acks) => Some(acks),
                Told::Unknown => Some(0),
                Told::No => None,
            });
            let expected = acks.max().map_or(Applied::No, |acks| Applied::Maybe { acks });
            assert_eq!(fate.applied(), expected);
        }
    }
}
