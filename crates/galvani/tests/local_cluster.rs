//! The command line against a real local cluster: the binary, three processes, one story.
//!
//! State lives in a temporary directory and ports are automatic, so that tests of other programs on
//! the machine are neither met nor disturbed.

use std::path::Path;
use std::process::{Command, Output};

/// A local cluster that is destroyed with the test, by its own directory and no other.
struct Cluster {
    state: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let state = tempfile::tempdir().expect("a temporary directory");
        let cluster = Cluster { state };
        let dir = cluster.dir();
        let started = cluster.run(&["dev", "-d", "--ports", "auto", "--dir", &dir]);
        assert!(started.status.success(), "{started:?}");
        cluster
    }

    fn dir(&self) -> String {
        self.state.path().join("cluster").display().to_string()
    }

    fn run(&self, args: &[&str]) -> Output {
        galvani(self.state.path(), args)
    }

    /// What it prints and how it ends.
    fn say(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        let code = output.status.code().expect("ended by itself");
        (code, String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let dir = self.dir();
        self.run(&["dev", "destroy", "--yes", "--dir", &dir]);
    }
}

fn galvani(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galvani"));
    for name in ["CONTEXT", "SERVER", "IDENTITY", "BUCKET", "R", "W", "OUTPUT", "TIMEOUT"] {
        command.env_remove(format!("GALVANI_{name}"));
    }
    command.env("GALVANI_STATE", state).args(args).output().expect("the binary runs")
}

#[test]
fn a_local_cluster_is_written_broken_and_healed() {
    let cluster = Cluster::start();
    let (code, text) = cluster.say(&["put", "greeting", "hello", "-w", "2"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(cluster.say(&["get", "greeting", "-r", "2"]), (0, "hello\n".to_owned()));
    assert_eq!(cluster.say(&["get", "nothing"]).0, 3);
    assert_eq!(cluster.say(&["put", "greeting", "x", "-w", "5"]).0, 5);

    // Two writers under one context: siblings, and one of them is picked.
    let seen = cluster.state.path().join("seen").display().to_string();
    assert_eq!(cluster.say(&["get", "greeting", "--context-out", &seen]).0, 0);
    for value in ["one", "two"] {
        let put = cluster.say(&["put", "greeting", value, "--context", &seen]);
        assert_eq!(put.0, 0, "{}", put.1);
    }
    assert_eq!(cluster.say(&["get", "greeting"]), (4, String::new()));
    assert_eq!(cluster.say(&["put", "greeting", "--take", "1", "-w", "all"]).0, 0);
    assert_eq!(cluster.say(&["get", "greeting", "-o", "raw"]), (0, "one".to_owned()));

    let dir = cluster.dir();
    assert_eq!(cluster.say(&["dev", "kill", "n3", "--dir", &dir]).0, 0);
    assert_eq!(cluster.say(&["put", "greeting", "late", "-w", "2"]).0, 0);
    assert_eq!(cluster.say(&["get", "greeting", "-r", "3", "--timeout", "500ms"]).0, 7);
    assert_eq!(cluster.say(&["dev", "start", "n3", "--dir", &dir]).0, 0);
    assert_eq!(cluster.say(&["get", "greeting", "-r", "3"]), (0, "late\n".to_owned()));
}

#[test]
fn destroying_one_cluster_leaves_another_of_the_same_name() {
    let (one, other) = (Cluster::start(), Cluster::start());
    assert_eq!(other.say(&["put", "k", "v"]).0, 0);
    let dir = one.dir();
    assert_eq!(one.say(&["dev", "destroy", "--yes", "--dir", &dir]).0, 0);
    assert!(!Path::new(&dir).exists());
    assert_eq!(other.say(&["get", "k"]), (0, "v\n".to_owned()));
    let (code, text) = one.say(&["get", "k"]);
    assert_eq!((code, text), (8, String::new()));
}
