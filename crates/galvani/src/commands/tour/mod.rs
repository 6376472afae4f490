//! `tour`: a partition, siblings and their merge, on a cluster that is made for it and removed.
//!
//! Every command is one that people can type; it runs as a process of its own, and what it writes is
//! shown as it is. The cluster lives in a temporary directory and is gone at the end, also after
//! Ctrl-C or a step that went wrong. What is shown is in `script.rs`.

mod script;

use crate::args::line::Line;
use crate::args::tour::Tour;
use crate::commands::Done;
use crate::commands::patience::Signals;
use crate::connect::App;
use crate::dev;
use crate::exit::Exit;
use crate::report::text::shell;
use crate::report::{Report, json};
use script::{STEPS, Step, Then};
use serde_json::{Value, json as value};
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Shows it.
pub(crate) async fn run(app: &App, args: Tour) -> Done {
    let stops = !args.yes && !app.out.is_json() && io::stdin().is_terminal();
    let mut signals = Signals::taken()?;
    let place = Place::make()?;
    if !app.out.is_json() {
        app.out.line("A cluster for this tour only. To type along, in another terminal:\n")?;
        app.out.line(&format!("  export GALVANI_STATE={}\n", shell_path(&place.dir)))?;
    }
    let mut shown = Vec::new();
    for (index, step) in STEPS.iter().enumerate() {
        if !app.out.is_json() {
            app.out.line(&format!("{}/{}  {}", index + 1, STEPS.len(), step.says))?;
            app.out.line(&format!("\n  $ {}", typed(step.words)))?;
        }
        if stops && !enter(app, &mut signals).await {
            return Ok(Exit::Interrupted);
        }
        let Some(ran) = place.ran(step.words, &mut signals).await? else {
            return Ok(Exit::Interrupted);
        };
        if !app.out.is_json() {
            app.out.line(&indented(&ran.output))?;
        }
        if ran.code != Some(step.exit) {
            return Err(astray(app, step, &ran));
        }
        shown.push(document(step, &ran));
        if step.then == Then::AloneNoticed && !place.n1_is_alone(&mut signals).await? {
            return Ok(Exit::Interrupted);
        }
    }
    drop(place);
    end(app, shown)
}

fn end(app: &App, shown: Vec<Value>) -> Done {
    if app.out.is_json() {
        let mut map = json::object("galvani.tour/1");
        map.insert("steps".to_owned(), shown.into());
        app.out.json(map)?;
    } else {
        app.out.line("The cluster of this tour is gone. One that stays: galvani dev -d")?;
    }
    Ok(Exit::Done)
}

fn astray(app: &App, step: &Step, ran: &Ran) -> Report {
    let code = ran.code.map_or_else(|| "by a signal".to_owned(), |code| format!("with {code}"));
    let what = format!("tour: {} ended {code}, not with {}", typed(step.words), step.exit);
    let report = Report::unexpected(what).why("the cluster of this tour was removed");
    report.next("again", app.again(Line::new("tour").flag("--yes", true)).to_string())
}

fn document(step: &Step, ran: &Ran) -> Value {
    value!({
        "says": step.says,
        "command": typed(step.words),
        "exit": ran.code,
        "output": ran.output,
    })
}

/// What one command wrote, data and talk in their order, and how it ended.
struct Ran {
    code: Option<i32>,
    output: String,
}

/// The directory of the tour. Dropping it removes the cluster, its processes and its files.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn make() -> Result<Place, Report> {
        let dir = std::env::temp_dir().join(format!("galvani-tour-{}", std::process::id()));
        match fs::create_dir(&dir) {
            Ok(()) => Ok(Place { dir }),
            Err(error) => {
                let what = format!("tour: {} cannot be made: {error}", dir.display());
                let report = Report::new(Exit::Refused, what).why("nothing was started");
                Err(report.next("try", "TMPDIR=DIR galvani tour"))
            }
        }
    }

    fn command(&self, words: &[&str]) -> Result<Command, Report> {
        let exe = std::env::current_exe()
            .map_err(|error| Report::unexpected(format!("this program's own file: {error}")))?;
        let mut command = Command::new(exe);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GALVANI_") {
                command.env_remove(name);
            }
        }
        command.args(words).env("GALVANI_STATE", &self.dir).stdin(Stdio::null());
        // A group of its own: Ctrl-C in a terminal is for the tour, which ends its commands itself
        // and must get through its clean-up.
        command.process_group(0);
        Ok(command)
    }

    /// Runs a command to its end; `None`: a signal came first, and it was killed.
    async fn ran(&self, words: &[&str], signals: &mut Signals) -> Result<Option<Ran>, Report> {
        let mut command = self.command(words)?;
        let started = piped(&mut command);
        // The command holds the end that is written to: what reads would never come to an end.
        drop(command);
        let (mut child, output) = started
            .map_err(|error| Report::unexpected(format!("tour: {}: {error}", typed(words))))?;
        let code = loop {
            if let Ok(Some(status)) = child.try_wait() {
                break status.code();
            }
            tokio::select! {
                () = signals.any() => {
                    end_child(&mut child);
                    return Ok(None);
                }
                () = tokio::time::sleep(POLL) => {}
            }
        };
        let output = output.join().unwrap_or_default();
        Ok(Some(Ran { code, output: String::from_utf8_lossy(&output).into_owned() }))
    }

    /// Waits until n1 says that it reaches nobody; false: a signal came first.
    async fn n1_is_alone(&self, signals: &mut Signals) -> Result<bool, Report> {
        let began = Instant::now();
        loop {
            let Some(ran) = self.ran(&["status", "-o", "json"], signals).await? else {
                return Ok(false);
            };
            let status: Value = serde_json::from_str(&ran.output).unwrap_or_default();
            if status["nodes"][0]["peers_down"].as_array().is_some_and(|down| down.len() == 2) {
                return Ok(true);
            }
            if began.elapsed() > NOTICE {
                let what = format!("tour: n1 has not noticed in {NOTICE:?} that it is alone");
                return Err(Report::unexpected(what)
                    .why("the cluster of this tour was removed")
                    .next("again", "galvani tour --yes"));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing may be left, whatever went wrong: the first failure is what is told of.
        let destroy = self.command(&["dev", "destroy", "--yes"]);
        let _ = destroy.map(|mut command| command.output());
        // A command that was killed may have started a node and not written down which.
        dev::kill_strays(&self.dir);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn end_child(child: &mut Child) {
    // Both fail only for a process that is gone already.
    let _ = child.kill();
    let _ = child.wait();
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

/// Waits for Enter; false: a signal or the end of input came first.
async fn enter(app: &App, signals: &mut Signals) -> bool {
    app.out.say("    (Enter runs it, Ctrl-C ends the tour)");
    let line = tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new()));
    tokio::select! {
        read = line => matches!(read, Ok(Ok(1..))),
        () = signals.any() => false,
    }
}

/// A command as it is typed.
fn typed(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| shell(word.as_bytes())).collect();
    format!("galvani {}", words.join(" "))
}

fn shell_path(path: &Path) -> String {
    shell(path.as_os_str().as_encoded_bytes()).into_owned()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

const POLL: Duration = Duration::from_millis(20);
/// A link without an answer is down after ten seconds.
const NOTICE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::{STEPS, typed};
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn every_step_is_a_command_that_can_be_typed() {
        for step in STEPS {
            let words = std::iter::once(&"galvani").chain(step.words);
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{step:?}: {error}"));
        }
        assert_eq!(typed(&["dev", "cut", "n1|n2,n3"]), "galvani dev cut 'n1|n2,n3'");
    }
}
