//! The journal: every write that came and waits, with the position that it came by.
//!
//! One batch, fsynced, holds the records of a page, their index rows and the rows of their shards:
//! so the position is what is held, whatever stops the process. Rows go when the base has their
//! records. It decides nothing about when that is. Next to read: `replica.rs`, `keys.rs`.

use crate::error::LaggedError;
use crate::keys::{self, At};
use crate::state::{ShardState, State};
use crate::verify::Verified;
use bytes::Bytes;
use galvani_model::bucket::{BucketName, ConflictPolicy};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::version::{Dot, Record};
use galvani_storage::engine::{Batch, Durability, Engine, EngineError, Table};
use galvani_storage::format::{RowError, keys as row_keys, rows};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The records by arrival.
const RECORDS: Table = Table::Log;
/// Their places by key, hybrid time and dot.
const BY_KEY: Table = Table::Objects;
/// Their places by dot.
const BY_DOT: Table = Table::Arrivals;
/// Their places by request id.
const BY_REQUEST: Table = Table::RequestIds;
/// One row for each shard.
const SHARDS: Table = Table::Clocks;
/// The replica's own row, and what is known of buckets.
const FACTS: Table = Table::Meta;

const STATE_KEY: &[u8] = b"state";
const VERIFIED_KEY: &[u8] = b"verified";
const BUCKET_PREFIX: &[u8] = b"bucket/";

/// The journal, and what its rows say of the replica.
pub(crate) struct Journal<E> {
    engine: Arc<E>,
    batch: Batch,
    state: State,
    shards: BTreeMap<Shard, ShardState>,
    policies: BTreeMap<BucketName, ConflictPolicy>,
    verified: Option<Verified>,
    /// Whether a write failed in doubt: what is in memory may not be what is on disk.
    in_doubt: bool,
}

/// A record on its way out.
pub(crate) struct Waiting {
    pub(crate) at: At,
    pub(crate) record: Record,
    /// What it counts for in [`State::bytes`].
    pub(crate) bytes: u64,
}

impl<E: Engine> Journal<E> {
    /// Opens the journal in `engine`; where there is none yet, one of this lag begins.
    pub(crate) fn open(engine: Arc<E>, lag_ms: u64) -> Result<Journal<E>, LaggedError> {
        // What the process before wrote and did not see synced is read here and may be gone with the power:
        // the base would be ahead of the journal that it is made from.
        engine.sync().map_err(LaggedError::journal)?;
        let state = match engine.get(FACTS, STATE_KEY).map_err(LaggedError::journal)? {
            None => State::new(lag_ms),
            Some(row) => rows::get(STATE_KEY, &row).map_err(|error| damaged("state", &error))?,
        };
        let mut shards = BTreeMap::new();
        scan_rows(engine.as_ref(), SHARDS, &[0], None, |key, row| {
            let shard = row_keys::shard_of(key).ok_or(RowError::Short)?;
            shards.insert(shard, rows::get(key, row)?);
            Ok(())
        })?;
        let mut policies = BTreeMap::new();
        let end = row_keys::after_prefix(BUCKET_PREFIX);
        scan_rows(engine.as_ref(), FACTS, BUCKET_PREFIX, end.as_deref(), |key, row| {
            let (name, policy): (BucketName, ConflictPolicy) = rows::get(key, row)?;
            policies.insert(name, policy);
            Ok(())
        })?;
        let verified = engine.get(FACTS, VERIFIED_KEY).map_err(LaggedError::journal)?;
        // It is only for people: one that cannot be read is made anew within a day.
        let verified = verified.and_then(|row| rows::get(VERIFIED_KEY, &row).ok());
        let (batch, in_doubt) = (Batch::new(), false);
        Ok(Journal { engine, batch, state, shards, policies, verified, in_doubt })
    }

    /// Takes records in, with the rows that speak of them, all or nothing. They are durable when
    /// this returns.
    pub(crate) fn append(
        &mut self,
        records: &[(At, Record)],
        shards: BTreeMap<Shard, ShardState>,
        mut state: State,
    ) -> Result<(), LaggedError> {
        self.batch.clear();
        for (at, record) in records {
            let (place, before) = (at.to_key(), self.batch.bytes());
            self.batch.put_with(RECORDS, &place, |out| rows::put_record(&place, record, out));
            state.bytes += (self.batch.bytes() - before) as u64;
            for (table, key) in index_keys(*at, record) {
                self.batch.put_with(table, &key, |out| rows::put(&key, at, out));
            }
        }
        for (shard, of) in &shards {
            let key = row_keys::shard(*shard);
            self.batch.put_with(SHARDS, &key, |out| rows::put(&key, of, out));
        }
        self.commit(state, Durability::Fsync)?;
        self.shards.extend(shards);
        Ok(())
    }

    /// Takes out records that the base holds durably. Should this be lost with the power, they are
    /// taken out again.
    pub(crate) fn remove(&mut self, gone: &[Waiting], mut state: State) -> Result<(), LaggedError> {
        self.batch.clear();
        for waiting in gone {
            self.batch.delete(RECORDS, &waiting.at.to_key());
            for (table, key) in index_keys(waiting.at, &waiting.record) {
                self.batch.delete(table, &key);
            }
            state.bytes = state.bytes.saturating_sub(waiting.bytes);
            state.first = waiting.at.number + 1;
            state.applied_wall_ms = waiting.at.wall_ms;
        }
        self.commit(state, Durability::Os)
    }

    /// Writes the replica's own row.
    pub(crate) fn write(
        &mut self,
        state: State,
        durability: Durability,
    ) -> Result<(), LaggedError> {
        self.batch.clear();
        self.commit(state, durability)
    }

    /// Notes what becomes of concurrent writes in a bucket.
    pub(crate) fn note_policy(
        &mut self,
        bucket: &BucketName,
        policy: ConflictPolicy,
    ) -> Result<(), LaggedError> {
        if self.policies.get(bucket) == Some(&policy) {
            return Ok(());
        }
        let key = [BUCKET_PREFIX, bucket.as_str().as_bytes()].concat();
        self.batch.clear();
        self.batch.put_with(FACTS, &key, |out| rows::put(&key, &(bucket, policy), out));
        self.commit(self.state.clone(), Durability::Fsync)?;
        self.policies.insert(bucket.clone(), policy);
        Ok(())
    }

    /// Keeps what a comparison with the cluster found.
    pub(crate) fn note_verified(
        &mut self,
        verified: Verified,
        state: State,
        durability: Durability,
    ) -> Result<(), LaggedError> {
        self.batch.clear();
        let put = |out: &mut Vec<u8>| rows::put(VERIFIED_KEY, &verified, out);
        self.batch.put_with(FACTS, VERIFIED_KEY, put);
        self.commit(state, durability)?;
        self.verified = Some(verified);
        Ok(())
    }

    /// What the last comparison with the cluster found.
    pub(crate) fn verified(&self) -> Option<&Verified> {
        self.verified.as_ref()
    }

    /// What the replica knows of itself.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Notes, in memory, up to when everything is here; the next write keeps it.
    pub(crate) fn note_complete(&mut self, complete_ms: u64) {
        self.state.complete_ms = self.state.complete_ms.max(complete_ms);
    }

    /// Every shard of which something came.
    pub(crate) fn shards(&self) -> &BTreeMap<Shard, ShardState> {
        &self.shards
    }

    /// What becomes of concurrent writes in a bucket, as far as that was said.
    pub(crate) fn policy(&self, bucket: &BucketName) -> ConflictPolicy {
        self.policies.get(bucket).copied().unwrap_or_default()
    }

    /// The buckets of which something was said, in order of their names.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = &BucketName> {
        self.policies.keys()
    }

    /// The engine below.
    pub(crate) fn engine(&self) -> &Arc<E> {
        &self.engine
    }

    /// The records that wait longest, in order of arrival, while `due` is true of their places: at
    /// most `limit`, and none that begins beyond `bytes_max` bytes.
    pub(crate) fn oldest(
        &self,
        limit: usize,
        bytes_max: u64,
        due: impl Fn(&At) -> bool,
    ) -> Result<Vec<Waiting>, LaggedError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let start = self.state.first.to_be_bytes();
        let mut bad = None;
        let mut visit = |key: &[u8], row: &[u8]| {
            let at = match At::of_key(key) {
                Some(at) if due(&at) && bytes < bytes_max => at,
                _ => return ControlFlow::Break(()),
            };
            match rows::get_record(key, &Bytes::copy_from_slice(row)) {
                Ok(record) => {
                    let size = (key.len() + row.len()) as u64;
                    bytes += size;
                    found.push(Waiting { at, record, bytes: size });
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    bad = Some(damaged(&format!("record {}", at.number), &error));
                    ControlFlow::Break(())
                }
            }
        };
        self.engine.scan(RECORDS, &start, None, limit, &mut visit).map_err(LaggedError::journal)?;
        match bad {
            // What is before it can still be applied.
            Some(error) if found.is_empty() => Err(error),
            Some(_) | None => Ok(found),
        }
    }

    /// The place of the first record at or after a number.
    pub(crate) fn place_from(&self, number: u64) -> Result<Option<At>, LaggedError> {
        let mut found = None;
        let mut visit = |key: &[u8], _: &[u8]| {
            found = At::of_key(key);
            ControlFlow::Break(())
        };
        self.engine
            .scan(RECORDS, &number.to_be_bytes(), None, 1, &mut visit)
            .map_err(LaggedError::journal)?;
        Ok(found)
    }

    /// The record at a place.
    pub(crate) fn record(&self, at: At) -> Result<Record, LaggedError> {
        let name = || format!("record {}", at.number);
        let key = at.to_key();
        let row = self.engine.get(RECORDS, &key).map_err(LaggedError::journal)?;
        let row = row.ok_or_else(|| damaged(&name(), &RowError::Gone))?;
        rows::get_record(&key, &row).map_err(|error| damaged(&name(), &error))
    }

    /// Where the write of this name waits.
    pub(crate) fn of_dot(&self, dot: Dot) -> Result<Option<At>, LaggedError> {
        let key = keys::by_dot(dot);
        let Some(row) = self.engine.get(BY_DOT, &key).map_err(LaggedError::journal)? else {
            return Ok(None);
        };
        rows::get(&key, &row).map(Some).map_err(|error| damaged(&format!("place of {dot}"), &error))
    }

    /// Where the writes of a request wait, in order of arrival.
    pub(crate) fn of_request(&self, request: RequestId) -> Result<Vec<At>, LaggedError> {
        let start = request.to_bytes();
        self.places(BY_REQUEST, &start, row_keys::after_prefix(&start).as_deref())
    }

    /// Where the writes of a key wait that were issued before `below`, in order of arrival.
    pub(crate) fn of_key(
        &self,
        shard: Shard,
        key: &Key,
        below: Option<Hlc>,
    ) -> Result<Vec<At>, LaggedError> {
        let start = keys::key_prefix(shard, key);
        let end = match below {
            None => row_keys::after_prefix(&start),
            Some(below) => Some([start.as_slice(), &below.0.to_be_bytes()].concat()),
        };
        let mut places = self.places(BY_KEY, &start, end.as_deref())?;
        places.sort_unstable();
        Ok(places)
    }

    /// Up to `limit` keys of a bucket that have writes waiting, ascending, after `after` (exclusive),
    /// that start with `prefix`.
    pub(crate) fn keys(
        &self,
        shard: Shard,
        bucket: &BucketName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Bytes>, LaggedError> {
        let range = keys::bucket_prefix(shard, bucket, prefix);
        let end = row_keys::after_prefix(&range);
        // Rows of the very key `after` are passed over below.
        let start = match after {
            Some(after) if after > prefix => keys::bucket_prefix(shard, bucket, after),
            Some(_) | None => range,
        };
        let mut found: Vec<Bytes> = Vec::new();
        let mut bad = false;
        let mut visit = |row: &[u8], _: &[u8]| {
            let Some(key) = keys::key_of(row) else {
                bad = true;
                return ControlFlow::Break(());
            };
            if after.is_some_and(|after| key.as_slice() <= after)
                || found.last().is_some_and(|last| *last == key)
            {
                return ControlFlow::Continue(());
            }
            if found.len() == limit {
                return ControlFlow::Break(());
            }
            found.push(key.into());
            ControlFlow::Continue(())
        };
        self.engine
            .scan(BY_KEY, &start, end.as_deref(), usize::MAX, &mut visit)
            .map_err(LaggedError::journal)?;
        match bad {
            false => Ok(found),
            true => Err(damaged("index by key", &RowError::Short)),
        }
    }

    fn places(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Vec<At>, LaggedError> {
        let mut places = Vec::new();
        scan_rows(self.engine.as_ref(), table, start, end, |key, row| {
            places.push(rows::get(key, row)?);
            Ok(())
        })?;
        Ok(places)
    }

    /// Commits what is staged, with the replica's own row.
    fn commit(&mut self, state: State, durability: Durability) -> Result<(), LaggedError> {
        if self.in_doubt {
            return Err(LaggedError::InDoubt);
        }
        self.batch.put_with(FACTS, STATE_KEY, |out| rows::put(STATE_KEY, &state, out));
        match self.engine.commit(&self.batch, durability) {
            Ok(()) => {
                self.state = state;
                Ok(())
            }
            Err(error) => {
                let error = LaggedError::journal(error);
                self.in_doubt = matches!(error, LaggedError::InDoubt);
                Err(error)
            }
        }
    }
}

/// The index rows of one record.
fn index_keys(at: At, record: &Record) -> [(Table, Vec<u8>); 3] {
    let head = &record.head;
    [
        (BY_KEY, keys::by_key(at.shard, &head.key, head.hlc, head.dot)),
        (BY_DOT, keys::by_dot(head.dot).to_vec()),
        (BY_REQUEST, keys::by_request(head.rid, at.number).to_vec()),
    ]
}

/// Shows `take` all rows of a range; what it cannot read is damage.
fn scan_rows<E: Engine>(
    engine: &E,
    table: Table,
    start: &[u8],
    end: Option<&[u8]>,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), RowError>,
) -> Result<(), LaggedError> {
    let mut bad = None;
    let mut visit = |key: &[u8], row: &[u8]| match take(key, row) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            bad = Some(damaged(table.name(), &error));
            ControlFlow::Break(())
        }
    };
    let scanned = engine.scan(table, start, end, usize::MAX, &mut visit);
    scanned.map_err(|error: EngineError| LaggedError::journal(error))?;
    bad.map_or(Ok(()), Err)
}

fn damaged(what: &str, error: &RowError) -> LaggedError {
    LaggedError::Damaged { what: format!("{what}: {error}") }
}
