//! What a lagged replica knows of itself: one row for the replica, one for each shard.
//!
//! Both are written in the batch of the records they speak of. Next to read: `journal.rs`.

use galvani_model::feed::Cursor;
use galvani_model::version::PartitionClock;
use serde::{Deserialize, Serialize};

/// The replica's own row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Records below this arrival number are in the base, and not in the journal any more.
    pub(crate) first: u64,
    /// The next arrival number. Numbers start at 1 and leave nothing out.
    pub(crate) next: u64,
    /// When the last record came that is in the base, in milliseconds since 1970.
    pub(crate) applied_wall_ms: u64,
    /// Bytes of the records in the journal.
    pub(crate) bytes: u64,
    /// The replica's own clock when this was written, in milliseconds: it runs while the replica does.
    pub(crate) tick_ms: u64,
    /// When the last record came, in milliseconds since 1970.
    pub(crate) last_wall_ms: u64,
    /// How long a record waits, in milliseconds.
    pub(crate) lag_ms: u64,
    /// Since when nothing is applied, in milliseconds since 1970.
    pub(crate) paused_ms: Option<u64>,
    /// Records below this number are applied whatever the lag says, also during a pause.
    pub(crate) advance: u64,
    /// Since when everything is here, in milliseconds since 1970; `None`: it has not caught up yet.
    pub(crate) seeded_ms: Option<u64>,
    /// Every write acknowledged before this moment is here; 0: not known.
    pub(crate) complete_ms: u64,
    /// Writes that no node had any more when this replica asked for them.
    pub(crate) gone: u64,
    /// When those were written, as far as can be told: in order, none touches the next. Rows of format
    /// 1 have none.
    #[serde(default)]
    pub(crate) holes: Vec<Hole>,
}

/// A time of which it is not known what was: writes of it were gone before they came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// Every write that was acknowledged before this is here, in milliseconds since 1970.
    pub from_ms: u64,
    /// When it was learned that some are gone: what is gone was written before.
    pub until_ms: u64,
}

impl Hole {
    /// Whether a moment is in it.
    pub fn contains(&self, at_ms: u64) -> bool {
        (self.from_ms..self.until_ms).contains(&at_ms)
    }
}

impl State {
    /// Of a replica that was just made.
    pub(crate) fn new(lag_ms: u64) -> State {
        State { first: 1, next: 1, lag_ms, ..State::default() }
    }

    /// Notes a hole that is not before the others. Those that end before `earliest_ms` are of no use
    /// any more.
    pub(crate) fn note_hole(&mut self, hole: Hole, earliest_ms: u64) {
        self.holes.retain(|old| old.until_ms > earliest_ms);
        match self.holes.last_mut() {
            Some(last) if last.until_ms >= hole.from_ms => {
                last.from_ms = last.from_ms.min(hole.from_ms);
                last.until_ms = last.until_ms.max(hole.until_ms);
            }
            Some(_) | None => self.holes.push(hole),
        }
        if self.holes.len() > HOLES_MAX {
            // What is between the first two counts as unknown, too.
            let first = self.holes.remove(0);
            self.holes[0].from_ms = first.from_ms;
        }
    }

    /// How many records wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.next - self.first
    }
}

/// A shard's row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardState {
    /// How often the position was put somewhere else on purpose.
    pub(crate) resets: u32,
    /// Writes that are overdue in the shard's feed.
    pub(crate) owed: PartitionClock,
    /// The writes that are in the journal or in the base.
    pub(crate) taken: PartitionClock,
    /// Writes that no node had any more.
    pub(crate) gone: PartitionClock,
}

impl ShardState {
    /// All that need not come any more.
    pub(crate) fn done(&self) -> PartitionClock {
        let mut done = self.taken.clone();
        done.union(&self.gone);
        done
    }

    /// Where to go on in the shard's feed: it is done with what is held and what is gone, exactly.
    pub(crate) fn position(&self) -> Cursor {
        let mut position = Cursor::at(self.done());
        position.resets = self.resets;
        position.owe_all(&self.owed);
        position.settle();
        position
    }
}

/// Holes that are told apart: a replica that is away so often has few whole moments.
const HOLES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::{HOLES_MAX, Hole, State};
    use galvani_storage::format::rows;

    fn hole(from_ms: u64, until_ms: u64) -> Hole {
        Hole { from_ms, until_ms }
    }

    #[test]
    fn holes_that_touch_are_one_and_those_that_are_past_go() {
        let mut state = State::new(1);
        state.note_hole(hole(10, 20), 1);
        state.note_hole(hole(10, 25), 1);
        state.note_hole(hole(25, 30), 1);
        assert_eq!(state.holes, [hole(10, 30)]);
        state.note_hole(hole(40, 50), 29);
        assert_eq!(state.holes, [hole(10, 30), hole(40, 50)]);
        state.note_hole(hole(60, 70), 30);
        assert_eq!(state.holes, [hole(40, 50), hole(60, 70)]);
        assert!(hole(40, 50).contains(40) && !hole(40, 50).contains(50));
        let mut many = State::new(1);
        (0..2 * HOLES_MAX as u64).for_each(|n| many.note_hole(hole(10 * n, 10 * n + 5), 0));
        assert_eq!((many.holes.len(), many.holes[0].from_ms), (HOLES_MAX, 0));
        assert!((0..10 * HOLES_MAX as u64).all(|at| many.holes[0].contains(at)));
    }

    #[test]
    fn a_row_of_format_1_has_no_holes() {
        let old =
            (3u64, 5u64, 7u64, 8u64, 9u64, 10u64, 11u64, None::<u64>, 0u64, Some(4u64), 6u64, 2u64);
        let mut row = Vec::new();
        rows::put(b"state", &old, &mut row);
        let state: State = rows::get(b"state", &row).expect("it is read");
        let expected = State { first: 3, next: 5, seeded_ms: Some(4), gone: 2, ..state.clone() };
        assert_eq!((&state, state.lag_ms), (&expected, 11));
        assert!(state.holes.is_empty());
    }
}
