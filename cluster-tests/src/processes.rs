//! Node processes of one cluster, found and signalled by process id.
//!
//! A node is known by its command line, which names a configuration file in the cluster's own
//! temporary directory: no other process has it. A signal opens the process first, looks again, and
//! only then signals what it opened, so an id that was used anew is never hit.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Ids of all processes whose command line names something in `dir`.
pub fn in_dir(dir: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.flatten().filter_map(pid).filter(|pid| names(*pid, dir)).collect()
}

/// Ids of the processes that run the node whose files are in `home`.
pub fn of_node(home: &Path) -> Vec<u32> {
    let config = home.join("galvani.toml");
    in_dir(&config)
}

/// Signals every process whose command line names something in `dir`; how many there were.
pub fn signal(dir: &Path, signal: Signal) -> usize {
    in_dir(dir).into_iter().filter(|pid| signal_one(*pid, dir, signal)).count()
}

fn signal_one(pid: u32, dir: &Path, signal: Signal) -> bool {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else { return false };
    names(pid, dir) && pidfd_send_signal(&process, signal).is_ok()
}

/// Whether a word of the process's command line is `dir` or below it. A process that has ended and
/// is not yet reaped has no command line.
fn names(pid: u32, dir: &Path) -> bool {
    if pid == std::process::id() {
        return false;
    }
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    line.split(|byte| *byte == 0).any(|word| {
        let word = Path::new(std::ffi::OsStr::from_bytes(word));
        word.starts_with(dir)
    })
}
