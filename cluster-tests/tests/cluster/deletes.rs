//! Deletes on real disks: tombstones go when every owner has them, and not before.

use galvani_client::Client;
use galvani_cluster_tests::{Cluster, until};

fn key(number: usize) -> String {
    format!("gone-{number:04}")
}

/// Writes all keys, and deletes them under what that returned.
fn write_and_delete(cluster: &Cluster, client: &Client, keys: usize) {
    cluster.block_on(async {
        for number in 0..keys {
            let put = client.put(key(number), "value").blind().w(2).send().await;
            let context = put.expect("all are up").context;
            let delete = client.delete(key(number)).after(&context).w(2).send().await;
            delete.expect("all are up");
        }
    });
}

/// Waits until no node holds a tombstone.
fn until_collected(cluster: &Cluster, client: &Client) {
    until("all tombstones to be collected", || {
        let held: Vec<_> = cluster
            .nodes()
            .iter()
            .map(|node| (node.name.clone(), cluster.status_of(client, &node.name).tombstones))
            .filter(|(_, tombstones)| *tombstones > 0)
            .collect();
        if held.is_empty() { Ok(()) } else { Err(held) }
    });
}

fn nothing_is_shown(cluster: &Cluster, client: &Client, keys: usize, r: u8) {
    for number in 0..keys {
        let read = cluster.block_on(async { client.get(key(number)).r(r).await });
        let read = read.expect("enough are up");
        assert!(read.values().next().is_none(), "{}: {:?}", key(number), read.siblings);
    }
}

#[test]
fn a_thousand_deletes_leave_nothing_behind() {
    let cluster = Cluster::with(&["-n", "3", "--lanes", "2"]);
    let client = cluster.client_at("n1");
    write_and_delete(&cluster, &client, 1_000);
    until_collected(&cluster, &client);
    nothing_is_shown(&cluster, &client, 1_000, 3);
    let listed = cluster.run(&["ls"]).expect(0).text().to_owned();
    assert!(!listed.contains("gone-"), "{listed}");
    // What was collected stays so over a crash of all.
    cluster.kill_all();
    cluster.start_all();
    // All links of the first client are to processes that are gone, and it has two retries.
    let client = cluster.client_at("n1");
    nothing_is_shown(&cluster, &client, 1_000, 3);
    until_collected(&cluster, &client);
}

#[test]
fn a_node_that_is_away_is_named_and_its_return_lets_tombstones_go() {
    let cluster = Cluster::with(&["-n", "3"]);
    let client = cluster.client_at("n1");
    let n3 = cluster.status_of(&client, "n3").node;
    cluster.kill("n3");
    until("n3 to be noticed", || {
        let status = cluster.status_of(&client, "n1");
        if status.peers_down.contains(&n3) { Ok(()) } else { Err(status.peers_down) }
    });
    write_and_delete(&cluster, &client, 200);
    until("the wait for n3 to be told", || {
        let status = cluster.run(&["status"]).text().to_owned();
        let told = status.lines().any(|line| line.contains("tombstones") && line.contains("n3"));
        if told { Ok(()) } else { Err(status) }
    });
    let status = cluster.status_of(&client, "n1");
    // A try through another coordinator adds a dot to a tombstone.
    assert!(status.tombstones >= 200, "none goes without n3: {}", status.tombstones);
    assert!(status.collection_waits.contains_key(&n3), "{:?}", status.collection_waits);
    nothing_is_shown(&cluster, &client, 200, 2);

    cluster.start_node("n3");
    until_collected(&cluster, &client);
    let status = cluster.run(&["status"]).text().to_owned();
    let told = status.lines().any(|line| line.contains("tombstones") && line.contains("n3"));
    assert!(!told, "{status}");
    nothing_is_shown(&cluster, &client, 200, 3);
}
