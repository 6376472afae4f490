//! `server`: run one node until SIGTERM or Ctrl-C; a second one stops at once.
//!
//! Logs go to stderr: text on a terminal, JSON otherwise. `--check-config` only checks; `--join` makes
//! the node's directory first, in `server/join.rs`.

mod join;

use crate::args::cluster::Server;
use crate::args::line::Line;
use crate::commands::Done;
use crate::exit::Exit;
use crate::output::Output;
use crate::report::Report;
use crate::report::text::shell;
use galvani_node::config::{ConfigError, NodeConfig};
use galvani_node::{EngineError, NodeError, StoreError, run as run_node};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Runs the node of the file.
pub(crate) fn run(args: Server, out: Output) -> Done {
    let path = match (&args.join, &args.dir) {
        (Some(token), Some(dir)) => join::arrived(token, dir, out)?,
        _ => args.config.clone().expect("the arguments have --config or --join"),
    };
    let config = NodeConfig::load(&path).map_err(|error| config_report(&error))?;
    if args.check_config {
        if !out.quiet {
            out.line(&format!("ok  {}", described(&path, &config)))?;
        }
        return Ok(Exit::Done);
    }
    if args.own_session {
        // Fails only for the leader of a group, which is in no session that could end it.
        let _ = rustix::process::setsid();
    }
    start_log(&args.log)?;
    warn_of_small_buffers();
    let described = described(&path, &config);
    let (name, data) = (config.node.name.clone(), config.node.data.clone());
    let ready = move || tracing::info!(event = "ready", %described);
    run_node(config, ready, stopped()).map_err(|error| {
        tracing::error!(event = "node_failed", node = %name, error = %error);
        node_report(&error, &data, &path)
    })?;
    Ok(Exit::Done)
}

fn described(path: &Path, config: &NodeConfig) -> String {
    let node = &config.node;
    format!(
        "{}: node {}  data {}  durability {}",
        path.display(),
        node.name,
        node.data.display(),
        node.durability
    )
}

/// Resolves at the first SIGTERM or Ctrl-C; the second ends the process at once.
async fn stopped() {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt)] = signals else {
        tracing::error!(event = "no_signals", "cannot wait for signals: stop it with SIGKILL");
        return std::future::pending().await;
    };
    either(&mut terminate, &mut interrupt).await;
    tracing::info!(event = "stopping", "draining; a second signal stops at once");
    // The runtime of this future is asked no more once it has resolved: a thread waits instead.
    let watch = || {
        let again = crate::commands::block_on(async {
            let again = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
            if let [Ok(mut terminate), Ok(mut interrupt)] = again {
                either(&mut terminate, &mut interrupt).await;
                process::exit(SIGNALLED);
            }
            Ok(())
        });
        drop(again);
    };
    let _ = std::thread::Builder::new().name("second-signal".to_owned()).spawn(watch);
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

fn start_log(filter: &str) -> Result<(), Report> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Report::new(Exit::Usage, format!("--log: {error}")).why("what to log is error, warn, info, debug, trace, or a filter such as galvani_node=debug")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match io::stderr().is_terminal() {
        true => log.try_init(),
        false => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Report::unexpected(format!("log: {error}")))
}

/// Small socket buffers drop datagrams under load; nothing fails, it only gets slow.
fn warn_of_small_buffers() {
    let read = std::fs::read_to_string("/proc/sys/net/core/rmem_max");
    let Some(bytes) = read.ok().and_then(|text| text.trim().parse::<u64>().ok()) else { return };
    if bytes < RMEM_WANTED {
        tracing::warn!(
            event = "small_socket_buffers",
            "net.core.rmem_max is {bytes}, QUIC wants {RMEM_WANTED}: \
             sysctl -w net.core.rmem_max={RMEM_WANTED}"
        );
    }
}

/// A configuration that cannot be used.
pub(crate) fn config_report(error: &ConfigError) -> Report {
    let report = Report::new(Exit::Usage, error.to_string()).why("nothing was started");
    let path = match error {
        ConfigError::Io { path, .. }
        | ConfigError::Malformed { path, .. }
        | ConfigError::OutOfBounds { path, .. } => path,
    };
    let check = Line::new("server").with_path("--config", path).flag("--check-config", true);
    report.next("check", check.to_string())
}

fn node_report(error: &NodeError, data: &Path, config: &Path) -> Report {
    let report = |exit, what: String| Report::new(exit, what);
    match error {
        NodeError::Dir { .. } => report(Exit::Refused, error.to_string())
            .why("nothing was changed")
            .next("see", format!("ls {}", data.display())),
        NodeError::NotAMember { .. } => report(Exit::Usage, error.to_string())
            .why("a node that is to join a cluster that runs has a [join] section instead")
            .next("fix", "name in [node] of the configuration file")
            .next("or make it", "galvani help cluster invite"),
        NodeError::Join(_) => report(Exit::Usage, error.to_string())
            .why("it says how this node would be a member; nothing was started")
            .next("fix", "[join] of the configuration file"),
        NodeError::Bind(_) => report(Exit::Refused, error.to_string())
            .why("another process has the port, or the address is not of this machine")
            .next("see", "ss -ulpn"),
        NodeError::RunsTwice { at, .. } => report(Exit::Refused, error.to_string())
            .why("this is a copy of its data under its identity, and two of them must not run")
            .why("what this one took in meanwhile is sent off, and stays in its data directory")
            .next("see", "galvani status")
            .next("either", format!("stop the one at {at}, then start this one again"))
            .next("or", format!("keep that one, and set this copy aside: {}", data.display())),
        NodeError::OtherCluster { .. } => report(Exit::NotTrusted, error.to_string())
            .why("its members would not talk to it; nothing was started")
            .next("make one for this cluster", "galvani help cluster invite"),
        NodeError::Pki(_) | NodeError::WrongCertificate { .. } | NodeError::Keys(_) => {
            report(Exit::NotTrusted, error.to_string())
        }
        NodeError::ClusterFile(_) | NodeError::Mtu(_) => report(Exit::Usage, error.to_string()),
        NodeError::Engine { source: EngineError::Corrupt { .. }, .. }
        | NodeError::Store(StoreError::Corrupt { .. }) => {
            set_aside(report(Exit::Refused, error.to_string()), data)
                .next("then", Line::new("server").with_path("--config", config).to_string())
        }
        NodeError::Engine { .. }
        | NodeError::Store(_)
        | NodeError::Thread { .. }
        | NodeError::LaneEnded { .. } => report(Exit::Unexpected, error.to_string()),
    }
}

/// The way back of a node whose files are damaged.
pub(crate) fn set_aside(report: Report, data: &Path) -> Report {
    let aside = format!("{}.damaged", data.display());
    let paths = [data.as_os_str().as_bytes(), aside.as_bytes()].map(shell);
    report
        .why("nothing was changed; set the data aside, and the node fetches all from the other owners")
        .why("only while all other nodes are up and lack nothing, one node at a time: else data is lost")
        .next("check", "galvani status")
        .next("first", format!("mv {} {}", paths[0], paths[1]))
}

/// The receive buffer that quinn's authors measured to be enough for a fast link, in bytes.
const RMEM_WANTED: u64 = 7_500_000;
/// As a shell names a process that SIGINT ended.
const SIGNALLED: i32 = 130;

#[cfg(test)]
mod tests {
    use super::{config_report, set_aside};
    use crate::exit::Exit;
    use crate::report::Report;
    use galvani_node::config::NodeConfig;
    use std::io::Write;

    #[test]
    fn data_is_set_aside_only_while_the_others_have_it_all() {
        let report = set_aside(Report::new(Exit::Refused, "x"), "/d/n1/data".as_ref()).to_string();
        assert!(report.contains("only while all other nodes are up and lack nothing"), "{report}");
        let at = |part: &str| report.find(part).unwrap_or_else(|| panic!("no {part}: {report}"));
        assert!(at("galvani status") < at("mv /d/n1/data /d/n1/data.damaged"), "{report}");
    }

    #[test]
    fn a_typo_in_the_configuration_names_its_place() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(b"[node]\nname = \"n1\"\n[limits]\ninflite = 1\n").expect("written");
        let error = NodeConfig::load(file.path()).expect_err("a typo");
        let report = config_report(&error);
        assert_eq!(report.exit.code(), 2);
        let (text, path) = (report.to_string(), file.path().display().to_string());
        assert!(
            text.starts_with(&format!(
                "error  {path}:4:1 unknown key \"inflite\": did you mean \"inflight\"?"
            )),
            "{text}"
        );
        assert!(text.contains("--check-config"), "{text}");
    }
}
