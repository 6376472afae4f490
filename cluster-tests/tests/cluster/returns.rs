//! A node that was away for long, was forgotten by an operator, and comes back with its old data.
//!
//! It gives what only it has to the owners there are, empties itself, and can be a member again. What was
//! deleted or replaced meanwhile stays so, although the others have collected and trimmed all that said so.

use galvani_client::{Client, Context, NodeStatus, Outcome, ReplicaAnswer, Written};
use galvani_cluster_tests::{Cluster, until};
use std::collections::{BTreeMap, BTreeSet};

const KEYS: usize = 40;
/// What each key is to show.
type Expected = BTreeMap<String, BTreeSet<String>>;

#[test]
fn returning_after_eviction_donates_then_rebuilds_and_brings_nothing_back() {
    let cluster = four_that_trim();
    let client = cluster.client_at("n1");
    let seen = write_all(&cluster, &client);
    let mut expected = Expected::new();
    for number in 0..KEYS {
        expect(&mut expected, "stays", number, &["before"]);
    }

    // What only n4 takes in, as long as it lives.
    cluster.run(&["dev", "cut", "n4|n1,n2,n3"]).expect(0);
    let donated = write_at_n4(&cluster, &seen, &mut expected);
    assert!(donated > 2 * KEYS, "n4 owns three of four keys, and took in {donated}");
    cluster.kill("n4");
    cluster.run(&["dev", "heal"]).expect(0);
    write_without_n4(&cluster, &client, &seen, &mut expected);

    // It is given up, and nobody waits for it any more.
    let refused = cluster.run(&["node", "forget", "n4"]).expect(5);
    let lost = "writes that only it has taken in are lost unless it returns";
    refused.is_three_part_error().says(&[lost, "--yes"]);
    cluster.run(&["node", "forget", "n4", "--yes"]).expect(0);
    for node in ["n1", "n2", "n3"] {
        until(&format!("{node} to know nothing of what was deleted and replaced"), || {
            let NodeStatus { tombstones, counters, .. } = cluster.status_of(&client, node);
            match (tombstones, counters.records_trimmed) {
                (0, 1..) => Ok(()),
                (tombstones, trimmed) => Err(format!("{tombstones} tombstones, {trimmed} trimmed")),
            }
        });
    }

    cluster.start_node("n4");
    let status = until_empty(&cluster, &client);
    let sent = status.counters.records_donated;
    assert!(sent >= donated as u64, "{sent} records donated, {donated} are at no other node");
    shows(&cluster, &client, &expected, 3);
    let listed = cluster.run(&["ls"]).expect(0).text().to_owned();
    assert!(!listed.lines().any(|key| key.starts_with("goes-")), "{listed}");

    // A member again, it is filled like any other, and stands in for nobody's memory.
    until("n4 to be a member again", || {
        let plan = cluster.run(&["cluster", "plan", "add", "n4", "-o", "json"]);
        if plan.code != Some(0) {
            return Err(plan.to_string());
        }
        let plan = plan.json("galvani.plan/1")["id"].as_str().expect("an id").to_owned();
        let applied = cluster.run(&["cluster", "apply", &plan, "--wait"]);
        if applied.code == Some(0) { Ok(()) } else { Err(applied.to_string()) }
    });
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    shows(&cluster, &client, &expected, 3);
    cluster.kill("n1");
    shows(&cluster, &cluster.client_at("n4"), &expected, 2);
}

/// Four nodes that keep replaced records for two seconds: what is away for longer is away for long.
fn four_that_trim() -> Cluster {
    let cluster = Cluster::with(&["-n", "4", "--lanes", "1"]);
    cluster.reconfigure("feed_keep_ms = 86400000", "feed_keep_ms = 2000");
    cluster
}

/// Writes what all have in the beginning; what a writer has seen then of each key.
fn write_all(cluster: &Cluster, client: &Client) -> BTreeMap<String, Context> {
    let kinds = [
        "stays",
        "goes",
        "changes",
        "only-deletes",
        "only-changes",
        "both-change",
        "changes-and-goes",
    ];
    let mut seen = BTreeMap::new();
    cluster.block_on(async {
        for (kind, number) in kinds.iter().flat_map(|kind| (0..KEYS).map(move |at| (kind, at))) {
            let key = key(kind, number);
            let put = client.put(key.clone(), "before").blind().w(3).send().await;
            seen.insert(key, put.expect("all are up").context);
        }
    });
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    seen
}

/// Writes to n4, which no other node hears: keys of its own, over others, and deletes. How many writes
/// it took in; of those it did not, no trace is expected.
fn write_at_n4(
    cluster: &Cluster,
    seen: &BTreeMap<String, Context>,
    expected: &mut Expected,
) -> usize {
    let n4 = cluster.block_on(cluster.builder().only("n4").retries(0).connect()).expect("it runs");
    // From then on what it cannot do alone is refused at once.
    until("n4 to know that it is alone", || {
        let down = cluster.status_of(&n4, "n4").peers_down.len();
        if down == 3 { Ok(()) } else { Err(down) }
    });
    let mut taken = 0;
    // What is shown if it took that in, and if not.
    let kinds: [(&str, &[&str], &[&str]); 5] = [
        ("only-news", &["from n4"], &[]),
        ("only-changes", &["from n4"], &["before"]),
        ("only-deletes", &[], &["before"]),
        ("both-change", &["from n4", "from the others"], &["from the others"]),
        ("changes-and-goes", &["from n4"], &[]),
    ];
    for (kind, with, without) in kinds {
        for number in 0..KEYS {
            let key = key(kind, number);
            let after = seen.get(&key).cloned().unwrap_or_default();
            let put = match kind {
                "only-deletes" => n4.delete(key),
                _ => n4.put(key, "from n4"),
            };
            let wrote = cluster.block_on(async { put.after(&after).w(1).send().await });
            let is_taken = wrote.is_ok_and(|written| only_n4_has(&written));
            taken += usize::from(is_taken);
            expect(expected, kind, number, if is_taken { with } else { without });
        }
    }
    taken
}

/// Nobody else has acked it.
fn only_n4_has(written: &Written) -> bool {
    let stored =
        |one: &&ReplicaAnswer| matches!(one.outcome, Outcome::Stored | Outcome::StoredDurably);
    let by: Vec<_> = written.answers.iter().filter(stored).map(|one| &one.node).collect();
    assert_eq!(by, ["n4"], "the others are cut off");
    true
}

/// What the others do meanwhile.
fn write_without_n4(
    cluster: &Cluster,
    client: &Client,
    seen: &BTreeMap<String, Context>,
    expected: &mut Expected,
) {
    cluster.block_on(async {
        for number in 0..KEYS {
            for (kind, value) in [("changes", "after"), ("both-change", "from the others")] {
                let key = key(kind, number);
                let put = client.put(key.clone(), value).after(&seen[&key]).w(2).send().await;
                put.expect("three are up");
            }
            for kind in ["goes", "changes-and-goes"] {
                let key = key(kind, number);
                let delete = client.delete(key.clone()).after(&seen[&key]).w(2).send().await;
                delete.expect("three are up");
            }
        }
    });
    for number in 0..KEYS {
        expect(expected, "changes", number, &["after"]);
        expect(expected, "goes", number, &[]);
    }
}

/// Waits until n4 knows that it is no member, and holds nothing more; what it says of itself then.
fn until_empty(cluster: &Cluster, client: &Client) -> NodeStatus {
    until("n4 to give up what it holds", || {
        let now = cluster.status_of(client, "n1");
        let n4 = now.applicants.iter().find(|member| member.name() == "n4");
        let n4 = n4.ok_or("n1 has not heard of it".to_owned())?;
        let said = cluster.block_on(client.status_of(n4)).status;
        let status = said.map_err(|error| error.to_string())?;
        let (epoch, left) = (status.layout_epoch, status.shards_leaving);
        match epoch == now.layout_epoch && left == 0 && status.hints.is_empty() {
            true => Ok(status),
            false => Err(format!("epoch {epoch}, {left} shards, hints {:?}", status.hints)),
        }
    })
}

/// Every key is read as it is expected.
fn shows(cluster: &Cluster, client: &Client, expected: &Expected, r: u8) {
    for (key, values) in expected {
        let read = cluster.block_on(async { client.get(key.clone()).r(r).await });
        let read = read.expect("enough are up");
        let shown: Vec<String> =
            read.values().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
        let shown_once: BTreeSet<String> = shown.iter().cloned().collect();
        assert_eq!(&shown_once, values, "{key} at r={r}");
        assert_eq!(shown.len(), values.len(), "{key} at r={r}: {shown:?}");
    }
}

fn expect(expected: &mut Expected, kind: &str, number: usize, values: &[&str]) {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    expected.insert(key(kind, number), values);
}

fn key(kind: &str, number: usize) -> String {
    format!("{kind}-{number:03}")
}
