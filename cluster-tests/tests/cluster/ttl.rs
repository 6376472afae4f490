//! `--ttl`: a value is there until it expires, then nowhere, and no failure brings it or anything older
//! back.

use galvani_cluster_tests::{Cluster, until};
use serde_json::Value;
use std::time::Duration;

/// A cluster whose nodes collect what has expired without a margin for wrong clocks: they share one.
fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.reconfigure("expiry_margin_ms = 1200000", "expiry_margin_ms = 0");
    cluster
}

/// Waits until the key has no value.
fn until_gone(cluster: &Cluster, key: &str) {
    until(&format!("{key} to expire"), || {
        let ran = cluster.run(&["get", key, "-r", "3"]);
        match ran.code {
            Some(3) => Ok(()),
            _ => Err(ran.to_string()),
        }
    });
}

/// Waits until no node that is up keeps a value that expires, and returns how many were collected.
fn until_collected(cluster: &Cluster) -> u64 {
    until("expired values to be collected", || {
        let document = status(cluster);
        let nodes = document["nodes"].as_array().expect("nodes").clone();
        let sum = |of: fn(&Value) -> u64| nodes.iter().map(of).sum::<u64>();
        match sum(|node| node["expiring"].as_u64().unwrap_or(0)) {
            0 => Ok(sum(|node| node["counters"]["expired_collected"].as_u64().unwrap_or(0))),
            _ => Err(document.to_string()),
        }
    })
}

fn status(cluster: &Cluster) -> Value {
    cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1")
}

#[test]
fn a_value_expires_is_collected_and_never_comes_back() {
    let cluster = cluster();
    cluster.run(&["put", "k", "old", "-w", "3"]).expect(0);
    cluster.run(&["put", "k", "new", "--ttl", "2s", "-w", "3"]).expect(0);
    cluster.run(&["put", "stays", "here", "--ttl", "1h", "-w", "3"]).expect(0);
    let explained = cluster.run(&["explain", "stays"]).expect(0);
    assert!(explained.text().contains("expires in 59 m"), "{explained}");
    until_gone(&cluster, "k");
    let listed = cluster.run(&["ls"]).expect(0);
    assert!(listed.text().contains("stays") && !listed.text().lines().any(|key| key == "k"));
    // `stays` is kept; `k` goes, on each of the three.
    until("the expired value to be collected", || {
        let document = status(&cluster);
        let collected = |node: &Value| node["counters"]["expired_collected"] == 1;
        match document["nodes"].as_array().expect("nodes").iter().all(collected) {
            true => Ok(()),
            false => Err(document.to_string()),
        }
    });
    let told = cluster.run(&["status"]).expect(0);
    assert!(told.text().contains("values that expire: 3 kept, 3 collected"), "{told}");
    // Restarts read the same from their disks.
    cluster.kill("n2");
    cluster.run(&["get", "k", "-r", "2"]).expect(3);
    cluster.start_node("n2");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    cluster.run(&["get", "k", "-r", "3"]).expect(3);
    assert_eq!(cluster.run(&["get", "stays", "-r", "3"]).expect(0).text(), "here\n");
}

#[test]
fn an_owner_that_was_away_brings_nothing_back() {
    let cluster = cluster();
    cluster.run(&["put", "k", "old", "-w", "3"]).expect(0);
    cluster.kill("n3");
    cluster.run(&["put", "k", "new", "--ttl", "2s", "-w", "2"]).expect(0);
    until("the value to expire", || {
        let ran = cluster.run(&["get", "k", "-r", "2"]);
        if ran.code == Some(3) { Ok(()) } else { Err(ran.to_string()) }
    });
    // Nothing is collected while n3 still has what was replaced.
    let explained = cluster.run(&["explain", "k"]).expect(0);
    assert!(explained.text().contains("expired (1 value)"), "{explained}");
    cluster.start_node("n3");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    assert_eq!(until_collected(&cluster), 3);
    for node in ["n1", "n2", "n3"] {
        cluster.run(&["get", "k", "-r", "1", "--via", node]).expect(3);
    }
}

#[test]
fn a_buckets_ttl_is_the_default_and_impossible_ones_are_refused() {
    let cluster = Cluster::start();
    let created = cluster.run(&["bucket", "create", "sessions", "--ttl", "1h"]).expect(0);
    assert!(created.text().contains("ttl: 1h"), "{created}");
    cluster.run(&["put", "-b", "sessions", "a", "v"]).expect(0);
    cluster.run(&["put", "-b", "sessions", "b", "v", "--ttl", "none"]).expect(0);
    let expires = |key: &str| {
        let ran = cluster.run(&["get", "-b", "sessions", key, "-o", "json"]).expect(0);
        ran.json("galvani.get/1")["siblings"][0]["expires_at"].clone()
    };
    assert!(expires("a").is_string());
    assert!(expires("b").is_null());
    cluster.run(&["put", "k", "v", "--ttl", "10ms"]).expect(2).says(&["between 1s and ten years"]);
    let client = cluster.client();
    let put = client.put("k", "v").blind().ttl(Duration::from_millis(10));
    let error = cluster.block_on(put.send()).expect_err("too short");
    assert_eq!(error.applied(), galvani_client::Applied::No);
    assert!(error.to_string().contains("between 1s and ten years"), "{error}");
}

#[test]
fn ends_survive_export_and_import() {
    let cluster = Cluster::start();
    for (bucket, ttl) in [("copy", "none"), ("ends", "1h"), ("ends2", "1h")] {
        cluster.run(&["bucket", "create", bucket, "--ttl", ttl]).expect(0);
    }
    cluster.run(&["put", "a", "v", "--ttl", "2h", "-w", "3"]).expect(0);
    cluster.run(&["put", "b", "for ever", "-w", "3"]).expect(0);
    cluster.run(&["put", "s", "x", "--ttl", "3h", "-w", "3"]).expect(0);
    cluster.run(&["put", "s", "y", "--blind", "-w", "3"]).expect(0);
    let file = cluster.scratch().join("all.jsonl");
    let file = file.to_str().expect("plain");
    cluster.run(&["export", file, "-r", "3"]).expect(0);

    // Exactly the same ends, and so there is nothing to write the second time.
    for written in [3, 0] {
        let words = ["import", file, "-b", "copy", "-w", "3", "-r", "3", "-o", "json"];
        let done = cluster.run(&words).expect(0).json("galvani.import/1");
        assert_eq!((&done["written"], &done["expired"]), (&written.into(), &0.into()), "{done}");
    }
    for key in ["a", "b", "s"] {
        let ends = ends(&cluster, "default", key);
        assert_eq!(ends.iter().filter(|(_, end)| end.is_string()).count(), usize::from(key != "b"));
        assert_eq!(self::ends(&cluster, "copy", key), ends, "{key}");
    }

    // For ever is said where the bucket would not give it, and kept there.
    cluster.run(&["put", "-b", "ends", "k", "v", "--ttl", "none", "-w", "3"]).expect(0);
    cluster.run(&["export", file, "-b", "ends", "-r", "3"]).expect(0);
    cluster.run(&["import", file, "-b", "ends2", "-w", "3"]).expect(0);
    assert_eq!(ends(&cluster, "ends2", "k"), [("v".into(), Value::Null)]);

    // A file of an earlier export: the bucket decides. What has ended is left out and counted.
    let old = "{\"key\":\"old\",\"value\":\"v\"}\n\
               {\"key\":\"gone\",\"value\":\"v\",\"expires_at\":\"2001-09-09T01:46:40Z\"}\n";
    for (written, said) in [(1, "1 record written, 0 there"), (0, "0 records written, 1 there")] {
        let words = ["import", "-", "-b", "ends2", "-w", "3"];
        let ran = cluster.run_with(&words, old.as_bytes()).expect(0);
        assert!(ran.text().contains(said), "{written}: {ran}");
        assert!(ran.text().contains("1 value expired meanwhile"), "{ran}");
    }
    assert!(ends(&cluster, "ends2", "old")[0].1.is_string());
    cluster.run(&["get", "-b", "ends2", "gone", "-r", "3"]).expect(3);
}

#[test]
fn an_update_says_how_long_what_it_writes_lives() {
    let cluster = Cluster::start();
    cluster.run(&["update", "k", "--ttl", "1h", "-w", "3", "--", "echo", "v"]).expect(0);
    let ran = cluster.run(&["explain", "k"]).expect(0);
    assert!(ran.text().contains("expires in 59 m"), "{ran}");
    cluster.run(&["update", "k", "-w", "3", "--", "echo", "w"]).expect(0);
    assert_eq!(ends(&cluster, "default", "k"), [("w".into(), Value::Null)]);
}

/// The values of a key and when each ends, sorted.
fn ends(cluster: &Cluster, bucket: &str, key: &str) -> Vec<(String, Value)> {
    let words = ["get", "-b", bucket, key, "-r", "3", "-o", "json", "--siblings", "json"];
    let found = cluster.run(&words).expect(0).json("galvani.get/1");
    let siblings = found["siblings"].as_array().expect("siblings");
    let one =
        |one: &Value| (one["value"].as_str().expect("text").to_owned(), one["expires_at"].clone());
    let mut all: Vec<_> = siblings.iter().map(one).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
