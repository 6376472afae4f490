//! What the benches share: sample keys and records, the floors, and the real things beside them.
//!
//! `benches/ratios.rs` prints real, floor and ratio for each pair; `benches/allocations.rs` counts
//! allocations; `values.rs`, `storage.rs` and `cluster.rs` there are criterion's and watch single
//! functions from build to build. `src/bin/hot.rs` repeats one function for callgrind.
//! `docs/performance.md` has the commands and what they showed.

use bytes::Bytes;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::store::{Change, RequestEntry, Store};
use galvani_model::version::{Dot, DotSet, Kind, Record, RecordHead, object_digest, value_hash};

pub mod cases;
pub mod cluster;
pub mod counting;
pub mod echo;
pub mod file;
pub mod lane;
pub mod measure;
pub mod quic;
pub mod table;

/// The key number `number` of bucket `default`.
pub fn key(number: u64) -> Key {
    let bucket = "default".parse().expect("a bucket name");
    Key::new(bucket, format!("user/{number:012}")).expect("a short key")
}

/// A record of `origin`'s write `counter` of key `number`, with a value of `bytes` bytes.
pub fn record(origin: u128, counter: u64, number: u64, bytes: usize) -> Record {
    let value = Bytes::from(vec![b'x'; bytes]);
    let head = RecordHead {
        dot: Dot::new(Origin(origin), counter),
        key: key(number),
        past: DotSet::new(),
        hlc: Hlc(counter),
        rid: RequestId(u128::from(counter)),
        author: NodeId(1),
        kind: Kind::Put,
        value_len: bytes as u32,
        value_hash: value_hash(Kind::Put, &value),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: Vec::new(),
    };
    Record { head, value }
}

/// Stages a record as `replica::apply` of the protocol does.
pub fn stage(store: &mut impl Store, shard: Shard, record: Record) {
    let write = record.head.write_id();
    let known = store.request(shard, write, Some(record.head.hlc)).expect("readable").is_some();
    let mut object = store.object(shard, &record.head.key).expect("readable");
    let before = object_digest(&record.head.key, &object);
    object.apply(&record.head, known, ConflictPolicy::Siblings);
    let mut digest = store.replica(shard).expect("readable").digest;
    digest.replace(before, object_digest(&record.head.key, &object));
    let request = RequestEntry { dots: [record.head.dot].into_iter().collect(), at_ms: 0 };
    let policy = ConflictPolicy::Siblings;
    let change = Change { shard, record, object, request, own: None, digest, policy };
    store.stage(change).expect("staged");
}
