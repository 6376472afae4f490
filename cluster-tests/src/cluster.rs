//! A local cluster of real node processes in a temporary directory, and everything done to it.
//!
//! It is made, broken and mended through `galvani dev`, the way people do it. Dropping it kills
//! every process whose command line names its directory and checks that none is left, also when
//! the test panicked. Next to read: `load.rs`, `history.rs`.

use crate::command::{Ran, Running};
use crate::wait::{self, until};
use crate::{binary, processes};
use galvani_client::{Builder, Client, Explanation, NodeStatus};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};

/// A cluster, its files, and a runtime for clients.
#[derive(Debug)]
pub struct Cluster {
    runtime: Option<Runtime>,
    nodes: Vec<Node>,
    dir: PathBuf,
    root: TempDir,
    /// What its commands are run with, and its nodes by them.
    program: PathBuf,
}

/// One node of it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, n1, n2, ...
    pub name: String,
    /// Its zone, which no other node is in: a client of that zone asks this node first.
    pub zone: String,
    /// Where its first lane listens.
    pub addr: SocketAddr,
}

impl Cluster {
    /// Three nodes, three copies.
    pub fn start() -> Cluster {
        Cluster::with(&[])
    }

    /// As `galvani dev -d` with these further options makes it.
    pub fn with(options: &[&str]) -> Cluster {
        Cluster::in_root(temporary(), options)
    }

    /// In a directory of which parts may be there: the cluster's own is `dev` in it.
    pub fn in_root(root: TempDir, options: &[&str]) -> Cluster {
        Cluster::by(binary::galvani(), root, options)
    }

    /// As [`Cluster::in_root`], made and run by `program`, which may be of another build.
    pub fn by(program: &Path, root: TempDir, options: &[&str]) -> Cluster {
        let runtime = RuntimeBuilder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = Some(runtime.expect("threads can be made"));
        let dir = root.path().join("dev");
        // From here on dropping it cleans up, whatever fails.
        let program = program.to_owned();
        let mut cluster = Cluster { runtime, nodes: Vec::new(), dir, root, program };
        let words = ["dev", "-d", "--ports", "auto", "-o", "json"];
        let made = cluster.ran(words.iter().chain(options)).expect(0).json("galvani.dev/1");
        let node = |node: &serde_json::Value| Node {
            name: node["name"].as_str().expect("a name").to_owned(),
            zone: node["zone"].as_str().expect("a zone").to_owned(),
            addr: node["lanes"][0].as_str().and_then(|at| at.parse().ok()).expect("an address"),
        };
        cluster.nodes = made["nodes"].as_array().expect("nodes").iter().map(node).collect();
        cluster
    }

    /// Runs a command against it and waits for its end.
    pub fn run(&self, words: &[&str]) -> Ran {
        self.ran(words)
    }

    /// Runs a command that is told to ask only node `name`.
    pub fn run_at(&self, name: &str, words: &[&str]) -> Ran {
        let server = self.node(name).addr.to_string();
        let mut command = self.command();
        let identity = self.identity();
        command.args(words).arg("--server").arg(server).arg("--identity").arg(identity);
        Ran::of(&mut command, b"")
    }

    /// Runs a command with something on its stdin.
    pub fn run_with(&self, words: &[&str], stdin: &[u8]) -> Ran {
        Ran::of(self.command().args(words), stdin)
    }

    /// Starts a command and does not wait for it.
    pub fn begin(&self, words: &[&str]) -> Running {
        Running::start(self.command().args(words), b"")
    }

    /// `galvani` with an environment of its own: no settings of the one who runs the tests.
    pub fn command(&self) -> Command {
        command_of(&self.program, self.root.path())
    }

    /// Another program with the same environment.
    pub fn command_by(&self, program: &str) -> Command {
        command_of(Path::new(program), self.root.path())
    }

    /// Types what the error of `ran` told to type, step by step; what went wrong, if something did.
    pub fn do_as_told(&self, ran: &Ran) -> Result<(), String> {
        let steps = ran.told();
        if steps.len() < 2 {
            return Err(format!("it says nothing to type: {ran}"));
        }
        for step in steps {
            match step.as_slice() {
                ["galvani", words @ ..] => {
                    let ran = self.run(words);
                    if ran.code != Some(0) {
                        return Err(ran.to_string());
                    }
                }
                ["mv", from, to] => {
                    std::fs::rename(from, to)
                        .map_err(|error| format!("mv {from} {to}: {error}"))?;
                }
                other => return Err(format!("{other:?} is nothing to type: {ran}")),
            }
        }
        Ok(())
    }

    /// From now on its commands are run with `program`, and so are nodes that they start.
    pub fn run_by(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// SIGKILL of one node, through the command line.
    pub fn kill(&self, name: &str) {
        self.run(&["dev", "kill", name]).expect(0);
    }

    /// A clean stop of one node.
    pub fn stop(&self, name: &str) {
        let ran = self.run(&["dev", "stop", name]).expect(0);
        assert!(!ran.stderr.contains("was killed"), "{name} did not stop by itself: {ran}");
    }

    /// Starts one node and waits until it answers.
    pub fn start_node(&self, name: &str) {
        self.run(&["dev", "start", name]).expect(0);
    }

    /// A clean stop of all nodes.
    pub fn stop_all(&self) {
        let ran = self.run(&["dev", "stop"]).expect(0);
        assert!(!ran.stderr.contains("was killed"), "not all stopped by themselves: {ran}");
    }

    /// Starts all nodes that do not run and waits until a quorum answers.
    pub fn start_all(&self) {
        self.run(&["dev", "start"]).expect(0);
    }

    /// Restarts all nodes with a setting of their `galvani.toml` at another value, and waits until they have
    /// met. Panics if a file does not have the line `before`.
    pub fn reconfigure(&self, before: &str, after: &str) {
        self.stop_all();
        for node in &self.nodes {
            let path = self.home(&node.name).join("galvani.toml");
            let text = fs::read_to_string(&path).expect("a node has its file");
            assert!(text.lines().any(|line| line == before), "{before}: {text}");
            let line = |line| if line == before { after } else { line };
            let changed: Vec<&str> = text.lines().map(line).collect();
            fs::write(&path, changed.join("\n")).expect("a node's file can be written");
        }
        self.start_all();
        self.run(&["wait", "--for", "settled"]).expect(0);
    }

    /// SIGKILL of all nodes at once, and their end; also of those that a command which runs
    /// meanwhile starts after that.
    pub fn kill_all(&self) {
        kill_in(&self.dir);
    }

    /// SIGKILL of one node past `galvani dev`, also while that is starting it; returns when it is gone.
    pub fn kill_process(&self, name: &str) {
        kill_in(&self.home(name));
    }

    /// SIGSTOP of one node.
    pub fn pause(&self, name: &str) {
        self.run(&["dev", "pause", name]).expect(0);
    }

    /// SIGCONT of one node.
    pub fn resume(&self, name: &str) {
        self.run(&["dev", "resume", name]).expect(0);
    }

    /// A client that knows all nodes and inherits the defaults.
    pub fn client(&self) -> Client {
        self.connect(self.builder())
    }

    /// A client that asks node `name` first: in this cluster it owns every key.
    pub fn client_at(&self, name: &str) -> Client {
        self.connect(self.builder().zone(&self.node(name).zone))
    }

    /// The settings of a client of this cluster.
    pub fn builder(&self) -> Builder {
        let seeds: Vec<String> = self.nodes.iter().map(|node| node.addr.to_string()).collect();
        let seeds = format!("galvani://{}", seeds.join(","));
        Client::builder()
            .seed(seeds)
            .identity_dir(self.identity())
            .connect_timeout(Duration::from_secs(20))
            .timeout(DEADLINE)
    }

    fn connect(&self, builder: Builder) -> Client {
        self.block_on(builder.connect()).expect("the cluster runs")
    }

    /// Runs a future to its end on this thread; tasks go on meanwhile on others.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime().block_on(future)
    }

    /// The runtime its clients run on.
    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("taken only by dropping")
    }

    /// Its nodes in the order of their names.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node `name`.
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.unwrap_or_else(|| panic!("the cluster has no {name}"))
    }

    /// The directory of node `name`: `galvani.toml`, `data`, `identity`, `node.log`.
    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The cluster's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.root.path()
    }

    /// The identity of an administrator.
    pub fn identity(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// Ids of its node processes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().flat_map(|node| processes::of_node(&self.home(&node.name))).collect()
    }

    /// The id of node `name`'s process.
    pub fn pid(&self, name: &str) -> u32 {
        let pids = processes::of_node(&self.home(name));
        *pids.first().unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// What node `name` says of itself.
    pub fn status_of(&self, client: &Client, name: &str) -> NodeStatus {
        until(&format!("the status of {name}"), || {
            let reports = self.block_on(client.status());
            let report = reports.into_iter().find(|report| report.name == name);
            report.ok_or("not listed".to_owned())?.status.map_err(|error| error.to_string())
        })
    }

    /// Waits until every owner holds the same versions of `key`, none of them missing anything.
    pub fn until_equal(&self, client: &Client, key: &str) -> Explanation {
        until(&format!("all replicas of {key} to be equal"), || {
            let explanation =
                self.block_on(client.explain(key.to_owned())).map_err(|error| error.to_string())?;
            let dots = |replica: &galvani_client::ReplicaState| {
                let versions = replica.versions.as_ref().map_err(ToString::to_string)?;
                let mut dots: Vec<_> =
                    versions.iter().map(|version| version.dots.clone()).collect();
                dots.sort();
                Ok::<_, String>(dots)
            };
            let first = dots(&explanation.replicas[0])?;
            for replica in &explanation.replicas {
                if dots(replica)? != first {
                    return Err(format!("{:?}", explanation.replicas));
                }
            }
            Ok(explanation)
        })
    }

    fn ran<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command().args(words), b"")
    }
}

/// SIGKILL of all nodes whose files are in `dir`; returns when they are gone.
fn kill_in(dir: &Path) {
    until(&format!("the nodes in {} to be gone", dir.display()), || {
        processes::signal(dir, Signal::KILL);
        match processes::in_dir(dir).as_slice() {
            [] => Ok(()),
            left => Err(left.to_vec()),
        }
    });
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let root = self.root.path();
        // A process may be starting just now: signal until none is left.
        wait::at_most(wait::PATIENCE, || {
            processes::signal(root, Signal::KILL);
            processes::in_dir(root).is_empty()
        });
        let left = processes::in_dir(root);
        if !left.is_empty() && !std::thread::panicking() {
            panic!("processes {left:?} are left");
        }
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

impl Cluster {
    /// The last lines of every node's log, for a test that failed.
    fn show_logs(&self) {
        // Nodes may have come and gone since the start.
        let Ok(homes) = std::fs::read_dir(&self.dir) else { return };
        for home in homes.flatten() {
            let Ok(log) = std::fs::read(home.path().join("node.log")) else { continue };
            let text = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- {} ---\n{}", home.file_name().display(), last.join("\n"));
        }
    }
}

/// `galvani` whose state and settings are in `root` only.
pub fn command_in(root: &Path) -> Command {
    command_of(binary::galvani(), root)
}

/// The same of another build of `galvani`.
fn command_of(program: &Path, root: &Path) -> Command {
    let mut command = Command::new(program);
    let settings = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("GALVANI_") || name.starts_with("XDG_")
    });
    for (name, _) in settings {
        command.env_remove(name);
    }
    command.env("GALVANI_STATE", root).env("HOME", root).env("XDG_STATE_HOME", root);
    command.current_dir(root);
    command
}

/// A fresh directory for a cluster's files.
pub fn temporary() -> TempDir {
    tempfile::Builder::new().prefix("galvani-cluster-").tempdir().expect("a temporary directory")
}

/// What each call of a client has, unless a test says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Lines of each log shown when a test fails.
const LOG_LINES: usize = 15;
