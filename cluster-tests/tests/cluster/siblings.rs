//! Concurrent writers, their siblings, and merging them.

use galvani_client::Merge;
use galvani_cluster_tests::Cluster;
use std::collections::BTreeSet;

#[test]
fn two_writers_with_one_context_make_two_siblings_and_a_merge_leaves_one() {
    let cluster = Cluster::start();
    cluster.run(&["put", "cart", "milk", "-w", "3"]).expect(0);
    let seen = cluster.scratch().join("cart.ctx");
    let seen = seen.to_str().expect("a plain path");
    cluster.run(&["get", "cart", "--context-out", seen]).expect(0);
    let put =
        |node, value| cluster.run_at(node, &["put", "cart", value, "--context", seen, "-w", "2"]);
    put("n1", "milk,eggs").expect(0);
    put("n3", "milk,tea").expect(0).says(&["kept as a sibling (2 now)"]);

    let ran = cluster.run(&["get", "cart"]).expect(4).is_three_part_error();
    assert!(ran.stdout.is_empty(), "siblings are never picked from: {ran}");
    let ran = ran.says(&["2 siblings", "milk,eggs", "milk,tea", "#1", "#2", "--take"]);
    assert!(!ran.stderr.contains("\"milk\""), "what both replaced is gone: {ran}");

    let ran = cluster.run(&["get", "cart", "--siblings", "json"]).expect(0);
    let said = ran.json("galvani.get/1");
    let values: BTreeSet<&str> = said["siblings"]
        .as_array()
        .expect("all")
        .iter()
        .filter_map(|s| s["value"].as_str())
        .collect();
    assert_eq!(values, BTreeSet::from(["milk,eggs", "milk,tea"]));
    let context = said["context"].as_str().expect("a context");
    cluster
        .run_at("n2", &["put", "cart", "milk,eggs,tea", "--context", context, "-w", "all"])
        .expect(0);

    let explained = cluster.until_equal(&cluster.client(), "cart");
    for replica in &explained.replicas {
        let versions = replica.versions.as_ref().expect("answered");
        assert_eq!(versions.len(), 1, "{replica:?}");
        assert_eq!(versions[0].value_len as usize, "milk,eggs,tea".len());
    }
    for node in ["n1", "n2", "n3"] {
        let ran = cluster.run_at(node, &["get", "cart", "-r", "1"]).expect(0);
        assert_eq!(ran.text(), "milk,eggs,tea\n");
    }
    // The old context replaces only what it saw: both are there now.
    put("n2", "late").expect(0);
    cluster.run(&["get", "cart"]).expect(4).says(&["milk,eggs,tea", "late"]);
}

#[test]
fn siblings_are_picked_updated_and_deleted_by_what_was_seen() {
    let cluster = Cluster::start();
    let blind = |value| cluster.run(&["put", "k", value, "--blind"]).expect(0);
    blind("b");
    blind("a");
    cluster.run(&["put", "k", "--take", "3"]).expect(5).is_three_part_error();
    cluster.run(&["put", "k", "--take", "1"]).expect(0).says(&["superseded 2 values"]);
    let one = cluster.run(&["get", "k"]).expect(0).text().trim_end().to_owned();
    assert!(["a", "b"].contains(&one.as_str()), "{one}");

    blind("c");
    let ran = cluster.run(&["update", "k", "--", "sh", "-c", "wc -l | tr -d ' \\n'"]).expect(0);
    assert_eq!(cluster.run(&["get", "k"]).expect(0).text(), "2\n", "{ran}");
    let ran = cluster.run(&["update", "k", "--", "false"]).expect(5);
    ran.says(&["false: exit status: 1", "NOTHING WAS WRITTEN"]);
    assert_eq!(cluster.run(&["get", "k"]).expect(0).text(), "2\n");

    // A delete replaces what it read; a write it has not seen survives.
    let seen = cluster.scratch().join("k.ctx");
    let seen = seen.to_str().expect("a plain path");
    cluster.run(&["get", "k", "--context-out", seen]).expect(0);
    blind("unseen");
    cluster.run(&["del", "k", "--context", seen]).expect(0);
    assert_eq!(cluster.run(&["get", "k", "-r", "all"]).expect(0).text(), "unseen\n");
    cluster.run(&["del", "k", "-w", "all"]).expect(0);
    cluster.run(&["get", "k", "-r", "1"]).expect(3);
}

#[test]
fn concurrent_updates_through_all_nodes_lose_no_increment() {
    let cluster = Cluster::start();
    let tasks: Vec<_> = (0..6)
        .map(|index| {
            let client = cluster.client_at(["n1", "n2", "n3"][index % 3]);
            cluster.runtime().spawn(async move {
                for round in 0..10 {
                    let mine = format!("{index}.{round}");
                    // A set of words: merging siblings is their union.
                    let merge = |all: Vec<galvani_client::Sibling>| {
                        let mut words: BTreeSet<String> = BTreeSet::from([mine.clone()]);
                        for value in all.iter().filter_map(|one| one.value.as_ref()) {
                            let text = String::from_utf8_lossy(value);
                            words.extend(text.split(' ').map(str::to_owned));
                        }
                        let words: Vec<String> = words.into_iter().collect();
                        Merge::Put(words.join(" ").into())
                    };
                    client.update("set", merge).await.expect("the cluster is whole");
                }
            })
        })
        .collect();
    for task in tasks {
        cluster.block_on(task).expect("updated");
    }
    let client = cluster.client();
    let read = cluster.block_on(async { client.get("set").r(3).await }).expect("all are up");
    let words: BTreeSet<String> = read
        .values()
        .flat_map(|value| {
            String::from_utf8_lossy(value).split(' ').map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(words.len(), 60, "{words:?}");
}

#[test]
fn a_last_write_wins_bucket_keeps_one() {
    let cluster = Cluster::start();
    cluster.run(&["bucket", "create", "last", "--policy", "lww"]).expect(0);
    for value in ["one", "two", "three"] {
        cluster.run(&["put", "k", value, "-b", "last", "--blind", "-w", "3"]).expect(0);
    }
    assert_eq!(cluster.run(&["get", "k", "-b", "last", "-r", "3"]).expect(0).text(), "three\n");
}
