//! Clocks that are wrong by far: dates ten years off and back again, and clocks that run at twice the
//! speed, or at half of it.
//!
//! What a node's lanes are told of the time comes from one clock: elapsed time never goes back and has
//! its speed, the date is elapsed time and what the date was set to. Drawn in some seeds only, from dice of
//! its own. Next to read: `faults.rs`, which sets dates by up to an hour.

use crate::mutant::Mutant;
use crate::packet::{Event, LaneAt};
use crate::world::World;
use galvani_model::limits::REQUEST_ID_RETENTION_MS;

/// Lanes count from one second before the world does, in microseconds.
pub(crate) const LANES_BEGIN_MICROS: u64 = 1_000_000;
/// Ten years, in milliseconds.
const DECADE_MS: i64 = 10 * 365 * 24 * 3600 * 1000;
/// Ticks of a thousand in which requests are forgotten.
const FORGETS: u64 = 50;
/// Request rows that are looked at then.
const REQUESTS_LOOKED_AT: usize = 1_000;

/// How fast a clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    Right,
    Double,
    Half,
}

/// The elapsed time of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    speed: Speed,
    /// When its speed was last set, in the world's microseconds, and what it showed then.
    since: u64,
    showed: u64,
    /// Whether it ever ran at another speed than the world.
    strayed: bool,
}

impl Clock {
    /// A clock that is right.
    pub(crate) fn new() -> Clock {
        Clock { speed: Speed::Right, since: 0, showed: LANES_BEGIN_MICROS, strayed: false }
    }

    /// What it shows at `now`, in the lanes' microseconds.
    pub(crate) fn shows(&self, now: u64) -> u64 {
        let passed = now - self.since;
        self.showed
            + match self.speed {
                Speed::Right => passed,
                Speed::Double => 2 * passed,
                Speed::Half => passed / 2,
            }
    }

    /// When it shows `micros`, in the world's microseconds; when its speed was set, if it does already.
    pub(crate) fn when_it_shows(&self, micros: u64) -> u64 {
        let wait = micros.saturating_sub(self.showed);
        self.since.saturating_add(match self.speed {
            Speed::Right => wait,
            Speed::Double => wait.div_ceil(2),
            Speed::Half => wait.saturating_mul(2),
        })
    }

    /// It runs at another speed from `now` on.
    pub(crate) fn run_at(&mut self, speed: Speed, now: u64) {
        (self.showed, self.since) = (self.shows(now), now);
        self.speed = speed;
        self.strayed |= speed != Speed::Right;
    }

    /// Whether it ever ran at another speed than the world.
    pub(crate) fn has_strayed(&self) -> bool {
        self.strayed
    }
}

impl World {
    /// The next clock that goes wrong or is put right, and when the one after it is.
    pub(crate) fn turn_a_clock(&mut self) {
        let Some(clocks) = self.profile.clocks.filter(|_| !self.calm) else { return };
        let node = self.dice.clocks.index(self.nodes.len());
        if clocks.decades && (!clocks.speeds || self.dice.clocks.chance(500)) {
            self.set_date(node);
        } else {
            self.change_speed(node);
        }
        let wait = self.dice.clocks.between(clocks.pace / 4, clocks.pace * 2);
        self.queue.push(self.now + wait, Event::Clocks);
    }

    /// A date goes ten years ahead, or sometimes back; one that is so far off is put right.
    fn set_date(&mut self, node: usize) {
        let back = self.dice.clocks.chance(250);
        let before = self.nodes[node].wall_ahead_ms;
        let ahead_ms = match before.abs() > DECADE_MS / 2 {
            true => 0,
            false if back => -DECADE_MS,
            false => DECADE_MS,
        };
        let name = if ahead_ms == 0 { "fault.decade_undone" } else { "fault.decade" };
        self.coverage.add(name, 1);
        self.trace.note(self.now, &[31, node as u64, ahead_ms as u64], || {
            format!("the date of node {node} is {ahead_ms} ms ahead")
        });
        self.nodes[node].set_from = Some((self.now, before));
        self.nodes[node].wall_ahead_ms = ahead_ms;
    }

    fn change_speed(&mut self, node: usize) {
        let others = match self.nodes[node].clock.speed {
            Speed::Right => [Speed::Double, Speed::Half],
            Speed::Double => [Speed::Right, Speed::Half],
            Speed::Half => [Speed::Right, Speed::Double],
        };
        let speed = self.dice.clocks.pick(&others);
        self.coverage.add("fault.clock_speed", 1);
        self.run_clock_at(node, speed);
    }

    /// A node's clock runs at another speed from now on.
    pub(crate) fn run_clock_at(&mut self, node: usize, speed: Speed) {
        self.trace.note(self.now, &[32, node as u64, speed as u64], || {
            format!("the clock of node {node} runs at {speed:?} speed")
        });
        self.nodes[node].clock.run_at(speed, self.now);
        // What is due was worked out by the speed before.
        for lane in 0..self.nodes[node].lanes.len() {
            self.schedule_tick(LaneAt { node, lane }, self.now + 1);
        }
    }

    /// Forgets requests past their retention, now and then, as the node's lane loop does. In seeds with
    /// dates that are far off only: no run is a day long.
    pub(crate) fn forget_requests(&mut self, to: LaneAt) {
        if self.profile.clocks.is_none_or(|clocks| !clocks.decades)
            || !self.dice.clocks.chance(FORGETS)
        {
            return;
        }
        let now = self.now_of(to.node);
        let store = self.nodes[to.node].lanes[to.lane].store.inner();
        let by_date_alone = now.unix_ms.saturating_sub(REQUEST_ID_RETENTION_MS);
        let forgotten = match self.mutant {
            Some(Mutant::TrustsTheDate) => store.sweep_requests(by_date_alone, REQUESTS_LOOKED_AT),
            _ => store.forget_requests(now.unix_ms, REQUESTS_LOOKED_AT),
        };
        match forgotten {
            Ok(count) => self.coverage.add("requests.forgotten", count as u64),
            // As the node: it is tried again.
            Err(_) => self.coverage.add("requests.unread", 1),
        }
    }

    /// Every clock runs at the right speed from now on; what dates were set to stays.
    pub(crate) fn set_speeds_right(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].clock.speed != Speed::Right {
                self.run_clock_at(node, Speed::Right);
            }
        }
    }

    /// How much longer than by the world's clock a node may wait for something.
    pub(crate) fn slowest(&self) -> u64 {
        if self.profile.clocks.is_some_and(|clocks| clocks.speeds) { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, LANES_BEGIN_MICROS, Speed};

    #[test]
    fn elapsed_time_never_goes_back_and_comes_back_to_the_moment_it_was_shown() {
        let mut clock = Clock::new();
        assert_eq!(clock.shows(7), LANES_BEGIN_MICROS + 7);
        clock.run_at(Speed::Double, 100);
        assert_eq!(clock.shows(100), LANES_BEGIN_MICROS + 100, "nothing jumps");
        assert_eq!(clock.shows(150), LANES_BEGIN_MICROS + 200);
        assert_eq!(clock.when_it_shows(LANES_BEGIN_MICROS + 201), 151, "not before it does");
        clock.run_at(Speed::Half, 200);
        assert_eq!(clock.shows(210), LANES_BEGIN_MICROS + 305);
        assert_eq!(clock.when_it_shows(LANES_BEGIN_MICROS + 305), 210);
        clock.run_at(Speed::Right, 210);
        assert_eq!(clock.shows(211), LANES_BEGIN_MICROS + 306);
        assert_eq!(clock.when_it_shows(u64::MAX), u64::MAX - LANES_BEGIN_MICROS - 305 + 210);
        assert!(clock.has_strayed() && !Clock::new().has_strayed());
    }
}
