//! Hybrid logical clock: 48 bits of milliseconds, 16 bits of logical count.
//!
//! Shows people when something was written, and decides `lww` buckets. Nothing else depends on it:
//! order comes from dots and contexts. Source: Kulkarni et al. 2014, "Logical Physical Clocks".

use serde::{Deserialize, Serialize};

/// A point of hybrid time; the derived order is the clock's order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The earliest reading whose wall part is `unix_ms`.
    pub fn from_unix_ms(unix_ms: u64) -> Hlc {
        Hlc(unix_ms.min((1 << 48) - 1) << 16)
    }

    /// Milliseconds since 1970, as the writer's clock had it.
    pub fn unix_ms(self) -> u64 {
        self.0 >> 16
    }

    /// A reading above both `self` and `seen`, at or after wall time `now_ms`: what a write gets
    /// whose coordinator last minted `self` and whose context had seen `seen`.
    pub fn tick(self, seen: Hlc, now_ms: u64) -> Hlc {
        let floor = self.max(seen).0.saturating_add(1);
        Hlc(floor.max(Hlc::from_unix_ms(now_ms).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tick_is_above_everything_seen_even_when_the_wall_clock_goes_back() {
        let mut last = Hlc::default();
        for now_ms in [100, 90, 90, 200, 10, 200] {
            let seen = Hlc::from_unix_ms(now_ms + 5);
            let next = last.tick(seen, now_ms);
            assert!(next > last && next > seen && next.unix_ms() >= now_ms);
            last = next;
        }
    }
}
