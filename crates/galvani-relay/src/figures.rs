//! What a relay has done so far, for those who watch it.
//!
//! The relay itself is busy while it delivers, so the figures are behind a handle of their own that
//! can be read at any time from anywhere.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::SystemTime;

/// Figures since the relay was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Events that the target took, duplicates it knew included.
    pub delivered: u64,
    /// Tries that failed and were, or will be, made again.
    pub retried: u64,
    /// Events that the target, or this relay, knew to be delivered already.
    pub duplicates: u64,
    /// Deliveries under way.
    pub in_flight: usize,
    /// Since when nothing but failures has come from the target; `None`: it works, as far as is known.
    pub failing_since: Option<SystemTime>,
    /// The failure that was met last.
    pub last_failure: Option<String>,
}

/// A handle on the figures of a relay; copies show the same ones.
#[derive(Clone, Debug, Default)]
pub struct FiguresHandle(Arc<Mutex<Figures>>);

impl FiguresHandle {
    /// The figures now.
    pub fn read(&self) -> Figures {
        self.0.lock().clone()
    }

    pub(crate) fn taken(&self, count: usize, known: usize) {
        let mut figures = self.0.lock();
        figures.delivered += count as u64;
        figures.duplicates += known as u64;
        figures.failing_since = None;
    }

    pub(crate) fn known_here(&self) {
        self.0.lock().duplicates += 1;
    }

    pub(crate) fn failed(&self, why: &str, again: bool) {
        let mut figures = self.0.lock();
        figures.retried += u64::from(again);
        figures.failing_since.get_or_insert_with(SystemTime::now);
        figures.last_failure = Some(why.to_owned());
    }

    pub(crate) fn in_flight(&self, count: usize) {
        self.0.lock().in_flight = count;
    }
}
