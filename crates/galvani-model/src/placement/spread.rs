//! The seeded sequence behind every shuffled visiting order of placement.
//!
//! SplitMix64 (Steele, Lea, Flood 2014), seeded from the cluster's id, and for later layouts their
//! version: two nodes that compute the layout of the same members draw the same numbers. Changing a
//! constant here changes which owners a new layout gives, never a stored one. Never used for
//! anything secret.

use crate::ids::ClusterId;

/// A deterministic sequence of 64-bit numbers.
pub(super) struct Spread(u64);

impl Spread {
    /// The sequence of a cluster.
    pub(super) fn of(cluster: ClusterId) -> Spread {
        Spread(seed_of(cluster))
    }

    /// The sequence of one step in a cluster's history, unlike those of the steps before.
    pub(super) fn of_step(cluster: ClusterId, version: u64) -> Spread {
        let mut spread = Spread(seed_of(cluster) ^ version);
        Spread(spread.draw())
    }

    /// The next number.
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (at least 1), as good as even for the small bounds used here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// Brings `items` into a drawn order (Fisher-Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let pick = self.below(end as u64 + 1) as usize;
            items.swap(end, pick);
        }
    }
}

/// The cluster's id folded to a 64-bit seed.
pub(super) fn seed_of(cluster: ClusterId) -> u64 {
    (cluster.0 >> 64) as u64 ^ (cluster.0 as u64).rotate_left(32)
}
