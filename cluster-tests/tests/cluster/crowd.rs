//! `memory_bound` (O2) with real processes, in short: a crowd with large values before one node.

use galvani_cluster_tests::crowd::{Settings, run};
use std::time::Duration;

/// What a node of one lane may take, whoever comes: bounds of what it holds, receives and has to send
/// (256, 160 and 256 MiB), engine and caches, and what links cost.
const MEMORY_MAX: u64 = 1 << 30;

#[test]
fn a_crowd_with_large_values_leaves_a_node_its_memory_and_others_their_answers() {
    let report = run(&Settings {
        tasks: 200,
        deaf_links: 300,
        asks: 300,
        value: 256 << 10,
        time: Duration::from_secs(10),
    });
    println!("{report}");
    assert!(report.memory_max <= MEMORY_MAX, "{report}");
    assert!(report.honest_micros.len() > 5, "{report}");
    let failed = report.honest_failures.len();
    assert!(failed * 10 <= report.honest_micros.len(), "{report}");
}
