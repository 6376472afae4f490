//! A tick's batch through the store, beside the bare engine writing the same values.
//!
//! New keys, on disk, flushed to the operating system and not synced. It compares with no other
//! engine. Next to read: `../src/lib.rs`, and `ratios.rs` for floors in the same run.

use criterion::{BatchSize, Criterion, Throughput};
use galvani_benches::{record, stage};
use galvani_model::ids::{LaneIndex, Partition, Shard};
use galvani_storage::engine::{
    Batch, Durability, Engine, EngineConfig, FjallEngine, PowerHistory, Table,
};
use galvani_storage::{NodeStore, StoreConfig};
use std::sync::Arc;

const OPS: u64 = 32;

fn storage(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (engine, _) =
        FjallEngine::open(dir.path(), EngineConfig::default(), PowerHistory::SameBoot)
            .expect("an engine");
    let engine = Arc::new(engine);
    let mut group = c.benchmark_group("tick_of_32_puts_of_1k");
    group.throughput(Throughput::Elements(OPS));
    let mut number = 0;
    group.bench_function("floor_engine_one_row_each", |b| {
        let mut batch = Batch::new();
        b.iter(|| {
            batch.clear();
            for _ in 0..OPS {
                number += 1;
                let key = (number as u64).to_be_bytes();
                batch.put(Table::Log, &[&[255, 255, 0], &key[..]].concat(), &[b'x'; 1024]);
            }
            engine.commit(&batch, Durability::Os).expect("room");
        });
    });
    let config = StoreConfig::of_lane(LaneIndex(0), 1, false);
    let mut store = NodeStore::open(engine, config).expect("an empty store").store;
    let shard = Shard { partition: Partition(3), n: 3 };
    let mut counter = 0;
    group.bench_function("store_object_log_arrival_request_clock", |b| {
        b.iter_batched(
            || {
                let first = counter + 1;
                counter += OPS;
                (first..first + OPS).map(|n| record(1, n, n, 1024)).collect::<Vec<_>>()
            },
            |records| {
                for record in records {
                    stage(&mut store, shard, record);
                }
                store.commit(false).expect("room");
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    storage(&mut criterion);
    criterion.final_summary();
}
