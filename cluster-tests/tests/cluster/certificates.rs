//! Certificates are renewed, and the root is changed, while nodes run and clients work; one that ends
//! is warned of, and a new one brings its node back without a restart.

use galvani_cluster_tests::history::History;
use galvani_cluster_tests::load::{Load, check_all};
use galvani_cluster_tests::reads::Reads;
use galvani_cluster_tests::{Cluster, raw, until};
use galvani_transport::ALPN;
use galvani_transport::pki::{ClusterCa, Identity};
use std::sync::Arc;
use std::time::Duration;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn log(cluster: &Cluster, name: &str) -> String {
    std::fs::read_to_string(cluster.home(name).join("node.log")).expect("a log")
}

/// Waits until each of these nodes has taken a new identity so many times.
fn until_renewed(cluster: &Cluster, names: &[&str], times: usize) {
    until(&format!("{names:?} to have new identities"), || {
        let taken = |name: &&str| log(cluster, name).matches("identity_renewed").count();
        let taken: Vec<usize> = names.iter().map(taken).collect();
        if taken.iter().all(|have| *have >= times) { Ok(()) } else { Err(taken) }
    });
}

fn path(cluster: &Cluster, name: &str) -> String {
    cluster.dir().join(name).display().to_string()
}

#[test]
fn the_root_is_changed_under_load_and_nobody_notices() {
    let cluster = Cluster::start();
    let history = Arc::new(History::new(0x6d01));
    let load = Load::start(&cluster, &history, &NODES, 4, 2);
    let reads = Reads::start(&cluster, &history, NODES.map(|name| cluster.client_at(name)), 2);
    load.until_acked(100);
    let before: Vec<u32> = NODES.iter().map(|name| cluster.pid(name)).collect();
    let [old, new] = ["ca", "ca2"].map(|name| path(&cluster, name));
    cluster.run(&["cluster", "root", "--ca", &old, "--out", &new]).expect(0);
    let again = cluster.run(&["cluster", "root", "--ca", &old, "--out", &new]).expect(5);
    again.is_three_part_error().says(&["exists already", "nothing was made"]);
    let ancient = Identity::load(&cluster.identity()).expect("made by dev");
    let dirs = ["n1/identity", "n2/identity", "n3/identity", "client"].map(|it| path(&cluster, it));
    for (step, roots) in [&[&old, &new][..], &[&new, &old], &[&new]].iter().enumerate() {
        let trust = roots[1..].iter().flat_map(|root| ["--trust", root.as_str()]);
        let words = ["cluster", "renew", "--ca", roots[0]].into_iter().chain(trust);
        let words: Vec<&str> = words.chain(dirs.iter().map(String::as_str)).collect();
        cluster.run(&words).expect(0);
        until_renewed(&cluster, &NODES, step + 1);
        // Clients that begin now, and links that are made anew, go by it.
        cluster
            .block_on(cluster.client().put("step", step.to_string()).blind().w(3).send())
            .expect("stored");
        load.until_acked(50);
    }
    let after: Vec<u32> = NODES.iter().map(|name| cluster.pid(name)).collect();
    assert_eq!(before, after, "no node was restarted");
    let (tally, read) = (load.stop(&cluster), reads.stop(&cluster));
    assert_eq!(tally.failures, [], "of {} writes", tally.acked);
    assert_eq!(read.failures, [] as [String; 0], "of {} reads", read.reads);
    check_all(&cluster, &cluster.client(), &history, 2);
    // Whoever has the old root's certificate is nobody now, and all nodes meet under the new one.
    let n1 = cluster.node("n1").addr;
    let fresh = Identity::load(&cluster.identity()).expect("renewed");
    let refused = cluster.block_on(async {
        match raw::connect(&ancient, &fresh.ca_pem, n1, ALPN).await {
            Ok(connection) => connection.closed().await.to_string(),
            Err(error) => error.to_string(),
        }
    });
    assert!(refused.contains("certificate"), "{refused}");
    cluster.run(&["dev", "restart", "--rolling"]).expect(0);
    check_all(&cluster, &cluster.client(), &history, 3);
}

#[test]
fn a_certificate_that_ended_is_told_and_a_new_one_is_taken_without_a_restart() {
    let cluster = Cluster::start();
    let ca = ClusterCa::load(&cluster.dir().join("ca")).expect("made by dev");
    let home = cluster.home("n1").join("identity");
    let id = Identity::load(&home).expect("made").peer_identity().expect("a node");
    let id = id.node_id().expect("a node's").into_iter().map(|it| format!("{it:02x}"));
    let id: String = id.collect();
    let issue = |life| ca.issue_node_for(&id, &[], Duration::from_secs(life)).expect("issued");
    let status = || cluster.run(&["status"]).expect(0).text().to_owned();
    assert!(!status().contains("certificates"), "{}", status());
    issue(86_400 * 3 + 60).save(&home).expect("saved");
    until_renewed(&cluster, &["n1"], 1);
    until("the log to warn", || {
        let log = log(&cluster, "n1");
        let warns = log.contains("certificate_expires") && log.contains("\"days_left\":3");
        if warns { Ok(()) } else { Err(log) }
    });
    assert!(status().contains("n1 ends in 3 days"), "{}", status());
    // Files that do not belong together change nothing.
    let pid = cluster.pid("n1");
    std::fs::write(home.join("key.pem"), issue(60).key_pem).expect("written");
    until("the log to say so", || {
        let log = log(&cluster, "n1");
        if log.contains("identity_not_taken") { Ok(()) } else { Err(log) }
    });
    cluster.run_at("n1", &["put", "k", "v"]).expect(0);
    issue(0).save(&home).expect("saved");
    until_renewed(&cluster, &["n1"], 2);
    cluster.run_at("n1", &["get", "k"]).expect(9).is_three_part_error();
    assert!(log(&cluster, "n1").contains("certificate_expired"));
    let [ca, dir] = ["ca", "n1/identity"].map(|name| path(&cluster, name));
    cluster.run(&["cluster", "renew", "--ca", &ca, &dir]).expect(0);
    until_renewed(&cluster, &["n1"], 3);
    assert_eq!(cluster.run_at("n1", &["get", "k"]).expect(0).text(), "v\n");
    assert_eq!(cluster.pid("n1"), pid, "it was not restarted");
}
