//! Real brokers for tests: redis-server and nats-server, each with a folder and a port of its own.
//!
//! They are the programs of Debian's packages of these names. A test that needs one that is missing says so
//! and passes, except on the build server, which has both. A broker keeps what it has acknowledged through a
//! SIGKILL; a power cut could take some of it. Used by the tests of `crates/galvani-relay` and by those
//! with whole clusters.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// What kind of broker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// redis-server, which writes to its append-only file before it answers.
    Redis,
    /// nats-server with JetStream.
    Nats,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Kind::Redis => "redis-server",
            Kind::Nats => "nats-server",
        }
    }
}

/// A broker's process. It keeps its folder and port when it is started again, and ends with this value.
#[derive(Debug)]
pub struct Broker {
    kind: Kind,
    program: PathBuf,
    more: &'static [&'static str],
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    /// Starts one, which need not answer yet; `None`, and words on stdout, if its program is missing.
    pub fn start(kind: Kind) -> Option<Broker> {
        Broker::start_with(kind, &[])
    }

    /// The same with arguments besides its own.
    pub fn start_with(kind: Kind, more: &'static [&'static str]) -> Option<Broker> {
        let program = program(kind.program())?;
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut broker = Broker { kind, program, more, folder, port: free_port(), process: None };
        broker.restart();
        Some(broker)
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again; it need not answer yet. Panics if it runs.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let (folder, port) = (self.folder.path(), self.port.to_string());
        let log = File::create(folder.join("log")).expect("a log can be made");
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Redis => command
                .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"])
                .arg(folder)
                .args(["--appendonly", "yes", "--appendfsync", "everysec"]),
            Kind::Nats => command
                .args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"])
                .arg(folder.join("store")),
        };
        let process = command
            .args(self.more)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a descriptor is left"))
            .stdout(log)
            .spawn();
        self.process = Some(process.expect("the server starts"));
    }

    /// SIGKILL, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it is our process");
            process.wait().expect("it is our process");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server program: of `PATH` or where Debian puts it. Says so if it is missing; fails on the build
/// server, where it must not be.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        let told = format!("NOT TESTED: {name} is missing; install it: apt-get install {name}");
        assert!(std::env::var_os("CI").is_none(), "{told}");
        println!("{told}");
    }
    found
}

/// A port that was free a moment ago, below those that the system gives out: a client that tries again
/// and again while the server is away must not be given the server's port.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let offset = std::process::id().wrapping_mul(61);
    loop {
        let next = offset.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (next % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
