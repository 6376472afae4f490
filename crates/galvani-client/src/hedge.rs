//! Reads that are asked twice: how many may be, and how many were.
//!
//! A read that its node has not answered after that node's 95th percentile (`galvani_model::quantile`) is
//! asked of the next owner as well. [`Hedging`] keeps these to a twentieth of the reads, so that a cluster
//! that is slow everywhere is not loaded further, and to none for a while once a node says that it is
//! overloaded. What goes beyond waits until its node counts as late (`health.rs`).
//! Source: Dean and Barroso, "The Tail at Scale" (2013), hedged requests.

use crate::retry::Budget;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads of a client that were asked of a second node because the first took long, since it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hedges {
    /// Second requests that were sent: a twentieth of all reads at most, and 20 at once.
    pub sent: u64,
    /// Of those, how many answered first.
    pub won: u64,
    /// Reads that took as long, and for which the allowance had nothing left.
    pub refused: u64,
}

/// The allowance, and what became of it. Shared by all calls of a client.
#[derive(Debug)]
pub(crate) struct Hedging {
    allowance: Budget,
    sent: AtomicU64,
    won: AtomicU64,
    refused: AtomicU64,
}

impl Hedging {
    pub(crate) fn new() -> Hedging {
        Hedging {
            allowance: Budget::of_hedges(),
            sent: AtomicU64::new(0),
            won: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// A read began: earns its share.
    pub(crate) fn earn(&self) {
        self.allowance.earn();
    }

    /// Whether one more may be sent; counted either way.
    pub(crate) fn take(&self) -> bool {
        let taken = self.allowance.spend();
        let counter = if taken { &self.sent } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        taken
    }

    /// One that was sent answered first.
    pub(crate) fn note_won(&self) {
        self.won.fetch_add(1, Ordering::Relaxed);
    }

    /// A node has more to do than it can: what is asked twice must be earned anew.
    pub(crate) fn note_overload(&self) {
        self.allowance.forfeit();
    }

    pub(crate) fn figures(&self) -> Hedges {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Hedges { sent: read(&self.sent), won: read(&self.won), refused: read(&self.refused) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hedges, Hedging};

    #[test]
    fn what_is_asked_twice_is_a_twentieth_and_counted() {
        let hedging = Hedging::new();
        (0..20).for_each(|_| assert!(hedging.take(), "the first are at hand"));
        let taken = (0..1_000).filter(|_| {
            hedging.earn();
            hedging.take()
        });
        assert_eq!(taken.count(), 50);
        hedging.note_won();
        assert_eq!(hedging.figures(), Hedges { sent: 70, won: 1, refused: 950 });
    }

    #[test]
    fn overload_takes_what_was_left() {
        let hedging = Hedging::new();
        hedging.note_overload();
        assert!(!hedging.take());
        (0..19).for_each(|_| hedging.earn());
        assert!(!hedging.take());
        hedging.earn();
        assert!(hedging.take());
    }
}
