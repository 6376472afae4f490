//! `dev`: a cluster of real processes on this machine, with stable ports and kept data.
//!
//! Each node is this same binary run as `galvani server`; there is no supervisor and no shortcut: a
//! node is killed with SIGKILL and comes back with its data. A file in the cluster's directory
//! remembers ports and process ids; an id is never trusted before /proc says it is that node. Read
//! `up.rs` (making and starting), then `control.rs` (the other verbs), `grow.rs` and `shrink.rs` (nodes
//! that join and leave), `restart.rs`, `faults.rs` and `lagged.rs`.

mod control;
mod faults;
mod files;
mod grow;
mod lagged;
mod ports;
mod process;
mod ready;
mod restart;
mod show;
mod shrink;
mod up;

use crate::args::dev::{Dev, Which};
use crate::commands::Done;
use crate::connect::App;
use crate::report::Report;
use crate::report::mistakes::LocalCluster;
use files::{LAGGED, Local};
use std::path::{Path, PathBuf};

pub(crate) use process::kill_strays;
pub(crate) use up::again;

/// Does what is asked with a local cluster.
pub(crate) fn run(app: &App, args: Dev) -> Done {
    match args.command {
        None => up::run(app, args.up),
        Some(command) => control::run(app, command),
    }
}

/// The lagged replica beside the local cluster that is meant, if it has one: its directory, and what
/// starts it.
pub(crate) fn lagged_replica(app: &App) -> Result<Option<(PathBuf, String)>, Report> {
    let dir = control::directory(app, &Which::default())?;
    let local = Local::load(&dir)?.filter(|local| local.lagged().is_some());
    let start = |local: &Local| local.line("dev start").place(LAGGED).to_string();
    Ok(local.map(|local| (local.lagged_dir(), start(&local))))
}

/// Whether any process of the cluster in `dir` runs.
pub(crate) fn local_cluster(dir: &Path) -> LocalCluster {
    match Local::load(dir) {
        Ok(Some(local)) if local.any_runs() => LocalCluster::Running,
        Ok(Some(_)) => LocalCluster::Stopped,
        Ok(None) | Err(_) => LocalCluster::Unknown,
    }
}
