//! What a ledger holds: the units that are handed out, and by what rules.
//!
//! Plain values. Next to read: the ledger itself, `../ledger.rs`.

use super::tries::Care;
use galvani_model::version::{Dot, PartitionClock};

/// What becomes of a key whose event was delivered as often as it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPoison {
    /// The event and all later ones of its key go to the dead letters until they are retried or
    /// dropped; other keys go on. Keeps the order of each key.
    #[default]
    ParkKey,
    /// The event alone goes to the dead letters. Later ones of its key overtake it.
    Skip,
    /// The event goes to the dead letters, and its shard stands still until it is retried or dropped.
    Halt,
}

/// By what rules events are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Whether one event of a key is held at a time.
    pub(crate) ordered: bool,
    /// Most events held at once.
    pub(crate) max_in_flight: usize,
    /// How often an event is delivered at most.
    pub(crate) max_deliver: u32,
    /// How long a consumer may hold one without a word.
    pub(crate) ack_wait_ms: u64,
    pub(crate) on_poison: OnPoison,
}

/// What is acknowledged with a unit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Covers {
    /// A write, or one of several events of it.
    Write(Dot),
    /// Writes that are gone. Such a unit never dies.
    Gone(PartitionClock),
    /// Nothing: a dead letter that is retried. The group is done with the write already.
    Letter,
}

/// One thing to hand out.
#[derive(Debug)]
pub(crate) struct Unit<T> {
    /// Its key, hashed; `None`: it belongs to none.
    pub(crate) line: Option<u64>,
    pub(crate) payload: T,
    /// How often it was handed out.
    pub(crate) attempt: u32,
    /// Why it was not acknowledged last time.
    pub(crate) error: String,
    /// What it takes in memory.
    pub(super) bytes: usize,
    pub(super) covers: Covers,
    pub(super) care: Care,
    pub(super) state: State,
}

impl<T> Unit<T> {
    /// Its write; `None`: it is no event of one.
    pub(super) fn dot(&self) -> Option<Dot> {
        match self.covers {
            Covers::Write(dot) => Some(dot),
            Covers::Gone(_) | Covers::Letter => None,
        }
    }
}

/// Where a unit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting { from_ms: u64 },
    Held { until_ms: u64 },
    Dying,
}
