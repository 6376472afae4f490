//! A local cluster on the screen.
//!
//! Only words: what is shown was found out elsewhere. Next to read: `mod.rs`.

use crate::args::dev::Which;
use crate::args::line::Line;
use crate::connect::App;
use crate::dev::files::{DevNode, Local};
use crate::dev::process::ProcessState;
use crate::report::text::Span;
use crate::report::{Report, json};
use serde_json::{Value, json as value};
use std::path::Path;
use std::time::Duration;

/// What `dev` says when the cluster is ready.
pub(crate) fn ready(app: &App, local: &Local, which: &Which, took: Duration) -> Result<(), Report> {
    if app.out.is_json() {
        let mut map = document(local);
        map.insert("ready_ms".to_owned(), json::millis(took));
        return app.out.json(map);
    }
    if app.out.quiet {
        return Ok(());
    }
    let name = &local.memory.name;
    let last = local.memory.nodes.last().map_or("n1", |node| node.name.as_str());
    let (kill, stop) = (which.line("dev kill").place(last), which.line("dev stop"));
    app.out.line(&page(local))?;
    app.out.line(&format!(
        "ready in {}, context {name} selected\n  \
         try    galvani put greeting hello -w 2  &&  galvani get greeting -r 2\n  \
         break  {:<32} (a real SIGKILL)\n  \
         stop   {:<32} ({})",
        Span(took),
        kill.to_string(),
        stop.to_string(),
        if local.memory.ephemeral { "the data goes" } else { "data stays" }
    ))
}

/// What `dev status` says.
pub(crate) fn status(
    app: &App,
    local: &Local,
    faults: &[String],
    undo: &Line,
) -> Result<(), Report> {
    if app.out.is_json() {
        let mut map = document(local);
        map.insert("faults".to_owned(), faults.into());
        return app.out.json(map);
    }
    app.out.line(&page(local))?;
    if faults.is_empty() {
        return Ok(());
    }
    app.out.line(&format!("  faults  SET ON PURPOSE: {}   undo: {undo}", faults.join("   ")))
}

fn page(local: &Local) -> String {
    let memory = &local.memory;
    let kept = if memory.ephemeral { "until it stops" } else { "kept" };
    let mut page = format!(
        "galvani {}  cluster {}  {} nodes  n={}  data {} ({kept})",
        env!("CARGO_PKG_VERSION"),
        memory.name,
        memory.nodes.len(),
        memory.n,
        with_tilde(&local.dir)
    );
    for node in &memory.nodes {
        page.push_str("\n  ");
        page.push_str(&line(local, node));
    }
    if let Some(lagged) = local.lagged() {
        let (state, pid) = (local.state(&lagged), pid(local, &lagged));
        let name = &lagged.name;
        page.push_str(&format!("\n  {name}  {pid}{}   galvani lagged status", state.word()));
    }
    page
}

/// `pid 12  `, if it runs.
fn pid(local: &Local, node: &DevNode) -> String {
    match (local.state(node), node.pid) {
        (ProcessState::Up | ProcessState::Paused, Some(pid)) => format!("pid {pid}  "),
        (ProcessState::Down, _) | (_, None) => String::new(),
    }
}

fn line(local: &Local, node: &DevNode) -> String {
    let state = local.state(node);
    let at = match node.lanes.as_slice() {
        [] => "nowhere".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} ({} lanes)", rest.len() + 1),
    };
    let pid = pid(local, node);
    format!("{}  quic {at}  zone {}  {pid}{}", node.name, node.zone, state.word())
}

pub(super) fn document(local: &Local) -> serde_json::Map<String, Value> {
    let memory = &local.memory;
    let mut map = json::object("galvani.dev/1");
    map.insert("cluster".to_owned(), memory.name.as_str().into());
    map.insert("dir".to_owned(), local.dir.display().to_string().into());
    map.insert("identity".to_owned(), local.dir.join("client").display().to_string().into());
    map.insert("n".to_owned(), memory.n.into());
    map.insert("ephemeral".to_owned(), memory.ephemeral.into());
    let node = |node: &DevNode| {
        let state = local.state(node);
        let pid = node.pid.filter(|_| state != ProcessState::Down);
        value!({
            "name": node.name,
            "zone": node.zone,
            "lanes": node.lanes,
            "pid": pid,
            "state": state.word(),
            "log": local.log(node).display().to_string(),
        })
    };
    map.insert("nodes".to_owned(), memory.nodes.iter().map(node).collect());
    if let Some(lagged) = local.lagged() {
        let state = local.state(&lagged);
        let lagged = value!({
            "dir": local.lagged_dir().display().to_string(),
            "pid": lagged.pid.filter(|_| state != ProcessState::Down),
            "state": state.word(),
            "log": local.log(&lagged).display().to_string(),
        });
        map.insert("lagged".to_owned(), lagged);
    }
    map
}

/// A path as people type it.
fn with_tilde(path: &Path) -> String {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}
