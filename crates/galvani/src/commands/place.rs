//! A place for a cluster that is made for one command and removed with it, and commands run there.
//!
//! The place is a temporary directory that is the state of the commands. Dropping it removes the
//! cluster, its processes and its files, also after Ctrl-C or when something went wrong. Used by
//! `tour/mod.rs` and `bench.rs`.

use crate::commands::patience::Signals;
use crate::dev;
use crate::exit::Exit;
use crate::report::Report;
use crate::report::text::shell;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// What one command wrote, data and talk in their order, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
}

/// The directory. Dropping it removes the cluster, its processes and its files.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
}

impl Place {
    /// For the command of this name.
    pub(crate) fn make(of: &str) -> Result<Place, Report> {
        let dir = std::env::temp_dir().join(format!("galvani-{of}-{}", std::process::id()));
        match fs::create_dir(&dir) {
            Ok(()) => Ok(Place { dir }),
            Err(error) => {
                let what = format!("{of}: {} cannot be made: {error}", dir.display());
                let report = Report::new(Exit::Refused, what).why("nothing was started");
                Err(report.next("try", format!("TMPDIR=DIR galvani {of}")))
            }
        }
    }

    /// Where it is: the state of its commands.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs a command to its end; `None`: a signal came first, and it was killed.
    pub(crate) async fn ran(
        &self,
        words: &[&str],
        signals: &mut Signals,
    ) -> Result<Option<Ran>, Report> {
        let mut started = Started::of(&self.dir, words)?;
        tokio::select! {
            code = started.code() => Ok(Some(started.ran(code))),
            () = signals.any() => Ok(None),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing may be left, whatever went wrong: the first failure is what is told of.
        let destroy = command(&self.dir, &["dev", "destroy", "--yes"]);
        let _ = destroy.map(|mut command| command.output());
        // A command that was killed may have started a node and not written down which.
        dev::kill_strays(&self.dir);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What becomes of a command whose future is dropped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is killed.
    Kills,
    /// It is waited for, and the thread with it: for short commands that must not be done by half.
    Waits,
}

/// Runs a command of this program, with `state` as its state, to its end; `dropped`: what becomes
/// of it if nobody waits for that.
pub(crate) async fn ran_in(state: &Path, words: &[&str], dropped: Dropped) -> Result<Ran, Report> {
    let mut started = Started::of(state, words)?;
    started.dropped = dropped;
    let code = started.code().await;
    Ok(started.ran(code))
}

/// A command that runs.
struct Started {
    child: Child,
    output: Option<JoinHandle<Vec<u8>>>,
    dropped: Dropped,
}

impl Started {
    fn of(state: &Path, words: &[&str]) -> Result<Started, Report> {
        let mut command = command(state, words)?;
        let started = piped(&mut command);
        // The command holds the end that is written to: what reads would never come to an end.
        drop(command);
        let (child, output) =
            started.map_err(|error| Report::unexpected(format!("{}: {error}", typed(words))))?;
        Ok(Started { child, output: Some(output), dropped: Dropped::Kills })
    }

    async fn code(&mut self) -> Option<i32> {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn ran(mut self, code: Option<i32>) -> Ran {
        let output = self.output.take().and_then(|output| output.join().ok()).unwrap_or_default();
        Ran { code, output: String::from_utf8_lossy(&output).into_owned() }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        if self.dropped == Dropped::Kills {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn command(state: &Path, words: &[&str]) -> Result<Command, Report> {
    let exe = std::env::current_exe()
        .map_err(|error| Report::unexpected(format!("this program's own file: {error}")))?;
    let mut command = Command::new(exe);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GALVANI_") {
            command.env_remove(name);
        }
    }
    command.args(words).env("GALVANI_STATE", state).stdin(Stdio::null());
    // A group of its own: Ctrl-C in a terminal is for the command that runs this one, which ends it
    // itself and must get through its clean-up.
    command.process_group(0);
    Ok(command)
}

/// Starts it; all it writes, data and talk, goes through one pipe.
fn piped(command: &mut Command) -> io::Result<(Child, JoinHandle<Vec<u8>>)> {
    let (mut source, sink) = io::pipe()?;
    let child = command.stdout(sink.try_clone()?).stderr(sink).spawn()?;
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        // What was read before an error is still worth showing.
        let _ = source.read_to_end(&mut all);
        all
    });
    Ok((child, reader))
}

/// A command as it is typed.
pub(crate) fn typed(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| shell(word.as_bytes())).collect();
    format!("galvani {}", words.join(" "))
}

const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::{Dropped, Started, piped, typed};
    use std::process::Command;

    #[test]
    fn a_command_that_must_not_be_done_by_half_is_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("done");
        // A command that takes its time, and one that ends only when it is killed.
        let short = (Dropped::Waits, "sleep 0.3; : > \"$0\"");
        let endless = (Dropped::Kills, "exec sleep 3600");
        for (dropped, script) in [short, endless] {
            let mut command = Command::new("sh");
            command.args(["-c", script]).arg(&file);
            let (child, output) = piped(&mut command).expect("a shell");
            drop(command);
            drop(Started { child, output: Some(output), dropped });
            assert!(file.exists(), "{dropped:?}");
        }
    }

    #[test]
    fn commands_are_shown_as_they_are_typed() {
        assert_eq!(typed(&["dev", "cut", "n1|n2,n3"]), "galvani dev cut 'n1|n2,n3'");
    }
}
