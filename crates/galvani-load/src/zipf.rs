//! Which keys are asked for: evenly, zipfian and scrambled, or the latest most.
//!
//! These are YCSB's generators (Cooper et al. 2010), drawn by the method of Gray et al. 1994,
//! "Quickly generating billion-record synthetic databases". The scrambled one draws a rank among
//! ten billion and hashes it over the keys, as YCSB does: the hottest key is asked for in 3.8 % of
//! all requests, whatever the number of keys, and hot keys are no neighbours.

use crate::random::Random;

/// The exponent of YCSB's core workloads.
pub const THETA: f64 = 0.99;
/// Ranks that the scrambled generator draws from, as YCSB's.
pub const SCRAMBLED_RANKS: u64 = 10_000_000_000;

/// The sum of 1/i^theta for i of 1..=n: summed up to ten thousand, by Euler and Maclaurin beyond.
pub fn zeta(n: u64, theta: f64) -> f64 {
    let exact = n.min(SUMMED);
    let sum: f64 = (1..=exact).map(|i| (i as f64).powf(-theta)).sum();
    if n == exact {
        return sum;
    }
    let (from, to) = (exact as f64, n as f64);
    let area = (to.powf(1.0 - theta) - from.powf(1.0 - theta)) / (1.0 - theta);
    let ends = (to.powf(-theta) - from.powf(-theta)) / 2.0;
    let slopes = theta / 12.0 * (from.powf(-theta - 1.0) - to.powf(-theta - 1.0));
    sum + area + ends + slopes
}

/// Ranks from 0 on; rank i comes with a probability of about 1/(i+1)^theta of zeta.
#[derive(Clone, Debug)]
pub struct Zipf {
    ranks: u64,
    zeta: f64,
    zeta_two: f64,
}

impl Zipf {
    /// Over so many ranks, at least 1.
    pub fn of(ranks: u64) -> Zipf {
        let ranks = ranks.max(1);
        Zipf { ranks, zeta: zeta(ranks, THETA), zeta_two: zeta(2, THETA) }
    }

    /// One rank more.
    pub fn grow(&mut self) {
        self.ranks += 1;
        self.zeta += (self.ranks as f64).powf(-THETA);
    }

    /// A rank.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let u = random.share();
        let uz = u * self.zeta;
        if uz < 1.0 || self.ranks == 1 {
            return 0;
        }
        if uz < self.zeta_two {
            return 1;
        }
        let n = self.ranks as f64;
        let eta = (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - self.zeta_two / self.zeta);
        let rank = n * (eta * u - eta + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.ranks - 1)
    }
}

/// YCSB's 64-bit FNV hash of a number.
pub fn fnv(number: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for octet in number.to_le_bytes() {
        hash = (hash ^ u64::from(octet)).wrapping_mul(1_099_511_628_211);
    }
    // Java's Math.abs of the same bits.
    (hash as i64).unsigned_abs()
}

/// How keys are chosen.
#[derive(Clone, Debug)]
pub enum Chooser {
    /// Every key as often as any other.
    Uniform {
        /// How many keys.
        keys: u64,
    },
    /// Few keys often, spread by a hash.
    Scrambled {
        /// How many keys.
        keys: u64,
        /// Of [`SCRAMBLED_RANKS`].
        zipf: Zipf,
    },
    /// The keys made last most often.
    Latest {
        /// Over all keys made so far.
        zipf: Zipf,
    },
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The key of this index.
    Key(u64),
    /// The key made so many before the last one.
    Ago(u64),
}

impl Chooser {
    /// Every one of `keys` as often as any other.
    pub fn uniform(keys: u64) -> Chooser {
        Chooser::Uniform { keys }
    }

    /// Zipfian over `keys`, scrambled.
    pub fn scrambled(keys: u64) -> Chooser {
        Chooser::Scrambled { keys, zipf: Zipf::of(SCRAMBLED_RANKS) }
    }

    /// Zipfian from the last of `keys` backwards.
    pub fn latest(keys: u64) -> Chooser {
        Chooser::Latest { zipf: Zipf::of(keys) }
    }

    /// The next one.
    pub fn draw(&self, random: &mut Random) -> Chosen {
        match self {
            Chooser::Uniform { keys } => Chosen::Key(random.below(*keys)),
            Chooser::Scrambled { keys, zipf } => Chosen::Key(fnv(zipf.draw(random)) % keys),
            Chooser::Latest { zipf } => Chosen::Ago(zipf.draw(random)),
        }
    }

    /// A key was made. As in YCSB, only the latest are chosen from what a run itself makes.
    pub fn grow(&mut self) {
        match self {
            Chooser::Latest { zipf } => zipf.grow(),
            Chooser::Uniform { .. } | Chooser::Scrambled { .. } => {}
        }
    }
}

/// Terms of zeta that are summed one by one: the rest is exact to twelve digits from there.
const SUMMED: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::{Chooser, Chosen, SCRAMBLED_RANKS, THETA, Zipf, fnv, zeta};
    use crate::random::Random;

    #[test]
    fn zeta_is_the_sum_and_ycsbs_constant() {
        let sum: f64 = (1..=2_000_000_u64).map(|i| (i as f64).powf(-THETA)).sum();
        assert!((zeta(2_000_000, THETA) - sum).abs() < 1e-8, "{sum}");
        assert!((zeta(1_000, THETA) - 7.728_953).abs() < 1e-5, "{}", zeta(1_000, THETA));
        let constant = 26.469_028_201_783_02;
        assert!((zeta(SCRAMBLED_RANKS, THETA) - constant).abs() < 1e-6);
    }

    #[test]
    fn ranks_come_as_often_as_the_formula_says() {
        let (ranks, draws) = (1_000_u64, 2_000_000_u32);
        let (zipf, mut random) = (Zipf::of(ranks), Random::of(42));
        let mut seen = vec![0_u32; ranks as usize];
        (0..draws).for_each(|_| seen[zipf.draw(&mut random) as usize] += 1);
        let all = zeta(ranks, THETA);
        for (rank, seen) in seen.iter().enumerate().take(2) {
            let want = ((rank + 1) as f64).powf(-THETA) / all;
            let got = f64::from(*seen) / f64::from(draws);
            assert!((got / want - 1.0).abs() < 0.01, "rank {rank}: {got} for {want}");
        }
        // Beyond them the method is an approximation, good where ranks are summed up.
        for top in [10_usize, 100, 500] {
            let want = zeta(top as u64, THETA) / all;
            let got = f64::from(seen[..top].iter().sum::<u32>()) / f64::from(draws);
            assert!((got / want - 1.0).abs() < 0.05, "first {top}: {got} for {want}");
        }
        assert!(seen.iter().all(|count| *count > 0), "every rank comes");
    }

    #[test]
    fn the_hottest_key_is_where_the_hash_of_rank_0_says() {
        let (keys, draws) = (10_000_u64, 500_000_u32);
        let (chooser, mut random) = (Chooser::scrambled(keys), Random::of(3));
        let mut seen = vec![0_u32; keys as usize];
        for _ in 0..draws {
            let Chosen::Key(key) = chooser.draw(&mut random) else { panic!("a key") };
            seen[key as usize] += 1;
        }
        let hot = fnv(0) % keys;
        let share = f64::from(seen[hot as usize]) / f64::from(draws);
        let want = 1.0 / zeta(SCRAMBLED_RANKS, THETA);
        assert!((share / want - 1.0).abs() < 0.03, "{share} for {want}");
        assert_eq!(seen.iter().max(), Some(&seen[hot as usize]));
    }

    #[test]
    fn the_hash_is_ycsbs() {
        // FNV-1a of eight zero octets, made positive as Java does.
        let plain = (0..8).fold(0xcbf2_9ce4_8422_2325_u64, |h, _| h.wrapping_mul(0x0100_0000_01b3));
        assert_eq!(fnv(0), (plain as i64).unsigned_abs());
        assert!(fnv(u64::MAX) <= 1 << 63);
    }

    #[test]
    fn the_latest_come_most_and_keys_made_count() {
        let (mut chooser, mut random) = (Chooser::latest(1), Random::of(9));
        assert_eq!(chooser.draw(&mut random), Chosen::Ago(0));
        (0..999).for_each(|_| chooser.grow());
        let Chooser::Latest { zipf } = &chooser else { panic!("the latest") };
        assert!((zipf.zeta - zeta(1_000, THETA)).abs() < 1e-9, "grown as if made at once");
        let draws = 100_000;
        let last = (0..draws).filter(|_| chooser.draw(&mut random) == Chosen::Ago(0)).count();
        let share = last as f64 / f64::from(draws);
        assert!((share * zeta(1_000, THETA) - 1.0).abs() < 0.05, "{share}");
    }
}
