//! Some thousands of the writes that `feed-group` makes by the hundred thousand: a node and a member of a
//! group are killed while all of it is written and followed.
//!
//! The figures of the whole are in `docs/proof.md`.

use galvani_cluster_tests::feed_group::{Settings, run};

#[test]
fn every_acked_write_is_delivered_in_order_though_a_node_and_a_member_are_killed() {
    let verdict = run(&Settings { keys: 3_000, versions: 2, writers: 16 });
    println!("{verdict}");
    assert!(verdict.passed(), "{verdict}");
    let (acked, refused, doubtful) = verdict.written;
    assert!(acked > 5_000, "hardly anything was written: {refused} refused, {doubtful} in doubt");
    assert!(verdict.by_member.len() == 3, "the killed one had its share: {verdict}");
    let again = verdict.duplicates();
    assert!(again < acked / 2, "what a dead member had kept does not come again: {verdict}");
}
