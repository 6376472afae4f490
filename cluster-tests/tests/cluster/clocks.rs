//! Wrong dates, with real processes (C1, C2): they order nothing, bring nothing back, and collect nothing
//! that others still show.
//!
//! A small C library, compiled here with the compiler that Rust links with, stands before the C library's
//! `clock_gettime` in a node and puts its date ahead by what a file says now; elapsed time it leaves as it
//! is. Ten years (C3) cannot be tried like this: certificates end before that, as they should.
#![cfg(target_os = "linux")]

use galvani_client::{Client, Context, Dot, Read};
use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::{Cluster, History, Load, shim, until};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long long *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_SHIM_AHEAD");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED) ahead = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
    return failed;
}
"#;

const ALL: [&str; 3] = ["n1", "n2", "n3"];
/// How near a date must be to what was set: less than any step that is taken here.
const NEAR_S: i64 = 30;

/// The date of one node, which can be set while it runs.
struct Date {
    node: &'static str,
    ahead: File,
}

impl Date {
    /// Starts `node`, which runs, again, with a date that can be set. It is right so far.
    fn of(cluster: &Cluster, node: &'static str, shim: &Path) -> Date {
        let path = cluster.scratch().join(format!("{node}.ahead"));
        let ahead = File::create_new(&path).expect("a scratch directory is writable");
        ahead.write_all_at(&0_i64.to_ne_bytes(), 0).expect("written");
        cluster.stop(node);
        let mut start = cluster.command();
        start.args(["dev", "start", node]).env("LD_PRELOAD", shim).env("CLOCK_SHIM_AHEAD", &path);
        let started = start.output().expect("the command runs");
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        Date { node, ahead }
    }

    /// Puts it ahead by so many seconds, and sees that the node has it.
    fn set(&self, cluster: &Cluster, seconds: i64) {
        self.ahead.write_all_at(&seconds.to_ne_bytes(), 0).expect("written");
        let client = only(cluster, self.node);
        until(&format!("{} to be {seconds} s ahead", self.node), || {
            let explained = cluster.block_on(client.explain("whose date is it"));
            let explained = explained.map_err(|error| error.to_string())?;
            assert_eq!(explained.coordinator, self.node);
            let ahead = match explained.at.duration_since(SystemTime::now()) {
                Ok(ahead) => ahead.as_secs() as i64,
                Err(behind) => -(behind.duration().as_secs() as i64),
            };
            if (ahead - seconds).abs() < NEAR_S { Ok(()) } else { Err(format!("{ahead} s")) }
        });
    }
}

/// A client that asks this node or nobody.
fn only(cluster: &Cluster, node: &str) -> Client {
    cluster.block_on(cluster.builder().only(node).connect()).expect("it runs")
}

/// Writes `key` on all three owners, after what was seen of it if anything was.
fn write(cluster: &Cluster, client: &Client, value: &'static str, seen: Option<&Context>) -> Dot {
    let put = client.put("k", value);
    let put = match seen {
        Some(context) => put.after(context),
        None => put.blind(),
    };
    let written = cluster.block_on(put.w(3).send()).expect("all are up");
    written.dot.expect("it was stored")
}

/// What all three owners together have of a key, by this client's node.
fn read(cluster: &Cluster, client: &Client, key: &'static str) -> Read {
    cluster.block_on(async { client.get(key).r(3).await }).expect("all are up")
}

fn values(read: &Read) -> Vec<String> {
    let text = |value: &bytes::Bytes| String::from_utf8_lossy(value).into_owned();
    let mut values: Vec<String> = read.values().map(text).collect();
    values.sort();
    values
}

/// Waits until no node keeps a tombstone any more: each was proved to be needed by nobody.
fn until_no_tombstones(cluster: &Cluster) {
    let client = cluster.client();
    until("all tombstones to be collected", || {
        let kept = ALL.map(|node| cluster.status_of(&client, node).tombstones);
        if kept == [0; 3] { Ok(()) } else { Err(kept) }
    });
}

#[test]
fn skew_10min_orders_nothing_and_loses_nothing() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::start();
    let shim = shim::compile(cluster.scratch(), SHIM);
    let [n1, n2] = ["n1", "n2"].map(|node| Date::of(&cluster, node, &shim));
    // More than ten minutes apart. A client's date may be ahead of a node's by ten minutes at most.
    n1.set(&cluster, 600);
    n2.set(&cluster, -540);
    let [ahead, behind, right] = ALL.map(|node| only(&cluster, node));

    write(&cluster, &ahead, "ahead", None);
    let seen = read(&cluster, &behind, "k");
    assert_eq!(values(&seen), ["ahead"]);
    write(&cluster, &behind, "behind", Some(&seen.context));
    let seen = read(&cluster, &right, "k");
    assert_eq!(values(&seen), ["behind"], "the later write replaces, whatever its date is");
    write(&cluster, &ahead, "left", Some(&seen.context));
    write(&cluster, &behind, "right", Some(&seen.context));
    let seen = read(&cluster, &right, "k");
    assert_eq!(values(&seen), ["left", "right"], "both saw the same");
    let delete = behind.delete("k").after(&seen).w(3).send();
    cluster.block_on(delete).expect("all are up");
    for client in [&ahead, &behind, &right] {
        assert_eq!(values(&read(&cluster, client, "k")), [] as [&str; 0]);
    }
    until_no_tombstones(&cluster);
    assert_eq!(values(&read(&cluster, &ahead, "k")), [] as [&str; 0]);

    // An end is by the date of whoever is asked, off by as much as that is, and takes nothing from others.
    let ttl = Duration::from_secs(300);
    let short = right.put("short", "v").blind().ttl(ttl).w(3).send();
    cluster.block_on(short).expect("all are up");
    assert_eq!(values(&read(&cluster, &ahead, "short")), [] as [&str; 0]);

    let load = Load::start(&cluster, &history, &ALL, 6, 2_u8);
    load.until_acked(300);
    n1.set(&cluster, 0);
    n2.set(&cluster, 0);
    load.until_acked(300);
    let tally = load.stop(&cluster);
    assert_eq!(tally.failures, [], "of {} writes: dates are nobody's business", tally.acked);
    check_all(&cluster, &cluster.client(), &history, 3_u8);
    let client = cluster.client();
    for key in history.keys().iter().take(20) {
        cluster.until_equal(&client, key);
    }
    for client in [&ahead, &behind, &right] {
        assert_eq!(values(&read(&cluster, client, "short")), ["v"], "its end is far by all dates");
    }
}

#[test]
fn jump_back_1h_gives_no_name_twice_and_brings_nothing_back() {
    let history = Arc::new(History::new(any_seed()));
    let cluster = Cluster::start();
    let shim = shim::compile(cluster.scratch(), SHIM);
    let n1 = Date::of(&cluster, "n1", &shim);
    n1.set(&cluster, 3_600);
    let (jumps, other) = (only(&cluster, "n1"), only(&cluster, "n3"));
    let mut dots = BTreeSet::from([write(&cluster, &jumps, "one", None)]);
    let seen = read(&cluster, &jumps, "k");
    assert_eq!(values(&seen), ["one"]);
    let load = Load::start(&cluster, &history, &ALL, 6, 2_u8);
    load.until_acked(200);
    n1.set(&cluster, 0);
    load.until_acked(200);
    let tally = load.stop(&cluster);
    assert_eq!(tally.failures, [], "of {} writes: dates are nobody's business", tally.acked);
    dots.insert(write(&cluster, &jumps, "two", Some(&seen.context)));
    let seen = read(&cluster, &other, "k");
    assert_eq!(values(&seen), ["two"], "the later write replaces, whatever its date is");
    // And over a crash, after which the node knows nothing of the hour that was.
    cluster.kill("n1");
    cluster.start_node("n1");
    let again = only(&cluster, "n1");
    dots.insert(write(&cluster, &again, "three", Some(&seen.context)));
    assert_eq!(dots.len(), 3, "a name was given twice: {dots:?}");
    let seen = read(&cluster, &other, "k");
    assert_eq!(values(&seen), ["three"]);
    let delete = other.delete("k").after(&seen).w(3).send();
    cluster.block_on(delete).expect("all are up");
    until_no_tombstones(&cluster);
    assert_eq!(values(&read(&cluster, &again, "k")), [] as [&str; 0]);
    check_all(&cluster, &cluster.client(), &history, 3_u8);
}
