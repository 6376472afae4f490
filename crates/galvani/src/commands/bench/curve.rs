//! Open loops and what they found: one rate, or the overload curve.
//!
//! The curve first finds what the cluster can do, with a closed loop, and then offers shares and
//! multiples of it. Without retries, so that what is offered is what is said. Next: `open.rs`.

use crate::args::bench::Bench;
use crate::commands::Done;
use crate::commands::bench::open::{Load, Outcome};
use crate::commands::bench::summary::{latencies, ms, workload};
use crate::commands::bench::worker::{Key, Plan};
use crate::commands::bench::{DURATION, SEED_STEP, drive, share_out, some_failed};
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::report::json;
use crate::report::text::{Size, grouped};
use bytes::Bytes;
use serde_json::{Value, json as value};
use std::time::{Duration, Instant};

/// Runs the open loops that `args` ask for.
pub(crate) async fn run(
    app: &App,
    session: &Session,
    args: &Bench,
    value: &Bytes,
    mut keys: Vec<Key>,
) -> Done {
    let sustainable = match args.overload {
        true => Some(find(app, session, args, value, &mut keys).await),
        false => None,
    };
    let steps: &[f64] = if sustainable.is_some() { &STEPS } else { &[1.0] };
    let whole = match (sustainable, args.rate) {
        (Some(rate), _) => rate,
        (None, Some(rate)) => rate.get() as f64,
        (None, None) => return Ok(Exit::Done),
    };
    let duration = args.duration.unwrap_or(DURATION);
    let load = Load {
        bucket: session.bucket(&args.bucket),
        copies: args.copies,
        read: args.read,
        write: args.write,
        value: value.clone(),
        reads: args.workload.reads(args.reads),
        places: args.concurrency.map_or(usize::MAX, |places| places as usize),
        timeout: app.timeout(),
    };
    if sustainable.is_none() && !args.warmup.is_zero() {
        app.out.say(&format!("warm up  {}", humantime::format_duration(args.warmup)));
        drop(load.run(session, &mut keys, whole, args.warmup, SEED_STEP).await);
    }
    let mut rows = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let rate = (whole * step).max(1.0);
        app.out.say(&format!("measure  {} requests a second", grouped(rate.round() as u64)));
        let seed = (index as u64 + 2).wrapping_mul(SEED_STEP);
        rows.push((*step, load.run(session, &mut keys, rate, duration, seed).await));
        if index + 1 < steps.len() {
            tokio::time::sleep(REST).await;
        }
    }
    match app.out.is_json() {
        true => app.out.json(document(args, &load, sustainable, &rows))?,
        false => app.out.line(&page(args, &load, sustainable, &rows))?,
    }
    // What was refused, late or not sent is what an open loop is there to find.
    let other: u64 = rows.iter().map(|(_, row)| row.other()).sum();
    let sent = rows.iter().map(|(_, row)| row.offered - row.shed).sum();
    match (other, sustainable) {
        (1.., None) => Ok(some_failed(app, other, sent)),
        (0, _) | (_, Some(_)) => Ok(Exit::Done),
    }
}

/// What the cluster does for a closed loop of [`WORKERS`], per second.
async fn find(
    app: &App,
    session: &Session,
    args: &Bench,
    value: &Bytes,
    keys: &mut Vec<Key>,
) -> f64 {
    app.out.say(&format!("find     what {WORKERS} workers in a closed loop get done"));
    let workers = WORKERS.min(u32::try_from(keys.len()).unwrap_or(WORKERS));
    let mut workers = share_out(session, args, value, std::mem::take(keys), workers);
    drop(drive(&mut workers, &Plan::until(Instant::now() + args.warmup)).await);
    let began = Instant::now();
    let tally = drive(&mut workers, &Plan::until(began + FIND)).await;
    let rate = tally.done() as f64 / began.elapsed().as_secs_f64();
    keys.extend(workers.into_iter().flat_map(|worker| worker.keys));
    rate.max(1.0)
}

fn page(args: &Bench, load: &Load, sustainable: Option<f64>, rows: &[(f64, Outcome)]) -> String {
    let mut lines = vec![format!(
        "{}  open loop, no retries, {} for each request  {} keys of {}",
        workload(args),
        humantime::format_duration(load.timeout),
        grouped(args.keys.get()),
        Size(args.value),
    )];
    if let Some(rate) = sustainable {
        let rate = grouped(rate.round() as u64);
        lines.push(format!("  sustainable  {rate} ops/s ({WORKERS} workers in a closed loop)"));
    }
    let mut table = crate::output::table(&[
        "",
        "offered/s",
        "good/s",
        "refused/s",
        "timeout/s",
        "other/s",
        "shed/s",
        "p50 ms",
        "p99 ms",
        "bench late",
        "node memory",
    ]);
    for (step, row) in rows {
        let per_second =
            |count: u64| grouped((count as f64 / row.took.as_secs_f64()).round() as u64);
        table.add_row([
            format!("  {step}x"),
            per_second(row.offered),
            per_second(row.good),
            per_second(row.refused),
            per_second(row.timeouts),
            per_second(row.other()),
            per_second(row.shed),
            ms(row.quantile(0.5)),
            ms(row.quantile(0.99)),
            format!("{} ms", row.lag.as_millis()),
            Size(row.memory).to_string(),
        ]);
    }
    lines.push(crate::output::trimmed(&table));
    for (step, row) in rows {
        for (what, count) in &row.tally.errors {
            lines.push(format!("  {step}x failed {}  {what}", grouped(*count)));
        }
    }
    for (step, row) in rows {
        lines.extend(not_offered(*step, row.shed, row.offered, args.concurrency.is_some()));
    }
    lines.push("  latencies of answers, from when each request was due".to_owned());
    lines.join("\n")
}

/// What the bench itself could not send says nothing of the cluster.
fn not_offered(step: f64, shed: u64, offered: u64, places: bool) -> Option<String> {
    let (busy, more) = match places {
        true => ("all -c requests were under way", "-c"),
        false => ("all keys were in use", "--keys"),
    };
    let (unsent, all) = (grouped(shed), grouped(offered));
    (shed > 0).then(|| {
        format!(
            "  {step}x NOT OFFERED IN FULL: {unsent} of {all} requests were not sent, {busy}; \
             larger {more} offers more"
        )
    })
}

fn document(
    args: &Bench,
    load: &Load,
    sustainable: Option<f64>,
    rows: &[(f64, Outcome)],
) -> serde_json::Map<String, Value> {
    let mut map = json::object("galvani.bench/1");
    map.insert("workload".to_owned(), workload(args).into());
    map.insert("loop".to_owned(), "open".into());
    map.insert("keys".to_owned(), args.keys.get().into());
    map.insert("value_bytes".to_owned(), args.value.into());
    map.insert("timeout_ms".to_owned(), (load.timeout.as_millis() as u64).into());
    map.insert("sustainable_per_second".to_owned(), sustainable.into());
    let row = |(step, row): &(f64, Outcome)| {
        value!({
            "times": step,
            "rate": row.rate,
            "seconds": row.took.as_secs_f64(),
            "offered": row.offered,
            "good": row.good,
            "goodput_per_second": row.goodput(),
            "refused": row.refused,
            "timeouts": row.timeouts,
            "other": row.other(),
            "shed": row.shed,
            "errors": row.tally.errors,
            "get": latencies(&row.tally.gets),
            "put": latencies(&row.tally.puts),
            "p50_us": row.quantile(0.5),
            "p99_us": row.quantile(0.99),
            "bench_late_max_us": row.lag.as_micros() as u64,
            "node_memory_bytes_max": row.memory,
        })
    };
    map.insert("rows".to_owned(), rows.iter().map(row).collect::<Vec<Value>>().into());
    map
}

/// Of the sustainable rate.
const STEPS: [f64; 4] = [0.5, 1.0, 2.0, 4.0];
const WORKERS: u32 = 64;
const FIND: Duration = Duration::from_secs(5);
/// Between two steps, so that one does not begin in what the last one left.
const REST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::not_offered;

    #[test]
    fn load_that_was_not_sent_is_not_called_offered() {
        assert_eq!(not_offered(4.0, 0, 40_000, false), None);
        assert_eq!(
            not_offered(4.0, 1_234, 40_000, false).as_deref(),
            Some(
                "  4x NOT OFFERED IN FULL: 1 234 of 40 000 requests were not sent, all keys were \
                 in use; larger --keys offers more"
            )
        );
        let places = not_offered(1.0, 1, 2, true).expect("shed");
        assert!(places.ends_with("larger -c offers more"), "{places}");
    }
}
