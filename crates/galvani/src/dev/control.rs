//! The verbs of a local cluster: status, stop, start, logs, kill, pause, resume, destroy; those that
//! break its links are in `faults.rs`, those that change which nodes there are in `grow.rs` and
//! `shrink.rs`, restarting is in `restart.rs`.
//!
//! Without `--name` or `--dir` they mean the context's cluster if it is a local one, else `dev`.

use crate::args::dev::{DevCommand, One, OneOrAll, Which};
use crate::commands::{Done, block_on};
use crate::connect::App;
use crate::context::io_report;
use crate::dev::files::{DevNode, LAGGED, Local};
use crate::dev::process::{self, ProcessState, log_tail};
use crate::dev::up::{DEFAULT_NAME, absolute, again, start};
use crate::dev::{faults, grow, lagged, ready, restart, show, shrink};
use crate::exit::Exit;
use crate::report::Report;
use crate::report::text::Span;
use rustix::process::Signal;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Does what is asked.
pub(crate) fn run(app: &App, command: DevCommand) -> Done {
    match command {
        DevCommand::Status(which) => {
            let local = find(app, &which)?;
            let faults = block_on(async { Ok(faults::set_now(app, &local).await) })?;
            show::status(app, &local, &faults, &which.line("dev heal"))?;
        }
        DevCommand::Stop(which) => stop(app, &which)?,
        DevCommand::Start(which) => begin(app, &which)?,
        DevCommand::Restart(args) => return restart::run(app, &args),
        DevCommand::Logs { follow, tail, one } => {
            let local = find(app, &one.which)?;
            logs(app, &local, &local.process(&one.node)?, follow, tail)?;
        }
        DevCommand::Add(args) => return block_on(grow::add(app, &args)),
        DevCommand::Rm(args) => return block_on(shrink::rm(app, &args)),
        DevCommand::Kill(one) => {
            let local = find(app, &one.which)?;
            let node = &local.process(&one.node)?;
            match local.state(node) {
                ProcessState::Down => app.out.say(&format!("{} is down already", node.name)),
                ProcessState::Up | ProcessState::Paused => {
                    process::kill(&local, std::slice::from_ref(node))?;
                    let name = &node.name;
                    let back = one.which.line("dev start").place(name);
                    app.out.say(&format!("{name} killed (SIGKILL)  back: {back}"));
                }
            }
        }
        DevCommand::Pause(one) => {
            let local = find(app, &one.which)?;
            signal(app, &local, &one, Signal::STOP, ProcessState::Paused)?;
        }
        DevCommand::Resume(one) => {
            let local = find(app, &one.which)?;
            signal(app, &local, &one, Signal::CONT, ProcessState::Up)?;
        }
        DevCommand::Cut(args) => return faults::cut(app, &find(app, &args.which)?, &args),
        DevCommand::Slow(args) => return faults::slow(app, &find(app, &args.one.which)?, &args),
        DevCommand::Lossy(args) => return faults::lossy(app, &find(app, &args.one.which)?, &args),
        DevCommand::Heal(which) => return faults::heal(app, &find(app, &which)?, &which),
        DevCommand::Destroy { yes, which } => return destroy(app, &which, yes),
    }
    Ok(Exit::Done)
}

/// The cluster that is meant.
pub(super) fn find(app: &App, which: &Which) -> Result<Local, Report> {
    let dir = directory(app, which)?;
    Local::load(&dir)?.ok_or_else(|| {
        Report::new(Exit::NoServer, format!("no local cluster in {}", dir.display()))
            .next("try", which.line("dev").flag("-d", true).to_string())
    })
}

pub(crate) fn directory(app: &App, which: &Which) -> Result<PathBuf, Report> {
    if let Some(dir) = &which.dir {
        return Ok(absolute(dir.clone()));
    }
    let name = match &which.name {
        Some(name) => Some(name.clone()),
        None => app.context_name()?,
    };
    let context = match &name {
        Some(name) => app.state.context(name)?,
        None => None,
    };
    Ok(match (context.and_then(|context| context.dev_dir), &which.name) {
        (Some(dir), _) => dir,
        (None, Some(name)) => app.state.dev_dir(name),
        (None, None) => app.state.dev_dir(DEFAULT_NAME),
    })
}

/// The processes that are meant.
fn chosen(local: &Local, which: &OneOrAll) -> Result<Vec<DevNode>, Report> {
    match &which.node {
        Some(name) => Ok(vec![local.process(name)?]),
        None => Ok(local.processes()),
    }
}

fn stop(app: &App, which: &OneOrAll) -> Result<(), Report> {
    let local = find(app, &which.which)?;
    let _lock = Local::lock(&local.dir)?;
    let nodes = chosen(&local, which)?;
    let were_down = nodes.iter().all(|node| local.state(node) == ProcessState::Down);
    let (stopped, was) = match were_down {
        true => ("was down already", " was down already:"),
        false => ("stopped", " stopped,"),
    };
    let late = process::stop(&local, &nodes)?;
    if !late.is_empty() {
        app.out.note(&format!("{} did not stop in time and was killed", late.join(" ")));
    }
    let name = &local.memory.name;
    if local.memory.ephemeral && which.node.is_none() {
        local.remove()?;
        let again = again(local.forget(app)?);
        app.out.say(&format!("cluster {name} stopped, data removed{again}"));
        return Ok(());
    }
    match &which.node {
        Some(node) => {
            let back = which.which.line("dev start").place(node);
            app.out.say(&format!("{node} {stopped}  back: {back}"));
        }
        None => {
            let back = which.which.line("dev start");
            app.out.say(&format!("cluster {name}{was} data and ports stay  back: {back}"));
        }
    }
    Ok(())
}

fn begin(app: &App, which: &OneOrAll) -> Result<(), Report> {
    let mut local = find(app, &which.which)?;
    let _lock = Local::lock(&local.dir)?;
    let chosen = chosen(&local, which)?;
    for node in &chosen {
        if local.state(node) != ProcessState::Paused {
            continue;
        }
        let (name, on) = (&node.name, which.which.line("dev resume").place(&node.name));
        if which.node.is_some() {
            let what = format!("{name} is paused: it runs and does nothing");
            return Err(Report::new(Exit::Refused, what).next("go on", on.to_string()));
        }
        app.out.note(&format!("{name} is paused  go on: {on}"));
    }
    let names: Vec<&str> = chosen.iter().map(|node| node.name.as_str()).collect();
    let nodes = local.memory.nodes.iter().enumerate();
    let nodes = nodes.filter(|(_, node)| names.contains(&node.name.as_str()));
    let indexes: Vec<usize> = nodes.map(|(index, _)| index).collect();
    let mut children = start(&mut local, &indexes)?;
    let took = block_on(ready::wait(app, &local, &mut children))?;
    if names.contains(&LAGGED) {
        children.extend(lagged::start(&mut local)?);
    }
    local.select(app)?;
    match (&which.node, children.is_empty()) {
        (Some(node), true) => app.out.say(&format!("{node} runs already")),
        (Some(node), false) => app.out.say(&format!("{node} is up, ready in {}", Span(took))),
        (None, _) => show::ready(app, &local, &which.which, took)?,
    }
    Ok(())
}

fn signal(
    app: &App,
    local: &Local,
    one: &One,
    what: Signal,
    then: ProcessState,
) -> Result<(), Report> {
    let name = &one.node;
    let node = &local.process(name)?;
    match process::signal(local, node, what)? {
        true => app.out.say(&match then {
            ProcessState::Paused => {
                let on = one.which.line("dev resume").place(name);
                format!("{name} paused  go on: {on}")
            }
            ProcessState::Up | ProcessState::Down => format!("{name} goes on"),
        }),
        false => {
            return Err(Report::new(Exit::Refused, format!("{name} does not run"))
                .next("try", one.which.line("dev start").place(name).to_string()));
        }
    }
    Ok(())
}

fn destroy(app: &App, which: &Which, yes: bool) -> Done {
    let local = find(app, which)?;
    if !yes && !io::stdin().is_terminal() {
        let what = "dev destroy removes the cluster and all its data: say --yes";
        return Err(Report::new(Exit::Usage, what)
            .why("NOTHING WAS REMOVED")
            .next("say", local.line("dev destroy").flag("--yes", true).to_string()));
    }
    if !yes && !confirmed(&local) {
        return Ok(Exit::Refused);
    }
    let lock = Local::lock(&local.dir)?;
    process::kill(&local, &local.processes())?;
    local.remove()?;
    drop(lock);
    let (name, again) = (&local.memory.name, again(local.forget(app)?));
    app.out.say(&format!("cluster {name} in {} destroyed{again}", local.dir.display()));
    Ok(Exit::Done)
}

fn confirmed(local: &Local) -> bool {
    let mut err = io::stderr().lock();
    let asked =
        write!(err, "remove cluster {} in {}? [y/N] ", local.memory.name, local.dir.display());
    let mut answer = String::new();
    let read = asked.and_then(|()| err.flush());
    let read = read.and_then(|()| io::stdin().lock().read_line(&mut answer));
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn logs(app: &App, local: &Local, node: &DevNode, follow: bool, tail: usize) -> Result<(), Report> {
    let path = local.log(node);
    let error = |error: io::Error| io_report(&path, &error);
    let mut file = File::open(&path).map_err(error)?;
    // What is added from here on is for --follow.
    let mut at = file.seek(SeekFrom::End(0)).map_err(error)?;
    for line in log_tail(&path, tail) {
        app.out.line(&line)?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(FOLLOW);
        file.seek(SeekFrom::Start(at)).map_err(error)?;
        let mut added = Vec::new();
        let read = Read::by_ref(&mut file).take(FOLLOW_BYTES).read_to_end(&mut added);
        at += read.map_err(error)? as u64;
        app.out.bytes(&added)?;
    }
}

const FOLLOW: Duration = Duration::from_millis(200);
/// Read at once while following: a flood is printed piece by piece.
const FOLLOW_BYTES: u64 = 1 << 20;
