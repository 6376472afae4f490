//! The counting allocator counts, when it is the process's.

use galvani_benches::counting::{Allocations, Counting};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn allocations_are_counted_with_their_bytes() {
    let before = Allocations::so_far();
    let boxes: Vec<Box<[u8; 100]>> = (0..50).map(|_| black_box(Box::new([0; 100]))).collect();
    let counted = Allocations::since(before);
    // Other threads of the test harness may allocate as well: never fewer, perhaps a few more.
    assert!(counted.count >= 51, "{counted:?}");
    assert!(counted.bytes >= 50 * 100 + 50 * 8, "{counted:?}");
    assert!(counted.count < 1_000, "{counted:?}");
    drop(boxes);
}
