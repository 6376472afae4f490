//! Admission at the door: how many client requests a lane takes on at once.
//!
//! What is under way beyond what a lane and its peers get done only waits, so that in the end all
//! of it is late. The sign of that is a standing delay: when even the fastest answer of a peer in a
//! whole interval, and in the next one too, came much later than that peer's best, then a queue
//! stands somewhere on the way, in this lane's inbox, in the peer's or between them. The bound then
//! falls to what would have made the target delay (Little's law: so many under way make that
//! delay), and grows again slowly. A peer that is slow or away alone moves nothing: the others are
//! fast. A delay that does not go although the bound has long been at its least is no queue of this
//! lane's making: the way has become longer, and peers' bests are learnt anew. Decision 0007 has the figures.
//! Next to read: `lane.rs`, which asks; `membership/score.rs`, which times the answers.

/// A standing delay that is put up with, in microseconds: far above a healthy round trip, with
/// fsync too; a fortieth of the usual deadline, so that the few legs of a request stay within it.
pub const TARGET_MICROS: u64 = 50_000;
/// A delay must stand for two such intervals, in microseconds: a burst, or a process that stood
/// still for a moment, is over by then.
pub const INTERVAL_MICROS: u64 = 100_000;
/// Requests under way that are always taken on: they keep a lane busy, and at the target delay
/// they are over a thousand a second.
pub const LEAST: usize = 64;
/// Intervals in a row with a standing delay and the least bound, after which peers' bests are learnt
/// anew: five seconds, far longer than so few requests can queue.
const LONGER_WAY: u32 = 50;
/// Bounds of what a refused client is told to wait, in milliseconds.
const RETRY_MS: (u64, u64) = (50, 1_000);

/// Why a request is not taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    /// When to come again, in milliseconds.
    pub retry_after_ms: u32,
}

/// The bound of one lane.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Requests that may be under way now, and ever.
    limit: usize,
    most: usize,
    /// Most that were under way in this interval.
    peak: usize,
    /// The least delay heard of in this interval.
    least: Option<u64>,
    /// When this interval ends.
    until: u64,
    /// The delay that stood in the last interval, in microseconds.
    standing: u64,
    /// Whether the interval before was one too many.
    stood: bool,
    /// Intervals in a row in which the least bound did not help.
    in_vain: u32,
}

impl Admission {
    /// Takes on up to `most` until a delay stands.
    pub fn new(most: usize) -> Admission {
        Admission {
            limit: most,
            most,
            peak: 0,
            least: None,
            until: 0,
            standing: 0,
            stood: false,
            in_vain: 0,
        }
    }

    /// Whether one more request is taken on, with `waiting` under way and `left_micros` until its
    /// deadline.
    pub fn admit(&mut self, waiting: usize, left_micros: u64) -> Result<(), Turned> {
        self.peak = self.peak.max(waiting);
        // When even the fastest answer comes later than its deadline, it would be work for nobody.
        let hopeless = self.is_congested() && waiting >= LEAST && left_micros <= self.standing;
        match waiting >= self.limit || hopeless {
            true => Err(self.turned()),
            false => Ok(()),
        }
    }

    /// What is told to whom there is no room for.
    pub fn turned(&self) -> Turned {
        let (least, most) = RETRY_MS;
        let wait = (2 * self.standing / 1_000).clamp(least, most);
        Turned { retry_after_ms: u32::try_from(wait).expect("a second at most") }
    }

    /// A peer answered so much later than it could.
    pub fn on_delay(&mut self, micros: u64) {
        self.least = Some(self.least.map_or(micros, |least| least.min(micros)));
    }

    /// Moves the bound when an interval is over. True: peers' bests are to be forgotten.
    pub fn poll(&mut self, now_micros: u64) -> bool {
        if now_micros < self.until {
            return false;
        }
        self.until = now_micros.saturating_add(INTERVAL_MICROS);
        let peak = core::mem::take(&mut self.peak);
        match self.least.take() {
            Some(delay) if delay > TARGET_MICROS => {
                self.standing = delay;
                if !core::mem::replace(&mut self.stood, true) {
                    return false;
                }
                if peak <= LEAST || self.limit <= LEAST {
                    self.in_vain += 1;
                }
                // So few make no queue: whatever is slow is not what is under way here.
                if peak <= LEAST {
                    return longer_way(&mut self.in_vain);
                }
                let under_way = peak.min(self.limit) as u64;
                let fitting = (under_way * TARGET_MICROS / delay) as usize;
                // By half at a time: answers tell of the past.
                self.limit = fitting.max(self.limit / 2).max(LEAST).min(self.limit);
            }
            Some(delay) => self.relax(delay),
            // Nobody was asked: nothing is known, and nothing stands.
            None if peak == 0 => self.relax(0),
            None => {}
        }
        longer_way(&mut self.in_vain)
    }

    /// Requests that may be under way now.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The delay that stood lately, in microseconds.
    pub fn standing(&self) -> u64 {
        self.standing
    }

    fn is_congested(&self) -> bool {
        self.stood && self.standing > TARGET_MICROS
    }

    /// An eighth more: from the least to 4,096 in some four seconds.
    fn relax(&mut self, delay: u64) {
        (self.standing, self.stood, self.in_vain) = (delay, false, 0);
        self.limit = (self.limit + self.limit / 8 + 1).min(self.most);
    }
}

/// Whether the least load has been slow for long; starts counting anew then.
fn longer_way(in_vain: &mut u32) -> bool {
    let longer = *in_vain >= LONGER_WAY;
    if longer {
        *in_vain = 0;
    }
    longer
}

#[cfg(test)]
mod tests {
    use super::{Admission, INTERVAL_MICROS, LEAST, TARGET_MICROS, Turned};

    const LATER: u64 = 2_000_000;

    /// Passes intervals with so many requests under way and this delay in each.
    fn pass(admission: &mut Admission, intervals: u64, waiting: usize, delay: u64) {
        for _ in 0..intervals {
            let _ = admission.admit(waiting, LATER);
            admission.on_delay(delay * 3);
            admission.on_delay(delay);
            admission.poll(admission.until);
        }
    }

    #[test]
    fn a_delay_that_stands_lowers_the_bound_and_its_end_raises_it() {
        let mut admission = Admission::new(4_096);
        pass(&mut admission, 10, 1_000, TARGET_MICROS);
        assert_eq!(admission.limit(), 4_096, "what is put up with changes nothing");
        pass(&mut admission, 1, 1_000, TARGET_MICROS * 4);
        assert_eq!(admission.limit(), 4_096, "it may be a burst");
        pass(&mut admission, 1, 1_000, TARGET_MICROS * 4);
        assert_eq!(admission.limit(), 2_048, "by half at a time: answers tell of the past");
        pass(&mut admission, 2, 1_000, TARGET_MICROS * 2);
        assert_eq!(admission.limit(), 512, "and no further than what was under way explains");
        pass(&mut admission, 1, 500, TARGET_MICROS * 5 / 4);
        assert_eq!(admission.limit(), 400, "so many make the delay that is put up with");
        pass(&mut admission, 60, 400, TARGET_MICROS * 100);
        assert_eq!(admission.limit(), LEAST, "some are always taken on");
        pass(&mut admission, 40, LEAST, 1_000);
        assert_eq!(admission.limit(), 4_096, "four seconds later all is as before");
    }

    #[test]
    fn a_few_slow_requests_are_no_queue() {
        let mut admission = Admission::new(4_096);
        pass(&mut admission, 40, LEAST, TARGET_MICROS * 10);
        assert_eq!(admission.limit(), 4_096);
    }

    #[test]
    fn one_fast_answer_is_enough() {
        let mut admission = Admission::new(4_096);
        for _ in 0..50 {
            let _ = admission.admit(1_000, LATER);
            admission.on_delay(TARGET_MICROS * 20);
            admission.on_delay(900);
            admission.poll(admission.until);
        }
        assert_eq!(admission.limit(), 4_096, "a peer that is slow alone is not the queue");
    }

    #[test]
    fn who_is_turned_away_comes_again_when_the_queue_is_gone() {
        let mut admission = Admission::new(1_000);
        assert_eq!(admission.admit(999, LATER), Ok(()));
        assert_eq!(admission.admit(1_000, LATER), Err(Turned { retry_after_ms: 50 }));
        pass(&mut admission, 3, 1_000, 200_000);
        assert_eq!(admission.admit(999, LATER), Err(Turned { retry_after_ms: 400 }));
        pass(&mut admission, 3, 1_000, 60_000_000);
        assert_eq!(admission.admit(999, LATER), Err(Turned { retry_after_ms: 1_000 }));
    }

    #[test]
    fn what_cannot_be_answered_in_time_is_not_begun() {
        let mut admission = Admission::new(4_096);
        pass(&mut admission, 3, 800, 100_000);
        assert!(admission.limit() > LEAST + 1, "{}", admission.limit());
        assert!(admission.admit(LEAST, 100_000).is_err());
        assert_eq!(admission.admit(LEAST, 100_001), Ok(()));
        assert_eq!(admission.admit(LEAST - 1, 1_000), Ok(()), "a lane with little to do tries");
        pass(&mut admission, 1, 800, 100);
        assert_eq!(admission.admit(LEAST, 1_000), Ok(()), "nothing stands");
    }

    #[test]
    fn a_delay_that_the_least_bound_does_not_end_is_a_longer_way() {
        let mut admission = Admission::new(4_096);
        let mut asked = 0;
        for _ in 0..80 {
            let _ = admission.admit(1_000, LATER);
            admission.on_delay(TARGET_MICROS * 3);
            asked += u32::from(admission.poll(admission.until));
        }
        assert_eq!((admission.limit(), asked), (LEAST, 1));
        pass(&mut admission, 40, LEAST, 0);
        assert_eq!(admission.limit(), 4_096);
    }

    #[test]
    fn without_answers_nothing_moves_until_nobody_waits() {
        let mut admission = Admission::new(4_096);
        pass(&mut admission, 20, 200, TARGET_MICROS * 100);
        for _ in 0..50 {
            let _ = admission.admit(LEAST, LATER);
            admission.poll(admission.until);
        }
        assert_eq!(admission.limit(), LEAST);
        for _ in 0..40 {
            admission.poll(admission.until + INTERVAL_MICROS);
        }
        assert_eq!(admission.limit(), 4_096);
    }
}
