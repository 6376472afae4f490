//! `galvani bench`: what it counts, what it checks at the end, and whether it tells the truth of a
//! cluster that stands still; against one that takes only so much; ended with Ctrl-C.

use galvani_cluster_tests::cluster::{command_in, temporary};
use galvani_cluster_tests::command::Running;
use galvani_cluster_tests::{Cluster, Ran, processes, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// A cluster whose nodes take so many requests a second of one client, and that many at once.
fn limited(each_node: u32) -> Cluster {
    let cluster = Cluster::start();
    let line = |limit| format!("client_requests_per_second = {limit}");
    cluster.reconfigure(&line(0), &line(each_node));
    cluster
}

#[test]
fn a_rate_limit_is_waited_for_first_and_counted_then() {
    let cluster = limited(60);
    // Two requests a key: more than the nodes take at once.
    let common = ["bench", "put", "--keys", "200", "--warmup", "0s"];
    let run = |more: &[&str]| cluster.run(&[&common, more].concat());
    let ran = run(&["--rate", "400", "--duration", "2s", "-o", "json"]).expect(0);
    let document = ran.json("galvani.bench/1");
    assert!(ran.stderr.contains("waiting  rate limited"), "{ran}");
    let row = &document["rows"][0];
    assert!(row["refused"].as_u64().is_some_and(|refused| refused > 0), "{document}");
    assert_eq!(row["other"], 0, "{document}");

    let closed = run(&["-c", "8", "--count", "2000"]).expect(1).is_three_part_error();
    assert!(closed.text().contains("closed loop, 8 workers"), "the figures all the same: {closed}");
    closed.says(&["of 2 000 requests failed"]);
}

#[test]
fn ctrl_c_ends_it_with_130() {
    let cluster = Cluster::start();
    // At its ease, and with far more to send than it can.
    for (key, rate) in [("bench/00000000", "100"), ("bench/00000099", "1M")] {
        let words = ["bench", "put", "--keys", "100", "--duration", "50s", "--rate", rate];
        let bench = cluster.begin(&words);
        until("the bench to write", || match cluster.run(&["get", key, "-o", "raw"]).code {
            Some(0) => Ok(()),
            other => Err(other),
        });
        let pid = i32::try_from(bench.pid()).ok().and_then(Pid::from_raw).expect("an id");
        kill_process(pid, Signal::INT).expect("it runs");
        bench.finish().expect(130).says(&["interrupted: no figures"]);
        cluster.run(&["del", "--prefix", "bench/", "--yes"]).expect(0);
    }
}

#[test]
fn every_workload_runs_and_all_it_wrote_is_there() {
    let cluster = Cluster::start();
    let common = ["--keys", "100", "--warmup", "0s", "--duration", "1s", "-o", "json"];
    for (workload, kinds) in [
        ("put", &["put"][..]),
        ("a", &["get", "put"]),
        ("b", &["get", "put"]),
        ("c", &["get"]),
        ("d", &["get", "insert"]),
        ("f", &["get", "rmw"]),
    ] {
        let ran = cluster.run(&[&["bench", workload, "--rate", "150"], &common[..]].concat());
        let run = ran.expect(0).json("galvani.bench/1");
        for kind in ["get", "put", "insert", "rmw"] {
            let count = run[kind]["count"].as_u64().unwrap_or(0);
            assert_eq!(count > 0, kinds.contains(&kind), "{workload} {kind}: {run}");
        }
        assert!(run["lag"]["p99_us"].as_u64().is_some(), "an open loop knows its lag: {run}");
        match workload {
            "c" => assert_eq!(run["check"], Value::Null, "nothing was written: {run}"),
            _ => assert!(run["check"]["acked"].as_u64().is_some_and(|acked| acked > 0), "{run}"),
        }
        if workload == "put" {
            assert_eq!(run["races"], 0, "keys that are chosen evenly are not raced for: {run}");
        }
    }
    // Keys that a run makes are its own: what another run of the same left is not in their way.
    let again = cluster.run(&[&["bench", "d", "--rate", "150"], &common[..]].concat());
    let run = again.expect(0).json("galvani.bench/1");
    let check = &run["check"];
    assert_eq!((&check["foreign"], &check["unjudged"]), (&0.into(), &0.into()), "{run}");
    let refused = cluster.run(&["bench", "e"]).expect(2).is_three_part_error();
    refused.says(&["YCSB E cannot be done", "keys spread by hash have none"]);
}

#[test]
fn a_run_is_saved_shown_and_compared() {
    let cluster = Cluster::start();
    let path = |name: &str| cluster.scratch().join(name).display().to_string();
    let (saved, log, page) = (path("a.json"), path("a.hlog"), path("a.html"));
    let ycsb = path("a.ycsb");
    let files = ["--save", &saved, "--hlog", &log, "--html", &page, "--ycsb-output", &ycsb];
    let common = ["bench", "mix", "--keys", "100", "--warmup", "0s", "--duration", "3s"];
    cluster.run(&[&common[..], &["--rate", "50"], &files].concat()).expect(0);
    let text = fs::read_to_string(&saved).expect("saved");
    let mut run: Value = serde_json::from_str(&text).expect("JSON");
    assert!(run["batches"].as_array().is_some_and(|seconds| seconds.len() >= 3), "{text}");
    let log = fs::read_to_string(&log).expect("the log");
    assert!(log.starts_with("#[Histogram log format version 1.3]"), "{log}");
    assert!(log.contains("Tag=put,0.000,1.000,") && log.contains(",HISTFAAA"), "{log}");
    let page = fs::read_to_string(&page).expect("the page");
    assert!(page.starts_with("<!doctype html>") && page.matches("<svg").count() == 3);
    let ycsb = fs::read_to_string(&ycsb).expect("what YCSB would print");
    for section in ["[OVERALL], Throughput(ops/sec), ", "[READ], ", "[Intended-UPDATE], "] {
        assert!(ycsb.contains(section), "{ycsb}");
    }
    let shown = cluster.run(&["bench", "show", &saved]).expect(0);
    assert!(shown.text().contains("open loop, 50/s"), "{shown}");
    assert!(shown.text().contains("0 lost, 0 resurrected  PASS"), "{shown}");

    // Two machines that did the same at the same time.
    let both = path("both.json");
    let merged = cluster.run(&["bench", "merge", &saved, &saved, "--save", &both]).expect(0);
    assert!(merged.text().contains("open loop, 100/s"), "{merged}");
    let both: Value =
        serde_json::from_str(&fs::read_to_string(&both).expect("saved")).expect("JSON");
    let twice = |run: &Value| run["ops"].as_u64().map(|ops| ops * 2);
    assert_eq!(both["ops"].as_u64(), twice(&run), "{both}");

    // Whether this machine kept up with its schedule is not what is tested here.
    let mut write = |name: &str, bound: bool| {
        run["generator_bound"] = bound.into();
        fs::write(path(name), run.to_string()).expect("written");
        path(name)
    };
    let (fine, bound) = (write("fine.json", false), write("bound.json", true));
    let alike = cluster.run(&["bench", "compare", &fine, &fine, "--fail-if", "put.p99>+5%"]);
    assert!(alike.expect(0).text().contains("put.p99"));
    let refused = cluster.run(&["bench", "compare", &fine, &bound]).expect(1);
    refused.is_three_part_error().says(&["GENERATOR-BOUND"]);
    run["value_bytes"] = 7.into();
    fs::write(path("other.json"), run.to_string()).expect("written");
    let unlike = cluster.run(&["bench", "merge", &fine, &path("other.json")]).expect(2);
    unlike.is_three_part_error().says(&["they differ in value bytes: 1024 and 7"]);
    let nothing = cluster.run(&["bench", "compare", &fine, "absent.json"]).expect(2);
    nothing.is_three_part_error().says(&["is no saved run"]);
}

#[test]
fn a_write_that_was_acked_and_is_gone_fails_the_check() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let words = ["bench", "put", "--keys", "200", "--rate", "20", "--warmup", "0s"];
    let bench = cluster.begin(&[&words[..], &["--duration", "10s"]].concat());
    // Preparing writes each key once: what is beyond that is the measured run.
    until("the measured run to have written", || {
        let nodes = cluster.nodes().iter();
        match nodes.map(|node| cluster.status_of(&client, &node.name).counters.puts).sum::<u64>() {
            230.. => Ok(()),
            puts => Err(puts),
        }
    });
    // What a bug that loses writes would do: most of them are not written again by the run.
    cluster.run(&["del", "--prefix", "bench/", "--yes"]).expect(0);
    let ran = bench.finish().expect(1).is_three_part_error();
    let ran = ran.says(&["an acked write is gone"]);
    assert!(ran.text().contains("  FAIL") && !ran.text().contains(" 0 lost"), "{ran}");
}

/// All node processes stand still for a second in the middle of the run `words`; what it found. The
/// cluster is new: what its nodes count is this run.
fn stopped_for_a_second(words: &[&str]) -> Value {
    let cluster = Cluster::start();
    let saved = cluster.scratch().join("run.json");
    let path = saved.display().to_string();
    // As many may be under way as there are keys: more than come in the second in which nobody answers.
    let common = ["bench", "get", "--keys", "200", "--warmup", "0s", "--duration", "10s"];
    let bench =
        cluster.begin(&[&common[..], words, &["--timeout", "30s", "--save", &path]].concat());
    // The nodes count what they answer: more than the preparation needs is the measured run.
    let client = cluster.client();
    until("the measured run to be under way", || {
        let gets: u64 = cluster
            .nodes()
            .iter()
            .map(|node| cluster.status_of(&client, &node.name).counters.gets)
            .sum();
        if gets > 400 { Ok(()) } else { Err(gets) }
    });
    let pids: Vec<Pid> = cluster
        .pids()
        .into_iter()
        .filter_map(|pid| i32::try_from(pid).ok().and_then(Pid::from_raw))
        .collect();
    assert_eq!(pids.len(), 3);
    let signal = |signal| pids.iter().for_each(|pid| kill_process(*pid, signal).expect("it runs"));
    signal(Signal::STOP);
    let began = Instant::now();
    // wait: a second is what is tested, not a condition.
    thread::sleep(STOPPED.saturating_sub(began.elapsed()));
    signal(Signal::CONT);
    bench.finish().expect(0);
    let text = fs::read_to_string(saved).expect("saved");
    let mut run: Value = serde_json::from_str(&text).expect("JSON");
    for long in ["batches", "histograms"] {
        run[long] = Value::Null;
    }
    run
}

const STOPPED: Duration = Duration::from_secs(1);

/// Of ten seconds at a fixed rate one finds nobody at home: a tenth of the requests wait, evenly
/// between no time and the whole second. So a twentieth waits half a second or more, and a
/// hundredth nine tenths of it. The bounds are wide; machines that are slow only add to them.
#[test]
fn a_second_in_which_all_servers_stand_still_is_in_the_percentiles_as_arithmetic_says() {
    let run = stopped_for_a_second(&["--rate", "100"]);
    let get = &run["get"];
    let at = |name: &str| get[name].as_u64().unwrap_or_else(|| panic!("{name}: {run}"));
    assert!(at("count") > 850, "a fixed rate was offered all the time: {run}");
    assert_eq!(run["shed"], 0, "{run}");
    assert!(at("p95_us") > 300_000, "{run}");
    assert!(at("p99_us") > 750_000, "{run}");
    assert!(at("max_us") > 900_000, "{run}");
    // A closed loop of one asks once in that second: its tail says nothing of it.
    let closed = stopped_for_a_second(&["-c", "1"]);
    let slow = |micros: u64| closed["get"]["p99_us"].as_u64().is_some_and(|p99| p99 < micros);
    assert!(slow(300_000), "{closed}");
    assert!(closed["get"]["max_us"].as_u64().is_some_and(|max| max > 900_000), "{closed}");
}

/// `bench` where no cluster is selected, with its temporary files in `root`.
fn without_a_cluster(root: &Path, words: &[&str]) -> Command {
    let mut command = command_in(root);
    command.args(["bench", "put", "--keys", "20"]).args(words).env("TMPDIR", root);
    command
}

/// Nodes of clusters in places below `root` that are made for one command.
fn nodes_in(root: &Path) -> usize {
    let places = fs::read_dir(root).expect("there").flatten();
    let homes = places.flat_map(|place| NAMES.map(|name| place.path().join("dev").join(name)));
    homes.map(|home| processes::of_node(&home).len()).sum()
}

fn nothing_is_left(root: &Path) {
    assert_eq!(processes::in_dir(root), [0_u32; 0]);
    let left: Vec<_> = fs::read_dir(root).expect("there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn without_a_cluster_it_makes_one_and_removes_it() {
    let root = temporary();
    let words = ["--rate", "50", "--duration", "1s", "--warmup", "0s"];
    let ran = Ran::of(&mut without_a_cluster(root.path(), &words), b"").expect(0);
    let ran = ran.says(&["no cluster is selected", "the cluster of this bench is gone"]);
    assert!(ran.text().contains("0 lost, 0 resurrected  PASS"), "{ran}");
    nothing_is_left(root.path());

    let mut command = without_a_cluster(root.path(), &["--duration", "50s"]);
    let bench = Running::start(&mut command, b"");
    until("its nodes to run", || match nodes_in(root.path()) {
        3 => Ok(()),
        other => Err(other),
    });
    let pid = i32::try_from(bench.pid()).ok().and_then(Pid::from_raw).expect("an id");
    kill_process(pid, Signal::INT).expect("it runs");
    bench.finish().expect(130);
    nothing_is_left(root.path());
}

#[test]
fn a_sweep_tries_all_quorums_or_finds_a_rate() {
    let cluster = Cluster::start();
    let common = ["--keys", "50", "--warmup", "0s", "--duration", "500ms", "-o", "json"];
    let sweep = |words: &[&str]| cluster.run(&[&["bench", "sweep"], words, &common].concat());
    let swept = sweep(&["--quorums", "--rate", "60"]).expect(0).json("galvani.bench-sweep/1");
    let rows = swept["rows"].as_array().expect("rows");
    let pairs: Vec<(u64, u64)> = rows
        .iter()
        .map(|row| (row["r"].as_u64().expect("r"), row["w"].as_u64().expect("w")))
        .collect();
    assert_eq!(pairs, (1..=3).flat_map(|r| (1..=3).map(move |w| (r, w))).collect::<Vec<_>>());
    for row in rows {
        assert_eq!(row["run"]["w"], row["w"].to_string(), "{row}");
        assert!(row["run"]["ops"].as_u64().is_some_and(|ops| ops > 0), "{row}");
    }
    assert_eq!((&swept["check"]["lost"], &swept["check"]["resurrected"]), (&0.into(), &0.into()));

    // An objective that nothing can hold is said not to hold: the same on every machine.
    let none = sweep(&["put", "--slo", "put.p50<1us", "--rate", "4"]).expect(1);
    let none = none.says(&["no rate was found that holds put.p50<0.001ms"]);
    assert!(none.text().contains(r#""highest_rate":null"#), "{none}");
}

#[test]
fn faults_come_by_the_clock_and_nothing_acked_is_lost() {
    // Four nodes, so that there is one to stand in for the one that is killed.
    let cluster = Cluster::with(&["-n", "4"]);
    let words = ["bench", "chaos", "put", "--keys", "50", "--warmup", "0s", "--rate", "60"];
    let faults = ["--kill", "n2@1s", "--start", "n2@5s", "--pause", "n3@6s", "--duration", "7s"];
    let ran = cluster.run(&[&words[..], &faults, &["-w", "3", "-o", "json"]].concat()).expect(0);
    let run = ran.json("galvani.bench/1");
    let chaos = &run["chaos"];
    let done: Vec<&str> = chaos["done"]
        .as_array()
        .expect("faults")
        .iter()
        .map(|one| one["what"].as_str().expect("words"))
        .collect();
    assert_eq!(done, ["kill n2", "start n2", "pause n3"], "{run}");
    assert!(chaos["hints_made"].as_u64().is_some_and(|hints| hints > 0), "{run}");
    assert_eq!(chaos["hints_left"], 0, "{run}");
    assert!(chaos["unavailable_seconds"].as_f64().is_some_and(|gap| gap > 0.0), "{run}");
    let check = &run["check"];
    let found = [&check["lost"], &check["resurrected"], &check["unread"]];
    assert_eq!(found, [&Value::from(0); 3], "{run}");
    cluster.run(&["wait", "--for", "up=4"]).expect(0);

    // Interrupted, it mends what it broke all the same.
    let words = ["bench", "chaos", "--keys", "50", "--rate", "20", "--kill", "n2@0s"];
    let bench = cluster.begin(&[&words[..], &["--duration", "60s"]].concat());
    until("n2 to be killed", || match processes::of_node(&cluster.home("n2")).as_slice() {
        [] => Ok(()),
        pids => Err(pids.to_vec()),
    });
    let pid = i32::try_from(bench.pid()).ok().and_then(Pid::from_raw).expect("an id");
    kill_process(pid, Signal::INT).expect("it runs");
    bench.finish().expect(130);
    cluster.run(&["wait", "--for", "up=4"]).expect(0);

    let late = cluster.run(&["bench", "chaos", "--kill", "n2@20s"]).expect(2);
    late.is_three_part_error().says(&["is after the end"]);
    let server = cluster.nodes()[0].addr.to_string();
    let identity = cluster.identity().display().to_string();
    let remote = ["--server", &server, "--identity", &identity, "bench", "chaos", "--heal", "@1s"];
    cluster.run(&remote).expect(2).says(&["this is no local cluster"]);
}
