//! `galvani repair` on nodes that are well, and on one that is down.

use galvani_cluster_tests::{Cluster, until};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn all_nodes_are_read_and_one_that_is_down_is_named() {
    let cluster = Cluster::with(&["--lanes", "2"]);
    for number in 0..20 {
        cluster.run(&["put", &format!("k{number}"), "v", "--blind", "-w", "3"]).expect(0);
    }
    let look = |asked: u64| {
        let report = cluster.run(&["repair", "--state", "-o", "json"]).expect(0);
        let report = report.json("galvani.repair/1");
        for node in report["nodes"].as_array().expect("a list") {
            assert_eq!(
                (&node["asked"], &node["running"]),
                (&asked.into(), &false.into()),
                "{report}"
            );
        }
        assert_eq!(
            (&report["waited"], report["nodes"].as_array().map(Vec::len)),
            (&false.into(), Some(3))
        );
    };
    look(0);
    let ran = cluster.run(&["repair", "--state"]).expect(0);
    assert_eq!(ran.text().matches("no repair was asked for").count(), 3, "{ran}");
    let report = cluster.run(&["repair", "-o", "json"]).expect(0).json("galvani.repair/1");
    for (index, name) in ["n1", "n2", "n3"].into_iter().enumerate() {
        let node = &report["nodes"][index];
        assert_eq!((&node["name"], &node["running"]), (&name.into(), &false.into()), "{report}");
        assert_eq!((&node["shards"], &node["shards_read"]), (&256.into(), &256.into()), "{report}");
        assert!(node["rows_read"].as_u64() >= Some(40), "records and objects: {report}");
        assert_eq!(
            (&node["rows_found"], &node["rows_damaged"]),
            (&0.into(), &0.into()),
            "{report}"
        );
    }
    for _ in 0..2 {
        look(1);
    }
    let ran = cluster.run(&["repair", "--state", "--node", "n1"]).expect(0);
    assert!(ran.text().contains("is through: 256 of 256 shards"), "{ran}");
    cluster.run(&["repair", "--state", "--partition", "1"]).expect(2);
    let one = ["repair", "--node", "n2", "--partition", "17", "-o", "json"];
    let report = cluster.run(&one).expect(0).json("galvani.repair/1");
    assert_eq!(report["nodes"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(report["nodes"][0]["shards"], 1, "{report}");
    let ran = cluster.run(&["repair", "--no-wait"]).expect(0);
    assert_eq!(ran.text().matches("started").count(), 3, "{ran}");
    cluster.run(&["repair", "--node", "n9"]).expect(2).says(&["no node n9"]);
    cluster
        .run(&["repair", "--partition", "256"])
        .expect(2)
        .says(&["no partition 256", "0 to 255"]);

    cluster.kill("n3");
    let ran = cluster.run(&["repair"]).expect(7).is_three_part_error().says(&["n3 did not answer"]);
    assert_eq!(ran.text().matches("all whole").count(), 2, "the others are repaired: {ran}");
    let report = cluster.run(&["repair", "-o", "json"]).expect(7).json("galvani.repair/1");
    assert!(report["nodes"][2]["error"].is_string(), "{report}");
}

#[test]
fn an_interrupted_repair_says_how_to_look_and_looking_starts_nothing() {
    let cluster = Cluster::with(&["--lanes", "2"]);
    // The turn of n1 ends with n2 being asked, which does not answer.
    cluster.pause("n2");
    let state = || {
        let ran = cluster.run(&["repair", "--state", "--node", "n1", "-o", "json"]).expect(0);
        ran.json("galvani.repair/1")["nodes"][0].clone()
    };
    let running = cluster.begin(&["repair"]);
    until("n1 to be asked", || match state() {
        node if node["asked"] == 1 => Ok(()),
        node => Err(node),
    });
    let pid = i32::try_from(running.pid()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::INT).expect("it runs");
    let ran = running.finish().expect(130);
    ran.says(&["n1 goes on with it, not begun: n2, n3", "galvani repair --state"]);
    assert_eq!(state()["asked"], 1, "nobody asked again");
}
