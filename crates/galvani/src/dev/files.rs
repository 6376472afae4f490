//! What a local cluster leaves in its directory, and the file that remembers it.
//!
//! `dev.json` has nodes, ports and process ids; all else is made by `galvani-node`'s provisioning.
//! Destroying removes only what is known to be the cluster's.

use crate::args::line::Line;
use crate::connect::App;
use crate::context::{Context, io_report, read_json, write_json};
use crate::dev::process::{self, ProcessState};
use crate::exit::Exit;
use crate::report::Report;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Schema of `dev.json`.
const SCHEMA: &str = "galvani.dev_cluster/1";

/// A local cluster: its directory and what is remembered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) dir: PathBuf,
    pub(crate) memory: Memory,
}

/// The contents of `dev.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    schema: String,
    pub(crate) name: String,
    /// Copies of each key in bucket `default`.
    pub(crate) n: u8,
    /// Whether the data goes when the cluster stops.
    pub(crate) ephemeral: bool,
    pub(crate) nodes: Vec<DevNode>,
    /// The lagged replica beside them, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lagged: Option<DevLagged>,
}

/// What the lagged replica is called beside the nodes, which are `n1` and so on, and its directory.
pub(crate) const LAGGED: &str = "lagged";

/// The lagged replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevLagged {
    /// The lag its directory is made with, in milliseconds.
    pub(crate) lag_ms: u64,
    /// As of a node.
    pub(crate) pid: Option<u32>,
}

impl DevLagged {
    /// It as a process beside the nodes; it listens nowhere.
    pub(crate) fn process(&self) -> DevNode {
        let (name, zone) = (LAGGED.to_owned(), String::new());
        DevNode { name, zone, lanes: Vec::new(), pid: self.pid }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevNode {
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) lanes: Vec<SocketAddr>,
    /// Its last process; may be gone, may be another program's by now.
    pub(crate) pid: Option<u32>,
}

impl Local {
    pub(crate) fn new(
        dir: PathBuf,
        name: String,
        n: u8,
        ephemeral: bool,
        nodes: Vec<DevNode>,
    ) -> Local {
        let memory = Memory { schema: SCHEMA.to_owned(), name, n, ephemeral, nodes, lagged: None };
        Local { dir, memory }
    }

    /// The cluster in `dir`, or `None` if there is none.
    pub(crate) fn load(dir: &Path) -> Result<Option<Local>, Report> {
        let memory: Option<Memory> = read_json(&dir.join("dev.json"))?;
        match memory {
            Some(memory) if memory.schema != SCHEMA => Err(Report::unexpected(format!(
                "{}: schema {:?} is not {SCHEMA:?}",
                dir.join("dev.json").display(),
                memory.schema
            ))),
            Some(memory) => Ok(Some(Local { dir: dir.to_owned(), memory })),
            None => Ok(None),
        }
    }

    pub(crate) fn save(&self) -> Result<(), Report> {
        write_json(&self.dir.join("dev.json"), &self.memory)
    }

    /// A command on this cluster, whatever context is selected then.
    pub(crate) fn line(&self, command: &'static str) -> Line {
        Line::new(command).with_path("--dir", &self.dir)
    }

    /// Holds off every other command that starts or stops nodes, until dropped.
    pub(crate) fn lock(dir: &Path) -> Result<File, Report> {
        let path = dir.join("dev.lock");
        let opened = fs::create_dir_all(dir).and_then(|()| File::create(&path));
        let file = opened.map_err(|error| io_report(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                let what = "another galvani dev command is at work on this cluster";
                Err(Report::new(Exit::Refused, what)
                    .why(format!("it holds {}", path.display()))
                    .next("see", Line::new("dev status").with_path("--dir", dir).to_string()))
            }
            Err(fs::TryLockError::Error(error)) => Err(io_report(&path, &error)),
        }
    }

    /// Makes it the selected context.
    pub(crate) fn select(&self, app: &App) -> Result<(), Report> {
        let seeds = self.seeds();
        let context = Context::new(seeds, self.dir.join("client"), Some(self.dir.clone()));
        app.state.save(&self.memory.name, &context)?;
        app.state.select(&self.memory.name)
    }

    /// Forgets its context, now that it is gone; the one selected then, if this one was.
    pub(crate) fn forget(&self, app: &App) -> Result<Option<String>, Report> {
        let (name, selected) = (&self.memory.name, app.state.selected()?);
        let mine = app.state.context(name)?.and_then(|context| context.dev_dir);
        if mine.as_deref() == Some(self.dir.as_path()) {
            app.state.remove(name)?;
        }
        let now = app.state.selected()?;
        Ok(if now == selected { None } else { now })
    }

    /// The first lane of every node.
    pub(crate) fn seeds(&self) -> Vec<String> {
        let nodes = self.memory.nodes.iter();
        nodes.filter_map(|node| node.lanes.first()).map(SocketAddr::to_string).collect()
    }

    /// The configuration file of a node.
    pub(crate) fn config(&self, node: &DevNode) -> PathBuf {
        self.dir.join(&node.name).join("galvani.toml")
    }

    /// The data directory of a node.
    pub(crate) fn data(&self, node: &DevNode) -> PathBuf {
        self.dir.join(&node.name).join("data")
    }

    /// The directory of the lagged replica. Nothing else may be in it.
    pub(crate) fn lagged_dir(&self) -> PathBuf {
        self.dir.join(LAGGED)
    }

    /// The log of a node, or of the lagged replica.
    pub(crate) fn log(&self, node: &DevNode) -> PathBuf {
        match node.name.as_str() {
            LAGGED => self.dir.join(LAGGED_LOG),
            name => self.dir.join(name).join("node.log"),
        }
    }

    /// What a process does now.
    pub(crate) fn state(&self, node: &DevNode) -> ProcessState {
        match node.name.as_str() {
            LAGGED => process::state(node.pid, LAGGED, &self.lagged_dir()),
            _ => process::state(node.pid, "server", &self.config(node)),
        }
    }

    pub(crate) fn any_runs(&self) -> bool {
        self.processes().iter().any(|node| self.state(node) != ProcessState::Down)
    }

    /// The node called `name`, or the names there are.
    pub(crate) fn index_of(&self, name: &str) -> Result<usize, Report> {
        let nodes = &self.memory.nodes;
        nodes.iter().position(|node| node.name == name).ok_or_else(|| {
            let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            Report::new(Exit::Usage, format!("no node {name:?} in cluster {}", self.memory.name))
                .why(format!("its nodes are {}", names.join(" ")))
                .next("see", self.line("dev status").to_string())
        })
    }

    /// Removes the cluster's files; what else is in the directory stays.
    pub(crate) fn remove(&self) -> Result<(), Report> {
        let folders = self.memory.nodes.iter().map(|node| node.name.as_str());
        for name in folders.chain(["ca", "client"]) {
            gone(fs::remove_dir_all(self.dir.join(name)), &self.dir.join(name))?;
        }
        if self.memory.lagged.is_some() {
            gone(fs::remove_dir_all(self.lagged_dir()), &self.lagged_dir())?;
            gone(fs::remove_file(self.dir.join(LAGGED_LOG)), &self.dir.join(LAGGED_LOG))?;
        }
        for name in ["cluster.json", "dev.json", "dev.lock"] {
            gone(fs::remove_file(self.dir.join(name)), &self.dir.join(name))?;
        }
        // Fails if somebody keeps other files there: then it stays.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }
}

const LAGGED_LOG: &str = "lagged.log";

fn gone(result: io::Result<()>, path: &Path) -> Result<(), Report> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_report(path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{DevLagged, DevNode, Local};

    fn local(dir: &std::path::Path) -> Local {
        let lanes = vec!["127.0.0.1:7070".parse().expect("an address")];
        let node = DevNode { name: "n1".into(), zone: "a".into(), lanes, pid: Some(1) };
        Local::new(dir.to_owned(), "dev".into(), 1, false, vec![node])
    }

    #[test]
    fn a_cluster_is_remembered() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(Local::load(dir.path()).expect("none"), None);
        let local = local(dir.path());
        local.save().expect("saved");
        assert_eq!(Local::load(dir.path()).expect("there"), Some(local.clone()));
        assert!(!local.any_runs(), "process 1 is not a node of ours");
        assert_eq!(local.index_of("n9").expect_err("unknown").exit.code(), 2);
    }

    #[test]
    fn removing_a_cluster_leaves_what_is_not_its_own() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let local = local(dir.path());
        local.save().expect("saved");
        std::fs::create_dir_all(dir.path().join("n1/data")).expect("made");
        std::fs::write(dir.path().join("mine"), b"x").expect("written");
        local.remove().expect("removed");
        let left: Vec<_> = std::fs::read_dir(dir.path()).expect("there").collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn the_lagged_replica_is_a_process_beside_the_nodes_and_goes_with_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut local = local(dir.path());
        std::fs::create_dir_all(local.lagged_dir()).expect("made");
        local.remove().expect("removed");
        assert!(local.lagged_dir().is_dir(), "it was not the cluster's");
        assert!(local.process("lagged").is_err() && local.processes().len() == 1);
        local.memory.lagged = Some(DevLagged { lag_ms: 5, pid: Some(1) });
        local.save().expect("saved");
        assert_eq!(Local::load(dir.path()).expect("there"), Some(local.clone()));
        let lagged = local.process("lagged").expect("there");
        assert_eq!(local.processes().last(), Some(&lagged));
        assert!(!local.any_runs(), "process 1 is not it");
        assert!(!local.log(&lagged).starts_with(local.lagged_dir()));
        local.remove().expect("removed");
        assert!(!dir.path().exists());
    }

    #[test]
    fn two_commands_do_not_work_on_one_cluster() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let held = Local::lock(dir.path()).expect("free");
        assert_eq!(Local::lock(dir.path()).expect_err("held").exit.code(), 5);
        drop(held);
        Local::lock(dir.path()).expect("free again");
    }
}
