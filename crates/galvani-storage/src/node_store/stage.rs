//! Staging one record: its log row, what it makes of its key, its arrival and its request row.
//!
//! All of it goes into the tick's batch and into the overlay that later reads of the tick see. It
//! decides nothing: `galvani-protocol/src/replica.rs` has worked the change out.
//! Next to read: `mod.rs`, `tombstones.rs`.

use super::NodeStore;
use super::state::Arrival;
use crate::engine::{Engine, Table};
use crate::format::{keys, rows};
use galvani_model::store::{Change, Store, StoreError};

impl<E: Engine> NodeStore<E> {
    /// See [`Store::stage`].
    pub(super) fn stage_change(&mut self, change: Change) -> Result<(), StoreError> {
        self.accepts()?;
        let Change { shard, record, object, request, own, digest, policy } = change;
        let every = self.config.checkpoint_every.max(1);
        self.replica(shard)?;
        let before = self.indexed(shard, &record.head.key, policy)?;
        let state = self.states.get_mut(&shard).expect("loaded by the line above");
        let dot = record.head.dot;
        assert!(state.clock.insert(dot), "{shard}: {dot} is staged twice; apply asks the clock");
        let number = state.arrivals;
        state.arrivals += 1;
        state.digest = digest;
        state.latest = state.latest.max(record.head.hlc);
        if let Some(own) = own {
            let dense = own.origin == dot.origin && own.counter == dot.counter;
            assert!(dense, "{shard}: the own counter moves with the dot it mints");
            state.own = Some(own);
        }
        self.touched.insert(shard);
        if self.checkpoints.get(&shard).is_none_or(|of| number + 1 - of >= every) {
            self.dirty.insert(shard);
        }
        let log = keys::log(shard, dot);
        self.batch.put_with(Table::Log, &log, |out| rows::put_record(&log, &record, out));
        self.stage_object(shard, &record.head.key, before, object);
        // Last: it tells the state after all that the record changed.
        let arrival = keys::arrival(shard, number);
        let after = Arrival::of(&self.states[&shard], dot);
        self.batch.put_with(Table::Arrivals, &arrival, |out| rows::put(&arrival, &after, out));
        let write = record.head.write_id();
        let key = keys::request(shard, write);
        self.batch.put_with(Table::RequestIds, &key, |out| rows::put(&key, &request, out));
        self.swept.retain(|row| *row != (shard, write));
        self.requests.insert((shard, write), (request, Some(record.head.hlc)));
        self.records.insert((shard, dot), record);
        Ok(())
    }
}
