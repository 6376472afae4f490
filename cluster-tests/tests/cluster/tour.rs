//! `galvani tour`: it shows what it tells, and leaves nothing behind.

use galvani_cluster_tests::cluster::{command_in, temporary};
use galvani_cluster_tests::command::Running;
use galvani_cluster_tests::wait::PATIENCE;
use galvani_cluster_tests::{Cluster, Ran, processes, until};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

#[test]
fn siblings_really_appear_and_are_merged_and_nothing_is_left() {
    let root = temporary();
    let ran = Ran::of(&mut tour_in(root.path(), &["--yes", "-o", "json"]), b"").expect(0);
    let document = ran.json("galvani.tour/1");
    let steps = document["steps"].as_array().expect("steps");
    let step = |part: &str| -> &Value {
        let command = |step: &&Value| step["command"].as_str().is_some_and(|c| c.contains(part));
        steps.iter().find(command).unwrap_or_else(|| panic!("no step {part}: {document}"))
    };
    let output = |step: &Value| step["output"].as_str().expect("text").to_owned();
    let refused = step("lost?");
    assert_eq!(refused["exit"], 5, "{refused}");
    assert!(output(refused).contains("NOTHING WAS WRITTEN"), "{refused}");
    let siblings = output(step("--siblings"));
    for value in ["\"milk+eggs\"", "\"milk+tea\""] {
        assert!(siblings.contains(value), "{siblings}");
    }
    assert_eq!(siblings.lines().count(), 2, "{siblings}");
    assert!(output(step("milk+eggs+tea")).contains("superseded 2 values"), "{document}");
    assert_eq!(output(steps.last().expect("steps")), "milk+eggs+tea\n");
    nothing_is_left(root.path());
}

#[test]
fn a_tour_that_is_interrupted_leaves_nothing_behind() {
    let root = temporary();
    let tour = Running::start(&mut tour_in(root.path(), &["--yes"]), b"");
    until("the nodes of the tour to run", || match nodes_in(root.path()) {
        3 => Ok(()),
        other => Err(other),
    });
    let pid = i32::try_from(tour.pid()).ok().and_then(Pid::from_raw).expect("an id");
    kill_process(pid, Signal::INT).expect("it runs");
    tour.finish().expect(130);
    nothing_is_left(root.path());
}

#[test]
fn signals_during_the_clean_up_do_not_end_it() {
    let root = temporary();
    // As a terminal does it: the whole group gets every signal.
    let mut tour = tour_in(root.path(), &["--yes"]);
    let mut tour = Running::start(tour.process_group(0), b"");
    let group = i32::try_from(tour.pid()).ok().and_then(Pid::from_raw).expect("an id");
    until("the nodes of the tour to run", || match nodes_in(root.path()) {
        3 => Ok(()),
        other => Err(other),
    });
    // Without a pause, so that whatever it starts for its clean-up is hit; `finish` has the deadline
    // of a tour that does not end.
    let began = Instant::now();
    while !tour.has_ended() && began.elapsed() < PATIENCE {
        // It may have ended since.
        let _ = kill_process_group(group, Signal::INT);
        std::thread::yield_now();
    }
    tour.finish().expect(130);
    nothing_is_left(root.path());
}

#[test]
fn a_client_of_a_node_that_is_not_there_is_told() {
    let cluster = Cluster::start();
    let ran = cluster.run(&["get", "k", "--via", "n9"]).expect(2).is_three_part_error();
    ran.says(&["the cluster has no node n9"]);
    cluster.run(&["put", "k", "v", "--via", "n2", "-w", "3"]).expect(0);
    cluster.kill("n2");
    cluster.run(&["get", "k", "-r", "2"]).expect(0);
    let alone = cluster.run(&["get", "k", "-r", "2", "--via", "n2", "--timeout", "1s"]);
    assert_ne!(alone.code, Some(0), "n2 is down, and nobody else may be asked: {alone}");
}

fn tour_in(root: &Path, words: &[&str]) -> Command {
    let mut command = command_in(root);
    command.arg("tour").args(words).env("TMPDIR", root);
    command
}

fn nodes_in(root: &Path) -> usize {
    let places = std::fs::read_dir(root).expect("there").flatten();
    let names = ["n1", "n2", "n3"];
    places
        .flat_map(|place| names.map(|name| place.path().join("dev").join(name)))
        .map(|home| processes::of_node(&home).len())
        .sum()
}

fn nothing_is_left(root: &Path) {
    assert_eq!(processes::in_dir(root), [0_u32; 0]);
    let left: Vec<_> = std::fs::read_dir(root).expect("there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
