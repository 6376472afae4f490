//! `upgrade`: nodes of an earlier build are replaced by this one, one by one, under load.
//!
//! `cargo xtask upgrade --from REV` builds the earlier one and runs this. It starts three nodes of
//! that build, puts writers and readers with w=2 and r=2 on them, restarts each node by this build,
//! and asks afterwards whether anything acked was lost. Between builds whose protocol numbers differ
//! it fails, and says that they refuse each other. See docs/decisions/0015-versions.md.

use galvani_cluster_tests::history::History;
use galvani_cluster_tests::load::{Load, check_all};
use galvani_cluster_tests::reads::Reads;
use galvani_cluster_tests::{Cluster, binary, cluster};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(option), Some(old), None) = (words.next(), words.next(), words.next()) else {
        eprintln!("error  say which program is the earlier one\n  say  upgrade --old PROGRAM");
        return ExitCode::from(2);
    };
    if option != "--old" {
        eprintln!("error  {option} is no option of upgrade\n  say  upgrade --old PROGRAM");
        return ExitCode::from(2);
    }
    if run(Path::new(&old)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(old: &Path) -> bool {
    let mut cluster = Cluster::by(old, cluster::temporary(), &[]);
    let history = Arc::new(History::new(0x6c01));
    // Clients of this build ask nodes of both.
    let load = Load::start(&cluster, &history, &NODES, 6, 2);
    load.until_acked(500);
    let readers = NODES.map(|name| cluster.client_at(name));
    let reads = Reads::start(&cluster, &history, readers, 2);
    cluster.run_by(binary::galvani());
    let began = Instant::now();
    let rolled = cluster.run(&["dev", "restart", "--rolling"]);
    println!("upgraded: exit {:?} after {:.1} s", rolled.code, began.elapsed().as_secs_f64());
    if rolled.code != Some(0) {
        println!("{}", rolled.stderr);
        return false;
    }
    load.until_acked(500);
    let (tally, read) = (load.stop(&cluster), reads.stop(&cluster));
    for failure in tally.failures.iter().map(|(_, why)| why).chain(&read.failures).take(5) {
        println!("failed: {failure}");
    }
    check_all(&cluster, &cluster.client(), &history, 2);
    tally.failures.is_empty() && read.failures.is_empty()
}
