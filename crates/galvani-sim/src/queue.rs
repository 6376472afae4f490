//! Events by virtual time; those of one instant come in the order they were put in.

use std::collections::BTreeMap;

/// What is to happen, earliest first.
#[derive(Clone, Debug)]
pub(crate) struct Queue<E> {
    events: BTreeMap<(u64, u64), E>,
    sequence: u64,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Queue<E> {
        Queue { events: BTreeMap::new(), sequence: 0 }
    }

    /// `event` happens at `micros`.
    pub(crate) fn push(&mut self, micros: u64, event: E) {
        self.sequence += 1;
        self.events.insert((micros, self.sequence), event);
    }

    /// The earliest event and its time, if it is due at or before `limit`.
    pub(crate) fn pop_until(&mut self, limit: u64) -> Option<(u64, E)> {
        let (&(micros, _), _) = self.events.first_key_value()?;
        if micros > limit {
            return None;
        }
        self.events.pop_first().map(|((micros, _), event)| (micros, event))
    }

    /// Whether every event that is to come is of this sort.
    pub(crate) fn all(&self, sort: impl Fn(&E) -> bool) -> bool {
        self.events.values().all(sort)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}
