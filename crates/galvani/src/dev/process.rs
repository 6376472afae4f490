//! Node processes, and that of a lagged replica: starting them, knowing them again, signalling them.
//!
//! A process id may have become another program's. So every signal opens the process first, then
//! looks at its command line, and only then signals what it opened.

use crate::context::io_report;
use crate::dev::files::{DevNode, LAGGED, Local};
use crate::report::Report;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a node's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// Runs.
    Up,
    /// Stopped by SIGSTOP.
    Paused,
    /// Does not run.
    Down,
}

impl ProcessState {
    pub(crate) fn word(self) -> &'static str {
        match self {
            ProcessState::Up => "up",
            ProcessState::Paused => "paused",
            ProcessState::Down => "down",
        }
    }
}

/// The state of process `pid` if it is this program, run with this command on this file or directory.
pub(crate) fn state(pid: Option<u32>, command: &str, path: &Path) -> ProcessState {
    let Some(pid) = pid.filter(|pid| is(*pid, command, path)) else { return ProcessState::Down };
    // The state is the first field behind the name, which ends with the last parenthesis.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let word = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().as_bytes().first().copied());
    match word.flatten() {
        Some(b'T') => ProcessState::Paused,
        Some(b'Z' | b'X') | None => ProcessState::Down,
        Some(_) => ProcessState::Up,
    }
}

/// Whether the process is `galvani COMMAND` with this file or directory.
fn is(pid: u32, command: &str, path: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = line.split(|byte| *byte == 0);
    words.any(|word| word == command.as_bytes())
        && words.any(|word| word == path.as_os_str().as_bytes())
}

/// The words that run a node, or the lagged replica.
fn words(local: &Local, node: &DevNode) -> Vec<OsString> {
    if node.name != LAGGED {
        let config = local.config(node).into();
        return vec!["server".into(), "--config".into(), config, "--own-session".into()];
    }
    let dir = local.lagged_dir();
    let mut words: Vec<OsString> = vec!["lagged".into(), "--dir".into(), dir.clone().into()];
    if let (Some(lagged), false) = (&local.memory.lagged, dir.exists()) {
        words.extend(["--lag".into(), format!("{}ms", lagged.lag_ms).into()]);
    }
    words.extend(["--server".into(), local.seeds().join(",").into()]);
    words.extend(["--identity".into(), local.dir.join("client").into(), "--own-session".into()]);
    words
}

/// Starts a node's process in a session of its own, its output appended to its log.
pub(crate) fn spawn(local: &Local, node: &DevNode) -> Result<Child, Report> {
    let path = local.log(node);
    let log = fs::OpenOptions::new().create(true).append(true).open(&path);
    let log = log.map_err(|error| io_report(&path, &error))?;
    let again = log.try_clone().map_err(|error| io_report(&path, &error))?;
    let exe = std::env::current_exe()
        .map_err(|error| Report::unexpected(format!("this program's own file: {error}")))?;
    Command::new(&exe)
        .args(words(local, node))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(again)
        .spawn()
        .map_err(|error| io_report(&exe, &error))
}

/// Signals a node. False: it does not run.
pub(crate) fn signal(local: &Local, node: &DevNode, signal: Signal) -> Result<bool, Report> {
    let raw = node.pid.and_then(|pid| i32::try_from(pid).ok());
    let Some(pid) = raw.and_then(Pid::from_raw) else { return Ok(false) };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
    if local.state(node) == ProcessState::Down {
        return Ok(false);
    }
    match pidfd_send_signal(&handle, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(Report::unexpected(format!("signal to {}: {error}", node.name))),
    }
}

/// Waits until none of the nodes runs, at most `most`; the names of those that still do.
pub(crate) fn await_down(local: &Local, nodes: &[DevNode], most: Duration) -> Vec<String> {
    let deadline = Instant::now() + most;
    loop {
        let up = nodes.iter().filter(|node| local.state(node) != ProcessState::Down);
        let up: Vec<String> = up.map(|node| node.name.clone()).collect();
        if up.is_empty() || Instant::now() >= deadline {
            return up;
        }
        std::thread::sleep(POLL);
    }
}

/// Asks nodes to stop, waits, and kills those that do not; their names.
pub(crate) fn stop(local: &Local, nodes: &[DevNode]) -> Result<Vec<String>, Report> {
    for node in nodes {
        signal(local, node, Signal::TERM)?;
        // A paused process takes the signal when it goes on.
        signal(local, node, Signal::CONT)?;
    }
    let late = await_down(local, nodes, STOP_TIME);
    let slow: Vec<DevNode> =
        nodes.iter().filter(|node| late.contains(&node.name)).cloned().collect();
    kill(local, &slow)?;
    Ok(late)
}

/// Kills nodes and waits for their end.
pub(crate) fn kill(local: &Local, nodes: &[DevNode]) -> Result<(), Report> {
    for node in nodes {
        signal(local, node, Signal::KILL)?;
    }
    match await_down(local, nodes, KILL_TIME).as_slice() {
        [] => Ok(()),
        left => Err(Report::unexpected(format!("{} did not end after SIGKILL", left.join(" ")))),
    }
}

/// Kills every node whose configuration file is below `dir`, and every lagged replica whose directory
/// is, also one that nothing remembers.
pub(crate) fn kill_strays(dir: &Path) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids {
        let Some(handle) = Pid::from_raw(pid)
            .filter(|_| is_below(pid, dir))
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            continue;
        };
        if is_below(pid, dir) {
            // Fails only for a process that is gone already.
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
}

/// Whether the process is `galvani server` with a configuration file below `dir`, or `galvani lagged`
/// with a directory there.
fn is_below(pid: i32, dir: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let below = |word: &[u8]| Path::new(std::ffi::OsStr::from_bytes(word)).starts_with(dir);
    [("server", "--config"), (LAGGED, "--dir")].iter().any(|(command, option)| {
        let mut words = line.split(|byte| *byte == 0);
        words.any(|word| word == command.as_bytes())
            && words.any(|word| word == option.as_bytes())
            && words.next().is_some_and(below)
    })
}

/// The last lines of a node's log.
pub(crate) fn log_tail(path: &Path, lines: usize) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let start = text.len().saturating_sub(TAIL_BYTES);
    let text = String::from_utf8_lossy(&text[start..]).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

const POLL: Duration = Duration::from_millis(20);
/// Time to drain and flush before a node that was asked to stop is killed.
const STOP_TIME: Duration = Duration::from_secs(15);
const KILL_TIME: Duration = Duration::from_secs(5);
/// Bytes of a log that are looked at for its last lines.
const TAIL_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::{ProcessState, state};
    use std::path::Path;

    #[test]
    fn a_process_that_is_not_the_node_is_down() {
        let config = Path::new("/nowhere/galvani.toml");
        for pid in [None, Some(std::process::id()), Some(u32::MAX)] {
            assert_eq!(state(pid, "server", config), ProcessState::Down);
        }
    }
}
