//! The directory of a lagged replica: whose it is, and that one process has it.
//!
//! `lagged.json` says cluster, partitions and format, in the form of a node's identity file; `lock` is
//! held while the replica is open; `journal/` and `base/` belong to the engines. A directory without
//! `lagged.json` must be empty: it may be anyone's. The bytes are in `docs/formats.md`.

use crate::config::LaggedConfig;
use crate::error::LaggedError;
use galvani_model::ids::ClusterId;
use galvani_storage::dir::lock::{DirLock, LOCK_FILE, LockError};
use galvani_storage::engine::{EngineConfig, EngineError, FjallEngine, PowerHistory};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The directory's format. One of format 1 becomes one of this; any other is refused.
pub const FORMAT_VERSION: u32 = 2;

/// The format before holes: nothing in it need be changed to be read.
const FORMAT_BEFORE: u32 = 1;

/// Why the directory of a lagged replica cannot be used. Nothing of what it held was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It holds something else.
    #[error("{} holds other files and no lagged replica: give an empty directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Another process uses it: stop that one first.
    #[error("{} is in use by process {}", path.display(), pid.map_or("unknown".into(), |pid| pid.to_string()))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that wrote its number into the lock file, if it did.
        pid: Option<u32>,
    },
    /// Another release wrote it.
    #[error(
        "{} has format {found}, this release reads {FORMAT_VERSION}: run the release that wrote \
         it, or seed a new directory", path.display()
    )]
    Format {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It follows another cluster.
    #[error("{} follows cluster {found}, this one is {expected}: give another directory", path.display())]
    Cluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it follows.
        found: ClusterId,
        /// The cluster that was asked for.
        expected: ClusterId,
    },
    /// It was made for another number of partitions, which a cluster never changes.
    #[error("{} is for {found} partitions, the cluster has {expected}: give another directory", path.display())]
    Partitions {
        /// The directory.
        path: PathBuf,
        /// Its number.
        found: u16,
        /// The cluster's.
        expected: u16,
    },
    /// `lagged.json` is cut short or altered. What is beside it may be whole; whose it is is not known.
    #[error("{}/lagged.json is damaged ({what}): seed a new directory", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, for people.
        what: String,
    },
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// One of the two engines does not open.
    #[error("{}: {error}", path.display())]
    Engine {
        /// Its directory.
        path: PathBuf,
        /// What it said.
        error: EngineError,
    },
    /// What is in the engines cannot be used.
    #[error(transparent)]
    Replica(#[from] LaggedError),
}

/// A directory that this process has, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenDir {
    _lock: DirLock,
}

impl OpenDir {
    /// Takes the directory `dir`, made if there is none, and opens both engines: journal, then base.
    pub(crate) fn open(
        dir: &Path,
        config: &LaggedConfig,
    ) -> Result<(OpenDir, FjallEngine, FjallEngine), OpenError> {
        let io = |error| OpenError::Io { path: dir.to_path_buf(), error };
        fs::create_dir_all(dir).map_err(io)?;
        let is_marked = dir.join(MARKER).try_exists().map_err(io)?;
        if !is_marked && holds_anything_else(dir).map_err(io)? {
            return Err(OpenError::Foreign { path: dir.to_path_buf() });
        }
        let held = OpenDir { _lock: take_lock(dir)? };
        match is_marked {
            true if check_marker(dir, config)? == FORMAT_VERSION => {}
            // From here on an older release refuses it: it would show moments that are not known.
            true => write_marker(dir, config).map_err(io)?,
            false => write_marker(dir, config).map_err(io)?,
        }
        let engine = |name: &str| {
            let path = dir.join(name);
            // Every page is fsynced before it counts, so nothing of it is in the torn end of a journal
            // that loss of power may have left.
            FjallEngine::open(&path, EngineConfig::default(), PowerHistory::MayHaveLostPower)
                .map(|(engine, _)| engine)
                .map_err(|error| OpenError::Engine { path, error })
        };
        Ok((held, engine(JOURNAL_DIR)?, engine(BASE_DIR)?))
    }
}

#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
    cluster: ClusterId,
    partitions: u16,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Checks whose directory it is; returns its format.
fn check_marker(dir: &Path, config: &LaggedConfig) -> Result<u32, OpenError> {
    let path = || dir.to_path_buf();
    let damaged = |what: &str| OpenError::Damaged { path: path(), what: what.to_owned() };
    let mut text = String::new();
    File::open(dir.join(MARKER))
        .and_then(|file| file.take(MARKER_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => damaged("it is not text"),
            _ => OpenError::Io { path: dir.join(MARKER), error },
        })?;
    let (line, rest) = text.split_once('\n').ok_or_else(|| damaged("it is cut short"))?;
    if rest.trim_end() != checksum(line) {
        return Err(damaged("its checksum is wrong"));
    }
    let format: FormatOnly =
        serde_json::from_str(line).map_err(|error| damaged(&error.to_string()))?;
    if !(FORMAT_BEFORE..=FORMAT_VERSION).contains(&format.format) {
        return Err(OpenError::Format { path: path(), found: format.format });
    }
    let marker: Marker = serde_json::from_str(line).map_err(|error| damaged(&error.to_string()))?;
    if marker.cluster != config.cluster {
        let (found, expected) = (marker.cluster, config.cluster);
        return Err(OpenError::Cluster { path: path(), found, expected });
    }
    if marker.partitions != config.partitions {
        let (found, expected) = (marker.partitions, config.partitions);
        return Err(OpenError::Partitions { path: path(), found, expected });
    }
    Ok(marker.format)
}

/// Writes the marker whole and durably: it is there or not.
fn write_marker(dir: &Path, config: &LaggedConfig) -> io::Result<()> {
    let (cluster, partitions) = (config.cluster, config.partitions);
    let marker = Marker { format: FORMAT_VERSION, cluster, partitions };
    let line = serde_json::to_string(&marker).expect("ids and numbers are JSON");
    let temporary = dir.join(MARKER_TEMPORARY);
    let mut file = File::create(&temporary)?;
    file.write_all(format!("{line}\n{}\n", checksum(&line)).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(MARKER))?;
    File::open(dir)?.sync_all()
}

/// Whether there is more than a start that was cut short leaves.
fn holds_anything_else(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name != LOCK_FILE && name != MARKER_TEMPORARY {
            return Ok(true);
        }
    }
    Ok(false)
}

fn take_lock(dir: &Path) -> Result<DirLock, OpenError> {
    let path = || dir.to_path_buf();
    DirLock::take(dir).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked { path: path(), pid },
        LockError::Io(error) => OpenError::Io { path: path().join(LOCK_FILE), error },
    })
}

/// XXH3-64 of the line, in hexadecimal.
fn checksum(line: &str) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(line.as_bytes()))
}

const MARKER: &str = "lagged.json";
const MARKER_TEMPORARY: &str = "lagged.json.new";
const JOURNAL_DIR: &str = "journal";
const BASE_DIR: &str = "base";

/// Many times what a marker takes.
const MARKER_BYTES_MAX: u64 = 16 * 1024;
