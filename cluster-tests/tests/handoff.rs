//! Owners that are away: stand-ins hold their writes, and hand them over when they are back.

use galvani_cluster_tests::{Cluster, until};

const KEYS: usize = 200;

#[test]
fn a_write_succeeds_while_owners_are_away_and_its_hints_are_handed_over() {
    let cluster = Cluster::with(&["-n", "5", "--lanes", "2"]);
    let client = cluster.client_at("n1");
    // Two of five are gone: many keys have one owner left, and w=2 needs a stand-in.
    cluster.kill("n4");
    cluster.kill("n5");
    until("n4 and n5 to be noticed", || {
        let status = cluster.status_of(&client, "n1");
        if status.peers_down.len() == 2 { Ok(()) } else { Err(status.peers_down) }
    });
    let mut by_stand_ins = 0;
    cluster.block_on(async {
        for number in 0..KEYS {
            let put = client.put(key(number), value(number)).blind().w(3).send().await;
            let done = put.unwrap_or_else(|error| panic!("{}: {error}", key(number)));
            assert_eq!(done.acks, 3, "{done:?}");
            let stand_ins = done.answers.iter().filter(|answer| answer.stands_in_for.is_some());
            by_stand_ins += stand_ins.count();
        }
    });
    assert!(by_stand_ins > KEYS / 2, "{by_stand_ins} hints for {KEYS} keys");
    // Strict, the same write is refused for a key that n4 or n5 owns.
    let refused = (0..KEYS).any(|number| {
        let strict = client.put(key(number), "strict").blind().w(3).strict().send();
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
    let received: u64 = ["n4", "n5"]
        .iter()
        .map(|name| cluster.status_of(&client, name).counters)
        .map(|counters| counters.hints_received + counters.records_pulled)
        .sum();
    assert!(received > 0, "by hints or by anti-entropy, whichever came first");
    for number in 0..KEYS {
        let read = cluster.block_on(async { client.get(key(number)).r(3).await });
        let read = read.expect("all are up");
        let stored = read
            .siblings
            .iter()
            .any(|sibling| sibling.value.as_deref() == Some(value(number).as_bytes()));
        assert!(stored, "{}: {:?}", key(number), read.siblings);
    }
}

#[test]
fn hint_owner_crash_loses_no_hint() {
    let cluster = Cluster::with(&["-n", "4"]);
    let client = cluster.client_at("n1");
    cluster.kill("n4");
    until("n4 to be noticed", || {
        let status = cluster.status_of(&client, "n1");
        if status.peers_down.len() == 1 { Ok(()) } else { Err(status.peers_down) }
    });
    let mut acked = 0;
    cluster.block_on(async {
        for number in 0..KEYS {
            let put = client.put(key(number), value(number)).blind().w(3).send().await;
            let done = put.expect("stood in for");
            let hints = done.answers.iter().filter(|answer| answer.stands_in_for.is_some());
            acked += hints.filter(|answer| answer.is_ok()).count() as u64;
        }
    });
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
}

fn key(number: usize) -> String {
    format!("key/{number}")
}

fn value(number: usize) -> String {
    format!("value {number}")
}
