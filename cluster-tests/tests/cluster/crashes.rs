//! Processes that die, stop, pause and come back, under load: nothing acked is lost.

use galvani_client::{Client, Dot};
use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::wait::at_most;
use galvani_cluster_tests::{Cluster, History, Load, processes, until};
use galvani_model::bucket::BucketName;
use galvani_model::key::Key;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const ALL: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn killing_all_nodes_at_random_moments_loses_nothing_acked() {
    let history = Arc::new(History::new(any_seed()));
    let mut rng = StdRng::seed_from_u64(history.seed());
    let cluster = Cluster::with(&["--lanes", "2"]);
    for round in 0..4 {
        let load = Load::start(&cluster, &history, &ALL, 6, 2_u8);
        load.until_acked(rng.random_range(20..120));
        at_most(Duration::from_millis(rng.random_range(0..300)), || false);
        cluster.kill_all();
        let acked = load.acked();
        if round % 2 == 1 {
            // Again while they start: what a recovery has done so far must do no harm either.
            let start = cluster.begin(&["dev", "start"]);
            at_most(Duration::from_millis(rng.random_range(0..250)), || false);
            cluster.kill_all();
            start.finish();
        }
        // The command may have started one more after that.
        cluster.kill_all();
        cluster.start_all();
        load.until_acked(10);
        load.stop(&cluster);
        println!("round {round}: {acked} acked when all were killed");
        check_all(&cluster, &cluster.client(), &history, 2_u8);
    }
}

#[test]
fn kill9_during_recovery_twenty_times_loses_nothing_acked() {
    let history = Arc::new(History::new(any_seed()));
    let mut rng = StdRng::seed_from_u64(history.seed());
    let cluster = Cluster::start();
    let load = Load::start(&cluster, &history, &["n1", "n2"], 4, 2_u8);
    load.until_acked(50);
    for _ in 0..20 {
        cluster.kill_process("n3");
        let start = cluster.begin(&["dev", "start", "n3"]);
        let home = cluster.home("n3");
        until("n3 to begin", || processes::of_node(&home).first().copied().ok_or(()));
        at_most(Duration::from_millis(rng.random_range(0..200)), || false);
        cluster.kill_process("n3");
        start.finish();
    }
    cluster.start_node("n3");
    load.until_acked(50);
    let tally = load.stop(&cluster);
    assert_eq!(tally.failures, [], "of {} writes: n1 and n2 are enough for each", tally.acked);
    check_all(&cluster, &cluster.client(), &history, 3_u8);
}

#[test]
fn one_node_killed_and_back_under_load_loses_nothing_and_is_repaired_by_reads() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::start();
    let load = Load::patient(&cluster, &history, &ALL, 6, 2_u8);
    load.until_acked(100);
    cluster.kill("n3");
    load.until_acked(300);
    cluster.start_node("n3");
    load.until_acked(200);
    // Two owners are enough for w=2, and clients of the third turn to them.
    load.stop(&cluster).nobody_noticed();

    // Every key is read with r=all: from then on n3 has what it missed.
    let client = cluster.client();
    check_all(&cluster, &client, &history, 3_u8);
    for key in history.keys().iter().filter(|key| key.starts_with("often/")) {
        let explained = cluster.until_equal(&client, key);
        assert_eq!(explained.replicas.len(), 3);
    }
    check_all(&cluster, &client, &history, 2_u8);
}

#[test]
fn a_paused_node_holds_up_nobody_and_catches_up() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::start();
    // Near the nodes that stay: those near a silent node wait for it before they turn away.
    let load = Load::patient(&cluster, &history, &["n1", "n2"], 4, 2_u8);
    load.until_acked(50);
    cluster.pause("n3");
    load.until_acked(200);
    cluster.resume("n3");
    load.until_acked(50);
    load.stop(&cluster).nobody_noticed();
    let client = cluster.client();
    check_all(&cluster, &client, &history, 3_u8);
    for key in history.keys().iter().take(20) {
        cluster.until_equal(&client, key);
    }
}

#[test]
fn clients_of_a_paused_node_turn_to_the_others() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::start();
    let load = Load::patient(&cluster, &history, &["n3"], 3, 2_u8);
    load.until_acked(20);
    cluster.pause("n3");
    load.until_acked(30);
    cluster.resume("n3");
    load.until_acked(20);
    load.stop(&cluster).nobody_noticed();
    check_all(&cluster, &cluster.client(), &history, 3_u8);
}

#[test]
fn dot_reuse_a_clean_stop_keeps_origins_and_a_kill_takes_new_ones() {
    let cluster = Cluster::start();
    let client = cluster.client_at("n1");
    let first = dots(&cluster, &client, "first");
    let second = dots(&cluster, &client, "second");
    for (one, two) in first.iter().zip(&second) {
        assert_eq!((one.origin, one.counter + 1), (two.origin, two.counter));
    }
    drop(client);

    cluster.stop_all();
    cluster.start_all();
    let client = cluster.client_at("n1");
    // An origin is used again once all other owners have said what they know of it; a write that
    // comes earlier takes a new incarnation. Both leave no hole.
    let third = dots(&cluster, &client, "third");
    let mut kept = 0;
    for (two, three) in second.iter().zip(&third) {
        match two.origin == three.origin {
            true => {
                assert_eq!(three.counter, two.counter + 1, "a hole or a dot given twice");
                kept += 1;
            }
            false => assert_eq!(three.counter, 1),
        }
    }
    println!("{kept} of {} origins kept over a clean stop", third.len());
    assert!(kept > 0, "no origin was kept over a clean stop");
    drop(client);

    cluster.kill_all();
    cluster.start_all();
    let client = cluster.client_at("n1");
    let fourth = dots(&cluster, &client, "fourth");
    for (three, four) in third.iter().zip(&fourth) {
        assert_ne!(three.origin, four.origin, "an origin whose last counter is in doubt");
        assert_eq!(four.counter, 1);
    }
}

#[test]
fn node_id_reuse_after_wipe_is_a_new_incarnation_and_filled_again() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::start();
    let load = Load::start(&cluster, &history, &ALL, 4, 3_u8);
    load.until_acked(150);
    load.stop(&cluster);
    let before = dots(&cluster, &cluster.client_at("n3"), "before");
    cluster.kill("n3");
    std::fs::remove_dir_all(cluster.home("n3").join("data")).expect("n3 is down");
    cluster.start_node("n3");

    let client = cluster.client_at("n3");
    let keys = history.keys();
    // Two of three still see all, whatever n3 has by now: it is being filled.
    check_all(&cluster, &client, &history, 2_u8);
    check_all(&cluster, &client, &history, 3_u8);
    for key in keys.iter().take(40) {
        let explained = cluster.until_equal(&client, key);
        assert_eq!(explained.replicas[0].versions.as_ref().map(Vec::len), Ok(1), "{key}");
    }
    let after = dots(&cluster, &client, "after");
    for (old, new) in before.iter().zip(&after) {
        assert_ne!(old.origin, new.origin, "what n3 had counted is gone: it may not count on");
    }
}

#[test]
fn restored_from_old_backup_loses_no_acked_write() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::start();
    let by_n1 = |writes| {
        let load = Load::start(&cluster, &history, &["n1"], 3, 2_u8);
        load.until_acked(writes);
        load.stop(&cluster);
    };
    by_n1(80);
    let client = cluster.client_at("n1");
    let old = dots(&cluster, &client, "old");
    cluster.stop("n1");
    let data = cluster.home("n1").join("data");
    let copy = cluster.scratch().join("older");
    copy_dir(&data, &copy);
    cluster.start_node("n1");
    by_n1(80);
    dots(&cluster, &client, "forgotten by the copy");
    cluster.stop("n1");
    std::fs::remove_dir_all(&data).expect("n1 is down");
    copy_dir(&copy, &data);
    cluster.start_node("n1");
    // n1 counts on from what the copy knows: under the same origins it would give dots away twice.
    let new = dots(&cluster, &client, "new");
    for (old, new) in old.iter().zip(&new) {
        assert_ne!(old.origin, new.origin);
    }
    by_n1(80);
    check_all(&cluster, &cluster.client(), &history, 3_u8);
    for key in apart(&client) {
        let read = cluster.block_on(async { client.get(key).r(3).await }).expect("all are up");
        assert_eq!(read.one().expect("one value").as_deref(), Some(&b"new"[..]));
    }
}

#[test]
fn a_command_line_request_under_way_when_its_node_dies_ends_in_time() {
    let cluster = Cluster::start();
    cluster.run(&["put", "k", "v", "-w", "3"]).expect(0);
    cluster.pause("n2");
    cluster.pause("n3");
    let put = cluster.begin(&["put", "k2", "v", "--blind", "-w", "3", "--timeout", "20s"]);
    let client = cluster.client_at("n1");
    until("n1 to have taken in the write", || {
        let explained = cluster.block_on(client.explain("k2")).map_err(|e| e.to_string())?;
        let first = explained.replicas.iter().find(|replica| replica.node == "n1");
        match first.map(|replica| &replica.versions) {
            Some(Ok(versions)) if versions.len() == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.kill_all();
    let ran = put.finish().expect(6).is_three_part_error();
    assert!(ran.stderr.contains("MAY BE STORED") || ran.stderr.contains("IS STORED"), "{ran}");
    cluster.start_all();
    // It was stored on n1, which said nothing any more: in doubt was the truth.
    assert_eq!(cluster.run(&["get", "k2", "-r", "3"]).expect(0).text(), "v\n");
}

/// Keys of different partitions, none of them the one where `galvani dev start` writes to see
/// whether the cluster is ready.
fn apart(client: &Client) -> Vec<String> {
    let layout = client.cluster().layout.clone();
    let partition = |key: &str| {
        let key = Key::new(BucketName::default_bucket(), key.to_owned()).expect("a short key");
        layout.partition_of(&key)
    };
    let mut taken = BTreeSet::from([partition("galvani/ready")]);
    let keys = (0..).map(|index| format!("dots/{index}"));
    keys.filter(|key| taken.insert(partition(key))).take(24).collect()
}

/// Overwrites some keys of different partitions with `value`; the names of those writes.
fn dots(cluster: &Cluster, client: &Client, value: &'static str) -> Vec<Dot> {
    let write = |key: String| async move {
        let read = client.get(key.clone()).r(3).await.expect("all are up");
        let written = client.put(key, value).after(&read).w(3).send().await;
        let written = written.expect("all are up");
        assert_eq!(written.siblings_now, 1, "{written:?}");
        written.dot.expect("it was stored")
    };
    cluster.block_on(async {
        let mut all = Vec::new();
        for key in apart(client) {
            all.push(write(key).await);
        }
        all
    })
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success(), "{} cannot be copied", from.display());
}
