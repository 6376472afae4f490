//! `dev` itself: make the cluster if there is none, start its nodes, wait until it answers.
//!
//! In the foreground it stays: Ctrl-C stops the nodes gracefully, a second one kills them. With
//! `-d` it leaves them running. Ports are chosen once and kept, as the data is.

use crate::args::dev::{Ports, Up};
use crate::args::line::Line;
use crate::commands::{Done, block_on};
use crate::connect::App;
use crate::context::check_name;
use crate::dev::files::{DevLagged, DevNode, Local};
use crate::dev::process::{self, ProcessState};
use crate::dev::{lagged, ports, ready, show};
use crate::exit::Exit;
use crate::report::Report;
use galvani_model::placement::WEIGHT_NORMAL;
use galvani_node::config::DurabilityMode;
use galvani_node::provision::{ClusterSpec, NodeSpec, create};
use std::path::PathBuf;
use std::process::Child;
use std::thread::available_parallelism;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Makes, starts and, in the foreground, stays.
pub(crate) fn run(app: &App, args: Up) -> Done {
    let name = args.which.name.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
    check_name(&name)?;
    let dir = match &args.which.dir {
        Some(dir) => absolute(dir.clone()),
        None => app.state.dev_dir(&name),
    };
    let lock = Local::lock(&dir)?;
    let mut local = match Local::load(&dir)? {
        Some(mut local) => {
            fits(&local, &args)?;
            if !args.detach && local.any_runs() {
                return Err(runs_already(&local, &args));
            }
            note_ignored(app, &args, &local);
            add_lagged(&mut local, &args);
            local
        }
        None => make(&args, dir, name)?,
    };
    let indexes: Vec<usize> = (0..local.memory.nodes.len()).collect();
    let mut children = start(&mut local, &indexes)?;
    let waited = block_on(ready::wait(app, &local, &mut children));
    let took = match waited {
        Ok(took) => took,
        Err(report) => {
            give_up(&local, &mut children);
            return Err(report);
        }
    };
    match lagged::start(&mut local) {
        Ok(started) => children.extend(started),
        Err(report) => {
            give_up(&local, &mut children);
            return Err(report);
        }
    }
    local.select(app)?;
    show::ready(app, &local, &args.which, took)?;
    drop(lock);
    match args.detach {
        true => Ok(Exit::Done),
        false => block_on(stay(app, local, children)),
    }
}

/// Starts the nodes of these indexes that do not run; the new processes.
pub(crate) fn start(local: &mut Local, indexes: &[usize]) -> Result<Vec<(String, Child)>, Report> {
    let down: Vec<usize> = indexes
        .iter()
        .copied()
        .filter(|&index| local.state(&local.memory.nodes[index]) == ProcessState::Down)
        .collect();
    ports::check(down.iter().flat_map(|&index| &local.memory.nodes[index].lanes), None)?;
    let mut children = Vec::new();
    for index in down {
        let node = &local.memory.nodes[index];
        let child = process::spawn(local, node)?;
        let (name, pid) = (node.name.clone(), child.id());
        local.memory.nodes[index].pid = Some(pid);
        children.push((name, child));
        // At once: if this command ends here, the process can still be found.
        local.save()?;
    }
    Ok(children)
}

/// Nodes that never got ready are not left behind.
fn give_up(local: &Local, children: &mut [(String, Child)]) {
    let started = |node: &DevNode| children.iter().any(|(name, _)| *name == node.name);
    let nodes: Vec<DevNode> = local.processes().into_iter().filter(started).collect();
    // The first failure is what is told of; this one would only hide it.
    let _ = process::stop(local, &nodes);
    for (_, child) in children {
        let _ = child.try_wait();
    }
}

fn make(args: &Up, dir: PathBuf, name: String) -> Result<Local, Report> {
    let count = args.n.unwrap_or(NODES);
    let cores = available_parallelism().map_or(1, usize::from);
    let lanes =
        args.lanes.unwrap_or_else(|| u16::try_from(cores / usize::from(count)).unwrap_or(1).max(1));
    let auto = args.line().with("--ports", "auto");
    let ports = args.ports.unwrap_or(Ports::From(ports::BASE));
    let lanes = ports::choose(ports, count, lanes, &auto)?;
    ports::check(lanes.iter().flatten(), Some(&auto))?;
    let nodes: Vec<DevNode> = lanes
        .into_iter()
        .enumerate()
        .map(|(index, lanes)| DevNode {
            name: format!("n{}", index + 1),
            zone: zone(&args.zones, index),
            lanes,
            pid: None,
        })
        .collect();
    let n = count.min(COPIES);
    let mut local = Local::new(dir, name, n, args.ephemeral, nodes);
    add_lagged(&mut local, args);
    create(&spec(&local, args), &local.dir).map_err(|error| {
        let what = format!("the cluster could not be made: {error}");
        let elsewhere = args.line().with_path("--dir", format!("{}-2", local.dir.display()));
        Report::new(Exit::Refused, what).next("try", elsewhere.to_string())
    })?;
    local.save()?;
    Ok(local)
}

/// Remembers the lagged replica that is asked for, if there is none yet.
fn add_lagged(local: &mut Local, args: &Up) {
    let asked = args.lagged.map(|lag| DevLagged { lag_ms: lag.as_millis() as u64, pid: None });
    local.memory.lagged = local.memory.lagged.take().or(asked);
}

fn spec(local: &Local, args: &Up) -> ClusterSpec {
    let node = |node: &DevNode| NodeSpec {
        name: node.name.clone(),
        zone: node.zone.clone(),
        weight: WEIGHT_NORMAL,
        lanes: node.lanes.clone(),
    };
    ClusterSpec {
        name: local.memory.name.clone(),
        partitions: galvani_model::limits::PARTITIONS_DEFAULT,
        n: local.memory.n,
        nodes: local.memory.nodes.iter().map(node).collect(),
        durability: args.durability.map_or(DurabilityMode::Os, DurabilityMode::from),
        mtu_max: MTU_LOOPBACK,
        faults: true,
    }
}

pub(super) fn zone(zones: &[String], index: usize) -> String {
    match zones {
        [] => char::from(b'a' + (index % 26) as u8).to_string(),
        zones => zones[index % zones.len()].clone(),
    }
}

/// A cluster that exists keeps its nodes: `dev add` and `dev rm` change them.
fn fits(local: &Local, args: &Up) -> Result<(), Report> {
    let (name, have) = (&local.memory.name, local.memory.nodes.len());
    match args.n {
        Some(n) if usize::from(n) != have => {
            let what = format!("cluster {name} exists and has {have} nodes, not {n}");
            Err(Report::new(Exit::Refused, what).why("nothing was changed").next_line(vec![
                ("try", beside(args, &format!("{name}-{n}")).to_string()),
                ("or", args.which.line("dev add").to_string()),
                ("or remove it:", args.which.line("dev destroy").to_string()),
            ]))
        }
        Some(_) | None => Ok(()),
    }
}

/// The same command for another cluster, whose ports are not those of this one.
fn beside(args: &Up, name: &str) -> Line {
    args.line().without("--dir").with("--name", name).with("--ports", "auto")
}

fn note_ignored(app: &App, args: &Up, local: &Local) {
    if args.lagged.is_some() && local.memory.lagged.is_some() {
        app.out.note("there is a lagged replica: galvani lagged set-lag changes its lag");
    }
    let given = [
        ("--zones", !args.zones.is_empty()),
        ("--ports", args.ports.is_some()),
        ("--lanes", args.lanes.is_some()),
        ("--durability", args.durability.is_some()),
        ("--ephemeral", args.ephemeral),
    ];
    let given: Vec<&str> = given.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    if !given.is_empty() {
        app.out.note(&format!("the cluster exists: {} changes nothing", given.join(" ")));
    }
}

fn runs_already(local: &Local, args: &Up) -> Report {
    Report::new(Exit::Refused, format!("cluster {} runs already", local.memory.name)).next_line(
        vec![
            ("see", args.which.line("dev status").to_string()),
            ("stop", args.which.line("dev stop").to_string()),
        ],
    )
}

/// Stays until Ctrl-C, or until all nodes were stopped from elsewhere.
async fn stay(app: &App, mut local: Local, mut children: Vec<(String, Child)>) -> Done {
    let failed = |error| Report::unexpected(format!("signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    app.out.say("Ctrl-C stops it, a second one kills it");
    let mut states = states_of(&local);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = tokio::time::sleep(WATCH) => {}
        }
        // A child that ended is reaped, or it would look alive to nobody but the kernel.
        for (_, child) in &mut children {
            let _ = child.try_wait();
        }
        // Another command may have started nodes anew, or removed the cluster.
        match Local::load(&local.dir)? {
            Some(newer) => local = newer,
            None => return Ok(Exit::Done),
        }
        let now = states_of(&local);
        for ((node, old), new) in local.processes().iter().zip(&states).zip(&now) {
            if old != new {
                app.out.say(&format!("{} is {}", node.name, new.word()));
            }
        }
        states = now;
        if states.iter().all(|state| *state == ProcessState::Down) {
            app.out.say("no node runs any more");
            return Ok(Exit::Done);
        }
    }
    app.out.say("stopping");
    let nodes = local.processes();
    let stopping = {
        let local = local.clone();
        tokio::task::spawn_blocking(move || process::stop(&local, &nodes))
    };
    tokio::select! {
        stopped = stopping => {
            stopped.map_err(|_| Report::unexpected("the stopping thread failed"))??;
        }
        _ = interrupt.recv() => process::kill(&local, &local.processes())?,
    }
    if local.memory.ephemeral {
        local.remove()?;
        let again = again(local.forget(app)?);
        app.out.say(&format!("stopped, data removed{again}"));
    } else {
        app.out.say(&format!("stopped; the data stays: {}", local.line("dev start")));
    }
    Ok(Exit::Done)
}

/// Which context is selected again, if another one is.
pub(crate) fn again(context: Option<String>) -> String {
    context.map_or_else(String::new, |name| format!("; context {name} is selected again"))
}

fn states_of(local: &Local) -> Vec<ProcessState> {
    local.processes().iter().map(|node| local.state(node)).collect()
}

/// The path from the root; as it is where the working directory is gone.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The cluster that is meant when none is named.
pub(crate) const DEFAULT_NAME: &str = "dev";
const NODES: u8 = 3;
/// Copies of each key, if there are as many nodes.
const COPIES: u8 = 3;
/// The largest UDP payload over IPv4: loopback takes it whole.
const MTU_LOOPBACK: u16 = 65507;
const WATCH: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::zone;

    #[test]
    fn nodes_take_zones_in_turn() {
        let zones = ["east".to_owned(), "west".to_owned()];
        assert_eq!([0, 1, 2].map(|index| zone(&zones, index)), ["east", "west", "east"]);
        assert_eq!([0, 1, 26].map(|index| zone(&[], index)), ["a", "b", "a"]);
    }
}
