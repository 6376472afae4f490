//! What a store remembers of its committed rows, so that a tick seldom asks the engine.
//!
//! Objects, and records that were read: those used lately, up to a bound in bytes; a hit is what the
//! engine would say. A record never changes, so what is remembered of it stays true. Request
//! rows are mostly looked up in vain, and that is what is remembered here: of each shard every
//! request row whose write was issued from some time on. A later one that is not here is nowhere.
//! That time is the latest of the shard when it was loaded, and rises when the oldest are forgotten.
//! It never holds anything that is staged and not committed. Next to read: `mod.rs`.

use super::config::MemoryConfig;
// Seeded anew in each process, and good for short keys.
use foldhash::quality::RandomState;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{Shard, WriteId};
use galvani_model::key::Key;
use galvani_model::store::RequestEntry;
use galvani_model::version::{Dot, Object, Record, Version};
use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

/// Committed rows.
pub(super) struct Memory {
    objects: Cache<(Shard, Key), Object, Bytes, RandomState>,
    records: Cache<(Shard, Dot), Record, Bytes, RandomState>,
    requests: HashMap<(Shard, WriteId), RequestEntry, RandomState>,
    /// The same in the order in which they came.
    order: VecDeque<(Shard, WriteId, Hlc)>,
    /// From when on all request rows of a shard are here.
    all_from: BTreeMap<Shard, Hlc>,
    config: MemoryConfig,
}

/// What an object takes, about.
#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<(Shard, Key), Object> for Bytes {
    fn weight(&self, (_, key): &(Shard, Key), object: &Object) -> u64 {
        let past = |version: &Version| -> usize {
            version.past.iter().map(|(_, _, cloud)| 48 + 8 * cloud.len()).sum()
        };
        let version =
            |version: &Version| size_of::<Version>() + 24 * version.dots.len() + past(version);
        let versions: usize = object.versions().iter().map(version).sum();
        (128 + key.bytes().len() + versions) as u64
    }
}

impl Weighter<(Shard, Dot), Record> for Bytes {
    fn weight(&self, _: &(Shard, Dot), record: &Record) -> u64 {
        (256 + record.head.key.bytes().len() + record.value.len()) as u64
    }
}

/// The largest value that is remembered: others cost little beside what their way costs.
const VALUE_BYTES_MAX: usize = 64 << 10;

fn cache<K: Eq + Hash, V>(items: usize, bytes: u64) -> Cache<K, V, Bytes, RandomState>
where
    Bytes: Weighter<K, V>,
{
    let lifecycle = DefaultLifecycle::default();
    Cache::with(items, bytes, Bytes, RandomState::default(), lifecycle)
}

impl Memory {
    pub(super) fn new(config: MemoryConfig) -> Memory {
        let objects = (config.object_bytes / 400) as usize;
        let records = (config.record_bytes / 1_000) as usize;
        Memory {
            objects: cache(objects, config.object_bytes),
            records: cache(records, config.record_bytes),
            requests: HashMap::default(),
            order: VecDeque::new(),
            all_from: BTreeMap::new(),
            config,
        }
    }

    pub(super) fn object(&self, at: &(Shard, Key)) -> Option<&Object> {
        self.objects.get(at)
    }

    /// An object was read, or committed.
    pub(super) fn keep_object(&mut self, at: (Shard, Key), object: Object) {
        if self.config.object_bytes > 0 {
            self.objects.insert(at, object);
        }
    }

    pub(super) fn record(&self, shard: Shard, dot: Dot) -> Option<&Record> {
        self.records.get(&(shard, dot))
    }

    /// A record was read.
    pub(super) fn keep_record(&mut self, shard: Shard, record: &Record) {
        if self.config.record_bytes > 0 && record.value.len() <= VALUE_BYTES_MAX {
            self.records.insert((shard, record.head.dot), record.clone());
        }
    }

    /// A record is gone.
    pub(super) fn drop_record(&mut self, shard: Shard, dot: Dot) {
        self.records.remove(&(shard, dot));
    }

    /// The request row of a write, issued at a time if the asker knows it: `None` where only the
    /// engine knows whether there is one.
    pub(super) fn request(
        &self,
        shard: Shard,
        write: WriteId,
        issued: Option<Hlc>,
    ) -> Option<Option<&RequestEntry>> {
        let known = self.requests.get(&(shard, write));
        let is_later = || Some(issued? >= *self.all_from.get(&shard)?);
        match known {
            Some(entry) => Some(Some(entry)),
            None => is_later().unwrap_or(false).then_some(None),
        }
    }

    /// A shard was loaded: none of its request rows was issued after `latest`.
    pub(super) fn loaded(&mut self, shard: Shard, latest: Hlc) {
        let after = Hlc(latest.0.saturating_add(1));
        let from = self.all_from.entry(shard).or_insert(after);
        *from = after.max(*from);
    }

    /// A request row was committed.
    pub(super) fn keep_request(
        &mut self,
        shard: Shard,
        write: WriteId,
        issued: Option<Hlc>,
        entry: RequestEntry,
    ) {
        if let Some(known) = self.requests.get_mut(&(shard, write)) {
            *known = entry;
            return;
        }
        // One issued before that may be forgotten: it is asked for.
        let Some(issued) = issued else { return };
        if self.all_from.get(&shard).is_some_and(|from| issued >= *from) {
            self.requests.insert((shard, write), entry);
            self.order.push_back((shard, write, issued));
            while self.order.len() > self.config.requests {
                self.forget_oldest();
            }
        }
    }

    /// A request row is gone.
    pub(super) fn drop_request(&mut self, shard: Shard, write: WriteId) {
        self.requests.remove(&(shard, write));
    }

    /// A shard is gone.
    pub(super) fn forget(&mut self, shard: Shard) {
        self.objects.retain(|(of, _), _| *of != shard);
        self.records.retain(|(of, _), _| *of != shard);
        self.requests.retain(|(of, _), _| *of != shard);
        self.order.retain(|(of, _, _)| *of != shard);
        self.all_from.remove(&shard);
    }

    /// Nothing that is here is sure any more.
    pub(super) fn clear(&mut self) {
        self.objects.clear();
        self.records.clear();
        self.requests.clear();
        self.order.clear();
        self.all_from.clear();
    }

    fn forget_oldest(&mut self) {
        let Some((shard, write, issued)) = self.order.pop_front() else { return };
        self.requests.remove(&(shard, write));
        if let Some(from) = self.all_from.get_mut(&shard) {
            *from = Hlc(issued.0.saturating_add(1)).max(*from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Memory, MemoryConfig};
    use galvani_model::hlc::Hlc;
    use galvani_model::ids::{Origin, Partition, Shard, WriteId};
    use galvani_model::store::RequestEntry;
    use galvani_model::version::Dot;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeMap;

    const SHARD: Shard = Shard { partition: Partition(1), n: 3 };

    fn entry(counter: u64) -> RequestEntry {
        RequestEntry { dots: [Dot::new(Origin(1), counter)].into_iter().collect(), at_ms: 0 }
    }

    proptest! {
        /// Whatever it says of a request row is what all rows ever written say.
        #[test]
        fn it_never_contradicts_the_engine(
            before in proptest::collection::vec((0u8..40, any::<u8>()), 0..10),
            steps in proptest::collection::vec((0u8..40, any::<u8>(), 0u8..4), 1..80),
            requests in 0usize..6,
        ) {
            // A write is its number and the time it was issued.
            let id = |number: u8, issued: u8| WriteId(u128::from(number) << 8 | u128::from(issued));
            let mut engine = BTreeMap::new();
            for &(number, issued) in &before {
                engine.insert(id(number, issued), entry(0));
            }
            let latest = before.iter().map(|(_, issued)| u64::from(*issued)).max().unwrap_or(0);
            let mut memory = Memory::new(MemoryConfig { object_bytes: 0, record_bytes: 0, requests });
            memory.loaded(SHARD, Hlc(latest));
            for (at, &(number, issued, what)) in steps.iter().enumerate() {
                let (write, time) = (id(number, issued), Some(Hlc(u64::from(issued))));
                match what {
                    0 => {
                        engine.remove(&write);
                        memory.drop_request(SHARD, write);
                    }
                    1 => {
                        engine.insert(write, entry(at as u64));
                        memory.keep_request(SHARD, write, time, entry(at as u64));
                    }
                    2 if engine.contains_key(&write) => {
                        engine.insert(write, entry(at as u64));
                        memory.keep_request(SHARD, write, None, entry(at as u64));
                    }
                    _ => {}
                }
                for time in [time, None] {
                    if let Some(said) = memory.request(SHARD, write, time) {
                        prop_assert_eq!(said, engine.get(&write));
                    }
                }
                prop_assert!(memory.order.len() <= requests);
                prop_assert!(memory.requests.len() <= requests);
            }
        }
    }

    #[test]
    fn a_write_later_than_all_is_new_without_asking() {
        let mut memory =
            Memory::new(MemoryConfig { object_bytes: 0, record_bytes: 0, requests: 2 });
        let ask = |memory: &Memory, number: u128, issued: u64| {
            memory.request(SHARD, WriteId(number), Some(Hlc(issued))).map(|known| known.is_some())
        };
        assert_eq!(ask(&memory, 1, 50), None, "nothing is known of the shard");
        memory.loaded(SHARD, Hlc(10));
        assert_eq!(ask(&memory, 1, 10), None, "it may be there since before");
        assert_eq!(ask(&memory, 1, 11), Some(false));
        for number in 1..=3 {
            let issued = Some(Hlc(10 + number as u64));
            memory.keep_request(SHARD, WriteId(number), issued, entry(1));
        }
        assert_eq!(ask(&memory, 1, 11), None, "forgotten");
        assert_eq!([ask(&memory, 2, 12), ask(&memory, 3, 13)], [Some(true); 2]);
        assert_eq!(ask(&memory, 4, 12), Some(false));
        memory.loaded(SHARD, Hlc(13));
        assert_eq!(ask(&memory, 4, 12), None, "loaded again");
        memory.clear();
        assert_eq!(ask(&memory, 3, 13), None);
    }
}
