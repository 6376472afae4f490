//! One put and one get at a time through three nodes in this process: latency, not throughput.
//! `galvani bench` measures throughput and the cost of whole processes.

use criterion::Criterion;
use galvani_benches::cluster;
use galvani_node::local::LocalSpec;
use tokio::runtime::Builder;

fn puts_and_gets(c: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (_dir, _cluster, db) = runtime.block_on(cluster::start(&LocalSpec::default()));
    let value = vec![b'x'; 1024];
    let mut number = 0u64;
    let mut group = c.benchmark_group("three_nodes_one_at_a_time");
    group.bench_function("put_1k_w2", |b| {
        b.iter(|| {
            number += 1;
            let key = format!("user/{number:012}");
            runtime.block_on(db.put(key, value.clone()).blind().w(2).send()).expect("stored")
        });
    });
    group.bench_function("get_1k_r2", |b| {
        b.iter(|| runtime.block_on(db.get("user/000000000001").r(2).into_future()).expect("read"));
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    puts_and_gets(&mut criterion);
    criterion.final_summary();
}
