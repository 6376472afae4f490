//! Quorums chosen per request, through every node and with every flag; those that cannot be.

use galvani_client::{Applied, ErrorKind, Quorum, QuorumKind};
use galvani_cluster_tests::{Cluster, until};
use std::time::{Duration, Instant};

#[test]
fn a_value_written_through_any_node_is_read_through_any_other() {
    let cluster = Cluster::start();
    for writer in ["n1", "n2", "n3"] {
        let key = format!("from/{writer}");
        let value = format!("hello from {writer}");
        cluster.run_at(writer, &["put", &key, &value, "-w", "2"]).expect(0);
        for reader in ["n1", "n2", "n3"] {
            let ran = cluster.run_at(reader, &["get", &key, "-r", "2"]).expect(0);
            assert_eq!(ran.text(), format!("{value}\n"));
        }
    }
}

#[test]
fn each_node_coordinates_when_asked_first() {
    let cluster = Cluster::start();
    for node in cluster.nodes() {
        let client = cluster.client_at(&node.name);
        let key = format!("by/{}", node.name);
        let written = cluster.block_on(client.put(key.clone(), "v").blind().w(3).send());
        let written = written.expect("all are up");
        assert_eq!((written.acks, written.siblings_now), (3, 1), "{written:?}");
        let read = cluster.block_on(async { client.get(key).r(3).await }).expect("all are up");
        assert_eq!(read.siblings[0].node, node.name, "the node in the client's zone coordinates");
        assert_eq!(read.siblings[0].dot, written.dot.expect("stored"));
    }
}

#[test]
fn every_flag_takes_numbers_and_words() {
    let cluster = Cluster::start();
    let writes: &[&[&str]] = &[
        &["-n", "1", "-w", "1"],
        &["-n", "2", "-w", "2"],
        &["-n", "3", "-w", "all"],
        &["-w", "one"],
        &["-w", "majority"],
        &["-w", "quorum"],
        &["-w", "3", "--pw", "majority"],
        &["-w", "2", "--pw", "2", "--strict"],
        &["-w", "2", "--dw", "one"],
        &["-w", "all", "--dw", "all", "--pw", "all", "--strict"],
    ];
    let reads: &[&[&str]] = &[
        &["-n", "1", "-r", "1"],
        &["-n", "2", "-r", "all"],
        &["-r", "one"],
        &["-r", "majority"],
        &["-r", "all", "--pr", "all"],
        &["-r", "2", "--repair", "blocking"],
        &["-r", "2", "--pr", "1", "--strict"],
    ];
    for (index, flags) in writes.iter().enumerate() {
        let key = format!("flags/{index}");
        let command = [&["put", &key, "v", "-o", "json"], *flags].concat();
        let said = cluster.run(&command).expect(0).json("galvani.put/1");
        let asked = match flags {
            ["-w", "one"] | ["-n", "1", ..] => 1,
            ["-n", "3", ..] | ["-w", "3" | "all", ..] => 3,
            _ => 2,
        };
        assert!(said["acks"].as_u64() >= Some(asked), "{command:?}: {said}");
        if flags.contains(&"--dw") {
            let durable = said["replies"].as_array().expect("replies");
            let durable = durable.iter().filter(|one| one["outcome"] == "stored_durably").count();
            assert!(durable >= if flags.contains(&"all") { 3 } else { 1 }, "{said}");
        }
        // One write in all of its replicas' sight: r=1 with all three up may miss it for a moment.
        for flags in reads {
            let command = [&["get", &key], *flags].concat();
            until("the value to be on the replicas asked", || {
                let ran = cluster.run(&command);
                if ran.code == Some(0) && ran.text() == "v\n" { Ok(()) } else { Err(ran) }
            });
        }
    }
}

#[test]
fn what_can_never_be_met_is_refused_and_nothing_is_written() {
    let cluster = Cluster::start();
    let impossible: &[&[&str]] = &[
        &["-w", "4"],
        &["-n", "2", "-w", "3"],
        &["-n", "4"],
        &["-n", "1", "-w", "2", "--strict"],
        &["--pw", "4"],
        &["--dw", "4"],
        &["-n", "2", "--pw", "3"],
        &["-n", "1", "-w", "1", "--dw", "2"],
    ];
    for (index, flags) in impossible.iter().enumerate() {
        for blind in [true, false] {
            let key = format!("impossible/{index}/{blind}");
            let mut command = [&["put", &key, "v"], *flags].concat();
            if blind {
                command.push("--blind");
            }
            let ran = cluster.run(&command).expect(5).is_three_part_error();
            ran.says(&["NOTHING WAS WRITTEN"]);
            cluster.run(&["get", &key, "-r", "all"]).expect(3);
        }
    }
    cluster.run(&["get", "k", "-r", "4"]).expect(5).is_three_part_error();
    cluster.run(&["get", "k", "-n", "1", "-r", "2"]).expect(5).is_three_part_error();
}

#[test]
fn too_few_owners_is_refused_before_writing_and_reads_say_who_is_away() {
    let cluster = Cluster::start();
    cluster.run(&["put", "k", "v", "-w", "3"]).expect(0);
    cluster.kill("n2");
    cluster.kill("n3");
    let client = cluster.client_at("n1");
    // Until n1 has noticed, a write is in doubt; from then on it is refused.
    let error = until("n1 to know that both are gone", || {
        let put = client.put("refused", "v").blind().w(2).strict();
        match cluster.block_on(put.send()) {
            Err(error) if error.applied() == Applied::No => Ok(error),
            Err(error) => Err(error.to_string()),
            Ok(written) => Err(format!("{written:?}")),
        }
    });
    let ErrorKind::ReplicasDown { what, need, up, n, .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((*what, *need, *up, *n), (QuorumKind::W, 2, 1, 3));
    cluster.run(&["put", "new", "v", "--blind", "-w", "2"]).expect(5).is_three_part_error();
    let began = Instant::now();
    let ran = cluster.run(&["bucket", "create", "later", "--timeout", "20s"]).expect(5);
    let ran = ran.is_three_part_error().says(&["is down", "NOTHING WAS WRITTEN"]);
    let start = ran.stderr.lines().find_map(|line| line.trim().strip_prefix("start it  galvani "));
    let start: Vec<&str> = start.expect("a command").split(' ').collect();
    assert!(began.elapsed() < Duration::from_secs(10), "it waited for its time: {ran}");
    assert!(matches!(start[..], ["dev", "start", "n2" | "n3"]), "{start:?}");
    let ran = cluster.run(&["get", "k", "-r", "2", "--timeout", "1s"]).expect(7);
    ran.is_three_part_error().says(&["n2", "n3"]);
    assert_eq!(cluster.run(&["get", "k", "-r", "1"]).expect(0).text(), "v\n");
    cluster.run(&["put", "one", "v", "-w", "1", "--blind"]).expect(0);
    cluster.start_all();
    cluster.run(&["get", "new", "-r", "all"]).expect(3);
    cluster.run(&["bucket", "show", "later"]).expect(3);
    cluster.run(&["bucket", "create", "later"]).expect(0);
    assert_eq!(cluster.run(&["get", "one", "-r", "all"]).expect(0).text(), "v\n");
}

#[test]
fn a_bucket_has_its_own_copies_and_defaults() {
    let cluster = Cluster::with(&["-n", "5"]);
    cluster.run(&["bucket", "create", "five", "-n", "5", "-w", "3", "-r", "3"]).expect(0);
    cluster.run(&["bucket", "create", "one", "-n", "1"]).expect(0);
    let said = cluster.run(&["put", "k", "v", "-b", "five", "-o", "json"]).expect(0);
    assert!(said.json("galvani.put/1")["acks"].as_u64() >= Some(3), "{said}");
    cluster.run(&["put", "k", "v", "-b", "five", "-w", "5", "--pw", "5"]).expect(0);
    cluster.run(&["put", "k", "other", "-b", "one"]).expect(0);
    cluster.run(&["put", "k", "v", "-b", "one", "-w", "2"]).expect(5).is_three_part_error();
    assert_eq!(cluster.run(&["get", "k", "-b", "one"]).expect(0).text(), "other\n");
    assert_eq!(cluster.run(&["get", "k", "-b", "five", "-r", "5"]).expect(0).text(), "v\n");
    cluster.run(&["get", "k"]).expect(3);
    let client = cluster.client();
    let explained = cluster.block_on(client.bucket("five").explain("k")).expect("known");
    assert_eq!((explained.owners.len(), explained.fallbacks.len()), (5, 0));
    let explained = cluster.block_on(client.bucket("one").explain("k")).expect("known");
    assert_eq!((explained.owners.len(), explained.fallbacks.len()), (1, 4));
    // Two nodes away: majorities of five go on, all do not.
    cluster.kill("n4");
    cluster.kill("n5");
    let put = client.bucket("five").put("k2", "v").blind().w(Quorum::Majority);
    cluster.block_on(put.send()).expect("three of five are up");
    cluster.run(&["get", "k2", "-b", "five"]).expect(0);
}
