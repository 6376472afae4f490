//! `galvani bench` against a cluster that takes only so much, and ended with Ctrl-C.

use galvani_cluster_tests::{Cluster, until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// A cluster whose nodes take so many requests a second of one client, and that many at once.
fn limited(each_node: u32) -> Cluster {
    let cluster = Cluster::start();
    cluster.stop_all();
    for node in cluster.nodes() {
        let path = cluster.home(&node.name).join("galvani.toml");
        let text = fs::read_to_string(&path).expect("its configuration");
        let line = |limit| format!("client_requests_per_second = {limit}\n");
        assert!(text.contains(&line(0)), "{text}");
        fs::write(&path, text.replace(&line(0), &line(each_node))).expect("written");
    }
    cluster.start_all();
    cluster
}

#[test]
fn a_rate_limit_is_waited_for_first_and_counted_then() {
    let cluster = limited(60);
    // Two requests a key: more than the nodes take at once.
    let common = ["bench", "put", "--keys", "200", "--warmup", "0s"];
    let run = |more: &[&str]| cluster.run(&[&common, more].concat());
    let ran = run(&["--rate", "400", "--duration", "2s", "-o", "json"]).expect(0);
    let document = ran.json("galvani.bench/1");
    assert!(ran.stderr.contains("waiting  rate limited"), "{ran}");
    let row = &document["rows"][0];
    assert!(row["refused"].as_u64().is_some_and(|refused| refused > 0), "{document}");
    assert_eq!(row["other"], 0, "{document}");

    let closed = run(&["-c", "8", "--count", "2000"]).expect(1).is_three_part_error();
    assert!(closed.text().contains("closed loop, 8 workers"), "the figures all the same: {closed}");
    closed.says(&["of 2 000 requests failed"]);
}

#[test]
fn ctrl_c_ends_it_with_130() {
    let cluster = Cluster::start();
    let bench = cluster.begin(&["bench", "put", "--keys", "100", "--duration", "50s"]);
    until("the bench to write", || {
        match cluster.run(&["get", "bench/00000000", "-o", "raw"]).code {
            Some(0) => Ok(()),
            other => Err(other),
        }
    });
    let pid = i32::try_from(bench.pid()).ok().and_then(Pid::from_raw).expect("an id");
    kill_process(pid, Signal::INT).expect("it runs");
    bench.finish().expect(130).says(&["interrupted: no figures"]);
}
