//! Reads that ask the other owners for versions only, beside reads that ask all of them for records.
//!
//! The coordinator has the record itself and names it, so the others send versions; the second kind names
//! nothing. Three lanes by hand, messages encoded and decoded, no network and no encryption: bytes on the
//! way, and processor time of all three for one get at r=2, n=3.

use bytes::Bytes;
use galvani_benches::lane::{Trio, Wire, get, put_of};
use galvani_benches::measure::{Cost, Stopwatch, in_turns};
use galvani_storage::engine::MemoryEngine;

/// Keys that are read in turn.
const KEYS: u64 = 200;
const READS: u64 = 4_000;
const ROUNDS: usize = 7;

fn main() {
    println!("a get, r=2 n=3             bytes between nodes            us of processor");
    println!("value                  versions only   records      versions only   records");
    for value in [1 << 10, 64 << 10] {
        let mut trio = Trio::new([(); 3].map(|()| MemoryEngine::new()));
        for key in 0..KEYS {
            trio.run(put_of(key, Bytes::from(vec![b'x'; value])));
        }
        let mut bytes = [0; 2];
        let trio = std::cell::RefCell::new((trio, &mut bytes));
        let read = |bodies: bool| -> Cost {
            let (trio, bytes) = &mut *trio.borrow_mut();
            trio.wire = Some(Wire { bodies, bytes: 0 });
            let watch = Stopwatch::start();
            for number in 0..READS {
                trio.run(get(number % KEYS));
            }
            let cost = watch.stop(READS);
            bytes[usize::from(bodies)] = trio.wire.map_or(0, |wire| wire.bytes) / READS;
            cost
        };
        let (records, versions) = in_turns(ROUNDS, &mut || read(true), &mut || read(false));
        let [few, many] = *trio.into_inner().1;
        let micros = |cost: Cost| cost.cpu_ns / 1_000.0;
        println!(
            "{:>3} KiB {few:>28} {many:>9} {:>18.1} {:>9.1}",
            value >> 10,
            micros(versions),
            micros(records)
        );
    }
}
