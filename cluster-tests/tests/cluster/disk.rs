//! Full disks: writes are refused with a reason, reads go on, nothing acked is lost, and writes go
//! on when there is room again, without a restart.

use galvani_client::{Applied, Client, Error, Outcome, ReplicaError};
use galvani_cluster_tests::cluster::temporary;
use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::small_disk::SmallDisk;
use galvani_cluster_tests::{Cluster, History, Load, until};
use std::sync::Arc;

const ALL: [&str; 3] = ["n1", "n2", "n3"];
/// Room for a node's engine and the reserve that writes leave free.
const DISK_MIB: u64 = 256;

#[test]
fn enospc_on_one_disk_is_told_and_the_others_go_on() {
    let Some((cluster, disks)) = on_small_disks() else { return };
    let history = Arc::new(History::new(any_seed()));
    let load = Load::start(&cluster, &history, &ALL, 3, 3_u8);
    load.until_acked(60);
    load.stop(&cluster);
    let pids = cluster.pids();
    disks[0].fill(1024);
    // One try only: the next one may go through n1, which then speaks for itself alone.
    let near_n2 = cluster.builder().zone(&cluster.node("n2").zone).retries(0);
    let client = cluster.block_on(near_n2.connect()).expect("n2 runs");
    let error = until("n1 to refuse for want of room", || refused(&cluster, &client, 3));
    let Applied::Maybe { acks: 1.. } = error.applied() else { panic!("n2 has it: {error:?}") };
    let full = error.trace().answers.iter().find(|answer| answer.node == "n1");
    let full = full.unwrap_or_else(|| panic!("n1 is not told of: {error:?}"));
    assert_eq!(full.outcome, Outcome::Refused(ReplicaError::DiskFull), "{error:?}");
    let words = ["put", "told", "v", "--blind", "-w", "3"];
    cluster.run(&words).expect(6).is_three_part_error().says(&["its disk is full", "IS STORED"]);

    let load = Load::start(&cluster, &history, &["n2", "n3"], 3, 2_u8);
    load.until_acked(60);
    let tally = load.stop(&cluster);
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    check_all(&cluster, &cluster.client_at("n1"), &history, 2_u8);

    disks[0].empty();
    until_room(&cluster, &client);
    assert_eq!(cluster.pids(), pids, "nobody was started anew");
    check_all(&cluster, &client, &history, 3_u8);
    let key = history.keys().into_iter().next_back().expect("written");
    cluster.until_equal(&client, &key);
}

#[test]
fn enospc_on_all_disks_nothing_is_written_and_everything_is_read() {
    let Some((cluster, disks)) = on_small_disks() else { return };
    let history = Arc::new(History::new(any_seed()));
    let load = Load::start(&cluster, &history, &ALL, 4, 2_u8);
    load.until_acked(60);
    // The disks fill up under the writers: what was acked stays, what is refused is not there.
    for disk in &disks {
        disk.fill(1024);
    }
    let client = cluster.client_at("n1");
    until("every node to refuse for want of room", || {
        let error = refused(&cluster, &client, 1)?;
        match error.applied() {
            Applied::No => Ok(()),
            Applied::Maybe { .. } => Err(format!("{error:?}")),
        }
    });
    let pids = cluster.pids();
    load.stop(&cluster);
    check_all(&cluster, &client, &history, 3_u8);
    let ran = cluster.run(&["put", "none", "v", "--blind", "-w", "1"]).expect(5);
    ran.is_three_part_error().says(&["its disk is full", "NOTHING WAS WRITTEN"]);
    cluster.run(&["get", "none", "-r", "3"]).expect(3);
    for disk in &disks {
        disk.empty();
    }
    until_room(&cluster, &client);
    assert_eq!(cluster.pids(), pids, "nobody was started anew");
    let load = Load::start(&cluster, &history, &ALL, 3, 3_u8);
    load.until_acked(30);
    load.stop(&cluster);
    check_all(&cluster, &client, &history, 3_u8);
    // What is on disk is whole.
    cluster.kill_all();
    cluster.start_all();
    check_all(&cluster, &cluster.client(), &history, 3_u8);
    cluster.run(&["get", "none", "-r", "3"]).expect(3);
}

/// The files of each node on a file system of its own.
fn on_small_disks() -> Option<(Cluster, Vec<SmallDisk>)> {
    let root = temporary();
    let mount = |name: &&str| SmallDisk::mount(&root.path().join("dev").join(name), DISK_MIB);
    let disks: Vec<SmallDisk> = ALL.iter().map(mount).collect::<Option<_>>()?;
    Some((Cluster::in_root(root, &[]), disks))
}

/// One write that must fail; its error, or what became of it.
fn refused(cluster: &Cluster, client: &Client, w: u8) -> Result<Error, String> {
    let put = client.put("probe", "v").blind().w(w).send();
    match cluster.block_on(put) {
        Ok(written) => Err(format!("{written:?}")),
        Err(error) => Ok(error),
    }
}

fn until_room(cluster: &Cluster, client: &Client) {
    until("writes to be taken by all again", || {
        cluster.block_on(client.put("room", "v").blind().w(3).send()).map(|_| ())
    });
}
