//! Forgetting logical writes whose retries need not be recognised any more.
//!
//! Request rows would otherwise grow with every write for ever. A sweep looks at a bounded number
//! of rows, goes on where the last one stopped, and stages deletes for the tick's commit. It touches
//! nothing else: dots are remembered by the clock, for ever. Of a write with several dots the row
//! stays as long as the log has any of them: it alone says that they are one. Next to read: `mod.rs`.

use super::{NodeStore, store_error};
use crate::engine::{Engine, Table};
use crate::format::{keys, rows};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{LaneIndex, Shard};
use galvani_model::limits::REQUEST_ID_RETENTION_MS;
use galvani_model::store::{RequestEntry, StoreError};
use galvani_model::version::Dot;
use std::ops::ControlFlow;

impl<E: Engine> NodeStore<E> {
    /// As [`NodeStore::sweep_requests`], of those past [`REQUEST_ID_RETENTION_MS`]: by the clock, which
    /// shows `now_ms` (milliseconds since 1970), but by no later time than the newest write that this store
    /// has seen since it was opened. A clock that jumps a day ahead must not forget what clients may
    /// still try again; where nothing is written nothing piles up either.
    pub fn forget_requests(&mut self, now_ms: u64, limit: usize) -> Result<usize, StoreError> {
        let known = self.states.values().map(|state| state.latest);
        let newest = known.filter(|latest| *latest != Hlc(u64::MAX)).max().unwrap_or_default();
        let before_ms = now_ms.min(newest.unix_ms()).saturating_sub(REQUEST_ID_RETENTION_MS);
        self.sweep_requests(before_ms, limit)
    }

    /// Looks at up to `limit` request rows and stages the removal of those taken in before
    /// `before_ms` (milliseconds since 1970). Returns how many those are. A row that does not
    /// decode is removed too: it can recognise nothing.
    pub fn sweep_requests(&mut self, before_ms: u64, limit: usize) -> Result<usize, StoreError> {
        if self.full_for.is_some() || self.shut.is_some() {
            // Its commit would fail, and the reads of that tick with it.
            return Ok(0);
        }
        let mut old = Vec::new();
        let (mut seen, mut last) = (0, None);
        let config = self.config;
        let mut look = |key: &[u8], row: &[u8]| {
            seen += 1;
            last = Some(key.to_vec());
            let mine = keys::shard_of(key)
                .is_some_and(|shard| LaneIndex::of(shard.partition, config.lanes) == config.lane);
            let entry = rows::get::<RequestEntry>(key, row).ok();
            if mine && entry.as_ref().is_none_or(|entry| entry.at_ms < before_ms) {
                let dots = entry.map(|entry| entry.dots).unwrap_or_default();
                old.push((key.to_vec(), dots));
            }
            ControlFlow::Continue(())
        };
        self.engine
            .scan(Table::RequestIds, &self.sweep_from, None, limit, &mut look)
            .map_err(store_error)?;
        self.sweep_from = match last {
            Some(mut last) if seen >= limit => {
                last.push(0);
                last
            }
            // The end of the table: from its start again.
            Some(_) | None => vec![0],
        };
        let mut gone = 0;
        for (key, dots) in &old {
            let Some(shard) = keys::shard_of(key) else { continue };
            if dots.len() > 1 && self.has_any(shard, dots)? {
                continue;
            }
            gone += 1;
            self.batch.delete(Table::RequestIds, key);
            if let Some(row) = keys::split_request(key) {
                self.requests.remove(&row);
                self.swept.push(row);
            }
        }
        Ok(gone)
    }

    /// Whether the log has a record of any of these dots.
    fn has_any(&self, shard: Shard, dots: &[Dot]) -> Result<bool, StoreError> {
        for &dot in dots {
            if self.get(Table::Log, &keys::log(shard, dot))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
