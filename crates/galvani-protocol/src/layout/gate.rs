//! How fast a lane copies what it comes to own: not at all, so many bytes a second, or as fast as it can.
//!
//! A page is taken in whole and then paid for: the next one waits until the lane's share of its node's
//! bytes a second has gone by. It also counts what came, and how fast. Next to read: `transfer.rs`; the
//! pages are asked for in `../sync/`.

use galvani_model::placement::Pace;
use galvani_wire::view::Copying;

/// How often it is looked whether a pause is over, in microseconds.
const PAUSE_MICROS: u64 = 500_000;
/// Over what time the rate that is shown is measured, in microseconds.
const WINDOW_MICROS: u64 = 2_000_000;

/// A lane's part of a change's pace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    paused: bool,
    /// Bytes a second; 0: no limit.
    rate: u64,
    /// When what was taken in is paid for, in the lane's microseconds.
    free_at: u64,
    records: u64,
    bytes: u64,
    /// When the window that is being measured began, and the bytes that came in it.
    window: (u64, u64),
    /// What the one before it showed, in bytes a second.
    lately: u64,
}

impl Gate {
    /// Goes by a pace from now on; whether that is another one. Lanes share a node's bytes equally.
    pub(crate) fn set(&mut self, pace: Pace, lanes: u16, now_micros: u64) -> bool {
        let rate = match pace.bytes_per_second {
            0 => 0,
            rate => (rate / u64::from(lanes.max(1))).max(1),
        };
        let changes = (self.paused, self.rate) != (pace.paused, rate);
        if changes {
            (self.paused, self.rate) = (pace.paused, rate);
            // What came at another rate is not paid for by this one.
            self.free_at = now_micros;
        }
        changes
    }

    /// When more may be asked for; `None`: now.
    pub(crate) fn shut_until(&self, now_micros: u64) -> Option<u64> {
        if self.paused {
            return Some(now_micros + PAUSE_MICROS);
        }
        (self.free_at > now_micros).then_some(self.free_at)
    }

    /// Records came.
    pub(crate) fn took(&mut self, records: u64, bytes: u64, now_micros: u64) {
        self.records += records;
        self.bytes += bytes;
        let (began, before) = self.window;
        let past = now_micros.saturating_sub(began);
        self.window.1 = before + bytes;
        if past >= WINDOW_MICROS {
            self.lately = per_second(before + bytes, past);
            self.window = (now_micros, 0);
        }
        if self.rate > 0 {
            let cost = u128::from(bytes) * 1_000_000 / u128::from(self.rate);
            let cost = u64::try_from(cost).unwrap_or(u64::MAX);
            self.free_at = self.free_at.max(now_micros).saturating_add(cost);
        }
    }

    /// What came, and how fast lately.
    pub(crate) fn figures(&self, now_micros: u64) -> Copying {
        let past = now_micros.saturating_sub(self.window.0);
        let bytes_per_second = match past {
            past if past >= WINDOW_MICROS => per_second(self.window.1, past),
            _ => self.lately,
        };
        let (records, bytes) = (self.records, self.bytes);
        Copying { records, bytes, bytes_per_second, ..Copying::default() }
    }
}

fn per_second(bytes: u64, micros: u64) -> u64 {
    let rate = u128::from(bytes) * 1_000_000 / u128::from(micros.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Gate, WINDOW_MICROS};
    use galvani_model::placement::Pace;

    fn at(bytes_per_second: u64) -> Pace {
        Pace { paused: false, bytes_per_second }
    }

    #[test]
    fn what_came_is_paid_for_before_more_is_asked_for() {
        let mut gate = Gate::default();
        gate.took(1, 1 << 30, 5);
        assert_eq!(gate.shut_until(5), None, "nobody asked for a limit");
        gate.set(at(4_000), 4, 10);
        gate.took(1, 500, 10);
        gate.took(1, 500, 10);
        assert_eq!(gate.shut_until(10), Some(1_000_010), "its share is 1000 bytes a second");
        assert_eq!(gate.shut_until(1_000_010), None);
        gate.set(at(0), 4, 20);
        assert_eq!(gate.shut_until(20), None, "nor is it paid for under another limit");
        gate.set(Pace { paused: true, bytes_per_second: 0 }, 4, 30);
        assert!(gate.shut_until(30).is_some_and(|at| at > 30));
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut gate = Gate::default();
        let mut now = WINDOW_MICROS;
        gate.took(0, 0, now);
        for _ in 0..4 {
            now += WINDOW_MICROS / 2;
            gate.took(2, 1_000, now);
        }
        let figures = gate.figures(now);
        assert_eq!((figures.records, figures.bytes, figures.bytes_per_second), (8, 4_000, 1_000));
        now += 100 * WINDOW_MICROS;
        assert_eq!(gate.figures(now).bytes_per_second, 0, "nothing came since");
    }
}
