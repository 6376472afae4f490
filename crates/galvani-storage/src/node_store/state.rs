//! Loading the state of a shard, and working it out anew when its rows are damaged.
//!
//! A clock row grows with the shard's history, so it is not written with every record: each record's
//! arrival row tells what changed, in the same batch, and the clock row is written now and then, or
//! when anything else changed. If one of them fails its checksum, or is gone while the log is not, log,
//! arrivals, objects and the index of tombstones say the same again: S = dots(log) and T (INV-1); what
//! was trimmed, T, has a row of its own beside the clock row. The own counter is then in doubt and is
//! not kept. Next to read: `mod.rs`.

use super::trim::TrimmedRow;
use super::{NodeStore, parse, store_error};
use crate::engine::{Engine, EngineError, Table};
use crate::format::{RowError, keys, rows};
use bytes::Bytes;
use galvani_model::hlc::Hlc;
use galvani_model::ids::Shard;
use galvani_model::store::{Damage, OwnOrigin, ReplicaState, StoreError};
use galvani_model::version::{Digest, Dot, object_digest};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// What an arrival row tells: a record's dot, and its shard's state after it, but for the clock,
/// which is that before it and the dot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Arrival {
    dot: Dot,
    own: Option<OwnOrigin>,
    digest: Digest,
    tombstones: u64,
    expiring: u64,
    latest: Hlc,
}

impl Arrival {
    pub(super) fn of(state: &ReplicaState, dot: Dot) -> Arrival {
        let &ReplicaState { own, digest, tombstones, expiring, latest, .. } = state;
        Arrival { dot, own, digest, tombstones, expiring, latest }
    }

    pub(super) fn dot(&self) -> Dot {
        self.dot
    }

    fn add_to(self, state: &mut ReplicaState) {
        let Arrival { dot, own, digest, tombstones, expiring, latest } = self;
        state.clock.insert(dot);
        state.arrivals += 1;
        *state = ReplicaState {
            clock: core::mem::take(&mut state.clock),
            trimmed: core::mem::take(&mut state.trimmed),
            trimmed_until: state.trimmed_until,
            unknown_until: state.unknown_until,
            arrivals: state.arrivals,
            own,
            digest,
            tombstones,
            expiring,
            latest,
        };
    }
}

/// A shard's state as it is stored: its clock row, and the arrivals since. With it the number of
/// arrivals that the row knows of; `None` where there is no row.
pub fn stored_state<E: Engine>(
    engine: &E,
    shard: Shard,
) -> Result<Option<(ReplicaState, u64)>, StateError> {
    let key = keys::shard(shard);
    let Some(row) = engine.get(Table::Clocks, &key)? else { return Ok(None) };
    let mut state: ReplicaState = rows::get(&key, &row)?;
    let checkpoint = state.arrivals;
    let mut failed = None;
    let mut add = |row_key: &[u8], row: &[u8]| {
        let next = keys::arrival(shard, state.arrivals);
        let arrival = match row_key == next {
            true => rows::get::<Arrival>(row_key, row),
            false => Err(RowError::Gone),
        };
        match arrival {
            Ok(arrival) => {
                arrival.add_to(&mut state);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    let start = keys::arrival(shard, checkpoint);
    let end = keys::after_prefix(&key);
    engine.scan(Table::Arrivals, &start, end.as_deref(), usize::MAX, &mut add)?;
    match failed {
        None => Ok(Some((state, checkpoint))),
        Some(error) => Err(error.into()),
    }
}

/// Why a shard's stored state cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Its clock row, or an arrival since, is damaged.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The engine failed.
    #[error(transparent)]
    Engine(EngineError),
}

impl From<EngineError> for StateError {
    fn from(error: EngineError) -> StateError {
        match error {
            EngineError::Corrupt { what, .. } => RowError::Unreadable { why: what }.into(),
            error => StateError::Engine(error),
        }
    }
}

impl<E: Engine> NodeStore<E> {
    /// The state of a shard as the engine has it; without its origin where that must not be used.
    pub(super) fn load_state(&mut self, shard: Shard) -> Result<ReplicaState, StoreError> {
        self.checkpoints.remove(&shard);
        let mut state = match stored_state(&*self.engine, shard) {
            Err(StateError::Engine(error)) => return Err(store_error(error)),
            Err(StateError::Row(error)) => self.state_anew(shard, &error)?,
            Ok(None) if self.has_log(shard)? => self.state_anew(shard, &RowError::Gone)?,
            Ok(None) => ReplicaState::default(),
            Ok(Some((state, checkpoint))) => {
                self.checkpoints.insert(shard, checkpoint);
                state
            }
        };
        if !self.config.keep_origins || self.renewed.contains(&shard) {
            state.own = None;
        }
        Ok(state)
    }

    /// Reports the damaged clock row, and works the state out without it.
    fn state_anew(&mut self, shard: Shard, error: &RowError) -> Result<ReplicaState, StoreError> {
        self.quarantine(format!("{shard} clock"), error);
        let mut state = self.derive_state(shard)?;
        // A log row may be gone whose request row is there.
        state.latest = Hlc(u64::MAX);
        // The next commit writes it anew, unless it would fail, and the reads of the tick with it.
        if self.accepts().is_ok() {
            self.dirty.insert(shard);
            self.damaged.mended += 1;
        }
        Ok(state)
    }

    /// Whether the shard's log has any record.
    fn has_log(&self, shard: Shard) -> Result<bool, StoreError> {
        let prefix = keys::shard(shard);
        let end = keys::after_prefix(&prefix);
        let mut found = false;
        let mut see = |_: &[u8], _: &[u8]| {
            found = true;
            ControlFlow::Break(())
        };
        self.engine.scan(Table::Log, &prefix, end.as_deref(), 1, &mut see).map_err(store_error)?;
        Ok(found)
    }

    /// The origin that the stored state names, whether it may be used or not.
    pub(super) fn stored_origin(&self, shard: Shard) -> Result<Option<OwnOrigin>, StoreError> {
        match stored_state(&*self.engine, shard) {
            Ok(stored) => Ok(stored.and_then(|(state, _)| state.own)),
            Err(StateError::Row(_)) => Ok(None),
            Err(StateError::Engine(error)) => Err(store_error(error)),
        }
    }

    /// Whether the log has nothing of an origin beyond what the stored state says it has minted: a newest
    /// arrival row that is gone leaves no hole.
    pub(super) fn is_newest(&self, shard: Shard, own: OwnOrigin) -> Result<bool, StoreError> {
        let next = keys::log(shard, Dot::new(own.origin, own.counter + 1));
        Ok(self.get(Table::Log, &next)?.is_none())
    }

    /// The state that log, arrivals, objects and indexes add up to, without an origin.
    pub fn derive_state(&mut self, shard: Shard) -> Result<ReplicaState, StoreError> {
        let prefix = keys::shard(shard);
        let end = keys::after_prefix(&prefix);
        let mut state = ReplicaState::default();
        let mut see = |key: &[u8], row: &[u8]| {
            if let Some(dot) = keys::dot_of_log(key) {
                state.clock.insert(dot);
                let record = rows::get_record(key, &Bytes::copy_from_slice(row));
                // Of a damaged one nothing is known: it may be later than any.
                let issued = record.map_or(Hlc(u64::MAX), |record| record.head.hlc);
                state.latest = state.latest.max(issued);
            }
            ControlFlow::Continue(())
        };
        let end = end.as_deref();
        self.engine.scan(Table::Log, &prefix, end, usize::MAX, &mut see).map_err(store_error)?;
        // There is one arrival for each record. Where some cannot be read there may be more of them.
        state.arrivals = state.clock.ranges().map(|range| range.last - range.first + 1).sum();
        let mut count = |key: &[u8], _: &[u8]| {
            let number = key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            state.arrivals = state.arrivals.max(number.map_or(0, |number| number + 1));
            ControlFlow::Continue(())
        };
        match self.engine.scan(Table::Arrivals, &prefix, end, usize::MAX, &mut count) {
            Ok(()) => {}
            Err(EngineError::Corrupt { what, .. }) => {
                self.quarantine(format!("{shard} arrivals"), &RowError::Unreadable { why: what });
            }
            Err(error) => return Err(store_error(error)),
        }
        let TrimmedRow { dots, until, unknown_until } = self.stored_trimmed(shard)?;
        (state.trimmed, state.trimmed_until, state.unknown_until) = (dots, until, unknown_until);
        state.clock.union(&state.trimmed);
        state.digest = self.derive_digest(shard)?;
        state.tombstones = self.count_rows(Table::Tombstones, shard)?;
        state.expiring = self.count_rows(Table::Expiring, shard)?;
        Ok(state)
    }

    /// The digest of the objects as they are stored.
    fn derive_digest(&mut self, shard: Shard) -> Result<Digest, StoreError> {
        let prefix = keys::shard(shard);
        let end = keys::after_prefix(&prefix);
        let mut digest = Digest::default();
        let mut damaged = Vec::new();
        let mut add = |row_key: &[u8], row: &[u8]| {
            match parse::object(row_key, row) {
                Ok((key, object)) => {
                    digest.replace(Digest::default(), object_digest(&key, &object));
                }
                Err(error) => damaged.push((parse::object_key(row_key), error)),
            }
            ControlFlow::Continue(())
        };
        self.engine
            .scan(Table::Objects, &prefix, end.as_deref(), usize::MAX, &mut add)
            .map_err(store_error)?;
        // Its part is missing: the digest is worked out again when the row is mended.
        for (key, error) in damaged {
            match key {
                Ok(key) => self.damage(Damage::Object(shard, key), &error),
                Err(_) => self.quarantine(format!("{shard} objects"), &error),
            };
        }
        Ok(digest)
    }
}
