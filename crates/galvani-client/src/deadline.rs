//! The time one call has: everything it does, its retries and its rounds fit into one of these.
//!
//! Made when the call is awaited, before anything else is done. Next to read: `call.rs`.

use std::time::Duration;
use tokio::time::Instant;

/// The time a call has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    started: Instant,
    at: Instant,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Deadline {
        let started = Instant::now();
        Deadline { started, at: started + timeout }
    }

    /// Milliseconds a server may take: what is left, less a little for the way back, so that its
    /// account of who answered still arrives. At least 1.
    pub(crate) fn server_ms(&self) -> u32 {
        let left = self.at.saturating_duration_since(Instant::now());
        let left = left - (left / 20).min(WAY_BACK_MAX);
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn has_passed(&self) -> bool {
        Instant::now() >= self.at
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits, but not beyond the deadline.
    pub(crate) async fn sleep(&self, pause: Duration) {
        tokio::time::sleep_until((Instant::now() + pause).min(self.at)).await;
    }

    /// Silence after which a node is joined by another: a quarter of the time, within bounds.
    pub(crate) fn stall_after(&self) -> Duration {
        (self.at.saturating_duration_since(self.started) / 4).clamp(STALL_MIN, STALL_MAX)
    }
}

/// Time left for a server's account to travel back.
const WAY_BACK_MAX: Duration = Duration::from_millis(50);
/// Silence after which another node is asked too: a quarter of the call's time, within bounds.
const STALL_MIN: Duration = Duration::from_millis(100);
const STALL_MAX: Duration = Duration::from_secs(1);
