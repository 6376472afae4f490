//! One run, one table: the real thing, its floor, and the ratio, for each pair.
//!
//! Criterion is not used here: real and floor take turns, the medians of the turns are compared,
//! and processor time of all threads is measured beside elapsed time. About two minutes.

use galvani_benches::cases::{self, Op};
use galvani_benches::cluster::{Nodes, Request};
use galvani_benches::echo::Echo;
use galvani_benches::file::AppendFile;
use galvani_benches::measure::{Cost, Stopwatch, in_turns, repeat};
use galvani_benches::quic::{self, Floor};
use galvani_benches::table::{Row, heading, line};
use galvani_benches::{record, stage};
use galvani_model::ids::{LaneIndex, Partition, Shard};
use galvani_model::store::Store;
use galvani_node::local::LocalSpec;
use galvani_storage::engine::{EngineConfig, FjallEngine, PowerHistory};
use galvani_storage::{NodeStore, StoreConfig};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// One turn of whatever crosses sockets.
const TURN: Duration = Duration::from_millis(700);
/// Measured turns of each, after one that is not.
const ROUNDS: usize = 5;

fn main() {
    // `cargo bench` passes this flag. `cargo test --benches` does not: it only sees that this starts.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    values();
    lane_ticks();
    storage();
    network();
    whole_requests();
}

fn print(row: &Row) {
    println!("{}", line(row));
}

/// Processor time of `name` and of the floor case `floor`, in turns.
fn micro(name: &str, floor: &str, count: u64) {
    let what = cases::CASES.iter().find(|case| case.0 == name).map_or(name, |case| case.1);
    let mut floor = cases::build(floor, 0).expect("a floor case");
    let real = || {
        let mut op = cases::build(name, count).expect("a case");
        repeat(count, &mut op)
    };
    let (real, floor) = in_turns(ROUNDS, real, || repeat(count, &mut floor));
    // One thread does it all: its processor time is what a quiet machine would take.
    print(&Row::of(what, "ns cpu", real.cpu_ns, floor.cpu_ns));
}

fn values() {
    println!(
        "{}",
        heading("version algebra", "XXH3 of a key of 16 B and a copy of a row of 120 B")
    );
    for name in ["clock-compare", "clock-merge", "clock-insert", "apply-object", "digest", "join"] {
        micro(name, "floor-row", 100_000);
    }
    println!("{}", heading("codec", "a copy of the value of 1 KiB"));
    for name in ["encode-put", "decode-put", "encode-replicate", "decode-replicate"] {
        micro(name, "floor-copy", 100_000);
    }
}

fn lane_ticks() {
    println!("{}", heading("lane, engine in memory", "a tick with nothing in it"));
    for name in ["tick-put", "tick-replicate", "lanes-put", "lanes-get"] {
        micro(name, "tick-empty", 5_000);
    }
    println!("{}", heading("lane, engine on disk", "a tick with nothing in it"));
    let mut empty = cases::build("tick-empty", 0).expect("a floor case");
    let mut on_disk = |what: &str, build: &dyn Fn(&Disks) -> Op| {
        let real = || {
            // Removed after the operation that uses them.
            let disks = Disks::new();
            let mut op = build(&disks);
            repeat(DISK_OPS, &mut op)
        };
        let (real, floor) = in_turns(3, real, || repeat(DISK_OPS, &mut empty));
        print(&Row::of(what, "ns", real.wall_ns, floor.wall_ns));
        print(&Row::of(what, "ns cpu", real.cpu_ns, floor.cpu_ns));
    };
    on_disk("a put at its coordinator, both ticks", &|disks| {
        cases::tick_put(disks.engine(0), DISK_OPS)
    });
    on_disk("a put at another owner", &|disks| cases::tick_replicate(disks.engine(0), DISK_OPS));
    on_disk("a put W=2 N=3, all three owners", &|disks| {
        cases::lanes_put([0, 1, 2].map(|at| disks.engine(at)), DISK_OPS)
    });
    on_disk("a get R=2 N=3, all three owners", &|disks| {
        cases::lanes_get([0, 1, 2].map(|at| disks.engine(at)), DISK_OPS)
    });
}

/// Operations of one turn with engines on disk: enough for memtables to be written out.
const DISK_OPS: u64 = 20_000;

struct Disks([TempDir; 3]);

impl Disks {
    fn new() -> Disks {
        Disks([(); 3].map(|()| tempfile::tempdir().expect("a temporary directory")))
    }

    fn engine(&self, at: usize) -> FjallEngine {
        open(&self.0[at])
    }
}

fn open(dir: &TempDir) -> FjallEngine {
    FjallEngine::open(dir.path(), EngineConfig::default(), PowerHistory::SameBoot)
        .expect("an engine")
        .0
}

fn storage() {
    let floor = "a record of 1.1 KiB appended to a file, flushed to the system every 32";
    println!("{}", heading("storage, per put of 1 KiB", floor));
    for batch in [1, 16, 64] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = StoreConfig::of_lane(LaneIndex(0), 1, false);
        let engine = Arc::new(open(&dir));
        let mut store = NodeStore::open(engine, config).expect("an empty store").store;
        let mut file = AppendFile::create();
        let mut counter = 0;
        let real = || apply(&mut store, &mut counter, batch);
        let (real, floor) = in_turns(3, real, || repeat(STORED, &mut || file.append()));
        let what = format!("a batch of {batch} applied and committed");
        print(&Row::of(what.clone(), "ns", real.wall_ns, floor.wall_ns));
        print(&Row::of(what, "ns cpu", real.cpu_ns, floor.cpu_ns));
    }
}

/// Puts of one turn: enough for memtables to be written out.
const STORED: u64 = 19_200;

fn apply(store: &mut NodeStore<FjallEngine>, counter: &mut u64, batch: u64) -> Cost {
    let shard = Shard { partition: Partition(3), n: 3 };
    let first = *counter + 1;
    *counter += STORED;
    // Made outside of what is measured; 6,400 keys, so that later turns write keys that exist.
    let mut records =
        (first..=*counter).map(|n| record(1, n, n % 6_400, 1_024)).collect::<Vec<_>>();
    records.reverse();
    let watch = Stopwatch::start();
    while !records.is_empty() {
        for record in records.split_off(records.len() - batch as usize).into_iter().rev() {
            let before = store.object(shard, &record.head.key).expect("readable");
            let mut record = record;
            record.head.past = before.seen();
            stage(store, shard, record);
        }
        store.commit(false).expect("room");
    }
    watch.stop(STORED)
}

fn print_flight(what: &str, in_flight: usize, real: Cost, floor: Cost) {
    let what = format!("{what}, {in_flight} in flight");
    if in_flight == 1 {
        print(&Row::of(format!("{what}: p50"), "us", real.p50_ns / 1e3, floor.p50_ns / 1e3));
    } else {
        print(&Row::of(
            format!("{what}: elapsed"),
            "us/op",
            real.wall_ns / 1e3,
            floor.wall_ns / 1e3,
        ));
    }
    print(&Row::of(format!("{what}: p99"), "us", real.p99_ns / 1e3, floor.p99_ns / 1e3));
    print(&Row::of(format!("{what}: CPU"), "us cpu/op", real.cpu_ns / 1e3, floor.cpu_ns / 1e3));
}

fn network() {
    let floor = "the same echo on the QUIC library alone; CPU of both sides";
    println!("{}", heading("transport: 1 KiB there, 64 B back", floor));
    let (mut echo, mut floor) = (Echo::start(quic::PUT), Floor::echo(quic::PUT));
    for in_flight in [1, 64] {
        let (real, floor) =
            in_turns(ROUNDS, || echo.measure(in_flight, TURN), || floor.measure(in_flight, TURN));
        print_flight("echo", in_flight, real, floor);
    }
}

fn whole_requests() {
    let floor = "client, coordinator and two replicas on the QUIC library alone, answer after one replica; CPU of all";
    println!("{}", heading("three nodes and a client in one process", floor));
    let mut nodes = Nodes::start(&LocalSpec::default(), 64);
    let mut both = |what: &str, request: Request, shape: quic::Shape| {
        let mut floor = Floor::relay(shape);
        for in_flight in [1, 64] {
            let real = || nodes.measure(request, in_flight, TURN);
            let (real, floor) = in_turns(ROUNDS, real, || floor.measure(in_flight, TURN));
            print_flight(what, in_flight, real, floor);
        }
    };
    both("put W=2 N=3", Request::Put, quic::PUT);
    both("get R=2 N=3", Request::Get, quic::GET);
}
