//! What a target is to the relay: it takes events in order, or says why not.
//!
//! A sink tries once. When to try again, and what to try meanwhile, is the courier's business
//! (`courier.rs`). One file for each kind of target.

pub(crate) mod command;
pub(crate) mod lines;
pub(crate) mod nats;
pub(crate) mod redis;
pub(crate) mod webhook;

use crate::outgoing::Outgoing;
use std::future::Future;
use std::time::Duration;

/// A target.
pub(crate) trait Sink: Sync {
    /// Delivers `events` from the front. Whatever is counted as taken is as safe at the target as the
    /// target makes it. May be dropped at any await: then nothing is known about the events.
    fn send(&self, events: &[Outgoing]) -> impl Future<Output = Sent> + Send;

    /// How many events one `send` may be given.
    fn run_max(&self) -> usize {
        1
    }

    /// Whether events of different keys may overtake each other. A file takes all in one order.
    fn by_key(&self) -> bool {
        true
    }

    /// Whether a try ends when its time is up.
    fn timed(&self) -> bool {
        true
    }
}

/// What became of the events of one `send`.
#[derive(Debug, PartialEq)]
pub(crate) struct Sent {
    /// How many, from the front, the target has.
    pub(crate) taken: usize,
    /// How many of these it knew already.
    pub(crate) known: usize,
    /// Why the next one was not taken; `None` if all were.
    pub(crate) failure: Option<Failure>,
}

impl Sent {
    /// One event was taken.
    pub(crate) fn one(known: bool) -> Sent {
        Sent { taken: 1, known: usize::from(known), failure: None }
    }

    /// None was taken.
    pub(crate) fn failed(failure: Failure) -> Sent {
        Sent { taken: 0, known: 0, failure: Some(failure) }
    }
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This try; another may succeed.
    Passing {
        /// What happened.
        why: String,
    },
    /// The target is not there, or asks for a pause: there is no use in trying other events.
    Down {
        /// What happened.
        why: String,
        /// How long it wants to be left alone.
        pause: Option<Duration>,
    },
    /// The target will never take this event.
    Refused {
        /// What it said.
        why: String,
    },
    /// The target will take no event until somebody does something about it.
    Unusable {
        /// What is wrong, and what to do.
        why: String,
    },
}

impl Failure {
    pub(crate) fn passing(why: impl Into<String>) -> Failure {
        Failure::Passing { why: why.into() }
    }

    pub(crate) fn down(why: impl Into<String>) -> Failure {
        Failure::Down { why: why.into(), pause: None }
    }

    pub(crate) fn refused(why: impl Into<String>) -> Failure {
        Failure::Refused { why: why.into() }
    }

    pub(crate) fn unusable(why: impl Into<String>) -> Failure {
        Failure::Unusable { why: why.into() }
    }
}
