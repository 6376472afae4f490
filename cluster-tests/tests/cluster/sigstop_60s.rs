//! A minute of stillness (P3, C5): SIGSTOP of one node for sixty seconds under load. Clients notice nothing,
//! the others stand in for it, and when it goes on it is brought what it missed.
//!
//! The shorter ones are in `liveness.rs`; the same minute in virtual time is a scenario of the simulator.

use galvani_client::Client;
use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::reads::Reads;
use galvani_cluster_tests::wait::until_within;
use galvani_cluster_tests::{Cluster, History, Load, until};
use galvani_model::ids::NodeId;
use std::sync::Arc;
use std::time::{Duration, Instant};

const OTHERS: [&str; 3] = ["n1", "n2", "n4"];
/// How long the node stands still.
const STILL: Duration = Duration::from_secs(60);
/// What bringing it a minute of writes may take on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// Waits until the others say that n3 is up, or that it is not.
fn until_seen(cluster: &Cluster, client: &Client, n3: NodeId, up: bool) {
    until(&format!("n3 to be seen as up: {up}"), || {
        let seen = OTHERS.map(|name| cluster.status_of(client, name).peers_up.contains(&n3));
        if seen == [up; 3] { Ok(()) } else { Err(seen) }
    });
}

/// Hints that the others hold.
fn held(cluster: &Cluster, client: &Client) -> u64 {
    let of = |name| cluster.status_of(client, name).hints;
    OTHERS.into_iter().flat_map(|name| of(name).into_values()).map(|of| of.count).sum()
}

#[test]
fn sigstop_60s_under_load_nobody_notices_and_all_of_it_is_brought() {
    let history = Arc::new(History::new(any_seed()));
    // One more than copies: it stands in for the one that stands still.
    let cluster = Cluster::with(&["-n", "4", "--lanes", "2"]);
    let client = cluster.client_at("n1");
    let n3 = cluster.status_of(&client, "n3").node;
    let load = Load::patient(&cluster, &history, &["n1", "n2"], 2, 2_u8);
    load.until_acked(100);
    let reads = Reads::start(&cluster, &history, [cluster.client_at("n2")], 2_u8);
    cluster.pause("n3");
    let since = Instant::now();
    until_seen(&cluster, &client, n3, false);
    until_within(STILL + LONG, "a minute to be over", || {
        load.until_acked(20);
        let passed = since.elapsed();
        if passed >= STILL { Ok(()) } else { Err(passed) }
    });
    let status = cluster.run(&["status"]).text().to_owned();
    assert!(status.contains("n1 cannot reach n3"), "{status}");
    let hints = held(&cluster, &client);
    assert!(hints > 0, "nobody stood in for n3");
    cluster.resume("n3");
    until_seen(&cluster, &client, n3, true);
    load.until_acked(100);
    let read = reads.stop(&cluster);
    assert_eq!(read.failures, [] as [String; 0], "of {} reads", read.reads);
    load.stop(&cluster).nobody_noticed();
    until_within(LONG, "all hints to be handed over", || match held(&cluster, &client) {
        0 => Ok(()),
        left => Err(left),
    });
    println!("{hints} hints after a minute");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    check_all(&cluster, &client, &history, 3_u8);
    for key in history.keys().iter().rev().take(40) {
        let explained = cluster.until_equal(&client, key);
        assert_eq!(explained.replicas.len(), 3);
    }
}
