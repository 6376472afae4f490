//! The only `now()` of a node: one reading for each tick.
//!
//! Deadlines use the monotonic part, whose zero is the node's start; dates for people and the
//! hybrid clock use the wall part, which may jump without harm.

use galvani_protocol::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A node's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { micros: self.start.elapsed().as_micros() as u64, unix_ms: wall.as_millis() as u64 }
    }

    /// The instant at which the clock will read `micros`.
    pub(crate) fn at(&self, micros: u64) -> Instant {
        self.start + Duration::from_micros(micros)
    }

    /// What the clock read at an instant.
    pub(crate) fn micros_at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.start).as_micros() as u64
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
