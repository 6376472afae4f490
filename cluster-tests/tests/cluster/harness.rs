//! The harness itself: a test that fails leaves nothing behind.

use galvani_cluster_tests::{Cluster, processes};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

#[test]
fn a_test_that_panics_leaves_no_process_and_no_file() {
    let mut root = PathBuf::new();
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let cluster = Cluster::with(&["-n", "2"]);
        root = cluster.scratch().to_owned();
        assert_eq!(processes::in_dir(&root).len(), 2);
        // One that takes no ordinary signal now.
        cluster.pause("n2");
        // A failing test, and what the harness shows of it: this one is meant.
        panic!("on purpose");
    }));
    let said = failed.expect_err("it panics");
    assert_eq!(said.downcast_ref::<&str>(), Some(&"on purpose"));
    assert_eq!(processes::in_dir(&root), [0_u32; 0]);
    assert!(!root.exists());
}
