//! How long the slow twentieth of recent requests takes, in bounded memory.
//!
//! [`Recent`] is a histogram over a logarithmic scale of microseconds, four steps to a doubling. Once it
//! holds `WINDOW` samples all of them lose half their weight, so what was long ago fades without a
//! clock. Never says less than the quantile is, and at most a quarter more.
//! Source: the log-linear buckets of HdrHistogram; halving as in TinyLFU's reset (Einziger 2017).

use std::time::Duration;

/// Durations seen lately, the recent ones weighing more. 404 bytes.
#[derive(Clone, Debug)]
pub struct Recent {
    weights: [u32; STEPS],
    /// Samples since the last halving, and what is left of those before, in parts of a sample.
    total: u32,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { weights: [0; STEPS], total: 0 }
    }
}

impl Recent {
    /// Takes in one sample. What is over `LONGEST_MICROS` counts as that.
    pub fn note(&mut self, took: Duration) {
        let step = step_of(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.weights[step] += SAMPLE;
        self.total += SAMPLE;
        if self.total >= WINDOW * SAMPLE {
            self.weights.iter_mut().for_each(|weight| *weight /= 2);
            self.total = self.weights.iter().sum();
        }
    }

    /// What 95 of 100 samples do not exceed; `None` while fewer than `ENOUGH` are known.
    pub fn p95(&self) -> Option<Duration> {
        if self.total < ENOUGH * SAMPLE {
            return None;
        }
        let wanted = (u64::from(self.total) * 95).div_ceil(100);
        let mut below = 0;
        let within = self.weights.iter().position(|&weight| {
            below += u64::from(weight);
            below >= wanted
        });
        // All weights together are the total, so one of them reaches it.
        within.map(|step| Duration::from_micros(top_of(step)))
    }
}

/// Which step `micros` belongs to: 0 to 3 are those numbers, then four steps to each doubling.
fn step_of(micros: u64) -> usize {
    let micros = micros.min(LONGEST_MICROS);
    if micros < 4 {
        return micros as usize;
    }
    let doubling = micros.ilog2();
    let quarter = (micros >> (doubling - 2)) & 3;
    (doubling - 1) as usize * 4 + quarter as usize
}

/// The longest duration of `step`, in microseconds.
fn top_of(step: usize) -> u64 {
    if step < 4 {
        return step as u64;
    }
    let (doubling, quarter) = (step as u64 / 4 + 1, step as u64 % 4);
    ((5 + quarter) << (doubling - 2)) - 1
}

/// The longest that is told apart: a little over a minute, the longest a call may take.
const LONGEST_MICROS: u64 = (1 << 26) - 1;
/// The numbers 0 to 3, and four steps to each of the doublings from 4 on.
const STEPS: usize = 4 + 24 * 4;
/// The weight of one sample: halved ten times it still counts.
const SAMPLE: u32 = 1 << 10;
/// How many samples are held before all lose half their weight.
const WINDOW: u32 = 256;
/// Fewer than these have no twentieth.
const ENOUGH: u32 = 20;

#[cfg(test)]
mod tests {
    use super::{ENOUGH, LONGEST_MICROS, Recent, STEPS, WINDOW, step_of, top_of};
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use std::time::Duration;

    fn of(samples: &[u64]) -> Recent {
        let mut recent = Recent::default();
        samples.iter().for_each(|&micros| recent.note(Duration::from_micros(micros)));
        recent
    }

    fn p95_micros(recent: &Recent) -> u64 {
        recent.p95().expect("enough samples").as_micros() as u64
    }

    /// The smallest sample that `share` hundredths of the weight do not exceed.
    fn sorted_quantile(weighted: &mut [(u64, f64)], share: f64) -> u64 {
        weighted.sort_by_key(|&(micros, _)| micros);
        let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
        let mut below = 0.0;
        let at = weighted.iter().find(|(_, weight)| {
            below += weight;
            below >= total * share / 100.0
        });
        at.or(weighted.last()).expect("samples").0
    }

    fn micros() -> impl Strategy<Value = u64> {
        prop_oneof![0..200_u64, 0..20_000_u64, 0..=LONGEST_MICROS]
    }

    #[test]
    fn steps_are_in_order_without_a_hole_and_a_quarter_wide() {
        assert_eq!(step_of(u64::MAX), STEPS - 1);
        let mut next = 0;
        for step in 0..STEPS {
            let top = top_of(step);
            assert_eq!((step_of(next), step_of(top)), (step, step));
            assert!(top - next <= next / 4, "{next}..={top}");
            next = top + 1;
        }
        assert_eq!(next - 1, LONGEST_MICROS);
    }

    #[test]
    fn a_few_samples_have_no_twentieth() {
        let few = vec![1_000; ENOUGH as usize - 1];
        assert_eq!(of(&few).p95(), None);
        assert_eq!(p95_micros(&of(&[few, vec![1_000]].concat())), 1_023);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let slow = vec![900_000; 10_000];
        let fast = vec![1_000; 5 * WINDOW as usize];
        assert!(p95_micros(&of(&slow)) >= 900_000);
        assert_eq!(p95_micros(&of(&[slow.clone(), fast.clone()].concat())), 1_023);
        // And a change for the worse is seen within a twentieth of the window or two.
        let worse = &slow[..WINDOW as usize / 10];
        assert!(p95_micros(&of(&[&fast, worse].concat())) >= 900_000);
    }

    proptest! {
        /// Before anything faded it is the quantile of the sorted samples, or a quarter more at most.
        #[test]
        fn it_is_the_quantile_of_the_sorted_samples(
            mut samples in vec(micros(), ENOUGH as usize..WINDOW as usize)
        ) {
            let told = p95_micros(&of(&samples));
            samples.sort_unstable();
            let exact = samples[(samples.len() * 95).div_ceil(100) - 1];
            prop_assert!(exact <= told && told <= exact + exact / 4, "{} for {}", told, exact);
        }

        /// Later it is the quantile of the sorted samples with the weights that halving leaves them.
        #[test]
        fn it_is_the_quantile_of_what_has_not_faded(
            samples in vec(micros(), WINDOW as usize..6 * WINDOW as usize)
        ) {
            let mut weighted: Vec<(u64, f64)> = Vec::new();
            let mut total = 0.0;
            for &micros in &samples {
                weighted.push((micros, 1.0));
                total += 1.0;
                if total >= f64::from(WINDOW) {
                    weighted.iter_mut().for_each(|(_, weight)| *weight /= 2.0);
                    total /= 2.0;
                }
            }
            let told = p95_micros(&of(&samples));
            // Weights are kept in parts of a sample: a hundredth of the whole either way.
            let (least, most) =
                (sorted_quantile(&mut weighted, 94.0), sorted_quantile(&mut weighted, 96.0));
            prop_assert!(least <= told && told <= most + most / 4, "{} in {}..{}", told, least, most);
            prop_assert_eq!(of(&samples).weights.iter().sum::<u32>(), of(&samples).total);
        }
    }
}
