//! A journal that ends within a batch (K2), under a real node: it cuts the torn batch off and says so, starts
//! again by itself, and is brought what that batch held.
//!
//! What is torn here was acked, by all three owners: more than a crash can take in truth. The others have it
//! still. Hundreds of places at which a batch can be torn are tried by the tests of the engine.

use galvani_cluster_tests::flips::{files, is_journal};
use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::{Cluster, History, Load};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Bytes that are missing at the end: of a mark, of a row, of more than one; no batch is so small.
const TORN: [u64; 4] = [1, 7, 40, 300];

#[test]
fn torn_tail_is_cut_off_and_what_it_held_is_brought_again() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::start();
    for torn in TORN {
        let load = Load::start(&cluster, &history, &["n1", "n2", "n3"], 3, 3_u8);
        load.until_acked(60);
        let tally = load.stop(&cluster);
        assert_eq!(tally.failures, [], "all are up");
        cluster.kill("n3");
        tear(&cluster.home("n3").join("data"), torn);
        cluster.start_node("n3");
        // By way of the node that lost something, with answers of two.
        check_all(&cluster, &cluster.client_at("n3"), &history, 2_u8);
    }
    let log = fs::read(cluster.home("n3").join("node.log")).expect("it has a log");
    let log = String::from_utf8_lossy(&log);
    assert_eq!(log.matches("\"journal_cut\"").count(), TORN.len(), "it says that it cut");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    check_all(&cluster, &cluster.client(), &history, 3_u8);
    for gone in ["n1", "n2"] {
        cluster.kill(gone);
    }
    // n3 has all of it again by itself.
    check_all(&cluster, &cluster.client_at("n3"), &history, 1_u8);
}

/// Takes the last bytes of the newest journal that holds something away.
fn tear(data: &Path, torn: u64) {
    let journals = files(data).into_iter().filter(|path| is_journal(path));
    let end = |path: &Path| {
        let bytes = fs::read(path).expect("its node is down");
        bytes.iter().rposition(|byte| *byte != 0).map(|last| last as u64 + 1)
    };
    let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let written = journals.filter_map(|path| end(&path).map(|end| (path, end)));
    let newest = written.max_by_key(|(path, _)| number(path).expect("journals are numbered"));
    let (journal, end) = newest.expect("it wrote something");
    assert!(end > torn, "{} has {end} bytes", journal.display());
    let file = fs::File::options().write(true).open(&journal).expect("its node is down");
    file.set_len(end - torn).expect("it can be cut");
}
