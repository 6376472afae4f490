//! What the tests with real servers share: events, servers that are killed and come back, the verdict.
//!
//! Each test file uses a part of it. Next to read: `redis.rs`, `nats.rs`, `webhook.rs`.
#![allow(dead_code, unreachable_pub)]

use galvani_relay::{FiguresHandle, Outgoing, Relay, Retry, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long anything may take, on a machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// `count` events of `keys` keys. Each body names its event, its key and its place.
pub fn events(name: &str, count: usize, keys: usize) -> Vec<Outgoing> {
    let event = |n: usize| {
        let (id, key) = (format!("{name}-{n}#0"), format!("k{}", n % keys));
        let body = format!(r#"{{"id":"{id}","key":"{key}","n":{n}}}"#);
        Outgoing::new(id, "orders".into(), key.into(), body.into())
    };
    (0..count).map(event).collect()
}

/// Settings that try again soon.
pub fn settings() -> Settings {
    let (first, longest) = (Duration::from_millis(20), Duration::from_millis(200));
    Settings {
        attempt_timeout: Duration::from_secs(20),
        retry: Retry { first, longest, ..Retry::default() },
        ..Settings::default()
    }
}

/// Panics unless the target has these events, each once, and each key's in its order. `got` is bodies in
/// the order of the target.
pub fn assert_all_once_in_order(got: &[Vec<u8>], sent: &[Outgoing]) {
    let wanted: BTreeSet<&[u8]> = sent.iter().map(|event| &event.body[..]).collect();
    let have: BTreeSet<&[u8]> = got.iter().map(|body| &body[..]).collect();
    let missing = wanted.difference(&have).count();
    let foreign = have.difference(&wanted).count();
    assert_eq!((missing, foreign), (0, 0), "missing and foreign of {}", wanted.len());
    assert_eq!(got.len(), have.len(), "duplicates");
    let mut places: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    let place_of: BTreeMap<&[u8], usize> =
        got.iter().enumerate().map(|(place, body)| (&body[..], place)).collect();
    for event in sent {
        places.entry(&event.key).or_default().push(place_of[&event.body[..]]);
    }
    assert!(places.values().all(|places| places.is_sorted()), "a key's events are out of order");
}

/// A server program: of `PATH` or where Debian puts it. Says so if it is missing; fails on the build
/// server, where it must not be.
pub fn program(name: &str) -> Option<PathBuf> {
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

/// A server process with a folder and a port of its own, which it keeps when it is started again.
pub struct Broker {
    program: PathBuf,
    arguments: fn(&Path, u16) -> Vec<String>,
    folder: tempfile::TempDir,
    pub port: u16,
    process: Option<Child>,
}

impl Broker {
    pub fn start(program: PathBuf, arguments: fn(&Path, u16) -> Vec<String>) -> Broker {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut broker = Broker { program, arguments, folder, port: free_port(), process: None };
        broker.restart();
        broker
    }

    /// Starts it; it need not answer yet.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log can be made");
        let process = Command::new(&self.program)
            .args((self.arguments)(self.folder.path(), self.port))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a descriptor is left"))
            .stdout(log)
            .spawn();
        self.process = Some(process.expect("the server starts"));
    }

    /// SIGKILL.
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

/// Waits until `done` says so.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "in vain: {what}");
        // wait: for the condition, until the deadline above.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Delivers both halves of `events`, kills the server amid the first, lets the relay notice, and starts
/// the server again.
pub async fn deliver_through_a_kill(
    mut relay: Relay,
    broker: &mut Broker,
    events: Vec<Outgoing>,
) -> Relay {
    let figures: FiguresHandle = relay.figures();
    let before = figures.read().delivered;
    let half = events.len() as u64 / 2;
    let (killed, was_killed) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let mut events = events;
        let rest = events.split_off(half as usize);
        relay.deliver(events).await.expect("the first half");
        was_killed.await.expect("the test goes on");
        relay.deliver(rest).await.expect("the second half");
        relay
    });
    until("a tenth is delivered", || figures.read().delivered >= before + half / 10).await;
    broker.kill();
    killed.send(()).expect("the delivery goes on");
    until("the relay notices", || figures.read().failing_since.is_some()).await;
    broker.restart();
    let relay = tokio::time::timeout(DEADLINE, task).await.expect("all in time").expect("no panic");
    assert_eq!(figures.read().delivered, before + 2 * half);
    relay
}
