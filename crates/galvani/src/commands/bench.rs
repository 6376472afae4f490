//! `bench`: a closed loop of workers, or an open loop, against a cluster.
//!
//! Phases: prepare (every key has a value and its context is known), warm up, measure. The CPU the
//! node processes spent comes from their own status before and after. Closed loop: tail latencies
//! are optimistic, and the report says so. Next to read: `bench/worker.rs`, `bench/summary.rs`; for
//! open loops `bench/curve.rs`.

mod curve;
mod open;
mod prepare;
mod summary;
mod worker;

use crate::args::bench::Bench;
use crate::args::line::Line;
use crate::commands::patience::Signals;
use crate::commands::{Done, options};
use crate::connect::{App, RETRIES, Session};
use crate::exit::Exit;
use crate::report::Report;
use crate::report::text::{count, grouped};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use galvani_client::NodeId;
use galvani_model::limits::VALUE_BYTES_MAX;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use summary::{Cpu, Summary};
use worker::{Key, Plan, Tally, Worker};

/// Runs the bench; Ctrl-C ends it without figures.
pub(crate) async fn run(app: &App, args: Bench) -> Done {
    check(&args)?;
    let mut signals = Signals::taken()?;
    tokio::select! {
        done = measured(app, &args) => done,
        () = signals.any() => {
            app.out.say("interrupted: no figures; the keys bench/.. stay");
            Ok(Exit::Interrupted)
        }
    }
}

async fn measured(app: &App, args: &Bench) -> Done {
    let open = args.overload || args.rate.is_some();
    let session = app.connect_with(app.timeout(), RETRIES).await?;
    let value = Bytes::from(pattern(args.value as usize));
    app.out.say(&format!("prepare  {}", count(args.keys.get(), "key")));
    let bucket = &args.bucket.bucket;
    let retype = options::retype(app, "bench", bucket, &Bytes::new(), args.line());
    let keys = prepare::run(app, &session, args, &value, &retype).await?;
    if open {
        let session = app.connect_with(app.timeout(), 0).await?;
        return curve::run(app, &session, args, &value, keys).await;
    }
    let concurrency = args.concurrency.unwrap_or(WORKERS);
    let mut workers = share_out(&session, args, &value, keys, concurrency);
    if !args.warmup.is_zero() {
        app.out.say(&format!("warm up  {}", humantime::format_duration(args.warmup)));
        let plan = Plan::until(Instant::now() + args.warmup);
        drop(drive(&mut workers, &plan).await);
    }
    app.out.say("measure");
    let before = cpu_of(&session).await;
    let began = Instant::now();
    let plan = match args.count {
        Some(count) => Plan::of_count(count.get()),
        None => Plan::until(began + args.duration.unwrap_or(DURATION)),
    };
    let tally = drive(&mut workers, &plan).await;
    let took = began.elapsed();
    let cpu = Cpu::between(&before, &cpu_of(&session).await);
    let summary = Summary { args, concurrency, tally, took, cpu };
    match app.out.is_json() {
        true => app.out.json(summary.document())?,
        false => app.out.line(&summary.page())?,
    }
    match summary.tally.failed() {
        0 => Ok(Exit::Done),
        failed => Ok(some_failed(app, failed, failed + summary.tally.done())),
    }
}

/// Says that requests failed, beside the figures; how to end then.
fn some_failed(app: &App, failed: u64, all: u64) -> Exit {
    let what = format!("bench: {} of {} failed", grouped(failed), count(all, "request"));
    let report = Report::new(Exit::Unexpected, what).why("how each failed stands in the figures");
    app.out.block(&report.next("see", app.again(Line::new("status")).to_string()));
    Exit::Unexpected
}

fn check(args: &Bench) -> Result<(), Report> {
    let wrong =
        |what: String| Err(Report::new(Exit::Usage, what).next("see", "galvani help bench"));
    if args.value > VALUE_BYTES_MAX as u64 {
        return wrong(format!(
            "--value {} is over the largest value, {VALUE_BYTES_MAX}",
            args.value
        ));
    }
    let open = args.overload || args.rate.is_some();
    let workers = args.concurrency.unwrap_or(if open { 1 } else { WORKERS });
    if !open && workers > WORKERS_MAX {
        return wrong(format!("-c {workers} is over {WORKERS_MAX}"));
    }
    if args.keys.get() < u64::from(workers) {
        let keys = args.keys;
        return wrong(format!(
            "--keys {keys} is less than the {workers} workers: each has its own"
        ));
    }
    if args.keys.get() > KEYS_MAX {
        return wrong(format!("--keys {} is over {KEYS_MAX}", args.keys));
    }
    Ok(())
}

/// Workers with keys of their own: no two write the same key.
fn share_out(
    session: &Session,
    args: &Bench,
    value: &Bytes,
    keys: Vec<Key>,
    workers: u32,
) -> Vec<Worker> {
    let reads = args.workload.reads(args.reads);
    let mut shares: Vec<Vec<Key>> = (0..workers).map(|_| Vec::new()).collect();
    let workers = shares.len();
    for (index, key) in keys.into_iter().enumerate() {
        shares[index % workers].push(key);
    }
    let worker = |(seed, keys): (usize, Vec<Key>)| Worker {
        bucket: session.bucket(&args.bucket),
        copies: args.copies,
        read: args.read,
        write: args.write,
        value: value.clone(),
        reads,
        keys,
        state: (seed as u64 + 1).wrapping_mul(SEED_STEP),
    };
    shares.into_iter().enumerate().map(worker).collect()
}

/// Runs all workers to the end of the plan.
async fn drive(workers: &mut [Worker], plan: &Plan) -> Tally {
    let mut running: stream::FuturesUnordered<_> =
        workers.iter_mut().map(|worker| worker.run(plan)).collect();
    let mut all = Tally::new();
    while let Some(tally) = running.next().await {
        all.add(&tally);
    }
    all
}

/// CPU time of each node's process so far, by node and process.
async fn cpu_of(session: &Session) -> BTreeMap<(NodeId, u32), u64> {
    let reports = session.client.status().await;
    let answered = reports.into_iter().filter_map(|report| Some((report.id, report.status.ok()?)));
    answered.map(|(id, status)| ((id, status.pid), status.cpu_micros)).collect()
}

/// Bytes that do not compress to nothing, the same for every run.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = SEED_STEP;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&worker::next_random(&mut state).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

const DURATION: Duration = Duration::from_secs(10);
/// Workers of a closed loop unless `-c` says otherwise, and at most.
const WORKERS: u32 = 16;
const WORKERS_MAX: u32 = 4_096;
/// Each key costs its name and a context, about 200 bytes.
const KEYS_MAX: u64 = 10_000_000;
/// The golden ratio in 64 bits, as SplitMix64 steps.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
