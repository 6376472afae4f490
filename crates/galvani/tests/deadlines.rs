//! One deadline for a command: connecting, reading first and every round are part of it.
//!
//! The node is a scripted one, so that each request takes the time that the test is about.

#[path = "../../galvani-client/tests/support/mod.rs"]
mod support;

use galvani_wire::{Failure, Message};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};
use support::{Action, Cluster, found, refused, stored};

/// A node whose reads take 700 ms and whose writes are done as `put` says.
async fn slow_reader(put: fn() -> Action) -> Cluster {
    Cluster::start(1, move |asked| match (&asked.message, found(&[Some("v")])) {
        (Message::Get(_), Action::Reply(reply)) => Action::Late(READ, reply),
        (Message::Put(_), _) => put(),
        _ => refused(Failure::NotPermitted),
    })
    .await
}

/// Runs the command against the cluster; what it said and how long it took.
async fn run(cluster: &Cluster, words: &[&str]) -> (Output, Duration) {
    let state = tempfile::tempdir().expect("a directory");
    let identity = state.path().join("client");
    std::fs::create_dir(&identity).expect("made");
    cluster.identity().save(&identity).expect("saved");
    let mut command = command(state.path());
    command.arg("--server").arg(cluster.address(0).to_string());
    command.arg("--identity").arg(&identity).args(words);
    let running = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        (command.output().expect("started"), began.elapsed())
    });
    running.await.expect("no panic")
}

fn command(state: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_galvani"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GALVANI_") {
            command.env_remove(name);
        }
    }
    command.env("GALVANI_STATE", state);
    command
}

#[tokio::test]
async fn a_put_reads_and_writes_within_one_deadline() {
    let cluster = slow_reader(|| Action::Silent).await;
    let (output, took) = run(&cluster, &["put", "k", "v", "--timeout", "1s"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    // The write had 300 ms; with a second of its own it would end after 1.7 s.
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("THE WRITE MAY BE STORED"), "{said}");
    assert!(took >= READ && took < READ + Duration::from_millis(800), "{took:?} {said}");
    let (output, took) = run(&cluster, &["del", "k", "--timeout", "1s"]).await;
    assert_eq!(output.status.code(), Some(6));
    assert!(took < READ + Duration::from_millis(800), "{took:?}");
}

#[tokio::test]
async fn an_update_has_one_deadline_for_all_its_rounds() {
    // Others always write at the same time.
    let cluster = slow_reader(|| stored(2)).await;
    let words = ["update", "k", "--timeout", "2s", "--", "cat"];
    let (output, took) = run(&cluster, &words).await;
    let said = String::from_utf8_lossy(&output.stderr);
    // Rounds of 700 ms, sixteen of them if nothing ends them.
    assert!(matches!(output.status.code(), Some(4 | 6)), "{said}");
    assert!(took < Duration::from_millis(3_500), "{took:?} {said}");
    assert!(!said.contains("NOTHING WAS WRITTEN"), "an earlier round is stored: {said}");
}

#[tokio::test]
async fn an_update_is_not_charged_for_the_time_of_its_command() {
    let cluster = slow_reader(|| stored(1)).await;
    let words = ["update", "k", "--timeout", "2s", "--", "sh", "-c", "sleep 2; cat"];
    let (output, took) = run(&cluster, &words).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(took > Duration::from_secs(2), "{took:?}");
}

const READ: Duration = Duration::from_millis(700);
