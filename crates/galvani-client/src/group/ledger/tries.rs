//! Attempts that outlive the member that made them, so that an event which ends whoever holds it is given
//! up one day.
//!
//! An attempt that fails in order is counted here and kept with the next round. One that ends its member
//! leaves no word; but whoever takes the shard over knows that a member is gone. It is wary then: for a
//! while an attempt is kept in the store *before* the event is handed out, many events at a time. Events
//! that were kept so and come again are suspects: each is handed out alone, so that the next death tells
//! which one it was. Events of one write share their count.

use super::{Ledger, State};
use galvani_model::version::Dot;
use std::collections::BTreeMap;

/// How an event is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// When its turn comes.
    None,
    /// Once the attempt is kept.
    Noted,
    /// Likewise, and only while no other such event is held.
    Alone,
}

impl<T> Ledger<T> {
    /// The shard is taken over. `tries`: attempts that members made before. `wary`: one of them ended without
    /// a word and may have held some of its events.
    pub(crate) fn take_over(&mut self, tries: BTreeMap<Dot, u32>, wary: bool) {
        self.tries = tries;
        let delivered = self.cursor.delivered();
        self.tries.retain(|dot, _| !delivered.contains(*dot));
        self.wary = if wary { self.rules.max_in_flight } else { 0 };
    }

    /// What members held that are gone would have come by now.
    pub(crate) fn calm(&mut self) {
        self.wary = 0;
    }

    /// How an event of this write is handed out, which was handed out so often before.
    pub(super) fn care_of(&self, tries: u32) -> Care {
        match (tries, self.wary) {
            (1.., _) => Care::Alone,
            (0, 1..) => Care::Noted,
            (0, 0) => Care::None,
        }
    }

    /// Attempts that are to be kept now; `None`: nothing has changed. What waits to be handed out is among
    /// them, as far as it fits; of events that are handed out alone one, if `free`, which is no more then.
    pub(crate) fn note(&mut self, now_ms: u64, free: &mut bool) -> Option<BTreeMap<Dot, u32>> {
        let due = self.unnoted.iter().take_while(|(from_ms, _)| *from_ms <= now_ms);
        let due: Vec<u64> = due.map(|(_, number)| *number).collect();
        let mut room = self.rules.max_in_flight.saturating_sub(self.noted.len() + self.held.len());
        for number in due {
            let Some(unit) = self.units.get(&number) else { continue };
            let may = room > 0 && (unit.care != Care::Alone || *free);
            let Some(dot) = unit.dot().filter(|_| may) else { continue };
            *free &= unit.care != Care::Alone;
            room -= 1;
            self.tries.insert(dot, unit.attempt + 1);
            self.noting.push(number);
            self.tries_changed = true;
        }
        core::mem::take(&mut self.tries_changed).then(|| self.tries.clone())
    }

    /// What [`Ledger::note`] said was kept, or could not be.
    pub(crate) fn noted(&mut self, kept: bool) {
        let noting = core::mem::take(&mut self.noting);
        self.tries_changed |= !kept;
        for number in noting.into_iter().filter(|_| kept) {
            if self.units.get(&number).is_some_and(|it| matches!(it.state, State::Waiting { .. })) {
                self.disarm(number);
                self.noted.insert(number);
                self.arm(number);
            }
        }
    }

    /// Whether something waits for its attempt to be kept.
    pub(crate) fn awaits_note(&self, now_ms: u64) -> bool {
        self.noting.is_empty()
            && self.unnoted.first().is_some_and(|(from_ms, _)| *from_ms <= now_ms)
    }

    /// Whether an event is about to be handed out, or held, that is handed out alone.
    pub(crate) fn tries_one(&self) -> bool {
        let held = self.held.iter().map(|(_, number)| number);
        let mut out = self.noted.iter().chain(&self.noting).chain(held);
        // Without attempts there is none, and it need not be looked for.
        !self.tries.is_empty()
            && out.any(|number| self.units.get(number).is_some_and(|unit| unit.care == Care::Alone))
    }

    /// An attempt was in vain.
    pub(super) fn count(&mut self, number: u64) {
        let Some(unit) = self.units.get(&number) else { return };
        if let Some(dot) = unit.dot() {
            let known = self.tries.entry(dot).or_default();
            self.tries_changed |= *known < unit.attempt;
            *known = unit.attempt.max(*known);
        }
    }

    /// The group is done with a write.
    pub(super) fn uncount(&mut self, dot: Dot) {
        self.tries_changed |= self.tries.remove(&dot).is_some();
    }
}

#[cfg(test)]
mod tests;
