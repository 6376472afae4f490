//! Steering a lagged replica: pause, resume, the lag, and going on to a chosen point.
//!
//! What was said is durable when a call returns, and holds over restarts. Nothing here applies a
//! record: `replica.rs` does, step by step. What a change would cost can be asked before it is made.
//! Next to read: `status.rs`.

use crate::error::LaggedError;
use crate::keys::At;
use crate::replica::{Lagged, check_lag};
use crate::state::State;
use galvani_model::ids::RequestId;
use galvani_model::version::Dot;
use galvani_protocol::Now;
use galvani_storage::engine::{Durability, Engine};
use serde::{Deserialize, Serialize};

/// How far to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Through all that came here by this moment, in milliseconds since 1970.
    Time(u64),
    /// Through all that came here before the write of this name.
    Before(Dot),
    /// Through all that came here before the first write of this request.
    BeforeRequest(RequestId),
}

/// A change that makes records due, and takes moments from the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Another lag, in milliseconds.
    Lag(u64),
    /// Going on to a point.
    Advance(Until),
}

/// What a change would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// The lag now, in milliseconds.
    pub lag_ms: u64,
    /// Records that would go to the base: at once, or when a pause ends.
    pub records: u64,
    /// The earliest moment that can be shown now, in milliseconds since 1970; `None`: it has not
    /// caught up yet.
    pub earliest_ms: Option<u64>,
    /// The earliest moment that could be shown after it.
    pub earliest_then_ms: Option<u64>,
}

impl<E: Engine> Lagged<E> {
    /// Applies nothing any more until [`Lagged::resume`]; records still come in. A second pause changes
    /// nothing. Returns since when it stands, in milliseconds since 1970.
    pub fn pause(&mut self, now: Now) -> Result<u64, LaggedError> {
        if let Some(since) = self.journal.state().paused_ms {
            return Ok(since);
        }
        self.change(now, |state| state.paused_ms = Some(now.unix_ms))?;
        Ok(now.unix_ms)
    }

    /// Ends a pause. What became due meanwhile is applied at once, so the replica is its lag behind
    /// again, and no more.
    pub fn resume(&mut self, now: Now) -> Result<(), LaggedError> {
        match self.journal.state().paused_ms {
            None => Ok(()),
            Some(_) => self.change(now, |state| state.paused_ms = None),
        }
    }

    /// Changes the lag, in milliseconds. A shorter one makes records due at once; a longer one is full
    /// when as much time has passed, for the base does not go back.
    pub fn set_lag(&mut self, lag_ms: u64, now: Now) -> Result<(), LaggedError> {
        check_lag(lag_ms)?;
        self.change(now, |state| state.lag_ms = lag_ms)
    }

    /// Makes records due whatever the lag says, also during a pause. There is no way back. Returns how
    /// many records that are.
    pub fn advance(&mut self, until: Until, now: Now) -> Result<u64, LaggedError> {
        let number = self.number_of(until, now)?;
        let due = number - self.journal.state().first;
        self.change(now, |state| state.advance = state.advance.max(number))?;
        Ok(due)
    }

    /// What a change would do now; it is not made.
    pub fn foresee(&mut self, change: Change, now: Now) -> Result<Foreseen, LaggedError> {
        let tick_ms = self.clock.read(now);
        let number = match change {
            Change::Lag(lag_ms) => {
                check_lag(lag_ms)?;
                self.first_that(|at| at.tick_ms.saturating_add(lag_ms) > tick_ms)?
            }
            Change::Advance(until) => self.number_of(until, now)?,
        };
        let state = self.journal.state();
        let earliest_ms = self.earliest_ms();
        let last = match number > state.first {
            true => self.journal.place_from(number - 1)?,
            false => None,
        };
        let moved = |earliest: u64| last.map_or(earliest, |at| earliest.max(at.wall_ms));
        Ok(Foreseen {
            lag_ms: state.lag_ms,
            records: number - state.first,
            earliest_ms,
            earliest_then_ms: earliest_ms.map(moved),
        })
    }

    /// The writes in the journal or in the base whose origin begins with these digits.
    pub fn named_like(&self, origin: &str, counter: u64) -> Vec<Dot> {
        let taken = self.journal.shards().values().map(|of| &of.taken);
        let ranges = taken.flat_map(|taken| taken.ranges());
        let like = ranges.filter(|range| {
            (range.first..=range.last).contains(&counter)
                && range.origin.to_string().starts_with(origin)
        });
        like.map(|range| Dot::new(range.origin, counter)).collect()
    }

    /// Whether a write is in the journal or in the base.
    pub(crate) fn has_taken(&self, dot: Dot) -> bool {
        self.journal.shards().values().any(|of| of.taken.contains(dot))
    }

    /// The number of the first record that is not before a point, which is at or after those that wait.
    fn number_of(&self, until: Until, now: Now) -> Result<u64, LaggedError> {
        let number = match until {
            Until::Time(asked_ms) if asked_ms > now.unix_ms => {
                return Err(LaggedError::Future { asked_ms, now_ms: now.unix_ms });
            }
            Until::Time(unix_ms) => self.first_that(|at| at.wall_ms > unix_ms)?,
            Until::Before(dot) => match self.journal.of_dot(dot)? {
                Some(at) => at.number,
                None if self.has_taken(dot) => return Err(LaggedError::Behind),
                None => return Err(LaggedError::UnknownDot { dot }),
            },
            Until::BeforeRequest(request) => {
                let places = self.journal.of_request(request)?;
                places.first().ok_or(LaggedError::UnknownRequest { request })?.number
            }
        };
        match number < self.journal.state().first {
            true => Err(LaggedError::Behind),
            false => Ok(number),
        }
    }

    /// The number of the first record that waits of whose place `later` is true. The times of places
    /// never go back in order of arrival, by either clock.
    fn first_that(&self, later: impl Fn(&At) -> bool) -> Result<u64, LaggedError> {
        let state = self.journal.state();
        let (mut low, mut high) = (state.first, state.next);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.journal.place_from(middle)? {
                Some(at) if !later(&at) => low = middle + 1,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    fn change(&mut self, now: Now, what: impl FnOnce(&mut State)) -> Result<(), LaggedError> {
        let mut state = self.journal.state().clone();
        state.tick_ms = self.clock.read(now);
        what(&mut state);
        self.journal.write(state, Durability::Fsync)
    }
}
