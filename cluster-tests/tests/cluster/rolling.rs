//! Nodes are restarted one by one while writers and readers with w=2 and r=2 work: nobody sees an
//! error, and every acked write is there afterwards.

use galvani_cluster_tests::Cluster;
use galvani_cluster_tests::history::History;
use galvani_cluster_tests::load::{Load, check_all};
use galvani_cluster_tests::reads::Reads;
use std::sync::Arc;

#[test]
fn rolling_restart_under_load_and_nobody_notices() {
    let cluster = Cluster::start();
    let history = Arc::new(History::new(0x6b01));
    let names = ["n1", "n2", "n3"];
    let load = Load::start(&cluster, &history, &names, 6, 2);
    load.until_acked(200);
    let readers = names.map(|name| cluster.client_at(name));
    let reads = Reads::start(&cluster, &history, readers, 2);
    let before: Vec<u32> = names.iter().map(|name| cluster.pid(name)).collect();
    let rolled = cluster.run(&["dev", "restart", "--rolling", "-o", "json"]).expect(0);
    let rolled = rolled.json("galvani.dev_restart/1");
    assert_eq!(rolled["restarted"], serde_json::json!(names));
    let after: Vec<u32> = names.iter().map(|name| cluster.pid(name)).collect();
    assert!(before.iter().zip(&after).all(|(old, new)| old != new), "{before:?} {after:?}");
    load.until_acked(200);
    let (tally, read) = (load.stop(&cluster), reads.stop(&cluster));
    assert_eq!(tally.failures, [], "of {} writes", tally.acked);
    assert_eq!(read.failures, [] as [String; 0], "of {} reads", read.reads);
    check_all(&cluster, &cluster.client(), &history, 2);
    // A stop that was asked for is a clean one, so no node takes new incarnations.
    for name in names {
        let log = std::fs::read_to_string(cluster.home(name).join("node.log")).expect("a log");
        assert!(log.contains(r#""start":"Clean""#), "{name}: {log}");
    }
}

#[test]
fn nothing_is_restarted_while_a_node_is_down() {
    let cluster = Cluster::start();
    cluster.kill("n2");
    let refused = cluster.run(&["dev", "restart", "--rolling"]).expect(5).is_three_part_error();
    refused.says(&["n2 does not run", "nothing was stopped", "galvani dev start"]);
    cluster.run(&["dev", "restart"]).expect(2);
    cluster.run(&["dev", "restart", "n2"]).expect(0);
    let rolled = cluster.run(&["dev", "restart", "--rolling"]).expect(0);
    assert!(rolled.text().contains("n1 n2 n3 restarted"), "{rolled}");
}
