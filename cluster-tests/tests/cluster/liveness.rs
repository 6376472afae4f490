//! Nodes that die or stand still under load: clients notice nothing, the others do, and it ends.

use galvani_client::Client;
use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::{Cluster, History, Load, until};
use galvani_model::ids::NodeId;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WRITERS: usize = 8;
const WRITES: u64 = 300;
/// How long the node is away.
const AWAY: Duration = Duration::from_secs(5);

/// Waits until every node but `away` says that it is up, or that it is not.
fn until_seen(cluster: &Cluster, client: &Client, (away, id): (&str, NodeId), up: bool) {
    until(&format!("{away} to be seen as up: {up}"), || {
        let names = cluster.nodes().iter().map(|node| node.name.clone());
        let others: Vec<String> = names.filter(|name| name != away).collect();
        let wrong = others.iter().find(|name| {
            let status = cluster.status_of(client, name);
            status.peers_up.contains(&id) != up
        });
        wrong.map_or(Ok(()), |name| Err(name.clone()))
    });
}

/// A node goes away and comes back while writers go on: none of them may fail, or stand still with it.
fn nobody_fails(nodes: &str, away: impl Fn(&Cluster, &str), back: impl Fn(&Cluster, &str)) {
    let cluster = Cluster::with(&["-n", nodes]);
    let client = cluster.client_at("n1");
    let n3 = ("n3", cluster.status_of(&client, "n3").node);
    let history = Arc::new(History::new(any_seed()));
    let load = Load::patient(&cluster, &history, &["n1", "n2"], WRITERS, 2_u8);
    load.until_acked(WRITES);
    let since = Instant::now();
    away(&cluster, "n3");
    load.until_acked(WRITES);
    until_seen(&cluster, &client, n3, false);
    until("five seconds of it to be over", || {
        load.until_acked(WRITES / 10);
        let passed = since.elapsed();
        if passed >= AWAY { Ok(()) } else { Err(passed) }
    });
    let text = cluster.run(&["status"]).text().to_owned();
    assert!(text.contains("n1 cannot reach n3"), "{text}");
    back(&cluster, "n3");
    until_seen(&cluster, &client, n3, true);
    load.until_acked(WRITES);
    let tally = load.stop(&cluster);
    tally.nobody_noticed();
    check_all(&cluster, &client, &history, 2_u8);
}

#[test]
fn one_of_three_is_killed_and_started_again() {
    nobody_fails("3", Cluster::kill, Cluster::start_node);
}

#[test]
fn sigstop_5s_of_one_of_three() {
    nobody_fails("3", Cluster::pause, Cluster::resume);
}

#[test]
fn one_of_five_is_killed_and_started_again() {
    nobody_fails("5", Cluster::kill, Cluster::start_node);
}

#[test]
fn sigstop_5s_of_one_of_five() {
    nobody_fails("5", Cluster::pause, Cluster::resume);
}
