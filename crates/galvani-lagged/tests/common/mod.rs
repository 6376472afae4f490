//! Histories of a few keys, what is plainly true of them, and what a replica says of them: used by all
//! tests of this crate.
//!
//! A history is made of writes that saw some of the earlier ones of their key, retries of them through
//! other coordinators, and an order of arrival that has little to do with when they were issued. The
//! naive model knows nothing of journals, bases or objects: a write shows unless another names it.

#![allow(dead_code)]

use bytes::Bytes;
use galvani_lagged::{Arrivals, AsOf, Found, Lagged, LaggedConfig, Now};
use galvani_model::bucket::BucketName;
use galvani_model::hash::{key_hash, partition_of};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{ClusterId, NodeId, Origin, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::version::{Dot, DotSet, Kind, Record, RecordHead, Version, value_hash};
use galvani_storage::engine::{CrashKeep, MemoryEngine};
use proptest::prelude::{Strategy, any};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) const PARTITIONS: u16 = 4;
pub(crate) const LAG_MS: u64 = 60_000;
pub(crate) const KEEP_MS: u64 = 1_000_000;
/// When histories begin, in milliseconds since 1970.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// What a disk may have of its last batches once its process has ended.
pub(crate) const KEEPS: [CrashKeep; 4] = [
    CrashKeep::Committed,
    CrashKeep::Synced { unsynced: 0 },
    CrashKeep::Synced { unsynced: 1 },
    CrashKeep::Synced { unsynced: usize::MAX },
];

/// Values of a key, by the dots of each.
pub(crate) type Values = BTreeMap<Vec<Dot>, Bytes>;

pub(crate) fn config() -> LaggedConfig {
    LaggedConfig {
        cluster: ClusterId(1),
        partitions: PARTITIONS,
        lag_ms: LAG_MS,
        feed_keep_ms: KEEP_MS,
    }
}

/// `ms` after the start, by the wall clock and by the steady one.
pub(crate) fn at(ms: u64) -> Now {
    Now { micros: ms * 1000, unix_ms: START_MS + ms }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(BucketName::default_bucket(), name.to_owned()).expect("short")
}

pub(crate) fn shard_of(key: &Key) -> Shard {
    Shard { partition: partition_of(key_hash(key), PARTITIONS), n: 3 }
}

/// A write of `name`, `counter` of origin `origin`, that has seen `past`.
pub(crate) fn write(
    name: &str,
    (origin, counter): (u128, u64),
    past: &[&Record],
    ms: u64,
) -> Record {
    let value = format!("{name} {origin}.{counter}");
    record(name, (origin, counter), past, ms, Some(value))
}

pub(crate) fn delete(name: &str, dot: (u128, u64), past: &[&Record], ms: u64) -> Record {
    record(name, dot, past, ms, None)
}

pub(crate) fn record(
    name: &str,
    (origin, counter): (u128, u64),
    past: &[&Record],
    ms: u64,
    value: Option<String>,
) -> Record {
    let mut seen = DotSet::new();
    let mut hlc = Hlc::default();
    for record in past {
        seen.union(&record.head.past);
        seen.insert(record.head.dot);
        hlc = hlc.max(record.head.hlc);
    }
    let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
    let value = Bytes::from(value.unwrap_or_default());
    let head = RecordHead {
        dot: Dot::new(Origin(origin), counter),
        key: key(name),
        past: seen,
        hlc: Hlc::default().tick(hlc, START_MS + ms),
        rid: RequestId(origin << 64 | u128::from(counter)),
        author: NodeId(origin),
        kind,
        value_len: value.len() as u32,
        value_hash: value_hash(kind, &value),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: Vec::new(),
    };
    Record { head, value }
}

/// The same write under another name, as a retry through another coordinator makes it.
pub(crate) fn retry_of(record: &Record, (origin, counter): (u128, u64)) -> Record {
    let mut again = record.clone();
    again.head.dot = Dot::new(Origin(origin), counter);
    again.head.author = NodeId(origin);
    again
}

pub(crate) fn page(records: &[Record]) -> Arrivals {
    let records = records.iter().map(|it| (shard_of(&it.head.key), it.clone())).collect();
    Arrivals { records, ..Arrivals::default() }
}

pub(crate) fn open(journal: &MemoryEngine, base: &MemoryEngine) -> Lagged<MemoryEngine> {
    Lagged::over(Arc::new(journal.clone()), Arc::new(base.clone()), config()).expect("opens")
}

/// A replica in memory that has caught up with an empty cluster.
pub(crate) fn fresh() -> Lagged<MemoryEngine> {
    let mut replica = open(&MemoryEngine::new(), &MemoryEngine::new());
    replica.heard(1, 0, at(0)).expect("room");
    replica
}

/// Steps until nothing is due.
pub(crate) fn settle(replica: &mut Lagged<MemoryEngine>, now: Now) -> u64 {
    let mut applied = 0;
    loop {
        let stepped = replica.step(now).expect("room");
        applied += stepped.applied;
        if stepped.due_in_ms != Some(0) {
            return applied;
        }
    }
}

/// Which of these a replica has.
pub(crate) fn held(replica: &mut Lagged<MemoryEngine>, records: &[Record]) -> BTreeSet<Dot> {
    let here = |record: &&Record| {
        let shard = shard_of(&record.head.key);
        replica.head(shard, record.head.dot).expect("readable").is_some()
    };
    records.iter().filter(here).map(|record| record.head.dot).collect()
}

/// Which of these it says that it is done with: these, and nothing else.
pub(crate) fn position(replica: &Lagged<MemoryEngine>, records: &[Record]) -> BTreeSet<Dot> {
    let positions = replica.positions();
    let done = |record: &&Record| {
        let shard = shard_of(&record.head.key);
        positions.get(&shard).is_some_and(|it| it.delivered().contains(record.head.dot))
    };
    let done: BTreeSet<Dot> = records.iter().filter(done).map(|record| record.head.dot).collect();
    let all: u64 = positions.values().map(|it| it.delivered().len()).sum();
    assert_eq!(all, done.len() as u64, "it is done with nothing else");
    done
}

/// What a key shows as the latest. See [`naive`].
pub(crate) fn shown(replica: &mut Lagged<MemoryEngine>, key: &Key) -> Values {
    let moment = replica.moment(AsOf::Latest, START_MS).expect("always");
    let found = replica.read_at(key, &moment, None).expect("readable");
    found.map(|found| values(replica, &found, START_MS)).unwrap_or_default()
}

/// The values of what was found that have not ended by then.
pub(crate) fn values(replica: &mut Lagged<MemoryEngine>, found: &Found, at_ms: u64) -> Values {
    let versions: Vec<_> = found.values(at_ms).cloned().collect();
    let value = |it: Version| {
        let value = replica.value(found.shard, &it).expect("kept");
        (it.dots.to_vec(), value)
    };
    versions.into_iter().map(value).collect()
}

/// The writes of a key that no other of these records replaces, deletions included, with all their dots.
pub(crate) fn live<'a>(
    records: impl Iterator<Item = &'a Record> + Clone,
    key: &Key,
) -> Vec<(Vec<Dot>, &'a Record)> {
    let of_key = records.filter(|record| record.head.key == *key);
    let mut groups: BTreeMap<u128, (Vec<Dot>, &Record)> = BTreeMap::new();
    for record in of_key.clone() {
        let group = groups.entry(record.head.write_id().0).or_insert_with(|| (Vec::new(), record));
        group.0.push(record.head.dot);
        group.0.sort_unstable();
    }
    let replaced = |write: u128, dots: &[Dot]| {
        of_key.clone().any(|other| {
            other.head.write_id().0 != write
                && dots.iter().any(|&dot| other.head.past.contains(dot))
        })
    };
    let live = groups.into_iter().filter(|(write, (dots, _))| !replaced(*write, dots));
    live.map(|(_, group)| group).collect()
}

/// What a key shows of these records: its values, by the dots of each.
pub(crate) fn naive<'a>(records: impl Iterator<Item = &'a Record> + Clone, key: &Key) -> Values {
    let values = live(records, key).into_iter().filter(|(_, it)| it.head.kind == Kind::Put);
    values.map(|(dots, record)| (dots, record.value.clone())).collect()
}

/// A history: its writes in order of issue, and the order in which they arrive.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) records: Vec<Record>,
    pub(crate) order: Vec<usize>,
}

impl History {
    pub(crate) fn arrived(&self, count: usize) -> Vec<Record> {
        self.order[..count].iter().map(|&index| self.records[index].clone()).collect()
    }

    pub(crate) fn keys(&self) -> BTreeSet<Key> {
        self.records.iter().map(|record| record.head.key.clone()).collect()
    }
}

#[derive(Clone, Debug)]
struct Draw {
    key: usize,
    what: u8,
    origin: u128,
    sees: u8,
    pause_ms: u64,
    delay: usize,
}

const NAMES: [&str; 4] = ["a", "a/b", "b", "c"];

pub(crate) fn histories(length: usize) -> impl Strategy<Value = History> {
    let draw = (0..NAMES.len(), 0..8u8, 1..4u128, any::<u8>(), 0..3_000u64, 0..12usize).prop_map(
        |(key, what, origin, sees, pause_ms, delay)| Draw {
            key,
            what,
            origin,
            sees,
            pause_ms,
            delay,
        },
    );
    proptest::collection::vec(draw, 1..length).prop_map(history)
}

fn history(draws: Vec<Draw>) -> History {
    let mut records: Vec<Record> = Vec::new();
    let mut counters: BTreeMap<u128, u64> = BTreeMap::new();
    let (mut now_ms, mut due) = (0, Vec::new());
    for (index, draw) in draws.iter().enumerate() {
        now_ms += draw.pause_ms;
        let counter = counters.entry(draw.origin).or_insert(0);
        *counter += 1;
        let dot = (draw.origin, *counter);
        let name = NAMES[draw.key];
        let earlier: Vec<&Record> =
            records.iter().filter(|record| record.head.key == key(name)).collect();
        let seen: Vec<&Record> = earlier
            .iter()
            .rev()
            .take(8)
            .enumerate()
            .filter(|(bit, _)| draw.sees >> bit & 1 == 1)
            .map(|(_, record)| *record)
            .collect();
        let new = match (draw.what, earlier.last()) {
            (0, Some(last)) => retry_of(last, dot),
            (1 | 2, _) => delete(name, dot, &seen, now_ms),
            _ => write(name, dot, &seen, now_ms),
        };
        due.push((index + draw.delay, index));
        records.push(new);
    }
    due.sort_unstable();
    History { records, order: due.into_iter().map(|(_, index)| index).collect() }
}
