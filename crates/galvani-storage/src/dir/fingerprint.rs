//! What tells a directory from its copy.
//!
//! The machine's id, and device, inode and birth time of the identity file. Copying, unpacking
//! and moving between file systems make another inode or birth time; moving a disk makes another
//! machine. A file system snapshot put back in place keeps all of them: against that only the
//! peers' knowledge helps (algorithm 2.2, rules 3 and 4).

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// Facts that hold for one file on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fingerprint {
    /// The machine's id; empty where it cannot be read.
    machine: String,
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970; `None` where the file system keeps no birth time.
    born_ns: Option<u64>,
}

impl Fingerprint {
    /// The fingerprint of the file at `path`, which renaming it does not change.
    pub(super) fn of(path: &Path) -> io::Result<Fingerprint> {
        use std::os::unix::fs::MetadataExt;
        let facts = fs::metadata(path)?;
        let born = facts.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Ok(Fingerprint {
            machine: read_short("/etc/machine-id"),
            device: facts.dev(),
            inode: facts.ino(),
            born_ns: born.and_then(|since| u64::try_from(since.as_nanos()).ok()),
        })
    }
}

/// The number of this boot of the machine; empty where it cannot be read.
pub(super) fn boot_id() -> String {
    read_short("/proc/sys/kernel/random/boot_id")
}

fn read_short(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().chars().take(64).collect(),
        Err(_) => String::new(),
    }
}
