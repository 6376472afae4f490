//! Random numbers of a load: small, fast, the same for the same seed.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): good enough to pick keys and arrivals, no more.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this seed.
    pub fn of(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of 0..`end`; `end` is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of the product: no bias that a load could show.
        ((u128::from(self.bits()) * u128::from(end.max(1))) >> 64) as u64
    }

    /// A number of 0..1, never 1.
    pub fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Seconds to the next of arrivals that know nothing of each other, `rate` a second.
    pub fn gap(&mut self, rate: f64) -> f64 {
        -(1.0 - self.share()).ln() / rate
    }
}

/// The golden ratio in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn gaps_are_random_and_make_the_rate() {
        let mut random = Random::of(7);
        let gaps: Vec<f64> = (0..10_000).map(|_| random.gap(1_000.0)).collect();
        let sum: f64 = gaps.iter().sum();
        assert!((9.5..10.5).contains(&sum), "{sum} s for 10,000 at 1,000 a second");
        let short = gaps.iter().filter(|gap| **gap < 0.001).count();
        assert!((6_100..6_550).contains(&short), "{short}: an exponential has 63 % below its mean");
    }

    #[test]
    fn numbers_stay_below_their_end_and_reach_all_of_it() {
        let mut random = Random::of(1);
        let mut seen = [0_u32; 7];
        (0..7_000).for_each(|_| seen[random.below(7) as usize] += 1);
        assert!(seen.iter().all(|count| (850..1_150).contains(count)), "{seen:?}");
    }
}
