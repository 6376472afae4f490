//! Whole clusters of real nodes in one thread, on a network in memory and a clock that is stood
//! still: the simulator's second layer.
//!
//! Lanes, QUIC, TLS and clients are those that users run; only sockets, clocks, randomness and the
//! disk are given to them (`host.rs`, `wire.rs`, `nodes.rs`). Clients and the rules they are judged by
//! are those of the chaos run (`chaos/workers.rs`, `chaos/judge.rs`), and what breaks is in
//! `nemesis.rs`. The same seed gives the same datagrams at the same times, which [`Report::traffic`]
//! tells. `cargo run --release -p galvani-cluster-tests --bin memnet`.

pub mod host;
pub mod nemesis;
pub mod nodes;
pub mod settle;
pub mod wire;

use crate::chaos::ledger::Ledger;
use crate::chaos::workers::{Crowd, Field, Tally};
use crate::chaos::{Violation, What};
use crate::history::Fate;
use galvani_client::Client;
use galvani_node::config::DurabilityMode;
use galvani_transport::Config;
use nemesis::{Fault, Nemesis};
use nodes::{NODES_MAX, Nodes, Plan};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::Instant;
use wire::{Traffic, Wire};

/// A bug put in on purpose, which a run must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Silent links are kept, and a node's restart cannot be told: no idle timeout, no probes, new
    /// transport keys at each start.
    HalfOpen,
    /// What was cut stays cut.
    CutStays,
    /// Disks lose what they acked when a node crashes, and the node takes that for a clean stop.
    DisksLie,
    /// A node whose disk is new, or an older copy, takes it for its own.
    LossUnnoticed,
}

/// What a run is like.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Everything follows from it.
    pub seed: u64,
    /// How long things break, in virtual time.
    pub time: Duration,
    /// The bug put in, if any.
    pub plant: Option<Plant>,
    /// The only kind of fault, if there is only one.
    pub only: Option<Fault>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// What it was like.
    pub settings: Settings,
    /// Nodes, lanes and durability, for people.
    pub cluster: String,
    /// The datagrams, until all was mended and the clients were done.
    pub traffic: Traffic,
    /// What the clients met.
    pub tally: Tally,
    /// Writes acked.
    pub acked: usize,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u32>,
    /// What was done when.
    pub log: Vec<String>,
    /// How long after all was mended all owners agreed, in virtual time.
    pub converged: Option<Duration>,
    /// What is wrong.
    pub violations: Vec<Violation>,
    /// The writes of the keys concerned.
    pub stories: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { settings, cluster, traffic, tally, acked, converged, .. } = self;
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        write!(
            f,
            "seed {}  {verdict}  {cluster}  {} datagrams {:016x}  {} reads  {acked} acked  {} never  \
             {} in doubt  longest {} ms",
            settings.seed,
            traffic.sent,
            traffic.hash,
            tally.reads,
            tally.never,
            tally.maybe,
            tally.longest.as_millis(),
        )?;
        if let Some(converged) = converged {
            write!(f, "  agreed after {} ms", converged.as_millis())?;
        }
        self.violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))?;
        self.stories.iter().try_for_each(|story| write!(f, "\n{story}"))
    }
}

/// Runs one seed in a thread of its own; returns when it is over.
pub fn run(settings: Settings) -> Report {
    let body = move || {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        runtime.expect("a runtime without I/O needs nothing").block_on(simulate(settings))
    };
    let thread = std::thread::Builder::new().name(format!("seed-{}", settings.seed)).spawn(body);
    let ended = thread.expect("threads can be made").join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn simulate(settings: Settings) -> Report {
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let plan = plan(&mut rng, settings.plant);
    let (durability, crowd) = (plan.durability, rng.random_range(6..=16));
    let cluster = format!("{}x{} {durability} {crowd} clients", plan.nodes, plan.lanes);
    let wire = Wire::start(rng.random());
    let mut nodes = Nodes::start(plan, &wire, rng.random());
    let mut handles = Vec::new();
    for index in 0..HANDLES {
        handles.push(nodes.client(index, CALL).await.expect("the cluster runs"));
    }
    let ledger = Ledger::new(settings.seed, handles[0].cluster().layout.n());
    let field = Arc::new(Field::new(ledger, THINK));
    let here = tokio::runtime::Handle::current();
    let crowd = Crowd::start(&here, &field, &handles, 0..crowd, settings.seed);
    let clients = (&field, &handles[0], HANDLES);
    let mut nemesis = Nemesis::new(&mut nodes, &wire, clients, durability, settings, rng.random());
    let broke = nemesis.run(settings.time).await;
    let (faults, log) = (std::mem::take(&mut nemesis.done), std::mem::take(&mut nemesis.log));
    let mended = Instant::now();
    let (tally, mut violations) = (rest(crowd).await, field.violations());
    let traffic = wire.traffic();
    violations
        .extend(broke.err().map(|why| Violation::new(What::NodeFailed, "", None).detail(why)));
    if tally.longest > CALL + SLACK {
        let longest = format!("a call of {CALL:?} took {:?}", tally.longest);
        violations.push(Violation::new(What::Late, "", None).detail(longest));
    }
    let mut converged = None;
    if violations.is_empty() {
        match settle::settle(&nodes, &handles[0], &field, field.ledger.keys()).await {
            Ok(()) => converged = Some(mended.elapsed()),
            Err(found) => violations.extend(found),
        }
    }
    close(handles).await;
    let stories = violations.iter().filter(|violation| !violation.key.is_empty()).take(1);
    let stories = stories.map(|violation| field.ledger.story(&violation.key)).collect();
    let acked = field.ledger.count(Fate::Acked);
    Report { settings, cluster, traffic, tally, acked, faults, log, converged, violations, stories }
}

fn plan(rng: &mut StdRng, plant: Option<Plant>) -> Plan {
    let transport = match plant {
        Some(Plant::HalfOpen) => {
            let never = Duration::from_secs(24 * 3_600);
            Config { idle_timeout: never, keep_alive: never, ..Config::default() }
        }
        Some(Plant::CutStays | Plant::DisksLie | Plant::LossUnnoticed) | None => Config::default(),
    };
    let durability = match rng.random_bool(0.5) {
        true => DurabilityMode::Os,
        false => DurabilityMode::Fsync,
    };
    Plan {
        nodes: rng.random_range(3..=NODES_MAX),
        lanes: rng.random_range(1..=2),
        durability,
        transport,
        keeps_keys: plant != Some(Plant::HalfOpen),
        disks_lie: plant == Some(Plant::DisksLie),
        notices_loss: plant != Some(Plant::LossUnnoticed),
    }
}

/// Lets every client end its request.
async fn rest(crowd: Crowd) -> Tally {
    match tokio::time::timeout(HANGS, crowd.stop()).await {
        Ok(tally) => tally,
        // What hangs is later than any call may be.
        Err(_) => Tally { longest: HANGS, ..Tally::default() },
    }
}

async fn close(handles: Vec<Client>) {
    for handle in handles {
        handle.close().await;
    }
}

/// The time of one call of a client.
const CALL: Duration = Duration::from_secs(2);
/// How much longer a call may take: timers tick in milliseconds.
const SLACK: Duration = Duration::from_millis(10);
/// A client that has not ended its call by then hangs.
const HANGS: Duration = Duration::from_secs(60);
/// Average pause of a client between requests.
const THINK: Duration = Duration::from_millis(40);
/// Clients with links of their own; the others share them.
const HANDLES: u8 = 3;
