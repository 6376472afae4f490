//! One node alone (N2): it hears nobody and nobody hears it, while clients reach all of them. Those of the
//! others notice nothing, it refuses what it cannot keep, and is brought what it missed without a read.

use galvani_client::{Applied, ErrorKind};
use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::{Cluster, History, Load, until};
use std::sync::Arc;

#[test]
fn isolate_one_under_load_nobody_notices_and_it_catches_up() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::start();
    let client = cluster.client_at("n1");
    let load = Load::patient(&cluster, &history, &["n1", "n2"], 6, 2_u8);
    load.until_acked(100);
    cluster.run(&["dev", "cut", "n3|n1,n2"]).expect(0);
    let alone = cluster.builder().only("n3").retries(0);
    let alone = cluster.block_on(alone.connect()).expect("clients reach it");
    let mut tries = 0;
    until("n3 to refuse what it cannot keep", || {
        tries += 1;
        let put = alone.put(format!("alone/{tries}"), "v").blind().w(2).strict().send();
        let error = match cluster.block_on(put) {
            Ok(written) => panic!("n3 has nobody to ask: {written:?}"),
            Err(error) => error,
        };
        match (error.kind(), error.applied()) {
            (ErrorKind::ReplicasDown { .. }, Applied::No) => Ok(()),
            // It had not noticed yet: such a write is in doubt.
            _ => Err(error.to_string()),
        }
    });
    // What one owner is enough for it takes, and it reaches the others later.
    let put = alone.put("one is enough", "v").blind().w(1).send();
    cluster.block_on(put).expect("n3 runs");
    until("the others to have noticed", || {
        let down = ["n1", "n2"].map(|name| cluster.status_of(&client, name).peers_down.len());
        if down == [1, 1] { Ok(()) } else { Err(down) }
    });
    load.until_acked(200);
    cluster.run(&["dev", "heal"]).expect(0);
    load.until_acked(100);
    load.stop(&cluster).nobody_noticed();

    let refused = format!("alone/{tries}");
    let explained = cluster.until_equal(&client, &refused);
    for replica in &explained.replicas {
        assert_eq!(replica.versions.as_ref().map(Vec::len), Ok(0), "it was refused: {replica:?}");
    }
    for key in history.keys().iter().rev().take(40) {
        cluster.until_equal(&client, key);
    }
    let explained = cluster.until_equal(&client, "one is enough");
    for replica in &explained.replicas {
        assert_eq!(replica.versions.as_ref().map(Vec::len), Ok(1), "{replica:?}");
    }
    for node in ["n1", "n2", "n3"] {
        let repairs = cluster.status_of(&client, node).counters.repairs_sent;
        assert_eq!(repairs, 0, "{node}: it was brought by anti-entropy, nobody read");
    }
    check_all(&cluster, &client, &history, 3_u8);
}
