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
}

impl State {
    /// Of a replica that was just made.
    pub(crate) fn new(lag_ms: u64) -> State {
        State { first: 1, next: 1, lag_ms, ..State::default() }
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
