//! The overload curve: shares and multiples of what the cluster can do.
//!
//! It is found first, with a closed loop. Without retries, so that what is offered is what is said.
//! Next: `open.rs`.

use crate::commands::Done;
use crate::commands::bench::driver::Driver;
use crate::commands::bench::{Measure, check_failed, summary};
use crate::exit::Exit;
use crate::report::json;
use crate::report::text::{Size, grouped};
use galvani_load::run::{Check, Run};
use std::time::Duration;

/// Runs the open loops, one after the other.
pub(crate) async fn run(bench: &Measure<'_>, driver: Driver<'_>) -> Done {
    let sustainable = bench.find(&driver, WORKERS, FIND).await;
    let mut rows = Vec::new();
    for (index, step) in STEPS.iter().enumerate() {
        let rate = (sustainable * step).max(1.0);
        let run = bench.open(&driver, rate, Some(sustainable), bench.args.duration()).await;
        rows.push((*step, run));
        if index + 1 < STEPS.len() {
            tokio::time::sleep(REST).await;
        }
    }
    let check = bench.check(&driver).await;
    let out = &bench.app.out;
    match out.is_json() {
        true => out.json(document(bench, sustainable, &rows, check))?,
        false => out.line(&page(bench, sustainable, &rows, check))?,
    }
    match check.filter(|check| !check.passed()) {
        Some(check) => Ok(check_failed(bench.app, &check)),
        None => Ok(Exit::Done),
    }
}

fn page(bench: &Measure, sustainable: f64, rows: &[(f64, Run)], check: Option<Check>) -> String {
    let args = bench.args;
    let mut lines = vec![format!(
        "{}  open loop, no retries, {} for each request  {} keys of {}",
        args.workload().title(),
        humantime::format_duration(bench.app.timeout()),
        grouped(args.keys.get()),
        Size(args.value_bytes()),
    )];
    let rate = grouped(sustainable.round() as u64);
    lines.push(format!("  sustainable  {rate} ops/s ({WORKERS} workers in a closed loop)"));
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
        "bench late p99",
        "node memory",
    ]);
    for (step, run) in rows {
        let per_second = |count: u64| grouped((count as f64 / run.seconds).round() as u64);
        let all = summary::merged(run);
        let lag = run.lag.map_or(0, |lag| lag.p99_us);
        table.add_row([
            format!("  {step}x"),
            per_second(run.offered),
            per_second(run.ops),
            per_second(run.refused),
            per_second(run.timeouts),
            per_second(summary::other(run)),
            per_second(run.shed),
            summary::ms(all.value_at_quantile(0.5)),
            summary::ms(all.value_at_quantile(0.99)),
            format!("{} ms", summary::ms(lag)),
            Size(run.node_memory_bytes_max).to_string(),
        ]);
    }
    lines.push(crate::output::trimmed(&table));
    for (step, run) in rows {
        for (what, count) in &run.errors {
            lines.push(format!("  {step}x failed {}  {what}", grouped(*count)));
        }
    }
    for (step, run) in rows {
        lines.extend(not_offered(*step, run.shed, run.offered, args.concurrency.is_some()));
        if run.generator_bound {
            lines.push(format!("  {step}x GENERATOR-BOUND: it says more of the bench"));
        }
    }
    lines.push(
        "  latencies from when each request was due; a timeout counts as its time".to_owned(),
    );
    lines.extend(check.map(|check| summary::check_line(&check)));
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
    bench: &Measure,
    sustainable: f64,
    rows: &[(f64, Run)],
    check: Option<Check>,
) -> serde_json::Map<String, serde_json::Value> {
    let args = bench.args;
    let mut map = json::object("galvani.bench/1");
    map.insert("workload".to_owned(), args.workload().title().into());
    map.insert("loop".to_owned(), "open".into());
    map.insert("keys".to_owned(), args.keys.get().into());
    map.insert("value_bytes".to_owned(), args.value_bytes().into());
    map.insert("timeout_ms".to_owned(), (bench.app.timeout().as_millis() as u64).into());
    map.insert("sustainable_per_second".to_owned(), sustainable.into());
    map.insert("check".to_owned(), serde_json::to_value(check).unwrap_or_default());
    let rows: Vec<_> = rows.iter().map(|(step, run)| summary::row(*step, run)).collect();
    map.insert("rows".to_owned(), rows.into());
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
