//! The only `now()` of a node: one reading for each tick.
//!
//! Deadlines use the monotonic part, which is tokio's time and whose zero is the node's start; dates
//! for people and the hybrid clock use the wall part, the network's, which may jump without harm.

use galvani_protocol::Now;
use galvani_transport::Network;
use std::time::Duration;
use tokio::time::Instant;

/// A node's clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    start: Instant,
    network: Network,
}

impl Clock {
    pub(crate) fn start(network: Network) -> Clock {
        Clock { start: Instant::now(), network }
    }

    pub(crate) fn now(&self) -> Now {
        let micros = self.start.elapsed().as_micros() as u64;
        Now { micros, unix_ms: self.network.unix_ms() }
    }

    /// The instant at which the clock will read `micros`.
    pub(crate) fn at(&self, micros: u64) -> Instant {
        self.start + Duration::from_micros(micros)
    }

    /// What the clock read at an instant.
    pub(crate) fn micros_at(&self, instant: std::time::Instant) -> u64 {
        let since = Instant::from_std(instant).saturating_duration_since(self.start);
        since.as_micros() as u64
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
