//! Acks and the disk (Q3): where every write is to be on the disk first, a node's own copy does not count
//! until its sync has returned.
//!
//! A small C library, compiled here with the compiler that Rust links with, stands before the C library's
//! `fsync` and `fdatasync` in one node, and lets none of them return while a file is there.
#![cfg(target_os = "linux")]

use galvani_client::{Applied, Client, Outcome, Written};
use galvani_cluster_tests::wait::{PATIENCE, at_most};
use galvani_cluster_tests::{Cluster, shim, until};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinHandle;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int hold_and_sync(int fd, const char *name) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *hold = getenv("SYNC_SHIM_HOLD"), *waits = getenv("SYNC_SHIM_WAITS");
    while (hold && access(hold, F_OK) == 0) {
        int mark = waits ? open(waits, O_WRONLY | O_CREAT, 0600) : -1;
        if (mark >= 0) close(mark);
        usleep(5000);
    }
    return real(fd);
}

int fdatasync(int fd) { return hold_and_sync(fd, "fdatasync"); }
int fsync(int fd) { return hold_and_sync(fd, "fsync"); }
"#;

/// How long an ack is waited for that must not come.
const NO_ACK: Duration = Duration::from_secs(1);
/// What the write has that waits for the held disk.
const LONG: Duration = Duration::from_secs(25);

/// The disk of n1, whose syncs can be held.
struct Disk {
    hold: PathBuf,
    waits: PathBuf,
}

impl Disk {
    /// Starts n1, which runs, again, with a disk that can be held.
    fn of_n1(cluster: &Cluster) -> Disk {
        let scratch = cluster.scratch();
        let disk = Disk { hold: scratch.join("hold"), waits: scratch.join("waits") };
        let shim = shim::compile(scratch, SHIM);
        cluster.stop("n1");
        let mut start = cluster.command();
        start.args(["dev", "start", "n1"]).env("LD_PRELOAD", &shim);
        start.env("SYNC_SHIM_HOLD", &disk.hold).env("SYNC_SHIM_WAITS", &disk.waits);
        let started = start.output().expect("the command runs");
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        disk
    }

    fn hold(&self) {
        // What waited in an earlier hold has long gone on.
        if self.waits.exists() {
            fs::remove_file(&self.waits).expect("a scratch directory is writable");
        }
        fs::write(&self.hold, b"").expect("a scratch directory is writable");
    }

    fn until_a_sync_waits(&self) {
        until("a sync of n1 to be held", || if self.waits.exists() { Ok(()) } else { Err("none") });
    }

    fn let_go(&self) {
        fs::remove_file(&self.hold).expect("it is held");
    }
}

/// A write that waits for its acks while the test goes on.
type Write = JoinHandle<galvani_client::Result<Written>>;

/// Begins a write through n1 alone, which waits for the acks of `w` owners.
fn begin(cluster: &Cluster, client: &Client, key: &str, w: u8, timeout: Duration) -> Write {
    let put = client.put(key.to_owned(), "v").blind().w(w).strict().timeout(timeout);
    cluster.runtime().spawn(async move { put.send().await })
}

fn is_not_acked(write: &Write) {
    at_most(NO_ACK, || write.is_finished());
    assert!(!write.is_finished(), "it was answered while the disk did not have it");
}

/// A client that asks this node or nobody, and once.
fn only(cluster: &Cluster, node: &str) -> Client {
    cluster.block_on(cluster.builder().only(node).retries(0).connect()).expect("it runs")
}

#[test]
fn ack_before_fsync_of_the_only_copy_does_not_come() {
    let cluster = Cluster::with(&["-n", "1", "--durability", "fsync", "--lanes", "1"]);
    let disk = Disk::of_n1(&cluster);
    let client = only(&cluster, "n1");
    disk.hold();
    let write = begin(&cluster, &client, "k", 1, LONG);
    disk.until_a_sync_waits();
    is_not_acked(&write);
    disk.let_go();
    let written = cluster.block_on(write).expect("no panic").expect("the disk goes on");
    let outcomes: Vec<&Outcome> = written.answers.iter().map(|answer| &answer.outcome).collect();
    assert_eq!(outcomes, [&Outcome::StoredDurably]);

    // The node dies before its disk has a write: it was never acked, and nobody said that it failed.
    let mut tries = 0;
    let doubtful = until("a write that is at its node when that dies", || {
        tries += 1;
        let key = format!("doubtful/{tries}");
        let client = only(&cluster, "n1");
        disk.hold();
        let write = begin(&cluster, &client, &key, 1, Duration::from_secs(3));
        disk.until_a_sync_waits();
        cluster.kill_process("n1");
        disk.let_go();
        let error = cluster.block_on(write).expect("no panic").expect_err("nobody could ack it");
        cluster.start_node("n1");
        match error.applied() {
            Applied::Maybe { acks: 0 } => Ok(key),
            // It was another sync that waited, and the write had not left.
            Applied::No => Err(error.to_string()),
            other => panic!("{other:?}: {error:?}"),
        }
    });
    let shown = |key: &str| {
        let client = only(&cluster, "n1");
        let get = client.get(key.to_owned()).r(1);
        let read = cluster.block_on(async { get.await }).expect("it runs");
        read.values().map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown("k"), ["v"], "it was acked");
    let doubtful = shown(&doubtful);
    assert!(doubtful.is_empty() || doubtful == ["v"], "{doubtful:?}");
}

#[test]
fn ack_before_fsync_of_one_of_three_does_not_count() {
    let cluster = Cluster::with(&["--durability", "fsync", "--lanes", "1"]);
    let disk = Disk::of_n1(&cluster);
    let (n1, n2) = (only(&cluster, "n1"), only(&cluster, "n2"));
    disk.hold();
    let write = begin(&cluster, &n1, "k", 3, LONG);
    disk.until_a_sync_waits();
    // The others go on, and none of their writes counts n1.
    for number in 0..10 {
        let put = n2.put(format!("meanwhile/{number}"), "v").blind().w(2).strict().send();
        let written = cluster.block_on(put).expect("two are enough");
        let acked = written.answers.iter().filter(|answer| answer.is_ok());
        let acked: Vec<&str> = acked.map(|answer| answer.node.as_str()).collect();
        assert!(acked.len() == 2 && !acked.contains(&"n1"), "{written:?}");
    }
    is_not_acked(&write);
    disk.let_go();
    let written = cluster.block_on(write).expect("no panic").expect("the disk goes on");
    assert_eq!(written.acks, 3, "{written:?}");
    let client = cluster.client_at("n2");
    until("n1 to have what it stood still for", || {
        let put = client.put("after", "v").blind().w(3).strict().timeout(PATIENCE).send();
        cluster.block_on(put).map(|_| ())
    });
    for number in 0..10 {
        cluster.until_equal(&client, &format!("meanwhile/{number}"));
    }
}
