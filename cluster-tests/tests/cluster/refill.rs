//! An owner that lost its disk, while another one is away: nothing that was acked reads as absent.

use galvani_cluster_tests::{Cluster, until};

#[test]
fn an_owner_without_its_disk_is_not_read_from_before_it_is_filled_again() {
    let cluster = Cluster::start();
    cluster.run(&["put", "old", "value", "-w", "3"]).expect(0);
    cluster.kill("n3");
    // n1 and n2 have it, and n3 knows nothing of it.
    cluster.run(&["put", "k", "value", "-w", "2"]).expect(0);
    cluster.kill("n1");
    cluster.kill("n2");
    std::fs::remove_dir_all(cluster.home("n1").join("data")).expect("n1 is down");
    cluster.start_node("n1");
    cluster.start_node("n3");
    let asked = |words: &[&str]| cluster.run_at("n3", &[words, &["--timeout", "1s"]].concat());
    until("n3 to reach n1, and to hear why it is of no use", || {
        let refused = asked(&["get", "k", "-r", "2"]);
        match refused.code {
            // Two of three answer, and one of them would have to make up what it knows.
            Some(7) if refused.to_string().contains("being filled again") => Ok(()),
            Some(3) => panic!("an acked write reads as absent: {refused}"),
            _ => Err(refused.to_string()),
        }
    });
    // It takes part in writes, and r=1 is served by whoever can.
    asked(&["put", "new", "value", "--blind", "-w", "2"]).expect(0);
    let one = asked(&["get", "old", "-r", "1"]).expect(0);
    assert_eq!(one.text().trim(), "value");
    let status = asked(&["status"]);
    let lost = |line: &&str| line.contains("n1 lost its disk") && line.ends_with("from n2");
    assert!(status.text().lines().any(|line| lost(&line)), "{status}");
    asked(&["wait", "--for", "settled"]).expect(7);

    cluster.start_node("n2");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    for key in ["k", "old", "new"] {
        for pair in [["n1", "n2"], ["n1", "n3"]] {
            let away = ["n1", "n2", "n3"].into_iter().find(|node| !pair.contains(node));
            let away = away.expect("three nodes, two of them asked");
            cluster.kill(away);
            let read = cluster.run(&["get", key, "-r", "2"]).expect(0);
            assert_eq!(read.text().trim(), "value", "{key} of {pair:?}");
            cluster.start_node(away);
        }
    }
    // It is known for good: a restart asks nobody.
    cluster.kill_all();
    cluster.start_node("n1");
    let alone = cluster.run(&["get", "k", "-r", "1"]).expect(0);
    assert_eq!(alone.text().trim(), "value");
}

#[test]
fn a_lost_disk_beside_a_dead_node_is_healed_by_replacing_the_dead_one() {
    let cluster = Cluster::with(&["-n", "4", "--lanes", "1"]);
    for number in 0..40 {
        let key = format!("k{number}");
        cluster.run(&["put", &key, "value", "--blind", "-w", "3"]).expect(0);
    }
    cluster.kill("n2");
    cluster.kill("n1");
    std::fs::remove_dir_all(cluster.home("n1").join("data")).expect("n1 is down");
    cluster.start_node("n1");
    until("n1 to wait for the node that is dead", || {
        let status = cluster.run_at("n3", &["status"]);
        let waits = |line: &str| line.contains("n1 lost its disk") && line.ends_with("from n2");
        if status.text().lines().any(waits) { Ok(()) } else { Err(status.to_string()) }
    });
    // It will never be back. That is what an operator says by having another take its place.
    cluster.run(&["dev", "add", "--replace", "n2"]).expect(0);
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    let status = cluster.run_at("n3", &["status"]);
    assert!(!status.text().contains("lost its disk"), "{status}");
    for number in 0..40 {
        let read = cluster.run(&["get", &format!("k{number}"), "-r", "3"]).expect(0);
        assert_eq!(read.text().trim(), "value");
    }
}
