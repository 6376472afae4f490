//! Allocations per put and per get, counted by the process's allocator.
//!
//! What is counted is every allocation of every thread: the client, the coordinator, the other two
//! owners, their engines' workers, and the QUIC library in all of them. The lines of lanes count
//! machines and store without transport; floors count the QUIC library alone.

use galvani_benches::cases::{self, Op};
use galvani_benches::cluster::{Nodes, Request, Until};
use galvani_benches::counting::{Allocations, Counting};
use galvani_benches::quic::{self, Floor};
use galvani_benches::table::{Row, heading, line};
use galvani_node::local::LocalSpec;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Operations counted, after as many that warm up.
const COUNTED: u64 = 1_000;

fn main() {
    // `cargo bench` passes this flag. `cargo test --benches` does not: it only sees that this starts.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let floor = "client, coordinator and two replicas on the QUIC library alone";
    println!("{}", heading("allocations, three nodes and a client", floor));
    let mut nodes = Nodes::start(&LocalSpec::default(), 64);
    for (what, request, shape) in
        [("put W=2 N=3", Request::Put, quic::PUT), ("get R=2 N=3", Request::Get, quic::GET)]
    {
        let mut floor = Floor::relay(shape);
        for in_flight in [1, 64] {
            let each = Until::Count(COUNTED / in_flight as u64);
            let real = counted(|| nodes.run(request, in_flight, each).len() as u64);
            let floor = counted(|| {
                floor.run(in_flight, COUNTED as usize);
                COUNTED
            });
            print(&format!("{what}, {in_flight} in flight"), real, Some(floor));
        }
    }
    println!("{}", heading("allocations, lanes without transport", "a tick with nothing in it"));
    let mut empty = cases::build("tick-empty", 0).expect("a floor case");
    let floor = of_op(&mut empty);
    for name in ["tick-put", "tick-replicate", "lanes-put", "lanes-get"] {
        let what = cases::CASES.iter().find(|case| case.0 == name).map_or(name, |case| case.1);
        let mut op = cases::build(name, 2 * COUNTED).expect("a case");
        print(what, of_op(&mut op), Some(floor));
    }
    println!("{}", heading("allocations, functions", "-"));
    for name in
        ["apply-object", "join", "encode-put", "decode-put", "encode-replicate", "decode-replicate"]
    {
        let what = cases::CASES.iter().find(|case| case.0 == name).map_or(name, |case| case.1);
        let mut op = cases::build(name, 2 * COUNTED).expect("a case");
        print(what, of_op(&mut op), None);
    }
}

/// Allocations and bytes per operation of `work`, which says how many it did. Run twice: the first
/// time warms up.
fn counted(mut work: impl FnMut() -> u64) -> [f64; 2] {
    work();
    let before = Allocations::so_far();
    let operations = work().max(1) as f64;
    let spent = Allocations::since(before);
    [spent.count as f64 / operations, spent.bytes as f64 / operations]
}

fn of_op(op: &mut Op) -> [f64; 2] {
    counted(|| {
        (0..COUNTED).for_each(|_| op());
        COUNTED
    })
}

fn print(what: &str, real: [f64; 2], floor: Option<[f64; 2]>) {
    for (at, unit) in ["allocations/op", "bytes/op"].into_iter().enumerate() {
        let row =
            Row { what: what.to_owned(), unit, real: real[at], floor: floor.map(|it| it[at]) };
        println!("{}", line(&row));
    }
}
