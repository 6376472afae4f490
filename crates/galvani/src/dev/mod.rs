//! `dev`: a cluster of real processes on this machine, with stable ports and kept data.
//!
//! Each node is this same binary run as `galvani server`; there is no supervisor and no shortcut: a
//! node is killed with SIGKILL and comes back with its data. A file in the cluster's directory
//! remembers ports and process ids; an id is never trusted before /proc says it is that node. Read
//! `up.rs` (making and starting), then `control.rs` (the other verbs) and `faults.rs`.

mod control;
mod faults;
mod files;
mod ports;
mod process;
mod ready;
mod show;
mod up;

use crate::args::dev::Dev;
use crate::commands::Done;
use crate::connect::App;
use crate::report::mistakes::LocalCluster;
use files::Local;
use std::path::Path;

pub(crate) use process::kill_strays;
pub(crate) use up::again;

/// Does what is asked with a local cluster.
pub(crate) fn run(app: &App, args: Dev) -> Done {
    match args.command {
        None => up::run(app, args.up),
        Some(command) => control::run(app, command),
    }
}

/// Whether any process of the cluster in `dir` runs.
pub(crate) fn local_cluster(dir: &Path) -> LocalCluster {
    match Local::load(dir) {
        Ok(Some(local)) if local.any_runs() => LocalCluster::Running,
        Ok(Some(_)) => LocalCluster::Stopped,
        Ok(None) | Err(_) => LocalCluster::Unknown,
    }
}
