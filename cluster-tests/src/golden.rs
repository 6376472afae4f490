//! The directory of a node as a build of a data format left it, kept in the repository.
//!
//! `golden/data-N.tar.gz` holds `cluster.json` and the data directory of a node that was stopped
//! cleanly after [`WRITES`]. It is written once, by `cargo run -p galvani-cluster-tests --bin golden`
//! of the first build of format N, and never again: a later build opens it and finds all of it, or
//! refuses it with both numbers. Certificates are made anew each time, for the same ids. The node
//! listens on a loopback address of its own, since its port is part of the data.

use crate::cluster::{command_in, temporary};
use crate::command::{Ran, Running};
use crate::wait::until;
use galvani_node::cluster_file::ClusterFile;
use galvani_transport::Role;
use galvani_transport::pki::ClusterCa;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What was written, in order, by the command line.
pub const WRITES: &[&[&str]] = &[
    &["put", "plain", "value"],
    &["put", "plain", "newer"],
    &["put", "cart", "milk", "--blind"],
    &["put", "cart", "tea", "--blind"],
    &["put", "gone", "x"],
    &["del", "gone"],
    &["put", "long", "kept", "--ttl", "87600h"],
    &["bucket", "create", "logs", "-n", "1", "--policy", "lww"],
    &["put", "line", "one", "--bucket", "logs"],
    &["put", "line", "two", "--bucket", "logs"],
    &["put", "order/7", "paid", "--emit", "orders", "--payload", r#"{"id":7}"#],
];

/// Where the node of the directory listens: part of its layout.
const ADDRESS: &str = "127.77.5.5:7070";

/// A node's directory, unpacked or made, and whoever may ask the node.
#[derive(Debug)]
pub struct Golden {
    root: TempDir,
}

impl Golden {
    /// Unpacks the directory of a data format, with certificates made for its ids.
    pub fn unpack(format: u32) -> Golden {
        let golden = Golden { root: temporary() };
        let home = golden.home();
        fs::create_dir_all(&home).expect("a fresh directory");
        tar(&["-xzf", &path_of(format).display().to_string()], &home);
        let cluster = ClusterFile::load(&home.join("cluster.json")).expect("it was packed");
        let member = &cluster.layout.members()[0];
        let ca = ClusterCa::create(&cluster.layout.cluster().to_string()).expect("made");
        let node = ca.issue_node(&member.id().to_string(), &[]).expect("issued");
        let admin = ca.issue_client("admin", Role::Admin).expect("issued");
        for (dir, identity) in [("node/identity", node), ("client", admin)] {
            let dir = golden.root.path().join(dir);
            fs::create_dir_all(&dir).expect("made");
            identity.save(&dir).expect("saved");
        }
        fs::write(home.join("galvani.toml"), "[node]\nname = \"n1\"\n").expect("written");
        golden
    }

    /// Makes the directory of this build's format, and packs it.
    pub fn make(format: u32) -> PathBuf {
        let golden = Golden { root: temporary() };
        let root = golden.root.path().display().to_string();
        let node = format!("n1={ADDRESS}");
        let create = ["cluster", "create", "--name", "golden", "--dir", &root, "--node", &node];
        let few = ["-n", "1", "--partitions", "8", "--no-context"];
        Ran::of(command_in(golden.root.path()).args(create).args(few), b"").expect(0);
        fs::rename(golden.root.path().join("n1"), golden.home()).expect("the node's directory");
        let server = golden.start();
        for words in WRITES {
            golden.run(words).expect(0);
        }
        Golden::stop(server);
        // The lock's and the log's contents say nothing; the journal is mostly a hole.
        let path = path_of(format);
        let archive = path.display().to_string();
        tar(&["--sparse", "-czf", &archive, "cluster.json", "data"], &golden.home());
        path
    }

    /// The node's directory: `galvani.toml`, `cluster.json`, `identity`, `data`.
    pub fn home(&self) -> PathBuf {
        self.root.path().join("node")
    }

    /// Starts the node and waits until it answers.
    pub fn start(&self) -> Running {
        let mut server = self.begin();
        until("the node to answer", || {
            assert!(!server.has_ended(), "it ended: {}", self.begin().finish());
            match self.run(&["ls"]) {
                ran if ran.code == Some(0) => Ok(()),
                ran => Err(ran.stderr),
            }
        });
        server
    }

    /// Starts the node; it may refuse.
    pub fn begin(&self) -> Running {
        let config = self.home().join("galvani.toml");
        let mut command = command_in(self.root.path());
        Running::start(command.args(["server", "--config"]).arg(config), b"")
    }

    /// Stops a node cleanly.
    pub fn stop(server: Running) {
        let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::TERM).expect("our own child, not reaped yet");
        server.finish().expect(0);
    }

    /// Runs a command that asks the node.
    pub fn run(&self, words: &[&str]) -> Ran {
        let identity = self.root.path().join("client");
        let mut command = command_in(self.root.path());
        command.args(words).args(["--server", ADDRESS, "--identity"]).arg(identity);
        Ran::of(&mut command, b"")
    }
}

/// Where the directory of a format is kept.
pub fn path_of(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/data-{format}.tar.gz"))
}

fn tar(words: &[&str], dir: &Path) {
    let ran = Command::new("tar").arg("-C").arg(dir).args(words).output().expect("tar is there");
    assert!(ran.status.success(), "tar {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
}
