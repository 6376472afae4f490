//! Owners that are away: stand-ins hold their writes, and hand them over when they are back.

use galvani_client::{Client, Quorum};
use galvani_cluster_tests::{Cluster, until};
use std::collections::BTreeSet;

const KEYS: usize = 200;

/// A cluster whose owners get what they missed by hints or not at all.
fn without_anti_entropy(nodes: &str) -> Cluster {
    let cluster = Cluster::with(&["-n", nodes, "--lanes", "2"]);
    cluster.reconfigure("anti_entropy_ms = 1000", "anti_entropy_ms = 0");
    cluster
}

/// Writes every key, each with three acks, of which stand-ins gave some for those that are away: the
/// numbers of the keys and whose each such ack was.
fn write_all(cluster: &Cluster, client: &Client) -> BTreeSet<(usize, String)> {
    let mut hints = BTreeSet::new();
    cluster.block_on(async {
        for number in 0..KEYS {
            let put = client.put(key(number), value(number)).blind().w(3).send().await;
            let done = put.unwrap_or_else(|error| panic!("{}: {error}", key(number)));
            assert_eq!(done.acks, 3, "{done:?}");
            let acked = done.answers.iter().filter(|answer| answer.is_ok());
            let owners = acked.filter_map(|answer| answer.stands_in_for.clone());
            hints.extend(owners.map(|owner| (number, owner)));
        }
    });
    hints
}

/// What a read of a key shows, tombstones among it, and which replicas it is made of.
fn shown(
    cluster: &Cluster,
    client: &Client,
    number: usize,
    r: impl Into<Quorum>,
) -> (Vec<Option<String>>, Vec<String>) {
    let get = client.get(key(number)).r(r);
    let read = cluster.block_on(async { get.await });
    let read = read.unwrap_or_else(|error| panic!("{}: {error}", key(number)));
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let values = read.siblings.iter().map(|sibling| sibling.value.as_deref().map(text));
    let answered = read.answers.iter().filter(|answer| answer.is_ok());
    (values.collect(), answered.map(|answer| answer.node.clone()).collect())
}

/// Every value that a stand-in took is at its owner, which is asked alone; then all replicas show each of the
/// values, and nothing else.
fn all_is_there(cluster: &Cluster, client: &Client, hints: &BTreeSet<(usize, String)>) {
    let owners: BTreeSet<&String> = hints.iter().map(|(_, owner)| owner).collect();
    for owner in owners {
        let alone = cluster.block_on(cluster.builder().only(owner.as_str()).connect());
        let alone = alone.expect("it runs");
        for (number, _) in hints.iter().filter(|(_, of)| of == owner) {
            let (values, answered) = shown(cluster, &alone, *number, 1);
            assert_eq!(answered, std::slice::from_ref(owner), "{}", key(*number));
            assert_eq!(values, [Some(value(*number))], "{} at {owner}", key(*number));
        }
    }
    for number in 0..KEYS {
        let (values, answered) = shown(cluster, client, number, Quorum::All);
        assert_eq!((values, answered.len()), (vec![Some(value(number))], 3), "{}", key(number));
    }
}

#[test]
fn a_write_succeeds_while_owners_are_away_and_its_hints_are_handed_over() {
    let cluster = without_anti_entropy("5");
    let client = cluster.client_at("n1");
    // Two of five are gone: many keys have one owner left, and w=2 needs a stand-in.
    cluster.kill("n4");
    cluster.kill("n5");
    until("n4 and n5 to be noticed", || {
        let status = cluster.status_of(&client, "n1");
        if status.peers_down.len() == 2 { Ok(()) } else { Err(status.peers_down) }
    });
    let hints = write_all(&cluster, &client);
    assert!(hints.len() > KEYS / 2, "{} hints for {KEYS} keys", hints.len());
    // Strict, such a write is refused for a key that n4 or n5 owns.
    let refused = (0..KEYS).any(|number| {
        let strict = client.put(format!("strict/{number}"), "v").blind().w(3).strict().send();
        cluster.block_on(strict).is_err()
    });
    assert!(refused, "some key has an owner that is away");
    let status = cluster.run(&["status"]).expect(0).text().to_owned();
    // 24 hints for n4, 3.1 kB, oldest 2s
    let words = status.lines().flat_map(|line| line.split("   "));
    let n4: Vec<&str> = words.filter(|words| words.contains(" for n4, ")).collect();
    let [n4] = n4[..] else { panic!("{status}") };
    let parts: Vec<&str> = n4.split(", ").collect();
    assert!(parts.len() == 3 && parts[1].ends_with('B') && !parts[1].starts_with('0'), "{n4}");
    assert!(parts[2].starts_with("oldest "), "{n4}");

    cluster.start_node("n4");
    cluster.start_node("n5");
    until("all hints to be handed over", || {
        let held: Vec<_> = ["n1", "n2", "n3"]
            .iter()
            .flat_map(|name| cluster.status_of(&client, name).hints)
            .collect();
        if held.is_empty() { Ok(()) } else { Err(held) }
    });
    all_is_there(&cluster, &client, &hints);
}

#[test]
fn hint_owner_crash_loses_no_hint() {
    let cluster = without_anti_entropy("4");
    let client = cluster.client_at("n1");
    cluster.kill("n4");
    until("n4 to be noticed", || {
        let status = cluster.status_of(&client, "n1");
        if status.peers_down.len() == 1 { Ok(()) } else { Err(status.peers_down) }
    });
    let hints = write_all(&cluster, &client);
    let acked = hints.len() as u64;
    assert!(acked > 0, "some keys are n4's");
    let held = || -> u64 {
        let of = |name| cluster.status_of(&client, name).hints;
        ["n1", "n2", "n3"].iter().flat_map(|name| of(name).into_values()).map(|of| of.count).sum()
    };
    cluster.kill_all();
    for name in ["n1", "n2", "n3"] {
        cluster.start_node(name);
    }
    // Lanes publish their figures one by one; starting a node writes once more to see that all works.
    until("every acked hint to be there again", || {
        let found = held();
        if found >= acked { Ok(()) } else { Err(format!("{found} of {acked}")) }
    });
    cluster.start_node("n4");
    until("all hints to be handed over", || {
        let left = held();
        if left == 0 { Ok(()) } else { Err(left) }
    });
    // All links of the first client are to processes that are gone.
    all_is_there(&cluster, &cluster.client(), &hints);
}

fn key(number: usize) -> String {
    format!("key/{number}")
}

fn value(number: usize) -> String {
    format!("value {number}")
}
