//! Links that are broken on purpose, between real processes: cut, slow, lossy, and mended again.

use galvani_client::{Applied, Client, ErrorKind, NodeStatus};
use galvani_cluster_tests::{Cluster, until};
use std::time::{Duration, Instant};

const KEYS: usize = 60;

#[test]
fn majority_minority_the_small_side_refuses_and_is_healed_without_a_read() {
    let cluster = Cluster::start();
    let (small, large) = (client_of(&cluster, "n1"), client_of(&cluster, "n2"));
    put(&cluster, &small, "before", "v", 3).expect("nothing is cut yet");
    let ran = cluster.run(&["dev", "cut", "n1|n2,n3"]).expect(0);
    ran.says(&["do not hear each other", "undo: galvani dev heal", "n1 (n2 n3: cut)"]);
    until_down(&cluster, &small, "n1", 2);
    until_down(&cluster, &large, "n2", 1);
    // A client reaches them all: that alone says nothing of what they can do together.
    let status = cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1");
    assert_eq!(status["can_lose_nodes"], 0, "{status}");
    let partitions = &status["partitions"];
    assert_eq!((&partitions["all_owners_up"], &partitions["quorum_lost"]), (&0.into(), &0.into()));
    let text = cluster.run(&["status"]).expect(0);
    assert!(text.text().contains("n1 is away: what it misses is found"), "{text}");
    let text = cluster.run(&["dev", "status"]).expect(0);
    assert!(text.text().contains("SET ON PURPOSE: n1 (n2 n3: cut)"), "{text}");

    let error = put(&cluster, &small, "refused", "v", 2).expect_err("n1 is alone");
    assert!(matches!(error.kind(), ErrorKind::ReplicasDown { .. }), "{error}");
    assert_eq!(error.applied(), Applied::No);
    let put_2 = ["put", "served", "v", "-w", "2", "--strict", "--blind"];
    cluster.run_at("n2", &put_2).expect(0);
    let put_3 = ["put", "nowhere", "v", "-w", "3", "--strict", "--blind"];
    cluster.run_at("n2", &put_3).expect(5).is_three_part_error();

    for number in 0..KEYS {
        put(&cluster, &large, &key("large", number), "v", 2).expect("two are together");
        put(&cluster, &small, &key("small", number), "v", 1).expect("one is enough");
    }
    put(&cluster, &large, "both", "of the large side", 2).expect("two are together");
    put(&cluster, &small, "both", "of the small side", 1).expect("one is enough");
    cluster.run(&["dev", "heal"]).expect(0).says(&["no faults are set any more"]);
    let client = cluster.client();
    // By anti-entropy, or by links that were cut for too short a time to break.
    let explained = cluster.until_equal(&client, "both");
    let versions = explained.replicas[0].versions.as_ref().expect("answered");
    assert_eq!(versions.len(), 2, "siblings: {versions:?}");
    for side in ["small", "large"] {
        (0..KEYS).for_each(|number| {
            cluster.until_equal(&client, &key(side, number));
        });
    }
    for node in ["n1", "n2", "n3"] {
        let status = cluster.status_of(&client, node);
        assert_eq!((status.counters.repairs_sent, status.faults), (0, Vec::new()), "{node}");
    }
}

#[test]
fn asymmetric_cut_the_left_hears_the_right_and_a_restart_forgets_it() {
    let cluster = Cluster::start();
    let client = cluster.client();
    cluster.run(&["dev", "cut", "n1|n3", "--one-way"]).expect(0);
    let links = |name: &str| {
        let status = cluster.status_of(&client, name);
        status.faults.iter().map(|link| (link.cut_out, link.cut_in)).collect::<Vec<_>>()
    };
    assert_eq!(links("n1"), [(true, false)]);
    assert_eq!(links("n2"), []);
    assert_eq!(links("n3"), [(false, true)]);
    until_down(&cluster, &client, "n3", 1);
    // Cuts add up.
    cluster.run(&["dev", "cut", "n3|n1,n2", "--one-way"]).expect(0);
    assert_eq!(links("n1"), [(true, true)]);
    assert_eq!(links("n2"), [(false, true)]);
    cluster.kill("n2");
    cluster
        .run(&["dev", "cut", "n1|n2"])
        .expect(5)
        .is_three_part_error()
        .says(&["n2 does not run"]);
    cluster.run(&["dev", "heal"]).expect(0);
    cluster.start_node("n2");
    cluster.run(&["dev", "cut", "n2|n3"]).expect(0);
    cluster.kill("n2");
    // It starts without faults and is ready without n3, which still drops what comes from it.
    cluster.start_node("n2");
    assert_eq!(links("n2"), []);
    assert_eq!(links("n3"), [(true, true)]);
    until_down(&cluster, &client, "n2", 1);
}

#[test]
fn a_slow_node_makes_those_wait_who_need_it() {
    const DELAY: Duration = Duration::from_millis(120);
    let cluster = Cluster::start();
    let client = client_of(&cluster, "n1");
    put(&cluster, &client, "warm", "v", 3).expect("all are up");
    cluster.run(&["dev", "slow", "n3", "150ms±30"]).expect(0).says(&["150 ms ± 30 ms late"]);
    for number in 0..5 {
        let began = Instant::now();
        put(&cluster, &client, &key("slow", number), "v", 3).expect("late, but there");
        assert!(began.elapsed() >= DELAY, "{:?}", began.elapsed());
    }
    let status = cluster.run(&["status"]).expect(0);
    assert!(status.text().contains("SET ON PURPOSE: n3 (n1 n2: 150 ms"), "{status}");
    cluster.run(&["dev", "heal"]).expect(0);
    until("a put that needs n3 to be quick again", || {
        let began = Instant::now();
        put(&cluster, &client, "quick", "v", 3).map_err(|error| error.to_string())?;
        let took = began.elapsed();
        if took < DELAY / 2 { Ok(()) } else { Err(format!("{took:?}")) }
    });
}

#[test]
fn loss_is_outlived_until_all_is_lost() {
    let cluster = Cluster::start();
    let client = client_of(&cluster, "n1");
    let ran = cluster.run(&["dev", "lossy", "n3", "5%", "-o", "json"]).expect(0);
    let document = ran.json("galvani.dev_faults/1");
    assert_eq!(document["nodes"][0]["faults"][1]["loss_percent"], 5.0, "{document}");
    for number in 0..KEYS {
        put(&cluster, &client, &key("lossy", number), "v", 3).expect("sent again until there");
        let read = cluster.block_on(async { client.get(key("lossy", number)).r(3).await });
        assert_eq!(read.expect("sent again until there").siblings.len(), 1);
    }
    cluster.run(&["dev", "lossy", "n3", "100%"]).expect(0);
    until_down(&cluster, &client, "n1", 1);
    cluster.run(&["dev", "lossy", "n3", "0%"]).expect(0).says(&["any more"]);
    until("n3 to be reached again", || {
        put(&cluster, &client, "again", "v", 3).map_err(|error| error.to_string())
    });
}

#[test]
fn mistakes_are_told_before_anything_is_broken() {
    let cluster = Cluster::start();
    let client = cluster.client();
    for (words, part) in [
        (&["dev", "cut", "n1|n9"][..], "its nodes are n1 n2 n3"),
        (&["dev", "slow", "n9", "5ms"], "its nodes are n1 n2 n3"),
        (&["dev", "slow", "n1", "5ms±6"], "the jitter is larger than the delay"),
    ] {
        cluster.run(words).expect(2).is_three_part_error().says(&[part]);
    }
    for (words, part) in [
        (&["dev", "cut", "n1"][..], "write it in quotes, as 'n1|n2,n3'"),
        (&["dev", "cut", "n1,n2|n2,n3"], "n2 is on both sides"),
        (&["dev", "lossy", "n1", "150%"], "not a share from 0% to 100%"),
    ] {
        cluster.run(words).expect(2).says(&[part]);
    }
    cluster.pause("n3");
    let paused = cluster.run(&["dev", "cut", "n1|n3"]).expect(5).is_three_part_error();
    paused.says(&["n3 is paused: no fault was set", "galvani dev resume n3"]);
    cluster.resume("n3");
    for node in ["n1", "n2", "n3"] {
        assert_eq!(cluster.status_of(&client, node).faults, []);
    }
}

#[test]
fn a_server_that_does_not_allow_faults_refuses_them() {
    let cluster = Cluster::start();
    let path = cluster.home("n1").join("galvani.toml");
    let text = std::fs::read_to_string(&path).expect("there");
    assert!(text.contains("faults = true"), "{text}");
    cluster.stop("n1");
    std::fs::write(&path, text.replace("faults = true", "")).expect("written");
    cluster.start_node("n1");
    let ran = cluster.run(&["dev", "slow", "n1", "5ms"]).expect(5).is_three_part_error();
    ran.says(&["does not allow faults", "write  faults = true  under [transport]"]);
    let client = cluster.client();
    assert_eq!(cluster.status_of(&client, "n1").faults, []);
}

/// A client that asks `node` and, if it refuses, nobody else.
fn client_of(cluster: &Cluster, node: &str) -> Client {
    let builder = cluster.builder().zone(&cluster.node(node).zone).retries(0);
    cluster.block_on(builder.connect()).expect("the cluster runs")
}

fn put(
    cluster: &Cluster,
    client: &Client,
    key: &str,
    value: &str,
    w: u8,
) -> galvani_client::Result<()> {
    let put = client.put(key.to_owned(), value.to_owned()).blind().w(w).strict();
    cluster.block_on(put.send()).map(drop)
}

/// Waits until so many peers cannot be reached from `name`.
fn until_down(cluster: &Cluster, client: &Client, name: &str, count: usize) -> NodeStatus {
    until(&format!("{name} to miss {count} peers"), || {
        let status = cluster.status_of(client, name);
        match status.peers_down.len() {
            down if down == count => Ok(status),
            _ => Err(status.peers_down),
        }
    })
}

fn key(side: &str, number: usize) -> String {
    format!("{side}/{number}")
}
