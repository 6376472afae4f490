//! How a delivery fails for good.
//!
//! Failures that pass are not here: the relay tries again. Whatever is here names the event it met, and
//! gives back every event that the target is not known to have.

use crate::outgoing::Outgoing;
use std::time::Duration;

/// A delivery that was given up. Events of the batch that the target took before are not delivered again
/// when the same relay is given them once more.
#[derive(Debug, thiserror::Error)]
#[error("event {id} ({subject}) was not delivered to {target}: {reason}")]
pub struct RelayError {
    /// The event that failed.
    pub id: String,
    /// Its topic or bucket.
    pub subject: String,
    /// The target, without secrets.
    pub target: String,
    /// Why.
    #[source]
    pub reason: Reason,
    /// The events that the target is not known to have, the failed one among them; those of one order
    /// key in their order.
    pub unsent: Vec<Outgoing>,
}

/// Why a delivery was given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The target refuses this event; others may go on without it.
    #[error("the target refuses it: {why}")]
    Refused {
        /// What the target said.
        why: String,
    },
    /// The target takes no event as it is set up; nothing goes on before that is mended.
    #[error("the target cannot be used: {why}")]
    Unusable {
        /// What is wrong, and what to do.
        why: String,
    },
    /// Tries or time are used up. The target may have the event: deliver it under the same id.
    #[error("given up after {tries} tries in {} ms, the last: {why}", .after.as_millis())]
    GaveUp {
        /// How often it was tried.
        tries: u32,
        /// How long since the first try.
        after: Duration,
        /// How the last try failed.
        why: String,
    },
}

/// A target that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {target}: {why}")]
pub struct OpenError {
    /// The target, without secrets.
    pub target: String,
    /// What is wrong, and what to do.
    pub why: String,
}
