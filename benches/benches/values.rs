//! Version algebra and codec, beside the copy of a value they cannot do without.
//!
//! The floor of the codec is one copy of the value into the send buffer. Next: `storage.rs`.

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use galvani_benches::{key, record};
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::{Partition, Shard};
use galvani_model::version::{
    Context, ContextKey, Object, PartitionClock, ReadJoin, object_digest,
};
use galvani_wire::codec::{Frame, encode};
use galvani_wire::message::{Message, Replicate};
use std::hint::black_box;

fn algebra(c: &mut Criterion) {
    let mut group = c.benchmark_group("algebra");
    let first = record(1, 1, 1, 1024);
    let mut second = record(2, 1, 1, 1024);
    second.head.past.insert(first.head.dot);
    let mut object = Object::absent();
    object.apply(&first.head, false, ConflictPolicy::Siblings);
    group.bench_function("apply_replacing_write", |b| {
        b.iter(|| {
            let mut object = object.clone();
            black_box(object.apply(&second.head, false, ConflictPolicy::Siblings))
        });
    });
    group.bench_function("join_three_equal_answers", |b| {
        let seen = object.seen();
        b.iter(|| {
            let mut join = ReadJoin::new();
            for _ in 0..3 {
                join.add(black_box(&object), &seen);
            }
            join.object(ConflictPolicy::Siblings)
        });
    });
    group.bench_function("clock_takes_next_dot", |b| {
        let mut clock = PartitionClock::new();
        let mut counter = 0;
        b.iter(|| {
            counter += 1;
            clock.insert(record_dot(counter))
        });
    });
    group.bench_function("digest_of_object", |b| {
        let key = key(1);
        b.iter(|| object_digest(black_box(&key), black_box(&object)));
    });
    group.bench_function("context_seal_and_open", |b| {
        let (key, secret) = (key(1), ContextKey([7; 16]));
        let context = Context { seen: object.seen(), hlc: object.hlc() };
        b.iter(|| {
            let token = context.seal(&key, &secret);
            Context::open(&token, &key, &secret)
        });
    });
    group.finish();
}

fn record_dot(counter: u64) -> galvani_model::version::Dot {
    galvani_model::version::Dot::new(galvani_model::ids::Origin(1), counter)
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let value = Bytes::from(vec![b'x'; 1024]);
    group.throughput(Throughput::Bytes(1024));
    let mut out = BytesMut::with_capacity(4096);
    // The floor: the value has to get into the send buffer once.
    group.bench_function("floor_copy_1k", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&value));
        });
    });
    let record = record(1, 1, 1, 1024);
    let message = Message::Replicate(Replicate {
        shard: Shard { partition: Partition(1), n: 3 },
        head: record.head,
        fsync: false,
        timeout_ms: 2000,
        value,
    });
    group.bench_function("encode_replicate_1k", |b| {
        b.iter(|| {
            out.clear();
            encode(1, false, black_box(&message), &mut out);
        });
    });
    let mut out = BytesMut::new();
    encode(1, false, &message, &mut out);
    let frame = out.freeze();
    group.bench_function("decode_replicate_1k", |b| b.iter(|| Frame::decode(frame.clone())));
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    algebra(&mut criterion);
    codec(&mut criterion);
    criterion.final_summary();
}
