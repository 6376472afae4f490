//! A disk whose sync fails once: the node stops acking and ends without a clean mark, it never syncs
//! again, and nothing acked is lost.
//!
//! A small C library, compiled here with the compiler that Rust links with, stands before the C
//! library's `fsync` and `fdatasync` in one node. Once a file says so, one sync fails; every later one
//! would succeed, as a kernel does that has dropped the pages. It counts what came after.
#![cfg(target_os = "linux")]

use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::{Cluster, History, Load, shim, until};
use std::fs;
use std::sync::Arc;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int failed;

static void note(const char *word) {
    const char *log = getenv("SYNC_SHIM_LOG");
    int fd = log ? open(log, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (fd < 0) return;
    if (write(fd, word, 1) != 1) abort();
    close(fd);
}

static int armed(void) {
    const char *trigger = getenv("SYNC_SHIM_TRIGGER");
    return trigger && access(trigger, F_OK) == 0;
}

static int data_sync(int fd, const char *name, const char *again) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (armed()) {
        if (!__sync_lock_test_and_set(&failed, 1)) {
            note("E");
            errno = EIO;
            return -1;
        }
        note(again);
    }
    return real(fd);
}

int fdatasync(int fd) { return data_sync(fd, "fdatasync", "d"); }
int fsync(int fd) { return data_sync(fd, "fsync", "f"); }
"#;

#[test]
fn fsync_eio_ends_the_node_and_loses_nothing_acked() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::with(&["--durability", "fsync", "--lanes", "2"]);
    let shim = shim::compile(cluster.scratch(), SHIM);
    let (trigger, log) = (cluster.scratch().join("fail"), cluster.scratch().join("syncs"));
    cluster.stop("n1");
    let mut start = cluster.command();
    start.args(["dev", "start", "n1"]).env("LD_PRELOAD", &shim);
    start.env("SYNC_SHIM_TRIGGER", &trigger).env("SYNC_SHIM_LOG", &log);
    let started = start.output().expect("the command runs");
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let mark = cluster.home("n1").join("data").join("clean");
    assert!(!mark.exists(), "a running node has no mark");

    let load = Load::start(&cluster, &history, &["n1", "n2", "n3"], 6, 2_u8);
    load.until_acked(60);
    let pid = cluster.pid("n1");
    fs::write(&trigger, b"").expect("the trigger can be made");
    until("n1 to end", || match cluster.pids().contains(&pid) {
        false => Ok(()),
        true => Err("it runs"),
    });
    // The others go on with w=2.
    load.until_acked(60);
    let tally = load.stop(&cluster);
    assert_eq!(tally.failures, [], "of {} writes: the others are enough for each", tally.acked);
    assert!(!mark.exists(), "the stop was not clean");
    let after = fs::read_to_string(&log).expect("the shim wrote it");
    assert_eq!(after.matches('E').count(), 1, "one sync failed: {after:?}");
    assert_eq!(after.matches('d').count(), 0, "the engine's data was synced again: {after:?}");

    fs::remove_file(&trigger).expect("it is there");
    cluster.start_node("n1");
    check_all(&cluster, &cluster.client(), &history, 2_u8);
    check_all(&cluster, &cluster.client_at("n1"), &history, 3_u8);
}
