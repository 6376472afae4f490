//! Flipped bytes in the files of a node (K3, RR4): it heals, or says what to type and that works;
//! nobody is ever shown what was not written.

use galvani_client::{Client, Quorum};
use galvani_cluster_tests::flips::{files, flip, is_in, is_journal};
use galvani_cluster_tests::{Cluster, Ran, wait};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// So many that the small tables of a node are flushed to files, too.
const KEYS: usize = 8_000;
const AT_ONCE: usize = 64;
/// By then the engine has come to the damage three times: it rests for seconds in between.
const FAILS: Duration = Duration::from_secs(120);

#[test]
fn bitflip_middle() {
    let cluster = filled();
    // Values have files of their own; then rows; then the engine's own catalogue; then the journal.
    comes_back(&cluster, |path| is_in(path, "blobs"));
    comes_back(&cluster, |path| is_in(path, "tables") && !is_catalogue(path));
    comes_back(&cluster, |path| is_in(path, "tables") && is_catalogue(path));
    comes_back(&cluster, is_journal);
    for gone in ["n1", "n3"] {
        cluster.kill(gone);
    }
    let n2 = cluster.client_at("n2");
    assert_eq!(right(&cluster, &n2, 0..KEYS, 1_u8.into()), KEYS, "n2 holds all by itself");
}

#[test]
fn repair_never_spreads_corruption() {
    let cluster = filled();
    damage(&cluster, |path| is_in(path, "blobs"));
    start(&cluster).expect(0);
    // Everybody reads everything, and compares with n2.
    let ran = cluster.run(&["repair", "-o", "json"]);
    assert!(matches!(ran.code, Some(0 | 7)), "{ran}");
    let report = ran.json("galvani.repair/1");
    assert_eq!(report["nodes"][1]["name"], "n2", "{report}");
    assert!(report["nodes"][1]["rows_mended"].as_u64() > Some(0), "{report}");
    for healthy in [0, 2] {
        let node = &report["nodes"][healthy];
        assert_eq!(
            (&node["rows_found"], &node["rows_damaged"]),
            (&0.into(), &0.into()),
            "{report}"
        );
        assert_eq!(
            (&node["readopted"], &node["records_pulled"]),
            (&0.into(), &0.into()),
            "{report}"
        );
    }
    all_is_right(&cluster);
    for gone in ["n2", "n3"] {
        cluster.kill(gone);
    }
    let n1 = cluster.client_at("n1");
    assert_eq!(right(&cluster, &n1, 0..KEYS, 1_u8.into()), KEYS, "n1 holds all by itself");
}

/// The engine comes to the damage again and again while it tidies up, so that hints wait for a node which
/// cannot take them in, and which lacks more and more: what is told to be typed must not need that it can.
#[test]
fn what_is_told_can_be_done_by_a_node_whose_engine_fails_again_and_again() {
    let cluster = filled();
    damage(&cluster, |path| is_in(path, "tables") && is_of_objects_or_log(path));
    start(&cluster).expect(0);
    let client = cluster.client_at("n1");
    let mut keys = KEYS;
    let failed = || log_of(&cluster, "n2").matches("commit_failed").count();
    wait::at_most(FAILS, || {
        write(&cluster, &client, keys..keys + 2_000, Quorum::Majority);
        keys += 2_000;
        failed() >= 3
    });
    assert!(failed() >= 3, "{} failed commits at n2 after {FAILS:?}", failed());
    let ran = cluster.run(&["repair", "--node", "n2"]);
    eprintln!("{ran}");
    assert_ne!(ran.code, Some(0), "files are damaged: {ran}");
    do_as_told(&cluster, &ran);
    for gone in ["n1", "n3"] {
        cluster.kill(gone);
    }
    let n2 = cluster.client_at("n2");
    assert_eq!(right(&cluster, &n2, 0..keys, 1_u8.into()), keys, "n2 holds all again by itself");
}

/// Three nodes with [`KEYS`] values each, all at rest.
fn filled() -> Cluster {
    let cluster = Cluster::start();
    cluster.stop("n2");
    let config = cluster.home("n2").join("galvani.toml");
    let text = std::fs::read_to_string(&config).expect("it is there");
    let small = text.replacen("memtable_mib = 32", "memtable_mib = 8", 1);
    assert_ne!(small, text, "the default is there to be replaced");
    std::fs::write(&config, small).expect("written");
    cluster.start_node("n2");
    write(&cluster, &cluster.client(), 0..KEYS, Quorum::All);
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    cluster
}

/// Writes the values of these keys, many at once.
fn write(cluster: &Cluster, client: &Client, keys: Range<usize>, w: Quorum) {
    cluster.block_on(async {
        let mut under_way = tokio::task::JoinSet::new();
        for number in keys {
            if under_way.len() == AT_ONCE {
                under_way.join_next().await.expect("some").expect("no panic");
            }
            let put = client.put(key(number), value(number));
            under_way.spawn(async move { put.blind().w(w).send().await.expect("enough are up") });
        }
        while let Some(put) = under_way.join_next().await {
            put.expect("no panic");
        }
    });
}

/// Stops n2 and flips a byte in the middle of each of its files that `wanted` picks.
fn damage(cluster: &Cluster, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    cluster.stop("n2");
    let mut all = files(&cluster.home("n2").join("data"));
    all.retain(|path| wanted(path));
    for path in &all {
        flip(path, |end| end / 2);
    }
    assert!(!all.is_empty(), "there are such files");
    all
}

/// Files of n2 are damaged; it starts and heals by a repair, or whoever refuses says what to type:
/// that is done, and helps.
fn comes_back(cluster: &Cluster, wanted: impl Fn(&Path) -> bool) {
    let damaged = damage(cluster, wanted);
    let started = start(cluster);
    let refused = started.code != Some(0);
    let ran = match refused {
        true => started.clone().is_three_part_error(),
        false => cluster.run(&["repair", "--node", "n2"]),
    };
    eprintln!("{ran}");
    assert!(!panicked(cluster), "{ran}");
    if !refused {
        all_is_right(cluster);
    }
    if refused || ran.code != Some(0) {
        let text = ran.to_string();
        let names = |path: &PathBuf| text.contains(&path.display().to_string());
        assert!(damaged.iter().any(names), "a damaged file is named: {ran}");
        do_as_told(cluster, &ran);
    }
    let healed = cluster.run(&["repair", "-o", "json"]).expect(0).json("galvani.repair/1");
    assert_eq!(healed["nodes"][1]["rows_damaged"], 0, "{healed}");
    let n2 = cluster.client_at("n2");
    assert_eq!(right(cluster, &n2, 0..KEYS, 1_u8.into()), KEYS, "n2 holds all again");
    assert!(!panicked(cluster));
}

/// Types what an error told to type, line by line.
fn do_as_told(cluster: &Cluster, ran: &Ran) {
    cluster.do_as_told(ran).expect("what it says can be typed");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    let aside = cluster.home("n2").join("data.damaged");
    std::fs::remove_dir_all(aside).expect("it was moved there");
}

fn start(cluster: &Cluster) -> Ran {
    cluster.run(&["dev", "start", "n2"])
}

/// No node has panicked.
fn panicked(cluster: &Cluster) -> bool {
    cluster.nodes().iter().any(|node| log_of(cluster, &node.name).contains("panicked"))
}

fn log_of(cluster: &Cluster, node: &str) -> String {
    let log = std::fs::read(cluster.home(node).join("node.log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// Every value is right by quorum, whoever is asked first.
fn all_is_right(cluster: &Cluster) {
    for node in cluster.nodes() {
        let client = cluster.client_at(&node.name);
        assert_eq!(
            right(cluster, &client, 0..KEYS, Quorum::Majority),
            KEYS,
            "by way of {}",
            node.name
        );
    }
}

/// How many keys are shown as they were written; one that is shown in any other way is a failure.
fn right(cluster: &Cluster, client: &Client, keys: Range<usize>, r: Quorum) -> usize {
    let client = Arc::new(client.clone());
    cluster.block_on(async {
        let mut under_way = tokio::task::JoinSet::new();
        let mut right = BTreeSet::new();
        for number in keys {
            if under_way.len() == AT_ONCE {
                right.extend(under_way.join_next().await.expect("some").expect("right"));
            }
            let client = client.clone();
            under_way.spawn(async move {
                let read = client.get(key(number)).r(r).await.ok()?;
                let values: Vec<_> =
                    read.siblings.iter().map(|sibling| sibling.value.clone()).collect();
                assert_eq!(values, [Some(value(number).into())], "{}", key(number));
                Some(number)
            });
        }
        while let Some(read) = under_way.join_next().await {
            right.extend(read.expect("right"));
        }
        right.len()
    })
}

/// The engine keeps the names of its tables in a table of its own.
fn is_catalogue(path: &Path) -> bool {
    path.ancestors().any(|path| path.ends_with("keyspaces/0"))
}

/// After its own table the engine numbers those of a node as `Table::ALL` does.
fn is_of_objects_or_log(path: &Path) -> bool {
    path.ancestors().any(|path| path.ends_with("keyspaces/1") || path.ends_with("keyspaces/2"))
}

fn key(number: usize) -> String {
    format!("key/{number}")
}

/// Large enough to be kept apart from the tables.
fn value(number: usize) -> String {
    format!("{number:08} ").repeat(70)
}
