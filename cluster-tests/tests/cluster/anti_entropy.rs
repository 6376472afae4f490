//! Owners that missed writes get them from the others, without a read and without being asked.

use galvani_client::Client;
use galvani_cluster_tests::{Cluster, until};

const KEYS: usize = 400;

#[test]
fn a_node_that_was_away_catches_up_without_being_read() {
    let cluster = Cluster::with(&["--lanes", "2"]);
    let client = cluster.client_at("n1");
    fill(&cluster, &client, "before");
    cluster.kill("n3");
    fill(&cluster, &client, "while-away");
    cluster.start_node("n3");
    until_caught_up(&cluster, &client, KEYS as u64);
    alone_it_knows_all(&cluster, &["before", "while-away"]);
}

#[test]
fn a_node_that_lost_its_disk_is_filled_again() {
    let cluster = Cluster::start();
    let client = cluster.client_at("n1");
    fill(&cluster, &client, "before");
    // Made while it ran: only nodes with a disk know of it.
    cluster.run(&["bucket", "create", "late"]).expect(0);
    cluster.run(&["put", "-b", "late", "k", "of late", "--blind", "-w", "3"]).expect(0);
    cluster.kill("n3");
    std::fs::remove_dir_all(cluster.home("n3").join("data")).expect("it was there");
    cluster.start_node("n3");
    until_caught_up(&cluster, &client, KEYS as u64 + 1);
    alone_it_knows_all(&cluster, &["before"]);
    let ran = cluster.run_at("n3", &["get", "-b", "late", "k", "-r", "1"]).expect(0);
    assert_eq!(ran.text(), "of late\n", "{ran}");
}

/// Stores [`KEYS`] values under a name, several at once.
fn fill(cluster: &Cluster, client: &Client, name: &str) {
    cluster.block_on(async {
        for chunk in (0..KEYS).collect::<Vec<_>>().chunks(50) {
            let puts: Vec<_> = chunk
                .iter()
                .map(|number| {
                    let put = client.put(key(name, *number), value(name, *number));
                    tokio::spawn(async move { put.blind().w(2).send().await })
                })
                .collect();
            for put in puts {
                put.await.expect("no panic").expect("two nodes are up");
            }
        }
    });
}

/// Waits until n3 has pulled at least `records` and knows of nothing that it lacks.
fn until_caught_up(cluster: &Cluster, client: &Client, records: u64) {
    until("n3 to have caught up", || {
        let status = cluster.status_of(client, "n3");
        let pulled = status.counters.records_pulled;
        match (pulled >= records, status.shards_behind) {
            (true, 0) => Ok(()),
            (_, behind) => Err(format!("{pulled} records pulled, {behind} shards behind")),
        }
    });
    let status = cluster.status_of(client, "n3");
    assert_eq!(status.counters.digests_unequal, 0);
}

/// With the others gone, n3 answers for every key.
fn alone_it_knows_all(cluster: &Cluster, names: &[&str]) {
    cluster.kill("n1");
    cluster.kill("n2");
    let client = cluster.client_at("n3");
    for name in names {
        for number in 0..KEYS {
            let read = cluster.block_on(async { client.get(key(name, number)).r(1).await });
            let read = read.expect("n3 is up");
            let values: Vec<_> = read.siblings.iter().map(|sibling| &sibling.value).collect();
            assert_eq!(values, [&Some(value(name, number).into())], "{}", key(name, number));
        }
    }
}

fn key(name: &str, number: usize) -> String {
    format!("{name}/{number}")
}

fn value(name: &str, number: usize) -> String {
    format!("{name} value {number}")
}
