//! Commands on many records while the cluster has no quorum: they say so, end, and go on later.

use galvani_cluster_tests::command::Running;
use galvani_cluster_tests::{Cluster, until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const RECORDS: usize = 300;

/// A cluster with some records, of which one node is left.
fn without_quorum() -> (Cluster, String) {
    let cluster = Cluster::start();
    let line = |index| format!("{{\"key\":\"k{index:04}\",\"value\":\"v{index}\"}}\n");
    let lines: String = (0..RECORDS).map(line).collect();
    cluster.run_with(&["import", "-", "-w", "3"], lines.as_bytes()).expect(0);
    cluster.kill("n2");
    cluster.kill("n3");
    (cluster, lines)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("readable");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("plain")
    };
    entries.map(name).filter(|name| name.starts_with("all.jsonl")).collect()
}

#[test]
fn an_export_says_what_it_waits_for_gives_up_and_leaves_nothing() {
    let (cluster, lines) = without_quorum();
    let began = Instant::now();
    let ran = cluster.run(&["export", "all.jsonl", "-r", "2", "--patience", "3s"]).expect(7);
    // A call of four seconds may be under way when patience is over.
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    let ran = ran.is_three_part_error().says(&[
        "waiting",
        "gives up after 3.0 s (--patience)",
        "export: gave up after 3.0 s of trying: r=2",
        "0 records read",
        "all.jsonl was not written",
        "  start again  galvani export all.jsonl --patience 3s -r 2",
    ]);
    assert!(ran.stderr.lines().filter(|line| line.starts_with("waiting")).count() <= 2, "{ran}");
    assert_eq!(names(cluster.scratch()), Vec::<String>::new(), "{ran}");
    let said = cluster.run(&["export", "all.jsonl", "--patience", "1s", "-o", "json"]).expect(7);
    let said = said.json("galvani.error/1");
    assert_eq!((&said["records"], &said["exit"]), (&0.into(), &7.into()));

    // It goes on by itself when the quorum is back in time.
    let running = cluster.begin(&["export", "all.jsonl", "-r", "2", "--patience", "60s"]);
    until("the export to be under way", || match names(cluster.scratch()).as_slice() {
        [part] if part == "all.jsonl.part" => Ok(()),
        other => Err(other.to_vec()),
    });
    cluster.start_all();
    running.finish().expect(0);
    assert_eq!(names(cluster.scratch()), ["all.jsonl"]);
    let exported = fs::read_to_string(cluster.scratch().join("all.jsonl")).expect("written");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&exported), sorted(&lines));
}

#[test]
fn an_interrupted_export_leaves_nothing() {
    let (cluster, _) = without_quorum();
    for signal in [Signal::INT, Signal::TERM] {
        let running = cluster.begin(&["export", "all.jsonl", "-r", "2", "--patience", "60s"]);
        until("the export to be under way", || match names(cluster.scratch()).as_slice() {
            [part] if part == "all.jsonl.part" => Ok(()),
            other => Err(other.to_vec()),
        });
        interrupt(&running, signal);
        let ran = running.finish().expect(130).is_three_part_error();
        ran.says(&["export: interrupted", "all.jsonl was not written", "start again"]);
        assert_eq!(names(cluster.scratch()), Vec::<String>::new());
    }
}

fn interrupt(running: &Running, signal: Signal) {
    let pid = i32::try_from(running.pid()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, signal).expect("it runs");
}

#[test]
fn an_import_gives_up_and_is_gone_on_with_by_what_it_says() {
    let (cluster, lines) = without_quorum();
    let changed = lines.replace(":\"v", ":\"w");
    fs::write(cluster.scratch().join("all.jsonl"), &changed).expect("written");
    let words = ["import", "all.jsonl", "-w", "2", "-r", "2", "--patience", "3s", "-c", "8"];
    let began = Instant::now();
    let ran = cluster.run(&words).expect(5);
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    let ran = ran.is_three_part_error().says(&[
        "waiting",
        "import: gave up after 3.0 s of trying: r=2",
        "0 records written, 0 there already, 0 failed",
        "galvani status",
    ]);
    let go_on = ran.stderr.lines().find_map(|line| line.trim().strip_prefix("go on  galvani "));
    let go_on: Vec<&str> = go_on.expect("a command").split(' ').collect();
    assert_eq!(go_on[..2], ["import", "all.jsonl"]);
    cluster.start_all();
    let done = cluster.run(&[&go_on[..], &["-o", "json"]].concat()).expect(0);
    let done = done.json("galvani.import/1");
    assert_eq!((&done["written"], &done["failed"]), (&RECORDS.into(), &0.into()));
    assert_eq!(cluster.run(&["get", "k0007", "-r", "3"]).expect(0).text(), "w7\n");
}
