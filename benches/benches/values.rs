//! Version algebra and codec, beside the copy of a value they cannot do without; layouts.
//!
//! The floor of the codec is one copy of the value into the send buffer. A layout is planned once
//! in a change of the cluster: it shall take well under a second. Next: `storage.rs`.

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use galvani_benches::{key, record};
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::{ClusterId, NodeId, Partition, Shard};
use galvani_model::placement::{Layout, Member};
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
        epoch: 1,
        timeout_ms: 2000,
        value,
    });
    group.bench_function("encode_replicate_1k", |b| {
        b.iter(|| {
            out.clear();
            encode(1, false, black_box(&message), &mut out).expect("a small header");
        });
    });
    let mut out = BytesMut::new();
    encode(1, false, &message, &mut out).expect("a small header");
    let frame = out.freeze();
    group.bench_function("decode_replicate_1k", |b| b.iter(|| Frame::decode(frame.clone())));
    group.finish();
}

/// 1024 partitions with three copies over a hundred nodes in five zones, and what follows it.
fn placement(c: &mut Criterion) {
    let node = |index: u16| {
        let id = NodeId((u128::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced));
        let lanes = vec![([10, 0, (index >> 8) as u8, index as u8], 7401).into()];
        let zone = format!("z{}", index % 5);
        Member::new(id, format!("n{index}"), zone, 100, lanes).expect("a valid member")
    };
    let nodes = |from: u16, to: u16| (from..to).map(node).collect::<Vec<Member>>();
    let first = |members| Layout::compute(ClusterId(7), 1, 1024, 3, members).expect("feasible");
    let mut group = c.benchmark_group("placement_1024_partitions_100_nodes");
    group.sample_size(10);
    group.bench_function("first_layout", |b| b.iter(|| first(nodes(0, 100))));
    let layout = first(nodes(0, 100));
    for (name, from, to) in [
        ("one_joins", 0, 101),
        ("one_leaves", 1, 100),
        ("half_leave", 50, 100),
        ("as_many_again_join", 0, 200),
    ] {
        group.bench_function(name, |b| b.iter(|| layout.next(nodes(from, to)).expect("feasible")));
    }
    let next = layout.next(nodes(0, 101)).expect("feasible");
    group.bench_function("table_read_back", |b| {
        b.iter(|| Layout::try_from(layout.record().clone()).expect("valid"));
    });
    group.bench_function("moves_of_one_join", |b| b.iter(|| layout.moves(black_box(&next))));
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    algebra(&mut criterion);
    codec(&mut criterion);
    placement(&mut criterion);
    criterion.final_summary();
}
