//! Many runs, one table: all pairs of read and write quorums, or the highest rate that holds an
//! objective.
//!
//! All runs of a sweep use the same keys and, with quorums, the same rate: what differs comes from
//! what is swept. Next to read: `crates/galvani-load/src/search.rs`.

use crate::args::bench::{Files, Pages, Run as Args, Sweep};
use crate::commands::Done;
use crate::commands::bench::driver::Driver;
use crate::commands::bench::{Measure, check_failed, summary};
use crate::exit::Exit;
use crate::report::text::{Size, grouped};
use crate::report::{Report, json};
use galvani_client::Quorum;
use galvani_load::compare::Objective;
use galvani_load::run::{Check, Run};
use galvani_load::search::Search;
use serde_json::{Value, json as value};

/// Before anything is made: whether the sweep makes sense.
pub(crate) fn check(args: &Sweep) -> Result<(), Report> {
    let wrong = |what: String, why: &str| {
        let report = Report::new(Exit::Usage, what).why(why);
        Err(report.next("see", "galvani help bench sweep"))
    };
    let run = &args.run;
    if run.overload || run.count.is_some() {
        let what = "bench sweep: --overload and --count are for bench run".to_owned();
        return wrong(what, "a sweep takes --duration for each of its runs");
    }
    let Files { save, pages: Pages { hlog, html, ycsb_output } } = &run.files;
    if [save, hlog, html, ycsb_output].into_iter().any(Option::is_some) {
        let what =
            "bench sweep: --save, --hlog, --html and --ycsb-output are of one run".to_owned();
        return wrong(what, "a sweep has many; -o json prints them all");
    }
    if args.quorums && (run.read.r.is_some() || run.write.w.is_some()) {
        let what = "bench sweep --quorums: -r and -w are what is swept".to_owned();
        return wrong(what, "every pair is run");
    }
    let Some(objective) = &args.slo else { return Ok(()) };
    if run.is_closed() {
        let what = "bench sweep --slo: -c asks for a closed loop".to_owned();
        return wrong(what, "an objective is held at a rate: use --rate to begin with one");
    }
    let of = objective.metric.of.as_str();
    let mix = run.mix();
    let there = mix.is_some_and(|mix| match of {
        "get" => mix.get > 0,
        "put" => mix.put > 0,
        "insert" => mix.insert > 0,
        _ => mix.rmw > 0,
    });
    match there {
        true => Ok(()),
        false => {
            let name = run.workload().name();
            wrong(format!("bench sweep: workload {name} has no {of}"), "nothing would be measured")
        }
    }
}

/// Runs the sweep.
pub(crate) async fn run(bench: &Measure<'_>, driver: Driver<'_>, args: &Sweep) -> Done {
    match &args.slo {
        Some(objective) => slo(bench, driver, objective).await,
        None => quorums(bench, driver).await,
    }
}

async fn quorums(bench: &Measure<'_>, driver: Driver<'_>) -> Done {
    let n = bench.copies();
    let rate = match bench.args.is_closed() {
        true => None,
        false => Some(bench.rate(&driver).await.0),
    };
    let pairs: Vec<(u8, u8)> = (1..=n).flat_map(|r| (1..=n).map(move |w| (r, w))).collect();
    let asked = |(r, w): &(u8, u8)| {
        let mut args: Args = bench.args.clone();
        args.read.r = Some(Quorum::Exactly(*r));
        args.write.w = Some(Quorum::Exactly(*w));
        args
    };
    let all: Vec<Args> = pairs.iter().map(asked).collect();
    let (mut driver, mut rows) = (driver, Vec::new());
    for ((r, w), args) in pairs.iter().zip(&all) {
        bench.app.out.say(&format!("r={r} w={w}"));
        driver = driver.asking(args);
        let one = bench.asking(args);
        let run = match rate {
            Some(rate) => one.open(&driver, rate, None, args.duration()).await,
            None => one.closed(&driver).await,
        };
        rows.push((*r, *w, run));
    }
    let check = bench.check(&driver).await;
    let out = &bench.app.out;
    match out.is_json() {
        true => out.json(document("quorums", quorum_rows(n, &rows), check))?,
        false => out.line(&quorum_page(bench, n, rate, &rows, check))?,
    }
    end(bench, check)
}

fn quorum_page(
    bench: &Measure<'_>,
    n: u8,
    rate: Option<f64>,
    rows: &[(u8, u8, Run)],
    check: Option<Check>,
) -> String {
    let args = bench.args;
    let shape = match rate {
        Some(rate) => format!("open loop, {}/s", grouped(rate.round() as u64)),
        None => "closed loop: tail latencies are optimistic".to_owned(),
    };
    let mut lines = vec![format!(
        "{}  n={n}  {shape}  {} keys of {}  {} each",
        args.workload().title(),
        grouped(args.keys.get()),
        Size(args.value_bytes()),
        humantime::format_duration(args.duration())
    )];
    let kinds: Vec<&str> = rows
        .first()
        .map(|(_, _, run)| run.kinds())
        .unwrap_or_default()
        .iter()
        .map(|k| k.0)
        .collect();
    let mut header = vec!["  r w".to_owned(), "ops/s".to_owned()];
    header.extend(kinds.iter().map(|kind| format!("{kind} p50 / p99 ms")));
    header.extend(["cpu s/1000", "failed", ""].map(str::to_owned));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = crate::output::table(&header);
    for (r, w, run) in rows {
        let mut row = vec![format!("  {r} {w}"), grouped(run.ops_per_second.round() as u64)];
        let all = run.kinds();
        row.extend(kinds.iter().map(|kind| {
            let found = all.iter().find(|(name, _)| name == kind);
            let words = |latency: &galvani_load::run::Latency| {
                format!("{} / {}", summary::ms(latency.p50_us), summary::ms(latency.p99_us))
            };
            found.map_or_else(|| "-".to_owned(), |(_, latency)| words(latency))
        }));
        row.push(run.cpu_seconds_per_1000_ops.map_or("-".to_owned(), |cpu| format!("{cpu:.3}")));
        row.push(grouped(run.failed));
        let bound = if run.generator_bound { "GENERATOR-BOUND " } else { "" };
        let misses = if r + w <= n { "reads may miss writes" } else { "" };
        row.push(format!("{bound}{misses}"));
        table.add_row(row);
    }
    lines.push(crate::output::trimmed(&table));
    lines.extend(check.map(|check| summary::check_line(&check)));
    lines.join("\n")
}

fn quorum_rows(n: u8, rows: &[(u8, u8, Run)]) -> Vec<Value> {
    let row = |(r, w, run): &(u8, u8, Run)| {
        let run = summary::document(run, Vec::new());
        value!({ "r": r, "w": w, "n": n, "overlap": r + w > n, "run": run })
    };
    rows.iter().map(row).collect()
}

async fn slo(bench: &Measure<'_>, driver: Driver<'_>, objective: &Objective) -> Done {
    let (first, _) = bench.rate(&driver).await;
    bench.warm_up_open(&driver, first).await;
    let (mut search, mut rows) = (Search::from(first, TRIES), Vec::new());
    while let Some(rate) = search.next() {
        let run = bench.open(&driver, rate, None, bench.args.duration()).await;
        let held = holds(objective, &run);
        search.tell(held);
        rows.push((rate, held, run));
    }
    let check = bench.check(&driver).await;
    rows.sort_by(|one, other| one.0.total_cmp(&other.0));
    let out = &bench.app.out;
    match out.is_json() {
        true => {
            let row = |(rate, held, run): &(f64, bool, Run)| value!({ "rate": rate, "holds": held, "run": summary::document(run, Vec::new()) });
            let mut map = document("slo", rows.iter().map(row).collect(), check);
            map.insert("highest_rate".to_owned(), search.found().into());
            out.json(map)?;
        }
        false => out.line(&slo_page(objective, &rows, search.found(), check))?,
    }
    if search.found().is_none() {
        let what = format!("bench sweep: no rate was found that holds {}", words(objective));
        let report = Report::new(Exit::Unexpected, what).why("what each rate gave stands above");
        bench.app.out.block(&report.next("see", "galvani help bench sweep"));
        return Ok(Exit::Unexpected);
    }
    end(bench, check)
}

/// The objective must hold for what was offered: at most one request in a thousand may have failed
/// or not been sent. A bench that lagged only adds to latencies: what holds all the same holds.
fn holds(objective: &Objective, run: &Run) -> bool {
    let missing = (run.failed + run.shed) * 1_000 > run.offered;
    objective.holds(run) && !missing
}

fn slo_page(
    objective: &Objective,
    rows: &[(f64, bool, Run)],
    found: Option<f64>,
    check: Option<Check>,
) -> String {
    let metric = objective.metric.to_string();
    let mut table = crate::output::table(&["  rate/s", "good/s", &metric, "failed", "lag p99", ""]);
    for (rate, held, run) in rows {
        let verdict = match (held, run.generator_bound) {
            (true, false) => "holds",
            (true, true) => "holds, though the bench lagged",
            (false, true) => "GENERATOR-BOUND: the bench may be the limit",
            (false, false) => "does not hold",
        };
        table.add_row([
            format!("  {}", grouped(rate.round() as u64)),
            grouped(run.ops_per_second.round() as u64),
            format!("{:.2} ms", objective.metric.whole(run).unwrap_or(f64::NAN) / 1e3),
            grouped(run.failed + run.shed),
            format!("{} ms", summary::ms(run.lag.map_or(0, |lag| lag.p99_us))),
            verdict.to_owned(),
        ]);
    }
    let words = words(objective);
    let mut lines = vec![crate::output::trimmed(&table)];
    let bound = rows.iter().any(|(_, held, run)| !held && run.generator_bound);
    let least = if bound { "at least " } else { "" };
    lines.push(match found {
        Some(rate) => format!("{words} holds up to {least}{}/s", grouped(rate.round() as u64)),
        None => format!("{words} does not hold at any rate"),
    });
    lines.extend(check.map(|check| summary::check_line(&check)));
    lines.join("\n")
}

fn words(objective: &Objective) -> String {
    format!("{}<{}ms", objective.metric, objective.micros / 1e3)
}

fn document(of: &str, rows: Vec<Value>, check: Option<Check>) -> serde_json::Map<String, Value> {
    let mut map = json::object("galvani.bench-sweep/1");
    map.insert("sweep".to_owned(), of.into());
    map.insert("rows".to_owned(), rows.into());
    map.insert("check".to_owned(), serde_json::to_value(check).unwrap_or_default());
    map
}

fn end(bench: &Measure<'_>, check: Option<Check>) -> Done {
    match check.filter(|check| !check.passed()) {
        Some(check) => Ok(check_failed(bench.app, &check)),
        None => Ok(Exit::Done),
    }
}

/// Rates that are tried at most.
const TRIES: u32 = 12;

#[cfg(test)]
mod tests {
    use super::{check, holds};
    use crate::args::bench::BenchCommand;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use galvani_load::run::{Latency, Run};

    #[test]
    fn an_objective_is_not_held_by_what_was_not_sent() {
        let objective = "put.p99<5ms".parse().expect("an objective");
        let put = Some(Latency { p99_us: 4_000, ..Latency::default() });
        let fine = Run { put, offered: 1_000, failed: 1, ..Run::default() };
        assert!(holds(&objective, &fine));
        assert!(!holds(&objective, &Run { shed: 1, ..fine.clone() }));
        assert!(holds(&objective, &Run { generator_bound: true, ..fine.clone() }));
        assert!(!holds(&objective, &Run { put: None, ..fine }));
    }

    #[test]
    fn sweeps_that_make_no_sense_are_refused() {
        let swept = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|why| panic!("{why}"));
            let Command::Bench(bench) = cli.command else { panic!("bench") };
            let Some(BenchCommand::Sweep(args)) = bench.command else { panic!("sweep") };
            check(&args).map_err(|report| report.exit.code())
        };
        for line in ["--quorums -c 8", "--quorums --rate 50", "put --slo put.p99<5ms"] {
            assert_eq!(swept(&format!("galvani bench sweep {line}")), Ok(()), "{line}");
        }
        for line in [
            "--quorums -r 2",
            "--quorums --overload",
            "--quorums --save x",
            "get --slo put.p99<5ms",
            "--slo put.p99<5ms -c 8",
        ] {
            assert_eq!(swept(&format!("galvani bench sweep {line}")), Err(2), "{line}");
        }
        for line in ["galvani bench sweep", "galvani bench sweep --quorums --slo put.p99<5ms"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
