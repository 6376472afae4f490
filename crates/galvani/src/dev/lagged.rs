//! The lagged replica beside a local cluster: one more process that `dev` starts, stops and remembers.
//!
//! It is `galvani lagged`, with a directory of its own in the cluster's, and starts when the nodes answer.
//! Its lag is given to it once, when its directory is made; from then on it is what `lagged set-lag`
//! said. Next to read: `commands/lagged/run.rs`.

use crate::dev::files::{DevLagged, DevNode, LAGGED, Local};
use crate::dev::process::{self, ProcessState, log_tail};
use crate::exit::Exit;
use crate::report::Report;
use galvani_lagged::control::SOCKET;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

impl Local {
    /// The replica as a process beside the nodes, if there is one.
    pub(crate) fn lagged(&self) -> Option<DevNode> {
        self.memory.lagged.as_ref().map(DevLagged::process)
    }

    /// All processes: the nodes, then the replica.
    pub(crate) fn processes(&self) -> Vec<DevNode> {
        self.memory.nodes.iter().cloned().chain(self.lagged()).collect()
    }

    /// The process called `name`, or the names there are.
    pub(crate) fn process(&self, name: &str) -> Result<DevNode, Report> {
        match self.lagged().filter(|_| name == LAGGED) {
            Some(lagged) => Ok(lagged),
            None => self.index_of(name).map(|index| self.memory.nodes[index].clone()),
        }
    }
}

/// Starts the replica if there is one that does not run, and waits until it answers.
pub(crate) fn start(local: &mut Local) -> Result<Option<(String, Child)>, Report> {
    let Some(node) = local.lagged() else { return Ok(None) };
    if local.state(&node) != ProcessState::Down {
        return Ok(None);
    }
    let mut child = process::spawn(local, &node)?;
    if let Some(lagged) = &mut local.memory.lagged {
        lagged.pid = Some(child.id());
    }
    // At once: if this command ends here, the process can still be found.
    local.save()?;
    match wait(local, &node, &mut child) {
        Ok(()) => Ok(Some((node.name, child))),
        Err(report) => {
            // The first failure is what is told of; these would only hide it.
            let _ = process::stop(local, &local.lagged().into_iter().collect::<Vec<_>>());
            let _ = child.try_wait();
            Err(report)
        }
    }
}

fn wait(local: &Local, node: &DevNode, child: &mut Child) -> Result<(), Report> {
    let socket = local.lagged_dir().join(SOCKET);
    let until = Instant::now() + DEADLINE;
    let logs = || local.line("dev logs").place(LAGGED).to_string();
    while UnixStream::connect(&socket).is_err() {
        if let Some(status) = child.try_wait().ok().flatten() {
            let what = format!("{LAGGED} ended at its start: {status}");
            let lines = log_tail(&local.log(node), LOG_LINES);
            let report = lines.iter().fold(Report::unexpected(what), Report::why);
            return Err(report.next("see", logs()));
        }
        if Instant::now() >= until {
            let what = format!("{LAGGED} does not answer after 30 s");
            return Err(Report::new(Exit::NoServer, what).next("see", logs()));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(25);
/// Lines of its log that are shown when it ended at its start.
const LOG_LINES: usize = 10;
