//! Which operations a load consists of, and their sequence.
//!
//! `a`, `b`, `c`, `d` and `f` are YCSB's core workloads: the shares and the distributions are
//! theirs, an update writes the whole record. `e` scans in the order of keys, which keys spread by
//! hash do not have. A sequence depends on its seed alone, never on how fast answers come.

use crate::random::Random;
use crate::zipf::{Chooser, Chosen};

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Read.
    Get,
    /// Write a key that is there, after its last write.
    Put,
    /// Write a key that is new.
    Insert,
    /// Read, then write after what was read.
    Rmw,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Get, Kind::Put, Kind::Insert, Kind::Rmw];

    /// As it is written in reports and documents.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Put => "put",
            Kind::Insert => "insert",
            Kind::Rmw => "rmw",
        }
    }

    /// Its place in [`Kind::ALL`].
    pub fn index(self) -> usize {
        match self {
            Kind::Get => 0,
            Kind::Put => 1,
            Kind::Insert => 2,
            Kind::Rmw => 3,
        }
    }
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Every key as often as any other.
    Uniform,
    /// YCSB's scrambled zipfian.
    Zipfian,
    /// YCSB's latest.
    Latest,
}

impl Distribution {
    /// As it is written in reports.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::Uniform => "uniform",
            Distribution::Zipfian => "zipfian 0.99 scrambled",
            Distribution::Latest => "latest",
        }
    }
}

/// Shares of operations, in percent; together 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Of reads.
    pub get: u8,
    /// Of writes to keys that are there.
    pub put: u8,
    /// Of new keys.
    pub insert: u8,
    /// Of reads with a write after them.
    pub rmw: u8,
    /// How keys are chosen.
    pub distribution: Distribution,
}

impl Mix {
    /// So many percent reads, the rest writes, all keys alike.
    pub fn plain(get: u8) -> Mix {
        let get = get.min(100);
        Mix { get, put: 100 - get, insert: 0, rmw: 0, distribution: Distribution::Uniform }
    }

    /// One of YCSB's core workloads: a, b, c, d or f.
    pub fn ycsb(letter: char) -> Option<Mix> {
        let zipfian =
            Mix { get: 50, put: 50, insert: 0, rmw: 0, distribution: Distribution::Zipfian };
        match letter {
            'a' => Some(zipfian),
            'b' => Some(Mix { get: 95, put: 5, ..zipfian }),
            'c' => Some(Mix { get: 100, put: 0, ..zipfian }),
            'd' => {
                Some(Mix { get: 95, put: 0, insert: 5, rmw: 0, distribution: Distribution::Latest })
            }
            'f' => Some(Mix { get: 50, put: 0, rmw: 50, ..zipfian }),
            _ => None,
        }
    }

    fn kind(&self, percent: u8) -> Kind {
        if percent < self.get {
            Kind::Get
        } else if percent < self.get + self.put {
            Kind::Put
        } else if percent < self.get + self.put + self.insert {
            Kind::Insert
        } else {
            Kind::Rmw
        }
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// What to do.
    pub kind: Kind,
    /// With which key; for an insert the index it gets.
    pub key: Chosen,
}

/// The operations of a load, one after the other.
#[derive(Clone, Debug)]
pub struct Sequence {
    mix: Mix,
    chooser: Chooser,
    random: Random,
    keys: u64,
}

impl Sequence {
    /// Over `keys` that are there, by `seed`.
    pub fn of(mix: Mix, keys: u64, seed: u64) -> Sequence {
        let keys = keys.max(1);
        let chooser = match mix.distribution {
            Distribution::Uniform => Chooser::uniform(keys),
            Distribution::Zipfian => Chooser::scrambled(keys),
            Distribution::Latest => Chooser::latest(keys),
        };
        Sequence { mix, chooser, random: Random::of(seed), keys }
    }

    /// Whether another key would do as well as the one chosen.
    pub fn any_key_does(&self) -> bool {
        self.mix.distribution == Distribution::Uniform
    }

    /// The next operation.
    pub fn draw(&mut self) -> Op {
        let kind = self.mix.kind(self.random.below(100) as u8);
        let key = match kind {
            Kind::Insert => {
                self.keys += 1;
                self.chooser.grow();
                Chosen::Key(self.keys - 1)
            }
            Kind::Get | Kind::Put | Kind::Rmw => self.chooser.draw(&mut self.random),
        };
        Op { kind, key }
    }
}

#[cfg(test)]
mod tests {
    use super::{Distribution, Kind, Mix, Op, Sequence};
    use crate::zipf::Chosen;

    fn ops(mix: Mix, seed: u64) -> Vec<Op> {
        let mut sequence = Sequence::of(mix, 1_000, seed);
        (0..20_000).map(|_| sequence.draw()).collect()
    }

    #[test]
    fn a_seed_makes_the_same_operations_and_another_one_others() {
        for letter in ['a', 'b', 'c', 'd', 'f'] {
            let mix = Mix::ycsb(letter).expect("a core workload");
            assert_eq!(ops(mix, 5), ops(mix, 5), "{letter}");
            assert_ne!(ops(mix, 5), ops(mix, 6), "{letter}");
        }
    }

    #[test]
    fn shares_are_ycsbs() {
        for (letter, shares) in [
            ('a', [50, 50, 0, 0]),
            ('b', [95, 5, 0, 0]),
            ('c', [100, 0, 0, 0]),
            ('d', [95, 0, 5, 0]),
            ('f', [50, 0, 0, 50]),
        ] {
            let ops = ops(Mix::ycsb(letter).expect("a core workload"), 11);
            for (kind, share) in Kind::ALL.into_iter().zip(shares) {
                let got = ops.iter().filter(|op| op.kind == kind).count() as f64 / 200.0;
                assert!((got - f64::from(share)).abs() < 1.5, "{letter} {kind:?}: {got} %");
                assert!(share > 0 || got == 0.0, "{letter} {kind:?}");
            }
        }
        assert_eq!(Mix::ycsb('e'), None, "there is no order of keys to scan in");
        assert_eq!(Mix::ycsb('d').map(|mix| mix.distribution), Some(Distribution::Latest));
    }

    #[test]
    fn new_keys_get_indexes_in_a_row() {
        let made: Vec<Chosen> = ops(Mix::ycsb('d').expect("d"), 2)
            .into_iter()
            .filter(|op| op.kind == Kind::Insert)
            .map(|op| op.key)
            .collect();
        let want: Vec<Chosen> = (0..made.len() as u64).map(|n| Chosen::Key(1_000 + n)).collect();
        assert_eq!(made, want);
    }
}
