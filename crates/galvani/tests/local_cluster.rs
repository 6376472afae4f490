//! The command line against a real local cluster: the binary, three processes, one story.
//!
//! State lives in a temporary directory and ports are automatic, so that tests of other programs on
//! the machine are neither met nor disturbed.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A local cluster that is destroyed with the test, by its own directory and no other.
struct Cluster {
    state: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        Cluster::with(&[])
    }

    /// With these further options.
    fn with(options: &[&str]) -> Cluster {
        let state = tempfile::tempdir().expect("a temporary directory");
        let cluster = Cluster { state };
        let dir = cluster.dir();
        let words = ["dev", "-d", "--ports", "auto", "--dir", &dir];
        let started = cluster.run(&[&words, options].concat());
        assert!(started.status.success(), "{started:?}");
        cluster
    }

    fn dir(&self) -> String {
        self.state.path().join("cluster").display().to_string()
    }

    fn run(&self, args: &[&str]) -> Output {
        galvani(self.state.path(), args)
    }

    /// Runs a command on the local cluster itself, which must succeed; what it says beside its data.
    fn dev(&self, words: &[&str]) -> String {
        let dir = self.dir();
        let output = self.run(&[&["dev"], words, &["--dir", &dir]].concat());
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Waits until the status has these words.
    fn until_status_says(&self, words: &str) {
        let began = Instant::now();
        while !self.say(&["status"]).1.contains(words) {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.say(&["status"]));
            // wait: nodes tell each other in their own time
            std::thread::sleep(Duration::from_millis(100));
        }
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
fn a_node_that_was_forgotten_keeps_its_name_and_is_healed_too() {
    let cluster = Cluster::with(&["-n", "4", "--lanes", "1"]);
    let keys: Vec<String> = (0..8).map(|number| format!("k{number}")).collect();
    for key in &keys {
        assert_eq!(cluster.say(&["put", key, "v", "--blind", "-w", "3", "--via", "n4"]).0, 0);
    }
    // It runs on, and hears nothing of it that it is no member any more.
    cluster.dev(&["cut", "n4|n1,n2,n3"]);
    cluster.dev(&["pause", "n4"]);
    assert_eq!(cluster.say(&["node", "forget", "n4", "--yes"]).0, 0);
    cluster.dev(&["resume", "n4"]);
    let (_, status) = cluster.say(&["status"]);
    assert!(status.contains("SET ON PURPOSE: n1 (n4: cut)"), "{status}");
    let explained: String = keys.iter().map(|key| cluster.say(&["explain", key]).1).collect();
    assert!(explained.contains(" by n4, 1 B]"), "{explained}");
    let said = cluster.dev(&["heal"]);
    assert!(said.contains("no faults are set any more"), "{said}");
    cluster.until_status_says("take it in: galvani cluster plan add n4");
    assert!(!cluster.say(&["status"]).1.contains("SET ON PURPOSE"));

    // One that knows that it is none, and has faults of its own.
    cluster.dev(&["add", "n4"]);
    cluster.dev(&["slow", "n4", "20ms"]);
    assert_eq!(cluster.say(&["node", "drain", "n4"]).0, 0);
    cluster.until_status_says("take it in: galvani cluster plan add n4");
    let said = cluster.dev(&["heal"]);
    assert!(said.contains("n4 is no member: what is set on it stays  undo: "), "{said}");
    cluster.dev(&["restart", "n4"]);
    assert_eq!(cluster.dev(&["heal"]), "no faults are set any more\n");
    cluster.dev(&["pause", "n4"]);
    let said = cluster.dev(&["heal"]);
    assert!(said.contains("n4 is no member and is paused: "), "{said}");
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

const PATIENCE: Duration = Duration::from_secs(20);
