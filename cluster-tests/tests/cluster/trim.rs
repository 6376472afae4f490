//! A log that is trimmed: replaced records go from every disk, all is read as before, and a node that
//! lost its disk is filled again from what is left.

use galvani_client::Client;
use galvani_cluster_tests::{Cluster, until};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const KEYS: u64 = 5;
const TIMES: u64 = 6;
/// Records that go at least. On a busy machine some writes are tried twice, and their records stay.
const GO: u64 = KEYS * (TIMES - 1) / 2;

/// A cluster that keeps replaced records for two seconds.
fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.reconfigure("feed_keep_ms = 86400000", "feed_keep_ms = 2000");
    cluster
}

/// Writes every key so often that one of its records is left.
fn overwrite(cluster: &Cluster) {
    for time in 1..=TIMES {
        for number in 0..KEYS {
            let (key, value) = (format!("k{number}"), format!("{number} for the {time}th time"));
            cluster.run(&["put", &key, &value, "-w", "3"]).expect(0);
        }
    }
}

/// Waits until a node has trimmed so many records.
fn until_trimmed(cluster: &Cluster, client: &Client, node: &str, records: u64) {
    until(&format!("{node} to trim"), || {
        let trimmed = cluster.status_of(client, node).counters.records_trimmed;
        match trimmed >= records {
            true => Ok(()),
            false => Err(format!("{trimmed} of {records} records")),
        }
    });
}

fn reads_the_last(cluster: &Cluster, node: &str) {
    for number in 0..KEYS {
        let key = format!("k{number}");
        let ran = cluster.run_at(node, &["get", &key, "-r", "1"]).expect(0);
        assert_eq!(ran.text(), format!("{number} for the {TIMES}th time\n"), "{ran}");
    }
}

#[test]
fn replaced_records_go_and_a_lost_disk_is_filled_from_the_rest() {
    let cluster = cluster();
    let client = cluster.client_at("n1");
    overwrite(&cluster);
    for node in NODES {
        until_trimmed(&cluster, &client, node, GO);
        let counters = cluster.status_of(&client, node).counters;
        assert_eq!(counters.rows_damaged, 0, "{node}");
        reads_the_last(&cluster, node);
    }
    cluster.kill("n3");
    std::fs::remove_dir_all(cluster.home("n3").join("data")).expect("it was there");
    cluster.start_node("n3");
    until("n3 to be filled", || {
        let status = cluster.status_of(&client, "n3");
        match (status.counters.records_pulled, status.shards_behind) {
            (KEYS.., 0) => Ok(()),
            (pulled, behind) => Err(format!("{pulled} records pulled, {behind} shards behind")),
        }
    });
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    let pulled = cluster.status_of(&client, "n3").counters.records_pulled;
    assert!(pulled <= KEYS * TIMES - GO, "{pulled} records: what was trimmed did not come");
    cluster.kill("n1");
    cluster.kill("n2");
    reads_the_last(&cluster, "n3");
}

#[test]
fn a_node_that_is_away_holds_trimming_back_and_is_named() {
    let cluster = cluster();
    let client = cluster.client_at("n1");
    overwrite(&cluster);
    cluster.kill("n2");
    cluster.run(&["put", "late", "one", "-w", "2"]).expect(0);
    cluster.run(&["put", "late", "two", "-w", "2"]).expect(0);
    until("n2 to be named", || {
        let text = cluster.run(&["status"]).expect(0).text().to_owned();
        match text.contains("trimming waits for n2") {
            true => Ok(()),
            false => Err(text),
        }
    });
    cluster.start_node("n2");
    until("n2 to be waited for no more", || {
        let waits: Vec<_> = NODES.map(|node| cluster.status_of(&client, node).trim_waits).concat();
        if waits.is_empty() { Ok(()) } else { Err(waits) }
    });
    for node in ["n1", "n3"] {
        until_trimmed(&cluster, &client, node, GO);
    }
}
