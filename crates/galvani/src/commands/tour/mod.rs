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
use crate::commands::place::{Place, Ran, typed};
use crate::connect::App;
use crate::exit::Exit;
use crate::report::text::shell;
use crate::report::{Report, json};
use script::{STEPS, Step, Then};
use serde_json::{Value, json as value};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

/// Shows it.
pub(crate) async fn run(app: &App, args: Tour) -> Done {
    let stops = !args.yes && !app.out.is_json() && io::stdin().is_terminal();
    let mut signals = Signals::taken()?;
    let place = Place::make("tour")?;
    if !app.out.is_json() {
        app.out.line("A cluster for this tour only. To type along, in another terminal:\n")?;
        app.out.line(&format!("  export GALVANI_STATE={}\n", shell_path(place.dir())))?;
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
        if step.then == Then::AloneNoticed && !n1_is_alone(&place, &mut signals).await? {
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

/// Waits until n1 says that it reaches nobody; false: a signal came first.
async fn n1_is_alone(place: &Place, signals: &mut Signals) -> Result<bool, Report> {
    let began = Instant::now();
    loop {
        let Some(ran) = place.ran(&["status", "-o", "json"], signals).await? else {
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

/// Waits for Enter; false: a signal or the end of input came first.
async fn enter(app: &App, signals: &mut Signals) -> bool {
    app.out.say("    (Enter runs it, Ctrl-C ends the tour)");
    let line = tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new()));
    tokio::select! {
        read = line => matches!(read, Ok(Ok(1..))),
        () = signals.any() => false,
    }
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
    use super::STEPS;
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn every_step_is_a_command_that_can_be_typed() {
        for step in STEPS {
            let words = std::iter::once(&"galvani").chain(step.words);
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{step:?}: {error}"));
        }
    }
}
