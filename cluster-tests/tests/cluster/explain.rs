//! `galvani explain`: what each replica has and lacks, who holds hints for it, who answers r=1.

use galvani_cluster_tests::{Cluster, until};
use serde_json::Value;

/// A key that `owner` owns, and for whose owners `fallback` stands in.
fn key_with(cluster: &Cluster, owner: &str, fallback: &str) -> String {
    let keys = (0..).map(|number| format!("explain/{number}"));
    let fits = |key: &String| {
        let document = explain(cluster, key);
        let has = |list: &str, name: &str| {
            document[list].as_array().is_some_and(|names| names.iter().any(|one| one == name))
        };
        has("owners", owner) && has("fallbacks", fallback)
    };
    keys.take(200).find(fits).expect("one of so many keys")
}

#[test]
fn hints_lacks_and_the_node_that_answers_are_named() {
    let cluster = Cluster::with(&["-n", "4"]);
    let key = key_with(&cluster, "n3", "n4");
    cluster.run(&["put", &key, "old", "-w", "3", "--strict"]).expect(0);
    let whole = cluster.run(&["explain", &key]).expect(0);
    assert!(whole.text().contains("hints   none for this key"), "{whole}");
    assert!(whole.text().contains("would answer, with all that is known"), "{whole}");

    cluster.kill("n3");
    cluster.run(&["put", &key, "new", "-w", "3"]).expect(0);
    let document = explain(&cluster, &key);
    let hints = &document["holders"][0]["hints"];
    assert_eq!(document["holders"][0]["node"], "n4", "{document}");
    assert_eq!(hints[0]["for"], "n3", "{document}");
    let owner = &document["replicas"].as_array().expect("replicas")[0];
    let written = if owner["error"].is_null() { owner } else { &document["replicas"][1] };
    assert_eq!(hints[0]["dot"], written["versions"][0]["dots"][0], "{document}");
    assert_ne!(document["r1_answers"], "n3", "it is down: {document}");
    let text = cluster.run(&["explain", &key]).expect(0);
    assert!(text.text().contains("n4 holds ") && text.text().contains(" for n3"), "{text}");

    cluster.start_node("n3");
    until("the hint to be handed over", || {
        let document = explain(&cluster, &key);
        match document["holders"][0]["hints"].as_array().map(Vec::len) {
            Some(0) => Ok(()),
            _ => Err(document),
        }
    });
}

#[test]
fn what_a_replica_lacks_is_named_and_so_is_a_reader_of_it() {
    let cluster = Cluster::start();
    cluster.run(&["put", "k", "old", "-w", "3"]).expect(0);
    // What n1 takes in reaches n3 only when n2 has compared with it: until then n3 lacks it.
    cluster.run(&["dev", "cut", "n1|n3"]).expect(0);
    let seen = until("n3 to lack a write that n1 and n2 have", || {
        cluster.run(&["put", "k", "new", "-w", "2", "-r", "1", "--via", "n1"]).expect(0);
        let by_n2 = cluster.run(&["explain", "k", "--via", "n2"]).expect(0);
        let n3 = by_n2.text().lines().find(|line| line.trim_start().starts_with("n3 "));
        match n3.is_some_and(|line| line.contains("LACKS ")) {
            true => Ok(by_n2),
            false => Err(by_n2.to_string()),
        }
    });
    assert!(seen.text().contains("n2 would answer, with all that is known"), "{seen}");
    let by_n3 = cluster.run(&["explain", "k", "--via", "n3"]).expect(0);
    assert!(by_n3.text().contains("r=1     n3 would answer"), "{by_n3}");
    cluster.run(&["dev", "heal"]).expect(0);
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    let healed = explain(&cluster, "k");
    for replica in healed["replicas"].as_array().expect("replicas") {
        assert_eq!(replica["missing"].as_array().map(Vec::len), Some(0), "{healed}");
    }
    let text = cluster.run(&["explain", "k"]).expect(0);
    assert!(text.text().contains("nobody stands in"), "{text}");
}

fn explain(cluster: &Cluster, key: &str) -> Value {
    cluster.run(&["explain", key, "-o", "json"]).expect(0).json("galvani.explain/1")
}
