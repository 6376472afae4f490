//! Those who write during a flood of hints, and what they must find again.
//!
//! Each writer has keys of its own and writes them in turn, each time after its last acked write, so the
//! values of a key are numbers that only rise: an acked one is lost if a read of all owners shows only
//! smaller ones. The prober does the same with w=3, without tries of its own.

use super::report::{PhaseFigures, Probes};
use crate::cluster::Cluster;
use galvani_client::{Applied, Client, Context, Error, Outcome, Quorum, ReplicaError, Written};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// All nodes are up.
    Before,
    /// One is down.
    Down,
    /// It is back, and hints are delivered to it.
    Drain,
    /// None are left.
    After,
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Before, Phase::Down, Phase::Drain, Phase::After];

    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Before => "before",
            Phase::Down => "down",
            Phase::Drain => "drain",
            Phase::After => "after",
        }
    }
}

/// What all of them share.
#[derive(Debug)]
pub(super) struct Field {
    writers: usize,
    value: usize,
    phase: AtomicUsize,
    stop: AtomicBool,
    acked: AtomicU64,
    /// Latencies in microseconds, failures, and when it began, by phase.
    told: Mutex<[Told; 4]>,
    probes: Mutex<Probes>,
    /// Of each key, the number of its last acked write and of its last one.
    ledger: Mutex<BTreeMap<String, (u64, u64)>>,
}

#[derive(Debug, Default)]
struct Told {
    micros: Vec<u32>,
    failures: Vec<String>,
    began: Option<Instant>,
}

impl Field {
    pub(super) fn new(writers: usize, value: usize) -> Arc<Field> {
        let field = Field {
            writers,
            value,
            phase: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            told: Mutex::default(),
            probes: Mutex::default(),
            ledger: Mutex::default(),
        };
        field.enter(Phase::Before);
        Arc::new(field)
    }

    pub(super) fn enter(&self, phase: Phase) {
        lock(&self.told)[phase as usize].began = Some(Instant::now());
        self.phase.store(phase as usize, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::ALL[self.phase.load(Ordering::Relaxed)]
    }

    /// Writes acked so far, probes too.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    pub(super) fn probes(&self) -> Probes {
        lock(&self.probes).clone()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        lock(&self.ledger).keys().cloned().collect()
    }

    pub(super) fn figures(&self) -> Vec<PhaseFigures> {
        let mut told = lock(&self.told);
        let ends = [1, 2, 3, 4].map(|next| told.get(next).and_then(|told| told.began));
        let phases = Phase::ALL.iter().zip(told.iter_mut()).zip(ends);
        let figures = phases.map(|((phase, told), end)| {
            told.micros.sort_unstable();
            let began = told.began.expect("every phase was entered");
            let lasted = end.unwrap_or_else(Instant::now) - began;
            PhaseFigures::of(phase.name(), lasted, &told.micros, &told.failures)
        });
        figures.collect()
    }

    /// The next write of a key: its value.
    fn issue(&self, key: &str) -> (u64, Vec<u8>) {
        let mut ledger = lock(&self.ledger);
        let (_, last) = ledger.entry(key.to_owned()).or_default();
        *last += 1;
        let mut value = format!("{last} ").into_bytes();
        value.resize(self.value.max(value.len()), b'.');
        (*last, value)
    }

    fn note_write(&self, phase: Phase, took: u32, failure: Option<String>) {
        let told = &mut lock(&self.told)[phase as usize];
        match failure {
            None => told.micros.push(took),
            Some(why) => told.failures.push(why),
        }
    }

    fn note_probe(&self, done: Result<Written, Error>) {
        let is_full = |error: &Error| {
            let mut answers = error.trace().answers.iter();
            answers.any(|one| one.outcome == Outcome::Refused(ReplicaError::HintsFull))
        };
        let mut probes = lock(&self.probes);
        match done {
            Ok(written) => {
                let mut answers = written.answers.iter();
                probes.by_stand_in += u64::from(answers.any(|one| one.stands_in_for.is_some()));
            }
            Err(error) if is_full(&error) => {
                probes.refused += 1;
                let stored = matches!(error.applied(), Applied::Maybe { acks: 2.. });
                probes.refused_and_stored_by_two += u64::from(stored);
                probes.example.get_or_insert(error.to_string());
            }
            Err(error) => {
                probes.failed_otherwise += 1;
                probes.otherwise.get_or_insert(error.to_string());
            }
        }
    }

    fn settle(&self, key: &str, number: u64) {
        self.acked.fetch_add(1, Ordering::Relaxed);
        if let Some((acked, _)) = lock(&self.ledger).get_mut(key) {
            *acked = number;
        }
    }
}

/// Tasks at work.
pub(super) struct Load {
    field: Arc<Field>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) fn stop(self, cluster: &Cluster) {
        self.field.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            cluster.block_on(task).expect("a writer does not panic");
        }
    }
}

/// Starts the writers and the prober near the nodes that stay up.
pub(super) fn start(cluster: &Cluster, field: &Arc<Field>) -> Load {
    let near = ["n1", "n2", "n3"];
    let clients = near.map(|name| cluster.client_at(name));
    let writer = |number: usize| {
        let client = clients[number % clients.len()].clone();
        cluster.runtime().spawn(write(client, field.clone(), number))
    };
    let mut tasks: Vec<_> = (0..field.writers).map(writer).collect();
    let zone = &cluster.node("n1").zone;
    let plain = cluster.block_on(cluster.builder().zone(zone).retries(0).connect());
    let plain = plain.expect("the cluster runs");
    tasks.push(cluster.runtime().spawn(probe(plain, field.clone())));
    Load { field: field.clone(), tasks }
}

/// One key's writes, each after the last acked one.
struct Series {
    key: String,
    seen: Option<Context>,
}

impl Series {
    async fn next(&mut self, client: &Client, field: &Field, w: u8) -> Result<Written, Error> {
        let (number, value) = field.issue(&self.key);
        let put = client.put(self.key.clone(), value);
        let put = match &self.seen {
            Some(context) => put.after(context),
            None => put.blind(),
        };
        let written = put.w(w).send().await?;
        self.seen = Some(written.context.clone());
        field.settle(&self.key, number);
        Ok(written)
    }
}

fn series(name: &str, keys: usize) -> Vec<Series> {
    (0..keys).map(|key| Series { key: format!("{name}/{key}"), seen: None }).collect()
}

async fn write(client: Client, field: Arc<Field>, number: usize) {
    let mut keys = series(&format!("flood/{number}"), KEYS);
    for turn in 0.. {
        if field.stop.load(Ordering::Relaxed) {
            return;
        }
        let (began, phase) = (Instant::now(), field.phase());
        let done = keys[turn % KEYS].next(&client, &field, 2).await;
        let took = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        field.note_write(phase, took, done.map_err(|error| error.to_string()).err());
    }
}

/// Probes at a steady pace, whether or not earlier ones were answered: one that was sent to the node that
/// just died may wait for its whole deadline.
async fn probe(client: Client, field: Arc<Field>) {
    let keys: Vec<_> = series("probe", PROBED).into_iter().map(turns).collect();
    let mut under_way = JoinSet::new();
    for turn in 0.. {
        if field.stop.load(Ordering::Relaxed) {
            break;
        }
        let (client, field, key) = (client.clone(), field.clone(), keys[turn % PROBED].clone());
        under_way.spawn(async move {
            let done = key.lock().await.next(&client, &field, 3).await;
            field.note_probe(done);
        });
        while let Some(done) = under_way.try_join_next() {
            done.expect("a probe does not panic");
        }
        // wait: the prober's pace is a part of the load
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    while let Some(done) = under_way.join_next().await {
        done.expect("a probe does not panic");
    }
}

fn turns(series: Series) -> Arc<tokio::sync::Mutex<Series>> {
    Arc::new(tokio::sync::Mutex::new(series))
}

/// Acked writes that a read of all owners does not show, and values that nobody wrote.
pub(super) async fn check(client: &Client, field: &Field) -> Vec<String> {
    let ledger = lock(&field.ledger).clone();
    let mut wrong = Vec::new();
    for (key, (acked, last)) in ledger {
        let read = client.get(key.clone()).r(Quorum::All).await;
        let shown: Option<u64> = match &read {
            Ok(read) => read.values().filter_map(|value| number_of(value)).max(),
            Err(error) => {
                wrong.push(format!("{key} cannot be read: {error}"));
                continue;
            }
        };
        let shown = shown.unwrap_or(0);
        if shown < acked || shown > last {
            wrong.push(format!("{key} shows {shown}; acked {acked}, written {last}"));
        }
    }
    wrong
}

fn number_of(value: &[u8]) -> Option<u64> {
    let digits = value.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

/// Keys of each writer.
const KEYS: usize = 50;
/// The prober's keys: with its pause enough that none is written again within a request's deadline.
const PROBED: usize = 200;
const PROBE_PAUSE: Duration = Duration::from_millis(50);
