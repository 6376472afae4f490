//! `power-cut`: all three nodes lose power at once, in mode `fsync`, under writes that one disk acks.
//!
//! Run as root on a machine with loop devices and `mkfs.ext4`. It ends with 0 if every acked write is
//! there after each of three rounds, and panics with the writes that are lost otherwise. On a busy
//! machine it has found some: `docs/proof.md`, section 1. Next to read: `power.rs` of the library.

use galvani_client::Quorum;
use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::power::{lose_power, on_power_disks};
use galvani_cluster_tests::{History, Load};
use std::process::ExitCode;
use std::sync::Arc;

const ALL: [&str; 3] = ["n1", "n2", "n3"];

fn main() -> ExitCode {
    let Some((cluster, disks)) = on_power_disks(&ALL, "fsync") else { return ExitCode::from(2) };
    let history = Arc::new(History::new(any_seed()));
    for round in 0..3 {
        // One ack, so that each write rests on one disk until the others have it, too.
        let load = Load::start(&cluster, &history, &ALL, 6, 1_u8);
        load.until_acked(150);
        lose_power(&cluster, &ALL, &disks);
        load.stop(&cluster);
        cluster.start_all();
        cluster.run(&["wait", "--for", "settled", "--timeout", "60s"]).expect(0);
        check_all(&cluster, &cluster.client(), &history, Quorum::All);
        println!("round {round}: {} acked writes are there", history.acked());
    }
    ExitCode::SUCCESS
}
